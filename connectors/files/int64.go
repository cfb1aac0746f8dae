package files

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"
)

// chunkReader gives the next n values of a column, over row groups. pqarrow.ColumnReader is one.
type chunkReader interface {
	NextBatch(n int64) (*arrow.Chunked, error)
	Release()
}

// int64Reader reads a nullable 64-bit column (integers and timestamps) below pqarrow. In arrow/go v15
// DeltaBitPackInt64Decoder.DecodeSpaced has a value receiver and so forgets the rest of its block between two batches,
// which then panics; the dense read that this uses does not.
type int64Reader struct {
	file   *file.Reader
	pages  *pages
	leaf   int
	groups []int
	typ    arrow.DataType
	cur    *file.Int64ColumnChunkReader // nil: the next row group is opened
}

// nullable64 reports whether int64Reader reads a field.
func nullable64(f *file.Reader, s *pqarrow.SchemaField) bool {
	if len(s.Children) > 0 || !s.IsLeaf() {
		return false
	}
	d := f.MetaData().Schema.Column(s.ColIndex)
	if d.PhysicalType() != parquet.Types.Int64 || d.MaxRepetitionLevel() != 0 || d.MaxDefinitionLevel() != 1 {
		return false
	}
	switch s.Field.Type.ID() {
	case arrow.INT64, arrow.UINT64, arrow.TIMESTAMP:
		return true
	}
	return false
}

// NextBatch implements chunkReader.
func (r *int64Reader) NextBatch(n int64) (*arrow.Chunked, error) {
	values, levels := make([]int64, n), make([]int16, n)
	rows, dense := int64(0), 0
	for rows < n {
		if r.cur == nil {
			if len(r.groups) == 0 {
				break
			}
			if err := r.pages.check(r.groups[0], r.leaf); err != nil {
				return nil, err
			}
			c, err := r.file.RowGroup(r.groups[0]).Column(r.leaf)
			if err != nil {
				return nil, err
			}
			r.groups = r.groups[1:]
			var ok bool
			if r.cur, ok = c.(*file.Int64ColumnChunkReader); !ok {
				return nil, fmt.Errorf("a column chunk of another type")
			}
		}
		total, read, err := r.cur.ReadBatch(n-rows, values[dense:], levels[rows:], nil)
		if err == nil {
			err = r.cur.Err()
		}
		if err != nil {
			return nil, err
		}
		if total == 0 {
			r.cur = nil
			continue
		}
		rows += total
		dense += read
	}
	return r.spread(values, levels, int(rows), dense)
}

// spread moves the values that are there to their rows, from the last one on, and makes the validity bitmap.
func (r *int64Reader) spread(values []int64, levels []int16, rows, dense int) (*arrow.Chunked, error) {
	valid := make([]byte, (rows+7)/8)
	nulls := rows - dense
	from := dense
	for i := rows - 1; i >= 0; i-- {
		if levels[i] == 0 {
			values[i] = 0
			continue
		}
		if from--; from < 0 {
			break
		}
		values[i] = values[from]
		valid[i>>3] |= 1 << (i & 7)
	}
	if from != 0 {
		return nil, fmt.Errorf("%d values where its levels say %d", dense, dense-from)
	}
	buffers := []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(values[:rows]))}
	if nulls > 0 {
		buffers[0] = memory.NewBufferBytes(valid)
	}
	d := array.NewData(r.typ, rows, buffers, nil, nulls, 0)
	defer d.Release()
	a := array.MakeFromData(d)
	defer a.Release()
	return arrow.NewChunked(r.typ, []arrow.Array{a}), nil
}

// Release implements chunkReader.
func (r *int64Reader) Release() { r.cur = nil }
