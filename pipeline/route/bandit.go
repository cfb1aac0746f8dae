package route

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

// Policy is how a bandit weighs what it knows against what it has yet to learn.
type Policy uint8

// The policies. Rewards may have any value within MaxValue, but for Thompson, whose rewards are in [0, 1].
const (
	// EpsilonGreedy tries any arm with chance epsilon, all alike, else the arm of the highest mean reward (Sutton and Barto
	// 2018, 2.2). Arms of equal means share alike. An arm without a reward yet is not greedy, unless none has one:
	// it is found by exploring, so that a new arm gets no more than its share of epsilon while its feedback is on its way.
	EpsilonGreedy Policy = iota
	// UCB1 takes the arm of the highest mean + explore * sqrt(ln N / n), n rewards of the arm and N of all (Auer,
	// Cesa-Bianchi and Fischer 2002, figure 1, where explore is sqrt 2 for rewards in [0, 1]). Arms without a reward yet
	// come first. Equal arms share alike. Rewards are counted, not decisions: with delayed feedback the bound is late by as
	// much as the rewards are (Joulani, György and Szepesvári 2013), and between two states all rows go to one arm.
	UCB1
	// Thompson draws each arm's chance of success from Beta(prior successes + sum of rewards, prior failures + count - sum)
	// and takes the highest (Thompson 1933; Chapelle and Li 2011, algorithm 2; a reward between 0 and 1 counts in
	// part on both sides).
	Thompson
	// ThompsonGaussian draws each arm's mean reward from its normal posterior under a normal prior and known noise, and takes
	// the highest. With prior mean 0, prior deviation 1 and noise 1 it is N(sum/(n+1), 1/(n+1)) (Agrawal and Goyal 2013a,
	// "Further Optimal Regret Bounds for Thompson Sampling", algorithm 2).
	ThompsonGaussian
	// LinUCB fits each arm's reward by ridge regression on the context and takes the highest theta·x + explore *
	// sqrt(x'A⁻¹x) (Li, Chu, Langford and Schapire 2010, algorithm 1, disjoint models; explore is their alpha). Equal arms
	// share alike.
	LinUCB
	// LinThompson draws each arm's reward at x from N(theta·x, explore² x'A⁻¹x), which is x times a draw of theta from
	// N(theta, explore² A⁻¹), and takes the highest (Agrawal and Goyal 2013b, "Thompson Sampling for Contextual Bandits with
	// Linear Payoffs", with a model for each arm; explore is their v).
	LinThompson
)

var policyNames = [...]string{"epsilon_greedy", "ucb1", "thompson", "thompson_gaussian", "linucb", "lin_thompson"}

// String returns the policy as specifications write it.
func (p Policy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return fmt.Sprintf("policy(%d)", uint8(p))
}

// Policies returns the names of all policies.
func Policies() []string { return slices.Clone(policyNames[:]) }

// ParsePolicy is the inverse of String; an unknown name is Invalid.
func ParsePolicy(s string) (Policy, error) {
	if i := slices.Index(policyNames[:], s); i >= 0 {
		return Policy(i), nil
	}
	return 0, schemas.FieldErrorf(schemas.Invalid, "route.ParsePolicy", "policy", "no policy is named %q: want one of %q", s, policyNames)
}

func (p Policy) linear() bool { return p == LinUCB || p == LinThompson }

// Bounds of a bandit.
const (
	MaxArms     = 64
	MaxContext  = 63      // columns; with the constant that is fitted beside them a model has at most 64 dimensions
	MaxDraws    = 1 << 20 // of a propensity
	MaxRemember = 1 << 20
)

