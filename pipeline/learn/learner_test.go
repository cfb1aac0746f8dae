package learn

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

var sizes = schemas.MustSchema(schemas.Field{Name: "note", Type: schemas.String}, schemas.Field{Name: "size", Type: schemas.Float32})

func plan(t testing.TB, policy route.Policy) *route.Plan {
	b := route.DefaultBandit(policy)
	b.Arms, b.Remember = []string{"a", "b"}, 8
	if policy == route.LinUCB {
		b.Context = []string{"size"}
	}
	p, err := route.NewPlan(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decided(id string, row int32, arm string, size float32) *lineage.Record {
	r := &lineage.Record{Input: schemas.NewBatch(sizes)}
	r.Input.Column(0).AppendString("n")
	r.Input.Column(0).EndRow()
	schemas.Append(r.Input.Column(1), size)
	r.Input.Column(1).EndRow()
	r.Input.Advance(1)
	r.RequestID, r.Row.Row, r.Node, r.Arm = id, row, "route", arm
	return r
}

func rewarded(id string, row int32, name string, reward float64) *lineage.Feedback {
	return &lineage.Feedback{ID: name, RequestID: id, Row: row, Reward: &reward}
}

func learner(t testing.TB, c Config) *Learner {
	t.Helper()
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// message is what lies at one position.
type message struct {
	records  []*lineage.Record
	feedback []*lineage.Feedback
}

func (l *Learner) read(position uint64, m message) {
	for _, r := range m.records {
		l.Decision(position, r)
	}
	for _, f := range m.feedback {
		l.Feedback(position, f)
	}
	l.End(position)
}

// TestJoins: late, early, twice, corrected, unknown, of another node: each says what it shall.
func TestJoins(t *testing.T) {
	l := learner(t, Config{Node: "route", Plan: plan(t, route.EpsilonGreedy), Reward: "feedback.reward * 2.0", Decisions: 2})
	other := rewarded("r1", 0, "of-another", 9)
	other.Node = "route/b"
	silent := &lineage.Feedback{ID: "s", RequestID: "r1", Comment: "nothing"}
	entity := rewarded("", 0, "e", 1)
	entity.Entity = "N501MQ"
	again := rewarded("r1", 0, "f1", 100) // a repeat by its id, whatever it says
	ours := rewarded("r1", 0, "f4", 3)
	ours.Node = "route"
	job := decided("r3", 0, "b", 0)
	job.Run = "job"
	for i, c := range []struct {
		m      message
		counts Counts
		a, b   string // rewards and mean
	}{
		{message{records: []*lineage.Record{decided("r1", 0, "a", 0)}}, Counts{}, "0 0", "0 0"},
		{message{feedback: []*lineage.Feedback{rewarded("r1", 0, "f1", 1)}}, Counts{Counted: 1}, "1 2", "0 0"},
		{message{feedback: []*lineage.Feedback{again, other, silent, entity}}, Counts{Counted: 1, Silent: 2}, "1 2", "0 0"},
		{message{feedback: []*lineage.Feedback{rewarded("r1", 0, "f2", 4)}}, Counts{Counted: 1, Replaced: 1, Silent: 2}, "1 8", "0 0"},
		{message{feedback: []*lineage.Feedback{rewarded("r1", 1, "f3", 5), rewarded("r1", 1, "f3b", 6)}}, Counts{Counted: 1, Replaced: 1, Silent: 2, Early: 1}, "1 8", "0 0"},
		{message{records: []*lineage.Record{decided("r1", 1, "b", 0)}}, Counts{Counted: 2, Replaced: 1, Silent: 2}, "1 8", "1 12"},
		{message{feedback: []*lineage.Feedback{ours}}, Counts{Counted: 2, Replaced: 2, Silent: 2}, "1 6", "1 12"},
		{message{records: []*lineage.Record{decided("r2", 0, "gone", 0), job}}, Counts{Counted: 2, Replaced: 2, Silent: 2}, "1 6", "1 12"},
		{message{feedback: []*lineage.Feedback{rewarded("r2", 0, "f5", 1)}}, Counts{Counted: 2, Replaced: 2, Silent: 2, Unknown: 1}, "1 6", "1 12"},
		{message{feedback: []*lineage.Feedback{rewarded("r1", 0, "f6", 7), rewarded("r3", 0, "f7", 7)}}, Counts{Counted: 2, Replaced: 2, Silent: 2, Unknown: 1, Early: 2}, "1 6", "1 12"}, // r1 is the third last decision
		{message{feedback: []*lineage.Feedback{rewarded("r1", 1, "f8", 1e9)}}, Counts{Counted: 2, Replaced: 2, Silent: 2, Unknown: 1, Early: 2, Refused: 1}, "1 6", "1 12"},
	} {
		l.read(uint64(i+1)*10, c.m)
		s := l.State()
		var arms [2]string
		for a := range arms {
			n, mean := s.Arm(a)
			arms[a] = fmt.Sprint(n, " ", mean)
		}
		if l.Counts() != c.counts || arms != [2]string{c.a, c.b} {
			t.Fatalf("message %d: %+v %q, want %+v %q %q", i, l.Counts(), arms, c.counts, c.a, c.b)
		}
	}
	if l.Position() != 110 || l.From() != 111 {
		t.Fatal(l.Position(), l.From())
	}
}

// randomLog is a log in which everything happens that may.
func randomLog(r *rand.Rand, n int) []message {
	ms := make([]message, n)
	for i := range ms {
		id := func() string { return fmt.Sprint("r", max(0, i-10+r.IntN(16))) } // old ones, and some that are to come
		for range 1 + r.IntN(4) {
			if r.IntN(2) == 0 {
				ms[i].records = append(ms[i].records, decided(id(), int32(r.IntN(2)), []string{"a", "b", "b", "gone"}[r.IntN(4)], float32(r.IntN(9))))
			} else {
				ms[i].feedback = append(ms[i].feedback, rewarded(id(), int32(r.IntN(2)), fmt.Sprint("f", r.IntN(3*n)), float64(r.IntN(9))-1))
			}
		}
	}
	return ms
}

// TestFromAnySnapshot: who starts from a snapshot, and reads on from where it says or from anywhere before, knows to the byte
// what one knows who has read all.
func TestFromAnySnapshot(t *testing.T) {
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := Config{Node: "route", Plan: plan(t, []route.Policy{route.EpsilonGreedy, route.Thompson, route.LinUCB}[seed%3]), Reward: "feedback.reward / 4.0", Decisions: 1 + r.IntN(30)}
		bounded := func() *Learner {
			l := learner(t, c)
			l.early.limit, l.said.limit = 6, 9
			return l
		}
		ms := randomLog(r, 150)
		all := bounded()
		var states [][]byte
		for i, m := range ms {
			all.read(uint64(i+1), m)
			b, err := all.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, b)
		}
		for range 20 {
			at := r.IntN(len(ms))
			l := bounded()
			if err := l.Restore(states[at]); err != nil {
				t.Fatal(err)
			}
			if l.Position() != uint64(at+1) || SnapshotPosition(states[at], c.Identity()) != uint64(at+1) {
				t.Fatal(l.Position(), at)
			}
			known, _ := l.Reward()
			from := max(0, int(l.From())-1-r.IntN(2)*r.IntN(20))
			for i := from; i < len(ms); i++ {
				l.read(uint64(i+1), ms[i])
				if i < at { // only the decisions are read again
					if now, _ := l.Reward(); now != known {
						t.Fatalf("seed %d: at %d of %d", seed, i, at)
					}
					continue
				}
				b, err := l.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b, states[i]) {
					t.Fatalf("seed %d: from the snapshot at %d, message %d makes another state", seed, at, i)
				}
			}
		}
	}
}

