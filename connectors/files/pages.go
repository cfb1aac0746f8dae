package files

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/schema"
)

// pages checks the pages of a column chunk before the library decodes them. The library allocates by the sizes that page
// headers claim, by those that compressed data claims, and by the counts that delta encodings begin with: a damaged page of
// 30 bytes can ask for 4 TB, which no recover catches. What is checked are headers, one short read for each page; only
// pages in a delta encoding are decompressed a second time.
type pages struct {
	r    io.ReaderAt
	size int64 // of the file
	file *file.Reader
	buf  []byte // of read
	out  []byte // of a page, decompressed
}

const (
	// maxPadding is what old writers forgot to count in a chunk's size (PARQUET-816).
	maxPadding = 100
	// pageRead is read of each page: most headers, with statistics, are much shorter.
	pageRead = 1 << 10
)

// Numbers of parquet.thrift of Apache Parquet.
const (
	pageData, pageDictionary, pageDataV2                  = 0, 2, 3
	levelsRLE, levelsPacked                               = 3, 4
	deltaBinaryPacked, deltaLengthByteArray, deltaStrings = 5, 6, 7
)

// knownEncodings are those that the library reads.
var knownEncodings = map[int32]bool{0: true, 2: true, 3: true, deltaBinaryPacked: true, deltaLengthByteArray: true, deltaStrings: true, 8: true}

// page is what a page's header says.
type page struct {
	kind         int32
	size, packed int32 // of its body, decompressed and as it lies in the file
	pageValues
}

// pageValues is the part of a header that each kind of page has for itself.
type pageValues struct {
	values, encoding int32
	rep, def         int32 // version 1: how levels are encoded; version 2: their bytes, which are never compressed
	plain            bool  // version 2: the values are not compressed either
}

// check walks one column chunk.
func (p *pages) check(group, leaf int) error {
	c, err := p.file.RowGroup(group).MetaData().ColumnChunk(leaf)
	if err != nil {
		return err
	}
	if c.CryptoMetadata() != nil {
		return nil // the library says that it has no key
	}
	at, length := c.DataPageOffset(), c.TotalCompressedSize()
	if d := c.DictionaryPageOffset(); c.HasDictionaryPage() && d > 0 && d < at {
		at = d
	}
	if at < 0 || length < 0 || at > p.size || length > p.size-at {
		return fmt.Errorf("the file is damaged: a column chunk of %d bytes at %d in a file of %d", length, at, p.size)
	}
	end := min(at+length+maxPadding, p.size)
	column := p.file.MetaData().Schema.Column(leaf)
	for left := c.NumValues(); left > 0 && at < end; {
		h, n, err := p.header(at, end)
		if err != nil {
			return err
		}
		at += n
		if int64(h.packed) > end-at {
			return fmt.Errorf("the file is damaged: a page of %d bytes where %d are left", h.packed, end-at)
		}
		if err := p.body(at, h, c.Compression(), column); err != nil {
			return fmt.Errorf("the file is damaged: %w", err)
		}
		at += int64(h.packed)
		if h.kind != pageDictionary {
			left -= int64(h.values)
		}
	}
	return nil
}

// header reads the header at a place, and its length.
func (p *pages) header(at, end int64) (page, int64, error) {
	for n := int64(pageRead); ; n *= 4 {
		n = min(n, end-at, maxMetadata)
		b, err := p.read(at, n)
		if err != nil {
			return page{}, 0, err
		}
		t := thrift{b: b, elements: maxFooterElements}
		h := t.page()
		if t.err == nil {
			return h, n - int64(len(t.b)), h.check()
		}
		if n == end-at || n == maxMetadata {
			return page{}, 0, fmt.Errorf("the file is damaged: a page header that has no end")
		}
	}
}

// read returns bytes of the file, valid until the next call.
func (p *pages) read(at, n int64) ([]byte, error) {
	if int64(len(p.buf)) < n {
		p.buf = make([]byte, n)
	}
	_, err := p.r.ReadAt(p.buf[:n], at)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return p.buf[:n], err
}

// page reads a PageHeader.
func (t *thrift) page() (h page) {
	var kinds [4]pageValues
	for id, kind := range t.fields {
		switch {
		case kind == wireI32 && id == 1:
			h.kind = t.i32()
		case kind == wireI32 && id == 2:
			h.size = t.i32()
		case kind == wireI32 && id == 3:
			h.packed = t.i32()
		case kind == wireStruct && id == 5:
			kinds[pageData] = t.pageValues(id)
		case kind == wireStruct && id == 7:
			kinds[pageDictionary] = t.pageValues(id)
		case kind == wireStruct && id == 8:
			kinds[pageDataV2] = t.pageValues(id)
		default:
			t.field(kind, 0)
		}
	}
	if h.kind >= 0 && int(h.kind) < len(kinds) {
		h.pageValues = kinds[h.kind]
	}
	return h
}

