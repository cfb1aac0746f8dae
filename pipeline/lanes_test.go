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
