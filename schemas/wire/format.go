package wire

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/leatstream/leat/schemas"
)

// Format is what the wire form of one schema needs: the layout of its columns and the metadata of a RecordBatch
// message, in which only numbers change from batch to batch. It is immutable and safe for concurrent use.
type Format struct {
	schema *schemas.Schema
	cols   []layout
	nodes  int
	bufs   int
	head   []byte // continuation, length, metadata; numbers zero
	open   []byte // the schema as a message of an Arrow stream

	idHeader []string // value of Leat-Schema
}

// layout is one column: how many field nodes and buffers it has, and what is in them.
type layout struct {
	name     string
	typ      schemas.DType
	width    int
	size     int
	tensor   bool
	nullable bool
}

// Places in head of the numbers that change. The metadata is laid out by newHead.
const (
	prefixLen    = 8
	bodyLengthAt = prefixLen + 24
	rowsAt       = prefixLen + 56
	nodesAt      = prefixLen + 72
)

type formatKey struct{}

// FormatOf returns the format of a schema, made once and kept with it.
func FormatOf(s *schemas.Schema) *Format {
	return s.Derived(formatKey{}, func(s *schemas.Schema) any { return newFormat(s) }).(*Format)
}

func newFormat(s *schemas.Schema) *Format {
	f := &Format{schema: s, cols: make([]layout, s.Len()), idHeader: []string{s.ID().String()}}
	for i := range f.cols {
		sf := s.Field(i)
		l := layout{name: sf.Name, typ: sf.Type, width: sf.Width(), size: sf.Type.Size(), tensor: sf.Tensor(), nullable: sf.Nullable}
		f.cols[i] = l
		f.nodes++
		f.bufs += 2
		if l.size == 0 {
			f.bufs++
		}
		if l.tensor {
			f.nodes++
			f.bufs++
		}
	}
	f.head = newHead(f.nodes, f.bufs)
	f.open = openMessage(s)
	return f
}

// newHead lays out the flatbuffer of a Message with a RecordBatch of so many nodes and buffers. Offsets from the start
// of the metadata: root 0, vtable of Message 4, Message 16 (header 20, bodyLength 24, version 32, header_type 34),
// vtable of RecordBatch 36, RecordBatch 48 (nodes 52, length 56, buffers 64), nodes 68, buffers after them.
func newHead(nodes, bufs int) []byte {
	size := 80 + 16*nodes + 16*bufs
	h := make([]byte, prefixLen+size)
	binary.LittleEndian.PutUint32(h, 0xffffffff)
	binary.LittleEndian.PutUint32(h[4:], uint32(size))
	m := h[prefixLen:]
	u16 := func(at int, vs ...uint16) {
		for i, v := range vs {
			binary.LittleEndian.PutUint16(m[at+2*i:], v)
		}
	}
	u32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(m[at:], v) }
	u32(0, 16)
	u16(4, 12, 20, 16, 18, 4, 8) // vtable: its size, the table's, version, header_type, header, bodyLength
	u32(16, 16-4)
	u32(20, 48-20)
	u16(32, versionV5)
	m[34] = headerRecordBatch
	u16(36, 10, 20, 8, 4, 16) // vtable: its size, the table's, length, nodes, buffers
	u32(48, 48-36)
	u32(52, 68-52)
	u32(64, uint32(76+16*nodes-64))
	u32(68, uint32(nodes))
	u32(76+16*nodes, uint32(bufs))
	return h
}

// openMessage is the first message of an Arrow stream of the schema, written by the Arrow library: it sees no bytes
// but ours here.
func openMessage(s *schemas.Schema) []byte {
	var w bytes.Buffer
	if err := ipc.NewWriter(&w, ipc.WithSchema(s.Arrow())).Close(); err != nil {
		panic("wire: a schema that Arrow cannot write: " + err.Error())
	}
	return w.Bytes()[:w.Len()-len(endOfStream)]
}

// Schema returns the schema that the format is of.
func (f *Format) Schema() *schemas.Schema { return f.schema }

// AppendBatch appends rows [from, to) of b as one encapsulated RecordBatch message: see Format.AppendBatch.
func AppendBatch(dst []byte, b *schemas.Batch, from, to int) []byte {
	return FormatOf(b.Schema()).AppendBatch(dst, b, from, to)
}

