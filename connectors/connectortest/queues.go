package connectortest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

func queues(t *testing.T, s Subject) {
	t.Run("shared, settled once, gone", func(t *testing.T) {
		ctx := within(t)
		tr, again, _ := s.Open(t)
		must(t, tr.Queues.EnsureQueue(ctx, "q", 8<<20))
		must(t, tr.Queues.EnsureQueue(ctx, "q", 8<<20))
		const n = 200
		var mu sync.Mutex
		seen, by := map[string]int{}, [2]int{}
		run, stop := context.WithCancel(ctx)
		defer stop()
		var wg sync.WaitGroup
		for w, c := range []Transport{tr, again()} {
			src, err := c.Queues.SubscribeQueue(ctx, "q")
			must(t, err)
			wg.Go(func() {
				defer src.Close(context.WithoutCancel(ctx))
				for {
					ds, err := src.Receive(run, 4)
					if err != nil {
						return
					}
					for _, d := range ds {
						if d.Attempt == 1 && d.From.Sequence%7 == 0 {
							if err := d.Settler.Retry(ctx, d, 0); err != nil {
								t.Error(err)
							}
							continue
						}
						if err := d.Settler.Accept(ctx, []*connectors.Delivery{d}); err != nil {
							t.Error(err)
						}
						mu.Lock()
						seen[string(d.Payload)]++
						by[w]++
						if len(seen) == n {
							stop()
						}
						mu.Unlock()
					}
				}
			})
		}
		_, err := tr.Queues.QueuePublisher().Publish(ctx, messages("q", 1, n))
		must(t, err)
		wg.Wait()
		for k, c := range seen {
			if c != 1 {
				t.Errorf("message %s was accepted %d times", k, c)
			}
		}
		if len(seen) != n || by[0] == 0 || by[1] == 0 {
			t.Fatalf("%d of %d messages, by member %v", len(seen), n, by)
		}
		must(t, tr.Queues.DropQueue(ctx, "q"))
		must(t, tr.Queues.DropQueue(ctx, "q"))
	})
	t.Run("full refuses", func(t *testing.T) {
		ctx := within(t)
		tr, _, _ := s.Open(t)
		must(t, tr.Queues.EnsureQueue(ctx, "q", 64<<10))
		pub := tr.Queues.QueuePublisher()
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			_, err = pub.Publish(ctx, []schemas.Message{{Topic: "q", ID: fmt.Sprint(n), Payload: make([]byte, 4<<10)}})
		}
		wantKind(t, err, schemas.Unavailable)
		if !errors.Is(err, schemas.ErrFull) {
			t.Fatalf("%v does not wrap ErrFull", err)
		}
		src, err := tr.Queues.SubscribeQueue(ctx, "q")
		must(t, err)
		collect(t, ctx, src, n-1, accept(t, ctx))
		must(t, src.Close(ctx))
		// Settled messages are gone, so that there is room again. When that is so a queue does not say.
		eventually(t, ctx, "room in the queue", func() bool {
			_, err := pub.Publish(ctx, []schemas.Message{{Topic: "q", ID: "room", Payload: make([]byte, 4<<10)}})
			if err != nil && !errors.Is(err, schemas.ErrFull) {
				t.Fatal(err)
			}
			return err == nil
		})
	})
	t.Run("close hands back", func(t *testing.T) {
		ctx := within(t)
		tr, _, _ := s.Open(t)
		must(t, tr.Queues.EnsureQueue(ctx, "q", 1<<20))
		_, err := tr.Queues.QueuePublisher().Publish(ctx, messages("q", 1, 5))
		must(t, err)
		src, err := tr.Queues.SubscribeQueue(ctx, "q")
		must(t, err)
		ds, err := src.Receive(ctx, 2)
		must(t, err)
		must(t, ds[0].Settler.Accept(ctx, ds[:1]))
		must(t, src.Close(ctx))
		next, err := tr.Queues.SubscribeQueue(ctx, "q")
		must(t, err)
		got := map[string]bool{}
		collect(t, ctx, next, 4, func(d *connectors.Delivery) {
			got[string(d.Payload)] = true
			accept(t, ctx)(d)
		})
		if len(got) != 4 || got[string(ds[0].Payload)] {
			t.Fatalf("after %s was accepted, %v came", ds[0].Payload, got)
		}
		must(t, next.Close(ctx))
	})
}
