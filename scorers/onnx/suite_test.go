package onnx_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx"
	"github.com/leatstream/leat/scorers/scorertest"
)

func fixture(t testing.TB, p scorers.Package) *scorertest.Fixture {
	t.Helper()
	p, probed := prepared(t, p)
	l := loader(t)
	return &scorertest.Fixture{
		Class:     probed.Class,
		Tolerance: probed.Tolerance,
		Open:      func(ctx context.Context) (scorers.Scorer, error) { return l.Load(ctx, p, probed) },
	}
}

func nullable(names ...string) []scorers.Annotation {
	as := make([]scorers.Annotation, len(names))
	for i, n := range names {
		as[i] = scorers.Annotation{Name: n, Nullable: true}
	}
	return as
}

// anyInvariant is for matrix products, whose kernels, and so the need of padding, differ between processors.
const anyInvariant scorers.Class = "one of the invariant ones"

func TestSuite(t *testing.T) {
	for _, c := range []struct {
		p     scorers.Package
		class scorers.Class
		sig   string // inputs -> outputs
	}{
		{pkg(t, "linear"), scorers.InvariantPadded, "features float32[13] -> label int64, probabilities float32[2]"},
		{pkg(t, "zipmap"), scorers.InvariantPadded, "x float32[4] -> output_label string, output_probability float32[3]"},
		{pkg(t, "columns", nullable("delay", "distance")...), scorers.InvariantPadded, "carrier string, delay float32?, distance float32? -> label int64, probabilities float32[2]"},
		{pkg(t, "forest"), scorers.BatchInvariant, "x float32[8] -> label int64, probabilities float32[2]"},
		{pkg(t, "lightgbm", nullable("x")...), scorers.BatchInvariant, "x float32[6]? -> label int64, probabilities float32[2]"},
		{pkg(t, "double"), anyInvariant, "x float64[5] -> variable float64"},
		{pkg(t, "mlp"), anyInvariant, "x float32[32] -> variable float32"},
		{pkg(t, "half"), scorers.BatchInvariant, "x float16[3] -> y float16[3]"},
		{pkg(t, "integers"), scorers.BatchInvariant, "a int64, b int64, flag bool -> sum int64, both bool"},
		{pkg(t, "fixed4"), scorers.BatchInvariant, "x float32[3] -> sum float32, most float32"},
		{pkg(t, "fixed1"), scorers.BatchInvariant, "x float32[3] -> sum float32, most float32"},
		{pkg(t, "unbatched"), scorers.BatchInvariant, "x float32[3] -> y float32[3]"},
		{pkg(t, "text", nullable("s")...), scorers.BatchInvariant, "s string? -> code int64, echo string"},
		{pkg(t, "constant"), scorers.BatchInvariant, "x float32[2] -> y float32[2], threshold float32"},
		{pkg(t, "embedding"), scorers.BatchInvariant, "id int64 -> vector float32[4]"},
		{pkg(t, "external"), anyInvariant, "x float32[64] -> y float32[16]"},
		{pkg(t, "types"), scorers.BatchInvariant, "bool bool, int8 int8, int16 int16[2], int32 int32[2,3], int64 int64, uint8 uint8, uint16 uint16[2], uint32 uint32[2,3], uint64 uint64, float16 float16, float32 float32[2], float64 float64[2,3], string string -> " +
			"bool_out bool, int8_out int8, int16_out int16[2], int32_out int32[2,3], int64_out int64, uint8_out uint8, uint16_out uint16[2], uint32_out uint32[2,3], uint64_out uint64, float16_out float16, float32_out float32[2], float64_out float64[2,3], string_out string"},
	} {
		t.Run(c.p.Manifest.Name, func(t *testing.T) {
			_, probed := prepared(t, c.p)
			t.Logf("%s %g %q", probed.Class, probed.Tolerance, probed.Notes)
			if got := probed.Signature.Inputs.String() + " -> " + probed.Signature.Outputs.String(); got != c.sig {
				t.Errorf("signature %s\nwant      %s", got, c.sig)
			}
			if probed.Class != c.class && (c.class != anyInvariant || probed.Class == scorers.BatchVariant) {
				t.Errorf("class %s, want %s", probed.Class, c.class)
			}
			scorertest.Run(t, fixture(t, c.p))
		})
	}
}

