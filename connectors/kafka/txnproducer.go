package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addoffsetstotxn"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/txnoffsetcommit"
)

// txnProducer is one user of a transactional id, who makes one transaction after another: records and a group's offset.
// One goroutine at a time uses it.
type txnProducer struct {
	c       *Client
	coord   *coordinator // of the transactional id
	group   *coordinator // whose offset is part of each transaction
	session *txnSession  // nil: begin first
}

// txnSession is the time between two beginnings: sequences of each partition run through it.
type txnSession struct {
	id    int64
	epoch int16
	seqs  map[laneKey]int32
}

// begin opens a session: what is open under the id is ended, and its earlier users are fenced.
func (x *txnProducer) begin(ctx context.Context) error {
	req := &initproducerid.Request{TransactionalID: x.coord.key, TransactionTimeoutMs: int32(txnTimeout.Milliseconds()), ProducerID: -1, ProducerEpoch: -1}
	return x.persist(ctx, func() error {
		m, err := x.coord.ask(ctx, req, func(m protocol.Message) int16 { return m.(*initproducerid.Response).ErrorCode })
		if err != nil {
			return err
		}
		r := m.(*initproducerid.Response)
		x.session = &txnSession{id: r.ProducerID, epoch: r.ProducerEpoch, seqs: map[laneKey]int32{}}
		return nil
	})
}

// drop ends the session after a failure. What is open is aborted beside the work, so that readers of the outputs need
// not wait for the next beginning; that does no harm if it turns out to be complete.
func (x *txnProducer) drop(cause error) {
	s := x.session
	x.session = nil
	if isFenced(cause) {
		return
	}
	x.c.spawn(func() {
		ctx, cancel := context.WithTimeout(x.c.closing, x.c.cfg.CallTimeout)
		defer cancel()
		if err := x.end(ctx, s, false); err != nil {
			x.c.log.Debug("abort", "transaction", x.coord.key, "error", err) // the next beginning or the timeout does it
		}
	})
}

// persist calls fn until it succeeds or fails for good. A transaction's end is answered before it is complete, so the
// next one is refused for a moment.
func (x *txnProducer) persist(ctx context.Context, fn func() error) error {
	for tries := 0; ; tries++ {
		err := fn()
		if err == nil || ctx.Err() != nil || x.c.closing.Err() != nil || !passing(err) {
			return err
		}
		pause := min(retryPause<<min(tries, 4), time.Second/4)
		if errors.Is(err, kafka.ConcurrentTransactions) {
			pause = time.Millisecond
		}
		if sleep(ctx, pause) != nil {
			return err
		}
	}
}

// attempt makes one transaction of the records and of what offset commits, side by side. It calls ending before it asks
// for the end: after an error that came later it is not known whether the transaction is seen, before, that it is not.
func (x *txnProducer) attempt(ctx context.Context, w *txnWrite, offset func(context.Context, *txnSession) error, ending func()) error {
	ctx, cancel := context.WithTimeout(ctx, txnTimeout)
	defer cancel()
	s := x.session
	if err := x.add(ctx, s, w); err != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	committed := make(chan error, 1)
	go func() {
		err := x.persist(work, func() error { return offset(work, s) })
		if err != nil {
			stop()
		}
		committed <- err
	}()
	err := w.send(work, x.c, x.coord.key, s)
	if err != nil {
		stop()
	}
	if oerr := <-committed; err == nil || errors.Is(err, context.Canceled) && oerr != nil {
		err = oerr // the first of both
	}
	if err != nil {
		return err
	}
	ending()
	return x.persist(ctx, func() error { return x.end(ctx, s, true) })
}

// add makes the partitions that are written to, and the group, part of the transaction.
func (x *txnProducer) add(ctx context.Context, s *txnSession, w *txnWrite) error {
	if len(w.lanes) > 0 {
		req := &addpartitionstotxn.Request{TransactionalID: x.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, Topics: w.topics()}
		err := x.persist(ctx, func() error {
			_, err := x.coord.ask(ctx, req, func(m protocol.Message) int16 {
				code := int16(0)
				for _, t := range m.(*addpartitionstotxn.Response).Results {
					for _, p := range t.Results {
						if code == 0 || code == int16(operationNotAttempted) {
							code = first(p.ErrorCode, code)
						}
					}
				}
				return code
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	req := &addoffsetstotxn.Request{TransactionalID: x.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, GroupID: x.group.key}
	return x.persist(ctx, func() error {
		_, err := x.coord.ask(ctx, req, func(m protocol.Message) int16 { return m.(*addoffsetstotxn.Response).ErrorCode })
		return err
	})
}

// operationNotAttempted is the answer about a partition when the trouble is with another one.
const operationNotAttempted = 55

// commit adds the group's new offset in a partition to the transaction, as a member of a generation; nobody's member of
// generation -1 may if the group has no members.
func (x *txnProducer) commit(ctx context.Context, s *txnSession, g generation, topic string, partition int32, offset int64, note string) error {
	_, err := x.group.ask(ctx, &txnoffsetcommit.Request{
		TransactionalID: x.coord.key, GroupID: x.group.key, ProducerID: s.id, ProducerEpoch: s.epoch, GenerationID: g.id, MemberID: g.member,
		Topics: []txnoffsetcommit.RequestTopic{{Name: topic, Partitions: []txnoffsetcommit.RequestPartition{
			{Partition: partition, CommittedOffset: offset, CommittedLeaderEpoch: -1, CommittedMetadata: note}}}},
	}, func(m protocol.Message) int16 {
		for _, t := range m.(*txnoffsetcommit.Response).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return p.ErrorCode
				}
			}
		}
		return 0
	})
	return err
}

// end completes the transaction, or drops it.
func (x *txnProducer) end(ctx context.Context, s *txnSession, commit bool) error {
	_, err := x.coord.ask(ctx, &endtxn.Request{TransactionalID: x.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, Committed: commit},
		func(m protocol.Message) int16 { return m.(*endtxn.Response).ErrorCode })
	return err
}
