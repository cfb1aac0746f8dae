package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/integration/bench/bare"
	"github.com/segmentio/kafka-go"
)

// KafkaClient asks over Kafka as docs/wire.md says, with kafka-go alone: a request is a record that says in its headers
// where its answer goes, which is the one partition that this client reads. A KafkaClient runs one loop at a time.
type KafkaClient struct {
	k        *bare.Kafka
	sender   *bare.Sender
	replies  string
	place    []kafka.Header // of answers
	prefix   string         // of the ids of this client's requests: prefix.slot.sequence
	sequence atomic.Uint64
	stop     context.CancelFunc
	reading  context.Context // its cause is why answers are no longer read
	wg       sync.WaitGroup
	loop     atomic.Pointer[kafkaLoop] // that runs
}

// kafkaLoop is who waits for answers.
type kafkaLoop struct {
	check   Check
	answers []chan error // by slot: what is wrong with the answer
	twice   atomic.Int64
}

// Headers of requests and answers.
const (
	headerID        = "Leat-Request-Id"
	headerReplyTo   = "Leat-Reply-To"
	headerPartition = "Leat-Reply-Partition"
	headerKind      = "Leat-Error-Kind"
)

// DialKafka returns a client that asks on one topic and reads the answers from the end of a partition of another.
func DialKafka(ctx context.Context, brokers, requests, replies string, partition int) (*KafkaClient, error) {
	k, err := bare.Dial(ctx, brokers, requests, replies)
	if err != nil {
		return nil, err
	}
	to, err := k.Ends(ctx, requests)
	if err != nil {
		k.Close()
		return nil, err
	}
	from, err := k.Ends(ctx, replies)
	if err != nil {
		k.Close()
		return nil, err
	}
	c := &KafkaClient{k: k, sender: bare.NewSender(k, requests, len(to)), replies: replies,
		place:  []kafka.Header{{Key: headerReplyTo, Value: []byte(replies)}, {Key: headerPartition, Value: strconv.AppendInt(nil, int64(partition), 10)}},
		prefix: "b" + strconv.FormatInt(time.Now().UnixNano(), 36) + "."}
	c.reading, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.wg.Go(func() { c.read(partition, from[partition]) })
	return c, nil
}

// Close ends the reading and closes the connections.
func (c *KafkaClient) Close() {
	c.stop()
	c.wg.Wait()
	c.sender.Wait()
	c.k.Close()
}

// read hands the answers of a partition to the loop that runs.
func (c *KafkaClient) read(partition int, at int64) {
	for {
		rs, next, err := c.k.Fetch(c.reading, c.replies, partition, at)
		l := c.loop.Load()
		if err != nil {
			if l != nil {
				for _, ch := range l.answers {
					tell(ch, err)
				}
			}
			return
		}
		at = next
		for i := range rs {
			if slot, failure := c.answer(&rs[i], l); slot >= 0 && !tell(l.answers[slot], failure) {
				l.twice.Add(1)
			}
		}
	}
}

// tell is false where the slot has an answer already.
func tell(slot chan<- error, failure error) bool {
	select {
	case slot <- failure:
		return true
	default:
		return false
	}
}

// answer returns the slot that asked, -1 if none of the loop did, and what is wrong with the answer.
func (c *KafkaClient) answer(r *kafka.Record, l *kafkaLoop) (slot int, failure error) {
	slot = -1
	var kind string
	for _, h := range r.Headers {
		switch h.Key {
		case headerID:
			rest, mine := strings.CutPrefix(string(h.Value), c.prefix)
			number, _, _ := strings.Cut(rest, ".")
			if n, err := strconv.Atoi(number); mine && err == nil && l != nil && n < len(l.answers) {
				slot = n
			}
		case headerKind:
			kind = string(h.Value)
		}
	}
	if slot < 0 || kind == "" && l.check == nil {
		return slot, nil
	}
	value, err := kafka.ReadAll(r.Value)
	switch {
	case err != nil:
		return slot, err
	case kind != "":
		return slot, fmt.Errorf("%s: %s", kind, clip(value))
	}
	return slot, l.check(value)
}

// Callers keeps l.InFlight callers asking, as NATSClient's does.
func (c *KafkaClient) Callers(ctx context.Context, payloads [][]byte, l Loop) (*Result, error) {
	run := &kafkaLoop{check: l.Answer, answers: make([]chan error, max(0, l.InFlight))}
	fails := make([]func(error), len(run.answers))
	for i := range run.answers {
		ch := make(chan error, 1) // one request a slot is under way, so one answer
		run.answers[i] = ch
		fails[i] = func(err error) { tell(ch, err) }
	}
	if !c.loop.CompareAndSwap(nil, run) {
		return nil, errors.New("load: a loop is running on this client")
	}
	defer c.loop.Store(nil)
	r, err := closedLoop(ctx, payloads, l, func(ctx context.Context, slot int, payload []byte) (failure, err error) {
		id := append([]byte(nil), c.prefix...)
		id = strconv.AppendInt(id, int64(slot), 10)
		id = append(id, '.')
		id = strconv.AppendUint(id, c.sequence.Add(1), 10)
		rec := kafka.Record{Value: kafka.NewBytes(payload), Headers: []kafka.Header{{Key: headerID, Value: id}, c.place[0], c.place[1]}}
		c.sender.Send(c.reading, rec, fails[slot])
		select {
		case failure := <-run.answers[slot]:
			return failure, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	if n := run.twice.Load(); err == nil && n > 0 {
		return nil, fmt.Errorf("load: %s: %d requests were answered twice", c.replies, n)
	}
	return r, err
}

// Ask makes one request, whose answer is given to check.
func (c *KafkaClient) Ask(ctx context.Context, payload []byte) (answer []byte, err error) {
	r, err := c.Callers(ctx, [][]byte{payload}, Loop{InFlight: 1, Duration: giveUp, Requests: 1, Answer: func(b []byte) error {
		answer = append([]byte(nil), b...)
		return nil
	}})
	if err == nil {
		err = r.Err()
	}
	return answer, err
}
