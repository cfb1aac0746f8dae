//go:build !race

// The race detector makes sync.Pool forget at random, so allocations are counted without it.

package pipeline

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/scorers"
)

// The hot path is counted here: from Receive to Respond, with the real codec, batcher, committer and records, between a
// source and a responder that do nothing but hand over. The append itself is the lineage's to count.

// handOver is a source of requests and their responder.
type handOver struct {
	in      chan []*connectors.Delivery
	answers chan int
}

func (h *handOver) Receive(ctx context.Context, _ int) ([]*connectors.Delivery, error) {
	select {
	case ds, ok := <-h.in:
		if !ok {
			return nil, schemas.ErrDrained
		}
		return ds, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (h *handOver) Drain()                      { close(h.in) }
func (h *handOver) Close(context.Context) error { return nil }
func (h *handOver) Respond(_ context.Context, rs []connectors.Response) error {
	h.answers <- len(rs)
	return nil
}

// sum adds up the columns of a row.
type sum struct{ sig schemas.Signature }

func (s sum) Signature() schemas.Signature { return s.sig }
func (s sum) Close() error                 { return nil }
func (s sum) Score(_ context.Context, in, out *schemas.Batch) error {
	o := out.Column(0)
	for r := range in.Rows() {
		total := float32(0)
		for c := range in.Schema().Len() {
			total += schemas.Values[float32](in.Column(c))[r]
		}
		schemas.Append(o, total)
		o.EndRow()
	}
	out.Advance(in.Rows())
	return nil
}
func (s sum) Runtime() string { return "sum" }
func (s sum) Prepare(_ context.Context, p scorers.Package) (scorers.Package, error) {
	return p, nil
}
func (s sum) Probe(context.Context, scorers.Package) (scorers.Probed, error) {
	return scorers.Probed{}, nil
}
func (s sum) Load(context.Context, scorers.Package, scorers.Probed) (scorers.Scorer, error) {
	return s, nil
}
func (s sum) Version(_ context.Context, name string, v int) (scorers.Version, error) {
	return scorers.Version{Name: name, Version: v, Digest: "aa", Manifest: scorers.Manifest{Runtime: "sum"}}, nil
}
func (s sum) Versions(context.Context, string) ([]scorers.Version, error) { return nil, nil }
func (s sum) Open(context.Context, scorers.Version) (scorers.Package, error) {
	return scorers.Package{}, nil
}

type silent struct{}

func (silent) Append(_ context.Context, r *lineage.Records) (schemas.Position, error) {
	return schemas.Position{Stream: "L", Sequence: uint64(r.Len())}, nil
}

// Allocations that a request of one row may cost: 9 were measured for one that comes alone, 3.1 for one among 64 that come
// together. Three are its own: the reply's header (a map, two) and the id that it gets. The others are shared: the values
// of the headers, the append's deadline (four) and the committer's goroutine.
const (
	allowedAlone    = 10
	allowedTogether = 3.5
)

func hotPath(tb testing.TB, together int) (step func()) {
	var fields []schemas.Field
	row := `{"rows":[{`
	for i := range 13 {
		name := string(rune('a' + i))
		fields = append(fields, schemas.Field{Name: name, Type: schemas.Float32})
		if i > 0 {
			row += ","
		}
		row += `"` + name + `":1.5`
	}
	row += `}]}`
	s := sum{schemas.Signature{Inputs: schemas.MustSchema(fields...), Outputs: schemas.MustSchema(schemas.Field{Name: "sum", Type: schemas.Float32})}}
	door := &handOver{in: make(chan []*connectors.Delivery, 1), answers: make(chan int, together)}
	seen := make(chan struct{})
	rev := &Revision{
		Revision: "revision-of-sum", SpecDigest: "s1", Models: []ResolvedModel{{Node: RootPath, Name: "sum", Version: 1}},
		Spec: Spec{Name: "sum", Lineage: Strict, Deadline: DefaultDeadline, Route: Node{Model: "sum@1"}},
	}
	h, err := NewHost(DefaultConfig(), Deps{
		Watch: func(ctx context.Context, fn func(string, *Revision)) error {
			fn("sum", rev)
			fn("", nil)
			close(seen)
			<-ctx.Done()
			return ctx.Err()
		},
		Store: s, Loaders: []scorers.Loader{s}, Lineage: silent{}, Codec: codec.For, Log: slog.New(slog.DiscardHandler),
		Online: func(context.Context, string) ([]Binding, error) {
			return []Binding{{Via: "nats", Source: door, Responder: door}}, nil
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(tb.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx, time.Second); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() { cancel(); wg.Wait() })
	<-seen
	ds := make([]*connectors.Delivery, together)
	for i := range ds {
		ds[i] = &connectors.Delivery{Message: schemas.Message{Topic: "sum", Payload: []byte(row)}, ReplyTo: "me", Attempt: 1}
	}
	return func() {
		door.in <- ds
		for n := 0; n < together; {
			n += <-door.answers
		}
	}
}

func TestAllocationsOnTheHotPath(t *testing.T) {
	for _, c := range []struct {
		together int
		allowed  float64
	}{{1, allowedAlone}, {64, allowedTogether}} {
		step := hotPath(t, c.together)
		for range 200 { // pools and batches reach their size
			step()
		}
		got := testing.AllocsPerRun(500, step) / float64(c.together)
		t.Logf("%d together: %.2f allocations a request", c.together, got)
		if got > c.allowed {
			t.Errorf("%d together: %.2f allocations a request, at most %v are allowed", c.together, got, c.allowed)
		}
	}
}

func BenchmarkHotPath(b *testing.B) {
	for _, c := range []struct {
		name     string
		together int
	}{{"alone", 1}, {"64 together", 64}} {
		b.Run(c.name, func(b *testing.B) {
			step := hotPath(b, c.together)
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.together), "ns/request")
		})
	}
}
