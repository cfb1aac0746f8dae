package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/memory"
	leatnats "github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/wire"
	"github.com/leatstream/leat/scorers"
)

// world is one NATS server and what the lives of a process over it share.
type world struct {
	testing.TB
	server  *leatnats.Server
	logged  *logBuffer
	log     *slog.Logger
	lin     lineage.Config
	config  pipeline.Config
	marks   string     // path of the poison file, "" for none
	formats *codec.Set // nil: the usual
}

// logBuffer keeps what was logged, for a test that fails.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir())
}

// newWorldIn is newWorld over a folder that may hold an earlier one.
func newWorldIn(t testing.TB, dir string) *world {
	t.Helper()
	w := &world{TB: t, logged: &logBuffer{}, lin: lineage.Default(), config: pipeline.DefaultConfig()}
	w.log = slog.New(slog.NewTextHandler(w.logged, nil))
	t.Cleanup(func() {
		if s := w.logged.String(); t.Failed() {
			t.Logf("log:\n%s", s[max(0, len(s)-16<<10):])
		}
	})
	w.lin.MaxBytes, w.lin.JobsMaxBytes, w.lin.RejectedMaxBytes = 64<<20, 4<<20, 1<<20
	w.lin.WatchEvery = 20 * time.Millisecond
	c := leatnats.DefaultServer()
	c.Dir, c.Port, c.Sync, c.StoreLimit = dir, 0, false, 4<<30
	var err error
	if w.server, err = leatnats.NewServer(c, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	return w
}

// process is one life of one process: a host, and all that it stands on.
type process struct {
	*pipeline.Host
	w      *world
	model  *arithmetic
	client *leatnats.Client
	broker *memory.Broker
	logs   lineage.Logs
	stream *lineage.Stream
	reader *lineage.StreamReader
	wal    *lineage.WriteAhead
	log    *gatedLog // what records are appended to
	out    *gatedPublisher

	sources func(connectors.Source) connectors.Source // wraps what is opened online, if not nil
	answers connectors.Responder                      // stores the answers of the door "http", if not nil

	changes chan change
	cancel  context.CancelFunc
	stopped chan struct{}
	runErr  error
	once    sync.Once
}

type change struct {
	name string
	rev  *pipeline.Revision
	seen chan struct{}
}

// gatedLog asks its gate before each append: an error is the append's answer.
type gatedLog struct {
	schemas.Log
	gate  atomic.Pointer[func(payload []byte) error]
	calls atomic.Int64
	lose  atomic.Int64 // so many acknowledgements get lost
}

func (g *gatedLog) Append(ctx context.Context, subject, id string, payload []byte) (uint64, error) {
	g.calls.Add(1)
	if f := g.gate.Load(); f != nil {
		if err := (*f)(payload); err != nil {
			return 0, err
		}
	}
	seq, err := g.Log.Append(ctx, subject, id, payload)
	if err == nil && g.lose.Add(-1) >= 0 {
		<-ctx.Done()
		return 0, schemas.Errorf(schemas.Unavailable, "test", "no acknowledgement: %w", ctx.Err())
	}
	return seq, err
}

func (g *gatedLog) set(f func(payload []byte) error) { g.gate.Store(&f) }

// gatedPublisher is the same for outputs.
type gatedPublisher struct {
	connectors.Publisher
	gate atomic.Pointer[func(ctx context.Context, msgs []schemas.Message) error]
}

func (g *gatedPublisher) Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error) {
	if f := g.gate.Load(); f != nil {
		if err := (*f)(ctx, msgs); err != nil {
			return nil, err
		}
	}
	return g.Publisher.Publish(ctx, msgs)
}

func (g *gatedPublisher) set(f func(ctx context.Context, msgs []schemas.Message) error) {
	g.gate.Store(&f)
}

// start begins a process's life.
func (w *world) start() *process { return w.begin(20 * time.Second) }

// startToDie begins the life of a process that does not drain.
func (w *world) startToDie() *process { return w.begin(time.Millisecond) }

