package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// producePart is one partition's batch in a request.
type producePart struct {
	topic     string // in the cluster
	partition int32
	batch     []byte
}

// produceAnswer is what a broker says about one part.
type produceAnswer struct {
	offset int64 // of the batch's first record
	err    error
}

func (a *produceAnswer) set(offset int64, code int16, message string) {
	a.offset, a.err = offset, codeError(code)
	if a.err != nil && message != "" {
		a.err = said{message, a.err}
	}
}

var errNoAnswer = fmt.Errorf("the broker said nothing about this partition: %w", kafka.NetworkException)

// produceRaw sends batches to the broker that leads their partitions, one batch for each, once, and waits for all in-sync
// replicas. transaction is the transactional id (in the cluster), "" for none. The answers are in order of parts; an
// error says nothing about what is stored.
func (c *Client) produceRaw(ctx context.Context, broker int32, transaction string, parts []producePart) ([]produceAnswer, error) {
	q := &call{key: protocol.Produce, broker: broker, exchange: func(rw io.ReadWriter, version int16) (protocol.Message, error) {
		if version < 3 {
			return nil, fmt.Errorf("the broker is older than Kafka 0.11: %w", kafka.UnsupportedVersion)
		}
		if err := c.writeProduce(rw, version, transaction, parts); err != nil {
			return nil, err
		}
		b, err := readAnswer(rw)
		if err != nil {
			return nil, err
		}
		return parseProduce(b, version, parts)
	}}
	m, err := c.trip(ctx, c.cfg.CallTimeout, q)
	if err != nil {
		return nil, err
	}
	return *m.(*produceAnswers), nil
}

// joinUnder is up to where copying a batch into the request costs less than a write of its own.
const joinUnder = 32 << 10

func (c *Client) writeProduce(rw io.Writer, version int16, transaction string, parts []producePart) error {
	w := newRequest(protocol.Produce, version, c.cfg.ClientID)
	if transaction == "" {
		w.int16(-1)
	} else {
		w.string(transaction)
	}
	w.int16(int16(kafka.RequireAll))
	// The broker gives up before this side does, so that its reason is heard.
	w.int32(int32(c.cfg.CallTimeout.Milliseconds() * 9 / 10))
	sorted := slices.SortedStableFunc(slices.Values(parts), func(a, b producePart) int { return strings.Compare(a.topic, b.topic) })
	topics := len(w.b)
	w.int32(0)
	var of int // where the number of the topic's partitions is
	var n, m uint32
	var cuts []int // where the batches go that are written by themselves
	rest := 0
	for i := range sorted {
		p := &sorted[i]
		if i == 0 || p.topic != sorted[i-1].topic {
			w.string(p.topic)
			of = len(w.b)
			w.int32(0)
			n, m = n+1, 0
		}
		m++
		binary.BigEndian.PutUint32(w.b[of:], m)
		w.int32(p.partition)
		w.int32(int32(len(p.batch)))
		if len(p.batch) < joinUnder {
			w.b = append(w.b, p.batch...)
			cuts = append(cuts, -1)
		} else {
			rest += len(p.batch)
			cuts = append(cuts, len(w.b))
		}
	}
	binary.BigEndian.PutUint32(w.b[topics:], n)
	if len(w.b)+rest > math.MaxInt32 {
		return fmt.Errorf("produce request of %d bytes", len(w.b)+rest)
	}
	binary.BigEndian.PutUint32(w.b, uint32(len(w.b)+rest-4))
	from := 0
	for i, cut := range cuts {
		if cut < 0 {
			continue
		}
		if _, err := rw.Write(w.b[from:cut]); err != nil {
			return err
		}
		if _, err := rw.Write(sorted[i].batch); err != nil {
			return err
		}
		from = cut
	}
	if from == len(w.b) {
		return nil
	}
	_, err := rw.Write(w.b[from:])
	return err
}

type produceAnswers []produceAnswer

// ApiKey implements protocol.Message.
func (*produceAnswers) ApiKey() protocol.ApiKey { return protocol.Produce }

func parseProduce(b []byte, version int16, parts []producePart) (*produceAnswers, error) {
	out := make(produceAnswers, len(parts))
	for i := range out {
		out[i].err = errNoAnswer
	}
	r := answerReader{b: b}
	next := 0
	for range r.count(6) {
		topic := r.string()
		for range r.count(14) {
			partition, code, offset := r.int32(), r.int16(), r.int64()
			r.int64() // log append time
			if version >= 5 {
				r.int64() // log start
			}
			message := ""
			if version >= 8 {
				for range r.count(6) {
					r.int32()
					if m := r.string(); m != "" {
						message = m
					}
				}
				if m := r.string(); message == "" {
					message = m
				}
			}
			if r.bad {
				return nil, fmt.Errorf("produce: %w", errCut)
			}
			if i := find(parts, next, topic, partition); i >= 0 {
				out[i].set(offset, code, message)
				next = i + 1
			}
		}
	}
	if r.bad {
		return nil, fmt.Errorf("produce: %w", errCut)
	}
	return &out, nil
}

// find looks for a part, first where it is to be expected.
func find(parts []producePart, next int, topic string, partition int32) int {
	for i := range parts {
		j := (next + i) % len(parts)
		if parts[j].partition == partition && parts[j].topic == topic {
			return j
		}
	}
	return -1
}
