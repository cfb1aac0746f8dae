package files

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/ipc"

	"github.com/leatstream/leat/schemas"
)

func rawStream(w io.Writer, recs ...arrow.Record) (int, error) {
	s := ipc.NewWriter(w, ipc.WithSchema(recs[0].Schema()))
	for _, r := range recs {
		if err := s.Write(r); err != nil {
			return 0, err
		}
	}
	return len(recs), s.Close()
}

var small = schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Float32}, schemas.Field{Name: "b", Type: schemas.String, Nullable: true})

func TestNothingIsSeenBeforeCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.parquet")
	w, err := Create(path, small.Arrow(), WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := fill(small, 10).Record(nil)
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("the target is there before Commit")
	}
	w.Abort()
	w.Abort()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("Abort left %v", left)
	}
	if err := w.Write(rec); err == nil {
		t.Error("Write after Abort")
	}
	if err := w.Commit(); err == nil {
		t.Error("Commit after Abort")
	}
}

func TestNoOverwrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.csv")
	w, err := Create(path, small.Arrow(), WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Somebody takes the name while we write.
	if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("Commit over a file that came meanwhile: %v", err)
	}
	if _, err := Create(path, small.Arrow(), WriterOptions{}); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("Create over a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "theirs" {
		t.Errorf("the other file now holds %q", b)
	}
	w, err = Create(path, small.Arrow(), WriterOptions{Overwrite: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "a,b\n" {
		t.Errorf("overwritten file holds %q", b)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	for _, p := range []string{dir, filepath.Join(dir, "none", "x.csv")} {
		if _, err := Create(p, small.Arrow(), WriterOptions{Format: CSV, Overwrite: true}); schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("Create %s: %v", p, err)
		}
	}
}

func TestWriteToStdout(t *testing.T) {
	rec, _ := fill(small, 2).Record(nil)
	for format, want := range map[Format]string{
		CSV:    "a,b\n0,\"text \"\"1\"\", é\n\"\n3.3333333,\"text \"\"11\"\", é\n\"\n",
		NDJSON: "{\"a\":0,\"b\":\"text \\\"1\\\", é\\n\"}\n{\"a\":3.3333333,\"b\":\"text \\\"11\\\", é\\n\"}\n",
		JSON:   "[\n{\"a\":0,\"b\":\"text \\\"1\\\", é\\n\"},\n{\"a\":3.3333333,\"b\":\"text \\\"11\\\", é\\n\"}\n]\n",
	} {
		var out bytes.Buffer
		w, err := Create(Stdio, small.Arrow(), WriterOptions{Format: format, Out: &out})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%s:\n%q\nwant\n%q", format, out.String(), want)
		}
	}
	if _, err := Create(Stdio, small.Arrow(), WriterOptions{Format: Parquet}); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("Parquet to stdout: %v", err)
	}
	tensor := schemas.MustSchema(schemas.Field{Name: "v", Type: schemas.Float32, Shape: []int{2}})
	if _, err := Create(Stdio, tensor.Arrow(), WriterOptions{Format: CSV, Out: io.Discard}); err == nil || !strings.Contains(err.Error(), "v: ") {
		t.Errorf("tensor to CSV: %v", err)
	}
}

func TestFullDiskIsUnavailable(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	w, err := Create(Stdio, small.Arrow(), WriterOptions{Format: NDJSON, Out: full})
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := fill(small, 10).Record(nil)
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); schemas.KindOf(err) != schemas.Unavailable {
		t.Errorf("Commit to a full disk: %v", err)
	}
}
