package files

import (
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/metadata"

	"github.com/leatstream/leat/schemas"
)

// Parquet knows no lists of a fixed size, and what arrow/go v15 makes of them loses slices, nulls and non-null elements.
// So a tensor column is written as a list, as any tool reads it, and its width is kept in the file's metadata.

const tensorKey = "leat.tensor." // + column name = width

// listSchema is s with tensors as lists.
func listSchema(s *arrow.Schema) *arrow.Schema {
	var keys, values []string
	fs := append([]arrow.Field(nil), s.Fields()...)
	for i, f := range fs {
		if t, ok := f.Type.(*arrow.FixedSizeListType); ok {
			fs[i].Type = arrow.ListOf(t.Elem())
			keys = append(keys, tensorKey+f.Name)
			values = append(values, strconv.Itoa(int(t.Len())))
		}
	}
	md := arrow.NewMetadata(keys, values)
	return arrow.NewSchema(fs, &md)
}

// listRecord sees rec's tensors as lists. The values are not copied unless rows are null.
func listRecord(s *arrow.Schema, rec arrow.Record) (arrow.Record, error) {
	cols := make([]arrow.Array, rec.NumCols())
	for i, c := range rec.Columns() {
		cols[i] = c
		if f, ok := c.(*array.FixedSizeList); ok {
			l, err := listFromTensor(f, s.Field(i).Type)
			if err != nil {
				return nil, err
			}
			defer l.Release()
			cols[i] = l
		}
	}
	return array.NewRecord(s, cols, rec.NumRows()), nil
}

// listFromTensor gives null rows no elements, as Parquet asks.
func listFromTensor(a *array.FixedSizeList, t arrow.DataType) (arrow.Array, error) {
	n, w := a.Len(), int64(a.DataType().(*arrow.FixedSizeListType).Len())
	offsets := make([]int32, n+1)
	valid := make([]byte, (n+7)/8)
	var runs []arrow.Array // of rows that are not null
	start := -1
	end := func(i int) {
		if start >= 0 {
			runs = append(runs, array.NewSlice(a.ListValues(), int64(a.Offset()+start)*w, int64(a.Offset()+i)*w))
		}
		start = -1
	}
	for i := range n {
		offsets[i+1] = offsets[i]
		if a.IsNull(i) {
			end(i)
			continue
		}
		if start < 0 {
			start = i
		}
		valid[i>>3] |= 1 << (i & 7)
		offsets[i+1] += int32(w)
	}
	end(n)
	if len(runs) == 0 {
		runs = append(runs, array.NewSlice(a.ListValues(), 0, 0))
	}
	defer func() {
		for _, r := range runs {
			r.Release()
		}
	}()
	values := runs[0]
	if len(runs) > 1 {
		var err error
		if values, err = array.Concatenate(runs, memory.DefaultAllocator); err != nil {
			return nil, err
		}
		defer values.Release()
	}
	bufs := []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets))}
	if a.NullN() > 0 {
		bufs[0] = memory.NewBufferBytes(valid)
	}
	d := array.NewData(t, n, bufs, []arrow.ArrayData{values.Data()}, a.NullN(), 0)
	defer d.Release()
	return array.MakeFromData(d), nil
}

// tensorWidth returns the elements in a row of a list column: as the file's writer noted, else as the caller wants;
// 0 if neither says.
func tensorWidth(md metadata.KeyValueMetadata, name string, want *schemas.Schema) int {
	if v := md.FindValue(tensorKey + name); v != nil {
		if w, err := strconv.Atoi(*v); err == nil && w > 0 && w <= schemas.MaxRowElements {
			return w
		}
	}
	if want != nil {
		if i := want.Index(name); i >= 0 && want.Field(i).Tensor() {
			return want.Field(i).Width()
		}
	}
	return 0
}

func tensorType(width int, elem arrow.DataType) arrow.DataType {
	return arrow.FixedSizeListOfField(int32(width), arrow.Field{Name: "item", Type: elem})
}

// tensorFromList checks that every list has t's length and no null element. Null rows get zeros beneath. first is
// the row of the file that a begins with.
func tensorFromList(mem memory.Allocator, a *array.List, t *arrow.FixedSizeListType, first int64) (arrow.Array, error) {
	const op = "files.Reader"
	n, w := a.Len(), int64(t.Len())
	offsets := a.Offsets()[a.Offset():]
	values := a.ListValues()
	for i := range n {
		if a.IsNull(i) {
			continue
		}
		from, to := a.ValueOffsets(i)
		if to-from != w || from < 0 || to > int64(values.Len()) {
			return nil, schemas.Errorf(schemas.Invalid, op, "row %d has %d elements, want %d", first+int64(i), to-from, w)
		}
	}
	if values.NullN() > 0 {
		return nil, schemas.Errorf(schemas.Invalid, op, "a list holds a null")
	}
	if a.NullN() == 0 && n > 0 {
		from := int64(offsets[0])
		part := array.NewSlice(values, from, from+int64(n)*w)
		defer part.Release()
		d := array.NewData(t, n, []*memory.Buffer{nil}, []arrow.ArrayData{part.Data()}, 0, 0)
		defer d.Release()
		return array.MakeFromData(d), nil
	}
	return padded(mem, a, t, n, int(w))
}

// padded copies lists, with null rows' elements as zeros, piece by piece through Concatenate.
func padded(mem memory.Allocator, a *array.List, t *arrow.FixedSizeListType, n, w int) (arrow.Array, error) {
	b := array.NewBuilder(mem, t.Elem())
	defer b.Release()
	for range w {
		b.AppendEmptyValue()
	}
	zeros := b.NewArray()
	defer zeros.Release()
	parts := make([]arrow.Array, 0, n)
	valid := make([]byte, (n+7)/8)
	for i := range n {
		if a.IsNull(i) {
			zeros.Retain()
			parts = append(parts, zeros)
			continue
		}
		valid[i>>3] |= 1 << (i & 7)
		from, to := a.ValueOffsets(i)
		parts = append(parts, array.NewSlice(a.ListValues(), from, to))
	}
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	if n == 0 {
		parts = append(parts, array.NewSlice(zeros, 0, 0))
	}
	items, err := array.Concatenate(parts, mem)
	if err != nil {
		return nil, err
	}
	defer items.Release()
	d := array.NewData(t, n, []*memory.Buffer{memory.NewBufferBytes(valid)}, []arrow.ArrayData{items.Data()}, a.NullN(), 0)
	defer d.Release()
	return array.MakeFromData(d), nil
}
