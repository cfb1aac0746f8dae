package schemas

import (
	"sync"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// derived holds what other packages compute from a schema once: see Derived. It is a pointer so that a Schema stays
// copyable.
type derived struct{ m sync.Map }

// Derived returns what build made of the schema when it was first asked for under this key, and keeps it as long as
// the schema lives: codecs keep their plans and templates here. build may run more than once at the same time; one
// result wins. Keys are of a type private to the caller, as with context values.
func (s *Schema) Derived(key any, build func(*Schema) any) any {
	if v, ok := s.derived.m.Load(key); ok {
		return v
	}
	v, _ := s.derived.m.LoadOrStore(key, build(s))
	return v
}

type arrowKey struct{}

// Arrow returns the schema as Arrow sees it: scalars as themselves, a tensor of any rank as a flat FixedSizeList of
// Width non-null elements. The same *arrow.Schema comes back every time.
func (s *Schema) Arrow() *arrow.Schema {
	return s.Derived(arrowKey{}, func(s *Schema) any {
		fs := make([]arrow.Field, s.Len())
		for i := range fs {
			f := s.Field(i)
			fs[i] = arrow.Field{Name: f.Name, Type: f.Arrow(), Nullable: f.Nullable}
		}
		return arrow.NewSchema(fs, nil)
	}).(*arrow.Schema)
}

// Arrow returns the Arrow type of the column: see Schema.Arrow.
func (f *Field) Arrow() arrow.DataType {
	if !f.Tensor() {
		return f.Type.Arrow()
	}
	return arrow.FixedSizeListOfField(int32(f.Width()), arrow.Field{Name: "item", Type: f.Type.Arrow()})
}

// SchemaFromArrow returns the schema of which an Arrow schema's columns are rows, for files that nobody described.
// Large strings, dictionaries, dates and timestamps of any unit become the plain type that a Projection casts them to;
// a FixedSizeList becomes a tensor of rank 1. Any other type is Invalid, naming the column.
func SchemaFromArrow(as *arrow.Schema) (*Schema, error) {
	const op = "schemas.SchemaFromArrow"
	fs := make([]Field, len(as.Fields()))
	for i, af := range as.Fields() {
		t := af.Type
		f := Field{Name: af.Name, Nullable: af.Nullable}
		if l, ok := t.(*arrow.FixedSizeListType); ok {
			t = l.Elem()
			f.Shape = []int{int(l.Len())}
		}
		if f.Type = plainType(t); f.Type == 0 {
			return nil, FieldErrorf(Invalid, op, af.Name, "Arrow type %s is not taken", af.Type)
		}
		fs[i] = f
	}
	return NewSchema(fs)
}

// plainType returns the dtype that an Arrow type is read as, 0 if none.
func plainType(t arrow.DataType) DType {
	if d, ok := t.(*arrow.DictionaryType); ok {
		t = d.ValueType
	}
	switch t.ID() {
	case arrow.LARGE_STRING:
		return String
	case arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY:
		return Binary
	case arrow.TIMESTAMP, arrow.DATE32, arrow.DATE64:
		return Timestamp
	}
	for d := Bool; d < Timestamp; d++ {
		if dtypes[d].arrow.ID() == t.ID() {
			return d
		}
	}
	return 0
}

// Record returns the batch's rows as an arrow.Record that shares the batch's memory: valid until the next append,
// Reset, Truncate or Rollback. Bools alone are copied, packed to bits, in memory of mem (nil: Go's own). The caller
// releases the record. The error is always nil today; it is there because views of other layouts may have to copy.
func (b *Batch) Record(mem memory.Allocator) (arrow.Record, error) {
	if mem == nil {
		mem = memory.DefaultAllocator
	}
	as := b.schema.Arrow()
	cols := make([]arrow.Array, len(b.cols))
	for i := range b.cols {
		d := b.cols[i].arrowData(as.Field(i).Type, b.rows, mem)
		cols[i] = array.MakeFromData(d)
		d.Release()
	}
	rec := array.NewRecord(as, cols, int64(b.rows))
	for _, c := range cols {
		c.Release()
	}
	return rec, nil
}

func (c *Column) arrowData(t arrow.DataType, rows int, mem memory.Allocator) *array.Data {
	var valid *memory.Buffer
	if v := c.Validity(); v != nil {
		valid = memory.NewBufferBytes(v)
	}
	n := rows * c.width
	var bufs []*memory.Buffer
	switch {
	case c.typ == Bool:
		p := memory.NewResizableBuffer(mem)
		defer p.Release()
		p.Resize((n + 7) / 8)
		PackBits(p.Bytes(), c.data[:n])
		bufs = []*memory.Buffer{nil, p}
	case c.size == 0:
		bufs = []*memory.Buffer{nil, memory.NewBufferBytes(int32Bytes(c.offsets[:n+1])), memory.NewBufferBytes(c.data)}
	default:
		bufs = []*memory.Buffer{nil, memory.NewBufferBytes(c.data[:n*c.size])}
	}
	if !c.field.Tensor() {
		bufs[0] = valid
		return array.NewData(t, rows, bufs, nil, c.nulls, 0)
	}
	child := array.NewData(c.typ.Arrow(), n, bufs, nil, 0, 0)
	defer child.Release()
	return array.NewData(t, rows, []*memory.Buffer{valid}, []arrow.ArrayData{child}, c.nulls, 0)
}

// PackBits writes one bit for each byte of src (0 or 1), least significant first, to dst, which holds
// (len(src)+7)/8 bytes; the spare bits of the last byte are zero.
func PackBits(dst, src []byte) {
	for len(src) >= 8 {
		// Each of the 8 bytes is 0 or 1: the product gathers them in the top byte.
		w := uint64(src[0]) | uint64(src[1])<<8 | uint64(src[2])<<16 | uint64(src[3])<<24 |
			uint64(src[4])<<32 | uint64(src[5])<<40 | uint64(src[6])<<48 | uint64(src[7])<<56
		dst[0] = byte(w * 0x0102040810204080 >> 56)
		dst, src = dst[1:], src[8:]
	}
	if len(src) > 0 {
		var v byte
		for i, b := range src {
			v |= b << i
		}
		dst[0] = v
	}
}

// UnpackBits writes bits [at, at+len(dst)) of src to dst, one byte each.
func UnpackBits(dst, src []byte, at int) {
	for i := range dst {
		j := at + i
		dst[i] = src[j>>3] >> (j & 7) & 1
	}
}

func int32Bytes(v []int32) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}
