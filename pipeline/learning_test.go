package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// town is a bandit with people who answer it.
type town struct {
	*world
	*rand.Rand
	name    string
	served  []*process // each has its share of the requests
	worth   func(arm string, x float64) float64
	late    []lineage.Feedback // not said yet
	said    int                // feedbacks that count
	arms    map[string]int     // rows of the last round
	request int
}

// round asks for rows, and says what came of those of earlier rounds: out of order, some twice, all at once or in parts.
func (w *town) round(requests, rows int) {
	w.Helper()
	w.arms = map[string]int{}
	for range requests {
		p := w.served[w.request%len(w.served)]
		id := fmt.Sprint("r", w.request)
		w.request++
		var body []string
		var xs []float64
		for range rows {
			xs = append(xs, float64(1+w.IntN(9)))
			body = append(body, fmt.Sprintf(`{"x":%v,"text":"t"}`, xs[len(xs)-1]))
		}
		if a := p.ask(w.name, []byte(`{"rows":[`+strings.Join(body, ",")+`]}`), schemas.HeaderRequestID, id); a.err != nil {
			w.Fatal(a.err)
		}
		arms := 0
		for _, r := range p.records(lineage.Query{RequestID: id}) {
			if r.Arm == "" {
				continue
			}
			w.arms[r.Arm]++
			arms++
			reward := w.worth(r.Arm, xs[r.Row.Row])
			w.late = append(w.late, lineage.Feedback{Pipeline: w.name, RequestID: id, Row: r.Row.Row, Reward: &reward})
		}
		if arms != rows {
			w.Fatalf("%d decisions for %d rows", arms, rows)
		}
	}
	w.Shuffle(len(w.late), func(i, j int) { w.late[i], w.late[j] = w.late[j], w.late[i] })
	now := w.late[:len(w.late)*2/3] // the others are later still
	w.late = w.late[len(now):]
	w.said += len(now)
	for from := 0; from < len(now); {
		to := min(len(now), from+1+w.IntN(40))
		part := slices.Clone(now[from:to])
		part = append(part, part[w.IntN(len(part))])
		w.say(part...)
		from = to
	}
	w.caughtUp()
}

func (w *town) say(fs ...lineage.Feedback) {
	w.Helper()
	if errs := w.served[0].stream.AppendFeedback(w.Context(), fs); errs != nil {
		w.Fatal(errors.Join(errs...))
	}
}

// caughtUp waits until all processes decide by all that was said.
func (w *town) caughtUp() {
	w.Helper()
	for _, p := range w.served {
		w.eventually("the bandit knows all feedback", func() bool {
			s, err := p.BanditStatus(w.Context(), w.name)
			w.must(err)
			return s.Read == s.Last && s.Error == "" && s.Bandits[0].Rewards == uint64(w.said) && s.Bandits[0].Feedback.Counted == uint64(w.said)
		})
	}
}

// status is what all processes know: the same.
func (w *town) status() *pipeline.BanditStatus {
	w.Helper()
	var first *pipeline.BanditStatus
	for i, p := range w.served {
		s, err := p.BanditStatus(w.Context(), w.name)
		w.must(err)
		if i == 0 {
			first = s
		} else if fmt.Sprint(s.Bandits[0].Arms[0].Mean, s.Bandits[0].State) != fmt.Sprint(first.Bandits[0].Arms[0].Mean, first.Bandits[0].State) {
			w.Fatalf("%+v\n%+v", s, first)
		}
	}
	return first
}

func (p *process) learning() *pipeline.Learning { return p.Host.Learning }

