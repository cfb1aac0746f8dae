package onnx

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
)

// level says how daring synthetic rows are. A model that fails on one level is tried on the next: a table's index must
// lie in the table, a category among those known.
type level int

const (
	wide   level = iota // floats of many scales, integers 1..100, known, unknown, empty and non-ASCII strings, nulls where allowed
	narrow              // floats in [0, 1), integers 1, known strings
	zero                // zeros and the first known string
	levels
)

func (l level) String() string {
	return [...]string{"rows of many scales", "rows of small values", "rows of zeros"}[l]
}

// synthetic returns n rows that are the same every time. Integers are 1 and more as long as the model allows it: a
// division by zero raises SIGFPE inside the runtime.
func synthetic(s *schemas.Schema, m *onnxfile.Model, l level, n int) *schemas.Batch {
	rng := rand.New(rand.NewPCG(0x6c656174, uint64(l)))
	b := schemas.NewBatch(s)
	known := m.Strings
	if len(known) == 0 {
		known = []string{"a", "b", "c"}
	}
	for range n {
		// One scale a row: in a row of mixed scales the largest value alone decides, and a sum of one number has the same
		// bits in any order.
		scale := math.Pow(10, float64(rng.IntN(6)-3))
		for i := range s.Len() {
			c := b.Column(i)
			f := s.Field(i)
			if l == wide && f.Nullable && rng.IntN(16) == 0 {
				c.AppendNull()
				continue
			}
			for range f.Width() {
				appendSynthetic(c, f.Type, known, l, scale, rng)
			}
			c.EndRow()
		}
		b.Advance(1)
	}
	return b
}

func appendSynthetic(c *schemas.Column, t schemas.DType, known []string, l level, scale float64, rng *rand.Rand) {
	switch {
	case t == schemas.String:
		c.AppendString(syntheticText(known, l, rng))
	case t == schemas.Bool:
		c.AppendBool(l != zero && rng.IntN(2) == 1)
	case t.Float():
		appendFloat(c, t, syntheticFloat(l, scale, rng))
	default:
		v := [levels]uint64{1 + uint64(rng.IntN(100)), 1, 0}[l]
		var le [8]byte
		binary.LittleEndian.PutUint64(le[:], v)
		switch t.Size() {
		case 1:
			schemas.Append(c, le[0])
		case 2:
			schemas.Append(c, uint16(v))
		case 4:
			schemas.Append(c, uint32(v))
		case 8:
			schemas.Append(c, v)
		}
	}
}

func syntheticText(known []string, l level, rng *rand.Rand) string {
	if l == zero {
		return known[0]
	}
	k := known[rng.IntN(len(known))]
	if l == narrow {
		return k
	}
	switch rng.IntN(8) {
	case 0:
		return ""
	case 1:
		return "an unknown value"
	case 2:
		return "Ünïcødé 川"
	}
	return k
}

func syntheticFloat(l level, scale float64, rng *rand.Rand) float64 {
	switch l {
	case zero:
		return 0
	case narrow:
		return rng.Float64()
	}
	switch rng.IntN(16) {
	case 0:
		return 0
	case 1:
		return float64(rng.IntN(200) - 100)
	}
	return rng.NormFloat64() * scale
}

func appendFloat(c *schemas.Column, t schemas.DType, v float64) {
	switch t {
	case schemas.Float64:
		schemas.Append(c, v)
	case schemas.Float32:
		schemas.Append(c, float32(v))
	default:
		schemas.Append(c, half(float32(v)))
	}
}

// half returns v as float16 bits, cut toward zero; what is too large becomes the largest finite one.
func half(v float32) uint16 {
	b := math.Float32bits(v)
	sign, exp, man := uint16(b>>16)&0x8000, int(b>>23&0xff)-127+15, b&0x7fffff
	switch {
	case exp <= 0:
		return sign
	case exp >= 31:
		return sign | 0x7bff
	}
	return sign | uint16(exp)<<10 | uint16(man>>13)
}
