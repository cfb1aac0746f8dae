package pipeline_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// TestStacking: a model takes what the members answered, and columns of the request; it has a record of its own, and what
// came of it can be derived again.
func TestStacking(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	rev := p.apply(routed(t, p.model, "stacked", `
route:
  ensemble:
    combine: {model: m@10}
    members:
      - name: one
        sequence:
          - {name: ask, model: m@2}
          - {name: give, transform: {columns: {x: input.score}}}
      - name: two
        sequence:
          - {name: ask, model: m@3}
          - {name: give, transform: {columns: {half: input.score / 2.0}}}
`))
	a := p.ask("stacked", body(1, 7), schemas.HeaderRequestID, "r1").wants(t, 20, 140)
	if a.header.Get(schemas.HeaderModel) != "m@10" {
		t.Error(a.header)
	}
	same(t, p.visitsOf("r1", 1), "route primary m 1 score=140", "route/one member 1 x=14", "route/one/ask stage m 1 score=14", "route/one/give stage 1",
		"route/two member 1 half=10.5", "route/two/ask stage m 1 score=21", "route/two/give stage 1", "route/combine combiner m 1")
	p.ask("stacked", []byte(`{"rows":[{"x":1,"text":"t"},{"x":1,"text":"nul"}]}`), schemas.HeaderRequestID, "r2").fails(t, schemas.Invalid)
	sigs := map[string]schemas.Signature{}
	for _, m := range rev.Models {
		sigs[m.Node] = p.model.sig
	}
	if len(sigs) != 3 || sigs["route/combine"].Inputs == nil {
		t.Fatalf("models of %v", rev.Models)
	}
	for _, id := range []string{"r1", "r2"} {
		ds, err := pipeline.Derive(rev, sigs, p.records(lineage.Query{RequestID: id}), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			if !d.Equal {
				t.Errorf("%+v", d)
			}
		}
	}
	p.change("stacked", nil)
	w.eventually("all models are closed", func() bool { return len(p.model.open()) == 0 })
	p.stop()
}

// gate holds the runs of some versions until it opens.
type gate struct {
	held   map[string]bool
	open   chan struct{}
	inside atomic.Int32
	once   sync.Once
}

