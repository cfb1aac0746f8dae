package nats

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// bucketGroups holds who is a member of which group (m.<topic>.<group>.<member>, written again with each heartbeat)
// and who owns which partition (o.<topic>.<group>.<partition>, changed by compare-and-set only).
const bucketGroups = "LEAT_GROUPS"

// keyServer names the start of the embedded server: members in the process of an earlier start are dead.
const keyServer = "server"

// membership is a member's view of its group. All its methods run on one goroutine.
type membership struct {
	g      *groupSource
	kv     jetstream.KeyValue
	key    string   // of the heartbeat
	prefix string   // "<topic>.<group>."
	stable []string // members at the last tick
}

type memberValue struct {
	Server string `json:"server,omitempty"` // start of the embedded server in whose process it lives
}

// ownerValue says who owns a partition, and how far the group was when it took it over.
type ownerValue struct {
	Member string `json:"member,omitempty"` // "": nobody
	Floor  uint64 `json:"floor"`
}

func newMembership(g *groupSource, kv jetstream.KeyValue) *membership {
	prefix := strings.ReplaceAll(g.topic, ".", "_") + "." + g.group + "."
	return &membership{g: g, kv: kv, prefix: prefix, key: "m." + prefix + g.member}
}

// groupBucket opens the bucket once for the client and notes the start of the embedded server.
func (c *Client) groupBucket(ctx context.Context) (jetstream.KeyValue, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groupKV != nil {
		return c.groupKV, nil
	}
	kv, err := c.openBucket(ctx, bucketGroups, 0)
	if err != nil {
		return nil, err
	}
	if c.cfg.Server != nil {
		call, cancel := c.call(ctx)
		defer cancel()
		if _, err := kv.Put(call, keyServer, []byte(c.cfg.Server.id)); err != nil {
			return nil, classify("nats.Subscribe", "groups", err)
		}
	}
	c.groupKV = kv
	return kv, nil
}

func (m *membership) hintSubject() string { return "leat.group." + strings.TrimSuffix(m.prefix, ".") }

// tell asks the other members to look now, not at their next tick.
func (m *membership) tell() {
	if err := m.g.c.core.Publish(m.hintSubject(), []byte(m.g.member)); err != nil {
		m.g.c.log.Debug("group hint", "error", err) // they look by themselves
	}
}

// view is the group as the bucket shows it.
type view struct {
	members []string // alive, sorted
	owners  map[int]ownerValue
	revs    map[int]uint64
}

// tick sends the heartbeat, looks at the group, takes over what is ours to own and prepares to give up what is not.
func (m *membership) tick(ctx context.Context) error {
	g := m.g
	if err := m.heartbeat(ctx); err != nil {
		return err
	}
	v, err := m.look(ctx)
	if err != nil {
		return err
	}
	if !slices.Equal(v.members, m.stable) {
		m.stable = v.members
		m.tell()
	}
	for p := range g.partitions {
		mine := m.wanted(v, p) == g.member
		o := v.owners[p]
		g.mu.Lock()
		t := g.mu.owned[p]
		switch {
		case t != nil && o.Member != g.member:
			g.end(t) // taken from us while we were silent
			t = nil
		case t != nil && !mine && !t.leaving:
			t.leaving, t.leaveUntil = true, time.Now().Add(g.c.cfg.LeaseTTL)
			wakeUp(g.work)
		}
		g.mu.Unlock()
		if t == nil && mine && (o.Member == "" || o.Member == g.member || !slices.Contains(v.members, o.Member)) {
			if err := m.acquire(ctx, p, o, v.revs[p]); err != nil && !errors.Is(err, schemas.ErrConflict) {
				return err
			}
		}
	}
	return nil
}

// wanted says who should own a partition: all members compute the same.
func (m *membership) wanted(v *view, p int) string {
	return v.members[p%len(v.members)]
}

