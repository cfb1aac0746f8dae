package files

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/leatstream/leat/schemas"
)

// frames walks the messages of an Arrow stream. It checks each before Arrow's own reader, which trusts every size it
// finds, sees it; and it passes over whole batches without decoding them.
type frames struct {
	r    io.Reader
	left int64 // bytes left, -1 if not known
	skip int64 // rows still to be passed over
	msg  *ipc.Message
}

const (
	maxMetadata = 16 << 20
	// maxBatch bounds the buffers of one batch together, decompressed: they may lie over one another, and may have been
	// compressed a thousandfold.
	maxBatch = 4 * maxAlloc
	// maxLZ4Ratio is what a byte of LZ4 becomes at most.
	maxLZ4Ratio = 255
	// unproven is what a stream's claim of a size is trusted for before that many bytes have come.
	unproven = 64 << 10
)

// Slots of Arrow's flatbuffer tables, from format/Message.fbs and format/Schema.fbs of Apache Arrow.
const (
	slotHeaderType, slotHeader, slotBodyLength = 6, 8, 10
	slotBatchLength, slotBatchBuffers          = 4, 8
	slotBatchCompression, slotCodec            = 10, 4
	slotDictionaryData                         = 6
	slotSchemaFields, slotSchemaMetadata       = 6, 8
	slotSchemaFeatures                         = 10
	slotFieldKind, slotFieldType               = 8, 10
	slotFieldChildren, slotFieldMetadata       = 14, 16
	slotUnionIDs                               = 6
	headerSchema, headerDictionary             = 1, 2
	headerRecordBatch                          = 3
	kindUnion                                  = 14
	codecZstandard                             = 1
)

func (f *frames) Retain() {}

func (f *frames) Release() {
	if f.msg != nil {
		f.msg.Release()
		f.msg = nil
	}
}

// Message returns the next message; io.EOF at the end-of-stream mark, or where a stream ends without one.
func (f *frames) Message() (*ipc.Message, error) {
	for {
		meta, err := f.metadata()
		if err != nil {
			return nil, err
		}
		m, err := examine(meta)
		if err != nil {
			return nil, err
		}
		if m.body < 0 || m.body > maxAlloc || f.left >= 0 && m.body > f.left {
			return nil, fmt.Errorf("a message body of %d bytes", m.body)
		}
		if m.kind == headerRecordBatch && m.rows <= f.skip && f.skip > 0 {
			if err := f.discard(m.body); err != nil {
				return nil, err
			}
			f.skip -= m.rows
			continue
		}
		b, err := f.take(m.body)
		if err != nil {
			return nil, err
		}
		if err := checkBuffers(m.batch, b); err != nil {
			return nil, err
		}
		f.Release()
		f.msg = ipc.NewMessage(memory.NewBufferBytes(meta), memory.NewBufferBytes(b))
		return f.msg, nil
	}
}

func (f *frames) metadata() ([]byte, error) {
	if f.left == 0 {
		return nil, io.EOF
	}
	var word [4]byte
	n, err := io.ReadFull(f.r, word[:])
	if n == 0 && err == io.EOF {
		return nil, io.EOF
	}
	if err != nil {
		return nil, cut(err)
	}
	f.used(4)
	size := binary.LittleEndian.Uint32(word[:])
	if size == 0xffffffff { // the continuation mark; writers before 0.15 had none
		if err := f.read(word[:]); err != nil {
			return nil, err
		}
		size = binary.LittleEndian.Uint32(word[:])
	}
	if size == 0 {
		return nil, io.EOF
	}
	if size < 8 || size > maxMetadata || f.left >= 0 && int64(size) > f.left {
		return nil, fmt.Errorf("a message header of %d bytes", size)
	}
	return f.take(int64(size))
}

// take reads n bytes. Of a stream, whose length is not known, it asks for memory as the bytes come.
func (f *frames) take(n int64) ([]byte, error) {
	first := n
	if f.left < 0 {
		first = min(n, unproven)
	}
	b := make([]byte, first)
	for at := int64(0); ; {
		if err := f.read(b[at:]); err != nil {
			return nil, err
		}
		if at = int64(len(b)); at == n {
			return b, nil
		}
		more := make([]byte, min(n, 16*at))
		copy(more, b)
		b = more
	}
}

