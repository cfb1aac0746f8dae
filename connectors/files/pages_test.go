package files

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/leatstream/leat/schemas"
)

// encoded is a Parquet file of n strings or int32, as writers other than ours make it.
func encoded(t testing.TB, n int, o ...parquet.WriterProperty) []byte {
	p := parquet.NewWriterProperties(append([]parquet.WriterProperty{parquet.WithDictionaryDefault(false)}, o...)...)
	var c arrow.Array
	if p.Encoding() == parquet.Encodings.DeltaBinaryPacked {
		b := array.NewInt32Builder(memory.DefaultAllocator)
		for i := range n {
			b.Append(int32(i * i))
		}
		c = b.NewArray()
	} else {
		b := array.NewStringBuilder(memory.DefaultAllocator)
		for i := range n {
			if i%7 == 3 {
				b.AppendNull()
			} else {
				b.Append(strings.Repeat("x", i%30))
			}
		}
		c = b.NewArray()
	}
	rec := textRecord(c)
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(rec.Schema(), &out, p, pqarrow.DefaultWriterProps())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteBuffered(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var (
	deltaInts    = parquet.WithEncoding(parquet.Encodings.DeltaBinaryPacked)
	deltaLengths = parquet.WithEncoding(parquet.Encodings.DeltaLengthByteArray)
	deltaBytes   = parquet.WithEncoding(parquet.Encodings.DeltaByteArray)
	pagesOfV2    = parquet.WithDataPageVersion(parquet.DataPageV2)
	smallPages   = parquet.WithDataPageSize(500)
	smallBatches = parquet.WithBatchSize(64)
)

func codec(c compress.Compression) parquet.WriterProperty { return parquet.WithCompression(c) }

// foreign is files of all that pages checks.
func foreign(t testing.TB, rows int) (files [][]byte) {
	for _, e := range []parquet.WriterProperty{deltaInts, deltaLengths, deltaBytes} {
		for _, v := range []parquet.WriterProperty{parquet.WithDataPageVersion(parquet.DataPageV1), pagesOfV2} {
			for _, c := range []compress.Compression{compress.Codecs.Uncompressed, compress.Codecs.Snappy, compress.Codecs.Gzip, compress.Codecs.Brotli, compress.Codecs.Zstd} {
				files = append(files, encoded(t, rows, e, v, codec(c), smallPages, smallBatches))
			}
		}
	}
	return files
}

// TestForeignPages: what is whole is read, over batches, pages and row groups.
func TestForeignPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.parquet")
	for i, b := range foreign(t, 1000) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, o := range []Options{{}, {BatchRows: 7, FromRow: 501}} {
			if n, err := countRows(t, path, o); err != nil || n != 1000-o.FromRow {
				t.Errorf("file %d: %d rows, %v", i, n, err)
			}
		}
	}
}

// TestHostileCounts: counts in pages ask for no memory.
func TestHostileCounts(t *testing.T) {
	over := func(b []byte, after []byte, by string) []byte { // writes over what stands behind after
		b = bytes.Clone(b)
		i := bytes.Index(b, after)
		if i < 0 {
			t.Fatalf("%x is not there", after)
		}
		copy(b[i+len(after):], by)
		return b
	}
	const many = "\x80\x80\x80\x80\x80\x80\x01"     // 2^42
	head := []byte{128, 1, 4}                       // blocks of 128 in four
	intro := []byte("\x03\x00\x00\x00\xa0\x1f\x01") // the levels
	pageAt := []byte(parquetMagic + "\x15\x00\x15")
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"lengths", over(encoded(t, 2000, deltaLengths), head, many), "4398046511104 deltas"},
		{"prefixes", over(encoded(t, 2000, deltaBytes), head, many), "4398046511104 deltas"},
		{"a block of 2^31 numbers", over(encoded(t, 2000, deltaInts), intro, "\x80\x80\x80\x80\x08\x01"), "in blocks of 2147483648 and 1"},
		{"no blocks", over(encoded(t, 2000, deltaInts), intro, "\x80\x01\x00"), "in blocks of 128 and 0"},
		{"a page that is longer than the file", over(encoded(t, 10), pageAt, "\x82\x01\x15\xfe\xff\xff\xff\x0f"), "a page of 2147483647 bytes where"},
		{"a page that claims 2 GiB", over(encoded(t, 10), pageAt, "\xfe\xff\xff\xff\x0f\x15\x10"), "2147483647 decompressed"},
		{"an index page", over(encoded(t, 10), []byte(parquetMagic+"\x15"), "\x02"), "a page of kind 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := openBytes(t, Parquet, c.file)
			if schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n > 16<<20 {
				t.Errorf("%d bytes allocated for a file of %d", n, len(c.file))
			}
		})
	}
}

