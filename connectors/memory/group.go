package memory

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// group is a set of members that share a topic. Broker.store guards it.
type group struct {
	name    string
	members []*member
	parts   []share
}

// share is a group's place in one partition.
type share struct {
	held  *tenure // nil: nobody's
	terms uint64  // so far
	next  int     // index of the message to hand over next
	again int     // messages before this index were in somebody's hands
	work  []*hand // handed over and not settled, in order
}

// tenure is one hold of a member on a partition: what it handed over is settled through it, until it is over.
type tenure struct {
	m    *member
	p    int32
	term uint64
	over bool
}

type hand struct {
	index   int
	attempt int
	retry   time.Time // not zero: waits for its retry
	done    bool
}

// member is a connectors.Source.
type member struct {
	b       *Broker
	t       *topic
	g       *group
	once    sync.Once
	drained chan struct{}
}

// Subscribe implements connectors.Topics.
func (b *Broker) Subscribe(_ context.Context, name, groupName string) (connectors.Source, error) {
	if err := schemas.CheckName("group", groupName); err != nil {
		return nil, err
	}
	b.store.Lock()
	defer b.store.Unlock()
	t, err := b.topic("memory.Subscribe", name)
	if err != nil {
		return nil, err
	}
	g := t.groups[groupName]
	if g == nil {
		g = &group{name: groupName, parts: make([]share, len(t.parts))}
		t.groups[groupName] = g
	}
	m := &member{b: b, t: t, g: g, drained: make(chan struct{})}
	g.members = append(g.members, m)
	g.assign()
	t.wake()
	return m, nil
}

// assign shares out the partitions evenly; one that has messages in work stays until they are settled.
func (g *group) assign() {
	for p := range g.parts {
		s := &g.parts[p]
		if len(g.members) == 0 || s.held != nil && len(s.work) > 0 {
			continue
		}
		if m := g.members[p%len(g.members)]; s.held == nil || s.held.m != m {
			s.end()
			s.terms++
			s.held = &tenure{m: m, p: int32(p), term: s.terms}
		}
	}
}

// end takes the partition from its owner: the next one begins at the first message that was not settled.
func (s *share) end() {
	if s.held == nil {
		return
	}
	s.held.over = true
	s.again = max(s.again, s.next)
	if len(s.work) > 0 {
		s.next = s.work[0].index
	}
	s.work, s.held = nil, nil
}

// Revoke takes every partition of a group from its owner, as a transport does from one that it believes dead, and gives
// them to the next members, or back to the only one: what was not settled is delivered again. It is for tests.
func (b *Broker) Revoke(topic, groupName string) {
	b.store.Lock()
	defer b.store.Unlock()
	t := b.store.topics[topic]
	if t == nil || t.groups[groupName] == nil {
		return
	}
	g := t.groups[groupName]
	if n := len(g.members); n > 0 {
		g.members = append(g.members[1:n:n], g.members[0])
	}
	for p := range g.parts {
		g.parts[p].end()
	}
	g.assign()
	t.wake()
}

// Receive implements connectors.Source.
func (m *member) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	for {
		select {
		case <-m.drained:
			return nil, schemas.ErrDrained
		default:
		}
		m.b.store.Lock()
		ds, wait := m.take(max)
		change := m.t.change
		m.b.store.Unlock()
		if len(ds) > 0 {
			return ds, nil
		}
		var due <-chan time.Time
		if wait > 0 {
			t := time.NewTimer(wait)
			defer t.Stop()
			due = t.C
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.drained:
		case <-change:
		case <-due:
		}
	}
}

// take hands over what is due; wait is the time to the next retry, 0 if there is none. The lock is held.
func (m *member) take(max int) (ds []*connectors.Delivery, wait time.Duration) {
	now := m.b.now()
	for p := range m.g.parts {
		s := &m.g.parts[p]
		if s.held == nil || s.held.m != m {
			continue
		}
		held := false
		for _, h := range s.work {
			if h.retry.IsZero() {
				continue
			}
			if left := h.retry.Sub(now); left > 0 || len(ds) == max {
				held = true
				if left > 0 && (wait == 0 || left < wait) {
					wait = left
				}
				break // nothing later of the partition before it
			}
			h.retry = time.Time{}
			h.attempt++
			ds = append(ds, s.held.delivery(h))
		}
		for !held && len(ds) < max && s.next < len(m.t.parts[p]) {
			h := &hand{index: s.next, attempt: 1}
			if s.next < s.again {
				h.attempt = 2
			}
			s.next++
			s.work = append(s.work, h)
			ds = append(ds, s.held.delivery(h))
		}
	}
	return ds, wait
}

func (o *tenure) delivery(h *hand) *connectors.Delivery {
	st := &o.m.t.parts[o.p][h.index]
	d := &connectors.Delivery{Message: st.msg, Attempt: h.attempt, Term: o.term, Settler: o}
	d.Header = st.msg.Header.Clone()
	d.From = schemas.Position{Stream: o.m.t.name, Partition: o.p, Sequence: st.seq}
	return d
}