// AppendBatch appends rows [from, to) of b, a batch of the format's schema, to dst as one encapsulated RecordBatch
// message and returns the extended slice. The message's length is a multiple of 8. It allocates only to grow dst.
func (f *Format) AppendBatch(dst []byte, b *schemas.Batch, from, to int) []byte {
	if from < 0 || to > b.Rows() || from > to {
		panic("wire: AppendBatch out of range")
	}
	start := len(dst)
	dst = slices.Grow(dst, len(f.head)+f.bound(b, from, to))
	dst = append(dst, f.head...)
	w := writer{dst: dst, start: start, body: len(dst), node: start + nodesAt, buf: start + nodesAt + 16*f.nodes + 8}
	rows := to - from
	for i := range f.cols {
		w.column(&f.cols[i], b.Column(i), from, to)
	}
	binary.LittleEndian.PutUint64(w.dst[start+rowsAt:], uint64(rows))
	binary.LittleEndian.PutUint64(w.dst[start+bodyLengthAt:], uint64(len(w.dst)-w.body))
	return w.dst
}

// MessageSize returns a bound on the bytes that AppendBatch would append.
func (f *Format) MessageSize(b *schemas.Batch, from, to int) int {
	return len(f.head) + f.bound(b, from, to)
}

func (f *Format) bound(b *schemas.Batch, from, to int) int {
	n, rows := 0, to-from
	for i := range f.cols {
		l := &f.cols[i]
		c := b.Column(i)
		if c.Nulls() > 0 {
			n += rows/8 + 8
		}
		if l.size == 0 {
			o := c.Offsets()
			n += 4*(rows*l.width+1) + int(o[to*l.width]-o[from*l.width]) + 16
		} else {
			n += rows*l.width*l.size + 8
		}
	}
	return n
}

// writer appends the body and fills in nodes and buffers as it goes.
type writer struct {
	dst       []byte
	start     int
	body      int // where the body starts
	node, buf int // where the next node and buffer are described
}

func (w *writer) column(l *layout, c *schemas.Column, from, to int) {
	rows := to - from
	nulls := 0
	if c.Nulls() > 0 {
		for i := from; i < to; i++ {
			if c.IsNull(i) {
				nulls++
			}
		}
	}
	w.putNode(rows, nulls)
	at := len(w.dst)
	if nulls > 0 {
		w.dst = appendValidity(w.dst, c, from, to)
	}
	w.end(at)
	if l.tensor {
		w.putNode(rows*l.width, 0)
		w.end(len(w.dst))
	}
	a, z := from*l.width, to*l.width
	at = len(w.dst)
	switch {
	case l.size == 0:
		w.text(c, a, z)
	case l.typ == schemas.Bool:
		n := (z - a + 7) / 8
		w.dst = slices.Grow(w.dst, n)[:at+n]
		schemas.PackBits(w.dst[at:], c.Data()[a:z])
		w.end(at)
	default:
		w.dst = append(w.dst, c.Data()[a*l.size:z*l.size]...)
		w.end(at)
	}
}

func (w *writer) text(c *schemas.Column, a, z int) {
	offs := c.Offsets()[a : z+1]
	at, n := len(w.dst), 4*len(offs)
	w.dst = slices.Grow(w.dst, n)[:at+n]
	if offs[0] == 0 {
		copy(w.dst[at:], unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(offs))), n))
	} else {
		for i, o := range offs {
			binary.LittleEndian.PutUint32(w.dst[at+4*i:], uint32(o-offs[0]))
		}
	}
	w.end(at)
	at = len(w.dst)
	w.dst = append(w.dst, c.Data()[offs[0]:offs[len(offs)-1]]...)
	w.end(at)
}

func (w *writer) putNode(length, nulls int) {
	b := w.dst[w.node : w.node+16]
	binary.LittleEndian.PutUint64(b, uint64(length))
	binary.LittleEndian.PutUint64(b[8:], uint64(nulls))
	w.node += 16
}

// end describes the buffer that began at at, and pads.
func (w *writer) end(at int) {
	b := w.dst[w.buf : w.buf+16]
	binary.LittleEndian.PutUint64(b, uint64(at-w.body))
	binary.LittleEndian.PutUint64(b[8:], uint64(len(w.dst)-at))
	w.buf += 16
	if n := (len(w.dst) - w.body) & 7; n != 0 {
		var zero [8]byte
		w.dst = append(w.dst, zero[n:]...)
	}
}

func appendValidity(dst []byte, c *schemas.Column, from, to int) []byte {
	if from&7 == 0 {
		at := len(dst)
		dst = append(dst, c.Validity()[from>>3:(to+7)>>3]...)
		if to&7 != 0 {
			dst[len(dst)-1] &= byte(1)<<(to&7) - 1
		}
		return dst[:at+(to-from+7)/8]
	}
	var v byte
	for i := from; i < to; i++ {
		if !c.IsNull(i) {
			v |= 1 << ((i - from) & 7)
		}
		if (i-from)&7 == 7 || i == to-1 {
			dst = append(dst, v)
			v = 0
		}
	}
	return dst
}
