package nats

import (
	"context"
	"maps"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// fanQueue bounds what waits for one group of this process; the client drops what comes beyond it.
const fanQueue = 4096

// Fan publishes messages to the groups of a pipeline's fan, leat.fan.<pipeline> in LEAT: users can neither read nor write
// there. It is at most once: nobody acknowledges, what no group takes is gone, and a group that is slow is cut off by the
// server, which never slows a publisher (NoFastProducerStall).
func (c *Client) Fan(_ context.Context, pipeline string, msgs []schemas.Message) error {
	const op = "nats.Fan"
	if err := schemas.CheckName("pipeline", pipeline); err != nil {
		return err
	}
	for i := range msgs {
		m := &nats.Msg{Subject: subjectFan + pipeline, Header: nats.Header(maps.Clone(msgs[i].Header)), Data: msgs[i].Payload}
		if size, limit := len(m.Data)+headerSize(m.Header), c.MaxPayload(); size > limit {
			return schemas.Errorf(schemas.Invalid, op, "message of %d bytes with its headers: at most %d", size, limit)
		}
		if err := c.core.PublishMsg(m); err != nil {
			return classify(op, "pipeline "+pipeline, err)
		}
	}
	return nil
}

// SubscribeFan joins a group on the fan of a pipeline: one process of the group gets each message. What is not received
// while 4,096 wait is dropped. There is nothing to settle.
func (c *Client) SubscribeFan(ctx context.Context, pipeline, group string) (connectors.Source, error) {
	const op = "nats.SubscribeFan"
	if err := schemas.CheckName("pipeline", pipeline); err != nil {
		return nil, err
	}
	if group == "" || len(group) > 128 {
		return nil, schemas.Errorf(schemas.Invalid, op, "a group has a name of 1 to 128 bytes")
	}
	for _, r := range group {
		if r <= ' ' || r > '~' {
			return nil, schemas.Errorf(schemas.Invalid, op, "group %q: want printable characters without spaces", group)
		}
	}
	s := &fanSource{topic: pipeline, ch: make(chan *nats.Msg, fanQueue), drained: make(chan struct{})}
	var err error
	if s.sub, err = c.core.ChanQueueSubscribe(subjectFan+pipeline, group, s.ch); err != nil {
		return nil, classify(op, "pipeline "+pipeline, err)
	}
	call, cancel := c.call(ctx)
	defer cancel()
	if err := c.core.FlushWithContext(call); err != nil { // it stands when the server has answered
		_ = s.sub.Unsubscribe() // the connection is gone, and so is it
		return nil, classify(op, "pipeline "+pipeline, err)
	}
	return s, nil
}

// fanSource is what one group of this process gets.
type fanSource struct {
	topic   string
	sub     *nats.Subscription
	ch      chan *nats.Msg
	drain   sync.Once
	drained chan struct{}
}

// Receive implements connectors.Source.
func (s *fanSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	var ds []*connectors.Delivery
	take := func(m *nats.Msg) {
		d := &connectors.Delivery{Attempt: 1, Settler: coreSettler{}}
		d.Topic, d.Header, d.Payload = s.topic, schemas.Header(m.Header), m.Data
		ds = append(ds, d)
	}
	select {
	case m := <-s.ch:
		take(m)
	default:
		select {
		case m := <-s.ch:
			take(m)
		case <-s.drained:
			return nil, schemas.ErrDrained
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for len(ds) < max {
		select {
		case m := <-s.ch:
			take(m)
		default:
			return ds, nil
		}
	}
	return ds, nil
}

// Drain leaves the group; what has come is still received.
func (s *fanSource) Drain() {
	s.drain.Do(func() {
		_ = s.sub.Unsubscribe() // an error means that the connection is gone, and the subscription with it
		close(s.drained)
	})
}

// Close leaves the group and drops what has come.
func (s *fanSource) Close(context.Context) error {
	s.Drain()
	return nil
}
