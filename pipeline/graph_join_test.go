package pipeline_test

import (
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
