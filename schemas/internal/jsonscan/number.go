package jsonscan

import (
	"math"
	"strconv"
	"time"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// num is a number token: mant * 10^exp, negated if neg. With cut, digits are missing from mant.
type num struct {
	text    []byte
	mant    uint64
	exp     int
	neg     bool
	integer bool // no fraction, no exponent
	cut     bool
}

// number takes a number.
func (s *Scanner) number() (n num, ok bool) {
	if s.err != nil {
		return n, false
	}
	s.Peek()
	b, i := s.b, s.p
	if i < len(b) && b[i] == '-' {
		n.neg = true
		i++
	}
	if i >= len(b) || b[i]-'0' > 9 {
		return n, s.want("a number")
	}
	first := i
	var mant uint64
	digits := 0 // significant ones
	for ; i < len(b); i++ {
		d := b[i] - '0'
		if d > 9 {
			break
		}
		if digits < 19 {
			mant = mant*10 + uint64(d)
			if mant > 0 {
				digits++
			}
		} else {
			n.cut = n.cut || d != 0
			n.exp++
		}
	}
	if b[first] == '0' && i > first+1 {
		s.p = first
		return n, s.broken("a number without leading zeros")
	}
	n.integer = true
	if i < len(b) && b[i] == '.' {
		n.integer = false
		i++
		from := i
		for ; i < len(b); i++ {
			d := b[i] - '0'
			if d > 9 {
				break
			}
			if digits < 19 {
				mant = mant*10 + uint64(d)
				if mant > 0 {
					digits++
				}
				n.exp--
			} else {
				n.cut = n.cut || d != 0
			}
		}
		if i == from {
			s.p = i
			return n, s.broken("a digit")
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		n.integer = false
		var e int
		if e, i = exponent(b, i+1); i < 0 {
			s.p = min(len(b), first)
			return n, s.broken("a number with digits in its exponent")
		}
		n.exp += e
	}
	if i < len(b) && !delimiter(b[i]) {
		s.p = i
		return n, s.broken("the end of a number")
	}
	n.mant = mant
	n.text = b[s.p:i]
	s.p = i
	return n, true
}

// exponent reads sign and digits; -1 if there are none. What is out of any range stays out of it.
func exponent(b []byte, i int) (e, next int) {
	neg := false
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		neg = b[i] == '-'
		i++
	}
	from := i
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		if e < 1<<24 {
			e = e*10 + int(b[i]-'0')
		}
	}
	if i == from {
		return 0, -1
	}
	if neg {
		e = -e
	}
	return e, i
}

var pow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// exact returns the number as a correctly rounded float64 where one multiplication or division of two exact values
// does it (W. D. Clinger, How to read floating point numbers accurately, 1990).
func (n *num) exact() (float64, bool) {
	if n.mant > 1<<53 || n.cut || n.exp < -22 || n.exp > 22 {
		return 0, false
	}
	f := float64(n.mant)
	if n.exp < 0 {
		f /= pow10[-n.exp]
	} else {
		f *= pow10[n.exp]
	}
	if n.neg {
		f = -f
	}
	return f, true
}

// Float64 takes a number, or one of the strings "NaN", "Infinity", "-Infinity".
func (s *Scanner) Float64() (float64, bool) {
	if s.Peek() == '"' {
		return s.special(schemas.Float64)
	}
	n, ok := s.number()
	if !ok {
		return 0, false
	}
	if f, ok := n.exact(); ok {
		return f, true
	}
	f, err := strconv.ParseFloat(text(n.text), 64)
	if err != nil {
		return 0, s.Fail("%s is out of the range of float64", clip(n.text))
	}
	return f, true
}

// Float32 is Float64 at that type: the value is the float32 next to the decimal number.
func (s *Scanner) Float32() (float32, bool) {
	if s.Peek() == '"' {
		f, ok := s.special(schemas.Float32)
		return float32(f), ok
	}
	n, ok := s.number()
	if !ok {
		return 0, false
	}
	if f, ok := n.exact(); ok {
		// Rounding twice goes wrong only where the float64 lies half-way between two float32, or where those are
		// subnormal.
		a := math.Abs(f)
		if math.Float64bits(f)&(1<<29-1) != 1<<28 && (a >= 0x1p-126 && a <= math.MaxFloat32 || a == 0) {
			return float32(f), true
		}
	}
	f, err := strconv.ParseFloat(text(n.text), 32)
	if err != nil {
		return 0, s.Fail("%s is out of the range of float32", clip(n.text))
	}
	return float32(f), true
}

