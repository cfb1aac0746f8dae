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
// A message of the log is handed over piece by piece: Decision and Feedback for what is in it, in its order. It is learnt from as a whole,
// at End; until then, or if Abort says that there is no end, it was not. What lies at or before the learner's position is passed
// over, so the log may be read again from anywhere.
//
// The last Config.Decisions decisions in the log may be rewarded; one that is recorded again counts as it was recorded last.
// Feedback means the decision of that request id and row that its own principal asked for; where there is none, the one that was recorded last.
// Feedback that comes before any of them waits until one comes, or until MaxEarly others wait. A repeat of one of the last
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
	counts   Counts

	message  []piece   // what was handed over of the message that has no end yet
	contexts []float64 // of its decisions, one after the other
}

// piece is a decision, or a feedback; of a feedback's decision the aim alone is known.
type piece struct {
	decision
	said  [16]byte // of a feedback: what repeats agree in
	value float64
	kind  kind
}

type kind uint8

const (
	isDecision kind = iota
	isReward
	isSilent // feedback that says no reward, or of an entity's decision
)

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

// aim is which decision is meant, or is at hand.
type aim struct {
	id   [16]byte // by request key and row: of one principal
	name [16]byte // by request id and row: as whoever did not ask knows it
}

func aimOf(principal, pipeline, requestID string, row int32) aim {
	key := lineage.RequestKey(principal, pipeline, requestID)
	name := sha256.Sum256([]byte(requestID))
	return aim{ofRow(key, row), ofRow(name, row)}
}

func ofRow(key [32]byte, row int32) [16]byte {
	var b [36]byte
	binary.LittleEndian.PutUint32(b[copy(b[:], key[:]):], uint32(row))
	sum := sha256.Sum256(b[:])
	return [16]byte(sum[:16])
}

// Decision takes a record of the message at a position. Records of other nodes, of jobs and of rows that got no arm are passed over.
// The record is only read.
func (l *Learner) Decision(position uint64, r *lineage.Record) {
	if position <= l.position || r.Node != l.config.Node || r.Arm == "" || r.Run != "" {
		return
	}
	d := decision{aim: aimOf(r.Principal, r.Pipeline, r.RequestID, r.Row.Row), position: position, arm: int32(l.config.Plan.Arm(r.Arm))}
	d.whole = l.addContext(r)
	l.message = append(l.message, piece{kind: isDecision, decision: d})
}

// addContext notes what the arm was chosen by; false, and zeros, if the record does not say it.
func (l *Learner) addContext(r *lineage.Record) bool {
	names := l.config.Plan.Bandit().Context
	first := len(l.contexts)
	for _, name := range names {
		v, ok := 0.0, false
		if r.Input != nil {
			if c := r.Input.Schema().Index(name); c >= 0 && Numeric(r.Input.Schema().Field(c)) {
				v, ok = Number(r.Input.Column(c), r.InputRow)
			}
		}
		if !ok {
			l.contexts = append(l.contexts[:first], make([]float64, len(names))...)
			return false
		}
		l.contexts = append(l.contexts, v)
	}
	return true
}

// Feedback takes a feedback of the message at a position. It is only read.
func (l *Learner) Feedback(position uint64, f *lineage.Feedback) {
	if position <= l.position || position <= l.learnt || f.Node != "" && f.Node != l.config.Node {
		return
	}
	p := piece{kind: isSilent, said: saidBy(f)}
	if value, ok := l.worth.of(f); ok && f.RequestID != "" {
		p.kind, p.value, p.aim = isReward, value, aimOf(f.Principal, f.Pipeline, f.RequestID, f.Row)
	}
	l.message = append(l.message, p)
}

// Abort forgets what was handed over of a message that has no end: it will be read again.
func (l *Learner) Abort() { l.message, l.contexts = l.message[:0], l.contexts[:0] }

// End says that all of the message at a position was handed over, and learns from it.
func (l *Learner) End(position uint64) {
	index, dim := uint32(0), len(l.config.Plan.Bandit().Context)
	contexts := l.contexts
	for i := range l.message {
		p := &l.message[i]
		if p.kind == isDecision {
			d := l.table.put(p.decision, contexts[:dim])
			contexts = contexts[dim:]
			if position <= l.learnt {
				continue
			}
			if value, ok := l.early.take(p.aim); ok {
				l.apply(position, &index, d, value)
			}
			continue
		}
		if !l.said.first(p.said) {
			continue
		}
		if p.kind == isSilent {
			l.counts.Silent++
		} else if d := l.table.find(p.aim); d != nil {
			l.apply(position, &index, d, p.value)
		} else if l.early.put(p.aim, p.value) {
			l.counts.Lost++
		}
	}
	l.Abort()
	l.position = max(l.position, position)
}

// apply counts a reward of a decision that is in the table; index is its place among the rewards of the message.
func (l *Learner) apply(position uint64, index *uint32, d *decision, value float64) {
	r := route.Reward{Position: position, Index: *index, Value: value}
	*index++
	copy(r.DecisionID[:], d.id[:])
	if d.arm >= 0 {
		r.Arm = l.config.Plan.Bandit().Arms[d.arm]
	}
	if d.whole {
		r.Context = l.table.context(d)
	}
	_, _ = l.fold.Apply(r) // what is refused is counted
}

var errSnapshot = schemas.Errorf(schemas.Invalid, "learn.Restore", "no snapshot, or a damaged one, or of another bandit")
