package kafka

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// replayed reads all spans of a topic and returns the payloads by position; each span comes in order, once, and ends.
func replayed(t testing.TB, ctx context.Context, c *Client, topic string, start connectors.Start) map[schemas.Position]string {
	t.Helper()
	spans, err := c.Spans(ctx, topic, start)
	must(t, err)
	out := map[schemas.Position]string{}
	for _, s := range spans {
		src, err := c.Open(ctx, s)
		must(t, err)
		last := uint64(0)
		for {
			ds, err := src.Receive(ctx, 100)
			if errors.Is(err, schemas.ErrDrained) {
				break
			}
			must(t, err)
			for _, d := range ds {
				if d.From.Sequence <= last || d.From.Sequence < s.First || d.From.Sequence > s.Last {
					t.Fatalf("span %+v: %v after %d", s, d.From, last)
				}
				last = d.From.Sequence
				out[d.From] = string(d.Payload)
			}
		}
		must(t, src.Close(ctx))
	}
	return out
}

// same compares what was replayed with what an independent client reads.
func same(t testing.TB, ctx context.Context, c *Client, topic string, got map[schemas.Position]string) {
	t.Helper()
	must(t, differs(t, ctx, c, topic, got))
}

func differs(t testing.TB, ctx context.Context, c *Client, topic string, got map[schemas.Position]string) error {
	t.Helper()
	last := map[int32]int64{}
	for p := range got {
		last[p.Partition] = max(last[p.Partition], int64(p.Sequence)-1)
	}
	want := 0
	for _, r := range franzTo(t, ctx, c, c.name(topic), last) {
		if r.Offset > last[r.Partition] {
			continue
		}
		want++
		p := schemas.Position{Stream: topic, Partition: r.Partition, Sequence: uint64(r.Offset) + 1}
		if v, ok := got[p]; !ok || v != string(r.Value) {
			return fmt.Errorf("%v is %q (there: %v), franz-go has %q", p, v, ok, r.Value)
		}
	}
	if want != len(got) {
		return fmt.Errorf("%d records replayed, %d read by franz-go", len(got), want)
	}
	return nil
}

func franzClient(t testing.TB, c *Client, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	k, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.cfg.Bootstrap...)}, opts...)...)
	must(t, err)
	t.Cleanup(k.Close)
	return k
}

// TestTransactions: committed records are read, aborted ones, markers and open ones are not, and nothing of it stops
// or spins a reader.
func TestTransactions(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.EnsureTopic(ctx, "t", 1))
	topic := c.name("t")
	writers := make([]*kgo.Client, 3)
	for i := range writers {
		writers[i] = franzClient(t, c, kgo.DefaultProduceTopic(topic), kgo.TransactionalID(c.name(fmt.Sprint("w", i))), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	}
	write := func(k *kgo.Client, values ...string) {
		t.Helper()
		for _, v := range values { // one batch each
			must(t, k.ProduceSync(ctx, &kgo.Record{Value: []byte(v)}).FirstErr())
		}
	}
	want := 0
	for i := range 9 {
		// Three transactions interleave; one in three is dropped, and plain records come between.
		for _, w := range writers {
			must(t, w.BeginTransaction())
		}
		for j, w := range writers {
			write(w, fmt.Sprintf("%d-%d-a", i, j))
		}
		_, err := c.Publish(ctx, []schemas.Message{{Topic: "t", Payload: fmt.Appendf(nil, "plain-%d", i)}})
		must(t, err)
		want++
		for j, w := range writers {
			write(w, fmt.Sprintf("%d-%d-b", i, j))
			commit := (i+j)%3 != 0
			must(t, w.EndTransaction(ctx, kgo.TransactionEndTry(commit)))
			want += 2 * b2i(commit)
		}
	}
	// An abort is the last thing in the log: a trailing marker must not spin a reader.
	must(t, writers[0].BeginTransaction())
	write(writers[0], "dropped")
	must(t, writers[0].EndTransaction(ctx, kgo.TryAbort))
	got := replayed(t, ctx, c, "t", connectors.Start{})
	if len(got) != want {
		t.Fatalf("%d records, want %d", len(got), want)
	}
	same(t, ctx, c, "t", got)

	// Records of an open transaction are not there yet, neither in a span nor for a fetcher that waits.
	must(t, writers[1].BeginTransaction())
	write(writers[1], "open")
	_, err := c.Publish(ctx, []schemas.Message{{Topic: "t", Payload: []byte("behind it")}})
	must(t, err)
	if n := len(replayed(t, ctx, c, "t", connectors.Start{})); n != want {
		t.Fatalf("%d records beside an open transaction, want %d", n, want)
	}
	f := c.newFetcher("t", 0, fromEnd)
	if rs, err := f.next(ctx, 50*time.Millisecond); err != nil || len(rs) > 0 {
		t.Fatalf("%d records of an open transaction, %v", len(rs), err)
	}
	must(t, writers[1].EndTransaction(ctx, kgo.TryCommit))
	rs := drain(t, ctx, f, 2)
	if string(rs[0].value) != "open" || string(rs[1].value) != "behind it" {
		t.Fatalf("%s, %s", rs[0].value, rs[1].value)
	}
}

