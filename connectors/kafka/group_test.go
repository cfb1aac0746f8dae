package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// shortSession is what brokers of tests allow.
const shortSession = 1500 * time.Millisecond

// shared returns the configuration of clients on the shared broker that share a prefix.
func shared(t testing.TB) Config {
	c := testConfig(broker.Shared(t))
	c.Session, c.Heartbeat = shortSession, 100*time.Millisecond
	return c
}

// publish stores n numbered messages without a key in each partition.
func publish(t testing.TB, ctx context.Context, c *Client, topic string, partitions, from, n int) {
	t.Helper()
	var recs []record
	for p := range partitions {
		for i := range n {
			recs = append(recs, record{topic: c.name(topic), partition: int32(p), value: strconv.AppendInt(nil, int64(from+i), 10)})
		}
	}
	_, err := c.produce(ctx, recs)
	must(t, err)
}

func subscribe(t testing.TB, ctx context.Context, c *Client, topic string) *groupSource {
	t.Helper()
	src, err := c.Subscribe(ctx, topic, "g")
	must(t, err)
	t.Cleanup(func() { src.Close(context.WithoutCancel(ctx)) })
	return src.(*groupSource)
}

func receive(t testing.TB, ctx context.Context, src connectors.Source, n int) []*connectors.Delivery {
	t.Helper()
	var out []*connectors.Delivery
	for len(out) < n {
		ds, err := src.Receive(ctx, n-len(out))
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(out), n, err)
		}
		out = append(out, ds...)
	}
	return out
}

func acceptAll(t testing.TB, ctx context.Context, ds []*connectors.Delivery) {
	t.Helper()
	if len(ds) > 0 {
		must(t, ds[0].Settler.Accept(ctx, ds))
	}
}

// eventually polls what another goroutine or process changes.
func eventually(t testing.TB, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// look reads the source's state.
func (g *groupSource) look(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

func (g *groupSource) partitions() (owned, leaving []int32) {
	g.look(func() {
		for _, p := range sortedKeys(g.mu.owned) {
			if owned = append(owned, p); g.mu.owned[p].leaving {
				leaving = append(leaving, p)
			}
		}
	})
	return owned, leaving
}

func groupPlacesOf(c *Client) *coordinator {
	return c.coordinator(kafka.CoordinatorKeyTypeConsumer, c.name("g"))
}

// committed reads the group's offsets from the coordinator; -1: none.
func committed(t testing.TB, ctx context.Context, c *Client, topic string, partitions int) []int64 {
	t.Helper()
	ps := make([]int32, partitions)
	for i := range ps {
		ps[i] = int32(i)
	}
	k := groupPlacesOf(c)
	for {
		at, err := k.places(ctx, c.name(topic), ps)
		if err != nil && passing(err) && ctx.Err() == nil {
			continue
		}
		must(t, err)
		out := make([]int64, partitions)
		for p, a := range at {
			out[p] = a.offset
		}
		return out
	}
}

// TestGroupOfAnotherKind: consumers that speak another protocol cannot share a group with us, and Subscribe says so.
func TestGroupOfAnotherKind(t *testing.T) {
	ctx := within(t)
	c := dialConfig(t, shared(t))
	must(t, c.EnsureTopic(ctx, "t", 1))
	cg, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{ID: c.name("g"), Brokers: c.cfg.Bootstrap, Topics: []string{c.name("t")}})
	must(t, err)
	defer cg.Close()
	eventually(t, ctx, "the other consumer", func() bool { _, err := cg.Next(ctx); return err == nil })
	if _, err := c.Subscribe(ctx, "t", "g"); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("subscribed beside somebody else's consumer: %v", err)
	}
	cfg := c.cfg
	cfg.Session, cfg.Heartbeat = 10*time.Millisecond, time.Millisecond
	if _, err := dialConfig(t, cfg).Subscribe(ctx, "t", "h"); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("subscribed with a session that brokers refuse: %v", err)
	}
}

