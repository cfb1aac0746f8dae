package load

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/bench/bare"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/segmentio/kafka-go"
)

// kafkaResponder makes the topics of a test and answers what is asked with what answer says, nil for nothing.
func kafkaResponder(t *testing.T, partitions int, answer func(value []byte, r *kafka.Record) []kafka.Record) *KafkaClient {
	t.Helper()
	brokers := broker.Shared(t).Bootstrap()
	requests, replies := strings.ToLower(t.Name())+".requests", strings.ToLower(t.Name())+".replies"
	for topic, n := range map[string]int{requests: partitions, replies: 2} {
		if err := bare.Make(t.Context(), brokers, topic, n); err != nil {
			t.Fatal(err)
		}
	}
	k, err := bare.Dial(t.Context(), brokers, requests, replies)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait(); k.Close() })
	for p := range partitions {
		wg.Go(func() {
			for at := int64(0); ; {
				rs, next, err := k.Fetch(ctx, requests, p, at)
				if err != nil {
					return
				}
				at = next
				var out []kafka.Record
				for i := range rs {
					v, _ := kafka.ReadAll(rs[i].Value)
					out = append(out, answer(v, &rs[i])...)
				}
				if len(out) > 0 && k.Produce(ctx, replies, 1, out) != nil {
					return
				}
			}
		})
	}
	c, err := DialKafka(t.Context(), brokers, requests, replies, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestKafkaCounts: it asks exactly as often as it may, with every payload, on every partition, and says where the answer
// goes; answers to others are passed over.
func TestKafkaCounts(t *testing.T) {
	var asked, wrong atomic.Int64
	var seen [3]atomic.Int64
	c := kafkaResponder(t, 3, func(v []byte, r *kafka.Record) []kafka.Record {
		asked.Add(1)
		seen[v[0]-'a'].Add(1)
		h := map[string]string{}
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		if h[headerReplyTo] != "testkafkacounts.replies" || h[headerPartition] != "1" {
			wrong.Add(1)
		}
		other := kafka.Record{Value: kafka.NewBytes(v), Headers: []kafka.Header{{Key: headerID, Value: []byte("other.0.1")}}}
		return []kafka.Record{other, {Value: kafka.NewBytes(v), Headers: r.Headers}}
	})
	const want = 3000
	r, err := c.Callers(t.Context(), [][]byte{[]byte("a"), []byte("b"), []byte("c")}, Loop{InFlight: 8, Duration: time.Minute, Requests: want})
	if err != nil {
		t.Fatal(err)
	}
	if r.Err() != nil || r.Answers != want || asked.Load() != want || wrong.Load() > 0 {
		t.Fatalf("%d answers, %d asked, want %d; %d without their place: %v", r.Answers, asked.Load(), want, wrong.Load(), r.Err())
	}
	for i := range seen {
		if n := seen[i].Load(); n < want/4 {
			t.Errorf("payload %d went out %d times of %d", i, n, want)
		}
	}
	if b, err := c.Ask(t.Context(), []byte("a")); err != nil || string(b) != "a" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestKafkaFailures: an answer that says a failure, and one that fails the check, fail the result; one that comes twice
// fails the run.
func TestKafkaFailures(t *testing.T) {
	var n atomic.Int64
	var twice atomic.Bool
	c := kafkaResponder(t, 1, func(v []byte, r *kafka.Record) []kafka.Record {
		a := kafka.Record{Value: kafka.NewBytes([]byte("fine")), Headers: r.Headers}
		if n.Add(1) == 50 {
			a.Headers = append(a.Headers, kafka.Header{Key: headerKind, Value: []byte("overloaded")})
			a.Value = kafka.NewBytes([]byte("busy"))
		}
		if twice.Load() {
			return []kafka.Record{a, {Value: kafka.NewBytes([]byte("fine")), Headers: r.Headers}}
		}
		return []kafka.Record{a}
	})
	l := Loop{InFlight: 4, Duration: time.Minute, Requests: 100}
	r, err := c.Callers(t.Context(), [][]byte{nil}, l)
	if err != nil || r.Failed != 1 || r.Answers != 99 || !strings.Contains(r.Err().Error(), "overloaded: busy") {
		t.Fatalf("%+v, %v", r, err)
	}
	bad := errors.New("wrong")
	l.Answer = func(b []byte) error {
		if string(b) != "fine" {
			t.Errorf("checked %q", b)
		}
		return bad
	}
	if r, err = c.Callers(t.Context(), [][]byte{nil}, l); err != nil || r.Failed != 100 || !errors.Is(r.Err(), bad) {
		t.Fatalf("%+v, %v", r, err)
	}
	twice.Store(true)
	l.InFlight, l.Answer = 1, nil
	if _, err := c.Callers(t.Context(), [][]byte{nil}, l); err == nil {
		t.Error("answers that came twice are taken")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.Callers(ctx, [][]byte{nil}, l); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
