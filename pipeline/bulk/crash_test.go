package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Whatever is killed, and when: each row is in the sink once, and the file is the one that an uninterrupted run writes.
func TestKilledFileJobsEndAsIfNothingHadHappened(t *testing.T) {
	w := newWorld(t)
	es := events(6000, 2)
	src := w.writeEvents("in.parquet", es)
	calm := filepath.Join(w.dir, "calm.parquet")
	p := w.start("x")
	p.done(p.job(RunRequest{From: src, To: calm, Carry: []string{"id", "label"}}).ID)
	p.stop()
	w.checkFile(calm, es, nil)
	for seed := range uint64(3) {
		dst := filepath.Join(w.dir, fmt.Sprintf("killed-%d.parquet", seed))
		id := w.throughDeaths(seed, RunRequest{From: src, To: dst, Carry: []string{"id", "label"}})
		if !bytes.Equal([]byte(readText(t, calm)), []byte(readText(t, dst))) {
			w.checkFile(dst, es, nil)
			t.Fatal("same rows, other bytes")
		}
		last := w.start("x")
		if ok, failed := last.records(id); ok != len(es) || failed != 0 {
			t.Fatalf("%d records ok, %d failed", ok, failed)
		}
		last.stop()
		w.noLeftovers(t)
	}
}

// noLeftovers checks that no temporary file stays behind for ever: those of killed processes are there in a test, where
// the killed process's own clean-up still runs, so none is.
func (w *world) noLeftovers(t *testing.T) {
	t.Helper()
	tmp, err := filepath.Glob(filepath.Join(w.dir, ".*"))
	if err != nil || len(tmp) > 0 {
		t.Fatalf("temporary files stay: %v %v", tmp, err)
	}
}

// throughDeaths runs a job while its processes are killed at random moments, and returns its id.
func (w *world) throughDeaths(seed uint64, r RunRequest) string {
	w.t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 7))
	first := w.start("x")
	first.model.delay = 20 * time.Millisecond
	id := first.job(r).ID
	alive := []*process{first}
	kills := 0
	defer func() {
		if kills == 0 {
			w.t.Error("the job was over before anybody was killed: it proves nothing")
		}
	}()
	for range 5 {
		// Let it get some way: a number of written chunks, or of runs, drawn by the seed.
		from, more := int64(0), int64(rnd.IntN(6))
		last := alive[len(alive)-1]
		v := last.wait(id, func(v *View) bool {
			if from == 0 {
				from = v.Written + 1
			}
			return v.Ended || v.Written >= from-1+more || last.model.runs.Load() > 2*more
		})
		if v.Ended {
			break
		}
		next := w.start("x")
		next.model.delay = 20 * time.Millisecond
		alive = append(alive, next)
		victims := 1 + rnd.IntN(len(alive)-1)
		for range victims {
			i := rnd.IntN(len(alive) - 1)
			alive[i].kill()
			kills++
			alive = append(alive[:i], alive[i+1:]...)
			if len(alive) == 1 {
				break
			}
		}
	}
	alive[len(alive)-1].done(id)
	for _, p := range alive {
		p.stop()
	}
	return id
}

func TestKilledTopicJobsPublishEachRowOnce(t *testing.T) {
	w := newWorld(t)
	setup := w.start("x")
	es := events(3000, 3)
	w.publish(setup, "flights", 4, es)
	setup.stop()
	w.late = true // nothing but the job's own look at the topic keeps rows from being published twice
	for seed := range uint64(2) {
		out := fmt.Sprintf("scores-%d", seed)
		w.throughDeaths(10+seed, RunRequest{From: "topic:flights", To: "topic:" + out})
		check := w.start("x")
		w.checkTopic(check, out, es)
		check.stop()
	}
}

// publish stores events as native JSON under 16 keys.
func (w *world) publish(p *process, topic string, partitions int, es []event) {
	w.t.Helper()
	if err := p.topics.EnsureTopic(w.t.Context(), topic, partitions); err != nil {
		w.t.Fatal(err)
	}
	msgs := make([]schemas.Message, len(es))
	for i, e := range es {
		msgs[i] = schemas.Message{
			Topic: topic, Key: fmt.Sprint("key-", i%16), ID: fmt.Sprint(topic, "-", i),
			Header:  schemas.Header{schemas.HeaderRequestID: {fmt.Sprint("req-", i)}, schemas.HeaderEventTime: {"2026-05-01T00:00:00Z"}},
			Payload: fmt.Appendf(nil, `{"rows":[{"a":%v,"b":%v,"c":%v,"name":%q}]}`, e.A, e.B, e.C, e.Name),
		}
	}
	if _, err := p.topics.Publish(w.t.Context(), msgs); err != nil {
		w.t.Fatal(err)
	}
}

