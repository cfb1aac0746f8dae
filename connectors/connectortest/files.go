package connectortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// Files reads and writes files of rows: what pipeline/bulk asks for the files of its jobs.
type Files interface {
	Open(ctx context.Context, path string, o FileOptions) (FileReader, error)
	// Create begins a file of the schema's columns; the format follows from the path's ending.
	Create(path string, s *arrow.Schema, o FileWriterOptions) (FileWriter, error)
}

// FileOptions says what to read.
type FileOptions struct {
	BatchRows int   // rows of a record
	FromRow   int64 // rows to pass over
	Want      *schemas.Schema
}

// FileWriterOptions says how to write.
type FileWriterOptions struct {
	Overwrite bool // replace what has the name
	Group     int  // rows that are written as one, in a format that has such groups; 0: its default
}

// FileReader gives the rows of a file in order, in records of exactly BatchRows rows but for the last.
type FileReader interface {
	Schema() *arrow.Schema
	TotalRows() (int64, bool) // of the whole file, if its format tells without reading it
	Next(ctx context.Context) (arrow.Record, error)
	Position() int64 // rows of the file that were passed: FromRow of a reader that goes on here
	Close() error    // idempotent
}

// FileWriter writes a file that is there as a whole from Commit on, and not at all before.
type FileWriter interface {
	Write(rec arrow.Record) error
	Commit() error
	Abort() // idempotent; does nothing after Commit
}

// FileFormat is one format of the files under test.
type FileFormat struct {
	Ending  string          // of a path: ".csv"
	Columns *schemas.Schema // of every type that the format keeps to the bit
	MaxRow  int             // bytes of a row: up to so many are read, more are refused; 0: not bounded
}

func files(t *testing.T, s Subject) {
	for _, f := range s.Formats {
		t.Run(f.Ending[1:], func(t *testing.T) {
			t.Run("rows in order, once", func(t *testing.T) { rowsInOrder(t, s, f) })
			t.Run("resumed at a position", func(t *testing.T) { resumed(t, s, f) })
			t.Run("cancelled and closed", func(t *testing.T) { readerEnds(t, s, f) })
			t.Run("oversize", func(t *testing.T) { oversizeRow(t, s, f) })
			t.Run("memory stays flat", func(t *testing.T) { flatMemory(t, s, f) })
			t.Run("abandoned", func(t *testing.T) { abandoned(t, s, f) })
			t.Run("never overwritten unasked", func(t *testing.T) { notOverwritten(t, s, f) })
			t.Run("replaced as a whole", func(t *testing.T) { replaced(t, s, f) })
		})
	}
}

// table is rows of a schema and how they come back from a file.
type table struct {
	*schemas.Batch
	files Files
	path  string
}

// newTable makes rows of the schema and a place for their file. The rows depend on the schema alone.
func newTable(t testing.TB, s Subject, f FileFormat, columns *schemas.Schema, rows int) *table {
	t.Helper()
	tr, _, _ := s.Open(t)
	b := schemas.NewBatch(columns)
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 2)), rows)
	return &table{b, tr.Files, filepath.Join(t.TempDir(), "rows"+f.Ending)}
}

// create begins the table's file and writes its rows in records of the given sizes.
func (tb *table) create(t testing.TB, o FileWriterOptions, parts ...int) FileWriter {
	t.Helper()
	w, err := tb.files.Create(tb.path, tb.Schema().Arrow(), o)
	must(t, err)
	t.Cleanup(w.Abort)
	all, err := tb.Record(nil)
	must(t, err)
	at := int64(0)
	for _, n := range parts {
		part := all.NewSlice(at, at+int64(n))
		must(t, w.Write(part))
		part.Release()
		at += int64(n)
	}
	return w
}

// open reads the table's file from a row on.
func (tb *table) open(t testing.TB, batch int, from int64) FileReader {
	t.Helper()
	r, err := tb.files.Open(t.Context(), tb.path, FileOptions{BatchRows: batch, FromRow: from, Want: tb.Schema()})
	must(t, err)
	return r
}

// same checks that a record holds the table's rows from at on, to the bit and in the file's own types.
func (tb *table) same(t testing.TB, rec arrow.Record, at int64) {
	t.Helper()
	for _, f := range tb.Schema().Arrow().Fields() {
		if i := rec.Schema().FieldIndices(f.Name); len(i) != 1 || !arrow.TypeEqual(rec.Schema().Field(i[0]).Type, f.Type) {
			t.Fatalf("column %s of type %s: the file has %v", f.Name, f.Type, rec.Schema())
		}
	}
	p, err := schemas.NewProjection(rec.Schema(), tb.Schema())
	must(t, err)
	n := int(rec.NumRows())
	got, want := schemas.NewBatch(tb.Schema()), schemas.NewBatch(tb.Schema())
	must(t, p.AppendRecord(got, rec, 0, n))
	want.AppendRange(tb.Batch, int(at), int(at)+n)
	if d := schemastest.Diff(want, got); d != "" {
		t.Fatalf("rows from %d: want and got differ in %s", at, d)
	}
}

// next reads the record at the reader's position and checks it: batch rows of the table, fewer at the end alone.
func (tb *table) next(t testing.TB, r FileReader, batch int) error {
	t.Helper()
	at := r.Position()
	rec, err := r.Next(t.Context())
	if err != nil {
		return err
	}
	defer rec.Release()
	if want := min(int64(batch), int64(tb.Rows())-at); rec.NumRows() != want || r.Position() != at+want {
		t.Fatalf("at row %d: %d rows and position %d, want %d rows", at, rec.NumRows(), r.Position(), want)
	}
	tb.same(t, rec, at)
	return nil
}