// TestGroupBackPressure: no more than kafka.in_flight records of a partition are in work, and other partitions go on.
func TestGroupBackPressure(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg := shared(t)
	cfg.InFlight = 10
	c := dialConfig(t, cfg)
	must(t, c.EnsureTopic(ctx, "t", 2))
	publish(t, ctx, c, "t", 2, 0, 25)
	src := subscribe(t, ctx, c, "t")
	by := map[int32][]*connectors.Delivery{}
	for _, d := range receive(t, ctx, src, 20) {
		by[d.From.Partition] = append(by[d.From.Partition], d)
	}
	if len(by[0]) != 10 || len(by[1]) != 10 {
		t.Fatalf("%d and %d in work, want 10 of each", len(by[0]), len(by[1]))
	}
	acceptAll(t, ctx, by[0][1:]) // not the oldest
	if ds := src.take(100); len(ds) > 0 {
		t.Fatalf("%v came beyond the bound", ds[0].From)
	}
	acceptAll(t, ctx, by[0][:1])
	for _, d := range receive(t, ctx, src, 10) {
		if d.From.Partition != 0 {
			t.Fatalf("%v came beyond the bound", d.From)
		}
	}
}

// TestGroupWatchdog: a partition whose worker is stuck goes to another member; an only member keeps it.
func TestGroupWatchdog(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg := shared(t)
	cfg.Watchdog = 200 * time.Millisecond
	a, b := dialConfig(t, cfg), dialConfig(t, cfg)
	must(t, a.EnsureTopic(ctx, "t", 1))
	publish(t, ctx, a, "t", 1, 0, 3)
	one := subscribe(t, ctx, a, "t")
	ds := receive(t, ctx, one, 3)
	acceptAll(t, ctx, ds[:1])
	avoided := func() (yes bool) {
		one.look(func() { _, yes = one.mu.avoid[0] })
		return yes
	}
	eventually(t, ctx, "the watchdog", avoided)
	if f := one.gauges(time.Now()); len(f) != 1 || !f[0].stuck || f[0].behind != 2 {
		t.Errorf("gauges %+v", f)
	}
	var before generation
	one.look(func() { before = one.mu.gen })
	eventually(t, ctx, "another generation", func() (next bool) {
		one.look(func() { next = one.mu.gen.id > before.id })
		return next
	})
	acceptAll(t, ctx, ds[1:2]) // it is its own still
	eventually(t, ctx, "the commit", func() bool { return committed(t, ctx, a, "t", 1)[0] == 2 })

	two := subscribe(t, ctx, b, "t")
	again := receive(t, ctx, two, 1)
	if again[0].From != ds[2].From || again[0].Attempt < 2 {
		t.Fatalf("%v, attempt %d, came to the other member", again[0].From, again[0].Attempt)
	}
	acceptAll(t, ctx, again)
	acceptAll(t, ctx, ds[2:]) // too late
	eventually(t, ctx, "the commit", func() bool { return committed(t, ctx, a, "t", 1)[0] == 3 })
}

// TestRejectKeepsTheOffset: what cannot be put aside stays unsettled.
func TestRejectKeepsTheOffset(t *testing.T) {
	ctx := within(t)
	c := dialConfig(t, shared(t))
	must(t, c.EnsureTopic(ctx, "t", 1))
	must(t, c.ensure(ctx, "test", deadTopic, TopicSpec{Partitions: 1, Settings: map[string]string{"max.message.bytes": "120"}}))
	publish(t, ctx, c, "t", 1, 0, 1)
	src := subscribe(t, ctx, c, "t")
	d := receive(t, ctx, src, 1)[0]
	if err := d.Settler.Reject(ctx, d, errors.New("poison")); schemas.KindOf(err) != schemas.Invalid {
		t.Fatalf("a dead letter too large for its topic: %v", err)
	}
	must(t, src.Close(ctx))
	if at := committed(t, ctx, c, "t", 1); at[0] > 0 {
		t.Fatalf("committed %d", at[0])
	}
	src = subscribe(t, ctx, c, "t")
	d = receive(t, ctx, src, 1)[0]
	must(t, d.Settler.Accept(ctx, []*connectors.Delivery{d}))
}

