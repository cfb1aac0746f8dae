package files

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/leatstream/leat/schemas"
)

// texted is a string array of these bytes, cut at these offsets; bit i of valid: element i is not null.
func texted(data string, offsets []int32, valid byte) arrow.Array {
	d := array.NewData(arrow.BinaryTypes.String, len(offsets)-1, []*memory.Buffer{
		memory.NewBufferBytes([]byte{valid}),
		memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)),
		memory.NewBufferBytes([]byte(data)),
	}, nil, array.UnknownNullCount, 0)
	defer d.Release()
	return array.MakeFromData(d)
}

// textLists is rows of w elements of a; bit i of valid: row i is not null.
func textLists(a arrow.Array, w int, valid byte) arrow.Array {
	d := array.NewData(arrow.FixedSizeListOfField(int32(w), arrow.Field{Name: "item", Type: a.DataType()}), a.Len()/w,
		[]*memory.Buffer{memory.NewBufferBytes([]byte{valid})}, []arrow.ArrayData{a.Data()}, array.UnknownNullCount, 0)
	defer d.Release()
	return array.MakeFromData(d)
}

// textRecord has one column, t.
func textRecord(c arrow.Array) arrow.Record {
	s := arrow.NewSchema([]arrow.Field{{Name: "t", Type: c.DataType(), Nullable: true}}, nil)
	return array.NewRecord(s, []arrow.Array{c}, int64(c.Len()))
}

// TestTextsAreUTF8 reads files whose third row is, or is not, what it should be. Two good rows stand before it, in a
// batch of their own.
func TestTextsAreUTF8(t *testing.T) {
	good := texted("aé", []int32{0, 1, 3}, 0b11)
	dict := func(values arrow.Array, keys ...int32) arrow.Array {
		k := array.NewInt32Builder(memory.DefaultAllocator)
		k.AppendValues(keys, nil)
		typ := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: values.DataType()}
		return array.NewDictionaryArray(typ, k.NewArray(), values)
	}
	large := func(v ...string) arrow.Array {
		b := array.NewLargeStringBuilder(memory.DefaultAllocator)
		b.AppendValues(v, nil)
		return b.NewArray()
	}
	for _, c := range []struct {
		name        string
		first, then arrow.Array
		bad         string // "": all rows are read
	}{
		{"good", good, texted("né", []int32{0, 3}, 1), ""},
		{"a byte that starts nothing", good, texted("\xff", []int32{0, 1}, 1), "row 2 is not UTF-8"},
		{"a character cut by the offsets", good, texted("xé", []int32{0, 1, 2, 3}, 0b111), "row 3 is not UTF-8"},
		{"nothing in the middle of a character", good, texted("é", []int32{0, 1, 1, 2}, 0b010), ""},
		{"bad beneath a null", good, texted("\xffab", []int32{0, 1, 2, 3}, 0b110), ""},
		{"bad beside a null", good, texted("\xff\xfeb", []int32{0, 1, 2, 3}, 0b110), "row 3 is not UTF-8"},
		{"bad bytes that no row has", good, texted("a\xff", []int32{0, 1}, 1), ""},
		{"list", textLists(good, 1, 0b11), textLists(texted("ab\xff", []int32{0, 1, 2, 3}, 0b111), 1, 0b111), "row 4 is not UTF-8"},
		{"list of two", textLists(good, 2, 1), textLists(texted("abc\xff", []int32{0, 1, 2, 3, 4}, 0b1111), 2, 0b11), "row 2 is not UTF-8"},
		{"null list", textLists(good, 2, 1), textLists(texted("abc\xff", []int32{0, 1, 2, 3, 4}, 0b1111), 2, 0b01), ""},
		{"large", large("a", "b"), large("\xff"), "row 2 is not UTF-8"},
		{"dictionary", dict(good, 1, 0), dict(texted("\xffa", []int32{0, 1, 2}, 0b11), 1, 0), "row 3 is not UTF-8"},
		{"dictionary, never pointed at", dict(good, 1, 0), dict(texted("\xffa", []int32{0, 1, 2}, 0b11), 1, 1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if _, err := rawStream(&b, textRecord(c.first), textRecord(c.then)); err != nil {
				t.Fatal(err)
			}
			rows := int64(c.first.Len() + c.then.Len())
			for from := range int64(3) {
				o := Options{Format: Stream, In: bytes.NewReader(b.Bytes()), FromRow: from}
				wantRows(t, Stdio, o, rows-from, c.bad)
			}
			if _, ok := c.then.(*array.String); !ok {
				return // to Parquet the others are the same, or not written
			}
			path := filepath.Join(t.TempDir(), "t.parquet")
			w, err := Create(path, textRecord(c.first).Schema(), WriterOptions{RowGroup: 2})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range []arrow.Array{c.first, c.then} {
				if err := w.Write(textRecord(a)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			wantRows(t, path, Options{BatchRows: 1}, rows, c.bad)
			wantRows(t, path, Options{FromRow: 1}, rows-1, c.bad)
		})
	}
}

// wantRows reads a file to its end: rows of them, or, where bad is not empty, an error of column t that says so.
func wantRows(t *testing.T, path string, o Options, rows int64, bad string) {
	t.Helper()
	n, err := countRows(t, path, o)
	switch {
	case bad == "" && (err != nil || n != rows):
		t.Errorf("%+v: %d rows, %v; want %d rows", o, n, err, rows)
	case bad != "" && (schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), bad) || schemas.AsError("", err).Field != "t"):
		t.Errorf("%+v: %d rows, %v; want an error of column t: %s", o, n, err, bad)
	}
}

func countRows(t *testing.T, path string, o Options) (n int64, err error) {
	r, err := Open(t.Context(), path, o)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for {
		rec, err := r.Next(t.Context())
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n += rec.NumRows()
		rec.Release()
	}
}
