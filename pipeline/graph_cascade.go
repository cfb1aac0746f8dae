package pipeline

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// cascadeNode asks its stages in order, each for the rows whose answers the ones before it did not accept.
//
// A stage with a time of its own works on copies and may be left behind, as a member of an ensemble may (graph_late.go): the
// answer before it stands then.
type cascadeNode struct {
	*nodeFacts
	stages []graphNode
	give   []*picker
	take   []*picker
	accept []*acceptance   // the stage's answer stands; nil: it does not
	when   []*acceptance   // over the answer before it: the stage is asked; nil: always
	refine []*refinement   // nil: the stage sees what the cascade does
	within []time.Duration // since the rows came to the cascade; 0: the stage is waited for
	afoot  []atomic.Int32  // runs of each stage that have not come back
}

// acceptance is a condition over the columns that it reads.
type acceptance struct {
	program    *expr.Program
	reads      *picker // of the node's input
	readsOfOut *picker // of a stage's answer
}

func (a *acceptance) holds(in, out *schemas.Batch, dst []bool) {
	i, o := a.reads.all(in), a.readsOfOut.all(out)
	a.program.Bools(i, o, 0, len(dst), dst)
	a.reads.free(i, in)
	a.readsOfOut.free(o, out)
}

// refinement makes columns for a stage of the input and of the answer before it.
type refinement struct {
	have  *schemas.Schema // what the stage can read: of the node's input, and what is made
	from  []int           // by column of have: of the node's input, -1: it is made
	cols  []*expr.Program // by column of have
	needs *acceptance     // what the programs read
}

// columns returns what the stage can read, and why rows have none of it, in order.
func (r *refinement) columns(in, out *schemas.Batch) (*schemas.Batch, []schemas.RowError) {
	i, o := r.needs.reads.all(in), r.needs.readsOfOut.all(out)
	b := schemas.NewBatch(r.have)
	var bad []schemas.RowError
	for c, from := range r.from {
		if from >= 0 {
			b.Column(c).AppendColumn(in.Column(from), 0, in.Rows())
			continue
		}
		for _, e := range r.cols[c].Append(i, o, 0, in.Rows(), b.Column(c), nil) {
			bad = append(bad, schemas.RowError{Row: e.Row, Err: schemas.AsError("", schemas.FieldErrorf(schemas.KindOf(e.Err), "pipeline.refine", r.have.Field(c).Name, "%w", e.Err))})
		}
	}
	b.Advance(in.Rows())
	r.needs.reads.free(i, in)
	r.needs.readsOfOut.free(o, out)
	return b, bad
}

// answer is where the answer to a row lies: a row of a stage's answers. stage -1: there is none.
type answer struct{ stage, row int32 }

// descent is one batch's way through the stages.
type descent struct {
	f       *flow
	start   time.Time
	first   int // visits of the cascade
	answers []answer
	outs    []*schemas.Batch // by stage; nil: it has answered nothing
	at      []int            // by stage: its visits

	rows []int32        // of the cascade's input, that are asked now
	rest *schemas.Batch // these
	ids  []int32        // of the flow
	prev *schemas.Batch // the answers before, of these rows; nil: nobody reads them
}

func (n *cascadeNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	d := &descent{f: f, first: f.enter(n.nodeFacts, ids), answers: make([]answer, len(ids)), outs: make([]*schemas.Batch, len(n.stages)),
		at: make([]int, len(n.stages)), rows: make([]int32, len(ids)), rest: in, ids: ids}
	if n.nodeFacts.within > 0 {
		d.start = time.Now()
	}
	for i := range d.rows {
		d.rows[i] = int32(i)
		d.answers[i].stage = -1
	}
	for s := 0; s < len(n.stages) && len(d.rows) > 0; s++ {
		b := n.ask(d, s)
		if b == nil { // its time is over
			break
		}
		n.settle(d, s, b, in, ids)
	}
	n.gather(d, out)
}