func (m *membership) heartbeat(ctx context.Context) error {
	var val memberValue
	if s := m.g.c.cfg.Server; s != nil {
		val.Server = s.id
	}
	b, err := json.Marshal(val)
	if err != nil {
		return schemas.Errorf(schemas.Internal, "nats.heartbeat", "%w", err)
	}
	sent := time.Now()
	call, cancel := m.g.c.call(ctx)
	defer cancel()
	if _, err := m.kv.Put(call, m.key, b); err != nil {
		return classify("nats.heartbeat", m.g.topic, err)
	}
	m.g.beat.Store(sent.UnixNano())
	return nil
}

// look reads the group's keys. Ages are told by the server's clock: the difference to our own heartbeat just sent.
func (m *membership) look(ctx context.Context) (*view, error) {
	const op = "nats.look"
	call, cancel := m.g.c.call(ctx)
	defer cancel()
	w, err := m.kv.WatchFiltered(call, []string{"m." + m.prefix + "*", "o." + m.prefix + "*", keyServer}, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, classify(op, m.g.topic, err)
	}
	defer w.Stop()
	v := &view{owners: map[int]ownerValue{}, revs: map[int]uint64{}}
	seen := map[string]time.Time{}
	home := map[string]string{}
	server := ""
	for {
		var e jetstream.KeyValueEntry
		select {
		case e = <-w.Updates():
		case <-call.Done():
			return nil, classify(op, m.g.topic, call.Err())
		}
		if e == nil {
			return m.alive(v, seen, home, server)
		}
		name := e.Key()[strings.LastIndexByte(e.Key(), '.')+1:]
		switch {
		case e.Key() == keyServer:
			server = string(e.Value())
		case strings.HasPrefix(e.Key(), "m."):
			var val memberValue
			if json.Unmarshal(e.Value(), &val) == nil {
				seen[name], home[name] = e.Created(), val.Server
			}
		default:
			p, perr := strconv.Atoi(name)
			var val ownerValue
			if perr != nil || json.Unmarshal(e.Value(), &val) != nil {
				return nil, schemas.Errorf(schemas.Internal, op, "key %s of %s is not ours", e.Key(), bucketGroups)
			}
			v.owners[p], v.revs[p] = val, e.Revision()
		}
	}
}

// alive fills in the members that live.
func (m *membership) alive(v *view, seen map[string]time.Time, home map[string]string, server string) (*view, error) {
	now, ok := seen[m.g.member]
	if !ok {
		return nil, schemas.Errorf(schemas.Unavailable, "nats.look", "%s: our heartbeat is not there", m.g.topic)
	}
	for id, at := range seen {
		if now.Sub(at) <= m.g.c.cfg.LeaseTTL && (home[id] == "" || home[id] == server) {
			v.members = append(v.members, id)
		}
	}
	slices.Sort(v.members)
	return v, nil
}

func (m *membership) ownerKey(p int) string { return "o." + m.prefix + strconv.Itoa(p) }

func (m *membership) setOwner(ctx context.Context, p int, val ownerValue, last uint64) (uint64, error) {
	b, err := json.Marshal(val)
	if err != nil {
		return 0, schemas.Errorf(schemas.Internal, "nats.owner", "%w", err)
	}
	call, cancel := m.g.c.call(ctx)
	defer cancel()
	rev, err := m.kv.Update(call, m.ownerKey(p), b, last) // last 0: must not exist
	if apiCode(err) == codeWrongLastSequence {
		return 0, schemas.Errorf(schemas.Unavailable, "nats.owner", "partition %d: %w", p, schemas.ErrConflict)
	}
	return rev, classify("nats.owner", m.g.topic, err)
}

