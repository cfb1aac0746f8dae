package protorow

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/cells"
)

// decoder walks over one message. It lives on the stack.
type decoder struct {
	row *cells.Row
	err *schemas.Error
}

// Append appends a message as one row of dst, whose schema says what is wanted, or nothing. The error is Invalid, and its
// Field is a column, a feature or a field of the message. The caller has seen that dst has room for the message's bytes.
func (m *Message) Append(dst *schemas.Batch, message []byte) *schemas.Error {
	p := m.plan(dst.Schema())
	if p.err != nil {
		e := *p.err // each caller adds to its own
		return &e
	}
	d := decoder{row: p.cells.Row()}
	defer p.cells.Free(d.row)
	if !d.message(p.root, message) {
		return d.err
	}
	if e := d.row.AppendTo(dst); e != nil {
		dst.Rollback()
		return e
	}
	dst.Advance(1)
	return nil
}

// broken says that the bytes are no message. n is protowire's code.
func (d *decoder) broken(n int) bool {
	if d.err == nil {
		d.err = schemas.Errorf(schemas.Invalid, op, "the Protobuf message is broken: %w", protowire.ParseError(n))
	}
	return false
}

// message reads the fields of a message.
func (d *decoder) message(l *layout, b []byte) bool {
	for i := range l.presets {
		if t := l.presets[i].target; !d.row.Cell(t).Given() {
			d.row.Set(t, l.presets[i].cell)
		}
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return d.broken(n)
		}
		b = b[n:]
		taken := 0
		if m := l.at(num); m != nil {
			var ok bool
			if taken, ok = d.field(m, num, typ, b); !ok {
				return false
			}
		}
		if taken == 0 { // unknown, or of another type than the schema says, which is the same
			if taken = protowire.ConsumeFieldValue(num, typ, b); taken < 0 {
				return d.broken(taken)
			}
		}
		b = b[taken:]
	}
	return true
}

// field reads a value and returns how many bytes it took; none if the value is not of the field's type.
func (d *decoder) field(m *member, num protowire.Number, typ protowire.Type, b []byte) (n int, ok bool) {
	if m.list && typ == protowire.BytesType && m.wire != typ {
		return d.packed(m, b)
	}
	if typ != m.wire {
		return 0, true
	}
	switch {
	case m.stamp || m.inside != nil || m.target < 0:
		var v []byte
		switch typ {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.StartGroupType:
			v, n = protowire.ConsumeGroup(num, b)
		default: // a number that only unsets others
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return 0, d.broken(n)
		}
		d.clear(m)
		switch {
		case m.stamp:
			return n, d.stamp(m, v)
		case m.inside != nil:
			return n, d.message(m.inside, v)
		}
		return n, true
	}
	c, n, ok := d.scalar(m, b)
	if !ok {
		return 0, false
	}
	if !c.Given() { // a number that a closed enum does not have: as if it were not there
		return n, true
	}
	d.clear(m)
	if m.list {
		d.row.Open(m.target)
		return n, d.row.Add(m.target, c) || d.tooMany(m)
	}
	d.row.Set(m.target, c)
	return n, true
}

// clear unsets the other members of a oneof.
func (d *decoder) clear(m *member) {
	for _, t := range m.clears {
		d.row.Set(t, cells.Absent)
	}
}

// packed reads several values of a repeated field.
func (d *decoder) packed(m *member, b []byte) (int, bool) {
	v, n := protowire.ConsumeBytes(b)
	if n < 0 {
		return 0, d.broken(n)
	}
	d.row.Open(m.target)
	for len(v) > 0 {
		c, k, ok := d.scalar(m, v)
		if !ok {
			return 0, false
		}
		v = v[k:]
		if c.Given() && !d.row.Add(m.target, c) {
			return 0, d.tooMany(m)
		}
	}
	return n, true
}

func (d *decoder) tooMany(m *member) bool {
	d.err = schemas.FieldErrorf(schemas.Invalid, op, m.path, "more elements than the tensor holds")
	return false
}

