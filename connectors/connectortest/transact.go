package connectortest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

func transact(t *testing.T, s Subject) {
	t.Run("all as one", func(t *testing.T) { allAsOne(t, s) })
	t.Run("nothing of what failed", func(t *testing.T) { nothingOfWhatFailed(t, s) })
	t.Run("mistakes", func(t *testing.T) { transactMistakes(t, s) })
	t.Run("dead letters", func(t *testing.T) { transactDead(t, s) })
	t.Run("an owner that left", func(t *testing.T) { ownerThatLeft(t, s) })
	t.Run("an owner that lost it", func(t *testing.T) { ownerThatLostIt(t, s) })
	t.Run("once and in order through failures", func(t *testing.T) { onceThroughFailures(t, s) })
}

// floor opens a transport with a topic "in" of so many partitions, n messages in it that are received, and a topic
// "out" of one.
func floor(t *testing.T, ctx context.Context, s Subject, partitions, n int) (Transport, connectors.Source, []*connectors.Delivery) {
	t.Helper()
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "in", partitions))
	must(t, tr.Topics.EnsureTopic(ctx, "out", 1))
	_, err := tr.Publisher.Publish(ctx, messages("in", 8, n))
	must(t, err)
	src, err := tr.Topics.Subscribe(ctx, "in", "g")
	must(t, err)
	var ds []*connectors.Delivery
	collect(t, ctx, src, n, func(d *connectors.Delivery) {
		if d.Term == 0 {
			t.Fatalf("%v has no term", d.From)
		}
		ds = append(ds, d)
	})
	return tr, src, ds
}

// outs are messages to "out", all with one id: nothing of a transaction is folded.
func outs(texts ...string) []schemas.Message {
	ms := make([]schemas.Message, len(texts))
	for i, s := range texts {
		ms[i] = schemas.Message{Topic: "out", Key: "k", ID: "one", Header: schemas.Header{"X-Text": {s}}, Payload: []byte(s)}
	}
	return ms
}

// sees checks that a reader of "out" sees these texts and nothing else: what is published last comes right after them.
func sees(t *testing.T, ctx context.Context, tr Transport, group string, want ...string) {
	t.Helper()
	_, err := tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "out", Key: "k", ID: group, Payload: []byte(group)}})
	must(t, err)
	src, err := tr.Topics.Subscribe(ctx, "out", group)
	must(t, err)
	var got []string
	for len(got) == 0 || got[len(got)-1] != group {
		collect(t, ctx, src, 1, func(d *connectors.Delivery) {
			got = append(got, string(d.Payload))
			accept(t, ctx)(d)
		})
	}
	must(t, src.Close(ctx))
	if got = got[:len(got)-1]; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("a reader sees %v, want %v", got, want)
	}
}

// comes subscribes to "in" again and checks which messages come.
func comes(t *testing.T, ctx context.Context, tr Transport, want ...string) (connectors.Source, []*connectors.Delivery) {
	t.Helper()
	src, err := tr.Topics.Subscribe(ctx, "in", "g")
	must(t, err)
	if len(want) == 0 { // a new message is the next
		_, err := tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "in", Key: "k", Payload: []byte("new")}})
		must(t, err)
		want = []string{"new"}
	}
	var ds []*connectors.Delivery
	collect(t, ctx, src, len(want), func(d *connectors.Delivery) {
		if w := want[len(ds)]; string(d.Payload) != w || d.Attempt < 2 && w != "new" {
			t.Fatalf("%s (attempt %d) came, want %s again", d.Payload, d.Attempt, w)
		}
		ds = append(ds, d)
	})
	return src, ds
}

func allAsOne(t *testing.T, s Subject) {
	ctx := within(t)
	tr, src, ds := floor(t, ctx, s, 1, 10)
	pos, err := tr.Transactor.Transact(ctx, outs("a", "b", "c"), ds[:4])
	must(t, err)
	for i, p := range pos {
		if p.Stream != "out" || p.Sequence == 0 || i > 0 && p.Sequence <= pos[i-1].Sequence {
			t.Fatalf("positions %v", pos)
		}
	}
	if len(pos) != 3 {
		t.Fatalf("%d positions of 3 messages", len(pos))
	}
	_, err = tr.Transactor.Transact(ctx, nil, ds[4:5]) // no message: it is settled all the same
	must(t, err)
	_, err = tr.Transactor.Transact(ctx, outs("d"), ds[5:])
	must(t, err)
	wantKind(t, ds[0].Settler.Accept(ctx, ds[:1]), schemas.Internal)
	must(t, src.Close(ctx))
	src, _ = comes(t, ctx, tr)
	must(t, src.Close(ctx))
	sees(t, ctx, tr, "reader", "a", "b", "c", "d")
	sees(t, ctx, tr, "other", "a", "b", "c", "d", "reader")
}

