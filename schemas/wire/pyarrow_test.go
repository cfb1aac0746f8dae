package wire

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
	"github.com/leatstream/leat/schemas/wire/pyarrowtest"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) string {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: what is written now differs from the golden file (%d bytes, golden %d)", name, len(got), len(want))
	}
	return path
}

// goldenBatches are written for ever in the same way.
func goldenBatches() map[string]*schemas.Batch {
	all := schemas.NewBatch(schemastest.Everything())
	schemastest.Fill(all, rand.New(rand.NewPCG(2013, 7)), 21)
	empty := schemas.NewBatch(schemastest.Everything())
	return map[string]*schemas.Batch{"everything": all, "empty": empty, "floats": floats(30, 1)}
}

// Golden files are read by pyarrow, go through Python values, and come back the same.
func TestPyarrowReadsGoldenFiles(t *testing.T) {
	for name, b := range goldenBatches() {
		t.Run(name, func(t *testing.T) {
			stream := golden(t, name+".stream", AppendStream(nil, b, 0, b.Rows()))
			batch := golden(t, name+".batch", AppendBatch(nil, b, 0, b.Rows()))
			dir := t.TempDir()
			outStream, outBatch := filepath.Join(dir, "stream"), filepath.Join(dir, "batch")
			out := pyarrowtest.Run(t, "testdata/arrow.py", "rewrite", stream, batch, outStream, outBatch)
			if !strings.HasPrefix(out, fmt.Sprint(b.Rows(), " ")) {
				t.Errorf("pyarrow says %q, want %d rows", out, b.Rows())
			}
			back := schemas.NewBatch(b.Schema())
			payload, err := os.ReadFile(outBatch)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := AppendRows(back, payload); err != nil {
				t.Fatalf("pyarrow's message: %v", err)
			}
			if d := schemastest.Diff(b, back); d != "" {
				t.Errorf("pyarrow's message: %s", d)
			}
			back.Reset()
			if payload, err = os.ReadFile(outStream); err != nil {
				t.Fatal(err)
			}
			if _, err := AppendStreamRows(back, payload); err != nil {
				t.Fatalf("pyarrow's stream: %v", err)
			}
			if d := schemastest.Diff(b, back); d != "" {
				t.Errorf("pyarrow's stream: %s", d)
			}
		})
	}
}

// A stream of other types, with columns that nobody wants, in two batches, is cast by name. The file was written by
// "arrow.py foreign".
func TestForeignStream(t *testing.T) {
	payload, err := os.ReadFile("testdata/foreign.stream")
	if err != nil {
		t.Fatal(err)
	}
	dst := schemas.NewBatch(foreignSchema)
	n, err := AppendStreamRows(dst, payload)
	if err != nil || n != 4 {
		t.Fatal(n, err)
	}
	want := schemas.NewBatch(foreignSchema)
	carriers, times := []string{"UA", "Zürich", "", "B6"}, []int64{1372680000e9, 1e9, 2e9, 3e9}
	for i := range 4 {
		if i == 2 {
			want.Column(0).AppendNull()
		} else {
			want.Column(0).AppendString(carriers[i])
			want.Column(0).EndRow()
		}
		schemas.Append(want.Column(1), []float32{1400, 200, 733, 2475}[i])
		want.Column(1).EndRow()
		if i == 1 {
			want.Column(2).AppendNull()
		} else {
			schemas.Append(want.Column(2), []float32{0.1, 0, -3, 1e10}[i])
			want.Column(2).EndRow()
		}
		schemas.Append(want.Column(3), times[i])
		want.Column(3).EndRow()
		want.Column(4).AppendBool(i != 1)
		want.Column(4).EndRow()
		schemas.Append(want.Column(5), float32(5+i))
		schemas.Append(want.Column(5), float32(1+i))
		want.Column(5).EndRow()
		want.Column(6).AppendNull()
	}
	want.Advance(4)
	if d := schemastest.Diff(want, dst); d != "" {
		t.Error(d)
	}
	fresh := filepath.Join(t.TempDir(), "foreign")
	pyarrowtest.Run(t, "testdata/arrow.py", "foreign", fresh)
	if payload, err = os.ReadFile(fresh); err != nil {
		t.Fatal(err)
	}
	dst.Reset()
	if _, err := AppendStreamRows(dst, payload); err != nil {
		t.Fatalf("as this pyarrow writes it: %v", err)
	}
	if d := schemastest.Diff(want, dst); d != "" {
		t.Errorf("as this pyarrow writes it: %s", d)
	}
}

var foreignSchema = schemas.MustSchema(
	schemas.Field{Name: "carrier", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "distance", Type: schemas.Float32},
	schemas.Field{Name: "dep_delay", Type: schemas.Float32, Nullable: true},
	schemas.Field{Name: "time", Type: schemas.Timestamp},
	schemas.Field{Name: "night", Type: schemas.Bool},
	schemas.Field{Name: "packed", Type: schemas.Float32, Shape: []int{2}, Features: []string{"a", "b"}},
	schemas.Field{Name: "nothing", Type: schemas.Int32, Nullable: true},
)
