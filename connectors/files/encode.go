package files

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/leatstream/leat/schemas"
)

func newEncoder(w *bufio.Writer, s *arrow.Schema, o *WriterOptions) (encoder, error) {
	switch o.Format {
	case Parquet:
		return newParquetEncoder(w, s, o)
	case Arrow:
		f, err := ipc.NewFileWriter(&plainWriter{w: w}, ipc.WithSchema(s))
		return ipcEncoder{f}, err
	case Stream:
		return ipcEncoder{ipc.NewWriter(w, ipc.WithSchema(s))}, nil
	case CSV:
		return newCSVEncoder(w, s)
	}
	return &jsonEncoder{w: w, schema: s, lines: o.Format == NDJSON}, nil
}

// parquetEncoder writes row groups of a fixed number of rows.
type parquetEncoder struct {
	w      *pqarrow.FileWriter
	schema *arrow.Schema // with tensors as lists
}

// newParquetEncoder compresses with Snappy: on float columns it is the fastest codec that this library writes, beside
// none, and zstd gains little (see BenchmarkWriteParquet). Dictionaries are for strings only: on floats they cost ten
// times the writing (field notes).
func newParquetEncoder(w *bufio.Writer, s *arrow.Schema, o *WriterOptions) (encoder, error) {
	rows := o.RowGroup
	if rows == 0 {
		rows = DefaultRowGroup
	}
	if rows < 1 || rows > MaxBatchRows {
		return nil, schemas.FieldErrorf(schemas.Invalid, "files.Create", "RowGroup", "%d: want 1 to %d", rows, MaxBatchRows)
	}
	props := []parquet.WriterProperty{
		parquet.WithDictionaryDefault(false),
		parquet.WithCompression(parquetCodec),
		parquet.WithMaxRowGroupLength(int64(rows)),
		parquet.WithCreatedBy("leat"),
		parquet.WithVersion(parquet.V2_LATEST),
	}
	for _, f := range s.Fields() {
		if f.Type.ID() == arrow.STRING {
			props = append(props, parquet.WithDictionaryFor(f.Name, true))
		}
	}
	lists := listSchema(s)
	f, err := pqarrow.NewFileWriter(lists, &plainWriter{w: w}, parquet.NewWriterProperties(props...), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, err
	}
	return parquetEncoder{f, lists}, nil
}

var parquetCodec = compress.Codecs.Snappy

func (e parquetEncoder) write(rec arrow.Record) error {
	l, err := listRecord(e.schema, rec)
	if err != nil {
		return err
	}
	defer l.Release()
	return e.w.WriteBuffered(l)
}

func (e parquetEncoder) finish() error { return e.w.Close() }

// plainWriter hides bufio.Writer's other methods, which the libraries would call, and tells the place in the file,
// which is all that Arrow's file writer seeks for.
type plainWriter struct {
	w *bufio.Writer
	n int64
}

func (p *plainWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}

func (p *plainWriter) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("a file is written from its beginning to its end")
	}
	return p.n, nil
}

type ipcEncoder struct {
	w interface {
		Write(arrow.Record) error
		Close() error
	}
}

func (e ipcEncoder) write(rec arrow.Record) error { return e.w.Write(rec) }
func (e ipcEncoder) finish() error                { return e.w.Close() }

// jsonEncoder writes NDJSON, or one array.
type jsonEncoder struct {
	w      *bufio.Writer
	schema *arrow.Schema
	lines  bool
	rows   int64
	buf    []byte
}