// nothingOfWhatFailed: a call that fails leaves nothing, a changed or repeated one goes through, and what was given up
// comes again.
func nothingOfWhatFailed(t *testing.T, s Subject) {
	ctx := within(t)
	tr, src, ds := floor(t, ctx, s, 1, 6)
	var refused *connectors.RefusedError
	large := append(outs("a", "b"), schemas.Message{Topic: "out", Key: "k", Payload: make([]byte, s.Max)})
	_, err := tr.Transactor.Transact(ctx, large, ds[:2])
	wantKind(t, err, schemas.Invalid)
	if !errors.As(err, &refused) || refused.Index != 2 || !strings.Contains(err.Error(), "at most") {
		t.Fatalf("%v does not tell the message and the limit", err)
	}
	if _, err = tr.Transactor.Transact(ctx, append(outs("a"), schemas.Message{Topic: "none", Payload: []byte("x")}), ds[:2]); err == nil {
		t.Fatal("stored in a topic that does not exist")
	}
	sees(t, ctx, tr, "one")
	_, err = tr.Transactor.Transact(ctx, outs("a", "b"), ds[:2])
	must(t, err)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err = tr.Transactor.Transact(gone, outs("c"), ds[2:3]); err == nil {
		t.Fatal("done although nobody waits any more")
	}
	for range 3 { // whatever became of it, it is done once
		short, cancel := context.WithTimeout(ctx, rand.N(3*time.Millisecond))
		_, err = tr.Transactor.Transact(short, outs("c"), ds[2:3])
		if cancel(); err == nil {
			break
		}
	}
	if err != nil {
		_, err = tr.Transactor.Transact(ctx, outs("c"), ds[2:3])
		must(t, err)
	}
	_, err = tr.Transactor.Transact(ctx, large, ds[3:])
	wantKind(t, err, schemas.Invalid)
	must(t, src.Close(ctx))
	src, ds = comes(t, ctx, tr, "3", "4", "5")
	_, err = tr.Transactor.Transact(ctx, outs("d"), ds)
	must(t, err)
	must(t, src.Close(ctx))
	sees(t, ctx, tr, "two", "one", "a", "b", "c", "d")
}

func transactMistakes(t *testing.T, s Subject) {
	ctx := within(t)
	tr, src, ds := floor(t, ctx, s, 4, 40)
	by := map[int32][]*connectors.Delivery{}
	for _, d := range ds {
		by[d.From.Partition] = append(by[d.From.Partition], d)
	}
	var lists [][]*connectors.Delivery
	for _, l := range by {
		if len(l) > 2 {
			lists = append(lists, l)
		}
	}
	if len(lists) < 2 {
		t.Fatalf("8 keys lie in %d partitions", len(by))
	}
	a, b := lists[0], lists[1]
	for what, ds := range map[string][]*connectors.Delivery{
		"none": nil, "of two partitions": {a[0], b[0]}, "not the oldest": a[1:], "one left out": {a[0], a[2]}, "one twice": {a[0], a[0]},
	} {
		_, err := tr.Transactor.Transact(ctx, outs(what), ds)
		if err == nil || schemas.KindOf(err) != schemas.Internal {
			t.Errorf("deliveries, %s: %v", what, err)
		}
	}
	must(t, a[0].Settler.Accept(ctx, a[:1]))
	if _, err := tr.Transactor.Transact(ctx, outs("settled already"), a); err == nil || schemas.KindOf(err) != schemas.Internal {
		t.Errorf("one that is settled already: %v", err)
	}
	_, err := tr.Transactor.Transact(ctx, outs("good"), a[1:])
	must(t, err)
	_, err = tr.Transactor.Transact(ctx, nil, b)
	must(t, err)
	must(t, src.Close(ctx))
	sees(t, ctx, tr, "reader", "good")
}

