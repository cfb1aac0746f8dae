package pipeline

import "github.com/leatstream/leat/schemas"

// sequenceNode runs its steps one after another.
type sequenceNode struct {
	*nodeFacts
	steps []graphNode
	give  []*picker         // what each step reads, of the columns that are there before it
	have  []*schemas.Schema // the columns that are there before each step and are read later
	keep  []*picker         // from have[i] to have[i+1]: columns that stay; -1 where the step made it
	made  [][]int           // by column of have[i+1]: the column of step i's answer, -1: it stays
}

func (n *sequenceNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	f.enter(n.nodeFacts, ids)
	cols, live := in, ids
	last := len(n.steps) - 1
	for i := range last {
		step := n.steps[i].facts()
		part, answer := n.give[i].all(cols), step.batch()
		first := len(f.visits)
		f.run(n.steps[i], part, live, answer)
		n.give[i].free(part, cols)
		cols, live = n.extend(f, i, cols, live, answer)
		f.keep(step, answer, first)
	}
	part := n.give[last].all(cols)
	if len(live) == len(ids) {
		f.run(n.steps[last], part, live, out)
		n.give[last].free(part, cols)
		return
	}
	step := n.steps[last].facts()
	b := step.batch()
	f.run(n.steps[last], part, live, b)
	n.give[last].free(part, cols)
	for i, k := 0, 0; i < len(ids); i++ {
		if k < len(live) && live[k] == ids[i] {
			out.AppendRange(b, k, k+1)
			k++
		} else {
			blank(out)
		}
	}
	step.free(b)
}

// extend returns the columns for the step after i: of the rows that have not failed.
func (n *sequenceNode) extend(f *flow, i int, cols *schemas.Batch, ids []int32, answer *schemas.Batch) (*schemas.Batch, []int32) {
	next := schemas.NewBatch(n.have[i+1])
	live := make([]int32, 0, len(ids))
	rows := make([]int32, 0, len(ids))
	for k, row := range ids {
		if f.failed[row] == nil {
			live, rows = append(live, row), append(rows, int32(k))
		}
	}
	for c := range next.Schema().Len() {
		src := answer
		from := n.made[i][c]
		if from < 0 {
			src, from = cols, n.keep[i].from[c]
		}
		dst, col := next.Column(c), src.Column(from)
		if len(rows) == len(ids) {
			dst.AppendColumn(col, 0, col.Rows())
			continue
		}
		appendRows(dst, col, rows)
	}
	next.Advance(len(rows))
	return next, live
}