// pageValues reads a DataPageHeader (field 5 of a PageHeader), a DictionaryPageHeader (7) or a DataPageHeaderV2 (8).
func (t *thrift) pageValues(in int16) (v pageValues) {
	for id, kind := range t.fields {
		if kind != wireI32 {
			if in == 8 && id == 7 && (kind == wireTrue || kind == wireFalse) {
				v.plain = kind == wireFalse
			}
			t.field(kind, 0)
			continue
		}
		n := t.i32()
		switch [2]int16{in, id} {
		case [2]int16{5, 1}, [2]int16{7, 1}, [2]int16{8, 1}:
			v.values = n
		case [2]int16{5, 2}, [2]int16{7, 2}, [2]int16{8, 4}:
			v.encoding = n
		case [2]int16{5, 3}, [2]int16{8, 5}:
			v.def = n
		case [2]int16{5, 4}, [2]int16{8, 6}:
			v.rep = n
		}
	}
	return v
}

// levels returns the bytes of a page of version 2 that are never compressed.
func (h *page) levels() int64 {
	if h.kind != pageDataV2 {
		return 0
	}
	return int64(h.rep) + int64(h.def)
}

func (h *page) check() error {
	switch {
	case h.kind != pageData && h.kind != pageDictionary && h.kind != pageDataV2:
		return fmt.Errorf("the file is damaged: a page of kind %d", h.kind) // the library would take its body for the next header
	case h.packed < 0 || h.size < 0 || h.size > maxAlloc || h.values < 0:
		return fmt.Errorf("the file is damaged: a page of %d bytes, %d decompressed, and %d values", h.packed, h.size, h.values)
	case h.kind != pageDictionary && !knownEncodings[h.encoding]:
		return fmt.Errorf("its encoding %s cannot be read: write the column in another", parquet.Encoding(h.encoding))
	case h.kind == pageDataV2 && (h.rep < 0 || h.def < 0 || h.levels() > int64(min(h.size, h.packed))):
		return fmt.Errorf("the file is damaged: a page of %d bytes with %d and %d bytes of levels", h.size, h.rep, h.def)
	}
	return nil
}

// body checks what a page's body claims.
func (p *pages) body(at int64, h page, codec compress.Compression, column *schema.Column) error {
	raw, packed := int64(h.size)-h.levels(), int64(h.packed)-h.levels()
	plain := codec == compress.Codecs.Uncompressed || h.plain
	claim := func() error { return fmt.Errorf("%d bytes that claim to be %d compressed", packed, raw) }
	var err error
	switch {
	case plain && raw != packed:
		err = claim()
	case plain || raw == 0 && packed == 0:
	case codec == compress.Codecs.Snappy:
		var b []byte
		if b, err = p.read(at+h.levels(), min(packed, binary.MaxVarintLen32)); err != nil {
			break
		}
		// It is the data that says what the library allocates. No element gives more than 64 bytes.
		if n, k := binary.Uvarint(b); k <= 0 || n != uint64(raw) || raw > 64*packed {
			err = claim()
		}
	case codec == compress.Codecs.Zstd:
		err = zstandard(p.r, at+h.levels(), packed, raw)
	case raw == 0 && packed > pageRead:
		err = claim() // of gzip and Brotli the library then takes all that comes
	}
	if err != nil || h.kind == pageDictionary || h.encoding < deltaBinaryPacked || h.encoding > deltaStrings {
		return err
	}
	b, err := p.read(at, int64(h.packed))
	if err != nil {
		return err
	}
	b = b[h.levels():]
	if !plain {
		c, err := compress.GetCodec(codec)
		if err != nil {
			return err
		}
		if int64(len(p.out)) < raw {
			p.out = make([]byte, raw)
		}
		b = c.Decode(p.out[:raw], b)
	}
	if h.kind == pageData {
		if b, err = passLevels(b, h.rep, column.MaxRepetitionLevel(), h.values); err == nil {
			b, err = passLevels(b, h.def, column.MaxDefinitionLevel(), h.values)
		}
	}
	if err != nil || len(b) == 0 {
		return err
	}
	return checkDelta(b, h.encoding, int64(h.values))
}
