package pipeline

import (
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// switcher chooses the first case whose condition holds.
type switcher struct{ when []*expr.Program } // of all cases but the last

func (s *switcher) choose(f *flow, in *schemas.Batch, ids []int32, first int) {
	holds := make([]bool, len(ids))
	open := len(ids)
	for c, p := range s.when {
		if open == 0 {
			return
		}
		p.Bools(in, nil, 0, len(ids), holds)
		for i, h := range holds {
			if v := &f.visits[first+i]; h && v.arm < 0 {
				v.arm = int32(c)
				open--
			}
		}
	}
	for i := range ids {
		if v := &f.visits[first+i]; v.arm < 0 {
			v.arm = int32(len(s.when))
		}
	}
}

// transformNode makes columns.
type transformNode struct {
	*nodeFacts
	cols []*expr.Program // by column of out
}

func (n *transformNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	first := f.enter(n.nodeFacts, ids)
	for _, row := range ids {
		f.by[row] = -1 // no model's answer as it is
	}
	var bad []schemas.RowError
	for c, p := range n.cols {
		bad = p.Append(in, nil, 0, len(ids), out.Column(c), bad[:0])
		for _, b := range bad {
			err := schemas.FieldErrorf(schemas.KindOf(b.Err), "pipeline.transform", n.out.Field(c).Name, "node %s: %w", n.path, b.Err)
			f.visits[first+b.Row].err = f.fail(ids[b.Row], err)
		}
	}
	out.Advance(len(ids))
}

// cascadeNode asks its stages in order, each for the rows whose answers the ones before it did not accept.
type cascadeNode struct {
	*nodeFacts
	stages []graphNode
	give   []*picker
	take   []*picker
	accept []*acceptance // of all stages but the last
}

// acceptance is the condition under which a stage's answer stands, over the columns that it reads.
type acceptance struct {
	program    *expr.Program
	reads      *picker // of the node's input
	readsOfOut *picker // of the stage's answer
}

func (a *acceptance) holds(in, out *schemas.Batch, dst []bool) {
	i, o := a.reads.all(in), a.readsOfOut.all(out)
	a.program.Bools(i, o, 0, len(dst), dst)
	a.reads.free(i, in)
	a.readsOfOut.free(o, out)
}

func (n *cascadeNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	first := f.enter(n.nodeFacts, ids)
	left := make([]int32, len(ids)) // rows of in that have no answer yet
	for i := range left {
		left[i] = int32(i)
	}
	type answer struct {
		stage int32
		row   int32
	}
	answers := make([]answer, len(ids))
	outs := make([]*schemas.Batch, len(n.stages))
	rest, of := in, ids
	for s := 0; s < len(n.stages) && len(left) > 0; s++ {
		if s > 0 {
			rest, of = n.rest(in, left), make([]int32, len(left))
			for k, r := range left {
				of[k] = ids[r]
			}
		}
		stage := n.stages[s].facts()
		part, b := n.give[s].all(rest), stage.batch()
		at := len(f.visits)
		f.run(n.stages[s], part, of, b)
		n.give[s].free(part, rest)
		outs[s] = b
		stands := make([]bool, len(left))
		if s < len(n.accept) {
			n.accept[s].holds(rest, b, stands)
		}
		next := left[:0:0]
		for k, r := range left {
			if s == len(n.stages)-1 || stands[k] || f.failed[of[k]] != nil {
				answers[r] = answer{int32(s), int32(k)}
				f.visits[first+int(r)].arm = int32(s)
			} else {
				next = append(next, r)
			}
		}
		// What did not stand is in the record, as the stage's own answer.
		f.keepSome(stage, b, at, func(k int) bool { return s < len(n.stages)-1 && !stands[k] })
		left = next
	}
	for _, a := range answers {
		n.take[a.stage].appendRow(out, outs[a.stage], int(a.row))
	}
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
