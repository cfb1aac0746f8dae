package kafka

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// Commits are made beside the work, so many records or so much time after the last, whatever comes first.
const (
	commitRecords = 1000
	commitPause   = 100 * time.Millisecond
)

// commits is the goroutine that commits, and gives up partitions that are to move.
func (g *groupSource) commits() {
	for {
		select {
		case <-g.closing.Done():
			return
		case <-g.urgent:
		case <-g.work:
			t := time.NewTimer(commitPause)
			select {
			case <-t.C:
			case <-g.urgent:
			case <-g.closing.Done():
			}
			t.Stop()
		}
		if g.closing.Err() != nil {
			return
		}
		err := g.commit(g.closing, false)
		if err != nil {
			g.report("commit", err)
			if passing(err) || schemas.KindOf(err) == schemas.Expired {
				wakeUp(g.work) // a new generation does so itself
			}
		}
		if g.release() {
			wakeUp(g.work)
		}
	}
}

// commit tells the coordinator where the group is: the end of what is settled without a gap, in each partition that
// moved. One commit is on its way at a time, and none goes back. At the last one, the marks of what was handed over go
// along even if nothing moved.
func (g *groupSource) commit(ctx context.Context, last bool) error {
	g.committing.Lock()
	defer g.committing.Unlock()
	at := map[int32]place{}
	moved := map[*tenure]place{}
	g.mu.Lock()
	gen := g.mu.gen
	for p, t := range g.mu.owned {
		if !t.dirty(last || t.leaving) {
			continue
		}
		if !t.txn.still() { // its offset is the transaction's to commit
			continue
		}
		defer t.txn.unlock()
		at[p] = place{offset: t.floor, high: t.high, exact: t.exact}
		moved[t] = at[p]
	}
	if !g.mu.cut {
		g.mu.settled = 0
	}
	cut := g.mu.cut
	g.mu.Unlock()
	if len(at) == 0 {
		return nil
	}
	if gen.member == "" || cut {
		return schemas.Errorf(schemas.Unavailable, "kafka.commit", "group %s: %w", g.group, kafka.UnknownMemberId)
	}
	call, cancel := context.WithTimeout(ctx, min(g.c.cfg.CallTimeout, g.c.cfg.Session/2))
	defer cancel()
	if err := g.persistCommit(call, gen, at); err != nil {
		return classify("kafka.commit", "group "+g.group, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for t, to := range moved {
		t.committed, t.hinted = to.offset, to.high
		t.plain = t.plain && t.floor > to.offset
	}
	return nil
}

// persistCommit tries again what a coordinator refuses because it moves.
func (g *groupSource) persistCommit(ctx context.Context, gen generation, at map[int32]place) error {
	for tries := 0; ; tries++ {
		err := g.coord.commit(ctx, gen, g.in, at)
		if err == nil || ctx.Err() != nil || lost(err) || !passing(err) || tries == 3 {
			return err
		}
		if sleep(ctx, retryPause) != nil {
			return err
		}
	}
}

// release gives up the partitions that are to move and have nothing in work any more, or had their time, and asks for
// a new generation, in which somebody else gets them. It reports whether some are left.
func (g *groupSource) release() (left bool) {
	g.committing.Lock()
	defer g.committing.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	given := false
	now := time.Now()
	for p, t := range g.mu.owned {
		if !t.leaving {
			continue
		}
		if t.hands == 0 && !t.dirty(true) || now.After(t.until) {
			t.finish()
			delete(g.mu.owned, p)
			given = true
		} else {
			left = true
		}
	}
	if given {
		g.change()
		wakeUp(g.rejoin)
	}
	return left
}