// TestMemoryFlat scores a million rows of each kind of tensor: numbers, strings in, strings out.
func TestMemoryFlat(t *testing.T) {
	for _, c := range []struct {
		p    scorers.Package
		rows int
	}{
		{pkg(t, "forest"), 1_000_000},
		{pkg(t, "columns", nullable("delay", "distance")...), 1_000_000},
		{pkg(t, "zipmap"), 1_000_000},
	} {
		t.Run(c.p.Manifest.Name, func(t *testing.T) {
			if err := scorertest.Memory(t.Context(), fixture(t, c.p), c.rows); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForgottenScorer: a scorer that nobody closed is freed, and does not end the process.
func TestForgottenScorer(t *testing.T) {
	p, probed := prepared(t, pkg(t, "linear"))
	for range 3 {
		if _, err := loader(t).Load(t.Context(), p, probed); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		runtime.GC()
	}
}

// TestAllocations: a score of numbers allocates nothing in Go once its batch size was seen.
func TestAllocations(t *testing.T) {
	for _, name := range []string{"flight-boost", "linear", "integers", "fixed4"} {
		s, _ := load(t, pkg(t, name))
		for _, n := range []int{1, 64, 1500} {
			in := scorertest.Rows(s.Signature().Inputs, n)
			out := schemas.NewBatch(s.Signature().Outputs)
			got := testing.AllocsPerRun(20, func() {
				out.Reset()
				if err := s.Score(t.Context(), in, out); err != nil {
					t.Error(err)
				}
			})
			if got > 0 {
				t.Errorf("%s, %d rows: %g allocations, want none", name, n, got)
			}
		}
	}
}

// TestSlotsCapRuns: all scorers of a process share the slots, and a full house makes a score wait for its deadline.
func TestSlotsCapRuns(t *testing.T) {
	slots := scorers.NewSlots(1)
	l, err := onnx.New(onnx.Config{Library: library}, slots, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, probed := prepared(t, pkg(t, "forest"))
	s, err := l.Load(t.Context(), p, probed)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := slots.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	in, out := scorertest.Rows(s.Signature().Inputs, 1), schemas.NewBatch(s.Signature().Outputs)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Score(ctx, in, out); schemas.KindOf(err) != schemas.Expired {
		t.Errorf("got %v", err)
	}
	slots.Release()
	if err := s.Score(t.Context(), in, out); err != nil || slots.InUse() != 0 {
		t.Errorf("got %v, %d slots in use", err, slots.InUse())
	}
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	l, err := onnx.New(onnx.Config{Library: library}, nil, onnx.NewMetrics(r))
	if err != nil {
		t.Fatal(err)
	}
	p, probed := prepared(t, pkg(t, "forest"))
	s, err := l.Load(t.Context(), p, probed)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	one(t, s, scorertest.Rows(s.Signature().Inputs, 1030)) // two runs, after the one that warms up
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		if f.GetName() == "leat_onnx_run_seconds" && m.GetHistogram().GetSampleCount() != 3 {
			t.Errorf("%d runs counted", m.GetHistogram().GetSampleCount())
		}
	}
	if got["leat_onnx_run_rows"] != 1031 || got["leat_onnx_runs_in_flight"] != 0 || got["leat_onnx_run_seconds"] <= 0 {
		t.Errorf("got %v", got)
	}
}

// TestTypesRoundTrip sends every type through a model that changes nothing, nulls and strange strings included.
func TestTypesRoundTrip(t *testing.T) {
	s, _ := load(t, pkg(t, "types"))
	in := scorertest.Rows(s.Signature().Inputs, 300)
	out := one(t, s, in)
	for i := range in.Schema().Len() {
		a, b := in.Column(i), out.Column(i)
		if string(a.Data()) != string(b.Data()) {
			t.Errorf("column %s changed", a.Field().Name)
		}
	}
}