func (e *jsonEncoder) write(rec arrow.Record) error {
	for i := range int(rec.NumRows()) {
		b := e.buf[:0]
		switch {
		case e.lines:
		case e.rows == 0:
			b = append(b, '[', '\n')
		default:
			b = append(b, ',', '\n')
		}
		b = append(b, '{')
		for c, f := range e.schema.Fields() {
			if c > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, f.Name)
			b = append(b, ':')
			b = appendValue(b, rec.Column(c), i, true)
		}
		b = append(b, '}')
		if e.lines {
			b = append(b, '\n')
		}
		e.buf = b
		e.rows++
		if _, err := e.w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (e *jsonEncoder) finish() error {
	var err error
	switch {
	case e.lines:
	case e.rows == 0:
		_, err = e.w.WriteString("[]\n")
	default:
		_, err = e.w.WriteString("\n]\n")
	}
	return err
}

// csvEncoder writes RFC 4180 with a header line.
type csvEncoder struct {
	w   *bufio.Writer
	buf []byte
	txt []byte
}

func newCSVEncoder(w *bufio.Writer, s *arrow.Schema) (encoder, error) {
	e := &csvEncoder{w: w}
	for i, f := range s.Fields() {
		if f.Type.ID() == arrow.FIXED_SIZE_LIST {
			return nil, schemas.FieldErrorf(schemas.Invalid, "files.Create", f.Name, "type %s: a CSV cell holds one value; use NDJSON, Arrow or Parquet", f.Type)
		}
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = appendCell(e.buf, []byte(f.Name))
	}
	_, err := w.Write(append(e.buf, '\n'))
	return e, err
}

func (e *csvEncoder) write(rec arrow.Record) error {
	for i := range int(rec.NumRows()) {
		b := e.buf[:0]
		for c, col := range rec.Columns() {
			if c > 0 {
				b = append(b, ',')
			}
			if col.IsNull(i) {
				continue
			}
			e.txt = appendValue(e.txt[:0], col, i, false)
			b = appendCell(b, e.txt)
		}
		e.buf = append(b, '\n')
		if _, err := e.w.Write(e.buf); err != nil {
			return err
		}
	}
	return nil
}

func (e *csvEncoder) finish() error { return nil }

// appendCell quotes where RFC 4180 asks for it, and an empty string, to tell it from a null.
func appendCell(dst, s []byte) []byte {
	quote := len(s) == 0
	for _, c := range s {
		quote = quote || c == '"' || c == ',' || c == '\n' || c == '\r'
	}
	if !quote {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for _, c := range s {
		if c == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// appendValue writes row i of a column: as JSON if quoted, else as a CSV cell without its quotes.
func appendValue(b []byte, a arrow.Array, i int, quoted bool) []byte {
	if a.IsNull(i) {
		return append(b, "null"...)
	}
	mark := func() {
		if quoted {
			b = append(b, '"')
		}
	}
	switch a := a.(type) {
	case *array.Boolean:
		return strconv.AppendBool(b, a.Value(i))
	case *array.Int8:
		return strconv.AppendInt(b, int64(a.Value(i)), 10)
	case *array.Int16:
		return strconv.AppendInt(b, int64(a.Value(i)), 10)
	case *array.Int32:
		return strconv.AppendInt(b, int64(a.Value(i)), 10)
	case *array.Int64:
		return strconv.AppendInt(b, a.Value(i), 10)
	case *array.Uint8:
		return strconv.AppendUint(b, uint64(a.Value(i)), 10)
	case *array.Uint16:
		return strconv.AppendUint(b, uint64(a.Value(i)), 10)
	case *array.Uint32:
		return strconv.AppendUint(b, uint64(a.Value(i)), 10)
	case *array.Uint64:
		return strconv.AppendUint(b, a.Value(i), 10)
	case *array.Float16:
		return appendFloat(b, float64(a.Value(i).Float32()), 32, quoted)
	case *array.Float32:
		return appendFloat(b, float64(a.Value(i)), 32, quoted)
	case *array.Float64:
		return appendFloat(b, a.Value(i), 64, quoted)
	case *array.Timestamp:
		mark()
		b = time.Unix(0, int64(a.Value(i))).UTC().AppendFormat(b, time.RFC3339Nano)
		mark()
		return b
	case *array.String:
		if quoted {
			return appendQuoted(b, a.Value(i))
		}
		return append(b, a.Value(i)...)
	case *array.Binary:
		mark()
		b = base64.StdEncoding.AppendEncode(b, a.Value(i))
		mark()
		return b
	case *array.FixedSizeList:
		w := int(a.DataType().(*arrow.FixedSizeListType).Len())
		b = append(b, '[')
		for k := range w {
			if k > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, a.ListValues(), (a.Offset()+i)*w+k, quoted)
		}
		return append(b, ']')
	}
	panic("files: a column type that Create admitted and appendValue does not know: " + a.DataType().String())
}

// appendFloat writes the shortest text that reads back as the same float; JSON has no NaN, so it takes strings.
func appendFloat(b []byte, v float64, bits int, quoted bool) []byte {
	var s string
	switch {
	case math.IsNaN(v):
		s = "NaN"
	case math.IsInf(v, 1):
		s = "Infinity"
	case math.IsInf(v, -1):
		s = "-Infinity"
	default:
		format := byte('f')
		if x := math.Abs(v); x != 0 && (x < 1e-6 || x >= 1e21) {
			format = 'e'
		}
		return strconv.AppendFloat(b, v, format, -1, bits)
	}
	if quoted {
		return append(append(append(b, '"'), s...), '"')
	}
	return append(b, s...)
}

const hexDigits = "0123456789abcdef"

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
