package bulk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

func TestTwoProcessesShareAJob(t *testing.T) {
	w := newWorld(t)
	p, q := w.start("x"), w.start("x")
	p.model.delay, q.model.delay = 2*time.Millisecond, 2*time.Millisecond
	es := events(5000, 1)
	dst := filepath.Join(w.dir, "out.parquet")
	v := p.done(p.job(RunRequest{From: w.writeEvents("in.parquet", es), To: dst}).ID)
	w.checkFile(dst, es, nil)
	a, b := p.model.runs.Load(), q.model.runs.Load()
	if a < 10 || b < 10 || a+b != 50 {
		t.Fatalf("%d and %d runs of 50 chunks", a, b)
	}
	if ok, _ := q.records(v.ID); ok != len(es) {
		t.Fatalf("%d records", ok)
	}
}

func TestBadRowsAreReportedOneByOne(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	es := events(1000, 1)
	src := filepath.Join(w.dir, "in.ndjson")
	var text strings.Builder
	leftOut := map[int]bool{}
	for i := range es {
		switch {
		case i == 5 || i == 299:
			text.WriteString(`{"a": "not a number", "b": 1, "c": 2, "name": "x"}` + "\n")
			leftOut[i] = true
		case i >= 400 && i < 500: // a whole chunk
			text.WriteString("{]\n")
			leftOut[i] = true
		case i == 7 || i == 8 || i == 650:
			es[i].Name = "poison"
			leftOut[i] = true
			fallthrough
		default:
			fmt.Fprintf(&text, "{\"a\":%v,\"b\":%v,\"c\":%v,\"name\":%q}\n", es[i].A, es[i].B, es[i].C, es[i].Name)
		}
	}
	if err := os.WriteFile(src, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, carry := range [][]string{nil, {"name"}} {
		dst := filepath.Join(w.dir, fmt.Sprintf("out-%d.parquet", len(carry)))
		v := p.done(p.job(RunRequest{From: src, To: dst, Carry: carry}).ID)
		if v.Rejected != 105 || v.Scored != 895 || v.Exit != 3 {
			t.Fatalf("%+v", v)
		}
		w.checkFile(dst, es, leftOut)
		if carry != nil {
			b := w.read(dst)
			row, name := schemas.Values[int64](b.Column(0)), b.Column(b.Schema().Index("name"))
			for i := range b.Rows() {
				if string(name.Text(i)) != es[row[i]].Name {
					t.Fatalf("row %d carries %q", row[i], name.Text(i))
				}
			}
		}
		bad := w.read(dst + rejectedSuffix)
		if bad.Rows() != 105 {
			t.Fatalf("%d rejected rows listed", bad.Rows())
		}
		rows, reason := schemas.Values[int64](bad.Column(bad.Schema().Index("row"))), bad.Column(bad.Schema().Index("reason"))
		for i, r := range rows {
			if !leftOut[int(r)] || i > 0 && rows[i-1] >= r || len(reason.Text(i)) == 0 {
				t.Fatalf("rejected row %d: %q", r, reason.Text(i))
			}
			if r == 7 && !strings.Contains(string(reason.Text(i)), "poison cannot be scored") {
				t.Fatalf("row 7: %q", reason.Text(i))
			}
		}
		if ok, failed := p.records(v.ID); ok != 895 || failed != 105 {
			t.Fatalf("%d records ok, %d failed", ok, failed)
		}
	}
}

// The result stream fills in the middle of a job: it pauses, says how to go on, and nothing is lost or doubled.
func TestFullResultStreamPausesTheJob(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	es := events(8000, 1)
	dst := filepath.Join(w.dir, "out.parquet")
	id := p.job(RunRequest{From: w.writeEvents("in.parquet", es), To: dst, ResultBytes: 128 << 10}).ID
	v := p.wait(id, ended)
	if v.Status != Paused || v.Auto || !strings.Contains(v.Reason, "leat job resume "+id+" --result-bytes 256KiB") {
		t.Fatalf("%s: %s", v.Status, v.Reason)
	}
	if v.Written == 0 && v.Rows == 0 {
		t.Log("paused before the first progress was stored")
	}
	if _, err := os.Stat(dst); err == nil {
		t.Fatal("the sink is there before the job is done")
	}
	// Going on without more room pauses again.
	gen := v.Generation
	if _, err := p.Resume(t.Context(), &ResumeRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	p.wait(id, func(v *View) bool { return v.Generation == gen+1 && v.Status == Paused })
	if _, err := p.Resume(t.Context(), &ResumeRequest{ID: id, ResultBytes: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	p.done(id)
	w.checkFile(dst, es, nil)
	if ok, failed := p.records(id); ok != len(es) || failed != 0 {
		t.Fatalf("%d records ok, %d failed", ok, failed)
	}
}

// Jobs stop before the lineage of jobs is full, and go on by themselves when it has room.
func TestFullLineagePausesUntilThereIsRoom(t *testing.T) {
	w := newWorld(t)
	w.lin.JobsMaxBytes = 6 << 20
	p := w.start("x")
	p.model.delay = 5 * time.Millisecond
	es := events(60000, 1)
	dst := filepath.Join(w.dir, "out.parquet")
	id := p.job(RunRequest{From: w.writeEvents("in.parquet", es), To: dst}).ID
	pauses := 0
	for {
		v := p.wait(id, func(v *View) bool { return v.Ended || v.Status == Paused && v.Auto })
		if v.Ended {
			break
		}
		pauses++
		if fill, err := p.deps.Fill(t.Context()); err != nil || fill > 0.9 {
			t.Fatalf("paused at %v %v", fill, err)
		}
		st, err := p.logs.Jobs.Stats(t.Context())
		if err == nil {
			err = p.logs.Jobs.Purge(t.Context(), st.Last+1)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.wait(id, func(v *View) bool { return v.Ended || v.Status == Running })
	}
	v := p.done(id)
	w.checkFile(dst, es, nil)
	if v.Scored != int64(len(es)) || pauses == 0 {
		t.Fatalf("%d pauses, %+v", pauses, v)
	}
}

func TestCancelDropsEverything(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	p.model.delay = 5 * time.Millisecond
	dst := filepath.Join(w.dir, "out.parquet")
	id := p.job(RunRequest{From: w.writeEvents("in.parquet", events(20000, 1)), To: dst}).ID
	p.wait(id, func(v *View) bool { return v.Written > 0 })
	if _, err := p.Cancel(t.Context(), &IDRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	v := p.wait(id, func(v *View) bool { return v.Cleaned })
	if v.Status != Cancelled || v.Exit != 1 {
		t.Fatalf("%+v", v)
	}
	if _, err := os.Stat(dst); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("the sink is there")
	}
	j, _, err := p.store.get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.deps.Queues.SubscribeQueue(t.Context(), j.queueName()); schemas.KindOf(err) != schemas.NotFound {
		t.Fatalf("the queue is there: %v", err)
	}
	if _, err := p.Resume(t.Context(), &ResumeRequest{ID: id}); schemas.KindOf(err) != schemas.Invalid {
		t.Fatalf("resumed: %v", err)
	}
	p.stop()
	w.noLeftovers(t)
}

// A job whose process died is cancelled by whoever is there.
func TestCancelAfterDeath(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	p.model.delay = 5 * time.Millisecond
	id := p.job(RunRequest{From: w.writeEvents("in.parquet", events(20000, 1)), To: filepath.Join(w.dir, "out.csv")}).ID
	p.wait(id, func(v *View) bool { return v.Written > 0 })
	p.kill()
	q := w.start("x")
	if _, err := q.Cancel(t.Context(), &IDRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	if v := q.wait(id, func(v *View) bool { return v.Cleaned }); v.Status != Cancelled {
		t.Fatalf("%+v", v)
	}
}

func TestThrottle(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	start := time.Now()
	v := p.job(RunRequest{From: w.writeEvents("in.csv", events(600, 1)), To: filepath.Join(w.dir, "out.csv"), Throttle: 500})
	// Chunks of 100 rows at 0, 0.2, .. 1 s.
	v = p.done(v.ID)
	if d := time.Since(start); d < time.Second {
		t.Fatalf("600 rows at 500 rows/s took %s", d)
	}
	if v.Rate > 620 || v.Rate <= 0 {
		t.Fatalf("rate %v", v.Rate)
	}
}

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
	if v.Chunks != 20 || v.Scored != int64(len(seqs)) || v.Passed != 2000 {
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

// Another environment gives other bits: its workers take no chunks unless they are asked to.
func TestEnvironments(t *testing.T) {
	w := newWorld(t)
	p := w.start("avx2")
	p.model.delay = 5 * time.Millisecond
	es := events(4000, 1)
	dst := filepath.Join(w.dir, "out.parquet")
	id := p.job(RunRequest{From: w.writeEvents("in.parquet", es), To: dst}).ID
	p.wait(id, func(v *View) bool { return v.Written > 0 })
	p.kill()
	q := w.start("avx512")
	v := q.wait(id, func(v *View) bool { return v.Reason != "" })
	if !strings.Contains(v.Reason, "avx2") || !strings.Contains(v.Reason, "--mixed-environments") {
		t.Fatalf("%s: %s", v.Status, v.Reason)
	}
	if n := q.model.runs.Load(); n != 0 {
		t.Fatalf("%d runs in another environment", n)
	}
	yes := true
	if _, err := q.Resume(t.Context(), &ResumeRequest{ID: id, MixedEnvironments: &yes}); err != nil {
		t.Fatal(err)
	}
	q.done(id)
	w.checkFile(dst, es, nil)
}

// A model that fails on everything is not the rows' fault.
func TestBrokenModelFailsTheJob(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	broken := error(schemas.Errorf(schemas.Internal, "test", "out of order"))
	p.model.fault.Store(&broken)
	dst := filepath.Join(w.dir, "out.parquet")
	id := p.job(RunRequest{From: w.writeEvents("in.parquet", events(500, 1)), To: dst}).ID
	if v := p.wait(id, ended); v.Status != Failed || !strings.Contains(v.Reason, "all 100 rows of a chunk failed") {
		t.Fatalf("%s: %s", v.Status, v.Reason)
	}
	p.model.fault.Store(nil)
	if _, err := p.Resume(t.Context(), &ResumeRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	v := p.done(id)
	if v.Scored != 500 {
		t.Fatalf("%+v", v)
	}
}

// Rows and results of any size fit messages, or the row alone is refused.
func TestLargeRows(t *testing.T) {
	w := newWorld(t)
	w.config.ChunkRows, w.config.PieceRows = 64, 16
	w.lin.JobsMaxBytes = 1 << 30
	p := w.start("x")
	es := events(200, 1)
	leftOut := map[int]bool{17: true}
	for i := range es {
		es[i].Name = strings.Repeat("long", 20_000) // 80 kB: 64 of them need several messages
	}
	es[17].Name = strings.Repeat("long", 250_000)
	dst := filepath.Join(w.dir, "out.parquet")
	v := p.done(p.job(RunRequest{From: w.writeEvents("in.parquet", es), To: dst, ResultBytes: 256 << 20}).ID)
	if v.Rejected != 1 || v.Chunks < 20 {
		t.Fatalf("%+v", v)
	}
	w.checkFile(dst, es, leftOut)
	if ok, failed := p.records(v.ID); ok != 199 || failed != 1 {
		t.Fatalf("%d records ok, %d failed", ok, failed)
	}
}

func TestLeaseIsTakenOverWhenItIsStale(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, b := p.newLease("one"), p.newLease("one")
	a.value, b.value = []byte("a"), []byte("b")
	if err := a.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	hold, drop := context.WithCancel(ctx)
	go func() { held <- a.hold(hold) }()
	short, stop := context.WithTimeout(ctx, 3*w.config.LeaseExpiry)
	defer stop()
	if err := b.acquire(short); err == nil {
		t.Fatal("a lease that is renewed was taken")
	}
	drop()
	<-held
	if err := b.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.touch(ctx); !errors.Is(err, schemas.ErrConflict) {
		t.Fatalf("renewed after it was lost: %v", err)
	}
	if err := a.hold(ctx); !errors.Is(err, errLost) {
		t.Fatalf("held after it was lost: %v", err)
	}
	b.release(ctx)
	start := time.Now()
	if err := a.acquire(ctx); err != nil || time.Since(start) > w.config.LeaseExpiry {
		t.Fatalf("a lease that was given up: %v after %s", err, time.Since(start))
	}
}
