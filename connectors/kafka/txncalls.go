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

// fence ends what an earlier owner left open.
func (x *transaction) fence(ctx context.Context) error {
	select {
	case x.lock <- struct{}{}:
		defer x.unlock()
	case <-ctx.Done():
		return ctx.Err()
	}
	x.t.g.mu.Lock()
	x.t.exact = true
	x.t.g.mu.Unlock()
	if x.session != nil {
		return nil
	}
	return x.begin(ctx)
}

// begin opens a session.
func (x *transaction) begin(ctx context.Context) error {
	x.verified = false
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
func (x *transaction) drop(cause error) {
	g, s := x.t.g, x.session
	x.session = nil
	if isFenced(cause) {
		g.c.cfg.Metrics.transaction(g.topic, g.group, txnFenced)
		return
	}
	g.c.cfg.Metrics.transaction(g.topic, g.group, txnAborted)
	g.c.spawn(func() {
		ctx, cancel := context.WithTimeout(g.c.closing, g.c.cfg.CallTimeout)
		defer cancel()
		if err := x.end(ctx, s, false); err != nil {
			g.c.log.Debug("abort", "topic", g.topic, "partition", x.t.p, "error", err) // the next beginning or the timeout does it
		}
	})
}

// persist calls fn until it succeeds or fails for good. A transaction's end is answered before it is complete, so the
// next one is refused for a moment.
func (x *transaction) persist(ctx context.Context, fn func() error) error {
	for tries := 0; ; tries++ {
		err := fn()
		if err == nil || ctx.Err() != nil || x.t.g.c.closing.Err() != nil || !passing(err) {
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

// attempt makes the transaction. After an error nothing of it is seen, unless x.tried says that this is not known.
func (x *transaction) attempt(ctx context.Context, w *txnWrite, to place) error {
	ctx, cancel := context.WithTimeout(ctx, txnTimeout)
	defer cancel()
	s, g := x.session, x.t.g
	if err := x.add(ctx, s, w); err != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	offset := make(chan error, 1)
	go func() {
		err := x.persist(work, func() error { return x.commitOffset(work, s, to) })
		if err != nil {
			stop()
		}
		offset <- err
	}()
	err := w.send(work, g.c, x.coord.key, s)
	if err != nil {
		stop()
	}
	if oerr := <-offset; err == nil || errors.Is(err, context.Canceled) && oerr != nil {
		err = oerr // the first of both
	}
	if err != nil {
		return err
	}
	x.tried = to.offset
	if err := x.persist(ctx, func() error { return x.end(ctx, s, true) }); err != nil {
		return err
	}
	x.tried = -1
	return nil
}

// add makes the partitions that are written to, and the group, part of the transaction.
func (x *transaction) add(ctx context.Context, s *txnSession, w *txnWrite) error {
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
	req := &addoffsetstotxn.Request{TransactionalID: x.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, GroupID: x.t.g.coord.key}
	return x.persist(ctx, func() error {
		_, err := x.coord.ask(ctx, req, func(m protocol.Message) int16 { return m.(*addoffsetstotxn.Response).ErrorCode })
		return err
	})
}

// operationNotAttempted is the answer about a partition when the trouble is with another one.
const operationNotAttempted = 55

// commitOffset adds the group's new place to the transaction, as a member of its generation.
func (x *transaction) commitOffset(ctx context.Context, s *txnSession, to place) error {
	t, g := x.t, x.t.g
	g.mu.Lock()
	gen, cut, over := g.mu.gen, g.mu.cut, t.over
	g.mu.Unlock()
	if over {
		return t.revoked("kafka.Transact")
	}
	if cut || gen.member == "" {
		return kafka.UnknownMemberId
	}
	_, err := g.coord.ask(ctx, &txnoffsetcommit.Request{
		TransactionalID: x.coord.key, GroupID: g.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, GenerationID: gen.id, MemberID: gen.member,
		Topics: []txnoffsetcommit.RequestTopic{{Name: g.in, Partitions: []txnoffsetcommit.RequestPartition{
			{Partition: t.p, CommittedOffset: to.offset, CommittedLeaderEpoch: -1, CommittedMetadata: to.note()}}}},
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
func (x *transaction) end(ctx context.Context, s *txnSession, commit bool) error {
	_, err := x.coord.ask(ctx, &endtxn.Request{TransactionalID: x.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch, Committed: commit},
		func(m protocol.Message) int16 { return m.(*endtxn.Response).ErrorCode })
	return err
}
