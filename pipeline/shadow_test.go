package pipeline_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// shadowed waits until n records of a shadow are there.
func (p *process) shadowed(pipe, shadow string, n int) (all []*lineage.Record) {
	p.w.Helper()
	p.w.eventually(fmt.Sprintf("%d records of shadow %s", n, shadow), func() bool {
		all = nil
		for _, r := range p.records(lineage.Query{Pipeline: pipe, Role: lineage.RoleShadow}) {
			if r.Node == "shadows/"+shadow {
				all = append(all, r)
			}
		}
		return len(all) >= n
	})
	return all
}

func (p *process) loadedShadows(pipe string, names ...string) {
	p.w.Helper()
	p.w.eventually("the shadows are loaded", func() bool {
		s, ok := p.State(pipe)
		for _, name := range names {
			ok = ok && s.Shadows[name].Ready
		}
		return ok
	})
}

// TestShadows: each shadow scores what the route did, and its records point at those of the route. The answers are those
// of the route.
func TestShadows(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	defer p.stop()
	p.apply(routed(t, p.model, "eyes", `
route: {model: one@2}
shadows:
  - {name: forest, model: two@3}
  - name: both
    sequence:
      - {name: twice, transform: {columns: {x: "input.x * 2.0"}}}
      - {name: then, split: {arms: [{name: a, weight: 100, model: two@5}, {name: b, weight: 0, model: two@6}]}}
`))
	p.loadedShadows("eyes", "forest", "both")
	p.ask("eyes", body(1, 2, 3), schemas.HeaderRequestID, "r1").wants(t, 2, 4, 6)
	forest := p.shadowed("eyes", "forest", 3)
	roots := map[int32]*lineage.Record{}
	for _, r := range p.records(lineage.Query{RequestID: "r1"}) {
		if r.Node == pipeline.RootPath {
			roots[r.Row.Row] = r
		}
	}
	for i, r := range forest {
		root := roots[r.Row.Row]
		switch {
		case root == nil || r.ParentID != hex.EncodeToString(root.RecordID[:]):
			t.Errorf("row %d: parent %q", r.Row.Row, r.ParentID)
		case r.Input != nil || root.Input == nil:
			t.Error("the input lies with the shadow")
		case r.InputDigest != root.InputDigest || r.Revision != root.Revision || r.Via != root.Via || r.Run != "":
			t.Errorf("%+v beside %+v", r.Context, root.Context)
		case schemas.Values[float64](r.Output.Column(0))[r.OutputRow] != float64(3*(i+1)):
			t.Errorf("row %d answers %v", i, seen(r))
		}
	}
	p.w.eventually("the nodes below a shadow are recorded", func() bool { return len(p.visitsOf("r1", 1)) == 6 })
	var below []string
	for _, v := range p.visitsOf("r1", 1) {
		if strings.HasPrefix(v, "shadows/both") {
			below = append(below, v)
		}
	}
	same(t, below, "shadows/both shadow two 1 score=20", "shadows/both/twice stage 1 x=4", "shadows/both/then stage a 1", "shadows/both/then/a arm two 1")
	w.eventually("the rows are counted", func() bool {
		s, _ := p.State("eyes")
		return s.Shadows["forest"] == pipeline.ShadowState{Ready: true, Scored: 3} && s.Shadows["both"].Scored == 3
	})
}

// A sample is a share of the keys, and always the same ones.
func TestShadowSamples(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	defer p.stop()
	p.apply(routed(t, p.model, "part", `
route: {model: one@1}
shadows:
  - {name: quarter, sample: 0.25, key: text, model: two@3}
  - {name: few, sample: 0.1, model: two@4}
  - {name: none, sample: 0, model: two@5}
`))
	p.loadedShadows("part", "quarter", "few", "none")
	want := map[string]bool{}
	var few int
	for i := range 200 {
		id, text := fmt.Sprintf("q%d", i), fmt.Sprintf("t%d", i%50)
		p.ask("part", textBody(float64(i), text), schemas.HeaderRequestID, id).wants(t, float64(i))
		if route.SampledString("part/shadows/quarter", text, 250_000) {
			want[id] = true
		}
		if route.SampledString("part/shadows/few", id, 100_000) {
			few++
		}
	}
	if len(want) < 20 || few < 5 {
		t.Fatal("the samples are no test", len(want), few)
	}
	for _, r := range p.shadowed("part", "quarter", len(want)) {
		if !want[r.RequestID] {
			t.Errorf("%s is not in the sample", r.RequestID)
		}
	}
	if n := len(p.shadowed("part", "few", few)); n != few {
		t.Errorf("%d rows, want %d", n, few)
	}
	w.eventually("every row is counted", func() bool {
		s, _ := p.State("part")
		q, n := s.Shadows["quarter"], s.Shadows["none"]
		return q.Scored == uint64(len(want)) && q.SampledOut == uint64(200-len(want)) && n.SampledOut == 200 && n.Scored == 0
	})
}

