package files

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/leatstream/leat/schemas"
)

// node is an element of a Parquet schema: a group of so many children, or an int32 column.
func node(children int64) []byte {
	b := []byte{1<<4 | wireI32, 2} // type: INT32
	if children != 0 {
		b = nil
	}
	b = append(b, byte(3-len(b)/2)<<4|wireI32, 0, 1<<4|wireBinary, 1, 'a') // required, named a
	if children != 0 {
		b = binary.AppendVarint(append(b, 1<<4|wireI32), children)
	}
	return append(b, 0)
}

// parquetFile has a footer of these nodes and this Arrow schema, and no rows.
func parquetFile(nodes [][]byte, origin string) []byte {
	b := append([]byte(parquetMagic), 1<<4|wireI32, 2) // version 1
	b = binary.AppendUvarint(append(b, 1<<4|wireList, 15<<4|wireStruct), uint64(len(nodes)))
	for _, n := range nodes {
		b = append(b, n...)
	}
	b = append(b, 1<<4|wireI64, 0, 1<<4|wireList, wireStruct) // rows, row groups: none
	if origin != "" {
		b = append(b, 1<<4|wireList, 1<<4|wireStruct)
		for _, s := range []string{"ARROW:schema", origin} {
			b = binary.AppendUvarint(append(b, 1<<4|wireBinary), uint64(len(s)))
			b = append(b, s...)
		}
		b = append(b, 0)
	}
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(b)-len(parquetMagic)))
	return append(b, parquetMagic...)
}

// manyNodes is n groups in one another, and a column.
func manyNodes(n int) (nodes [][]byte) {
	for range n {
		nodes = append(nodes, node(1))
	}
	return append(nodes, node(0))
}

// arrowSchema is a schema as a Parquet file holds it, after change has had its message.
func arrowSchema(t testing.TB, change func(meta []byte)) string {
	var b bytes.Buffer
	md := arrow.NewMetadata([]string{"k"}, []string{"v"})
	s := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int32}}, &md)
	if err := ipc.NewWriter(&b, ipc.WithSchema(s)).Close(); err != nil {
		t.Fatal(err)
	}
	change(b.Bytes()[8:])
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// longMetadata makes a schema claim 2^26 pairs of metadata.
func longMetadata(meta []byte) {
	root := flatbuffers.Table{Bytes: meta, Pos: flatbuffers.GetUOffsetT(meta)}
	var head flatbuffers.Table
	root.Union(&head, flatbuffers.UOffsetT(root.Offset(slotHeader)))
	at := head.Vector(flatbuffers.UOffsetT(head.Offset(slotSchemaMetadata)))
	binary.LittleEndian.PutUint32(meta[at-4:], 1<<26)
}

