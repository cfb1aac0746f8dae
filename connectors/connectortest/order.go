package connectortest

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

func order(t *testing.T, s Subject) {
	t.Run("of concurrent keys", func(t *testing.T) { orderOfKeys(t, s) })
	if s.Claims.Retry {
		t.Run("through retries", func(t *testing.T) { orderThroughRetries(t, s) })
		t.Run("a retry holds its partition", func(t *testing.T) { retryHolds(t, s) })
	}
}

// orderOfKeys: several publishers, each with keys of its own; each key's messages arrive as they were published.
func orderOfKeys(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t", 4))
	const writers, each = 4, 150
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for from := 0; from < each; from += 30 {
				ms := make([]schemas.Message, 30)
				for i := range ms {
					n := from + i
					ms[i] = schemas.Message{Topic: "t", Key: fmt.Sprintf("w%d-k%d", w, n%3), Payload: []byte(strconv.Itoa(n))}
				}
				if _, err := tr.Publisher.Publish(ctx, ms); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	src, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	last := map[string]int{}
	collect(t, ctx, src, writers*each, func(d *connectors.Delivery) {
		inOrder(t, last, d)
		accept(t, ctx)(d)
	})
	wg.Wait()
	must(t, src.Close(ctx))
}

// inOrder checks that a key's numbers grow by the writers' three.
func inOrder(t testing.TB, last map[string]int, d *connectors.Delivery) {
	t.Helper()
	n, err := strconv.Atoi(string(d.Payload))
	must(t, err)
	if p, ok := last[d.Key]; ok && n != p+3 || !ok && n > 2 {
		t.Fatalf("key %s: %d came after %d", d.Key, n, p)
	}
	last[d.Key] = n
}

// orderThroughRetries: every fifth message is asked for again twice. Messages are taken one by one, so that nothing of
// the partition is in hand beside the one that is retried: order must be perfect.
func orderThroughRetries(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t", 2))
	ms := make([]schemas.Message, 60)
	for i := range ms {
		ms[i] = schemas.Message{Topic: "t", Key: fmt.Sprintf("k%d", i%3), Payload: []byte(strconv.Itoa(i))}
	}
	_, err := tr.Publisher.Publish(ctx, ms)
	must(t, err)
	src, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	last := map[string]int{}
	for done := 0; done < len(ms); {
		ds, err := src.Receive(ctx, 1)
		must(t, err)
		d := ds[0]
		n, err := strconv.Atoi(string(d.Payload))
		must(t, err)
		if n%5 == 0 && d.Attempt < 3 {
			must(t, d.Settler.Retry(ctx, d, 5*time.Millisecond))
			wantKind(t, d.Settler.Accept(ctx, ds), schemas.Internal)
			continue
		}
		if want := 1 + 2*b2i(n%5 == 0); d.Attempt != want {
			t.Fatalf("message %d: attempt %d, want %d", n, d.Attempt, want)
		}
		inOrder(t, last, d)
		must(t, d.Settler.Accept(ctx, ds))
		done++
	}
	must(t, src.Close(ctx))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// retryHolds: while a message waits for its retry nothing later of its partition comes, and other partitions go on.
func retryHolds(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t", 8))
	src, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	held, other := schemas.Message{Topic: "t", Key: "held", Payload: []byte("0")}, ""
	pos, err := tr.Publisher.Publish(ctx, []schemas.Message{held})
	must(t, err)
	for i := 0; other == ""; i++ { // a key of another partition
		k := fmt.Sprintf("other-%d", i)
		p, err := tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "t", Key: k, Payload: []byte("free")}})
		must(t, err)
		if p[0].Partition != pos[0].Partition {
			other = k
		}
	}
	const after = 300 * time.Millisecond
	var from time.Time
	for from.IsZero() {
		ds, err := src.Receive(ctx, 1)
		must(t, err)
		if ds[0].Key == "held" {
			from = time.Now()
			must(t, ds[0].Settler.Retry(ctx, ds[0], after))
		} else {
			must(t, ds[0].Settler.Accept(ctx, ds))
		}
	}
	_, err = tr.Publisher.Publish(ctx, []schemas.Message{
		{Topic: "t", Key: "held", Payload: []byte("1")}, {Topic: "t", Key: other, Payload: []byte("last")}, {Topic: "t", Key: "held", Payload: []byte("2")},
	})
	must(t, err)
	next, freed := 0, false
	for next < 3 || !freed {
		ds, err := src.Receive(ctx, 1)
		must(t, err)
		d := ds[0]
		if d.Key != "held" {
			freed = freed || string(d.Payload) == "last"
			if freed && next == 0 && time.Since(from) > 20*after {
				t.Error("another partition was held back")
			}
		} else {
			if string(d.Payload) != strconv.Itoa(next) {
				t.Fatalf("got %s of the held key, want %d", d.Payload, next)
			}
			if next == 0 && (time.Since(from) < after || d.Attempt != 2) {
				t.Fatalf("retried after %v with attempt %d, want %v and 2", time.Since(from), d.Attempt, after)
			}
			if next == 0 && !freed {
				t.Error("another partition waited for the retry")
			}
			next++
		}
		must(t, d.Settler.Accept(ctx, ds))
	}
	must(t, src.Close(ctx))
}