// A column that only a shadow reads is one of the request once it is declared; the route does not see it.
func TestShadowColumns(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	defer p.stop()
	rev := routed(t, p.model, "more", `
columns: {boost: float64}
route: {model: one@2}
shadows:
  - name: boosted
    sequence:
      - {name: up, transform: {columns: {x: "input.x * input.boost"}}}
      - {name: then, model: two@1}
`)
	if got := rev.Signature.Inputs.String(); !strings.Contains(got, "boost") {
		t.Fatal(got)
	}
	p.apply(rev)
	p.loadedShadows("more", "boosted")
	p.ask("more", []byte(`{"rows":[{"x":3,"text":"t","boost":7}]}`), schemas.HeaderRequestID, "b").wants(t, 6)
	if got := seen(p.shadowed("more", "boosted", 1)[0]); got != "shadows/boosted shadow two 1 score=21" {
		t.Error(got)
	}
	ds, err := pipeline.Derive(rev, map[string]schemas.Signature{"route": p.model.sig, "shadows/boosted/then": p.model.sig}, p.records(lineage.Query{RequestID: "b"}), nil)
	if err != nil || len(ds) != 0 {
		t.Error(ds, err)
	}
}

// What goes wrong with a shadow is its own affair: it does not load, it panics, its rows fail.
func TestShadowFaults(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	defer p.stop()
	p.model.failLoads("bad@2", errors.New("no such file"))
	rev := p.apply(routed(t, p.model, "frail", `
route: {switch: [{name: odd, when: "input.x > 1000.0", model: one@2}, {name: rest, transform: {columns: {score: "input.x", by: "input.text"}}}]}
shadows:
  - {name: absent, model: bad@2}
  - {name: panics, model: two@3}
`))
	p.loadedShadows("frail", "panics")
	for i, text := range []string{"fine", "panic", "bad", "nul", "fine"} {
		p.ask("frail", textBody(float64(i), text), schemas.HeaderRequestID, fmt.Sprint("f", i)).wants(t, float64(i))
	}
	var got []string
	for _, r := range p.shadowed("frail", "panics", 5) {
		got = append(got, r.RequestID+" "+r.Status+" "+r.ErrorKind)
	}
	same(t, got, "f0 ok ", "f1 error internal", "f2 error invalid", "f3 error invalid", "f4 ok ")
	w.eventually("it is told", func() bool {
		s, _ := p.State("frail")
		a, x := s.Shadows["absent"], s.Shadows["panics"]
		return s.Ready && s.Serving == rev.Revision && strings.Contains(a.Error, "no such file") && !a.Ready && a.Shed == 5 && x.Failed == 3 && x.Scored == 2
	})
	p.model.failLoads("bad@2", nil)
	w.eventually("it is tried again", func() bool {
		s, _ := p.State("frail")
		return s.Shadows["absent"].Ready
	})
	p.ask("frail", body(9), schemas.HeaderRequestID, "late").wants(t, 9)
	p.shadowed("frail", "absent", 1)
}

// A shadow that hangs costs its budget and no more: the route answers, what is too much is dropped, revisions change, and
// the memory of what it holds is given back.
func TestShadowHangs(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	defer p.stop()
	hung, free := make(chan struct{}, 100), make(chan struct{})
	p.model.onRun(func(in *schemas.Batch) error {
		if x := schemas.Values[float64](in.Column(0))[0]; x < 0 { // what the shadow makes of it
			hung <- struct{}{}
			<-free
		}
		return nil
	})
	spec := `
route: {model: one@%d}
shadows:
  - name: slow
    budget: 10
    sequence: [{name: minus, transform: {columns: {x: "-input.x"}}}, {name: then, model: two@1}]
`
	p.apply(routed(t, p.model, "calm", fmt.Sprintf(spec, 2)))
	p.loadedShadows("calm", "slow")
	p.ask("calm", body(1)).wants(t, 2)
	<-hung
	for i := range 20 {
		p.ask("calm", body(float64(i+1))).wants(t, float64(2*i+2))
	}
	w.eventually("what is over budget is dropped", func() bool {
		s, _ := p.State("calm")
		return s.Shadows["slow"].Shed == 11
	})
	p.apply(routed(t, p.model, "calm", fmt.Sprintf(spec, 3)))
	p.loadedShadows("calm", "slow")
	p.ask("calm", body(5)).wants(t, 15)
	close(free)
	p.shadowed("calm", "slow", 10)
	p.change("calm", nil)
	w.eventually("all is given back", func() bool { return len(p.model.open()) == 0 })
}

// What waits for a shadow when its process ends is dropped and counted, and the process ends.
func TestShadowAtTheEnd(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.apply(routed(t, p.model, "end", "\nroute: {model: one@2}\nshadows: [{name: s, model: two@1}]\n"))
	for i := range 50 {
		p.ask("end", body(float64(i))).wants(t, float64(2*i))
	}
	p.stop()
	if got := p.model.open(); len(got) != 0 {
		t.Errorf("still loaded: %v", got)
	}
}

