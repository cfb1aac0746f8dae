package route

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// Lanes keep the draws of one seed apart: those that choose, those that estimate a propensity, those of a plan's latin hypercube.
const (
	laneChoose   = 0x9e3779b97f4a7c15
	laneEstimate = 0xd1b54a32d192ed03
	laneLatin    = 0x8cb92ba72f3d8dd7
)

// draws is a stream of random numbers: PCG-DXSM of math/rand/v2, seeded from a recorded seed and a lane. It lives on the
// stack. What is made of its 64-bit words is written here, not taken of rand.Rand, whose floats may be fused.
type draws struct {
	src   rand.PCG
	spare float64 // the second of a pair of normals
	has   bool
}

func (d *draws) seed(seed, lane uint64) {
	d.src.Seed(seed, lane)
	d.has = false
}

// below returns an integer in [0, n), each with a chance of 1/n but for less than n / 2^64 (Lemire 2019, without rejection).
func (d *draws) below(n int) int {
	hi, _ := bits.Mul64(d.src.Uint64(), uint64(n))
	return int(hi)
}

// uniform returns a float in (0, 1): the middles of 2^52 equal cells.
func (d *draws) uniform() float64 {
	return (float64(int64(d.src.Uint64()>>12)) + 0.5) / (1 << 52)
}

// normal returns a standard normal value, by the polar method (Marsaglia and Bray 1964; Knuth 2, 3.4.1, algorithm P).
func (d *draws) normal() float64 {
	if d.has {
		d.has = false
		return d.spare
	}
	for {
		u, v := float64(2*d.uniform())-1, float64(2*d.uniform())-1
		s := float64(u*u) + float64(v*v)
		if s >= 1 || s == 0 {
			continue
		}
		m := math.Sqrt(float64(-2*ln(s)) / s)
		d.spare, d.has = float64(v*m), true
		return float64(u * m)
	}
}

// gamma returns a value of the gamma distribution with a shape of at least 1 and scale 1 (Marsaglia and Tsang 2000).
func (d *draws) gamma(shape float64) float64 {
	a := shape - 1.0/3
	c := 1 / math.Sqrt(float64(9*a))
	for {
		x := d.normal()
		v := 1 + float64(c*x)
		if v <= 0 {
			continue
		}
		v = float64(float64(v*v) * v)
		u, x2 := d.uniform(), float64(x*x)
		if u < 1-float64(0.0331*float64(x2*x2)) || ln(u) < float64(0.5*x2)+float64(a*(1-v+ln(v))) {
			return float64(a * v)
		}
	}
}

// beta returns a value of the beta distribution, both parameters at least 1.
func (d *draws) beta(a, b float64) float64 {
	x := d.gamma(a)
	return x / (x + d.gamma(b))
}
