package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/memory"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/scorers"
)

// ledger is a transport with transactions that outlives the processes over it: topics in, out and that of the lineage.
// It watches what it is asked for.
type ledger struct {
	testing.TB
	*memory.Broker
	config pipeline.Config
	logged *logBuffer
	log    *slog.Logger
	shelf  shelf

	gate  atomic.Pointer[func(msgs []schemas.Message, accept []*connectors.Delivery) error]
	lose  atomic.Int64 // so many answers of transactions that were committed get lost
	calls atomic.Int64

	mu struct {
		sync.Mutex
		lost map[schemas.Position]lostAnswer
		rows []int // deliveries of each transaction
	}
	checkpoint, scans atomic.Uint64
}

// lostAnswer is a transaction that was committed and whose caller does not know.
type lostAnswer struct {
	term uint64
	msgs []schemas.Message
}

func newLedger(t testing.TB, partitions int) *ledger {
	t.Helper()
	b, err := memory.New(memory.Default())
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{TB: t, Broker: b, config: pipeline.DefaultConfig(), logged: &logBuffer{}}
	l.config.TransactionInterval = 5 * time.Millisecond
	l.log = slog.New(slog.NewTextHandler(l.logged, nil))
	t.Cleanup(func() {
		if s := l.logged.String(); t.Failed() {
			t.Logf("log:\n%s", s[max(0, len(s)-16<<10):])
		}
	})
	l.mu.lost = map[schemas.Position]lostAnswer{}
	for topic, n := range map[string]int{"in": partitions, "out": 3, "leat.lineage": 1} {
		if err := b.EnsureTopic(context.Background(), topic, n); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// Transact is the broker's, with what a gate does before it, and with answers that get lost: then the same call must come
// again, and has taken effect once.
func (l *ledger) Transact(ctx context.Context, msgs []schemas.Message, accept []*connectors.Delivery) ([]schemas.Position, error) {
	l.calls.Add(1)
	first := accept[0]
	l.mu.Lock()
	lost, repeated := l.mu.lost[first.From]
	l.mu.Unlock()
	if repeated && lost.term == first.Term {
		if !slices.EqualFunc(lost.msgs, msgs, func(a, b schemas.Message) bool {
			return a.Topic == b.Topic && a.Key == b.Key && a.ID == b.ID && bytes.Equal(a.Payload, b.Payload)
		}) {
			l.Error("a call of unknown outcome came again with other messages")
		}
		return make([]schemas.Position, len(msgs)), nil
	}
	if f := l.gate.Load(); f != nil {
		if err := (*f)(msgs, accept); err != nil {
			return nil, err
		}
	}
	at, err := l.Broker.Transact(ctx, msgs, accept)
	if err != nil {
		if schemas.KindOf(err) == schemas.Internal {
			l.Errorf("a mistake of the committer's: %v", err)
		}
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.rows = append(l.mu.rows, len(accept))
	if l.lose.Add(-1) >= 0 {
		l.mu.lost[first.From] = lostAnswer{first.Term, msgs}
		return nil, schemas.Errorf(schemas.Unavailable, "test", "the answer got lost: %w", errOutside)
	}
	return at, nil
}

func (l *ledger) set(f func(msgs []schemas.Message, accept []*connectors.Delivery) error) {
	l.gate.Store(&f)
}

// transactions returns the deliveries of each so far.
func (l *ledger) transactions() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.rows)
}

// shelf is a catalogue of schemas.
type shelf struct{ sync.Map }

func (s *shelf) Put(_ context.Context, sc *schemas.Schema) error {
	s.Store(sc.ID(), sc)
	return nil
}

func (s *shelf) Lookup(_ context.Context, id schemas.SchemaID) (*schemas.Schema, error) {
	sc, ok := s.Load(id)
	if !ok {
		return nil, schemas.Errorf(schemas.NotFound, "test", "no schema %s", id)
	}
	return sc.(*schemas.Schema), nil
}

// topicLog is the topic of the lineage as a log.
type topicLog struct {
	schemas.Log
	l *ledger
}

func (g topicLog) Append(ctx context.Context, subject, id string, payload []byte) (uint64, error) {
	at, err := g.l.Publish(ctx, []schemas.Message{{Topic: "leat.lineage", Key: subject, ID: id, Payload: payload}})
	if err != nil {
		return 0, err
	}
	return at[0].Sequence, nil
}

func (g topicLog) Read(_ context.Context, from uint64, _ []string, _ bool, fn func(*schemas.Entry) bool) error {
	for i, m := range g.l.topic("leat.lineage") {
		if seq := uint64(i + 1); seq >= from && !fn(&schemas.Entry{Sequence: seq, Subject: m.Key, Time: m.Time, Payload: m.Payload}) {
			return nil
		}
	}
	return nil
}

func (g topicLog) Stats(ctx context.Context) (schemas.LogStats, error) {
	i, err := g.l.Topic(ctx, "leat.lineage")
	return schemas.LogStats{First: 1, Last: i.Messages, Messages: i.Messages, Bytes: i.Bytes}, err
}

// The write-ahead log: nothing of a pipeline that is exactly once is looked up there.

func (l *ledger) Recover(context.Context, string, uint64, func(*lineage.Record) bool) error {
	l.scans.Add(1)
	return nil
}

func (l *ledger) Checkpoint(context.Context, string) (uint64, error) { return l.checkpoint.Load(), nil }

func (l *ledger) SaveCheckpoint(_ context.Context, _ string, seq uint64) error {
	l.checkpoint.Store(seq)
	return nil
}

// life is one process over the ledger.
type life struct {
	*pipeline.Host
	l       *ledger
	model   *arithmetic
	dead    atomic.Bool // it does not reach its transport any more
	changes chan change
	cancel  context.CancelFunc
	stopped chan struct{}
	runErr  error

	mu struct {
		sync.Mutex
		now  map[int32]bool // partitions that commit
		most int            // at once
	}
}

// begin starts a process that serves version 1 of the pipeline "sums" from in to out.
func (l *ledger) begin(grace time.Duration, edit ...func(*pipeline.Spec)) *life {
	l.Helper()
	p := l.idle(grace)
	p.serve(edit...)
	return p
}

// idle starts a process that serves nothing yet.
func (l *ledger) idle(grace time.Duration) *life {
	l.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &life{l: l, model: newArithmetic(), cancel: cancel, changes: make(chan change), stopped: make(chan struct{})}
	p.mu.now = map[int32]bool{}
	lin := lineage.Default()
	var err error
	p.Host, err = pipeline.NewHost(l.config, pipeline.Deps{
		Watch: func(ctx context.Context, fn func(string, *pipeline.Revision)) error {
			fn("", nil)
			for {
				select {
				case c := <-p.changes:
					fn(c.name, c.rev)
					close(c.seen)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
		Store: p.model, Loaders: []scorers.Loader{p.model}, Topic: p.topic, WAL: l, Codec: codec.For, CPU: "test", Log: l.log,
		Online:  func(context.Context, string) ([]pipeline.Binding, error) { return nil, nil },
		Lineage: lineage.NewStream(lineage.Logs{Online: topicLog{l: l}}, &l.shelf, lin, nil, l.log),
	})
	if err != nil {
		l.Fatal(err)
	}
	go func() {
		defer close(p.stopped)
		p.runErr = p.Run(ctx, grace)
	}()
	l.Cleanup(p.kill)
	return p
}

func (p *life) topic(ctx context.Context, s *pipeline.Spec) (b pipeline.Binding, err error) {
	b = pipeline.Binding{Via: "topic", Durable: true, Output: p.l, OutputTo: s.Output.Topic}
	if s.Delivery == pipeline.ExactlyOnce {
		b.Transactor = p
	}
	b.Source, err = p.l.Subscribe(ctx, s.Input.Topic, s.Name)
	return b, err
}

// Transact is the ledger's until the process dies.
func (p *life) Transact(ctx context.Context, msgs []schemas.Message, accept []*connectors.Delivery) ([]schemas.Position, error) {
	of := accept[0].From.Partition
	p.mu.Lock()
	if p.mu.now[of] {
		p.l.Errorf("two transactions of partition %d at once", of)
	}
	p.mu.now[of] = true
	p.mu.most = max(p.mu.most, len(p.mu.now))
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.mu.now, of)
		p.mu.Unlock()
	}()
	if p.dead.Load() {
		return nil, schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
	}
	return p.l.Transact(ctx, msgs, accept)
}

func (p *life) DeadLetter(d *connectors.Delivery, cause error) schemas.Message {
	return p.l.DeadLetter(d, cause)
}

func exactly(s *pipeline.Spec) {
	topics("in", "out")(s)
	s.Delivery = pipeline.ExactlyOnce
}

// serve applies version 1, as exactly once unless edit says otherwise.
func (p *life) serve(edit ...func(*pipeline.Spec)) *pipeline.Revision {
	p.l.Helper()
	rev := revision(p.model, "sums", "sums", 1, append([]func(*pipeline.Spec){exactly}, edit...)...)
	c := change{"sums", rev, make(chan struct{})}
	p.changes <- c
	<-c.seen
	eventually(p.l, "the revision serves", func() bool {
		s, ok := p.State("sums")
		return ok && s.Ready && s.Serving == rev.Revision
	})
	return rev
}

// kill ends the process where it stands.
func (p *life) kill() {
	p.dead.Store(true)
	p.cancel()
	<-p.stopped
}

// stop ends it in good order.
func (p *life) stop() {
	p.l.Helper()
	p.cancel()
	<-p.stopped
	if p.runErr != nil || strings.Contains(p.l.logged.String(), "grace period") {
		p.l.Errorf("it had to be given up: %v", p.runErr)
	}
	if n := len(p.model.open()); n > 0 {
		p.l.Errorf("%d models are still loaded", n)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("never: %s", what)
		}
	}
}

// topic returns what a topic holds, partition by partition.
func (l *ledger) topic(name string) []schemas.Message {
	l.Helper()
	spans, err := l.Spans(context.Background(), name, connectors.Start{})
	if err != nil {
		l.Fatal(err)
	}
	var ms []schemas.Message
	for _, s := range spans {
		src, err := l.Open(context.Background(), s)
		if err != nil {
			l.Fatal(err)
		}
		for {
			ds, err := src.Receive(context.Background(), 1000)
			if err != nil {
				break
			}
			for _, d := range ds {
				ms = append(ms, d.Message)
			}
		}
	}
	return ms
}

// held returns how many events are not settled.
func (l *ledger) held() (n int) {
	i, err := l.Topic(context.Background(), "in")
	if err != nil {
		l.Fatal(err)
	}
	n = int(i.Messages)
	for _, g := range i.Groups {
		n = int(g.Lag + g.Pending)
	}
	return n
}

func (l *ledger) publish(es ...schemas.Message) {
	l.Helper()
	if _, err := l.Publish(context.Background(), es); err != nil {
		l.Fatal(err)
	}
}

// eventsFrom are n events of which some are bad: those whose number ends in 13 cannot be read, in 37 not be scored.
func eventsFrom(from, n, keys int) []schemas.Message {
	es := unfolded(from, n, keys)
	for i := range es {
		switch (from + i) % 100 {
		case 13:
			es[i].Payload = []byte(`{"rows":[`)
		case 37:
			es[i].Payload = textBody(float64(from+i), "bad")
		}
	}
	return es
}

// unfolded are numbered events that the broker never takes for repeats.
func unfolded(from, n, keys int) []schemas.Message {
	es := numbered("in", from, n, keys)
	for i := range es {
		es[i].ID = ""
	}
	return es
}

// check compares what is there with n such events: each output, each dead letter and each record once, every key in
// order.
func (l *ledger) check(n, keys int) {
	l.Helper()
	want := map[string][]string{} // by key
	dead, records := map[string]int{}, map[string]int{}
	for i := range n {
		id, key := fmt.Sprintf("event-%d", i), fmt.Sprintf("key-%d", i%keys)
		switch i % 100 {
		case 13:
			dead[id]++
		case 37:
			dead[id]++
			records[id]++
		default:
			want[key] = append(want[key], id)
			records[id]++
		}
	}
	got := map[string][]string{}
	for _, m := range l.topic("out") {
		got[m.Key] = append(got[m.Key], m.Header.Get(schemas.HeaderRequestID))
	}
	for key, ids := range want {
		if !slices.Equal(got[key], ids) {
			l.Errorf("%s: %d outputs, want %d; they are %v", key, len(got[key]), len(ids), got[key])
		}
	}
	for _, m := range l.Dead() {
		dead[m.Header.Get(schemas.HeaderRequestID)]--
	}
	r := lineage.NewReader(lineage.Logs{Online: topicLog{l: l}}, &l.shelf, lineage.Default(), nil)
	err := r.Scan(context.Background(), lineage.Query{Pipeline: "sums", Run: lineage.RunNone, All: true}, func(r *lineage.Record) (bool, error) {
		records[r.RequestID]--
		return true, nil
	})
	if err != nil {
		l.Fatal(err)
	}
	for what, m := range map[string]map[string]int{"dead letters": dead, "records": records} {
		for id, n := range m {
			if n != 0 {
				l.Errorf("%s: %d %s too few", id, n, what)
			}
		}
	}
}

func (l *ledger) partition(topic string, p int32) []schemas.Message {
	if p < 0 {
		return nil
	}
	spans, err := l.Spans(context.Background(), topic, connectors.Start{})
	if err != nil {
		l.Fatal(err)
	}
	src, err := l.Open(context.Background(), spans[p])
	if err != nil {
		l.Fatal(err)
	}
	var ms []schemas.Message
	for {
		ds, err := src.Receive(context.Background(), 1000)
		if errors.Is(err, schemas.ErrDrained) {
			return ms
		}
		for _, d := range ds {
			ms = append(ms, d.Message)
		}
	}
}
