package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// A thousand changes of revision under load: each request sees one whole revision, none is lost, what is not used any
// more is closed, and nothing piles up.
func TestRevisionsChangeUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.lin.MaxBytes = 2 << 30
	p := w.start()
	revs := make([]*pipeline.Revision, 10)
	for i := range revs {
		revs[i] = revision(p.model, "sums", "sums", i+1)
	}
	p.apply(revs[0])
	var asked, stop atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var r connectors.Requester = p.broker
			if g%2 == 0 {
				r = p.client
			}
			for stop.Load() == 0 {
				x := float64(asked.Add(1))
				a := asks(w, r, "sums", body(x, x+1, x+2))
				if a.err != nil {
					t.Errorf("request lost: %v", a.err)
					return
				}
				by := a.header.Get(schemas.HeaderModel)
				var v float64
				if _, err := fmt.Sscanf(by, "sums@%f", &v); err != nil || len(a.Rows) != 3 {
					t.Errorf("answer %v %s", a.header, a.raw)
					return
				}
				for i, row := range a.Rows {
					if row.By != by || row.Score != v*(x+float64(i)) {
						t.Errorf("one request, two revisions: %v %s", a.header, a.raw)
						return
					}
				}
			}
		})
	}
	measure := func() (int, uint64) {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	var goroutines int
	var heap uint64
	const changes = 1000
	for i := range changes {
		p.change("sums", revs[(i+1)%len(revs)])
		if i%3 == 2 { // the rest comes as fast as it can, and only the last is loaded
			p.apply(revs[(i+1)%len(revs)])
		}
		if i == changes/5 {
			goroutines, heap = measure()
		}
	}
	last := p.apply(revs[3])
	g, h := measure()
	stop.Store(1)
	wg.Wait()
	if g > goroutines+20 || h > heap+heap/4+4<<20 {
		t.Errorf("after 800 more changes: %d goroutines, were %d; %d bytes, were %d", g, goroutines, h, heap)
	}
	w.eventually("old versions are closed", func() bool { return fmt.Sprint(p.model.open()) == "map[sums@4:1]" })
	if p.model.loadCount() < changes/20 {
		t.Errorf("only %d loads: nothing was changed", p.model.loadCount())
	}
	// Every record tells the revision that its answer was made under.
	revOf := map[string]int{}
	for i, r := range revs {
		revOf[r.Revision] = i + 1
	}
	w.must(p.reader.Scan(t.Context(), lineage.Query{Pipeline: "sums"}, func(r *lineage.Record) (bool, error) {
		if revOf[r.Revision] != r.Version {
			return false, fmt.Errorf("record of version %d under revision %s", r.Version, r.Revision)
		}
		return true, nil
	}))
	if r, ok := p.Active("sums"); !ok || r.Revision != last.Revision {
		t.Errorf("active: %v", r)
	}
	p.stop()
	if open := p.model.open(); len(open) != 0 {
		t.Errorf("still loaded: %v", open)
	}
}

func TestLoadFailureLeavesTheOldRevisionServing(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.model.failLoads("sums@2", schemas.Errorf(schemas.Invalid, "test", "a broken file"))
	one := p.serve("sums")
	two := revision(p.model, "sums", "sums", 2)
	p.change("sums", two)
	w.eventually("State says so", func() bool {
		s, _ := p.State("sums")
		return strings.Contains(s.Error, "a broken file") && strings.Contains(s.Error, "sums@2")
	})
	if s, _ := p.State("sums"); s.Ready || s.Serving != one.Revision || s.Revision != two.Revision {
		t.Errorf("state %+v", s)
	}
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "sums: ") {
		t.Errorf("Ready: %v", err)
	}
	p.ask("sums", body(5)).wants(t, 5)
	three := revision(p.model, "sums", "sums", 3)
	p.apply(three)
	p.ask("sums", body(5)).wants(t, 15)
	if err := p.Ready(); err != nil {
		t.Error(err)
	}
	p.model.failLoads("sums@2", nil)
	p.apply(two) // once it can be loaded, it serves
	p.ask("sums", body(5)).wants(t, 10)
	p.stop()
}

