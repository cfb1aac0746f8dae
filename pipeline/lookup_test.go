package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	leatnats "github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
)

// buckets follows buckets of NATS.
type buckets struct{ *leatnats.Client }

func (b buckets) Follow(ctx context.Context, s lookup.Source, each func(*schemas.Change), all func(uint64)) error {
	return b.FollowBucket(ctx, s.Name, each, all)
}

// known is a route whose model reads what a lookup finds of a customer.
func known(bucket, more string) string {
	return `route:
  sequence:
    - name: known
      lookup:
        bucket: ` + bucket + `
        key: customer
        ` + more + `
        columns:
          - {name: x, type: float64, default: -1}
          - {name: text, type: string, default: t}
    - name: score
      switch:
        - {name: high, when: "input.x > 100.0", model: m@2}
        - {name: low, model: m@3}
`
}

// features makes a bucket, if it is not there, and returns what puts into it.
func (p *process) features(bucket string) schemas.KV {
	p.w.Helper()
	p.w.must(p.client.CreateBucket(p.w.Context(), bucket))
	kv, err := p.client.Bucket(p.w.Context(), bucket)
	p.w.must(err)
	return kv
}

func (w *world) put(kv schemas.KV, keysAndValues ...string) {
	w.Helper()
	for i := 0; i < len(keysAndValues); i += 2 {
		_, err := kv.Put(w.Context(), keysAndValues[i], []byte(keysAndValues[i+1]))
		w.must(err)
	}
}

// customers is a request with a row for each; "" is null.
func customers(keys ...string) []byte {
	var rows []string
	for _, k := range keys {
		if k = fmt.Sprintf("%q", k); k == `""` {
			k = "null"
		}
		rows = append(rows, `{"customer":`+k+`}`)
	}
	return []byte(`{"rows":[` + strings.Join(rows, ",") + `]}`)
}

func (a answer) scores() string {
	var out []string
	for _, r := range a.Rows {
		out = append(out, fmt.Sprint(r.Score))
	}
	return strings.Join(out, " ")
}

// read is what is recorded of a lookup for each row of a request: its first column, and the version of the value.
func (p *process) read(id string) (out []string) {
	p.w.Helper()
	for _, r := range p.records(lineage.Query{RequestID: id}) {
		if r.Node != "route/known" {
			continue
		}
		s := fmt.Sprint(r.Row.Row)
		if r.Output == nil {
			out = append(out, s+" "+r.ErrorKind)
			continue
		}
		names := r.Output.Schema()
		for _, name := range []string{"x", "known.version"} {
			switch c := r.Output.Column(names.Index(name)); {
			case c.IsNull(r.OutputRow):
				s += " null"
			case name == "x":
				s += fmt.Sprint(" ", schemas.Values[float64](c)[r.OutputRow])
			default:
				s += fmt.Sprint(" ", schemas.Values[uint64](c)[r.OutputRow])
			}
		}
		age := r.Output.Column(names.Index("known.age"))
		if there := !strings.HasSuffix(s, " null"); there == age.IsNull(r.OutputRow) || there && schemas.Values[int64](age)[r.OutputRow] < 0 {
			p.w.Errorf("%s: the age is null or negative", s)
		}
		out = append(out, s)
	}
	return out
}

// TestLookup: what clients put in a bucket is what models see from then on; what was read is recorded, and the decisions that
// follow from it are derived from the record, whatever the bucket says by then.
func TestLookup(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	kv := p.features("customers")
	w.put(kv, "c1", `{"x":7}`, "c2", `{"x":200,"more":[true]}`, "c@3", `{"text":"u"}`)
	rev := p.apply(routed(t, p.model, "known", known("customers", "missing: default")))
	ask := func(id string, keys ...string) answer {
		return p.ask("known", customers(keys...), schemas.HeaderRequestID, id)
	}
	if got := ask("r1", "c1", "c2", "c@3", "nobody", "").scores(); got != "21 400 -3 -3 -3" {
		t.Fatal(got)
	}
	same(t, p.read("r1"), "0 7 1", "1 200 2", "2 -1 3", "3 -1 null", "4 -1 null")
	same(t, p.visitsOf("r1", 1), "route primary m 1 score=400", "route/known stage 1 x=200", "route/score stage high 1", "route/score/high arm m 1")

	w.put(kv, "c1", `{"x":500}`)
	w.eventually("the next request sees it", func() bool { return ask("", "c1").scores() == "1000" })
	w.must(kv.Delete(t.Context(), "c2", 0))
	w.eventually("what was deleted is missing", func() bool { return ask("", "c2").scores() == "-3" })
	w.put(kv, "c1", `{"x":`)
	w.eventually("what cannot be read is missing", func() bool { return ask("", "c1").scores() == "-3" })
	w.eventually("it is logged", func() bool { return strings.Contains(w.logged.String(), "a value cannot be read: its key is missing") })

	by := map[string][]*lineage.Record{}
	for _, r := range p.records(lineage.Query{Pipeline: "known"}) {
		by[r.RequestID] = append(by[r.RequestID], r)
	}
	sigs := map[string]schemas.Signature{"route/score/high": p.model.sig, "route/score/low": p.model.sig}
	high := 0
	for id, recs := range by {
		ds, err := pipeline.Derive(rev, sigs, recs, nil)
		if err != nil || len(ds) == 0 {
			t.Fatal(id, err)
		}
		for _, d := range ds {
			if !d.Equal {
				t.Errorf("%s: %+v", id, d)
			}
			if d.Derived == "high" {
				high++
			}
		}
	}
	if len(by) < 4 || high < 2 {
		t.Errorf("%d requests, %d high", len(by), high)
	}

	w.put(kv, "c2", `{"x":9}`)
	p.stop()
	p = w.start()
	p.apply(rev)
	if got := p.ask("known", customers("c2", "c1", "c@3")).scores(); got != "27 -3 -3" {
		t.Errorf("after a restart: %s", got)
	}
}

