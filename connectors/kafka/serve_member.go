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

// join becomes a member of the group and waits for its first share.
func (s *scoreSource) join(ctx context.Context, op string) error {
	c := s.c
	failed := make(chan error, 1)
	if !c.requests.keep(s) || !c.spawn(func() { s.run(op, failed) }) {
		close(s.drained)
		return errClosed(op)
	}
	c.spawn(s.refuse) // if not, the client is being closed
	select {
	case <-s.joined:
		return nil
	case err := <-failed:
		return err
	case <-ctx.Done():
		return c.late(ctx, op, "group "+s.group, nil)
	case <-c.closing.Done():
		return errClosed(op)
	}
}

// joinPause is the time between two tries to join a group.
const joinPause = 50 * time.Millisecond

// run keeps the member in the group until the source is drained. The library forgets who it was whenever joining fails,
// for which a restart of the coordinator is enough: then a new member joins, and the old one is taken out, for which
// the group would otherwise wait.
func (s *scoreSource) run(op string, failed chan<- error) {
	defer close(s.drained)
	defer s.presence().left()
	in := func() {}
	for try := 0; s.ctx.Err() == nil; try++ {
		member, err := s.follow(try, in)
		if s.ctx.Err() != nil {
			return
		}
		if passing(err) || errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration) {
			s.c.log.Debug("joining a group", "group", s.group, "error", plainly(err))
		} else {
			s.c.log.Warn("joining a group", "group", s.group, "error", plainly(err))
			select {
			case failed <- classify(op, "group "+s.group, err):
			default: // nobody waits for the first share any more
			}
		}
		if member != "" {
			ctx, cancel := context.WithCancel(s.ctx)
			s.c.spawn(func() { s.evict(ctx, member) })
			in = cancel
		}
		sleep(s.ctx, joinPause) // the end of the wait is what is waited for
	}
}

// follow is a member from its first generation to its last, and who it was. in is called when it is in the group.
func (s *scoreSource) follow(try int, in func()) (member string, _ error) {
	c := s.c
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: s.group, Brokers: s.brokers(try), Topics: []string{s.topic}, StartOffset: kafka.LastOffset,
		Dialer:            &kafka.Dialer{ClientID: c.cfg.ClientID, DialFunc: c.dial, Timeout: c.cfg.CallTimeout, TLS: c.transport.TLS, SASLMechanism: c.transport.SASL},
		GroupBalancers:    []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		HeartbeatInterval: c.cfg.Heartbeat, SessionTimeout: c.cfg.Session, RebalanceTimeout: c.cfg.Session, JoinGroupBackoff: joinPause,
		WatchPartitionChanges: true, PartitionWatchInterval: metadataAge, Timeout: min(c.cfg.CallTimeout, c.cfg.Session/2),
	})
	if err != nil {
		return "", schemas.Errorf(schemas.Invalid, "kafka.Serve", "group %s: %w", s.group, err)
	}
	defer g.Close() // leaves the group; its error is nil
	for {
		gen, err := g.Next(s.ctx)
		switch {
		case err == nil:
			in()
			member = gen.MemberID
			h := &share{s: s, gen: gen, wake: make(chan struct{}, 1), at: map[int]int64{}}
			gen.Start(h.run)
		case !errors.Is(err, kafka.RebalanceInProgress): // with that one, the library asks again as who it is
			return member, err
		}
	}
}

// brokers returns where to ask for the coordinator, another one first in each try: the library begins with the first,
// however long that one is silent.
func (s *scoreSource) brokers(try int) []string {
	out := slices.Clone(s.c.cfg.Bootstrap)
	ctx, cancel := context.WithTimeout(s.ctx, s.c.cfg.CallTimeout)
	defer cancel()
	if r, err := s.c.meta.look(ctx, nil); err == nil {
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
func (s *scoreSource) evict(ctx context.Context, member string) {
	for {
		err := s.c.leaveGroup(ctx, s.group, member)
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

func (s *scoreSource) presence() *presence { return &s.c.requests.box(s.pipeline).presence }

// share is what a member holds for one generation of its group.
type share struct {
	s    *scoreSource
	gen  *kafka.Generation
	wake chan struct{} // tells the committer

	mu sync.Mutex
	at map[int]int64 // position by partition; taken by the committer when it commits
}

// run receives until the generation ends, or ends it when something is in the way.
func (h *share) run(generation context.Context) {
	s := h.s
	ctx, cancel := context.WithCancel(s.c.closing)
	defer cancel()
	defer context.AfterFunc(generation, cancel)()
	fs, err := h.start(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.c.log.Warn("taking a share of a group", "group", s.group, "error", err)
			sleep(ctx, joinPause) // the end of the wait is what is waited for
		}
		return
	}
	s.presence().joined()
	s.joinedOnce.Do(func() { close(s.joined) })
	var wg sync.WaitGroup
	wg.Go(func() { h.receive(ctx, fs) })
	h.commitLoop(ctx)
	wg.Wait()
	h.commit() // what came last: whoever gets the partition next begins after it
}

// start finds where to begin. A partition that the group has never committed begins at its end, and that is committed
// before anything is received: whoever gets it next must not take a later end.
func (h *share) start(ctx context.Context) ([]*fetcher, error) {
	const op = "kafka.Serve"
	s := h.s
	parts := h.gen.Assignments[s.topic]
	var ends []int64
	fresh := map[int]int64{}
	fs := make([]*fetcher, len(parts))
	for i, p := range parts {
		if p.Offset < 0 {
			if ends == nil {
				var err error
				if ends, err = s.c.listOffsets(ctx, op, s.topic, fromEnd); err != nil {
					return nil, err
				}
			}
			if p.ID >= len(ends) {
				return nil, noPartition(op, s.topic, int32(p.ID), len(ends))
			}
			p.Offset = ends[p.ID]
			fresh[p.ID] = p.Offset
		}
		fs[i] = s.c.newFetcher(topicScore+s.pipeline, int32(p.ID), p.Offset)
	}
	if len(fresh) == 0 {
		return fs, nil
	}
	return fs, h.gen.CommitOffsets(map[string]map[int]int64{s.topic: fresh})
}

// took notes that what lies before the position was received.
func (h *share) took(partition int32, position int64) {
	h.mu.Lock()
	h.at[int(partition)] = position
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// commitLoop commits what was received, again and again: what comes while one commit is on its way goes into the next.
func (h *share) commitLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
			h.commit()
		}
	}
}

func (h *share) commit() {
	h.mu.Lock()
	at := h.at
	h.at = make(map[int]int64, len(at))
	h.mu.Unlock()
	if len(at) == 0 {
		return
	}
	err := h.gen.CommitOffsets(map[string]map[int]int64{h.s.topic: at})
	if err == nil {
		return
	}
	h.s.c.log.Debug("commit", "group", h.s.group, "error", err)
	h.mu.Lock()
	defer h.mu.Unlock()
	for p, o := range at { // goes with the next one
		if h.at[p] < o {
			h.at[p] = o
		}
	}
}
