package kafka

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// run keeps the member in the group until the source is closed.
//
// The library forgets who it was whenever joining fails, which a restart of the coordinator is enough for, and asks
// the same broker first however long that one is silent. So each failure is answered with a new member that begins at
// another broker, and the old one is taken out of the group, which would otherwise wait for it.
func (g *groupSource) run() {
	for try := 0; g.closing.Err() == nil; try++ {
		err := g.follow(try)
		if g.closing.Err() != nil {
			return
		}
		g.cutOut(err)
		if sleep(g.closing, joinPause) != nil {
			return
		}
	}
}

// follow is a member from its first generation to its last.
func (g *groupSource) follow(try int) error {
	cg, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: g.coord.key, Topics: []string{g.in}, Brokers: g.c.brokersInTurn(g.closing, try), Dialer: g.dialer(),
		GroupBalancers:    []kafka.GroupBalancer{&balancer{claim: g.claim, lead: g.lead}},
		HeartbeatInterval: g.c.cfg.Heartbeat, SessionTimeout: g.c.cfg.Session, RebalanceTimeout: g.c.cfg.Session,
		JoinGroupBackoff: joinPause, StartOffset: kafka.FirstOffset, Timeout: min(g.c.cfg.CallTimeout, g.c.cfg.Session/2),
	})
	if err != nil {
		return schemas.Errorf(schemas.Internal, "kafka.Subscribe", "group %s: %w", g.group, err)
	}
	defer cg.Close() // leaves the group
	for {
		gen, err := cg.Next(g.closing)
		switch {
		case err == nil:
			g.begin(gen)
			gen.Start(g.hold)
		case !errors.Is(err, kafka.RebalanceInProgress): // with that one, the library asks again as who it is
			return err
		}
	}
}

// hold lasts as long as the generation. Its end ends the generation.
func (g *groupSource) hold(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-g.rejoin:
	}
}

func (g *groupSource) dialer() *kafka.Dialer {
	return &kafka.Dialer{
		ClientID: g.c.cfg.ClientID, Timeout: g.c.cfg.CallTimeout, DialFunc: g.dial,
		TLS: g.c.transport.TLS, SASLMechanism: g.c.transport.SASL,
	}
}

// dial opens a connection that cutOff can cut.
func (g *groupSource) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := g.c.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	k := &groupConn{Conn: nc, g: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.conns[k] = struct{}{}
	return k, nil
}

type groupConn struct {
	net.Conn
	g *groupSource
}

// Close implements net.Conn.
func (k *groupConn) Close() error {
	k.g.mu.Lock()
	delete(k.g.mu.conns, k)
	k.g.mu.Unlock()
	return k.Conn.Close()
}

// cutOff ends what the library waits for.
func (g *groupSource) cutOff() {
	g.mu.Lock()
	conns := slices.Collect(maps.Keys(g.mu.conns))
	g.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// claim is what the member says as it joins.
func (g *groupSource) claim() groupClaims {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := groupClaims{Generation: g.mu.gen.id, Owned: sortedKeys(g.mu.owned)}
	now := time.Now()
	for _, p := range sortedKeys(g.mu.avoid) {
		if now.Before(g.mu.avoid[p]) {
			c.Avoid = append(c.Avoid, p)
		} else {
			delete(g.mu.avoid, p)
		}
	}
	g.mu.claimed, g.mu.led = c.Owned, -1
	g.joining.Store(now.UnixNano())
	return c
}

// lead notes that this member has shared out so many partitions.
func (g *groupSource) lead(partitions int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.led = partitions
}

// begin takes over a generation: partitions that stay go on, those that move are left, and new ones begin.
func (g *groupSource) begin(gen *kafka.Generation) {
	g.joining.Store(0)
	g.beat.Store(time.Now().UnixNano())
	g.c.cfg.Metrics.rebalanced(g.topic, g.group)
	assigned := map[int32]bool{}
	for _, a := range gen.Assignments[g.in] {
		assigned[int32(a.ID)] = true
	}
	g.committing.Lock()
	defer g.committing.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return
	}
	// A member that was cut off kept its partitions if no generation came between: each that does has a number, and
	// the claims of the latest count.
	same := gen.MemberID == g.mu.gen.member || gen.ID == g.mu.gen.id+1
	g.mu.gen, g.mu.cut = generation{id: gen.ID, member: gen.MemberID}, false
	var begun []*tenure
	for p, t := range g.mu.owned {
		_, avoided := g.mu.avoid[p]
		switch {
		case assigned[p] && same:
			t.leaving = false
		case same && !avoided:
			t.leaving, t.until = true, time.Now().Add(g.c.cfg.Session)
		default: // lost, or asked to be rid of
			t.finish()
			delete(g.mu.owned, p)
		}
	}
	for p := range assigned {
		if g.mu.owned[p] == nil {
			begun = append(begun, g.open(p))
		}
	}
	select {
	case <-g.rejoin: // was meant for the last generation
	default:
	}
	for _, p := range g.mu.claimed {
		if g.mu.owned[p] == nil { // given up since it was claimed: nobody gets it before we say so
			wakeUp(g.rejoin)
		}
	}
	g.change()
	if len(begun) > 0 {
		g.start(func() { g.locate(begun) })
	}
	wakeUp(g.urgent)
	wakeUp(g.kick)
	select {
	case g.joined <- nil:
	default:
	}
}