// ask has stage s answer the rows that are left. nil: it did not in its time, and the answers before it stand.
func (n *cascadeNode) ask(d *descent, s int) *schemas.Batch {
	f, stage := d.f, n.stages[s].facts()
	have := d.rest
	if r := n.refine[s]; r != nil {
		b, bad := r.columns(d.rest, d.prev)
		if have = b; len(bad) > 0 {
			have = d.without(n, b, bad)
		}
	}
	var left *schemas.Error
	switch {
	case f.past != nil:
		left = f.past.skipped(stage)
	case n.within[s] > 0 && len(d.ids) > 0 && !f.patient && f.owner(int(d.ids[0])).door != nil:
		var b *schemas.Batch
		if b, left = n.askInTime(d, s, have); left == nil {
			return b
		}
	}
	d.at[s] = len(f.visits)
	if left != nil {
		f.skip(stage, left, d.ids)
		for _, r := range d.rows {
			f.visits[d.first+int(r)].fell = true
			a := d.answers[r] // the cascade's answer after all
			f.visits[d.at[a.stage]+int(a.row)].keptIn = -1
		}
		return nil
	}
	part, b := n.give[s].all(have), stage.batch()
	f.run(n.stages[s], part, d.ids, b)
	n.give[s].free(part, have)
	return b
}

// askInTime asks a stage that may be left behind.
func (n *cascadeNode) askInTime(d *descent, s int, have *schemas.Batch) (*schemas.Batch, *schemas.Error) {
	const op = "pipeline.cascade"
	f, stage := d.f, n.stages[s].facts()
	room := n.within[s] - time.Since(d.start)
	if room <= 0 {
		return nil, schemas.Errorf(schemas.Expired, op, "not asked: %v of the cascade were over", n.within[s])
	}
	if n.afoot[s].Add(1) > f.g.afoot {
		n.afoot[s].Add(-1)
		return nil, schemas.Errorf(schemas.Overloaded, op, "%s has %d runs under way that have not come back", stage.path, f.g.afoot)
	}
	c := newCrew(f, d.ids)
	a := &asked{f: c.beside(f)}
	part := n.give[s].copied(have)
	came := make(chan struct{}, 1)
	go func() {
		a.ask(n.stages[s], part, c.ids)
		n.give[s].free(part, nil)
		if a.fate.CompareAndSwap(underWay, hasCome) {
			n.afoot[s].Add(-1)
			came <- struct{}{}
			return
		}
		c.late(stage, a)
		n.afoot[s].Add(-1)
	}()
	t := time.NewTimer(room)
	defer t.Stop()
	why := schemas.Errorf(schemas.Expired, op, "no answer within %v of the cascade", n.within[s])
	select {
	case <-came:
		a.came = true
	case <-t.C:
	case <-c.ended():
		why = schemas.Errorf(schemas.Unavailable, op, "shutting down")
	}
	if !a.came && c.leave(a) {
		return nil, why
	}
	if a.panic != nil { // a broken invariant of ours: as if it had come to pass here
		panic(a.panic)
	}
	d.at[s] = len(f.visits)
	for _, row := range d.ids {
		if e := a.f.failed[row]; e != nil {
			f.failed[row] = e
		}
		f.by[row] = a.f.by[row]
	}
	f.merge(a.f)
	return a.out, nil
}

// without fails the rows that have no columns for the next stage, and returns what it can read of the others.
func (d *descent) without(n *cascadeNode, have *schemas.Batch, bad []schemas.RowError) *schemas.Batch {
	why := map[int]*schemas.Error{}
	for _, e := range bad {
		if why[e.Row] == nil {
			why[e.Row] = e.Err
		}
	}
	var good, rows, ids []int32
	for k, r := range d.rows {
		if e := why[k]; e != nil {
			d.f.visits[d.first+int(r)].err = d.f.fail(d.ids[k], e)
			d.answers[r].stage = -1
			continue
		}
		good, rows, ids = append(good, int32(k)), append(rows, r), append(ids, d.ids[k])
	}
	d.rest, d.rows, d.ids = n.rest(d.rest, good), rows, ids
	return picked(have, good)
}

