package connectortest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

// restartUnderLoad: the server goes down and comes back three times while two publishers and a consumer are at work,
// and while requests are asked. Every acknowledged message arrives, the first arrivals of each key in order; requests
// succeed again by themselves.
func restartUnderLoad(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, restart := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t", 4))
	if s.Claims.Request {
		answering(t, ctx, tr, "echo", echo)
	}
	src, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)

	var published, got atomic.Int64
	stop := make(chan struct{})
	var acked sync.Map // payload of acknowledged messages
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for n := 0; ; n += 20 {
				select {
				case <-stop:
					return
				default:
				}
				if published.Load() > got.Load()+5000 { // the test is about order and loss, not about speed
					time.Sleep(time.Millisecond)
					n -= 20
					continue
				}
				ms := make([]schemas.Message, 20)
				for i := range ms {
					k := fmt.Sprintf("w%d-k%d", w, (n+i)%3)
					ms[i] = schemas.Message{Topic: "t", Key: k, ID: fmt.Sprintf("%d-%d", w, n+i), Payload: []byte(strconv.Itoa(n + i))}
				}
				if _, err := tr.Publisher.Publish(ctx, ms); err != nil {
					t.Errorf("publisher %d: %v", w, err)
					return
				}
				for _, m := range ms {
					acked.Store(m.Key+"/"+string(m.Payload), true)
				}
				published.Add(int64(len(ms)))
			}
		})
	}

	received := make(chan map[string]bool, 1)
	run, end := context.WithCancel(ctx)
	go func() {
		seen, last := map[string]bool{}, map[string]int{}
		defer func() { received <- seen }()
		for {
			ds, err := src.Receive(run, 50)
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Receive: %v", err)
				}
				return
			}
			for _, d := range ds {
				id := d.Key + "/" + string(d.Payload)
				if !seen[id] {
					n, _ := strconv.Atoi(string(d.Payload))
					if p, ok := last[d.Key]; ok && n != p+3 {
						t.Errorf("key %s: %d came after %d", d.Key, n, p)
					}
					seen[id], last[d.Key] = true, n
					got.Add(1)
				}
			}
			if err := ds[0].Settler.Accept(ctx, ds); err != nil {
				t.Errorf("Accept: %v", err)
			}
		}
	}()

	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil || t.Failed() {
				t.Fatalf("gave up waiting for %s: published %d, received %d", what, published.Load(), got.Load())
			}
			time.Sleep(time.Millisecond) // poll
		}
	}
	for range 3 {
		p, g := published.Load(), got.Load()
		until("load", func() bool { return published.Load() > p+200 && got.Load() > g+200 })
		restart()
	}
	p := published.Load()
	until("load after the last restart", func() bool { return published.Load() > p+200 })
	close(stop)
	writers.Wait()
	until("the rest", func() bool { return got.Load() >= published.Load() })
	end()
	seen := <-received
	acked.Range(func(k, _ any) bool {
		if !seen[k.(string)] {
			t.Errorf("acknowledged message %s was lost", k)
		}
		return true
	})
	must(t, src.Close(ctx))
	if s.Claims.Request {
		until("an answer", func() bool {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			r, err := tr.Requester.Request(short, &schemas.Message{Topic: "echo", Payload: []byte("x")})
			return err == nil && string(r.Payload) == "x"
		})
	}
}
