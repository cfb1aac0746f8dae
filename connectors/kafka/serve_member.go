package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// scoreMember is a source's membership in its group. Requests are received once, so a partition can change hands without
// a pause: while the group rebalances, a member commits what it fetches before it delivers it, which brokers allow
// until all members have joined; what it could not commit it delivers if the partition stays, and else leaves to its
// next owner, who begins at what was committed. So nothing stands still for longer than it takes to share out.
type scoreMember struct {
	s       *scoreSource
	coord   *coordinator
	changed chan struct{} // tells the receiver that there are other partitions
	work    chan struct{} // tells the committer that there is something to commit
	shared  chan struct{} // closed when the first share is there
	failed  chan error    // why joining failed

	// committing is held while a commit is on its way, so that none overtakes another, and the end of a generation
	// knows what was committed. It is taken before mu.
	committing sync.Mutex

	mu struct {
		sync.Mutex
		gen     generation
		in      bool // in the group, as far as is known
		joining bool // on the way to the next generation
		held    map[int32]*holding
		shared  bool
	}
}

// holding is a partition that requests are received from. The fetcher is the receiver's, the rest is guarded by the
// member's lock.
type holding struct {
	f         *fetcher
	at        int64     // what lies before was delivered
	committed int64     // what lies before is nobody else's to receive
	pending   []fetched // fetched and to be committed first
	fetched   int64     // the offset after pending
	over      bool
}

func (s *scoreSource) newMember() *scoreMember {
	m := &scoreMember{
		s: s, coord: s.c.coordinator(kafka.CoordinatorKeyTypeConsumer, s.group), changed: make(chan struct{}, 1), work: make(chan struct{}, 1),
		shared: make(chan struct{}), failed: make(chan error, 1),
	}
	m.mu.held = map[int32]*holding{}
	return m
}

// scoreBalancer shares partitions out as Kafka's own range assignor does, and is told when the member is about to join.
type scoreBalancer struct {
	kafka.RangeGroupBalancer
	join func()
}

// UserData implements kafka.GroupBalancer.
func (b scoreBalancer) UserData() ([]byte, error) {
	b.join()
	return nil, nil
}

// leaving begins the way to the next generation: from now on nothing is delivered before it is committed, and what was
// delivered is.
func (m *scoreMember) leaving() {
	m.mu.Lock()
	m.mu.joining = true
	m.mu.Unlock()
	if err := m.commit(); err != nil {
		m.s.c.log.Debug("commit before joining", "group", m.s.group, "error", err)
	}
}

// begin takes over a generation, and returns the partitions that have come.
func (m *scoreMember) begin(gen *kafka.Generation) (g generation, come []kafka.PartitionAssignment) {
	m.committing.Lock()
	defer m.committing.Unlock()
	g = generation{id: gen.ID, member: gen.MemberID}
	var stayed []fetched
	m.mu.Lock()
	// If another generation came between, somebody else may have received from what was held.
	same := m.mu.in && m.mu.gen.member == g.member && m.mu.gen.id+1 == g.id
	m.mu.gen, m.mu.in, m.mu.joining = g, true, false
	was := m.mu.held
	m.mu.held = map[int32]*holding{}
	for _, p := range gen.Assignments[m.s.topic] {
		h := was[int32(p.ID)]
		if h == nil || !same {
			come = append(come, p)
			continue
		}
		delete(was, int32(p.ID))
		m.mu.held[int32(p.ID)] = h
		stayed = append(stayed, h.release()...)
	}
	for _, h := range was {
		h.over = true
	}
	m.mu.Unlock()
	wakeUp(m.changed)
	wakeUp(m.work)
	m.s.take(stayed)
	return g, come
}

// release returns what waited for its commit. The lock is held.
func (h *holding) release() []fetched {
	rs := h.pending
	h.pending, h.at = nil, max(h.at, h.fetched)
	return rs
}

// hold receives from the partitions that came, until the generation ends.
func (m *scoreMember) hold(over context.Context, g generation, come []kafka.PartitionAssignment) {
	ctx, cancel := context.WithCancel(m.s.ctx)
	defer cancel()
	defer context.AfterFunc(over, cancel)()
	if err := m.receiveFrom(ctx, g, come); err != nil {
		if ctx.Err() == nil {
			m.s.c.log.Warn("taking a share of a group", "group", m.s.group, "error", plainly(err))
			sleep(ctx, joinPause) // the end of the wait is what is waited for
		}
		return // join again
	}
	m.s.here(true)
	m.mu.Lock()
	if !m.mu.shared {
		m.mu.shared = true
		close(m.shared)
	}
	m.mu.Unlock()
	<-ctx.Done()
}

