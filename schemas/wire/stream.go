package wire

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/leatstream/leat/schemas"
)

const endOfStream = "\xff\xff\xff\xff\x00\x00\x00\x00"

// AppendStream appends rows [from, to) of b as a whole Arrow IPC stream: schema, one batch, end of stream.
func AppendStream(dst []byte, b *schemas.Batch, from, to int) []byte {
	f := FormatOf(b.Schema())
	dst = append(dst, f.open...)
	dst = f.AppendBatch(dst, b, from, to)
	return append(dst, endOfStream...)
}

// StreamColumns returns the names of the columns of an Arrow IPC stream, in order. The bytes are taken for hostile.
func StreamColumns(payload []byte) ([]string, error) {
	fields, _, err := streamFields(payload)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	return names, nil
}

// streamFields reads the schema of a stream, and returns how many bytes it takes.
func streamFields(payload []byte) ([]streamField, int, error) {
	m, n, err := nextMessage(payload, versionV4)
	if err != nil {
		return nil, 0, err
	}
	if m.kind != headerSchema || len(m.body) != 0 {
		return nil, 0, invalid("an Arrow stream starts with its schema")
	}
	fields, err := readSchema(&m.header)
	return fields, n, err
}

// AppendStreamRows appends all rows of an Arrow IPC stream to dst, or none. Its columns are matched to dst's by name, as
// a schemas.Projection does. The bytes are taken for hostile: whatever is wrong is Invalid. Compression, dictionaries,
// unions and views are refused; a column that nobody wants may have any other type.
func AppendStreamRows(dst *schemas.Batch, payload []byte) (rows int, err error) {
	start := dst.Rows()
	defer func() {
		if p := recover(); p != nil { // the Arrow library panics on what it cannot read; nothing of it may reach others
			err = invalid("the Arrow stream cannot be read: %v", p)
		}
		if err != nil {
			dst.Rollback()
			dst.Truncate(start)
			rows = 0
		}
	}()
	fields, n, err := streamFields(payload)
	if err != nil {
		return 0, err
	}
	s := stream{dst: dst, format: FormatOf(dst.Schema()), fields: fields, limit: len(payload)}
	if err := s.match(); err != nil {
		return 0, err
	}
	for rest := payload[n:]; len(rest) > 0; rest = rest[n:] {
		if len(rest) >= len(endOfStream) && string(rest[:len(endOfStream)]) == endOfStream {
			if len(rest) > len(endOfStream) {
				return 0, invalid("%d bytes after the end of the Arrow stream", len(rest)-len(endOfStream))
			}
			break
		}
		var m message
		if m, n, err = nextMessage(rest, versionV4); err != nil {
			return 0, err
		}
		if m.kind != headerRecordBatch {
			return 0, invalid("the Arrow stream holds a message that is no RecordBatch (kind %d)", m.kind)
		}
		if err := s.batch(&m); err != nil {
			return 0, err
		}
	}
	return dst.Rows() - start, nil
}

// stream is one decoding.
type stream struct {
	dst    *schemas.Batch
	format *Format
	fields []streamField
	limit  int

	grown   int  // bytes that cast columns take, so far
	direct  bool // the columns are the format's: no cast is needed
	wanted  []bool
	arrow   *arrow.Schema
	project *schemas.Projection
}

// match decides how the columns get into the batch.
func (s *stream) match() error {
	to := s.dst.Schema()
	if s.direct = sameColumns(s.fields, to); s.direct {
		return nil
	}
	want := make(map[string]bool, to.Len())
	for i := range to.Fields() {
		f := to.Field(i)
		want[f.Name] = true
		for _, n := range f.Features {
			want[n] = true
		}
	}
	var af []arrow.Field
	s.wanted = make([]bool, len(s.fields))
	for i := range s.fields {
		f := &s.fields[i]
		if !want[f.name] {
			continue
		}
		if f.typ == nil {
			return column(f.name, "Arrow type %s is not taken", f.kind)
		}
		s.wanted[i] = true
		af = append(af, arrow.Field{Name: f.name, Type: f.typ, Nullable: f.nullable})
	}
	s.arrow = arrow.NewSchema(af, nil)
	var err error
	s.project, err = schemas.NewProjection(s.arrow, to)
	return err
}

