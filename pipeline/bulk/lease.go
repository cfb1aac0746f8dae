package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/leatstream/leat/schemas"
)

// lease is the right of one process to coordinate a job: a key that its holder rewrites again and again. Others take it
// over when they have seen the same KV revision of it for the expiry, by their own clock; no two clocks are compared.
// A holder that was away may believe for a moment that it still holds the lease. That does no harm: chunks, results and
// the sink's rows have ids that follow from the job alone, and the job's counters name their owner.
type lease struct {
	kv     schemas.KV
	key    string
	value  []byte
	renew  time.Duration
	expiry time.Duration
	term   uint64 // revision at which it was taken: differs from every other holder's

	mu  sync.Mutex // a renewal at a time
	rev uint64
}

// leaseValue is what the key holds, for whoever looks.
type leaseValue struct {
	Owner string `json:"owner"`
}

// errLost says that another process coordinates the job now.
var errLost = errors.New("another process coordinates the job")

func (s *Service) newLease(id string) *lease {
	value, err := json.Marshal(leaseValue{s.id})
	if err != nil {
		panic("bulk: a string cannot be written as JSON: " + err.Error()) // cannot happen
	}
	return &lease{kv: s.deps.Jobs, key: leasePrefix + id, value: value, renew: s.config.LeaseRenew, expiry: s.config.LeaseExpiry}
}

// try takes the lease if nobody holds it. Unavailable wrapping ErrConflict: somebody does.
func (l *lease) try(ctx context.Context) (err error) {
	l.rev, err = l.kv.Create(ctx, l.key, l.value)
	l.term = l.rev
	return err
}

// acquire waits until the lease is free or stale, and takes it.
func (l *lease) acquire(ctx context.Context) error {
	var seen uint64
	var since time.Time
	tick := time.NewTicker(l.renew)
	defer tick.Stop()
	for {
		_, rev, err := l.kv.Get(ctx, l.key)
		switch {
		case schemas.KindOf(err) == schemas.NotFound && err != nil:
			if l.try(ctx) == nil {
				return nil
			}
		case err != nil: // the store is away: look again
		case rev != seen:
			seen, since = rev, time.Now()
		case time.Since(since) >= l.expiry:
			if l.rev, err = l.kv.Update(ctx, l.key, l.value, rev); err == nil {
				l.term = l.rev
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// hold renews the lease until ctx ends. It returns errLost when another process took it, or when no renewal came through
// for so long that another one may.
func (l *lease) hold(ctx context.Context) error {
	last := time.Now()
	tick := time.NewTicker(l.renew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		asked := time.Now()
		if err := l.touch(ctx); err == nil {
			last = asked
		} else if errors.Is(err, schemas.ErrConflict) || schemas.KindOf(err) == schemas.NotFound || time.Since(last) > l.expiry-l.renew {
			return errLost
		}
	}
}

// touch renews once.
func (l *lease) touch(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, l.renew)
	defer cancel()
	rev, err := l.kv.Update(ctx, l.key, l.value, l.rev)
	if err == nil {
		l.rev = rev
		return nil
	}
	if errors.Is(err, schemas.ErrConflict) {
		// An earlier renewal whose answer was lost looks like a conflict with ourselves.
		if value, rev, gerr := l.kv.Get(ctx, l.key); gerr == nil && string(value) == string(l.value) {
			l.rev = rev
			return nil
		}
	}
	return err
}

// release gives the lease up, so that another process need not wait for it to become stale.
func (l *lease) release(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.renew)
	defer cancel()
	_ = l.kv.Delete(ctx, l.key, l.rev) // if it fails, it becomes stale
}