func (f *frames) read(b []byte) error {
	_, err := io.ReadFull(f.r, b)
	f.used(int64(len(b)))
	return cut(err)
}

func (f *frames) discard(n int64) error {
	f.used(n)
	if s, ok := f.r.(source); ok && s.file != nil && f.left >= 0 {
		_, err := s.file.Seek(n, io.SeekCurrent)
		return err
	}
	_, err := io.CopyN(io.Discard, f.r, n)
	return cut(err)
}

func (f *frames) used(n int64) {
	if f.left >= 0 {
		f.left -= n
	}
}

func cut(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut short in the middle of a message")
	}
	return err
}

// message is what its header says of a message.
type message struct {
	kind  byte
	body  int64
	rows  int64             // of a record batch
	batch flatbuffers.Table // the RecordBatch, of a dictionary too; without bytes if there is none
}

// examine reads a message's header, and bounds what its schema can make Arrow allocate.
func examine(meta []byte) (m message, err error) {
	defer outside(&err)
	root := flatbuffers.Table{Bytes: meta, Pos: flatbuffers.GetUOffsetT(meta)}
	if o := root.Offset(slotHeaderType); o != 0 {
		m.kind = root.GetByte(root.Pos + flatbuffers.UOffsetT(o))
	}
	if o := root.Offset(slotBodyLength); o != 0 {
		m.body = root.GetInt64(root.Pos + flatbuffers.UOffsetT(o))
	}
	o := root.Offset(slotHeader)
	if o == 0 {
		return m, errors.New("a message without a header")
	}
	var head flatbuffers.Table
	root.Union(&head, flatbuffers.UOffsetT(o))
	switch m.kind {
	case headerSchema:
		budget := 4 * schemas.MaxColumns
		if vectorFits(head, slotSchemaMetadata, 4) && vectorFits(head, slotSchemaFeatures, 8) {
			err = examineFields(head, slotSchemaFields, 0, &budget)
		} else {
			err = errTooLong
		}
	case headerDictionary:
		if o := flatbuffers.UOffsetT(head.Offset(slotDictionaryData)); o != 0 {
			m.batch = flatbuffers.Table{Bytes: meta, Pos: head.Indirect(head.Pos + o)}
		}
	case headerRecordBatch:
		m.batch = head
		if o := head.Offset(slotBatchLength); o != 0 {
			m.rows = head.GetInt64(head.Pos + flatbuffers.UOffsetT(o))
		}
		if m.rows < 0 {
			err = fmt.Errorf("a batch of %d rows", m.rows)
		}
	}
	return m, err
}

// outside makes an error of a panic: flatbuffers follow every offset.
func outside(err *error) {
	if p := recover(); p != nil {
		*err = errors.New("a message header that points outside itself")
	}
}

// checkBuffers bounds what a batch's buffers make Arrow allocate: it copies each, and takes the size of a compressed one
// from its first 8 bytes.
func checkBuffers(batch flatbuffers.Table, body []byte) (err error) {
	if batch.Bytes == nil {
		return nil
	}
	defer outside(&err)
	o := flatbuffers.UOffsetT(batch.Offset(slotBatchBuffers))
	if o == 0 {
		return nil
	}
	compressed, zstd := batch.Offset(slotBatchCompression) != 0, false
	if compressed {
		c := flatbuffers.Table{Bytes: batch.Bytes, Pos: batch.Indirect(batch.Pos + flatbuffers.UOffsetT(batch.Offset(slotBatchCompression)))}
		zstd = c.GetByteSlot(slotCodec, 0) == codecZstandard
	}
	at, total := batch.Vector(o), int64(0)
	for i := range batch.VectorLen(o) {
		p := at + flatbuffers.UOffsetT(16*i)
		offset, size := batch.GetInt64(p), batch.GetInt64(p+8)
		if size == 0 {
			continue
		}
		if offset < 0 || size < 0 || offset > int64(len(body)) || size > int64(len(body))-offset || compressed && size < 8 {
			return fmt.Errorf("a buffer of %d bytes at %d in a message of %d", size, offset, len(body))
		}
		if compressed {
			packed := body[offset+8 : offset+size]
			switch size = int64(binary.LittleEndian.Uint64(body[offset:])); {
			case size == -1: // as it is
				size = int64(len(packed))
			case size < 0 || !zstd && size > maxLZ4Ratio*int64(len(packed)):
				return fmt.Errorf("%d bytes that claim to be %d compressed", len(packed), size)
			case zstd:
				if err := zstandard(bytes.NewReader(packed), 0, int64(len(packed)), size); err != nil {
					return err
				}
			}
		}
		if total += size; size > maxAlloc || total > maxBatch {
			return fmt.Errorf("a batch of more than %d bytes, or a column of more than %d", maxBatch, maxAlloc)
		}
	}
	return nil
}

