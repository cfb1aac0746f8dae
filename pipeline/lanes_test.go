package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBulkLeavesACoreFreeWhileOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(2)
		ctx := t.Context()
		time.Sleep(time.Millisecond) // synctest's clock: a start at zero would read as "never"
		l.sawOnline()
		if err := l.enterBulk(ctx); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() { got <- l.enterBulk(ctx) }()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("a second bulk run started beside online traffic on two cores")
		default:
		}
		time.Sleep(onlineWindow) // nothing online any more
		l.leaveBulk()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if err := l.enterBulk(ctx); err != nil { // and now both cores may be used
			t.Fatal(err)
		}
		l.leaveBulk()
		l.leaveBulk()
		if l.mu.bulk != 0 {
			t.Fatalf("%d turns are lost", l.mu.bulk)
		}
	})
}

func TestBulkTurnIsNotLostWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(1)
		if err := l.enterBulk(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() { got <- l.enterBulk(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		l.leaveBulk()
		if err := l.enterBulk(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.leaveBulk()
	})
}

// An idle run starts when fewer runs are in flight than bulk ones may be and no bulk run waits, and not before.
func TestIdleRunsWaitForAnIdleCore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(2)
		time.Sleep(time.Millisecond)
		enter := func(ctx context.Context) chan error {
			got := make(chan error, 1)
			go func() { got <- l.enterIdle(ctx) }()
			synctest.Wait()
			return got
		}
		waits := func(why string, got chan error) {
			t.Helper()
			synctest.Wait()
			if len(got) > 0 {
				t.Fatal("an idle run started", why)
			}
		}
		l.sawOnline()
		l.begin()
		got := enter(t.Context())
		waits("beside an interactive one on two cores", got)
		l.end()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		second := enter(t.Context())
		waits("beside another one while there is online traffic", second)
		l.leaveIdle()
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		l.leaveIdle()
		time.Sleep(2 * onlineWindow)
		for range 2 {
			if err := l.enterBulk(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		third := enter(t.Context())
		bulk := make(chan error, 1)
		go func() { bulk <- l.enterBulk(t.Context()) }()
		synctest.Wait()
		l.leaveBulk()
		if err := <-bulk; err != nil {
			t.Fatal(err)
		}
		waits("before a bulk one that waited", third)
		ctx, cancel := context.WithCancel(t.Context())
		fourth := enter(ctx)
		cancel()
		if err := <-fourth; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		l.leaveBulk()
		if err := <-third; err != nil {
			t.Fatal(err)
		}
		l.leaveBulk()
		l.leaveIdle()
		if l.mu.idle != 0 || l.mu.bulk != 0 || l.running.Load() != 0 || l.idlers.Load() != 0 || len(l.mu.resting) != 0 {
			t.Fatalf("turns are lost: %d idle, %d bulk", l.mu.idle, l.mu.bulk)
		}
	})
}
