package pipeline

import (
	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
)

// joiner makes one answer of those of the members. join appends one row to out for each row of in. It combines the rows
// of each group that is enough; the other rows have failed.
type joiner interface {
	join(f *flow, all []*schemas.Batch, groups []group, in *schemas.Batch, ids []int32, out *schemas.Batch)
}

// group is neighbouring rows that the same members have answered.
type group struct {
	from, to int
	who      uint64 // a bit for each member
	enough   bool
}

// present returns the answers of those who have answered, nil in the place of the others.
func (g *group) present(all []*schemas.Batch, scratch []*schemas.Batch) []*schemas.Batch {
	scratch = append(scratch[:0], all...)
	for m := range scratch {
		if g.who&(1<<m) == 0 {
			scratch[m] = nil
		}
	}
	return scratch
}

// planned joins by rules.
type planned struct{ plan *combine.Plan }

func (p planned) join(f *flow, all []*schemas.Batch, groups []group, _ *schemas.Batch, ids []int32, out *schemas.Batch) {
	var scratch [8]*schemas.Batch
	for _, g := range groups {
		if g.enough {
			err := p.plan.Combine(g.present(all, scratch[:]), out, g.from, g.to)
			if err == nil {
				continue
			}
			for _, row := range ids[g.from:g.to] {
				f.fail(row, err)
			}
		}
		for range g.to - g.from {
			blank(out)
		}
	}
}

// stackNode joins by a further model, which is a node of its own.
type stackNode struct {
	*scoringNode
	stack *combine.Stack
}

func (n *stackNode) join(f *flow, all []*schemas.Batch, groups []group, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	rows := make([]int32, 0, len(ids)) // of in, that enough members have answered
	live := ids
	for _, g := range groups {
		for i := g.from; i < g.to && g.enough; i++ {
			rows = append(rows, int32(i))
		}
	}
	if len(rows) == len(ids) {
		n.ask(f, all, groups, in, live, out)
		return
	}
	live = make([]int32, len(rows))
	for k, r := range rows {
		live[k] = ids[r]
	}
	part := n.batch()
	n.ask(f, all, groups, in, live, part)
	spread(part, rows, len(ids), out)
	n.free(part)
}

// ask has the model answer the rows of the groups that are enough, which are rows ids of the flow.
func (n *stackNode) ask(f *flow, all []*schemas.Batch, groups []group, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	defer f.left(len(f.passes), sinceStart())
	first := f.enter(n.nodeFacts, ids)
	if len(ids) == 0 {
		return
	}
	if f.past != nil {
		f.past.answer(f, n.nodeFacts, ids, first, out)
		return
	}
	for _, row := range ids {
		f.by[row] = int32(n.index)
	}
	n.scorePacked(f, ids, first, out, func(p *packed) (bad []schemas.RowError, err error) {
		var scratch [8]*schemas.Batch
		at := 0
		for _, g := range groups {
			if !g.enough {
				continue
			}
			k := len(bad)
			if bad, err = n.stack.Append(g.present(all, scratch[:]), in, p.work, p.in, g.from, g.to, bad); err != nil {
				return nil, err
			}
			for ; k < len(bad); k++ {
				bad[k].Row += at - g.from
			}
			at += g.to - g.from
		}
		return bad, nil
	})
}

// spread appends n rows to out: those that are rows of part, which are in order, and blanks between them.
func spread(part *schemas.Batch, rows []int32, n int, out *schemas.Batch) {
	for i, k := 0, 0; i < n; i++ {
		if k < len(rows) && rows[k] == int32(i) {
			out.AppendRange(part, k, k+1)
			k++
		} else {
			blank(out)
		}
	}
}
