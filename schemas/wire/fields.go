package wire

import (
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/leatstream/leat/schemas"
)

// Limits of a schema that comes from outside.
const (
	maxDepth  = 16
	maxFields = 2 * schemas.MaxColumns // nested ones too: sub-tables may be shared, so the count of bytes bounds nothing
)

// streamField is one column of a stream, as its schema message has it.
type streamField struct {
	name        string
	nullable    bool
	typ         arrow.DataType // nil: a type that batches do not have; such a column can be passed over only
	kind        string         // what it is called in an error
	nodes, bufs int
}

// schemaReader reads the fields of a schema message and counts them.
type schemaReader struct{ seen int }

func readSchema(t *table) ([]streamField, error) {
	if e, ok := t.number(0, 2, 0); !ok || e != 0 {
		return nil, invalid("big-endian Arrow streams are not taken")
	}
	at, n, ok := t.vector(1, 4)
	if !ok {
		return nil, invalid("broken Arrow schema")
	}
	if n > schemas.MaxColumns {
		return nil, invalid("an Arrow schema of %d columns: at most %d", n, schemas.MaxColumns)
	}
	var r schemaReader
	fields := make([]streamField, n)
	for i := range fields {
		f, ok := elementTable(t.b, at, i)
		if !ok {
			return nil, invalid("broken Arrow schema: column %d", i)
		}
		if err := r.field(&f, &fields[i], 1); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

// elementTable follows element i of a vector of tables.
func elementTable(b []byte, at, i int) (table, bool) {
	p := at + 4*i
	return tableAt(b, p+u32(b, p))
}

func (r *schemaReader) field(t *table, f *streamField, depth int) error {
	r.seen++
	if depth > maxDepth || r.seen > maxFields {
		return invalid("the Arrow schema is nested more than %d deep, or has more than %d fields", maxDepth, maxFields)
	}
	name, ok := t.text(0)
	if !ok || len(name) > schemas.MaxColumnName || !utf8.Valid(name) {
		return invalid("an Arrow column whose name is not UTF-8 of at most %d bytes", schemas.MaxColumnName)
	}
	f.name = string(name)
	nullable, ok1 := t.number(1, 1, 0)
	kind, ok2 := t.number(2, 1, 0)
	children, n, ok3 := t.vector(5, 4)
	if !ok1 || !ok2 || !ok3 {
		return column(f.name, "broken Arrow field")
	}
	f.nullable = nullable != 0
	if t.field(4, 4) != 0 {
		return column(f.name, "dictionary-encoded columns are not taken in a stream: send plain values")
	}
	tt, ok := t.table(3)
	if !ok {
		return column(f.name, "an Arrow field without a type")
	}
	var kids []streamField
	for i := range n {
		kt, ok := elementTable(t.b, children, i)
		if !ok {
			return column(f.name, "broken Arrow field")
		}
		var kid streamField
		if err := r.field(&kt, &kid, depth+1); err != nil {
			return err
		}
		kids = append(kids, kid)
	}
	return f.typed(&tt, int(kind), kids)
}

// wantKids is how many children a type has; the others have none. -1: any number.
var wantKids = map[int]int{12: 1, 13: -1, 16: 1, 17: 1, 21: 1}

// typeNames are the types that are passed over, by their number in Arrow's Schema.fbs.
var typeNames = map[int]string{7: "decimal", 9: "time", 11: "interval", 12: "list", 13: "struct", 17: "map", 18: "duration", 21: "large_list"}

// typed fills in type, nodes and buffers. The numbers are those of Arrow's Schema.fbs.
func (f *streamField) typed(t *table, kind int, kids []streamField) error {
	broken := column(f.name, "broken Arrow type")
	if want := wantKids[kind]; want != len(kids) && want != -1 {
		return broken
	}
	f.nodes, f.bufs, f.kind = 1, 2, typeNames[kind]
	for _, k := range kids {
		f.nodes += k.nodes
		f.bufs += k.bufs
	}
	arg := func(slot, size int, def int64) int64 {
		v, ok := t.number(slot, size, def)
		if !ok {
			return -1
		}
		return v
	}
	switch kind {
	case 1:
		f.bufs, f.typ = 0, arrow.Null
	case 2:
		f.typ = intTypes[[2]int64{arg(0, 4, 0), arg(1, 1, 0)}]
	case 3:
		f.typ = map[int64]arrow.DataType{0: arrow.FixedWidthTypes.Float16, 1: arrow.PrimitiveTypes.Float32, 2: arrow.PrimitiveTypes.Float64}[arg(0, 2, 0)]
	case 4:
		f.bufs, f.typ = 3, arrow.BinaryTypes.Binary
	case 5:
		f.bufs, f.typ = 3, arrow.BinaryTypes.String
	case 6:
		f.typ = arrow.FixedWidthTypes.Boolean
	case 7, 9, 11, 18: // decimal, time, interval, duration
		return nil
	case 8:
		f.typ = map[int64]arrow.DataType{0: arrow.FixedWidthTypes.Date32, 1: arrow.FixedWidthTypes.Date64}[arg(0, 2, 1)]
	case 10:
		if u := arg(0, 2, 0); u >= 0 && u <= 3 {
			f.typ = &arrow.TimestampType{Unit: arrow.TimeUnit(u), TimeZone: "UTC"}
		}
	case 12, 17, 21: // list, map, large list: validity and offsets, and the child's
		return nil
	case 13: // struct: validity, and the children's
		f.bufs--
		return nil
	case 15:
		if w := arg(0, 4, 0); w > 0 && w <= 1<<20 {
			f.typ = &arrow.FixedSizeBinaryType{ByteWidth: int(w)}
		}
	case 16:
		f.bufs--
		n := arg(0, 4, 0)
		if n < 1 || n > schemas.MaxRowElements {
			return column(f.name, "an Arrow list of %d elements: want 1 to %d", n, schemas.MaxRowElements)
		}
		f.kind = "fixed_size_list"
		if k := &kids[0]; k.typ != nil && k.nodes == 1 {
			f.typ = arrow.FixedSizeListOfField(int32(n), arrow.Field{Name: "item", Type: k.typ, Nullable: k.nullable})
		}
		return nil
	case 19:
		f.bufs, f.typ = 3, arrow.BinaryTypes.LargeBinary
	case 20:
		f.bufs, f.typ = 3, arrow.BinaryTypes.LargeString
	default: // unions, views, run-end encoding: their buffers cannot be counted without more rules
		return column(f.name, "Arrow type number %d is not taken", kind)
	}
	if f.typ == nil {
		return broken
	}
	return nil
}

var intTypes = map[[2]int64]arrow.DataType{
	{8, 1}: arrow.PrimitiveTypes.Int8, {16, 1}: arrow.PrimitiveTypes.Int16, {32, 1}: arrow.PrimitiveTypes.Int32, {64, 1}: arrow.PrimitiveTypes.Int64,
	{8, 0}: arrow.PrimitiveTypes.Uint8, {16, 0}: arrow.PrimitiveTypes.Uint16, {32, 0}: arrow.PrimitiveTypes.Uint32, {64, 0}: arrow.PrimitiveTypes.Uint64,
}
