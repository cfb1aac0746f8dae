package pipeline

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Lane says who goes first.
type Lane uint8

// The lanes of a batcher.
const (
	Interactive Lane = iota // requests and topics: somebody waits
	Bulk                    // jobs: run on what is left, and on at least one core
)

// Shadows have no lane: they start on a core that none of these has use for.

// onlineWindow is how long after the last interactive run bulk work leaves a core free (SEMANTICS 5).
const onlineWindow = time.Second

// lanes is what the batchers of one process share, so that bulk work of any model yields to interactive work of any
// other. Interactive runs never wait for bulk ones. Bulk runs are capped at the cores, less one while interactive work
// was seen in the last second; the one that is always left is their guaranteed share. Idle runs (shadows) have no share: one
// starts only where no bulk run waits and fewer runs of any kind are in flight than bulk ones may be.
type lanes struct {
	cores      int
	running    atomic.Int32 // interactive runs in flight
	idlers     atomic.Int32 // idle runs that wait, or are about to
	lastOnline atomic.Int64 // nanoseconds since start
	start      time.Time

	mu struct {
		sync.Mutex
		bulk    int             // bulk runs in flight
		waiting []chan struct{} // bulk runs that wait, in order of arrival; bounded by the workers of the process
		idle    int             // idle runs in flight
		resting []chan struct{} // idle runs that wait, as waiting
	}
}

func newLanes(cores int) *lanes { return &lanes{cores: cores, start: time.Now()} }

// sawOnline notes an interactive run.
func (l *lanes) sawOnline() { l.lastOnline.Store(int64(time.Since(l.start))) }

// online reports whether interactive work was seen within the window.
func (l *lanes) online() bool {
	t := l.lastOnline.Load()
	return t > 0 && time.Since(l.start)-time.Duration(t) < onlineWindow
}

func (l *lanes) limit() int {
	if l.online() && l.cores > 1 {
		return l.cores - 1
	}
	return l.cores
}

// enterBulk waits for a turn of the bulk lane.
func (l *lanes) enterBulk(ctx context.Context) error {
	l.mu.Lock()
	if len(l.mu.waiting) == 0 && l.mu.bulk < l.limit() {
		l.mu.bulk++
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	l.mu.waiting = append(l.mu.waiting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range l.mu.waiting {
		if w == turn {
			l.mu.waiting = append(l.mu.waiting[:i], l.mu.waiting[i+1:]...)
			return ctx.Err()
		}
	}
	l.mu.bulk-- // the turn was given at the same moment: hand it on
	l.wakeLocked()
	return ctx.Err()
}

// leaveBulk ends a turn.
func (l *lanes) leaveBulk() {
	l.mu.Lock()
	l.mu.bulk--
	l.wakeLocked()
	l.mu.Unlock()
}

func (l *lanes) wakeLocked() {
	for len(l.mu.waiting) > 0 && l.mu.bulk < l.limit() {
		l.mu.bulk++
		close(l.mu.waiting[0])
		l.mu.waiting = l.mu.waiting[1:]
	}
	for len(l.mu.resting) > 0 && l.isIdle() {
		l.mu.idle++
		close(l.mu.resting[0])
		l.mu.resting = l.mu.resting[1:]
	}
}

// begin notes that an interactive run has a slot, end that it gives it back.
func (l *lanes) begin() { l.running.Add(1) }

func (l *lanes) end() {
	l.running.Add(-1)
	if l.idlers.Load() > 0 {
		l.mu.Lock()
		l.wakeLocked()
		l.mu.Unlock()
	}
}

// isIdle is called with the lock held.
func (l *lanes) isIdle() bool {
	return len(l.mu.waiting) == 0 && int(l.running.Load())+l.mu.bulk+l.mu.idle < l.limit()
}

// enterIdle waits for a core that is idle.
func (l *lanes) enterIdle(ctx context.Context) error {
	l.idlers.Add(1) // before the look at what runs: whoever ends later sees it
	defer l.idlers.Add(-1)
	l.mu.Lock()
	if len(l.mu.resting) == 0 && l.isIdle() {
		l.mu.idle++
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	l.mu.resting = append(l.mu.resting, turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.mu.resting, turn); i >= 0 {
		l.mu.resting = slices.Delete(l.mu.resting, i, i+1)
		return ctx.Err()
	}
	l.mu.idle-- // the turn was given at the same moment: hand it on
	l.wakeLocked()
	return ctx.Err()
}

// leaveIdle ends an idle run.
func (l *lanes) leaveIdle() {
	l.mu.Lock()
	l.mu.idle--
	l.wakeLocked()
	l.mu.Unlock()
}
