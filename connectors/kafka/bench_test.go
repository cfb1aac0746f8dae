package kafka

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// The benchmarks run beside bare kafka-go on one broker, in one run: the ratios are what they are for.
//
//	go test ./connectors/kafka -run '^$' -bench 'Publish|Replay'

func benchBroker(b *testing.B) (*Client, *kafka.Client) {
	cluster := broker.Start(b, 1, broker.JVM("-XX:+UseG1GC -XX:MaxGCPauseMillis=20"))
	cfg := testConfig(cluster)
	bare := &kafka.Client{Addr: kafka.TCP(cluster.Addrs()...), Timeout: 10 * time.Second, Transport: &kafka.Transport{MetadataTTL: 500 * time.Millisecond, IdleTimeout: 5 * time.Minute}}
	b.Cleanup(bare.Transport.(*kafka.Transport).CloseIdleConnections)
	return dialConfig(b, cfg), bare
}

func value(b *testing.B, n int) []byte {
	v := make([]byte, n)
	if _, err := rand.Read(v); err != nil {
		b.Fatal(err)
	}
	return v
}

// bench calls fn b.N times from so many goroutines and reports the median time of a call and the rate.
func bench(b *testing.B, workers, perCall int, fn func(ctx context.Context) error) {
	ctx := context.Background()
	if err := fn(ctx); err != nil { // connections, metadata, producer id
		b.Fatal(err)
	}
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	left := make(chan struct{}, b.N)
	for range b.N {
		left <- struct{}{}
	}
	close(left)
	b.ResetTimer()
	for range workers {
		wg.Go(func() {
			var mine []time.Duration
			for range left {
				t := time.Now()
				if err := fn(ctx); err != nil {
					b.Error(err)
					return
				}
				mine = append(mine, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(b.N*perCall)/b.Elapsed().Seconds(), "msgs/s")
}

// floor is natural batching over the library's Produce: what comes while a request is on its way goes into the next.
type floor struct {
	c     *kafka.Client
	topic string
	mu    sync.Mutex
	queue []floorCall
	fly   int
}

type floorCall struct {
	value []byte
	done  chan error
}

func (f *floor) publish(_ context.Context, v []byte) error {
	done := make(chan error, 1)
	f.mu.Lock()
	f.queue = append(f.queue, floorCall{v, done})
	if f.fly < 2 {
		f.fly++
		go f.send()
	}
	f.mu.Unlock()
	return <-done
}

func (f *floor) send() {
	for {
		f.mu.Lock()
		q := f.queue
		if len(q) > 500 {
			q = q[:500]
		}
		f.queue = f.queue[len(q):]
		if len(q) == 0 {
			f.fly--
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		recs := make([]kafka.Record, len(q))
		for i := range q {
			recs[i].Value = kafka.NewBytes(q[i].value)
		}
		r, err := f.c.Produce(context.Background(), &kafka.ProduceRequest{Topic: f.topic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(recs...)})
		if err == nil {
			err = r.Error
		}
		for _, c := range q {
			c.done <- err
		}
	}
}

func bareTopic(b *testing.B, c *Client, bare *kafka.Client, name string, partitions int) {
	ctx := within(b)
	must(b, c.ensure(ctx, "bench", name, TopicSpec{Partitions: partitions}))
	until(b, ctx, "the library to see the topic", func() error {
		r, err := bare.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{c.name(name)}})
		if err == nil {
			err = r.Topics[0].Error
		}
		return err
	})
}

func BenchmarkPublish(b *testing.B) {
	c, bare := benchBroker(b)
	for _, n := range []string{"t1", "t8"} {
		bareTopic(b, c, bare, n, int(n[1]-'0'))
	}
	v := value(b, 512)
	var keys []string
	for range 97 {
		keys = append(keys, string(value(b, 8)))
	}
	leat := func(topic string, n int) func(ctx context.Context) error {
		turn := 0
		var mu sync.Mutex
		return func(ctx context.Context) error {
			mu.Lock()
			turn++
			k := keys[turn%len(keys)]
			mu.Unlock()
			ms := make([]schemas.Message, n)
			for i := range ms {
				if ms[i] = (schemas.Message{Topic: topic, Key: k, Payload: v}); n > 1 {
					ms[i].Key = keys[i%len(keys)]
				}
			}
			_, err := c.Publish(ctx, ms)
			return err
		}
	}
	one := func(ctx context.Context) error {
		r, err := bare.Produce(ctx, &kafka.ProduceRequest{Topic: c.name("t1"), RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(v)})})
		return errors.Join(err, r.Error)
	}
	batch := func(ctx context.Context) error {
		recs := make([]kafka.Record, 500)
		for i := range recs {
			recs[i].Value = kafka.NewBytes(v)
		}
		r, err := bare.Produce(ctx, &kafka.ProduceRequest{Topic: c.name("t1"), RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(recs...)})
		return errors.Join(err, r.Error)
	}
	f := &floor{c: bare, topic: c.name("t1")}
	natural := func(ctx context.Context) error { return f.publish(ctx, v) }
	b.Run("alone/bare", func(b *testing.B) { bench(b, 1, 1, one) })
	b.Run("alone/leat", func(b *testing.B) { bench(b, 1, 1, leat("t1", 1)) })
	b.Run("alone/leat-8-partitions", func(b *testing.B) { bench(b, 1, 1, leat("t8", 1)) })
	b.Run("64/bare-natural", func(b *testing.B) { bench(b, 64, 1, natural) })
	b.Run("64/leat", func(b *testing.B) { bench(b, 64, 1, leat("t1", 1)) })
	b.Run("64/leat-8-partitions", func(b *testing.B) { bench(b, 64, 1, leat("t8", 1)) })
	b.Run("256/bare-natural", func(b *testing.B) { bench(b, 256, 1, natural) })
	b.Run("256/leat", func(b *testing.B) { bench(b, 256, 1, leat("t1", 1)) })
	b.Run("256/leat-8-partitions", func(b *testing.B) { bench(b, 256, 1, leat("t8", 1)) })
	b.Run("bulk/bare-500", func(b *testing.B) { bench(b, 1, 500, batch) })
	b.Run("bulk/bare-500x4", func(b *testing.B) { bench(b, 4, 500, batch) })
	b.Run("bulk/leat-500", func(b *testing.B) { bench(b, 1, 500, leat("t1", 500)) })
	b.Run("bulk/leat-500x4", func(b *testing.B) { bench(b, 4, 500, leat("t1", 500)) })
	b.Run("bulk/leat-500x4-8-partitions", func(b *testing.B) { bench(b, 4, 500, leat("t8", 500)) })
}

func BenchmarkReplay(b *testing.B) {
	c, bare := benchBroker(b)
	bareTopic(b, c, bare, "t1", 1)
	const n = 400_000
	v := value(b, 512)
	ms := make([]schemas.Message, 2000)
	for i := range ms {
		ms[i] = schemas.Message{Topic: "t1", Key: "k", Payload: v, Header: schemas.Header{"Content-Type": {"application/json"}}}
	}
	for range n / len(ms) {
		if _, err := c.Publish(context.Background(), ms); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("bare", func(b *testing.B) {
		for range b.N {
			read := 0
			for at := int64(0); at < n; {
				r, err := bare.Fetch(context.Background(), &kafka.FetchRequest{Topic: c.name("t1"), Offset: at, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: time.Second})
				if err != nil {
					b.Fatal(err)
				}
				for {
					rec, err := r.Records.ReadRecord()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					if _, err := protocol.ReadAll(rec.Value); err != nil {
						b.Fatal(err)
					}
					read++
					at = rec.Offset + 1
				}
			}
		}
		b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "msgs/s")
	})
	b.Run("leat", func(b *testing.B) {
		for range b.N {
			spans, err := c.Spans(context.Background(), "t1", connectors.Start{})
			if err != nil {
				b.Fatal(err)
			}
			src, err := c.Open(context.Background(), spans[0])
			if err != nil {
				b.Fatal(err)
			}
			read := 0
			for {
				ds, err := src.Receive(context.Background(), 1000)
				if errors.Is(err, schemas.ErrDrained) {
					break
				}
				if err != nil {
					b.Fatal(err)
				}
				read += len(ds)
			}
			if read != n {
				b.Fatalf("%d records, want %d", read, n)
			}
		}
		b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "msgs/s")
	})
}
