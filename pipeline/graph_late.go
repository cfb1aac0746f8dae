package pipeline

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// What becomes of a member that an ensemble has left behind. A run of a model cannot be interrupted, so it goes on: on copies of
// its rows, under a revision that stays loaded for it, with its rows marked in the poison file. It holds no slot of the
// batcher, so that others are not held up by it; how many runs of one member are under way is bounded instead, and beyond
// that the member counts as not answering. When it comes back, and the request's own records are durable, its records are
// appended, marked late. Nobody ever gets its answer.

// crew is the rows of an ensemble as its members may keep them: nothing in it is lent.
type crew struct {
	ids    []int32
	owners []*item   // by row of the flow; copies
	items  []*item   // each once
	until  time.Time // when the last caller gives up; zero: never
}

// afterwards is closed when what follows from an item's answer is done: its records are durable.
type afterwards chan struct{}

// mayLeave makes the items of a run ready for members that are left behind. It comes before the graph runs: there, many read the
// items at once.
func (r *run) mayLeave() {
	for i := range r.items {
		if it := &r.items[i]; it.after == nil {
			it.after = make(afterwards)
		}
	}
}

// kept returns what of an item may be read when it has been handed back.
func (it *item) kept() *item {
	if it.copied {
		return it
	}
	k := *it
	k.copied = true
	k.d = &connectors.Delivery{From: it.d.From, Attempt: it.d.Attempt}
	k.d.Header = maps.Clone(it.d.Header)
	k.enc, k.bad, k.rows = nil, nil, slices.Clone(it.rows)
	return &k
}

func newCrew(f *flow, ids []int32) *crew {
	c := &crew{ids: slices.Clone(ids), owners: make([]*item, len(f.by))}
	var last, mine *item
	forever := false
	for _, row := range ids {
		it := f.owner(int(row))
		if it != last {
			last, mine = it, it.kept()
			c.items = append(c.items, mine)
			if forever = forever || it.deadline.IsZero(); it.deadline.After(c.until) {
				c.until = it.deadline
			}
		}
		c.owners[row] = mine
	}
	if forever {
		c.until = time.Time{}
	}
	return c
}

func (c *crew) owner(row int) *item { return c.owners[row] }
func (c *crew) door() *door         { return c.items[0].door }
func (c *crew) rev() *compiled      { return c.items[0].rev }

// ended is closed when the process gives up on draining.
func (c *crew) ended() <-chan struct{} { return c.door().commit.ctx.Done() }

// beside is flow.beside for somebody who may be left behind.
func (c *crew) beside(f *flow) *flow {
	b := f.beside()
	p := c.door().p
	b.owner, b.host = c.owner, func(err error) *schemas.Error { return p.host.public(err, p.name) }
	return b
}

// copied is all, but never src itself.
func (p *picker) copied(src *schemas.Batch) *schemas.Batch {
	b := p.get()
	for i, j := range p.from {
		b.Column(i).AppendColumn(src.Column(j), 0, src.Rows())
	}
	b.Advance(src.Rows())
	return b
}

// leave leaves a member behind; false: it has come back just now.
func (c *crew) leave(a *asked) bool {
	rev, p := c.rev(), c.door().p
	rev.refs.Add(1) // the items of the run hold it until now
	p.late.Add(1)
	marks := make([]mark, len(c.items))
	for i, it := range c.items {
		marks[i] = markOf(rev.batcher.digest, it.digest)
	}
	a.slots = rev.poison.beginBeside(marks)
	if a.fate.CompareAndSwap(underWay, leftBehind) {
		rev.m.inflight.Inc()
		return true
	}
	c.forget(a)
	return false
}

// forget gives back what a member held that was left behind.
func (c *crew) forget(a *asked) {
	rev := c.rev()
	rev.poison.endBeside(a.slots)
	rev.release()
	c.door().p.late.Done()
}

// late records what came of a member that was left behind.
func (c *crew) late(n *nodeFacts, a *asked) {
	defer c.forget(a)
	rev, p := c.rev(), c.door().p
	rev.m.inflight.Dec()
	outcome := "recorded"
	if err := c.record(n, a); err != nil {
		outcome = "lost"
		p.host.Log.Warn("a member that came too late is not recorded", "pipeline", p.name, "node", n.path, slog.Any("error", err))
	}
	a.f.reset()
	rev.m.late.WithLabelValues(p.name, outcome).Inc()
}

func (c *crew) record(n *nodeFacts, a *asked) error {
	const op = "pipeline.late"
	if a.panic != nil {
		return a.f.host(schemas.Errorf(schemas.Internal, op, "the member panicked: %v\n%s", a.panic, a.stack))
	}
	a.close(n)
	for _, it := range c.items { // of two records of a row at a node the first is canonical: that of the answer
		select {
		case <-it.after:
		case <-c.ended():
			return schemas.Errorf(schemas.Unavailable, op, "shutting down")
		}
	}
	p, now := c.door().p, time.Now()
	var recs lineage.Records
	x := &visitor{rev: c.rev(), trace: a.f.trace, recs: &recs, cpu: p.host.CPU, public: a.f.host, late: true}
	for _, at := range c.ids {
		it := c.owners[at]
		x.principal, x.via = it.door.principal(it.d), it.door.Via
		var env lineage.Row
		it.stamp(&env)
		env.Row, env.Status, env.Scored = int32(it.row(int(at)-it.from)), lineage.StatusLate, now
		if err := x.record(&env, int(at), nil, nil, 0, nil, 0); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(c.door().commit.ctx, p.host.AppendTimeout)
	defer cancel()
	_, err := p.host.Lineage.Append(ctx, &recs)
	return err
}

// latecomers are the members of a pipeline that were left behind and are still under way.
type latecomers struct{ sync.WaitGroup }

// wait returns when all have come back, and at the latest when ctx ends or patience does.
func (l *latecomers) wait(ctx context.Context, patience time.Duration) bool {
	done := make(chan struct{})
	go func() { // ends with the last of them
		l.Wait()
		close(done)
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-t.C:
	}
	return false
}
