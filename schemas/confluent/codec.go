package confluent

import (
	"sync/atomic"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/avrorow"
	"github.com/leatstream/leat/schemas/protorow"
)

// avroCodec reads Avro records of one schema.
type avroCodec struct {
	schema  *avrorow.Schema
	answers schemas.Encoder
}

// AppendRows implements schemas.Codec.
func (c *avroCodec) AppendRows(dst *schemas.Batch, m *schemas.Message) (int, schemas.Encoder, error) {
	if e := c.append(dst, m.Payload); e != nil {
		return 0, nil, e
	}
	return 1, c.answers, nil
}

// AppendGood implements schemas.RowCodec.
func (c *avroCodec) AppendGood(dst *schemas.Batch, m *schemas.Message, bad []schemas.RowError) (int, []schemas.RowError, schemas.Encoder, error) {
	return good(c.append(dst, m.Payload), bad, c.answers)
}

func (c *avroCodec) append(dst *schemas.Batch, payload []byte) *schemas.Error {
	value, e := body(dst, payload)
	if e == nil {
		e = inRow(c.schema.Append(dst, value))
	}
	return e
}

// protoCodec reads Protobuf records of one file.
type protoCodec struct {
	file    *protorow.File
	first   atomic.Pointer[protorow.Message] // which most records are
	answers schemas.Encoder
}

// AppendRows implements schemas.Codec.
func (c *protoCodec) AppendRows(dst *schemas.Batch, m *schemas.Message) (int, schemas.Encoder, error) {
	if e := c.append(dst, m.Payload); e != nil {
		return 0, nil, e
	}
	return 1, c.answers, nil
}

// AppendGood implements schemas.RowCodec.
func (c *protoCodec) AppendGood(dst *schemas.Batch, m *schemas.Message, bad []schemas.RowError) (int, []schemas.RowError, schemas.Encoder, error) {
	return good(c.append(dst, m.Payload), bad, c.answers)
}

func (c *protoCodec) append(dst *schemas.Batch, payload []byte) *schemas.Error {
	value, e := body(dst, payload)
	if e != nil {
		return e
	}
	var path [maxIndex]int
	index, value, e := messageIndex(value, &path)
	if e != nil {
		return inRow(e)
	}
	m, err := c.message(index)
	if err != nil {
		return inRow(schemas.AsError(op, err))
	}
	return inRow(m.Append(dst, value))
}

func (c *protoCodec) message(index []int) (*protorow.Message, error) {
	isFirst := len(index) == 1 && index[0] == 0
	if m := c.first.Load(); isFirst && m != nil {
		return m, nil
	}
	m, err := c.file.Message(index)
	if isFirst && err == nil {
		c.first.Store(m)
	}
	return m, err
}

// body is the value behind the id, if the batch has room for it.
func body(dst *schemas.Batch, payload []byte) ([]byte, *schemas.Error) {
	if _, err := head(payload); err != nil {
		return nil, inRow(schemas.AsError(op, err))
	}
	if !dst.Room(len(payload)) {
		return nil, schemas.Errorf(schemas.Overloaded, op, "the batch holds too much text to take %d bytes more", len(payload))
	}
	return payload[headLen:], nil
}

// good tells an event's only row as refused, if it is.
func good(e *schemas.Error, bad []schemas.RowError, answers schemas.Encoder) (int, []schemas.RowError, schemas.Encoder, error) {
	switch {
	case e == nil:
		return 1, bad, answers, nil
	case e.Kind == schemas.Invalid:
		return 0, append(bad, schemas.RowError{Row: 0, Err: e}), answers, nil
	}
	return 0, bad, nil, e
}

// inRow names the row, of which there is one.
func inRow(e *schemas.Error) *schemas.Error {
	switch {
	case e == nil:
	case e.Field == "":
		e.Field = "rows[0]"
	default:
		e.Field = "rows[0]." + e.Field
	}
	return e
}
