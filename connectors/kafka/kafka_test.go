package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/integration/kafka/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }

// testLog shows what the client has to say when a test fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

var prefixes atomic.Int32

// testConfig keeps tests that share a broker apart by a prefix of their own.
func testConfig(b *broker.Cluster) Config {
	c := Default()
	c.Bootstrap = b.Addrs()
	c.Prefix = fmt.Sprintf("t%d-%d.", prefixes.Add(1), time.Now().UnixNano()%1e6)
	return c
}

func dialConfig(t testing.TB, c Config) *Client {
	t.Helper()
	cl, err := Dial(t.Context(), c, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// open returns a client on the shared broker, with a prefix of its own.
func open(t testing.TB) *Client {
	t.Helper()
	return dialConfig(t, testConfig(broker.Shared(t)))
}

// limit bounds every test.
const testLimit = 60 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// drain fetches a partition from its first record until so many were read.
func drain(t testing.TB, ctx context.Context, f *fetcher, n int) []fetched {
	t.Helper()
	var out []fetched
	for len(out) < n {
		rs, err := f.next(ctx, time.Second)
		must(t, err)
		out = append(out, rs...)
	}
	return out
}

// TestProduceFetch stores 10,000 records of several calls at once and reads them back.
func TestProduceFetch(t *testing.T) {
	ctx := within(t)
	c := open(t)
	const partitions, n, writers = 3, 10_000, 8
	must(t, c.ensure(ctx, "test", "t", TopicSpec{Partitions: partitions}))
	type place struct {
		p int32
		o int64
	}
	where := make([]map[place]string, writers)
	done := make(chan error, writers)
	for w := range writers {
		where[w] = map[place]string{}
		go func() {
			for i := 0; i < n/writers; {
				var recs []record
				for ; len(recs) < 25 && i < n/writers; i++ {
					v := fmt.Sprintf("%d/%d", w, i)
					recs = append(recs, record{topic: c.name("t"), partition: int32(i % partitions), key: fmt.Appendf(nil, "w%d", w), value: []byte(v)})
				}
				offs, err := c.produce(ctx, recs)
				if err != nil {
					done <- err
					return
				}
				for j, o := range offs {
					where[w][place{recs[j].partition, o}] = string(recs[j].value)
				}
			}
			done <- nil
		}()
	}
	for range writers {
		must(t, <-done)
	}
	all := map[place]string{}
	for _, m := range where {
		for k, v := range m {
			if old, ok := all[k]; ok {
				t.Fatalf("%v holds %s and %s", k, old, v)
			}
			all[k] = v
		}
	}
	if len(all) != n {
		t.Fatalf("%d places for %d records", len(all), n)
	}
	ends, err := c.endOffsets(ctx, "test", "t")
	must(t, err)
	for p := range int32(partitions) {
		f := c.newFetcher("t", p, fromFirst)
		last := map[string]int{}
		for i, r := range drain(t, ctx, f, int(ends[p])) {
			if r.offset != int64(i) || all[place{p, r.offset}] != string(r.value) || r.time.IsZero() {
				t.Fatalf("partition %d: record %d at offset %d is %s, want %s", p, i, r.offset, r.value, all[place{p, r.offset}])
			}
			w, num, _ := strings.Cut(string(r.value), "/")
			var k int
			fmt.Sscan(num, &k)
			if old, ok := last[w]; ok && k <= old {
				t.Fatalf("partition %d: %d of writer %s comes after %d", p, k, w, old)
			}
			last[w] = k
		}
		if f.position() != ends[p] || f.lag() != 0 {
			t.Fatalf("position %d, lag %d, end %d", f.position(), f.lag(), ends[p])
		}
	}
}
