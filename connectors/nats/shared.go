package nats

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// sharedAckWait is how long the server waits for a sign of life of a message before another subscriber gets it.
const sharedAckWait = 30 * time.Second

// sharedSource reads a consumer that all members of a group pull from, in no promised order: work queues and streams
// that are not ours. Each message is acknowledged by itself; what is in hand is kept alive until it is settled.
type sharedSource struct {
	c                *Client
	stream, consumer string
	topic            string // of deliveries
	batch            int
	ch               chan *nats.Msg
	again            <-chan struct{}
	forget           func()
	drainOnce        sync.Once
	closeOnce        sync.Once
	drained          chan struct{}
	done             chan struct{} // closed with the source
	wg               sync.WaitGroup

	mu struct {
		sync.Mutex
		session *session
		hand    map[uint64]*inHand // by stream sequence
	}
}

type inHand struct {
	reply   string
	attempt int
}

func (c *Client) openShared(ctx context.Context, op, stream, topic string, batch int, cfg jetstream.ConsumerConfig) (*sharedSource, error) {
	cfg.AckPolicy, cfg.AckWait, cfg.MaxDeliver = jetstream.AckExplicitPolicy, sharedAckWait, -1
	call, cancel := c.call(ctx)
	defer cancel()
	if _, err := c.js.CreateOrUpdateConsumer(call, stream, cfg); err != nil {
		return nil, classify(op, "group "+cfg.Durable+" of "+stream, err)
	}
	s := &sharedSource{
		c: c, stream: stream, consumer: cfg.Durable, topic: topic, batch: batch, ch: make(chan *nats.Msg, 2*batch+64),
		drained: make(chan struct{}), done: make(chan struct{}),
	}
	s.mu.hand = map[uint64]*inHand{}
	s.again, s.forget = c.onReconnect()
	s.wg.Add(1)
	go s.keepAlive()
	return s, nil
}

// Receive implements connectors.Source.
func (s *sharedSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		select {
		case <-s.drained:
			return s.rest(max)
		default:
		}
		if err := s.mend(ctx); err != nil {
			return nil, err
		}
		select {
		case m := <-s.ch:
			if ds := s.gather(m, max); len(ds) > 0 {
				return ds, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.drained:
		case <-s.again:
			s.mu.Lock()
			if s.mu.session != nil {
				s.mu.session.broken = true
			}
			s.mu.Unlock()
		case <-s.c.closing.Done():
			return nil, schemas.Errorf(schemas.Unavailable, "nats.Receive", "%s: the client was closed", s.topic)
		case <-check.C:
		}
	}
}

func (s *sharedSource) rest(max int) ([]*connectors.Delivery, error) {
	for {
		select {
		case m := <-s.ch:
			if ds := s.gather(m, max); len(ds) > 0 {
				return ds, nil
			}
		default:
			return nil, schemas.ErrDrained
		}
	}
}

// mend opens a new session until one stands, if the last one is no good.
func (s *sharedSource) mend(ctx context.Context) error {
	for {
		s.mu.Lock()
		old := s.mu.session
		if old != nil && !old.broken && !old.silent(time.Now()) || s.draining() {
			s.mu.Unlock()
			return nil
		}
		if old != nil {
			old.close()
		}
		var err error
		s.mu.session, err = s.c.openSession(s.stream, s.consumer, s.ch, s.batch)
		s.mu.Unlock()
		switch {
		case err == nil:
			return nil
		case s.c.closing.Err() != nil || !passing(err):
			return classify("nats.Receive", s.topic, err)
		}
		if err := sleep(ctx, retryPause); err != nil {
			return err
		}
	}
}

func (s *sharedSource) gather(m *nats.Msg, max int) []*connectors.Delivery {
	n := min(max, 1+len(s.ch))
	slab := make([]connectors.Delivery, n)
	ds := make([]*connectors.Delivery, 0, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		at, data := place{}, false
		if ses := s.mu.session; ses != nil && m.Sub == ses.sub {
			ses.next = 0 // redeliveries come in between: no order to check
			at, data = ses.take(m)
		} else if m.Reply != "" { // of an earlier session: still ours
			at, data = parsePlace(m.Reply)
		}
		if data && s.hold(at, m.Reply) {
			d := &slab[len(ds)]
			fill(d, m, at, s.topic, s.stream, 0, s)
			ds = append(ds, d)
		}
		if ses := s.mu.session; len(ds) == n || ses == nil || !s.draining() && ses.pull() != nil {
			return ds
		}
		select {
		case m = <-s.ch:
		default:
			return ds
		}
	}
}

func (s *sharedSource) draining() bool {
	select {
	case <-s.drained:
		return true
	default:
		return false
	}
}

