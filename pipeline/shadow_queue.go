package pipeline

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sort"
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/internal/priority"
	"github.com/leatstream/leat/schemas"
)

// Bounds of a shadow's queue. A batch is small, since a run cannot be stopped when a request comes.
const (
	maxShadowRows  = 256
	maxShadowBytes = 32 << 20 // that wait
	behindAll      = 19       // the least weight that the system gives a thread

	// shadowGather is how long rows wait for others: nobody waits for them, and an append for each request would cost the
	// machine as much as the requests' own.
	shadowGather = 20 * time.Millisecond

	// While requests come, a shadow rests so many times what a batch and its record took: a core that no run has use for may be
	// busy with transport, commits and callers all the same.
	shadowRest = 9
)

// shadowQueue holds the rows that wait for a shadow, and its workers. It belongs to one pipeline of one process and
// outlives revisions, so that their changes add up to no more than its bounds.
type shadowQueue struct {
	tally
	p    *processor
	name string
	kick chan struct{} // capacity 1: a batch waits
	full chan struct{} // capacity 1: as much waits as a batch has
	work sync.WaitGroup

	mu struct {
		sync.Mutex
		waiting []*shadowBatch // in order of arrival; rows are added to the last one
		rows    int            // in hand: waiting, or in work
		bytes   int            // waiting
		workers int
		closed  bool
		ready   string // revision that is loaded
		err     error  // why the active one is not
	}
}

// shadowBatch is what a shadow runs at once: rows of requests of one revision.
type shadowBatch struct {
	of       *castShadow
	in       *schemas.Batch
	requests []shadowed
	row      []int32 // by row of in: the row in its request
}

func newShadowQueue(p *processor, name string) *shadowQueue {
	q := &shadowQueue{p: p, name: name, kick: make(chan struct{}, 1), full: make(chan struct{}, 1)}
	for o, text := range shadowFates {
		q.series[o] = p.host.m.shadowRows.WithLabelValues(p.name, name, text)
	}
	return q
}

// put copies rows of an item into the queue, or drops them.
func (q *shadowQueue) put(s *shadow, it *item, by caller, in *schemas.Batch, rows []int32) {
	l := s.loaded.Load()
	if l == nil || !l.acquire() {
		q.count(shed, len(rows))
		return
	}
	if !q.putLoaded(s, l, it, by, in, rows) {
		q.count(shed, len(rows))
		l.release()
	}
}

// putLoaded is put with a reference on l, which it takes over unless it returns false. It gives the lock up whatever comes
// to pass: the primary would wait for it.
func (q *shadowQueue) putLoaded(s *shadow, l *castShadow, it *item, by caller, in *schemas.Batch, rows []int32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed || q.mu.rows+len(rows) > s.spec.Budget || q.mu.bytes > maxShadowBytes {
		return false
	}
	q.mu.rows += len(rows)
	var b *shadowBatch
	if n := len(q.mu.waiting); n > 0 && q.mu.waiting[n-1].of == l && q.mu.waiting[n-1].in.Rows()+len(rows) <= maxShadowRows {
		b = q.mu.waiting[n-1]
		defer l.release() // the batch holds it already, so this is not the last one
	} else {
		b = &shadowBatch{of: l, in: l.give.get()}
		q.mu.waiting = append(q.mu.waiting, b)
	}
	before := b.in.Bytes()
	b.add(q.p.name, it, by, in, rows)
	q.mu.bytes += b.in.Bytes() - before
	if q.mu.workers < s.spec.Concurrency {
		q.mu.workers++
		q.work.Go(q.run)
	}
	wake(q.kick)
	if q.mu.rows >= maxShadowRows {
		wake(q.full)
	}
	return true
}

// wake leaves a token in a channel of capacity 1.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add copies rows of an item into the batch.
func (b *shadowBatch) add(pipeline string, it *item, by caller, in *schemas.Batch, rows []int32) {
	l, at := b.of, b.in.Rows()
	whole := len(rows) == it.to-it.from
	for i, j := range l.give.from {
		if whole {
			b.in.Column(i).AppendColumn(in.Column(j), it.from, it.to)
		} else {
			appendRows(b.in.Column(i), in.Column(j), rows)
		}
	}
	b.in.Advance(len(rows))
	x := newShadowed(pipeline, it, by, l.headers)
	x.from, x.to = at, at+len(rows)
	b.requests = append(b.requests, x)
	for _, r := range rows {
		b.row = append(b.row, int32(it.row(int(r)-it.from)))
	}
}

// run takes batches until the queue is closed. It stands back behind all other threads of the process.
func (q *shadowQueue) run() {
	if err := priority.StepBack(behindAll); err != nil {
		q.p.host.Log.Warn("a shadow runs at the priority of requests", "pipeline", q.p.name, "shadow", q.name, slog.Any("error", err))
	}
	ctx, lanes := q.p.stopped, q.p.host.models.lanes
	more := time.NewTimer(shadowGather)
	defer more.Stop()
	for {
		select {
		case <-q.kick:
		case <-ctx.Done():
			return
		}
		more.Reset(shadowGather)
		select {
		case <-more.C:
		case <-q.full:
		case <-ctx.Done():
			return
		}
		for q.waits() {
			if lanes.enterIdle(ctx) != nil {
				return
			}
			b := q.take()
			if b == nil {
				lanes.leaveIdle()
				break
			}
			t, out := &trace{serial: true}, schemas.NewBatch(b.of.sig.Outputs)
			start := time.Now()
			err := b.of.shade(ctx, t, b, out, q.public)
			lanes.leaveIdle()
			if err := safely("record", func() error { q.record(ctx, b, t, out, start, err); return nil }); err != nil {
				q.count(failed, b.in.Rows())
				q.p.host.Log.Error("rows of a shadow are not recorded", "pipeline", q.p.name, "shadow", q.name, slog.Any("error", err))
			}
			took := time.Since(start)
			if q.done(b, t) {
				return
			}
			if !lanes.online() {
				continue
			}
			more.Reset(shadowRest * took)
			select {
			case <-more.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (q *shadowQueue) waits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.waiting) > 0
}

// take takes the oldest batch, nil if none waits. The next worker is told of others.
func (q *shadowQueue) take() *shadowBatch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mu.waiting) == 0 {
		return nil
	}
	b := q.mu.waiting[0]
	q.mu.waiting[0] = nil
	q.mu.waiting = q.mu.waiting[1:]
	q.mu.bytes -= b.in.Bytes()
	if len(q.mu.waiting) > 0 {
		wake(q.kick)
	}
	return b
}

