package pipeline

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/internal/fault"
	"github.com/leatstream/leat/schemas"
)

// committer is the unit of commit of one pipeline's requests, or of its topic. Whatever was scored while an append is in
// flight goes into the next one (group commit). In strict mode replies, outputs and settlements wait for the
// acknowledgement of their records, and nothing else does: the next run is scored meanwhile.
//
// The order is: append, then respond, then publish outputs, then settle. A crash between any two of them is mended by
// redelivery: the record is found again (recovered) and its output is published under the same id.
//
// A topic's events keep their order even where something cannot be written: it is tried again while everything behind it
// waits. If the door closes before it could be written, it and everything behind it stays unsettled (broken).
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
	kick  chan struct{} // capacity 1: something is open and the loop is at rest
	stop  chan struct{} // closed by close
	ended chan struct{} // closed when the loop has ended
	spare *unit         // guarded by mu: the other one of two
	row   lineage.Row   // guarded by mu: scratch of record

	// followers publish and settle the units of a topic, one after the other, while later ones append. Two may wait:
	// more would only hold memory, since the output stream is then slower than the lineage.
	slots     chan struct{}
	prev      chan struct{} // closed when the follower before has ended; touched by the loop alone
	followers sync.WaitGroup
	broken    atomic.Bool // of a topic: something could not be written before the door closed
}

// unit is what one append makes durable and what follows from it.
type unit struct {
	recs  lineage.Records
	works []*work
}

