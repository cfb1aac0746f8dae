package combine

import (
	"math/bits"

	"github.com/leatstream/leat/schemas"
)

// maxText is schemas.MaxText, which no test can afford to reach.
var maxText = schemas.MaxText

// voter is a member that takes part: its column, and its weight (1 where the rule does not weigh).
type voter struct {
	col    *schemas.Column
	weight int
}

// voters lie on the stack of append.
type voters [MaxMembers]voter

// Combine appends one row of the answer to dst for each of the rows [from, to) of the members' batches, all or none.
// present has a batch for each member, in their order, nil for one that did not answer; row i of all is of the same row
// of the request. It keeps none of them.
//
// It is Unavailable if nobody answered or a required member did not, Invalid if an answer's text would pass
// schemas.MaxText, and Internal if the batches are not of the schemas that were planned for.
func (p *Plan) Combine(present []*schemas.Batch, dst *schemas.Batch, from, to int) error {
	const op = "combine.Combine"
	if err := checkPresent(op, p.members, present, from, to); err != nil {
		return err
	}
	if dst.Schema() != p.out && dst.Schema().ID() != p.out.ID() {
		return schemas.Errorf(schemas.Internal, op, "the answer's batch is of another schema: %s, not %s", brief(dst.Schema()), brief(p.out))
	}
	for i := range p.cols {
		if !p.append(dst.Column(i), &p.cols[i], present, from, to) {
			dst.Rollback()
			return schemas.FieldErrorf(schemas.Invalid, op, p.out.Field(i).Name, "more than 2 GiB of text in one batch; send fewer rows")
		}
	}
	dst.Advance(to - from)
	return nil
}

// checkPresent checks the answers against the plan.
func checkPresent(op string, members []Member, present []*schemas.Batch, from, to int) error {
	if len(present) != len(members) || from < 0 || from > to {
		return schemas.Errorf(schemas.Internal, op, "%d answers of %d members, rows %d to %d", len(present), len(members), from, to)
	}
	some := len(members) == 0 // a model that takes the request's columns alone
	for i, b := range present {
		m := &members[i]
		switch {
		case b == nil && m.Required:
			return schemas.Errorf(schemas.Unavailable, op, "member %s, which is required, did not answer", m.Name)
		case b == nil:
		case b.Schema() != m.Output && b.Schema().ID() != m.Output.ID():
			return schemas.Errorf(schemas.Internal, op, "member %s answered %s, not %s", m.Name, brief(b.Schema()), brief(m.Output))
		case b.Rows() < to:
			return schemas.Errorf(schemas.Internal, op, "member %s answered %d rows of %d", m.Name, b.Rows(), to)
		default:
			some = true
		}
	}
	if !some {
		return schemas.Errorf(schemas.Unavailable, op, "no member answered")
	}
	return nil
}

// append makes one column of the answer; false if its text is too long.
func (p *Plan) append(dst *schemas.Column, c *column, present []*schemas.Batch, from, to int) bool {
	if c.rule == concat {
		if b := present[c.member]; b != nil {
			return appendRows(dst, b.Column(c.src[0]), from, to)
		}
		appendNulls(dst, to-from)
		return true
	}
	var vs voters
	n, nulls := 0, false
	for i, b := range present {
		if b == nil {
			continue
		}
		v := voter{b.Column(c.src[i]), 1}
		if c.weighs {
			v.weight = p.members[i].Weight
		}
		nulls = nulls || v.col.Nulls() > 0
		vs[n] = v
		n++
	}
	if !nulls {
		return c.combine(dst, vs[:n], from, to)
	}
	// Rows of which the same members are null go together, so that no rule needs to know of nulls.
	var some voters
	for from < to {
		mask := presentAt(vs[:n], from)
		end := from + 1
		for end < to && presentAt(vs[:n], end) == mask {
			end++
		}
		k := 0
		for m := mask; m != 0; m &= m - 1 {
			some[k] = vs[bits.TrailingZeros64(m)]
			k++
		}
		if k == 0 {
			appendNulls(dst, end-from)
		} else if !c.combine(dst, some[:k], from, end) {
			return false
		}
		from = end
	}
	return true
}

// presentAt returns a bit for each voter whose row is not null.
func presentAt(vs []voter, row int) (mask uint64) {
	for i := range vs {
		if !vs[i].col.IsNull(row) {
			mask |= 1 << i
		}
	}
	return mask
}

// combine makes rows of which no voter is null; there is at least one voter.
func (c *column) combine(dst *schemas.Column, vs []voter, from, to int) bool {
	if from == to {
		return true
	}
	t, as := vs[0].col.Field().Type, dst.Field().Type
	if len(vs) == 1 && t == as {
		return appendRows(dst, vs[0].col, from, to)
	}
	switch c.rule {
	case mean:
		means(dst, vs, from, to)
	case median:
		medians(dst, vs, from, to)
	case maximum:
		maxima(dst, vs, from, to)
	case vote:
		if t.Variable() {
			return voteTexts(dst, vs, from, to)
		}
		votes(dst, vs, from, to)
	}
	return true
}

// appendRows copies rows; false if they hold too much text.
func appendRows(dst, src *schemas.Column, from, to int) bool {
	if o := src.Offsets(); o != nil {
		if w := src.Width(); int(o[to*w]-o[from*w]) > maxText-len(dst.Data()) {
			return false
		}
	}
	dst.AppendColumn(src, from, to)
	return true
}

func appendNulls(dst *schemas.Column, n int) {
	for range n {
		dst.AppendNull()
	}
}
