package floors

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/leatstream/leat/integration/bench/bare"
	"github.com/leatstream/leat/integration/bench/load"
	"github.com/segmentio/kafka-go"
)

// The topics of the floors on a broker.
const (
	kafkaRequests = "floor.requests"
	kafkaReplies  = "floor.replies"
	kafkaAppends  = "floor.appends"
	kafkaCopies   = "floor.copies."
)

// KafkaEcho is request-reply over Kafka: a worker in a process of its own takes what is there and writes it back as one
// batch, while it fetches the next. Each way is a topic of one partition.
type KafkaEcho struct {
	child  *child
	client *load.KafkaClient
}

// StartKafkaEcho makes the topics and starts the process.
func StartKafkaEcho(ctx context.Context, brokers string) (*KafkaEcho, error) {
	for _, t := range []string{kafkaRequests, kafkaReplies} {
		if err := bare.Make(ctx, brokers, t, 1); err != nil {
			return nil, err
		}
	}
	c, err := startChild(ctx, childKafka, brokers)
	if err != nil {
		return nil, err
	}
	client, err := load.DialKafka(ctx, brokers, kafkaRequests, kafkaReplies, 0)
	if err != nil {
		c.close()
		return nil, err
	}
	return &KafkaEcho{c, client}, nil
}

// Run asks in a closed loop.
func (e *KafkaEcho) Run(ctx context.Context, payloads [][]byte, l load.Loop) (*load.Result, error) {
	return e.client.Callers(ctx, payloads, l)
}

// Close ends the process.
func (e *KafkaEcho) Close() {
	e.client.Close()
	e.child.close()
}

// serveKafka is the worker.
func serveKafka(ctx context.Context, brokers string) error {
	k, err := bare.Dial(ctx, brokers, kafkaRequests, kafkaReplies)
	if err != nil {
		return err
	}
	defer k.Close()
	return copyPartition(ctx, k, kafkaRequests, kafkaReplies, 0, func(int) bool { return true })
}

// copyPartition writes a partition from its beginning on to the same one of another topic, in order, in batches, and
// fetches ahead while it writes. It ends when more, which is told how many were written, says so, or with ctx.
func copyPartition(ctx context.Context, k *bare.Kafka, from, to string, partition int, more func(written int) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	fetched := make(chan []kafka.Record) // one waits, one is written
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		for at := int64(0); ; {
			rs, next, err := k.Fetch(ctx, from, partition, at)
			if err != nil {
				cancel(err)
				return
			}
			at = next
			select {
			case fetched <- rs:
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		var rs []kafka.Record
		select {
		case rs = <-fetched:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for len(rs) > 0 {
			n := min(len(rs), bare.Batch)
			if err := k.Produce(ctx, to, partition, rs[:n]); err != nil {
				return err
			}
			if rs = rs[n:]; !more(n) {
				return nil
			}
		}
	}
}

// KafkaAppend is one acknowledged record at a time: what a commit of one row's lineage is.
type KafkaAppend struct {
	k       *bare.Kafka
	payload []byte
}

// NewKafkaAppend makes the topic.
func NewKafkaAppend(ctx context.Context, brokers string) (*KafkaAppend, error) {
	if err := bare.Make(ctx, brokers, kafkaAppends, 1); err != nil {
		return nil, err
	}
	k, err := bare.Dial(ctx, brokers, kafkaAppends)
	if err != nil {
		return nil, err
	}
	a := &KafkaAppend{k, make([]byte, RecordSize)}
	_, _ = rand.Read(a.payload) // never fails
	return a, nil
}

// Run appends one after the other for that long and returns the latencies in nanoseconds.
func (a *KafkaAppend) Run(ctx context.Context, warmup, d time.Duration) (*hdrhistogram.Histogram, error) {
	return paced(warmup, d, func() error {
		return a.k.Produce(ctx, kafkaAppends, 0, []kafka.Record{{Value: kafka.NewBytes(a.payload)}})
	})
}

// Close closes the connections.
func (a *KafkaAppend) Close() { a.k.Close() }

// KafkaTopics is a topic of so many messages and what kafka-go alone does with it.
type KafkaTopics struct {
	brokers, topic string
	ends           []int64
	round          int
}

// NewKafkaTopics makes a topic and fills it with n messages, taking payloads and keys in turn. A key's partition is that
// of the Java clients.
func NewKafkaTopics(ctx context.Context, brokers, topic string, partitions int, payloads [][]byte, keys []string, n int) (*KafkaTopics, error) {
	if err := bare.Make(ctx, brokers, topic, partitions); err != nil {
		return nil, err
	}
	k, err := bare.Dial(ctx, brokers, topic)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	of := make([]int, len(keys))
	all := make([]int, partitions)
	for i := range all {
		all[i] = i
	}
	for i, key := range keys {
		of[i] = kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(key)}, all...)
	}
	batches := make([][]kafka.Record, partitions)
	for i := range n {
		p := of[i%len(keys)]
		batches[p] = append(batches[p], kafka.Record{Key: kafka.NewBytes([]byte(keys[i%len(keys)])), Value: kafka.NewBytes(payloads[i%len(payloads)])})
		if len(batches[p]) == bare.Batch {
			if err := k.Produce(ctx, topic, p, batches[p]); err != nil {
				return nil, err
			}
			batches[p] = batches[p][:0]
		}
	}
	for p, b := range batches {
		if len(b) == 0 {
			continue
		}
		if err := k.Produce(ctx, topic, p, b); err != nil {
			return nil, err
		}
	}
	t := &KafkaTopics{brokers: brokers, topic: topic}
	t.ends, err = k.Ends(ctx, topic)
	return t, err
}