// scalar reads one value of the field's type.
func (d *decoder) scalar(m *member, b []byte) (c cells.Cell, n int, ok bool) {
	switch m.wire {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return c, 0, d.broken(n)
		}
		if m.kind != protoreflect.EnumKind {
			return varint(m.kind, v), n, true
		}
		c = m.enum(uint64(uint32(v)))
		if !c.Given() && !m.closed {
			d.err = schemas.FieldErrorf(schemas.Invalid, op, m.path, "number %d has no name in the enum", int32(v))
			return c, 0, false
		}
		return c, n, true
	case protowire.Fixed32Type:
		v, n := protowire.ConsumeFixed32(b)
		if n < 0 {
			return c, 0, d.broken(n)
		}
		switch m.kind {
		case protoreflect.FloatKind:
			return cells.Float(float64(math.Float32frombits(v))), n, true
		case protoreflect.Sfixed32Kind:
			return cells.Int(int64(int32(v))), n, true
		}
		return cells.Uint(uint64(v)), n, true
	case protowire.Fixed64Type:
		v, n := protowire.ConsumeFixed64(b)
		if n < 0 {
			return c, 0, d.broken(n)
		}
		switch m.kind {
		case protoreflect.DoubleKind:
			return cells.Float(math.Float64frombits(v)), n, true
		case protoreflect.Sfixed64Kind:
			return cells.Int(int64(v)), n, true
		}
		return cells.Uint(v), n, true
	}
	v, n := protowire.ConsumeBytes(b)
	if n < 0 {
		return c, 0, d.broken(n)
	}
	if m.kind == protoreflect.StringKind {
		return cells.Text(v), n, true
	}
	return cells.Bytes(v), n, true
}

func varint(k protoreflect.Kind, v uint64) cells.Cell {
	switch k {
	case protoreflect.BoolKind:
		return cells.Bool(v != 0)
	case protoreflect.Int32Kind:
		return cells.Int(int64(int32(v)))
	case protoreflect.Sint32Kind:
		return cells.Int(int64(int32(protowire.DecodeZigZag(v & math.MaxUint32))))
	case protoreflect.Int64Kind:
		return cells.Int(int64(v))
	case protoreflect.Sint64Kind:
		return cells.Int(protowire.DecodeZigZag(v))
	case protoreflect.Uint32Kind:
		return cells.Uint(uint64(uint32(v)))
	}
	return cells.Uint(v)
}

// enum is a value of the enum; absent if the enum, closed or wanted as text, has none of that number.
func (m *member) enum(v uint64) cells.Cell {
	name, ok := m.names[v]
	switch {
	case ok && m.text:
		return cells.String(name)
	case !ok && (m.text || m.closed):
		return cells.Absent
	}
	return cells.Int(int64(int32(uint32(v))))
}

// stamp reads a google.protobuf.Timestamp. A second one of the same field adds to the first, as messages do.
func (d *decoder) stamp(m *member, b []byte) bool {
	var seconds, nanos int64
	if ns, ok := d.row.Cell(m.target).AsTime(); ok {
		seconds, nanos = ns/1e9, ns%1e9
		if nanos < 0 {
			seconds, nanos = seconds-1, nanos+1e9
		}
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return d.broken(n)
		}
		b = b[n:]
		if typ != protowire.VarintType || num > 2 {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return d.broken(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return d.broken(n)
		}
		b = b[n:]
		if num == 1 {
			seconds = int64(v)
		} else {
			nanos = int64(int32(v))
		}
	}
	c, ok := cells.Scaled(seconds, 1e9)
	ns, _ := c.AsTime()
	switch {
	case nanos < 0 || nanos > 999_999_999:
		d.err = schemas.FieldErrorf(schemas.Invalid, op, m.path, "a timestamp with %d nanoseconds", nanos)
		return false
	case !ok || ns > math.MaxInt64-nanos:
		d.err = schemas.FieldErrorf(schemas.Invalid, op, m.path, "%d seconds are out of the range of nanosecond timestamps (1677-09-21 to 2262-04-11)", seconds)
		return false
	}
	d.row.Set(m.target, cells.Time(ns+nanos))
	return true
}
