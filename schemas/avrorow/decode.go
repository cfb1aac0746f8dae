package avrorow

import (
	"encoding/binary"
	"math"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/cells"
)

const (
	// maxDepth bounds how deep records, arrays and maps that are passed over may be nested.
	maxDepth = 1000
	// maxEmpty bounds the values without bytes of one datum: nulls, empty records. A few bytes can announce 2^62 of them.
	maxEmpty = 1 << 16
)

// decoder walks over one datum. It lives on the stack.
type decoder struct {
	b     []byte
	p     int
	row   *cells.Row
	empty int
	err   *schemas.Error
}

// Append appends a datum as one row of dst, whose schema says what is wanted, or nothing. The error is Invalid, and its
// Field is a column, a feature or an Avro field. The caller has seen that dst has room for the datum's bytes.
func (s *Schema) Append(dst *schemas.Batch, datum []byte) *schemas.Error {
	p := s.plan(dst.Schema())
	if p.err != nil {
		e := *p.err // each caller adds to its own
		return &e
	}
	d := decoder{b: datum, row: p.cells.Row()}
	defer p.cells.Free(d.row)
	for _, st := range p.root.inside {
		if !d.step(st) {
			return d.err
		}
	}
	if d.p < len(d.b) {
		d.fail("%d bytes after the record: it was written with another schema", len(d.b)-d.p)
		return d.err
	}
	if e := d.row.AppendTo(dst); e != nil {
		dst.Rollback()
		return e
	}
	dst.Advance(1)
	return nil
}

// fail says that the datum is broken at this byte, and is false.
func (d *decoder) fail(format string, args ...any) bool {
	if d.err == nil {
		d.err = schemas.Errorf(schemas.Invalid, op, "byte %d of the Avro record: "+format, append([]any{d.p}, args...)...)
	}
	return false
}

// step reads a value and does what is wanted of it.
func (d *decoder) step(st *step) bool {
	if st.refused != "" {
		d.err = st.refusal()
		return false
	}
	n := st.node
	switch {
	case st.target < 0 && st.inside == nil:
		return d.skip(n, 0)
	case n.shape == union:
		i, ok := d.index(len(n.union), "union branch")
		return ok && d.step(st.inside[i])
	case n.shape == record:
		for _, c := range st.inside {
			if !d.step(c) {
				return false
			}
		}
		return true
	case n.shape == array:
		return d.array(st)
	case st.target < 0: // null in the place of a record: its fields are absent
		return true
	}
	c, ok := d.cell(n)
	if !ok {
		return false
	}
	if !st.elem {
		d.row.Set(st.target, c)
		return true
	}
	return d.row.Add(st.target, c) || d.tooMany(st)
}

func (d *decoder) array(st *step) bool {
	d.row.Open(st.target)
	n := 0
	for {
		count, end, ok := d.block()
		if !ok {
			return false
		}
		if count == 0 {
			break
		}
		for ; count > 0; count-- {
			if n++; n > st.want {
				return d.tooMany(st)
			}
			if !d.step(st.inside[0]) {
				return false
			}
		}
		if !d.at(end) {
			return false
		}
	}
	if n < st.want {
		d.err = schemas.FieldErrorf(schemas.Invalid, op, st.path, "an array of %d elements for a dimension of %d of the tensor", n, st.want)
		return false
	}
	return true
}

func (d *decoder) tooMany(st *step) bool {
	d.err = schemas.FieldErrorf(schemas.Invalid, op, st.path, "more than %d elements in a dimension of the tensor", st.want)
	return false
}

// cell reads a value that is no record, array, map or union.
func (d *decoder) cell(n *node) (c cells.Cell, ok bool) {
	switch n.shape {
	case nothing:
		return cells.Null, true
	case boolean:
		if d.p == len(d.b) || d.b[d.p] > 1 {
			return c, d.fail("want a boolean")
		}
		d.p++
		return cells.Bool(d.b[d.p-1] == 1), true
	case varInt, varLong:
		var v int64
		if n.shape == varInt {
			v, ok = d.int()
		} else {
			v, ok = d.long()
		}
		if !ok {
			return c, false
		}
		if n.unit == 0 {
			return cells.Int(v), true
		}
		if c, ok = cells.Scaled(v, n.unit); !ok {
			return c, d.fail("%d is out of the range of nanosecond timestamps (1677-09-21 to 2262-04-11)", v)
		}
		return c, true
	case float32Bits:
		b, ok := d.take(4, "a float")
		if !ok {
			return c, false
		}
		return cells.Float(float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))), true
	case float64Bits:
		b, ok := d.take(8, "a double")
		if !ok {
			return c, false
		}
		return cells.Float(math.Float64frombits(binary.LittleEndian.Uint64(b))), true
	case fixed:
		b, ok := d.take(n.size, "a fixed")
		return cells.Bytes(b), ok
	case enum:
		i, ok := d.index(len(n.symbols), "enum symbol")
		if !ok {
			return c, false
		}
		return cells.String(n.symbols[i]), true
	case text:
		b, ok := d.prefixed("a string")
		return cells.Text(b), ok
	}
	b, ok := d.prefixed("bytes")
	return cells.Bytes(b), ok
}

