package kafka

import (
	"context"
	"strconv"
	"strings"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// deadTopic holds what was put aside, of all topics: made on first use, with one partition.
const deadTopic = "leat.dead"

// Headers of a dead letter beside those of the message: why, and where it came from (Leat-Source names the place).
const (
	headerDeadTopic = "Leat-Dead-Topic" // the topic that it came from
	headerDeadCut   = "Leat-Dead-Cut"   // how many bytes of payload were left out because the whole was too large
	headerError     = "Leat-Error"
	headerErrorID   = "Leat-Error-Id"
	headerErrorPath = "Leat-Error-Field"
)

// deadText bounds the error text of a dead letter.
const deadText = 1 << 10

// deadBytes is the largest dead letter of a topic made here. Brokers take 1 MiB as they come, but a topic may have been
// allowed more, and what came from it must fit with its cause.
const deadBytes = 32 << 20

// DeadLetter implements connectors.Transactor.
func (c *Client) DeadLetter(d *connectors.Delivery, cause error) schemas.Message {
	return deadLetter("kafka.DeadLetter", d, cause)
}

// deadLetter is d with the cause and its place in the headers.
func deadLetter(op string, d *connectors.Delivery, cause error) schemas.Message {
	e := schemas.AsError(op, cause)
	if e == nil {
		e = schemas.Errorf(schemas.Internal, op, "rejected without a cause")
	}
	m := schemas.Message{Topic: deadTopic, Key: d.Key, ID: d.ID, Header: d.Header.Clone(), Payload: d.Payload}
	m.Header.Set(headerDeadTopic, d.Topic)
	m.Header.Set(schemas.HeaderErrorKind, e.Kind.String())
	m.Header.Set(headerError, clipLine(e.Error(), deadText))
	m.Header.Set(schemas.HeaderSource, d.From.String())
	m.Header.Set(schemas.HeaderAttempt, strconv.Itoa(d.Attempt))
	if e.ID != "" {
		m.Header.Set(headerErrorID, e.ID)
	}
	if e.Field != "" {
		m.Header.Set(headerErrorPath, clipLine(e.Field, 256))
	}
	return m
}

// bury writes d and the cause to the dead letters and waits for the acknowledgement.
func (c *Client) bury(ctx context.Context, op string, d *connectors.Delivery, cause error) error {
	m := deadLetter(op, d, cause)
	r, err := c.deadRecord(ctx, op, &m)
	if err != nil {
		return err
	}
	_, err = c.produce(ctx, []record{r})
	return err
}

// deadRecord addresses a dead letter. What does not fit is cut: first the payload, then the headers of the message.
func (c *Client) deadRecord(ctx context.Context, op string, m *schemas.Message) (record, error) {
	if err := c.ensureDead(ctx, op); err != nil {
		return record{}, err
	}
	r, err := c.toRecord(ctx, op, m, 0)
	if schemas.KindOf(err) != schemas.Invalid || err == nil {
		return r, err
	}
	cut := *m
	cut.Header = m.Header.Clone()
	cut.Header.Set(headerDeadCut, strconv.Itoa(len(m.Payload)))
	cut.Payload = nil
	if r, err = c.toRecord(ctx, op, &cut, 0); schemas.KindOf(err) != schemas.Invalid || err == nil {
		return r, err
	}
	cut.Header, cut.Key = schemas.Header{}, ""
	for _, k := range []string{headerDeadTopic, headerDeadCut, schemas.HeaderErrorKind, headerError, headerErrorID, headerErrorPath, schemas.HeaderSource, schemas.HeaderAttempt} {
		if v := m.Header.Get(k); v != "" {
			cut.Header.Set(k, v)
		}
	}
	cut.Header.Set(headerDeadCut, strconv.Itoa(len(m.Payload)))
	return c.toRecord(ctx, op, &cut, 0)
}

// ensureDead makes the topic unless it is there, however it is set.
func (c *Client) ensureDead(ctx context.Context, op string) error {
	_, err := c.meta.topic(ctx, op, c.name(deadTopic))
	if schemas.KindOf(err) != schemas.NotFound || err == nil {
		return err
	}
	return c.ensure(ctx, op, deadTopic, TopicSpec{Partitions: 1, Settings: map[string]string{"max.message.bytes": strconv.Itoa(deadBytes)}})
}

// clipLine makes text fit for a header.
func clipLine(s string, limit int) string {
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
