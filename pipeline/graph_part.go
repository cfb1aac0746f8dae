package pipeline

import (
	"strconv"
	"sync"

	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

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
		f.run(n.children[c], part, p.ids[c], p.outs[c])
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
		f.run(child, in, ids, out)
		return
	}
	b := child.facts().batch()
	f.run(child, in, ids, b)
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
