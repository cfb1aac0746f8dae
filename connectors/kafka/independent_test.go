package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/schemas"
)

// franz reads n records of a topic (its name in the cluster), committed ones alone, with a client that shares no code
// with this one. They come in order within each partition.
func franz(t testing.TB, ctx context.Context, c *Client, topic string, n int) (out []*kgo.Record) {
	t.Helper()
	franzPoll(t, ctx, c, topic, func(rs []*kgo.Record) bool {
		out = append(out, rs...)
		return len(out) >= n
	})
	return out
}

// franzTo reads until it has seen an offset in each partition named.
func franzTo(t testing.TB, ctx context.Context, c *Client, topic string, last map[int32]int64) (out []*kgo.Record) {
	t.Helper()
	left := maps.Clone(last)
	franzPoll(t, ctx, c, topic, func(rs []*kgo.Record) bool {
		out = append(out, rs...)
		for _, r := range rs {
			if end, ok := left[r.Partition]; ok && r.Offset >= end {
				delete(left, r.Partition)
			}
		}
		return len(left) == 0
	})
	return out
}

func franzPoll(t testing.TB, ctx context.Context, c *Client, topic string, enough func([]*kgo.Record) bool) {
	t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(c.cfg.Bootstrap...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	must(t, err)
	defer k.Close()
	for {
		fs := k.PollFetches(ctx)
		for _, e := range fs.Errors() {
			t.Fatalf("franz-go: %s/%d: %v", e.Topic, e.Partition, e.Err)
		}
		if enough(fs.Records()) {
			return
		}
	}
}

// TestIndependent: what is published here is what another client reads: key, headers, value, partition, order.
func TestIndependent(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.EnsureTopic(ctx, "t", 4))
	msgs := make([]schemas.Message, 2000)
	for i := range msgs {
		msgs[i] = schemas.Message{Topic: "t", Key: fmt.Sprintf("key-%d", i%17), ID: fmt.Sprint("id-", i), Payload: fmt.Appendf(nil, "%d", i),
			Header: schemas.Header{"B": {"1", "\xff\x00"}, "A": {"x"}}}
	}
	pos, err := c.Publish(ctx, msgs)
	must(t, err)
	at := map[schemas.Position]int{}
	for i, p := range pos {
		at[p] = i
	}
	// The partition that franz-go's port of Java's partitioner picks.
	java := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for _, r := range franz(t, ctx, c, c.name("t"), len(msgs)) {
		i, ok := at[schemas.Position{Stream: "t", Partition: r.Partition, Sequence: uint64(r.Offset) + 1}]
		if !ok || string(r.Key) != msgs[i].Key || string(r.Value) != string(msgs[i].Payload) {
			t.Fatalf("record %s at %d/%d is not message %d", r.Value, r.Partition, r.Offset, i)
		}
		if want := java.Partition(r, 4); want != int(r.Partition) {
			t.Fatalf("key %s is in partition %d, Java puts it into %d", r.Key, r.Partition, want)
		}
		want := []kgo.RecordHeader{{Key: "A", Value: []byte("x")}, {Key: "B", Value: []byte("1")}, {Key: "B", Value: []byte("\xff\x00")}, {Key: "Leat-Id", Value: []byte(msgs[i].ID)}}
		if !slices.EqualFunc(r.Headers, want, func(a, b kgo.RecordHeader) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) }) {
			t.Fatalf("headers %v", r.Headers)
		}
	}
}
