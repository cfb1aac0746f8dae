package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// tenure is one hold of a member on a partition. It fetches ahead of what is asked for, hands over in order, and is the
// Settler of what it handed over. It lasts through rebalances that leave the partition where it is. Once it is over,
// settling has no effect and is no error: what was not settled is delivered again, by the next owner.
type tenure struct {
	g      *groupSource
	p      int32
	term   uint64
	ctx    context.Context // ends with the tenure
	cancel context.CancelFunc
	more   chan struct{} // wakes the goroutine: there is room again
	txn    transaction

	// The source's lock guards the rest.
	tracker
	located   bool      // committed is known
	exact     bool      // the group works in transactions
	committed int64     // the group's place, as last committed or found; -1: none
	hinted    int64     // the high mark that went with it
	plain     bool      // something was settled outside a transaction since
	behind    int64     // records that were stored and not fetched when last asked
	settledAt time.Time // when a record was last settled, or the tenure began
	unread    time.Time // since when it cannot be read, because of trouble; zero: it can
	trouble   error
	stuck     bool      // reported by the watchdog
	leaving   bool      // hands nothing over any more
	until     time.Time // leaving: when it ends, whatever is in work
	over      bool
}

// fetchWait is how long a fetch waits for the first record. It bounds nothing else: a record that comes ends it.
const fetchWait = 500 * time.Millisecond

// troublePause is the time between two tries of what does not pass by itself: no right to read, no topic.
const troublePause = time.Second

// run fetches from an offset on until ctx ends.
func (t *tenure) run(ctx context.Context, from int64) {
	g := t.g
	f := g.c.newFetcher(g.topic, t.p, from)
	for t.waitRoom(ctx) {
		lag, start := f.lag(), time.Now()
		recs, err := f.next(ctx, fetchWait)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			t.reads(f.trouble)
		} else {
			t.reads(err)
			g.report("partition "+itoa(t.p), err)
			if sleep(ctx, troublePause) != nil {
				return
			}
			continue
		}
		if len(recs) > 0 && lag > 0 {
			g.c.cfg.Metrics.fetched(time.Since(start))
		}
		if f.position() >= 0 && !t.put(recs, f.position(), f.lag()) {
			return
		}
	}
}

// reads notes whether the partition can be read.
func (t *tenure) reads(trouble error) {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	if t.trouble = trouble; trouble == nil {
		t.unread = time.Time{}
	} else if t.unread.IsZero() {
		t.unread = time.Now()
	}
}

// waitRoom waits until another fetch is wanted; false when ctx ends.
func (t *tenure) waitRoom(ctx context.Context) bool {
	for ctx.Err() == nil {
		t.g.mu.Lock()
		room := t.room(t.g.c.cfg.FetchBytes)
		t.g.mu.Unlock()
		if room {
			return true
		}
		select {
		case <-t.more:
		case <-ctx.Done():
		}
	}
	return false
}

// put takes what was fetched; false when the tenure ends with it.
func (t *tenure) put(recs []fetched, end, lag int64) bool {
	g := t.g
	g.mu.Lock()
	if t.over {
		g.mu.Unlock()
		return false
	}
	first := end
	if len(recs) > 0 {
		first = recs[0].offset
	}
	if first < t.end {
		g.mu.Unlock()
		g.c.log.Warn("the partition begins anew: topic made again, or records lost by its broker", "topic", g.topic, "partition", t.p, "offset", t.end, "now", first)
		g.renew(t, first)
		return false
	}
	moved := t.floor
	t.tracker.put(recs, end)
	t.behind = lag
	moved = t.floor - moved
	g.mu.Unlock()
	if len(recs) > 0 {
		wakeUp(g.kick)
	} else if moved > 0 {
		wakeUp(g.work) // nothing but markers: the group's place moves over them
	}
	return true
}

// avail is how many records could be handed over now. The lock is held.
func (t *tenure) avail() int {
	if t.leaving || t.over {
		return 0
	}
	if len(t.retries) > 0 {
		return len(t.retries)
	}
	return min(t.records, t.limit-(len(t.window)-t.head))
}