// TestTwoPrincipals: two callers use one request id. Who asked means his own decision, whatever was recorded since; who did not
// ask means the last; and so it is where feedback comes first.
func TestTwoPrincipals(t *testing.T) {
	c := Config{Node: "route", Plan: plan(t, route.EpsilonGreedy), Reward: "feedback.reward", Decisions: 4}
	asked := func(principal, id, arm string) *lineage.Record {
		r := decided(id, 0, arm, 0)
		r.Principal = principal
		return r
	}
	n := 0
	said := func(principal, id string, reward float64) *lineage.Feedback {
		n++
		f := rewarded(id, 0, fmt.Sprint("f", n), reward)
		f.Principal = principal
		return f
	}
	for name, x := range map[string]struct {
		ms   []message
		want string // rewards and means
	}{
		"own":      {[]message{{records: []*lineage.Record{asked("ann", "r", "a"), asked("bob", "r", "b")}}, {feedback: []*lineage.Feedback{said("ann", "r", 1), said("bob", "r", 2)}}}, "1 1 1 2"},
		"other":    {[]message{{records: []*lineage.Record{asked("ann", "r", "a"), asked("bob", "r", "b")}}, {feedback: []*lineage.Feedback{said("eve", "r", 3)}}}, "0 0 1 3"},
		"replaced": {[]message{{records: []*lineage.Record{asked("ann", "r", "a"), asked("bob", "r", "b")}}, {feedback: []*lineage.Feedback{said("eve", "r", 3), said("bob", "r", 4)}}}, "0 0 1 4"},
		"early":    {[]message{{feedback: []*lineage.Feedback{said("ann", "r", 1), said("eve", "r", 5)}}, {records: []*lineage.Record{asked("ann", "r", "a")}}}, "1 1 0 0"},
		"early other": {[]message{{feedback: []*lineage.Feedback{said("eve", "r", 1), said("eve", "r", 5)}}, {records: []*lineage.Record{asked("ann", "r", "a")}},
			{records: []*lineage.Record{asked("ann", "r", "a")}}}, "1 5 0 0"},
		"forgotten": {[]message{{records: []*lineage.Record{asked("ann", "r", "a"), asked("bob", "r", "b"), asked("x", "1", "a"), asked("x", "2", "a"), asked("x", "3", "a")}},
			{feedback: []*lineage.Feedback{said("ann", "r", 1), said("bob", "r", 2)}}}, "0 0 1 2"},
	} {
		l := learner(t, c)
		for i, m := range x.ms {
			l.read(uint64(i+1), m)
		}
		s := l.State()
		an, am := s.Arm(0)
		bn, bm := s.Arm(1)
		if got := fmt.Sprint(an, am, bn, bm); got != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
	}
}

