package route

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// problem is a world that pays rewards: best is the mean of the best arm for a row, mean that of an arm.
type problem struct {
	arms, columns int
	mean          func(arm int, x []float64) float64
	pay           func(rng *rand.Rand, mean float64) float64
}

func bernoulli(rng *rand.Rand, mean float64) float64 {
	if rng.Float64() < mean {
		return 1
	}
	return 0
}

func noisy(rng *rand.Rand, mean float64) float64 { return mean + 0.5*rng.NormFloat64() }

// regret plays n rounds. Rewards come delay rounds late, the state is shared every refresh rounds, as between processes. It
// returns what was lost against always knowing the best arm, by the plan and by choosing uniformly.
func regret(t testing.TB, p *Plan, w problem, seed uint64, n, delay, refresh int) (lost, uniform float64) {
	rng := rand.New(rand.NewPCG(seed, 1234))
	f := NewFold(p)
	s := f.State()
	var pending []Reward
	for i := range n {
		var x []float64
		for range w.columns {
			x = append(x, 2*rng.Float64()-1)
		}
		best := w.mean(0, x)
		total := 0.0
		for a := range w.arms {
			best, total = max(best, w.mean(a, x)), total+w.mean(a, x)
		}
		if len(p.bandit.Context) == 0 {
			x = nil
		}
		d := mustDecide(t, p, Seed(idOf(seed), i, "bandit"), x, s)
		mean := w.mean(d.Arm, x)
		lost += best - mean
		uniform += best - total/float64(w.arms)
		pending = append(pending, Reward{
			Position: uint64(i + 1), DecisionID: idOf(uint64(i)), Arm: p.bandit.Arms[d.Arm], Context: x, Value: w.pay(rng, mean),
		})
		if len(pending) > delay {
			applyAll(t, f, pending[:1])
			pending = pending[1:]
		}
		if i%refresh == 0 {
			s = f.State()
		}
	}
	return lost, uniform
}

// TestRegret: on problems of known means, each policy loses a fraction of what uniform choice does, also with rewards that
// come 100 rounds late and a state that is 25 rounds old. The bounds are twice what was measured over these seeds.
func TestRegret(t *testing.T) {
	means := []float64{0.3, 0.5, 0.7}
	fixed := func(a int, _ []float64) float64 { return means[a] }
	weights := [][]float64{{0.5, 1, 0}, {0.5, -1, 0.5}, {0.6, 0, -1}}
	linear := func(a int, x []float64) float64 { return weights[a][0] + weights[a][1]*x[0] + weights[a][2]*x[1] }
	tests := []struct {
		policy Policy
		world  problem
		most   float64 // of uniform's regret
	}{
		{EpsilonGreedy, problem{3, 0, fixed, bernoulli}, 0.36},
		{UCB1, problem{3, 0, fixed, bernoulli}, 0.40},
		{Thompson, problem{3, 0, fixed, bernoulli}, 0.12},
		{ThompsonGaussian, problem{3, 0, fixed, noisy}, 0.17},
		{LinUCB, problem{3, 2, linear, noisy}, 0.09},
		{LinThompson, problem{3, 2, linear, noisy}, 0.10},
	}
	const rounds, seeds = 3000, 10
	for _, tt := range tests {
		for _, late := range []int{0, 100} {
			b := banditOf(tt.policy, tt.world.arms, tt.world.columns)
			if b.Draws > 0 {
				b.Draws = 10
			}
			p := mustPlan(t, b)
			lost, uniform := 0.0, 0.0
			for seed := range uint64(seeds) {
				l, u := regret(t, p, tt.world, seed, rounds, late, 1+late/4)
				lost, uniform = lost+l, uniform+u
			}
			what := fmt.Sprintf("%s, rewards %d rounds late: regret %.0f of uniform's %.0f", tt.policy, late, lost/seeds, uniform/seeds)
			t.Log(what)
			if lost > tt.most*uniform {
				t.Errorf("%s, want at most %.2f of it", what, tt.most)
			}
		}
	}
}
