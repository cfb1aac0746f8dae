package route

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

// Reward is what feedback says of one decision, joined with what the lineage knows of that decision. The stream that
// rewards come by is in one order, that of (Position, Index).
type Reward struct {
	Position uint64 // of the feedback in its stream, from 1
	Index    uint32 // among the rewards of that message

	DecisionID [32]byte  // record id of the decision; its first 16 bytes are kept
	Arm        string    // that was chosen
	Context    []float64 // that was chosen with: a value for each column of a contextual plan, else empty; only read
	Value      float64   // within MaxValue; of Thompson in [0, 1]
}

// Outcome is what a Fold made of a reward.
type Outcome uint8

// The outcomes.
const (
	Repeated Outcome = iota // at or before the fold's position: it has been seen; nothing changed, the position neither
	Counted                 // the first reward of its decision
	Replaced                // the decision had a reward: that one was taken back, this one counts
	Unknown                 // of an arm that the plan does not have (any more)
	Refused                 // see the error
)

var outcomeNames = [...]string{"repeated", "counted", "replaced", "unknown", "refused"}

// String returns the outcome in one word.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Fold is what the rewards of a bandit add up to, from the first to one position of their stream. The sums are integers:
// they depend on which reward of each decision counts, and on nothing else of their order, so taking one back leaves
// what would be there had it never come. It may be snapshotted after any reward (MarshalBinary) and goes on from there, bit
// for bit as if it had read all.
//
// To be able to take one back, the fold remembers the last Bandit.Remember decisions that got a first reward, however long
// ago they were made. Another reward of a decision that was forgotten counts as a first one.
//
// A Fold is not safe for concurrent use; its States are.
type Fold struct {
	plan     *Plan
	position uint64
	index    uint32
	counts   [len(outcomeNames)]uint64 // Repeated stays 0: a repeat changes nothing
	arms     []armSums
	memory   memory

	models []*linear // of State, by arm; nil where rewards came since
	x      [MaxContext + 1]int64
}

// armSums holds one arm's rewards: r in 2^-24, products in 2^-48.
type armSums struct {
	n   uint64   // decisions that have a reward
	sum sum128   // of r
	xr  []sum128 // of x*r, of a linear plan
	xx  []sum128 // of x*x', its lower half by rows
}

// maxRewards of an arm; see sum128.
const maxRewards = 1 << 39

// NewFold returns the fold of no rewards.
func NewFold(p *Plan) *Fold {
	f := &Fold{plan: p, arms: make([]armSums, len(p.bandit.Arms)), models: make([]*linear, len(p.bandit.Arms))}
	for i := range f.arms {
		f.arms[i].xr = make([]sum128, p.dim)
		f.arms[i].xx = make([]sum128, p.dim*(p.dim+1)/2)
	}
	f.memory.init(p.bandit.Remember)
	return f
}

// Position returns the place of the last reward that was applied: read on after it. 0, 0 is before the first.
func (f *Fold) Position() (position uint64, index uint32) { return f.position, f.index }

// Count returns how many rewards ended so; of Repeated always 0.
func (f *Fold) Count(o Outcome) uint64 {
	if int(o) < len(f.counts) {
		return f.counts[o]
	}
	return 0
}

// Apply adds one reward. Rewards must come in the order of their stream; one that was applied before is Repeated, so a
// stream may be read again from anywhere. The error is Invalid, with the field position, value, context or decision: the
// reward is Refused, the sums are as they were, and the position is past it (except for position 0).
func (f *Fold) Apply(r Reward) (Outcome, error) {
	if r.Position == 0 {
		return Refused, refused("position", "a reward needs its position in its stream, from 1")
	}
	if r.Position < f.position || r.Position == f.position && r.Index <= f.index {
		return Repeated, nil
	}
	f.position, f.index = r.Position, r.Index
	o, err := f.apply(&r)
	f.counts[o]++
	return o, err
}

func (f *Fold) apply(r *Reward) (Outcome, error) {
	arm, ok := f.plan.index[r.Arm]
	if !ok {
		return Unknown, nil
	}
	value, ok := quantize(r.Value)
	switch {
	case !ok:
		return Refused, refused("value", "a reward of %v is not within %d on both sides: scale it", r.Value, MaxValue)
	case f.plan.bandit.Policy == Thompson && (value < 0 || value > unit):
		return Refused, refused("value", "a reward of %v is not between 0 and 1, as thompson needs it: scale it, or take thompson_gaussian", r.Value)
	}
	x, err := f.plan.quantizeContext(f.x[:], r.Context)
	if err != nil {
		return Refused, err
	}
	made := fingerprint(r.Arm, x)
	id := [16]byte(r.DecisionID[:16])
	s := &f.arms[arm]
	before := f.memory.find(id)
	switch {
	case before != nil && before.made != made:
		return Refused, refused("decision", "decision %x was another at its first reward: its arm or context differ", id)
	case before != nil:
		s.replace(x, before.value, value)
		before.value = value
		f.models[arm] = nil
		return Replaced, nil
	case s.n == maxRewards:
		return Refused, refused("decision", "arm %s has %d rewards, and no room for more", r.Arm, s.n)
	}
	s.count(x, value)
	f.memory.put(remembered{id: id, value: value, made: made})
	f.models[arm] = nil
	return Counted, nil
}

func (s *armSums) count(x []int64, value int64) {
	s.n++
	s.sum.add(value)
	at := 0
	for i, xi := range x {
		s.xr[i].addProduct(xi, value)
		for _, xj := range x[:i+1] {
			s.xx[at].addProduct(xi, xj)
			at++
		}
	}
}

// replace takes one value back and adds another; the context is the same, so xx stays.
func (s *armSums) replace(x []int64, from, to int64) {
	s.sum.add(to - from)
	for i, xi := range x {
		s.xr[i].addProduct(xi, to-from)
	}
}

// quantizeContext writes a constant 1 and the context into x and returns its used part; empty without a linear model.
func (p *Plan) quantizeContext(x []int64, context []float64) ([]int64, error) {
	if len(context) != len(p.bandit.Context) {
		return nil, refused("context", "%d values came for %d columns", len(context), len(p.bandit.Context))
	}
	if p.dim == 0 {
		return nil, nil
	}
	x[0] = unit
	for i, v := range context {
		q, ok := quantize(v)
		if !ok {
			return nil, refused(p.bandit.Context[i], "%v is not within %d on both sides: give a default for nulls and scale the column in a transform before", v, MaxValue)
		}
		x[1+i] = q
	}
	return x[:p.dim], nil
}

// fingerprint is what two rewards of one decision must agree in.
func fingerprint(arm string, x []int64) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(xxhash.Sum64String(arm))
	for _, q := range x {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], uint64(q))
		d.Write(w[:])
	}
	return d.Sum64()
}

func refused(field, format string, args ...any) error {
	return schemas.FieldErrorf(schemas.Invalid, "route.Fold", field, format, args...)
}
