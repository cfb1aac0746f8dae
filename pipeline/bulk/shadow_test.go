package bulk

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// A shadow catches up with what its pipeline was asked: one record for each row, below that of the route, though a process
// dies on the way. Nothing else is written.
func TestLineageToShadow(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	sig := p.model.sig
	es := events(600, 1)
	in, out := schemas.NewBatch(sig.Inputs), schemas.NewBatch(sig.Outputs)
	for _, e := range es {
		for _, v := range []float32{e.A, e.B, e.C} {
			schemas.Append(in.Column(0), v)
		}
		in.Column(0).EndRow()
		in.Column(1).AppendString(e.Name)
		in.Column(1).EndRow()
		in.Advance(1)
	}
	if err := p.model.Score(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	asked := &lineage.Context{Pipeline: "sums", Role: lineage.RolePrimary, Node: "route", Via: "nats", Principal: "ann"}
	for at := 0; at < len(es); at += 10 { // requests of ten rows
		var recs lineage.Records
		row := lineage.Row{RequestID: fmt.Sprint("req-", at), InputDigest: lineage.InputDigest(in, at, at+10), Status: lineage.StatusOK}
		if err := recs.AddRange(asked, &row, in, at, at+10, out, at); err != nil {
			t.Fatal(err)
		}
		if _, err := p.stream.Append(t.Context(), &recs); err != nil {
			t.Fatal(err)
		}
	}
	score := map[string]float64{} // by id of the route's record
	scan := func(q lineage.Query, fn func(*lineage.Record)) {
		t.Helper()
		if err := p.reader.Scan(t.Context(), q, func(r *lineage.Record) (bool, error) { fn(r); return true, nil }); err != nil {
			t.Fatal(err)
		}
	}
	scan(lineage.Query{Pipeline: "sums", Run: lineage.RunNone}, func(r *lineage.Record) {
		score[hex.EncodeToString(r.RecordID[:])] = schemas.Values[float64](r.Output.Column(0))[r.OutputRow]
	})
	id := p.job(RunRequest{From: "lineage:sums", To: "shadow:twin", ChunkRows: 50}).ID
	p.wait(id, func(v *View) bool { return v.Written > 0 })
	p.kill()
	p = w.start("x")
	v := p.done(id)
	if v.Scored != 600 || v.Skipped+v.Rejected != 0 || v.Exit != 0 {
		t.Fatalf("%+v", v)
	}
	seen := map[string]bool{}
	scan(lineage.Query{Run: id}, func(r *lineage.Record) {
		want, ok := score[r.ParentID]
		switch {
		case !ok || seen[r.ParentID]:
			t.Errorf("%s row %d has the parent %q", r.RequestID, r.Row.Row, r.ParentID)
		case r.Role != lineage.RoleShadow || r.Node != "shadows/twin" || r.Input != nil || r.Model != "sums":
			t.Errorf("%+v", r.Context)
		case r.Output == nil || schemas.Values[float64](r.Output.Column(0))[r.OutputRow] != want:
			t.Errorf("%s row %d answers otherwise", r.RequestID, r.Row.Row)
		}
		seen[r.ParentID] = true
	})
	if len(seen) != 600 {
		t.Errorf("%d records", len(seen))
	}
	for _, c := range []struct{ from, to, says string }{
		{"lineage:sums", "shadow:twni", `pipeline sums has no shadow "twni"; did you mean "twin"?`},
		{"lineage:other", "shadow:twin", "a shadow catches up with its own pipeline: want lineage:sums"},
		{"topic:flights", "shadow:twin", "want lineage:sums"},
	} {
		if _, err := p.RunJob(t.Context(), &RunRequest{Pipeline: "sums", From: c.from, To: c.to}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
	}
}
