package pipeline

import (
	"context"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// committer is the unit of commit of one pipeline's requests, or of its topic. Whatever was scored while an append is in
// flight goes into the next one (group commit). In strict mode replies, outputs and settlements wait for the
// acknowledgement of their records, and nothing else does: the next run is scored meanwhile.
//
// The order is: append, then respond, then publish outputs, then settle. A crash between any two of them is mended by
// redelivery: the record is found again (recovered) and its output is published under the same id.
type committer struct {
	p        *processor
	appender lineage.Appender
	ctx      context.Context // of the processor: ends only when drained or killed
	timeout  time.Duration   // of one append, for those who wait for an answer

	mu struct {
		sync.Mutex
		sync.Cond
		open *unit
		busy bool
	}
	spare *unit // guarded by mu: the other one of two

	// followers publish and settle the units of a topic, one after the other, while later ones append. Two may wait:
	// more would only hold memory, since the output stream is then slower than the lineage.
	slots     chan struct{}
	prev      chan struct{} // closed when the follower before has ended; touched by loop alone
	followers sync.WaitGroup
}

// unit is what one append makes durable and what follows from it.
type unit struct {
	recs  lineage.Records
	works []*work
}

func newCommitter(ctx context.Context, p *processor, a lineage.Appender, timeout time.Duration) *committer {
	c := &committer{p: p, appender: a, ctx: ctx, timeout: timeout, spare: &unit{}, slots: make(chan struct{}, 2), prev: make(chan struct{})}
	close(c.prev)
	c.mu.open = &unit{}
	c.mu.Cond.L = &c.mu.Mutex
	return c
}

// add puts scored items into the open unit and starts an append if none is in flight.
func (c *committer) add(r *run, items []item, errs []*schemas.Error, w *work, scored time.Time) {
	if w.async {
		c.respond(w)
	}
	var e *schemas.Error
	if len(errs) > 0 {
		e = errs[0]
	}
	c.mu.Lock()
	u := c.mu.open
	for i := range items {
		it := &items[i]
		ctx := it.rev.context(w.door.principal(it.d), w.door.Via, "", c.p.host.env(it.rev))
		row := it.row(r, scored, e)
		out, from := r.out, it.from
		if e != nil {
			out = nil
		}
		if err := u.recs.AddRange(ctx, &row, r.in, it.from, it.to, out, from); err != nil {
			w.withdraw(it, c.p.host.public(err, c.p.name))
		}
	}
	u.works = append(u.works, w)
	start := !c.mu.busy
	c.mu.busy = true
	c.mu.Unlock()
	if start {
		go c.loop()
	}
}

// resume puts a work without new records behind what is queued: an event whose record was found.
func (c *committer) resume(w *work) {
	c.mu.Lock()
	c.mu.open.works = append(c.mu.open.works, w)
	start := !c.mu.busy
	c.mu.busy = true
	c.mu.Unlock()
	if start {
		go c.loop()
	}
}

// loop commits until nothing is open.
func (c *committer) loop() {
	for {
		c.mu.Lock()
		u := c.mu.open
		if len(u.works) == 0 {
			c.mu.busy = false
			c.mu.Broadcast()
			c.mu.Unlock()
			return
		}
		c.mu.open, c.spare = c.spare, nil
		if c.mu.open == nil {
			c.mu.open = &unit{}
		}
		c.mu.Unlock()
		c.commit(u)
		clear(u.works)
		u.works = u.works[:0]
		u.recs.Reset()
		c.mu.Lock()
		c.spare = u
		c.mu.Unlock()
	}
}

// commit makes one unit durable and passes on what follows. A durable door's records are tried again until they are in
// or the process ends; a caller is told at once.
func (c *committer) commit(u *unit) {
	pos, err := c.append(u)
	if err != nil {
		c.p.host.Log.Error("append to the lineage failed", "pipeline", c.p.name, "rows", u.recs.Len(), slog.Any("error", err))
		for _, w := range u.works {
			if !w.async {
				w.tell(schemas.Errorf(schemas.Unavailable, "pipeline.commit", "the lineage cannot be written now, so no answer is given: %w", err))
				c.respond(w)
			}
		}
		for err != nil && c.durable(u) && c.wait(time.Second) {
			pos, err = c.append(u)
		}
	}
	for _, w := range u.works {
		if err == nil && !w.async {
			c.respond(w)
		}
	}
	if err != nil || !c.durable(u) {
		for _, w := range u.works {
			w.done()
		}
		return
	}
	c.slots <- struct{}{}
	works, prev, this := append([]*work(nil), u.works...), c.prev, make(chan struct{})
	c.prev = this
	c.followers.Add(1)
	go func() {
		defer c.followers.Done()
		defer close(this)
		defer func() { <-c.slots }()
		<-prev
		c.follow(works, pos)
		for _, w := range works {
			w.done()
		}
	}()
}

func (c *committer) append(u *unit) (schemas.Position, error) {
	if u.recs.Len() == 0 {
		return schemas.Position{}, nil
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	pos, err := c.appender.Append(ctx, &u.recs)
	c.p.append.Observe(time.Since(start).Seconds())
	c.p.commitRows.Observe(float64(u.recs.Len()))
	return pos, err
}

func (c *committer) durable(u *unit) bool {
	for _, w := range u.works {
		if w.door.Durable {
			return true
		}
	}
	return false
}

// wait returns false when the processor ends.
func (c *committer) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// respond writes a work's replies with one flush.
func (c *committer) respond(w *work) {
	if len(w.replies) == 0 {
		return
	}
	if err := w.door.Responder.Respond(c.ctx, w.replies); err != nil {
		c.p.host.Log.Warn("answers lost", "pipeline", c.p.name, "answers", len(w.replies), slog.Any("error", err))
	}
	w.replies, w.failed = nil, nil
}

// tell turns a work's replies into an error.
func (w *work) tell(e *schemas.Error) {
	for i, f := range w.failed {
		h, body := schemas.ErrorAnswer(e, f.id)
		w.replies[i].Header, w.replies[i].Payload = h, body
	}
}

// withdraw replaces the answer of an item whose record cannot be written by an error: nothing is seen unrecorded.
func (w *work) withdraw(it *item, e *schemas.Error) {
	for i, f := range w.failed {
		if f.id == it.id && f.to == it.d.ReplyTo {
			h, body := schemas.ErrorAnswer(e, f.id)
			w.replies[i].Header, w.replies[i].Payload = h, body
		}
	}
	for i, d := range w.accept {
		if d == it.d {
			w.accept = append(w.accept[:i], w.accept[i+1:]...)
			w.outputs = slices.DeleteFunc(w.outputs, func(m schemas.Message) bool { return m.Header.Get(schemas.HeaderSource) == d.From.String() })
			w.reject = append(w.reject, rejection{d, e})
			return
		}
	}
}

// follow publishes the outputs of recorded works and then settles their deliveries.
func (c *committer) follow(works []*work, pos schemas.Position) {
	var outs []schemas.Message
	var door *door
	for _, w := range works {
		outs = append(outs, w.outputs...)
		if len(w.outputs) > 0 {
			door = w.door
		}
	}
	for len(outs) > 0 {
		_, err := door.Output.Publish(c.ctx, outs)
		if err == nil {
			break
		}
		c.p.host.Log.Error("output not published: trying again", "pipeline", c.p.name, "topic", door.OutputTo, slog.Any("error", err))
		if !c.wait(time.Second) {
			return // unsettled: it comes round again, and its record is found
		}
	}
	for _, w := range works {
		w.settle(c.ctx)
	}
	if !pos.IsZero() {
		c.p.settledUpTo(pos.Sequence)
	}
}

// settle ends the loans of deliveries whose records and outputs are durable.
func (w *work) settle(ctx context.Context) {
	for _, r := range w.reject {
		w.door.unsettled(ctx, r.d, schemas.AsError("pipeline.settle", r.cause))
	}
	if len(w.accept) == 0 {
		return
	}
	if err := w.accept[0].Settler.Accept(ctx, w.accept); err != nil && ctx.Err() == nil {
		w.door.p.host.Log.Error("events stay unsettled", "pipeline", w.door.p.name, "events", len(w.accept), slog.Any("error", err))
	}
}

// idle waits until everything that was added is committed.
func (c *committer) idle(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.mu.busy && ctx.Err() == nil {
		c.mu.Wait()
	}
	if ctx.Err() == nil {
		c.followers.Wait() // each ends with the processor's context at the latest
	}
	return ctx.Err()
}

func hexID(id [32]byte) string { return hex.EncodeToString(id[:16]) }
