package nats

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// groupSource is one member of a group on a topic. It owns some of the topic's partitions, each for a tenure (see
// tenure.go); the members agree on who owns what through a KV bucket (see member.go).
//
// Two goroutines work on it: the caller of Receive, who takes what has come and hands it on, and run, who keeps
// membership, tenures and sessions in order.
type groupSource struct {
	c            *Client
	topic, group string
	stream       string
	member       string // this member's id
	partitions   int
	batch        int
	ch           chan *nats.Msg
	kick         chan struct{} // wakes Receive
	work         chan struct{} // wakes run
	beat         atomic.Int64  // local time of the last heartbeat that the server took, Unix nanoseconds
	hinted       atomic.Bool   // another member joined or left
	drainOnce    sync.Once
	closeOnce    sync.Once
	drained      chan struct{}
	stop         context.CancelFunc
	wg           sync.WaitGroup
	hints        *nats.Subscription

	mu struct {
		sync.Mutex
		owned []*tenure                      // by partition, nil where somebody else owns it
		bySub map[*nats.Subscription]*tenure // sessions
	}
}

// Subscribe implements connectors.Topics. The partitions of the topic are shared out evenly among the members of the
// group; one that joins or leaves moves some of them, once what was in work there is settled.
func (c *Client) Subscribe(ctx context.Context, topic, group string) (connectors.Source, error) {
	if err := schemas.CheckName("group", group); err != nil {
		return nil, err
	}
	n, err := c.partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	kv, err := c.groupBucket(ctx)
	if err != nil {
		return nil, err
	}
	batch := min(c.cfg.InFlight/2, 1024)
	g := &groupSource{
		c: c, topic: topic, group: group, stream: topicStream(topic), member: c.id + "-" + shortID(c.robin.Add(1)),
		partitions: n, batch: batch, ch: make(chan *nats.Msg, n*(2*batch+64)),
		kick: make(chan struct{}, 1), work: make(chan struct{}, 1), drained: make(chan struct{}),
	}
	g.mu.owned = make([]*tenure, n)
	g.mu.bySub = map[*nats.Subscription]*tenure{}
	m := newMembership(g, kv)
	if err := m.tick(ctx); err != nil {
		m.leave(ctx)
		return nil, err
	}
	run, stop := context.WithCancel(c.closing)
	g.stop = stop
	if g.hints, err = c.core.Subscribe(m.hintSubject(), func(h *nats.Msg) {
		if string(h.Data) != g.member {
			g.hinted.Store(true)
			wakeUp(g.work)
		}
	}); err != nil {
		stop()
		m.leave(ctx)
		return nil, classify("nats.Subscribe", topic, err)
	}
	c.addGroup(g)
	g.wg.Add(1)
	go g.run(run, m)
	return g, nil
}

func wakeUp(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it will look anyway
	}
}

// run keeps the membership alive and the sessions whole until the source is closed; then it leaves the group. What
// fails is tried again after a short pause.
func (g *groupSource) run(ctx context.Context, m *membership) {
	defer g.wg.Done()
	again, forget := g.c.onReconnect()
	defer forget()
	t := time.NewTicker(g.c.cfg.LeaseTTL / 3)
	defer t.Stop()
	soon := time.NewTimer(time.Hour)
	defer soon.Stop()
	due := false // the membership's tick
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			due = true
		case <-g.work:
			due = g.hinted.Swap(false) || due
		case <-soon.C:
		case <-again:
			g.breakSessions()
			due = true
		}
		if due {
			err := m.tick(ctx)
			g.report("group membership", err)
			due = err != nil
			wakeUp(g.kick) // what was kept back while we were silent may go
		}
		whole := g.mend(ctx)
		m.finishLeaving(ctx)
		if due || !whole {
			soon.Reset(retryPause)
		}
	}
}

// report logs an error that does not pass by itself.
func (g *groupSource) report(what string, err error) {
	if err == nil || g.c.closing.Err() != nil {
		return
	}
	level := slog.LevelWarn
	if passing(err) {
		level = slog.LevelDebug
	}
	g.c.log.Log(context.WithoutCancel(g.c.closing), level, what, "topic", g.topic, "group", g.group, "error", err)
}

// breakSessions marks every session: after a reconnect its requests, and maybe messages, are lost.
func (g *groupSource) breakSessions() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.mu.owned {
		if t != nil && t.session != nil {
			t.session.broken = true
		}
	}
}

// mend opens a new session for each tenure whose session is broken or silent; false: not all could be.
func (g *groupSource) mend(ctx context.Context) bool {
	g.mu.Lock()
	var bad []*tenure
	now := time.Now()
	for _, t := range g.mu.owned {
		if t != nil && !t.leaving && (t.session == nil || t.session.broken || t.session.silent(now)) {
			bad = append(bad, t)
		}
	}
	g.mu.Unlock()
	whole := true
	for _, t := range bad {
		if err := t.restart(ctx); err != nil {
			g.report("partition", err)
			whole = false
		}
	}
	return whole
}

// fenced: the server has not taken our heartbeat for so long that somebody else may own our partitions.
func (g *groupSource) fenced() bool {
	return time.Now().UnixNano()-g.beat.Load() > int64(g.c.cfg.LeaseTTL)*4/5
}

// Receive implements connectors.Source.
func (g *groupSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	for {
		if ds := g.takeReady(max); len(ds) > 0 {
			return ds, nil
		}
		select {
		case <-g.drained:
			return nil, schemas.ErrDrained
		default:
		}
		select {
		case m := <-g.ch:
			if ds := g.gather(m, max); len(ds) > 0 {
				return ds, nil
			}
		case <-g.kick:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-g.drained:
		case <-g.c.closing.Done():
			return nil, schemas.Errorf(schemas.Unavailable, "nats.Receive", "topic %s: the client was closed", g.topic)
		}
	}
}

// takeReady hands over retries that are due, and what waited behind them.
func (g *groupSource) takeReady(max int) []*connectors.Delivery {
	if g.fenced() {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var ds []*connectors.Delivery
	now := time.Now()
	for _, t := range g.mu.owned {
		if t != nil && !t.leaving && len(ds) < max {
			ds = t.due(now, ds, max)
		}
	}
	return ds
}

// gather hands over m and what has come with it.
func (g *groupSource) gather(m *nats.Msg, max int) []*connectors.Delivery {
	n := min(max, 1+len(g.ch))
	slab := make([]connectors.Delivery, n)
	ds := make([]*connectors.Delivery, 0, n)
	fenced := g.fenced()
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		if t := g.mu.bySub[m.Sub]; t != nil {
			if t.take(m, fenced, &slab[len(ds)]) {
				ds = append(ds, &slab[len(ds)])
			}
			if t.session != nil && (t.session.broken || t.session.pull() != nil) {
				wakeUp(g.work)
			}
		}
		if len(ds) == n {
			return ds
		}
		select {
		case m = <-g.ch:
		default:
			return ds
		}
	}
}

// Drain stops handing over.
func (g *groupSource) Drain() { g.drainOnce.Do(func() { close(g.drained) }) }

// Close tells the server how far we got, gives the partitions up and leaves the group: whoever owns them next begins
// at the first message that was not settled.
func (g *groupSource) Close(ctx context.Context) error {
	g.Drain()
	var err error
	g.closeOnce.Do(func() {
		g.stop()
		g.wg.Wait()
		if uerr := g.hints.Unsubscribe(); uerr != nil && !passing(uerr) {
			err = classify("nats.Close", g.topic, uerr)
		}
		g.c.dropGroup(g)
		m := newMembership(g, g.c.groupKV)
		m.leave(ctx)
	})
	return err
}
