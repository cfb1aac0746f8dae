package files

import (
	"context"
	"io"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/leatstream/leat/schemas"
)

// parquetReader reads the wanted columns side by side. It goes below pqarrow.GetRecordReader, because that opens the
// columns in goroutines of its own, where a damaged file's panic could not be caught.
type parquetReader struct {
	path    string
	src     source
	mem     memory.Allocator
	file    *file.Reader
	plan    plan
	columns []chunkReader
	batch   int64
	total   int64
	pos     int64
	err     error
}

// readBuffer is the buffer of one column's pages: large enough that reading 13 columns of a row group in turn is not
// all seeks.
const readBuffer = 256 << 10

func openParquet(ctx context.Context, path string, src source, size int64, o *Options) (Reader, error) {
	mem := newBounded()
	props := parquet.NewReaderProperties(mem)
	props.BufferedStreamEnabled = true // never a whole column chunk in memory, and no allocation by the size it claims
	props.BufferSize = readBuffer
	bad := func(err error) error {
		return schemas.Errorf(schemas.Invalid, "files.Open", "%s: not a readable Parquet file: %w", path, err)
	}
	if err := checkFooter(src.file, size); err != nil {
		return nil, bad(err)
	}
	f, err := file.NewParquetReader(io.NewSectionReader(src.file, 0, size), file.WithReadProps(props))
	if err != nil {
		return nil, bad(err)
	}
	if err := checkOrigin(f.MetaData().KeyValueMetadata()); err != nil {
		return nil, bad(err)
	}
	fr, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: int64(o.BatchRows)}, mem)
	if err != nil {
		return nil, bad(err)
	}
	r := &parquetReader{path: path, src: src, mem: mem, file: f, batch: int64(o.BatchRows)}
	fields := make([]arrow.Field, len(fr.Manifest.Fields))
	for i := range fields {
		fields[i] = *fr.Manifest.Fields[i].Field
		if l, ok := fields[i].Type.(*arrow.ListType); ok {
			if w := tensorWidth(f.MetaData().KeyValueMetadata(), fields[i].Name, o.Want); w > 0 {
				fields[i].Type = tensorType(w, l.Elem())
			}
		}
	}
	if r.plan, err = choose(path, fields, o.Columns); err != nil {
		return nil, err
	}
	groups, skip, err := r.groupsFrom(o.FromRow)
	if err != nil {
		return nil, err
	}
	checked := &pages{r: src.file, size: size, file: f}
	for _, i := range r.plan.columns {
		sf := &fr.Manifest.Fields[i]
		if nullable64(f, sf) {
			r.columns = append(r.columns, &int64Reader{file: f, pages: checked, leaf: sf.ColIndex, groups: groups, typ: sf.Field.Type})
			continue
		}
		within := leaves(sf, map[int]bool{})
		c := &groupReader{groups: groups, rows: func(g int) int64 { return f.MetaData().RowGroups[g].GetNumRows() }}
		c.open = func(g int) (chunkReader, error) {
			for leaf := range within {
				if err := checked.check(g, leaf); err != nil {
					return nil, err
				}
			}
			column, err := fr.GetFieldReader(ctx, i, within, []int{g})
			if err != nil {
				return nil, err
			}
			return column, nil
		}
		r.columns = append(r.columns, c)
		if _, err := c.next(); err != nil {
			r.release()
			return nil, bad(err)
		}
	}
	return r, r.skip(skip)
}

