package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// What waits meets in one run, by whatever door and pipeline it came.
func TestRowsOfDoorsAndPipelinesMeetInOneRun(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.apply(revision(p.model, "first", "shared", 3))
	p.apply(revision(p.model, "second", "shared", 3))
	gate, entered := make(chan struct{}), make(chan struct{}, 64)
	p.model.onRun(func(*schemas.Batch) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	var wg sync.WaitGroup
	ask := func(i int) {
		wg.Go(func() {
			name, via := []string{"first", "second"}[i%2], i/2%2 == 0
			if via {
				p.ask(name, body(float64(i))).wants(t, 3*float64(i))
			} else {
				asks(w, p.client, name, body(float64(i))).wants(t, 3*float64(i))
			}
		})
	}
	cores := 0 // fill every slot with a run of its own, so that what comes after has to wait
	for ; cores < pipeline.Cores(); cores++ {
		ask(cores)
		<-entered
	}
	const more = 40
	for i := range more {
		ask(cores + i)
	}
	w.eventually("all wait", func() bool { return p.Queued("shared@3") == more })
	close(gate)
	wg.Wait()
	runs := p.model.runs()
	if len(runs) != cores+1 || slices.Max(runs) != more {
		t.Fatalf("runs of %v rows; want one of %d rows", runs, more)
	}
	for i := range cores + more {
		if n := p.model.timesScored(float64(i)); n != 1 {
			t.Errorf("row %d was scored %d times", i, n)
		}
	}
	p.stop()
}

func TestOneBadRowFailsItsOwnRequestAlone(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	for _, c := range []struct {
		text string
		kind schemas.Kind
		runs int // at most: a bad row costs its neighbours a few runs, not one each
	}{{"bad", schemas.Invalid, 14}, {"panic", schemas.Internal, 14}, {"nul", schemas.Invalid, 1}} {
		t.Run(c.text, func(t *testing.T) {
			gate, entered := make(chan struct{}), make(chan struct{}, 64)
			hold := func(*schemas.Batch) error {
				entered <- struct{}{}
				<-gate
				return nil
			}
			p.model.onRun(hold)
			var wg sync.WaitGroup
			for range pipeline.Cores() {
				wg.Go(func() { p.ask("sums", body(1)).wants(t, 1) })
				<-entered
			}
			before := len(p.model.runs())
			const n = 64
			for i := range n {
				wg.Go(func() {
					if i == 41 {
						a := p.ask("sums", textBody(float64(i), c.text)).fails(t, c.kind)
						if want := "rows[0].text"; c.kind == schemas.Invalid && a.err.Field != want {
							t.Errorf("field %q, want %q", a.err.Field, want)
						}
						if c.kind == schemas.Internal && (a.err.ID == "" || strings.Contains(a.raw, "survive")) {
							t.Errorf("an internal error shows %s", a.raw)
						}
						return
					}
					p.ask("sums", body(float64(i))).wants(t, float64(i))
				})
			}
			want := n
			if c.text == "nul" {
				want--
			}
			w.eventually("all wait", func() bool { return p.Queued("sums@1") == want })
			close(gate)
			wg.Wait()
			if got := len(p.model.runs()) - before - pipeline.Cores(); got > c.runs {
				t.Errorf("%d runs for one bad row among %d, want at most %d", got, n, c.runs)
			}
		})
	}
	p.stop()
}

func TestStrictAnswersAfterItsRecord(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	entered, gate := make(chan struct{}), make(chan struct{})
	p.log.set(func([]byte) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	got := make(chan answer)
	go func() { got <- p.ask("sums", body(2, 3), schemas.HeaderRequestID, "one") }()
	<-entered
	select {
	case a := <-got:
		t.Fatalf("answered %s before the append", a.raw)
	case <-time.After(20 * time.Millisecond): // the answer has had its chance
	}
	if rs := p.records(lineage.Query{Pipeline: "sums"}); len(rs) != 0 {
		t.Fatalf("%d records before the append", len(rs))
	}
	close(gate)
	a := (<-got).wants(t, 2, 3)
	if id := a.header.Get(schemas.HeaderRequestID); id != "one" {
		t.Errorf("answered as %q", id)
	}
	rs := p.records(lineage.Query{Pipeline: "sums"})
	if len(rs) != 2 || rs[0].RequestID != "one" || rs[0].Row.Row != 0 || rs[1].Row.Row != 1 || rs[0].Model != "sums" || rs[0].Status != lineage.StatusOK {
		t.Fatalf("%d records: %+v", len(rs), rs)
	}
}

func TestScoringGoesOnWhileAnAppendIsInFlight(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	entered, gate := make(chan struct{}, 10), make(chan struct{})
	p.log.set(func([]byte) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() { p.ask("sums", body(1)).wants(t, 1) })
	<-entered
	const n = 50
	for i := range n {
		wg.Go(func() { p.ask("sums", body(float64(i+10))).wants(t, float64(i+10)) })
	}
	w.eventually("all are scored", func() bool {
		sum := 0
		for _, r := range p.model.runs() {
			sum += r
		}
		return sum == n+1
	})
	close(gate)
	wg.Wait()
	if got := p.log.calls.Load(); got > 3 {
		t.Errorf("%d appends: what was scored meanwhile goes into the next one", got)
	}
}

// slowAnswers lets no call go on before it is told to.
type slowAnswers struct {
	connectors.Responder
	calls chan int // answers of each
	gate  chan struct{}
}

func (s *slowAnswers) Respond(ctx context.Context, rs []connectors.Response) error {
	s.calls <- len(rs)
	<-s.gate
	return s.Responder.Respond(ctx, rs)
}

// TestStoredAnswersHoldNothingUp: while answers are being stored, others are recorded and answered.
func TestStoredAnswersHoldNothingUp(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	slow := &slowAnswers{Responder: p.broker, calls: make(chan int, 100), gate: make(chan struct{})}
	p.answers = slow
	p.serve("sums")
	var wg sync.WaitGroup
	wg.Go(func() { p.ask("sums", body(1)).wants(t, 1) })
	if n := <-slow.calls; n != 1 {
		t.Fatalf("%d answers to one", n)
	}
	asks(w, p.client, "sums", body(2)).wants(t, 2)
	entered, gate := make(chan struct{}, 10), make(chan struct{})
	p.log.set(func([]byte) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	wg.Go(func() { p.ask("sums", body(3)).wants(t, 3) })
	<-entered
	const n = 50
	for i := range n {
		wg.Go(func() { p.ask("sums", body(float64(i+10))).wants(t, float64(i+10)) })
	}
	w.eventually("all are scored", func() bool {
		sum := 0
		for _, r := range p.model.runs() {
			sum += r
		}
		return sum == n+3
	})
	close(gate)
	calls := 0
	for answers := 0; answers < n+1; calls++ {
		answers += <-slow.calls
	}
	if calls > 3 {
		t.Errorf("%d calls: what is recorded together is answered together", calls)
	}
	stopped := make(chan struct{})
	go func() { p.stop(); close(stopped) }()
	close(slow.gate)
	wg.Wait()
	<-stopped
}

func TestAsyncAnswersBeforeItsRecordAndLosesNone(t *testing.T) {
	w := newWorld(t)
	w.config.AppendTimeout = 50 * time.Millisecond
	p := w.start()
	p.serve("sums", async)
	failed := make(chan struct{})
	var once sync.Once
	p.log.set(func([]byte) error {
		once.Do(func() { close(failed) })
		return schemas.Errorf(schemas.Unavailable, "test", "no answer")
	})
	p.ask("sums", body(5)).wants(t, 5) // no append has been let through
	<-failed
	p.ask("sums", body(6)).wants(t, 6)
	p.log.set(func([]byte) error { return nil })
	p.appended("sums", 2)
	p.stop()
}

func TestFullLineageRefuses(t *testing.T) {
	for _, mode := range []struct {
		name string
		edit func(*pipeline.Spec)
	}{{"strict", func(*pipeline.Spec) {}}, {"async", async}} {
		t.Run(mode.name, func(t *testing.T) {
			w := newWorld(t)
			w.lin.MaxBytes = 4 * lineage.MaxMessage
			p := w.start()
			p.serve("sums", mode.edit)
			fill := make([]byte, 800<<10)
			for {
				if _, err := p.logs.Online.Append(t.Context(), "filler", "", fill); err != nil {
					break
				}
				if len(fill) > 1000 {
					continue
				}
			}
			for { // and the last gap
				if _, err := p.logs.Online.Append(t.Context(), "filler", "", fill[:100]); err != nil {
					break
				}
			}
			if mode.name == "strict" {
				p.ask("sums", body(1)).fails(t, schemas.Unavailable)
			} else {
				p.ask("sums", body(1)) // the loss window: it was answered before anybody knew
				w.eventually("the process knows", func() bool { return p.stream.Full(false) })
			}
			before := len(p.model.runs())
			p.ask("sums", body(2)).fails(t, schemas.Unavailable)
			if after := len(p.model.runs()); after != before {
				t.Errorf("%d runs for what cannot be recorded", after-before)
			}
			st, err := p.logs.Online.Stats(t.Context())
			w.must(err)
			w.must(p.logs.Online.Purge(t.Context(), st.Last+1))
			w.eventually("it answers again", func() bool { return p.ask("sums", body(3)).err == nil })
			w.eventually("and records", func() bool {
				rs := p.records(lineage.Query{Pipeline: "sums"})
				return len(rs) > 0 && rs[len(rs)-1].Status == lineage.StatusOK
			})
			if mode.name == "async" { // what was answered meanwhile was kept until there was room
				p.appended("sums", 2)
			}
			p.stop()
		})
	}
}

func TestRequestIDs(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	named := []byte(`{"id":"from-body","rows":[{"x":1,"text":"t"}]}`)
	for _, c := range []struct {
		payload []byte
		header  []string
		want    string
	}{
		{body(1), []string{schemas.HeaderRequestID, "from-header"}, "from-header"},
		{named, nil, "from-body"},
		{named, []string{schemas.HeaderRequestID, "from-header-2"}, "from-header-2"},
	} {
		a := p.ask("sums", c.payload, c.header...).wants(t, 1)
		if got := a.header.Get(schemas.HeaderRequestID); got != c.want {
			t.Errorf("answered as %q, want %q", got, c.want)
		}
		if rs, err := p.reader.Get(t.Context(), c.want, 10); err != nil || len(rs) != 1 {
			t.Errorf("record of %s: %d, %v", c.want, len(rs), err)
		}
	}
	one, two := p.ask("sums", body(1)).header.Get(schemas.HeaderRequestID), p.ask("sums", body(1)).header.Get(schemas.HeaderRequestID)
	if len(one) != 26 || one == two {
		t.Errorf("made ids %q and %q: want ULIDs", one, two)
	}
	if id := p.ask("sums", []byte(`{`)).fails(t, schemas.Invalid).header.Get(schemas.HeaderRequestID); len(id) != 26 {
		t.Errorf("a refused request is answered as %q", id)
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 129), "tab\tted", "é"} {
		if a := p.ask("sums", body(1), schemas.HeaderRequestID, bad).fails(t, schemas.Invalid); a.err.Field != schemas.HeaderRequestID {
			t.Errorf("id %q: field %q", bad, a.err.Field)
		}
	}
}

func TestDeadlines(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	p.serve("hasty", func(s *pipeline.Spec) { s.Deadline = pipeline.Duration(30 * time.Millisecond) })
	past := schemas.FormatTime(time.Now().Add(-time.Second))
	before := len(p.model.runs())
	p.ask("sums", body(1), schemas.HeaderDeadline, past).fails(t, schemas.Expired)
	p.ask("sums", body(1), schemas.HeaderDeadline, past, schemas.HeaderTimeout, "10s").fails(t, schemas.Expired)
	for _, bad := range [][]string{{schemas.HeaderDeadline, "soon"}, {schemas.HeaderTimeout, "-1s"}, {schemas.HeaderTimeout, "5"}} {
		if a := p.ask("sums", body(1), bad...).fails(t, schemas.Invalid); a.err.Field != bad[0] {
			t.Errorf("%v: field %q", bad, a.err.Field)
		}
	}
	if got := len(p.model.runs()); got != before {
		t.Errorf("%d runs for requests that were refused", got-before)
	}

	// While the model is busy beyond the deadline, what waits is answered Expired, recorded, and never scored.
	gate, entered := make(chan struct{}), make(chan struct{}, 64)
	p.model.onRun(func(*schemas.Batch) error {
		entered <- struct{}{}
		<-gate
		return nil
	})
	var wg sync.WaitGroup
	for range pipeline.Cores() {
		wg.Go(func() { p.ask("hasty", body(7)).fails(t, schemas.Expired) }) // scored, too late
		<-entered
	}
	wg.Go(func() { p.ask("hasty", body(8), schemas.HeaderRequestID, "late").fails(t, schemas.Expired) })
	wg.Go(func() { p.ask("hasty", body(9), schemas.HeaderTimeout, "20s").wants(t, 9) })
	w.eventually("both wait", func() bool { return p.Queued("hasty@1") == 2 })
	queued := time.Now()
	w.eventually("the deadline has passed", func() bool { return time.Since(queued) > 40*time.Millisecond })
	close(gate)
	wg.Wait()
	if n := p.model.timesScored(8); n != 0 {
		t.Errorf("a request whose caller had given up was scored %d times", n)
	}
	if rs, err := p.reader.Get(t.Context(), "late", 1); err != nil || len(rs) != 1 || rs[0].Status != lineage.StatusError || rs[0].ErrorKind != "expired" {
		t.Errorf("record of the late request: %+v, %v", rs, err)
	}
}

func TestPinnedVersion(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	for v := 2; v <= 12; v++ {
		a := p.ask("sums", body(10), schemas.HeaderModel, fmt.Sprintf("sums@%d", v)).wants(t, 10*float64(v))
		if got, want := a.header.Get(schemas.HeaderModel), fmt.Sprintf("sums@%d", v); got != want || a.Rows[0].By != want {
			t.Errorf("answered by %s, %s; want %s", got, a.Rows[0].By, want)
		}
		if open := p.model.open(); len(open) > 6 {
			t.Fatalf("%d versions are loaded: %v", len(open), open)
		}
	}
	loads := len(p.model.runs())
	p.ask("sums", body(10), schemas.HeaderModel, "sums@1").wants(t, 10)
	p.ask("sums", body(10), schemas.HeaderModel, "sums@12").wants(t, 120)
	if got := len(p.model.runs()) - loads; got != 2 {
		t.Errorf("%d runs of two", got)
	}
	for ref, kind := range map[string]schemas.Kind{"other@1": schemas.NotFound, "sums@champion": schemas.NotFound, "sums@1001": schemas.NotFound, "SUMS": schemas.Invalid} {
		p.ask("sums", body(1), schemas.HeaderModel, ref).fails(t, kind)
	}
	p.model.failLoads("sums@500", schemas.Errorf(schemas.Unavailable, "test", "no memory"))
	p.ask("sums", body(1), schemas.HeaderModel, "sums@500").fails(t, schemas.Unavailable)
	rs := p.records(lineage.Query{Pipeline: "sums", Model: "sums@12"})
	if len(rs) != 2 || rs[0].Revision == rs[1].Revision && rs[0].Version != 12 {
		t.Errorf("%d records of version 12", len(rs))
	}
	p.stop()
	if open := p.model.open(); len(open) != 0 {
		t.Errorf("still loaded: %v", open)
	}
}

// A version that takes long to load holds up nobody but those who name it, and those no longer than their deadline.
func TestLoadingAPinHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	p.model.loading = make(chan struct{})
	var hasty, wg sync.WaitGroup
	hasty.Go(func() {
		p.ask("sums", body(1), schemas.HeaderModel, "sums@99", schemas.HeaderTimeout, "30ms").fails(t, schemas.Expired)
	})
	wg.Go(func() {
		p.ask("sums", body(1), schemas.HeaderModel, "sums@99", schemas.HeaderTimeout, "20s").wants(t, 99)
	})
	for range 20 {
		p.ask("sums", body(4)).wants(t, 4)
		if err := p.Ready(); err != nil {
			t.Fatal(err)
		}
	}
	p.apply(revision(p.model, "sums", "sums", 2))
	p.ask("sums", body(4)).wants(t, 8)
	hasty.Wait()
	close(p.model.loading)
	wg.Wait()
	p.stop()
	if open := p.model.open(); len(open) != 0 {
		t.Errorf("still loaded: %v", open)
	}
}

// An answer that no message can hold is never seen, and its request fails by itself.
func TestAnswerTooLargeToRecord(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums")
	p.ask("sums", textBody(1, "long"), schemas.HeaderRequestID, "long").fails(t, schemas.Invalid)
	p.ask("sums", body(2)).wants(t, 2)
	rs, err := p.reader.Get(t.Context(), "long", 1)
	if err != nil || len(rs) != 1 || rs[0].Status != lineage.StatusError || rs[0].Output != nil {
		t.Errorf("its record: %+v, %v", rs, err)
	}
}

// Two models of equal content share one loaded scorer; each is recorded and answered under its own name.
func TestEqualModelsKeepTheirNames(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.model.same = map[string]string{"twin@1": "first@1"}
	p.serve("first")
	p.serve("twin")
	for _, name := range []string{"first", "twin"} {
		if got := p.ask(name, body(1)).wants(t, 1).header.Get(schemas.HeaderModel); got != name+"@1" {
			t.Errorf("%s is answered by %s", name, got)
		}
		rs := p.records(lineage.Query{Pipeline: name})
		if len(rs) != 1 || rs[0].Model != name {
			t.Errorf("%s: %d records, of model %s", name, len(rs), rs[0].Model)
		}
	}
	if n := p.model.loadCount(); n != 1 {
		t.Errorf("%d loads of one artifact", n)
	}
	p.stop()
}

// An append that was stored and whose acknowledgement got lost is repeated under the same id within the time that an
// append has: the caller is answered, and there is one record.
func TestLostAcknowledgementOfAnAppend(t *testing.T) {
	if c, l := pipeline.DefaultConfig(), lineage.Default(); l.TryTimeout > c.AppendTimeout/2 {
		t.Errorf("one try takes %v, and all of them %v: nothing is repeated", l.TryTimeout, c.AppendTimeout)
	}
	w := newWorld(t)
	w.lin.TryTimeout = 20 * time.Millisecond
	p := w.start()
	p.serve("sums")
	p.log.lose.Store(1)
	p.ask("sums", body(3), schemas.HeaderRequestID, "once").wants(t, 3)
	if n := p.log.calls.Load(); n < 2 {
		t.Errorf("%d appends", n)
	}
	if rs := p.records(lineage.Query{Pipeline: "sums", All: true}); len(rs) != 1 || rs[0].RequestID != "once" {
		t.Errorf("%d records", len(rs))
	}
	p.stop()
}
