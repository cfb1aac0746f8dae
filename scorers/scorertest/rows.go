package scorertest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/leatstream/leat/schemas"
)

// Strings are what string columns of Rows hold: known categories of the test models, an empty one, non-ASCII ones.
var Strings = []string{"AA", "B6", "UA", "Ünïted", "", "ja", "naïve 川", "an unknown value"}

// Rows returns n rows of a schema, the same ones every time: floats around zero, integers from 0 to 7, every 16th value of
// a nullable column null.
func Rows(s *schemas.Schema, n int) *schemas.Batch {
	rng := rand.New(rand.NewPCG(7, 11))
	b := schemas.NewBatch(s)
	for range n {
		for i := range s.Len() {
			c, f := b.Column(i), s.Field(i)
			if f.Nullable && rng.IntN(16) == 0 {
				c.AppendNull()
				continue
			}
			for range f.Width() {
				appendValue(c, f.Type, rng)
			}
			c.EndRow()
		}
		b.Advance(1)
	}
	return b
}

func appendValue(c *schemas.Column, t schemas.DType, rng *rand.Rand) {
	x := rng.NormFloat64() * 3
	switch t {
	case schemas.String, schemas.Binary:
		c.AppendString(Strings[rng.IntN(len(Strings))])
	case schemas.Bool:
		c.AppendBool(rng.IntN(2) == 1)
	case schemas.Float64:
		schemas.Append(c, x)
	case schemas.Float32:
		schemas.Append(c, float32(x))
	case schemas.Float16:
		schemas.Append(c, uint16(0x3c00|rng.IntN(0x400))) // 1 to 2
	default:
		v := rng.Uint64N(8)
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
	}
}

// EqualRows returns an error that names the first difference between rows [0, a.Rows()) of a and rows from bFrom on of b.
// tolerance is relative and for floats alone; 0 asks for equal bits.
func EqualRows(a, b *schemas.Batch, bFrom int, tolerance float64) error {
	if b.Rows() < bFrom+a.Rows() {
		return fmt.Errorf("%d rows where %d were expected", b.Rows()-bFrom, a.Rows())
	}
	for i := range a.Schema().Len() {
		x, y := a.Column(i), b.Column(i)
		f := a.Schema().Field(i)
		w := f.Width()
		for e := range a.Rows() * w {
			u, v := element(x, f.Type, e), element(y, f.Type, bFrom*w+e)
			if bytes.Equal(u, v) || within(f.Type, u, v, tolerance) {
				continue
			}
			return fmt.Errorf("row %d, column %s, element %d: % x and % x", e/w, f.Name, e%w, u, v)
		}
	}
	return nil
}

func element(c *schemas.Column, t schemas.DType, e int) []byte {
	if t.Variable() {
		return c.Text(e)
	}
	return c.Data()[e*t.Size() : (e+1)*t.Size()]
}

func within(t schemas.DType, a, b []byte, tolerance float64) bool {
	var x, y float64
	switch t {
	case schemas.Float32:
		x = float64(math.Float32frombits(binary.LittleEndian.Uint32(a)))
		y = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case schemas.Float64:
		x, y = math.Float64frombits(binary.LittleEndian.Uint64(a)), math.Float64frombits(binary.LittleEndian.Uint64(b))
	default:
		return false
	}
	return tolerance > 0 && math.Abs(x-y) <= tolerance*max(math.Abs(x), math.Abs(y))
}
