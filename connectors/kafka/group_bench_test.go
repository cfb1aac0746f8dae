package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// Records of the benchmarks: 512 bytes that do not compress, in one partition, moved 500 at a time.
const (
	benchRecords = 50_000
	benchBatch   = 500
)

func benchInput(b *testing.B, ctx context.Context, c *Client) {
	b.Helper()
	must(b, c.EnsureTopic(ctx, "in", 1))
	must(b, c.EnsureTopic(ctx, "out", 1))
	value := make([]byte, 512)
	for i := range value {
		value[i] = byte(i * 7919 >> 3)
	}
	recs := make([]record, benchRecords)
	for i := range recs {
		recs[i] = record{topic: c.name("in"), key: fmt.Appendf(nil, "key-%d", i%1000), value: value}
	}
	_, err := c.produce(ctx, recs)
	must(b, err)
}

// BenchmarkTopicToTopic moves the records of one topic to another: with the library alone, as a group that settles
// each batch once it is stored, and with each batch and its offset in one transaction.
func BenchmarkTopicToTopic(b *testing.B) {
	ctx := b.Context()
	c := dialConfig(b, testConfig(broker.Start(b, 1, broker.JVM("-XX:+UseG1GC -XX:MaxGCPauseMillis=20"))))
	benchInput(b, ctx, c)
	ways := []struct {
		name string
		move func(b *testing.B, group string)
	}{
		{"bare", func(b *testing.B, _ string) { bareMove(b, ctx, c) }},
		{"group", func(b *testing.B, group string) { groupMove(b, ctx, c, group, 0) }},
		{"transactions", func(b *testing.B, group string) { groupMove(b, ctx, c, group, 1) }},
		{"transactions of 10 batches", func(b *testing.B, group string) { groupMove(b, ctx, c, group, 10) }},
	}
	for round := range 5 {
		for _, way := range ways {
			b.Run(fmt.Sprintf("%s/%d", way.name, round), func(b *testing.B) {
				for i := range b.N {
					way.move(b, fmt.Sprintf("g%d-%d", time.Now().UnixNano(), i))
				}
				b.ReportMetric(float64(benchRecords*b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// bareMove is fetch and produce, one after the other, with kafka-go's Client.
func bareMove(b *testing.B, ctx context.Context, c *Client) {
	k := &kafka.Client{Addr: kafka.TCP(c.cfg.Bootstrap...), Timeout: 10 * time.Second, Transport: &kafka.Transport{MetadataTopics: []string{c.name("in"), c.name("out")}}}
	defer k.Transport.(*kafka.Transport).CloseIdleConnections()
	at, n := int64(0), 0
	for n < benchRecords {
		f, err := k.Fetch(ctx, &kafka.FetchRequest{Topic: c.name("in"), Offset: at, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 500 * time.Millisecond})
		must(b, err)
		must(b, f.Error)
		var batch []kafka.Record
		flush := func() {
			r, err := k.Produce(ctx, &kafka.ProduceRequest{Topic: c.name("out"), RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(batch...)})
			must(b, err)
			must(b, r.Error)
			batch = batch[:0]
		}
		for {
			r, err := f.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			must(b, err)
			key, _ := kafka.ReadAll(r.Key)
			value, _ := kafka.ReadAll(r.Value)
			batch = append(batch, kafka.Record{Key: kafka.NewBytes(key), Value: kafka.NewBytes(value)})
			at = r.Offset + 1
			n++
			if len(batch) == benchBatch {
				flush()
			}
		}
		if len(batch) > 0 {
			flush()
		}
	}
}

// groupMove is a group of one: at least once, or with so many batches in a transaction: fewer records than
// Config.InFlight, or the next never come.
func groupMove(b *testing.B, ctx context.Context, c *Client, group string, batches int) {
	b.StopTimer()
	src, err := c.Subscribe(ctx, "in", group)
	must(b, err)
	b.StartTimer()
	defer func() {
		b.StopTimer()
		must(b, src.Close(ctx))
		b.StartTimer()
	}()
	var out []schemas.Message
	var all []*connectors.Delivery
	for n := 0; n < benchRecords; {
		ds, err := src.Receive(ctx, benchBatch)
		must(b, err)
		for _, d := range ds {
			out = append(out, schemas.Message{Topic: "out", Key: d.Key, Payload: d.Payload})
		}
		n += len(ds)
		if batches == 0 {
			_, err = c.Publish(ctx, out)
			must(b, err)
			must(b, ds[0].Settler.Accept(ctx, ds))
			out = out[:0]
			continue
		}
		if all = append(all, ds...); len(all) >= batches*benchBatch || n == benchRecords {
			_, err = c.Transact(ctx, out, all)
			must(b, err)
			out, all = out[:0], all[:0]
		}
	}
}

// BenchmarkTransact is one record in, one out, in a transaction of their own.
func BenchmarkTransact(b *testing.B) {
	ctx := b.Context()
	c := dialConfig(b, testConfig(broker.Shared(b)))
	must(b, c.EnsureTopic(ctx, "in", 1))
	must(b, c.EnsureTopic(ctx, "out", 1))
	publish(b, ctx, c, "in", 1, 0, b.N)
	src := subscribe(b, ctx, c, "in")
	b.ResetTimer()
	for range b.N {
		ds, err := src.Receive(ctx, 1)
		must(b, err)
		_, err = c.Transact(ctx, []schemas.Message{{Topic: "out", Payload: ds[0].Payload}}, ds)
		must(b, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transactions/s")
}