// Loop writes the topic to another one for that long, or to its end, as a plain program does: fetch, write what came in
// batches, go on with the next partition. It returns messages a second.
func (t *KafkaTopics) Loop(ctx context.Context, d time.Duration) (float64, error) {
	return t.copy(ctx, func(k *bare.Kafka, to string) (float64, error) {
		start := time.Now()
		at := make([]int64, len(t.ends))
		n := 0
		for left := true; left && time.Since(start) < d; {
			left = false
			for p := range at {
				if at[p] == t.ends[p] {
					continue
				}
				rs, next, err := k.Fetch(ctx, t.topic, p, at[p])
				if err != nil {
					return 0, err
				}
				n += len(rs)
				for b := range slices.Chunk(rs, bare.Batch) {
					if err := k.Produce(ctx, to, p, b); err != nil {
						return 0, err
					}
				}
				at[p], left = next, true
			}
		}
		return float64(n) / time.Since(start).Seconds(), nil
	})
}

// Copy is the same as fast as can be: all partitions at once, each fetching ahead.
func (t *KafkaTopics) Copy(ctx context.Context, d time.Duration) (float64, error) {
	return t.copy(ctx, func(k *bare.Kafka, to string) (float64, error) {
		return t.each(d, func(p int, more func(n int) bool) error { return copyPartition(ctx, k, t.topic, to, p, more) })
	})
}

// copy makes a topic to write to.
func (t *KafkaTopics) copy(ctx context.Context, do func(k *bare.Kafka, to string) (float64, error)) (rate float64, err error) {
	t.round++
	to := kafkaCopies + strconv.Itoa(t.round)
	if err := bare.Make(ctx, t.brokers, to, len(t.ends)); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, bare.Delete(ctx, t.brokers, to)) }()
	k, err := bare.Dial(ctx, t.brokers, t.topic, to)
	if err != nil {
		return 0, err
	}
	defer k.Close()
	return do(k, to)
}

// Fetch reads the topic for that long, or to its end, all partitions at once, and returns messages a second.
func (t *KafkaTopics) Fetch(ctx context.Context, d time.Duration) (float64, error) {
	k, err := bare.Dial(ctx, t.brokers, t.topic)
	if err != nil {
		return 0, err
	}
	defer k.Close()
	return t.each(d, func(p int, more func(n int) bool) error {
		for at := int64(0); ; {
			rs, next, err := k.Fetch(ctx, t.topic, p, at)
			if err != nil {
				return err
			}
			for i := range rs {
				if _, err := kafka.ReadAll(rs[i].Value); err != nil {
					return fmt.Errorf("floors: %w", err)
				}
			}
			if at = next; !more(len(rs)) {
				return nil
			}
		}
	})
}

// each does every partition at once and divides what was done by the time that it took.
func (t *KafkaTopics) each(d time.Duration, do func(partition int, more func(n int) bool) error) (float64, error) {
	var all atomic.Int64
	errs := make([]error, len(t.ends))
	start := time.Now()
	var wg sync.WaitGroup
	for p, end := range t.ends {
		if end == 0 {
			continue
		}
		wg.Go(func() {
			left := end
			errs[p] = do(p, func(n int) bool {
				all.Add(int64(n))
				left -= int64(n)
				return left > 0 && time.Since(start) < d
			})
		})
	}
	wg.Wait()
	return float64(all.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}
