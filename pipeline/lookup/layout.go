package lookup

import (
	"encoding/binary"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// Row is the value of one key: immutable, and valid for as long as it is held, also after the key has another value. Its data
// lie behind it in the same piece of memory, so that a lookup waits for memory once less, and so that the garbage collector
// has no pointer to follow. Only newRow makes one.
type Row struct {
	hash    uint64
	version uint64 // 0: the key is not there
	time    int64
	size    uint32 // of the data: what layout.encode wrote, then the key
	keyAt   uint32
	seen    uint32 // round of the table in which the source had it; of the table's goroutine
}

const rowHead = int(unsafe.Sizeof(Row{}))

// newRow copies the data and the key.
func newRow(r Row, data []byte, key string) *Row {
	n := len(data) + len(key)
	words := make([]uint64, (rowHead+n+7)/8)
	p := (*Row)(unsafe.Pointer(unsafe.SliceData(words)))
	r.size, r.keyAt = uint32(n), uint32(len(data))
	*p = r
	to := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(p), rowHead)), n)
	copy(to[copy(to, data):], key)
	return p
}

func (r *Row) data() string {
	return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(r), rowHead)), r.size)
}

// Version is the KV revision, or the offset + 1, at which the value was stored. 0: it is no stored value (Table.Absent).
func (r *Row) Version() uint64 { return r.version }

// Time is when the value was stored, in nanoseconds since the Unix epoch.
func (r *Row) Time() int64 { return r.time }

func (r *Row) key() string { return r.data()[r.keyAt:] }

// bytes is what a row takes, with its part of an index that is half full.
func (r *Row) bytes() int64 { return int64((rowHead+int(r.size)+7)&^7) + 16 }

// layout is how the columns of a row lie in its data: a bitmap of nulls, the values of fixed size, the ends of the texts,
// and the texts. There is no alignment; numbers are little-endian, as in columns.
type layout struct {
	schema *schemas.Schema
	at     []int // by column: where its values begin; of text, the number of its first element among all texts
	ends   int   // where the ends of the texts begin
	texts  int   // where the texts begin
}

func newLayout(s *schemas.Schema) *layout {
	l := &layout{schema: s, at: make([]int, s.Len())}
	at, elements := (s.Len()+7)/8, 0
	for i := range s.Len() {
		f := s.Field(i)
		if f.Type.Variable() {
			l.at[i] = elements
			elements += f.Width()
			continue
		}
		l.at[i] = at
		at += f.Width() * f.Type.Size()
	}
	l.ends, l.texts = at, at+4*elements
	return l
}

// encode appends row i of b to dst, which is empty.
func (l *layout) encode(dst []byte, b *schemas.Batch, i int) []byte {
	dst = append(dst, make([]byte, l.texts)...)
	for c := range l.schema.Len() {
		col := b.Column(c)
		if col.IsNull(i) {
			dst[c>>3] |= 1 << (c & 7)
		}
		w := col.Width()
		if size := col.Field().Type.Size() * w; size > 0 {
			copy(dst[l.at[c]:], col.Data()[i*size:(i+1)*size])
			continue
		}
		for e := range w {
			dst = append(dst, col.Text(i*w+e)...)
			binary.LittleEndian.PutUint32(dst[l.ends+4*(l.at[c]+e):], uint32(len(dst)))
		}
	}
	return dst
}

func null(data string, c int) bool { return data[c>>3]&(1<<(c&7)) != 0 }

// element is element e of all texts.
func (l *layout) element(data string, e int) string {
	from := l.texts
	if e > 0 {
		from = l.end(data, e-1)
	}
	return data[from:l.end(data, e)]
}

func (l *layout) end(data string, e int) int {
	at := l.ends + 4*e
	_ = data[at+3]
	return int(uint32(data[at]) | uint32(data[at+1])<<8 | uint32(data[at+2])<<16 | uint32(data[at+3])<<24)
}

// Append appends a row to the columns of dst for each of rows. The columns of dst are those of the table, in order. The caller
// advances dst.
func (t *Table) Append(dst *schemas.Batch, rows []*Row) {
	l := t.layout
	for c := range l.schema.Len() {
		col := dst.Column(c)
		any := false
		for _, r := range rows {
			any = any || null(r.data(), c)
		}
		size, at := col.Field().Type.Size()*col.Width(), l.at[c]
		if size > 0 && !any {
			to := col.Extend(len(rows))
			for i, r := range rows {
				copy(to[i*size:(i+1)*size], r.data()[at:at+size])
			}
			continue
		}
		for _, r := range rows {
			switch {
			case any && null(r.data(), c):
				col.AppendNull()
			case size > 0:
				copy(col.Extend(1), r.data()[at:at+size])
			default:
				for e := range col.Width() {
					col.AppendString(l.element(r.data(), at+e))
				}
				col.EndRow()
			}
		}
	}
}
