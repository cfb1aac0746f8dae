package bulk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	w.config.LeaseRenew, w.config.LeaseExpiry = 200*time.Millisecond, 2*time.Second // a busy machine may hold a renewal up
	p := w.start("x")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b := p.newLease("one"), p.newLease("one")
	a.value, b.value = []byte("a"), []byte("b")
	if err := a.acquire(ctx); err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	hold, drop := context.WithCancel(ctx)
	go func() { held <- a.hold(hold) }()
	short, stop := context.WithTimeout(ctx, 2*w.config.LeaseExpiry)
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
