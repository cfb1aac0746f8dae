package schemas

import "math"

// Float16Bits rounds f to the nearest IEEE 754 half-precision number, ties to even, and returns its bits. What is too
// large becomes an infinity, any NaN the quiet NaN.
func Float16Bits(f float64) uint16 {
	b := math.Float64bits(f)
	sign := uint16(b>>48) & 0x8000
	e := int(b>>52&0x7ff) - 1023
	man := b & (1<<52 - 1)
	switch {
	case e == 1024 && man != 0:
		return sign | 0x7e00
	case e > 15:
		return sign | 0x7c00
	case e < -25:
		return sign
	}
	man |= 1 << 52
	shift, h := 42, uint64(0)
	if e >= -14 {
		h = uint64(e+14) << 10 // the mantissa's leading bit adds the one that lacks
	} else {
		shift += -14 - e
	}
	m := man >> shift
	h += m
	rest, half := man&(1<<shift-1), uint64(1)<<(shift-1)
	if rest > half || rest == half && m&1 == 1 {
		h++
	}
	return sign | uint16(h)
}

// Float16Value returns the number that half-precision bits stand for.
func Float16Value(h uint16) float64 {
	e, m := int(h>>10&0x1f), float64(h&0x3ff)
	var f float64
	switch e {
	case 0:
		f = math.Ldexp(m, -24)
	case 31:
		if m != 0 {
			return math.NaN()
		}
		f = math.Inf(1)
	default:
		f = math.Ldexp(m+1024, e-25)
	}
	if h&0x8000 != 0 {
		f = -f
	}
	return f
}
