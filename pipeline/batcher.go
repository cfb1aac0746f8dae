package pipeline

import (
	"context"
	"errors"
	"fmt"
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
	start   time.Time // of the scorer's call
	took    time.Duration

	marks []mark // scratch of call
	slots []int32
}

// batcher joins the rows that wait for one loaded model, by whatever way they came, into runs: natural batching. A run
// starts at once if a slot is free; else rows wait and leave together when one frees. It never waits for more rows.
type batcher struct {
	scorer scorers.Scorer
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
	b.pool.New = func() any {
		return &run{in: schemas.NewBatch(b.sig.Inputs), out: schemas.NewBatch(b.sig.Outputs)}
	}
	return b
}

// newRun returns an empty run of the model's schemas.
func (b *batcher) newRun() *run { return b.pool.Get().(*run) }

// free takes back a run that nobody reads any more. A run that a giant request has blown up is left to the collector.
func (b *batcher) free(r *run) {
	if r.in.Bytes()+r.out.Bytes() > 4<<20 {
		return
	}
	r.in.Reset()
	r.out.Reset()
	clear(r.items)
	r.items = r.items[:0]
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
}

// score runs the model on r and passes every item on. If a run of several items fails, each is run alone, so that one
// caller's rows never fail another's (P6).
func (b *batcher) score(ctx context.Context, r *run) {
	alone := len(r.items) == 1
	err := errSuspects
	if alone || !b.suspects(r) {
		err = b.call(ctx, r)
	}
	if err == nil || alone {
		if r.turn() {
			deliver(r, err)
			b.free(r)
			return
		}
		// An earlier group of the same topic is still being scored. Waiting for it must not hold a slot that it needs.
		// Bounded by the door's admission.
		go func() {
			deliver(r, err)
			b.free(r)
		}()
		return
	}
	for _, it := range r.items {
		one := b.newRun()
		one.in.AppendRange(r.in, it.from, it.to)
		it.to -= it.from
		it.from = 0
		one.items = append(one.items, it)
		deliver(one, b.call(ctx, one))
		b.free(one)
	}
	b.free(r)
}

// call is one run of the scorer, timed and counted.
func (b *batcher) call(ctx context.Context, r *run) (err error) {
	b.m.inflight.Inc()
	defer b.m.inflight.Dec()
	r.marks = r.marks[:0]
	for i := range r.items {
		r.marks = append(r.marks, markOf(b.digest, r.items[i].digest))
	}
	r.start = time.Now()
	if len(r.marks) == 1 && b.poison.deaths(r.marks[0]) >= deadly {
		return quarantined()
	}
	r.slots = b.poison.begin(r.marks, r.slots[:0])
	err = safeScore(ctx, b.scorer, r.in, r.out)
	b.poison.end(r.slots)
	r.took = time.Since(r.start)
	b.m.batchRows.Observe(float64(r.in.Rows()))
	if err != nil {
		r.out.Reset()
	}
	return err
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

// errSuspects says that a run holds rows that were being run when a process died: each goes alone.
var errSuspects = errors.New("suspects")

// suspects reports whether an item of r has seen the process die.
func (b *batcher) suspects(r *run) bool {
	if b.poison == nil || b.poison.Suspects() == 0 {
		return false
	}
	for i := range r.items {
		if b.poison.deaths(markOf(b.digest, r.items[i].digest)) > 0 {
			return true
		}
	}
	return false
}

// turn reports whether every item may be committed now.
func (r *run) turn() bool {
	for i := range r.items {
		if !r.items[i].door.myTurn(r.items[i].group) {
			return false
		}
	}
	return true
}

// deliver passes a run's items on, those of one door together.
func deliver(r *run, err error) {
	for i := 0; i < len(r.items); {
		j := i + 1
		for j < len(r.items) && r.items[j].door == r.items[i].door {
			j++
		}
		r.items[i].door.scored(r, r.items[i:j], err)
		i = j
	}
}

// scoreBulk runs one piece of a job in the bulk lane, when it is its turn. A piece that was being run when a process
// died goes row by row; the row that kills is then found, and fails the piece with an error that names it.
func (b *batcher) scoreBulk(ctx context.Context, in, out *schemas.Batch) error {
	if err := b.lanes.enterBulk(ctx); err != nil {
		return err
	}
	defer b.lanes.leaveBulk()
	b.m.inflight.Inc()
	defer b.m.inflight.Dec()
	piece := markOfRows(b.digest, in, 0, in.Rows())
	if b.poison.deaths(piece) == 0 {
		return b.marked(ctx, piece, in, out)
	}
	before := out.Rows()
	one, answer := schemas.NewBatch(b.sig.Inputs), schemas.NewBatch(b.sig.Outputs)
	for i := range in.Rows() {
		one.Reset()
		answer.Reset()
		one.AppendRange(in, i, i+1)
		m := markOfRows(b.digest, one, 0, 1)
		err := quarantined()
		if b.poison.deaths(m) < deadly {
			err = b.marked(ctx, m, one, answer)
		}
		if err != nil {
			out.Truncate(before)
			return schemas.FieldErrorf(schemas.KindOf(err), "pipeline.scoreBulk", "row "+strconv.Itoa(i), "%w", err)
		}
		out.AppendRange(answer, 0, 1)
	}
	b.poison.end(b.poison.begin([]mark{piece}, nil)) // it passed: no suspect any more
	return nil
}

func (b *batcher) marked(ctx context.Context, m mark, in, out *schemas.Batch) error {
	slots := b.poison.begin([]mark{m}, nil)
	defer b.poison.end(slots)
	return safeScore(ctx, b.scorer, in, out)
}