// hold takes a message into the hand; false if it is there already (the server lost our signs of life). The lock is
// held.
func (s *sharedSource) hold(at place, reply string) bool {
	if h := s.mu.hand[at.stream]; h != nil {
		h.reply = reply
		return false
	}
	s.mu.hand[at.stream] = &inHand{reply: reply, attempt: int(at.attempt)}
	return true
}

// release takes a message out of the hand, once.
func (s *sharedSource) release(d *connectors.Delivery) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.mu.hand[d.From.Sequence]
	if h == nil || h.attempt != d.Attempt {
		return "", schemas.Errorf(schemas.Internal, "nats.Settle", "%s was settled already", d.From)
	}
	delete(s.mu.hand, d.From.Sequence)
	return h.reply, nil
}

// Accept acknowledges each message, without waiting for the server: a lost acknowledgement means that the message
// comes again.
func (s *sharedSource) Accept(_ context.Context, ds []*connectors.Delivery) error {
	var first error
	for _, d := range ds {
		reply, err := s.release(d)
		if err == nil {
			err = s.c.data.Publish(reply, ackBody)
		}
		if err != nil && first == nil && !passing(err) {
			first = classify("nats.Accept", s.topic, err)
		}
	}
	return first
}

var (
	ackBody      = []byte("+ACK")
	nakBody      = []byte("-NAK")
	termBody     = []byte("+TERM")
	progressBody = []byte("+WPI")
)

// Retry hands the message back; the server gives it to any member after the time.
func (s *sharedSource) Retry(_ context.Context, d *connectors.Delivery, after time.Duration) error {
	reply, err := s.release(d)
	if err == nil {
		body := nakBody
		if after > 0 {
			body = []byte(`-NAK {"delay":` + strconv.FormatInt(int64(after), 10) + `}`)
		}
		if err = s.c.data.Publish(reply, body); passing(err) {
			err = nil // it comes again by itself
		}
	}
	return classify("nats.Retry", s.topic, err)
}

// Reject writes the dead letter, then ends the message.
func (s *sharedSource) Reject(ctx context.Context, d *connectors.Delivery, cause error) error {
	s.mu.Lock()
	h := s.mu.hand[d.From.Sequence]
	s.mu.Unlock()
	if h == nil {
		return schemas.Errorf(schemas.Internal, "nats.Settle", "%s was settled already", d.From)
	}
	if err := s.c.bury(ctx, d, cause); err != nil {
		return err
	}
	reply, err := s.release(d)
	if err == nil {
		if err = s.c.data.Publish(reply, termBody); passing(err) {
			err = nil // it comes again, and is buried under the same id
		}
	}
	return classify("nats.Reject", s.topic, err)
}

// keepAlive tells the server that what is in hand is being worked on.
func (s *sharedSource) keepAlive() {
	defer s.wg.Done()
	t := time.NewTicker(sharedAckWait / 3)
	defer t.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.c.closing.Done():
			return
		case <-t.C:
		}
		s.mu.Lock()
		replies := make([]string, 0, len(s.mu.hand))
		for _, h := range s.mu.hand {
			replies = append(replies, h.reply)
		}
		s.mu.Unlock()
		for _, r := range replies {
			if err := s.c.data.Publish(r, progressBody); err != nil {
				break // disconnected: the next round tries again
			}
		}
	}
}

// Drain stops asking for messages.
func (s *sharedSource) Drain() { s.drainOnce.Do(func() { close(s.drained) }) }

// Close hands back what is in hand and what has come since.
func (s *sharedSource) Close(ctx context.Context) error {
	s.Drain()
	var err error
	s.closeOnce.Do(func() {
		close(s.done)
		s.wg.Wait()
		s.forget()
		err = s.handBack(ctx)
	})
	return err
}

func (s *sharedSource) handBack(ctx context.Context) error {
	s.mu.Lock()
	hand, session := s.mu.hand, s.mu.session
	s.mu.hand, s.mu.session = map[uint64]*inHand{}, nil
	s.mu.Unlock()
	if session == nil {
		return nil
	}
	// First the standing request ends, or what is handed back would be sent to it. Draining keeps our end open until
	// the server has answered the flush, so that what it had sent is here by then.
	if session.sub.Drain() != nil {
		return nil // disconnected, as below
	}
	call, cancel := s.c.call(ctx)
	defer cancel()
	err := s.c.data.FlushWithContext(call)
	for _, h := range hand {
		if err := s.c.data.Publish(h.reply, nakBody); err != nil {
			return nil // disconnected: the server gives them to others after AckWait
		}
	}
	for len(s.ch) > 0 {
		if m := <-s.ch; m.Reply != "" {
			s.c.data.Publish(m.Reply, nakBody) // as above
		}
	}
	if passing(err) {
		err = nil
	}
	return classify("nats.Close", s.topic, err)
}