// take appends what can be handed over now, until ds holds max. Deliveries are made in slab. The lock is held.
func (t *tenure) take(now time.Time, ds []*connectors.Delivery, max int, slab *[]connectors.Delivery) []*connectors.Delivery {
	if t.leaving || t.over {
		return ds
	}
	if len(t.retries) > 0 {
		ds = t.due(now, ds, max)
	}
	from := len(ds)
	for len(ds) < max {
		r, attempt := t.pop(now)
		if r == nil {
			break
		}
		if len(*slab) == 0 {
			*slab = make([]connectors.Delivery, 64)
		}
		d := &(*slab)[0]
		*slab = (*slab)[1:]
		*d = delivery(t.g.topic, t.p, r)
		d.Attempt, d.Term, d.Settler = attempt, t.term, t
		ds = append(ds, d)
	}
	if len(ds) > from && t.room(t.g.c.cfg.FetchBytes) {
		wakeUp(t.more)
	}
	return ds
}

// moved notes that records were settled, n of them without a gap. The lock is held.
func (t *tenure) moved(n int) {
	g := t.g
	t.settledAt = time.Now()
	delete(g.mu.avoid, t.p)
	g.mu.settled += n
	if n > 0 && len(t.chunks) > 0 {
		wakeUp(g.kick) // the limit of what is in work may have held them back
	}
	switch {
	case t.leaving && t.hands == 0, g.mu.settled >= commitRecords:
		wakeUp(g.urgent)
	case n > 0:
		wakeUp(g.work)
	}
}

// Accept implements connectors.Settler for deliveries of any tenure of the source. The offsets are committed beside
// the work.
func (t *tenure) Accept(_ context.Context, ds []*connectors.Delivery) error {
	const op = "kafka.Accept"
	g := t.g
	g.mu.Lock()
	defer g.mu.Unlock()
	var first error
	for _, d := range ds {
		u, ok := d.Settler.(*tenure)
		if !ok || u.g != g {
			return schemas.Errorf(schemas.Internal, op, "a delivery of another source")
		}
		if u.over {
			continue
		}
		if err := u.settle(op, d); err != nil && first == nil {
			first = err
		}
	}
	for i, d := range ds {
		u := d.Settler.(*tenure)
		if (i == 0 || ds[i-1].Settler != d.Settler) && !u.over { // neighbours are mostly of one partition
			u.plain = true
			u.moved(u.advance())
		}
	}
	return first
}

// Retry keeps the record in memory and holds its partition until it was handed over again.
func (t *tenure) Retry(_ context.Context, d *connectors.Delivery, after time.Duration) error {
	g := t.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.over {
		return nil
	}
	if err := t.retry("kafka.Retry", d, time.Now().Add(after)); err != nil {
		return err
	}
	g.c.cfg.Metrics.retried(g.topic, g.group)
	t.settledAt = time.Now() // whoever asks again is not stuck
	time.AfterFunc(max(after, 0), func() { wakeUp(g.kick) })
	if t.leaving {
		wakeUp(g.urgent)
	}
	return nil
}

// Reject writes the dead letter, then settles.
func (t *tenure) Reject(ctx context.Context, d *connectors.Delivery, cause error) error {
	const op = "kafka.Reject"
	g := t.g
	g.mu.Lock()
	over := t.over
	_, err := t.held(op, d)
	g.mu.Unlock()
	if over {
		return nil
	}
	if err != nil {
		return err
	}
	if err := g.c.bury(ctx, op, d, cause); err != nil {
		return err
	}
	g.c.cfg.Metrics.buried(g.topic, g.group)
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.over {
		return nil
	}
	if err := t.settle(op, d); err != nil {
		return err
	}
	t.plain = true
	t.moved(t.advance())
	return nil
}

// revoked is the error of what needs a tenure that is over.
func (t *tenure) revoked(op string) error {
	return schemas.Errorf(schemas.Unavailable, op, "topic %s, partition %d, term %d: %w", t.g.topic, t.p, t.term, connectors.ErrRevoked)
}

// dirty reports whether there is something to commit: a place that has moved or, at the end, a mark that has. Where the
// group works in transactions these commit the place, markers after it included: nothing else is to be on its way that
// a slow broker could put after one of them. The lock is held.
func (t *tenure) dirty(last bool) bool {
	if !t.located || t.over || t.floor < 0 || t.exact && !t.plain {
		return false
	}
	return t.floor > t.committed || last && t.high > t.hinted && t.high > t.floor
}

// finish makes the tenure have no effect any more. The lock is held, and nothing is on its way to be committed for it.
func (t *tenure) finish() {
	t.over = true
	t.cancel()
	t.chunks, t.retries = nil, nil // what was lent stays with whoever has it
	t.records, t.bytes = 0, 0
}

// lost reports whether err says that the member is not, or no longer, in the generation that it acted for.
func lost(err error) bool {
	return errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.RebalanceInProgress) ||
		errors.Is(err, kafka.FencedInstanceID)
}
