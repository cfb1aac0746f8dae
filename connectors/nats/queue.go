package nats

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// queueBatch is how many messages a subscriber of a queue asks for ahead: few, so that several processes share evenly
// and a death leaves little to wait for.
const queueBatch = 8

func queueStream(name string) string { return streamQueue + strings.ReplaceAll(name, ".", "_") }

// EnsureQueue implements connectors.Queues.
func (c *Client) EnsureQueue(ctx context.Context, name string, maxBytes int64) error {
	const op = "nats.EnsureQueue"
	if err := schemas.CheckTopic(name); err != nil {
		return err
	}
	if maxBytes <= 0 {
		return schemas.FieldErrorf(schemas.Invalid, op, "max_bytes", "queue %s needs a bound", name)
	}
	want := c.base(queueStream(name), subjectQueue+name)
	want.Retention, want.MaxBytes = jetstream.WorkQueuePolicy, maxBytes
	_, err := c.ensureStream(ctx, op, want, func(have *jetstream.StreamConfig) error {
		if have.Retention != want.Retention {
			return differs(op, want.Name, "retention", have.Retention, want.Retention)
		}
		return sameSubjects(op, have, want.Subjects)
	})
	return err
}

// QueuePublisher implements connectors.Queues.
func (c *Client) QueuePublisher() connectors.Publisher { return queuePublisher{c} }

type queuePublisher struct{ c *Client }

func (q queuePublisher) Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error) {
	const op = "nats.QueuePublish"
	w := newWindow(q.c, q.c.data, op, len(msgs))
	for i := range msgs {
		if err := schemas.CheckTopic(msgs[i].Topic); err != nil {
			return nil, err
		}
		m, err := q.c.stamped(op, &msgs[i])
		if err != nil {
			return nil, err
		}
		m.Subject = subjectQueue + msgs[i].Topic
		w.msgs[i] = m
	}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	out := make([]schemas.Position, len(msgs))
	for i := range out {
		out[i] = schemas.Position{Stream: queueStream(msgs[i].Topic), Sequence: w.seqs[i]}
	}
	return out, nil
}

// SubscribeQueue implements connectors.Queues.
func (c *Client) SubscribeQueue(ctx context.Context, name string) (connectors.Source, error) {
	if err := schemas.CheckTopic(name); err != nil {
		return nil, err
	}
	s, err := c.openShared(ctx, "nats.SubscribeQueue", queueStream(name), name, queueBatch, jetstream.ConsumerConfig{
		Durable: "workers", MaxAckPending: 4096,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// DropQueue implements connectors.Queues. A queue that is not there is no error.
func (c *Client) DropQueue(ctx context.Context, name string) error {
	if err := schemas.CheckTopic(name); err != nil {
		return err
	}
	return c.DropLog(ctx, queueStream(name))
}

// SubscribeStream joins a group on a stream that is not ours (`input: {stream, subject}`): subject may hold wildcards,
// messages are shared among the members, and no order is claimed. Our own streams are refused.
func (c *Client) SubscribeStream(ctx context.Context, stream, subject, group string) (connectors.Source, error) {
	const op = "nats.SubscribeStream"
	if err := checkToken(op, "stream", stream); err != nil {
		return nil, err
	}
	if err := schemas.CheckName("group", group); err != nil {
		return nil, err
	}
	for _, own := range []string{"LEAT_", "KV_", "OBJ_"} {
		if strings.HasPrefix(stream, own) {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "stream", "%s is internal: name a topic instead", stream)
		}
	}
	s, err := c.openShared(ctx, op, stream, stream, 512, jetstream.ConsumerConfig{
		Durable: "leat-" + group, FilterSubject: subject, MaxAckPending: c.cfg.InFlight,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}