// long reads a variable-length zig-zag integer.
func (d *decoder) long() (int64, bool) {
	if d.p < len(d.b) && d.b[d.p] < 0x80 {
		u := d.b[d.p]
		d.p++
		return int64(u>>1) ^ -int64(u&1), true
	}
	v, n := binary.Varint(d.b[d.p:])
	if n <= 0 {
		return 0, d.fail("want an integer")
	}
	d.p += n
	return v, true
}

// int reads a long of at most five bytes that 32 bits hold.
func (d *decoder) int() (int64, bool) {
	from := d.p
	v, ok := d.long()
	if ok && (d.p-from > 5 || v != int64(int32(v))) {
		return 0, d.fail("the int before is longer than 32 bits")
	}
	return v, ok
}

// index reads an integer of [0, n).
func (d *decoder) index(n int, what string) (int, bool) {
	v, ok := d.int()
	if !ok {
		return 0, false
	}
	if v < 0 || v >= int64(n) {
		return 0, d.fail("%s %d of %d", what, v, n)
	}
	return int(v), true
}

func (d *decoder) take(n int, what string) ([]byte, bool) {
	if n > len(d.b)-d.p {
		return nil, d.fail("%s of %d bytes, but %d are left", what, n, len(d.b)-d.p)
	}
	d.p += n
	return d.b[d.p-n : d.p], true
}

// prefixed reads bytes behind their length.
func (d *decoder) prefixed(what string) ([]byte, bool) {
	n, ok := d.long()
	if !ok {
		return nil, false
	}
	if n < 0 || n > int64(len(d.b)-d.p) {
		return nil, d.fail("%s of %d bytes, but %d are left", what, n, len(d.b)-d.p)
	}
	return d.take(int(n), what)
}

// block reads the head of a block of items: how many, and where they end, -1 if that is not told.
func (d *decoder) block() (count int64, end int, ok bool) {
	count, ok = d.long()
	if !ok || count >= 0 {
		return count, -1, ok
	}
	size, ok := d.long()
	if !ok {
		return 0, 0, false
	}
	if count == math.MinInt64 || size < 0 || size > int64(len(d.b)-d.p) {
		return 0, 0, d.fail("a block of %d items in %d bytes, but %d are left", count, size, len(d.b)-d.p)
	}
	return -count, d.p + int(size), true
}

// at checks where a block ended. Nothing is skipped by a block's size unread: whether a record can be read must not
// depend on the columns that are wanted of it.
func (d *decoder) at(end int) bool {
	return end < 0 || d.p == end || d.fail("a block ends here, but its size says byte %d", end)
}

// skip passes over a value.
func (d *decoder) skip(n *node, depth int) bool {
	if depth > maxDepth {
		return d.fail("values nested more than %d deep", maxDepth)
	}
	from := d.p
	switch n.shape {
	case nothing:
	case union:
		i, ok := d.index(len(n.union), "union branch")
		return ok && d.skip(n.union[i], depth+1)
	case record:
		for i := range n.fields {
			if !d.skip(n.fields[i].node, depth+1) {
				return false
			}
		}
	case array, mapping:
		return d.skipBlocks(n, depth)
	default:
		if _, ok := d.cell(n.bare()); !ok {
			return false
		}
	}
	if d.p == from {
		if d.empty++; d.empty > maxEmpty {
			return d.fail("more than %d values without bytes", maxEmpty)
		}
	}
	return true
}

func (d *decoder) skipBlocks(n *node, depth int) bool {
	for {
		count, end, ok := d.block()
		if !ok || count == 0 {
			return ok
		}
		if each := int64(n.items.width()); each > 0 && n.shape == array {
			if count > int64(len(d.b)-d.p)/each {
				return d.fail("%d items of %d bytes, but %d are left", count, each, len(d.b)-d.p)
			}
			d.p += int(count * each)
			count = 0
		}
		for ; count > 0; count-- {
			if n.shape == mapping {
				if _, ok := d.prefixed("a key"); !ok {
					return false
				}
			}
			if !d.skip(n.items, depth+1) {
				return false
			}
		}
		if !d.at(end) {
			return false
		}
	}
}

// width is how many bytes every value of the type takes, 0 if they differ.
func (n *node) width() int {
	switch n.shape {
	case float32Bits:
		return 4
	case float64Bits:
		return 8
	case fixed:
		return n.size
	}
	return 0
}

var rawInt, rawLong = &node{shape: varInt}, &node{shape: varLong}

// bare is the type without its logical type: a time out of our range is no fault where nobody wants it.
func (n *node) bare() *node {
	switch {
	case n.unit == 0:
		return n
	case n.shape == varInt:
		return rawInt
	}
	return rawLong
}
