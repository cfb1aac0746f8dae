package onnx_test

import (
	"io/fs"
	"math"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
	"github.com/leatstream/leat/scorers/scorertest"
)

func TestPrepareKeepsWhatIsFit(t *testing.T) {
	p := pkg(t, "forest")
	got, err := loader(t).Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if got.Files != p.Files || got.Manifest.File != p.Manifest.File {
		t.Error("a model that needs nothing came back as another package")
	}
}

func TestPrepareGivesOneFile(t *testing.T) {
	for _, name := range []string{"zipmap", "external"} {
		p, err := loader(t).Prepare(t.Context(), pkg(t, name))
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		err = fs.WalkDir(p.Files, ".", func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				seen = append(seen, path)
			}
			return err
		})
		if err != nil || len(seen) != 1 || seen[0] != p.Manifest.File {
			t.Errorf("%s: files %q, %v; want %s alone", name, seen, err, p.Manifest.File)
		}
		b, err := fs.ReadFile(p.Files, p.Manifest.File)
		if err != nil {
			t.Fatal(err)
		}
		if err := onnxfile.CheckSelfContained(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := loader(t).Prepare(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if c, _ := fs.ReadFile(again.Files, again.Manifest.File); string(c) != string(b) {
			t.Errorf("%s: preparing twice changes the model", name)
		}
	}
}

// TestZipMapGone compares the probabilities with the labels: the label is the class of the largest one, by the names in
// the note.
func TestZipMapGone(t *testing.T) {
	s, probed := load(t, pkg(t, "zipmap"))
	if len(probed.Notes) != 1 || !strings.Contains(probed.Notes[0], "high, low, mid") {
		t.Fatalf("notes %q", probed.Notes)
	}
	classes := []string{"high", "low", "mid"}
	out := one(t, s, scorertest.Rows(s.Signature().Inputs, 200))
	ps := schemas.Values[float32](out.Column(1))
	for r := range out.Rows() {
		best, sum := 0, float32(0)
		for k := range classes {
			sum += ps[3*r+k]
			if ps[3*r+k] > ps[3*r+best] {
				best = k
			}
		}
		if got := string(out.Column(0).Text(r)); got != classes[best] {
			t.Fatalf("row %d: label %s, largest probability %s", r, got, classes[best])
		}
		if math.Abs(float64(sum)-1) > 1e-5 {
			t.Fatalf("row %d: probabilities add up to %g", r, sum)
		}
	}
}

// TestArithmetic checks values that are known without a runtime.
func TestArithmetic(t *testing.T) {
	t.Run("fixed4", func(t *testing.T) { // sums and maxima, whatever the padding
		s, probed := load(t, pkg(t, "fixed4"))
		if probed.MaxBatch != 4 {
			t.Errorf("MaxBatch %d", probed.MaxBatch)
		}
		for n := 1; n <= 9; n++ {
			in := scorertest.Rows(s.Signature().Inputs, n)
			out := one(t, s, in)
			x := schemas.Values[float32](in.Column(0))
			for r := range n {
				a, b, c := x[3*r], x[3*r+1], x[3*r+2]
				if sum := schemas.Values[float32](out.Column(0))[r]; math.Abs(float64(sum-(a+b+c))) > 1e-5 {
					t.Errorf("%d rows: row %d: sum %g of %g %g %g", n, r, sum, a, b, c)
				}
				if most := schemas.Values[float32](out.Column(1))[r]; most != max(a, b, c) {
					t.Errorf("%d rows: row %d: maximum %g of %g %g %g", n, r, most, a, b, c)
				}
			}
		}
	})
	t.Run("integers", func(t *testing.T) {
		s, _ := load(t, pkg(t, "integers"))
		in := scorertest.Rows(s.Signature().Inputs, 50)
		out := one(t, s, in)
		a, b := schemas.Values[int64](in.Column(0)), schemas.Values[int64](in.Column(1))
		for r := range 50 {
			flag := in.Column(2).Data()[r] == 1
			if sum := schemas.Values[int64](out.Column(0))[r]; sum != a[r]+b[r] {
				t.Errorf("row %d: %d + %d = %d", r, a[r], b[r], sum)
			}
			if both := out.Column(1).Data()[r] == 1; both != (a[r] > b[r] && flag) {
				t.Errorf("row %d: %d > %d and %v gave %v", r, a[r], b[r], flag, both)
			}
		}
	})
	t.Run("constant", func(t *testing.T) {
		s, _ := load(t, pkg(t, "constant"))
		out := one(t, s, scorertest.Rows(s.Signature().Inputs, 5))
		for r, v := range schemas.Values[float32](out.Column(1)) {
			if v != 0.5 {
				t.Errorf("row %d: %g", r, v)
			}
		}
	})
	t.Run("half", func(t *testing.T) {
		s, _ := load(t, pkg(t, "half"))
		in := scorertest.Rows(s.Signature().Inputs, 10) // 1 to 2: twice as much is one more in the exponent
		out := one(t, s, in)
		x, y := schemas.Values[uint16](in.Column(0)), schemas.Values[uint16](out.Column(0))
		for i := range x {
			if y[i] != x[i]+0x400 {
				t.Errorf("element %d: %#x doubled is %#x", i, x[i], y[i])
			}
		}
	})
}

