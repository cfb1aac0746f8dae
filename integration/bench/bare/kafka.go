package bare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Kafka is a client of some topics. It is safe for concurrent use.
type Kafka struct {
	c *kafka.Client
	t *kafka.Transport
}

// Bounds of a request: of a batch that is written, and of what a fetch brings.
const (
	Batch      = 500
	fetchBytes = 8 << 20
	fetchWait  = 500 * time.Millisecond // a long poll wakes at once; this is for how long it stands
)

// Dial returns a client that knows the topics, once their leaders answer. The library looks for topics on a timer alone,
// so one that was just made is waited for.
func Dial(ctx context.Context, brokers string, topics ...string) (*Kafka, error) {
	t := &kafka.Transport{MetadataTTL: 500 * time.Millisecond, IdleTimeout: 5 * time.Minute, MetadataTopics: topics}
	k := &Kafka{&kafka.Client{Addr: kafka.TCP(strings.Split(brokers, ",")...), Timeout: 10 * time.Second, Transport: t}, t}
	for _, topic := range topics {
		if err := k.until(ctx, func(ctx context.Context) error { _, err := k.Ends(ctx, topic); return err }); err != nil {
			k.Close()
			return nil, err
		}
	}
	return k, nil
}

// Close closes the connections.
func (k *Kafka) Close() { k.t.CloseIdleConnections() }

// until tries for some seconds.
func (k *Kafka) until(ctx context.Context, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// Make makes a topic of one replica.
func Make(ctx context.Context, brokers, topic string, partitions int) error {
	k, err := Dial(ctx, brokers)
	if err != nil {
		return err
	}
	defer k.Close()
	r, err := k.c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}}})
	if err == nil {
		err = r.Errors[topic]
	}
	return wrap("make", topic, err)
}

// Delete deletes a topic.
func Delete(ctx context.Context, brokers, topic string) error {
	k, err := Dial(ctx, brokers)
	if err != nil {
		return err
	}
	defer k.Close()
	r, err := k.c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err == nil {
		err = r.Errors[topic]
	}
	return wrap("delete", topic, err)
}

func wrap(what, topic string, err error) error {
	if err != nil {
		return fmt.Errorf("bare: %s %s: %w", what, topic, err)
	}
	return nil
}

// Ends returns the offset behind the last record of each partition.
func (k *Kafka) Ends(ctx context.Context, topic string) ([]int64, error) {
	m, err := k.c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err == nil && len(m.Topics) != 1 {
		err = kafka.UnknownTopicOrPartition
	}
	if err == nil {
		err = m.Topics[0].Error
	}
	if err != nil {
		return nil, wrap("look for", topic, err)
	}
	ask := make([]kafka.OffsetRequest, len(m.Topics[0].Partitions))
	for i := range ask {
		ask[i] = kafka.LastOffsetOf(i)
	}
	r, err := k.c.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ask}})
	if err != nil {
		return nil, wrap("ends of", topic, err)
	}
	ends := make([]int64, len(ask))
	for _, p := range r.Topics[topic] {
		if p.Error != nil {
			return nil, wrap("ends of", topic, p.Error)
		}
		ends[p.Partition] = p.LastOffset
	}
	return ends, nil
}

// Committed returns what a group has committed of a topic, by partition: -1 where nothing.
func (k *Kafka) Committed(ctx context.Context, group, topic string, partitions int) ([]int64, error) {
	ask := make([]int, partitions)
	for i := range ask {
		ask[i] = i
	}
	r, err := k.c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: ask}})
	if err == nil {
		err = r.Error
	}
	if err != nil {
		return nil, wrap("offsets of "+group+" in", topic, err)
	}
	at := make([]int64, partitions)
	for _, p := range r.Topics[topic] {
		if p.Error != nil {
			return nil, wrap("offsets of "+group+" in", topic, p.Error)
		}
		at[p.Partition] = p.CommittedOffset
	}
	return at, nil
}

// Produce writes one batch.
func (k *Kafka) Produce(ctx context.Context, topic string, partition int, rs []kafka.Record) error {
	r, err := k.c.Produce(ctx, &kafka.ProduceRequest{Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(rs...)})
	if err == nil {
		err = r.Error
	}
	return wrap("produce to", topic, err)
}

// Fetch returns what one request from an offset on brings, which may be nothing, and the offset behind it. Keys and
// values lie in the library's buffers: they can be written as they are, or read once.
func (k *Kafka) Fetch(ctx context.Context, topic string, partition int, at int64) (rs []kafka.Record, next int64, err error) {
	r, err := k.c.Fetch(ctx, &kafka.FetchRequest{Topic: topic, Partition: partition, Offset: at, MinBytes: 1, MaxBytes: fetchBytes, MaxWait: fetchWait})
	if err == nil {
		err = r.Error
	}
	for err == nil {
		var rec *kafka.Record
		if rec, err = r.Records.ReadRecord(); err == nil && rec.Offset >= at { // else the batch began before
			rs, at = append(rs, *rec), rec.Offset+1
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, at, wrap("fetch from", topic, err)
	}
	return rs, at, nil
}

// Rate returns how many records a second the brokers stored in a topic of theirs that holds n: a record's time is when
// it was stored, and those of the first moment count for nothing, since it has no beginning.
func (k *Kafka) Rate(ctx context.Context, topic string, n int) (float64, error) {
	ends, err := k.Ends(ctx, topic)
	if err != nil {
		return 0, err
	}
	var first, last time.Time
	var begun, all int
	for p, end := range ends {
		for at := int64(0); at < end && all < n; {
			rs, next, err := k.Fetch(ctx, topic, p, at)
			if err != nil {
				return 0, err
			}
			if next == at {
				break // behind it are a transaction's markers alone
			}
			at = next
			for i := range rs {
				t := rs[i].Time
				switch {
				case all == 0 || t.Before(first):
					first, begun = t, 1
				case t.Equal(first):
					begun++
				}
				if t.After(last) {
					last = t
				}
				all++
			}
		}
	}
	if all != n {
		return 0, fmt.Errorf("bare: %s holds %d records, not %d", topic, all, n)
	}
	return float64(n-begun) / last.Sub(first).Seconds(), nil
}
