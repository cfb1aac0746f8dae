package pipeline

import (
	"context"
	"encoding/hex"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// committer makes durable what the doors of a pipeline have scored: those of its requests, or that of its topic. Works
// gather in the open unit of a line while the unit before is made durable (group commit), and nothing else waits for
// that: the next run is scored meanwhile.
//
// There are two ways to make a unit durable. In order (ordered.go): append the records, then respond, then publish the
// outputs, then settle; what a crash leaves undone is mended by redelivery. As one (transact.go), for a topic that is
// exactly once: records, outputs, dead letters and settlements of one partition in one transaction. In order, all works
// go through one line; as one, each partition of the source has its own.
type committer struct {
	p       *processor
	ctx     context.Context // of the processor: ends only when drained or killed
	timeout time.Duration   // of one try to make a unit durable
	way     way
	gather  time.Duration // how long an open unit waits for more works; 0: not at all
	full    int           // rows at which it waits no longer

	stop  chan struct{}  // closed by close
	loops sync.WaitGroup // one for each line; none is added once stop is closed
	// storing are answers on their way to where they are stored. A door waits for its own, since they are in its hand.
	storing sync.WaitGroup // added to by loops
	broken  atomic.Bool    // of a topic: something could not be scored or written before the door closed

	mu struct {
		sync.RWMutex
		lines  map[int32]*line // by partition of the source; in order: the only one is that of 0
		closed bool
	}
}

// way is how a unit becomes durable.
type way interface {
	// commit makes a unit durable and passes on what follows from it. It calls done for each of its works, then or later;
	// the unit itself is not used any more when it returns. It is called by the loop of the line.
	commit(l *line, u *unit)
	// wait returns when nothing is under way that commit has left behind.
	wait()
}

// unit is what is made durable together, and what follows from it.
type unit struct {
	recs  lineage.Records
	works []*work // of one term
	rows  int
	since time.Time // when it was opened
}

// line is where works wait for one another: one unit is open while the one before it is committed, never more. What the
// open one can grow to is bounded by its door.
type line struct {
	c     *committer
	kick  chan struct{} // capacity 1: something is open and the loop is at rest
	hurry chan struct{} // capacity 1: the open unit shall wait no longer

	mu struct {
		sync.Mutex
		sync.Cond
		open  *unit
		spare *unit // the other one of two
		busy  bool
		first uint64      // terms before it are over, and their works are dropped
		row   lineage.Row // scratch of record
	}
}

func newCommitter(ctx context.Context, p *processor, w way) *committer {
	c := &committer{p: p, ctx: ctx, timeout: p.host.AppendTimeout, way: w, stop: make(chan struct{})}
	c.mu.lines = map[int32]*line{}
	return c
}

// line returns the line of a partition, made when it is first asked for.
func (c *committer) line(partition int32) *line {
	c.mu.RLock()
	l := c.mu.lines[partition]
	c.mu.RUnlock()
	if l != nil {
		return l
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l = c.mu.lines[partition]; l != nil {
		return l
	}
	l = &line{c: c, kick: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	l.mu.open, l.mu.spare = &unit{}, &unit{}
	l.mu.Cond.L = &l.mu.Mutex
	c.mu.lines[partition] = l
	if !c.mu.closed {
		c.loops.Go(l.run)
	}
	return l
}

func (c *committer) all() []*line {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ls := make([]*line, 0, len(c.mu.lines))
	for _, l := range c.mu.lines {
		ls = append(ls, l)
	}
	return ls
}

// close ends the loops. What is added afterwards stays uncommitted; idle comes before it.
func (c *committer) close() {
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	close(c.stop)
	c.loops.Wait()
	c.storing.Wait()
}

// hasten has every open unit committed without waiting for more.
func (c *committer) hasten() {
	if c.gather > 0 {
		for _, l := range c.all() {
			l.mu.Lock()
			if len(l.mu.open.works) > 0 {
				l.hasten()
			}
			l.mu.Unlock()
		}
	}
}

// idle waits until everything that was added is committed.
func (c *committer) idle(ctx context.Context) error {
	for _, l := range c.all() {
		if err := l.idle(ctx); err != nil {
			return err
		}
	}
	c.way.wait() // it ends with the processor's context at the latest
	return nil
}

// add puts scored items into the open unit of the work's line and has it committed.
func (c *committer) add(r *run, items []item, w *work, scored time.Time) {
	l := c.line(w.partition)
	l.mu.Lock()
	if !l.enter(w) {
		return
	}
	for i := range items {
		l.record(r, &items[i], w, scored)
	}
	if w.async { // answered before the append, but not if its record can never be made
		l.mu.Unlock()
		c.respond(w)
		l.mu.Lock()
	}
	l.put(w)
}

// resume puts a work without new records behind what is queued: an event whose record was found.
func (c *committer) resume(w *work) {
	l := c.line(w.partition)
	l.mu.Lock()
	if l.enter(w) {
		l.put(w)
	}
}

// enter is called with the lock held. A work of a later term than before ends the earlier ones. If the work's own term is
// over, it is dropped, the lock is given up, and the answer is false.
func (l *line) enter(w *work) bool {
	var over []*work
	if w.term > l.mu.first {
		over = l.endLocked(w.term - 1)
	}
	ok := w.term >= l.mu.first
	if ok && len(over) == 0 {
		return true
	}
	l.mu.Unlock()
	if !ok {
		over = append(over, w)
	}
	drop(over)
	if ok {
		l.mu.Lock()
	}
	return ok
}

// end drops what is left of a term, and what still comes of it: whoever has the partition now gets it again.
func (l *line) end(term uint64) {
	l.mu.Lock()
	over := l.endLocked(term)
	l.mu.Unlock()
	drop(over)
}

// drop gives back what works held that are not to be made durable. It is not called under a lock: the last user of a
// model closes it.
func drop(ws []*work) {
	for _, w := range ws {
		w.done()
	}
}

// never is the term after which nothing is taken any more.
const never uint64 = math.MaxUint64 - 1

func (l *line) endLocked(term uint64) (over []*work) {
	l.mu.first = max(l.mu.first, term+1)
	if u := l.mu.open; len(u.works) > 0 && u.works[0].term <= term {
		over = append(over, u.works...)
		u.reset()
	}
	return over
}

// put is called with the lock held, which it gives up.
func (l *line) put(w *work) {
	u := l.mu.open
	if len(u.works) == 0 && l.c.gather > 0 {
		u.since = time.Now()
	}
	u.works = append(u.works, w)
	u.rows += w.rows
	if l.c.gather > 0 && u.rows >= l.c.full {
		l.hasten()
	}
	start := !l.mu.busy
	l.mu.busy = true
	l.mu.Unlock()
	if start {
		l.kick <- struct{}{} // never blocks: the loop took the last one before it came to rest
	}
}

// hasten is called with the lock held and something open.
func (l *line) hasten() {
	select {
	case l.hurry <- struct{}{}:
	default:
	}
}

// record adds the rows of an item: as many ranges as its rows in the request have, which bad rows may cut. An output that
// cannot be recorded is not seen either: the item fails, and that is recorded.
func (l *line) record(r *run, it *item, w *work, scored time.Time) {
	if it.from == it.to {
		return // refused before it was scored
	}
	host := l.c.p.host
	ctx := it.rev.context(w.door.principal(it.d), w.door.Via, "", host.CPU)
	it.envelope(&l.mu.row, r, scored)
	out := r.out
	if it.err != nil {
		errored(&l.mu.row, it.err)
		out = nil
	}
	var err error
	if it.rev.route != nil && len(r.trace.visits) > 0 { // a run that failed as a whole has been nowhere
		err = l.visited(r, it, w)
	} else {
		err = l.ranges(ctx, r.in, it, out)
	}
	if err == nil {
		return
	}
	e := host.public(err, l.c.p.name)
	if it.err == nil {
		w.withdraw(it, e)
	}
	it.envelope(&l.mu.row, r, scored)
	errored(&l.mu.row, e)
	if err := l.ranges(ctx, r.in, it, nil); err != nil {
		host.Log.Error("failure not recorded", "pipeline", l.c.p.name, "request", it.id, slog.Any("error", err))
	}
}

func (l *line) ranges(ctx *lineage.Context, in *schemas.Batch, it *item, out *schemas.Batch) error {
	recs, row := &l.mu.open.recs, &l.mu.row
	if it.rows == nil {
		return recs.AddRange(ctx, row, in, it.from, it.to, out, it.from)
	}
	for i := 0; i < len(it.rows); {
		j := i + 1
		for j < len(it.rows) && it.rows[j] == it.rows[j-1]+1 {
			j++
		}
		row.Row, row.BatchRow = it.rows[i], int32(it.from+i)
		if err := recs.AddRange(ctx, row, in, it.from+i, it.from+j, out, it.from+i); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// run commits whenever something is open. It is one goroutine for the line's life: one for each commit would grow its
// stack anew every time, a tenth of what a lone request costs.
func (l *line) run() {
	for {
		select {
		case <-l.kick:
			for u := l.next(); u != nil; u = l.next() {
				l.c.way.commit(l, u)
				u.reset()
				l.mu.Lock()
				l.mu.spare = u
				l.mu.Unlock()
			}
		case <-l.c.stop:
			return
		}
	}
}

// next takes the open unit when it is due, nil if nothing is open.
func (l *line) next() *unit {
	l.mu.Lock()
	if u := l.mu.open; len(u.works) > 0 && l.c.gather > 0 {
		since, ended := u.since, u.works[0].door.ended
		l.mu.Unlock()
		l.waitForMore(since, ended)
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	u := l.mu.open
	if len(u.works) == 0 {
		l.mu.busy = false
		l.mu.Broadcast()
		return nil
	}
	l.mu.open, l.mu.spare = l.mu.spare, nil
	select {
	case <-l.hurry: // that was about this unit
	default:
	}
	return u
}

// waitForMore returns when the unit has been open for long enough, is full, or somebody is in a hurry.
func (l *line) waitForMore(since time.Time, ended <-chan struct{}) {
	t := time.NewTimer(time.Until(since.Add(l.c.gather)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.hurry:
	case <-ended:
	case <-l.c.ctx.Done():
	}
}

// idle waits until nothing of the line is open or being committed.
func (l *line) idle(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.mu.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mu.busy && ctx.Err() == nil {
		l.mu.Wait()
	}
	return ctx.Err()
}

func (u *unit) reset() {
	clear(u.works)
	u.works, u.rows = u.works[:0], 0
	u.recs.Reset()
}

// answer writes the replies of works, those of one door with one call.
func (c *committer) answer(works []*work) {
	for i, w := range works {
		if len(w.replies) == 0 {
			continue
		}
		for _, o := range works[i+1:] {
			if o.door == w.door {
				w.replies = append(w.replies, o.replies...)
				o.answered()
			}
		}
		c.respond(w)
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
	w.answered()
}

// answered forgets the replies.
func (w *work) answered() {
	clear(w.replies)
	clear(w.ids)
	w.replies, w.ids = w.replies[:0], w.ids[:0]
}

func hexID(id [32]byte) string { return hex.EncodeToString(id[:16]) }
