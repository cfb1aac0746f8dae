package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// BenchmarkRequest is request and reply of 512 bytes beside a bare echo with kafka-go on the same broker: the requester
// writes what waits in one batch and reads one partition, the worker reads what is there and writes one batch.
func BenchmarkRequest(b *testing.B) {
	cluster := broker.Start(b, 1, broker.JVM("-XX:+UseG1GC -XX:MaxGCPauseMillis=20"))
	cfg := testConfig(cluster)
	bare := newBare(b, cfg)
	c := dialConfig(b, cfg)
	src, err := c.Serve(b.Context(), "echo", "primary")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { echoAll(c, src) })
	b.Cleanup(func() { src.Close(context.WithoutCancel(b.Context())); wg.Wait() })
	payload := make([]byte, 512)
	ask := func(ctx context.Context) error {
		r, err := c.Request(ctx, &schemas.Message{Topic: "echo", Payload: payload})
		if err == nil && len(r.Payload) != len(payload) {
			err = fmt.Errorf("%s", r.Payload)
		}
		return err
	}
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			var took [2][]time.Duration
			var rates [2][]float64
			// The two take turns, so that what else goes on meets both.
			const turns = 20
			n := max(b.N/turns, callers)
			for range turns {
				for i, ask := range []func(context.Context) error{bare.ask, ask} {
					begin := time.Now()
					took[i] = append(took[i], hammer(b, n, callers, ask)...)
					rates[i] = append(rates[i], float64(n)/time.Since(begin).Seconds())
				}
			}
			for i, name := range []string{"bare", "leat"} {
				slices.Sort(took[i])
				slices.Sort(rates[i])
				b.ReportMetric(float64(took[i][len(took[i])/2].Microseconds())/1000, name+"-p50-ms")
				b.ReportMetric(float64(took[i][len(took[i])*99/100].Microseconds())/1000, name+"-p99-ms")
				b.ReportMetric(rates[i][turns/2], name+"-req/s")
			}
			b.ReportMetric(float64(took[1][len(took[1])/2])/float64(took[0][len(took[0])/2]), "p50-ratio")
			b.ReportMetric(rates[1][turns/2]/rates[0][turns/2], "rate-ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func echoAll(c *Client, src connectors.Source) {
	ctx := context.Background()
	for {
		ds, err := src.Receive(ctx, 512)
		if err != nil {
			return
		}
		rs := make([]connectors.Response, len(ds))
		for i, d := range ds {
			rs[i] = connectors.Response{To: d.ReplyTo, Payload: d.Payload}
		}
		if err := c.Respond(ctx, rs); err != nil {
			return
		}
	}
}

// hammer asks n times from so many callers at once and returns how long each took.
func hammer(b *testing.B, n, callers int, ask func(context.Context) error) []time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	took := make([][]time.Duration, callers)
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				begin := time.Now()
				if err := ask(ctx); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	return slices.Concat(took...)
}

// bare is an echo with nothing but kafka-go: natural batching over Client.Produce, two batches in flight, and Client.Fetch.
type bare struct {
	kc         *kafka.Client
	wg         sync.WaitGroup
	req, reply string
	out        chan bareAsk
	mu         sync.Mutex
	next       uint64
	waiting    map[uint64]chan []byte
}

type bareAsk struct {
	rec  kafka.Record
	fail chan<- error
}

func newBare(b *testing.B, cfg Config) *bare {
	ctx, cancel := context.WithCancel(context.Background())
	tr := &kafka.Transport{MetadataTTL: 500 * time.Millisecond, IdleTimeout: 5 * time.Minute, Context: ctx}
	kc := &kafka.Client{Addr: kafka.TCP(cfg.Bootstrap...), Timeout: 10 * time.Second, Transport: tr}
	s := &bare{kc: kc, req: cfg.Prefix + "bare.requests", reply: cfg.Prefix + "bare.replies", out: make(chan bareAsk, 1024), waiting: map[uint64]chan []byte{}}
	b.Cleanup(func() { cancel(); tr.CloseIdleConnections(); s.wg.Wait() })
	_, err := kc.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: s.req, NumPartitions: 1, ReplicationFactor: 1}, {Topic: s.reply, NumPartitions: 1, ReplicationFactor: 1}}})
	if err != nil {
		b.Fatal(err)
	}
	for range 2 {
		s.wg.Go(func() { s.send(ctx) })
	}
	s.wg.Go(func() {
		s.read(ctx, s.req, func(rs []kafka.Record) {
			if err := s.produce(ctx, s.reply, rs); err != nil && ctx.Err() == nil {
				b.Error(err)
			}
		})
	})
	s.wg.Go(func() {
		s.read(ctx, s.reply, func(rs []kafka.Record) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, r := range rs {
				v, _ := io.ReadAll(r.Value)
				id := binary.BigEndian.Uint64(r.Headers[0].Value)
				if ch := s.waiting[id]; ch != nil {
					delete(s.waiting, id)
					ch <- v
				}
			}
		})
	})
	return s
}

func (s *bare) send(ctx context.Context) {
	for {
		var as []bareAsk
		select {
		case a := <-s.out:
			as = append(as, a)
		case <-ctx.Done():
			return
		}
		for more := true; more && len(as) < 500; {
			select {
			case a := <-s.out:
				as = append(as, a)
			default:
				more = false
			}
		}
		rs := make([]kafka.Record, len(as))
		for i := range as {
			rs[i] = as[i].rec
		}
		if err := s.produce(ctx, s.req, rs); err != nil {
			for _, a := range as {
				a.fail <- err
			}
		}
	}
}

func (s *bare) produce(ctx context.Context, topic string, rs []kafka.Record) error {
	r, err := s.kc.Produce(ctx, &kafka.ProduceRequest{Topic: topic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(rs...)})
	if err == nil {
		err = r.Error
	}
	return err
}

func (s *bare) read(ctx context.Context, topic string, fn func([]kafka.Record)) {
	for offset := int64(0); ctx.Err() == nil; {
		r, err := s.kc.Fetch(ctx, &kafka.FetchRequest{Topic: topic, Offset: offset, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 500 * time.Millisecond})
		if err != nil || r.Error != nil {
			continue
		}
		var rs []kafka.Record
		for {
			rec, err := r.Records.ReadRecord()
			if errors.Is(err, io.EOF) || err != nil {
				break
			}
			offset = rec.Offset + 1
			k := *rec
			v, _ := io.ReadAll(rec.Value)
			k.Value = kafka.NewBytes(v)
			rs = append(rs, k)
		}
		if len(rs) > 0 {
			fn(rs)
		}
	}
}

var barePayload = make([]byte, 512)

func (s *bare) ask(ctx context.Context) error {
	answer, fail := make(chan []byte, 1), make(chan error, 1)
	s.mu.Lock()
	s.next++
	id := s.next
	s.waiting[id] = answer
	s.mu.Unlock()
	s.out <- bareAsk{rec: kafka.Record{Value: kafka.NewBytes(barePayload), Headers: []kafka.Header{{Key: "id", Value: binary.BigEndian.AppendUint64(nil, id)}}}, fail: fail}
	select {
	case <-answer:
		return nil
	case err := <-fail:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
