package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// serving answers the pipeline p with fn until the test ends.
func serving(t testing.TB, c *Client, fn func(d *connectors.Delivery) (schemas.Header, []byte)) connectors.Source {
	t.Helper()
	src, err := c.Serve(within(t), "p", primary)
	must(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			ds, err := src.Receive(ctx, 64)
			if err != nil {
				return
			}
			var rs []connectors.Response
			for _, d := range ds {
				if h, b := fn(d); d.ReplyTo != "" {
					rs = append(rs, connectors.Response{To: d.ReplyTo, Header: h, Payload: b})
				}
			}
			if err := c.Respond(ctx, rs); err != nil && ctx.Err() == nil && c.closing.Err() == nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() { src.Close(ctx); stop(); wg.Wait() })
	return src
}

func mirror(d *connectors.Delivery) (schemas.Header, []byte) {
	return schemas.Header{schemas.HeaderRequestID: d.Header[schemas.HeaderRequestID]}, d.Payload
}

// truth makes a condition to wait for.
func truth(ok func() bool) func() error {
	return func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	}
}

// TestOneIDTwice: requests of one process under one id at the same time get each their own answer.
func TestOneIDTwice(t *testing.T) {
	ctx := within(t)
	c := open(t)
	serving(t, c, mirror)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := strconv.Itoa(i)
			r, err := c.Request(ctx, &schemas.Message{Topic: "p", Payload: []byte(want), Header: schemas.Header{schemas.HeaderRequestID: {"same"}}})
			if err != nil || string(r.Payload) != want || r.Header.Get(schemas.HeaderRequestID) != "same" || len(r.Header) != 1 {
				t.Errorf("asked %s, got %v, %v", want, r, err)
			}
		})
	}
	wg.Wait()
}

// foreign is a caller that writes and reads records and knows nothing else of ours.
type foreign struct {
	t testing.TB
	c *Client
}

func (f foreign) ask(ctx context.Context, headers map[string]string, value string) {
	f.t.Helper()
	var hs []kafka.Header
	for k, v := range headers {
		hs = append(hs, kafka.Header{Key: k, Value: []byte(v)})
	}
	recs := []record{{topic: f.c.name("leat.score.p"), value: []byte(value), headers: hs}}
	_, err := f.c.produce(ctx, recs)
	must(f.t, err)
}

// answers reads so many answers from a partition of a topic, from its first record.
func (f foreign) answers(ctx context.Context, topic string, partition int32, n int) []schemas.Message {
	f.t.Helper()
	var out []schemas.Message
	for _, r := range drain(f.t, ctx, f.c.newFetcher(topic, partition, fromFirst), n) {
		h, _ := header(r.headers)
		out = append(out, schemas.Message{Header: h, Payload: r.value})
	}
	return out
}

