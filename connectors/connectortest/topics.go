package connectortest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

func topics(t *testing.T, s Subject) {
	t.Run("create", func(t *testing.T) {
		ctx := within(t)
		tr, _, _ := s.Open(t)
		must(t, tr.Topics.EnsureTopic(ctx, "a.b", 3))
		must(t, tr.Topics.EnsureTopic(ctx, "a.b", 3))
		must(t, tr.Topics.EnsureTopic(ctx, "a.b", 0))
		wantKind(t, tr.Topics.EnsureTopic(ctx, "a.b", 4), schemas.Invalid)
		wantKind(t, tr.Topics.EnsureTopic(ctx, "A b", 0), schemas.Invalid)
		must(t, tr.Topics.EnsureTopic(ctx, "a", 0))
		i, err := tr.Topics.Topic(ctx, "a.b")
		must(t, err)
		if i.Partitions != 3 || i.Messages != 0 {
			t.Fatalf("%+v", i)
		}
		_, err = tr.Topics.Topic(ctx, "none")
		wantKind(t, err, schemas.NotFound)
		_, err = tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "none"}})
		wantKind(t, err, schemas.NotFound)
		_, err = tr.Topics.Subscribe(ctx, "none", "g")
		wantKind(t, err, schemas.NotFound)
		l, err := tr.Topics.ListTopics(ctx)
		must(t, err)
		if len(l) != 2 || l[0].Name != "a" || l[0].Partitions != connectors.DefaultPartitions || l[1].Name != "a.b" {
			t.Fatalf("%+v", l)
		}
	})
	t.Run("stored, received, settled once", func(t *testing.T) { settleOnce(t, s) })
	t.Run("group shares", func(t *testing.T) { groupShares(t, s) })
	t.Run("close hands back", func(t *testing.T) { closeHandsBack(t, s) })
	t.Run("reject", func(t *testing.T) { rejects(t, s) })
	t.Run("oversize and cancelled", func(t *testing.T) {
		ctx := within(t)
		tr, _, _ := s.Open(t)
		must(t, tr.Topics.EnsureTopic(ctx, "t", 1))
		_, err := tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "t", Payload: make([]byte, s.Max)}})
		wantKind(t, err, schemas.Invalid)
		says(t, err, "at most") // the size counts headers and what the transport adds
		gone, cancel := context.WithCancel(ctx)
		cancel()
		for range 20 { // an answer may be faster than the look at the context
			if _, err := tr.Publisher.Publish(gone, messages("t", 1, 1)); !errors.Is(err, context.Canceled) {
				t.Fatalf("Publish with a cancelled context: %v, want the context's error", err)
			}
		}
		src, err := tr.Topics.Subscribe(ctx, "t", "g")
		must(t, err)
		if _, err := src.Receive(gone, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("Receive: %v, want the context's error", err)
		}
		must(t, src.Close(ctx))
	})
	t.Run("drain", func(t *testing.T) {
		ctx := within(t)
		tr, _, _ := s.Open(t)
		must(t, tr.Topics.EnsureTopic(ctx, "t", 2))
		_, err := tr.Publisher.Publish(ctx, messages("t", 4, 20))
		must(t, err)
		src, err := tr.Topics.Subscribe(ctx, "t", "g")
		must(t, err)
		ds, err := src.Receive(ctx, 3)
		must(t, err)
		src.Drain()
		src.Drain()
		for {
			more, err := src.Receive(ctx, 3)
			if errors.Is(err, schemas.ErrDrained) {
				break
			}
			must(t, err)
			ds = append(ds, more...)
		}
		must(t, ds[0].Settler.Accept(ctx, ds))
		must(t, src.Close(ctx))
		rest, err := tr.Topics.Subscribe(ctx, "t", "g")
		must(t, err)
		if left := 20 - len(ds); left > 0 {
			collect(t, ctx, rest, left, accept(t, ctx))
		}
		must(t, rest.Close(ctx))
	})
	if s.Claims.Dedup {
		t.Run("repeats are folded", func(t *testing.T) {
			ctx := within(t)
			tr, _, _ := s.Open(t)
			must(t, tr.Topics.EnsureTopic(ctx, "t", 4))
			one, err := tr.Publisher.Publish(ctx, messages("t", 5, 50))
			must(t, err)
			two, err := tr.Publisher.Publish(ctx, messages("t", 5, 50))
			must(t, err)
			for i := range one {
				if one[i] != two[i] {
					t.Fatalf("message %d at %v, then at %v", i, one[i], two[i])
				}
			}
			i, err := tr.Topics.Topic(ctx, "t")
			must(t, err)
			if i.Messages != 50 {
				t.Fatalf("%d messages stored, want 50", i.Messages)
			}
		})
	}
}

func settleOnce(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t", 4))
	const n = 100
	in := messages("t", 7, n)
	pos, err := tr.Publisher.Publish(ctx, in)
	must(t, err)
	at := map[schemas.Position]int{}
	for i, p := range pos {
		if p.IsZero() {
			t.Fatalf("message %d has no position", i)
		}
		at[p] = i
	}
	if len(at) != n {
		t.Fatalf("%d positions for %d messages", len(at), n)
	}
	src, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	seen := map[string]bool{}
	collect(t, ctx, src, n, func(d *connectors.Delivery) {
		i, ok := at[d.From]
		if !ok || string(d.Payload) != string(in[i].Payload) || d.Key != in[i].Key || d.Topic != "t" || d.Header.Get("X-Number") != fmt.Sprint(i) {
			t.Fatalf("delivery %+v is not message %d", d, i)
		}
		if d.Attempt != 1 || d.Time.IsZero() || d.ReplyTo != "" {
			t.Fatalf("delivery %+v: want attempt 1, a time, nobody waiting", d)
		}
		if seen[d.From.String()] {
			t.Fatalf("%v delivered twice", d.From)
		}
		seen[d.From.String()] = true
		must(t, d.Settler.Accept(ctx, []*connectors.Delivery{d}))
		wantKind(t, d.Settler.Accept(ctx, []*connectors.Delivery{d}), schemas.Internal)
	})
	must(t, src.Close(ctx))
	must(t, src.Close(ctx))
	// Nothing comes again: the next message is a new one.
	src, err = tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	_, err = tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "t", Payload: []byte("new")}})
	must(t, err)
	collect(t, ctx, src, 1, func(d *connectors.Delivery) {
		if string(d.Payload) != "new" {
			t.Fatalf("settled message %v (%s) came again", d.From, d.Payload)
		}
		accept(t, ctx)(d)
	})
	must(t, src.Close(ctx))
	// Another group has it all.
	other, err := tr.Topics.Subscribe(ctx, "t", "other")
	must(t, err)
	collect(t, ctx, other, n+1, accept(t, ctx))
	must(t, other.Close(ctx))
}

