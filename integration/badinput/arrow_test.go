package badinput

import (
	"archive/tar"
	"bytes"
	"encoding/binary"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// typedRows is a good record of the typed model's columns.
func typedRows() arrow.Record {
	s := arrow.NewSchema([]arrow.Field{
		{Name: "small", Type: arrow.PrimitiveTypes.Int8}, {Name: "whole", Type: arrow.PrimitiveTypes.Int64},
		{Name: "flag", Type: arrow.FixedWidthTypes.Boolean}, {Name: "word", Type: arrow.BinaryTypes.String},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for i := range 3 {
		b.Field(0).(*array.Int8Builder).Append(int8(i))
		b.Field(1).(*array.Int64Builder).Append(int64(i))
		b.Field(2).(*array.BooleanBuilder).Append(true)
		b.Field(3).(*array.StringBuilder).Append("word")
	}
	return b.NewRecord()
}

func stream(rec arrow.Record, opts ...ipc.Option) []byte {
	var out bytes.Buffer
	w := ipc.NewWriter(&out, append([]ipc.Option{ipc.WithSchema(rec.Schema())}, opts...)...)
	if err := w.Write(rec); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// arrowCases damage a good stream, and offer forms that are not taken.
func arrowCases(add func(name, field string, body []byte)) {
	rec := typedRows()
	defer rec.Release()
	good := stream(rec)
	schemaEnd := 8 + int(binary.LittleEndian.Uint32(good[4:]))
	batchMeta := int(binary.LittleEndian.Uint32(good[schemaEnd+4:]))
	damaged := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	add("nothing", "", nil)
	add("nonsense", "", noise(4096))
	add("schema alone", "", good[:schemaEnd])
	add("cut in the schema", "", good[:schemaEnd/2])
	add("cut in the batch", "", good[:schemaEnd+batchMeta+16])
	add("length of metadata of 2 GiB", "", damaged(func(b []byte) { binary.LittleEndian.PutUint32(b[4:], 1<<31-1) }))
	add("length of metadata below 0", "", damaged(func(b []byte) { binary.LittleEndian.PutUint32(b[4:], 1<<31) }))
	add("schema forged: counts of 2^31", "", damaged(func(b []byte) { // every vector and string length of the schema
		for i := 8; i+4 <= schemaEnd; i += 4 {
			if n := binary.LittleEndian.Uint32(b[i:]); n > 0 && n < 16 {
				binary.LittleEndian.PutUint32(b[i:], 1<<31-1)
			}
		}
	}))
	add("schema forged: tables that point at themselves", "", damaged(func(b []byte) {
		for i := 8; i+4 <= schemaEnd; i += 4 {
			binary.LittleEndian.PutUint32(b[i:], 4)
		}
	}))
	add("batch forged: lengths of 1 TiB", "", damaged(func(b []byte) { // every length, offset and row count of the batch
		for i := schemaEnd + 8; i+8 <= schemaEnd+8+batchMeta; i += 8 {
			if n := binary.LittleEndian.Uint64(b[i:]); n > 0 && n < 1<<16 {
				binary.LittleEndian.PutUint64(b[i:], 1<<40)
			}
		}
	}))
	add("batch forged: offsets of strings", "", damaged(func(b []byte) {
		i := bytes.LastIndex(b, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 4), 8))
		binary.LittleEndian.PutUint32(b[i:], 1<<30)
	}))
	add("compressed", "", stream(rec, ipc.WithZstd()))
	add("compressed with lz4", "", stream(rec, ipc.WithLZ4()))
	add("dictionary", "word", dictionary(rec))
	add("column of another type", "small", renamed(rec, map[string]string{"small": "word", "word": "small"}))
	add("column missing", "small", renamed(rec, map[string]string{"small": "color"}))
	add("column twice", "flag", renamed(rec, map[string]string{"whole": "flag"}))
	add("no rows", "", stream(rec.NewSlice(0, 0)))
	add("two streams", "", append(bytes.Clone(good), good...))
}

// renamed gives columns other names.
func renamed(rec arrow.Record, names map[string]string) []byte {
	fs := append([]arrow.Field(nil), rec.Schema().Fields()...)
	for i := range fs {
		if n, ok := names[fs[i].Name]; ok {
			fs[i].Name = n
		}
	}
	return stream(array.NewRecord(arrow.NewSchema(fs, nil), rec.Columns(), rec.NumRows()))
}

// dictionary encodes the last column.
func dictionary(rec arrow.Record) []byte {
	dt := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	b := array.NewDictionaryBuilder(memory.DefaultAllocator, dt).(*array.BinaryDictionaryBuilder)
	defer b.Release()
	for range rec.NumRows() {
		if err := b.AppendString("word"); err != nil {
			panic(err)
		}
	}
	cols := append([]arrow.Array(nil), rec.Columns()...)
	cols[3] = b.NewArray()
	fs := append([]arrow.Field(nil), rec.Schema().Fields()...)
	fs[3].Type = dt
	return stream(array.NewRecord(arrow.NewSchema(fs, nil), cols, rec.NumRows()))
}

// archive is a tar of names and contents in turn.
func archive(parts ...string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i+1 < len(parts); i += 2 {
		_ = w.WriteHeader(&tar.Header{Name: parts[i], Mode: 0o644, Size: int64(len(parts[i+1]))}) // to memory
		_, _ = w.Write([]byte(parts[i+1]))
	}
	_ = w.Close()
	return out.Bytes()
}

func link(name, to string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	_ = w.WriteHeader(&tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink})
	_ = w.Close()
	return out.Bytes()
}
