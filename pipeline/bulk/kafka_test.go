package bulk

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// onKafka puts the world's topics on the brokers that the tests share, apart from other tests by a prefix.
func (w *world) onKafka() {
	w.t.Helper()
	c := kafka.Default()
	c.Bootstrap = broker.Shared(w.t).Addrs()
	c.Prefix = fmt.Sprintf("bulk-%d.", time.Now().UnixNano())
	c.Partitions = 3
	w.kafka = &c
}

// Of a topic, the partitions that are named are read, each from its own sequence on, and no others.
func TestStartOfEachPartition(t *testing.T) {
	for _, on := range []string{"nats", "kafka"} {
		t.Run(on, func(t *testing.T) {
			w := newWorld(t)
			if on == "kafka" {
				w.onKafka()
			}
			p := w.start("x")
			w.publish(p, "flights", 4, events(800, 1))
			// by partition, in order
			all := map[int32][]uint64{}
			for _, d := range w.stored(p, "flights") {
				all[d.From.Partition] = append(all[d.From.Partition], d.From.Sequence)
			}
			if len(all) < 3 || len(all[0]) < 20 || len(all[2]) < 20 || len(all[3]) < 20 {
				t.Fatalf("%d partitions, with %d, %d and %d events", len(all), len(all[0]), len(all[2]), len(all[3]))
			}
			at0, at2 := all[0][len(all[0])/2], all[2][3]
			beyond := all[3][len(all[3])-1] + 1
			want := map[string]bool{}
			for _, seq := range all[0][len(all[0])/2:] {
				want[fmt.Sprint(0, "/", seq)] = true
			}
			for _, seq := range all[2][3:] {
				want[fmt.Sprint(2, "/", seq)] = true
			}
			dst := filepath.Join(w.dir, "out.ndjson")
			v := p.done(p.job(RunRequest{From: fmt.Sprintf("topic:flights@2:%d,0:%d,3:%d", at2, at0, beyond), To: dst}).ID)
			if v.Rows != int64(len(want)) || v.Exit != 0 {
				t.Fatalf("%d rows, want %d: %+v", v.Rows, len(want), v)
			}
			b := w.read(dst)
			part, seq := schemas.Values[int64](b.Column(b.Schema().Index("partition"))), schemas.Values[int64](b.Column(b.Schema().Index("sequence")))
			for i := range b.Rows() {
				k := fmt.Sprint(part[i], "/", seq[i])
				if !want[k] {
					t.Fatalf("%s is in the file, wrongly or twice", k)
				}
				delete(want, k)
			}
			_, err := p.RunJob(t.Context(), &RunRequest{Pipeline: "sums", From: "topic:flights@0:1,4:1", To: dst, Overwrite: true})
			if e := schemas.AsError("", err); err == nil || e.Kind != schemas.Invalid || e.Field != "from" || !strings.Contains(err.Error(), "no partition 4: it has 4") {
				t.Fatalf("a partition that is not there: %v", err)
			}
		})
	}
}

// doom ends a process at one of its steps: "open", "opened" (a ledger), "write", "writing", "written" (progress n), "drop",
// "dropped".
type doom struct {
	step  string
	n     int64 // of a write: chunks that are done with it
	met   atomic.Bool
	died  chan struct{} // closed when it has
	delay time.Duration // of "writing": from the beginning of the write
}

// reach reports whether the process dies here.
func (d *doom) reach(step string, n int64) bool {
	return d != nil && d.step == step && d.n == n && d.met.CompareAndSwap(false, true)
}

// die ends the process, from one of its own goroutines.
func (p *process) die() {
	go func() {
		p.kill()
		close(p.doom.died)
	}()
}