func (w *world) begin(grace time.Duration) *process {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	p := &process{
		w: w, model: newArithmetic(), cancel: cancel, stopped: make(chan struct{}),
		changes: make(chan change), log: &gatedLog{}, out: &gatedPublisher{},
	}
	nc := leatnats.Default()
	nc.Server, nc.TopicBytes, nc.KVBytes, nc.DeadBytes = w.server, 64<<20, 16<<20, 16<<20
	var err error
	p.client, err = leatnats.Dial(ctx, nc, nil)
	w.must(err)
	w.Cleanup(p.kill)
	p.broker, err = memory.New(memory.Default())
	w.must(err)
	kv, err := p.client.KV(ctx, "LEAT_SCHEMAS")
	w.must(err)
	state, err := p.client.KV(ctx, "LEAT_STATE")
	w.must(err)
	catalogue := wire.NewCatalogue(kv)
	p.logs, err = lineage.Open(ctx, p.client, w.lin)
	w.must(err)
	p.log.Log = p.logs.Online
	gated := p.logs
	gated.Online = p.log
	p.stream = lineage.NewStream(gated, catalogue, w.lin, nil, w.log)
	p.reader = lineage.NewReader(p.logs, catalogue, w.lin, nil)
	p.wal = lineage.NewWriteAhead(p.reader, state)
	p.out.Publisher = p.client
	var poison *pipeline.Poison
	if w.marks != "" {
		poison, err = pipeline.OpenPoison(w.marks)
		w.must(err)
	}
	tables, err := lookup.New(lookup.Default(), buckets{p.client}, nil, w.log)
	w.must(err)
	p.Host, err = pipeline.NewHost(w.config, pipeline.Deps{
		Watch: p.watch, Store: p.model, Loaders: []scorers.Loader{p.model}, Online: p.online, Topic: p.topic, Fan: p.client,
		Lineage: p.stream, WAL: p.wal, Learning: &pipeline.Learning{Journal: lineage.NewJournal(p.reader), Snapshots: state}, Refuse: p.stream.Refuse, Codec: codec.For, Formats: w.formats, CPU: "test", Poison: poison, Log: w.log,
		Tables: tables,
	})
	w.must(err)
	go func() {
		defer close(p.stopped)
		base, stop := context.WithCancel(context.WithoutCancel(ctx))
		below := make(chan struct{})
		go func() {
			defer close(below)
			_ = p.stream.Run(base)
		}()
		p.runErr = p.Host.Run(ctx, grace)
		stop()
		<-below
		if poison != nil {
			_ = poison.Close()
		}
	}()
	p.change("", nil)
	return p
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (p *process) watch(ctx context.Context, fn func(string, *pipeline.Revision)) error {
	for {
		select {
		case c := <-p.changes:
			fn(c.name, c.rev)
			close(c.seen)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *process) change(name string, rev *pipeline.Revision) {
	p.w.Helper()
	c := change{name, rev, make(chan struct{})}
	select {
	case p.changes <- c:
		<-c.seen
	case <-p.stopped:
		p.w.Fatalf("the host has stopped: %v", p.runErr)
	}
}

func (p *process) online(ctx context.Context, name string) ([]pipeline.Binding, error) {
	far, err := p.client.Serve(ctx, name, "primary")
	if err != nil {
		return nil, err
	}
	near, err := p.broker.Serve(ctx, name, "primary")
	if p.sources != nil {
		near = p.sources(near)
	}
	bs := []pipeline.Binding{
		{Via: "nats", Source: far, Responder: p.client},
		{Via: "http", Source: near, Responder: p.broker, Trusted: true},
	}
	if p.answers != nil {
		bs[1].Responder, bs[1].StoresAnswers = p.answers, true
	}
	return bs, err
}

func (p *process) topic(ctx context.Context, s *pipeline.Spec) (b pipeline.Binding, err error) {
	name, in, out := s.Name, s.Input, s.Output
	b = pipeline.Binding{Via: "topic", Durable: true}
	if out != nil {
		b.Output, b.OutputTo = p.out, out.Topic
		if err := p.client.EnsureTopic(ctx, out.Topic, 2); err != nil {
			return b, err
		}
	}
	if err := p.client.EnsureTopic(ctx, in.Topic, 2); err != nil {
		return b, err
	}
	b.Source, err = p.client.Subscribe(ctx, in.Topic, name)
	return b, err
}

// kill ends the process without letting it say goodbye: its connections go first.
func (p *process) kill() {
	p.once.Do(func() {
		p.client.Close()
		p.cancel()
		if p.Host != nil {
			<-p.stopped
		}
	})
}

// stop ends the process in good order, which takes no grace period.
func (p *process) stop() {
	p.w.Helper()
	p.once.Do(func() {
		before := strings.Count(p.w.logged.String(), "grace period")
		p.cancel()
		<-p.stopped
		p.client.Close()
		p.w.must(p.runErr)
		if strings.Count(p.w.logged.String(), "grace period") > before {
			p.w.Error("it had to be given up")
		}
	})
}

// revision makes a pipeline of one model.
func revision(a *arithmetic, name, model string, version int, edit ...func(*pipeline.Spec)) *pipeline.Revision {
	ref := fmt.Sprintf("%s@%d", model, version)
	s := pipeline.Spec{APIVersion: pipeline.APIVersion, Kind: pipeline.Kind, Name: name, Route: pipeline.Node{Model: ref}}
	for _, e := range edit {
		e(&s)
	}
	s = s.Defaulted()
	digest, err := pipeline.SpecDigest(s)
	if err != nil {
		panic(err)
	}
	v, err := a.Version(context.Background(), model, version)
	if err != nil {
		v.Digest = "none"
	}
	ms := []pipeline.ResolvedModel{{Node: pipeline.RootPath, Ref: ref, Name: model, Version: version, Digest: v.Digest}}
	return &pipeline.Revision{
		Revision: pipeline.RevisionOf(digest, ms), SpecDigest: digest, Spec: s, Models: ms, Signature: a.sig, Created: time.Now(), Cause: "apply",
	}
}

func async(s *pipeline.Spec) { s.Lineage = pipeline.Async }

func topics(in, out string) func(*pipeline.Spec) {
	return func(s *pipeline.Spec) {
		s.Input = &pipeline.Input{Topic: in}
		if out != "" {
			s.Output = &pipeline.Output{Topic: out}
		}
	}
}

// apply makes a revision active and waits until it serves.
func (p *process) apply(rev *pipeline.Revision) *pipeline.Revision {
	p.w.Helper()
	p.change(rev.Spec.Name, rev)
	p.w.eventually("the revision serves", func() bool {
		s, ok := p.State(rev.Spec.Name)
		return ok && s.Ready && s.Serving == rev.Revision
	})
	return rev
}

// serve applies version 1 of a model of the pipeline's name.
func (p *process) serve(name string, edit ...func(*pipeline.Spec)) *pipeline.Revision {
	p.w.Helper()
	return p.apply(revision(p.model, name, name, 1, edit...))
}

// eventually waits for a condition.
func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for !ok() {
		select {
		case <-t.C:
		case <-limit.C:
			w.Fatalf("never: %s", what)
		}
	}
}

// answer is a request's answer.
type answer struct {
	header schemas.Header
	Rows   []struct {
		Score float64 `json:"score"`
		By    string  `json:"by"`
	} `json:"rows"`
	err *schemas.Error
	raw string
}

func body(xs ...float64) []byte {
	var b bytes.Buffer
	b.WriteString(`{"rows":[`)
	for i, x := range xs {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"x":%v,"text":"t"}`, x)
	}
	b.WriteString("]}")
	return b.Bytes()
}

func textBody(x float64, text string) []byte {
	return fmt.Appendf(nil, `{"rows":[{"x":%v,"text":%q}]}`, x, text)
}

// ask asks in this process.
func (p *process) ask(name string, payload []byte, header ...string) answer {
	return asks(p.w, p.broker, name, payload, header...)
}

// asks asks and fails the test if there is no answer.
func asks(w *world, r connectors.Requester, name string, payload []byte, header ...string) answer {
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	h := schemas.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	m, err := r.Request(ctx, &schemas.Message{Topic: name, Header: h, Payload: payload})
	if err != nil {
		return answer{err: schemas.AsError("ask", err)}
	}
	a := answer{header: m.Header, raw: string(m.Payload), err: schemas.AnswerError(m)}
	if a.err == nil {
		if err := json.Unmarshal(m.Payload, &a); err != nil {
			w.Errorf("answer %s: %v", m.Payload, err)
		}
	}
	return a
}

// wants fails the test unless an answer has these scores.
func (a answer) wants(t testing.TB, scores ...float64) answer {
	t.Helper()
	if a.err != nil {
		t.Fatalf("error %v: %v", a.err.Kind, a.err)
	}
	if len(a.Rows) != len(scores) {
		t.Fatalf("%d rows, want %d: %s", len(a.Rows), len(scores), a.raw)
	}
	for i, s := range scores {
		if a.Rows[i].Score != s {
			t.Fatalf("row %d: %v, want %v", i, a.Rows[i].Score, s)
		}
	}
	return a
}

// fails fails the test unless an answer is an error of that kind.
func (a answer) fails(t testing.TB, kind schemas.Kind) answer {
	t.Helper()
	if a.err == nil || a.err.Kind != kind {
		t.Fatalf("got %v %s, want %v", a.err, a.raw, kind)
	}
	return a
}

// appended waits until the lineage holds n records of a pipeline.
func (p *process) appended(name string, n int) {
	p.w.Helper()
	last, have := uint64(0), 0
	p.w.eventually(fmt.Sprintf("%d records of %s", n, name), func() bool {
		st, err := p.logs.Online.Stats(p.w.Context())
		if err == nil && st.Last != last { // a scan is a consumer of the server's: not in a tight loop
			last, have = st.Last, len(p.records(lineage.Query{Pipeline: name}))
		}
		return have == n
	})
}

// records returns the canonical records of a pipeline.
func (p *process) records(q lineage.Query) []*lineage.Record {
	p.w.Helper()
	var rs []*lineage.Record
	err := p.reader.Scan(p.w.Context(), q, func(r *lineage.Record) (bool, error) {
		rs = append(rs, r.Clone())
		return true, nil
	})
	p.w.must(err)
	return rs
}

// event is a message of a topic.
func event(topic, key, id string, payload []byte) schemas.Message {
	m := schemas.Message{Topic: topic, Key: key, ID: id, Header: schemas.Header{}, Payload: payload}
	if id != "" {
		m.Header.Set(schemas.HeaderRequestID, id)
	}
	return m
}

func (p *process) publish(ms ...schemas.Message) []schemas.Position {
	p.w.Helper()
	pos, err := p.client.Publish(p.w.Context(), ms)
	p.w.must(err)
	return pos
}

// topicOf returns all that a topic holds, partition by partition.
func (p *process) topicOf(name string) []schemas.Message {
	p.w.Helper()
	spans, err := p.client.Spans(p.w.Context(), name, connectors.Start{})
	p.w.must(err)
	var ms []schemas.Message
	for _, s := range spans {
		if s.Last < s.First {
			continue
		}
		src, err := p.client.Open(p.w.Context(), s)
		p.w.must(err)
		for {
			ds, err := src.Receive(p.w.Context(), 1000)
			if err != nil {
				break
			}
			for _, d := range ds {
				ms = append(ms, d.Message)
			}
		}
		p.w.must(src.Close(p.w.Context()))
	}
	return ms
}

// outputs waits until a topic holds n messages and returns them.
func (p *process) outputs(topic string, n int) []schemas.Message {
	p.w.Helper()
	p.w.eventually(fmt.Sprintf("%s holds %d messages", topic, n), func() bool {
		i, err := p.client.Topic(p.w.Context(), topic)
		return err == nil && int(i.Messages) >= n
	})
	return p.topicOf(topic)
}

// settled waits until nothing of the group's topic is undelivered or unsettled.
func (p *process) settled(topic, group string) {
	p.w.Helper()
	p.w.eventually(topic+" is settled", func() bool {
		i, err := p.client.Topic(p.w.Context(), topic)
		if err != nil {
			return false
		}
		for _, g := range i.Groups {
			if g.Name == group {
				return g.Lag == 0 && g.Pending == 0
			}
		}
		return false
	})
}

// dead returns the dead letters.
func (p *process) dead(n int) []schemas.Entry {
	p.w.Helper()
	var es []schemas.Entry
	p.w.eventually(fmt.Sprintf("%d dead letters", n), func() bool {
		es = es[:0]
		l, err := p.client.OpenLog(p.w.Context(), schemas.LogConfig{Name: "LEAT_DEAD", Prefix: "leat.dead", MaxBytes: 16 << 20})
		if err != nil {
			return false
		}
		err = l.Read(p.w.Context(), 0, nil, false, func(e *schemas.Entry) bool {
			es = append(es, *e)
			return true
		})
		return err == nil && len(es) >= n
	})
	return es
}
