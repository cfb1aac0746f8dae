package onnx_test

import (
	"context"
	"testing"

	"github.com/leatstream/leat/scorers"
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
		{pkg(t, "columns", nullable("delay", "distance")...), 300_000},
		{pkg(t, "zipmap"), 300_000},
	} {
		t.Run(c.p.Manifest.Name, func(t *testing.T) {
			if err := scorertest.Memory(t.Context(), fixture(t, c.p), c.rows); err != nil {
				t.Error(err)
			}
		})
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
