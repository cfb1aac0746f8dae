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
