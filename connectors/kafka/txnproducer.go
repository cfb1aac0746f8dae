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
	group   *coordinator // whose offset in a partition is part of each transaction
	in      string       // the partition's topic, in the cluster
	p       int32
	session *txnSession // nil: begin first
	// blank is the session of a transaction that may have begun, and in which nothing is written yet. It must end as the
	// one before it did: see mend.
	blank *txnSession
}

// txnSession is the time between two beginnings: sequences of each partition run through it.
type txnSession struct {
	id        int64
	epoch     int16
	seqs      map[laneKey]int32
	committed bool            // the last transaction under the id, which may be of an earlier session
	ended     time.Time       // when that was, in this session
	looked    map[string]bool // topics in which nothing is open
}

// begin opens a session: what is open under the id is ended, and its earlier users are fenced.
func (x *txnProducer) begin(ctx context.Context) error {
	if b := x.blank; b != nil {
		err := x.persist(ctx, func() error { return x.end(ctx, b, b.committed) })
		if err != nil && (ctx.Err() != nil || x.c.closing.Err() != nil) {
			return err
		}
		x.blank = nil // it had not begun, is complete, or is somebody else's
	}
	return x.persist(ctx, func() error {
		committed, err := x.outcome(ctx)
		if err != nil {
			return err
		}
		timeout := txnTimeout
		if committed {
			timeout = txnTimeoutCommitted
		}
		req := &initproducerid.Request{TransactionalID: x.coord.key, TransactionTimeoutMs: int32(timeout.Milliseconds()), ProducerID: -1, ProducerEpoch: -1}
		m, err := x.coord.ask(ctx, req, func(m protocol.Message) int16 { return m.(*initproducerid.Response).ErrorCode })
		if err != nil {
			return err
		}
		r := m.(*initproducerid.Response)
		x.session = &txnSession{id: r.ProducerID, epoch: r.ProducerEpoch, seqs: map[laneKey]int32{}, committed: committed, looked: map[string]bool{}}
		return nil
	})
}

// place returns where the group is. A session has begun.
func (x *txnProducer) place(ctx context.Context) (place, error) {
	at, err := x.group.places(ctx, x.in, []int32{x.p})
	if errors.Is(err, kafka.UnstableOffsetCommit) { // and nothing is open under the id
		if err := x.close(ctx, x.session, nil); err != nil {
			return place{}, err
		}
		at, err = x.group.places(ctx, x.in, []int32{x.p})
	}
	return at[x.p], err
}

// drop ends the session after a failure. What is open is aborted beside the work, so that readers of the outputs need
// not wait for the next beginning; that does no harm if it turns out to be complete. What nothing was written in is left
// to the next beginning.
func (x *txnProducer) drop(cause error) {
	s := x.session
	x.session = nil
	if isFenced(cause) || x.blank != nil {
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
// The session goes on only after success.
func (x *txnProducer) attempt(ctx context.Context, w *txnWrite, offset func(context.Context, *txnSession) error, ending func()) error {
	ctx, cancel := context.WithTimeout(ctx, txnTimeout)
	defer cancel()
	s := x.session
	if err := x.mend(ctx, s, w.topics()); err != nil {
		return err
	}
	for {
		trouble, err := x.add(ctx, s, w.partitions())
		if err == nil && trouble { // brokers may have started again since mend looked
			trouble, err = x.leftover(ctx, s, w.topics())
		}
		if err != nil {
			return err
		}
		if !trouble {
			break
		}
		if err := x.endBlank(ctx, s); err != nil {
			return err
		}
	}
	x.blank = nil
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
	if err := x.persist(ctx, func() error { return x.end(ctx, s, true) }); err != nil {
		return err
	}
	s.committed, s.ended = true, time.Now()
	return nil
}

// add makes partitions, and the group, part of the transaction. trouble: it took more than waiting for the end of the one
// before.
func (x *txnProducer) add(ctx context.Context, s *txnSession, in []addpartitionstotxn.RequestTopic) (trouble bool, _ error) {
	x.blank = s
	ask := func(req protocol.Message, code func(protocol.Message) int16) error {
		return x.persist(ctx, func() error {
			_, err := x.coord.ask(ctx, req, code)
			if err != nil && !errors.Is(err, kafka.ConcurrentTransactions) {
				trouble = true
				clear(s.looked)
			}
			return err
		})
	}
	if len(in) > 0 {
		req := &addpartitionstotxn.Request{TransactionalID: x.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, Topics: in}
		err := ask(req, func(m protocol.Message) int16 {
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
		if err != nil {
			return trouble, err
		}
	}
	req := &addoffsetstotxn.Request{TransactionalID: x.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, GroupID: x.group.key}
	err := ask(req, func(m protocol.Message) int16 { return m.(*addoffsetstotxn.Response).ErrorCode })
	return trouble, err
}

// operationNotAttempted is the answer about a partition when the trouble is with another one.
const operationNotAttempted = 55

// commit adds the group's new offset to the transaction, as a member of a generation; nobody's member of
// generation -1 may if the group has no members.
func (x *txnProducer) commit(ctx context.Context, s *txnSession, g generation, offset int64, note string) error {
	_, err := x.group.ask(ctx, &txnoffsetcommit.Request{
		TransactionalID: x.coord.key, GroupID: x.group.key, ProducerID: s.id, ProducerEpoch: s.epoch, GenerationID: g.id, MemberID: g.member,
		Topics: []txnoffsetcommit.RequestTopic{{Name: x.in, Partitions: []txnoffsetcommit.RequestPartition{
			{Partition: x.p, CommittedOffset: offset, CommittedLeaderEpoch: -1, CommittedMetadata: note}}}},
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
