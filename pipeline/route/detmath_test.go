package route

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

func TestLn(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	xs := []float64{1, 2, 0.5, math.Sqrt2, math.Sqrt2 / 2, math.Nextafter(1, 2), math.Nextafter(1, 0), 0x1p-53, 1e-300, 1e300, math.MaxFloat64, 0x1p-1022}
	for range 100_000 {
		xs = append(xs, rng.Float64(), math.Ldexp(1+rng.Float64(), rng.IntN(2000)-1000))
	}
	for _, x := range xs {
		if x == 0 {
			continue
		}
		got, want := ln(x), math.Log(x)
		if ulp := math.Nextafter(math.Abs(want), math.Inf(1)) - math.Abs(want); math.Abs(got-want) > ulp {
			t.Fatalf("ln(%g) = %g, math.Log says %g", x, got, want)
		}
	}
	// Below the normal numbers math.Log in amd64's assembly is wrong by 35: one more reason not to call it.
	if got := ln(0x1p-1074); got != -744.4400719213812 {
		t.Errorf("ln(2^-1074) = %v", got)
	}
}

// TestSum128 compares with math/big, at random values of all sizes and at the bounds.
func TestSum128(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	bigOf := func(s sum128) *big.Int {
		v := new(big.Int).Lsh(big.NewInt(s.hi), 64)
		return v.Add(v, new(big.Int).SetUint64(s.lo))
	}
	value := func() int64 { return (rng.Int64N(2*MaxValue*unit+1) - MaxValue*unit) >> rng.IntN(45) }
	for range 2000 {
		var s sum128
		want := new(big.Int)
		for range rng.IntN(50) {
			x, y := value(), value()
			s.addProduct(x, y)
			want.Add(want, new(big.Int).Mul(big.NewInt(x), big.NewInt(y)))
			s.add(x)
			want.Add(want, big.NewInt(x))
		}
		if bigOf(s).Cmp(want) != 0 {
			t.Fatalf("sum is %v, want %v", bigOf(s), want)
		}
		got := s.float(48)
		exact, _ := new(big.Float).SetMantExp(new(big.Float).SetInt(want), -48).Float64()
		if math.Abs(got-exact) > math.Abs(exact)*0x1p-51 {
			t.Fatalf("float of %v is %g, want %g", want, got, exact)
		}
		n, shift := rng.Uint64N(1<<39+1)>>rng.IntN(39), uint(rng.IntN(89))
		limit := new(big.Int).Lsh(new(big.Int).SetUint64(n), shift)
		if in := new(big.Int).Abs(want).Cmp(limit) <= 0; s.within(n, shift) != in {
			t.Fatalf("%v within %d << %d: got %v", want, n, shift, !in)
		}
	}
	for _, v := range []float64{0, 1, -1, 0.5, MaxValue, -MaxValue, 1.0 / 3, 0x1p-24, 0x1p-26, -0x1p-25} {
		q, ok := quantize(v)
		if back := unquantized(q); !ok || math.Abs(back-v) > 0x1p-25 {
			t.Errorf("quantize(%g) = %d, %v: %g", v, q, ok, back)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), MaxValue + 1, -math.MaxFloat64} {
		if _, ok := quantize(v); ok {
			t.Errorf("quantize(%g) is taken", v)
		}
	}
}

// TestDraws compares moments with what the distributions have, within 5 standard errors, and the normal's tails.
func TestDraws(t *testing.T) {
	n := sizes()
	check := func(name string, draw func(d *draws) float64, mean, variance, fourth float64) {
		var d draws
		d.seed(7, laneChoose)
		var s1, s2 float64
		for range n {
			v := draw(&d) - mean
			s1, s2 = s1+v, s2+v*v
		}
		if e := math.Sqrt(variance / float64(n)); math.Abs(s1/float64(n)) > 5*e {
			t.Errorf("%s: mean is off by %g, 5 standard errors are %g", name, s1/float64(n), 5*e)
		}
		if e := math.Sqrt((fourth - variance*variance) / float64(n)); math.Abs(s2/float64(n)-variance) > 5*e {
			t.Errorf("%s: variance is %g, want %g +- %g", name, s2/float64(n), variance, 5*e)
		}
	}
	check("uniform", (*draws).uniform, 0.5, 1.0/12, 1.0/80)
	check("normal", (*draws).normal, 0, 1, 3)
	check("die", func(d *draws) float64 { return float64(d.below(6)) }, 2.5, 35.0/12, 14.729166)
	for _, k := range []float64{1, 1.5, 3, 30, 1000} { // the gamma's fourth central moment is 3k² + 6k
		check("gamma", func(d *draws) float64 { return d.gamma(k) }, k, k, 3*k*k+6*k)
	}
	for _, ab := range [][2]float64{{1, 1}, {1, 5}, {2.5, 3}, {40, 10}, {1000, 3}} {
		a, b := ab[0], ab[1]
		v := a * b / (a + b) / (a + b) / (a + b + 1)
		kurt := 6 * ((a-b)*(a-b)*(a+b+1) - a*b*(a+b+2)) / (a * b * (a + b + 2) * (a + b + 3))
		check("beta", func(d *draws) float64 { return d.beta(a, b) }, a/(a+b), v, (kurt+3)*v*v)
	}
	var d draws
	d.seed(11, laneEstimate)
	counts := make([]int, 4)
	for range n {
		switch v := math.Abs(d.normal()); {
		case v < 1:
			counts[0]++
		case v < 2:
			counts[1]++
		case v < 3:
			counts[2]++
		default:
			counts[3]++
		}
	}
	within(t, "normal", counts, []int{682_689, 271_810, 42_801, 2_700}, Million)
}