// Rows are written in uneven records, one of them empty, so that no batch or group falls together with another.
const fileRows, fileGroup = 254, 100

var fileParts = []int{90, 1, 0, 160, 3}

func rowsInOrder(t *testing.T, s Subject, f FileFormat) {
	tb := newTable(t, s, f, f.Columns, fileRows)
	must(t, tb.create(t, FileWriterOptions{Group: fileGroup}, fileParts...).Commit())
	for _, batch := range []int{1, 7, 64, 1000} {
		r := tb.open(t, batch, 0)
		if n, ok := r.TotalRows(); ok && n != fileRows {
			t.Errorf("TotalRows is %d, want %d", n, fileRows)
		}
		var err error
		for err == nil {
			err = tb.next(t, r, batch)
		}
		if _, again := r.Next(t.Context()); err != io.EOF || again != io.EOF || r.Position() != fileRows {
			t.Errorf("batches of %d ended at row %d with %v, then %v, want row %d and io.EOF", batch, r.Position(), err, again, fileRows)
		}
		must(t, r.Close())
	}
}

// resumed: each reader reads two records, and the next one goes on where it stopped.
func resumed(t *testing.T, s Subject, f FileFormat) {
	var some []schemas.Field // of all kinds; all of them would make many openings slow
	for i := 0; i < f.Columns.Len(); i += 5 {
		some = append(some, *f.Columns.Field(i))
	}
	tb := newTable(t, s, f, schemas.MustSchema(some...), fileRows)
	must(t, tb.create(t, FileWriterOptions{Group: fileGroup}, fileParts...).Commit())
	for _, batch := range []int{11, 45, 50, 64, 100, 253, 1000} {
		for at := int64(0); at < fileRows; {
			r := tb.open(t, batch, at)
			if r.Position() != at {
				t.Fatalf("opened at row %d, the position is %d", at, r.Position())
			}
			for range 2 {
				if err := tb.next(t, r, batch); err != nil && (err != io.EOF || r.Position() != fileRows) {
					t.Fatalf("at row %d: %v", r.Position(), err)
				}
			}
			at = r.Position()
			must(t, r.Close())
		}
	}
	for _, from := range []int64{fileRows, fileRows + 50} {
		r := tb.open(t, 64, from)
		if err := tb.next(t, r, 64); err != io.EOF || r.Position() != fileRows {
			t.Errorf("from row %d of %d: %v at %d, want io.EOF", from, fileRows, err, r.Position())
		}
		must(t, r.Close())
	}
}

func readerEnds(t *testing.T, s Subject, f FileFormat) {
	tb := newTable(t, s, f, f.Columns, fileRows)
	must(t, tb.create(t, FileWriterOptions{Group: fileGroup}, fileRows).Commit())
	gone, cancel := context.WithCancel(t.Context())
	r := tb.open(t, 64, 0)
	must(t, tb.next(t, r, 64))
	cancel()
	if _, err := r.Next(gone); !errors.Is(err, context.Canceled) || r.Position() != 64 {
		t.Errorf("Next: %v at row %d, want the context's error at row 64", err, r.Position())
	}
	must(t, r.Close())
	must(t, r.Close())
	if _, err := r.Next(t.Context()); err == nil || err == io.EOF {
		t.Errorf("Next after Close: %v, want an error", err)
	}
	if _, err := tb.files.Open(gone, tb.path, FileOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v, want the context's error", err)
	}
	_, err := tb.files.Open(t.Context(), filepath.Join(t.TempDir(), "none"+f.Ending), FileOptions{})
	wantKind(t, err, schemas.NotFound)
}

var textColumn = schemas.MustSchema(schemas.Field{Name: "text", Type: schemas.String})

// oversizeRow: where a format bounds a row, one beyond it ends the reading with an error that says the bound and the
// place, also in the middle of a file. Elsewhere it is read.
func oversizeRow(t *testing.T, s Subject, f FileFormat) {
	tb := newTable(t, s, f, textColumn, 0)
	const before = 1500 // more than a reader looks at to find out the types
	limit := f.MaxRow
	if limit == 0 {
		limit = 1 << 20
	}
	c := tb.Column(0)
	for i := range before + 2 {
		v := []byte("short")
		switch i {
		case before - 1:
			v = slices.Repeat([]byte("x"), limit-100) // the format takes some
		case before:
			v = slices.Repeat([]byte("x"), limit)
		}
		c.AppendText(v)
		c.EndRow()
	}
	tb.Advance(before + 2)
	must(t, tb.create(t, FileWriterOptions{}, tb.Rows()).Commit())
	r := tb.open(t, 100, 0)
	defer r.Close()
	var err error
	for err == nil {
		err = tb.next(t, r, 100)
	}
	if f.MaxRow == 0 {
		if err != io.EOF || r.Position() != before+2 {
			t.Fatalf("ended at row %d with %v", r.Position(), err)
		}
		return
	}
	wantKind(t, err, schemas.Invalid)
	says(t, err, fmt.Sprintf("more than %d bytes", limit), fmt.Sprintf("after %d rows", before))
}
