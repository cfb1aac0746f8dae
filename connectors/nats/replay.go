package nats

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// replayBatch is how many messages a standing request of a replay asks for: 235,000 messages a second need some 5 ms
// of them on the way.
const replayBatch = 2048

// Spans implements connectors.Replayer.
func (c *Client) Spans(ctx context.Context, topic string, start connectors.Start) ([]connectors.Span, error) {
	const op = "nats.Spans"
	n, err := c.partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	stream := topicStream(topic)
	first := max(start.Sequence, 1)
	if start.Sequence == 0 && !start.Time.IsZero() {
		if first, err = c.sequenceAt(ctx, stream, "", start.Time); err != nil {
			return nil, noTopic(topic, err)
		}
	}
	out := make([]connectors.Span, n)
	for p := range out {
		out[p] = connectors.Span{Topic: topic, Partition: int32(p), First: first}
		call, cancel := c.call(ctx)
		m, err := c.directGet(call, stream, `{"last_by_subj":"`+partitionSubject(topic, p)+`"}`)
		cancel()
		switch {
		case err == nil:
			out[p].Last = m.Sequence
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, classify(op, "topic "+topic, err)
		}
	}
	return out, nil
}

// Open implements connectors.Replayer.
func (c *Client) Open(ctx context.Context, s connectors.Span) (connectors.Source, error) {
	const op = "nats.Open"
	n, err := c.partitions(ctx, s.Topic)
	if err != nil {
		return nil, err
	}
	if s.Partition < 0 || int(s.Partition) >= n {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "partition", "topic %s has partitions 0 to %d, not %d", s.Topic, n-1, s.Partition)
	}
	r := &replay{
		c: c, span: s, stream: topicStream(s.Topic), ch: make(chan *nats.Msg, 2*replayBatch+64),
		last: max(s.First, 1) - 1, drained: make(chan struct{}),
	}
	r.again, r.forget = c.onReconnect()
	if s.Last < s.First || s.Last == 0 {
		r.Drain()
		return r, nil
	}
	if err := r.open(ctx); err != nil {
		r.forget()
		return nil, classify(op, "topic "+s.Topic, err)
	}
	return r, nil
}

// replay reads one span with a consumer in the server's memory, made anew from the last message received whenever
// something is missing.
type replay struct {
	c       *Client
	span    connectors.Span
	stream  string
	ch      chan *nats.Msg
	again   <-chan struct{}
	forget  func()
	once    sync.Once
	close   sync.Once
	drained chan struct{}

	mu       sync.Mutex // Close may come beside Receive
	session  *session
	consumer string
	last     uint64 // sequence of the newest message handed over
}

// open makes the consumer and the session anew. The lock is held, or nobody knows r yet.
func (r *replay) open(ctx context.Context) error {
	if r.session != nil {
		r.session.close()
		r.session = nil
	}
	call, cancel := r.c.call(ctx)
	defer cancel()
	cons, err := r.c.jsd.CreateConsumer(call, r.stream, jetstream.ConsumerConfig{
		FilterSubject: partitionSubject(r.span.Topic, int(r.span.Partition)), AckPolicy: jetstream.AckNonePolicy,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.last + 1,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return err
	}
	info := cons.CachedInfo()
	if info.NumPending == 0 {
		r.Drain()
		return nil
	}
	r.consumer = info.Name
	r.session, err = r.c.openSession(r.stream, info.Name, r.ch, replayBatch)
	if err == nil {
		r.session.next = 1
	}
	return err
}

// Receive waits for the first message and takes what has come with it.
func (r *replay) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		select {
		case <-r.drained:
			return nil, schemas.ErrDrained
		default:
		}
		if again, err := r.mend(ctx); err != nil {
			return nil, err
		} else if again {
			continue
		}
		select {
		case m := <-r.ch:
			if ds := r.gather(m, max); len(ds) > 0 {
				return ds, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.drained:
		case <-r.again:
			r.mu.Lock()
			if r.session != nil {
				r.session.broken = true
			}
			r.mu.Unlock()
		case <-check.C:
		}
	}
}

// mend opens a new session if the last one is no good; again asks the caller to look once more.
func (r *replay) mend(ctx context.Context) (again bool, err error) {
	r.mu.Lock()
	if r.session != nil && !r.session.broken && !r.session.silent(time.Now()) || r.isDrained() {
		r.mu.Unlock()
		return r.isDrained(), nil
	}
	err = r.open(ctx)
	r.mu.Unlock()
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case r.c.closing.Err() != nil || !passing(err):
		return false, noTopic(r.span.Topic, classify("nats.replay", "topic "+r.span.Topic, err))
	}
	return true, sleep(ctx, retryPause)
}

func (r *replay) isDrained() bool {
	select {
	case <-r.drained:
		return true
	default:
		return false
	}
}

func (r *replay) gather(m *nats.Msg, max int) []*connectors.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(max, 1+len(r.ch))
	slab := make([]connectors.Delivery, n)
	ds := make([]*connectors.Delivery, 0, n)
	for r.session != nil {
		at, data := place{}, false
		if m.Sub == r.session.sub { // else of a session that is gone; the new one brings it again
			at, data = r.session.take(m)
		}
		if data && at.stream > r.last && at.stream <= r.span.Last {
			d := &slab[len(ds)]
			fill(d, m, at, r.span.Topic, r.stream, r.span.Partition, coreSettler{})
			ds = append(ds, d)
			r.last = at.stream
		}
		if data && (at.stream >= r.span.Last || at.pending == 0) {
			r.Drain()
			return ds
		}
		if r.session.broken || r.session.pull() != nil || len(ds) == n {
			return ds
		}
		select {
		case m = <-r.ch:
		default:
			return ds
		}
	}
	return ds
}

// fill makes a delivery of a stored message. Headers of the transport are ours alone.
func fill(d *connectors.Delivery, m *nats.Msg, at place, topic, stream string, partition int32, s connectors.Settler) {
	d.Topic, d.Payload, d.Time = topic, m.Data, time.Unix(0, at.time)
	d.From = schemas.Position{Stream: stream, Partition: partition, Sequence: at.stream}
	d.Attempt, d.Settler = int(at.attempt), s
	if m.Header != nil {
		d.Header = schemas.Header(m.Header)
		d.Key = d.Header.Get(schemas.HeaderKey)
		d.ID = d.Header.Get(jetstream.MsgIDHeader)
		delete(d.Header, jetstream.MsgIDHeader)
		d.ReplyTo = "" // JetStream keeps no reply subject; Leat-Reply-To is the caller's business
	}
}

// Drain ends the replay.
func (r *replay) Drain() { r.once.Do(func() { close(r.drained) }) }

// Close frees the consumer.
func (r *replay) Close(ctx context.Context) error {
	r.Drain()
	var err error
	r.close.Do(func() {
		r.forget()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.session == nil {
			return
		}
		r.session.close()
		r.session = nil
		call, cancel := r.c.call(ctx)
		defer cancel()
		if err = r.c.jsd.DeleteConsumer(call, r.stream, r.consumer); apiCode(err) == codeConsumerNotFound || passing(err) {
			err = nil // it vanishes by itself after a minute
		}
	})
	return classify("nats.replay.Close", "span "+strconv.Itoa(int(r.span.Partition)), err)
}