// stored returns all messages of a topic, partition by partition.
func (w *world) stored(p *process, topic string) []*connectors.Delivery {
	w.t.Helper()
	spans, err := p.topics.Spans(w.t.Context(), topic, connectors.Start{})
	if err != nil {
		w.t.Fatal(err)
	}
	var all []*connectors.Delivery
	for _, sp := range spans {
		src, err := p.topics.Open(w.t.Context(), sp)
		if err != nil {
			w.t.Fatal(err)
		}
		for {
			ds, err := src.Receive(w.t.Context(), 1000)
			if err == schemas.ErrDrained {
				break
			}
			if err != nil {
				w.t.Fatal(err)
			}
			all = append(all, ds...)
		}
		src.Close(w.t.Context())
	}
	return all
}

// checkTopic checks that a topic holds one answer for each event, each under its key, in the order of the source.
func (w *world) checkTopic(p *process, topic string, es []event) {
	w.t.Helper()
	all := w.stored(p, topic)
	if len(all) != len(es) {
		w.t.Errorf("%d messages, want %d", len(all), len(es))
	}
	last := map[string]int{}
	seen := map[string]bool{}
	for _, d := range all {
		req := d.Header.Get(schemas.HeaderRequestID)
		if seen[req] {
			w.t.Fatalf("%s is in the topic twice", req)
		}
		seen[req] = true
		i, err := strconv.Atoi(req[len("req-"):])
		if err != nil {
			w.t.Fatal(err)
		}
		if d.Key != fmt.Sprint("key-", i%16) {
			w.t.Fatalf("%s has key %q", req, d.Key)
		}
		if before, ok := last[d.Key]; ok && before > i {
			w.t.Fatalf("%s: event %d after %d", d.Key, i, before)
		}
		last[d.Key] = i
		want := fmt.Sprintf(`{"rows":[{"score":%v,"label":"%s!"}]}`, es[i].score(), es[i].Name)
		if got := string(d.Payload); got != want {
			w.t.Fatalf("%s: %s, want %s", req, got, want)
		}
	}
}

// A coordinator that lost its lease without noticing does no harm: neither feeds, publishes nor counts twice.
func TestTwoCoordinatorsAtOnce(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	es := events(3000, 4)
	w.publish(p, "flights", 2, es)
	p.model.delay = 30 * time.Millisecond
	q := w.start("x")
	q.model.delay = 30 * time.Millisecond
	id := p.job(RunRequest{From: "topic:flights", To: "topic:scores"}).ID
	p.wait(id, func(v *View) bool { return v.Written >= 3 })
	// q takes the lease although p holds and renews it.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for taken := false; !taken; {
		taken = takeOver(t, ctx, q, id) // or p takes it back, where nothing runs for as long as a lease lasts
	}
	v := q.done(id)
	if v.Scored != int64(len(es)) {
		t.Fatalf("%+v", v)
	}
	w.checkTopic(q, "scores", es)
}

// takeOver has q work on a job whose lease somebody holds; false if that one took it back.
func takeOver(t *testing.T, ctx context.Context, q *process, id string) bool {
	t.Helper()
	l := q.newLease(id)
	_, rev, err := q.deps.Jobs.Get(ctx, l.key)
	if err == nil {
		l.rev, err = q.deps.Jobs.Put(ctx, l.key, l.value)
	}
	if err != nil || l.rev <= rev {
		t.Fatal(l.rev, rev, err)
	}
	hold, drop := context.WithCancel(ctx)
	held := make(chan error, 1)
	go func() { held <- l.hold(hold) }()
	j, _, err := q.store.get(ctx, id)
	if err == nil {
		err = q.attempt(ctx, l, j)
	}
	drop()
	<-held
	if errors.Is(err, errOvertaken) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	l.release(ctx)
	return true
}

// A source that changes under a job ends it: its chunks would not be the same again.
func TestChangedSourceFailsTheJob(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	p.model.delay = 5 * time.Millisecond
	src := w.writeEvents("in.ndjson", events(3000, 5))
	id := p.job(RunRequest{From: src, To: filepath.Join(w.dir, "out.parquet"), Throttle: 2000}).ID
	p.wait(id, func(v *View) bool { return v.Written > 0 })
	f, err := os.OpenFile(src, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(`{"a":1,"b":2,"c":3,"name":"late"}` + "\n")
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if v := p.wait(id, ended); v.Status != Failed || v.Exit != 1 {
		t.Fatalf("%s: %s", v.Status, v.Reason)
	}
	w.noLeftovers(t)
}

// Of two coordinators at once, one of which reads a topic that has lost messages, both cut as the first one did.
func TestTwoCoordinatorsCutAlike(t *testing.T) {
	for _, partitions := range []int{1, partitionsAtOnce + 2} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) { cutAlike(t, partitions) })
	}
}

