package feedback_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/feedback"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
	"github.com/leatstream/leat/schemas/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }

// world is a server with a lineage and nothing else, and the feedback that it took.
type world struct {
	t       *testing.T
	server  *nats.Server
	client  *nats.Client
	kafka   *kafka.Client
	logs    lineage.Logs
	stream  lineage.FeedbackAppender
	reader  *lineage.StreamReader
	reg     *prometheus.Registry
	metrics *feedback.Metrics
	refused atomic.Int64
}

func newWorld(t *testing.T, size int64) *world {
	w := &world{t: t, reg: prometheus.NewRegistry()}
	w.metrics = feedback.NewMetrics(w.reg)
	sc := nats.DefaultServer()
	sc.Dir, sc.Port, sc.Sync, sc.StoreLimit = t.TempDir(), 0, false, 8<<30
	var err error
	if w.server, err = nats.NewServer(sc, nil); err == nil {
		err = w.server.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	c := nats.Default()
	c.Server = w.server
	if w.client, err = nats.Dial(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	kv, err := w.client.KV(t.Context(), "LEAT_TEST")
	if err != nil {
		t.Fatal(err)
	}
	lc := lineage.Default()
	lc.MaxBytes, lc.JobsMaxBytes = size, size
	if w.logs, err = lineage.Open(t.Context(), w.client, lc); err != nil {
		t.Fatal(err)
	}
	catalogue := wire.NewCatalogue(kv)
	w.stream = lineage.NewStream(w.logs, catalogue, lc, nil, nil)
	w.reader = lineage.NewReader(w.logs, catalogue, lc, nil)
	return w
}

// serve runs a service until the test ends, or stop is called.
func (w *world) serve() (s *feedback.Service, stop func()) {
	w.t.Helper()
	d := feedback.Deps{
		Lineage: w.stream, Refuse: func(lineage.Refusal) { w.refused.Add(1) }, Log: logTo(w.t), Metrics: w.metrics,
		Exists: func(_ context.Context, name string) error {
			if name != "fraud" && name != "other" {
				return schemas.Errorf(schemas.NotFound, "test", "no pipeline %q", name)
			}
			return nil
		},
	}
	open := make(chan struct{})
	d.Online = func(ctx context.Context) (feedback.Door, error) {
		defer close(open)
		src, err := w.client.ServeFeedback(ctx, "feedback")
		return feedback.Door{Via: "nats", Source: src, Responder: w.client, Trusted: true}, err
	}
	if w.kafka != nil {
		d.Topic = func(ctx context.Context, p string) (feedback.Door, error) {
			src, err := w.kafka.ServeFeedback(ctx, p)
			return feedback.Door{Via: "kafka", Source: src, Pipeline: p}, err
		}
	}
	s = feedback.New(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx, 10*time.Second); !errors.Is(err, context.Canceled) {
			w.t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	<-open
	return s, stop
}

// user is a client of the account of users.
func (w *world) user() *natsgo.Conn {
	w.t.Helper()
	nc, err := natsgo.Connect(w.server.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	return nc
}

// said is all feedback that is kept, a word each.
func (w *world) said(q lineage.Query) string {
	w.t.Helper()
	var got []string
	err := w.reader.Feedback(context.Background(), q, func(f *lineage.Feedback) (bool, error) {
		got = append(got, fmt.Sprintf("%s/%s%s/%d=%v", f.Pipeline, f.RequestID, f.Entity, f.Row, f.Label))
		return true, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(got, " ")
}

// ask requests and returns the answer, or the error that it is.
func (w *world) ask(nc *natsgo.Conn, pipeline, body string) (feedback.Reply, error) {
	w.t.Helper()
	m, err := nc.Request("leat.feedback."+pipeline, []byte(body), 20*time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	if k := m.Header.Get(schemas.HeaderErrorKind); k != "" {
		var e struct{ Message, Field string }
		if err := json.Unmarshal(m.Data, &e); err != nil || m.Header.Get("Nats-Service-Error-Code") == "" {
			w.t.Fatalf("no error as others are: %s %v", m.Data, m.Header)
		}
		return feedback.Reply{}, schemas.FieldErrorf(schemas.ParseKind(k), "", e.Field, "%s", e.Message)
	}
	var r feedback.Reply
	if err := json.Unmarshal(m.Data, &r); err != nil {
		w.t.Fatal(err)
	}
	return r, nil
}

func TestNATS(t *testing.T) {
	w := newWorld(t, 64<<20)
	_, stop := w.serve()
	nc := w.user()
	r, err := w.ask(nc, "fraud", `{"request_id":"q1","row":2,"label":true}`)
	if err != nil || r.Kept != 1 || len(r.IDs) != 1 || len(r.IDs[0]) != 64 {
		t.Fatalf("%+v %v", r, err)
	}
	if got := w.said(lineage.Query{}); got != "fraud/q1/2=true" { // what is answered is there
		t.Fatal(got)
	}
	r, err = w.ask(nc, "other", `[{"request_id":"q1","label":1.5,"feedback_id":"mine"},{"entity":"e","label":"x","time":"2026-01-02T03:04:05Z"}]`)
	if err != nil || r.Kept != 2 || r.IDs[0] != "mine" {
		t.Fatalf("%+v %v", r, err)
	}
	// Of a list all or nothing; the field is named.
	for _, c := range []struct {
		pipeline, body, field string
		kind                  schemas.Kind
	}{
		{"fraud", `[{"request_id":"q9","label":1},{"request_id":"q9"}]`, "[1].label", schemas.Invalid},
		{"fraud", `nonsense`, "", schemas.Invalid},
		{"fraud", strings.Repeat("x", 500_000), "", schemas.Invalid},
		{"nobody", `{"request_id":"q9","label":1}`, "", schemas.NotFound},
		{"NoName", `{"request_id":"q9","label":1}`, "pipeline", schemas.Invalid},
	} {
		if _, err := w.ask(nc, c.pipeline, c.body); schemas.KindOf(err) != c.kind || schemas.AsError("", err).Field != c.field {
			t.Errorf("%.40s: %v", c.body, err)
		}
	}
	// Published without a wish for an answer; a principal of the caller's own making is not believed.
	m := natsgo.NewMsg("leat.feedback.fraud")
	m.Data = []byte(`{"request_id":"q2","label":"late"}`)
	m.Header.Set(schemas.HeaderPrincipal, "root")
	for _, data := range []string{`{"request_id":"q2","label":"late"}`, `broken`} {
		m.Data = []byte(data)
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	stop() // finishes what has arrived
	if got := w.said(lineage.Query{}); got != "fraud/q1/2=true other/q1/0=1.5 other/e/0=x fraud/q2/0=late" {
		t.Error(got)
	}
	err = w.reader.Feedback(t.Context(), lineage.Query{RequestID: "q2"}, func(f *lineage.Feedback) (bool, error) {
		if f.Principal != "" || f.Via != "nats" || f.Received.IsZero() {
			t.Errorf("%+v", f)
		}
		return true, nil
	})
	if err != nil {
		t.Error(err)
	}
	if n := w.refused.Load(); n != 6 {
		t.Errorf("%d refusals", n)
	}
	if got, want := w.counts(), "fraud kept 2, other kept 2,  refused 6"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// counts is the metric, by its labels.
func (w *world) counts() string {
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			l := m.GetLabel()
			got = append(got, fmt.Sprintf("%s %s %v", l[1].GetValue(), l[0].GetValue(), m.GetCounter().GetValue()))
		}
	}
	return strings.Join(got, ", ")
}

// Nobody listens to what others say, and what no process takes is told to who asks.
func TestNATSAccounts(t *testing.T) {
	w := newWorld(t, 64<<20)
	nc := w.user()
	denied := make(chan error, 1)
	nc.SetErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { denied <- err })
	if _, err := nc.Subscribe("leat.feedback.>", func(*natsgo.Msg) {}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-denied:
		if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a user listens to feedback")
	}
	if _, err := nc.Request("leat.feedback.fraud", []byte(`{}`), 5*time.Second); !errors.Is(err, natsgo.ErrNoResponders) {
		t.Errorf("without a server: %v", err)
	}
}

// cut keeps feedback and says that nobody knows, as often as it is told to: a process that dies between the append and the answer.
type cut struct {
	lineage.FeedbackAppender
	left atomic.Int64
}

func (c *cut) AppendFeedback(ctx context.Context, fs []lineage.Feedback) []error {
	errs := c.FeedbackAppender.AppendFeedback(ctx, fs)
	if c.left.Add(-1) < 0 {
		return errs
	}
	errs = make([]error, len(fs))
	for i := range errs {
		errs[i] = schemas.Errorf(schemas.Unavailable, "test", "killed after the append")
	}
	return errs
}

func TestAppendedAndNotAnswered(t *testing.T) {
	w := newWorld(t, 64<<20)
	c := &cut{FeedbackAppender: w.stream}
	w.stream = c
	c.left.Store(1)
	w.serve()
	nc := w.user()
	const body = `{"request_id":"q1","label":true}`
	if _, err := w.ask(nc, "fraud", body); schemas.KindOf(err) != schemas.Unavailable {
		t.Fatal(err)
	}
	r, err := w.ask(nc, "fraud", body)
	if err != nil || r.Kept != 1 {
		t.Fatal(err)
	}
	if got := w.said(lineage.Query{}); got != "fraud/q1/0=true" {
		t.Errorf("doubled: %s", got)
	}
	if got := w.said(lineage.Query{All: true}); got != "fraud/q1/0=true fraud/q1/0=true" {
		t.Errorf("both are stored: %s", got)
	}
}

func TestOperation(t *testing.T) {
	w := newWorld(t, 4*lineage.MaxMessage)
	s, _ := w.serve()
	op := s.Operations()[0]
	put := func(body string) (*feedback.Reply, error) {
		req, err := op.Decode(nil, nil, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		v, err := op.Handle(api.WithCaller(t.Context(), api.Caller{Principal: "alice", Via: "http"}), req)
		if err != nil {
			return nil, err
		}
		return v.(*feedback.Reply), nil
	}
	r, err := put(`[{"pipeline":"fraud","request_id":"q1","label":1},{"pipeline":"other","request_id":"q2","reward":-0.5}]`)
	if err != nil || r.Kept != 2 {
		t.Fatal(r, err)
	}
	err = w.reader.Feedback(t.Context(), lineage.Query{Pipeline: "other"}, func(f *lineage.Feedback) (bool, error) {
		if f.Principal != "alice" || f.Via != "http" || *f.Reward != -0.5 {
			t.Errorf("%+v", f)
		}
		return true, nil
	})
	if err != nil {
		t.Error(err)
	}
	for body, field := range map[string]string{
		``: "", `[]`: "", `{}`: "pipeline", `{"pipeline":"fraud"}`: "request_id", `{"pipeline":"fraud","request_id":"q","labels":1}`: "labels",
		`[{"pipeline":"fraud","request_id":"q","label":1},{"pipeline":"fraud","request_id":"q","label":1,"row":-4}]`: "[1].row",
	} {
		if _, err := put(body); schemas.KindOf(err) != schemas.Invalid || schemas.AsError("", err).Field != field {
			t.Errorf("%s: %v at %q", body, err, schemas.AsError("", err).Field)
		}
	}
	if _, err := put(`[{"pipeline":"fraud","request_id":"q7","label":1},{"pipeline":"nobody","request_id":"q","label":1}]`); schemas.KindOf(err) != schemas.NotFound {
		t.Errorf("an unknown pipeline: %v", err)
	}
	if strings.Contains(w.said(lineage.Query{}), "q7") {
		t.Error("a part of a list was kept")
	}
	// A full lineage refuses, and says so.
	comment := strings.Repeat("x", 8000)
	for i := 0; ; i++ {
		var fs []string
		for j := range 100 {
			fs = append(fs, fmt.Sprintf(`{"pipeline":"fraud","request_id":"%d-%d","comment":%q}`, i, j, comment))
		}
		if _, err = put("[" + strings.Join(fs, ",") + "]"); err != nil {
			break
		}
		if i > 20 {
			t.Fatal("it never was full")
		}
	}
	if schemas.KindOf(err) != schemas.Unavailable || !errors.Is(err, schemas.ErrFull) || !strings.Contains(err.Error(), "were not kept") {
		t.Error(err)
	}
}

// onKafka gives the world a real cluster, apart from other tests by a prefix.
func (w *world) onKafka() (addrs []string, prefix string) {
	w.t.Helper()
	c := kafka.Default()
	c.Bootstrap, c.Prefix, c.Partitions = broker.Shared(w.t).Addrs(), fmt.Sprintf("feedback-%d.", time.Now().UnixNano()), 2
	var err error
	if w.kafka, err = kafka.Dial(w.t.Context(), c, nil); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.kafka.Close)
	return c.Bootstrap, c.Prefix
}

func TestKafka(t *testing.T) {
	w := newWorld(t, 64<<20)
	addrs, prefix := w.onKafka()
	c := &cut{FeedbackAppender: w.stream}
	w.stream = c
	s, stop := w.serve()
	s.Follow("fraud", true)
	s.Follow("fraud", true)
	s.Follow("other", true)
	s.Follow("other", false)
	producer, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.UnknownTopicRetries(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	send := func(bodies ...string) {
		t.Helper()
		for _, b := range bodies {
			r := &kgo.Record{Topic: prefix + "leat.feedback.fraud", Key: []byte("k"), Value: []byte(b), Headers: []kgo.RecordHeader{{Key: schemas.HeaderPrincipal, Value: []byte("root")}}}
			if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The first append is cut before it is known: the record comes again, and is kept once.
	c.left.Store(1)
	send(`{"request_id":"q1","label":true}`, `no feedback`, `[{"request_id":"q1","label":false},{"entity":"e","label":"x","time":"2026-01-02T03:04:05Z"}]`)
	const want = "fraud/q1/0=true fraud/q1/0=false fraud/e/0=x"
	until(t, "all is kept", func() bool { return w.said(lineage.Query{}) == want })
	err = w.reader.Feedback(t.Context(), lineage.Query{}, func(f *lineage.Feedback) (bool, error) {
		if f.Via != "kafka" || f.Principal != "" {
			t.Errorf("%+v", f)
		}
		return true, nil
	})
	if err != nil {
		t.Error(err)
	}
	// What is no feedback is put aside with its cause.
	dead := deadLetters(t, w.kafka)
	if len(dead) != 1 || string(dead[0].Payload) != "no feedback" || dead[0].Header.Get(schemas.HeaderErrorKind) != "invalid" {
		t.Errorf("dead letters: %+v", dead)
	}
	// All is settled: whoever comes next is given nothing again.
	until(t, "all is settled", func() bool {
		lag, err := kadm.NewClient(producer).Lag(t.Context(), prefix+"leat.feedback.fraud")
		return err == nil && lag[prefix+"leat.feedback.fraud"].Lag.Total() == 0
	})
	stop()
	stored := w.said(lineage.Query{All: true})
	again, _ := w.serve()
	again.Follow("fraud", true)
	send(`{"request_id":"end","label":1}`)
	until(t, "the next is kept", func() bool { return w.said(lineage.Query{All: true}) == stored+" fraud/end/0=1" })
}

func deadLetters(t *testing.T, c *kafka.Client) (all []*connectors.Delivery) {
	t.Helper()
	until(t, "a dead letter", func() bool {
		all = nil
		spans, err := c.Spans(t.Context(), "leat.dead", connectors.Start{})
		if err != nil {
			return false
		}
		for _, s := range spans {
			if s.Last < s.First {
				continue
			}
			src, err := c.Open(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			for {
				ds, err := src.Receive(t.Context(), 100)
				if err != nil {
					break
				}
				all = append(all, ds...)
			}
			src.Close(t.Context())
		}
		return len(all) > 0
	})
	return all
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(60 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("never: " + what)
		}
	}
}
