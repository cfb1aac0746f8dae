package jsonscan

import (
	"encoding/base64"
	"encoding/binary"
	"math"

	"github.com/leatstream/leat/schemas"
)

// Row takes the value of one row of a column, and appends it: an element, null, or for a tensor an array, nested as its
// shape is or flat. Null in a column that is not nullable, and anything in a tensor that is not an element, fails.
func (s *Scanner) Row(c *schemas.Column) bool {
	f := c.Field()
	if s.Peek() == 'n' {
		if !s.Null() {
			return s.broken("a value")
		}
		if !f.Nullable {
			return s.Fail("null, but the column is not nullable")
		}
		c.AppendNull()
		return true
	}
	if f.Shape == nil {
		if !s.Element(c, f.Type) {
			return false
		}
		c.EndRow()
		return true
	}
	shape := f.Shape
	if len(shape) > 1 && !s.Nested() {
		shape = []int{c.Width()}
	}
	if !s.array(c, f.Type, shape) {
		return false
	}
	c.EndRow()
	return true
}

// Nested reports whether an array follows whose first element is an array.
func (s *Scanner) Nested() bool {
	if s.Peek() != '[' {
		return false
	}
	p := s.p
	s.p++
	is := s.Peek() == '['
	s.p = p
	return is
}

func (s *Scanner) array(c *schemas.Column, t schemas.DType, shape []int) bool {
	if !s.Open('[') {
		return false
	}
	n := 0
	for ; s.More(']', n); n++ {
		if n == shape[0] {
			return s.Fail("more than %d elements in a dimension of the tensor %s", shape[0], c.Field())
		}
		ok := false
		if len(shape) > 1 {
			ok = s.array(c, t, shape[1:])
		} else {
			ok = s.Element(c, t)
		}
		if !ok {
			return false
		}
	}
	if s.err == nil && n < shape[0] {
		return s.Fail("%d elements in a dimension of %d of the tensor %s", n, shape[0], c.Field())
	}
	return s.err == nil
}

// Element takes one element of the type and appends it; the caller ends the row.
func (s *Scanner) Element(c *schemas.Column, t schemas.DType) bool {
	switch t {
	case schemas.Float32:
		v, ok := s.Float32()
		if ok {
			schemas.Append(c, v)
		}
		return ok
	case schemas.String, schemas.Binary:
		v, ok := s.Text(t)
		if ok {
			c.AppendText(v)
		}
		return ok
	}
	v, ok := s.Fixed(t)
	if !ok {
		return false
	}
	switch t.Size() {
	case 1:
		schemas.Append(c, uint8(v))
	case 2:
		schemas.Append(c, uint16(v))
	case 4:
		schemas.Append(c, uint32(v))
	default:
		schemas.Append(c, v)
	}
	return true
}

// Put writes the bits of a value of the type to element e of bytes that Column.Extend gave.
func Put(data []byte, size, e int, v uint64) {
	switch size {
	case 1:
		data[e] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(data[2*e:], uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(data[4*e:], uint32(v))
	default:
		binary.LittleEndian.PutUint64(data[8*e:], v)
	}
}

// Missing returns the bits of NaN in a float type; false for the others.
func Missing(t schemas.DType) (uint64, bool) {
	switch t {
	case schemas.Float16:
		return 0x7e00, true
	case schemas.Float32:
		return 0x7fc00000, true
	case schemas.Float64:
		return 0x7ff8000000000000, true
	}
	return 0, false
}

// Text takes an element of a String column, or of a Binary column as base64 (RFC 4648, padded). The bytes are valid
// until the next string is read.
func (s *Scanner) Text(t schemas.DType) ([]byte, bool) {
	v, ok := s.String()
	if !ok || t == schemas.String {
		return v, ok
	}
	var err error
	if s.binary, err = base64.StdEncoding.AppendDecode(s.binary[:0], v); err != nil {
		return nil, s.Fail("want base64, got %q", clip(v))
	}
	return s.binary, true
}

// Fixed takes an element of a fixed-size type and returns its bits.
func (s *Scanner) Fixed(t schemas.DType) (uint64, bool) {
	switch t {
	case schemas.Bool:
		v, ok := s.Bool()
		if v {
			return 1, ok
		}
		return 0, ok
	case schemas.Int8:
		v, ok := s.Int(t, math.MinInt8, math.MaxInt8, false)
		return uint64(v), ok
	case schemas.Int16:
		v, ok := s.Int(t, math.MinInt16, math.MaxInt16, false)
		return uint64(v), ok
	case schemas.Int32:
		v, ok := s.Int(t, math.MinInt32, math.MaxInt32, false)
		return uint64(v), ok
	case schemas.Int64:
		v, ok := s.Int(t, math.MinInt64, math.MaxInt64, true)
		return uint64(v), ok
	case schemas.Uint8:
		return s.Uint(t, math.MaxUint8, false)
	case schemas.Uint16:
		return s.Uint(t, math.MaxUint16, false)
	case schemas.Uint32:
		return s.Uint(t, math.MaxUint32, false)
	case schemas.Uint64:
		return s.Uint(t, math.MaxUint64, true)
	case schemas.Float16:
		v, ok := s.Float16()
		return uint64(v), ok
	case schemas.Float32:
		v, ok := s.Float32()
		return uint64(math.Float32bits(v)), ok
	case schemas.Float64:
		v, ok := s.Float64()
		return math.Float64bits(v), ok
	case schemas.Timestamp:
		v, ok := s.Time()
		return uint64(v), ok
	}
	panic("jsonscan: " + t.String() + " is not of fixed size")
}
