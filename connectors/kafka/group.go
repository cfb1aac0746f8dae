package kafka

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// groupSource is one member of a group on a topic. Kafka's group protocol says which partitions it owns (groupclaim.go,
// groupjoin.go); each is a tenure (tenure.go) with a tracker of its own; what is settled is committed in batches beside
// the work (groupcommit.go).
//
// A rebalance does not stop it: partitions that stay go on through it, what is in work included, and are committed
// under the new generation. One that moves is handed on when what is in work there is settled, or after a session's
// time. A member that the group has thrown out, because it was silent for too long, begins anew with what it owns then.
//
// A worker that is stuck holds up its partition and nothing else: once kafka.in_flight records wait behind the stuck
// one, no more is handed over or fetched. The watchdog (groupwatch.go) reports a delivery that is not settled for
// kafka.watchdog, and a partition that cannot be read for that time. When nothing at all was settled there for twice
// that time, the member asks for another owner, which goes on from the last commit. If there is no other member, it
// keeps the partition: to deliver the same records again to the same worker would only add to what it cannot do.
type groupSource struct {
	c            *Client
	topic, group string
	in           string // the topic, in the cluster
	coord        *coordinator
	kick         chan struct{} // wakes Receive
	work         chan struct{} // wakes the committer, which waits for more
	urgent       chan struct{} // the same, at once
	rejoin       chan struct{} // ends the generation
	joined       chan error    // the first outcome
	joining      atomic.Int64  // since when the library waits to be let in, Unix nanoseconds; 0: it does not
	beat         atomic.Int64  // when the coordinator last took us for a member, Unix nanoseconds
	quiet        quiet
	closing      context.Context
	stop         context.CancelFunc
	wg           sync.WaitGroup
	drainOnce    sync.Once
	closeOnce    sync.Once
	drained      chan struct{}
	forget       func()

	// committing is held while a commit is on its way and while a tenure ends, so that nothing is committed for a
	// partition after it was given away. It is taken before mu.
	committing sync.Mutex

	mu struct {
		sync.Mutex
		owned   map[int32]*tenure
		turn    int32 // the partition that is looked at first next time
		terms   uint64
		settled int // records since the last commit
		gen     generation
		changed chan struct{} // closed when gen or a tenure changes
		cut     bool          // not in the group: what is owned is claimed and may be lost
		claimed []int32       // what was said at the last join
		led     int           // partitions that this member assigned in this generation, -1: another one did
		avoid   map[int32]time.Time
		conns   map[net.Conn]struct{}
		closed  bool
	}
}

// joinWait is how long Subscribe waits for its place in the group. Joining goes on after it: a member that died holds a
// new one up for a session's time.
const joinWait = time.Second

// Subscribe implements connectors.Topics. The partitions of the topic are shared out evenly among the members of the
// group; one that joins or leaves moves as few as that takes, each once what was in work there is settled. Settling a
// delivery of a partition that has moved is no error and has no effect: its new owner does it again.
func (c *Client) Subscribe(ctx context.Context, topic, group string) (connectors.Source, error) {
	if err := schemas.CheckName("group", group); err != nil {
		return nil, err
	}
	g, err := c.join(ctx, topic, group)
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (c *Client) join(ctx context.Context, topic, group string) (*groupSource, error) {
	const op = "kafka.Subscribe"
	if c.closing.Err() != nil {
		return nil, errClosed(op)
	}
	if _, err := c.partitions(ctx, op, topic); err != nil {
		return nil, err
	}
	g := &groupSource{
		c: c, topic: topic, group: group, in: c.name(topic),
		coord: c.coordinator(kafka.CoordinatorKeyTypeConsumer, c.name(group)),
		kick:  make(chan struct{}, 1), work: make(chan struct{}, 1), urgent: make(chan struct{}, 1), rejoin: make(chan struct{}, 1),
		joined: make(chan error, 1), drained: make(chan struct{}),
	}
	g.mu.owned = map[int32]*tenure{}
	g.mu.avoid = map[int32]time.Time{}
	g.mu.conns = map[net.Conn]struct{}{}
	g.mu.changed = make(chan struct{})
	g.mu.led = -1
	g.closing, g.stop = context.WithCancel(c.closing)
	g.forget = c.cfg.Metrics.watch(g)
	for _, f := range []func(){g.run, g.commits, g.watch} {
		g.start(f)
	}
	wait, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	select {
	case err := <-g.joined:
		if err != nil {
			g.Close(ctx)
			return nil, err
		}
	case <-wait.Done():
		if err := ctx.Err(); err != nil {
			g.Close(context.WithoutCancel(ctx))
			return nil, c.late(ctx, op, "group "+group, nil)
		}
	}
	return g, nil
}

// start runs f on a goroutine that Close waits for.
func (g *groupSource) start(f func()) {
	g.wg.Add(1)
	if !g.c.spawn(func() { defer g.wg.Done(); f() }) {
		g.wg.Done()
	}
}

func wakeUp(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it will look anyway
	}
}

