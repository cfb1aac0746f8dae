package memory

import (
	"context"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// waiter is a caller that waits for its answer.
type waiter struct{ answer chan *schemas.Message }

// Request implements connectors.Requester.
func (b *Broker) Request(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
	const op = "memory.Request"
	if err := schemas.CheckName("pipeline", m.Topic); err != nil {
		return nil, err
	}
	if err := b.fits(op, m); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, schemas.Errorf(schemas.Expired, op, "%s: %w", m.Topic, err)
	}
	w := &waiter{answer: make(chan *schemas.Message, 1)}
	d := &connectors.Delivery{Message: *m, Attempt: 1, Settler: settler{}}
	d.Header = m.Header.Clone() // the receiver may set its own; the caller keeps m
	if k := d.Header.Get(schemas.HeaderKey); d.Key == "" {
		d.Key = k
	}
	b.waiting.Lock()
	b.waiting.next++
	id := strconv.FormatUint(b.waiting.next, 36)
	b.waiting.by[id] = w
	b.waiting.Unlock()
	d.ReplyTo = id
	if err := b.offer(d); err != nil {
		b.forget(id)
		if err.Kind == schemas.NotFound {
			return nil, err
		}
		h, body := schemas.ErrorAnswer(err, m.Header.Get(schemas.HeaderRequestID))
		return &schemas.Message{Topic: m.Topic, Key: m.Key, Header: h, Payload: body}, nil
	}
	select {
	case r := <-w.answer:
		r.Topic, r.Key = m.Topic, m.Key
		return r, nil
	case <-ctx.Done():
		b.forget(id)
		return nil, schemas.Errorf(schemas.Expired, op, "pipeline %s did not answer in time: %w", m.Topic, ctx.Err())
	}
}

func (b *Broker) forget(id string) {
	b.waiting.Lock()
	delete(b.waiting.by, id)
	b.waiting.Unlock()
}

// offer puts the request into the queue of one member, in turn; the next one is tried if that is full.
func (b *Broker) offer(d *connectors.Delivery) *schemas.Error {
	const op = "memory.Request"
	b.requests.Lock()
	defer b.requests.Unlock()
	members := b.requests.served[d.Topic]
	if len(members) == 0 {
		return schemas.Errorf(schemas.NotFound, op, "nobody serves pipeline %s", d.Topic)
	}
	t := b.requests.turn[d.Topic]
	b.requests.turn[d.Topic] = (t + 1) % len(members)
	for i := range members {
		select {
		case members[(t+i)%len(members)].queue <- d:
			return nil
		default:
		}
	}
	return schemas.Errorf(schemas.Overloaded, op, "pipeline %s: %d requests wait already, try again", d.Topic, b.cfg.Queue)
}

// Respond implements connectors.Responder. Payloads are copied.
func (b *Broker) Respond(ctx context.Context, rs []connectors.Response) error {
	for i := range rs {
		b.waiting.Lock()
		w := b.waiting.by[rs[i].To]
		delete(b.waiting.by, rs[i].To)
		b.waiting.Unlock()
		if w != nil {
			w.answer <- &schemas.Message{Header: rs[i].Header, Payload: append([]byte(nil), rs[i].Payload...)}
		}
	}
	return ctx.Err()
}

// Serves reports whether this process answers the pipeline: then a gateway need not ask the network.
func (b *Broker) Serves(pipeline string) bool {
	b.requests.RLock()
	defer b.requests.RUnlock()
	return len(b.requests.served[pipeline]) > 0
}

// Serve joins those that answer a pipeline. All members are one group: each request goes to one of them.
func (b *Broker) Serve(_ context.Context, pipeline, group string) (connectors.Source, error) {
	if err := schemas.CheckName("pipeline", pipeline); err != nil {
		return nil, err
	}
	if err := schemas.CheckName("group", group); err != nil {
		return nil, err
	}
	s := &scoreSource{b: b, pipeline: pipeline, queue: make(chan *connectors.Delivery, b.cfg.Queue), drained: make(chan struct{})}
	b.requests.Lock()
	b.requests.served[pipeline] = append(b.requests.served[pipeline], s)
	b.requests.Unlock()
	return s, nil
}

type scoreSource struct {
	b        *Broker
	pipeline string
	queue    chan *connectors.Delivery
	once     sync.Once
	drained  chan struct{}
}

// Receive implements connectors.Source.
func (s *scoreSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	var d *connectors.Delivery
	select {
	case d = <-s.queue:
	default:
		select {
		case d = <-s.queue:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.drained:
			select {
			case d = <-s.queue:
			default:
				return nil, schemas.ErrDrained
			}
		}
	}
	runtime.Gosched() // lets callers that are about to ask join: at low load nobody else is runnable
	ds := append(make([]*connectors.Delivery, 0, min(max, 1+len(s.queue))), d)
	for len(ds) < max {
		select {
		case d := <-s.queue:
			ds = append(ds, d)
		default:
			return ds, nil
		}
	}
	return ds, nil
}

// Drain leaves the group. Offers hold the same lock, so nothing comes after it.
func (s *scoreSource) Drain() {
	s.once.Do(func() {
		s.b.requests.Lock()
		defer s.b.requests.Unlock()
		members := s.b.requests.served[s.pipeline]
		left := make([]*scoreSource, 0, len(members))
		for _, m := range members {
			if m != s {
				left = append(left, m)
			}
		}
		s.b.requests.served[s.pipeline], s.b.requests.turn[s.pipeline] = left, 0
		if len(left) == 0 {
			delete(s.b.requests.served, s.pipeline)
			delete(s.b.requests.turn, s.pipeline)
		}
		close(s.drained)
	})
}

// Close gives what is queued to the other members, or answers it Unavailable.
func (s *scoreSource) Close(ctx context.Context) error {
	s.Drain()
	for {
		select {
		case d := <-s.queue:
			if s.b.offer(d) == nil {
				continue
			}
			h, body := schemas.ErrorAnswer(schemas.Errorf(schemas.Unavailable, "memory.Close", "pipeline %s is shutting down, try again", s.pipeline), d.Header.Get(schemas.HeaderRequestID))
			if err := s.b.Respond(ctx, []connectors.Response{{To: d.ReplyTo, Header: h, Payload: body}}); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// settler settles requests and replayed messages: there is nothing to settle.
type settler struct{}

func (settler) Accept(context.Context, []*connectors.Delivery) error { return nil }
func (settler) Retry(context.Context, *connectors.Delivery, time.Duration) error {
	return schemas.ErrUnsupported
}
func (settler) Reject(context.Context, *connectors.Delivery, error) error { return nil }