// Float16 returns the bits of the half-precision number next to the float64 that the decimal number is next to.
func (s *Scanner) Float16() (uint16, bool) {
	f, ok := s.Float64()
	if !ok {
		return 0, false
	}
	h := schemas.Float16Bits(f)
	if h&0x7fff == 0x7c00 && !math.IsInf(f, 0) {
		return 0, s.Fail("%v is out of the range of float16", f)
	}
	return h, true
}

func (s *Scanner) special(t schemas.DType) (float64, bool) {
	v, ok := s.String()
	if !ok {
		return 0, false
	}
	switch string(v) {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	return 0, s.Fail("want a number of %s, got the string %q", t, clip(v))
}

// Int takes an integer of [lo, hi]; with quoted also as a string of digits.
func (s *Scanner) Int(t schemas.DType, lo, hi int64, quoted bool) (int64, bool) {
	n, ok := s.integer(t, quoted)
	if !ok {
		return 0, false
	}
	v := int64(n.mant)
	if n.neg {
		v = -v
	}
	if n.exp != 0 || n.neg && n.mant > 1<<63 || !n.neg && n.mant > math.MaxInt64 || v < lo || v > hi {
		return 0, s.Fail("%s is out of the range of %s", clip(n.text), t)
	}
	return v, true
}

// Uint takes an integer of [0, hi]; with quoted also as a string of digits.
func (s *Scanner) Uint(t schemas.DType, hi uint64, quoted bool) (uint64, bool) {
	n, ok := s.integer(t, quoted)
	if !ok {
		return 0, false
	}
	if n.exp != 0 || n.neg && n.mant > 0 || n.mant > hi {
		if n.exp == 1 && !n.neg { // 20 digits: they may fit 64 bits
			if v, err := strconv.ParseUint(text(n.text), 10, 64); err == nil && v <= hi {
				return v, true
			}
		}
		return 0, s.Fail("%s is out of the range of %s", clip(n.text), t)
	}
	return n.mant, true
}

func (s *Scanner) integer(t schemas.DType, quoted bool) (n num, ok bool) {
	if s.Peek() == '"' {
		v, ok := s.String()
		if !ok {
			return n, false
		}
		if !quoted {
			return n, s.Fail("want an integer of %s, got a string", t)
		}
		in := Scanner{b: v}
		if n, ok = in.number(); !ok || in.p != len(v) || !n.integer || len(n.text) != len(v) {
			return n, s.Fail("want an integer of %s, got the string %q", t, clip(v))
		}
		return n, true
	}
	if n, ok = s.number(); !ok {
		return n, false
	}
	if !n.integer {
		return n, s.Fail("want an integer of %s, got %s", t, clip(n.text))
	}
	return n, true
}

// Time takes nanoseconds since the Unix epoch, or an RFC 3339 string.
func (s *Scanner) Time() (int64, bool) {
	if s.Peek() != '"' {
		return s.Int(schemas.Timestamp, math.MinInt64, math.MaxInt64, false)
	}
	v, ok := s.String()
	if !ok {
		return 0, false
	}
	t, err := time.Parse(time.RFC3339Nano, text(v))
	if err != nil {
		return 0, s.Fail("%q is not a time as in RFC 3339, nor integer nanoseconds", clip(v))
	}
	n := t.UnixNano()
	if !time.Unix(0, n).Equal(t) {
		return 0, s.Fail("%q is out of the range of nanosecond timestamps (1677-09-21 to 2262-04-11)", clip(v))
	}
	return n, true
}

// text sees bytes as a string for functions that keep none.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func clip(b []byte) string {
	if len(b) > 40 {
		return string(b[:37]) + "..."
	}
	return string(b)
}
