package route

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// State is what a decision reads of a Fold: its numbers at one position, worked out as far as they do not depend on the
// row. It is immutable and safe for concurrent use; the fold may go on.
type State struct {
	plan     *Plan
	position uint64
	index    uint32
	rewards  []uint64
	means    []float64
	best     []int        // epsilon_greedy, ucb1: the arms that share the highest score
	beta     [][2]float64 // thompson: both parameters of the posterior, by arm
	normal   [][2]float64 // thompson_gaussian: mean and standard deviation of the posterior, by arm
	shares   []float64    // thompson, thompson_gaussian: the policy's own chance of each arm, by Monte-Carlo draws
	models   []*linear    // linucb, lin_thompson
}

// Position returns the place of the last reward that the state knows of: recorded with a decision, it names the state.
func (s *State) Position() (position uint64, index uint32) { return s.position, s.index }

// Arm returns how many decisions for an arm have a reward, and the mean of those rewards; 0, 0 without any.
func (s *State) Arm(i int) (rewards uint64, mean float64) { return s.rewards[i], s.means[i] }

// State returns the fold's state. Thompson's and ThompsonGaussian's costs Bandit.Draws draws for each arm (about 100 and 35 ns
// each), that of a linear policy the factors of the arms that had rewards since the last call; others cost nothing.
func (f *Fold) State() *State {
	p := f.plan
	b := &p.bandit
	s := &State{plan: p, position: f.position, index: f.index, rewards: make([]uint64, len(f.arms)), means: make([]float64, len(f.arms))}
	total := uint64(0)
	for i := range f.arms {
		s.rewards[i] = f.arms[i].n
		total += f.arms[i].n
		if f.arms[i].n > 0 {
			s.means[i] = f.arms[i].sum.float(unitBits) / float64(int64(f.arms[i].n))
		}
	}
	switch b.Policy {
	case EpsilonGreedy:
		s.best = highest(len(f.arms), func(i int) float64 {
			if s.rewards[i] == 0 {
				return math.Inf(-1)
			}
			return s.means[i]
		})
	case UCB1:
		s.best = highest(len(f.arms), func(i int) float64 {
			if s.rewards[i] == 0 {
				return math.Inf(1)
			}
			return s.means[i] + float64(b.Explore*math.Sqrt(ln(float64(int64(total)))/float64(int64(s.rewards[i]))))
		})
	case Thompson:
		for i := range f.arms {
			sum := f.arms[i].sum.float(unitBits)
			s.beta = append(s.beta, [2]float64{b.PriorSuccess + sum, b.PriorFailure + (float64(int64(f.arms[i].n)) - sum)})
		}
		s.estimate(f)
	case ThompsonGaussian:
		for i := range f.arms {
			noise := float64(b.Noise * b.Noise)
			prior := noise / float64(b.PriorSD*b.PriorSD) // how many rewards the prior counts for
			n := prior + float64(int64(f.arms[i].n))
			mean := (float64(prior*b.PriorMean) + f.arms[i].sum.float(unitBits)) / n
			s.normal = append(s.normal, [2]float64{mean, math.Sqrt(noise / n)})
		}
		s.estimate(f)
	case LinUCB, LinThompson:
		for i := range f.models {
			if f.models[i] == nil {
				f.models[i] = newLinear(&f.arms[i], b.Ridge)
			}
		}
		s.models = append(s.models, f.models...)
	}
	return s
}

// estimate draws the policy's own choice Bandit.Draws times, with a seed that the rewards' counts and sums give. It depends
// on the state alone, so it is done once a state and not once a row.
func (s *State) estimate(f *Fold) {
	h := s.plan.digest
	for i := range f.arms {
		var w [24]byte
		binary.LittleEndian.PutUint64(w[:], f.arms[i].n)
		binary.LittleEndian.PutUint64(w[8:], uint64(f.arms[i].sum.hi))
		binary.LittleEndian.PutUint64(w[16:], f.arms[i].sum.lo)
		var d xxhash.Digest
		d.ResetWithSeed(h)
		d.Write(w[:])
		h = d.Sum64()
	}
	var d draws
	d.seed(h, laneEstimate)
	wins := make([]int, len(f.arms))
	for range s.plan.bandit.Draws {
		wins[s.sample(&d)]++
	}
	for i := range wins {
		s.shares = append(s.shares, share(wins[i], s.plan.bandit.Draws, len(wins)))
	}
}

// share is the chance of an arm that won so many of the draws, (wins + 1/arms) / (draws + 1): never 0, and of all arms
// together 1. What it estimates has a standard deviation of at most 0.5 / sqrt(draws).
func share(wins, draws, arms int) float64 {
	return (float64(wins) + 1/float64(arms)) / float64(draws+1)
}

// sample draws once what Thompson or ThompsonGaussian choose.
func (s *State) sample(d *draws) int {
	arm, most := 0, math.Inf(-1)
	for i := range s.rewards {
		var v float64
		if s.beta != nil {
			v = d.beta(s.beta[i][0], s.beta[i][1])
		} else {
			v = s.normal[i][0] + float64(s.normal[i][1]*d.normal())
		}
		if v > most {
			arm, most = i, v
		}
	}
	return arm
}

// highest returns the arms whose score is the highest, in order.
func highest(n int, score func(int) float64) (best []int) {
	most := math.Inf(-1)
	for i := range n {
		switch v := score(i); {
		case v > most:
			most, best = v, append(best[:0], i)
		case v == most:
			best = append(best, i)
		}
	}
	return best
}
