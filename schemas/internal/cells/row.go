package cells

import (
	"github.com/leatstream/leat/schemas"
)

// maxNulls bounds the bytes that nulls and absent values of one payload may grow to: an empty record can stand for
// tensors of millions of elements.
const maxNulls = 64 << 20

// keep is the most list elements that a pooled Row keeps memory for.
const keep = 1 << 16

// Row is one row while it is read. It belongs to one goroutine.
type Row struct {
	plan  *Plan
	cells []Cell // by target
	elems []Cell // of lists
	lists []span
	nulls int
}

// span is a list's elements, elems[from:from+n], with room for room.
type span struct{ from, n, room int }

// Row takes a row from the pool, for one payload.
func (p *Plan) Row() *Row {
	r := p.rows.Get().(*Row)
	r.nulls = 0
	return r
}

// Free gives a row back. It forgets what its cells alias.
func (p *Plan) Free(r *Row) {
	r.Clear()
	if cap(r.elems) > keep {
		r.elems = nil
	}
	p.rows.Put(r)
}

// Clear makes all cells absent, for the payload's next row.
func (r *Row) Clear() {
	clear(r.cells)
	clear(r.elems)
	r.elems, r.lists = r.elems[:0], r.lists[:0]
}

// Set sets the cell of a target.
func (r *Row) Set(target int, c Cell) { r.cells[target] = c }

// Cell returns the cell of a target.
func (r *Row) Cell(target int) Cell { return r.cells[target] }

// Open makes the cell of a target an empty list, unless it is a list already.
func (r *Row) Open(target int) {
	if r.cells[target].kind != list {
		r.cells[target] = Cell{kind: list, bits: uint64(len(r.lists))}
		r.lists = append(r.lists, span{from: len(r.elems)})
	}
}

// Add appends an element to the list of a target, which Open made. It is false if the column cannot hold so many.
func (r *Row) Add(target int, c Cell) bool {
	l := &r.lists[r.cells[target].bits]
	if l.n == r.plan.Targets[target].Field.Width() {
		return false
	}
	switch {
	case l.from+l.n == len(r.elems):
		r.elems = append(r.elems, c)
		l.n++
		l.room = l.n
		return true
	case l.n == l.room: // another list grew behind it: it moves to the end, with room to grow
		from := len(r.elems)
		r.elems = append(r.elems, r.elems[l.from:l.from+l.n]...)
		l.from, l.room = from, 2*l.n+4
		for len(r.elems) < l.from+l.room {
			r.elems = append(r.elems, Cell{})
		}
	}
	r.elems[l.from+l.n] = c
	l.n++
	return true
}

// AppendTo appends the row to dst's columns, without Advance. The error is Invalid; its Field is the name of the column
// or feature. Then the columns are uneven, and the caller rolls back.
func (r *Row) AppendTo(dst *schemas.Batch) *schemas.Error {
	for i := range r.plan.cols {
		p := &r.plan.cols[i]
		c := dst.Column(i)
		whole := r.cells[p.whole]
		if !p.packed {
			if e := r.column(c, p, whole); e != nil {
				return e
			}
			continue
		}
		given := 0
		for _, f := range r.cells[p.first : p.first+p.width] {
			if f.kind != absent {
				given++
			}
		}
		if given == 0 {
			if whole.kind == absent && !p.field.Nullable {
				return fail(p.field.Features[0], "missing")
			}
			if e := r.column(c, p, whole); e != nil {
				return e
			}
			continue
		}
		if whole.kind != absent {
			return fail(p.field.Name, "tensor %s is given both as a whole and by its features", p.field.Name)
		}
		if given < p.width && p.field.Nullable && !r.afford(p) {
			return tooMany()
		}
		if e := r.features(c, p); e != nil {
			return e
		}
	}
	return nil
}

// column appends a column's row from one cell.
func (r *Row) column(c *schemas.Column, p *column, v Cell) *schemas.Error {
	switch v.kind {
	case absent, null:
		if !p.field.Nullable {
			if v.kind == absent {
				return fail(p.field.Name, "missing")
			}
			return fail(p.field.Name, notNullable)
		}
		if !r.afford(p) {
			return tooMany()
		}
		c.AppendNull()
		return nil
	case list:
		return r.tensor(c, p, r.lists[v.bits])
	}
	if p.width != 1 {
		return fail(p.field.Name, "%s cannot be the tensor %s", v.what(), p.field)
	}
	if why := put(c, p.field.Type, v); why != "" {
		return fail(p.field.Name, "%s", why)
	}
	c.EndRow()
	return nil
}

func (r *Row) tensor(c *schemas.Column, p *column, l span) *schemas.Error {
	if p.field.Shape == nil {
		return fail(p.field.Name, "an array cannot be a value of %s", p.field.Type)
	}
	if l.n != p.width {
		return fail(p.field.Name, "%d elements for the tensor %s", l.n, p.field)
	}
	for i, v := range r.elems[l.from : l.from+l.n] {
		why := ""
		if v.kind == null {
			why = lacking(c, p.field, notNullable)
		} else {
			why = put(c, p.field.Type, v)
		}
		if why != "" {
			return fail(p.field.Name, "element %d: %s", i, why)
		}
	}
	c.EndRow()
	return nil
}

// features appends a packed tensor's row from the cells of its features.
func (r *Row) features(c *schemas.Column, p *column) *schemas.Error {
	for e, v := range r.cells[p.first : p.first+p.width] {
		why := ""
		switch v.kind {
		case absent:
			why = lacking(c, p.field, "missing")
		case null:
			why = lacking(c, p.field, notNullable)
		default:
			why = put(c, p.field.Type, v)
		}
		if why != "" {
			return fail(p.field.Features[e], "%s", why)
		}
	}
	c.EndRow()
	return nil
}

const notNullable = "null, but the column is not nullable"

// lacking appends what stands for a missing element of a tensor, or says why there is nothing.
func lacking(c *schemas.Column, f *schemas.Field, why string) string {
	switch {
	case !f.Nullable:
		return why
	case f.Type.Variable():
		c.AppendText(nil)
	case f.Type == schemas.Float16:
		schemas.Append(c, uint16(0x7e00))
	case f.Type == schemas.Float32:
		schemas.Append(c, uint32(0x7fc00000))
	case f.Type == schemas.Float64:
		schemas.Append(c, uint64(0x7ff8000000000000))
	default:
		return "null, but " + f.Type.String() + " has no value for a missing element"
	}
	return ""
}

// afford counts a null row against maxNulls.
func (r *Row) afford(p *column) bool {
	r.nulls += p.rowBytes
	return r.nulls <= maxNulls
}

const op = "schemas.Row"

func fail(field, format string, args ...any) *schemas.Error {
	return schemas.FieldErrorf(schemas.Invalid, op, field, format, args...)
}

func tooMany() *schemas.Error {
	return schemas.Errorf(schemas.Invalid, op, "nulls and absent fields would take more than %d MiB: send fewer rows at once", maxNulls>>20)
}
