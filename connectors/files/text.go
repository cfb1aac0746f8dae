package files

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/schemas"
)

// row is one row of a text file as it stands there.
type row struct {
	line  int64
	raw   []byte   // NDJSON, JSON
	cells []string // CSV
}

// rowFault is an error of one row that leaves the next one readable.
type rowFault struct{ err *schemas.Error }

func (f *rowFault) Error() string { return f.err.Error() }
func (f *rowFault) Unwrap() error { return f.err }

// rowFormat is one text format.
type rowFormat interface {
	// next reads a row into r, whose memory is lent until the next call. io.EOF: no more. *rowFault: this one is bad.
	next(r *row) error
	// look counts what r says of the types of its columns.
	look(r *row, g *guess) error
	// bind tells which column of a batch each of the format's columns goes to.
	bind(s *schemas.Schema)
	// append adds the row's values to b, one row in every column; on error the caller rolls back.
	append(b *schemas.Batch, r *row) *schemas.Error
}

// textReader reads CSV, NDJSON and JSON.
type textReader struct {
	path    string
	src     source
	format  rowFormat
	o       Options
	schema  *schemas.Schema
	arrow   *arrow.Schema
	skipped []string
	sample  []sampled // rows read for their types, still to be given
	pos     int64
	err     error
}

// sampled is a row that was read ahead, or the fault in its place.
type sampled struct {
	row
	fault *rowFault
}

func openText(path string, src source, o *Options) (Reader, error) {
	r := &textReader{path: path, src: src, o: *o}
	in := &budget{r: src, limit: o.rowBytes, left: o.rowBytes}
	var err error
	switch o.Format {
	case CSV:
		r.format, err = newCSV(path, in, o)
	case NDJSON:
		r.format = newNDJSON(in)
	default:
		r.format, err = newJSON(path, in)
	}
	if err != nil {
		return nil, err
	}
	if err := r.types(); err != nil {
		return nil, err
	}
	r.format.bind(r.schema)
	for r.pos < o.FromRow {
		var skip row
		if fault, err := r.next(&skip); err == io.EOF {
			break
		} else if err != nil && fault == nil {
			return nil, r.broken("files.Open", int(r.pos), err)
		}
		r.pos++
	}
	return r, nil
}

// types reads the first rows and settles the columns.
func (r *textReader) types() error {
	g := newGuess(r.o.Want, r.o.Columns)
	g.later = r.o.Format != CSV
	for size := 0; len(r.sample) < inferRows && size < inferBytes; {
		var w row
		var fault *rowFault
		err := r.format.next(&w)
		if err == io.EOF {
			break
		}
		if err != nil && !errors.As(err, &fault) {
			return r.broken("files.Open", len(r.sample), err)
		}
		if fault == nil {
			if err := r.format.look(&w, g); err != nil {
				fault = &rowFault{blame("", err)}
			}
		}
		w.raw = append([]byte(nil), w.raw...)
		w.cells = append([]string(nil), w.cells...)
		size += len(w.raw)
		for _, c := range w.cells {
			size += len(c)
		}
		r.sample = append(r.sample, sampled{w, fault})
	}
	fields, skipped, err := g.fields(r.path)
	if err != nil {
		return err
	}
	if r.schema, err = schemas.NewSchema(fields); err != nil {
		return schemas.Errorf(schemas.Invalid, "files.Open", "%s: %w", r.path, err)
	}
	r.arrow, r.skipped = r.schema.Arrow(), skipped
	return nil
}

// broken is the error that ends the reading after so many rows.
func (r *textReader) broken(op string, rows int, err error) error {
	var long longRow
	if errors.As(err, &long) {
		return schemas.Errorf(schemas.Invalid, op, "%s: after %d rows comes one of more than %d bytes, the most that are taken: is a quote or a bracket left open?", r.path, rows, int(long))
	}
	return schemas.AsError(op, err)
}

// next returns the next row: of the sample first.
func (r *textReader) next(w *row) (*rowFault, error) {
	if len(r.sample) > 0 {
		s := r.sample[0]
		r.sample[0] = sampled{}
		r.sample = r.sample[1:]
		*w = s.row
		if s.fault != nil {
			return s.fault, s.fault
		}
		return nil, nil
	}
	err := r.format.next(w)
	var fault *rowFault
	if errors.As(err, &fault) {
		return fault, err
	}
	return nil, err
}

func (r *textReader) Schema() *arrow.Schema    { return r.arrow }
func (r *textReader) Skipped() []string        { return r.skipped }
func (r *textReader) TotalRows() (int64, bool) { return 0, false }
func (r *textReader) Position() int64          { return r.pos }

func (r *textReader) Next(ctx context.Context) (arrow.Record, error) {
	const op = "files.Reader.Next"
	if r.err != nil {
		return nil, r.err
	}
	if err := ctx.Err(); err != nil {
		return nil, schemas.AsError(op, err)
	}
	b := schemas.NewBatch(r.schema)
	var w row
	passed := 0
	for ; passed < r.o.BatchRows; passed++ {
		fault, err := r.next(&w)
		if err == io.EOF {
			break
		}
		if err != nil && fault == nil {
			r.err = r.broken(op, int(r.pos), err)
			return nil, r.err
		}
		var bad *schemas.Error
		if fault != nil {
			bad = fault.err
		} else if bad = r.format.append(b, &w); bad == nil {
			b.Advance(1)
		} else {
			b.Rollback()
		}
		if bad != nil {
			if r.err = r.report(&w, bad); r.err != nil {
				return nil, r.err
			}
		}
		r.pos++
	}
	if passed == 0 {
		r.err = io.EOF
		return nil, io.EOF
	}
	return b.Record(nil)
}

func (r *textReader) report(w *row, bad *schemas.Error) error {
	if r.o.OnRowError != nil {
		return r.o.OnRowError(RowError{Row: r.pos, Line: w.line, Raw: w.raw, Err: bad})
	}
	return schemas.FieldErrorf(schemas.Invalid, "files.Reader.Next", bad.Field, "%s line %d: %w", r.path, w.line, bad.Err)
}

func (r *textReader) Close() error {
	r.err = io.ErrClosedPipe
	return r.src.Close()
}

// longRow says that a row has more than so many bytes.
type longRow int

func (l longRow) Error() string { return fmt.Sprintf("a row is longer than %d bytes", int(l)) }

// budget is a reader that gives up when more than left bytes were read since the last complete row. What a parser had
// read ahead by then comes on top, so it also looks at the length of each row.
type budget struct {
	r     io.Reader
	limit int
	left  int
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, longRow(b.limit)
	}
	n, err := b.r.Read(p)
	b.left -= n
	return n, err
}

// refill is called after each row.
func (b *budget) refill() { b.left = b.limit }
