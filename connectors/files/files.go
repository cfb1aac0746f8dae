package files

import (
	"context"
	"io"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/schemas"
)

// Format is a file format.
type Format string

// The formats. The zero Format means: by the file's ending.
const (
	Parquet Format = "parquet"
	Arrow   Format = "arrow"  // Arrow IPC file format (.arrow, .feather)
	Stream  Format = "arrows" // Arrow IPC stream format (.arrows)
	NDJSON  Format = "ndjson" // one JSON object a line (.ndjson, .jsonl)
	JSON    Format = "json"   // one object, an array of objects, or {"rows":[...]}
	CSV     Format = "csv"    // RFC 4180 with a header line
)

// Stdio as a path means Options.In for reading and WriterOptions.Out for writing.
const Stdio = "-"

// ParseFormat reads a format's name, as a flag gives it.
func ParseFormat(s string) (Format, error) {
	switch f := Format(strings.ToLower(s)); f {
	case Parquet, Arrow, Stream, NDJSON, JSON, CSV:
		return f, nil
	}
	return "", schemas.Errorf(schemas.Invalid, "files.ParseFormat", "format %.40q: want parquet, arrow, arrows, ndjson, json or csv", s)
}

// FormatOf returns the format that the path's ending names.
func FormatOf(path string) (Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".parquet", ".pq":
		return Parquet, nil
	case ".arrow", ".feather", ".ipc":
		return Arrow, nil
	case ".arrows":
		return Stream, nil
	case ".ndjson", ".jsonl":
		return NDJSON, nil
	case ".json":
		return JSON, nil
	case ".csv":
		return CSV, nil
	}
	return "", schemas.Errorf(schemas.Invalid, "files.FormatOf", "%s: the ending names no format: use .parquet, .arrow, .arrows, .ndjson, .json or .csv, or state the format", path)
}

// DefaultBatchRows is the rows of a record when the caller names none: large enough to spread the cost of a batch,
// small enough that a few in flight fit a core's cache.
const DefaultBatchRows = 8192

// MaxBatchRows bounds a record.
const MaxBatchRows = 1 << 20

// MaxRowBytes bounds one row of a text format, so that a missing quote or newline cannot pull in a whole file.
const MaxRowBytes = 16 << 20

// maxAlloc bounds what one size in a binary file can make a decoder allocate.
const maxAlloc = 1 << 28

// A text file is typed by so many rows and bytes at its start, where the caller states no type.
const (
	inferRows  = 1000
	inferBytes = 4 << 20
)

// Options says what to read and how.
type Options struct {
	Format    Format   // "": by the path's ending
	Columns   []string // only these, in the file's order; nil: all
	BatchRows int      // rows of a record; 0: DefaultBatchRows
	FromRow   int64    // rows of the file to pass over, bad ones included

	// Want types the columns of CSV, NDJSON and JSON: a column takes the type of Want's field of its name, or of the
	// element type of a tensor field that lists it under Features. Columns that Want does not know are typed by the
	// file's first 1,000 rows: int64, float64, bool, timestamp (RFC 3339) or string. Parquet and Arrow keep the
	// file's types.
	Want *schemas.Schema

	// Nulls are the CSV cells that mean null; nil: the empty cell. A string column takes an empty cell as an empty
	// string unless Want says that it is nullable.
	Nulls []string

	// OnRowError is called for each row of a text file that cannot be read; the row is left out and the rest goes on
	// unless it returns an error, which ends the reading. nil: the first bad row ends the reading.
	OnRowError func(RowError) error

	In io.Reader // what Stdio means

	rowBytes int // of a row at most; tests make it smaller than MaxRowBytes
}

// RowError says that one row of a file could not be read.
type RowError struct {
	Row  int64          // in the file, from 0
	Line int64          // of the file, from 1, where the row starts
	Raw  []byte         // the row as it stands in the file (NDJSON and JSON only); lent for the call
	Err  *schemas.Error // Invalid, with the column in Field
}

// Reader gives the rows of a file in order, in records. One goroutine uses a Reader at a time.
//
// The columns of a record have only these types: bool, int8..64, uint8..64, float16/32/64, utf8, binary, timestamp
// (nanoseconds, UTC) and fixed-size lists of them. Wider Arrow and Parquet types are brought to them: large strings,
// dictionaries of strings, dates and other units of time. Text is UTF-8; what lies beneath a null means nothing.
type Reader interface {
	// Schema returns the columns that records have.
	Schema() *arrow.Schema
	// Skipped lists the columns of the file, not asked for by name, that have a type Leat does not know.
	Skipped() []string
	// TotalRows returns the rows of the whole file if the format tells without reading it.
	TotalRows() (int64, bool)
	// Next returns the next rows, io.EOF after the last. A record covers exactly BatchRows rows of the file, fewer only
	// at the end, whatever the file's own batches are; rows that OnRowError took are missing from it, so it may have
	// fewer rows, even none. The caller releases it. Invalid: the file is damaged or a row is bad. After an error the
	// Reader only takes Close.
	Next(ctx context.Context) (arrow.Record, error)
	// Position returns the rows of the file that were passed, bad ones included: FromRow of a Reader that goes on here.
	Position() int64
	// Close frees what the Reader holds. Idempotent.
	Close() error
}

// Open opens a file for reading. path is a file's name or Stdio. NotFound: no such file. Invalid: not of that format,
// or a column of Options.Columns that is not there or has a type that Leat does not know.
func Open(ctx context.Context, path string, o Options) (Reader, error) {
	const op = "files.Open"
	if err := ctx.Err(); err != nil {
		return nil, schemas.AsError(op, err)
	}
	switch {
	case o.BatchRows == 0:
		o.BatchRows = DefaultBatchRows
	case o.BatchRows < 1 || o.BatchRows > MaxBatchRows:
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "BatchRows", "%d: want 1 to %d", o.BatchRows, MaxBatchRows)
	}
	if o.rowBytes == 0 {
		o.rowBytes = MaxRowBytes
	}
	if o.FromRow < 0 {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "FromRow", "%d: rows count from 0", o.FromRow)
	}
	f, size, err := openSource(path, &o)
	if err != nil {
		return nil, err
	}
	var r Reader
	switch o.Format {
	case Parquet:
		r, err = guard2(path, func() (Reader, error) { return openParquet(ctx, path, f, size, &o) })
	case Arrow, Stream:
		r, err = guard2(path, func() (Reader, error) { return openIPC(path, f, size, &o) })
	default:
		r, err = openText(path, f, &o)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// guard2 turns a panic of a decoding library on a damaged file into an Invalid error.
func guard2[T any](path string, f func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = schemas.Errorf(schemas.Invalid, "files.Reader", "%s: the file is damaged: %.200v", path, p)
		}
	}()
	return f()
}
