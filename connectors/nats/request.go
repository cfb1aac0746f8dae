package nats

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/schemas"
)

// Request asks the pipeline m.Topic over the internal account, where a Leat-Principal that an authenticating door has
// set is believed. Answers come back on one inbox for all requests.
func (c *Client) Request(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
	const op = "nats.Request"
	if err := schemas.CheckName("pipeline", m.Topic); err != nil {
		return nil, err
	}
	if n, limit := len(m.Payload)+headerSize(m.Header), c.MaxPayload(); n > limit {
		return nil, oversize(op, n, limit)
	}
	if err := ctx.Err(); err != nil {
		return nil, schemas.Errorf(schemas.Expired, op, "%s: %w", m.Topic, err)
	}
	q := nats.Msg{Subject: subjectScore + m.Topic, Data: m.Payload, Header: nats.Header(m.Header)}
	r, err := c.core.RequestMsgWithContext(ctx, &q)
	switch {
	case err == nil:
		return &schemas.Message{Topic: m.Topic, Key: m.Key, Header: schemas.Header(r.Header), Payload: r.Data}, nil
	case errors.Is(err, nats.ErrNoResponders):
		return nil, schemas.Errorf(schemas.NotFound, op, "nobody serves pipeline %s: %w", m.Topic, err)
	case ctx.Err() != nil:
		return nil, schemas.Errorf(schemas.Expired, op, "pipeline %s did not answer in time: %w", m.Topic, ctx.Err())
	}
	return nil, classify(op, "pipeline "+m.Topic, err)
}