// Bandit is what a specification says of a bandit; DefaultBandit fills it in for a policy. A parameter that is not the
// policy's stays zero.
type Bandit struct {
	Policy       Policy
	Arms         []string // 2..64 distinct names
	Context      []string // 1..63 columns of a contextual policy; a constant is fitted beside them
	MinimumShare int      // of each arm, in parts per 10,000: so many rows get it whatever the policy says

	Epsilon      int     // epsilon_greedy: parts per 10,000
	Explore      float64 // ucb1, linucb, lin_thompson: how much not knowing counts; 10^-6..10^6
	PriorSuccess float64 // thompson: 1..10^6
	PriorFailure float64 // thompson: 1..10^6
	PriorMean    float64 // thompson_gaussian: within MaxValue
	PriorSD      float64 // thompson_gaussian: 10^-6..10^6
	Noise        float64 // thompson_gaussian: standard deviation of a reward about its arm's mean, 10^-6..10^6
	Ridge        float64 // linucb, lin_thompson: what A starts with on its diagonal, 10^-6..10^6
	Draws        int     // thompson, thompson_gaussian, lin_thompson: Monte-Carlo draws of a propensity, 1..MaxDraws; of lin_thompson 1..2^22 / arms
	Remember     int     // rewarded decisions whose reward may still be replaced, 1..MaxRemember; 32 bytes each in a snapshot
}

// DefaultBandit returns the policy's parameters as the papers have them, without arms and context.
func DefaultBandit(p Policy) Bandit {
	b := Bandit{Policy: p, Remember: 1 << 14} // half a MiB: a snapshot fits into a message
	switch p {
	case EpsilonGreedy:
		b.Epsilon = 1000
	case UCB1:
		b.Explore = math.Sqrt2
	case Thompson:
		b.PriorSuccess, b.PriorFailure, b.Draws = 1, 1, 10_000
	case ThompsonGaussian:
		b.PriorSD, b.Noise, b.Draws = 1, 1, 10_000
	case LinUCB:
		b.Explore, b.Ridge = 1, 1
	case LinThompson:
		b.Explore, b.Ridge, b.Draws = 0.5, 1, 500
	}
	return b
}

// Plan is a checked Bandit. It is immutable and safe for concurrent use.
type Plan struct {
	bandit   Bandit
	index    map[string]int
	reserved int    // parts per 10,000 that the minimum shares take together
	dim      int    // of the linear models: 1 + columns; 0 without
	latin    *latin // lin_thompson
	digest   uint64 // of everything
	folds    uint64 // digest of what a fold depends on: snapshots of other folds are refused
}

// NewPlan checks a bandit and compiles it. Errors are Invalid, with the field as a specification names it: policy, arms,
// arms[i].name, context, context[i], minimum_share, epsilon, explore and so on.
func NewPlan(b Bandit) (*Plan, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	b.Arms, b.Context = slices.Clone(b.Arms), slices.Clone(b.Context)
	p := &Plan{bandit: b, index: make(map[string]int, len(b.Arms)), reserved: len(b.Arms) * b.MinimumShare}
	for i, name := range b.Arms {
		p.index[name] = i
	}
	if b.Policy == LinThompson {
		p.latin = newLatin(len(b.Arms), b.Draws)
	}
	model := "counts"
	switch {
	case b.Policy.linear():
		p.dim, model = 1+len(b.Context), "linear"
	case b.Policy == Thompson:
		model = "successes" // rewards outside of [0, 1] are refused
	}
	p.folds = xxhash.Sum64String(fmt.Sprintf("%s %q %q %d", model, b.Arms, b.Context, b.Remember))
	var d xxhash.Digest
	d.ResetWithSeed(p.folds)
	for _, v := range []uint64{
		uint64(b.Policy), uint64(b.MinimumShare), uint64(b.Epsilon), math.Float64bits(b.Explore), math.Float64bits(b.PriorSuccess),
		math.Float64bits(b.PriorFailure), math.Float64bits(b.PriorMean), math.Float64bits(b.PriorSD), math.Float64bits(b.Noise),
		math.Float64bits(b.Ridge), uint64(b.Draws),
	} {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], v)
		d.Write(w[:])
	}
	p.digest = d.Sum64()
	return p, nil
}

