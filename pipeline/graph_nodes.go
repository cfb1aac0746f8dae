package pipeline

import (
	"strconv"
	"sync"
	"time"

	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
)

// scoringNode runs a model.
type scoringNode struct {
	*nodeFacts
	takes *schemas.Schema // of the model
	pack  *combine.Stack  // from in to takes; nil: they are the same
	packs sync.Pool       // of *packed
}

// packed is what a model takes, and what it takes to make it.
type packed struct{ in, work *schemas.Batch }

func (n *scoringNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	first := f.enter(n.nodeFacts, ids)
	if f.past != nil {
		f.past.answer(f, n.nodeFacts, ids, first, out)
		return
	}
	for _, row := range ids {
		f.by[row] = int32(n.index)
	}
	if n.pack == nil {
		n.scoreAll(f, in, ids, first, out)
		return
	}
	p, _ := n.packs.Get().(*packed)
	if p == nil {
		p = &packed{schemas.NewBatch(n.takes), schemas.NewBatch(n.pack.Work())}
	}
	bad, err := n.pack.Append(nil, in, p.work, p.in, 0, in.Rows(), nil)
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
	for i, k := 0, 0; i < len(ids); i++ {
		if k < len(rows) && rows[k] == int32(i) {
			out.AppendRange(part, k, k+1)
			k++
		} else {
			blank(out)
		}
	}
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
	start := time.Now()
	err := safeScore(f.ctx, n.loaded.scorer, rows, out)
	took := time.Since(start)
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

// partingNode gives each row to one of its children.
type partingNode struct {
	*nodeFacts
	children []graphNode
	give     []*picker // the columns of each child
	take     []*picker // the answers of each child, as the node's
	choose   chooser
	parts    sync.Pool // of *parts
}

// chooser decides for the rows of a batch which child they go to, in the visits [first, ...): arm and propensity.
type chooser interface {
	choose(f *flow, in *schemas.Batch, ids []int32, first int)
}

func (n *partingNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	first := f.enter(n.nodeFacts, ids)
	n.choose.choose(f, in, ids, first)
	p, _ := n.parts.Get().(*parts)
	if p == nil {
		p = &parts{rows: make([][]int32, len(n.children)), ids: make([][]int32, len(n.children)), outs: make([]*schemas.Batch, len(n.children))}
	}
	defer n.free(p)
	for i, row := range ids {
		arm := f.visits[first+i].arm
		if p.arms = append(p.arms, arm); arm >= 0 {
			p.rows[arm], p.ids[arm] = append(p.rows[arm], int32(i)), append(p.ids[arm], row)
		}
	}
	if len(ids) > 0 && p.arms[0] >= 0 && len(p.rows[p.arms[0]]) == len(ids) { // as most small batches do
		c := p.arms[0]
		part := n.give[c].all(in)
		n.answer(f, c, part, ids, out)
		n.give[c].free(part, in)
		return
	}
	for c, rows := range p.rows {
		if len(rows) == 0 {
			continue
		}
		part := n.give[c].some(in, rows)
		p.outs[c] = n.children[c].facts().batch()
		n.children[c].run(f, part, p.ids[c], p.outs[c])
		n.give[c].free(part, in)
	}
	n.gather(p, out)
}

// parts is how the rows of a batch part.
type parts struct {
	arms []int32          // by row; -1: none
	rows [][]int32        // by child: its rows, in order
	ids  [][]int32        // by child: what these are in the flow
	outs []*schemas.Batch // by child: its answers, nil if it has no rows
}

// free keeps p for another batch.
func (n *partingNode) free(p *parts) {
	for c, b := range p.outs {
		if p.rows[c], p.ids[c] = p.rows[c][:0], p.ids[c][:0]; b != nil {
			n.children[c].facts().free(b)
		}
	}
	clear(p.outs)
	p.arms = p.arms[:0]
	n.parts.Put(p)
}

// gather appends the answers of the children in the order of the rows.
func (n *partingNode) gather(p *parts, out *schemas.Batch) {
	for c := range out.Schema().Len() {
		dst := out.Column(c)
		if p.plain(n, c, dst) {
			size := dst.Width() * dst.Field().Type.Size()
			to := dst.Extend(len(p.arms))
			for arm, b := range p.outs {
				if b != nil {
					scatter(to, b.Column(n.take[arm].from[c]).Data(), size, p.rows[arm])
				}
			}
			continue
		}
		var scratch [8]int
		next := append(scratch[:0], make([]int, len(p.outs))...)
		for _, arm := range p.arms {
			if arm < 0 {
				dst.AppendNull()
				continue
			}
			k := next[arm]
			dst.AppendColumn(p.outs[arm].Column(n.take[arm].from[c]), k, k+1)
			next[arm]++
		}
	}
	out.Advance(len(p.arms))
}

// plain reports whether all children's answers to column c of the node's are fixed in size and none is null.
func (p *parts) plain(n *partingNode, c int, dst *schemas.Column) bool {
	rows := 0
	for arm, b := range p.outs {
		if b != nil && !flat(dst, b.Column(n.take[arm].from[c])) {
			return false
		}
		rows += len(p.rows[arm])
	}
	return rows == len(p.arms)
}

// answer has one child answer all rows.
func (n *partingNode) answer(f *flow, c int32, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	child := n.children[c]
	if n.take[c].same {
		child.run(f, in, ids, out)
		return
	}
	b := child.facts().batch()
	child.run(f, in, ids, b)
	for i := range b.Rows() {
		n.take[c].appendRow(out, b, i)
	}
	child.facts().free(b)
}

// splitter chooses by weight.
type splitter struct {
	split  *route.Split
	key    int    // column, -1: none
	header string // "": none
	forced bool
	path   string
	arms   []string
	parts  []int // weights
}

func (s *splitter) choose(f *flow, in *schemas.Batch, ids []int32, first int) {
	var scratch [64]byte
	for i, row := range ids {
		v := &f.visits[first+i]
		if f.past != nil {
			s.again(f.past, v)
			continue
		}
		it := f.owner(int(row))
		if s.forced {
			if arm := forcedArm(it, s.path, s.arms); arm >= 0 {
				v.arm, v.propensity = int32(arm), 0
				continue
			}
		}
		key := scratch[:0]
		if s.key >= 0 {
			key = appendKey(key, in.Column(s.key), i)
		} else if s.header != "" {
			key = append(key, it.d.Header.Get(s.header)...)
		}
		if len(key) == 0 {
			key = append(key, it.id...)
		}
		v.seed = s.split.Seed(key)
		v.arm = int32(s.split.ArmOf(v.seed))
		v.propensity = float64(s.parts[v.arm]) / fullWeight
	}
}

// appendKey appends the text of a value: the same for equal values of any number type. Nothing for a null.
func appendKey(key []byte, c *schemas.Column, i int) []byte {
	if c.IsNull(i) {
		return key
	}
	switch c.Field().Type {
	case schemas.Bool:
		return strconv.AppendBool(key, c.Data()[i] != 0)
	case schemas.Int8:
		return strconv.AppendInt(key, int64(schemas.Values[int8](c)[i]), 10)
	case schemas.Int16:
		return strconv.AppendInt(key, int64(schemas.Values[int16](c)[i]), 10)
	case schemas.Int32:
		return strconv.AppendInt(key, int64(schemas.Values[int32](c)[i]), 10)
	case schemas.Int64, schemas.Timestamp:
		return strconv.AppendInt(key, schemas.Values[int64](c)[i], 10)
	case schemas.Uint8:
		return strconv.AppendUint(key, uint64(schemas.Values[uint8](c)[i]), 10)
	case schemas.Uint16:
		return strconv.AppendUint(key, uint64(schemas.Values[uint16](c)[i]), 10)
	case schemas.Uint32:
		return strconv.AppendUint(key, uint64(schemas.Values[uint32](c)[i]), 10)
	case schemas.Uint64:
		return strconv.AppendUint(key, schemas.Values[uint64](c)[i], 10)
	case schemas.String, schemas.Binary:
		return append(key, c.Text(i)...)
	}
	return key // other types are refused when the spec is applied
}

// keyType reports whether a column of the type can be a key: values that are equal are written alike.
func keyType(f *schemas.Field) bool {
	return !f.Tensor() && (f.Type.Integer() || f.Type.Variable() || f.Type == schemas.Bool || f.Type == schemas.Timestamp)
}

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
		n.steps[i].run(f, part, live, answer)
		n.give[i].free(part, cols)
		cols, live = n.extend(f, i, cols, live, answer)
		f.keep(step, answer, first)
	}
	part := n.give[last].all(cols)
	if len(live) == len(ids) {
		n.steps[last].run(f, part, live, out)
		n.give[last].free(part, cols)
		return
	}
	step := n.steps[last].facts()
	b := step.batch()
	n.steps[last].run(f, part, live, b)
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
