package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/leavegroup"

	"github.com/leatstream/leat/schemas"
)

// joinPause is the time between two tries to join a group.
const joinPause = 50 * time.Millisecond

// join becomes a member of the group and waits for a share.
func (s *scoreSource) join(ctx context.Context, op string) error {
	c, m := s.c, s.member
	if !c.requests.keep(s) || !c.spawn(m.run) {
		close(s.drained)
		return errClosed(op)
	}
	select {
	case <-m.shared:
		return nil
	case err := <-m.failed:
		return classify(op, "group "+s.group, err)
	case <-ctx.Done():
		return c.late(ctx, op, "group "+s.group, nil)
	case <-c.closing.Done():
		return errClosed(op)
	}
}

// run keeps the member in the group until the source is drained. The library forgets who it was whenever joining fails,
// for which a restart of the coordinator is enough: then a new member joins, and the old one is taken out, for which
// the group would otherwise wait.
func (m *scoreMember) run() {
	s := m.s
	var wg sync.WaitGroup
	wg.Go(m.receive)
	wg.Go(m.commits)
	wg.Go(s.refuse)
	in := func() {}
	for try := 0; s.ctx.Err() == nil; try++ {
		err := m.follow(try, in)
		if s.ctx.Err() != nil {
			break
		}
		ctx, cancel := context.WithCancel(s.ctx)
		in = cancel
		if was := m.cutOff(); was != "" {
			wg.Go(func() { m.evict(ctx, was) })
		}
		m.report(err)
		sleep(s.ctx, joinPause) // the end of the wait is what is waited for
	}
	in()
	s.here(false)
	close(s.drained) // nothing is received any more
	wg.Wait()
}

func (m *scoreMember) report(err error) {
	if passing(err) || errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration) {
		m.s.c.log.Debug("joining a group", "group", m.s.group, "error", plainly(err))
		return
	}
	m.s.c.log.Warn("joining a group", "group", m.s.group, "error", plainly(err))
	select {
	case m.failed <- err:
	default: // nobody waits for the first share any more
	}
}

// follow is a member from its first generation to its last. in is called when it is in the group.
func (m *scoreMember) follow(try int, in func()) error {
	s, c := m.s, m.s.c
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: s.group, Brokers: c.brokersInTurn(s.ctx, try), Topics: []string{s.topic}, StartOffset: kafka.LastOffset,
		Dialer:            &kafka.Dialer{ClientID: c.cfg.ClientID, DialFunc: c.dial, Timeout: c.cfg.CallTimeout, TLS: c.transport.TLS, SASLMechanism: c.transport.SASL},
		GroupBalancers:    []kafka.GroupBalancer{scoreBalancer{join: m.leaving}},
		HeartbeatInterval: c.cfg.Heartbeat, SessionTimeout: c.cfg.Session, RebalanceTimeout: c.cfg.Session, JoinGroupBackoff: joinPause,
		WatchPartitionChanges: true, PartitionWatchInterval: metadataAge, Timeout: min(c.cfg.CallTimeout, c.cfg.Session/2),
	})
	if err != nil {
		return schemas.Errorf(schemas.Invalid, "kafka.Serve", "group %s: %w", s.group, err)
	}
	defer g.Close() // leaves the group; its error is nil
	for {
		gen, err := g.Next(s.ctx)
		switch {
		case err == nil:
			in()
			g, come := m.begin(gen)
			gen.Start(func(ctx context.Context) { m.hold(ctx, g, come) })
		case s.ctx.Err() != nil:
			m.finish()
			return err
		case !errors.Is(err, kafka.RebalanceInProgress): // with that one, the library asks again as who it is
			return err
		}
	}
}

// brokersInTurn returns where to ask for a coordinator, another one first in each try: the library begins with the first,
// however long that one is silent.
func (c *Client) brokersInTurn(ctx context.Context, try int) []string {
	out := slices.Clone(c.cfg.Bootstrap)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	if r, err := c.meta.look(ctx, nil); err == nil {
		for _, b := range r.Brokers {
			if a := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	n := try % len(out)
	return append(out[n:len(out):len(out)], out[:n]...)
}

// evict takes a member that was cut off out of the group, as soon as the group can be reached.
func (m *scoreMember) evict(ctx context.Context, member string) {
	for {
		err := m.s.c.leaveGroup(ctx, m.s.group, member)
		if err == nil || !passing(err) || sleep(ctx, joinPause) != nil {
			return
		}
	}
}

// leaveGroup takes a member out of a group (its name in the cluster). The library reads the answer's fields in the wrong
// order and so sees no error, hence these bytes of version 1.
func (c *Client) leaveGroup(ctx context.Context, group, member string) error {
	r, err := c.ask(ctx, anyBroker, &findcoordinator.Request{Key: group})
	if err == nil {
		err = codeError(r.(*findcoordinator.Response).ErrorCode)
	}
	if err != nil {
		return err
	}
	q := &call{key: protocol.LeaveGroup, broker: r.(*findcoordinator.Response).NodeID, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
		w := newRequest(protocol.LeaveGroup, 1, c.cfg.ClientID)
		w.string(group)
		w.string(member)
		if _, err := rw.Write(w.done()); err != nil {
			return nil, err
		}
		b, err := readAnswer(rw)
		if err != nil {
			return nil, err
		}
		a := answerReader{b: b}
		a.int32() // throttle
		code := a.int16()
		if a.bad {
			return nil, fmt.Errorf("leave group: %w", errCut)
		}
		return &leavegroup.Response{ErrorCode: code}, codeError(code)
	}}
	_, err = c.trip(ctx, c.cfg.CallTimeout, q)
	return err
}

// keep remembers a source until it is drained; false if the client is closed.
func (q *requests) keep(s *scoreSource) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.c.closing.Err() != nil {
		return false
	}
	q.mu.sources[s] = struct{}{}
	return true
}

func (q *requests) forget(s *scoreSource) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.mu.sources, s)
}

// close leaves all groups.
func (q *requests) close() {
	q.mu.Lock()
	sources := maps.Clone(q.mu.sources)
	q.mu.Unlock()
	if len(sources) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.c.closing), q.c.cfg.CallTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for s := range sources {
		wg.Go(func() {
			if err := s.Close(ctx); err != nil {
				q.c.log.Warn("a group was not left", "group", s.group, "error", err)
			}
		})
	}
	wg.Wait()
}

// here tells the requests of this client that a member of the group that answers has joined or left.
func (s *scoreSource) here(joined bool) {
	if s.group == s.c.name(scoreGroup(s.pipeline, primary)) {
		s.c.requests.keepBox(s.c.requests.box(s.pipeline)).presence.here(joined)
	}
}
