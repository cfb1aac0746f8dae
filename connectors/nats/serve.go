package nats

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Replies name the connection that they go out on, since the two accounts share no subject. A caller of APP cannot
// choose it: the mark is put in front of whatever reply subject it gave.
const (
	replyFront = "f/"
	replyCore  = "c/"
)

// shedEvery is how often queues are looked at while their source is not asked: the time within which a request beyond
// the bound is answered Overloaded.
const shedEvery = 5 * time.Millisecond

// shedMargin is room beyond the bound for what arrives between two looks; 200,000 requests a second need 1,000.
const shedMargin = 4096

// Serve joins the group that answers a pipeline: leat.score.<pipeline>, in the account of users and in the internal
// one. Requests wait in a queue of at most Config.Queue; what comes beyond it is answered Overloaded within 5 ms.
// Answers go through Respond.
func (c *Client) Serve(ctx context.Context, pipeline, group string) (connectors.Source, error) {
	const op = "nats.Serve"
	if err := schemas.CheckName("pipeline", pipeline); err != nil {
		return nil, err
	}
	if err := schemas.CheckName("group", group); err != nil {
		return nil, err
	}
	return c.serve(ctx, op, &scoreSource{what: "pipeline " + pipeline, prefix: subjectScore}, pipeline, group)
}

// ServeFeedback joins the group that takes feedback on all pipelines, leat.feedback.<pipeline>, in the account of users and
// in the internal one. A delivery's topic is the pipeline, which nobody has checked. Bounds and answers are as in Serve.
func (c *Client) ServeFeedback(ctx context.Context, group string) (connectors.Source, error) {
	if err := schemas.CheckName("group", group); err != nil {
		return nil, err
	}
	return c.serve(ctx, "nats.ServeFeedback", &scoreSource{what: "feedback", prefix: subjectFeedback}, "*", group)
}

// serve subscribes s below its prefix.
func (c *Client) serve(ctx context.Context, op string, s *scoreSource, subject, group string) (connectors.Source, error) {
	s.c, s.ch, s.drained = c, make(chan *nats.Msg, c.cfg.Queue+shedMargin), make(chan struct{})
	conns := []*nats.Conn{c.front, c.core}
	if c.oneAccount() {
		conns = conns[:1] // a second subscription would be another member of the same group
	}
	for _, nc := range conns {
		sub, err := nc.ChanQueueSubscribe(s.prefix+subject, group, s.ch)
		if err != nil {
			s.Close(ctx) // frees the first one; its error would hide this
			return nil, classify(op, s.what, err)
		}
		s.open.Add(1)
		sub.SetClosedHandler(func(string) { s.open.Done() })
		s.subs = append(s.subs, sub)
		if nc == c.core {
			s.internal = sub
		}
	}
	// The subscriptions stand when the server has answered: whoever asks after Serve returned finds somebody.
	for _, nc := range conns {
		call, cancel := c.call(ctx)
		err := nc.FlushWithContext(call)
		cancel()
		if err != nil {
			s.Close(ctx)
			return nil, classify(op, s.what, err)
		}
	}
	c.mu.Lock()
	c.mu.scores[s] = struct{}{}
	c.mu.Unlock()
	return s, nil
}

func (c *Client) oneAccount() bool { return c.cfg.Server == nil && c.cfg.FrontURL == "" }

// scoreSource is the queue of a pipeline's requests, or of feedback. The connections' read loops write into ch themselves: one
// goroutine less to wake on the way in.
type scoreSource struct {
	c        *Client
	what     string // for people: "pipeline fraud"
	prefix   string // of its subjects; the rest is the pipeline
	ch       chan *nats.Msg
	subs     []*nats.Subscription
	internal *nats.Subscription
	open     sync.WaitGroup // subscriptions that may still write to ch
	drain    sync.Once
	close    sync.Once
	drained  chan struct{}
}

