package pipeline

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/internal/fault"
	"github.com/leatstream/leat/schemas"
)

// ordered makes a unit durable step by step: append its records, then respond, then publish its outputs, then settle. In
// strict mode replies, outputs and settlements wait for the acknowledgement of their records. A crash between any two
// steps is mended by redelivery: the record is found again (recovered), and its output is published under the same id.
//
// A topic's events keep their order even where something cannot be written: it is tried again while everything behind it
// waits. If the door closes before it could be written, it and everything behind it stays unsettled (broken).
type ordered struct {
	c        *committer
	appender lineage.Appender

	// followers publish and settle the units of a topic, one after the other, while later ones append. Two may wait:
	// more would only hold memory, since the output stream is then slower than the lineage.
	slots     chan struct{}
	prev      chan struct{} // closed when the follower before has ended; touched by the loop alone
	followers sync.WaitGroup
}

// newOrdered returns a committer that works step by step.
func newOrdered(ctx context.Context, p *processor) *committer {
	o := &ordered{appender: p.host.Lineage, slots: make(chan struct{}, 2), prev: make(chan struct{})}
	close(o.prev)
	o.c = newCommitter(ctx, p, o)
	return o.c
}

// commit appends a unit. The records of a topic, and of answers that have gone out already, are tried again until they
// are in or the door closes; a caller who waits is told at once.
func (o *ordered) commit(_ *line, u *unit) {
	c := o.c
	if fault.ReplyFirst {
		c.answer(u.works)
		fault.Widen()
	}
	pos, err := schemas.Position{}, error(nil)
	if !c.broken.Load() {
		pos, err = o.append(u)
	}
	if err != nil {
		c.p.host.Log.Error("append to the lineage failed", "pipeline", c.p.name, "rows", u.recs.Len(), slog.Any("error", err))
		e := schemas.Errorf(schemas.Unavailable, "pipeline.commit", "the lineage cannot be written now, so no answer is given: %w", err)
		dr := (*door)(nil) // one that waits for the append, if any does
		for _, w := range u.works {
			if w.async || w.door.Durable {
				dr = w.door
			}
			if !w.async {
				w.tell(e)
			}
		}
		c.answer(u.works)
		for err != nil && dr != nil && dr.wait(c.ctx, retryPause) {
			pos, err = o.append(u)
		}
	}
	if !u.works[0].door.Durable {
		o.finish(u.works)
		return
	}
	if err != nil {
		c.broken.Store(true)
	}
	o.handOver(u, pos)
}

// finish answers recorded works of requests. Where a door stores its answers that takes a round trip, or longer if brokers
// are away: they are written beside what comes next, in as many goroutines as its admission allows.
func (o *ordered) finish(works []*work) {
	var stored []*work
	now := works[:0]
	for _, w := range works {
		if w.door.StoresAnswers {
			stored = append(stored, w)
		} else {
			now = append(now, w)
		}
	}
	if len(stored) > 0 {
		o.c.storing.Go(func() { o.finishNow(stored) })
	}
	o.finishNow(now)
}

func (o *ordered) finishNow(works []*work) {
	o.c.answer(works)
	for _, w := range works {
		w.done()
	}
}

// handOver gives a topic's recorded works to a follower.
func (o *ordered) handOver(u *unit, pos schemas.Position) {
	o.slots <- struct{}{}
	works, prev, this := append([]*work(nil), u.works...), o.prev, make(chan struct{})
	o.prev = this
	o.followers.Go(func() {
		defer close(this)
		defer func() { <-o.slots }()
		<-prev
		if !o.c.broken.Load() && !o.follow(works, pos) {
			o.c.broken.Store(true)
		}
		for _, w := range works {
			w.done()
		}
	})
}

func (o *ordered) wait() { o.followers.Wait() }

func (o *ordered) append(u *unit) (schemas.Position, error) {
	if u.recs.Len() == 0 {
		return schemas.Position{}, nil
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(o.c.ctx, o.c.timeout)
	defer cancel()
	pos, err := o.appender.Append(ctx, &u.recs)
	o.c.p.append.Observe(time.Since(start).Seconds())
	o.c.p.commitRows.Observe(float64(u.recs.Len()))
	return pos, err
}

// follow publishes the outputs of recorded works and then settles their deliveries; false if the door closed before both
// were done. What is unsettled comes round again, and its record is found.
func (o *ordered) follow(works []*work, pos schemas.Position) bool {
	if fault.AcceptFirst {
		for _, w := range works {
			w.settle(o.c.ctx)
			w.accept, w.reject = nil, nil
		}
		fault.Widen()
	}
	if !o.publish(works) {
		return false
	}
	for _, w := range works {
		if !w.settle(o.c.ctx) {
			return false
		}
	}
	if !pos.IsZero() {
		o.c.p.settledUpTo(pos.Sequence)
	}
	return true
}

// publish stores the outputs. One that the transport can never take goes to the dead letters instead.
func (o *ordered) publish(works []*work) bool {
	for {
		outs := works[0].outputs
		if len(works) > 1 {
			n := 0
			for _, w := range works {
				n += len(w.outputs)
			}
			outs = make([]schemas.Message, 0, n)
			for _, w := range works {
				outs = append(outs, w.outputs...)
			}
		}
		if len(outs) == 0 {
			return true
		}
		dr := works[0].door // all are of one topic
		_, err := dr.Output.Publish(o.c.ctx, outs)
		switch {
		case err == nil:
			return true
		case schemas.KindOf(err) == schemas.Invalid && o.sift(works):
			continue
		}
		o.c.p.host.Log.Error("output not published: trying again", "pipeline", o.c.p.name, "topic", dr.OutputTo, slog.Any("error", err))
		if !dr.wait(o.c.ctx, retryPause) {
			return false
		}
	}
}

// sift publishes outputs one by one and buries those that the transport refuses for what they are; false if there is none.
func (o *ordered) sift(works []*work) bool {
	found := false
	for _, w := range works {
		for i := 0; i < len(w.outputs); {
			_, err := w.door.Output.Publish(o.c.ctx, w.outputs[i:i+1])
			if schemas.KindOf(err) != schemas.Invalid || err == nil {
				i++ // those that could not be stored now are tried again with the others
				continue
			}
			found = true
			w.bury(w.sources[i], err)
		}
	}
	return found
}

// settle ends the loans of deliveries whose records and outputs are durable; false if not all could be.
func (w *work) settle(ctx context.Context) bool {
	for _, r := range w.reject {
		if !w.door.reject(ctx, r.d, r.cause) {
			return false
		}
	}
	if len(w.accept) == 0 {
		return true
	}
	if err := w.accept[0].Settler.Accept(ctx, w.accept); err != nil && ctx.Err() == nil {
		w.door.p.host.Log.Error("events stay unsettled", "pipeline", w.door.p.name, "events", len(w.accept), slog.Any("error", err))
		return false
	}
	return true
}
