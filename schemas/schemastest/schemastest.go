package schemastest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/leatstream/leat/schemas"
)

// DTypes are all element types.
func DTypes() []schemas.DType {
	var ts []schemas.DType
	for t := schemas.Bool; t.Valid(); t++ {
		ts = append(ts, t)
	}
	return ts
}

// Everything returns a schema with each dtype as scalar, nullable scalar, tensor and nullable tensor.
func Everything() *schemas.Schema {
	var fs []schemas.Field
	for _, t := range DTypes() {
		fs = append(fs,
			schemas.Field{Name: t.String(), Type: t},
			schemas.Field{Name: t.String() + "_or_null", Type: t, Nullable: true},
			schemas.Field{Name: t.String() + "_tensor", Type: t, Shape: []int{2, 3}},
			schemas.Field{Name: t.String() + "_tensor_or_null", Type: t, Shape: []int{3}, Nullable: true})
	}
	return schemas.MustSchema(fs...)
}

// Fill appends n rows that depend on r alone.
func Fill(b *schemas.Batch, r *rand.Rand, n int) {
	for i := range b.Schema().Len() {
		c := b.Column(i)
		for range n {
			if c.Field().Nullable && r.IntN(3) == 0 {
				c.AppendNull()
				continue
			}
			for range c.Width() {
				Element(c, r)
			}
			c.EndRow()
		}
	}
	b.Advance(n)
}

// Element appends one element, special values among them.
func Element(c *schemas.Column, r *rand.Rand) {
	special := r.IntN(8) == 0
	switch t := c.Field().Type; t {
	case schemas.Bool:
		c.AppendBool(r.IntN(2) == 1)
	case schemas.Int8, schemas.Uint8:
		schemas.Append(c, uint8(r.Uint32()))
	case schemas.Int16, schemas.Uint16:
		schemas.Append(c, uint16(r.Uint32()))
	case schemas.Int32, schemas.Uint32:
		schemas.Append(c, r.Uint32())
	case schemas.Int64, schemas.Uint64, schemas.Timestamp:
		v := r.Uint64()
		if special {
			v = []uint64{0, 1 << 63, math.MaxInt64, math.MaxUint64}[r.IntN(4)]
		}
		schemas.Append(c, v)
	case schemas.Float16:
		v := uint16(r.Uint32())
		if v&0x7c00 == 0x7c00 && v&0x3ff != 0 {
			v = 0x7e00 // one NaN: text has no others
		}
		schemas.Append(c, v)
	case schemas.Float32:
		v := math.Float32frombits(r.Uint32())
		if special || v != v {
			v = []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.SmallestNonzeroFloat32, math.MaxFloat32}[r.IntN(7)]
		}
		schemas.Append(c, v)
	case schemas.Float64:
		v := math.Float64frombits(r.Uint64())
		if special || v != v {
			v = []float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), math.SmallestNonzeroFloat64, math.MaxFloat64}[r.IntN(7)]
		}
		schemas.Append(c, v)
	case schemas.String:
		c.AppendString([]string{"", "a", "Zürich", "日本", "\"\\\n\x01", "🛫 long enough to be more than one word"}[r.IntN(6)])
	case schemas.Binary:
		v := make([]byte, r.IntN(9))
		for i := range v {
			v[i] = byte(r.Uint32())
		}
		c.AppendText(v)
	}
}

// Diff says where two batches differ, "" if they are equal to the bit (any NaN equals any NaN).
func Diff(a, b *schemas.Batch) string {
	if a.Schema().ID() != b.Schema().ID() {
		return "schemas differ"
	}
	if a.Rows() != b.Rows() {
		return fmt.Sprintf("%d rows and %d", a.Rows(), b.Rows())
	}
	for i := range a.Schema().Len() {
		x, y := a.Column(i), b.Column(i)
		if x.Rows() != a.Rows() || y.Rows() != b.Rows() || x.Nulls() != y.Nulls() {
			return fmt.Sprintf("column %s: rows %d and %d, nulls %d and %d", x.Field().Name, x.Rows(), y.Rows(), x.Nulls(), y.Nulls())
		}
		for r := range a.Rows() {
			if x.IsNull(r) != y.IsNull(r) {
				return fmt.Sprintf("column %s, row %d: null %v and %v", x.Field().Name, r, x.IsNull(r), y.IsNull(r))
			}
			for e := r * x.Width(); e < (r+1)*x.Width(); e++ {
				if v, w := Bytes(x, e), Bytes(y, e); !bytes.Equal(v, w) && !(nan(x.Field().Type, v) && nan(x.Field().Type, w)) {
					return fmt.Sprintf("column %s, row %d, element %d: %x and %x", x.Field().Name, r, e-r*x.Width(), v, w)
				}
			}
		}
	}
	return ""
}

// Bytes returns the bytes of element e of any column.
func Bytes(c *schemas.Column, e int) []byte {
	if c.Offsets() != nil {
		return c.Text(e)
	}
	n := c.Field().Type.Size()
	return c.Data()[e*n : (e+1)*n]
}

func nan(t schemas.DType, b []byte) bool {
	switch t {
	case schemas.Float16:
		return b[1]&0x7c == 0x7c && (b[1]&3 != 0 || b[0] != 0)
	case schemas.Float32:
		return b[3]&0x7f == 0x7f && b[2]&0x80 != 0 && (b[2]&0x7f != 0 || b[1] != 0 || b[0] != 0)
	case schemas.Float64:
		return b[7]&0x7f == 0x7f && b[6]&0xf0 == 0xf0 && (b[6]&0xf != 0 || b[5] != 0 || b[4] != 0 || b[3] != 0 || b[2] != 0 || b[1] != 0 || b[0] != 0)
	}
	return false
}
