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

// receive fetches from all partitions of the share until ctx ends: with one long poll for each broker that leads some,
// since a poll for each partition would be eight at rest and eight answers under load.
func (h *share) receive(ctx context.Context, fs []*fetcher) {
	for ctx.Err() == nil && len(fs) > 0 {
		t, err := h.s.c.meta.topic(ctx, "kafka.Serve", h.s.topic)
		if err != nil {
			if ctx.Err() == nil {
				h.missing(ctx, err)
			}
			continue
		}
		by := map[int32][]*fetcher{}
		for _, f := range fs {
			l := leaderOf(t, f)
			by[l] = append(by[l], f)
		}
		round, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for leader, fs := range by {
			wg.Go(func() {
				defer cancel() // whoever finds that leaders have changed ends the round
				h.poll(round, leader, fs)
			})
		}
		wg.Wait()
		cancel()
	}
}

func leaderOf(t *topicMeta, f *fetcher) int32 {
	if int(f.partition) >= len(t.leaders) {
		return -1
	}
	return t.leaders[f.partition]
}

// missing waits after the topic of requests was found missing, and makes it again: it is ours.
func (h *share) missing(ctx context.Context, err error) {
	h.s.c.log.Error("requests cannot be received", "pipeline", h.s.pipeline, "error", err)
	if schemas.KindOf(err) == schemas.NotFound {
		if err := h.s.c.ensureScore(ctx, h.s.pipeline); err != nil && ctx.Err() == nil {
			h.s.c.log.Error("the topic of requests cannot be made again", "pipeline", h.s.pipeline, "error", err)
		}
	}
	sleep(ctx, time.Second) // the end of the wait is what is waited for
}

// poll fetches from one broker until ctx ends or the partitions have other leaders. leader is -1 for partitions that
// have none.
func (h *share) poll(ctx context.Context, leader int32, fs []*fetcher) {
	for tries := 0; ctx.Err() == nil; {
		var err error = kafka.LeaderNotAvailable
		if leader >= 0 {
			err = h.fetch(ctx, leader, fs)
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
		h.s.c.log.Debug("fetch", "topic", h.s.topic, "broker", leader, "error", err)
		t, err := h.s.c.meta.refresh(ctx, "kafka.Serve", h.s.topic)
		if err != nil || slices.ContainsFunc(fs, func(f *fetcher) bool { return leaderOf(t, f) != leader }) {
			return
		}
	}
}

// fetch asks once for all partitions, and takes what comes. The first error of a partition is returned after the
// others' records were taken.
func (h *share) fetch(ctx context.Context, leader int32, fs []*fetcher) error {
	c := h.s.c
	q := &call{key: protocol.Fetch, broker: leader, exchange: func(rw io.ReadWriter, version int16) (protocol.Message, error) {
		if version < 4 {
			return nil, fmt.Errorf("the broker is older than Kafka 0.11: %w", kafka.UnsupportedVersion)
		}
		if _, err := rw.Write(c.fetchManyRequest(version, longPoll, h.s.topic, fs)); err != nil {
			return nil, err
		}
		b, err := readAnswer(rw)
		if err != nil {
			return nil, err
		}
		return parseFetchMany(b, version)
	}}
	m, err := c.trip(ctx, longPoll+c.cfg.CallTimeout, q)
	if err != nil {
		return err
	}
	var first error
	for i := range m.(*fetchAnswers).parts {
		a := &m.(*fetchAnswers).parts[i]
		j := slices.IndexFunc(fs, func(f *fetcher) bool { return f.partition == a.partition })
		if j < 0 {
			continue
		}
		if err := h.takeFrom(ctx, fs[j], a); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (h *share) takeFrom(ctx context.Context, f *fetcher, a *fetchPart) error {
	if a.err != nil {
		if errors.Is(a.err, kafka.OffsetOutOfRange) {
			return f.reset(ctx)
		}
		return a.err
	}
	before := f.pos
	rs, err := f.read(&a.fetchAnswer)
	if f.pos != before {
		h.took(f.partition, f.pos)
	}
	if len(rs) > 0 {
		h.s.take(rs)
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
func (c *Client) fetchManyRequest(version int16, wait time.Duration, topic string, fs []*fetcher) []byte {
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
	w.int32(int32(len(fs)))
	for _, f := range fs {
		w.int32(f.partition)
		if version >= 9 {
			w.int32(-1) // leader epoch: not checked
		}
		w.int64(f.pos)
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
