package files

import (
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

const maxMetadata = 16 << 20

// Slots of Arrow's flatbuffer tables, from format/Message.fbs and format/Schema.fbs of Apache Arrow.
const (
	slotHeaderType, slotHeader, slotBodyLength = 6, 8, 10
	slotBatchLength                            = 4
	slotSchemaFields, slotSchemaMetadata       = 6, 8
	slotSchemaFeatures                         = 10
	slotFieldKind, slotFieldType               = 8, 10
	slotFieldChildren, slotFieldMetadata       = 14, 16
	slotUnionIDs                               = 6
	headerSchema, headerRecordBatch            = 1, 3
	kindUnion                                  = 14
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
		kind, body, rows, err := examine(meta)
		if err != nil {
			return nil, err
		}
		if body < 0 || body > maxAlloc || f.left >= 0 && body > f.left {
			return nil, fmt.Errorf("a message body of %d bytes", body)
		}
		if kind == headerRecordBatch && rows <= f.skip && f.skip > 0 {
			if err := f.discard(body); err != nil {
				return nil, err
			}
			f.skip -= rows
			continue
		}
		b := make([]byte, body)
		if err := f.read(b); err != nil {
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
	meta := make([]byte, size)
	return meta, f.read(meta)
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

// examine reads a message's kind, body length and rows, and bounds what its schema can make Arrow allocate.
func examine(meta []byte) (kind byte, body, rows int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a message header that points outside itself")
		}
	}()
	root := flatbuffers.Table{Bytes: meta, Pos: flatbuffers.GetUOffsetT(meta)}
	if o := root.Offset(slotHeaderType); o != 0 {
		kind = root.GetByte(root.Pos + flatbuffers.UOffsetT(o))
	}
	if o := root.Offset(slotBodyLength); o != 0 {
		body = root.GetInt64(root.Pos + flatbuffers.UOffsetT(o))
	}
	o := root.Offset(slotHeader)
	if o == 0 {
		return 0, 0, 0, errors.New("a message without a header")
	}
	var head flatbuffers.Table
	root.Union(&head, flatbuffers.UOffsetT(o))
	switch kind {
	case headerSchema:
		budget := 4 * schemas.MaxColumns
		if vectorFits(head, slotSchemaMetadata, 4) && vectorFits(head, slotSchemaFeatures, 8) {
			err = examineFields(head, slotSchemaFields, 0, &budget)
		} else {
			err = errTooLong
		}
	case headerRecordBatch:
		if o := head.Offset(slotBatchLength); o != 0 {
			rows = head.GetInt64(head.Pos + flatbuffers.UOffsetT(o))
		}
		if rows < 0 {
			err = fmt.Errorf("a batch of %d rows", rows)
		}
	}
	return kind, body, rows, err
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
