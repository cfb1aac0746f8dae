package nats

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// pubAck is JetStream's answer to a publish.
type pubAck struct {
	Stream    string              `json:"stream"`
	Sequence  uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Error     *jetstream.APIError `json:"error"`
}

// largeAppend is the size from which an append takes the connection of bulk data: a megabyte of a job's records in front
// of a request's append would hold it up for milliseconds.
const largeAppend = 64 << 10

// publishOnce stores one message and waits for the acknowledgement, at most CallTimeout. It asks once: the library's
// own PublishMsg would repeat on "no responders" with its own pauses.
func (c *Client) publishOnce(ctx context.Context, m *nats.Msg) (pubAck, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	nc := c.core
	if len(m.Data) > largeAppend {
		nc = c.data
	}
	r, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return pubAck{}, err
	}
	return parseAck(r.Data)
}

var (
	ackError = []byte(`"error"`)
	ackSeq   = []byte(`"seq":`)
)

// parseAck reads the server's own answer. The common form, {"stream":"S","seq":12}, costs a search and no allocation;
// the stream's name is left out then, since the caller knows it.
func parseAck(b []byte) (pubAck, error) {
	if i := bytes.Index(b, ackSeq); i >= 0 && !bytes.Contains(b, ackError) {
		var a pubAck
		digits := bytes.TrimLeft(b[i+len(ackSeq):], " ")
		for j := 0; j < len(digits) && digits[j] >= '0' && digits[j] <= '9'; j++ {
			a.Sequence = a.Sequence*10 + uint64(digits[j]-'0')
		}
		a.Duplicate = bytes.Contains(b, []byte(`"duplicate":true`)) || bytes.Contains(b, []byte(`"duplicate": true`))
		if a.Sequence > 0 {
			return a, nil
		}
	}
	var a pubAck
	if err := json.Unmarshal(b, &a); err != nil {
		return a, err
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}
