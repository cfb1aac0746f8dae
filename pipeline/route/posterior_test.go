package route

import (
	"math"
	"testing"
)

// TestEstimate: 500 draws estimate a propensity without a bias, also given what was chosen, and with an error no larger than
// that of independent draws.
func TestEstimate(t *testing.T) {
	const each = 500
	n := uint64(sizes() / 25)
	for _, arms := range []int{2, 3, 7} {
		b := banditOf(LinThompson, arms, 3)
		b.Draws = each
		p := mustPlan(t, b)
		s := stateOf(t, p, 20*arms)
		x := contextOf(p, 99)
		want := make([]float64, arms) // by as many independent draws
		var l linearScores
		if err := l.score(p, x, s); err != nil {
			t.Fatal(err)
		}
		var d draws
		d.seed(1, laneLatin)
		for range sizes() {
			want[l.sample(&d, arms)] += 1 / float64(sizes())
		}
		sums, squares, counts := make([]float64, arms), make([]float64, arms), make([]float64, arms)
		for i := range n {
			d := mustDecide(t, p, mix(i), x, s)
			v := (d.Propensity*(each+1) - 1/float64(arms)) / each // without what share adds
			sums[d.Arm] += v
			squares[d.Arm] += (v - want[d.Arm]) * (v - want[d.Arm])
			counts[d.Arm]++
		}
		for i, w := range want {
			if counts[i] < 100 {
				continue
			}
			variance := w * (1 - w) / each
			sigma := math.Sqrt(variance/counts[i]) + math.Sqrt(w*(1-w)/float64(sizes()))
			if got := sums[i] / counts[i]; math.Abs(got-w) > 4*sigma+0.1/each {
				t.Errorf("%d arms, arm %d: estimates have a mean of %v over %v decisions, want %v +- %v", arms, i, got, counts[i], w, 4*sigma)
			}
			if got := squares[i] / counts[i]; got > variance*(1+4*math.Sqrt(2/counts[i]))*each/(each-1) {
				t.Errorf("%d arms, arm %d: estimates of %v have a variance of %v, independent draws %v", arms, i, w, got, variance)
			} else {
				t.Logf("%d arms, arm %d: estimates of %.4f have a variance of %.2f of that of independent draws", arms, i, w, got/variance)
			}
		}
	}
}

func TestNormalQuantile(t *testing.T) {
	for i := 1; i < 100_000; i++ {
		p := float64(i) / 100_000
		if got, want := normalQuantile(p), -math.Sqrt2*math.Erfcinv(2*p); math.Abs(got-want) > 1.2e-9*math.Abs(want)+1e-15 {
			t.Fatalf("normalQuantile(%v) = %v, want %v", p, got, want)
		}
	}
	for _, p := range []float64{0x1p-40, 1 - 0x1p-40} {
		if got, want := normalQuantile(p), -math.Sqrt2*math.Erfcinv(2*p); math.Abs(got-want) > 1.2e-9*math.Abs(want) {
			t.Errorf("normalQuantile(%v) = %v, want %v", p, got, want)
		}
	}
}

// TestLatinTies: equal arms win alike, though their values meet.
func TestLatinTies(t *testing.T) {
	l := newLatin(2, 1)
	var wins [MaxArms]int32
	l.count(&wins, 1, []float64{0, 0}, []float64{1, 1})
	if wins[0]+wins[1] != 1 {
		t.Errorf("one draw has %v winners", wins[:2])
	}
	l = newLatin(2, 4)
	total := [2]int32{}
	for i := range uint64(10_000) {
		wins = [MaxArms]int32{}
		l.count(&wins, mix(i), []float64{0, 0}, []float64{1, 1})
		total[0], total[1] = total[0]+wins[0], total[1]+wins[1]
	}
	within(t, "equal arms", []int{int(total[0]), int(total[1])}, []int{5000, 5000}, TenThousand)
}

// TestPosterior compares the shares of two arms with their closed forms, under parameters that are not the defaults.
func TestPosterior(t *testing.T) {
	n := sizes()
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
		if math.Abs(got[0]-want) > 4*0.5/math.Sqrt(float64(n)) {
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
