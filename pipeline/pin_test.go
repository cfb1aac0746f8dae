package pipeline

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// pinnable is a processor whose active revision holds nothing.
func pinnable() *processor {
	p := &processor{}
	p.active.Store(pinned())
	return p
}

func pinned() *compiled {
	c := &compiled{}
	c.refs.Store(1)
	return c
}

// Requests pin the revision that they are admitted under without a lock: while they do and revisions change, nobody waits for
// anybody, and a revision is let go of when its last request is.
func TestPinTakesNoLock(t *testing.T) {
	rate := runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	defer func() {
		runtime.SetMutexProfileFraction(rate)
		runtime.SetBlockProfileRate(0)
	}()
	p := pinnable()
	var wg sync.WaitGroup
	var done atomic.Bool
	for range 8 {
		wg.Go(func() {
			for !done.Load() {
				c := p.acquire()
				if c.refs.Load() < 1 {
					t.Error("a pinned revision was let go of")
				}
				c.release()
			}
		})
	}
	var all []*compiled
	for range 20_000 {
		c := pinned()
		old := p.active.Swap(c)
		old.release()
		all = append(all, old)
	}
	done.Store(true)
	wg.Wait()
	for i, c := range all {
		if n := c.refs.Load(); n != 0 {
			t.Fatalf("revision %d is held %d times", i, n)
		}
	}
	for name, profile := range map[string]func([]runtime.BlockProfileRecord) (int, bool){"mutex": runtime.MutexProfile, "block": runtime.BlockProfile} {
		n, _ := profile(nil)
		records := make([]runtime.BlockProfileRecord, n+100)
		n, _ = profile(records)
		for _, r := range records[:n] {
			frames := runtime.CallersFrames(r.Stack())
			for more := true; more; {
				var f runtime.Frame
				if f, more = frames.Next(); strings.Contains(f.Function, "compiled).acquire") || strings.Contains(f.Function, "compiled).release") || strings.Contains(f.Function, "processor).acquire") {
					t.Errorf("%d waits in %s, by the %s profile", r.Count, f.Function, name)
				}
			}
		}
	}
}

// BenchmarkPin is what a request pays for its revision, alone and where all cores pin the same one.
func BenchmarkPin(b *testing.B) {
	p := pinnable()
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.acquire().release()
		}
	})
	b.Run("together", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p.acquire().release()
			}
		})
	})
}
