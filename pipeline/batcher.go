package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// maxRunRows bounds the rows that are merged into one run: beyond it a run gains nothing per row (FIELD-NOTES: the peak
// of tree ensembles is near 1,024 rows) and its first caller waits longer. A request of more rows runs by itself.
const maxRunRows = 1024

// run is what one call of a scorer works on: the rows of the requests that met in it. It is owned by the goroutine that
// fills it, then by the batcher, then by the goroutine that scores it.
type run struct {
	in, out *schemas.Batch
	items   []item
	soonest time.Time // deadline of its items, zero if none has one
	start   time.Time // of the scorer's call
	took    time.Duration
	err     error // why it has no answer; of every item

	trace trace // of a graph: where the rows have been

	marks []mark // scratch of call
	slots []int32
}

// add takes an item whose rows were appended to r.in.
func (r *run) add(it item) {
	r.items = append(r.items, it)
	r.by(it.deadline)
}

func (r *run) by(deadline time.Time) {
	if !deadline.IsZero() && (r.soonest.IsZero() || deadline.Before(r.soonest)) {
		r.soonest = deadline
	}
}

// batcher joins the rows that wait for one loaded model, by whatever way they came, into runs: natural batching. A run
// starts at once if a slot is free; else rows wait and leave together when one frees. It never waits for more rows.
type batcher struct {
	scorer scorers.Scorer // nil: graph
	graph  *graph
	check  scorers.RowChecker // nil: the scorer takes every row of its schema
	sig    schemas.Signature
	slots  int // interactive runs in flight at most: the cores
	lanes  *lanes
	m      *Metrics
	digest string  // of the model
	poison *Poison // nil: nothing is marked

	mu struct {
		sync.Mutex
		queue   []*run // in order of arrival; only the last one takes more rows. Bounded by the doors' admission
		running int
	}
	pool sync.Pool // of *run
}

func newBatcher(s scorers.Scorer, digest string, l *lanes, p *Poison, m *Metrics) *batcher {
	b := &batcher{scorer: s, sig: s.Signature(), slots: l.cores, lanes: l, m: m, digest: digest, poison: p}
	b.check, _ = s.(scorers.RowChecker)
	b.pool.New = func() any {
		return &run{in: schemas.NewBatch(b.sig.Inputs), out: schemas.NewBatch(b.sig.Outputs)}
	}
	return b
}

// newGraphBatcher is newBatcher for a route of several nodes. Its runs hold its slots, and the models' batchers have no
// part in them.
func newGraphBatcher(g *graph, revision string, l *lanes, p *Poison, m *Metrics) *batcher {
	b := &batcher{graph: g, sig: schemas.Signature{Inputs: g.in, Outputs: g.out}, slots: l.cores, lanes: l, m: m, digest: revision, poison: p}
	g.afoot = int32(2 * l.cores) // those that are waited for, and as many that are not
	b.pool.New = func() any { return &run{in: schemas.NewBatch(g.in), out: schemas.NewBatch(g.out)} }
	return b
}

// newRun returns an empty run of the model's schemas.
func (b *batcher) newRun() *run { return b.pool.Get().(*run) }

// free takes back a run that nobody reads any more. A run that a giant request has blown up is left to the collector.
func (b *batcher) free(r *run) {
	r.trace.reset()
	if r.in.Bytes()+r.out.Bytes() > 4<<20 {
		return
	}
	r.in.Reset()
	r.out.Reset()
	clear(r.items)
	r.items = r.items[:0]
	r.soonest, r.err = time.Time{}, nil
	b.pool.Put(r)
}

// enqueue hands over a filled run. It returns the run if a slot is free, which the caller then holds and uses by calling
// run; nil if the rows wait, in order of arrival, for a slot (or if there are none).
func (b *batcher) enqueue(r *run) *run {
	if len(r.items) == 0 {
		b.free(r)
		return nil
	}
	b.lanes.sawOnline()
	b.mu.Lock()
	if n := len(b.mu.queue); n > 0 && b.mu.queue[n-1].in.Rows()+r.in.Rows() <= maxRunRows {
		b.mu.queue[n-1].merge(r)
		b.mu.Unlock()
		b.free(r)
		return nil
	}
	defer b.mu.Unlock()
	if b.mu.running >= b.slots {
		b.mu.queue = append(b.mu.queue, r)
		return nil
	}
	b.mu.running++
	b.lanes.begin()
	return r
}

// run scores r on the caller's goroutine, which saves a hand-over at low load. What has queued up by its end goes on in
// a goroutine of its own, which keeps the slot, so that the caller can receive again.
func (b *batcher) run(ctx context.Context, r *run) {
	b.score(ctx, r)
	if next := b.next(); next != nil {
		go b.rest(context.WithoutCancel(ctx), next)
	}
}