// Folds tells what a fold of the plan depends on: rewards add up alike under plans that agree in it.
func (p *Plan) Folds() uint64 { return p.folds }

// Arm returns the place of an arm in Bandit.Arms, -1 if the plan has none of the name.
func (p *Plan) Arm(name string) int {
	if i, ok := p.index[name]; ok {
		return i
	}
	return -1
}

// Bandit returns what the plan was made of; its slices must not be changed.
func (p *Plan) Bandit() Bandit { return p.bandit }

func (b *Bandit) check() error {
	bad := func(field, format string, args ...any) error {
		return schemas.FieldErrorf(schemas.Invalid, "route.NewPlan", field, format, args...)
	}
	if int(b.Policy) >= len(policyNames) {
		return bad("policy", "there is no policy %d", uint8(b.Policy))
	}
	if n := len(b.Arms); n < 2 || n > MaxArms {
		return bad("arms", "%d arms: a bandit has 2 to %d", n, MaxArms)
	}
	for i, name := range b.Arms {
		if name == "" {
			return bad(fmt.Sprintf("arms[%d].name", i), "an arm needs a name")
		}
		if slices.Contains(b.Arms[:i], name) {
			return bad(fmt.Sprintf("arms[%d].name", i), "two arms are named %q: names must differ", name)
		}
	}
	switch n := len(b.Context); {
	case !b.Policy.linear() && n > 0:
		return bad("context", "%s looks at no context: leave it out, or take linucb or lin_thompson", b.Policy)
	case b.Policy.linear() && (n < 1 || n > MaxContext):
		return bad("context", "%d columns: %s needs 1 to %d", n, b.Policy, MaxContext)
	}
	for i, name := range b.Context {
		if name == "" || slices.Contains(b.Context[:i], name) {
			return bad(fmt.Sprintf("context[%d]", i), "%q: columns of the context have names, and each is named once", name)
		}
	}
	if m := b.MinimumShare; m < 0 || m*len(b.Arms) > TenThousand {
		return bad("minimum_share", "%d parts per 10,000 for each of %d arms: want 0 to %d", m, len(b.Arms), TenThousand/len(b.Arms))
	}
	return b.checkParameters(bad)
}

// checkParameters looks at each parameter: within its bounds if it is the policy's, else zero.
func (b *Bandit) checkParameters(bad func(field, format string, args ...any) error) error {
	p := b.Policy
	none := func(field string, used bool, v float64) error {
		if !used && v != 0 {
			return bad(field, "is no parameter of %s: leave it out", p)
		}
		return nil
	}
	for _, f := range []struct {
		name     string
		used     bool
		v        float64
		from, to float64
	}{
		{"epsilon", p == EpsilonGreedy, float64(b.Epsilon), 0, TenThousand},
		{"explore", p == UCB1 || p.linear(), b.Explore, 1e-6, 1e6},
		{"prior_success", p == Thompson, b.PriorSuccess, 1, 1e6},
		{"prior_failure", p == Thompson, b.PriorFailure, 1, 1e6},
		{"prior_mean", p == ThompsonGaussian, b.PriorMean, -MaxValue, MaxValue},
		{"prior_sd", p == ThompsonGaussian, b.PriorSD, 1e-6, 1e6},
		{"noise", p == ThompsonGaussian, b.Noise, 1e-6, 1e6},
		{"ridge", p.linear(), b.Ridge, 1e-6, 1e6},
		{"draws", p == Thompson || p == ThompsonGaussian || p == LinThompson, float64(b.Draws), 1, MaxDraws},
		{"remember", true, float64(b.Remember), 1, MaxRemember},
	} {
		if f.name == "draws" && p == LinThompson {
			f.to = min(f.to, float64(maxLatin/len(b.Arms)))
		}
		if err := none(f.name, f.used, f.v); err != nil {
			return err
		}
		if f.used && !(f.v >= f.from && f.v <= f.to) {
			return bad(f.name, "%v is not between %v and %v", f.v, f.from, f.to)
		}
	}
	return nil
}