// TestShadowElsewhere: a process that is primary alone sends what a shadow samples to the processes of its group, which score
// and record it as if they were one. Revisions change meanwhile.
func TestShadowElsewhere(t *testing.T) {
	w := newWorld(t)
	w.config.Groups = pipeline.Groups{pipeline.GroupPrimary}
	p := w.start()
	defer p.stop()
	w.config.Groups = pipeline.Groups{"shadow:forest"}
	shades := []*process{w.start(), w.start()}
	spec := `
route: {model: one@%d}
columns: {extra: float64}
shadows:
  - name: forest
    sequence: [{name: up, transform: {columns: {x: "input.x + input.extra"}}}, {name: then, model: two@%d}]
  - {name: nowhere, model: two@9}
`
	rev := routed(t, p.model, "far", fmt.Sprintf(spec, 2, 3))
	p.apply(rev)
	for _, s := range shades {
		s.apply(rev)
		s.loadedShadows("far", "forest")
	}
	row := func(x, extra int) []byte {
		return fmt.Appendf(nil, `{"rows":[{"x":%d,"text":"t","extra":%d}]}`, x, extra)
	}
	w.eventually("both processes subscribe", func() bool {
		p.ask("far", row(0, 0)).wants(t, 0)
		a, _ := shades[0].State("far")
		b, _ := shades[1].State("far")
		return a.Shadows["forest"].Scored > 0 && b.Shadows["forest"].Scored > 0
	})
	for i := range 50 {
		p.ask("far", row(i, 100), schemas.HeaderRequestID, fmt.Sprint("a", i)).wants(t, float64(2*i))
	}
	next := routed(t, p.model, "far", fmt.Sprintf(spec, 4, 5))
	p.apply(next)
	p.ask("far", row(7, 1), schemas.HeaderRequestID, "new").wants(t, 28) // its rows wait until the others have the revision too
	for _, s := range shades {
		s.change("far", next)
	}
	byID := map[string]*lineage.Record{}
	w.eventually("all is recorded", func() bool {
		for _, r := range p.records(lineage.Query{Pipeline: "far", Role: lineage.RoleShadow}) {
			byID[r.RequestID] = r
		}
		n := 0
		for i := range 50 {
			if byID[fmt.Sprint("a", i)] != nil {
				n++
			}
		}
		return n == 50 && byID["new"] != nil
	})
	for i := range 50 {
		id := fmt.Sprint("a", i)
		var root *lineage.Record
		for _, r := range p.records(lineage.Query{RequestID: id}) {
			if r.Node == pipeline.RootPath {
				root = r
			}
		}
		r := byID[id]
		if got := schemas.Values[float64](r.Output.Column(0))[r.OutputRow]; got != float64(3*(i+100)) || r.ParentID != hex.EncodeToString(root.RecordID[:]) ||
			r.InputDigest != root.InputDigest || r.Revision != rev.Revision || r.Via != root.Via || r.Input != nil {
			t.Errorf("%s: %v, %+v", id, got, r.Context)
		}
	}
	if r := byID["new"]; r.Revision != next.Revision || schemas.Values[float64](r.Output.Column(0))[r.OutputRow] != 40 {
		t.Errorf("%s", seen(r))
	}
	for _, s := range shades {
		if got := s.model.open(); got["one@2"]+got["one@4"] != 0 {
			t.Errorf("a process of shadows has loaded the route: %v", got)
		}
		s.stop()
		if got := s.model.open(); len(got) != 0 {
			t.Errorf("still loaded: %v", got)
		}
	}
	if got := p.model.open(); fmt.Sprint(got) != "map[one@4:1]" {
		t.Errorf("the primary has loaded %v", got)
	}
	p.ask("far", row(1, 1)).wants(t, 4) // nobody listens any more
}

// An event that somebody had in hands before is not offered to a shadow in the same process: it may be what ended that process.
func TestShadowOfAnEventThatComesAgain(t *testing.T) {
	w := newWorld(t)
	p := w.startToDie()
	p.log.set(func([]byte) error { return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside) })
	rev := routed(t, p.model, "again", "\ninput: {topic: in}\noutput: {topic: out}\nroute: {model: one@2}\nshadows: [{name: s, model: two@3}]\n")
	p.apply(rev)
	p.publish(event("in", "k", "old", body(1, 2)))
	w.eventually("an append has failed", func() bool { return p.log.calls.Load() > 0 })
	p.kill()
	p = w.start()
	p.sources = func(s connectors.Source) connectors.Source { // is asked before the topic is opened
		for ok := false; !ok; { // until then everything is dropped
			st, _ := p.State("again")
			ok = st.Shadows["s"].Ready || w.Context().Err() != nil
			runtime.Gosched()
		}
		return s
	}
	p.apply(rev)
	p.outputs("out", 1)
	p.publish(event("in", "k", "new", body(3)))
	p.outputs("out", 2)
	if got := p.shadowed("again", "s", 1); len(got) != 1 || got[0].RequestID != "new" {
		t.Errorf("%d records, the first of %s", len(got), got[0].RequestID)
	}
	w.eventually("what came again is counted", func() bool {
		s, _ := p.State("again")
		return s.Shadows["s"] == pipeline.ShadowState{Ready: true, Scored: 1, Shed: 2}
	})
	p.stop()
}