// rest scores until the queue is empty. It holds a slot.
func (b *batcher) rest(ctx context.Context, r *run) {
	for r != nil {
		b.score(ctx, r)
		r = b.next()
	}
}

// next takes the oldest queued run, or gives the slot back.
func (b *batcher) next() *run {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.queue) == 0 {
		b.mu.running--
		b.lanes.end()
		return nil
	}
	r := b.mu.queue[0]
	b.mu.queue[0] = nil
	b.mu.queue = b.mu.queue[1:]
	return r
}

// merge moves r's rows and items behind those of q.
func (q *run) merge(r *run) {
	at := q.in.Rows()
	q.in.AppendRange(r.in, 0, r.in.Rows())
	for _, it := range r.items {
		it.from += at
		it.to += at
		q.items = append(q.items, it)
	}
	q.by(r.soonest)
}

// score runs the model on r and passes every item on. If a run of several items fails, its halves are run, and theirs,
// so that one caller's rows never fail another's (P6) and one bad row of many costs a few runs, not one for each.
func (b *batcher) score(ctx context.Context, r *run) {
	if !r.soonest.IsZero() && time.Now().After(r.soonest) {
		if r = b.expire(r, time.Now()); len(r.items) == 0 {
			b.free(r)
			return
		}
	}
	if b.scored(ctx, r) {
		one := [1]*run{r}
		b.pass(one[:])
		return
	}
	b.pass(b.halve(ctx, r, nil))
}

// scored runs r unless it must not be run as one; false: its items have to be looked at one by one.
func (b *batcher) scored(ctx context.Context, r *run) bool {
	alone := len(r.items) == 1
	if !alone && b.suspects(r) {
		return false
	}
	r.err = b.call(ctx, r)
	return r.err == nil || alone
}

// halve runs the halves of r, whose items are several, and appends what was scored, in order.
func (b *batcher) halve(ctx context.Context, r *run, done []*run) []*run {
	mid := len(r.items) / 2
	for _, items := range [2][]item{r.items[:mid], r.items[mid:]} {
		half := b.part(r, items)
		if b.scored(ctx, half) {
			done = append(done, half)
		} else {
			done = b.halve(ctx, half, done)
		}
	}
	b.free(r)
	return done
}

// part copies some items of r into a run of their own.
func (b *batcher) part(r *run, items []item) *run {
	p := b.newRun()
	for _, it := range items {
		at := p.in.Rows()
		p.in.AppendRange(r.in, it.from, it.to)
		it.from, it.to = at, p.in.Rows()
		p.add(it)
	}
	return p
}

// expire answers the items whose callers have given up by now, unscored, and returns a run of the others: under more load
// than the model can take, its time goes to those who still wait.
func (b *batcher) expire(r *run, now time.Time) *run {
	late, kept := b.newRun(), b.newRun()
	for _, it := range r.items {
		to := kept
		if !it.deadline.IsZero() && now.After(it.deadline) {
			to = late
		}
		at := to.in.Rows()
		to.in.AppendRange(r.in, it.from, it.to)
		it.from, it.to = at, to.in.Rows()
		to.add(it)
	}
	b.free(r)
	if len(late.items) == 0 {
		b.free(late)
		return kept
	}
	late.start, late.took = now, 0
	late.err = schemas.Errorf(schemas.Expired, "pipeline.score", "the deadline passed before the rows could be scored")
	one := [1]*run{late}
	b.pass(one[:])
	return kept
}

// call is one run of the scorer, timed and counted.
func (b *batcher) call(ctx context.Context, r *run) (err error) {
	b.m.inflight.Inc()
	defer b.m.inflight.Dec()
	if r.start, r.took = time.Now(), 0; r.in.Rows() == 0 {
		return nil // all its items were refused at the door
	}
	if b.graph != nil && b.graph.leaves {
		r.mayLeave()
	}
	if b.poison == nil {
		err = b.apply(ctx, &r.trace, r.in, r.out, r.owner, r.public)
	} else if m := markOf(b.digest, r.items[0].digest); len(r.items) == 1 && b.poison.deaths(m) > 0 {
		err = b.suspect(ctx, r, m)
	} else {
		r.marks = r.marks[:0]
		for i := range r.items {
			if it := &r.items[i]; it.to > it.from {
				r.marks = append(r.marks, markOf(b.digest, it.digest))
			}
		}
		r.slots = b.poison.begin(r.marks, r.slots[:0])
		err = b.apply(ctx, &r.trace, r.in, r.out, r.owner, r.public)
		b.poison.end(r.slots)
	}
	r.took = time.Since(r.start)
	if b.graph != nil && (err == nil || len(r.items) == 1) { // of several, the halves will count
		b.graph.count(&r.trace, err != nil)
	}
	r.trace.sort() // several doors look at it
	b.m.batchRows.Observe(float64(r.in.Rows()))
	if err != nil {
		r.out.Reset()
		r.trace.reset()
	}
	r.blame()
	return err
}

