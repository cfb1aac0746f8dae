package kafka

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

func recs(offsets ...int64) []fetched {
	out := make([]fetched, len(offsets))
	for i, o := range offsets {
		out[i] = fetched{offset: o, value: []byte("12345678"), time: time.UnixMilli(o)}
	}
	return out
}

func lent(offset int64, attempt int) *connectors.Delivery {
	return &connectors.Delivery{From: schemas.Position{Stream: "t", Sequence: uint64(offset) + 1}, Attempt: attempt}
}

var epoch = time.Unix(1000, 0)

// hand pops a record and checks which one it is.
func hand(t *testing.T, tr *tracker, offset int64, attempt int) *connectors.Delivery {
	t.Helper()
	r, a := tr.pop(epoch)
	if r == nil || r.offset != offset || a != attempt {
		t.Fatalf("handed over %v, attempt %d; want offset %d, attempt %d", r, a, offset, attempt)
	}
	return lent(offset, attempt)
}

func done(t *testing.T, tr *tracker, floor int64, ds ...*connectors.Delivery) {
	t.Helper()
	for _, d := range ds {
		if err := tr.settle("test", d); err != nil {
			t.Fatal(err)
		}
	}
	if tr.advance(); tr.floor != floor {
		t.Fatalf("floor %d, want %d", tr.floor, floor)
	}
}

// TestTrackerPrefix: only the unbroken prefix may be committed, over gaps and markers too.
func TestTrackerPrefix(t *testing.T) {
	tr := newTracker(100)
	if tr.put(recs(5, 6, 9), 12); tr.floor != 5 {
		t.Fatalf("floor %d before anything is settled, want 5", tr.floor)
	}
	a, b, c := hand(t, &tr, 5, 1), hand(t, &tr, 6, 1), hand(t, &tr, 9, 1)
	if r, _ := tr.pop(epoch); r != nil {
		t.Fatal("handed over what is not there")
	}
	done(t, &tr, 5, b)
	done(t, &tr, 7, a)
	tr.put(nil, 14) // markers come while 9 is in work
	done(t, &tr, 14, c)
	tr.put(nil, 20) // and while nothing is
	if tr.floor != 20 {
		t.Fatalf("floor %d, want 20", tr.floor)
	}
	tr.put(recs(20, 21), 22)
	tr.put(nil, 25) // and while some wait
	done(t, &tr, 21, hand(t, &tr, 20, 1))
	done(t, &tr, 25, hand(t, &tr, 21, 1))
	if tr.high != 22 || tr.hands != 0 || tr.bytes != 0 || tr.records != 0 {
		t.Fatalf("%+v", tr)
	}
}

func TestTrackerStartsAtTheEnd(t *testing.T) {
	tr := newTracker(100)
	if tr.put(nil, 42); tr.floor != 42 || tr.end != 42 {
		t.Fatalf("%+v", tr)
	}
}

func TestTrackerSettlesOnce(t *testing.T) {
	tr := newTracker(100)
	tr.again = 1
	tr.put(recs(0, 1), 2)
	a, b := hand(t, &tr, 0, 2), hand(t, &tr, 1, 1)
	done(t, &tr, 0, b)
	for what, d := range map[string]*connectors.Delivery{"settled": b, "another attempt": lent(0, 1), "never handed over": lent(2, 1), "before the first": lent(-1, 1)} {
		if err := tr.settle("test", d); err == nil || schemas.KindOf(err) != schemas.Internal {
			t.Errorf("%s: %v", what, err)
		}
	}
	done(t, &tr, 2, a)
	if err := tr.settle("test", a); err == nil {
		t.Error("settled twice")
	}
}

func TestTrackerRetry(t *testing.T) {
	tr := newTracker(100)
	tr.put(recs(0, 1, 2, 3), 4)
	a, b, c := hand(t, &tr, 0, 1), hand(t, &tr, 1, 1), hand(t, &tr, 2, 1)
	for d, after := range map[*connectors.Delivery]time.Duration{c: time.Second, b: 2 * time.Second} {
		if err := tr.retry("test", d, epoch.Add(after)); err != nil {
			t.Fatal(err)
		}
		if err := tr.settle("test", d); err == nil {
			t.Error("settled while it waits for its retry")
		}
	}
	done(t, &tr, 1, a)
	if r, _ := tr.pop(epoch); r != nil {
		t.Fatal("a retry does not hold its partition")
	}
	// 2 is due, and waits for 1 before it.
	if ds := tr.due(epoch.Add(time.Second), nil, 10); len(ds) != 0 {
		t.Fatalf("%d came out of order", len(ds))
	}
	ds := tr.due(epoch.Add(2*time.Second), nil, 1)
	if len(ds) != 1 || ds[0].From.Sequence != 2 || ds[0].Attempt != 2 || b.Attempt != 1 {
		t.Fatalf("%v", ds)
	}
	if r, _ := tr.pop(epoch); r != nil {
		t.Fatal("the second retry does not hold its partition")
	}
	ds = tr.due(epoch.Add(2*time.Second), ds, 10)
	if len(ds) != 2 || tr.hands != 2 {
		t.Fatalf("%v", ds)
	}
	done(t, &tr, 3, ds...)
	done(t, &tr, 4, hand(t, &tr, 3, 1))
}

