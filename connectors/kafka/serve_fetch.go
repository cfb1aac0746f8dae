package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// receive fetches from all partitions of the member until the source is drained: with one long poll for each broker
// that leads some, since a poll for each partition would be eight at rest and eight answers under load.
func (m *scoreMember) receive() {
	ctx := m.s.ctx
	for ctx.Err() == nil {
		by, err := m.byLeader(ctx)
		if err != nil {
			if ctx.Err() == nil {
				m.missing(ctx, err)
			}
			continue
		}
		round, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for leader, hs := range by {
			wg.Go(func() {
				defer cancel() // whoever finds that leaders have changed ends the round
				m.poll(round, leader, hs)
			})
		}
		select {
		case <-m.changed:
		case <-round.Done():
		}
		cancel()
		wg.Wait()
	}
}

// byLeader returns what is held now, by the broker that leads it, -1 for none.
func (m *scoreMember) byLeader(ctx context.Context) (map[int32][]*holding, error) {
	t, err := m.s.c.meta.topic(ctx, "kafka.Serve", m.s.topic)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	by := map[int32][]*holding{}
	for _, p := range sortedKeys(m.mu.held) {
		h := m.mu.held[p]
		by[leaderOf(t, h)] = append(by[leaderOf(t, h)], h)
	}
	return by, nil
}

func leaderOf(t *topicMeta, h *holding) int32 {
	if int(h.f.partition) >= len(t.leaders) {
		return -1
	}
	return t.leaders[h.f.partition]
}

// missing waits after the topic of requests was found missing, and makes it again: it is ours.
func (m *scoreMember) missing(ctx context.Context, err error) {
	s := m.s
	s.c.log.Error("requests cannot be received", "pipeline", s.pipeline, "error", err)
	if schemas.KindOf(err) == schemas.NotFound {
		if err := s.c.ensureScore(ctx, s.pipeline); err != nil && ctx.Err() == nil {
			s.c.log.Error("the topic of requests cannot be made again", "pipeline", s.pipeline, "error", err)
		}
	}
	sleep(ctx, time.Second) // the end of the wait is what is waited for
}

// poll fetches from one broker until ctx ends or the partitions have other leaders.
func (m *scoreMember) poll(ctx context.Context, leader int32, hs []*holding) {
	for tries := 0; ctx.Err() == nil; {
		var err error = kafka.LeaderNotAvailable
		if leader >= 0 {
			err = m.fetch(ctx, leader, hs)
		}
		if err == nil {
			tries = 0
			continue
		}
		if tries++; tries > 1 || leader < 0 {
			sleep(ctx, min(retryPause<<min(tries, 4), time.Second/4))
		}
		if ctx.Err() != nil {
			return
		}
		m.s.c.log.Debug("fetch", "topic", m.s.topic, "broker", leader, "error", err)
		t, err := m.s.c.meta.refresh(ctx, "kafka.Serve", m.s.topic)
		if err != nil || slices.ContainsFunc(hs, func(h *holding) bool { return leaderOf(t, h) != leader }) {
			return
		}
	}
}

// fetch asks once for all partitions, and takes what comes. The first error of a partition is returned after the
// others' records were taken.
func (m *scoreMember) fetch(ctx context.Context, leader int32, hs []*holding) error {
	c := m.s.c
	from := make([]fetchFrom, len(hs))
	for i, h := range hs {
		from[i] = fetchFrom{h.f.partition, h.f.pos}
	}
	as, err := c.fetchMany(ctx, leader, longPoll, m.s.topic, from, c.cfg.FetchBytes)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // the next round has these fetchers
	}
	var first error
	for i := range as {
		a := &as[i]
		j := slices.IndexFunc(hs, func(h *holding) bool { return h.f.partition == a.partition })
		if j < 0 {
			continue
		}
		if err := m.take(ctx, hs[j], a); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// take receives what came from one partition, unless it was given up meanwhile: then it is for its next owner.
func (m *scoreMember) take(ctx context.Context, h *holding, a *fetchAnswer) error {
	if a.err != nil {
		if !errors.Is(a.err, kafka.OffsetOutOfRange) {
			return a.err
		}
		if err := h.f.reset(ctx); err != nil {
			return err
		}
		m.mu.Lock()
		h.at, h.fetched, h.committed = h.f.pos, h.f.pos, -1 // the topic was made again, or what was committed is too old
		m.mu.Unlock()
		return nil
	}
	rs, err := h.f.read(a)
	m.mu.Lock()
	moved := h.f.pos != h.fetched
	switch {
	case h.over:
		rs, moved = nil, false // for its next owner
	case m.mu.joining:
		h.fetched = h.f.pos
		h.pending = append(h.pending, rs...)
		rs = nil
	default:
		h.fetched, h.at = h.f.pos, h.f.pos
	}
	m.mu.Unlock()
	if moved {
		wakeUp(m.work)
	}
	if len(rs) > 0 {
		m.s.take(rs)
	}
	return err
}
