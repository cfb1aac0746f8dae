package files

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow/go/v15/parquet/metadata"
)

const (
	// maxFooter bounds a Parquet footer. 100,000 column chunks need some 20 MB.
	maxFooter = 64 << 20
	// maxFooterElements bounds the elements of all lists of a footer together: some ten for each column chunk.
	maxFooterElements = 4 << 20
	// maxNesting bounds how deep Parquet's groups and Thrift's structures lie in one another.
	maxNesting = 64

	parquetMagic = "PAR1"
)

// checkFooter walks the footer of a Parquet file before Arrow's own reader, which allocates by every count that it finds
// there and descends into the schema however deep it is: a damaged file of 2 KB can ask for 34 GB, and one of 8 MB
// overflow the stack, which no recover catches. A file without a footer is left to that reader.
func checkFooter(r io.ReaderAt, size int64) error {
	var tail [4 + len(parquetMagic)]byte
	end := size - int64(len(tail))
	if end < int64(len(parquetMagic)) {
		return nil
	}
	if _, err := r.ReadAt(tail[:], end); err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	if string(tail[4:]) != parquetMagic || n > end {
		return nil
	}
	if n > maxFooter {
		return fmt.Errorf("a footer of %d bytes, at most %d are read", n, maxFooter)
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, end-n); err != nil {
		return err
	}
	w := thrift{b: b, elements: maxFooterElements}
	w.structure(&fileMetaData, 0)
	return w.err
}

// Shapes of parquet.thrift of Apache Parquet: the fields that lead to lists. What leads to none cannot make a reader
// allocate more than it reads.
var (
	listOfStrings  = &shape{kind: wireBinary}
	listOfNumbers  = &shape{kind: wireI32}
	listOfStructs  = &shape{kind: wireStruct}
	columnMetaData = shape{kind: wireStruct, lists: map[int16]*shape{2: listOfNumbers, 3: listOfStrings, 8: listOfStructs, 13: listOfStructs}}
	columnKey      = shape{kind: wireStruct, lists: map[int16]*shape{1: listOfStrings}}
	columnCrypto   = shape{kind: wireStruct, structs: map[int16]*shape{2: &columnKey}}
	columnChunk    = shape{kind: wireStruct, structs: map[int16]*shape{3: &columnMetaData, 8: &columnCrypto}}
	rowGroup       = shape{kind: wireStruct, lists: map[int16]*shape{1: &columnChunk, 4: listOfStructs}}
	schemaElement  = shape{kind: wireStruct, children: 5}
	fileMetaData   = shape{kind: wireStruct, lists: map[int16]*shape{2: &schemaElement, 4: &rowGroup, 5: listOfStructs, 7: listOfStructs}}
)

// shape is what a reader of Parquet expects at some place: it takes the elements of a list for what it expects,
// whatever the list says they are.
type shape struct {
	kind     byte
	structs  map[int16]*shape // by field
	lists    map[int16]*shape // of these elements, by field
	children int16            // the field of type i32 that says how many of the next elements are children of this one
}

// Types of Thrift's compact protocol, from doc/specs/thrift-compact-protocol.md of Apache Thrift.
const (
	wireTrue, wireFalse, wireByte = 1, 2, 3
	wireI16, wireI32, wireI64     = 4, 5, 6
	wireDouble, wireBinary        = 7, 8
	wireList, wireSet, wireMap    = 9, 10, 11
	wireStruct                    = 12
)

// thrift walks a message of Thrift's compact protocol. After an error nothing is left of b.
type thrift struct {
	b        []byte
	elements int // that lists may still have
	err      error
}

var errThrift = errors.New("its footer is damaged")

func (t *thrift) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.b = nil
}

func (t *thrift) skip(n uint64) {
	if n > uint64(len(t.b)) {
		t.fail(errThrift)
		return
	}
	t.b = t.b[n:]
}

func (t *thrift) octet() byte {
	if len(t.b) == 0 {
		t.fail(errThrift)
		return 0
	}
	v := t.b[0]
	t.b = t.b[1:]
	return v
}

func (t *thrift) unsigned() uint64 {
	v, n := binary.Uvarint(t.b)
	if n <= 0 {
		t.fail(errThrift)
		return 0
	}
	t.b = t.b[n:]
	return v
}

func (t *thrift) signed() int64 {
	v := t.unsigned()
	return int64(v>>1) ^ -int64(v&1)
}

func (t *thrift) i32() int32 {
	v := t.signed()
	if v != int64(int32(v)) {
		t.fail(errThrift)
	}
	return int32(v)
}

