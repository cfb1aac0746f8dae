package nats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Publish stores messages on their topics, at most Window in flight, and waits for every acknowledgement. What the
// server did not answer is sent again with the same id, until ctx ends. Messages of one key keep their order within a
// call: a message is sent again only after everything sent before it has been answered or given up.
func (c *Client) Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error) {
	const op = "nats.Publish"
	out := make([]schemas.Position, len(msgs))
	w := newWindow(c, c.core, op, len(msgs))
	w.topics = msgs
	for i := range msgs {
		m, p, err := c.topicMessage(ctx, op, &msgs[i])
		if err != nil {
			return nil, err
		}
		w.msgs[i] = m
		out[i] = schemas.Position{Stream: topicStream(msgs[i].Topic), Partition: int32(p)}
	}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Sequence = w.seqs[i]
	}
	return out, nil
}

// topicMessage addresses a message and checks that the server will take it.
func (c *Client) topicMessage(ctx context.Context, op string, m *schemas.Message) (nats.Msg, int, error) {
	n, err := c.partitions(ctx, m.Topic)
	if err != nil {
		return nats.Msg{}, 0, err
	}
	p := 0
	if m.Key != "" {
		p = partitionOf(m.Key, n)
	} else {
		p = int(c.robin.Add(1) % uint64(n))
	}
	q, err := c.stamped(op, m)
	q.Subject = partitionSubject(m.Topic, p)
	return q, p, err
}

// stamped puts key and id into the headers. Without an id one is made, so that sending again is harmless.
func (c *Client) stamped(op string, m *schemas.Message) (nats.Msg, error) {
	h := make(nats.Header, len(m.Header)+2)
	for k, v := range m.Header {
		if utterable(k) { // a caller's headers may have come from outside: see OpenDoor
			h[k] = v
		}
	}
	if m.Key != "" {
		h[schemas.HeaderKey] = []string{m.Key}
	}
	id := m.ID
	if id == "" {
		id = c.id + "-" + shortID(c.robin.Add(1))
	}
	h[jetstream.MsgIDHeader] = []string{id}
	if n, limit := len(m.Payload)+headerSize(h), c.MaxPayload()-deadRoom; n > limit {
		return nats.Msg{}, oversize(op, n, limit)
	}
	return nats.Msg{Header: h, Data: m.Payload}, nil
}

// window sends messages and collects their acknowledgements.
type window struct {
	c    *Client
	nc   *nats.Conn
	op   string
	msgs []nats.Msg
	seqs []uint64 // 0: not acknowledged yet
	// topics are the messages as they came, where order counts; nil: queues, which promise none.
	topics []schemas.Message
}

func newWindow(c *Client, nc *nats.Conn, op string, n int) *window {
	return &window{c: c, nc: nc, op: op, msgs: make([]nats.Msg, n), seqs: make([]uint64, n)}
}

// run goes through the messages in rounds: a round sends what is not acknowledged, in order, and ends early when the
// connection breaks.
func (w *window) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // else an acknowledgement that is faster than the look at ctx would win
		return schemas.Errorf(schemas.Unavailable, w.op, "nothing was sent: %w", err)
	}
	inbox := nats.NewInbox()
	acks := make(chan *nats.Msg, w.c.cfg.Window+16)
	sub, err := w.nc.ChanSubscribe(inbox+".*", acks)
	if err != nil {
		return classify(w.op, "acknowledgements", err)
	}
	defer sub.Unsubscribe() // fails only on a closed connection
	for round := 0; ; round++ {
		err := w.round(ctx, inbox, acks, round)
		if err == nil {
			return nil
		}
		for i := range w.topics {
			w.c.stores.Delete(w.topics[i].Topic)
		}
		if ctx.Err() != nil || w.c.closing.Err() != nil {
			return schemas.Errorf(schemas.Unavailable, w.op, "not acknowledged in time, some may be stored: %w", errors.Join(context.Cause(ctx), err))
		}
		if !passing(err) {
			return classify(w.op, "publish", err)
		}
		if sleep(ctx, retryPause) != nil {
			continue
		}
	}
}

func (w *window) round(ctx context.Context, inbox string, acks chan *nats.Msg, round int) error {
	var firstErr error
	waiting := 0
	epoch := w.nc.Stats().Reconnects
	last := time.Now()
	// take handles one answer, waiting for it if wait is set. false: nothing came in time, or the connection broke.
	take := func(wait bool) bool {
		var m *nats.Msg
		select {
		case m = <-acks:
		default:
			if !wait {
				return false
			}
			if m = w.await(ctx, acks, epoch, last); m == nil {
				return false
			}
		}
		i, r, ok := ackIndex(m.Subject, len(inbox)+1)
		if !ok || i >= len(w.seqs) {
			return true
		}
		if r == round {
			waiting--
			last = time.Now()
		}
		ack, err := w.read(m)
		if err != nil && firstErr == nil && r == round {
			firstErr = err
		}
		if err == nil {
			w.seqs[i] = ack.Sequence
		}
		return true
	}
	for i := range w.msgs {
		if w.seqs[i] != 0 {
			continue
		}
		alone := w.alone(i, epoch)
		for firstErr == nil && (waiting >= w.c.cfg.Window || alone && waiting > 0) {
			if !take(true) {
				return w.unanswered(ctx)
			}
		}
		if firstErr != nil {
			break
		}
		if w.nc.Stats().Reconnects != epoch { // what was sent before may be lost: nothing may overtake it
			return nats.ErrDisconnected
		}
		m := &w.msgs[i]
		m.Reply = ackSubject(inbox, i, round)
		if err := w.nc.PublishMsg(m); err != nil {
			firstErr = err
			break
		}
		waiting++
		for waiting > 0 && take(alone && firstErr == nil) {
		}
		if alone && w.seqs[i] != 0 {
			w.c.stores.Store(w.topics[i].Topic, epoch)
		}
	}
	for waiting > 0 {
		if !take(true) {
			if firstErr != nil {
				return firstErr
			}
			return w.unanswered(ctx)
		}
	}
	return firstErr
}

// alone reports whether message i goes without company: a server that came back answers before its streams do, which
// refuse some messages and then store those behind them. So the first of a topic is acknowledged before the next is sent.
func (w *window) alone(i int, epoch uint64) bool {
	if w.topics == nil {
		return false
	}
	at, ok := w.c.stores.Load(w.topics[i].Topic)
	return !ok || at != epoch
}

// await waits for an answer, nil when none will come: ctx ended, the connection broke, or CallTimeout went by.
func (w *window) await(ctx context.Context, acks chan *nats.Msg, epoch uint64, last time.Time) *nats.Msg {
	t := time.NewTicker(retryPause)
	defer t.Stop()
	for {
		select {
		case m := <-acks:
			return m
		case <-ctx.Done():
			return nil
		case <-t.C:
			if !w.nc.IsConnected() || w.nc.Stats().Reconnects != epoch || time.Since(last) > w.c.cfg.CallTimeout {
				return nil
			}
		}
	}
}

func (w *window) unanswered(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return nats.ErrTimeout
}

func (w *window) read(m *nats.Msg) (pubAck, error) {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return pubAck{}, nats.ErrNoResponders
	}
	return parseAck(m.Data)
}

var _ connectors.Publisher = (*Client)(nil)