func TestZstandardClaims(t *testing.T) {
	w, err := compress.GetCodec(compress.Codecs.Zstd)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(b []byte) []byte { return bytes.Clone(w.Encode(nil, b)) }
	text := bytes.Repeat([]byte("a line of text\n"), 20_000)
	random := make([]byte, 300_000)
	for i := range random {
		random[i] = byte(i * i >> 3 * i)
	}
	var stream bytes.Buffer // a frame that does not say its size
	sw := w.NewWriter(&stream)
	for range 10 {
		_, _ = sw.Write(text)
	}
	_ = sw.Close()
	const magic = "\x28\xb5\x2f\xfd"
	// A frame of blocks that repeat a byte 128 KiB times, of 4 bytes each.
	bomb := func(n int) []byte {
		b := []byte(magic + "\x00\x58")
		for range n - 1 {
			b = append(b, "\x02\x00\x10\x00"...)
		}
		return append(b, "\x03\x00\x10\x00"...)
	}
	skip := "\x51\x2a\x4d\x18\x03\x00\x00\x00abc"
	big := magic + "\xe0" + "\x00\x00\x00\x00\x10\x00\x00\x00" + "\x01\x00\x00" // says that it has 64 GiB
	for _, c := range []struct {
		name string
		b    []byte
		raw  int
		ok   bool
	}{
		{"text", pack(text), len(text), true},
		{"random", pack(random), len(random), true},
		{"short", pack([]byte("x")), 1, true},
		{"nothing", nil, 0, true},
		{"stream", stream.Bytes(), 10 * len(text), true},
		{"two frames", append(pack(random), pack(text)...), len(text) + len(random), true},
		{"a frame to skip", append([]byte(skip), pack(text)...), len(text), true},
		{"a repeated byte", bomb(10), 10 << 17, true},
		{"more than the page", pack(text), len(text) - 1, false},
		{"less than the page", bomb(10), 11 << 17, false},
		{"a bomb", bomb(3000), 100, false},
		{"64 GiB", []byte(big), 100, false},
		{"a window of 512 MiB", []byte(magic + "\x00\x98\x03\x00\x10\x00"), 1 << 17, false},
		{"cut short", pack(random)[:200], len(random), false},
		{"no frame", []byte("0123456789"), 10, false},
		{"a byte", []byte{1}, 10, false},
	} {
		if err := zstandard(bytes.NewReader(c.b), 0, int64(len(c.b)), int64(c.raw)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDeltas(t *testing.T) {
	number := func(b []byte, v ...uint64) []byte {
		for _, n := range v {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	one := number(nil, 128, 4, 1, 0)
	// 33 numbers: the first, and 32 of a byte each; then the head of others.
	block := append(append(number(nil, 128, 4, 33, 0, 0), 8, 9, 9, 9), make([]byte, 32)...)
	for _, c := range []struct {
		name     string
		b        []byte
		encoding int32
		values   int64
		ok       bool
	}{
		{"one", one, deltaBinaryPacked, 1, true},
		{"one of two with nulls", one, deltaLengthByteArray, 2, true},
		{"more than there are", one, deltaBinaryPacked, 0, false},
		{"cut", one[:3], deltaBinaryPacked, 1, false},
		{"strings", append(bytes.Clone(one), one...), deltaStrings, 1, true},
		{"strings without suffixes", one, deltaStrings, 1, false},
		{"suffixes behind a block", append(bytes.Clone(block), one...), deltaStrings, 33, true},
		{"too many suffixes", append(bytes.Clone(block), number(nil, 128, 4, 1<<40, 0)...), deltaStrings, 33, false},
		{"a block cut short", block[:30], deltaStrings, 33, false},
		{"widths cut short", block[:7], deltaStrings, 33, false},
		{"too many values", one, deltaBinaryPacked, math.MaxInt32, false},
		{"miniblocks of no bytes", number(nil, 8, 8, 1, 0), deltaBinaryPacked, 1, false},
		{"more miniblocks than values", number(nil, 8, 1<<40, 1, 0), deltaBinaryPacked, 1, false},
	} {
		if err := checkDelta(c.b, c.encoding, c.values); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestGzipBomb: of a page that says it is empty, gzip would give all that comes.
func TestGzipBomb(t *testing.T) {
	c, err := compress.GetCodec(compress.Codecs.Gzip)
	if err != nil {
		t.Fatal(err)
	}
	b := c.Encode(nil, make([]byte, 64<<20))
	p := pages{r: bytes.NewReader(b), size: int64(len(b))}
	h := page{kind: pageData, packed: int32(len(b)), pageValues: pageValues{values: 1, encoding: deltaBinaryPacked}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err = p.body(0, h, compress.Codecs.Gzip, nil)
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%v, %d bytes", err, after.TotalAlloc-before.TotalAlloc)
	}
}