// TestAbort: of a message whose end never came nothing is known, until it is read again.
func TestAbort(t *testing.T) {
	c := Config{Node: "route", Plan: plan(t, route.LinUCB), Reward: "feedback.reward", Decisions: 4}
	ms := randomLog(rand.New(rand.NewPCG(5, 5)), 60)
	whole, broken := learner(t, c), learner(t, c)
	for i, m := range ms {
		at := uint64(i + 1)
		before, err := broken.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range m.records {
			broken.Decision(at, r)
		}
		for _, f := range m.feedback {
			broken.Feedback(at, f)
		}
		if now, _ := broken.Snapshot(); !bytes.Equal(now, before) {
			t.Fatalf("message %d was learnt from before its end", i)
		}
		broken.Abort()
		broken.read(at, m)
		whole.read(at, m)
		a, _ := whole.Snapshot()
		if b, _ := broken.Snapshot(); !bytes.Equal(a, b) {
			t.Fatalf("message %d", i)
		}
	}
}

// TestUnder: another plan that counts alike knows the same.
func TestUnder(t *testing.T) {
	c := Config{Node: "route", Plan: plan(t, route.EpsilonGreedy), Reward: "feedback.reward", Decisions: 5}
	l := learner(t, c)
	l.read(1, message{records: []*lineage.Record{decided("r", 0, "a", 0)}})
	l.read(2, message{feedback: []*lineage.Feedback{rewarded("r", 0, "f", 0.5)}})
	b := c.Plan.Bandit()
	b.Epsilon = 0
	p, err := route.NewPlan(b)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = l.Under(p); err != nil {
		t.Fatal(err)
	}
	d, err := route.Decide(p, 7, nil, l.State())
	if err != nil || d.Arm != 0 || d.Propensity != 1 {
		t.Fatal(d, err)
	}
	n := l.Config()
	if n.Identity() != c.Identity() {
		t.Fatal("another identity")
	}
	if _, err := l.Under(plan(t, route.LinUCB)); err == nil {
		t.Fatal("a plan that counts otherwise")
	}
}

// TestBadSnapshots: cut, changed or foreign bytes are refused, and what was known stays.
func TestBadSnapshots(t *testing.T) {
	c := Config{Node: "route", Plan: plan(t, route.EpsilonGreedy), Reward: "feedback.reward", Decisions: 5}
	l := learner(t, c)
	for i, m := range randomLog(rand.New(rand.NewPCG(1, 1)), 20) {
		l.read(uint64(i+1), m)
	}
	good, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		for _, b := range [][]byte{bad, good[:i]} {
			if err := l.Restore(b); schemas.KindOf(err) != schemas.Invalid {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
	if now, _ := l.Snapshot(); !bytes.Equal(now, good) {
		t.Fatal("it forgot")
	}
	c.Node = "route/other"
	if err := learner(t, c).Restore(good); err == nil {
		t.Fatal("a snapshot of another bandit")
	}
}

func TestReward(t *testing.T) {
	reward := 0.25
	for src, want := range map[string]string{
		"feedback.reward":                             "0.25 true",
		"feedback.label == 1.0":                       "1 true",
		"feedback.label_bool ? 3 : 4":                 "3 true",
		"feedback.label_text == \"late\"":             "0 false",
		"coalesce(feedback.label_text, \"\") == \"\"": "1 true",
		"-double(size(feedback.comment))":             "-4 true",
		"1 / (size(feedback.comment) - 4)":            "0 false",
	} {
		p, err := CompileReward(src)
		if err != nil {
			t.Fatal(src, err)
		}
		w := newWorth(p)
		v, ok := w.of(&lineage.Feedback{Reward: &reward, Label: true, Comment: "slow"})
		if got := fmt.Sprint(v, ok); got != want {
			t.Errorf("%s: %s, want %s", src, got, want)
		}
	}
	if _, err := CompileReward("feedback.comment"); err == nil || !strings.Contains(err.Error(), "the expression is string; a reward is a number or a bool") {
		t.Fatal(err)
	}
}
