package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/integration/child"
	"github.com/leatstream/leat/integration/kafka/broker"
)

// life is one life of a server.
type life struct {
	*child.Server
	over context.Context // ends just before the life does
	end  context.CancelFunc
}

// seat is a server's place: its data folder and its present life. Safe for concurrent use.
type seat struct {
	data    string
	mu      sync.Mutex
	now     *life
	changed chan struct{}
}

func (s *seat) set(l *life) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = l
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns the present life, waiting for one; nil when the context has ended.
func (s *seat) wait(ctx context.Context) *life {
	for {
		s.mu.Lock()
		l, changed := s.now, s.changed
		s.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if l != nil {
			return l
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// pipe is a pipeline from topic to topic with its producer.
type pipe struct {
	name     string
	once     bool // exactly once
	producer producer
}

func (p *pipe) in() string  { return p.name + ".in" }
func (p *pipe) out() string { return p.name + ".out" }

func (p *pipe) spec() string {
	delivery := "at_least_once"
	if p.once {
		delivery = "exactly_once"
	}
	return fmt.Sprintf("apiVersion: leat/v1\nkind: Pipeline\nname: %s\ninput: {topic: %s}\noutput: {topic: %s}\ndelivery: %s\nroute: {model: %s@champion}\n", p.name, p.in(), p.out(), delivery, model)
}

// trial is one series of faults on one cluster. Its topics begin with its prefix, so that trials share a cluster.
type trial struct {
	t       *testing.T
	ctx     context.Context
	cluster *broker.Cluster
	options child.Options // Data is the seat's
	prefix  string
	rand    *rand.Rand
	seed    uint64
	samples [][]byte
	seats   []*seat
	pipes   []*pipe
	watch   *watch
	web     callers // over HTTP
	wire    callers // over Kafka
	v       *verdict

	loads   sync.WaitGroup
	unload  context.CancelFunc
	kills   int
	slowest time.Duration // start
}

// patience is how long a thing may take on a busy machine before it counts as not happening.
const patience = 60 * time.Second

// newTrial starts servers, applies the pipelines and starts the load. The test ends what is still running.
func newTrial(t *testing.T, c *broker.Cluster, prefix string, servers int, o child.Options, seed uint64, pipes ...*pipe) *trial {
	t.Helper()
	dir := t.TempDir()
	tr := &trial{
		t: t, ctx: t.Context(), cluster: c, options: o, prefix: prefix, seed: seed, rand: rand.New(rand.NewPCG(seed, 0)), pipes: pipes, v: newVerdict(),
	}
	tr.web = callers{way: "HTTP", first: make(chan struct{}), refused: map[string]int{}, v: tr.v}
	tr.wire = callers{way: "Kafka", first: make(chan struct{}), refused: map[string]int{}, v: tr.v}
	tr.options.Config = filepath.Join(dir, "leat.yaml")
	tr.options.Args = []string{"--kafka", c.Bootstrap(), "--transport", "kafka", "--lineage", "kafka", "--log", "warn"}
	// A dead member's partitions wait for the end of its session, which is to be shorter than the next life.
	config := fmt.Sprintf("kafka: {prefix: %s, session: 1500ms, partitions: 4}\n", prefix)
	if err := os.WriteFile(tr.options.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if tr.samples, err = readSamples(tr.ctx); err != nil {
		t.Fatal(err)
	}
	for i := range servers {
		s := &seat{data: filepath.Join(dir, "data-"+strconv.Itoa(i)), changed: make(chan struct{})}
		tr.seats = append(tr.seats, s)
		l := tr.begin(s)
		err := l.Push(tr.ctx, filepath.Join(root, "examples", "flights", model))
		for _, p := range pipes {
			err = errors.Join(err, l.Apply(tr.ctx, p.spec()))
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, l.Log())
		}
	}
	tr.load()
	return tr
}

// load starts producers, callers and the watch.
func (tr *trial) load() {
	topics := []string{tr.prefix + "leat.dead"}
	for _, p := range tr.pipes {
		topics = append(topics, tr.prefix+p.out())
	}
	w, err := newWatch(tr.ctx, tr.cluster.Addrs(), topics...)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.watch = w
	tr.t.Cleanup(w.close)
	until, unload := context.WithCancel(tr.ctx)
	tr.unload = unload
	over, cut := context.WithCancel(tr.ctx)
	for i, p := range tr.pipes {
		p.producer.acked = map[string]bool{}
		tr.loads.Go(func() {
			p.producer.run(over, until, tr.cluster.Addrs(), tr.prefix+p.in(), tr.samples, tr.seed+uint64(i))
		})
	}
	cfg := kafka.Default()
	cfg.Bootstrap, cfg.Prefix = tr.cluster.Addrs(), tr.prefix
	client, err := kafka.Dial(tr.ctx, cfg, nil)
	if err != nil {
		tr.t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{}}
	tr.t.Cleanup(func() {
		unload()
		cut()
		tr.loads.Wait()
		client.Close()
		web.CloseIdleConnections()
	})
	for i := range 2 {
		tr.loads.Go(func() {
			tr.web.run(until, strconv.Itoa(i), overHTTP(tr.seats[i%len(tr.seats)], web), tr.samples, tr.seed+uint64(100+i))
		})
		tr.loads.Go(func() {
			tr.wire.run(until, strconv.Itoa(i), overKafka(client), tr.samples, tr.seed+uint64(200+i))
		})
	}
}

// spawn starts a process in a seat; the test ends it.
func (tr *trial) spawn(s *seat) *child.Server {
	tr.t.Helper()
	o := tr.options
	o.Data = s.data
	server, err := child.Start(o)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(server.Kill)
	return server
}

// begin starts a life in a seat. It must come up whatever the last one left behind.
func (tr *trial) begin(s *seat) *life {
	tr.t.Helper()
	start := time.Now()
	l := &life{Server: tr.spawn(s)}
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	if err := l.Ready(ctx); err != nil {
		tr.t.Fatal(err)
	}
	tr.slowest = max(tr.slowest, time.Since(start))
	l.over, l.end = context.WithCancel(tr.ctx)
	tr.t.Cleanup(l.end)
	s.set(l)
	return l
}

// kill ends a seat's life with SIGKILL.
func (tr *trial) kill(s *seat) {
	tr.t.Helper()
	l := s.now
	select {
	case <-l.Exited():
		tr.t.Fatalf("leat serve ended by itself\n%s", l.Log())
	default:
	}
	s.set(nil)
	l.end()
	l.Kill()
	tr.kills++
}

// live lets everything run for a random time between least and most.
func (tr *trial) live(least, most time.Duration) {
	select {
	case <-time.After(least + time.Duration(tr.rand.Int64N(int64(most-least)+1))):
	case <-tr.ctx.Done():
	}
}

// answered waits, without touching any server, until callers who ask from now on, over HTTP and over Kafka, are
// answered, and prints how long that took.
func (tr *trial) answered(what string) {
	tr.t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	for _, c := range []*callers{&tr.web, &tr.wire} {
		if err := c.answered(ctx, start); err != nil {
			tr.t.Fatalf("%s: callers over %s get no answer: %v\n%s", what, c.way, err, tr.logs())
		}
		tr.t.Logf("%s: callers over %s were answered again after %.2f s", what, c.way, time.Since(start).Seconds())
	}
}

// recovers waits, without touching any server, until a caller has been answered and what was acknowledged to the
// producers up to now is in the outputs, and prints how long both took. What they still try to write is not counted: a
// producer that is not ours was seen to come back half a minute after the freezing of a broker.
func (tr *trial) recovers(what string) {
	tr.t.Helper()
	start := time.Now()
	var ids []string
	for _, p := range tr.pipes {
		ids = append(ids, p.producer.stored()...)
	}
	tr.answered(what)
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	if err := tr.watch.all(ctx, ids); err != nil {
		tr.t.Fatalf("%s: %v\n%s", what, err, tr.logs())
	}
	tr.t.Logf("%s: what was acknowledged until then was in the outputs after %.2f s", what, time.Since(start).Seconds())
}

func (tr *trial) logs() string {
	var out string
	for i, s := range tr.seats {
		if s.now != nil {
			out += fmt.Sprintf("server %d:\n%s\n", i, s.now.Log())
		}
	}
	return out
}

// lines decodes NDJSON.
func lines[T any](fn func(*T)) func(io.Reader) error {
	return func(r io.Reader) error {
		d := json.NewDecoder(r)
		for {
			var v T
			if err := d.Decode(&v); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			fn(&v)
		}
	}
}

// records exports a pipeline's lineage, and holds the count against it.
func (tr *trial) records(ctx context.Context, pipeline string) (rs []record) {
	tr.t.Helper()
	l := tr.seats[0].now
	q := url.Values{"pipeline": {pipeline}, "run": {"-"}, "all": {"true"}, "format": {"ndjson"}}
	err := l.Do(ctx, http.MethodGet, "/v1/lineage/export?"+q.Encode(), nil, lines(func(r *record) { rs = append(rs, *r) }))
	var n struct{ Records, Superseded int }
	q.Del("all")
	q.Del("format")
	if err == nil {
		err = l.Do(ctx, http.MethodGet, "/v1/lineage/count?"+q.Encode(), nil, &n)
	}
	if err != nil {
		tr.t.Fatalf("%v\n%s", err, tr.logs())
	}
	canonical := 0
	for _, r := range rs {
		if !r.Superseded {
			canonical++
		}
	}
	if n.Records != canonical || n.Superseded != len(rs)-canonical {
		tr.v.fault(ruleCount, "%s: counted are %+v, %d are exported, with superseded ones %d", pipeline, n, canonical, len(rs))
	}
	return rs
}

// settle ends the load, waits until everything has drained, ends the servers and judges.
func (tr *trial) settle() {
	t := tr.t
	t.Helper()
	start := time.Now()
	tr.unload()
	tr.loads.Wait()
	ctx, cancel := context.WithTimeout(tr.ctx, 2*patience)
	defer cancel()
	truths := make([]*truth, len(tr.pipes))
	topics := []string{tr.prefix + "leat.dead"}
	for i, p := range tr.pipes {
		if p.producer.err != nil {
			t.Fatalf("producer of %s: %v", p.name, p.producer.err)
		}
		if err := settled(ctx, tr.cluster.Addrs(), tr.prefix+p.name, tr.prefix+p.in()); err != nil {
			t.Fatalf("%v\n%s", err, tr.logs())
		}
		topics = append(topics, tr.prefix+p.in(), tr.prefix+p.out())
		truths[i] = &truth{records: tr.records(ctx, p.name)}
	}
	drained := time.Since(start)
	judgeReplies(tr.v, slices.Concat(tr.web.replies, tr.wire.replies), tr.records(ctx, model))
	for _, s := range tr.seats {
		tr.terminate(ctx, s)
	}
	all, err := readCommitted(ctx, tr.cluster.Addrs(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range tr.pipes {
		tr.fill(truths[i], p, all)
		judge(tr.v, p.once, p.producer.acked, truths[i])
		t.Logf("%s: %d events acknowledged, %d stored, %d outputs, %d dead letters, %d records", p.name, len(p.producer.acked), len(truths[i].inputs), len(truths[i].outputs), len(truths[i].dead), len(truths[i].records))
		if len(p.producer.acked) < 50 {
			t.Errorf("%s: a test in which nothing happens proves nothing", p.name)
		}
	}
	for _, c := range []*callers{&tr.web, &tr.wire} {
		t.Logf("%s: %d requests asked, %d answered, refused %v, the slowest refusal after %.2f s", c.way, c.asked, len(c.replies), c.refused, c.slowest.Seconds())
	}
	t.Logf("seed %d: %d kills of leat serve, slowest start %.2f s; drained in %.2f s", tr.seed, tr.kills, tr.slowest.Seconds(), drained.Seconds())
}

// terminate ends a seat's life with SIGTERM.
func (tr *trial) terminate(ctx context.Context, s *seat) {
	l := s.now
	if err := l.Signal(syscall.SIGTERM); err != nil {
		tr.t.Fatal(err)
	}
	if code, err := l.Wait(ctx); err != nil || code != 0 {
		tr.v.fault(ruleExit, "exit status %d, %v\n%s", code, err, l.Log())
	}
	s.set(nil)
	l.end()
}

// fill sorts what was read to its pipeline.
func (tr *trial) fill(to *truth, p *pipe, all map[string][]*kgo.Record) {
	for _, r := range all[tr.prefix+p.in()] {
		to.inputs = append(to.inputs, stored{header(r, "Leat-Request-Id"), string(r.Key), place{r.Partition, r.Offset}})
	}
	for _, r := range all[tr.prefix+p.out()] {
		o, err := asOutput(r)
		if err != nil {
			tr.v.fault(ruleContradict, "%v", err)
			continue
		}
		to.outputs = append(to.outputs, o)
	}
	for _, r := range all[tr.prefix+"leat.dead"] {
		if header(r, "Leat-Dead-Topic") != p.in() {
			continue
		}
		o, err := asOutput(r)
		if err != nil {
			tr.v.fault(ruleContradict, "%v", err)
			continue
		}
		to.dead = append(to.dead, o)
	}
}

// check fails the test if a rule is broken.
func (tr *trial) check() {
	tr.t.Helper()
	if len(tr.v.broken) > 0 {
		tr.t.Errorf("seed %d:\n%s", tr.seed, tr.v)
	}
}