func (a *arithmetic) hold(t testing.TB, versions ...string) *gate {
	g := &gate{held: map[string]bool{}, open: make(chan struct{})}
	for _, v := range versions {
		g.held[v] = true
	}
	a.onRunOf(func(by string, _ *schemas.Batch) error {
		if g.held[by] {
			g.inside.Add(1)
			<-g.open
		}
		return nil
	})
	t.Cleanup(g.release)
	return g
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// derives fails the test unless all decisions of a request derive equal.
func (p *process) derives(rev *pipeline.Revision, id string) []pipeline.Derived {
	p.w.Helper()
	sigs := map[string]schemas.Signature{}
	for _, m := range rev.Models {
		sigs[m.Node] = p.model.sig
	}
	ds, err := pipeline.Derive(rev, sigs, p.records(lineage.Query{RequestID: id, All: true}), nil)
	if err != nil {
		p.w.Fatal(err)
	}
	for _, d := range ds {
		if !d.Equal {
			p.w.Errorf("%s: %+v", id, d)
		}
	}
	return ds
}

const quorate = `
route:
  ensemble:
    columns: {score: max}
    quorum: 2
    members:
      - {name: two, model: m@2}
      - {name: three, required: true, model: m@3}
      - name: slow
        split:
          key: text
          arms: [{name: l, weight: 100, model: m@9}, {name: r, weight: 0, model: m@9}]
`

// TestQuorum: an answer is made as soon as enough members have answered. One that hangs delays nobody, is bounded in what it
// holds, and is recorded as late when it comes back; its revision stays loaded until then.
func TestQuorum(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	rev := p.apply(routed(t, p.model, "quorate", quorate))
	g := p.model.hold(t, "m@9")
	bound := 2 * runtime.GOMAXPROCS(0)
	n := bound + 3
	for i := range n {
		a := p.ask("quorate", body(1, float64(i)), schemas.HeaderRequestID, fmt.Sprint("r", i)).wants(t, 3, float64(3*i))
		if got := a.header.Get(schemas.HeaderAnswered); got != "route/two,route/three" || !strings.Contains(a.raw, `"answered":"route/two,route/three"`) {
			t.Fatalf("answered by %q: %s", got, a.raw)
		}
		want := "route/slow member 1 expired"
		if i >= bound {
			want = "route/slow member 1 overloaded"
		}
		same(t, p.visitsOf(fmt.Sprint("r", i), 1), fmt.Sprintf("route primary quorate 1 score=%d", 3*i),
			fmt.Sprintf("route/two member m 1 score=%d", 2*i), fmt.Sprintf("route/three member m 1 score=%d", 3*i), want)
	}
	w.eventually("as many are under way as may be", func() bool { return int(g.inside.Load()) == bound })
	// Rows of one request that differ in who answered them, and a change of revision meanwhile.
	next := p.apply(routed(t, p.model, "quorate", strings.Replace(quorate, "m@2", "m@1", 1)))
	if p.model.open()["m@2"] != 1 {
		t.Error("a revision is closed while its members are under way")
	}
	p.ask("quorate", []byte(`{"rows":[{"x":1,"text":"a"},{"x":2,"text":"b"}]}`), schemas.HeaderRequestID, "last").wants(t, 3, 6)
	g.release()
	w.eventually("the late ones are recorded", func() bool {
		return len(p.records(lineage.Query{Pipeline: "quorate", Status: lineage.StatusLate})) == (2*bound+2)*2
	})
	for _, r := range p.records(lineage.Query{Pipeline: "quorate", Status: lineage.StatusLate}) {
		if !r.Superseded && r.Node == "route/slow" || r.Output == nil && r.Node == "route/slow" || r.Revision != rev.Revision && r.Revision != next.Revision || r.Scored.Before(r.Received) {
			t.Errorf("%+v", r)
		}
	}
	p.derives(rev, "r0")
	p.derives(rev, fmt.Sprint("r", n-1))
	p.derives(next, "last")
	w.eventually("the old revision is closed", func() bool { return p.model.open()["m@2"] == 0 })
	p.stop()
}

// TestEnsembleInTime: an ensemble waits no longer than it may, nor than its callers do; a member that panics is one that has
// not answered; rows of one request may differ in who answered them.
func TestEnsembleInTime(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	ensemble := func(name, rule, slow string) *pipeline.Revision {
		return p.apply(routed(t, p.model, name, "route: {ensemble: {columns: {score: max}, "+rule+", members: [{name: two, model: m@2}, {name: three, model: m@3}, {name: slow, "+slow+"model: m@9}]}}\n"))
	}
	soon := ensemble("soon", "within: 30ms", "")
	ensemble("later", "within: 20s", "")
	ensemble("must", "quorum: 1", "required: true, ")
	some := ensemble("some", "quorum: 2", "")
	g := p.model.hold(t, "m@9")
	e := p.ask("soon", body(1), schemas.HeaderRequestID, "r1").fails(t, schemas.Expired)
	if !strings.Contains(e.err.Error(), "no answer within 30ms") {
		t.Error(e.err)
	}
	p.derives(soon, "r1")
	e = p.ask("must", body(1), schemas.HeaderTimeout, "40ms").fails(t, schemas.Expired)
	if !strings.Contains(e.err.Error(), "route/slow, which is required") {
		t.Error(e.err)
	}
	g.release()
	p.ask("later", body(1), schemas.HeaderTimeout, "20s").wants(t, 9)
	p.ask("must", body(1)).wants(t, 9)
	p.model.onRunOf(func(by string, _ *schemas.Batch) error {
		if by == "m@9" {
			panic("as it shall")
		}
		return nil
	})
	p.ask("some", body(1), schemas.HeaderRequestID, "r2").wants(t, 3)
	p.derives(some, "r2")
	p.model.onRunOf(func(by string, in *schemas.Batch) error {
		if by != "m@9" {
			for i := range in.Rows() {
				if x := schemas.Values[float64](in.Column(0))[i]; x == 5 && by == "m@3" || x == 6 && by == "m@2" {
					return schemas.Errorf(schemas.Invalid, "test", "not this row")
				}
			}
		}
		return nil
	})
	p.ask("some", body(1, 5, 6, 7), schemas.HeaderRequestID, "r3").wants(t, 9, 45, 54, 63) // all have to come back, since no other two have all rows
	a := p.ask("some", body(1, 5, 6, 7), schemas.HeaderRequestID, "r4")
	if got := a.header.Get(schemas.HeaderAnswered); got != "route/two;rows=0-1+3,route/three;rows=0+2-3,route/slow" {
		t.Errorf("answered by %q", got)
	}
	p.derives(some, "r4")
	p.stop()
}

// TestQuorumBelowEnsemble: members of an ensemble that waits for all may leave members of their own behind, all at once, of the
// same requests.
func TestQuorumBelowEnsemble(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	inner := "ensemble: {columns: {score: max}, quorum: 1, members: [{name: fast, model: m@2}, {name: slow, model: m@9}]}"
	p.apply(routed(t, p.model, "below", "route: {ensemble: {columns: {score: max}, members: [{name: a, "+inner+"}, {name: b, "+inner+"}, {name: c, "+inner+"}]}}\n"))
	g := p.model.hold(t, "m@9")
	n := 2 * runtime.GOMAXPROCS(0) // as many as may be under way
	for i := range n {
		p.ask("below", body(1, float64(i)), schemas.HeaderRequestID, fmt.Sprint("r", i)).wants(t, 2, float64(2*i))
	}
	g.release()
	w.eventually("the late ones are recorded", func() bool {
		return len(p.records(lineage.Query{Pipeline: "below", Status: lineage.StatusLate})) == 3*2*n
	})
	p.change("below", nil)
	w.eventually("all models are closed", func() bool { return len(p.model.open()) == 0 })
	p.stop()
}

// TestHungMemberAtTheEnd: a process ends although a member does not come back; so does a pipeline that is deleted.
func TestHungMemberAtTheEnd(t *testing.T) {
	w := newWorld(t)
	p := w.startToDie()
	p.apply(routed(t, p.model, "quorate", quorate))
	g := p.model.hold(t, "m@9")
	p.ask("quorate", body(1)).wants(t, 3)
	w.eventually("the member hangs", func() bool { return g.inside.Load() == 1 })
	p.kill() // returns when the host has
	g.release()
	w.eventually("all is closed when it comes back", func() bool { return len(p.model.open()) == 0 })
}