var errTooLong = errors.New("a list in its schema that is longer than the schema")

// vectorFits reports whether a vector of a table lies inside the message: Arrow allocates by its length.
func vectorFits(t flatbuffers.Table, slot flatbuffers.VOffsetT, elem int) bool {
	o := flatbuffers.UOffsetT(t.Offset(slot))
	if o == 0 {
		return true
	}
	n := t.VectorLen(o)
	return n >= 0 && n <= (len(t.Bytes)-int(t.Vector(o)))/elem
}

// examineFields visits a vector of fields and their children. Shared sub-tables would make a small message a huge
// schema, so the visits are counted.
func examineFields(t flatbuffers.Table, slot flatbuffers.VOffsetT, depth int, budget *int) error {
	o := flatbuffers.UOffsetT(t.Offset(slot))
	if o == 0 {
		return nil
	}
	n := t.VectorLen(o)
	if *budget -= n; *budget < 0 || n < 0 || depth > 16 {
		return errors.New("a schema of too many columns")
	}
	at := t.Vector(o)
	for i := range n {
		p := at + flatbuffers.UOffsetT(4*i)
		child := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(p)}
		if !vectorFits(child, slotFieldMetadata, 4) {
			return errTooLong
		}
		if k := flatbuffers.UOffsetT(child.Offset(slotFieldKind)); k != 0 && child.GetByte(child.Pos+k) == kindUnion {
			var union flatbuffers.Table
			child.Union(&union, flatbuffers.UOffsetT(child.Offset(slotFieldType)))
			if !vectorFits(union, slotUnionIDs, 4) {
				return errTooLong
			}
		}
		if err := examineFields(child, slotFieldChildren, depth+1, budget); err != nil {
			return err
		}
	}
	return nil
}

// checkData checks that an array's buffers hold what its length and its offsets say: Arrow's reader takes both from
// the file.
func checkData(d arrow.ArrayData) error {
	bufs := d.Buffers()
	size := func(i int) int {
		if i >= len(bufs) || bufs[i] == nil {
			return 0
		}
		return bufs[i].Len()
	}
	n := d.Len()
	damaged := fmt.Errorf("its buffers do not hold %d rows", n)
	if n < 0 || d.Offset() != 0 || d.NullN() > n || bufs[0] != nil && size(0) < (n+7)/8 {
		return damaged
	}
	switch t := d.DataType().(type) {
	case *arrow.BooleanType:
		if size(1) < (n+7)/8 {
			return damaged
		}
	case *arrow.StringType, *arrow.BinaryType:
		if n > 0 && (size(1) < 4*(n+1) || !monotone(arrow.Int32Traits.CastFromBytes(bufs[1].Bytes())[:n+1], size(2))) {
			return damaged
		}
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		if n > 0 && (size(1) < 8*(n+1) || !monotone(arrow.Int64Traits.CastFromBytes(bufs[1].Bytes())[:n+1], size(2))) {
			return damaged
		}
	case *arrow.DictionaryType:
		if size(1) < n*t.IndexType.(arrow.FixedWidthDataType).Bytes() {
			return damaged
		}
		return checkData(d.Dictionary())
	case *arrow.FixedSizeListType:
		c := d.Children()[0]
		if int64(c.Len()) < int64(n)*int64(t.Len()) {
			return damaged
		}
		return checkData(c)
	case arrow.FixedWidthDataType:
		if size(1)/t.Bytes() < n {
			return damaged
		}
	default:
		return fmt.Errorf("type %s", t)
	}
	return nil
}

func monotone[T int32 | int64](o []T, size int) bool {
	last := T(0)
	for _, v := range o {
		if v < last {
			return false
		}
		last = v
	}
	return int64(last) <= int64(size)
}
