package floors

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/bench/bare"
	"github.com/leatstream/leat/integration/bench/load"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/scorers/onnx/ortlib"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"
)

const example = "../../examples/flights"

// TestMain lets the test binary be a floor's child, as the benchmark's is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildArg {
		if err := ServeChild(context.Background(), os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func sample(t *testing.T) *load.Rows {
	t.Helper()
	rows, err := load.ReadRows(t.Context(), filepath.Join(example, "sample.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestEcho(t *testing.T) {
	e, err := StartEcho(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	bodies := sample(t).Complete(16).Native()
	for _, n := range []int{1, 64} {
		for _, run := range []func() (*load.Result, error){
			func() (*load.Result, error) { return e.Run(t.Context(), bodies, counted(n, bodies)) },
			func() (*load.Result, error) { return e.Requests(t.Context(), bodies, counted(n, bodies)) },
			func() (*load.Result, error) { return e.Pipelined(t.Context(), bodies, counted(n, bodies)) },
		} {
			if r, err := run(); err != nil || r.Err() != nil || r.Answers != 2000 {
				t.Fatalf("%d in flight: %+v, %v", n, r, err)
			}
		}
	}
}

func TestHTTPEcho(t *testing.T) {
	e, err := StartHTTPEcho(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	bodies := sample(t).Complete(16).OIP()
	for _, n := range []int{1, 64} {
		if r, err := e.Run(t.Context(), bodies, counted(n, bodies)); err != nil || r.Err() != nil || r.Answers != 2000 {
			t.Fatalf("%d in flight: %+v, %v", n, r, err)
		}
	}
}

// counted is a short loop whose answers must be among the bodies.
func counted(n int, bodies [][]byte) load.Loop {
	known := map[string]bool{}
	for _, b := range bodies {
		known[string(b)] = true
	}
	return load.Loop{InFlight: n, Duration: time.Minute, Requests: 2000, Answer: func(b []byte) error {
		if !known[string(b)] {
			return fmt.Errorf("not an echo: %.80q", b)
		}
		return nil
	}}
}

func TestJetStream(t *testing.T) {
	rows := sample(t).Complete(16)
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprint("sync=", sync), func(t *testing.T) {
			dir := t.TempDir()
			s, err := StartServer(dir, sync)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			a, err := NewAppend(t.Context(), s, true)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			h, err := a.Run(t.Context(), 0, 50*time.Millisecond)
			if err != nil || h.TotalCount() == 0 {
				t.Fatalf("%d appends: %v", h.TotalCount(), err)
			}
			info, err := a.js.Stream(t.Context(), "FLOOR_APPEND")
			if err != nil || int64(info.CachedInfo().State.Msgs) < h.TotalCount() {
				t.Fatalf("%+v holds less than %d: %v", info, h.TotalCount(), err)
			}

			const n = 3000
			tp, err := NewTopics(t.Context(), s, rows.Native(), rows.Keys, n)
			if err != nil {
				t.Fatal(err)
			}
			defer tp.Close()
			for range 2 { // each run begins at the beginning
				if rate, err := tp.Run(t.Context(), time.Minute); err != nil || rate <= 0 {
					t.Fatalf("rate %v: %v", rate, err)
				}
				out, err := tp.js.Stream(t.Context(), topicsOut)
				if err != nil || out.CachedInfo().State.Msgs != n {
					t.Fatalf("copied %d of %d: %v", out.CachedInfo().State.Msgs, n, err)
				}
				m, err := out.GetMsg(t.Context(), out.CachedInfo().State.LastSeq)
				if err != nil || m.Header.Get("Leat-Key") != rows.Keys[(n-1)%rows.N] || string(m.Data) != string(rows.Native()[(n-1)%rows.N]) {
					t.Fatalf("the last copy is %+v: %v", m, err)
				}
				if err := tp.Empty(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if d, err := Fsync(t.TempDir(), 5); err != nil || d <= 0 {
		t.Fatalf("fsync %v: %v", d, err)
	}
}

func TestKafka(t *testing.T) {
	brokers := broker.Start(t, 1).Bootstrap()
	rows := sample(t).Complete(16)
	e, err := StartKafkaEcho(t.Context(), brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, n := range []int{1, 64} {
		if r, err := e.Run(t.Context(), rows.Native(), counted(n, rows.Native())); err != nil || r.Err() != nil || r.Answers != 2000 {
			t.Fatalf("%d in flight: %+v, %v", n, r, err)
		}
	}
	a, err := NewKafkaAppend(t.Context(), brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	h, err := a.Run(t.Context(), 0, 50*time.Millisecond)
	if err != nil || h.TotalCount() == 0 {
		t.Fatalf("%d appends: %v", h.TotalCount(), err)
	}

	const n, partitions = 3000, 3
	tp, err := NewKafkaTopics(t.Context(), brokers, "in", partitions, rows.Native(), rows.Keys, n)
	if err != nil {
		t.Fatal(err)
	}
	if rate, err := tp.Fetch(t.Context(), time.Minute); err != nil || rate <= 0 {
		t.Fatalf("rate %v: %v", rate, err)
	}
	for _, run := range []func(*KafkaTopics, context.Context, time.Duration) (float64, error){(*KafkaTopics).Loop, (*KafkaTopics).Copy, (*KafkaTopics).Copy} {
		if rate, err := run(tp, t.Context(), time.Minute); err != nil || rate <= 0 {
			t.Fatalf("rate %v: %v", rate, err)
		}
	}
	// What is copied is the same, in its order.
	if err := bare.Make(t.Context(), brokers, "out", partitions); err != nil {
		t.Fatal(err)
	}
	k, err := bare.Dial(t.Context(), brokers, "in", "out")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for p, end := range tp.ends {
		left := end
		if err := copyPartition(t.Context(), k, "in", "out", p, func(n int) bool { left -= int64(n); return left > 0 }); err != nil {
			t.Fatal(err)
		}
		if in, out := contents(t, k, "in", p, end), contents(t, k, "out", p, end); !slices.Equal(in, out) {
			t.Errorf("partition %d: %d records became %d", p, len(in), len(out))
		}
	}
	if rate, err := k.Rate(t.Context(), "out", n); err != nil || rate <= 0 {
		t.Errorf("rate %v: %v", rate, err)
	}
	if _, err := k.Rate(t.Context(), "out", n+1); err == nil {
		t.Error("a topic of too few records is taken")
	}
}

// contents returns keys and values of a partition.
func contents(t *testing.T, k *bare.Kafka, topic string, partition int, end int64) (all []string) {
	t.Helper()
	for at := int64(0); at < end; {
		rs, next, err := k.Fetch(t.Context(), topic, partition, at)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rs {
			key, err := kafka.ReadAll(rs[i].Key)
			if err != nil {
				t.Fatal(err)
			}
			value, err := kafka.ReadAll(rs[i].Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(key)+" "+string(value))
		}
		at = next
	}
	return all
}

func TestONNX(t *testing.T) {
	lib, err := ortlib.Find(ortlib.Search{Env: os.Getenv("LEAT_ONNXRUNTIME")})
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(filepath.Join(example, "flight-boost", "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	rows := sample(t)
	o, err := NewONNX(lib.Path, model, rows)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}()
	h, err := o.One(0, 50*time.Millisecond)
	if err != nil || h.TotalCount() == 0 {
		t.Fatalf("%d runs: %v", h.TotalCount(), err)
	}
	size, rate, err := o.BestBatch(2, 50*time.Millisecond)
	if err != nil || rate <= 0 || size < Sizes[0] {
		t.Fatalf("%d rows, %v/s: %v", size, rate, err)
	}
	if _, err := o.Bulk(rows.N+1, 1, time.Millisecond); err == nil {
		t.Error("a batch larger than the sample is taken")
	}
	// A flight that leaves two hours late arrives late; one that leaves early does not.
	row := append([]float32(nil), rows.Complete(1).Row(0)...)
	row[0] = 120
	if p, err := o.Late(row); err != nil || p < 0.9 {
		t.Errorf("two hours late: %v, %v", p, err)
	}
	row[0] = -10
	if p, err := o.Late(row); err != nil || p > 0.4 {
		t.Errorf("early: %v, %v", p, err)
	}
}

func TestCheck(t *testing.T) {
	same := NewScale(RefEcho1.Latency, RefEcho64.Rate)
	fast := NewScale(RefEcho1.Latency/2, RefEcho64.Rate*2)
	for _, c := range []struct {
		ref   Reference
		value float64
		scale Scale
		ok    bool
	}{
		{RefAppend, float64(100 * time.Microsecond), same, true},
		{RefAppend, float64(140 * time.Microsecond), same, false},
		{RefAppend, float64(100 * time.Microsecond), fast, false},
		{RefHTTP64, 28_000, same, true},
		{RefHTTP64, 26_000, same, false},
		{RefHTTP64, 50_000, fast, false},
		{RefAppendSynced(time.Millisecond), float64(2 * time.Millisecond), same, true},
		{RefAppendSynced(0), float64(2 * time.Millisecond), same, false},
		{RefTopicsSynced(0), 3_000, same, false},
		{RefTopicsSynced(time.Millisecond), 500, same, true},
	} {
		if err := c.ref.Check("floor", c.value, c.scale); (err == nil) != c.ok {
			t.Errorf("%+v of %v at %+v: %v", c.ref, c.value, c.scale, err)
		}
	}
}