// TestBanditLearns: with feedback that is late, out of order and twice the best arm gets most of the rows; two processes know the
// same, to the byte; who starts later knows it too, with a snapshot or without; and all decisions come out again.
func TestBanditLearns(t *testing.T) {
	for _, c := range []struct{ name, policy string }{
		{"thompson", "policy: thompson"},
		{"greedy", "policy: epsilon_greedy"},
		{"gaussian", "policy: thompson_gaussian"},
		{"linear", "policy: lin_thompson\n    context: [x]\n    draws: 50"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			w := newWorldIn(t, dir)
			p, q := w.start(), w.start()
			spec := "route:\n  bandit:\n    " + c.policy + `
    reward: feedback.reward
    minimum_share: 0.02
    arms:
      - {name: worse, model: m@2}
      - {name: better, model: m@3}
      - {name: worst, model: m@4}
`
			rev := p.apply(routed(t, p.model, "b", spec))
			q.apply(rev)
			v := &town{world: w, Rand: rand.New(rand.NewPCG(11, uint64(len(c.name)))), name: "b", served: []*process{p, q}}
			chance := map[string]float64{"worse": 0.4, "better": 0.7, "worst": 0.1}
			v.worth = func(arm string, _ float64) float64 {
				if v.Float64() < chance[arm] {
					return 1
				}
				return 0
			}
			v.round(4, 15)
			first := v.arms["better"]
			for range 7 {
				v.round(4, 15)
			}
			if n := v.arms["better"]; n < 40 {
				t.Errorf("the best arm has %d of the last 60 rows, and had %d of the first", n, first)
			}
			s := v.status()
			if a := s.Bandits[0].Arms; !(a[1].Mean > a[0].Mean && a[0].Mean > a[2].Mean) || c.policy[8] != 'l' && *a[1].Share < 0.6 {
				t.Errorf("%+v", s)
			}
			v.pinned(rev)
			know := p.BanditSnapshots("b")["route"]
			if !bytes.Equal(know, q.BanditSnapshots("b")["route"]) {
				t.Fatal("two processes know different things")
			}
			v.derived(p, rev)

			// Another life, from the snapshot that the others left; and one without it.
			p.stop()
			q.stop()
			for _, forget := range []bool{false, true} {
				n := w.start()
				if forget {
					w.must(n.forgetBandits(t.Context()))
				}
				n.apply(rev)
				v.served = []*process{n}
				v.caughtUp()
				if !bytes.Equal(n.BanditSnapshots("b")["route"], know) {
					t.Fatalf("another life knows other things; without the snapshot: %v", forget)
				}
				v.derived(n, rev)
				if forget {
					n.change("b", nil)
					w.eventually("the snapshots of a deleted pipeline are gone", func() bool {
						keys, err := n.learning().Snapshots.Keys(t.Context(), "bandit.")
						w.must(err)
						_, served := n.State("b")
						return len(keys) == 0 && !served
					})
				}
				n.stop()
			}
		})
	}
}

// pinned: a job decides by what was known when it was made, in every process and also after a crash, whatever is learnt meanwhile.
func (w *town) pinned(rev *pipeline.Revision) {
	w.Helper()
	then := w.served[0].BanditStates(w.name)
	var first []float64
	for again := range 2 {
		for _, p := range w.served {
			pin, err := p.Pin(w.Context(), rev, then)
			w.must(err)
			in, out := schemas.NewBatch(rev.Signature.Inputs), schemas.NewBatch(rev.Signature.Outputs)
			for i := range 200 {
				one := float64(1 + i%9)
				for c := range in.Schema().Len() {
					switch in.Schema().Field(c).Type {
					case schemas.Float64:
						schemas.Append(in.Column(c), one)
						in.Column(c).EndRow()
					case schemas.String:
						in.Column(c).AppendString("t")
						in.Column(c).EndRow()
					default:
						in.Column(c).AppendNull()
					}
				}
				in.Advance(1)
			}
			trail, err := pin.ScoreBulk(w.Context(), in, out, "job", "", "j1", func(row int) string { return fmt.Sprint("c7-", row) })
			w.must(err)
			trail.Free()
			pin.Close()
			var scores []float64
			for i := range 200 {
				scores = append(scores, schemas.Values[float64](out.Column(out.Schema().Index("score")))[i]/float64(1+i%9))
			}
			if first == nil {
				first = scores
			} else if !slices.Equal(scores, first) {
				w.Fatalf("another run of a chunk got other arms: %v", again)
			}
		}
		if again == 0 {
			w.round(4, 15)
		}
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(first)))); n < 2 {
		w.Fatalf("%d arms for 200 rows", n)
	}
}

// forgetBandits deletes all snapshots.
func (p *process) forgetBandits(ctx context.Context) error {
	keys, err := p.learning().Snapshots.Keys(ctx, "bandit.")
	if err == nil && len(keys) == 0 {
		err = errors.New("no snapshots")
	}
	for _, k := range keys {
		err = errors.Join(err, p.learning().Snapshots.Delete(ctx, k, 0))
	}
	return err
}

