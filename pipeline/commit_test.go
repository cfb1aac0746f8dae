package pipeline

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// noted is a way that makes nothing durable and notes what it was given.
type noted struct {
	mu    sync.Mutex
	units []notedUnit
	hold  chan struct{} // a commit waits for it, if not nil
}

type notedUnit struct {
	partition int32
	term      uint64
	works     int
	at        time.Time
}

func (n *noted) commit(_ *line, u *unit) {
	n.mu.Lock()
	n.units = append(n.units, notedUnit{u.works[0].partition, u.works[0].term, len(u.works), time.Now()})
	n.mu.Unlock()
	if n.hold != nil {
		<-n.hold
	}
	drop(u.works)
}

func (n *noted) wait() {}

// seen returns how many works were committed together, unit by unit.
func (n *noted) seen() (works []int) {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range n.units {
		works = append(works, u.works)
	}
	return works
}

// gathering is a committer of transactions over a way that notes, and the door of its works.
func gathering(t *testing.T, n *noted) (*committer, *door) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &processor{host: &Host{Config: DefaultConfig()}}
	c := newCommitter(ctx, p, n)
	c.gather, c.full = 100*time.Millisecond, 5
	t.Cleanup(func() {
		c.close()
		cancel()
	})
	return c, newDoor(p, Binding{Durable: true}, c, nil)
}

// scoredWork is one row of a partition that was admitted under a term.
func scoredWork(dr *door, partition int32, term uint64) *work {
	w := newWork(dr)
	w.partition, w.term, w.rows = partition, term, 1
	dr.rows.Add(1)
	return w
}

func wantUnits(t *testing.T, n *noted, want ...int) {
	t.Helper()
	if got := n.seen(); !slices.Equal(got, want) {
		t.Fatalf("units of %v works, want %v", got, want)
	}
}

// A unit is committed so long after its first work and not before, or when it is full, or when nobody shall wait for more.
func TestUnitsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &noted{}
		c, dr := gathering(t, n)
		for range 2 { // the second comes to rest in between
			n.units = nil
			c.resume(scoredWork(dr, 1, 1))
			time.Sleep(50 * time.Millisecond)
			c.resume(scoredWork(dr, 1, 1))
			time.Sleep(50*time.Millisecond - time.Nanosecond)
			wantUnits(t, n)
			time.Sleep(time.Nanosecond)
			wantUnits(t, n, 2)
		}
		for range 5 { // full
			c.resume(scoredWork(dr, 1, 1))
		}
		c.resume(scoredWork(dr, 2, 1)) // of another partition
		wantUnits(t, n, 2, 5)
		c.hasten() // the door has no room
		wantUnits(t, n, 2, 5, 1)
		c.hasten() // nothing is open, and what comes next gathers as ever
		c.resume(scoredWork(dr, 2, 1))
		wantUnits(t, n, 2, 5, 1)
		close(dr.ended)
		wantUnits(t, n, 2, 5, 1, 1)
		c.resume(scoredWork(dr, 3, 1))
		wantUnits(t, n, 2, 5, 1, 1, 1)
		if err := c.idle(t.Context()); err != nil || dr.rows.Load() != 0 {
			t.Fatalf("%d rows in hand, %v", dr.rows.Load(), err)
		}
	})
}

// While a unit is committed the next one gathers, and no third.
func TestTwoUnitsOfAPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &noted{hold: make(chan struct{})}
		c, dr := gathering(t, n)
		for range 23 {
			c.resume(scoredWork(dr, 1, 1))
			synctest.Wait()
		}
		c.resume(scoredWork(dr, 2, 1))
		time.Sleep(time.Second)
		wantUnits(t, n, 5, 1)
		n.hold <- struct{}{}
		n.hold <- struct{}{}
		wantUnits(t, n, 5, 1, 18)
		close(n.hold)
		if err := c.idle(t.Context()); err != nil || dr.rows.Load() != 0 {
			t.Fatalf("%d rows in hand, %v", dr.rows.Load(), err)
		}
	})
}

// Works of two terms never meet in a unit: a later term ends the earlier one, and of a term that is over nothing is taken.
func TestTermsDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &noted{}
		c, dr := gathering(t, n)
		for _, term := range []uint64{3, 3, 4, 3, 4} {
			c.resume(scoredWork(dr, 1, term))
		}
		time.Sleep(time.Nanosecond)
		c.resume(scoredWork(dr, 2, 3))
		if got := dr.rows.Load(); got != 3 {
			t.Fatalf("%d rows in hand: want those of term 4, and one of another partition", got)
		}
		time.Sleep(100 * time.Millisecond)
		wantUnits(t, n, 2, 1)
		for _, u := range n.units {
			if want := map[int32]uint64{1: 4, 2: 3}[u.partition]; u.term != want {
				t.Fatalf("a unit of partition %d, term %d", u.partition, u.term)
			}
		}
		c.resume(scoredWork(dr, 1, 4))
		c.line(1).end(4)
		c.resume(scoredWork(dr, 1, 4))
		c.resume(scoredWork(dr, 1, 5))
		c.line(2).end(never)
		c.resume(scoredWork(dr, 2, 1000))
		time.Sleep(100 * time.Millisecond)
		wantUnits(t, n, 2, 1, 1)
		if dr.rows.Load() != 0 {
			t.Fatalf("%d rows in hand", dr.rows.Load())
		}
	})
}