// fields visits the fields of a structure; the caller takes the value of each from t.
func (t *thrift) fields(yield func(id int16, kind byte) bool) {
	id := int16(0)
	for t.err == nil {
		head := t.octet()
		kind := head & 15
		if kind == 0 {
			return
		}
		if delta := int16(head >> 4); delta != 0 {
			id += delta
		} else {
			id = int16(t.signed())
		}
		if !yield(id, kind) {
			return
		}
	}
}

// structure passes over a structure and returns the number of children that it says it has.
func (t *thrift) structure(s *shape, depth int) (children int64) {
	if depth > maxNesting {
		t.fail(errThrift)
	}
	for id, kind := range t.fields {
		switch {
		case kind == wireI32 && s != nil && s.children == id:
			children = t.signed()
		case kind == wireStruct && s != nil:
			t.structure(s.structs[id], depth+1)
		case kind == wireList && s != nil && s.lists[id] != nil:
			t.list(s.lists[id], depth+1)
		default:
			t.field(kind, depth+1)
		}
	}
	return children
}

// list passes over a list of what s says.
func (t *thrift) list(s *shape, depth int) {
	kind, n := t.head()
	if n > 0 && kind != s.kind {
		t.fail(errThrift)
	}
	if s.kind != wireStruct {
		s = nil
	}
	var open []uint64 // children still to come of each group that the next element lies in
	for i := uint64(0); i < n && t.err == nil; i++ {
		if s == nil {
			t.value(kind, depth)
			continue
		}
		c := t.structure(s, depth)
		if s.children == 0 {
			continue
		}
		if c < 0 || uint64(c) > n-1-i {
			t.fail(fmt.Errorf("its footer is damaged: a group of %d columns", c))
		}
		if len(open) > 0 {
			open[len(open)-1]--
		}
		if c > 0 {
			open = append(open, uint64(c))
		}
		for len(open) > 0 && open[len(open)-1] == 0 {
			open = open[:len(open)-1]
		}
		if len(open) > maxNesting {
			t.fail(fmt.Errorf("its groups lie more than %d deep in one another", maxNesting))
		}
	}
}

// head reads the head of a list or a set.
func (t *thrift) head() (kind byte, n uint64) {
	b := t.octet()
	if n = uint64(b >> 4); n == 15 {
		n = t.unsigned()
	}
	return b & 15, t.count(n)
}

// count checks a number of elements: each takes a byte at least.
func (t *thrift) count(n uint64) uint64 {
	switch {
	case n > uint64(len(t.b)):
		t.fail(errThrift)
		return 0
	case n > uint64(t.elements):
		t.fail(fmt.Errorf("its footer has more than %d elements", maxFooterElements))
		return 0
	}
	t.elements -= int(n)
	return n
}

// field passes over a field. The value of a bool is in its head.
func (t *thrift) field(kind byte, depth int) {
	if kind != wireTrue && kind != wireFalse {
		t.value(kind, depth)
	}
}

// value passes over an element of a list, or another value of which no more is known than its type.
func (t *thrift) value(kind byte, depth int) {
	if depth > maxNesting {
		t.fail(errThrift)
		return
	}
	switch kind {
	case wireTrue, wireFalse, wireByte:
		t.skip(1)
	case wireI16, wireI32, wireI64:
		t.unsigned()
	case wireDouble:
		t.skip(8)
	case wireBinary:
		t.skip(t.unsigned())
	case wireList, wireSet:
		elem, n := t.head()
		for ; n > 0 && t.err == nil; n-- {
			t.value(elem, depth+1)
		}
	case wireMap:
		n := t.count(t.unsigned())
		if n == 0 {
			return
		}
		kinds := t.octet()
		for ; n > 0 && t.err == nil; n-- {
			t.value(kinds>>4, depth+1)
			t.value(kinds&15, depth+1)
		}
	case wireStruct:
		t.structure(nil, depth+1)
	default:
		t.fail(errThrift)
	}
}

// checkOrigin checks the Arrow schema that many writers leave in a Parquet file: pqarrow has Arrow's reader of streams
// decode it, which trusts every size.
func checkOrigin(md metadata.KeyValueMetadata) error {
	v := md.FindValue("ARROW:schema")
	if v == nil {
		return nil
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(*v, "="))
	if err == nil {
		f := frames{r: strings.NewReader(string(b)), left: int64(len(b))}
		defer f.Release()
		_, err = f.Message()
	}
	if err != nil {
		return fmt.Errorf("its Arrow schema is damaged: %w", err)
	}
	return nil
}
