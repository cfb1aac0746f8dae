package scorers_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scorers.NewSlots(2)
		for range 2 {
			if err := s.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Acquire(late); schemas.KindOf(err) != schemas.Expired {
			t.Errorf("full, past the deadline: %v", err)
		}
		got := make(chan error)
		go func() { got <- s.Acquire(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-got:
			t.Errorf("a third slot of two: %v", err)
		default:
		}
		s.Release()
		if err := <-got; err != nil || s.InUse() != 2 || s.Cap() != 2 {
			t.Errorf("%v, %d of %d in use", err, s.InUse(), s.Cap())
		}
		s.Release()
		s.Release()
	})
	if n := scorers.NewSlots(0).Cap(); n != runtime.GOMAXPROCS(0) {
		t.Errorf("%d slots by default", n)
	}
	stop, cancel := context.WithCancel(t.Context())
	cancel()
	if err := scorers.NewSlots(1).Acquire(stop); schemas.KindOf(err) != schemas.Unavailable {
		t.Errorf("cancelled, with a slot free: %v", err)
	}
}
