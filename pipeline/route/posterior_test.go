package route

import (
	"math"
	"testing"
)

// TestEstimate: ten draws estimate a propensity without a bias but for what share adds, also given what was chosen: the
// choosing draw is no part of them, or it would count for a tenth.
func TestEstimate(t *testing.T) {
	const draws, n = 10, 40_000
	b := banditOf(LinThompson, 3, 3)
	b.Draws = draws
	p := mustPlan(t, b)
	s := stateOf(t, p, 60)
	x := contextOf(p, 99)
	b.Draws = MaxDraws
	exact := mustPlan(t, b)
	q := *s
	q.plan = exact
	want, err := Propensities(nil, exact, 1, x, &q)
	if err != nil {
		t.Fatal(err)
	}
	sums, counts := make([]float64, 3), make([]float64, 3)
	for i := range uint64(n) {
		d := mustDecide(t, p, mix(i), x, s)
		sums[d.Arm] += d.Propensity
		counts[d.Arm]++
	}
	for i, w := range want {
		mean := (w*draws + 1.0/3) / (draws + 1)
		sigma := math.Sqrt(w*(1-w)/draws/counts[i]) + math.Sqrt(w*(1-w)/MaxDraws)
		if got := sums[i] / counts[i]; math.Abs(got-mean) > 4*sigma {
			t.Errorf("arm %d: estimates have a mean of %v over %v decisions, want %v +- %v", i, got, counts[i], mean, 4*sigma)
		}
	}
}

// TestPosterior compares the shares of two arms with their closed forms, under parameters that are not the defaults.
func TestPosterior(t *testing.T) {
	const n = MaxDraws
	normal := func(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }
	check := func(what string, p *Plan, x []float64, s *State, want float64) {
		t.Helper()
		got, err := Propensities(nil, p, 3, x, s)
		if err != nil {
			t.Fatal(err)
		}
		if want < 0.02 || want > 0.98 {
			t.Errorf("%s: a share of %v tells little", what, want)
		}
		if math.Abs(got[0]-want) > 4*0.5/math.Sqrt(n) {
			t.Errorf("%s: arm 0 has a share of %v, want %v", what, got[0], want)
		}
	}
	rewards := func(p *Plan) *Fold {
		f := NewFold(p)
		for i, v := range []float64{1, 0.5, 0, 1, 0.25, 1, 0.75} {
			r := Reward{Position: uint64(i + 1), DecisionID: idOf(uint64(i)), Arm: names(2)[i%3%2], Context: contextOf(p, uint64(i)), Value: v}
			applyAll(t, f, []Reward{r})
		}
		return f // arm-0: 1, 0, 1, 1, 0.75 (n 5, sum 3.75); arm-1: 0.5, 0.25 (n 2, sum 0.75)
	}

	b := banditOf(Thompson, 2, 0)
	b.PriorSuccess, b.PriorFailure, b.Draws = 1.25, 2.25, n
	p := mustPlan(t, b)
	// Beta(5, 3.5) exceeds Beta(2, 3.5) with the sum over i < 5 of B(2+i, 7) / ((3.5+i) B(1+i, 3.5) B(2, 3.5)) (Miller 2014,
	// "Formulas for Bayesian A/B Testing").
	lbeta := func(a, b float64) float64 {
		x, _ := math.Lgamma(a)
		y, _ := math.Lgamma(b)
		z, _ := math.Lgamma(a + b)
		return x + y - z
	}
	more := 0.0
	for i := range 5 {
		more += math.Exp(lbeta(2+float64(i), 7)-lbeta(1+float64(i), 3.5)-lbeta(2, 3.5)) / (3.5 + float64(i))
	}
	check("thompson", p, nil, rewards(p).State(), more)

	b = banditOf(ThompsonGaussian, 2, 0)
	b.PriorMean, b.PriorSD, b.Noise, b.Draws = 2, 0.5, 1.5, n
	p = mustPlan(t, b)
	mean := func(n, sum float64) (float64, float64) {
		precision := 1/0.25 + n/2.25
		return (2/0.25 + sum/2.25) / precision, 1 / precision
	}
	m0, v0 := mean(5, 3.75)
	m1, v1 := mean(2, 0.75)
	check("thompson_gaussian", p, nil, rewards(p).State(), normal((m0-m1)/math.Sqrt(v0+v1)))

	b = banditOf(LinThompson, 2, 2)
	b.Explore, b.Ridge, b.Draws = 0.4, 2.5, n
	p = mustPlan(t, b)
	f := rewards(p)
	var x []float64
	var a0, w0, a1, w1 float64
	for i := uint64(0); !(a0 > a1+0.05 && w1 > w0+0.05); i++ { // a row for which one arm is better and the other less known
		if i == 1000 {
			t.Fatal("no row is right for this test")
		}
		x = contextOf(p, i)
		one := []float64{1, x[0], x[1]}
		a0, w0 = direct(&f.arms[0], 2.5, one)
		a1, w1 = direct(&f.arms[1], 2.5, one)
	}
	check("lin_thompson", p, x, f.State(), normal((a0-a1)/0.4/math.Hypot(w0, w1)))

	b.Policy, b.Draws = LinUCB, 0
	for want, explore := range []float64{0.01, 100} {
		b.Explore = explore
		p = mustPlan(t, b)
		if d := mustDecide(t, p, 1, x, rewards(p).State()); d.Arm != want || d.Propensity != 1 {
			t.Errorf("linucb, explore %v: %+v, want arm %d", explore, d, want)
		}
	}
}
