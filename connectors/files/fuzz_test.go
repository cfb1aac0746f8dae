package files

import (
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/leatstream/leat/schemas"
)

// drain opens a file and touches every value, as code behind a Reader will.
func drain(t *testing.T, path string, o Options) {
	o.BatchRows = 8
	o.OnRowError = func(e RowError) error {
		if e.Err == nil || e.Err.Kind != schemas.Invalid {
			t.Fatalf("row error %v", e.Err)
		}
		return nil
	}
	r, err := Open(t.Context(), path, o)
	if err != nil {
		if schemas.KindOf(err) != schemas.Invalid {
			t.Fatalf("Open: %v: %v", schemas.KindOf(err), err)
		}
		return
	}
	defer r.Close()
	for range 1000 {
		rec, err := r.Next(t.Context())
		if err == io.EOF {
			return
		}
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Fatalf("Next: %v: %v", schemas.KindOf(err), err)
			}
			return
		}
		touch(t, rec)
		rec.Release()
	}
}

func touch(t *testing.T, rec arrow.Record) {
	var b []byte
	for i, c := range rec.Columns() {
		if ok := arrow.TypeEqual(c.DataType(), rec.Schema().Field(i).Type); !ok {
			t.Fatalf("column %d is %s, its schema says %s", i, c.DataType(), rec.Schema().Field(i).Type)
		}
		for r := range c.Len() {
			b = appendValue(b[:0], c, r, true)
			utf8Only(t, c, r)
		}
	}
}

// utf8Only checks row r of a column of texts. Beneath a null anything may lie.
func utf8Only(t *testing.T, c arrow.Array, r int) {
	if c.IsNull(r) {
		return
	}
	switch c := c.(type) {
	case *array.String:
		if !utf8.ValidString(c.Value(r)) {
			t.Fatalf("%q is not UTF-8", c.Value(r))
		}
	case *array.FixedSizeList:
		from, to := c.ValueOffsets(r)
		for e := from; e < to; e++ {
			utf8Only(t, c.ListValues(), int(e))
		}
	}
}

func seeds(f *testing.F, format Format) {
	s := everyType()
	if format == CSV {
		s = small
	}
	path := filepath.Join(f.TempDir(), "seed")
	// Few rows are enough to cross batches and row groups, and each run is fast.
	for _, rows := range []int{0, 1, 10} {
		w, err := Create(path, s.Arrow(), WriterOptions{Format: format, Overwrite: true, RowGroup: 6})
		if err != nil {
			f.Fatal(err)
		}
		rec, _ := fill(s, rows).Record(nil)
		if err := w.Write(rec); err != nil {
			f.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

func fuzzFile(f *testing.F, format Format) {
	seeds(f, format)
	path := filepath.Join(f.TempDir(), "fuzzed")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		drain(t, path, Options{Format: format})
		drain(t, path, Options{Format: format, FromRow: 7, Columns: []string{"c_string", "t_float32"}})
	})
}

func fuzzStream(f *testing.F, format Format) {
	seeds(f, format)
	f.Fuzz(func(t *testing.T, b []byte) {
		drain(t, Stdio, Options{Format: format, In: bytes.NewReader(b)})
		drain(t, Stdio, Options{Format: format, In: bytes.NewReader(b), Want: everyType(), FromRow: 3})
	})
}

func FuzzParquet(f *testing.F) {
	f.Add(parquetFile([][]byte{node(math.MaxInt32), node(0)}, ""))
	f.Add(parquetFile([][]byte{node(1), node(0)}, arrowSchema(f, longMetadata)))
	for _, b := range foreign(f, 10) {
		f.Add(b)
	}
	fuzzFile(f, Parquet)
}

func FuzzArrowFile(f *testing.F) { fuzzFile(f, Arrow) }
func FuzzCSV(f *testing.F)       { fuzzStream(f, CSV) }

func FuzzArrowStream(f *testing.F) {
	var b bytes.Buffer
	rec := textRecord(texted("\xc3a", []int32{0, 1, 2}, 0b10)) // a null over half a character
	defer rec.Release()
	if _, err := rawStream(&b, rec); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(batchStream(f, 100, func(flatbuffers.Table, []byte) {}, ipc.WithLZ4()))
	f.Add(batchStream(f, 100, func(flatbuffers.Table, []byte) {}, ipc.WithZstd()))
	fuzzStream(f, Stream)
}

func FuzzNDJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,[2]],"b":"\ud800","c":{"d":1}}`))
	fuzzStream(f, NDJSON)
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"rows":[{"c_int8":1}]}`))
	fuzzStream(f, JSON)
}