// derived fails unless all decisions come out again, each by the state of its time.
func (w *town) derived(p *process, rev *pipeline.Revision) {
	w.Helper()
	sigs := map[string]schemas.Signature{}
	for _, m := range rev.Models {
		sigs[m.Node] = p.model.sig
	}
	positions := map[uint64]*route.State{}
	byRequest := map[string][]*lineage.Record{}
	for _, r := range p.records(lineage.Query{Pipeline: w.name}) {
		byRequest[r.RequestID] = append(byRequest[r.RequestID], r)
	}
	decisions := 0
	for id, recs := range byRequest {
		ds, err := pipeline.Derive(rev, sigs, recs, func(node string, spec *pipeline.Bandit, plan *route.Plan, position uint64) (*route.State, error) {
			if s := positions[position]; s != nil {
				return s, nil
			}
			s, err := p.learning().StateAt(w.Context(), w.name, node, spec, plan, position)
			positions[position] = s
			return s, err
		})
		w.must(err)
		for _, d := range ds {
			if decisions++; !d.Equal {
				w.Fatalf("%s: %+v", id, d)
			}
		}
	}
	if decisions != w.request*15 || len(positions) < 4 {
		w.Fatalf("%d decisions by %d states", decisions, len(positions))
	}
}

// torn is a journal that breaks in the midst of a message.
type torn struct {
	pipeline.Journal
	left  atomic.Int64 // entries that it still gives; below 0: all
	tries atomic.Int64
}

func (j *torn) Read(ctx context.Context, name string, from uint64, follow, data bool, fn func(lineage.Entry) bool) error {
	j.tries.Add(1)
	broken := false
	err := j.Journal.Read(ctx, name, from, follow, data, func(e lineage.Entry) bool {
		if left := j.left.Load(); left >= 0 {
			if broken = left == 0; broken {
				return false
			}
			j.left.Store(left - 1)
		}
		return fn(e)
	})
	if broken {
		return schemas.Errorf(schemas.Unavailable, "test", "torn")
	}
	return err
}

// TestBanditWithoutLineage: while the lineage cannot be read requests are answered by what was known, which is said; afterwards
// nothing is known twice, though the reading broke off in the midst of a message.
func TestBanditWithoutLineage(t *testing.T) {
	w := newWorld(t)
	p, q := w.start(), w.start()
	j := &torn{Journal: p.learning().Journal}
	j.left.Store(-1)
	p.learning().Journal = j
	rev := p.apply(routed(t, p.model, "b", "route:\n  bandit:\n    policy: thompson\n    reward: feedback.reward\n    arms: [{name: a, model: m@2}, {name: b, model: m@3}]\n"))
	q.apply(rev)
	v := &town{world: w, Rand: rand.New(rand.NewPCG(2, 3)), name: "b", served: []*process{p, q}, worth: func(arm string, _ float64) float64 { return map[string]float64{"b": 1}[arm] }}
	v.round(4, 15)
	s, err := p.BanditStatus(t.Context(), "b")
	w.must(err)
	known := s.Bandits[0].State

	// Of the next messages of feedback one entry more is read, and then no more.
	tries := j.tries.Load()
	j.left.Store(1)
	reward := 1.0
	id := "r0"
	v.say(lineage.Feedback{Pipeline: "b", RequestID: id, Row: 0, Reward: &reward}, lineage.Feedback{Pipeline: "b", RequestID: id, Row: 1, Reward: &reward})
	w.eventually("the break is told", func() bool {
		s, err = p.BanditStatus(t.Context(), "b")
		w.must(err)
		return s.Error != "" && j.tries.Load() > tries+1 // it was tried again
	})
	if s.Bandits[0].State != known || s.Read >= s.Last {
		t.Errorf("knew %d, and says %+v", known, s)
	}
	if a := p.ask("b", body(1, 2, 3)); a.err != nil {
		t.Fatal(a.err)
	}
	if !strings.Contains(w.logged.String(), "bandits cannot read the lineage, and go on with what they know") {
		t.Error("nobody said that they cannot")
	}
	j.left.Store(-1)
	w.eventually("both know the same again", func() bool {
		a, err := p.BanditStatus(t.Context(), "b")
		w.must(err)
		b, err := q.BanditStatus(t.Context(), "b")
		w.must(err)
		return a.Error == "" && a.Read == a.Last && b.Read == a.Read && a.Bandits[0].State > known &&
			bytes.Equal(p.BanditSnapshots("b")["route"], q.BanditSnapshots("b")["route"])
	})
}