// openBytes opens a file of these bytes and reads it to its end; allocated is the memory that this took.
func openBytes(t *testing.T, format Format, b []byte) (allocated uint64, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hostile")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Format: format}
	if format == Stream {
		path, o.In = Stdio, bytes.NewReader(b)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = countRows(t, path, o)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, err
}

func TestHostileParquetFooters(t *testing.T) {
	plain := [][]byte{node(1), node(0)}
	same := func([]byte) {}
	claim := func(list ...byte) []byte { // a footer that begins so
		b := append([]byte(parquetMagic), list...)
		b = append(b, make([]byte, 64)...)
		return append(binary.LittleEndian.AppendUint32(b, uint32(len(b)-4)), parquetMagic...)
	}
	const most = "\xff\xff\xff\xff\x07" // 2^31-1
	for _, c := range []struct {
		name string
		file []byte
		want string // "": it opens
	}{
		{"plain", parquetFile(plain, ""), ""},
		{"plain, with its Arrow schema", parquetFile(plain, arrowSchema(t, same)), ""},
		{"groups at the bound", parquetFile(manyNodes(maxNesting), ""), "no column that can be read"},
		{"groups beyond the bound", parquetFile(manyNodes(maxNesting+1), ""), "more than 64 deep"},
		{"a million groups in one another", parquetFile(manyNodes(1e6), ""), "more than 64 deep"},
		{"a group of 2^31-1 columns", parquetFile([][]byte{node(math.MaxInt32), node(0)}, ""), "a group of 2147483647 columns"},
		{"a group of -1 columns", parquetFile([][]byte{node(-1), node(0)}, ""), "a group of -1 columns"},
		{"a schema of 2^31-1 nodes", claim(append([]byte{2<<4 | wireList, 15<<4 | wireStruct}, most...)...), "footer is damaged"},
		{"2^31-1 row groups", claim(append([]byte{4<<4 | wireList, 15<<4 | wireStruct}, most...)...), "footer is damaged"},
		{"a schema of numbers", claim(2<<4|wireList, 2<<4|wireI32, 0, 0), "footer is damaged"},
		{"lists in lists", claim(bytes.Repeat([]byte{15<<4 | wireList, 1<<4 | wireList}, 20)...), "footer is damaged"},
		{"metadata beyond its Arrow schema", parquetFile(plain, arrowSchema(t, longMetadata)), "its Arrow schema is damaged"},
		{"an Arrow schema of 2 GiB", parquetFile(plain, base64.StdEncoding.EncodeToString([]byte("\xff\xff\xff\xff\xff\xff\xff\x7f"))), "its Arrow schema is damaged"},
		{"an Arrow schema that is none", parquetFile(plain, "?"), "its Arrow schema is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := openBytes(t, Parquet, c.file)
			if c.want == "" && err != nil || c.want != "" && (schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if max := uint64(1<<20 + 4*len(c.file)); n > max {
				t.Errorf("%d bytes allocated for a file of %d", n, len(c.file))
			}
		})
	}
}

// batchStream is a stream of one batch of n int64, whose first buffers change may alter.
func batchStream(t testing.TB, n int, change func(batch flatbuffers.Table, body []byte), o ...ipc.Option) []byte {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	for i := range n {
		b.Append(int64(i / 100))
	}
	rec := textRecord(b.NewArray())
	var out bytes.Buffer
	w := ipc.NewWriter(&out, append(o, ipc.WithSchema(rec.Schema()))...)
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	stream := out.Bytes()
	rest := stream
	for {
		size := binary.LittleEndian.Uint32(rest[4:])
		meta := rest[8 : 8+size]
		m, err := examine(meta)
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[8+size:]
		if m.kind == headerRecordBatch {
			change(m.batch, rest[:m.body])
			return stream
		}
	}
}

// setBuffer alters buffer i of a batch.
func setBuffer(batch flatbuffers.Table, i int, offset, size int64) {
	at := batch.Vector(flatbuffers.UOffsetT(batch.Offset(slotBatchBuffers)))
	binary.LittleEndian.PutUint64(batch.Bytes[int(at)+16*i:], uint64(offset))
	binary.LittleEndian.PutUint64(batch.Bytes[int(at)+16*i+8:], uint64(size))
}

func TestHostileArrowBatches(t *testing.T) {
	packed := func(claim int64) func(flatbuffers.Table, []byte) {
		return func(_ flatbuffers.Table, body []byte) { binary.LittleEndian.PutUint64(body, uint64(claim)) }
	}
	same := func(flatbuffers.Table, []byte) {}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"plain", batchStream(t, 1000, same), ""},
		{"LZ4", batchStream(t, 1000, same, ipc.WithLZ4()), ""},
		{"Zstandard", batchStream(t, 1000, same, ipc.WithZstd()), ""},
		{"a buffer behind its message", batchStream(t, 1000, func(b flatbuffers.Table, _ []byte) { setBuffer(b, 1, 8, 8000) }), "a buffer of 8000 bytes at 8 in a message of 8000"},
		{"a buffer before its message", batchStream(t, 1000, func(b flatbuffers.Table, _ []byte) { setBuffer(b, 1, -8, 8000) }), "a buffer of 8000 bytes at -8"},
		{"a buffer of 2^63-1 bytes", batchStream(t, 1000, func(b flatbuffers.Table, _ []byte) { setBuffer(b, 1, 8, math.MaxInt64) }), "a buffer of 9223372036854775807 bytes"},
		{"256 MiB compressed to nothing", batchStream(t, 1000, packed(maxAlloc), ipc.WithZstd()), "that are not 268435456 compressed"},
		{"256 MiB of LZ4", batchStream(t, 1000, packed(maxAlloc), ipc.WithLZ4()), "that claim to be 268435456 compressed"},
		{"a negative size compressed", batchStream(t, 1000, packed(-2), ipc.WithLZ4()), "that claim to be -2 compressed"},
		{"200 MiB that do not come", batchStream(t, 10, func(b flatbuffers.Table, _ []byte) {
			root := flatbuffers.Table{Bytes: b.Bytes, Pos: flatbuffers.GetUOffsetT(b.Bytes)}
			root.MutateInt64Slot(slotBodyLength, 200<<20)
		}), "cut short"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := openBytes(t, Stream, c.file)
			if c.want == "" && err != nil || c.want != "" && (schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n > 16<<20 {
				t.Errorf("%d bytes allocated for a stream of %d", n, len(c.file))
			}
		})
	}
}

// TestBuffersOverOneAnother: what a batch asks for is counted, not what it holds.
func TestBuffersOverOneAnother(t *testing.T) {
	body := make([]byte, maxAlloc/2)
	fb := flatbuffers.NewBuilder(1024)
	const n = 9
	fb.StartVector(16, n, 8)
	for range n {
		fb.Prep(8, 16)
		fb.PrependInt64(int64(len(body)))
		fb.PrependInt64(0)
	}
	v := fb.EndVector(n)
	fb.StartObject(4)
	fb.PrependUOffsetTSlot(2, v, 0)
	fb.Finish(fb.EndObject())
	b := fb.FinishedBytes()
	if err := checkBuffers(flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}, body); err == nil || !strings.Contains(err.Error(), "a batch of more than") {
		t.Errorf("%d buffers of %d bytes: %v", n, len(body), err)
	}
}

// TestLongMessagesOfStreams: a message longer than a claim is trusted for is read whole.
func TestLongMessagesOfStreams(t *testing.T) {
	for _, n := range []int{unproven/8 - 1, unproven / 8, unproven/8 + 1, 3 * unproven, 10 * unproven} {
		b := batchStream(t, n, func(flatbuffers.Table, []byte) {})
		r, err := Open(t.Context(), Stdio, Options{Format: Stream, In: bytes.NewReader(b), BatchRows: MaxBatchRows})
		if err != nil {
			t.Fatal(err)
		}
		rec, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range rec.Column(0).(*array.Int64).Int64Values() {
			if v != int64(i/100) {
				t.Fatalf("%d rows: row %d is %d", n, i, v)
			}
		}
		if rec.NumRows() != int64(n) {
			t.Errorf("%d rows, want %d", rec.NumRows(), n)
		}
		rec.Release()
		r.Close()
	}
}
