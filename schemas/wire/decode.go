package wire

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// maxEmptyRows bounds the rows of a batch that has no columns: nothing else in it does.
const maxEmptyRows = 1 << 20

const opRows = "wire.AppendRows"

// AppendRows appends the rows of one encapsulated RecordBatch message to dst: see Format.AppendRows.
func AppendRows(dst *schemas.Batch, payload []byte) (rows int, err error) {
	return FormatOf(dst.Schema()).AppendRows(dst, payload)
}

// AppendRows appends all rows of a payload that AppendBatch, or any Arrow library, wrote for the format's schema, or
// none. The payload is taken for hostile: whatever is wrong with it is Invalid and names the column, if it is in one.
// The bytes are copied into the batch. Nothing is allocated but to grow the batch, which takes at most a few times the
// payload's size.
func (f *Format) AppendRows(dst *schemas.Batch, payload []byte) (rows int, err error) {
	m, n, err := nextMessage(payload, versionV5)
	if err != nil {
		return 0, err
	}
	if m.kind != headerRecordBatch {
		return 0, invalid("want an Arrow RecordBatch message, got another kind (%d)", m.kind)
	}
	if n != len(payload) {
		return 0, invalid("%d bytes after the Arrow message", len(payload)-n)
	}
	var r batchReader
	if err := r.open(&m); err != nil {
		return 0, err
	}
	return f.append(dst, &r)
}

// append fills dst from a batch whose columns are the format's.
func (f *Format) append(dst *schemas.Batch, r *batchReader) (int, error) {
	if r.nodes != f.nodes || r.bufs != f.bufs {
		return 0, invalid("%d field nodes and %d buffers do not fit the schema: want %d and %d", r.nodes, r.bufs, f.nodes, f.bufs)
	}
	if len(f.cols) == 0 && r.rows > maxEmptyRows {
		return 0, invalid("%d rows without columns: at most %d", r.rows, maxEmptyRows)
	}
	if !dst.Room(len(r.body)) {
		return 0, schemas.Errorf(schemas.Overloaded, opRows, "the batch holds too much text to take %d bytes more", len(r.body))
	}
	for i := range f.cols {
		if r.plain(&f.cols[i], dst.Column(i)) {
			continue
		}
		if err := r.column(&f.cols[i], dst.Column(i)); err != nil {
			dst.Rollback()
			return 0, err
		}
	}
	dst.Advance(r.rows)
	return r.rows, nil
}

// message is one encapsulated message whose parts lie within the payload.
type message struct {
	kind   int
	header table
	body   []byte
}

// nextMessage reads the message at the start of data and says how many bytes it takes.
func nextMessage(data []byte, minVersion int64) (m message, n int, err error) {
	if len(data) < prefixLen {
		return m, 0, invalid("%d bytes are no Arrow message", len(data))
	}
	if u32(data, 0) != 0xffffffff {
		return m, 0, invalid("no Arrow continuation marker at the start of a message (the form before Arrow 0.15 is not taken)")
	}
	size := u32(data, 4)
	if size > len(data)-prefixLen {
		return m, 0, invalid("Arrow metadata of %d bytes in a payload of %d", size, len(data))
	}
	t, ok := rootTable(data[prefixLen : prefixLen+size])
	if !ok {
		return m, 0, invalid("broken Arrow metadata")
	}
	version, ok1 := t.number(0, 2, 0)
	kind, ok2 := t.number(1, 1, 0)
	length, ok3 := t.number(3, 8, 0)
	header, ok4 := t.table(2)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return m, 0, invalid("broken Arrow metadata")
	}
	if version < minVersion || version > versionV5 {
		return m, 0, invalid("Arrow metadata version V%d: want V5", version+1)
	}
	rest := data[prefixLen+size:]
	if length < 0 || length > int64(len(rest)) {
		return m, 0, invalid("Arrow body of %d bytes, %d are there", length, len(rest))
	}
	m = message{kind: int(kind), header: header, body: rest[:length]}
	return m, prefixLen + size + int(length), nil
}

