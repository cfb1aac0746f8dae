package kafka

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
)

// worker is a member that settles what it gets, some of it late, out of order, on another try, or never.
type worker struct {
	c    *Client
	src  *groupSource
	stop context.CancelFunc
	done chan struct{}
}

// seen is what all workers have received.
type seen struct {
	t        testing.TB
	mu       sync.Mutex
	next     []uint64 // sequence after the newest received, by partition
	received atomic.Int64
	repeats  atomic.Int64
}

// note checks that nothing is passed over: a record comes for the first time right after the one before it.
func (s *seen) note(ds []*connectors.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		switch n := &s.next[d.From.Partition]; {
		case d.From.Sequence == *n:
			*n++
			s.received.Add(1)
		case d.From.Sequence > *n:
			s.t.Errorf("%v came where %d was due", d.From, *n)
			*n = d.From.Sequence + 1
		default:
			s.repeats.Add(1)
		}
	}
}

func startWorker(t testing.TB, ctx context.Context, cfg Config, s *seen) *worker {
	t.Helper()
	w := &worker{c: dialConfig(t, cfg), done: make(chan struct{})}
	w.src = subscribe(t, ctx, w.c, "t")
	run, stop := context.WithCancel(ctx)
	w.stop = stop
	go func() {
		defer close(w.done)
		var settling sync.WaitGroup
		defer settling.Wait()
		for {
			ds, err := w.src.Receive(run, 1+rand.IntN(40))
			if err != nil {
				return
			}
			s.note(ds)
			settling.Go(func() {
				for _, i := range rand.Perm(len(ds)) {
					w.settle(t, run, ds[i])
				}
			})
		}
	}()
	return w
}

func (w *worker) settle(t testing.TB, ctx context.Context, d *connectors.Delivery) {
	var err error
	switch rand.IntN(100) {
	case 0:
		err = d.Settler.Reject(ctx, d, errors.New("poison"))
	case 1, 2, 3:
		err = d.Settler.Retry(ctx, d, rand.N(5*time.Millisecond))
	default:
		err = d.Settler.Accept(ctx, []*connectors.Delivery{d})
	}
	if err != nil && ctx.Err() == nil && w.c.closing.Err() == nil {
		t.Errorf("settling %v: %v", d.From, err)
	}
}

// TestGroupChurn: members come, leave, die and are thrown out while records are written and settled. Nothing is passed
// over, and commits never go back.
func TestGroupChurn(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testLimit)
	defer cancel()
	cfg := shared(t)
	cfg.InFlight = 200
	c := dialConfig(t, cfg)
	const partitions, rounds = 5, 10
	must(t, c.EnsureTopic(ctx, "t", partitions))
	s := &seen{t: t, next: slices.Repeat([]uint64{1}, partitions)}
	run, stop := context.WithCancel(ctx)
	defer stop()
	var side sync.WaitGroup
	written := 0
	ending := make(chan struct{})
	side.Go(func() {
		for {
			select {
			case <-ending:
				return
			default:
			}
			publish(t, ctx, c, "t", partitions, written, 10)
			written += 10
			eventually(t, ctx, "room", func() bool { return s.received.Load() > int64(partitions*(written-300)) })
		}
	})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		at := slices.Repeat([]int64{-1}, partitions)
		for run.Err() == nil {
			now := committed(t, ctx, c, "t", partitions)
			for p := range now {
				if now[p] < at[p] {
					t.Errorf("partition %d: the commit went back from %d to %d", p, at[p], now[p])
				}
			}
			at = now
			time.Sleep(5 * time.Millisecond) // poll
		}
	})
	var workers [3]*worker
	for round := range rounds {
		start, what := time.Now(), "one joins"
		i := rand.IntN(len(workers))
		switch w := workers[i]; {
		case w == nil:
			workers[i] = startWorker(t, ctx, cfg, s)
		case round%3 == 0:
			what = "all are thrown out"
			revoke(t, c, "g")
		default:
			workers[i] = nil
			if rand.IntN(2) == 0 {
				what = "one leaves"
				must(t, w.src.Close(ctx))
			} else {
				what = "one dies"
				w.c.Close() // nothing is said to anybody
			}
			w.stop()
			<-w.done
		}
		if !slices.ContainsFunc(workers[:], func(w *worker) bool { return w != nil }) {
			workers[i] = startWorker(t, ctx, cfg, s)
		}
		from := s.received.Load()
		eventually(t, ctx, "progress", func() bool { return s.received.Load() >= from+500 })
		t.Logf("%s: %v", what, time.Since(start))
	}
	close(ending)
	side.Wait()
	want := slices.Repeat([]int64{int64(written)}, partitions)
	eventually(t, ctx, "the rest", func() bool { return slices.Equal(committed(t, ctx, c, "t", partitions), want) })
	for _, w := range workers {
		if w != nil {
			must(t, w.src.Close(ctx))
			w.stop()
			<-w.done
		}
	}
	stop()
	watcher.Wait()
	if n := s.received.Load(); n != int64(written*partitions) {
		t.Errorf("%d records received, %d written", n, written*partitions)
	}
	t.Logf("%d records, %d came again", s.received.Load(), s.repeats.Load())
}