func TestTrackerLimit(t *testing.T) {
	tr := newTracker(2)
	tr.put(recs(0, 1, 2), 3)
	a, b := hand(t, &tr, 0, 1), hand(t, &tr, 1, 1)
	done(t, &tr, 0, b) // settled, and not committable
	if r, _ := tr.pop(epoch); r != nil {
		t.Fatal("more in work than the limit")
	}
	done(t, &tr, 2, a)
	done(t, &tr, 3, hand(t, &tr, 2, 1))

	tr.put(recs(3, 4), 5)
	if !tr.room(32) || tr.room(31) {
		t.Fatalf("%d bytes wait", tr.bytes)
	}
}

func TestTrackerFirst(t *testing.T) {
	tr := newTracker(10)
	tr.put(recs(0, 1, 2, 3), 4)
	a, b, c, d := hand(t, &tr, 0, 1), hand(t, &tr, 1, 1), hand(t, &tr, 2, 1), hand(t, &tr, 3, 1)
	done(t, &tr, 0, c)
	type list = []*connectors.Delivery
	for what, ds := range map[string]list{"not the oldest": {b}, "one left out": {a, d}, "one twice": {a, a}, "settled already": {a, b, c}} {
		if _, err := tr.first("test", ds); err == nil || schemas.KindOf(err) != schemas.Internal {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, ok := range []struct {
		ds   list
		next int64
	}{{list{a}, 1}, {list{a, b}, 3}, {list{a, b, d}, 4}} {
		if next, err := tr.first("test", ok.ds); err != nil || next != ok.next {
			t.Errorf("%d, %v; want %d", next, err, ok.next)
		}
	}
	if err := tr.retry("test", a, epoch); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.first("test", list{b}); err == nil {
		t.Error("the oldest waits for its retry")
	}
}

// TestTrackerAgainstModel: whatever is fetched, settled and retried in whatever order, everything is handed over in
// order, and the floor is exactly the end of what is settled without a gap.
func TestTrackerAgainstModel(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		tr := newTracker(1 + r.IntN(50))
		var all []int64                     // every record fetched
		state := map[int64]bool{}           // settled
		hands := map[int64]int{}            // in hands: attempt
		waits := map[int64]int{}            // for retry: attempt
		next, handed := int64(0), int64(-1) // next offset; newest handed over for the first time
		now, low := epoch, 0
		for range 2000 {
			now = now.Add(time.Millisecond)
			switch r.IntN(6) {
			case 0:
				var rs []fetched
				for range r.IntN(20) {
					next += int64(1 + r.IntN(2)*r.IntN(4))
					rs = append(rs, recs(next-1)...)
					all = append(all, next-1)
				}
				next += int64(r.IntN(3))
				tr.put(rs, next)
			case 1, 2:
				if f, attempt := tr.pop(now); f != nil {
					if f.offset <= handed || len(waits) > 0 || attempt != 1 {
						t.Fatalf("seed %d: %d came after %d", seed, f.offset, handed)
					}
					handed = f.offset
					hands[f.offset] = 1
				}
			case 3, 4:
				for o, attempt := range hands {
					delete(hands, o)
					if r.IntN(4) == 0 {
						waits[o] = attempt + 1
						if err := tr.retry("test", lent(o, attempt), now.Add(time.Duration(r.IntN(5))*time.Millisecond)); err != nil {
							t.Fatal(err)
						}
					} else if state[o] = true; tr.settle("test", lent(o, attempt)) != nil {
						t.Fatalf("seed %d: cannot settle %d", seed, o)
					}
					break
				}
				tr.advance()
			case 5:
				for _, d := range tr.due(now, nil, 1+r.IntN(3)) {
					o := int64(d.From.Sequence) - 1
					if waits[o] != d.Attempt {
						t.Fatalf("seed %d: %d came as attempt %d", seed, o, d.Attempt)
					}
					for other := range waits {
						if other < o {
							t.Fatalf("seed %d: %d came before %d", seed, o, other)
						}
					}
					delete(waits, o)
					hands[o] = d.Attempt
				}
			}
			for low < len(all) && state[all[low]] {
				low++
			}
			want := next
			if low < len(all) {
				want = all[low]
			}
			// Between two records the floor may stand anywhere in the gap.
			if tr.floor >= 0 && (tr.floor > want || low > 0 && tr.floor <= all[low-1]) {
				t.Fatalf("seed %d: floor %d, want %d", seed, tr.floor, want)
			}
			if tr.hands != len(hands) || len(hands)+len(waits) > tr.limit {
				t.Fatalf("seed %d: %d in hands, want %d", seed, tr.hands, len(hands))
			}
		}
	}
}
