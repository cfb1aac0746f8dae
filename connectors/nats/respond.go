package nats

import (
	"context"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Respond writes all answers into the connection's buffer; its flusher sends them together. There is no round trip.
func (c *Client) Respond(ctx context.Context, rs []connectors.Response) error {
	var first error
	for i := range rs {
		if err := c.respondOne(&rs[i]); err != nil && first == nil {
			first = err
		}
	}
	if first == nil {
		return ctx.Err()
	}
	return first
}

func (c *Client) respondOne(r *connectors.Response) error {
	const op = "nats.Respond"
	nc, to := c.front, ""
	if rest, ok := strings.CutPrefix(r.To, replyFront); ok {
		to = rest
	} else if rest, ok := strings.CutPrefix(r.To, replyCore); ok {
		nc, to = c.core, rest
	} else {
		return schemas.Errorf(schemas.Internal, op, "answer to %q, which no source of this client gave", r.To)
	}
	m := nats.Msg{Subject: to, Header: nats.Header(r.Header), Data: r.Payload}
	if k := r.Header.Get(schemas.HeaderErrorKind); k != "" && r.Header.Get(micro.ErrorCodeHeader) == "" {
		m.Header = nats.Header(serviceError(r.Header, k))
	}
	if n, limit := len(r.Payload)+headerSize(m.Header), c.MaxPayload(); n > limit {
		h, body := schemas.ErrorAnswer(schemas.Errorf(schemas.Invalid, op, "the answer has %d bytes, the server takes at most %d: ask for fewer rows", n, limit), r.Header.Get(schemas.HeaderRequestID))
		m.Header, m.Data = nats.Header(serviceError(h, schemas.Invalid.String())), body
	}
	return classify(op, "answer", nc.PublishMsg(&m))
}

// serviceError adds the headers by which any NATS tool knows an error.
func serviceError(h schemas.Header, kind string) schemas.Header {
	h = h.Clone()
	h.Set(micro.ErrorHeader, kind)
	h.Set(micro.ErrorCodeHeader, strconv.Itoa(schemas.ParseKind(kind).HTTPStatus()))
	return h
}
