package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// txnTimeout is how long a transaction may stay open before its coordinator ends it: as long as nobody reads past what
// was written under it, if its owner is gone and nobody takes over.
const txnTimeout = 10 * time.Second

// transaction makes the transactions of one tenure, one after another, all under the partition's transactional id.
//
// Two things keep an owner that lost the partition from doing harm. The offset is committed in the name of a member of
// the group's generation, so a transaction of somebody who is not in it cannot be completed, whatever it wrote. And who
// begins under an id ends what is open under it and fences its earlier users; that is done once at the beginning and
// after every failure, so that nothing of a failed call is left behind.
//
// Whether a call whose end was not acknowledged took effect is read from the group's offset, which is a part of it.
type transaction struct {
	t    *tenure
	lock chan struct{} // held by who works with it, and guards the rest

	txnProducer
	verified bool  // the group's offset was looked at in this session
	tried    int64 // the offset of a call of unknown outcome, -1: none
}

func (x *transaction) init(t *tenure) {
	x.t, x.lock, x.tried = t, make(chan struct{}, 1), -1
	// With the topic: members of one group may be on different ones.
	x.c, x.group, x.in, x.p = t.g.c, t.g.coord, t.g.in, t.p
	x.coord = x.c.coordinator(kafka.CoordinatorKeyTypeTransaction, x.c.name("leat."+t.g.group+"."+t.g.topic+"."+itoa(t.p)))
}

func (x *transaction) unlock() { <-x.lock }

// still takes the lock if nothing is under way whose outcome could move the offset.
func (x *transaction) still() bool {
	select {
	case x.lock <- struct{}{}:
	default:
		return false
	}
	if x.tried >= 0 {
		x.unlock()
		return false
	}
	return true
}

// Transact implements connectors.Transactor.
func (c *Client) Transact(ctx context.Context, msgs []schemas.Message, accept []*connectors.Delivery) ([]schemas.Position, error) {
	const op = "kafka.Transact"
	if len(accept) == 0 {
		return nil, schemas.Errorf(schemas.Internal, op, "no delivery to accept")
	}
	t, ok := accept[0].Settler.(*tenure)
	if !ok || t.g.c != c {
		return nil, schemas.Errorf(schemas.Internal, op, "%s is not of a topic of this client", accept[0].From)
	}
	for _, d := range accept {
		if d.Settler != accept[0].Settler {
			return nil, schemas.Errorf(schemas.Internal, op, "%s (term %d) and %s (term %d) in one call: want one partition and one term", accept[0].From, accept[0].Term, d.From, d.Term)
		}
	}
	if ctx.Err() != nil {
		return nil, c.late(ctx, op, "transaction", nil)
	}
	select {
	case t.txn.lock <- struct{}{}:
		defer t.txn.unlock()
	case <-ctx.Done():
		return nil, c.late(ctx, op, "transaction", nil)
	}
	return t.transact(ctx, op, msgs, accept)
}

