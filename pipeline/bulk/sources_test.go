package bulk

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

func TestTopicToFile(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	es := events(1000, 1)
	w.publish(p, "flights", 3, es)
	// Messages of several rows, of bad rows, and of no rows that anybody can read.
	extra := []schemas.Message{
		{Topic: "flights", ID: "multi", Key: "m", Payload: []byte(`{"rows":[{"a":1,"b":2,"c":3,"name":"m0"},{"a":1,"b":"x","c":3,"name":"m1"},{"a":4,"b":5,"c":6,"name":"m2"}]}`)},
		{Topic: "flights", ID: "broken", Key: "m", Payload: []byte(`{"rows":`)},
		{Topic: "flights", ID: "strange", Key: "m", Header: schemas.Header{schemas.HeaderContentType: {"image/png"}}, Payload: []byte("png")},
	}
	if _, err := p.client.Publish(t.Context(), extra); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(w.dir, "out.ndjson")
	id := p.job(RunRequest{From: "topic:flights", To: dst}).ID
	// What comes after the job was made is not of it.
	late := []schemas.Message{{Topic: "flights", ID: "late", Key: "m", Payload: []byte(`{"rows":[{"a":1,"b":1,"c":1,"name":"late"}]}`)}}
	if _, err := p.client.Publish(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	v := p.done(id)
	if v.Scored != 1002 || v.Rejected != 3 || v.Exit != 3 || v.Progress != 1 {
		t.Fatalf("%+v", v)
	}
	b := w.read(dst)
	if b.Rows() != 1002 {
		t.Fatalf("%d rows", b.Rows())
	}
	req, key, score := b.Column(b.Schema().Index("request_id")), b.Column(b.Schema().Index("key")), schemas.Values[float64](b.Column(b.Schema().Index("score")))
	seen := map[string]bool{}
	for i := range b.Rows() {
		r := string(req.Text(i))
		if r == "" {
			if string(key.Text(i)) != "m" || score[i] != 1 && score[i] != 7 {
				t.Fatalf("row %d: %v", i, score[i])
			}
			continue
		}
		var n int
		if _, err := fmt.Sscanf(r, "req-%d", &n); err != nil || seen[r] || score[i] != es[n].score() {
			t.Fatalf("%s: %v", r, score[i])
		}
		seen[r] = true
	}
	if ok, failed := p.records(id); ok != 1002 || failed != 3 {
		t.Fatalf("%d records ok, %d failed", ok, failed)
	}
	// From a sequence on, and of a time that has not come.
	v = p.done(p.job(RunRequest{From: "topic:flights@1001", To: filepath.Join(w.dir, "late.csv")}).ID)
	if v.Rows != 6 {
		t.Fatalf("from 1001 on: %d rows", v.Rows)
	}
	v = p.done(p.job(RunRequest{From: "topic:flights@" + time.Now().Add(time.Hour).Format(time.RFC3339), To: filepath.Join(w.dir, "none.csv")}).ID)
	if v.Rows != 0 || v.Exit != 0 {
		t.Fatalf("%+v", v)
	}
}

// What does not say how it is written is read as the pipeline's input says, as a pipeline reads it that scores as records
// come.
func TestTopicOfCSV(t *testing.T) {
	for _, on := range []string{"nats", "kafka"} {
		t.Run(on, func(t *testing.T) {
			w := newWorld(t)
			if on == "kafka" {
				w.onKafka()
			}
			w.input = &pipeline.Input{Topic: "meters", Format: "csv", Columns: []string{"name", "", "a", "b", "c"}}
			p := w.start("x")
			if err := p.topics.EnsureTopic(t.Context(), "meters", 1); err != nil {
				t.Fatal(err)
			}
			es := events(500, 1)
			var msgs []schemas.Message
			for i, e := range es {
				m := schemas.Message{Topic: "meters", Key: "k", ID: fmt.Sprint("m-", i), Payload: fmt.Appendf(nil, "%s,ignored,%v,%v,%v\n", e.Name, e.A, e.B, e.C)}
				if i%10 == 0 { // its own word goes first
					m.Header = schemas.Header{schemas.HeaderContentType: {"application/json"}}
					m.Payload = fmt.Appendf(nil, `{"a":%v,"b":%v,"c":%v,"name":%q}`, e.A, e.B, e.C, e.Name)
				}
				msgs = append(msgs, m)
			}
			msgs = append(msgs, schemas.Message{Topic: "meters", Key: "k", ID: "json", Payload: []byte(`{"a":1,"b":1,"c":1,"name":"not said to be JSON"}`)})
			if _, err := p.topics.Publish(t.Context(), msgs); err != nil {
				t.Fatal(err)
			}
			dst := filepath.Join(w.dir, "out.ndjson")
			v := p.done(p.job(RunRequest{From: "topic:meters", To: dst}).ID)
			if v.Scored != 500 || v.Rejected != 1 {
				t.Fatalf("%+v", v)
			}
			b := w.read(dst)
			score, label := schemas.Values[float64](b.Column(b.Schema().Index("score"))), b.Column(b.Schema().Index("label"))
			for i, e := range es {
				if score[i] != e.score() || string(label.Text(i)) != e.Name+"!" {
					t.Fatalf("row %d: %v %s, want %v of %s", i, score[i], label.Text(i), e.score(), e.Name)
				}
			}
		})
	}
}

// gappy is a replayer that has lost some messages.
type gappy struct {
	connectors.Replayer
	lost func(sequence uint64) bool
}

func (g gappy) Open(ctx context.Context, s connectors.Span) (connectors.Source, error) {
	src, err := g.Replayer.Open(ctx, s)
	return gappySource{src, g.lost}, err
}

type gappySource struct {
	connectors.Source
	lost func(sequence uint64) bool
}

func (g gappySource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	ds, err := g.Source.Receive(ctx, max)
	return slices.DeleteFunc(ds, func(d *connectors.Delivery) bool { return g.lost(d.From.Sequence) }), err
}

// Messages that expire between two attempts are missing from their chunks and move no other row.
func TestGapsMoveNoRow(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	es := events(2000, 1)
	w.publish(p, "flights", 1, es)
	p.model.delay = 20 * time.Millisecond
	dst := filepath.Join(w.dir, "out.ndjson")
	id := p.job(RunRequest{From: "topic:flights", To: dst}).ID
	p.wait(id, func(v *View) bool { return v.Written >= 3 })
	p.kill()
	// Every third message is gone, and a whole chunk.
	lost := func(seq uint64) bool { return seq%3 == 0 || seq > 1100 && seq <= 1200 }
	w.lost = lost
	q := w.start("x")
	v := q.done(id)
	b := w.read(dst)
	seqs := schemas.Values[int64](b.Column(b.Schema().Index("sequence")))
	score := schemas.Values[float64](b.Column(b.Schema().Index("score")))
	have := map[int64]bool{}
	for i, seq := range seqs {
		if i > 0 && seqs[i-1] >= seq || score[i] != es[seq-1].score() {
			t.Fatalf("row %d: sequence %d after %d, score %v", i, seq, seqs[max(i-1, 0)], score[i])
		}
		have[seq] = true
	}
	for seq := range int64(2000) {
		if !lost(uint64(seq+1)) && !have[seq+1] {
			t.Fatalf("sequence %d is missing", seq+1)
		}
	}
	// Chunks that nobody had planned before the loss are cut from what is left: then there are fewer.
	if v.Chunks > 20 || v.Written != v.Chunks || v.Scored != int64(len(seqs)) || v.Passed != 2000 {
		t.Fatalf("%+v", v)
	}
	if ok, _ := q.records(id); ok < len(seqs) {
		t.Fatalf("%d records of %d rows", ok, len(seqs))
	}
}

// Only canonical inputs of role primary that no job made are scored again; what was not recorded whole is skipped.
func TestLineageToFile(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	sig := p.model.sig
	policy, err := lineage.NewPolicy([]string{"name"}, nil, sig.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	es := events(500, 1)
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
	add := func(c *lineage.Context, from, to int) {
		t.Helper()
		for at := from; at < to; at += 10 { // requests of ten rows
			var recs lineage.Records
			row := lineage.Row{RequestID: fmt.Sprint("req-", at), InputDigest: lineage.InputDigest(in, at, at+10), Status: lineage.StatusOK}
			if err := recs.AddRange(c, &row, in, at, at+10, out, at); err != nil {
				t.Fatal(err)
			}
			if _, err := p.stream.Append(t.Context(), &recs); err != nil {
				t.Fatal(err)
			}
		}
	}
	primary := lineage.Context{Pipeline: "sums", Role: lineage.RolePrimary, Node: "route", Via: "nats"}
	shadow, masked, other, made := primary, primary, primary, primary
	shadow.Role, masked.Policy, other.Pipeline, made.Run = lineage.RoleShadow, policy, "another", "some-job"
	add(&primary, 0, 300)
	if errs := p.stream.AppendFeedback(t.Context(), []lineage.Feedback{{Pipeline: "sums", RequestID: "req-0", Label: 1.0}}); errs != nil { // no row to score
		t.Fatal(errs)
	}
	add(&shadow, 0, 100)
	add(&primary, 0, 100) // again: superseded
	add(&other, 0, 100)
	add(&masked, 300, 350)
	add(&made, 350, 400)
	middle := time.Now()
	add(&primary, 400, 500)
	dst := filepath.Join(w.dir, "out.parquet")
	id := p.job(RunRequest{From: "lineage:sums", To: dst}).ID
	v := p.done(id)
	if v.Scored != 400 || v.Skipped != 50 || v.Rejected != 0 || v.Exit != 3 {
		t.Fatalf("%+v", v)
	}
	b := w.read(dst)
	req, row := b.Column(b.Schema().Index("request_id")), schemas.Values[int32](b.Column(b.Schema().Index("row")))
	score := schemas.Values[float64](b.Column(b.Schema().Index("score")))
	want := 0
	for i := range b.Rows() {
		if want == 300 {
			want = 400
		}
		if string(req.Text(i)) != fmt.Sprint("req-", want/10*10) || row[i] != int32(want%10) || score[i] != es[want].score() {
			t.Fatalf("row %d is %s row %d", i, req.Text(i), row[i])
		}
		want++
	}
	if bad := w.read(dst + rejectedSuffix); bad.Rows() != 50 {
		t.Fatalf("%d skipped rows listed", bad.Rows())
	}
	v = p.done(p.job(RunRequest{From: "lineage:sums@" + time.Now().Add(time.Hour).Format(time.RFC3339), To: filepath.Join(w.dir, "none.csv")}).ID)
	if v.Rows != 0 || v.Exit != 0 {
		t.Fatalf("of a time that has not come: %+v", v)
	}
	v = p.done(p.job(RunRequest{From: "lineage:sums@" + schemas.FormatTime(middle), To: filepath.Join(w.dir, "late.csv")}).ID)
	if v.Scored != 100 || v.Skipped != 0 {
		t.Fatalf("of the last hundred: %+v", v)
	}
	if ok, failed := p.records(id); ok != 400 || failed != 0 {
		t.Fatalf("%d records ok, %d failed", ok, failed)
	}
}
