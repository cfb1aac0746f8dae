package pipeline_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// resolver finds models of the arithmetic.
type resolver struct{ *arithmetic }

func (r resolver) Resolve(ctx context.Context, ref schemas.ModelRef) (scorers.Version, error) {
	return r.Version(ctx, ref.Name, max(ref.Version, 1))
}

func (resolver) Known(context.Context, string) ([]string, error) { return nil, nil }

// routed makes a revision of a route that is written as a user would.
func routed(t testing.TB, a *arithmetic, name, route string) *pipeline.Revision {
	t.Helper()
	text := "apiVersion: leat/v1\nkind: Pipeline\nname: " + name + "\n" + route
	specs, err := pipeline.ParseSpec([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	models, sig, err := specs[0].Resolve(t.Context(), resolver{a}, pipeline.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := pipeline.SpecDigest(specs[0])
	if err != nil {
		t.Fatal(err)
	}
	return &pipeline.Revision{
		Revision: pipeline.RevisionOf(digest, models), SpecDigest: digest, Spec: specs[0].Defaulted(), Models: models, Signature: sig, Cause: "apply",
	}
}

// seen is what the tests look at in a record.
func seen(r *lineage.Record) string {
	s := r.Node + " " + r.Role
	if r.Arm != "" {
		s += " " + r.Arm
	}
	if r.Model != "" {
		s += " " + r.Model
	}
	s += " " + strconv.FormatFloat(r.Propensity, 'g', 4, 64)
	if r.Output != nil {
		c := r.Output.Column(0)
		switch {
		case c.IsNull(r.OutputRow):
			s += " " + c.Field().Name + "=null"
		default:
			s += fmt.Sprintf(" %s=%v", c.Field().Name, schemas.Values[float64](c)[r.OutputRow])
		}
	}
	if r.Status != lineage.StatusOK {
		s += " " + r.ErrorKind
	}
	return s
}

// visitsOf returns what was recorded of a row of a request.
func (p *process) visitsOf(id string, row int32) (out []string) {
	p.w.Helper()
	for _, r := range p.records(lineage.Query{RequestID: id}) {
		if r.Row.Row == row {
			out = append(out, seen(r))
		}
	}
	return out
}

func same(t testing.TB, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("recorded:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSplit: rows of one request part and come back in their order; a key sticks to its arm; each decision is recorded.
func TestSplit(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.apply(routed(t, p.model, "ab", `
route:
  split:
    key: text
    forced: true
    arms:
      - {name: stable, weight: 70, model: m@2}
      - {name: canary, weight: 30, model: m@3}
`))
	var rows []string
	for i := range 200 {
		rows = append(rows, fmt.Sprintf(`{"x":%d,"text":"key-%d"}`, i, i%40))
	}
	a := p.ask("ab", []byte(`{"rows":[`+strings.Join(rows, ",")+`]}`), schemas.HeaderRequestID, "r1")
	if a.err != nil || len(a.Rows) != 200 {
		t.Fatal(a.err, a.raw)
	}
	arms := map[int]string{}
	share := 0
	for i, r := range a.Rows {
		want := map[string]float64{"m@2": 2, "m@3": 3}[r.By] * float64(i)
		if r.Score != want || arms[i%40] != "" && arms[i%40] != r.By {
			t.Fatalf("row %d: %v by %s, key %d went to %s", i, r.Score, r.By, i%40, arms[i%40])
		}
		if arms[i%40] = r.By; r.By == "m@3" {
			share++
		}
	}
	if share == 0 || share == 200 || a.header.Get(schemas.HeaderModel) != "ab" {
		t.Fatalf("%d of 200 rows to the canary, answered by %s", share, a.header.Get(schemas.HeaderModel))
	}
	for i, arm := range map[int32]string{0: arms[0], 7: arms[7], 199: arms[39]} {
		name, part, f := "stable", "0.7", 2
		if arm == "m@3" {
			name, part, f = "canary", "0.3", 3
		}
		same(t, p.visitsOf("r1", i), fmt.Sprintf("route primary %s m %s score=%d", name, part, f*int(i)), fmt.Sprintf("route/%s arm m 1", name))
	}
	// One row more than once, and by force.
	for range 3 {
		one := p.ask("ab", []byte(`{"rows":[{"x":1,"text":"key-7"}]}`))
		if one.err != nil || one.Rows[0].By != arms[7] || one.header.Get(schemas.HeaderModel) != arms[7] {
			t.Fatal(one.err, one.raw, one.header)
		}
	}
	forced := p.ask("ab", []byte(`{"rows":[{"x":1,"text":"key-7"}]}`), schemas.HeaderArm, "canary", schemas.HeaderRequestID, "r2").wants(t, 3)
	if forced.header.Get(schemas.HeaderModel) != "m@3" {
		t.Error(forced.header)
	}
	same(t, p.visitsOf("r2", 0), "route primary canary m 0 score=3", "route/canary arm m 1")
	// One bad row fails its request, and nobody else's.
	bad := p.ask("ab", []byte(`{"rows":[{"x":1,"text":"key-7"},{"x":2,"text":"bad"}]}`), schemas.HeaderRequestID, "r3").fails(t, schemas.Invalid)
	if !strings.HasPrefix(bad.err.Field, "rows[1]") {
		t.Errorf("field %q", bad.err.Field)
	}
	if got := p.visitsOf("r3", 1); len(got) != 2 || !strings.HasSuffix(got[0], "invalid") || !strings.HasSuffix(got[1], "invalid") {
		t.Fatal(got)
	}
}

// TestEnsemble: members are asked side by side and joined.
func TestEnsemble(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.apply(routed(t, p.model, "both", `
route:
  ensemble:
    columns: {score: weighted_mean}
    members:
      - {name: two, weight: 3, model: m@2}
      - name: parts
        weight: 1
        split:
          arms:
            - {name: all, weight: 100, model: m@6}
            - {name: none, weight: 0, model: m@7}
`))
	a := p.ask("both", body(1, 10), schemas.HeaderRequestID, "r1").wants(t, 3, 30)
	if a.header.Get(schemas.HeaderModel) != "both" || a.header.Get(schemas.HeaderAnswered) != "" {
		t.Error(a.header)
	}
	same(t, p.visitsOf("r1", 1), "route primary both 1 score=30", "route/two member m 1 score=20", "route/parts member all 1 score=60", "route/parts/all arm m 1")
	p.ask("both", []byte(`{"rows":[{"x":1,"text":"bad"}]}`), schemas.HeaderRequestID, "r2").fails(t, schemas.Invalid)
}

// TestSequence: columns are made, models read what steps before them made, and conditions and stages choose per row.
func TestSequence(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.apply(routed(t, p.model, "steps", `
columns: {minutes: int64, x: float64}
route:
  sequence:
    - name: prepare
      transform:
        columns:
          x: double(input.minutes) / 60.0 + input.x
    - name: score
      switch:
        - name: long
          when: input.x > 100.0
          model: m@2
        - name: short
          cascade:
            - {name: small, accept: output.score > 10.0, model: m@3}
            - {name: large, model: m@5}
`))
	ask := func(id string, rows ...string) answer {
		return p.ask("steps", []byte(`{"rows":[`+strings.Join(rows, ",")+`]}`), schemas.HeaderRequestID, id)
	}
	row := func(x float64, minutes int) string {
		return fmt.Sprintf(`{"x":%v,"minutes":%d,"text":"t"}`, x, minutes)
	}
	ask("r1", row(200, 60), row(9, 60), row(1, 60), row(100, 60), row(2, 0)).wants(t, 402, 30, 10, 202, 10)
	same(t, p.visitsOf("r1", 0), "route primary m 1 score=402", "route/prepare stage 1 x=201", "route/score stage long 1", "route/score/long arm m 1")
	same(t, p.visitsOf("r1", 1), "route primary m 1 score=30", "route/prepare stage 1 x=10", "route/score stage short 1",
		"route/score/short arm small 1", "route/score/short/small stage m 1")
	same(t, p.visitsOf("r1", 2), "route primary m 1 score=10", "route/prepare stage 1 x=2", "route/score stage short 1",
		"route/score/short arm large 1", "route/score/short/small stage m 1 score=6", "route/score/short/large stage m 1")
	// A null condition is false, a row without what a model needs fails alone.
	if a := ask("r2", `{"x":1,"text":"t"}`); a.err == nil || a.err.Kind != schemas.Invalid {
		t.Fatalf("%v %s", a.err, a.raw)
	}
	same(t, p.visitsOf("r2", 0), "route primary m 1 invalid", "route/prepare stage 1 x=null", "route/score stage short 1 invalid",
		"route/score/short arm small 1 invalid", "route/score/short/small stage m 1 invalid")
}

// TestDerive: what a route has decided comes out again from its records alone, without models; a record that was tampered
// with does not.
func TestDerive(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	rev := p.apply(routed(t, p.model, "deep", `
columns: {minutes: int64, x: float64}
route:
  sequence:
    - name: prepare
      transform: {columns: {x: "double(input.minutes) / 2.0 + input.x"}}
    - name: part
      split:
        header: X-User
        forced: true
        arms:
          - name: a
            weight: 60
            cascade:
              - {name: small, accept: output.score > 50.0, model: m@3}
              - name: large
                switch:
                  - {name: odd, when: "input.x < 5.0", model: m@4}
                  - {name: even, model: m@5}
          - name: b
            weight: 40
            ensemble:
              columns: {score: mean, by: majority_vote}
              members:
                - {name: one, model: m@6}
                - {name: two, split: {key: text, arms: [{name: l, weight: 50, model: m@7}, {name: r, weight: 50, model: m@8}]}}
`))
	sigs := map[string]schemas.Signature{}
	for _, m := range rev.Models {
		sigs[m.Node] = p.model.sig
	}
	const requests, each = 60, 15
	for i := range requests {
		var rows []string
		for k := range each {
			rows = append(rows, fmt.Sprintf(`{"x":%d,"minutes":%d,"text":"key-%d"}`, (i*7+k)%40, (i+k*3)%30, (i*each+k)%23))
		}
		header := []string{schemas.HeaderRequestID, fmt.Sprint("r", i), "X-User", fmt.Sprint("user-", i%17)}
		if i%10 == 0 {
			header = append(header, schemas.HeaderArm, "route/part=b")
		}
		if a := p.ask("deep", []byte(`{"rows":[`+strings.Join(rows, ",")+`]}`), header...); a.err != nil {
			t.Fatal(a.err)
		}
	}
	by := map[string][]*lineage.Record{}
	for _, r := range p.records(lineage.Query{Pipeline: "deep"}) {
		by[r.RequestID] = append(by[r.RequestID], r)
	}
	decisions, forced := 0, 0
	seenArms := map[string]int{}
	for id, recs := range by {
		ds, err := pipeline.Derive(rev, sigs, recs, nil)
		if err != nil {
			t.Fatal(id, err)
		}
		for _, d := range ds {
			if !d.Equal {
				t.Fatalf("%s: %+v", id, d)
			}
			if decisions++; d.Propensity == 0 {
				forced++
			}
			seenArms[d.Node+" "+d.Derived]++
		}
	}
	if len(by) != requests || decisions < requests*each || forced != requests/10*each || len(seenArms) != 8 {
		t.Fatalf("%d requests, %d decisions, %d forced: %v", len(by), decisions, forced, seenArms)
	}
	for _, tamper := range []func(r *lineage.Record){
		func(r *lineage.Record) { r.Seed++ }, func(r *lineage.Record) { r.Arm = map[string]string{"a": "b", "b": "a"}[r.Arm] },
	} {
		unequal := 0
		for _, recs := range by {
			for _, r := range recs {
				if old := *r; r.Node == "route/part" && r.Propensity > 0 {
					tamper(r)
					ds, err := pipeline.Derive(rev, sigs, recs, nil)
					if err != nil {
						t.Fatal(err)
					}
					for _, d := range ds {
						if !d.Equal {
							unequal++
						}
					}
					*r = old
				}
			}
		}
		if unequal == 0 {
			t.Error("a record that was tampered with is equal")
		}
	}
}

// TestPacked: a route's models may take the same features by name and as one packed tensor; a request names them.
func TestPacked(t *testing.T) {
	named := schemas.MustSchema(schemas.Field{Name: "b", Type: schemas.Float64}, schemas.Field{Name: "text", Type: schemas.String, Nullable: true})
	tensor := schemas.MustSchema(schemas.Field{Name: "features", Type: schemas.Float64, Shape: []int{2}, Features: []string{"a", "b"}})
	for route, want := range map[string]string{
		`split: {key: text, arms: [{name: l, weight: 50, model: named}, {name: r, weight: 50, model: tensor}]}`: "b float64, text string?, a float64",
		`sequence: [{name: make, transform: {columns: {a: "1.0"}}}, {name: score, model: tensor}]`:              "b float64",
		`split: {arms: [{name: l, weight: 50, model: tensor}, {name: r, weight: 50, model: tensor}]}`:           "features float64[2]",
	} {
		spec, err := pipeline.ParseSpec([]byte("apiVersion: leat/v1\nkind: Pipeline\nname: x\nroute: {" + route + "}\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, sig, err := spec[0].Resolve(t.Context(), typed{"named": named, "tensor": tensor}, pipeline.Facts{})
		if err != nil {
			t.Fatal(err)
		}
		if got := sig.Inputs.String(); got != want {
			t.Errorf("%s takes %s, want %s", route, got, want)
		}
	}
}

// typed finds models by what they take.
type typed map[string]*schemas.Schema

func (r typed) Resolve(_ context.Context, ref schemas.ModelRef) (scorers.Version, error) {
	v := scorers.Version{Name: ref.Name, Version: 1, Digest: ref.Name}
	v.Probed.Signature = schemas.Signature{Inputs: r[ref.Name], Outputs: schemas.MustSchema(schemas.Field{Name: "y", Type: schemas.Float64})}
	return v, nil
}

func (typed) Known(context.Context, string) ([]string, error) { return nil, nil }

// TestRouteOfATopic: events go over a route as requests do. A model that cannot be reached loses none of them, what is
// recorded is not scored again after a crash, and each event has one record for each node.
func TestRouteOfATopic(t *testing.T) {
	w := newWorld(t)
	p := w.startToDie()
	route := `
input: {topic: in}
output: {topic: out}
route: {split: {key: text, arms: [{name: a, weight: 50, model: m@1}, {name: b, weight: 50, model: m@1}]}}
`
	away := int32(5)
	var runs atomic.Int32
	p.model.onRun(func(*schemas.Batch) error {
		if runs.Add(1) <= away {
			return schemas.Errorf(schemas.Unavailable, "test", "the model is away")
		}
		return nil
	})
	rev := p.apply(routed(t, p.model, "topical", route))
	es := numbered("in", 0, 40, 4)
	p.publish(es...)
	checkOutputs(t, p.outputs("out", len(es)), es, 1)
	if runs.Load() <= away {
		t.Error("the model was never away")
	}
	p.out.set(func(context.Context, []schemas.Message) error {
		return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
	})
	more := numbered("in", 40, 40, 4)
	p.publish(more...)
	w.eventually("some of them are recorded", func() bool { return len(p.records(lineage.Query{Pipeline: "topical"})) > 2*len(es) })
	var recorded []float64
	for _, r := range p.records(lineage.Query{Pipeline: "topical"}) {
		if r.Node == pipeline.RootPath {
			recorded = append(recorded, schemas.Values[float64](r.Input.Column(r.Input.Schema().Index("x")))[r.InputRow])
		}
	}
	p.kill()
	p = w.start()
	p.apply(rev)
	es = append(es, more...)
	checkOutputs(t, p.outputs("out", len(es)), es, 1)
	p.settled("in", "topical")
	if n := len(p.records(lineage.Query{Pipeline: "topical", All: true})); n != 2*len(es) {
		t.Errorf("%d records of %d events over two nodes", n, len(es))
	}
	for _, x := range recorded {
		if p.model.timesScored(x) > 0 {
			t.Errorf("%v was scored again", x)
		}
	}
	p.stop()
}
