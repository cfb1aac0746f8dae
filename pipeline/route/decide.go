package route

import (
	"math"

	"github.com/leatstream/leat/schemas"
)

// Decision is what a bandit chose for a row.
type Decision struct {
	Arm int // index into Bandit.Arms
	// Propensity is the chance that this arm had for this row, given plan, context and state: exact for EpsilonGreedy, UCB1
	// and LinUCB; from Bandit.Draws Monte-Carlo draws for the Thompson policies. It is above 0.
	Propensity float64
	// Explored says that the minimum share or epsilon chose, and not what the policy knows.
	Explored bool
}

// Decide chooses an arm: with MinimumShare for each arm by it, else by the policy, with draws of the seed alone. The same
// plan, seed, context and state give the same bits on every CPU. Thompson and ThompsonGaussian estimated their propensities
// when the state was made (see [Fold.State]); LinThompson does it here, by draws of the same seed that the choosing draws
// are no part of (latin.go).
//
// context has a value for each column of the plan and is only read. The error is Invalid, with the column as its field: a
// value is no number, infinite or beyond MaxValue. A state of another plan is Internal. Safe for concurrent use; no
// allocation.
func Decide(p *Plan, seed uint64, context []float64, s *State) (Decision, error) {
	if s.plan != p && s.plan.digest != p.digest {
		return Decision{}, schemas.Errorf(schemas.Internal, "route.Decide", "the state is of another plan")
	}
	if p.dim > 0 || len(context) > 0 {
		return p.decideLinear(seed, context, s)
	}
	var d draws
	d.seed(seed, laneChoose)
	b := &p.bandit
	var out Decision
	switch r := d.below(TenThousand); {
	case r < p.reserved:
		out.Arm, out.Explored = r/b.MinimumShare, true
	case b.Policy == EpsilonGreedy && d.below(TenThousand) < b.Epsilon:
		out.Arm, out.Explored = d.below(len(b.Arms)), true
	case b.Policy == EpsilonGreedy, b.Policy == UCB1:
		out.Arm = s.best[d.below(len(s.best))]
	default:
		out.Arm = s.sample(&d)
	}
	out.Propensity = p.mixed(s.own(out.Arm))
	return out, nil
}

// Propensities appends to dst the chance of each arm, as Decide would give it: they add up to 1, and that of the chosen arm
// is Decision.Propensity to the bit. The seed matters to LinThompson alone.
func Propensities(dst []float64, p *Plan, seed uint64, context []float64, s *State) ([]float64, error) {
	if s.plan != p && s.plan.digest != p.digest {
		return dst, schemas.Errorf(schemas.Internal, "route.Propensities", "the state is of another plan")
	}
	if p.dim == 0 && len(context) == 0 {
		for i := range p.bandit.Arms {
			dst = append(dst, p.mixed(s.own(i)))
		}
		return dst, nil
	}
	var l linearScores
	if err := l.score(p, context, s); err != nil {
		return dst, err
	}
	l.estimate(p, seed)
	for i := range p.bandit.Arms {
		dst = append(dst, p.mixed(l.own(p, i)))
	}
	return dst, nil
}

// mixed adds the minimum share to the policy's own chance of an arm.
func (p *Plan) mixed(own float64) float64 {
	return (float64(p.bandit.MinimumShare) + float64(float64(TenThousand-p.reserved)*own)) / TenThousand
}

// own is the chance that a policy without context gives an arm.
func (s *State) own(arm int) float64 {
	b := &s.plan.bandit
	if s.shares != nil {
		return s.shares[arm]
	}
	greedy := 0.0
	for _, i := range s.best {
		if i == arm {
			greedy = 1 / float64(len(s.best))
		}
	}
	if b.Policy == UCB1 {
		return greedy
	}
	return (float64(b.Epsilon)/float64(len(b.Arms)) + float64(float64(TenThousand-b.Epsilon)*greedy)) / TenThousand
}

// linearScores is what the linear policies know of a row.
type linearScores struct {
	mean, width [MaxArms]float64 // of each arm; of LinUCB mean is the bound, of LinThompson width is the deviation
	best        int              // LinUCB: how many arms share the highest bound
	most        float64          // LinUCB: the highest bound
	wins        [MaxArms]int32   // LinThompson: of how many draws
}

func (p *Plan) decideLinear(seed uint64, context []float64, s *State) (Decision, error) {
	var l linearScores
	if err := l.score(p, context, s); err != nil {
		return Decision{}, err
	}
	var d draws
	d.seed(seed, laneChoose)
	b := &p.bandit
	var out Decision
	switch r := d.below(TenThousand); {
	case r < p.reserved:
		out.Arm, out.Explored = r/b.MinimumShare, true
	case b.Policy == LinUCB:
		nth := d.below(l.best)
		for i := range b.Arms {
			if l.mean[i] == l.most {
				if nth == 0 {
					out.Arm = i
					break
				}
				nth--
			}
		}
	default:
		out.Arm = l.sample(&d, len(b.Arms))
	}
	l.estimate(p, seed)
	out.Propensity = p.mixed(l.own(p, out.Arm))
	return out, nil
}

func (l *linearScores) score(p *Plan, context []float64, s *State) error {
	var q [MaxContext + 1]int64
	var x [MaxContext + 1]float64
	used, err := p.quantizeContext(q[:], context)
	if err != nil {
		return err
	}
	for i, v := range used {
		x[i] = unquantized(v)
	}
	l.most = math.Inf(-1)
	for i, m := range s.models {
		mean, width := m.at(x[:p.dim])
		width = float64(p.bandit.Explore * width)
		if p.bandit.Policy == LinUCB {
			mean += width
			if mean > l.most {
				l.most, l.best = mean, 0
			}
			if mean == l.most {
				l.best++
			}
		}
		l.mean[i], l.width[i] = mean, width
	}
	return nil
}

// sample draws once what LinThompson chooses.
func (l *linearScores) sample(d *draws, arms int) int {
	arm, most := 0, math.Inf(-1)
	for i := range arms {
		if v := l.mean[i] + float64(l.width[i]*d.normal()); v > most {
			arm, most = i, v
		}
	}
	return arm
}

// estimate counts LinThompson's choices in Bandit.Draws draws: a latin hypercube, shifted by the seed's second lane.
func (l *linearScores) estimate(p *Plan, seed uint64) {
	if p.bandit.Policy != LinThompson {
		return
	}
	arms := len(p.bandit.Arms)
	p.latin.count(&l.wins, seed, l.mean[:arms], l.width[:arms])
}

// own is the chance that a linear policy gives an arm.
func (l *linearScores) own(p *Plan, arm int) float64 {
	switch {
	case p.bandit.Policy == LinThompson:
		return share(int(l.wins[arm]), p.bandit.Draws, len(p.bandit.Arms))
	case l.mean[arm] == l.most:
		return 1 / float64(l.best)
	}
	return 0
}