// TestForeignCaller asks as a client in another language does.
func TestForeignCaller(t *testing.T) {
	ctx := within(t)
	server := open(t)
	other := dialConfig(t, server.cfg)
	f := foreign{t: t, c: other}
	var seen sync.Map
	serving(t, server, func(d *connectors.Delivery) (schemas.Header, []byte) {
		seen.Store(string(d.Payload), d)
		return mirror(d)
	})
	replies := server.name("leat.replies")
	to := func(id string, more ...string) map[string]string {
		h := map[string]string{schemas.HeaderRequestID: id, schemas.HeaderReplyTo: replies, schemas.HeaderReplyPartition: "7"}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	f.ask(ctx, to("plain"), "one")
	if r := f.answers(ctx, "leat.replies", 7, 1)[0]; string(r.Payload) != "one" || r.Header.Get(schemas.HeaderRequestID) != "plain" || len(r.Header) != 1 {
		t.Fatalf("answer %s with %v", r.Payload, r.Header)
	}
	// A correlation comes back as it was, whatever it is.
	f.ask(ctx, to("c", headerCorrelation, "a/b: ü"), "two")
	if r := f.answers(ctx, "leat.replies", 7, 2)[1]; r.Header.Get(headerCorrelation) != "a/b: ü" || string(r.Payload) != "two" {
		t.Fatalf("answer %s with %v", r.Payload, r.Header)
	}
	// Nobody is believed to be somebody.
	f.ask(ctx, to("boss", schemas.HeaderPrincipal, "admin"), "three")
	f.answers(ctx, "leat.replies", 7, 3)
	if d, _ := seen.Load("three"); len(d.(*connectors.Delivery).Header) != 1 {
		t.Errorf("headers %v arrived", d.(*connectors.Delivery).Header)
	}
	// No answer is wanted.
	f.ask(ctx, map[string]string{}, "four")
	until(t, ctx, "a request without Leat-Reply-To arrives", truth(func() bool { _, ok := seen.Load("four"); return ok }))
	if d, _ := seen.Load("four"); d.(*connectors.Delivery).ReplyTo != "" {
		t.Errorf("ReplyTo is %q", d.(*connectors.Delivery).ReplyTo)
	}
	// A topic of the caller's own, with one partition.
	must(t, other.ensure(ctx, "test", "leat.replies.mine", TopicSpec{Partitions: 1}))
	f.ask(ctx, map[string]string{schemas.HeaderReplyTo: replies + ".mine"}, "five")
	if r := f.answers(ctx, "leat.replies.mine", 0, 1)[0]; string(r.Payload) != "five" {
		t.Fatalf("answer %s", r.Payload)
	}
	// Places that answers are not written to: another topic, no partition, none there.
	must(t, other.ensure(ctx, "test", "payments", TopicSpec{Partitions: 1}))
	for _, h := range []map[string]string{
		{schemas.HeaderReplyTo: server.name("payments")}, {schemas.HeaderReplyTo: server.name("leat.lineage")},
		{schemas.HeaderReplyTo: replies + "x"}, {schemas.HeaderReplyTo: replies + ".a/b"},
		to("", schemas.HeaderReplyPartition, "-1"), to("", schemas.HeaderReplyPartition, "many"),
		to("", schemas.HeaderReplyPartition, "32"), {schemas.HeaderReplyTo: replies + ".none"},
	} {
		before := server.RequestCounts().Unanswerable
		f.ask(ctx, h, "six")
		until(t, ctx, fmt.Sprint(h, " is counted"), truth(func() bool { return server.RequestCounts().Unanswerable > before }))
	}
	ends, err := other.endOffsets(ctx, "test", "payments")
	must(t, err)
	if ends[0] != 0 {
		t.Fatal("an answer was written to a topic that is none of ours")
	}
	if err := server.Respond(ctx, []connectors.Response{{To: "0/" + replies + "/x"}}); schemas.KindOf(err) != schemas.Internal {
		t.Fatalf("a made-up ReplyTo: %v", err)
	}
}

// TestExpiredUnsent: the end of a caller's time is Expired, also where the broker has not taken the request yet.
func TestExpiredUnsent(t *testing.T) {
	b := broker.Start(t, 1)
	c := dialConfig(t, testConfig(b))
	ctx := within(t)
	src, err := c.Serve(ctx, "p", "primary")
	must(t, err)
	defer src.Close(context.WithoutCancel(ctx))
	ask := func(wait time.Duration) error {
		short, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		_, err := c.Request(short, &schemas.Message{Topic: "p", Payload: []byte("x")})
		return err
	}
	wantKind(t, ask(3*time.Second), schemas.Expired) // nobody answers; the next ones find all that they need to know
	b.Stop(t, 1)
	defer b.Cont(t, 1)
	for range 30 {
		wantKind(t, ask(20*time.Millisecond), schemas.Expired)
	}
}

// TestExpiredRequests: what waited for too long is answered and not delivered.
func TestExpiredRequests(t *testing.T) {
	ctx := within(t)
	c := open(t)
	f := foreign{t: t, c: c}
	serving(t, c, mirror)
	ask := func(id string, more map[string]string) {
		h := map[string]string{schemas.HeaderRequestID: id, schemas.HeaderReplyTo: c.name("leat.replies"), schemas.HeaderReplyPartition: "0"}
		maps.Copy(h, more)
		f.ask(ctx, h, id)
	}
	ask("late", map[string]string{schemas.HeaderDeadline: schemas.FormatTime(time.Now().Add(-time.Millisecond))})
	ask("good", map[string]string{schemas.HeaderDeadline: schemas.FormatTime(time.Now().Add(time.Hour)), schemas.HeaderTimeout: "1h"})
	for _, r := range f.answers(ctx, "leat.replies", 0, 2) {
		id := r.Header.Get(schemas.HeaderRequestID)
		if e := schemas.AnswerError(&r); (e != nil) != (id == "late") || e != nil && (e.Kind != schemas.Expired || e.ID != "late") {
			t.Errorf("%s: %s", id, r.Payload)
		}
	}
	if n := c.RequestCounts().Expired; n != 1 {
		t.Errorf("%d expired", n)
	}
	now := time.Now()
	for _, x := range []struct {
		deadline, timeout string
		stored            time.Duration // before now
		expired           bool
	}{
		{"", "", time.Hour, false}, {"", "2s", 0, false}, {"", "2s", 6 * time.Second, false}, {"", "2s", 8 * time.Second, true},
		{"", "2s", -time.Hour, false}, {"", "nonsense", time.Hour, false}, {"nonsense", "", time.Hour, false},
		{schemas.FormatTime(now.Add(time.Second)), "", time.Hour, false}, {schemas.FormatTime(now.Add(-time.Second)), "1h", 0, true},
		{schemas.FormatTime(now.Add(time.Second)), "1s", time.Minute, true},
	} {
		d := &connectors.Delivery{}
		d.Header = schemas.Header{}
		if x.deadline != "" {
			d.Header.Set(schemas.HeaderDeadline, x.deadline)
		}
		if x.timeout != "" {
			d.Header.Set(schemas.HeaderTimeout, x.timeout)
		}
		if err := overdue(d, now.Add(-x.stored), now); (err != nil) != x.expired {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

// TestTimeoutTravels: the caller's own deadline reaches the server, unless the caller said one.
func TestTimeoutTravels(t *testing.T) {
	c := open(t)
	got := make(chan schemas.Header, 1)
	serving(t, c, func(d *connectors.Delivery) (schemas.Header, []byte) { got <- d.Header; return mirror(d) })
	ask := func(ctx context.Context, h schemas.Header) schemas.Header {
		t.Helper()
		_, err := c.Request(ctx, &schemas.Message{Topic: "p", Header: h})
		must(t, err)
		return <-got
	}
	if h := ask(context.WithoutCancel(t.Context()), nil); len(h) != 0 {
		t.Errorf("without a deadline: %v", h)
	}
	if h := ask(within(t), schemas.Header{schemas.HeaderTimeout: {"7s"}}); len(h) != 1 || h.Get(schemas.HeaderTimeout) != "7s" {
		t.Errorf("with the caller's: %v", h)
	}
	h := ask(within(t), nil)
	if d, err := time.ParseDuration(h.Get(schemas.HeaderTimeout)); err != nil || d <= 0 || d > testLimit {
		t.Errorf("with the context's: %v", h)
	}
}

// TestLateAnswer is counted and given to nobody.
func TestLateAnswer(t *testing.T) {
	ctx := within(t)
	c := open(t)
	held := make(chan *connectors.Delivery, 1)
	src, err := c.Serve(ctx, "p", primary)
	must(t, err)
	go func() {
		ds, err := src.Receive(ctx, 1)
		if err == nil {
			held <- ds[0]
		}
	}()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = c.Request(short, &schemas.Message{Topic: "p"})
	wantKind(t, err, schemas.Expired)
	d := <-held
	must(t, c.Respond(ctx, []connectors.Response{{To: d.ReplyTo}}))
	until(t, ctx, "the answer is counted", truth(func() bool { return c.RequestCounts().Late == 1 }))
	must(t, src.Close(ctx))
}

// TestLargeAnswer becomes an error that says how large it was and what would do.
func TestLargeAnswer(t *testing.T) {
	ctx := within(t)
	c := open(t)
	serving(t, c, func(*connectors.Delivery) (schemas.Header, []byte) { return nil, make([]byte, 1<<20) })
	r, err := c.Request(ctx, &schemas.Message{Topic: "p", Header: schemas.Header{schemas.HeaderRequestID: {"r1"}}})
	must(t, err)
	e := schemas.AnswerError(r)
	if e == nil || e.Kind != schemas.Invalid || !strings.Contains(e.Error(), "at most 1048588") || !strings.Contains(e.Error(), "1048") {
		t.Fatalf("answer %v of %d bytes", e, len(r.Payload))
	}
}

// TestNobodyLeft: a request that waits in the topic when the group has lost its last member ends with NotFound, since
// nobody will take it.
func TestNobodyLeft(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.ensureScore(ctx, "p"))
	// A member that never fetches.
	idle, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.name(scoreGroup("p", primary)), Brokers: c.cfg.Bootstrap, Topics: []string{c.name("leat.score.p")},
		HeartbeatInterval: 100 * time.Millisecond, SessionTimeout: 6 * time.Second, JoinGroupBackoff: joinPause,
	})
	must(t, err)
	for {
		if _, err = idle.Next(ctx); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Request(ctx, &schemas.Message{Topic: "p"})
		ended <- err
	}()
	until(t, ctx, "the request is in the topic", truth(func() bool {
		c.requests.mu.Lock()
		defer c.requests.mu.Unlock()
		for _, w := range c.requests.mu.waiting {
			return w.sent.Load() > 0
		}
		return false
	}))
	select {
	case err := <-ended:
		t.Fatalf("ended while there was a member: %v", err)
	default:
	}
	must(t, idle.Close())
	wantKind(t, <-ended, schemas.NotFound)
}

// TestMembersComeAndGo: under load, members join and leave again and again. Each request is received once and answered,
// if not by its member's farewell.
func TestMembersComeAndGo(t *testing.T) {
	ctx := within(t)
	first := open(t)
	var received sync.Map
	echo := func(d *connectors.Delivery) (schemas.Header, []byte) {
		if _, again := received.LoadOrStore(string(d.Payload), true); again {
			t.Errorf("request %s was received twice", d.Payload)
		}
		return mirror(d)
	}
	serving(t, first, echo)
	caller := dialConfig(t, first.cfg)
	var answered, farewells, slowest atomic.Int64
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; load.Err() == nil; i++ {
				want := fmt.Sprintf("%d/%d", w, i)
				begin := time.Now()
				r, err := caller.Request(ctx, &schemas.Message{Topic: "p", Payload: []byte(want)})
				for took := int64(time.Since(begin)); ; {
					if old := slowest.Load(); took <= old || slowest.CompareAndSwap(old, took) {
						break
					}
				}
				switch {
				case err != nil:
					t.Errorf("%s: %v", want, err)
					return
				case schemas.AnswerError(r) != nil && schemas.AnswerError(r).Kind == schemas.Unavailable:
					farewells.Add(1)
				case string(r.Payload) != want:
					t.Errorf("asked %s, got %s", want, r.Payload)
					return
				default:
					answered.Add(1)
				}
			}
		})
	}
	for range 4 {
		c := dialConfig(t, first.cfg)
		src, err := c.Serve(ctx, "p", primary)
		must(t, err)
		n := 0
		for n < 20 {
			ds, err := src.Receive(ctx, 64)
			must(t, err)
			n += len(ds)
			rs := make([]connectors.Response, len(ds))
			for i, d := range ds {
				_, b := echo(d)
				rs[i] = connectors.Response{To: d.ReplyTo, Payload: b}
			}
			must(t, c.Respond(ctx, rs))
		}
		src.Drain()
		for {
			ds, err := src.Receive(ctx, 64)
			if errors.Is(err, schemas.ErrDrained) {
				break
			}
			must(t, err)
			for _, d := range ds {
				_, b := echo(d)
				must(t, c.Respond(ctx, []connectors.Response{{To: d.ReplyTo, Payload: b}}))
			}
		}
		must(t, src.Close(ctx))
	}
	stop()
	wg.Wait()
	t.Logf("%d answered, %d farewells, the slowest after %v", answered.Load(), farewells.Load(), time.Duration(slowest.Load()))
	if answered.Load() == 0 || farewells.Load() > 0 {
		t.Errorf("%d answered, %d farewells", answered.Load(), farewells.Load())
	}
}