func TestStopDrains(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	p.serve("topics", topics("in", "out"))
	entered, gate := make(chan struct{}, 1), make(chan struct{})
	p.log.set(func([]byte) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-gate
		return nil
	})
	const n = 200
	answers := make(chan answer, 2*n)
	for i := range n {
		go func() { answers <- p.ask("sums", body(float64(i))) }()
		go func() { answers <- asks(w, p.client, "sums", body(float64(i))) }()
	}
	es := numbered("in", 0, 100, 5)
	p.publish(es...)
	<-entered
	total := func() (rows int) {
		for _, r := range p.model.runs() {
			rows += r
		}
		return rows
	}
	w.eventually("all is scored", func() bool { return total() == 2*n+len(es) })
	if err := p.Ready(); err != nil {
		t.Error(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.cancel()
		<-p.stopped
	}()
	w.eventually("it is not ready", func() bool { return p.Ready() != nil })
	select {
	case <-stopped:
		t.Fatal("stopped with accepted work in hand")
	default:
	}
	close(gate)
	<-stopped
	w.must(p.runErr)
	for range 2 * n {
		if a := <-answers; a.err != nil {
			t.Fatalf("accepted, and answered %v", a.err)
		}
	}
	checkOutputs(t, p.topicOf("out"), es, 1)
	if open := p.model.open(); len(open) != 0 {
		t.Errorf("still loaded: %v", open)
	}
	p.stop()
}

// What cannot be appended at the end is given up within the grace period, and stays with its topic.
func TestGracePeriodEnds(t *testing.T) {
	w := newWorld(t)
	p := w.startToDie()
	rev := p.serve("sums", topics("in", "out"))
	held := make(chan struct{})
	var once sync.Once
	p.log.set(func([]byte) error {
		once.Do(func() { close(held) })
		return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
	})
	es := numbered("in", 0, 10, 1)
	p.publish(es...)
	<-held
	p.cancel()
	<-p.stopped
	w.must(p.runErr)
	w.eventually("nothing is loaded", func() bool { return len(p.model.open()) == 0 }) // a run that was given up ends by itself
	p.kill()
	p = w.start()
	p.apply(rev)
	checkOutputs(t, p.outputs("out", len(es)), es, 1)
	p.settled("in", "sums")
	p.stop()
}

func TestDeletedPipelineIsGone(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums", topics("in", "out"))
	p.publish(numbered("in", 0, 10, 2)...)
	p.outputs("out", 10)
	p.ask("sums", body(1)).wants(t, 1)
	for range 5 { // made again at once, it never runs twice
		p.change("sums", nil)
		if _, ok := p.State("sums"); ok {
			t.Fatal("State knows a deleted pipeline")
		}
		p.serve("sums", topics("in", "out"))
	}
	p.publish(numbered("in", 10, 10, 2)...)
	p.outputs("out", 20)
	p.change("sums", nil)
	w.eventually("its model is closed", func() bool { return len(p.model.open()) == 0 })
	p.ask("sums", body(1)).fails(t, schemas.NotFound)
	asks(w, p.client, "sums", body(1)).fails(t, schemas.NotFound)
	if err := p.Ready(); err != nil {
		t.Error(err)
	}
	p.publish(numbered("in", 20, 10, 2)...)
	p.serve("other")
	p.ask("other", body(1)).wants(t, 1)
	if n := len(p.topicOf("out")); n != 20 {
		t.Errorf("%d outputs", n)
	}
	p.stop()
}

