package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx"
	"github.com/leatstream/leat/scorers/onnx/ortlib"
	"github.com/leatstream/leat/scorers/registry"
	"github.com/leatstream/leat/scorers/scorertest"
)

var library ortlib.Search

func TestMain(m *testing.M) {
	library.Env = os.Getenv("LEAT_ONNXRUNTIME")
	say := func(line string) { fmt.Fprintln(os.Stderr, line) }
	if _, err := ortlib.Ensure(context.Background(), library, say); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Real models, pushed as a user would, answer from the registry as they do from their own folder.
func TestRealModelsComeBackAndScore(t *testing.T) {
	kv, blobs := stores(t)
	ctx := t.Context()
	l, err := onnx.New(onnx.Config{Library: library}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := registry.Default()
	c.CacheDir, c.TempDir = t.TempDir(), t.TempDir()
	r, err := registry.New(kv, blobs, []scorers.Loader{l}, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct{ name, dir string }{
		{"flight-delay", "../../examples/flights/flight-delay"},
		{"flight-boost", "../../examples/flights/flight-boost"},
		{"external", "../onnx/testdata/external"}, // its data goes into the one file
		{"zipmap", "../onnx/testdata/zipmap.onnx"},
	} {
		t.Run(m.name, func(t *testing.T) {
			var body bytes.Buffer
			if err := registry.WriteTar(&body, m.dir); err != nil {
				t.Fatal(err)
			}
			upload := bytes.Clone(body.Bytes())
			v, created, err := r.PushBody(ctx, &body, scorers.Manifest{Name: m.name})
			if err != nil || !created || v.Version != 1 || v.Manifest.Runtime != "onnx" || v.Probed.Class == "" {
				t.Fatalf("%+v %v %v", v, created, err)
			}
			if again, created, err := r.PushBody(ctx, bytes.NewReader(upload), scorers.Manifest{Name: m.name}); err != nil || created || again.Digest != v.Digest {
				t.Fatalf("preparing is not the same each time: %v %v %v", again.Digest, created, err)
			}
			p, err := r.Open(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := fs.ReadFile(p.Files, p.Manifest.File); err != nil || int64(len(b)) != v.Size {
				t.Fatalf("%d bytes of %d, %v", len(b), v.Size, err)
			}
			s, err := r.Load(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			rows := scorertest.Rows(s.Signature().Inputs, 50)
			out := schemas.NewBatch(s.Signature().Outputs)
			if err := s.Score(ctx, rows, out); err != nil || out.Rows() != 50 {
				t.Fatal(out.Rows(), err)
			}
			last := out.Column(s.Signature().Outputs.Len() - 1)
			if last.Field().Type == schemas.Float32 && math.IsNaN(float64(schemas.Values[float32](last)[0])) {
				t.Error("the answer is NaN")
			}
		})
	}
	if names, err := r.Names(ctx); err != nil || len(names) != 4 {
		t.Fatal(names, err)
	}
}
