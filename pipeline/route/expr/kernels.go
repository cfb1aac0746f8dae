package expr

import (
	"math"
	"math/bits"
)

// What a kernel sees of a register.

func gb(r *register) []bool    { return r.b }
func gi(r *register) []int64   { return r.i }
func gu(r *register) []uint64  { return r.u }
func gf(r *register) []float64 { return r.f }
func gs(r *register) []string  { return r.s }

// arithFloat is + - * / of doubles: IEEE 754, each result rounded once (stored, so that no compiler fuses it).
func arithFloat(sym byte) kernel {
	switch sym {
	case '+':
		return func(_ *frame, d *register, a []*register) {
			z := d.f
			x, y := a[0].f[:len(z)], a[1].f[:len(z)]
			for i := range z {
				z[i] = x[i] + y[i]
			}
		}
	case '-':
		return func(_ *frame, d *register, a []*register) {
			z := d.f
			x, y := a[0].f[:len(z)], a[1].f[:len(z)]
			for i := range z {
				z[i] = x[i] - y[i]
			}
		}
	case '*':
		return func(_ *frame, d *register, a []*register) {
			z := d.f
			x, y := a[0].f[:len(z)], a[1].f[:len(z)]
			for i := range z {
				z[i] = x[i] * y[i]
			}
		}
	}
	return func(_ *frame, d *register, a []*register) {
		z := d.f
		x, y := a[0].f[:len(z)], a[1].f[:len(z)]
		for i := range z {
			z[i] = x[i] / y[i]
		}
	}
}

// arithInt is + - * of int, of times and of durations.
func arithInt(sym byte, overflow state) kernel {
	switch sym {
	case '+':
		return func(fr *frame, d *register, a []*register) {
			z := d.i
			x, y := a[0].i[:len(z)], a[1].i[:len(z)]
			for i := range z {
				v := x[i] + y[i]
				if (v^x[i])&(v^y[i]) < 0 {
					d.fail(fr, i, overflow)
				}
				z[i] = v
			}
		}
	case '-':
		return func(fr *frame, d *register, a []*register) {
			z := d.i
			x, y := a[0].i[:len(z)], a[1].i[:len(z)]
			for i := range z {
				v := x[i] - y[i]
				if (x[i]^y[i])&(x[i]^v) < 0 {
					d.fail(fr, i, overflow)
				}
				z[i] = v
			}
		}
	}
	return func(fr *frame, d *register, a []*register) {
		z := d.i
		x, y := a[0].i[:len(z)], a[1].i[:len(z)]
		for i := range z {
			v, ok := mulInt(x[i], y[i])
			if !ok {
				d.fail(fr, i, overflow)
			}
			z[i] = v
		}
	}
}

func mulInt(x, y int64) (int64, bool) {
	v := x * y
	if int64(int32(x)) == x && int64(int32(y)) == y {
		return v, true
	}
	// The high half of the signed product must be nothing but the sign of the low half.
	hi, _ := bits.Mul64(uint64(x), uint64(y))
	h := int64(hi)
	if x < 0 {
		h -= y
	}
	if y < 0 {
		h -= x
	}
	return v, h == v>>63
}

// divInt is / and % of int, truncated towards zero.
func divInt(sym byte, zero, overflow state) kernel {
	return func(fr *frame, d *register, a []*register) {
		z := d.i
		x, y := a[0].i[:len(z)], a[1].i[:len(z)]
		for i := range z {
			switch {
			case y[i] == 0:
				z[i] = 0
				d.fail(fr, i, zero)
			case y[i] == -1 && x[i] == math.MinInt64:
				z[i] = 0
				d.fail(fr, i, overflow)
			case sym == '/':
				z[i] = x[i] / y[i]
			default:
				z[i] = x[i] % y[i]
			}
		}
	}
}

func arithUint(sym byte, zero, overflow state) kernel {
	return func(fr *frame, d *register, a []*register) {
		z := d.u
		x, y := a[0].u[:len(z)], a[1].u[:len(z)]
		for i := range z {
			var v, carry uint64
			switch {
			case sym == '+':
				v, carry = bits.Add64(x[i], y[i], 0)
			case sym == '-':
				v, carry = bits.Sub64(x[i], y[i], 0)
			case sym == '*':
				carry, v = bits.Mul64(x[i], y[i])
			case y[i] == 0:
				d.fail(fr, i, zero)
			case sym == '/':
				v = x[i] / y[i]
			default:
				v = x[i] % y[i]
			}
			if carry != 0 {
				d.fail(fr, i, overflow)
			}
			z[i] = v
		}
	}
}

func negFloat(_ *frame, d *register, a []*register) {
	for i, v := range a[0].f {
		d.f[i] = -v
	}
}

func negInt(overflow state) kernel {
	return func(fr *frame, d *register, a []*register) {
		for i, v := range a[0].i {
			if v == math.MinInt64 {
				d.fail(fr, i, overflow)
			}
			d.i[i] = -v
		}
	}
}

func absInt(overflow state) kernel {
	return func(fr *frame, d *register, a []*register) {
		for i, v := range a[0].i {
			if v == math.MinInt64 {
				d.fail(fr, i, overflow)
			}
			d.i[i] = max(v, -v)
		}
	}
}

func mapFloat(f func(float64) float64) kernel {
	return func(_ *frame, d *register, a []*register) {
		for i, v := range a[0].f {
			d.f[i] = f(v)
		}
	}
}

func powKernel(_ *frame, d *register, a []*register) {
	for i, v := range a[0].f {
		d.f[i] = math.Pow(v, a[1].f[i])
	}
}

func nanKernel(_ *frame, d *register, a []*register) {
	for i, v := range a[0].f {
		d.b[i] = v != v
	}
}

// toDouble converts a number or a bool; an integer past 2^53 is rounded.
func toDouble(from kind) kernel {
	switch from {
	case kInt:
		return func(_ *frame, d *register, a []*register) {
			for i, v := range a[0].i {
				d.f[i] = float64(v)
			}
		}
	case kUint:
		return func(_ *frame, d *register, a []*register) {
			for i, v := range a[0].u {
				d.f[i] = float64(v)
			}
		}
	}
	return func(_ *frame, d *register, a []*register) {
		for i, v := range a[0].b {
			d.f[i] = 0
			if v {
				d.f[i] = 1
			}
		}
	}
}

func extremePair[T int64 | uint64 | float64](get func(*register) []T, greatest bool) kernel {
	return func(_ *frame, d *register, a []*register) {
		x, y, z := get(a[0]), get(a[1]), get(d)
		for i := range z {
			if greatest {
				z[i] = max(x[i], y[i])
			} else {
				z[i] = min(x[i], y[i])
			}
		}
	}
}

func clampKernel[T int64 | uint64 | float64](get func(*register) []T, site state) kernel {
	return func(fr *frame, d *register, a []*register) {
		x, lo, hi, z := get(a[0]), get(a[1]), get(a[2]), get(d)
		for i := range z {
			if !(lo[i] <= hi[i]) {
				d.fail(fr, i, site)
			}
			v := x[i]
			if v < lo[i] {
				v = lo[i]
			}
			if v > hi[i] {
				v = hi[i]
			}
			z[i] = v
		}
	}
}