// groupsFrom returns the row groups from the one that holds the row on, and the rows to pass over in it. It checks that
// the footer's counts agree.
func (r *parquetReader) groupsFrom(row int64) (groups []int, skip int64, err error) {
	meta := r.file.MetaData()
	skip = row
	for i := range meta.RowGroups {
		n := meta.RowGroups[i].GetNumRows()
		if n < 0 || r.total+n < r.total {
			return nil, 0, schemas.Errorf(schemas.Invalid, "files.Open", "%s: the file is damaged: a row group of %d rows", r.path, n)
		}
		r.total += n
		if len(groups) == 0 && skip >= n {
			skip -= n
			r.pos += n
			continue
		}
		groups = append(groups, i)
	}
	if r.total != meta.NumRows {
		return nil, 0, schemas.Errorf(schemas.Invalid, "files.Open", "%s: the file is damaged: %d rows in all, %d in its row groups", r.path, meta.NumRows, r.total)
	}
	if len(groups) == 0 {
		skip = 0
	}
	return groups, skip, nil
}

// leaves collects the indices of the Parquet columns beneath a field.
func leaves(f *pqarrow.SchemaField, into map[int]bool) map[int]bool {
	if f.IsLeaf() {
		into[f.ColIndex] = true
	}
	for i := range f.Children {
		leaves(&f.Children[i], into)
	}
	return into
}

func (r *parquetReader) skip(n int64) error {
	for n > 0 {
		rec, err := r.read(min(n, r.batch))
		if err != nil {
			return err
		}
		n -= rec.NumRows()
		rec.Release()
	}
	return nil
}

func (r *parquetReader) Schema() *arrow.Schema    { return r.plan.schema }
func (r *parquetReader) Skipped() []string        { return r.plan.skipped }
func (r *parquetReader) TotalRows() (int64, bool) { return r.total, true }
func (r *parquetReader) Position() int64          { return r.pos }

func (r *parquetReader) Next(ctx context.Context) (arrow.Record, error) {
	if r.err == nil {
		if err := ctx.Err(); err != nil {
			return nil, schemas.AsError("files.Reader.Next", err)
		}
		var rec arrow.Record
		if rec, r.err = r.read(r.batch); r.err == nil {
			return rec, nil
		}
	}
	return nil, r.err
}

// read returns the next n rows, fewer only at the end of the file.
func (r *parquetReader) read(n int64) (arrow.Record, error) {
	n = min(n, r.total-r.pos)
	if n <= 0 {
		return nil, io.EOF
	}
	return guard2(r.path, func() (arrow.Record, error) {
		cols := make([]arrow.Array, len(r.columns))
		defer func() {
			for _, c := range cols {
				if c != nil {
					c.Release()
				}
			}
		}()
		for i, c := range r.columns {
			var err error
			if cols[i], err = r.column(c, r.plan.schema.Field(i).Type, n); err != nil {
				return nil, schemas.FieldErrorf(schemas.Invalid, "files.Reader.Next", r.plan.schema.Field(i).Name, "%s from row %d: %w", r.path, r.pos, err)
			}
		}
		r.pos += n
		return array.NewRecord(r.plan.schema, cols, n), nil
	})
}

func (r *parquetReader) column(c chunkReader, t arrow.DataType, n int64) (arrow.Array, error) {
	chunks, err := c.NextBatch(n)
	if err != nil {
		return nil, err
	}
	defer chunks.Release()
	if int64(chunks.Len()) != n {
		return nil, schemas.Errorf(schemas.Invalid, "files.Reader.Next", "the file is damaged: %d values where its footer says %d", chunks.Len(), n)
	}
	one := chunks.Chunk(0)
	if len(chunks.Chunks()) > 1 {
		if one, err = array.Concatenate(chunks.Chunks(), r.mem); err != nil {
			return nil, err
		}
		defer one.Release()
	}
	if l, ok := one.(*array.List); ok {
		if one, err = tensorFromList(r.mem, l, t.(*arrow.FixedSizeListType), r.pos); err != nil {
			return nil, err
		}
		defer one.Release()
	}
	return normal(r.mem, one, r.pos)
}

func (r *parquetReader) release() {
	for _, c := range r.columns {
		c.Release()
	}
	r.columns = nil
}

func (r *parquetReader) Close() error {
	r.err = io.ErrClosedPipe
	r.release()
	return r.src.Close()
}
