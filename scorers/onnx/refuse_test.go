package onnx_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx"
)

// push is Prepare and Probe, with the first error.
func push(t *testing.T, p scorers.Package) error {
	t.Helper()
	_, _, err := pushed(t, p)
	return err
}

func pushed(t *testing.T, p scorers.Package) (scorers.Package, scorers.Probed, error) {
	t.Helper()
	p, err := loader(t).Prepare(t.Context(), p)
	if err != nil {
		return p, scorers.Probed{}, err
	}
	probed, err := loader(t).Probe(t.Context(), p)
	return p, probed, err
}

// invalid fails unless err is Invalid, one line, and says the words.
func invalid(t *testing.T, err error, words ...string) {
	t.Helper()
	var e *schemas.Error
	if !errors.As(err, &e) || e.Kind != schemas.Invalid {
		t.Fatalf("want Invalid, got %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestModelsRefused(t *testing.T) {
	for _, c := range []struct {
		p     scorers.Package
		words []string
	}{
		{pkg(t, "sequence"), []string{"y:", "sequence", "tensor"}},
		{pkg(t, "mixing"), []string{"mean:", "one value for all rows"}},
		{pkg(t, "shrinking"), []string{"y:", "rows"}},
		{pkg(t, "custom"), []string{"com.example", "standard operators"}},
		{pkg(t, "open"), []string{"x:", "features", "model.yaml"}},
		{pkg(t, "integers", nullable("a")...), []string{"a:", "nullable", "int64"}},
		{pkg(t, "forest", nullable("no-such")...), []string{"inputs.no-such", `"x"`}},
		{pkg(t, "forest", scorers.Annotation{Name: "x", Features: []string{"one"}}), []string{"x:", "1 feature names for 8"}},
		{pkg(t, "missing"), []string{"missing.onnx", "no such file"}},
		{files("m.onnx", nil), []string{"no graph"}},
		{files("m.onnx", []byte("not a model")), []string{"not a valid ONNX file"}},
		{files("m.onnx", []byte("\x00\x00\x00\x00ORTM\x00\x00\x00\x00")), []string{"ORT format"}},
		{files("../m.onnx", nil), []string{"file", "inside the package"}},
	} {
		t.Run(c.p.Manifest.File+" "+c.words[0], func(t *testing.T) { invalid(t, push(t, c.p), c.words...) })
	}
}

func files(name string, b []byte) scorers.Package {
	return scorers.Package{Manifest: scorers.Manifest{Name: "m", File: name}, Files: onnx.OneFile(name, b)}
}

// TestExternalDataOutside points the weights at places outside the package, on disk through os.Root, as upstream opens it.
func TestExternalDataOutside(t *testing.T) {
	model, err := os.ReadFile("testdata/external/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile("testdata/external/weights.bin")
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "weights.bin")
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(outside, weights)
	write(filepath.Join(dir, "short.bin"), weights[:100])
	if err := os.Symlink(outside, filepath.Join(dir, "link.bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside, filepath.Join(dir, "hard.bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for location, word := range map[string]string{
		"../" + filepath.Base(filepath.Dir(outside)) + "/weights.bin": "inside the package",
		outside:       "inside the package",
		"/dev/zero":   "inside the package",
		"sub/../../x": "inside the package",
		"..\\x":       "inside the package",
		"link.bin":    "symbolic link",
		"hard.bin":    "hard link",
		"folder.bin":  "not a regular file",
		"none.bin":    "no such file",
		"short.bin":   "ends at byte 100",
		"a\x00b":      "inside the package",
	} {
		t.Run(location, func(t *testing.T) {
			write(filepath.Join(dir, "model.onnx"), relocate(t, model, location))
			p := scorers.Package{Manifest: scorers.Manifest{Name: "m", File: "model.onnx"}, Files: root.FS()}
			invalid(t, push(t, p), word)
			// A package that skipped Prepare is refused by what loads it.
			_, err := loader(t).Probe(t.Context(), p)
			invalid(t, err, "another file")
		})
	}
}

// relocate replaces the location of all external data.
func relocate(t *testing.T, b []byte, location string) []byte {
	t.Helper()
	entry := func(v string) []byte {
		e := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "location")
		return protowire.AppendString(protowire.AppendTag(e, 2, protowire.BytesType), v)
	}
	was := entry("weights.bin")
	var edit func(b []byte, path []protowire.Number) []byte
	edit = func(b []byte, path []protowire.Number) []byte {
		if len(path) == 0 {
			if bytes.Equal(b, was) {
				return entry(location)
			}
			return b
		}
		var out []byte
		for len(b) > 0 {
			num, typ, n := protowire.ConsumeTag(b)
			m := protowire.ConsumeFieldValue(num, typ, b[n:])
			if num == path[0] {
				v, _ := protowire.ConsumeBytes(b[n:])
				out = protowire.AppendBytes(protowire.AppendTag(out, num, typ), edit(v, path[1:]))
			} else {
				out = append(out, b[:n+m]...)
			}
			b = b[n+m:]
		}
		return out
	}
	out := edit(b, []protowire.Number{7, 5, 13})
	if bytes.Equal(out, b) {
		t.Fatal("the test model keeps no external data")
	}
	return out
}

func TestRowsRefused(t *testing.T) {
	s, _ := load(t, pkg(t, "columns", nullable("delay")...))
	row := func(b *schemas.Batch, carrier string, null bool) {
		b.Column(0).AppendString(carrier)
		b.Column(0).EndRow()
		schemas.Append(b.Column(1), float32(3))
		b.Column(1).EndRow()
		if null {
			b.Column(2).AppendNull()
		} else {
			schemas.Append(b.Column(2), float32(500))
			b.Column(2).EndRow()
		}
		b.Advance(1)
	}
	for _, c := range []struct {
		name  string
		bad   func(b *schemas.Batch)
		field string
	}{
		{"a NUL in a string", func(b *schemas.Batch) { row(b, "U\x00A", false) }, "rows[2].carrier"},
		{"a null in a column that is not nullable", func(b *schemas.Batch) { row(b, "UA", true) }, "rows[2].distance"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := schemas.NewBatch(s.Signature().Inputs)
			row(in, "UA", false)
			row(in, "", false)
			c.bad(in)
			row(in, "AA", false)
			out := schemas.NewBatch(s.Signature().Outputs)
			err := s.Score(t.Context(), in, out)
			invalid(t, err)
			if e := schemas.AsError("", err); e.Field != c.field {
				t.Errorf("field %q, want %q", e.Field, c.field)
			}
			if out.Rows() != 0 {
				t.Errorf("%d rows out", out.Rows())
			}
			check := s.(scorers.RowChecker)
			if err := check.CheckRows(in, 0, 2); err != nil {
				t.Errorf("good rows: %v", err)
			}
			if err := check.CheckRows(in, 3, 4); err != nil {
				t.Errorf("a good row after the bad one: %v", err)
			}
			invalid(t, check.CheckRows(in, 2, 4))
		})
	}
}

// TestRowsTheModelRefuses: the runtime's own error names the cause and nothing of its sources, and the next row is served.
func TestRowsTheModelRefuses(t *testing.T) {
	s, _ := load(t, pkg(t, "embedding"))
	in := schemas.NewBatch(s.Signature().Inputs)
	schemas.Append(in.Column(0), int64(99))
	in.Column(0).EndRow()
	in.Advance(1)
	out := schemas.NewBatch(s.Signature().Outputs)
	err := s.Score(t.Context(), in, out)
	invalid(t, err, "idx=99")
	if strings.Contains(err.Error(), ".cc") || strings.Contains(err.Error(), "onnxruntime::") {
		t.Errorf("internals in %q", err)
	}
	in.Reset()
	schemas.Append(in.Column(0), int64(3))
	in.Column(0).EndRow()
	in.Advance(1)
	if out := one(t, s, in); out.Rows() != 1 {
		t.Errorf("%d rows", out.Rows())
	}
}

func TestProbeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := loader(t).Probe(ctx, pkg(t, "forest"))
	if schemas.KindOf(err) != schemas.Unavailable {
		t.Errorf("got %v", err)
	}
}

// TestLocale: a model that needs a locale says so, whether this system has it or not.
func TestLocale(t *testing.T) {
	_, probed, err := pushed(t, pkg(t, "normalizer"))
	if err != nil {
		if schemas.KindOf(err) != schemas.Unavailable || !strings.Contains(err.Error(), "en_US.UTF-8") || strings.Contains(err.Error(), ".cc") {
			t.Errorf("got %v", err)
		}
		return
	}
	if len(probed.Notes) != 1 || !strings.Contains(probed.Notes[0], "en_US.UTF-8") {
		t.Errorf("notes %q", probed.Notes)
	}
}
