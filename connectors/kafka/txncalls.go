package kafka

import (
	"context"

	"github.com/segmentio/kafka-go"
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
	if x.session == nil {
		if err := x.begin(ctx); err != nil {
			return err
		}
	}
	_, err := x.place(ctx)
	return err
}

// begin opens a session, in which the group's offset was not looked at yet.
func (x *transaction) begin(ctx context.Context) error {
	x.verified = false
	return x.txnProducer.begin(ctx)
}

// drop ends the session after a failure.
func (x *transaction) drop(cause error) {
	outcome := txnAborted
	if isFenced(cause) {
		outcome = txnFenced
	}
	x.c.cfg.Metrics.transaction(x.t.g.topic, x.t.g.group, outcome)
	x.txnProducer.drop(cause)
}

// attempt makes the transaction. After an error nothing of it is seen, unless x.tried says that this is not known.
func (x *transaction) attempt(ctx context.Context, w *txnWrite, to place) error {
	err := x.txnProducer.attempt(ctx, w,
		func(ctx context.Context, s *txnSession) error { return x.commitOffset(ctx, s, to) },
		func() { x.tried = to.offset })
	if err == nil {
		x.tried = -1
	}
	return err
}

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
	return x.commit(ctx, s, gen, to.offset, to.note())
}
