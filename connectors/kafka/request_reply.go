package kafka

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// repliesPartitions is how many partitions the topic of answers is made with. A process reads one of them and passes
// over what is for others, so more processes than this may ask.
const repliesPartitions = 32

// longPoll is how long a fetch waits for the first record. It ends with it, so that this costs no latency.
const longPoll = 500 * time.Millisecond

// replyPlace is where answers to this client are written.
type replyPlace struct {
	topic     string // in the cluster
	partition int32
}

// open returns the client's place, and the first time chooses one. Its reader then stands at the end: what is asked
// from now on is answered behind it.
func (q *requests) open(ctx context.Context) (*replyPlace, error) {
	const op = "kafka.Request"
	if p := q.place.Load(); p != nil {
		return p, nil
	}
	select {
	case q.opening <- struct{}{}:
		defer func() { <-q.opening }()
	case <-ctx.Done():
		return nil, q.c.late(ctx, op, "topic "+topicReplies, nil)
	}
	if p := q.place.Load(); p != nil {
		return p, nil
	}
	if err := q.c.ensureReplies(ctx); err != nil {
		return nil, err
	}
	n, err := q.c.partitions(ctx, op, topicReplies)
	if err != nil {
		return nil, err
	}
	p := &replyPlace{topic: q.c.name(topicReplies), partition: rand.Int32N(int32(n))}
	end, err := q.c.listOffset(ctx, op, p.topic, p.partition, fromEnd)
	if err != nil {
		return nil, err
	}
	f := q.c.newFetcher(topicReplies, p.partition, end)
	if !q.c.spawn(func() { q.read(f) }) {
		return nil, errClosed(op)
	}
	q.place.Store(p)
	return p, nil
}

// read hands answers to those who wait for them until the client is closed.
func (q *requests) read(f *fetcher) {
	c := q.c
	for {
		rs, err := f.next(c.closing, longPoll)
		switch {
		case c.closing.Err() != nil:
			return
		case err == nil:
			q.deliver(rs)
			continue
		}
		c.log.Error("answers cannot be read", "topic", f.topic, "partition", f.partition, "error", err)
		if schemas.KindOf(err) == schemas.NotFound { // deleted: whoever asks next makes it again
			q.place.Store(nil)
			return
		}
		if sleep(c.closing, time.Second) != nil {
			return
		}
	}
}

// deliver ends the wait of those whose answers are among rs.
func (q *requests) deliver(rs []fetched) {
	for i := range rs {
		id, ok := q.ours(rs[i].headers)
		if !ok {
			continue // another process's
		}
		w := q.take(id)
		if w == nil {
			q.count(eventLate, 1)
			continue
		}
		m := &schemas.Message{Payload: rs[i].value}
		m.Header, m.ID = header(rs[i].headers)
		delete(m.Header, headerCorrelation)
		w.result <- result{m: m}
	}
}

// correlation names a request of this client.
func (q *requests) correlation(id uint64) string { return q.token + strconv.FormatUint(id, 36) }

// ours returns the number in an answer's correlation; ok is false if it answers somebody else's request.
func (q *requests) ours(hs []kafka.Header) (id uint64, ok bool) {
	for i := range hs {
		if hs[i].Key == headerCorrelation {
			rest, ok := strings.CutPrefix(string(hs[i].Value), q.token)
			if !ok {
				return 0, false
			}
			id, err := strconv.ParseUint(rest, 36, 64)
			return id, err == nil
		}
	}
	return 0, false
}
