package scorers

import (
	"context"
	"runtime"

	"github.com/leatstream/leat/schemas"
)

// Slots caps the runs in flight of one process: every scorer of every runtime takes one for each run, so that a machine
// works on as many runs as it has cores, and the rest waits where it can be ordered and refused. It is safe for
// concurrent use.
type Slots struct {
	free chan struct{} // holds a token for each run in flight; its capacity is the cap
}

// NewSlots returns n slots; 0 means one for each core that Go may use.
func NewSlots(n int) *Slots {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return &Slots{free: make(chan struct{}, n)}
}

// Acquire takes a slot, waiting for one; it fails only when ctx ends, with Expired or Unavailable.
func (s *Slots) Acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return schemas.AsError("scorers.Slots", err)
	}
	select {
	case s.free <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return schemas.AsError("scorers.Slots", ctx.Err())
	}
}

// Release gives a slot back.
func (s *Slots) Release() { <-s.free }

// Cap returns the number of slots.
func (s *Slots) Cap() int { return cap(s.free) }

// InUse returns the number of runs in flight.
func (s *Slots) InUse() int { return len(s.free) }