func transactDead(t *testing.T, s Subject) {
	ctx := within(t)
	tr, src, ds := floor(t, ctx, s, 1, 3)
	cause := schemas.FieldErrorf(schemas.Invalid, "test", "rows[0].x", "not\na number")
	dead := tr.Transactor.DeadLetter(ds[1], cause)
	large := append(outs("a"), dead, schemas.Message{Topic: "out", Key: "k", Payload: make([]byte, s.Max)})
	_, err := tr.Transactor.Transact(ctx, large, ds)
	wantKind(t, err, schemas.Invalid)
	all, err := tr.Dead(ctx, "in")
	must(t, err)
	if len(all) != 0 {
		t.Fatalf("%d dead letters of what failed", len(all))
	}
	_, err = tr.Transactor.Transact(ctx, append(outs("a"), dead), ds)
	must(t, err)
	must(t, src.Close(ctx))
	eventually(t, ctx, "the dead letter", func() bool { // a transaction is seen a moment after its end was answered
		all, err = tr.Dead(ctx, "in")
		return err != nil || len(all) > 0
	})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d dead letters, want 1; %v", len(all), err)
	}
	h := all[0].Header
	if string(all[0].Payload) != "1" || h.Get(schemas.HeaderErrorKind) != "invalid" || h.Get(schemas.HeaderSource) != ds[1].From.String() ||
		!strings.Contains(h.Get("Leat-Error"), "a number") || h.Get("X-Number") != "1" || h.Get(schemas.HeaderKey) != ds[1].Key {
		t.Fatalf("dead letter %s with %v", all[0].Payload, h)
	}
	src, _ = comes(t, ctx, tr)
	must(t, src.Close(ctx))
	sees(t, ctx, tr, "reader", "a")
}

// ownerThatLeft: after another member took the partition, nothing of the first one's is seen.
func ownerThatLeft(t *testing.T, s Subject) {
	ctx := within(t)
	tr, src, old := floor(t, ctx, s, 1, 4)
	_, err := tr.Transactor.Transact(ctx, outs("a"), old[:1])
	must(t, err)
	must(t, src.Close(ctx))
	src, ds := comes(t, ctx, tr, "1", "2", "3")
	for range 2 {
		if _, err := tr.Transactor.Transact(ctx, outs("lost"), old[1:3]); !errors.Is(err, connectors.ErrRevoked) || schemas.KindOf(err) != schemas.Unavailable {
			t.Fatalf("an owner that left is answered %v", err)
		}
	}
	_, err = tr.Transactor.Transact(ctx, outs("b"), ds[:2])
	must(t, err)
	if _, err := tr.Transactor.Transact(ctx, outs("lost"), old[1:3]); !errors.Is(err, connectors.ErrRevoked) {
		t.Fatalf("an owner that left is answered %v", err)
	}
	_, err = tr.Transactor.Transact(ctx, outs("c"), ds[2:])
	must(t, err)
	must(t, src.Close(ctx))
	sees(t, ctx, tr, "reader", "a", "b", "c")
}

// ownerThatLostIt: a member that is taken for dead loses its term, also where it gets the partition back.
func ownerThatLostIt(t *testing.T, s Subject) {
	ctx := within(t)
	tr, src, old := floor(t, ctx, s, 1, 4)
	if tr.Revoke == nil {
		t.Skip("this transport has no way to take a partition from a living owner")
	}
	_, err := tr.Transactor.Transact(ctx, outs("a"), old[:1])
	must(t, err)
	tr.Revoke("in", "g")
	var ds []*connectors.Delivery
	collect(t, ctx, src, 3, func(d *connectors.Delivery) {
		if o := old[1+len(ds)]; d.From != o.From || d.Term <= o.Term || d.Attempt < 2 {
			t.Fatalf("%v of term %d, attempt %d, came after %v of term %d", d.From, d.Term, d.Attempt, o.From, o.Term)
		}
		ds = append(ds, d)
	})
	if _, err := tr.Transactor.Transact(ctx, outs("lost"), old[1:3]); !errors.Is(err, connectors.ErrRevoked) {
		t.Fatalf("an owner that lost its term is answered %v", err)
	}
	must(t, old[1].Settler.Accept(ctx, old[1:2])) // too late to have an effect, and no fault of the caller
	_, err = tr.Transactor.Transact(ctx, outs("b"), ds)
	must(t, err)
	must(t, src.Close(ctx))
	sees(t, ctx, tr, "reader", "a", "b")
}