// batchReader walks the nodes and buffers of one RecordBatch in order.
type batchReader struct {
	rows        int
	nodes, bufs int
	meta        []byte
	node, buf   int // where the next one is described, in meta
	body        []byte
	used        int // buffers lie one after the other: two columns cannot share bytes, so nothing grows on the way in
}

func (r *batchReader) open(m *message) error {
	t := &m.header
	rows, ok1 := t.number(0, 8, 0)
	nodes, nn, ok2 := t.vector(1, 16)
	bufs, nb, ok3 := t.vector(2, 16)
	if !ok1 || !ok2 || !ok3 {
		return invalid("broken Arrow RecordBatch")
	}
	if t.field(3, 4) != 0 {
		return invalid("compressed Arrow batches are not taken")
	}
	if rows < 0 || rows > 1<<31-1 {
		return invalid("Arrow batch of %d rows", rows)
	}
	*r = batchReader{rows: int(rows), nodes: nn, bufs: nb, meta: t.b, node: nodes, buf: bufs, body: m.body}
	return nil
}

// skip passes over a column that nobody wants.
func (r *batchReader) skip(nodes, bufs int) {
	r.node += 16 * nodes
	r.buf += 16 * bufs
}

// next reads a field node.
func (r *batchReader) next(name string, want int64) (nulls int, err error) {
	b := r.meta[r.node : r.node+16]
	r.node += 16
	length, n := int64(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[8:])
	if length != want {
		return 0, column(name, "%d values, want %d", length, want)
	}
	if n > uint64(want) {
		return 0, column(name, "null count %d of %d values", int64(n), want)
	}
	return int(n), nil
}

// buffer returns the next buffer if it holds at least n bytes, cut to n; n < 0 takes all of it.
func (r *batchReader) buffer(name string, n int64) ([]byte, error) {
	b := r.meta[r.buf : r.buf+16]
	r.buf += 16
	off, length := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if length == 0 {
		if n > 0 {
			return nil, column(name, "an empty Arrow buffer, want %d bytes", n)
		}
		return nil, nil
	}
	if off < uint64(r.used) || off > uint64(len(r.body)) || length > uint64(len(r.body))-off {
		return nil, column(name, "Arrow buffer at %d of %d bytes: outside of the body of %d, or over another", off, length, len(r.body))
	}
	r.used = int(off + length)
	if n < 0 {
		n = int64(length)
	}
	if uint64(n) > length {
		return nil, column(name, "Arrow buffer of %d bytes, want %d", length, n)
	}
	return r.body[off : off+uint64(n)], nil
}

// validity returns the bitmap of n values, nil if none is null.
func (r *batchReader) validity(name string, n int64, nulls int) ([]byte, error) {
	b, err := r.buffer(name, -1)
	if err != nil || len(b) == 0 && nulls == 0 {
		return nil, err
	}
	if int64(len(b)) < (n+7)/8 {
		return nil, column(name, "Arrow validity bitmap of %d bytes for %d values", len(b), n)
	}
	if got := int(n) - ones(b, int(n)); got != nulls {
		return nil, column(name, "%d nulls in the Arrow validity bitmap, %d announced", got, nulls)
	}
	if nulls == 0 {
		return nil, nil
	}
	return b, nil
}

