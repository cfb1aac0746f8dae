package onnx_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx"
	"github.com/leatstream/leat/scorers/onnx/ortlib"
)

// library is what the tests' loaders use: found, or fetched through pip on a fresh machine.
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

func loader(t testing.TB) *onnx.Loader {
	t.Helper()
	l, err := onnx.New(onnx.Config{Library: library}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pkg is a model of testdata, or of the examples.
func pkg(t testing.TB, name string, inputs ...scorers.Annotation) scorers.Package {
	t.Helper()
	p := scorers.Package{Manifest: scorers.Manifest{Name: name, File: name + ".onnx", Inputs: inputs}, Files: os.DirFS("testdata")}
	switch name {
	case "external":
		p.Manifest.File, p.Files = "model.onnx", os.DirFS("testdata/external")
	case "flight-delay", "flight-boost":
		p.Manifest.File, p.Files = "model.onnx", os.DirFS("../../examples/flights/"+name)
	}
	return p
}

// prepared runs Prepare and Probe, as a push does.
func prepared(t testing.TB, p scorers.Package) (scorers.Package, scorers.Probed) {
	t.Helper()
	ctx := context.Background()
	if tt, ok := t.(*testing.T); ok {
		ctx = tt.Context()
	}
	p, err := loader(t).Prepare(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	probed, err := loader(t).Probe(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	return p, probed
}

// load pushes and loads; the test closes.
func load(t testing.TB, p scorers.Package) (scorers.Scorer, scorers.Probed) {
	t.Helper()
	p, probed := prepared(t, p)
	s, err := loader(t).Load(context.Background(), p, probed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, probed
}

// one scores a batch.
func one(t testing.TB, s scorers.Scorer, in *schemas.Batch) *schemas.Batch {
	t.Helper()
	out := schemas.NewBatch(s.Signature().Outputs)
	if err := s.Score(context.Background(), in, out); err != nil {
		t.Fatal(err)
	}
	return out
}