// receiveFrom finds where to begin. A partition that the group has never committed begins at its end, and that is
// committed before anything is received: whoever gets it next must not take a later end.
func (m *scoreMember) receiveFrom(ctx context.Context, g generation, come []kafka.PartitionAssignment) error {
	s := m.s
	fresh := map[int32]place{}
	for i := range come {
		p := &come[i]
		if p.Offset >= 0 {
			continue
		}
		end, err := s.c.listOffset(ctx, "kafka.Serve", s.topic, int32(p.ID), fromEnd)
		if err != nil {
			return err
		}
		p.Offset = end
		fresh[int32(p.ID)] = place{offset: end, high: end}
	}
	if len(fresh) > 0 {
		if err := m.coord.commit(ctx, g, s.topic, fresh); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.gen != g || !m.mu.in {
		return nil // over already
	}
	for _, p := range come {
		f := s.c.newFetcher(topicScore+s.pipeline, int32(p.ID), p.Offset)
		m.mu.held[int32(p.ID)] = &holding{f: f, at: p.Offset, fetched: p.Offset, committed: p.Offset}
	}
	wakeUp(m.changed)
	return nil
}

// cutOff notes that the member is not in the group any more, and returns who it was, "" if that is known. Others have
// what it held.
func (m *scoreMember) cutOff() (member string) {
	m.committing.Lock()
	defer m.committing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.in {
		return ""
	}
	m.mu.in = false
	for _, h := range m.mu.held {
		h.over = true
	}
	clear(m.mu.held)
	wakeUp(m.changed)
	return m.mu.gen.member
}

// receivedPause is how long a commit waits for others to join it. Each takes a tenth of what a lone request takes, on the
// same processors. What a member has received so shortly before it is killed, another one receives again.
const receivedPause = 10 * time.Millisecond

// commits commits what was received, again and again: at once what waits for it, and else with what comes meanwhile.
func (m *scoreMember) commits() {
	for {
		select {
		case <-m.s.ctx.Done():
			return
		case <-m.work:
		}
		m.mu.Lock()
		joining := m.mu.joining
		m.mu.Unlock()
		if !joining && sleep(m.s.ctx, receivedPause) != nil {
			return // the last commit is finish's
		}
		if err := m.commit(); err != nil && m.s.ctx.Err() == nil {
			m.s.c.log.Debug("commit", "group", m.s.group, "error", err) // a rebalance, most of all
			if sleep(m.s.ctx, retryPause) != nil {
				return
			}
			wakeUp(m.work)
		}
	}
}

// commit commits once, and delivers what waited for it.
func (m *scoreMember) commit() error {
	m.committing.Lock()
	defer m.committing.Unlock()
	m.mu.Lock()
	gen, at := m.mu.gen, m.uncommitted()
	m.mu.Unlock()
	if len(at) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(m.s.c.closing, m.s.c.cfg.Session/2)
	defer cancel()
	if err := m.coord.commit(ctx, gen, m.s.topic, at); err != nil {
		return err
	}
	var free []fetched
	m.mu.Lock()
	for p, to := range at {
		h := m.mu.held[p]
		if h == nil {
			continue // drained meanwhile
		}
		h.committed = to.offset
		if len(h.pending) > 0 && h.fetched == to.offset {
			free = append(free, h.release()...)
		} else if len(h.pending) > 0 { // more was fetched meanwhile
			n := 0
			for n < len(h.pending) && h.pending[n].offset < to.offset {
				n++
			}
			free = append(free, h.pending[:n]...)
			h.pending, h.at = h.pending[n:], to.offset
		}
	}
	m.mu.Unlock()
	m.s.take(free)
	return nil
}

// uncommitted is what is to be committed. The lock is held.
func (m *scoreMember) uncommitted() map[int32]place {
	at := map[int32]place{}
	for p, h := range m.mu.held {
		if to := max(h.at, h.fetched); to > h.committed && m.mu.in {
			at[p] = place{offset: to, high: to}
		}
	}
	return at
}

// finish ends the receiving and commits what was delivered, before the group is left.
func (m *scoreMember) finish() {
	m.committing.Lock()
	defer m.committing.Unlock()
	m.mu.Lock()
	for _, h := range m.mu.held {
		h.over = true
		h.pending, h.fetched = nil, h.at // somebody else's
	}
	gen, at := m.mu.gen, m.uncommitted()
	clear(m.mu.held)
	m.mu.Unlock()
	if len(at) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(m.s.c.closing, m.s.c.cfg.CallTimeout)
	defer cancel()
	if err := m.coord.commit(ctx, gen, m.s.topic, at); err != nil && m.s.c.closing.Err() == nil {
		m.s.c.log.Warn("the last requests may be received again", "group", m.s.group, "error", plainly(err))
	}
}