// away is a KV that cannot be read while gone is set.
type away struct {
	schemas.KV
	gone atomic.Bool
}

func (k *away) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	if k.gone.Load() {
		return nil, 0, schemas.Errorf(schemas.Unavailable, "test", "away")
	}
	return k.KV.Get(ctx, key)
}

// TestBanditWithoutSnapshots: who starts while snapshots cannot be read serves, and learns nothing until they can: the log may
// not hold any more what they know, and a snapshot without it would take their place.
func TestBanditWithoutSnapshots(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	rev := p.apply(routed(t, p.model, "b", "route:\n  bandit:\n    policy: thompson\n    reward: feedback.reward\n    arms: [{name: a, model: m@2}, {name: b, model: m@3}]\n"))
	v := &town{world: w, Rand: rand.New(rand.NewPCG(2, 3)), name: "b", served: []*process{p}, worth: func(string, float64) float64 { return 1 }}
	v.round(4, 15)
	p.stop()

	n := w.start()
	j, k := &torn{Journal: n.learning().Journal}, &away{KV: n.learning().Snapshots}
	j.left.Store(-1)
	k.gone.Store(true)
	n.learning().Journal, n.learning().Snapshots = j, k
	n.apply(rev)
	w.eventually("it says why it does not learn", func() bool {
		s, err := n.BanditStatus(t.Context(), "b")
		w.must(err)
		return strings.Contains(s.Error, "away")
	})
	if a := n.ask("b", body(1, 2, 3)); a.err != nil {
		t.Fatal(a.err)
	}
	if j.tries.Load() > 0 {
		t.Error("it reads the log without the snapshot")
	}
	k.gone.Store(false)
	v.served = []*process{n}
	v.caughtUp()
	if s := v.status(); s.Bandits[0].Rewards != uint64(v.said) {
		t.Errorf("%+v, want %d", s, v.said)
	}
}

// TestBanditOfAnotherRevision: what is learnt goes on under a revision that counts alike, and begins anew, from the log's
// beginning, under one that does not; coming back finds what was known.
func TestBanditOfAnotherRevision(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	spec := func(more string) *pipeline.Revision {
		return routed(t, p.model, "b", "route:\n  bandit:\n    policy: ucb1\n    "+more+"\n    arms: [{name: a, model: m@2}, {name: b, model: m@3}]\n")
	}
	plain := p.apply(spec("reward: feedback.reward"))
	v := &town{world: w, Rand: rand.New(rand.NewPCG(2, 3)), name: "b", served: []*process{p}, worth: func(arm string, x float64) float64 { return x }}
	v.round(4, 15)
	arms := func() string {
		t.Helper()
		v.caughtUp()
		s, err := p.BanditStatus(t.Context(), "b")
		w.must(err)
		a := s.Bandits[0].Arms
		return fmt.Sprint(a[0].Rewards, a[0].Mean, a[1].Rewards, a[1].Mean)
	}
	first := arms()
	p.apply(spec("reward: feedback.reward\n    explore: 3"))
	if got := arms(); got != first {
		t.Errorf("knew %s, and knows %s", first, got)
	}
	p.apply(spec("reward: -feedback.reward"))
	if got := arms(); strings.ReplaceAll(got, "-", "") != first || got == first {
		t.Errorf("%s of other rewards, were %s", got, first)
	}
	p.apply(plain)
	if got := arms(); got != first {
		t.Errorf("knew %s, and knows %s", first, got)
	}
	p.apply(routed(t, p.model, "b", "route: {split: {arms: [{name: a, weight: 50, model: m@2}, {name: b, weight: 50, model: m@3}]}}"))
	if _, err := p.BanditStatus(t.Context(), "b"); schemas.KindOf(err) != schemas.NotFound {
		t.Error(err)
	}
	p.apply(plain)
	if got := arms(); got != first {
		t.Errorf("knew %s, and knows %s", first, got)
	}
}