func TestStrings(t *testing.T) {
	s, _ := load(t, pkg(t, "text", nullable("s")...))
	in := schemas.NewBatch(s.Signature().Inputs)
	texts := []string{"ja", "", "naïve 川", "unknown", strings.Repeat("long ", 1000), "nein"}
	for _, x := range texts {
		in.Column(0).AppendString(x)
		in.Column(0).EndRow()
	}
	in.Column(0).AppendNull()
	in.Advance(len(texts) + 1)
	out := one(t, s, in)
	for r, want := range []int64{2, 1, 4, -1, -1, 3, 1} {
		if got := schemas.Values[int64](out.Column(0))[r]; got != want {
			t.Errorf("row %d: code %d, want %d", r, got, want)
		}
	}
	for r, want := range append(texts, "") {
		if got := string(out.Column(1).Text(r)); got != want {
			t.Errorf("row %d: %q, want %q", r, got, want)
		}
	}
}

// TestNullIsNaN: a missing value is imputed, and so equals the median given outright.
func TestNullIsNaN(t *testing.T) {
	s, _ := load(t, pkg(t, "columns", nullable("delay", "distance")...))
	in := schemas.NewBatch(s.Signature().Inputs)
	for r := range 2 {
		in.Column(0).AppendString("UA")
		in.Column(0).EndRow()
		if r == 0 {
			in.Column(1).AppendNull()
		} else {
			schemas.Append(in.Column(1), float32(math.NaN()))
			in.Column(1).EndRow()
		}
		schemas.Append(in.Column(2), float32(1000))
		in.Column(2).EndRow()
	}
	in.Advance(2)
	out := one(t, s, in)
	p := schemas.Values[float32](out.Column(1))
	if p[0] != p[2] || p[0] != p[0] {
		t.Errorf("null gave %g, NaN gave %g", p[0], p[2])
	}
}

func TestFeatures(t *testing.T) {
	s, _ := load(t, pkg(t, "open", scorers.Annotation{Name: "x", Features: []string{"a", "b", "c"}}))
	if got := s.Signature().Inputs.Field(0); got.Width() != 3 || len(got.Features) != 3 || got.Features[2] != "c" {
		t.Errorf("field %+v", got)
	}
	one(t, s, scorertest.Rows(s.Signature().Inputs, 3))
}

// TestNeighbours: a model whose rows depend on each other is called what it is.
func TestNeighbours(t *testing.T) {
	_, probed := prepared(t, pkg(t, "neighbours"))
	if probed.Class != scorers.BatchVariant || probed.Tolerance < 0.1 {
		t.Errorf("class %s, tolerance %g", probed.Class, probed.Tolerance)
	}
}

// TestPaddingMatters: without padding, the linear model gives lone rows other bits, and the suite sees it.
func TestPaddingMatters(t *testing.T) {
	f := fixture(t, pkg(t, "linear"))
	if f.Class != scorers.InvariantPadded {
		t.Fatalf("class %s", f.Class)
	}
	p, probed := prepared(t, pkg(t, "linear"))
	probed.Class = scorers.BatchInvariant
	s, err := loader(t).Load(t.Context(), p, probed)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in := scorertest.Rows(s.Signature().Inputs, 1024)
	whole := one(t, s, in)
	differ := 0
	for r := range 1024 {
		lone := schemas.NewBatch(in.Schema())
		lone.AppendRange(in, r, r+1)
		if scorertest.EqualRows(one(t, s, lone), whole, r, 0) != nil {
			differ++
		}
	}
	t.Logf("%d of 1024 lone rows differ without padding", differ)
	if differ == 0 {
		t.Error("no lone row differs: the padding is not needed here, and its test shows nothing")
	}
}

// TestLoadChecksTheProbe: a package whose probe speaks of another model is not served.
func TestLoadChecksTheProbe(t *testing.T) {
	_, probed := prepared(t, pkg(t, "forest"))
	p, _ := prepared(t, pkg(t, "double"))
	_, err := loader(t).Load(t.Context(), p, probed)
	invalid(t, err, "push it again")
	_, err = loader(t).Load(t.Context(), p, scorers.Probed{})
	invalid(t, err, "not probed")
}