// ones counts the set bits among the first n.
func ones(b []byte, n int) int {
	c := 0
	for ; n >= 64; n -= 64 {
		c += bits.OnesCount64(binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for ; n >= 8; n -= 8 {
		c += bits.OnesCount8(b[0])
		b = b[1:]
	}
	if n > 0 {
		c += bits.OnesCount8(b[0] & (1<<n - 1))
	}
	return c
}

// plain takes the usual column at once: fixed size, a value a row, no nulls, nothing wrong. Otherwise it does nothing,
// and column says what is wrong or does the rest.
func (r *batchReader) plain(l *layout, c *schemas.Column) bool {
	if l.tensor || l.size == 0 || l.typ == schemas.Bool {
		return false
	}
	node, bufs := r.meta[r.node:r.node+16:r.node+16], r.meta[r.buf:r.buf+32:r.buf+32]
	if i64(node, 0) != int64(r.rows) || i64(node, 8) != 0 || i64(bufs, 8) != 0 {
		return false
	}
	off, have, n := binary.LittleEndian.Uint64(bufs[16:]), binary.LittleEndian.Uint64(bufs[24:]), uint64(r.rows)*uint64(l.size)
	size := uint64(len(r.body))
	if off < uint64(r.used) || off > size || have > size-off || have < n || n == 0 {
		return false
	}
	r.used = int(off + have)
	r.node += 16
	r.buf += 32
	c.AppendFixed(r.body[off:off+n], r.rows)
	return true
}

// column reads one column and appends it to c.
func (r *batchReader) column(l *layout, c *schemas.Column) error {
	rows := int64(r.rows)
	nulls, err := r.next(l.name, rows)
	if err != nil {
		return err
	}
	valid, err := r.validity(l.name, rows, nulls)
	if err != nil {
		return err
	}
	if nulls > 0 && !l.nullable {
		return column(l.name, "%d nulls, but the column is not nullable", nulls)
	}
	n := rows * int64(l.width) // at most 2^31 * 2^24
	if l.tensor {
		holes, err := r.next(l.name, n)
		if err != nil {
			return err
		}
		elems, err := r.validity(l.name, n, holes)
		if err != nil {
			return err
		}
		if holes > 0 && !covered(elems, valid, r.rows, l.width) {
			return column(l.name, "null elements in a row that is not null")
		}
	}
	switch {
	case l.size == 0:
		return r.text(l, c, n, valid)
	case l.typ == schemas.Bool:
		return r.bools(l, c, n, valid)
	}
	data, err := r.buffer(l.name, n*int64(l.size))
	if err != nil {
		return err
	}
	if valid == nil {
		c.AppendFixed(data, r.rows)
		return nil
	}
	step := l.width * l.size
	for i := range r.rows {
		if valid[i>>3]&(1<<(i&7)) == 0 {
			c.AppendNull()
		} else {
			c.AppendFixed(data[i*step:(i+1)*step], 1)
		}
	}
	return nil
}

// covered reports whether null elements lie in null rows only.
func covered(elems, rows []byte, n, width int) bool {
	for i := range n {
		if rows != nil && rows[i>>3]&(1<<(i&7)) == 0 {
			continue
		}
		for e := i * width; e < (i+1)*width; e++ {
			if elems[e>>3]&(1<<(e&7)) == 0 {
				return false
			}
		}
	}
	return true
}

func (r *batchReader) bools(l *layout, c *schemas.Column, n int64, valid []byte) error {
	data, err := r.buffer(l.name, (n+7)/8)
	if err != nil {
		return err
	}
	if valid == nil {
		schemas.UnpackBits(c.Extend(r.rows), data, 0)
		return nil
	}
	for i := range r.rows {
		if valid[i>>3]&(1<<(i&7)) == 0 {
			c.AppendNull()
		} else {
			schemas.UnpackBits(c.Extend(1), data, i*l.width)
		}
	}
	return nil
}

func (r *batchReader) text(l *layout, c *schemas.Column, n int64, valid []byte) error {
	want := 4 * (n + 1)
	if n == 0 {
		want = 0 // some writers leave the offsets of no values out
	}
	ob, err := r.buffer(l.name, want)
	if err != nil {
		return err
	}
	data, err := r.buffer(l.name, -1)
	if err != nil || n == 0 {
		return err
	}
	// A view of bytes that may be unaligned: fine on the machines that Go builds with ONNX Runtime for.
	offs := unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(ob))), n+1)
	if !schemas.CheckTexts(data, offs, l.typ == schemas.String) {
		return column(l.name, "broken Arrow offsets, or text that is not UTF-8")
	}
	if valid == nil {
		c.AppendTexts(data, offs)
		return nil
	}
	for i := range r.rows {
		if valid[i>>3]&(1<<(i&7)) == 0 {
			c.AppendNull()
		} else {
			c.AppendTexts(data, offs[i*l.width:(i+1)*l.width+1])
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	return schemas.Errorf(schemas.Invalid, opRows, format, args...)
}

func column(name, format string, args ...any) error {
	return schemas.FieldErrorf(schemas.Invalid, opRows, name, format, args...)
}
