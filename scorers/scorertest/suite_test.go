package scorertest

import (
	"context"
	"sync"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

var doubled = schemas.Signature{
	Inputs:  schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float64}),
	Outputs: schemas.MustSchema(schemas.Field{Name: "y", Type: schemas.Float64}),
}

// double is a scorer in a few lines that keeps the contract, with a hook for each way to break it.
type double struct {
	mu     sync.RWMutex
	closed bool
	fault  func(ctx context.Context, s *double, in, out *schemas.Batch) (done bool, err error)
	shared []float64 // for the fault of a buffer that runs share
	leak   [][]byte
}

func (d *double) Signature() schemas.Signature { return doubled }

func (d *double) Score(ctx context.Context, in, out *schemas.Batch) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.fault != nil {
		if done, err := d.fault(ctx, d, in, out); done {
			return err
		}
	}
	if d.closed {
		return schemas.Errorf(schemas.Unavailable, "double", "closed")
	}
	if err := ctx.Err(); err != nil {
		return schemas.AsError("double", err)
	}
	if in.Schema().ID() != doubled.Inputs.ID() || out.Schema().ID() != doubled.Outputs.ID() {
		return schemas.Errorf(schemas.Invalid, "double", "schema")
	}
	for _, x := range schemas.Values[float64](in.Column(0)) {
		schemas.Append(out.Column(0), 2*x)
		out.Column(0).EndRow()
	}
	out.Advance(in.Rows())
	return nil
}

func (d *double) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func fixture(fault func(ctx context.Context, s *double, in, out *schemas.Batch) (bool, error)) *Fixture {
	return &Fixture{
		Class: scorers.BatchInvariant,
		Open: func(context.Context) (scorers.Scorer, error) {
			return &double{fault: fault, shared: make([]float64, 4096)}, nil
		},
	}
}

func TestSuitePasses(t *testing.T) {
	Run(t, fixture(nil))
	if err := Memory(t.Context(), fixture(nil), 100_000); err != nil {
		t.Error(err)
	}
}

// put appends answers as they are.
func put(out *schemas.Batch, ys ...float64) {
	for _, y := range ys {
		schemas.Append(out.Column(0), y)
		out.Column(0).EndRow()
	}
	out.Advance(len(ys))
}

func TestPlantedFaultsAreCaught(t *testing.T) {
	type fault = func(ctx context.Context, s *double, in, out *schemas.Batch) (bool, error)
	right := func(ctx context.Context, in, out *schemas.Batch) bool {
		return ctx.Err() == nil && in.Schema().ID() == doubled.Inputs.ID() && out.Schema().ID() == doubled.Outputs.ID()
	}
	for _, c := range []struct {
		check string
		fault fault
	}{
		{"rows out are rows in, in order", func(ctx context.Context, s *double, in, out *schemas.Batch) (bool, error) {
			xs := schemas.Values[float64](in.Column(0)) // answers in the order of the first batch's places
			ys := make([]float64, len(xs))
			for i := range xs {
				ys[i] = 2 * xs[(i+1)%len(xs)]
			}
			put(out, ys...)
			return true, nil
		}},
		{"an empty batch gives no rows", func(_ context.Context, _ *double, in, out *schemas.Batch) (bool, error) {
			if in.Rows() == 0 {
				put(out, 0)
			}
			return in.Rows() == 0, nil
		}},
		{"every batch size gives the same answers", func(_ context.Context, _ *double, in, out *schemas.Batch) (bool, error) {
			if in.Rows() != 777 {
				return false, nil
			}
			ys := make([]float64, 777)
			for i, x := range schemas.Values[float64](in.Column(0)) {
				ys[i] = 2*x + 1e-15
			}
			put(out, ys...)
			return true, nil
		}},
		{"a larger batch than any piece gives the same answers", func(_ context.Context, _ *double, in, out *schemas.Batch) (bool, error) {
			if in.Rows() > 1024 {
				put(out, make([]float64, 1024)...)
			}
			return in.Rows() > 1024, nil
		}},
		{"answers are appended and belong to the caller", func(_ context.Context, _ *double, in, out *schemas.Batch) (bool, error) {
			out.Reset()
			return false, nil
		}},
		{"concurrent scores do not disturb each other", func(_ context.Context, s *double, in, out *schemas.Batch) (bool, error) {
			s.shared[0]++ // stands for a buffer that runs share: later batches see what earlier ones left
			put(out, append(make([]float64, in.Rows()-1), s.shared[0])...)
			return true, nil
		}},
		{"a cancelled context ends a score", func(ctx context.Context, _ *double, in, out *schemas.Batch) (bool, error) {
			if ctx.Err() != nil {
				put(out, make([]float64, in.Rows())...)
			}
			return ctx.Err() != nil, nil
		}},
		{"a wrong schema is refused", func(ctx context.Context, _ *double, in, out *schemas.Batch) (bool, error) {
			if right(ctx, in, out) || in.Rows() == 0 {
				return false, nil
			}
			return true, schemas.Errorf(schemas.Internal, "double", "panicked")
		}},
		{"close waits, repeats and refuses", func(_ context.Context, s *double, in, out *schemas.Batch) (bool, error) {
			if s.closed {
				return true, schemas.Errorf(schemas.Internal, "double", "nil pointer")
			}
			return false, nil
		}},
	} {
		t.Run(c.check, func(t *testing.T) {
			for _, k := range Checks() {
				if k.Name != c.check {
					continue
				}
				f := fixture(c.fault)
				if c.check == "concurrent scores do not disturb each other" {
					f = fixture(locked(c.fault))
				}
				err := k.Run(t.Context(), f)
				if err == nil {
					t.Fatal("the fault was not seen")
				}
				t.Log(err)
				return
			}
			t.Fatal("no such check")
		})
	}
}

// locked keeps a planted fault from being a data race of the test itself.
func locked(fault func(ctx context.Context, s *double, in, out *schemas.Batch) (bool, error)) func(context.Context, *double, *schemas.Batch, *schemas.Batch) (bool, error) {
	var mu sync.Mutex
	return func(ctx context.Context, s *double, in, out *schemas.Batch) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		return fault(ctx, s, in, out)
	}
}

func TestMemoryFaultIsCaught(t *testing.T) {
	f := fixture(func(_ context.Context, s *double, in, _ *schemas.Batch) (bool, error) {
		b := make([]byte, 4096)
		for i := range b {
			b[i] = 1 // resident, not only reserved
		}
		s.leak = append(s.leak, b)
		return false, nil
	})
	if err := Memory(t.Context(), f, 1_000_000); err == nil {
		t.Fatal("a leak of 4 kB a score was not seen")
	}
}
