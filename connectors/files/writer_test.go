package files

import (
	"bytes"
	"io"
	"os"
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