func itoa(p int32) string { return strconv.Itoa(int(p)) }

// Receive implements connectors.Source.
func (g *groupSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	for {
		select {
		case <-g.drained:
			return nil, schemas.ErrDrained
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if ds := g.take(max); len(ds) > 0 {
			return ds, nil
		}
		select {
		case <-g.kick:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-g.drained:
		case <-g.c.closing.Done():
			return nil, errClosed("kafka.Receive")
		}
	}
}

// take hands over what is there, beginning with another partition each time.
func (g *groupSource) take(max int) []*connectors.Delivery {
	if g.fenced() {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, t := range g.mu.owned {
		if n += t.avail(); n >= max {
			n = max
			break
		}
	}
	if n == 0 {
		return nil
	}
	now := time.Now()
	ds := make([]*connectors.Delivery, 0, n)
	slab := make([]connectors.Delivery, n)
	ps := sortedKeys(g.mu.owned)
	for i := range ps {
		if ps[i] >= g.mu.turn {
			ps = append(ps[i:len(ps):len(ps)], ps[:i]...)
			break
		}
	}
	for _, p := range ps {
		if ds = g.mu.owned[p].take(now, ds, max, &slab); len(ds) >= max {
			g.mu.turn = p + 1
			wakeUp(g.kick) // there may be more
			break
		}
	}
	return ds
}

// fenced: the coordinator has not taken us for a member for so long that others may own our partitions.
func (g *groupSource) fenced() bool {
	return time.Now().UnixNano()-g.beat.Load() > int64(g.c.cfg.Session)*4/5
}

// Drain stops handing over. What is settled is committed at once.
func (g *groupSource) Drain() {
	g.drainOnce.Do(func() {
		close(g.drained)
		wakeUp(g.urgent)
	})
}

// Close commits what is settled and leaves the group at once: the others, or whoever comes next, begin at the first
// record of each partition that was not settled. Unavailable says that the coordinator could not be reached, so that
// what was settled since the last commit comes again too.
func (g *groupSource) Close(ctx context.Context) error {
	g.Drain()
	var err error
	g.closeOnce.Do(func() { err = g.close(ctx) })
	return err
}

func (g *groupSource) close(ctx context.Context) error {
	defer g.forget()
	g.mu.Lock()
	g.mu.closed = true // nothing begins any more
	g.mu.Unlock()
	err := g.commit(ctx, true)
	if lost(err) { // others own them by now
		g.report("last commit", err)
		err = nil
	}
	g.committing.Lock()
	g.mu.Lock()
	for p, t := range g.mu.owned {
		t.finish()
		delete(g.mu.owned, p)
	}
	member := g.mu.gen.member
	g.change()
	g.mu.Unlock()
	g.committing.Unlock()
	g.stop()
	if member != "" && g.c.closing.Err() == nil {
		call, cancel := context.WithTimeout(ctx, g.c.cfg.CallTimeout)
		if lerr := g.c.leaveGroup(call, g.coord.key, member); lerr != nil && !errors.Is(lerr, kafka.UnknownMemberId) {
			g.report("leaving the group", lerr) // it finds out after a session's time
		}
		cancel()
	}
	done := make(chan struct{})
	go func() { g.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		g.cutOff()
		<-done
	}
	if g.c.closing.Err() != nil {
		return nil // whoever closed the client knows
	}
	return err
}

// change tells whoever waits that the generation or a tenure is not what it was. The lock is held.
func (g *groupSource) change() {
	close(g.mu.changed)
	g.mu.changed = make(chan struct{})
}

// quiet keeps a trouble that stays from filling the log.
type quiet struct {
	mu   sync.Mutex
	last string
	at   time.Time
}

// again is how often a trouble that stays is reported.
const again = 30 * time.Second

func (q *quiet) fresh(s string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s == q.last && now.Sub(q.at) < again {
		return false
	}
	q.last, q.at = s, now
	return true
}

// report logs an error that does not end the source.
func (g *groupSource) report(what string, err error) {
	if err == nil || g.c.closing.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	level := slog.LevelWarn
	if passing(err) || lost(err) {
		level = slog.LevelDebug
	}
	if g.quiet.fresh(what+": "+err.Error(), time.Now()) {
		g.c.log.Log(context.WithoutCancel(g.c.closing), level, what, "topic", g.topic, "group", g.group, "error", plainly(err))
	}
}