// TestCodecs: what other clients compress is read.
func TestCodecs(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.EnsureTopic(ctx, "t", 3))
	n := 0
	for _, codec := range []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(), kgo.NoCompression()} {
		k := franzClient(t, c, kgo.DefaultProduceTopic(c.name("t")), kgo.ProducerBatchCompression(codec))
		var rs []*kgo.Record
		for range 500 {
			rs = append(rs, &kgo.Record{Key: fmt.Append(nil, n%11), Value: fmt.Appendf(nil, "a value that can be compressed, number %d", n)})
			n++
		}
		must(t, k.ProduceSync(ctx, rs...).FirstErr())
	}
	got := replayed(t, ctx, c, "t", connectors.Start{})
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	same(t, ctx, c, "t", got)
}

// TestGaps: compaction, deletion and a span that is gone altogether end a replay no earlier and no later than they
// should.
func TestGaps(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.ensure(ctx, "test", "t", TopicSpec{Partitions: 1, Settings: map[string]string{
		"cleanup.policy": "compact", "segment.ms": "20", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0", "min.compaction.lag.ms": "0",
	}}))
	// Whole batches of one writer vanish, and the ends of others.
	k := franzClient(t, c, kgo.DefaultProduceTopic(c.name("t")))
	written := 0
	write := func(n, keys int) {
		t.Helper()
		var rs []*kgo.Record
		for i := range n {
			rs = append(rs, &kgo.Record{Key: fmt.Append(nil, i%keys), Value: fmt.Append(nil, written+i)})
		}
		written += n
		must(t, k.ProduceSync(ctx, rs...).FirstErr())
	}
	until(t, ctx, "compaction", func() error {
		write(50, 10)
		time.Sleep(25 * time.Millisecond) // so that the next record begins a segment
		if _, err := c.Publish(ctx, texts("t", 20)); err != nil {
			return err
		}
		written += 20
		got := replayed(t, ctx, c, "t", connectors.Start{})
		if len(got) > written/3 || written < 500 {
			return fmt.Errorf("%d of %d records are left", len(got), written)
		}
		t.Logf("%d of %d records are left", len(got), written)
		return nil
	})
	// It goes on meanwhile: sooner or later both read the same.
	until(t, ctx, "two equal readings", func() error {
		return differs(t, ctx, c, "t", replayed(t, ctx, c, "t", connectors.Start{}))
	})

	spans, err := c.Spans(ctx, "t", connectors.Start{})
	must(t, err)
	adm := kadm.NewClient(franzClient(t, c))
	cut := spans[0].Last - 5
	// Compacted topics cannot be cut: another one can.
	_, err = adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "cleanup.policy", Value: kadm.StringPtr("delete")}}, c.name("t"))
	must(t, err)
	deleteTo := func(offset int64) {
		t.Helper()
		until(t, ctx, "the deletion of records", func() error {
			_, err := adm.DeleteRecords(ctx, kadm.Offsets{c.name("t"): {0: {Topic: c.name("t"), Partition: 0, At: offset}}})
			if err != nil {
				return err
			}
			now, err := c.Spans(ctx, "t", connectors.Start{})
			if err == nil && now[0].First != uint64(offset)+1 {
				err = fmt.Errorf("the first is %d", now[0].First)
			}
			return err
		})
	}
	deleteTo(int64(cut))
	read := func(s connectors.Span) (n int) {
		t.Helper()
		src, err := c.Open(ctx, s)
		must(t, err)
		defer src.Close(ctx)
		for {
			ds, err := src.Receive(ctx, 10)
			if errors.Is(err, schemas.ErrDrained) {
				return n
			}
			must(t, err)
			n += len(ds)
		}
	}
	if n := read(spans[0]); n > 5 || n == 0 {
		t.Fatalf("%d records after all but five offsets were deleted", n)
	}
	deleteTo(int64(spans[0].Last))
	if n := read(spans[0]); n != 0 {
		t.Fatalf("%d records after all were deleted", n)
	}
	// A topic of the same name that is made anew is another one: the old span is gone, and ends.
	_, err = c.Publish(ctx, texts("t", 10))
	must(t, err)
	spans, err = c.Spans(ctx, "t", connectors.Start{})
	must(t, err)
	must(t, c.DeleteTopic(ctx, "t"))
	must(t, c.EnsureTopic(ctx, "t", 1))
	if n := read(spans[0]); n != 0 {
		t.Fatalf("%d records of a topic that is gone", n)
	}
}