// transact is Transact with the transaction's lock held.
func (t *tenure) transact(ctx context.Context, op string, msgs []schemas.Message, accept []*connectors.Delivery) ([]schemas.Position, error) {
	g := t.g
	g.mu.Lock()
	over := t.over
	next, err := t.first(op, accept)
	t.exact = t.exact || err == nil
	g.mu.Unlock()
	if over {
		return nil, t.revoked(op)
	}
	if err != nil {
		return nil, err
	}
	recs, dead, err := g.c.txnRecords(ctx, op, msgs)
	if err != nil {
		return nil, err
	}
	high := t.highest()
	offsets, err := t.txn.run(ctx, op, recs, place{offset: next, high: high, exact: true})
	if err != nil {
		return nil, err
	}
	for range dead {
		g.c.cfg.Metrics.buried(g.topic, g.group)
	}
	out := make([]schemas.Position, len(msgs))
	for i, o := range offsets {
		out[i] = schemas.Position{Stream: msgs[i].Topic, Partition: recs[i].partition, Sequence: uint64(o) + 1}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.over { // it took effect all the same: whoever owns the partition begins after it
		return out, nil
	}
	for _, d := range accept {
		if err := t.settle(op, d); err != nil {
			return out, err
		}
	}
	t.committed, t.hinted = next, max(high, t.hinted)
	t.moved(t.advance())
	return out, nil
}

func (t *tenure) highest() int64 {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	return t.high
}

// txnRecords addresses the messages, dead letters among them.
func (c *Client) txnRecords(ctx context.Context, op string, msgs []schemas.Message) (recs []record, dead int, _ error) {
	recs = make([]record, len(msgs))
	turn := c.robin.Add(1)
	a := addresser{c: c, op: op}
	if n := len(msgs); n > 0 {
		a.room.reserve(n, &msgs[n-1]) // the outputs are behind the records, and more
	}
	for i := range msgs {
		var err error
		if msgs[i].Topic == deadTopic {
			dead++
			recs[i], err = c.deadRecord(ctx, op, &msgs[i])
		} else {
			recs[i], err = a.record(ctx, &msgs[i], turn+uint32(i/keylessRun))
		}
		if schemas.KindOf(err) == schemas.Invalid && err != nil {
			return nil, 0, &connectors.RefusedError{Index: i, Err: err}
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return recs, dead, nil
}

// run makes one transaction, again and again until it is made or cannot be. No offsets without an error: an earlier
// call did it.
func (x *transaction) run(ctx context.Context, op string, recs []record, to place) ([]int64, error) {
	g := x.t.g
	w := newTxnWrite(recs, g.c.cfg.MaxBatchBytes)
	defer w.free()
	for tries := 0; ; tries++ {
		done, err := x.ready(ctx, op, to)
		if done {
			g.c.cfg.Metrics.transaction(g.topic, g.group, txnCommitted)
			return nil, nil
		}
		if err == nil {
			w.rewind()
			if err = x.attempt(ctx, w, to); err == nil {
				g.c.cfg.Metrics.transaction(g.topic, g.group, txnCommitted)
				return w.offsets, nil
			}
			x.drop(err)
		}
		if errors.Is(err, connectors.ErrRevoked) {
			return nil, err
		}
		var refused *connectors.RefusedError
		switch {
		case ctx.Err() != nil || g.c.closing.Err() != nil:
			return nil, g.c.late(ctx, op, "transaction", err)
		case errors.As(err, &refused):
			return nil, err
		case lost(err), isFenced(err):
			if err := x.rejoined(ctx, op); err != nil {
				return nil, err
			}
		case !passing(err) && !sessionLost(err):
			return nil, classify(op, "transaction of topic "+g.topic, err)
		}
		if sleep(ctx, min(retryPause<<min(tries, 4), time.Second/4)) != nil {
			return nil, g.c.late(ctx, op, "transaction", err)
		}
	}
}

// isFenced reports whether somebody else began under the id, or the coordinator ended the transaction by itself.
func isFenced(err error) bool {
	return errors.Is(err, kafka.InvalidProducerEpoch) || errors.Is(err, kafka.ProducerFenced)
}

// sessionLost reports whether a new beginning helps.
func sessionLost(err error) bool {
	return isFenced(err) || errors.Is(err, kafka.InvalidTransactionState) || errors.Is(err, kafka.InvalidProducerIDMapping) ||
		errors.Is(err, kafka.OutOfOrderSequenceNumber) || errors.Is(err, kafka.DuplicateSequenceNumber) ||
		errors.Is(err, kafka.UnknownProducerId) || errors.Is(err, kafka.TransactionCoordinatorFenced) ||
		errors.Is(err, kafka.Unknown) // a broker's own trouble: seen under load, when calls of earlier tries were cut short
}

// ready begins a session if there is none and makes sure that the group stands where this tenure left it. done says
// that it stands where the call wants it: an earlier try took effect.
func (x *transaction) ready(ctx context.Context, op string, to place) (done bool, _ error) {
	if x.session == nil {
		if err := x.begin(ctx); err != nil {
			return false, err
		}
	}
	if x.verified {
		return false, nil
	}
	t, g := x.t, x.t.g
	at, err := x.place(ctx)
	if err != nil {
		return false, err
	}
	is := at.offset
	g.mu.Lock()
	over, committed, floor := t.over, t.committed, t.floor
	g.mu.Unlock()
	switch {
	case over:
		return false, t.revoked(op)
	case x.tried >= 0 && is == x.tried && is == to.offset:
		x.tried, x.verified = -1, true
		return true, nil
	case is == committed, is > committed && is <= floor: // or where a plain commit, whose answer was lost, has put it
		x.tried, x.verified = -1, true
		return false, nil
	}
	// Somebody else was here: what is in work is settled already, or will be delivered again.
	g.renew(t, -1)
	return false, t.revoked(op)
}

// rejoined waits until the member is in a generation again that it can act for, after it was refused as somebody who
// is not: at once if it is. ErrRevoked says that the partition is lost.
func (x *transaction) rejoined(ctx context.Context, op string) error {
	t, g := x.t, x.t.g
	for {
		g.mu.Lock()
		gen, cut, over, changed := g.mu.gen, g.mu.cut, t.over, g.mu.changed
		g.mu.Unlock()
		if over {
			return t.revoked(op)
		}
		if !cut {
			err := g.coord.heartbeat(ctx, gen)
			if err == nil {
				return nil
			}
			if !lost(err) {
				return nil // it does not answer: so will the next try say
			}
		}
		timer := time.NewTimer(g.c.cfg.Heartbeat)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return g.c.late(ctx, op, "transaction", nil)
		}
	}
}

var _ connectors.Transactor = (*Client)(nil)
