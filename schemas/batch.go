package schemas

import (
	"math"
	"unsafe"
)

// Batch is rows in typed columns, filled by append from many requests. The zero Batch is not usable; see NewBatch.
//
// A Batch belongs to one goroutine at a time. Appending to it may move its columns, so slices that Column's methods
// return are valid until the next append or Reset. Reset keeps the memory: a batch that is reused allocates nothing.
//
// Whoever appends fills every column by the same number of rows and then calls Advance; whoever fails half-way calls
// Rollback, and the batch is as it was.
type Batch struct {
	schema *Schema
	cols   []Column
	rows   int
}

// NewBatch returns an empty batch of the schema.
func NewBatch(s *Schema) *Batch {
	b := &Batch{schema: s, cols: make([]Column, s.Len())}
	for i := range b.cols {
		f := s.Field(i)
		b.cols[i] = Column{field: f, typ: f.Type, width: f.Width(), size: f.Type.Size()}
		if f.Type.Variable() {
			b.cols[i].offsets = append(make([]int32, 0, 16), 0)
		}
	}
	return b
}

// Schema returns the batch's columns.
func (b *Batch) Schema() *Schema { return b.schema }

// Rows returns the number of complete rows.
func (b *Batch) Rows() int { return b.rows }

// Column returns column i.
func (b *Batch) Column(i int) *Column { return &b.cols[i] }

// Advance makes n appended rows part of the batch. It panics if a column does not hold exactly that many more: a
// decoder that fills columns unevenly is a broken invariant, not bad input.
func (b *Batch) Advance(n int) {
	for i := range b.cols {
		if b.cols[i].rows != b.rows+n {
			panic("schemas: Batch.Advance: column " + b.cols[i].field.Name + " is ragged")
		}
	}
	b.rows += n
}

// Rollback drops what was appended since the last Advance.
func (b *Batch) Rollback() {
	for i := range b.cols {
		b.cols[i].truncate(b.rows)
	}
}

// Truncate keeps the first n rows.
func (b *Batch) Truncate(n int) {
	if n < 0 || n > b.rows {
		panic("schemas: Batch.Truncate out of range")
	}
	b.rows = n
	b.Rollback()
}

// Reset drops all rows and keeps the memory.
func (b *Batch) Reset() { b.Truncate(0) }

// AppendRange appends rows [from, to) of src, whose schema has the same id.
func (b *Batch) AppendRange(src *Batch, from, to int) {
	for i := range b.cols {
		b.cols[i].AppendColumn(&src.cols[i], from, to)
	}
	b.Advance(to - from)
}

// Bytes returns the size of the values held, in bytes.
func (b *Batch) Bytes() int {
	n := 0
	for i := range b.cols {
		c := &b.cols[i]
		n += len(c.data) + 4*len(c.offsets) + len(c.Validity())
	}
	return n
}

// Column is one column of a batch: Rows() x Width() elements in row-major order.
//
// Layout: fixed-size types lie in Data, little-endian, a bool as one byte (0 or 1); String and Binary lie in Data with
// Rows*Width+1 offsets. Nulls are by row, in an Arrow validity bitmap (bit set = present), which is nil while no row is
// null; the elements of a null row are zero, an empty string, or NaN for floats.
type Column struct {
	field   *Field
	typ     DType
	width   int // elements in a row
	size    int // bytes of an element, 0 for variable
	rows    int
	nulls   int
	data    []byte
	offsets []int32
	valid   []byte // in step with rows only while nulls > 0
}

// Field returns the column's description.
func (c *Column) Field() *Field { return c.field }

// Rows returns the rows appended so far, also those that no Advance has counted yet.
func (c *Column) Rows() int { return c.rows }

// Width returns the elements in a row.
func (c *Column) Width() int { return c.width }

// Data returns the value bytes; see the layout above. The caller only reads.
func (c *Column) Data() []byte { return c.data }

// Offsets returns the offsets of a String or Binary column, nil for others. The caller only reads.
func (c *Column) Offsets() []int32 { return c.offsets }