// settle notes what stage s has answered, and makes what is left ready for the next.
func (n *cascadeNode) settle(d *descent, s int, b, in *schemas.Batch, ids []int32) {
	f, last := d.f, s == len(n.stages)-1
	d.outs[s] = b
	stands := make([]bool, len(d.rows))
	if n.accept[s] != nil {
		n.accept[s].holds(d.rest, b, stands)
	}
	if !last && n.when[s+1] != nil {
		goes := make([]bool, len(d.rows))
		n.when[s+1].holds(d.rest, b, goes)
		for k := range stands {
			stands[k] = stands[k] || !goes[k]
		}
	}
	var went, next []int32
	for k, r := range d.rows {
		d.answers[r] = answer{int32(s), int32(k)}
		f.visits[d.first+int(r)].arm = int32(s)
		if stands[k] = stands[k] || last || f.failed[d.ids[k]] != nil; !stands[k] {
			went, next = append(went, int32(k)), append(next, r)
		}
	}
	// What did not stand is in the record, as the stage's own answer.
	f.keepSome(n.stages[s].facts(), b, d.at[s], func(k int) bool { return !stands[k] })
	if d.rows = next; len(next) == 0 {
		return
	}
	d.rest, d.ids = n.rest(in, next), make([]int32, len(next))
	for k, r := range next {
		d.ids[k] = ids[r]
	}
	if d.prev = nil; n.refine[s+1] != nil {
		d.prev = picked(b, went)
	}
}

// picked returns some rows of a batch.
func picked(b *schemas.Batch, rows []int32) *schemas.Batch {
	out := schemas.NewBatch(b.Schema())
	for c := range b.Schema().Len() {
		appendRows(out.Column(c), b.Column(c), rows)
	}
	out.Advance(len(rows))
	return out
}

// gather appends the answers.
func (n *cascadeNode) gather(d *descent, out *schemas.Batch) {
	for c := range out.Schema().Len() {
		dst := out.Column(c)
		if n.plain(d, c, dst) {
			size := dst.Width() * dst.Field().Type.Size()
			to := dst.Extend(len(d.answers))
			for i, a := range d.answers {
				src := d.outs[a.stage].Column(n.take[a.stage].from[c]).Data()
				copy(to[i*size:(i+1)*size], src[int(a.row)*size:])
			}
			continue
		}
		for _, a := range d.answers {
			if a.stage < 0 {
				dst.AppendNull()
				continue
			}
			dst.AppendColumn(d.outs[a.stage].Column(n.take[a.stage].from[c]), int(a.row), int(a.row)+1)
		}
	}
	out.Advance(len(d.answers))
}

// plain reports whether column c of all answers is fixed in size and none is null.
func (n *cascadeNode) plain(d *descent, c int, dst *schemas.Column) bool {
	for s, b := range d.outs {
		if b != nil && !flat(dst, b.Column(n.take[s].from[c])) {
			return false
		}
	}
	for _, a := range d.answers {
		if a.stage < 0 {
			return false
		}
	}
	return true
}

// rest returns some rows of the node's input.
func (n *cascadeNode) rest(in *schemas.Batch, rows []int32) *schemas.Batch {
	b := schemas.NewBatch(n.in)
	for c := range n.in.Len() {
		appendRows(b.Column(c), in.Column(c), rows)
	}
	b.Advance(len(rows))
	return b
}

// ask has a node answer for somebody who may not wait.
func (a *asked) ask(n graphNode, part *schemas.Batch, ids []int32) {
	defer func() {
		if a.panic = recover(); a.panic != nil {
			a.stack = debug.Stack()
		}
	}()
	a.out = n.facts().batch()
	a.f.run(n, part, ids, a.out)
}
