package learn

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// Bounds of a Learner.
const (
	DefaultDecisions = 100_000
	MaxDecisions     = 1 << 20
	MaxEarly         = 4096 // feedbacks that wait for their decision
	MaxSaid          = 4096 // feedbacks whose repeats are known as such
)

// Config is what a Learner learns.
type Config struct {
	Node      string // node path of the bandit
	Plan      *route.Plan
	Reward    string // see CompileReward
	Decisions int    // the last decisions that may still be rewarded, 1..MaxDecisions
}

// Identity names what is learnt: Learners of one identity make the same of one log. It is 32 hex digits.
func (c *Config) Identity() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %x %d %d %d", c.Node, c.Reward, c.Plan.Folds(), c.Decisions, MaxEarly, MaxSaid))
	return hex.EncodeToString(sum[:16])
}

// Counts says what became of the feedback, since the log's beginning.
type Counts struct {
	Counted  uint64 // first rewards of a decision
	Replaced uint64 // rewards that took the place of an earlier one
	Refused  uint64 // rewards that the policy does not take: too large, or outside of [0, 1] for thompson
	Unknown  uint64 // rewards of an arm that the bandit has not any more
	Early    uint64 // of those that wait for their decision now
	Lost     uint64 // waited for their decision until too many others waited
	Silent   uint64 // said nothing of a reward, or of an entity's decision
}

// Learner joins the decisions of one bandit with the feedback on them and folds the rewards.
//
// A message of the log is handed over as a whole: Decision and Feedback for what is in it, in its order, then End. What lies at
// or before the learner's position is passed over, so the log may be read again from anywhere.
//
// The last Config.Decisions decisions in the log may be rewarded; one that is recorded again counts as it was recorded last.
// Feedback that comes before its decision waits until that comes, or until MaxEarly others wait. A repeat of one of the last
// MaxSaid feedbacks, by its principal and id, is none; other feedback on the same decision replaces the reward before it.
//
// It belongs to one goroutine; its States do not.
type Learner struct {
	config   Config
	worth    worth
	fold     *route.Fold
	table    table
	early    early
	said     said
	position uint64 // of the last message that is in the table
	learnt   uint64 // of the last message that is in all else: higher while the table is read again
	reward   uint32 // of the message in work: rewards that were applied
	counts   Counts
	context  []float64
}

// New returns a Learner of no log at all. Invalid: the reward's expression.
func New(c Config) (*Learner, error) {
	p, err := CompileReward(c.Reward)
	if err != nil {
		return nil, err
	}
	l := &Learner{config: c, worth: newWorth(p), fold: route.NewFold(c.Plan)}
	l.table.init(c.Decisions, len(c.Plan.Bandit().Context))
	l.early.init(MaxEarly)
	l.said.init(MaxSaid)
	return l, nil
}

// Config returns what the Learner learns.
func (l *Learner) Config() Config { return l.config }

// Under returns the Learner for another plan of the same identity; l is not used any more.
func (l *Learner) Under(p *route.Plan) (*Learner, error) {
	b, err := l.fold.MarshalBinary()
	if err != nil {
		return nil, err
	}
	f := route.NewFold(p)
	if err := f.UnmarshalBinary(b); err != nil {
		return nil, err
	}
	l.fold, l.config.Plan = f, p
	return l, nil
}

// Position returns the last message that the Learner has learnt from.
func (l *Learner) Position() uint64 { return max(l.position, l.learnt) }

// From returns the first message that the Learner has to read to go on.
func (l *Learner) From() uint64 { return l.position + 1 }

// Reward returns the place of the last reward that was applied: the position of State.
func (l *Learner) Reward() (position uint64, index uint32) { return l.fold.Position() }

// Whole reports whether the Learner knows all decisions that may be rewarded: not while it reads them again after Restore.
func (l *Learner) Whole() bool { return l.position >= l.learnt }

// Counts says what became of the feedback until now.
func (l *Learner) Counts() Counts {
	c := l.counts
	c.Counted, c.Replaced = l.fold.Count(route.Counted), l.fold.Count(route.Replaced)
	c.Unknown, c.Refused = l.fold.Count(route.Unknown), l.fold.Count(route.Refused)
	c.Early = uint64(len(l.early.waiting))
	return c
}

// State is what decisions go by, as of the last whole message. See route.Fold.State for what it costs.
func (l *Learner) State() *route.State { return l.fold.State() }

// decisionOf names a decision as feedback does: by request id and row.
func decisionOf(requestID string, row int32) (id [16]byte) {
	b := make([]byte, 0, 64)
	b = append(b, requestID...)
	b = binary.LittleEndian.AppendUint32(b, uint32(row))
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
}

// Decision takes a record of the message at a position. Records of other nodes, of jobs and of rows that got no arm are passed over.
// The record is only read.
func (l *Learner) Decision(position uint64, r *lineage.Record) {
	if position <= l.position || r.Node != l.config.Node || r.Arm == "" || r.Run != "" {
		return
	}
	arm := l.config.Plan.Arm(r.Arm)
	context, ok := l.contextOf(r)
	id := decisionOf(r.RequestID, r.Row.Row)
	l.table.put(decision{id: id, position: position, arm: int32(arm), whole: ok}, context)
	if position <= l.learnt {
		return
	}
	if value, ok := l.early.take(id); ok {
		l.apply(position, id, value)
	}
}

// contextOf returns what the arm was chosen by; false if the record does not say it.
func (l *Learner) contextOf(r *lineage.Record) ([]float64, bool) {
	l.context = l.context[:0]
	for _, name := range l.config.Plan.Bandit().Context {
		v, ok := 0.0, false
		if r.Input != nil {
			if c := r.Input.Schema().Index(name); c >= 0 && Numeric(r.Input.Schema().Field(c)) {
				v, ok = Number(r.Input.Column(c), r.InputRow)
			}
		}
		if !ok {
			return l.context[:0], false
		}
		l.context = append(l.context, v)
	}
	return l.context, true
}

// Feedback takes a feedback of the message at a position. It is only read.
func (l *Learner) Feedback(position uint64, f *lineage.Feedback) {
	if position <= l.position || position <= l.learnt || f.Node != "" && f.Node != l.config.Node || !l.said.first(f) {
		return
	}
	value, ok := l.worth.of(f)
	if !ok || f.RequestID == "" {
		l.counts.Silent++
		return
	}
	id := decisionOf(f.RequestID, f.Row)
	if l.table.find(id) != nil {
		l.apply(position, id, value)
		return
	}
	if l.early.put(id, value) {
		l.counts.Lost++
	}
}

// apply counts a reward of a decision that is in the table.
func (l *Learner) apply(position uint64, id [16]byte, value float64) {
	d := l.table.find(id)
	r := route.Reward{Position: position, Index: l.reward, Value: value}
	l.reward++
	copy(r.DecisionID[:], id[:])
	if d.arm >= 0 {
		r.Arm = l.config.Plan.Bandit().Arms[d.arm]
	}
	if d.whole {
		r.Context = l.table.context(d)
	}
	_, _ = l.fold.Apply(r) // what is refused is counted
}

// End says that all of the message at a position was handed over.
func (l *Learner) End(position uint64) {
	if l.reward = 0; position > l.position {
		l.position = position
	}
}

var errSnapshot = schemas.Errorf(schemas.Invalid, "learn.Restore", "no snapshot, or a damaged one, or of another bandit")
