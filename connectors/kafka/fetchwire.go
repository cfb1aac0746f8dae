package kafka

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// fetchFrom is where to read a partition.
type fetchFrom struct {
	partition int32
	offset    int64
}

// fetchAnswer is what a broker says about one partition.
type fetchAnswer struct {
	partition        int32
	err              error // the rest is of no use
	stable, logStart int64
	aborted          []abortedTxn
	records          []byte
}

type fetchAnswers []fetchAnswer

// ApiKey implements protocol.Message.
func (*fetchAnswers) ApiKey() protocol.ApiKey { return protocol.Fetch }

// fetch asks a broker for one partition from an offset on, committed transactions only.
func (c *Client) fetch(ctx context.Context, broker int32, wait time.Duration, topic string, partition int32, from int64, maxBytes int) (*fetchAnswer, error) {
	as, err := c.fetchMany(ctx, broker, wait, topic, []fetchFrom{{partition, from}}, maxBytes)
	if err != nil {
		return nil, err
	}
	if len(as) != 1 || as[0].partition != partition {
		return nil, errNoAnswer
	}
	return &as[0], as[0].err
}

// fetchMany asks for several partitions of a topic (its name in the cluster) at once, and waits for the first record of
// any of them. maxBytes bounds each of them and all together, but for one batch.
func (c *Client) fetchMany(ctx context.Context, broker int32, wait time.Duration, topic string, from []fetchFrom, maxBytes int) ([]fetchAnswer, error) {
	q := &call{key: protocol.Fetch, broker: broker, exchange: func(rw io.ReadWriter, version int16) (protocol.Message, error) {
		if version < 4 {
			return nil, fmt.Errorf("the broker is older than Kafka 0.11: %w", kafka.UnsupportedVersion)
		}
		if _, err := rw.Write(fetchRequest(c.cfg.ClientID, version, wait, topic, from, maxBytes)); err != nil {
			return nil, err
		}
		b, err := readAnswer(rw)
		if err != nil {
			return nil, err
		}
		return parseFetch(b, version)
	}}
	m, err := c.trip(ctx, wait+c.cfg.CallTimeout, q)
	if err != nil {
		return nil, err
	}
	return *m.(*fetchAnswers), nil
}

func fetchRequest(clientID string, version int16, wait time.Duration, topic string, from []fetchFrom, maxBytes int) []byte {
	w := newRequest(protocol.Fetch, version, clientID)
	w.int32(-1) // no replica
	w.int32(int32(wait.Milliseconds()))
	w.int32(1) // bytes that end the wait
	w.int32(int32(maxBytes))
	w.int8(int8(kafka.ReadCommitted))
	if version >= 7 { // no fetch session
		w.int32(0)
		w.int32(-1)
	}
	w.int32(1)
	w.string(topic)
	w.int32(int32(len(from)))
	for _, f := range from {
		w.int32(f.partition)
		if version >= 9 {
			w.int32(-1) // leader epoch: not checked
		}
		w.int64(f.offset)
		if version >= 5 {
			w.int64(-1)
		}
		w.int32(int32(maxBytes))
	}
	if version >= 7 {
		w.int32(0)
	}
	if version >= 11 {
		w.string("")
	}
	return w.done()
}

func parseFetch(b []byte, version int16) (*fetchAnswers, error) {
	r := answerReader{b: b}
	r.int32() // throttle
	if version >= 7 {
		if err := codeError(r.int16()); err != nil {
			return nil, err
		}
		r.int32()
	}
	out := fetchAnswers{}
	for range r.count(6) {
		r.string() // the one topic
		for range r.count(30) {
			a := fetchAnswer{partition: r.int32(), err: codeError(r.int16()), logStart: -1}
			r.int64() // high watermark
			a.stable = r.int64()
			if version >= 5 {
				a.logStart = r.int64()
			}
			for n := r.count(16); n > 0; n-- {
				a.aborted = append(a.aborted, abortedTxn{producer: r.int64(), first: r.int64()})
			}
			if version >= 11 {
				r.int32() // preferred replica: none without a rack
			}
			a.records = r.bytes()
			out = append(out, a)
		}
	}
	if r.bad {
		return nil, fmt.Errorf("fetch: %w", errCut)
	}
	return &out, nil
}
