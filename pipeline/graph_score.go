package pipeline

import (
	"sync"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
)

// scoringNode runs a model.
type scoringNode struct {
	*nodeFacts
	takes *schemas.Schema // of the model
	pack  *combine.Stack  // from in to takes; nil: they are the same
	work  *schemas.Schema // of packed.work
	packs sync.Pool       // of *packed
}

// packed is what a model takes, and what it takes to make it.
type packed struct{ in, work *schemas.Batch }

func (n *scoringNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	first := f.enter(n.nodeFacts, ids)
	for _, row := range ids {
		f.by[row] = int32(n.index)
	}
	if f.past != nil {
		f.past.answer(f, n.nodeFacts, ids, first, out)
		return
	}
	if n.pack == nil {
		n.scoreAll(f, in, ids, first, out)
		return
	}
	n.scorePacked(f, ids, first, out, func(p *packed) ([]schemas.RowError, error) {
		return n.pack.Append(nil, in, p.work, p.in, 0, in.Rows(), nil)
	})
}

// scorePacked runs the model on what fill makes of rows ids: those that it can make are rows of p.in, the others have
// errors, in order, by their place in ids.
func (n *scoringNode) scorePacked(f *flow, ids []int32, first int, out *schemas.Batch, fill func(p *packed) ([]schemas.RowError, error)) {
	p, _ := n.packs.Get().(*packed)
	if p == nil {
		p = &packed{schemas.NewBatch(n.takes), schemas.NewBatch(n.work)}
	}
	bad, err := fill(p)
	switch {
	case err != nil:
		for i, row := range ids {
			f.visits[first+i].err = f.fail(row, err)
			blank(out)
		}
	case len(bad) == 0:
		n.scoreAll(f, p.in, ids, first, out)
	default: // the others are packed
		n.scoreSome(f, p.in, ids, first, n.without(f, ids, first, func(i int) error {
			if len(bad) > 0 && bad[0].Row == i {
				e := bad[0].Err
				bad = bad[1:]
				return e
			}
			return nil
		}), out)
	}
	p.in.Reset()
	p.work.Reset()
	n.packs.Put(p)
}

func (n *scoringNode) scoreAll(f *flow, in *schemas.Batch, ids []int32, first int, out *schemas.Batch) {
	rows := n.checked(f, in, ids, first)
	if rows == nil {
		n.score(f, in, ids, first, 0, in.Rows(), out)
		return
	}
	some := schemas.NewBatch(n.takes)
	for _, r := range rows {
		some.AppendRange(in, int(r), int(r)+1)
	}
	n.scoreSome(f, some, ids, first, rows, out)
}

// checked returns the rows that the model takes, nil for all.
func (n *scoringNode) checked(f *flow, in *schemas.Batch, ids []int32, first int) (rows []int32) {
	null, c := n.nulls(in), n.loaded.check
	if c != nil && c.CheckRows(in, 0, in.Rows()) == nil {
		c = nil
	}
	if null == nil && c == nil {
		return nil
	}
	return n.without(f, ids, first, func(i int) error {
		var err error
		if null != nil {
			err = null(i)
		}
		if err == nil && c != nil {
			err = c.CheckRows(in, i, i+1)
		}
		return err
	})
}

// nulls says why a row cannot be scored that has a null where the model takes none: nil if no row has.
func (n *scoringNode) nulls(in *schemas.Batch) func(i int) error {
	any := false
	for c := range n.takes.Len() {
		any = any || !n.takes.Field(c).Nullable && in.Column(c).Nulls() > 0
	}
	if !any {
		return nil
	}
	return func(i int) error {
		for c := range n.takes.Len() {
			if fd := n.takes.Field(c); !fd.Nullable && in.Column(c).IsNull(i) {
				return schemas.FieldErrorf(schemas.Invalid, "pipeline.score", fd.Name, "null, and model %s takes none", n.model.Name)
			}
		}
		return nil
	}
}

// without returns the rows that are not bad, and fails the others.
func (n *scoringNode) without(f *flow, ids []int32, first int, bad func(i int) error) []int32 {
	rows := make([]int32, 0, len(ids))
	for i := range ids {
		if err := bad(i); err != nil {
			f.visits[first+i].err = f.fail(ids[i], err)
			continue
		}
		rows = append(rows, int32(i))
	}
	return rows
}

// scoreSome scores the rows of some, which are rows of ids; the others get blanks.
func (n *scoringNode) scoreSome(f *flow, some *schemas.Batch, ids []int32, first int, rows []int32, out *schemas.Batch) {
	part := n.batch()
	defer n.free(part)
	left := make([]int32, len(rows))
	for i, r := range rows {
		left[i] = ids[r]
	}
	at := len(f.visits)
	f.visits = append(f.visits, make([]visit, len(rows))...) // their place while they are scored
	for i, r := range rows {
		f.visits[at+i] = f.visits[first+int(r)]
	}
	n.score(f, some, left, at, 0, len(rows), part)
	for i, r := range rows {
		f.visits[first+int(r)] = f.visits[at+i]
	}
	f.visits = f.visits[:at]
	spread(part, rows, len(ids), out)
}

// score runs the model on rows [from, to). If it fails, its halves are run, and theirs: one row fails alone (P6).
func (n *scoringNode) score(f *flow, in *schemas.Batch, ids []int32, first, from, to int, out *schemas.Batch) {
	if from == to {
		return
	}
	rows := in
	if from > 0 || to < in.Rows() {
		rows = schemas.NewBatch(n.takes)
		rows.AppendRange(in, from, to)
	}
	start := sinceStart()
	err := safeScore(f.ctx, n.loaded.scorer, rows, out)
	took := sinceStart() - start
	switch {
	case err == nil:
		for i := from; i < to; i++ {
			f.visits[first+i].took = took
		}
	case to-from == 1 || f.ctx.Err() != nil || schemas.KindOf(err) == schemas.Unavailable:
		for i := from; i < to; i++ {
			f.visits[first+i].err, f.visits[first+i].took = f.fail(ids[i], err), took
			blank(out)
		}
	default:
		mid := (from + to) / 2
		n.score(f, in, ids, first, from, mid, out)
		n.score(f, in, ids, first, mid, to, out)
	}
}
