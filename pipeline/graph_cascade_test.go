package pipeline_test

import (
	"runtime"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// TestCascade: a stage is asked where its condition over the answer before it holds, and sees columns that are made of it.
func TestCascade(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	rev := p.apply(routed(t, p.model, "refined", `
route:
  cascade:
    - {name: find, model: m@2}
    - name: read
      when: output.score > 10.0
      refine: {x: output.score + input.x}
      accept: output.score < 100.0
      model: m@3
    - {name: last, refine: {text: '"from " + output.by'}, model: m@1}
`))
	p.ask("refined", body(1, 7, 20), schemas.HeaderRequestID, "r1").wants(t, 2, 63, 20)
	same(t, p.visitsOf("r1", 0), "route primary find m 1 score=2", "route/find stage m 1")
	same(t, p.visitsOf("r1", 1), "route primary read m 1 score=63", "route/find stage m 1 score=14", "route/read stage m 1")
	same(t, p.visitsOf("r1", 2), "route primary last m 1 score=20", "route/find stage m 1 score=40", "route/read stage m 1 score=180", "route/last stage m 1")
	p.derives(rev, "r1")
	p.stop()
}

// TestCascadeInTime: where a stage does not answer in its time, the answer before it stands, and is marked as such; what comes
// later is recorded as late. A job and a derivation wait for nothing but the record.
func TestCascadeInTime(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	within := func(large string) *pipeline.Revision {
		return p.apply(routed(t, p.model, "timed", `
route:
  cascade:
    - {name: small, accept: output.score < 10.0, model: m@2}
    - {name: large, within: `+large+`, accept: output.score < 200.0, model: m@9}
    - {name: huge, within: 20s, model: m@10}
`))
	}
	rev := within("10s")
	p.ask("timed", body(1, 7, 70), schemas.HeaderRequestID, "r0").wants(t, 2, 63, 700)
	p.derives(rev, "r0")
	rev = within("40ms")
	g := p.model.hold(t, "m@9")
	a := p.ask("timed", body(1, 7), schemas.HeaderRequestID, "r1").wants(t, 2, 14)
	if got := a.header.Get(schemas.HeaderFallback); got != "route;rows=1" || a.header.Get(schemas.HeaderModel) != "m@2" {
		t.Errorf("fallback %q by %v", got, a.header)
	}
	same(t, p.visitsOf("r1", 0), "route primary small m 1 score=2", "route/small stage m 1")
	same(t, p.visitsOf("r1", 1), "route primary small m 1 score=14", "route/small stage m 1", "route/large stage m 1 expired")
	for range 2 * runtime.GOMAXPROCS(0) { // beyond the bound it is not asked at all
		p.ask("timed", body(7), schemas.HeaderRequestID, "last").wants(t, 14)
	}
	if got := p.visitsOf("last", 0); got[len(got)-1] != "route/large stage m 1 overloaded" && len(got) > 3 {
		t.Error(got)
	}
	g.release()
	w.eventually("the late ones are recorded", func() bool {
		return len(p.records(lineage.Query{Pipeline: "timed", Status: lineage.StatusLate})) == 2*runtime.GOMAXPROCS(0)
	})
	for _, r := range p.records(lineage.Query{Pipeline: "timed", RequestID: "r1", Status: lineage.StatusLate}) {
		if r.Node != "route/large" || r.Output == nil || schemas.Values[float64](r.Output.Column(0))[r.OutputRow] != 63 {
			t.Errorf("%+v", r)
		}
	}
	p.derives(rev, "r1")
	p.stop()
}