// Validity returns the Arrow validity bitmap, nil if no row is null. The caller only reads.
func (c *Column) Validity() []byte {
	if c.nulls == 0 {
		return nil
	}
	return c.valid
}

// Nulls returns the number of null rows.
func (c *Column) Nulls() int { return c.nulls }

// IsNull reports whether row i is null.
func (c *Column) IsNull(i int) bool { return c.nulls > 0 && c.valid[i>>3]&(1<<(i&7)) == 0 }

// Fixed is the set of Go types that a fixed-size column can be seen as.
type Fixed interface {
	~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64
}

// Values sees the elements of a fixed-size column as []T without a copy; sizeof(T) must be the dtype's size (bool:
// uint8, float16: uint16 bits, timestamp: int64). The view is valid until the next append.
func Values[T Fixed](c *Column) []T {
	var z T
	if int(unsafe.Sizeof(z)) != c.size {
		panic("schemas: Values of another element size than " + c.typ.String())
	}
	if len(c.data) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(c.data))), len(c.data)/c.size)
}

// Text returns element e (row*Width + i) of a String or Binary column as bytes that alias the column.
func (c *Column) Text(e int) []byte { return c.data[c.offsets[e]:c.offsets[e+1]] }

// Append adds one element to a fixed-size column without counting a row: call EndRow after Width elements.
func Append[T Fixed](c *Column, v T) {
	n := len(c.data)
	c.data = grow(c.data, c.size)
	*(*T)(unsafe.Pointer(&c.data[n])) = v
}

// AppendBool adds one element to a Bool column.
func (c *Column) AppendBool(v bool) {
	b := byte(0)
	if v {
		b = 1
	}
	c.data = append(c.data, b)
}

// MaxText is the most bytes that a String or Binary column holds: offsets are of 32 bits.
const MaxText = math.MaxInt32

// Room reports whether every String and Binary column can take n more bytes. Decoders ask before they append: past
// MaxText AppendText panics.
func (b *Batch) Room(n int) bool {
	for i := range b.cols {
		if c := &b.cols[i]; c.size == 0 && n > MaxText-len(c.data) {
			return false
		}
	}
	return true
}

// AppendText adds one element to a String or Binary column. The bytes are copied.
func (c *Column) AppendText(v []byte) {
	c.data = append(c.data, v...)
	c.endText()
}

// AppendString is AppendText for a string.
func (c *Column) AppendString(v string) {
	c.data = append(c.data, v...)
	c.endText()
}

func (c *Column) endText() {
	if len(c.data) > MaxText {
		panic("schemas: more than 2 GiB of text in column " + c.field.Name)
	}
	c.offsets = append(c.offsets, int32(len(c.data)))
}

// AppendTexts adds whole rows to a String or Binary column: the elements data[offsets[i]:offsets[i+1]], of which there
// are len(offsets)-1, a multiple of Width. The offsets never decrease and lie within data; the caller has checked
// that. The bytes are copied.
func (c *Column) AppendTexts(data []byte, offsets []int32) {
	n := len(offsets) - 1
	a, z := offsets[0], offsets[n]
	if n%c.width != 0 || c.size > 0 {
		panic("schemas: AppendTexts of a wrong length")
	}
	if int(z-a) > MaxText-len(c.data) {
		panic("schemas: more than 2 GiB of text in column " + c.field.Name)
	}
	shift := int32(len(c.data)) - a
	c.data = append(c.data, data[a:z]...)
	for _, o := range offsets[1:] {
		c.offsets = append(c.offsets, o+shift)
	}
	c.extendValid(n / c.width)
}

// EndRow counts a row whose Width elements were appended.
func (c *Column) EndRow() {
	if c.nulls > 0 {
		c.setValid(c.rows, true)
	}
	c.rows++
}