// shade runs a batch.
func (l *castShadow) shade(ctx context.Context, t *trace, b *shadowBatch, out *schemas.Batch, public func(error) *schemas.Error) error {
	owner := func(row int) *item {
		i := sort.Search(len(b.requests), func(i int) bool { return row < b.requests[i].to })
		return &b.requests[i].item
	}
	err := l.route.safe(ctx, b.in, out, t, owner, public)
	l.route.count(t, err != nil)
	return err
}

// record appends the records of a batch, each below the one of the same row's route. What cannot be appended is counted
// and forgotten: the job of catching up finds it.
func (q *shadowQueue) record(ctx context.Context, b *shadowBatch, t *trace, out *schemas.Batch, start time.Time, err error) {
	if ctx.Err() != nil {
		q.count(shed, b.in.Rows())
		return
	}
	var recs lineage.Records
	now, h := time.Now(), q.p.host
	bad := 0
	var whole *schemas.Error
	if err != nil {
		whole = q.public(err)
	}
	for i := range b.requests {
		x := &b.requests[i]
		v := &visitor{rev: b.of.compiled, trace: t, recs: &recs, principal: x.by.principal, via: x.by.via, cpu: h.CPU, public: q.public}
		for at := x.from; at < x.to; at++ {
			row := x.root
			row.Row, row.Queue, row.Score, row.Scored = b.row[at], start.Sub(x.root.Received), now.Sub(start), now
			root := lineage.RecordID(x.key, row.InputDigest, row.Row, RootPath, "")
			row.ParentID = hex.EncodeToString(root[:])
			e := whole
			if e == nil {
				e = t.failed[at]
			}
			aerr := v.shadow(&row, at, e, out)
			if e != nil || aerr != nil {
				bad++
			}
			if aerr != nil {
				h.Log.Error("a row of a shadow is not recorded", "pipeline", q.p.name, "shadow", q.name, "request", row.RequestID, slog.Any("error", aerr))
			}
		}
	}
	actx, cancel := context.WithTimeout(ctx, h.AppendTimeout)
	defer cancel()
	if _, aerr := h.Lineage.Append(actx, &recs); aerr != nil {
		bad = b.in.Rows()
		h.Log.Error("records of a shadow not appended", "pipeline", q.p.name, "shadow", q.name, "rows", bad, slog.Any("error", aerr))
	}
	q.count(failed, bad)
	q.count(scored, b.in.Rows()-bad)
}

// public is what of an error may be recorded.
func (q *shadowQueue) public(err error) *schemas.Error { return q.p.host.public(err, q.p.name) }

// shadow is record for a row of a shadow: the input lies with the record of the route. A run that failed as a whole has
// left no trace.
func (x *visitor) shadow(env *lineage.Row, at int, e *schemas.Error, out *schemas.Batch) error {
	if len(x.trace.visits) > 0 {
		return x.record(env, at, e, nil, 0, out, at)
	}
	root := x.rev.route.nodes[0]
	errored(env, e)
	return x.recs.Add(x.context(root, &visit{arm: -1}, -1), env, nil, 0, nil, 0)
}

// done lets go of a batch. true: there are more workers than the shadow may have by now, and the caller ends.
func (q *shadowQueue) done(b *shadowBatch, t *trace) (over bool) {
	t.reset()
	q.mu.Lock()
	q.mu.rows -= b.in.Rows()
	if over = q.mu.workers > b.of.spec.Concurrency; over {
		q.mu.workers--
	}
	q.mu.Unlock()
	b.of.give.free(b.in, nil)
	b.of.release()
	return over
}

// close ends the workers and drops what waits.
func (q *shadowQueue) close() {
	q.mu.Lock()
	q.mu.closed = true
	q.mu.Unlock()
	q.work.Wait()
	for b := q.take(); b != nil; b = q.take() {
		q.count(shed, b.in.Rows())
		q.done(b, &trace{})
	}
}

// state notes whether the shadow of a revision is loaded.
func (q *shadowQueue) state(revision string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.err = err; err == nil {
		q.mu.ready = revision
	}
}

// report is what callers see; revision is the active one.
func (q *shadowQueue) report(revision string) ShadowState {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := ShadowState{
		Ready:     q.mu.err == nil && q.mu.ready == revision,
		Elsewhere: !q.p.host.Groups.shadow(q.name),
		Scored:    q.rows[scored].Load(), SampledOut: q.rows[sampledOut].Load(), Shed: q.rows[shed].Load(), Failed: q.rows[failed].Load(),
	}
	if q.mu.err != nil {
		s.Error = q.mu.err.Error()
	}
	return s
}

// noDelivery is that of a request whose headers no node asks for.
var noDelivery connectors.Delivery
