package route

import (
	"math"
	"math/bits"
)

// Floats here give the same bits on every CPU. IEEE 754 fixes the sum, product, quotient and square root; what it leaves
// open is kept out: products that meet a sum are rounded by an explicit float64(), which forbids a fused multiply-add (The
// Go Programming Language Specification, "Floating-point operators"), and math.Log, which is assembly on some CPUs, is
// not called.

// ln returns the natural logarithm of a finite x > 0, off by less than one unit in the last place. It is fdlibm's e_log.c
// (Copyright 1993 Sun Microsystems, freely granted), as package math has it in Go, with each rounding written out.
func ln(x float64) float64 {
	const (
		ln2Hi = 6.93147180369123816490e-01
		ln2Lo = 1.90821492927058770002e-10
		l1    = 6.666666666666735130e-01
		l2    = 3.999999999940941908e-01
		l3    = 2.857142874366239149e-01
		l4    = 2.222219843214978396e-01
		l5    = 1.818357216161805012e-01
		l6    = 1.531383769920937332e-01
		l7    = 1.479819860511658591e-01
	)
	f1, ki := math.Frexp(x)
	if f1 < math.Sqrt2/2 {
		f1 *= 2
		ki--
	}
	f, k := f1-1, float64(ki)
	s := f / (2 + f)
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	t1 := float64(s2 * (l1 + float64(s4*(l3+float64(s4*(l5+float64(s4*l7)))))))
	t2 := float64(s4 * (l2 + float64(s4*(l4+float64(s4*l6)))))
	half := float64(float64(0.5*f) * f)
	return float64(k*ln2Hi) - ((half - (float64(s*(half+(t1+t2))) + float64(k*ln2Lo))) - f)
}

// Values of rewards and of context columns are added up as integers in 2^-24, so that a sum does not depend on the order
// of its terms and a term can be taken back exactly.
const (
	unitBits = 24
	unit     = 1 << unitBits
	// MaxValue bounds rewards and context values on both sides; scale larger ones before. Smaller differences than 2^-24
	// are rounded away.
	MaxValue = 1 << 20
)

// quantize returns v in 2^-24, rounded to even; false if v is no number or beyond MaxValue.
func quantize(v float64) (int64, bool) {
	if !(v >= -MaxValue && v <= MaxValue) {
		return 0, false
	}
	return int64(math.RoundToEven(v * unit)), true
}

// unquantized is the inverse, exact.
func unquantized(q int64) float64 { return float64(q) / unit }

// sum128 is a signed 128-bit integer. Products of two values are below 2^88 in 2^-48, so 2^39 of them fit.
type sum128 struct {
	hi int64
	lo uint64
}

// add adds v.
func (a *sum128) add(v int64) {
	var carry uint64
	a.lo, carry = bits.Add64(a.lo, uint64(v), 0)
	a.hi += v>>63 + int64(carry)
}

// addProduct adds x * y.
func (a *sum128) addProduct(x, y int64) {
	hi, lo := bits.Mul64(uint64(x), uint64(y))
	h := int64(hi) - x>>63&y - y>>63&x // the signed product's high half
	var carry uint64
	a.lo, carry = bits.Add64(a.lo, lo, 0)
	a.hi += h + int64(carry)
}

// float returns a in units of 2^-scale. Only signed conversions are used and each sum rounds once.
func (a sum128) float(scale int) float64 {
	hi, lo, negative := a.hi, a.lo, a.hi < 0
	if negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi = -hi - int64(borrow)
	}
	f := float64(float64(hi)*(1<<64)) + (float64(float64(int64(lo>>32))*(1<<32)) + float64(int64(lo&math.MaxUint32)))
	if negative {
		f = -f
	}
	return math.Ldexp(f, -scale)
}

// within reports whether |a| <= n * 2^shift, for n <= 2^39 and shift <= 88.
func (a sum128) within(n uint64, shift uint) bool {
	hi, lo := a.hi, a.lo
	if hi < 0 {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi = -hi - int64(borrow)
	}
	mostHi, mostLo := n>>(64-shift), n<<shift
	if shift >= 64 {
		mostHi, mostLo = n<<(shift-64), 0
	}
	return hi >= 0 && (uint64(hi) < mostHi || uint64(hi) == mostHi && lo <= mostLo)
}
