package nats

import (
	"context"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Headers of a dead letter beside those of the message: why, and where it came from (Leat-Source).
const (
	headerError     = "Leat-Error"
	headerErrorID   = "Leat-Error-Id"
	headerErrorPath = "Leat-Error-Field"
)

// deadRoom is kept free in every stored message, so that a dead letter with its headers still fits.
const deadRoom = 2 << 10

// deadText bounds the error text of a dead letter.
const deadText = 1 << 10

// bury writes d and the cause to the dead-letter stream and waits for the acknowledgement. The id is the message's
// place: burying twice is harmless.
func (c *Client) bury(ctx context.Context, d *connectors.Delivery, cause error) error {
	const op = "nats.Reject"
	want := c.base(streamDead, subjectDead+">")
	want.MaxBytes = c.bounded(c.cfg.DeadBytes)
	c.deadMu.Lock()
	if !c.deadMade {
		if _, err := c.ensureStream(ctx, op, want, nil); err != nil {
			c.deadMu.Unlock()
			return err
		}
		c.deadMade = true
	}
	c.deadMu.Unlock()

	e := schemas.AsError(op, cause)
	if e == nil {
		e = schemas.Errorf(schemas.Internal, op, "rejected without a cause")
	}
	h := nats.Header(d.Header.Clone())
	h[schemas.HeaderErrorKind] = []string{e.Kind.String()}
	h[headerError] = []string{oneLine(e.Error(), deadText)}
	h[schemas.HeaderSource] = []string{d.From.String()}
	h[schemas.HeaderAttempt] = []string{strconv.Itoa(d.Attempt)}
	h[jetstream.MsgIDHeader] = []string{"dead-" + d.From.String()}
	if e.ID != "" {
		h[headerErrorID] = []string{e.ID}
	}
	if e.Field != "" {
		h[headerErrorPath] = []string{oneLine(e.Field, 256)}
	}
	l := &log{c: c, name: streamDead}
	_, err := l.publish(ctx, op, &nats.Msg{Subject: subjectDead + d.Topic, Header: h, Data: d.Payload})
	return err
}

// oneLine makes text fit for a header.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