// sameColumns reports whether a stream's columns are the schema's, in order, but for nullability.
func sameColumns(fields []streamField, to *schemas.Schema) bool {
	if len(fields) != to.Len() {
		return false
	}
	for i := range fields {
		f := to.Field(i)
		if fields[i].name != f.Name || fields[i].typ == nil {
			return false
		}
		t := fields[i].typ
		if l, ok := t.(*arrow.FixedSizeListType); ok != f.Tensor() {
			return false
		} else if ok {
			if int(l.Len()) != f.Width() {
				return false
			}
			t = l.Elem()
		}
		if !arrow.TypeEqual(t, f.Type.Arrow()) {
			return false
		}
	}
	return true
}

func (s *stream) batch(m *message) error {
	var r batchReader
	if err := r.open(m); err != nil {
		return err
	}
	if s.direct {
		_, err := s.format.append(s.dst, &r)
		return err
	}
	nodes, bufs, row := 0, 0, 0
	for i := range s.fields {
		nodes += s.fields[i].nodes
		bufs += s.fields[i].bufs
	}
	if r.nodes != nodes || r.bufs != bufs {
		return invalid("%d field nodes and %d buffers do not fit the stream's schema: want %d and %d", r.nodes, r.bufs, nodes, bufs)
	}
	for i := range s.format.cols {
		row += s.format.cols[i].width * max(s.format.cols[i].size, 4)
	}
	// A bit may become a float64; more than that comes only from columns without values.
	if s.grown += r.rows * row; r.rows > 0 && row > (1<<50)/r.rows || s.grown > 1<<20+64*s.limit {
		return invalid("%d rows of an Arrow payload of %d bytes: columns without values cannot stand for so many", r.rows, s.limit)
	}
	if !s.dst.Room(len(r.body)) {
		return schemas.Errorf(schemas.Overloaded, opRows, "the batch holds too much text to take %d bytes more", len(r.body))
	}
	cols := make([]arrow.Array, 0, len(s.fields))
	for i := range s.fields {
		f := &s.fields[i]
		if !s.wanted[i] {
			r.skip(f.nodes, f.bufs)
			continue
		}
		d, err := r.data(f.name, f.typ, int64(r.rows))
		if err != nil {
			return err
		}
		cols = append(cols, array.MakeFromData(d))
	}
	return s.project.AppendRecord(s.dst, array.NewRecord(s.arrow, cols, int64(r.rows)), 0, r.rows)
}

// data makes the array of n values out of the next nodes and buffers, which stay where they are in the payload.
func (r *batchReader) data(name string, t arrow.DataType, n int64) (*array.Data, error) {
	nulls, err := r.next(name, n)
	if err != nil {
		return nil, err
	}
	if t.ID() == arrow.NULL {
		return array.NewData(t, int(n), []*memory.Buffer{nil}, nil, int(n), 0), nil
	}
	valid, err := r.validity(name, n, nulls)
	if err != nil {
		return nil, err
	}
	bufs := []*memory.Buffer{nil}
	if valid != nil {
		bufs[0] = memory.NewBufferBytes(valid)
	}
	add := func(size int64) error {
		b, err := r.buffer(name, size)
		bufs = append(bufs, memory.NewBufferBytes(b))
		return err
	}
	var kids []arrow.ArrayData
	switch t := t.(type) {
	case *arrow.FixedSizeListType:
		kid, err := r.data(name, t.Elem(), n*int64(t.Len()))
		if err != nil {
			return nil, err
		}
		kids = []arrow.ArrayData{kid}
	case *arrow.StringType, *arrow.BinaryType, *arrow.LargeStringType, *arrow.LargeBinaryType:
		if err := add(offsetsSize(t, n)); err != nil {
			return nil, err
		}
		if err := add(-1); err != nil {
			return nil, err
		}
	case arrow.FixedWidthDataType:
		if err := add((n*int64(t.BitWidth()) + 7) / 8); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("wire: no layout of %s", t)
	}
	return array.NewData(t, int(n), bufs, kids, nulls, 0), nil
}

func offsetsSize(t arrow.DataType, n int64) int64 {
	switch {
	case n == 0:
		return 0
	case t.ID() == arrow.LARGE_STRING, t.ID() == arrow.LARGE_BINARY:
		return 8 * (n + 1)
	}
	return 4 * (n + 1)
}
