package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// estimateDraws makes the error of an estimate no larger than that of counting sizes()/10 decisions.
func estimateDraws() int { return sizes() / 10 }

var policies = []Policy{EpsilonGreedy, UCB1, Thompson, ThompsonGaussian, LinUCB, LinThompson}

func mustPlan(t testing.TB, b Bandit) *Plan {
	t.Helper()
	p, err := NewPlan(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// banditOf returns a policy's defaults with arms, and columns where the policy looks at any.
func banditOf(p Policy, arms, columns int) Bandit {
	b := DefaultBandit(p)
	b.Arms = names(arms)
	if p.linear() {
		for i := range columns {
			b.Context = append(b.Context, fmt.Sprint("c", i))
		}
	}
	return b
}

func mustDecide(t testing.TB, p *Plan, seed uint64, x []float64, s *State) Decision {
	t.Helper()
	d, err := Decide(p, seed, x, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// idOf names decision i, as a record id does: its bytes look random.
func idOf(i uint64) (id [32]byte) {
	for j := range 4 {
		binary.LittleEndian.PutUint64(id[8*j:], mix(4*i+uint64(j)+1))
	}
	return id
}

// contextOf is decision i's context: a function of i, so that a repeated reward brings the same.
func contextOf(p *Plan, i uint64) []float64 {
	var x []float64
	for j := range p.bandit.Context {
		x = append(x, math.Round(4096*(float64(mix(i*64+uint64(j))>>11)/(1<<53)*4-2))/4096)
	}
	return x
}

// rewardsOf is a stream of n rewards for decisions that may be late, out of order and repeated.
func rewardsOf(p *Plan, rng *rand.Rand, n int) []Reward {
	var out []Reward
	at, index := uint64(0), uint32(0)
	for i := range n {
		decision := uint64(max(0, i+rng.IntN(40)-20))
		if rng.IntN(10) == 0 && i > 0 {
			decision = uint64(rng.IntN(i)) // long after, or once more
		}
		if at == 0 || rng.IntN(3) > 0 {
			at, index = at+1+rng.Uint64N(3), 0
		} else {
			index++
		}
		arm := p.bandit.Arms[mix(decision)%uint64(len(p.bandit.Arms))]
		out = append(out, Reward{
			Position: at, Index: index, DecisionID: idOf(decision), Arm: arm,
			Context: contextOf(p, decision), Value: math.Round(rng.Float64()*1e6) / 1e6,
		})
	}
	return out
}

func applyAll(t testing.TB, f *Fold, rs []Reward) {
	t.Helper()
	for _, r := range rs {
		if _, err := f.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
}

// stateOf folds n rewards of a fixed seed.
func stateOf(t testing.TB, p *Plan, n int) *State {
	t.Helper()
	f := NewFold(p)
	applyAll(t, f, rewardsOf(p, rand.New(rand.NewPCG(5, uint64(n))), n))
	return f.State()
}

// TestPropensities: over the arms they add up to 1, none is below the minimum share, Decide's is the same to the bit, and
// what is chosen by 10^5 seeds is within 4 sigma of them.
func TestPropensities(t *testing.T) {
	n := sizes() / 10
	for _, policy := range policies {
		for _, arms := range []int{2, 3, 7} {
			for _, share := range []int{0, 700} {
				for _, rewards := range []int{0, 2, 60} {
					b := banditOf(policy, arms, 3)
					b.MinimumShare = share
					if b.Draws > 0 {
						b.Draws = estimateDraws() // its error is allowed for
					}
					p := mustPlan(t, b)
					s := stateOf(t, p, rewards)
					x := contextOf(p, 99)
					what := fmt.Sprintf("%s, %d arms, minimum %d, %d rewards", policy, arms, share, rewards)
					ps, err := Propensities(nil, p, 1, x, s)
					if err != nil {
						t.Fatal(err)
					}
					sum := 0.0
					for i, v := range ps {
						sum += v
						if v < float64(share)/TenThousand || v > 1+1e-12 {
							t.Errorf("%s: arm %d has a propensity of %v", what, i, v)
						}
					}
					if math.Abs(sum-1) > 1e-12 {
						t.Errorf("%s: propensities %v add up to %v", what, ps, sum)
					}
					if d := mustDecide(t, p, 1, x, s); d.Propensity != ps[d.Arm] {
						t.Errorf("%s: Decide says %v, Propensities %v", what, d.Propensity, ps[d.Arm])
					}
					checkFrequencies(t, what, p, n, x, s, ps)
				}
			}
		}
	}
}

// checkFrequencies decides by n seeds. The estimate of a LinThompson decision costs more than all of this, so its choosing
// half is run with a plan of one draw, which chooses the same.
func checkFrequencies(t *testing.T, what string, p *Plan, n int, x []float64, s *State, ps []float64) {
	t.Helper()
	if p.bandit.Policy == LinThompson {
		b := p.bandit
		b.Draws = 1
		q := *s
		p = mustPlan(t, b)
		q.plan = p
		s = &q
	}
	counts := make([]int, len(ps))
	for i := range n {
		counts[mustDecide(t, p, mix(uint64(i)), x, s).Arm]++
	}
	for i, c := range counts {
		sigma := math.Sqrt(ps[i]*(1-ps[i])*float64(n)) + float64(n)*0.5/math.Sqrt(float64(estimateDraws()))
		if math.Abs(float64(c)-ps[i]*float64(n)) > 4*sigma+1 {
			t.Errorf("%s: arm %d was chosen %d times of %d, its propensity is %v", what, i, c, n, ps[i])
		}
	}
}

// TestPlanDigest: a state serves no plan that differs in any parameter.
func TestPlanDigest(t *testing.T) {
	for _, policy := range policies {
		b := banditOf(policy, 3, 2)
		b.MinimumShare, b.PriorMean = 10, 0
		p := mustPlan(t, b)
		s := stateOf(t, p, 5)
		if _, err := Decide(mustPlan(t, b), 1, contextOf(p, 1), s); err != nil {
			t.Errorf("%s: the same plan made again is refused: %v", policy, err)
		}
		for i, change := range []func(b *Bandit){
			func(b *Bandit) { b.MinimumShare++ },
			func(b *Bandit) { b.Remember++ },
			func(b *Bandit) { b.Arms = []string{"arm-0", "arm-2", "arm-1"} },
			func(b *Bandit) { b.Context = []string{"c1", "c0"} },
			func(b *Bandit) { b.Epsilon++ },
			func(b *Bandit) { b.Explore++ },
			func(b *Bandit) { b.PriorSuccess++ },
			func(b *Bandit) { b.PriorFailure++ },
			func(b *Bandit) { b.PriorMean++ },
			func(b *Bandit) { b.PriorSD++ },
			func(b *Bandit) { b.Noise++ },
			func(b *Bandit) { b.Ridge++ },
			func(b *Bandit) { b.Draws++ },
		} {
			c := b
			change(&c)
			q, err := NewPlan(c)
			if err != nil {
				continue // no parameter of this policy
			}
			if _, err := Decide(q, 1, contextOf(p, 1), s); err == nil {
				t.Errorf("%s: a state serves the plan of change %d", policy, i)
			}
		}
	}
}

// TestGreedyTies says what the deterministic policies do where arms are equal.
func TestGreedyTies(t *testing.T) {
	tests := []struct {
		policy  Policy
		rewards []string // arm=value
		want    []float64
	}{
		{EpsilonGreedy, nil, []float64{1. / 3, 1. / 3, 1. / 3}},
		{EpsilonGreedy, []string{"arm-1=0.1"}, []float64{.1 / 3, .1/3 + .9, .1 / 3}}, // untried arms are explored, not greedy
		{EpsilonGreedy, []string{"arm-1=0.5", "arm-2=0.5"}, []float64{.1 / 3, .1/3 + .45, .1/3 + .45}},
		{EpsilonGreedy, []string{"arm-0=-3", "arm-1=-2", "arm-2=-2.5"}, []float64{.1 / 3, .1/3 + .9, .1 / 3}},
		{EpsilonGreedy, []string{"arm-1=-0.5"}, []float64{.1 / 3, .1/3 + .9, .1 / 3}},
		{UCB1, nil, []float64{1. / 3, 1. / 3, 1. / 3}},
		{UCB1, []string{"arm-1=1"}, []float64{.5, 0, .5}}, // untried arms come first
		{UCB1, []string{"arm-0=1", "arm-1=1", "arm-2=0"}, []float64{.5, .5, 0}},
		{UCB1, []string{"arm-0=1", "arm-1=1", "arm-1=1", "arm-2=0"}, []float64{1, 0, 0}},     // less tried, wider bound
		{UCB1, []string{"arm-0=0.5", "arm-0=0.5", "arm-1=0", "arm-2=0"}, []float64{1, 0, 0}}, // sqrt(2 ln 4) - sqrt(2 ln 4 / 2) is 0.488
		{UCB1, []string{"arm-0=0.45", "arm-0=0.45", "arm-1=0", "arm-2=0"}, []float64{0, .5, .5}},
		{LinUCB, nil, []float64{1. / 3, 1. / 3, 1. / 3}},
		{LinUCB, []string{"arm-0=-1"}, []float64{0, .5, .5}},
	}
	for _, tt := range tests {
		p := mustPlan(t, banditOf(tt.policy, 3, 2))
		f := NewFold(p)
		for i, r := range tt.rewards {
			arm, value, _ := strings.Cut(r, "=")
			var v float64
			fmt.Sscan(value, &v)
			rw := Reward{Position: uint64(i + 1), DecisionID: idOf(uint64(i)), Arm: arm, Value: v}
			if tt.policy.linear() {
				rw.Context = []float64{1, 2}
			}
			applyAll(t, f, []Reward{rw})
		}
		var x []float64
		if tt.policy.linear() {
			x = []float64{1, 2}
		}
		got, err := Propensities(nil, p, 0, x, f.State())
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if math.Abs(got[i]-tt.want[i]) > 1e-12 {
				t.Errorf("%s after %v: propensities %v, want %v", tt.policy, tt.rewards, got, tt.want)
				break
			}
		}
	}
}

func TestNewPlanErrors(t *testing.T) {
	tests := []struct {
		name   string
		change func(b *Bandit)
		policy Policy
		field  string
		says   string
	}{
		{"policy", func(b *Bandit) { b.Policy = 9 }, UCB1, "policy", "no policy 9"},
		{"one arm", func(b *Bandit) { b.Arms = b.Arms[:1] }, UCB1, "arms", "1 arms: a bandit has 2 to 64"},
		{"many arms", func(b *Bandit) { b.Arms = names(65) }, UCB1, "arms", "65 arms"},
		{"no name", func(b *Bandit) { b.Arms[1] = "" }, UCB1, "arms[1].name", "needs a name"},
		{"same name", func(b *Bandit) { b.Arms[2] = b.Arms[0] }, UCB1, "arms[2].name", "names must differ"},
		{"context", func(b *Bandit) { b.Context = []string{"a"} }, Thompson, "context", "thompson looks at no context"},
		{"no context", func(b *Bandit) { b.Context = nil }, LinUCB, "context", "0 columns: linucb needs 1 to 63"},
		{"wide context", func(b *Bandit) { b.Context = names(64) }, LinUCB, "context", "64 columns"},
		{"column twice", func(b *Bandit) { b.Context = []string{"a", "a"} }, LinUCB, "context[1]", `"a": columns`},
		{"minimum share", func(b *Bandit) { b.MinimumShare = 3334 }, UCB1, "minimum_share", "3334 parts per 10,000 for each of 3 arms: want 0 to 3333"},
		{"negative share", func(b *Bandit) { b.MinimumShare = -1 }, UCB1, "minimum_share", "-1 parts"},
		{"epsilon", func(b *Bandit) { b.Epsilon = 10_001 }, EpsilonGreedy, "epsilon", "10001 is not between 0 and 10000"},
		{"foreign epsilon", func(b *Bandit) { b.Epsilon = 5 }, UCB1, "epsilon", "is no parameter of ucb1"},
		{"explore", func(b *Bandit) { b.Explore = math.NaN() }, UCB1, "explore", "NaN is not between"},
		{"prior", func(b *Bandit) { b.PriorSuccess = 0.5 }, Thompson, "prior_success", "0.5 is not between 1 and 1e+06"},
		{"failures", func(b *Bandit) { b.PriorFailure = 0 }, Thompson, "prior_failure", "0 is not between"},
		{"prior mean", func(b *Bandit) { b.PriorMean = math.Inf(1) }, ThompsonGaussian, "prior_mean", "+Inf is not between"},
		{"prior sd", func(b *Bandit) { b.PriorSD = 0 }, ThompsonGaussian, "prior_sd", "0 is not between"},
		{"noise", func(b *Bandit) { b.Noise = -1 }, ThompsonGaussian, "noise", "-1 is not between"},
		{"ridge", func(b *Bandit) { b.Ridge = 0 }, LinThompson, "ridge", "0 is not between"},
		{"draws", func(b *Bandit) { b.Draws = 0 }, LinThompson, "draws", "0 is not between 1 and"},
		{"draws of many arms", func(b *Bandit) { b.Arms, b.Draws = names(64), 1<<17 }, LinThompson, "draws", "131072 is not between 1 and 65536"},
		{"foreign draws", func(b *Bandit) { b.Draws = 10 }, LinUCB, "draws", "is no parameter of linucb"},
		{"remember", func(b *Bandit) { b.Remember = 0 }, UCB1, "remember", "0 is not between"},
	}
	for _, tt := range tests {
		b := banditOf(tt.policy, 3, 2)
		tt.change(&b)
		_, err := NewPlan(b)
		var e *schemas.Error
		if !errors.As(err, &e) || e.Kind != schemas.Invalid || e.Field != tt.field || !strings.Contains(e.Error(), tt.says) {
			t.Errorf("%s: %v, want field %s and %q", tt.name, err, tt.field, tt.says)
		}
	}
	for _, p := range policies {
		if got, err := ParsePolicy(p.String()); err != nil || got != p {
			t.Errorf("ParsePolicy(%q) = %v, %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("greedy"); err == nil || !strings.Contains(err.Error(), "epsilon_greedy") {
		t.Errorf("ParsePolicy(greedy): %v, want what would be right", err)
	}
}

func TestDecideErrors(t *testing.T) {
	p := mustPlan(t, banditOf(LinUCB, 2, 2))
	plain := mustPlan(t, banditOf(UCB1, 2, 0))
	s, ps := stateOf(t, p, 3), stateOf(t, plain, 3)
	tests := []struct {
		plan    *Plan
		state   *State
		context []float64
		kind    schemas.Kind
		field   string
	}{
		{p, s, []float64{1}, schemas.Invalid, "context"},
		{p, s, nil, schemas.Invalid, "context"},
		{plain, ps, []float64{1}, schemas.Invalid, "context"},
		{p, s, []float64{1, math.NaN()}, schemas.Invalid, "c1"},
		{p, s, []float64{math.Inf(-1), 1}, schemas.Invalid, "c0"},
		{p, s, []float64{1, 1 << 21}, schemas.Invalid, "c1"},
		{p, ps, []float64{1, 1}, schemas.Internal, ""},
	}
	for _, tt := range tests {
		_, err := Decide(tt.plan, 1, tt.context, tt.state)
		_, err2 := Propensities(nil, tt.plan, 1, tt.context, tt.state)
		for _, err := range []error{err, err2} {
			var e *schemas.Error
			if !errors.As(err, &e) || e.Kind != tt.kind || e.Field != tt.field {
				t.Errorf("%v: %v, want %v of field %q", tt.context, err, tt.kind, tt.field)
			}
		}
	}
}

func TestDecideAllocates(t *testing.T) {
	for _, policy := range policies {
		p := mustPlan(t, banditOf(policy, 5, 10))
		s, x := stateOf(t, p, 100), contextOf(p, 1)
		seed := uint64(0)
		if n := testing.AllocsPerRun(100, func() {
			seed++
			if _, err := Decide(p, mix(seed), x, s); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: a decision allocates %v times", policy, n)
		}
	}
}