// acquire takes a partition: the group's place is written into the owner key first, so that it survives our death
// between deleting the old consumer, whose standing requests may belong to a member that is gone, and making the new.
func (m *membership) acquire(ctx context.Context, p int, o ownerValue, rev uint64) error {
	const op = "nats.acquire"
	g := m.g
	call, cancel := g.c.call(ctx)
	defer cancel()
	floor, again, exists := o.Floor, o.Floor, false
	cons, err := g.c.js.Consumer(call, g.stream, consumerName(g.group, p))
	switch {
	case err == nil:
		info := cons.CachedInfo()
		exists = true
		floor = max(floor, info.AckFloor.Stream)
		again = max(floor, info.Delivered.Stream)
	case apiCode(err) != codeConsumerNotFound:
		return classify(op, g.topic, err)
	}
	rev, err = m.setOwner(ctx, p, ownerValue{Member: g.member, Floor: floor}, rev)
	if err != nil {
		return err
	}
	if exists {
		if err := g.c.js.DeleteConsumer(call, g.stream, consumerName(g.group, p)); err != nil && apiCode(err) != codeConsumerNotFound {
			return classify(op, g.topic, err)
		}
	}
	if _, err := g.c.js.CreateConsumer(call, g.stream, g.consumerConfig(p, floor+1)); err != nil {
		return classify(op, g.topic, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &tenure{g: g, p: p, revision: rev, again: again, seen: floor, floor: floor}
	g.mu.owned[p] = t
	if err := t.open(); err != nil {
		wakeUp(g.work) // mend tries again
	}
	return nil
}

// finishLeaving gives up the partitions whose messages in work are settled, or whose time to wait is over.
func (m *membership) finishLeaving(ctx context.Context) {
	g := m.g
	g.mu.Lock()
	var ready []*tenure
	for _, t := range g.mu.owned {
		if t == nil || !t.leaving {
			continue
		}
		busy := false
		for _, w := range t.window[t.head:] {
			busy = busy || w.state == inHands
		}
		if !busy || time.Now().After(t.leaveUntil) {
			ready = append(ready, t)
		} else {
			time.AfterFunc(time.Until(t.leaveUntil), func() { wakeUp(g.work) })
		}
	}
	g.mu.Unlock()
	for _, t := range ready {
		m.release(ctx, t)
	}
	if len(ready) > 0 {
		m.tell()
	}
}

// release ends a tenure and says so, with the place that the group has reached.
func (m *membership) release(ctx context.Context, t *tenure) {
	g := m.g
	g.mu.Lock()
	floor := t.floor
	g.end(t)
	g.mu.Unlock()
	if g.fenced() {
		return
	}
	if _, err := m.setOwner(ctx, t.p, ownerValue{Floor: floor}, t.revision); err != nil && !errors.Is(err, schemas.ErrConflict) {
		g.c.log.Warn("cannot release a partition", "topic", g.topic, "partition", t.p, "error", err)
	}
}

// end makes a tenure have no effect any more. The lock is held.
func (g *groupSource) end(t *tenure) {
	t.over = true
	if g.mu.owned[t.p] == t {
		g.mu.owned[t.p] = nil
	}
	if t.session != nil {
		delete(g.mu.bySub, t.session.sub)
		t.session.close()
		t.session = nil
	}
}

// leave gives everything up and takes the member out of the group. What cannot be said to the server, because it is
// gone, others find out after LeaseTTL.
func (m *membership) leave(ctx context.Context) {
	g := m.g
	g.mu.Lock()
	owned := slices.Clone(g.mu.owned)
	g.mu.Unlock()
	for _, t := range owned {
		if t != nil {
			m.release(ctx, t)
		}
	}
	call, cancel := g.c.call(ctx)
	defer cancel()
	if err := m.kv.Delete(call, m.key); err != nil && !passing(err) {
		g.c.log.Warn("cannot leave the group", "topic", g.topic, "group", g.group, "error", err)
	}
	m.tell()
}

func (c *Client) addGroup(g *groupSource) {
	c.mu.Lock()
	c.mu.groups[g] = struct{}{}
	c.mu.Unlock()
}

func (c *Client) dropGroup(g *groupSource) {
	c.mu.Lock()
	delete(c.mu.groups, g)
	c.mu.Unlock()
}
