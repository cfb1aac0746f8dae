package kafka

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// Topics of request and reply, below the prefix.
const (
	topicScore   = "leat.score."  // and the pipeline: its requests
	topicReplies = "leat.replies" // answers; each asking process reads one partition. Callers may have leat.replies.<any> of their own
)

// headerCorrelation is what a caller may send beside Leat-Request-Id and finds in the answer as it was: it tells apart
// requests under one id. Callers of ours always send it.
const headerCorrelation = "Leat-Correlation-Id"

// requests is what a client knows of its requests and of those that it answers.
type requests struct {
	c     *Client
	token string // names this client in correlations
	mark  string // says of a Delivery.ReplyTo that a source of this client made it; never leaves the process

	opening chan struct{} // held by who opens the place
	place   atomic.Pointer[replyPlace]

	asides chan struct{} // of respondAside: held by who writes to topics of callers' own

	next atomic.Uint64
	mu   struct {
		sync.Mutex
		waiting map[uint64]*waiter
		boxes   map[string]*outbox // of pipelines that were served once
		sources map[*scoreSource]struct{}
	}
	counts [requestEvents]atomic.Uint64
}

// requestEvent is an end of a request or an answer that no caller sees.
type requestEvent int

const (
	eventLate requestEvent = iota
	eventExpired
	eventOverloaded
	eventRefused
	eventUnanswerable
	eventLost
	requestEvents
)

// String is the event's name as a metric has it.
func (e requestEvent) String() string {
	return [...]string{"late", "expired", "overloaded", "refused", "unanswerable", "lost"}[e]
}

// count notes n events.
func (q *requests) count(e requestEvent, n int) {
	q.counts[e].Add(uint64(n))
	q.c.cfg.Metrics.requested(e.String(), n)
}

// RequestCounts are the events of request and reply that no caller sees, since the start of the client.
type RequestCounts struct {
	Late         uint64 // answers to requests of this client that nobody waited for any more
	Expired      uint64 // requests whose deadline had passed when a source of this client received them
	Overloaded   uint64 // requests refused because the queue was full
	Refused      uint64 // requests refused because the source was closed
	Unanswerable uint64 // answers whose caller named no place that can be written to
	Lost         uint64 // answers that were not written, since too many waited to be or brokers did not take them
}

// RequestCounts returns the counts so far.
func (c *Client) RequestCounts() RequestCounts {
	n := func(e requestEvent) uint64 { return c.requests.counts[e].Load() }
	return RequestCounts{
		Late: n(eventLate), Expired: n(eventExpired), Overloaded: n(eventOverloaded), Refused: n(eventRefused),
		Unanswerable: n(eventUnanswerable), Lost: n(eventLost),
	}
}

func (q *requests) init(c *Client) {
	q.c, q.token, q.mark = c, randomHex(8), randomHex(16)
	q.opening, q.asides = make(chan struct{}, 1), make(chan struct{}, respondAside)
	q.mu.waiting, q.mu.boxes, q.mu.sources = map[uint64]*waiter{}, map[string]*outbox{}, map[*scoreSource]struct{}{}
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// waiter is a caller that waits for its answer.
type waiter struct {
	id       uint64
	box      *outbox
	rec      record
	deadline time.Time // zero: none
	gone     atomic.Bool
	result   chan result  // of one: whoever takes the waiter out of the map sends
	sent     atomic.Int64 // offset + 1 in its partition, once the brokers have it
}

type result struct {
	m   *schemas.Message
	err error
}

// Request asks the pipeline m.Topic. It returns NotFound at once if nobody serves it; if the last one that did leaves
// before it has taken the request, within a second or two. A Leat-Principal of m is not sent: nobody believes it. If
// neither Leat-Timeout nor Leat-Deadline is given, ctx's own deadline travels as Leat-Timeout.
func (c *Client) Request(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
	const op = "kafka.Request"
	if err := schemas.CheckName("pipeline", m.Topic); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, schemas.Errorf(schemas.Expired, op, "%s: %w", m.Topic, err)
	}
	q := &c.requests
	box := q.box(m.Topic)
	if err := box.presence.served(ctx); err != nil {
		return nil, err
	}
	box = q.keepBox(box)
	at, err := q.open(ctx)
	if err != nil {
		return nil, err
	}
	w := &waiter{id: q.next.Add(1), box: box, result: make(chan result, 1)}
	w.deadline, _ = ctx.Deadline()
	if w.rec, err = q.record(ctx, m, box.topic, at, w.id); err != nil {
		return nil, err
	}
	q.mu.Lock()
	q.mu.waiting[w.id] = w
	q.mu.Unlock()
	box.send(w)
	select {
	case r := <-w.result:
		if r.err != nil {
			return nil, r.err
		}
		r.m.Topic, r.m.Key = m.Topic, m.Key
		return r.m, nil
	case <-ctx.Done():
		err = schemas.Errorf(schemas.Expired, op, "pipeline %s did not answer in time: %w", m.Topic, ctx.Err())
	case <-c.closing.Done():
		err = errClosed(op)
	}
	w.gone.Store(true)
	q.take(w.id)
	return nil, err
}

// take gives a waiter to whoever has its result, once.
func (q *requests) take(id uint64) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.mu.waiting[id]
	delete(q.mu.waiting, id)
	return w
}

// fail ends the wait of w if it still waits.
func (q *requests) fail(w *waiter, err error) {
	if q.take(w.id) != nil {
		w.result <- result{err: err}
	}
}

// record is the request on the wire, its partition left open.
func (q *requests) record(ctx context.Context, m *schemas.Message, topic string, at *replyPlace, id uint64) (record, error) {
	const op = "kafka.Request"
	r := record{topic: topic, value: m.Payload}
	if m.Key != "" {
		r.key = []byte(m.Key)
	}
	n := 4
	for _, vs := range m.Header {
		n += len(vs)
	}
	r.headers = make([]kafka.Header, 0, n)
	for k, vs := range m.Header {
		switch k {
		case schemas.HeaderPrincipal, schemas.HeaderReplyTo, schemas.HeaderReplyPartition, headerCorrelation:
			continue
		}
		for _, v := range vs {
			r.headers = append(r.headers, kafka.Header{Key: k, Value: []byte(v)})
		}
	}
	add := func(k, v string) { r.headers = append(r.headers, kafka.Header{Key: k, Value: []byte(v)}) }
	if d, ok := ctx.Deadline(); ok && m.Header.Get(schemas.HeaderTimeout) == "" && m.Header.Get(schemas.HeaderDeadline) == "" {
		add(schemas.HeaderTimeout, max(time.Until(d), time.Microsecond).String())
	}
	add(schemas.HeaderReplyTo, at.topic)
	add(schemas.HeaderReplyPartition, strconv.Itoa(int(at.partition)))
	add(headerCorrelation, q.correlation(id))
	return r, q.c.checkSize(ctx, op, &r)
}