// groupShares: two members see each message once between them.
func groupShares(t *testing.T, s Subject) {
	ctx := within(t)
	tr, again, _ := s.Open(t)
	second := tr
	if again != nil {
		second = again()
	}
	must(t, tr.Topics.EnsureTopic(ctx, "t", 4))
	one, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	two, err := second.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	type got struct {
		member int
		d      *connectors.Delivery
	}
	ch := make(chan got)
	run, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{}, 2)
	for i, src := range []connectors.Source{one, two} {
		go func() {
			defer func() { ended <- struct{}{} }()
			for {
				ds, err := src.Receive(run, 4)
				if err != nil {
					return
				}
				for _, d := range ds {
					ch <- got{i, d}
				}
			}
		}()
	}
	// Partitions move when a member joins, so go on until both have had some.
	seen, by := map[string]bool{}, [2]int{}
	for round := 0; by[0] == 0 || by[1] == 0 || round < 3; round++ {
		ms := messages("t", 16, 40)
		for i := range ms {
			ms[i].ID = fmt.Sprintf("round-%d-%d", round, i)
			ms[i].Payload = []byte(ms[i].ID)
		}
		_, err := tr.Publisher.Publish(ctx, ms)
		must(t, err)
		for range ms {
			select {
			case g := <-ch:
				if seen[string(g.d.Payload)] {
					t.Fatalf("%s came to two members", g.d.Payload)
				}
				seen[string(g.d.Payload)] = true
				by[g.member]++
				must(t, g.d.Settler.Accept(ctx, []*connectors.Delivery{g.d}))
			case <-ctx.Done():
				t.Fatalf("round %d: only %d messages came, members had %v", round, len(seen), by)
			}
		}
	}
	stop()
	<-ended
	<-ended
	must(t, one.Close(context.WithoutCancel(ctx)))
	must(t, two.Close(context.WithoutCancel(ctx)))
}

// closeHandsBack: what was not settled comes to the next member, from the first such message on, marked as a repeat.
func closeHandsBack(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t", 1))
	_, err := tr.Publisher.Publish(ctx, messages("t", 1, 10))
	must(t, err)
	src, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	var all []*connectors.Delivery
	collect(t, ctx, src, 10, func(d *connectors.Delivery) { all = append(all, d) })
	must(t, all[0].Settler.Accept(ctx, all[:4]))
	must(t, src.Close(ctx))
	must(t, all[5].Settler.Accept(ctx, all[5:6])) // too late to have an effect, and no fault of the caller

	next, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	i := 4
	collect(t, ctx, next, 6, func(d *connectors.Delivery) {
		if string(d.Payload) != fmt.Sprint(i) || d.Attempt < 2 {
			t.Fatalf("got %s, attempt %d; want %d, at least the second", d.Payload, d.Attempt, i)
		}
		i++
		accept(t, ctx)(d)
	})
	must(t, next.Close(ctx))
}

func rejects(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t.x", 1))
	_, err := tr.Publisher.Publish(ctx, messages("t.x", 1, 3))
	must(t, err)
	src, err := tr.Topics.Subscribe(ctx, "t.x", "g")
	must(t, err)
	var bad schemas.Position
	collect(t, ctx, src, 3, func(d *connectors.Delivery) {
		if string(d.Payload) != "1" {
			accept(t, ctx)(d)
			return
		}
		bad = d.From
		must(t, d.Settler.Reject(ctx, d, schemas.FieldErrorf(schemas.Invalid, "test", "rows[0].x", "not\na number")))
		wantKind(t, d.Settler.Accept(ctx, []*connectors.Delivery{d}), schemas.Internal)
	})
	must(t, src.Close(ctx))
	dead, err := tr.Dead(ctx, "t.x")
	must(t, err)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters, want 1", len(dead))
	}
	h := dead[0].Header
	if string(dead[0].Payload) != "1" || h.Get(schemas.HeaderErrorKind) != "invalid" || h.Get(schemas.HeaderSource) != bad.String() ||
		!strings.Contains(h.Get("Leat-Error"), "a number") || h.Get("X-Number") != "1" || h.Get(schemas.HeaderKey) != "key-0" {
		t.Fatalf("dead letter %s with %v", dead[0].Payload, h)
	}
	// It does not come again: what comes next is a new one.
	_, err = tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "t.x", Payload: []byte("new")}})
	must(t, err)
	next, err := tr.Topics.Subscribe(ctx, "t.x", "g")
	must(t, err)
	collect(t, ctx, next, 1, func(d *connectors.Delivery) {
		if string(d.Payload) != "new" {
			t.Fatalf("%s came again after it was rejected", d.Payload)
		}
		accept(t, ctx)(d)
	})
	must(t, next.Close(ctx))
}