// open makes a tenure that fetches nothing yet. The lock is held.
func (g *groupSource) open(p int32) *tenure {
	g.mu.terms++
	t := &tenure{
		g: g, p: p, term: g.mu.terms, more: make(chan struct{}, 1), tracker: newTracker(g.c.cfg.InFlight),
		committed: -1, settledAt: time.Now(),
	}
	t.ctx, t.cancel = context.WithCancel(g.closing)
	t.txn.init(t)
	g.mu.owned[p] = t
	return t
}

// renew ends a tenure and begins another one on the same partition, at an offset or, if that is negative, where the
// group is.
func (g *groupSource) renew(old *tenure, from int64) {
	g.committing.Lock()
	defer g.committing.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if old.over || g.mu.closed {
		return
	}
	old.finish()
	t := g.open(old.p)
	g.change()
	if from < 0 {
		g.start(func() { g.locate([]*tenure{t}) })
		return
	}
	t.located = true
	g.start(func() { t.run(t.ctx, from) })
}

// locate finds out where the group is in partitions that were just taken over, and begins to fetch there.
func (g *groupSource) locate(ts []*tenure) {
	byPartition := map[int32]*tenure{}
	for _, t := range ts {
		byPartition[t.p] = t
		if n, ok := g.partitionsNow(false); ok && int(t.p) >= n {
			g.c.meta.forget(g.in) // the leader of the group knows of more
		}
	}
	for tries := 0; g.closing.Err() == nil; tries++ {
		maps.DeleteFunc(byPartition, func(_ int32, t *tenure) bool { return t.ctx.Err() != nil })
		if len(byPartition) == 0 {
			return
		}
		at, err := g.coord.places(g.closing, g.in, slices.Sorted(maps.Keys(byPartition)))
		if errors.Is(err, kafka.UnstableOffsetCommit) {
			// Whoever was here before left a transaction open, and nobody waits for its end.
			for _, t := range byPartition {
				if err := t.txn.fence(t.ctx); err != nil {
					g.report("transaction of an earlier owner", err)
				}
			}
		}
		if err == nil {
			for p, t := range byPartition {
				g.start(func() { t.begin(at[p]) })
			}
			return
		}
		g.report("place of the group", err)
		if sleep(g.closing, min(retryPause<<min(tries, 4), time.Second/4)) != nil {
			return
		}
	}
}

// begin fetches from where the group is.
func (t *tenure) begin(at place) {
	if at.exact {
		// The group works in transactions. If the last owner died in one, its outputs are kept from readers until
		// somebody ends it.
		if err := t.txn.fence(t.ctx); err != nil {
			t.g.report("transaction of an earlier owner", err)
		}
	}
	t.g.mu.Lock()
	t.located, t.committed, t.hinted, t.again = true, at.offset, at.high, at.high
	t.exact = t.exact || at.exact
	t.g.mu.Unlock()
	from := at.offset
	if from < 0 {
		from = fromFirst
	}
	t.run(t.ctx, from)
}

// cutOut notes that the member is not in the group any more.
func (g *groupSource) cutOut(err error) {
	g.joining.Store(0)
	err = g.explain(err)
	g.report("group membership", err)
	if k := schemas.KindOf(err); k == schemas.Denied || k == schemas.Invalid {
		select {
		case g.joined <- err:
		default:
		}
	}
	g.mu.Lock()
	was := g.mu.gen.member
	fresh := !g.mu.cut && was != ""
	g.mu.cut = true
	g.mu.Unlock()
	if fresh {
		g.start(func() { g.evict(was) })
	}
}

// explain says what to do about an error of joining.
func (g *groupSource) explain(err error) error {
	const op = "kafka.Subscribe"
	switch {
	case errors.Is(err, kafka.InvalidSessionTimeout):
		return schemas.FieldErrorf(schemas.Invalid, op, "kafka.session", "the brokers do not allow %v: see their group.min.session.timeout.ms and group.max.session.timeout.ms", g.c.cfg.Session)
	case errors.Is(err, kafka.InconsistentGroupProtocol):
		return schemas.Errorf(schemas.Invalid, op, "group %s is in use by consumers that are not Leat's: stop them, or take another name", g.group)
	}
	return classify(op, "group "+g.group, err)
}

// evict takes a member that was cut out of the group, so that nobody waits for it. That is done while its successor
// waits to be let in: were the group empty in between, its generations would not follow each other, and what the member
// owns would count as lost.
func (g *groupSource) evict(member string) {
	for sleep(g.closing, joinPause) == nil {
		g.mu.Lock()
		cut := g.mu.cut
		g.mu.Unlock()
		if !cut {
			return // it was let in, so the old one is gone
		}
		if at := g.joining.Load(); at == 0 || time.Since(time.Unix(0, at)) < joinPause {
			continue
		}
		call, cancel := context.WithTimeout(g.closing, g.c.cfg.CallTimeout)
		err := g.c.leaveGroup(call, g.coord.key, member)
		cancel()
		if err == nil || errors.Is(err, kafka.UnknownMemberId) {
			return
		}
		g.report("leaving the group", err)
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