// TestDeadLetterIsCut: a dead letter that does not fit loses its payload, and says so.
func TestDeadLetterIsCut(t *testing.T) {
	ctx := within(t)
	c := dialConfig(t, shared(t))
	must(t, c.EnsureTopic(ctx, "t", 1))
	must(t, c.ensure(ctx, "test", deadTopic, TopicSpec{Partitions: 1, Settings: map[string]string{"max.message.bytes": "150000"}}))
	big := string(make([]byte, 200_000))
	_, err := c.Publish(ctx, []schemas.Message{
		{Topic: "t", Key: "k", Header: schemas.Header{"A": {"x"}}, Payload: []byte(big)},
		{Topic: "t", Key: "k", Header: schemas.Header{"A": {big}}, Payload: []byte("small")},
		{Topic: "t", Payload: nil},
	})
	must(t, err)
	src := subscribe(t, ctx, c, "t")
	for _, d := range receive(t, ctx, src, 3) {
		must(t, d.Settler.Reject(ctx, d, schemas.FieldErrorf(schemas.Invalid, "test", "a.b", "two\nlines")))
	}
	dead, err := deadLetters(ctx, c, "t")
	must(t, err)
	if len(dead) != 3 {
		t.Fatalf("%d dead letters", len(dead))
	}
	for i, want := range []struct{ a, cut, field string }{{"x", "200000", "a.b"}, {"", "5", "a.b"}, {"", "", "a.b"}} {
		h := dead[i].Header
		if h.Get("A") != want.a || h.Get(headerDeadCut) != want.cut || h.Get(headerErrorPath) != want.field || len(dead[i].Payload) > 0 ||
			h.Get(schemas.HeaderSource) != fmt.Sprintf("t/0/%d", i+1) || h.Get(headerError) != "a.b: two lines" {
			t.Errorf("dead letter %d: %v", i, h)
		}
	}
}

// TestGroupClosed: what cannot be goes on to be said.
func TestGroupClosed(t *testing.T) {
	ctx := within(t)
	cfg := shared(t)
	c := dialConfig(t, cfg)
	must(t, c.EnsureTopic(ctx, "t", 1))
	src := subscribe(t, ctx, c, "t")
	var waits atomic.Bool
	got := make(chan error)
	go func() {
		waits.Store(true)
		_, err := src.Receive(ctx, 1)
		got <- err
	}()
	eventually(t, ctx, "Receive", waits.Load)
	c.Close()
	if err := <-got; schemas.KindOf(err) != schemas.Unavailable {
		t.Errorf("Receive of a closed client: %v", err)
	}
	must(t, src.Close(ctx))
	if _, err := src.Receive(ctx, 1); !errors.Is(err, schemas.ErrDrained) {
		t.Errorf("Receive of a closed source: %v", err)
	}
	if _, err := c.Subscribe(ctx, "t", "g"); schemas.KindOf(err) != schemas.Unavailable {
		t.Errorf("Subscribe of a closed client: %v", err)
	}
	if _, err := c.Subscribe(ctx, "t", "Not a group"); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("a group of that name: %v", err)
	}
}

// TestWatchdogUnread: a partition that cannot be read for the watchdog's time is stuck until it can.
func TestWatchdogUnread(t *testing.T) {
	g := &groupSource{c: &Client{cfg: Default(), log: testLog(t)}}
	g.mu.owned = map[int32]*tenure{0: {g: g, tracker: newTracker(1)}}
	one := g.mu.owned[0]
	one.tracker.put(nil, 5)
	stuck := func(after time.Duration) bool {
		now := time.Now().Add(after)
		g.watchdog(now)
		return g.gauges(now)[0].stuck
	}
	one.reads(kafka.LeaderNotAvailable)
	one.reads(kafka.NotLeaderForPartition) // does not begin anew
	if stuck(g.c.cfg.Watchdog / 2) {
		t.Error("stuck too early")
	}
	if !stuck(g.c.cfg.Watchdog) {
		t.Error("not stuck")
	}
	if one.reads(nil); stuck(2 * g.c.cfg.Watchdog) {
		t.Error("stuck although it can be read")
	}
}

// TestReceiveAtTheLimit: whoever waits at the limit of what may be in work is woken when work is settled, also when
// nothing new comes to the topic.
func TestReceiveAtTheLimit(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg := shared(t)
	cfg.InFlight = 10
	c := dialConfig(t, cfg)
	must(t, c.EnsureTopic(ctx, "t", 1))
	publish(t, ctx, c, "t", 1, 0, 25)
	src := subscribe(t, ctx, c, "t")
	for left := 25; left > 0; {
		ds := receive(t, ctx, src, min(left, 10))
		if left -= len(ds); left == 0 {
			break
		}
		more := make(chan error, 1)
		go func() {
			got, err := src.Receive(ctx, 1)
			for _, d := range got {
				err = d.Settler.Retry(ctx, d, 0)
			}
			more <- err
		}()
		eventually(t, ctx, "the wait", func() bool { return len(src.kick) == 0 })
		acceptAll(t, ctx, ds)
		select {
		case err := <-more:
			must(t, err)
		case <-time.After(10 * time.Second):
			t.Fatal("nobody was woken")
		}
	}
}
