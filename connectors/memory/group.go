package memory

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
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
	owner *member
	next  int     // index of the message to hand over next
	again int     // messages before this index were in somebody's hands
	work  []*hand // handed over and not settled, in order
}

type hand struct {
	index   int
	attempt int
	retry   time.Time // not zero: waits for its retry
	done    bool
}

// member is a connectors.Source and the Settler of its deliveries.
type member struct {
	b       *Broker
	t       *topic
	g       *group
	once    sync.Once
	drained chan struct{}
	closed  atomic.Bool
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
		if len(g.members) == 0 {
			s.owner = nil
		} else if len(s.work) == 0 || s.owner == nil {
			s.owner = g.members[p%len(g.members)]
		}
	}
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
		if s.owner != m {
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
			ds = append(ds, m.delivery(p, h))
		}
		for !held && len(ds) < max && s.next < len(m.t.parts[p]) {
			h := &hand{index: s.next, attempt: 1}
			if s.next < s.again {
				h.attempt = 2
			}
			s.next++
			s.work = append(s.work, h)
			ds = append(ds, m.delivery(p, h))
		}
	}
	return ds, wait
}

func (m *member) delivery(p int, h *hand) *connectors.Delivery {
	st := &m.t.parts[p][h.index]
	d := &connectors.Delivery{Message: st.msg, Attempt: h.attempt, Settler: m}
	d.Header = st.msg.Header.Clone()
	d.From = schemas.Position{Stream: m.t.name, Partition: int32(p), Sequence: st.seq}
	return d
}

// hand finds what d stands for. The lock is held; nil without an error after Close: it has no effect any more.
func (m *member) hand(d *connectors.Delivery) (*share, *hand, error) {
	if m.closed.Load() {
		return nil, nil, nil
	}
	s := &m.g.parts[d.From.Partition]
	for _, h := range s.work {
		if m.t.parts[d.From.Partition][h.index].seq == d.From.Sequence && !h.done && h.retry.IsZero() && h.attempt == d.Attempt {
			return s, h, nil
		}
	}
	return nil, nil, schemas.Errorf(schemas.Internal, "memory.Settle", "%s (attempt %d) was settled already", d.From, d.Attempt)
}

// Accept implements connectors.Settler.
func (m *member) Accept(_ context.Context, ds []*connectors.Delivery) error {
	m.b.store.Lock()
	defer m.b.store.Unlock()
	var first error
	for _, d := range ds {
		o, ok := d.Settler.(*member)
		if !ok {
			return schemas.Errorf(schemas.Internal, "memory.Accept", "a delivery of another source")
		}
		if err := o.accept(d); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (m *member) accept(d *connectors.Delivery) error {
	s, h, err := m.hand(d)
	if h == nil {
		return err
	}
	h.done = true
	i := 0
	for i < len(s.work) && s.work[i].done {
		i++
	}
	s.work = s.work[i:]
	if len(s.work) == 0 {
		m.g.assign()
		m.t.wake()
	}
	return nil
}

// Retry implements connectors.Settler.
func (m *member) Retry(_ context.Context, d *connectors.Delivery, after time.Duration) error {
	m.b.store.Lock()
	defer m.b.store.Unlock()
	_, h, err := m.hand(d)
	if h == nil {
		return err
	}
	h.retry = m.b.now().Add(max(after, 1))
	m.t.wake()
	return nil
}

// Reject keeps the dead letter, then settles.
func (m *member) Reject(_ context.Context, d *connectors.Delivery, cause error) error {
	m.b.store.Lock()
	defer m.b.store.Unlock()
	_, h, err := m.hand(d)
	if h == nil {
		return err
	}
	dead := *d
	dead.Header = d.Header.Clone()
	e := schemas.AsError("memory.Reject", cause)
	if e == nil {
		e = schemas.Errorf(schemas.Internal, "memory.Reject", "rejected without a cause")
	}
	dead.Header.Set(schemas.HeaderErrorKind, e.Kind.String())
	dead.Header.Set("Leat-Error", e.Error())
	dead.Header.Set(schemas.HeaderSource, d.From.String())
	m.b.store.dead = append(m.b.store.dead, dead)
	return m.accept(d)
}

// Dead returns the dead letters so far.
func (b *Broker) Dead() []schemas.Message {
	b.store.Lock()
	defer b.store.Unlock()
	out := make([]schemas.Message, len(b.store.dead))
	for i := range out {
		out[i] = b.store.dead[i].Message
	}
	return out
}

// Drain implements connectors.Source.
func (m *member) Drain() { m.once.Do(func() { close(m.drained) }) }

// Close gives the partitions up: the next owner begins at the first message that was not settled.
func (m *member) Close(context.Context) error {
	m.Drain()
	m.b.store.Lock()
	defer m.b.store.Unlock()
	if m.closed.Swap(true) {
		return nil
	}
	m.g.members = slices.DeleteFunc(m.g.members, func(o *member) bool { return o == m })
	for p := range m.g.parts {
		s := &m.g.parts[p]
		if s.owner != m {
			continue
		}
		s.again = max(s.again, s.next)
		if len(s.work) > 0 {
			s.next = s.work[0].index
		}
		s.work, s.owner = nil, nil
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