// onceThroughFailures: two owners copy a topic while calls are cut short, owners give up and go away, and partitions
// are taken from them. A reader sees each message once, each key in its order.
func onceThroughFailures(t *testing.T, s Subject) {
	ctx := within(t)
	tr, again, _ := s.Open(t)
	second := tr
	if again != nil {
		second = again()
	}
	must(t, tr.Topics.EnsureTopic(ctx, "in", 4))
	must(t, tr.Topics.EnsureTopic(ctx, "out", 3))
	const keys, each = 12, 120
	run, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range each {
			ms := make([]schemas.Message, keys)
			for k := range ms {
				ms[k] = schemas.Message{Topic: "in", Key: fmt.Sprintf("key-%d", k), Payload: []byte(strconv.Itoa(n))}
			}
			if _, err := tr.Publisher.Publish(run, ms); err != nil {
				t.Error(err)
				return
			}
		}
	})
	owners := [2]*copier{{t: t, tr: tr, quits: 3}, {t: t, tr: second, quits: 3}}
	for _, o := range owners {
		wg.Go(func() { o.run(run) })
	}
	reader, err := tr.Topics.Subscribe(ctx, "out", "reader")
	must(t, err)
	next, got := map[string]int{}, 0
	readTo := func(n int) {
		for got < n {
			ds, err := reader.Receive(ctx, 32)
			if err != nil {
				t.Fatalf("after %d of %d: %v", got, n, err)
			}
			for _, d := range ds {
				n, err := strconv.Atoi(string(d.Payload))
				must(t, err)
				if dies(next[d.Key]) {
					next[d.Key]++
				}
				if n != next[d.Key] {
					t.Fatalf("key %s: %d came where %d was due", d.Key, n, next[d.Key])
				}
				next[d.Key]++
			}
			got += len(ds)
			must(t, ds[0].Settler.Accept(ctx, ds))
		}
	}
	whole := keys * (each - each/dieEvery)
	for n := range 4 {
		if readTo(whole * n / 4); tr.Revoke != nil {
			tr.Revoke("in", "g")
		}
	}
	readTo(whole)
	stop()
	wg.Wait()
	// Behind the last message of each key comes nothing but its end.
	for k := range keys {
		_, err := tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "out", Key: fmt.Sprintf("key-%d", k), Payload: []byte("end")}})
		must(t, err)
	}
	collect(t, ctx, reader, keys, func(d *connectors.Delivery) {
		if string(d.Payload) != "end" {
			t.Fatalf("key %s: %s came after the last one", d.Key, d.Payload)
		}
	})
	must(t, reader.Close(ctx))
	dead, err := tr.Dead(ctx, "in")
	must(t, err)
	if want := keys * each / dieEvery; len(dead) != want {
		t.Errorf("%d dead letters, want %d", len(dead), want)
	}
	t.Logf("calls failed %d and %d times, given up %d and %d times, revoked %d and %d times",
		owners[0].repeats, owners[1].repeats, 3-owners[0].quits, 3-owners[1].quits, owners[0].revoked, owners[1].revoked)
}

// dieEvery is which messages of a key go to the dead letters.
const dieEvery = 30 // divides the messages of a key

func dies(n int) bool { return n%dieEvery == 0 }

// copier copies "in" to "out".
type copier struct {
	t                       *testing.T
	tr                      Transport
	quits, repeats, revoked int
}

func (c *copier) run(ctx context.Context) {
	for ctx.Err() == nil {
		src, err := c.tr.Topics.Subscribe(ctx, "in", "g")
		if err != nil {
			if ctx.Err() == nil {
				c.t.Error(err)
			}
			return
		}
		for c.copy(ctx, src) {
		}
		if err := src.Close(context.WithoutCancel(ctx)); err != nil {
			c.t.Error(err)
			return
		}
	}
}

// copy moves on what is there; false when the source shall be left.
func (c *copier) copy(ctx context.Context, src connectors.Source) bool {
	ds, err := src.Receive(ctx, 16)
	if err != nil {
		return false
	}
	type hold struct {
		partition int32
		term      uint64
	}
	by := map[hold][]*connectors.Delivery{}
	for _, d := range ds {
		h := hold{d.From.Partition, d.Term}
		by[h] = append(by[h], d)
	}
	for _, ds := range by {
		if !c.commit(ctx, ds) {
			return false
		}
	}
	return true
}

func (c *copier) commit(ctx context.Context, ds []*connectors.Delivery) bool {
	var ms []schemas.Message
	for _, d := range ds {
		if n, _ := strconv.Atoi(string(d.Payload)); dies(n) {
			ms = append(ms, c.tr.Transactor.DeadLetter(d, schemas.Errorf(schemas.Invalid, "test", "it dies")))
		} else {
			ms = append(ms, schemas.Message{Topic: "out", Key: d.Key, ID: d.From.String(), Payload: d.Payload})
		}
	}
	for {
		call, cancel := context.WithCancel(ctx)
		switch rand.IntN(8) {
		case 0: // too late already
			cancel()
		case 1: // somewhere on the way
			cancel()
			call, cancel = context.WithTimeout(ctx, rand.N(8*time.Millisecond))
		}
		_, err := c.tr.Transactor.Transact(call, ms, ds)
		cancel()
		switch {
		case err == nil:
			return true
		case errors.Is(err, connectors.ErrRevoked):
			c.revoked++
			return true
		case ctx.Err() != nil:
			return false
		case schemas.KindOf(err) == schemas.Internal || schemas.KindOf(err) == schemas.Invalid:
			c.t.Error(err)
			return false
		}
		if c.repeats++; c.quits > 0 && rand.IntN(4) == 0 {
			c.quits--
			return false
		}
	}
}