func newCommitter(ctx context.Context, p *processor, a lineage.Appender, timeout time.Duration) *committer {
	c := &committer{
		p: p, appender: a, ctx: ctx, timeout: timeout, spare: &unit{}, slots: make(chan struct{}, 2), prev: make(chan struct{}),
		kick: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	close(c.prev)
	c.mu.open = &unit{}
	c.mu.Cond.L = &c.mu.Mutex
	go c.run()
	return c
}

// run commits whenever something is open. It is one goroutine for the committer's life: one for each commit would grow
// its stack anew every time, a tenth of what a lone request costs.
func (c *committer) run() {
	defer close(c.ended)
	for {
		select {
		case <-c.kick:
			c.drain()
		case <-c.stop:
			return
		}
	}
}

// close ends the loop. What is added afterwards stays uncommitted; idle comes before it.
func (c *committer) close() {
	close(c.stop)
	<-c.ended
}

// add puts scored items into the open unit and starts an append if none is in flight.
func (c *committer) add(r *run, items []item, w *work, scored time.Time) {
	c.mu.Lock()
	for i := range items {
		c.record(&c.mu.open.recs, r, &items[i], w, scored)
	}
	if w.async { // answered before the append, but not if its record can never be made
		c.mu.Unlock()
		c.respond(w)
		c.mu.Lock()
	}
	c.put(w)
}

// resume puts a work without new records behind what is queued: an event whose record was found.
func (c *committer) resume(w *work) {
	c.mu.Lock()
	c.put(w)
}

// put is called with the lock held, which it gives up.
func (c *committer) put(w *work) {
	c.mu.open.works = append(c.mu.open.works, w)
	start := !c.mu.busy
	c.mu.busy = true
	c.mu.Unlock()
	if start {
		c.kick <- struct{}{} // never blocks: the loop took the last one before it came to rest
	}
}

// record adds the rows of an item: as many ranges as its rows in the request have, which bad rows may cut. An output that
// cannot be recorded is not seen either: the item fails, and that is recorded.
func (c *committer) record(recs *lineage.Records, r *run, it *item, w *work, scored time.Time) {
	ctx := it.rev.context(w.door.principal(it.d), w.door.Via, "", c.p.host.CPU)
	it.envelope(&c.row, r, scored)
	out := r.out
	if it.err != nil {
		errored(&c.row, it.err)
		out = nil
	}
	err := c.ranges(recs, ctx, r.in, it, out)
	if err == nil {
		return
	}
	e := c.p.host.public(err, c.p.name)
	if it.err == nil {
		w.withdraw(it, e)
	}
	errored(&c.row, e)
	if err := c.ranges(recs, ctx, r.in, it, nil); err != nil {
		c.p.host.Log.Error("failure not recorded", "pipeline", c.p.name, "request", it.id, slog.Any("error", err))
	}
}

func (c *committer) ranges(recs *lineage.Records, ctx *lineage.Context, in *schemas.Batch, it *item, out *schemas.Batch) error {
	if it.rows == nil {
		return recs.AddRange(ctx, &c.row, in, it.from, it.to, out, it.from)
	}
	for i := 0; i < len(it.rows); {
		j := i + 1
		for j < len(it.rows) && it.rows[j] == it.rows[j-1]+1 {
			j++
		}
		c.row.Row, c.row.BatchRow = it.rows[i], int32(it.from+i)
		if err := recs.AddRange(ctx, &c.row, in, it.from+i, it.from+j, out, it.from+i); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// drain commits until nothing is open.
func (c *committer) drain() {
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

// commit makes one unit durable and passes on what follows. The records of a topic, and of answers that have gone out
// already, are tried again until they are in or the door closes; a caller who waits is told at once.
func (c *committer) commit(u *unit) {
	if fault.ReplyFirst {
		for _, w := range u.works {
			c.respond(w)
		}
		fault.Widen()
	}
	pos, err := schemas.Position{}, error(nil)
	if !c.broken.Load() {
		pos, err = c.append(u)
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
				c.respond(w)
			}
		}
		for err != nil && dr != nil && dr.wait(c.ctx, retryPause) {
			pos, err = c.append(u)
		}
	} else {
		for _, w := range u.works {
			if !w.async {
				c.respond(w)
			}
		}
	}
	if !u.works[0].door.Durable {
		for _, w := range u.works {
			w.done()
		}
		return
	}
	if err != nil {
		c.broken.Store(true)
	}
	c.handOver(u, pos)
}

// handOver gives a topic's recorded works to a follower.
func (c *committer) handOver(u *unit, pos schemas.Position) {
	c.slots <- struct{}{}
	works, prev, this := append([]*work(nil), u.works...), c.prev, make(chan struct{})
	c.prev = this
	c.followers.Add(1)
	go func() {
		defer c.followers.Done()
		defer close(this)
		defer func() { <-c.slots }()
		<-prev
		if !c.broken.Load() && !c.follow(works, pos) {
			c.broken.Store(true)
		}
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

// respond writes a work's replies with one flush.
func (c *committer) respond(w *work) {
	if len(w.replies) == 0 {
		return
	}
	if err := w.door.Responder.Respond(c.ctx, w.replies); err != nil {
		c.p.host.Log.Warn("answers lost", "pipeline", c.p.name, "answers", len(w.replies), slog.Any("error", err))
	}
	clear(w.replies)
	w.replies, w.ids = w.replies[:0], w.ids[:0]
}

// follow publishes the outputs of recorded works and then settles their deliveries; false if the door closed before both
// were done. What is unsettled comes round again, and its record is found.
func (c *committer) follow(works []*work, pos schemas.Position) bool {
	if fault.AcceptFirst {
		for _, w := range works {
			w.settle(c.ctx)
			w.accept, w.reject = nil, nil
		}
		fault.Widen()
	}
	if !c.publish(works) {
		return false
	}
	for _, w := range works {
		if !w.settle(c.ctx) {
			return false
		}
	}
	if !pos.IsZero() {
		c.p.settledUpTo(pos.Sequence)
	}
	return true
}

// publish stores the outputs. One that the transport can never take goes to the dead letters instead.
func (c *committer) publish(works []*work) bool {
	for {
		var outs []schemas.Message
		for _, w := range works {
			outs = append(outs, w.outputs...)
		}
		if len(outs) == 0 {
			return true
		}
		dr := works[0].door // all are of one topic
		_, err := dr.Output.Publish(c.ctx, outs)
		switch {
		case err == nil:
			return true
		case schemas.KindOf(err) == schemas.Invalid && c.sift(works):
			continue
		}
		c.p.host.Log.Error("output not published: trying again", "pipeline", c.p.name, "topic", dr.OutputTo, slog.Any("error", err))
		if !dr.wait(c.ctx, retryPause) {
			return false
		}
	}
}

// sift publishes outputs one by one and buries those that the transport refuses for what they are; false if there is none.
func (c *committer) sift(works []*work) bool {
	found := false
	for _, w := range works {
		for i := 0; i < len(w.outputs); {
			_, err := w.door.Output.Publish(c.ctx, w.outputs[i:i+1])
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