// deadly does something between two steps at which the process may die.
func (p *process) deadly(ctx context.Context, before, after string, n int64, do func() (Ledger, error)) (Ledger, error) {
	if p.doom.reach(before, n) {
		p.die()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l, err := do()
	if err == nil && p.doom.reach(after, n) {
		p.die()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if l != nil {
		l = mortalLedger{l, p}
	}
	return l, err
}

type mortalLedger struct {
	Ledger
	p *process
}

func (l mortalLedger) Write(ctx context.Context, msgs []schemas.Message, n int64, text string) error {
	if l.p.doom.reach("writing", n) {
		time.AfterFunc(l.p.doom.delay, l.p.die)
		if err := l.Ledger.Write(ctx, msgs, n, text); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	_, err := l.p.deadly(ctx, "write", "written", n, func() (Ledger, error) { return nil, l.Ledger.Write(ctx, msgs, n, text) })
	return err
}

// franz reads a topic to its end, committed records alone, with a client that shares no code with ours.
func (w *world) franz(topic string) []*kgo.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	topic = w.kafka.Prefix + topic
	k, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Bootstrap...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer k.Close()
	// A last record of each partition ends the reading.
	meta, err := kadm.NewClient(k).ListTopics(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	left := 0
	for p := range meta[topic].Partitions {
		if err := k.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: p, Value: []byte("the end")}).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
		left++
	}
	var all []*kgo.Record
	for left > 0 {
		fs := k.PollFetches(ctx)
		for _, e := range fs.Errors() {
			w.t.Fatalf("franz-go: %s/%d: %v", e.Topic, e.Partition, e.Err)
		}
		for _, r := range fs.Records() {
			if string(r.Value) == "the end" {
				left--
			} else {
				all = append(all, r)
			}
		}
	}
	return all
}

func headerOf(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// checkFranz checks that a topic holds one answer for each event, each under its key, in the order of the source.
func (w *world) checkFranz(topic string, es []event) {
	w.t.Helper()
	all := w.franz(topic)
	last, seen := map[string]int{}, map[int]bool{}
	for _, r := range all {
		i, err := strconv.Atoi(strings.TrimPrefix(headerOf(r, schemas.HeaderRequestID), "req-"))
		if err != nil || seen[i] {
			w.t.Fatalf("event %d is in the topic twice (%v)", i, err)
		}
		seen[i] = true
		if key := fmt.Sprint("key-", i%16); string(r.Key) != key {
			w.t.Fatalf("event %d has key %q", i, r.Key)
		}
		if before, ok := last[string(r.Key)]; ok && before > i {
			w.t.Fatalf("%s: event %d after %d", r.Key, i, before)
		}
		last[string(r.Key)] = i
		if want := fmt.Sprintf(`{"rows":[{"score":%v,"label":"%s!"}]}`, es[i].score(), es[i].Name); string(r.Value) != want {
			w.t.Fatalf("event %d: %s, want %s", i, r.Value, want)
		}
	}
	if len(all) != len(es) {
		w.t.Fatalf("%d messages, want %d", len(all), len(es))
	}
}

// ledgers returns the names of what jobs keep in the cluster.
func (w *world) ledgers() (names []string) {
	w.t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Bootstrap...))
	if err != nil {
		w.t.Fatal(err)
	}
	defer k.Close()
	gs, err := kadm.NewClient(k).ListGroups(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, g := range gs.Groups() {
		if strings.HasPrefix(g, w.kafka.Prefix+"leat.ledger.") {
			names = append(names, g)
		}
	}
	return names
}

// A job to Kafka is killed at each step of its writing, and in the middle of it: readers of committed messages see each
// row once, in order, and nothing is left in the cluster but the rows.
func TestKilledJobsToKafka(t *testing.T) {
	w := newWorld(t)
	w.onKafka()
	setup := w.start("x")
	es := events(1000, 3)
	w.publish(setup, "flights", 1, es)
	setup.stop()
	var dooms []*doom
	for _, step := range []string{"open", "opened", "drop", "dropped"} {
		dooms = append(dooms, &doom{step: step})
	}
	for _, n := range []int64{0, 1, 5, 10} { // before the first chunk, the first, one in the middle, the last
		dooms = append(dooms, &doom{step: "write", n: n}, &doom{step: "written", n: n})
	}
	for i := range int64(8) {
		dooms = append(dooms, &doom{step: "writing", n: 1 + i, delay: time.Duration(i) * time.Millisecond})
	}
	for i, d := range dooms {
		out := fmt.Sprint("scores-", i)
		d.died = make(chan struct{})
		w.doom = d
		p := w.start("x")
		w.doom = nil
		id := p.job(RunRequest{From: "topic:flights", To: "topic:" + out}).ID
		select {
		case <-d.died:
		case <-time.After(60 * time.Second):
			t.Fatalf("%s %d: nobody died", d.step, d.n)
		}
		q := w.start("x")
		v := q.done(id)
		if v.Scored != int64(len(es)) || v.Rows != int64(len(es)) || v.Written != 10 || v.Exit != 0 {
			t.Fatalf("%s %d: %+v", d.step, d.n, v)
		}
		q.stop()
		w.checkFranz(out, es)
	}
	if left := w.ledgers(); len(left) > 0 {
		t.Fatalf("left in the cluster: %v", left)
	}
}

// Processes are killed at random; bad rows go to a topic of their own, once as well.
func TestKilledKafkaJobsAtRandom(t *testing.T) {
	w := newWorld(t)
	w.onKafka()
	setup := w.start("x")
	es := events(3000, 3)
	w.publish(setup, "flights", 4, es)
	bad := make([]schemas.Message, 40)
	for i := range bad {
		bad[i] = schemas.Message{Topic: "flights", Key: fmt.Sprint("key-", i%16), Payload: fmt.Appendf(nil, `{"rows":[{"a":"number %d"}]}`, i)}
	}
	if _, err := setup.topics.Publish(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	setup.stop()
	for seed := range uint64(2) {
		out := fmt.Sprint("scores-", seed)
		id := w.throughDeaths(20+seed, RunRequest{From: "topic:flights", To: "topic:" + out})
		w.checkFranz(out, es)
		rejected := map[string]bool{}
		for _, r := range w.franz(out + rejectedTopic) {
			row := headerOf(r, headerRow)
			if rejected[row] || headerOf(r, schemas.HeaderJob) != id {
				t.Fatalf("%s is rejected twice", row)
			}
			rejected[row] = true
		}
		if len(rejected) != len(bad) {
			t.Fatalf("%d rejected rows, want %d", len(rejected), len(bad))
		}
	}
	if left := w.ledgers(); len(left) > 0 {
		t.Fatalf("left in the cluster: %v", left)
	}
}

// A file's rows have no key; on one partition their order is the file's.
func TestFileToKafka(t *testing.T) {
	w := newWorld(t)
	w.onKafka()
	p := w.start("x")
	es := events(2000, 1)
	if err := p.topics.EnsureTopic(t.Context(), "scores", 1); err != nil {
		t.Fatal(err)
	}
	v := p.done(p.job(RunRequest{From: w.writeEvents("in.parquet", es), To: "topic:scores"}).ID)
	if v.Scored != 2000 || !v.Ledger {
		t.Fatalf("%+v", v)
	}
	all := w.franz("scores")
	for i, r := range all {
		if want := fmt.Sprintf("0/%d.0", i); headerOf(r, headerRow) != want {
			t.Fatalf("row %s where %s is due", headerOf(r, headerRow), want)
		}
	}
	if len(all) != len(es) {
		t.Fatalf("%d messages", len(all))
	}
}

// A coordinator that lost its lease without noticing is fenced by the next one.
func TestTwoCoordinatorsToKafka(t *testing.T) {
	w := newWorld(t)
	w.onKafka()
	p := w.start("x")
	es := events(3000, 4)
	w.publish(p, "flights", 2, es)
	p.model.delay = 30 * time.Millisecond
	q := w.start("x")
	q.model.delay = 30 * time.Millisecond
	id := p.job(RunRequest{From: "topic:flights", To: "topic:scores"}).ID
	p.wait(id, func(v *View) bool { return v.Written >= 3 })
	// q writes as well, although p holds the lease and renews it: each fences the other until p has done it.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := q.newLease(id)
	_, rev, err := q.deps.Jobs.Get(ctx, l.key)
	if err != nil {
		t.Fatal(err)
	}
	l.rev = rev
	j, _, err := q.store.get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	err = q.attempt(ctx, l, j)
	t.Logf("the second coordinator: %v", err)
	v := q.done(id)
	if v.Scored != int64(len(es)) {
		t.Fatalf("%+v", v)
	}
	w.checkFranz("scores", es)
}

// A topic that was made again does not know how far the job was: the job says so and writes nothing twice.
func TestKafkaForgets(t *testing.T) {
	w := newWorld(t)
	w.onKafka()
	p := w.start("x")
	w.publish(p, "flights", 1, events(2000, 1))
	p.model.delay = 10 * time.Millisecond
	id := p.job(RunRequest{From: "topic:flights", To: "topic:scores", Throttle: 2000}).ID
	p.wait(id, func(v *View) bool { return v.Written >= 2 })
	p.kill()
	q := w.start("y") // of another environment: it scores nothing, but coordinates
	if err := q.topics.DeleteTopic(t.Context(), "scores"); err != nil {
		t.Fatal(err)
	}
	v := q.wait(id, ended)
	if v.Status != Failed || !strings.Contains(v.Reason, "does not tell any more how far the job was") {
		t.Fatalf("%s: %s", v.Status, v.Reason)
	}
	if n := len(w.franz("scores")); n != 0 {
		t.Fatalf("%d messages", n)
	}
	if _, err := q.Cancel(t.Context(), &IDRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	q.wait(id, func(v *View) bool { return v.Cleaned })
	if left := w.ledgers(); len(left) > 0 {
		t.Fatalf("left in the cluster: %v", left)
	}
}

// What transactions leave in a topic (aborted records, markers, one of them at the end) is neither read nor waited for,
// and nor is what was deleted.
func TestKafkaGaps(t *testing.T) {
	w := newWorld(t)
	w.onKafka()
	p := w.start("x")
	if err := p.topics.EnsureTopic(t.Context(), "flights", 1); err != nil {
		t.Fatal(err)
	}
	topic := w.kafka.Prefix + "flights"
	k, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Bootstrap...), kgo.TransactionalID(w.kafka.Prefix+"writer"), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	es := events(600, 1)
	var want []event // that are committed
	var deleted int
	for i := 0; i < len(es); i += 20 {
		must(k.BeginTransaction())
		for _, e := range es[i : i+20] {
			must(k.ProduceSync(t.Context(), &kgo.Record{Value: fmt.Appendf(nil, `{"a":%v,"b":%v,"c":%v,"name":%q}`, e.A, e.B, e.C, e.Name)}).FirstErr())
		}
		commit := i/20%3 == 0
		must(k.EndTransaction(t.Context(), kgo.TransactionEndTry(commit))) // the last one is aborted
		if commit {
			want = append(want, es[i:i+20]...)
		}
		if i == 100 { // all so far is deleted
			ends, err := kadm.NewClient(k).ListEndOffsets(t.Context(), topic)
			must(err)
			_, err = kadm.NewClient(k).DeleteRecords(t.Context(), ends.Offsets())
			must(err)
			deleted = len(want)
		}
	}
	want = want[deleted:]
	dst := filepath.Join(w.dir, "out.ndjson")
	v := p.done(p.job(RunRequest{From: "topic:flights@0:1", To: dst}).ID)
	if v.Scored != int64(len(want)) || v.Rejected != 0 || v.RowsLeft != 0 || v.EventTime.IsZero() || v.Partitions[0].Left != 0 || v.Partitions[0].EventEnd.IsZero() {
		t.Fatalf("%+v", v)
	}
	b := w.read(dst)
	score := schemas.Values[float64](b.Column(b.Schema().Index("score")))
	for i, e := range want {
		if score[i] != e.score() {
			t.Fatalf("row %d: %v, want %v", i, score[i], e.score())
		}
	}
}