// TestLookupMissing: of a key that is not there, a row is null or fails, as the specification says; a bucket that is not there
// is told with what to do, the revision before goes on, and the new one serves once there is one.
func TestLookupMissing(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	kv := p.features("customers")
	w.put(kv, "c1", `{"x":7}`)
	p.apply(routed(t, p.model, "known", known("customers", "missing: error")))
	p.ask("known", customers("c1"), schemas.HeaderRequestID, "r1").wants(t, 21)
	bad := p.ask("known", customers("c1", "nobody"), schemas.HeaderRequestID, "r2").fails(t, schemas.Invalid)
	if bad.err.Field != "rows[1].customer" || !strings.Contains(bad.err.Error(), `no key "nobody" in bucket customers`) {
		t.Error(bad.err)
	}
	same(t, p.read("r2"), "0 7 1", "1 invalid")
	if bad := p.ask("known", customers("")).fails(t, schemas.Invalid); !strings.Contains(bad.err.Error(), "null; a key is needed") {
		t.Error(bad.err)
	}
	p.apply(routed(t, p.model, "known", known("customers", "missing: null")))
	p.ask("known", customers("c1")).wants(t, 21)
	if bad := p.ask("known", customers("nobody")).fails(t, schemas.Invalid); !strings.Contains(bad.err.Error(), "null, and model m takes none") {
		t.Error(bad.err)
	}
	before := p.apply(routed(t, p.model, "known", known("customers", "stale: 1ns\n        missing: error")))
	if bad := p.ask("known", customers("c1")).fails(t, schemas.Invalid); !strings.Contains(bad.err.Error(), `key "c1" of bucket customers is `) || !strings.Contains(bad.err.Error(), "at most 1ns is taken") {
		t.Error(bad.err)
	}

	next := routed(t, p.model, "known", known("absent", "missing: error"))
	p.change("known", next)
	var s pipeline.State
	w.eventually("it says what is missing", func() bool { s, _ = p.State("known"); return s.Error != "" })
	if want := "route/known: no bucket absent: make it with leat features create absent"; !strings.Contains(s.Error, want) || s.Serving != before.Revision {
		t.Errorf("%+v, want %q", s, want)
	}
	w.put(p.features("absent"), "c1", `{"x":1}`)
	w.eventually("it serves", func() bool { s, _ = p.State("known"); return s.Serving == next.Revision })
	p.ask("known", customers("c1")).wants(t, 3)
}

// TestLookupInShadow: a shadow looks up by itself, what it read is in its records, and a bucket that is not there keeps the
// shadow from loading, and nothing else.
func TestLookupInShadow(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	defer p.stop()
	p.apply(routed(t, p.model, "eyes", `
columns: {customer: string}
route: {model: one@2}
shadows:
  - name: known
    sequence:
      - {name: facts, lookup: {bucket: customers, key: customer, missing: default, columns: [{name: x, type: float64, default: -1}]}}
      - {name: then, model: two@3}
`))
	row := []byte(`{"rows":[{"x":5,"text":"t","customer":"c1"}]}`)
	p.ask("eyes", row).wants(t, 10)
	w.eventually("it says what is missing", func() bool {
		s, _ := p.State("eyes")
		return strings.Contains(s.Shadows["known"].Error, "shadows/known/facts: no bucket customers: make it with leat features create customers")
	})
	w.put(p.features("customers"), "c1", `{"x":7}`)
	p.loadedShadows("eyes", "known")
	p.ask("eyes", row, schemas.HeaderRequestID, "r1").wants(t, 10)
	if r := p.shadowed("eyes", "known", 1)[0]; schemas.Values[float64](r.Output.Column(0))[r.OutputRow] != 21 {
		t.Errorf("the shadow answered %v", schemas.Values[float64](r.Output.Column(0)))
	}
	found := false
	for _, r := range p.records(lineage.Query{RequestID: "r1"}) {
		if r.Node == "shadows/known/facts" {
			c := r.Output.Column(r.Output.Schema().Index("facts.version"))
			found = !c.IsNull(r.OutputRow) && schemas.Values[uint64](c)[r.OutputRow] == 1
		}
	}
	if !found {
		t.Error("what was read is not recorded")
	}
}