// TestHandover: while the group rebalances, a request is committed before it is delivered; one that could not be is
// delivered if its partition stays, and left to its next owner if not.
func TestHandover(t *testing.T) {
	ctx := within(t)
	c := open(t)
	src, err := c.Serve(ctx, "p", primary)
	must(t, err)
	m := src.(*scoreSource).member
	m.mu.Lock()
	gen := m.mu.gen
	m.mu.Unlock()
	ask := func(p int32, value string) {
		t.Helper()
		_, err := c.produce(ctx, []record{{topic: c.name("leat.score.p"), partition: p, value: []byte(value)}})
		must(t, err)
	}
	received := func() string {
		t.Helper()
		ds, err := src.Receive(ctx, 10)
		must(t, err)
		out := ""
		for _, d := range ds {
			out += string(d.Payload) + " "
		}
		return out
	}
	m.leaving()
	ask(3, "committed")
	if got := received(); got != "committed " {
		t.Fatal(got)
	}
	at, err := m.coord.places(ctx, c.name("leat.score.p"), []int32{3})
	if err != nil || at[3].offset != 1 {
		t.Fatalf("delivered before it was committed: %+v, %v", at, err)
	}
	// All have joined: the brokers refuse commits of the old generation.
	m.mu.Lock()
	m.mu.gen.id = gen.id + 5
	m.mu.Unlock()
	ask(3, "stays")
	ask(4, "goes")
	until(t, ctx, "both are fetched", truth(func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.mu.held[3].pending) == 1 && len(m.mu.held[4].pending) == 1
	}))
	m.mu.Lock()
	gone := m.mu.held[4]
	m.mu.Unlock()
	_, come := m.begin(&kafka.Generation{ID: gen.id + 6, MemberID: gen.member, Assignments: map[string][]kafka.PartitionAssignment{
		c.name("leat.score.p"): {{ID: 3, Offset: 1}, {ID: 5, Offset: 0}},
	}})
	if got := received(); got != "stays " || len(come) != 0 || !gone.over {
		t.Fatalf("received %q, %d partitions have come, that which goes is over: %v", got, len(come), gone.over)
	}
	// A generation came between: somebody else may have received what was held.
	_, come = m.begin(&kafka.Generation{ID: gen.id + 8, MemberID: gen.member, Assignments: map[string][]kafka.PartitionAssignment{
		c.name("leat.score.p"): {{ID: 3, Offset: 1}},
	}})
	if len(come) != 1 || come[0].ID != 3 {
		t.Fatalf("%v have come", come)
	}
	must(t, src.Close(ctx))
}