func cutAlike(t *testing.T, partitions int) {
	w := newWorld(t)
	p := w.start("x")
	es := events(4000, 4)
	w.publish(p, "flights", partitions, es)
	p.model.delay = 20 * time.Millisecond
	w.lost = func(seq uint64) bool { return seq%3 == 0 }
	w.config.Window = 8 // q's feeder stays close to p's
	q := w.start("x")
	q.model.delay = 20 * time.Millisecond
	dst := filepath.Join(w.dir, "out.ndjson")
	id := p.job(RunRequest{From: "topic:flights", To: dst, Throttle: 4000}).ID
	p.wait(id, func(v *View) bool { return v.Written >= 3 })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	j, _, err := q.store.get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	// Two attempts, neither of which writes the job: both own it.
	feeds := make(chan error, 2)
	for _, s := range []*Service{p.Service, q.Service} {
		c := &coordinator{s: s, owner: s.id + "/test", sig: p.model.sig, job: j, gate: newGate(0, MaxChunks), total: make(chan int64, 1)}
		if c.log, err = s.deps.Logs.OpenLog(ctx, j.logConfig()); err == nil {
			err = c.readLog(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			feeds <- c.feed(ctx, func() (source, error) { return s.openSource(ctx, j, p.model.revision()) })
		}()
	}
	p.done(id)
	cancel()
	<-feeds
	<-feeds
	b := w.read(dst)
	seqs, parts := schemas.Values[int64](b.Column(b.Schema().Index("sequence"))), schemas.Values[int64](b.Column(b.Schema().Index("partition")))
	have, last, turns := map[int64]bool{}, map[int64]int64{}, 0
	for i, seq := range seqs {
		if last[parts[i]] >= seq {
			t.Fatalf("partition %d: sequence %d after %d", parts[i], seq, last[parts[i]])
		}
		have[seq], last[parts[i]] = true, seq
		if i > 0 && parts[i] != parts[i-1] {
			turns++
		}
	}
	if len(have) != len(seqs) || len(last) != partitions || partitions > 1 && turns < 2*partitions {
		t.Fatalf("%d rows of %d messages, %d partitions with %d turns", len(seqs), len(have), len(last), turns)
	}
	for seq := range int64(4000) {
		if !w.lost(uint64(seq+1)) && !have[seq+1] {
			t.Fatalf("sequence %d is missing", seq+1)
		}
	}
}

// The place that is stored of a topic never passes a row that the sink has still to meet again.
func TestTopicSinkSurvivesTwoDeathsInARow(t *testing.T) {
	w := newWorld(t)
	w.late = true
	p := w.start("x")

	w.publish(p, "flights", 1, events(10, 1))
	if err := p.client.EnsureTopic(t.Context(), "scores", 2); err != nil {
		t.Fatal(err)
	}
	rev := p.model.revision()
	j := &Job{ID: "two-deaths", Pipeline: "sums", Revision: rev.Revision, From: "topic:flights", To: "topic:scores", Status: Failed,
		Ends: Ends{Ranges: []Range{{First: 1, Last: 10}}}}
	if err := p.store.create(t.Context(), j, rev); err != nil {
		t.Fatal(err)
	}
	chunk := func(n uint64) *rows {
		r := newRows(p.model.sig.Outputs)
		r.stored = true
		for i := range uint64(3) {
			schemas.Append(r.in.Column(0), float64(n))
			r.in.Column(0).EndRow()
			r.in.Column(1).AppendString("x")
			r.in.Column(1).EndRow()
			r.in.Advance(1)
			r.at = append(r.at, ref{Unit: 3*n + i + 1})
			r.origins = append(r.origins, origin{key: fmt.Sprint("key-", i)})
		}
		return r
	}
	// life opens the sink as a new coordinator would, writes some chunks, and stores the place after so many of them.
	life := func(written *int64, store int, chunks ...uint64) {
		t.Helper()
		job, _, err := p.store.get(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.openSink(t.Context(), job, p.model.sig.Outputs)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range chunks {
			if err := s.write(t.Context(), span{}, chunk(n)); err != nil {
				t.Fatal(err)
			}
			at := s.at()
			if i < store {
				*written = int64(n) + 1
				if _, err := p.store.update(t.Context(), j.ID, func(j *Job) error { j.SinkAt = at; return nil }); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	var written int64
	life(&written, 0, 0, 1, 2) // published three, stored nothing
	life(&written, 1, 0)       // passes one of them again, stores that, dies
	life(&written, 0, uint64(written), 2, 3)
	all := w.stored(p, "scores")
	seen := map[string]bool{}
	for _, d := range all {
		seen[d.Header.Get(headerRow)] = true
	}
	if len(all) != 12 || len(seen) != 12 {
		t.Fatalf("%d messages of %d rows, want 12", len(all), len(seen))
	}
}