// Beyond the bound a caller is told at once; nothing of what was admitted is lost.
func TestOverload(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	gate, entered := make(chan struct{}), make(chan struct{}, 64)
	p.model.onRun(func(*schemas.Batch) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	var wg sync.WaitGroup
	for range pipeline.Cores() {
		wg.Go(func() { p.ask("sums", body(1)).wants(t, 1) })
		<-entered
	}
	xs := make([]float64, 20_000)
	var admitted, overloaded atomic.Int64
	for range 8 {
		wg.Go(func() {
			a := p.ask("sums", body(xs...), schemas.HeaderTimeout, "30s")
			switch {
			case a.err == nil && len(a.Rows) == len(xs):
				admitted.Add(1)
			case a.err != nil && a.err.Kind == schemas.Overloaded:
				overloaded.Add(1)
			default:
				t.Errorf("answer %v", a.err)
			}
		})
	}
	w.eventually("some are refused while the model is busy", func() bool { return overloaded.Load() >= 3 })
	if got := p.Queued("sums@1"); got > 5*len(xs) {
		t.Errorf("%d rows wait", got)
	}
	close(gate)
	wg.Wait()
	if admitted.Load()+overloaded.Load() != 8 || admitted.Load() < 3 {
		t.Errorf("%d admitted, %d refused", admitted.Load(), overloaded.Load())
	}
	p.ask("sums", body(2)).wants(t, 2)
}

// A source that ends by itself is opened again, and until then the pipeline is not ready.
func TestSourceThatEndsIsOpenedAgain(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	broken := make(chan struct{})
	p.sources = func(s connectors.Source) connectors.Source { return &endingSource{Source: s, end: broken} }
	p.serve("sums")
	p.ask("sums", body(1)).wants(t, 1)
	p.sources = nil
	close(broken)
	w.eventually("its doors are opened again", func() bool {
		return strings.Contains(w.logged.String(), "opening it again") && p.Ready() == nil
	})
	p.ask("sums", body(2)).wants(t, 2)
	p.stop()
}

// endingSource fails for good when end is closed.
type endingSource struct {
	connectors.Source
	end chan struct{}
}

func (s *endingSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	got := make(chan struct{})
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.end:
			cancel()
		case <-got:
		}
	}()
	ds, err := s.Source.Receive(inner, max)
	close(got)
	if ctx.Err() == nil && inner.Err() != nil && errors.Is(err, inner.Err()) {
		return nil, schemas.Errorf(schemas.Unavailable, "test", "the source is gone")
	}
	return ds, err
}

// Jobs run on what is left, and get their share all the same.
func TestBulkYieldsAndGetsItsShare(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	rev := p.serve("sums")
	pin, err := p.Pin(t.Context(), rev, nil)
	w.must(err)
	defer pin.Close()
	var stop atomic.Bool
	var pieces, most, now atomic.Int64
	p.model.onRun(func(in *schemas.Batch) error {
		if in.Rows() == 256 {
			n := now.Add(1)
			for m := most.Load(); n > m && pin.Online() && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			runtime.Gosched()
			now.Add(-1)
		}
		return nil
	})
	p.ask("sums", body(1)).wants(t, 1)
	var wg sync.WaitGroup
	for range pipeline.Cores() + 2 {
		wg.Go(func() {
			in, out := schemas.NewBatch(p.model.sig.Inputs), schemas.NewBatch(p.model.sig.Outputs)
			for range 256 {
				schemas.Append(in.Column(0), 1.0)
				in.Column(0).EndRow()
				in.Column(1).AppendString("t")
				in.Column(1).EndRow()
			}
			in.Advance(256)
			for !stop.Load() {
				out.Reset()
				if _, err := pin.ScoreBulk(t.Context(), in, out, "job", "", "j", nil); err != nil || out.Rows() != 256 {
					t.Errorf("piece: %d rows, %v", out.Rows(), err)
					return
				}
				pieces.Add(1)
			}
		})
	}
	for i := range 300 {
		p.ask("sums", body(float64(i))).wants(t, float64(i))
	}
	during := pieces.Load()
	stop.Store(true)
	wg.Wait()
	if during == 0 {
		t.Error("no piece was scored beside online requests")
	}
	if limit := int64(max(1, pipeline.Cores()-1)); most.Load() > limit {
		t.Errorf("%d pieces at once beside online requests, want at most %d", most.Load(), limit)
	}
	p.stop()
}

func TestStats(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	p.ask("sums", body(1)).wants(t, 1)
	p.ask("sums", textBody(1, "bad")).fails(t, schemas.Invalid)
	p.ask("sums", []byte("{")).fails(t, schemas.Invalid)
	var s pipeline.Stats
	w.eventually("all is counted", func() bool {
		s = p.Stats("sums")
		return s.Requests == 3 && s.Errors == 2 && s.Processing > 0 && s.Processing < time.Minute
	})
	if s.LastError == "" {
		t.Error("no last error")
	}
}
