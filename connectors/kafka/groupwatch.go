package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// partitionsPause is how often the member that shared the partitions out looks whether there are others now. What is
// known of a topic is some seconds old at most.
const partitionsPause = time.Second

// watch is the goroutine that looks after the member: whether the coordinator still takes it for one, whether a
// delivery is stuck, and whether there are other partitions.
func (g *groupSource) watch() {
	tick := time.NewTicker(min(g.c.cfg.Heartbeat, g.c.cfg.Session/4))
	defer tick.Stop()
	var beaten, looked time.Time
	for {
		select {
		case <-g.closing.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(beaten) >= g.c.cfg.Session/4 {
			beaten = now
			g.pulse()
		}
		g.watchdog(now)
		if now.Sub(looked) >= partitionsPause {
			looked = now
			g.lookForPartitions()
		}
	}
}

// pulse is a heartbeat of our own: the library keeps the outcome of its own to itself, and sends none while it waits
// for a generation. A process that was frozen must not hand over what others own by now.
func (g *groupSource) pulse() {
	g.mu.Lock()
	gen, cut := g.mu.gen, g.mu.cut
	g.mu.Unlock()
	if gen.member == "" || cut {
		return
	}
	sent := time.Now()
	ctx, cancel := context.WithTimeout(g.closing, min(g.c.cfg.CallTimeout, g.c.cfg.Session/2))
	defer cancel()
	err := g.coord.heartbeat(ctx, gen)
	if err == nil || errors.Is(err, kafka.RebalanceInProgress) {
		was := g.fenced()
		g.beat.Store(max(g.beat.Load(), sent.UnixNano()))
		if was {
			wakeUp(g.kick)
		}
		return
	}
	g.report("heartbeat", err)
}

// watchdog reports what is stuck; see groupSource.
func (g *groupSource) watchdog(now time.Time) {
	limit := g.c.cfg.Watchdog
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, t := range g.mu.owned {
		w := t.oldest()
		if w == nil || w.state != inHands || now.Sub(w.since) < limit {
			unread := !t.unread.IsZero() && now.Sub(t.unread) >= limit
			if unread && !t.stuck {
				g.c.log.Warn("a partition cannot be read", "topic", g.topic, "group", g.group, "partition", p,
					"for", now.Sub(t.unread).Round(time.Millisecond), "error", plainly(t.trouble))
			}
			t.stuck = unread
			continue
		}
		if !t.stuck {
			t.stuck = true
			g.c.log.Warn("a delivery is not settled", "topic", g.topic, "group", g.group, "partition", p, "offset", w.offset,
				"for", now.Sub(w.since).Round(time.Millisecond), "in_work", len(t.window)-t.head)
		}
		if now.Before(g.mu.avoid[p]) || t.leaving || g.mu.cut || now.Sub(w.since) < 2*limit || now.Sub(t.settledAt) < 2*limit {
			continue
		}
		g.mu.avoid[p] = now.Add(4*limit + 4*g.c.cfg.Session) // long enough to join with it
		wakeUp(g.rejoin)
		g.c.log.Warn("nothing is settled: another member should have the partition", "topic", g.topic, "group", g.group, "partition", p,
			"offset", w.offset, "for", now.Sub(t.settledAt).Round(time.Millisecond))
	}
}

// lookForPartitions asks for a new generation if the topic has other partitions than this member shared out: added
// ones, or none because it was deleted, or some again.
func (g *groupSource) lookForPartitions() {
	n, ok := g.partitionsNow(false)
	if g.otherThan(n) && ok {
		if n, ok = g.partitionsNow(true); ok && g.otherThan(n) {
			wakeUp(g.rejoin)
		}
	}
}

func (g *groupSource) otherThan(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.led >= 0 && g.mu.led != n && !g.mu.cut
}

func (g *groupSource) partitionsNow(sure bool) (n int, ok bool) {
	ctx, cancel := context.WithTimeout(g.closing, g.c.cfg.CallTimeout)
	defer cancel()
	look := g.c.meta.topic
	if sure {
		look = g.c.meta.fresh
	}
	t, err := look(ctx, "kafka.watch", g.in)
	if schemas.KindOf(err) == schemas.NotFound && err != nil {
		return 0, true
	}
	if err != nil {
		return 0, false
	}
	return len(t.leaders), true
}

// labels implements gauged.
func (g *groupSource) labels() (topic, group string) { return g.topic, g.group }

// gauges implements gauged.
func (g *groupSource) gauges(now time.Time) []partitionGauges {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []partitionGauges
	for p, t := range g.mu.owned {
		if t.floor < 0 {
			continue
		}
		f := partitionGauges{partition: p, behind: t.behind + t.tracker.end - t.floor, stuck: t.stuck}
		if at := t.since(); !at.IsZero() {
			f.age = max(0, now.Sub(at))
		}
		out = append(out, f)
	}
	return out
}
