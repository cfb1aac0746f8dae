package wire

import "encoding/binary"

// What of Arrow's Message.fbs and Schema.fbs is used here (format version V5, Arrow 1.0 and later).
const (
	versionV4 = 3
	versionV5 = 4

	headerSchema          = 1
	headerDictionaryBatch = 2
	headerRecordBatch     = 3
)

// table is a flatbuffer table whose vtable and inline part have been checked to lie within b.
type table struct {
	b    []byte
	pos  int // of the table
	vt   int // of its vtable
	vlen int // bytes of the vtable
	tlen int // bytes of the table's inline part
}

func u16(b []byte, at int) int   { return int(binary.LittleEndian.Uint16(b[at:])) }
func u32(b []byte, at int) int   { return int(binary.LittleEndian.Uint32(b[at:])) }
func i64(b []byte, at int) int64 { return int64(binary.LittleEndian.Uint64(b[at:])) }

// rootTable returns the table that a flatbuffer starts from.
func rootTable(b []byte) (table, bool) {
	if len(b) < 8 {
		return table{}, false
	}
	return tableAt(b, u32(b, 0))
}

func tableAt(b []byte, pos int) (table, bool) {
	if pos < 4 || pos > len(b)-4 {
		return table{}, false
	}
	vt := pos - int(int32(u32(b, pos)))
	if vt < 0 || vt > len(b)-4 {
		return table{}, false
	}
	t := table{b: b, pos: pos, vt: vt, vlen: u16(b, vt), tlen: u16(b, vt+2)}
	if t.vlen < 4 || t.vlen&1 != 0 || t.vlen > len(b)-vt || t.tlen < 4 || t.tlen > len(b)-pos {
		return table{}, false
	}
	return t, true
}

// field returns where the field of a slot lies, 0 if it is absent, -1 if it would lie outside of the table.
func (t *table) field(slot, size int) int {
	v := 4 + 2*slot
	if v+2 > t.vlen {
		return 0
	}
	o := u16(t.b, t.vt+v)
	if o == 0 {
		return 0
	}
	if o < 4 || o+size > t.tlen {
		return -1
	}
	return t.pos + o
}

// number reads a little-endian integer field of 1, 2, 4 or 8 bytes; def if it is absent.
func (t *table) number(slot, size int, def int64) (int64, bool) {
	at := t.field(slot, size)
	if at <= 0 {
		return def, at == 0
	}
	switch size {
	case 1:
		return int64(t.b[at]), true
	case 2:
		return int64(int16(u16(t.b, at))), true
	case 4:
		return int64(int32(u32(t.b, at))), true
	}
	return i64(t.b, at), true
}

// ref follows an offset field; 0 if it is absent, -1 if it points outside.
func (t *table) ref(slot int) int {
	at := t.field(slot, 4)
	if at <= 0 {
		return at
	}
	p := at + u32(t.b, at)
	if p > len(t.b)-4 {
		return -1
	}
	return p
}

// table returns a table field; ok is false if it is absent or broken.
func (t *table) table(slot int) (table, bool) {
	p := t.ref(slot)
	if p <= 0 {
		return table{}, false
	}
	return tableAt(t.b, p)
}

// vector returns the elements of a vector field as bytes and their number; an absent vector is empty.
func (t *table) vector(slot, size int) (at, n int, ok bool) {
	p := t.ref(slot)
	if p <= 0 {
		return 0, 0, p == 0
	}
	n = u32(t.b, p)
	if n > (len(t.b)-p-4)/size {
		return 0, 0, false
	}
	return p + 4, n, true
}

// text returns a string field; an absent one is empty.
func (t *table) text(slot int) ([]byte, bool) {
	at, n, ok := t.vector(slot, 1)
	if !ok {
		return nil, false
	}
	return t.b[at : at+n], true
}
