package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

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
	q := &call{key: protocol.Fetch, broker: leader, exchange: func(rw io.ReadWriter, version int16) (protocol.Message, error) {
		if version < 4 {
			return nil, fmt.Errorf("the broker is older than Kafka 0.11: %w", kafka.UnsupportedVersion)
		}
		if _, err := rw.Write(c.fetchManyRequest(version, longPoll, m.s.topic, hs)); err != nil {
			return nil, err
		}
		b, err := readAnswer(rw)
		if err != nil {
			return nil, err
		}
		return parseFetchMany(b, version)
	}}
	r, err := c.trip(ctx, longPoll+c.cfg.CallTimeout, q)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // the next round has these fetchers
	}
	var first error
	for i := range r.(*fetchAnswers).parts {
		a := &r.(*fetchAnswers).parts[i]
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
func (m *scoreMember) take(ctx context.Context, h *holding, a *fetchPart) error {
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
	rs, err := h.f.read(&a.fetchAnswer)
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

// fetchAnswers is what a broker says about several partitions of one topic.
type fetchAnswers struct{ parts []fetchPart }

type fetchPart struct {
	fetchAnswer
	partition int32
	err       error
}

// ApiKey implements protocol.Message.
func (*fetchAnswers) ApiKey() protocol.ApiKey { return protocol.Fetch }

// fetchManyRequest is fetchRequest for several partitions of a topic.
func (c *Client) fetchManyRequest(version int16, wait time.Duration, topic string, hs []*holding) []byte {
	w := newRequest(protocol.Fetch, version, c.cfg.ClientID)
	w.int32(-1) // no replica
	w.int32(int32(wait.Milliseconds()))
	w.int32(1) // bytes that end the wait
	w.int32(int32(c.cfg.FetchBytes))
	w.int8(int8(kafka.ReadCommitted))
	if version >= 7 { // no fetch session
		w.int32(0)
		w.int32(-1)
	}
	w.int32(1)
	w.string(topic)
	w.int32(int32(len(hs)))
	for _, h := range hs {
		w.int32(h.f.partition)
		if version >= 9 {
			w.int32(-1) // leader epoch: not checked
		}
		w.int64(h.f.pos)
		if version >= 5 {
			w.int64(-1)
		}
		w.int32(int32(c.cfg.FetchBytes))
	}
	if version >= 7 {
		w.int32(0)
	}
	if version >= 11 {
		w.string("")
	}
	return w.done()
}

func parseFetchMany(b []byte, version int16) (*fetchAnswers, error) {
	r := answerReader{b: b}
	r.int32() // throttle
	if version >= 7 {
		if err := codeError(r.int16()); err != nil {
			return nil, err
		}
		r.int32()
	}
	out := &fetchAnswers{}
	for range r.count(6) {
		r.string() // the one topic
		for range r.count(30) {
			p := fetchPart{partition: r.int32(), err: codeError(r.int16())}
			r.int64() // high watermark
			p.stable, p.logStart = r.int64(), -1
			if version >= 5 {
				p.logStart = r.int64()
			}
			for n := r.count(16); n > 0; n-- {
				p.aborted = append(p.aborted, abortedTxn{producer: r.int64(), first: r.int64()})
			}
			if version >= 11 {
				r.int32() // preferred replica: none without a rack
			}
			p.records = r.bytes()
			out.parts = append(out.parts, p)
		}
	}
	if r.bad {
		return nil, fmt.Errorf("fetch: %w", errCut)
	}
	return out, nil
}