// stands reports whether d is in h.
func (o *tenure) stands(h *hand, d *connectors.Delivery) bool {
	return o.m.t.parts[o.p][h.index].seq == d.From.Sequence && !h.done && h.retry.IsZero() && h.attempt == d.Attempt
}

// hand finds what d stands for. The lock is held; nil without an error once the tenure is over: it has no effect any
// more.
func (o *tenure) hand(d *connectors.Delivery) (*hand, error) {
	if o.over {
		return nil, nil
	}
	for _, h := range o.m.g.parts[o.p].work {
		if o.stands(h, d) {
			return h, nil
		}
	}
	return nil, settledAlready("memory.Settle", d)
}

func settledAlready(op string, d *connectors.Delivery) error {
	return schemas.Errorf(schemas.Internal, op, "%s (attempt %d) was settled already", d.From, d.Attempt)
}

// Accept implements connectors.Settler.
func (o *tenure) Accept(_ context.Context, ds []*connectors.Delivery) error {
	o.m.b.store.Lock()
	defer o.m.b.store.Unlock()
	var first error
	for _, d := range ds {
		of, ok := d.Settler.(*tenure)
		if !ok {
			return schemas.Errorf(schemas.Internal, "memory.Accept", "a delivery of another source")
		}
		if err := of.accept(d); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (o *tenure) accept(d *connectors.Delivery) error {
	h, err := o.hand(d)
	if h == nil {
		return err
	}
	h.done = true
	o.advance()
	return nil
}

// advance lets go of what is settled.
func (o *tenure) advance() {
	s := &o.m.g.parts[o.p]
	i := 0
	for i < len(s.work) && s.work[i].done {
		i++
	}
	if s.work = s.work[i:]; len(s.work) == 0 {
		o.m.g.assign()
		o.m.t.wake()
	}
}

// Retry implements connectors.Settler.
func (o *tenure) Retry(_ context.Context, d *connectors.Delivery, after time.Duration) error {
	o.m.b.store.Lock()
	defer o.m.b.store.Unlock()
	h, err := o.hand(d)
	if h == nil {
		return err
	}
	h.retry = o.m.b.now().Add(max(after, 1))
	o.m.t.wake()
	return nil
}

// Reject keeps the dead letter, then settles.
func (o *tenure) Reject(_ context.Context, d *connectors.Delivery, cause error) error {
	o.m.b.store.Lock()
	defer o.m.b.store.Unlock()
	h, err := o.hand(d)
	if h == nil {
		return err
	}
	o.m.b.store.dead = append(o.m.b.store.dead, deadLetter("memory.Reject", d, cause))
	return o.accept(d)
}

// deadLetter is d with the cause and its place in the headers.
func deadLetter(op string, d *connectors.Delivery, cause error) schemas.Message {
	dead := d.Message
	dead.Header = d.Header.Clone()
	e := schemas.AsError(op, cause)
	if e == nil {
		e = schemas.Errorf(schemas.Internal, op, "rejected without a cause")
	}
	dead.Header.Set(schemas.HeaderErrorKind, e.Kind.String())
	dead.Header.Set("Leat-Error", e.Error())
	dead.Header.Set(schemas.HeaderSource, d.From.String())
	return dead
}

// Dead returns the dead letters so far.
func (b *Broker) Dead() []schemas.Message {
	b.store.Lock()
	defer b.store.Unlock()
	return slices.Clone(b.store.dead)
}

// Drain implements connectors.Source.
func (m *member) Drain() { m.once.Do(func() { close(m.drained) }) }

// Close gives the partitions up: the next owner begins at the first message that was not settled.
func (m *member) Close(context.Context) error {
	m.Drain()
	m.b.store.Lock()
	defer m.b.store.Unlock()
	m.g.members = slices.DeleteFunc(m.g.members, func(o *member) bool { return o == m })
	for p := range m.g.parts {
		if s := &m.g.parts[p]; s.held != nil && s.held.m == m {
			s.end()
		}
	}
	m.g.assign()
	m.t.wake()
	return nil
}

// replay reads a range that was fixed when it was opened.
type replay struct {
	mu   sync.Mutex
	t    string
	p    int32
	left []stored
}

func (r *replay) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.left) == 0 {
		return nil, schemas.ErrDrained
	}
	n := min(max, len(r.left))
	ds := make([]*connectors.Delivery, n)
	for i := range ds {
		ds[i] = &connectors.Delivery{Message: r.left[i].msg, Attempt: 1, Settler: settler{}}
		ds[i].Header = r.left[i].msg.Header.Clone()
		ds[i].From = schemas.Position{Stream: r.t, Partition: r.p, Sequence: r.left[i].seq}
	}
	r.left = r.left[n:]
	return ds, nil
}

func (r *replay) Drain() {
	r.mu.Lock()
	r.left = nil
	r.mu.Unlock()
}

func (r *replay) Close(context.Context) error {
	r.Drain()
	return nil
}
