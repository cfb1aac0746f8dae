package files

import (
	"math"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/leatstream/leat/schemas"
)

// normalType returns the type a column of type t is brought to, false if Leat does not know t.
func normalType(t arrow.DataType) (arrow.DataType, bool) {
	switch t := t.(type) {
	case *arrow.BooleanType, *arrow.Int8Type, *arrow.Int16Type, *arrow.Int32Type, *arrow.Int64Type,
		*arrow.Uint8Type, *arrow.Uint16Type, *arrow.Uint32Type, *arrow.Uint64Type,
		*arrow.Float16Type, *arrow.Float32Type, *arrow.Float64Type, *arrow.StringType, *arrow.BinaryType:
		return t, true
	case *arrow.LargeStringType:
		return arrow.BinaryTypes.String, true
	case *arrow.LargeBinaryType:
		return arrow.BinaryTypes.Binary, true
	case *arrow.TimestampType, *arrow.Date32Type, *arrow.Date64Type:
		return schemas.Timestamp.Arrow(), true
	case *arrow.DictionaryType:
		switch t.ValueType.ID() {
		case arrow.STRING, arrow.LARGE_STRING:
			return arrow.BinaryTypes.String, true
		}
	case *arrow.FixedSizeListType:
		e, ok := normalType(t.Elem())
		if ok && arrow.TypeEqual(e, t.Elem()) && t.Len() > 0 && t.Len() <= schemas.MaxRowElements && e.ID() != arrow.FIXED_SIZE_LIST {
			return t, true
		}
	}
	return nil, false
}

// normal brings a column of a file to its normal type and checks what the rest of the program will rely on: sane
// offsets, and UTF-8 in every text that is not null. What lies beneath a null is not looked at: Arrow leaves it open, and
// writers leave bytes there. first is the row of the file that a begins with, for errors. It returns a new reference.
func normal(mem memory.Allocator, a arrow.Array, first int64) (arrow.Array, error) {
	switch a := a.(type) {
	case *array.String:
		if !validTexts(a, 0, a.Len()) {
			if err := checkText(first, a.Len(), 1, a.Value, a.IsNull); err != nil {
				return nil, err
			}
		}
	case *array.LargeString:
		return texts(mem, first, a.Len(), a.Value, a.IsNull)
	case *array.LargeBinary:
		b := array.NewBinaryBuilder(mem, arrow.BinaryTypes.Binary)
		defer b.Release()
		for i := range a.Len() {
			if a.IsNull(i) {
				b.AppendNull()
			} else {
				b.Append(a.Value(i))
			}
		}
		return b.NewBinaryArray(), nil
	case *array.Dictionary:
		return undictionary(mem, a, first)
	case *array.Timestamp:
		return nanoseconds(mem, a, first)
	case *array.Date32:
		return times(mem, first, a.Len(), a.IsNull, func(i int) int64 { return int64(a.Value(i)) }, 24*3600*1e9)
	case *array.Date64:
		return times(mem, first, a.Len(), a.IsNull, func(i int) int64 { return int64(a.Value(i)) }, 1e6)
	case *array.FixedSizeList:
		w := int(a.DataType().(*arrow.FixedSizeListType).Len())
		from, to := a.Offset()*w, (a.Offset()+a.Len())*w
		if a.ListValues().Len() < to {
			return nil, schemas.Errorf(schemas.Invalid, "files.Reader", "a list has fewer elements than rows x %d", w)
		}
		if s, ok := a.ListValues().(*array.String); ok && !validTexts(s, from, to) {
			value := func(e int) string { return s.Value(from + e) }
			null := func(e int) bool { return a.IsNull(e/w) || s.IsNull(from+e) }
			if err := checkText(first, a.Len(), w, value, null); err != nil {
				return nil, err
			}
		}
	}
	a.Retain()
	return a, nil
}

// validTexts reports whether elements [from, to), those beneath nulls too, are UTF-8, by one pass over their bytes: two
// to six times as fast as a call for each. Of one that is false, checkText says which, and whether it counts.
func validTexts(a *array.String, from, to int) bool {
	if from >= to {
		return true
	}
	d := a.Data()
	var data []byte
	if b := d.Buffers()[2]; b != nil {
		data = b.Bytes()
	}
	offsets := arrow.Int32Traits.CastFromBytes(d.Buffers()[1].Bytes())
	return schemas.CheckTexts(data, offsets[d.Offset()+from:d.Offset()+to+1], true)
}

// checkText checks n rows of w elements each, row first of the file the first of them.
func checkText(first int64, n, w int, value func(int) string, null func(int) bool) error {
	for e := range n * w {
		if !null(e) && !utf8.ValidString(value(e)) {
			return schemas.Errorf(schemas.Invalid, "files.Reader", "row %d is not UTF-8", first+int64(e/w))
		}
	}
	return nil
}