// Receive waits for the first request and takes what is queued with it.
func (s *scoreSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	var m *nats.Msg
	select {
	case m = <-s.ch:
	default:
		select {
		case m = <-s.ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.drained:
			select {
			case m = <-s.ch:
			default:
				return nil, schemas.ErrDrained
			}
		}
	}
	runtime.Gosched() // lets the read loops hand over the rest of their burst: runs of 8 rows instead of 2 at 64 in flight
	n := min(max, 1+len(s.ch))
	slab := make([]connectors.Delivery, n)
	ds := make([]*connectors.Delivery, 0, n)
	for {
		d := &slab[len(ds)]
		s.deliver(d, m)
		ds = append(ds, d)
		if len(ds) == n {
			return ds, nil
		}
		select {
		case m = <-s.ch:
		default:
			return ds, nil // the guard was faster
		}
	}
}

func (s *scoreSource) deliver(d *connectors.Delivery, m *nats.Msg) {
	d.Topic, d.Attempt, d.Settler, d.Payload = m.Subject[len(s.prefix):], 1, coreSettler{}, m.Data
	if len(m.Header) > 0 {
		d.Header = schemas.Header(m.Header)
		d.Key = d.Header.Get(schemas.HeaderKey)
	}
	mark := replyFront
	if m.Sub == s.internal {
		mark = replyCore
	} else if d.Header != nil {
		delete(d.Header, schemas.HeaderPrincipal) // never believed from outside
	}
	if m.Reply != "" {
		d.ReplyTo = mark + m.Reply
	}
}

// shed answers what waits beyond the bound.
func (s *scoreSource) shed() {
	for over := len(s.ch) - s.c.cfg.Queue; over > 0; over-- {
		select {
		case m := <-s.ch:
			s.refuse(m, schemas.Errorf(schemas.Overloaded, "nats.Serve", "%s: %d requests wait already, try again", s.what, s.c.cfg.Queue))
		default:
			return
		}
	}
}

func (s *scoreSource) refuse(m *nats.Msg, e *schemas.Error) {
	var d connectors.Delivery
	s.deliver(&d, m)
	if d.ReplyTo == "" {
		return // nobody waits
	}
	h, body := schemas.ErrorAnswer(e, d.Header.Get(schemas.HeaderRequestID))
	if err := s.c.respondOne(&connectors.Response{To: d.ReplyTo, Header: h, Payload: body}); err != nil {
		s.c.log.Warn("cannot refuse a request", "of", s.what, "error", err)
	}
}

// Drain leaves the group; what the server had sent is still received.
func (s *scoreSource) Drain() {
	s.drain.Do(func() {
		for _, sub := range s.subs {
			nc := s.c.front
			if sub == s.internal {
				nc = s.c.core
			}
			if !nc.IsConnected() || sub.Drain() != nil {
				sub.Unsubscribe() // nothing more will come
			}
		}
		go func() { // ends when the last subscription is closed, at the latest with the connection
			s.open.Wait()
			close(s.drained)
		}()
	})
}

// Close leaves the group and answers what is still queued as Unavailable: its callers may ask again, and reach
// another member.
func (s *scoreSource) Close(ctx context.Context) error {
	s.Drain()
	var err error
	select {
	case <-s.drained:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.close.Do(func() {
		s.c.mu.Lock()
		delete(s.c.mu.scores, s)
		s.c.mu.Unlock()
		for {
			select {
			case m := <-s.ch:
				s.refuse(m, schemas.Errorf(schemas.Unavailable, "nats.Serve", "%s: shutting down here, try again", s.what))
			default:
				return
			}
		}
	})
	return err
}

// shedLoop keeps all queues within their bounds.
func (c *Client) shedLoop() {
	defer c.wg.Done()
	t := time.NewTicker(shedEvery)
	defer t.Stop()
	var over []*scoreSource
	for {
		select {
		case <-c.closing.Done():
			return
		case <-t.C:
		}
		c.mu.Lock()
		for s := range c.mu.scores {
			if len(s.ch) > c.cfg.Queue {
				over = append(over, s)
			}
		}
		c.mu.Unlock()
		for _, s := range over {
			s.shed()
		}
		over = over[:0]
	}
}

// coreSettler settles requests: there is nothing to settle.
type coreSettler struct{}

func (coreSettler) Accept(context.Context, []*connectors.Delivery) error { return nil }
func (coreSettler) Retry(context.Context, *connectors.Delivery, time.Duration) error {
	return schemas.ErrUnsupported
}
func (coreSettler) Reject(context.Context, *connectors.Delivery, error) error { return nil }