// AppendNull adds a null row: zeros, empty strings, NaN for floats, so that a scorer that knows no nulls sees a
// missing value.
func (c *Column) AppendNull() {
	if c.nulls == 0 {
		c.valid = c.valid[:0]
		for i := 0; i < c.rows; i++ {
			c.setValid(i, true)
		}
	}
	c.setValid(c.rows, false)
	c.nulls++
	c.rows++
	if c.size == 0 {
		for range c.width {
			c.offsets = append(c.offsets, int32(len(c.data)))
		}
		return
	}
	for range c.width {
		n := len(c.data)
		c.data = grow(c.data, c.size)
		switch c.typ {
		case Float16:
			*(*uint16)(unsafe.Pointer(&c.data[n])) = 0x7e00
		case Float32:
			*(*uint32)(unsafe.Pointer(&c.data[n])) = 0x7fc00000
		case Float64:
			*(*uint64)(unsafe.Pointer(&c.data[n])) = 0x7ff8000000000000
		default:
			clear(c.data[n:])
		}
	}
}

// AppendFixed adds n whole rows to a fixed-size column from little-endian bytes: n*Width*Size of them. They are copied.
func (c *Column) AppendFixed(b []byte, n int) {
	if len(b) != n*c.width*c.size || c.size == 0 {
		panic("schemas: AppendFixed of a wrong length")
	}
	c.data = append(c.data, b...)
	c.extendValid(n)
}

// Extend adds n rows to a fixed-size column and returns the bytes of their elements for the caller to fill at once.
func (c *Column) Extend(n int) []byte {
	at := len(c.data)
	c.data = grow(c.data, n*c.width*c.size)
	c.extendValid(n)
	return c.data[at:]
}

// extendValid counts n rows that are there.
func (c *Column) extendValid(n int) {
	if c.nulls > 0 {
		for i := range n {
			c.setValid(c.rows+i, true)
		}
	}
	c.rows += n
}

// AppendColumn appends rows [from, to) of another column of the same type and width, nulls included.
func (c *Column) AppendColumn(src *Column, from, to int) {
	if src.typ != c.typ || src.width != c.width || from < 0 || to > src.rows || from > to {
		panic("schemas: AppendColumn of another type or out of range")
	}
	if src.nulls > 0 || c.nulls > 0 {
		for i := from; i < to; i++ {
			c.appendRow(src, i)
		}
		return
	}
	if c.size > 0 {
		c.data = append(c.data, src.data[from*c.width*c.size:to*c.width*c.size]...)
	} else {
		c.AppendTexts(src.data, src.offsets[from*c.width:to*c.width+1])
		return
	}
	c.rows += to - from
}

func (c *Column) appendRow(src *Column, i int) {
	if src.IsNull(i) {
		c.AppendNull()
		return
	}
	if c.size > 0 {
		c.data = append(c.data, src.data[i*c.width*c.size:(i+1)*c.width*c.size]...)
	} else {
		for e := i * c.width; e < (i+1)*c.width; e++ {
			c.AppendText(src.Text(e))
		}
	}
	c.EndRow()
}

func (c *Column) truncate(rows int) {
	if c.size > 0 {
		c.data = c.data[:rows*c.width*c.size]
	} else {
		c.offsets = c.offsets[:rows*c.width+1]
		c.data = c.data[:c.offsets[rows*c.width]]
	}
	if c.nulls > 0 {
		for i := rows; i < c.rows; i++ {
			if c.IsNull(i) {
				c.nulls--
			}
		}
		c.valid = c.valid[:(rows+7)>>3]
		if rows&7 != 0 {
			c.valid[rows>>3] &= byte(1)<<(rows&7) - 1
		}
	}
	c.rows = rows
}

func (c *Column) setValid(i int, v bool) {
	if i>>3 >= len(c.valid) {
		c.valid = append(c.valid, 0)
	}
	if v {
		c.valid[i>>3] |= 1 << (i & 7)
	}
}

// grow returns b with n more bytes of unspecified content at its end. Column memory starts 8-byte aligned, because Go's
// allocator aligns blocks of 8 bytes and more and grow never asks for less, so that Values may cast it.
func grow(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b[:len(b)+n]
	}
	c := max(2*cap(b), len(b)+n, 64)
	d := make([]byte, len(b)+n, (c+63)&^63)
	copy(d, b)
	return d
}