// TestTopicsDeleted: the topics of requests and answers are made again when somebody deletes them.
func TestTopicsDeleted(t *testing.T) {
	ctx := within(t)
	c := open(t)
	serving(t, c, mirror)
	ask := func() error {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := c.Request(short, &schemas.Message{Topic: "p"})
		return err
	}
	must(t, ask())
	for _, topic := range []string{"leat.replies", "leat.score.p"} {
		must(t, c.DeleteTopic(ctx, topic))
		until(t, ctx, "answers come after "+topic+" was deleted", ask)
	}
}

// TestBrokerGone: without its broker a caller is told within its deadline, and when the broker is back everything goes
// on by itself.
func TestBrokerGone(t *testing.T) {
	ctx := within(t)
	cluster := broker.Start(t, 1)
	c := dialConfig(t, testConfig(cluster))
	serving(t, c, mirror)
	ask := func() error {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := c.Request(short, &schemas.Message{Topic: "p", Payload: []byte("x")})
		return err
	}
	must(t, ask())
	cluster.Kill(t, 1)
	begin := time.Now()
	for range 3 {
		if err := ask(); schemas.KindOf(err) != schemas.Expired && schemas.KindOf(err) != schemas.Unavailable {
			t.Errorf("without a broker: %v of kind %v", err, schemas.KindOf(err))
		}
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("three callers with a second each waited %v", d)
	}
	cluster.Up(t, 1)
	begin = time.Now()
	until(t, ctx, "answers come again", ask)
	t.Logf("answers %v after the broker was up", time.Since(begin).Round(time.Millisecond))
}

// FuzzReplyTo: what a caller names as the place of its answer is taken as it is or not at all, and never for a mark.
func FuzzReplyTo(f *testing.F) {
	q := &requests{token: "0123456789abcdef", mark: "mark"}
	f.Add("leat.replies", int32(7), "a/b", "mark/7/leat.replies/a/b")
	f.Add("t", int32(0), "", "mark/0/t")
	f.Fuzz(func(t *testing.T, topic string, partition int32, correlation, any string) {
		if !legalName(topic) {
			return
		}
		in := replyTo{topic: topic, partition: partition, correlation: correlation}
		if out, ok := q.parseReply(q.formatReply(&in)); !ok || out != in {
			t.Fatalf("%+v became %+v", in, out)
		}
		if out, ok := q.parseReply(any); ok && !strings.HasPrefix(any, "mark/") {
			t.Fatalf("%q was read as %+v", any, out)
		}
		q.ours([]kafka.Header{{Key: headerCorrelation, Value: []byte(correlation)}})
	})
}
