package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

// TenThousand is what the weights of a split add up to.
const TenThousand = 10_000

// Split gives each key one of several arms, in proportion to their weights, and the same one in every process and at
// every time. It is immutable and safe for concurrent use.
//
// The choice is weighted rendezvous hashing (Thaler and Ravishankar 1998, with the logarithm of Schindelhauer and
// Schomaker 2005): each arm of a weight w draws E = -log2(U) / w with U from hash(salt, key, the arm's name), and the
// smallest E wins. An arm's draw depends on its name alone, so neither the order of arms nor the other arms matter to it.
// What follows when weights change:
//   - an arm that gains relative to each of the others takes keys from them and gives none away;
//   - of two arms exactly those keys change that must: 10 % to 20 % moves a tenth of the keys, all in one direction;
//   - if an arm is raised (or added) and the others keep their proportions, only keys to that arm move;
//   - if one of three arms pays for another, some keys of the third may move too. At most 2d/(1+d) of all keys move where
//     d of them must; no rule without memory does better for every pair of weights (docs/decisions/0023-deciding.md).
type Split struct {
	salt uint64
	arms []splitArm // of weight > 0, by name, so that a tie falls to the lower name
	only int        // the arm that has all weight, or -1
}

type splitArm struct {
	lane   uint64 // XXH64 of the name
	weight uint64 // 1..10,000
	index  int    // in the caller's order
}

// NewSplit makes a split of arms with weights in parts per 10,000, which must add up to 10,000; a weight of 0 is allowed
// and never chosen. Two splits of different salts are independent of each other, two of one salt agree. Errors are
// Invalid, with the field arms, or arms[i].name or arms[i].weight.
func NewSplit(salt string, arms []string, weights []int) (*Split, error) {
	const op = "route.NewSplit"
	if len(arms) == 0 {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "arms", "a split needs at least one arm")
	}
	if len(arms) != len(weights) {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "arms", "%d arms have %d weights: give each arm one", len(arms), len(weights))
	}
	s := &Split{salt: xxhash.Sum64String(salt), only: -1}
	sum := 0
	for i, name := range arms {
		switch w := weights[i]; {
		case name == "":
			return nil, schemas.FieldErrorf(schemas.Invalid, op, fmt.Sprintf("arms[%d].name", i), "an arm needs a name")
		case slices.Contains(arms[:i], name):
			return nil, schemas.FieldErrorf(schemas.Invalid, op, fmt.Sprintf("arms[%d].name", i), "two arms are named %q: names must differ", name)
		case w < 0 || w > TenThousand:
			return nil, schemas.FieldErrorf(schemas.Invalid, op, fmt.Sprintf("arms[%d].weight", i),
				"a weight of %d is not between 0 and %d parts per 10,000", w, TenThousand)
		case w > 0:
			s.arms = append(s.arms, splitArm{xxhash.Sum64String(name), uint64(w), i})
			sum += w
		}
	}
	if sum != TenThousand {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "arms", "weights add up to %d parts per 10,000, they must add up to %d", sum, TenThousand)
	}
	slices.SortFunc(s.arms, func(a, b splitArm) int { return strings.Compare(arms[a.index], arms[b.index]) })
	if len(s.arms) == 1 {
		s.only = s.arms[0].index
	}
	return s, nil
}

// Arm returns the index of the key's arm, in the order given to NewSplit. It does not allocate and only reads key.
func (s *Split) Arm(key []byte) int { return s.ArmOf(s.Seed(key)) }

// Seed returns all that the choice of a key's arm depends on beside the arms and their weights: what is recorded with the
// decision, so that it can be derived again where the key is not kept.
func (s *Split) Seed(key []byte) uint64 { return keyHash(s.salt, key) }

// SeedString is Seed of the key's bytes.
func (s *Split) SeedString(key string) uint64 { return stringHash(s.salt, key) }

// ArmOf returns the arm of the keys with a seed.
func (s *Split) ArmOf(h uint64) int {
	if s.only >= 0 {
		return s.only
	}
	best := &s.arms[0]
	least := expo(mix(h ^ best.lane))
	for i := 1; i < len(s.arms); i++ {
		a := &s.arms[i]
		e := expo(mix(h ^ a.lane))
		if e*best.weight < least*a.weight { // e/a.weight < least/best.weight; see logBits
			best, least = a, e
		}
	}
	return best.index
}