// apply runs the model, or the graph, on the rows of in. owner tells whose they are, public what of an error may be seen.
func (b *batcher) apply(ctx context.Context, t *trace, in, out *schemas.Batch, owner func(row int) *item, public func(error) *schemas.Error) error {
	if b.graph == nil {
		return safeScore(ctx, b.scorer, in, out)
	}
	first, before := len(t.failed), out.Rows()
	if err := b.graph.safe(ctx, in, out, t, owner, public); err != nil {
		return err
	}
	for i, e := range t.failed[first:] {
		if e == nil || !passing(e) {
			continue
		}
		if it := owner(first + i); it.door == nil || it.door.Durable { // of no row: topics and jobs wait until the model can be reached
			out.Truncate(before)
			return e
		}
	}
	return nil
}

// public is what callers may see of an error.
func (r *run) public(err error) *schemas.Error {
	dr := r.items[0].door
	return dr.p.host.public(err, dr.p.name)
}

// owner returns the item that row i of the run belongs to.
func (r *run) owner(i int) *item {
	at, found := slices.BinarySearchFunc(r.items, i, func(it item, i int) int {
		switch {
		case it.to <= i:
			return -1
		case it.from > i:
			return 1
		}
		return 0
	})
	if !found {
		panic("pipeline: a row of nobody")
	}
	return &r.items[at]
}

// blame fails the items of whose rows a graph had no answer for one.
func (r *run) blame() {
	if len(r.trace.failed) == 0 {
		return
	}
	for i := range r.items {
		for it, row := &r.items[i], r.items[i].from; row < it.to && it.err == nil; row++ {
			if e := r.trace.failed[row]; e != nil {
				it.err = e
				if it.to-it.from > 1 {
					it.err = &schemas.Error{Op: e.Op, Kind: e.Kind, ID: e.ID, Field: rowName(it.row(row-it.from)) + dotted(e.Field), Err: e.Err}
				}
			}
		}
	}
}

func dotted(field string) string {
	if field == "" {
		return ""
	}
	return "." + field
}

// safeScore turns a panic of a scorer, and an answer with the wrong number of rows, into an Internal error.
func safeScore(ctx context.Context, s scorers.Scorer, in, out *schemas.Batch) (err error) {
	const op = "pipeline.score"
	before := out.Rows()
	defer func() {
		if p := recover(); p != nil {
			err = schemas.Errorf(schemas.Internal, op, "scorer panicked: %v", p)
		}
		if err == nil && out.Rows()-before != in.Rows() {
			err = schemas.Errorf(schemas.Internal, op, "scorer gave %d rows for %d", out.Rows()-before, in.Rows())
		}
		if err != nil {
			out.Rollback()
			out.Truncate(before)
			err = fmt.Errorf("score: %w", err)
		}
	}()
	return s.Score(ctx, in, out)
}

// scoreBulk runs one piece of a job in the bulk lane, when it is its turn. A piece that was being run when a process
// died goes row by row; the row that kills is then found, and fails the piece with an error that names it.
func (b *batcher) scoreBulk(ctx context.Context, t *trace, in, out *schemas.Batch, owner func(row int) *item, public func(error) *schemas.Error) error {
	if err := b.lanes.enterBulk(ctx); err != nil {
		return err
	}
	defer b.lanes.leaveBulk()
	b.m.inflight.Inc()
	defer b.m.inflight.Dec()
	if b.poison == nil {
		return b.apply(ctx, t, in, out, owner, public)
	}
	piece := [1]mark{markOfRows(b.digest, in, 0, in.Rows())}
	deaths := b.poison.deaths(piece[0])
	if deaths == 0 {
		slots := b.poison.begin(piece[:], nil)
		defer b.poison.end(slots)
		return b.apply(ctx, t, in, out, owner, public)
	}
	before := out.Rows()
	for i := range in.Rows() {
		err := b.rowAlone(ctx, in, i, deaths, func(one *schemas.Batch) error {
			return b.apply(ctx, t, one, out, func(int) *item { return owner(i) }, public)
		})
		if err != nil {
			out.Truncate(before)
			return schemas.FieldErrorf(schemas.KindOf(err), "pipeline.scoreBulk", rowName(i), "%w", err)
		}
	}
	b.poison.pass(piece[0])
	return nil
}

// rowName is the field of a row in an error.
func rowName(i int) string { return "rows[" + strconv.Itoa(i) + "]" }