func texts(mem memory.Allocator, first int64, n int, value func(int) string, null func(int) bool) (arrow.Array, error) {
	if err := checkText(first, n, 1, value, null); err != nil {
		return nil, err
	}
	b := array.NewStringBuilder(mem)
	defer b.Release()
	for i := range n {
		if null(i) {
			b.AppendNull()
		} else {
			b.Append(value(i))
		}
	}
	return b.NewStringArray(), nil
}

func undictionary(mem memory.Allocator, a *array.Dictionary, first int64) (arrow.Array, error) {
	var value func(int) string
	switch d := a.Dictionary().(type) {
	case *array.String:
		value = d.Value
	case *array.LargeString:
		value = d.Value
	default:
		return nil, schemas.Errorf(schemas.Invalid, "files.Reader", "a dictionary of %s: want strings", d.DataType())
	}
	size := a.Dictionary().Len()
	for i := range a.Len() {
		if k := 0; !a.IsNull(i) {
			if k = a.GetValueIndex(i); k < 0 || k >= size {
				return nil, schemas.Errorf(schemas.Invalid, "files.Reader", "row %d points outside its dictionary", first+int64(i))
			}
		}
	}
	null := func(i int) bool { return a.IsNull(i) || a.Dictionary().IsNull(a.GetValueIndex(i)) }
	return texts(mem, first, a.Len(), func(i int) string { return value(a.GetValueIndex(i)) }, null)
}

func nanoseconds(mem memory.Allocator, a *array.Timestamp, first int64) (arrow.Array, error) {
	t := a.DataType().(*arrow.TimestampType)
	if arrow.TypeEqual(t, schemas.Timestamp.Arrow()) {
		a.Retain()
		return a, nil
	}
	scale := [...]int64{arrow.Second: 1e9, arrow.Millisecond: 1e6, arrow.Microsecond: 1e3, arrow.Nanosecond: 1}[t.Unit]
	return times(mem, first, a.Len(), a.IsNull, func(i int) int64 { return int64(a.Value(i)) }, scale)
}

func times(mem memory.Allocator, first int64, n int, null func(int) bool, value func(int) int64, scale int64) (arrow.Array, error) {
	b := array.NewTimestampBuilder(mem, schemas.Timestamp.Arrow().(*arrow.TimestampType))
	defer b.Release()
	for i := range n {
		if null(i) {
			b.AppendNull()
			continue
		}
		v := value(i)
		if v > math.MaxInt64/scale || v < math.MinInt64/scale {
			return nil, schemas.Errorf(schemas.Invalid, "files.Reader", "row %d holds a time outside the years 1678 to 2262", first+int64(i))
		}
		b.Append(arrow.Timestamp(v * scale))
	}
	return b.NewTimestampArray(), nil
}

// plan is the columns of a file that a reader gives.
type plan struct {
	schema  *arrow.Schema // as records have it
	columns []int         // index of each among the file's columns
	skipped []string
}

// choose picks the columns and their normal types.
func choose(path string, fields []arrow.Field, want []string) (plan, error) {
	const op = "files.Open"
	var p plan
	asked, seen := map[string]bool{}, map[string]bool{}
	for _, c := range want {
		asked[c] = true
	}
	var out []arrow.Field
	for i, f := range fields {
		if want != nil && !asked[f.Name] {
			continue
		}
		if seen[f.Name] {
			return p, schemas.FieldErrorf(schemas.Invalid, op, f.Name, "%s has two columns of this name", path)
		}
		seen[f.Name] = true
		t, ok := normalType(f.Type)
		switch {
		case !ok && want != nil:
			return p, schemas.FieldErrorf(schemas.Invalid, op, f.Name, "%s: a column of type %s cannot be read", path, f.Type)
		case !ok:
			p.skipped = append(p.skipped, f.Name)
			continue
		}
		p.columns = append(p.columns, i)
		out = append(out, arrow.Field{Name: f.Name, Type: t, Nullable: f.Nullable})
	}
	if err := missing(path, want, seen); err != nil {
		return p, err
	}
	if len(out) == 0 {
		return p, schemas.Errorf(schemas.Invalid, op, "%s: no column that can be read", path)
	}
	p.schema = arrow.NewSchema(out, nil)
	return p, nil
}

func missing(path string, want []string, have map[string]bool) error {
	for _, c := range want {
		if !have[c] {
			return schemas.FieldErrorf(schemas.Invalid, "files.Open", c, "%s has no column of this name", path)
		}
	}
	return nil
}
