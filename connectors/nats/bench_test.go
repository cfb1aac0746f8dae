package nats

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

var body = make([]byte, 512)

// BenchmarkRequest measures a user's request over TCP: answered by nats.go's own callback in the same account (the
// floor), and by Serve and Respond, with our side in-process or over TCP.
func BenchmarkRequest(b *testing.B) {
	for _, conc := range []int{1, 64} {
		for _, side := range []string{"floor", "in-process", "tcp"} {
			b.Run(fmt.Sprintf("%s/c=%d", side, conc), func(b *testing.B) {
				s := startServer(b, b.TempDir(), 0)
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				serveSide(b, ctx, s, side)
				users := make([]*nats.Conn, min(conc, 4))
				for i := range users {
					users[i] = user(b, s)
				}
				run(b, conc, func(w int) error {
					_, err := users[w%len(users)].Request("leat.score.echo", body, 5*time.Second)
					return err
				})
			})
		}
	}
}

func serveSide(b *testing.B, ctx context.Context, s *Server, side string) {
	c := Default()
	c.Server = s
	if side == "floor" {
		_, front := s.Credentials()
		nc, err := nats.Connect(s.URL(), nats.UserInfo(front.User, front.Password))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(nc.Close)
		if _, err := nc.QueueSubscribe("leat.score.echo", "primary", func(m *nats.Msg) { m.Respond(m.Data) }); err != nil {
			b.Fatal(err)
		}
		nc.Flush()
		return
	}
	if side == "tcp" {
		c.Server = nil
		c.URL, c.FrontURL = s.URL(), s.URL()
		c.Credentials, c.Front = s.Credentials()
	}
	cl := dialConfig(b, c)
	src, err := cl.Serve(ctx, "echo", "primary")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		var rs []connectors.Response
		for {
			ds, err := src.Receive(ctx, 256)
			if err != nil {
				return
			}
			rs = rs[:0]
			for _, d := range ds {
				rs = append(rs, connectors.Response{To: d.ReplyTo, Payload: d.Payload})
			}
			cl.Respond(ctx, rs)
		}
	}()
}

// run spreads b.N calls over workers and reports the median latency.
func run(b *testing.B, workers int, call func(w int) error) {
	for range 100 {
		if err := call(0); err != nil {
			b.Fatal(err)
		}
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var mu sync.Mutex
	var all []time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var mine []time.Duration
			for left.Add(-1) >= 0 {
				t := time.Now()
				if err := call(w); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(t))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkAppend compares Log.Append with the library's own synchronous publish.
func BenchmarkAppend(b *testing.B) {
	for _, sync := range []bool{false, true} {
		conf := DefaultServer()
		conf.Dir, conf.Port, conf.Sync, conf.StoreLimit = b.TempDir(), 0, sync, 64<<30
		s, err := NewServer(conf, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.Close)
		c := dial(b, s)
		l, err := c.OpenLog(b.Context(), schemas.LogConfig{Name: "LEAT_L", Prefix: "leat.l", MaxBytes: 8 << 30})
		if err != nil {
			b.Fatal(err)
		}
		i := 0
		b.Run(fmt.Sprintf("bare/sync=%v", sync), func(b *testing.B) {
			run(b, 1, func(int) error {
				i++
				_, err := c.js.Publish(b.Context(), "leat.l.p", body, jetstream.WithMsgID(fmt.Sprint("b", i)))
				return err
			})
		})
		b.Run(fmt.Sprintf("Append/sync=%v", sync), func(b *testing.B) {
			run(b, 1, func(int) error { i++; _, err := l.Append(b.Context(), "p", fmt.Sprint("a", i), body); return err })
		})
	}
}

// BenchmarkTopic measures one message of 512 bytes on its way through a topic: published in calls of 256, consumed by a
// group that accepts each Receive, replayed.
func BenchmarkTopic(b *testing.B) {
	s := startServer(b, b.TempDir(), 0)
	c := dial(b, s)
	if err := c.EnsureTopic(b.Context(), "t", 8); err != nil {
		b.Fatal(err)
	}
	stored := 0
	publish := func(n int) {
		for n > 0 {
			ms := make([]schemas.Message, min(n, 256))
			for i := range ms {
				ms[i] = schemas.Message{Topic: "t", Key: fmt.Sprint(i), Payload: body}
			}
			if _, err := c.Publish(b.Context(), ms); err != nil {
				b.Fatal(err)
			}
			n -= len(ms)
			stored += len(ms)
		}
	}
	b.Run("publish", func(b *testing.B) {
		b.ReportAllocs()
		publish(b.N)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
	round := 0
	b.Run("consume", func(b *testing.B) {
		if stored < b.N {
			publish(b.N - stored)
		}
		round++
		src, err := c.Subscribe(b.Context(), "t", fmt.Sprint("g", round))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.ResetTimer()
		for n := 0; n < b.N; {
			ds, err := src.Receive(b.Context(), 256)
			if err != nil {
				b.Fatal(err)
			}
			if err := ds[0].Settler.Accept(b.Context(), ds); err != nil {
				b.Fatal(err)
			}
			n += len(ds)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		b.StopTimer()
		if err := src.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("replay", func(b *testing.B) {
		if stored < b.N {
			publish(b.N - stored)
		}
		spans, err := c.Spans(b.Context(), "t", connectors.Start{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.ResetTimer()
		n := 0
		for n < b.N {
			for _, sp := range spans {
				src, err := c.Open(b.Context(), sp)
				if err != nil {
					b.Fatal(err)
				}
				for n < b.N {
					ds, err := src.Receive(b.Context(), 1024)
					if err != nil {
						break
					}
					n += len(ds)
				}
				src.Close(b.Context())
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}
