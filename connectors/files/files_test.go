package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/leatstream/leat/schemas"
)

// everyType has one column of every type, nullable, and two tensors.
func everyType() *schemas.Schema {
	var fs []schemas.Field
	for d := schemas.Bool; d <= schemas.Timestamp; d++ {
		fs = append(fs, schemas.Field{Name: "c_" + d.String(), Type: d, Nullable: true})
	}
	fs = append(fs,
		schemas.Field{Name: "t_float32", Type: schemas.Float32, Shape: []int{3}, Nullable: true},
		schemas.Field{Name: "t_int64", Type: schemas.Int64, Shape: []int{2, 2}})
	return schemas.MustSchema(fs...)
}

// fill makes rows of any schema whose values depend on column and row; every 7th is null where it may be.
func fill(s *schemas.Schema, rows int) *schemas.Batch {
	b := schemas.NewBatch(s)
	for i := range s.Len() {
		c, f := b.Column(i), s.Field(i)
		for r := range rows {
			if f.Nullable && (r+i)%7 == 3 {
				c.AppendNull()
				continue
			}
			for e := range f.Width() {
				v := r*10 + i + e
				switch {
				case f.Type == schemas.Bool:
					c.AppendBool(v%3 == 0)
				case f.Type == schemas.String:
					c.AppendString(fmt.Sprintf("text \"%d\", é\n", v%20))
				case f.Type == schemas.Binary:
					c.AppendText([]byte{byte(v), 0, 255})
				case f.Type == schemas.Timestamp:
					schemas.Append(c, int64(1700000000000000000)+int64(v)*1001)
				case f.Type == schemas.Float16:
					schemas.Append(c, uint16(0x3c00+v%64))
				case f.Type == schemas.Float32:
					schemas.Append(c, float32(v)/3)
				case f.Type == schemas.Float64:
					schemas.Append(c, float64(v)/3)
				default:
					if err := appendNumber(c, fmt.Sprint(v%100)); err != nil {
						panic(err)
					}
				}
			}
			c.EndRow()
		}
	}
	b.Advance(rows)
	return b
}

func writeFile(t testing.TB, path string, s *schemas.Schema, o WriterOptions, parts ...int) arrow.Record {
	t.Helper()
	w, err := Create(path, s.Arrow(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	total := 0
	for _, n := range parts {
		total += n
	}
	all, _ := fill(s, total).Record(nil)
	at := int64(0)
	for _, n := range parts {
		part := all.NewSlice(at, at+int64(n))
		if err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		part.Release()
		at += int64(n)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return all
}

func readAll(t testing.TB, path string, o Options) ([]arrow.Record, Reader) {
	t.Helper()
	r, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	var recs []arrow.Record
	for {
		rec, err := r.Next(t.Context())
		if err == io.EOF {
			return recs, r
		}
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
}

func TestColumnsAndTotals(t *testing.T) {
	s := everyType()
	for _, format := range []Format{Parquet, Arrow, NDJSON} {
		path := filepath.Join(t.TempDir(), "rows."+string(format))
		writeFile(t, path, s, WriterOptions{}, 50)
		recs, r := readAll(t, path, Options{Columns: []string{"t_float32", "c_string"}, Want: s})
		if got := recs[0].Schema().Fields(); len(got) != 2 || got[0].Name != "c_string" || got[1].Name != "t_float32" {
			t.Errorf("%s: columns %v", format, got)
		}
		if n, ok := r.TotalRows(); ok != (format == Parquet) || ok && n != 50 {
			t.Errorf("%s: TotalRows %d %v", format, n, ok)
		}
		_, err := Open(t.Context(), path, Options{Columns: []string{"c_string", "nothing"}})
		var e *schemas.Error
		if !errors.As(err, &e) || e.Kind != schemas.Invalid || e.Field != "nothing" {
			t.Errorf("%s: missing column: %v", format, err)
		}
	}
}

func openString(t *testing.T, format Format, text string, o Options) (Reader, error) {
	t.Helper()
	o.Format, o.In = format, strings.NewReader(text)
	return Open(t.Context(), Stdio, o)
}

func TestInference(t *testing.T) {
	r, err := openString(t, CSV, "\ufeffa,b,c,d,e,f,g\n1,1.5,true,2013-01-02T03:04:05Z,x,00123,\n,2,false,2013-01-02,\"\",7,\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := "a: type=int64, nullable b: type=float64, nullable c: type=bool, nullable d: type=timestamp[ns, tz=UTC], nullable e: type=utf8, nullable f: type=utf8, nullable g: type=utf8, nullable"
	var got []string
	for _, f := range r.Schema().Fields() {
		got = append(got, f.String())
	}
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	rec, err := r.Next(t.Context())
	if err != nil || rec.NumRows() != 2 || !rec.Column(0).IsNull(1) || rec.Column(5).ValueStr(0) != "00123" {
		t.Errorf("%v %v", rec, err)
	}

	j, err := openString(t, NDJSON, `{"n":1,"f":"NaN","v":[1,2.5],"o":{"x":1},"t":"2013-01-02"}`+"\n\n"+`{"f":2,"n":3,"v":[3,4],"s":"\u00e9\n"}`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := j.Skipped(); !slices.Equal(got, []string{"o"}) {
		t.Errorf("skipped %v", got)
	}
	rec, err = j.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rec.Column(1).ValueStr(0) != "NaN" || rec.Column(2).ValueStr(1) != "[3,4]" || rec.Column(4).ValueStr(1) != "é\n" {
		t.Errorf("%v", rec)
	}
}

// TestLateTensor: a column that may be null is null for longer than its type is looked for, and a tensor after all.
func TestLateTensor(t *testing.T) {
	want := schemas.MustSchema(schemas.Field{Name: "v", Type: schemas.Bool, Shape: []int{2}, Nullable: true})
	for _, format := range []Format{NDJSON, JSON} {
		r, err := openString(t, format, strings.Repeat("{\"v\":null}\n", inferRows+1)+"{\"v\":[true,false]}\n", Options{Want: want})
		if err != nil {
			t.Fatal(err)
		}
		rec, err := r.Next(t.Context())
		if err != nil || rec.NumRows() != inferRows+2 || rec.Column(0).NullN() != inferRows+1 || rec.Column(0).ValueStr(inferRows+1) != "[true,false]" {
			t.Errorf("%s: %v %v", format, rec, err)
		}
	}
}

// TestCSVNulls: an empty cell is null where it may be, else an empty text.
func TestCSVNulls(t *testing.T) {
	want := schemas.MustSchema(schemas.Field{Name: "may", Type: schemas.String, Nullable: true}, schemas.Field{Name: "must", Type: schemas.String},
		schemas.Field{Name: "bytes", Type: schemas.Binary, Nullable: true}, schemas.Field{Name: "n", Type: schemas.Int8, Nullable: true})
	r, err := openString(t, CSV, "may,must,bytes,n\nx,y,AQ==,1\n,,,\n\"\",\"\",\"\",\"\"\n", Options{Want: want})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := r.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, nulls := range []int{2, 0, 2, 2} {
		if c := rec.Column(i); c.NullN() != nulls || c.IsNull(0) {
			t.Errorf("column %s: %v", rec.ColumnName(i), c)
		}
	}
}

func TestJSONForms(t *testing.T) {
	for _, text := range []string{
		`[{"a":1},{"a":2}]`, ` { "rows" : [ {"a":1}, {"a":2} ] } `, `{"a":1} {"a":2}`, "[\n{\"a\":1}\n,\n{\"a\":2}\n]\n",
	} {
		r, err := openString(t, JSON, text, Options{})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		rec, err := r.Next(t.Context())
		if err != nil || rec.NumRows() != 2 || rec.Column(0).ValueStr(1) != "2" {
			t.Errorf("%s: %v %v", text, rec, err)
		}
		if _, err := r.Next(t.Context()); err != io.EOF {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{`[{"a":1}`, `[{"a":1}] x`, `{"rows":[{"a":1}]`, `{"rows":[{"a":1}],"more":1}`, `[`, `nonsense`, `{"rows":[{"a":1} {"a":2}]}`, `{"a":1} ] {"a":2}`, `{"a":1} }`} {
		r, err := openString(t, JSON, text, Options{})
		for err == nil {
			_, err = r.Next(t.Context())
		}
		if schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRowErrors(t *testing.T) {
	want := schemas.MustSchema(
		schemas.Field{Name: "x", Type: schemas.Int8},
		schemas.Field{Name: "v", Type: schemas.Float32, Shape: []int{2}, Features: []string{"v0", "v1"}, Nullable: true})
	cases := []struct {
		format     Format
		text       string
		good       int64
		lines      []int64
		fields     []string
		firstError string
	}{
		{CSV, "x,v0,v1\n1,1,2\n300,1,2\n3,1\n4,a,2\n5,1,2\n", 2, []int64{3, 4, 5}, []string{"x", "", "v0"}, "- line 3: \"300\" is out of the range of int8"},
		{CSV, "x\n1\n\"2\"x\n3\n", 2, []int64{3}, []string{""}, ""},
		{NDJSON, `{"x":1,"v":[1,2]}
{"x":1,"v":[1]}
{"x":1,"v":[1,2,3]}
{"x":1.5}
{"x":true}
{"x":1,"x":2}
nonsense
[1]
{"x":"5"}
{"x":2,"v":null}`, 2, []int64{2, 3, 4, 5, 6, 7, 8, 9}, []string{"v", "v", "x", "x", "x", "", "", "x"}, "- line 2: 1 elements, want 2"},
		{JSON, `[{"x":1},{"x":"no"},{"x":2}]`, 2, []int64{2}, []string{"x"}, ""},
	}
	for _, c := range cases {
		var got []RowError
		r, err := openString(t, c.format, c.text, Options{Want: want, BatchRows: 3, OnRowError: func(e RowError) error {
			got = append(got, e)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		good := int64(0)
		for {
			rec, err := r.Next(t.Context())
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			good += rec.NumRows()
		}
		if good != c.good || len(got) != len(c.lines) {
			t.Fatalf("%s: %d good rows, %d bad: %v", c.text, good, len(got), got)
		}
		for i, e := range got {
			if e.Line != c.lines[i] || e.Err.Field != c.fields[i] || e.Err.Kind != schemas.Invalid {
				t.Errorf("%s: error %d: line %d field %q: %v", c.text, i, e.Line, e.Err.Field, e.Err)
			}
		}
		if r.Position() != good+int64(len(got)) {
			t.Errorf("%s: Position %d", c.text, r.Position())
		}
		// Without a handler the first bad row ends the reading, and the error names it.
		r, _ = openString(t, c.format, c.text, Options{Want: want})
		if _, err := r.Next(t.Context()); schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.firstError) {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

func TestLongRowsAreBounded(t *testing.T) {
	long := io.MultiReader(strings.NewReader("a\n\""), io.LimitReader(endless('x'), 1<<40))
	if _, err := Open(t.Context(), Stdio, Options{Format: CSV, In: long, rowBytes: 1 << 20}); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("CSV: %v", err)
	}
	for _, f := range []Format{NDJSON, JSON} {
		if _, err := Open(t.Context(), Stdio, Options{Format: f, In: endless('1'), rowBytes: 1 << 20}); schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%s: %v", f, err)
		}
	}
}

type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "x.txt")
	short := filepath.Join(dir, "short.parquet")
	if err := errors.Join(os.WriteFile(text, []byte("hello"), 0o600), os.WriteFile(short, []byte("PAR1"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		o    Options
		kind schemas.Kind
	}{
		{filepath.Join(dir, "none.csv"), Options{}, schemas.NotFound},
		{text, Options{}, schemas.Invalid},
		{text, Options{Format: "excel"}, schemas.Invalid},
		{text, Options{Format: Parquet}, schemas.Invalid},
		{text, Options{Format: Arrow}, schemas.Invalid},
		{text, Options{Format: Stream}, schemas.Invalid},
		{short, Options{}, schemas.Invalid},
		{dir, Options{Format: CSV}, schemas.Invalid},
		{Stdio, Options{}, schemas.Invalid},
		{Stdio, Options{Format: CSV}, schemas.Invalid},
		{Stdio, Options{Format: Parquet, In: strings.NewReader("")}, schemas.Invalid},
		{Stdio, Options{Format: CSV, In: strings.NewReader("")}, schemas.Invalid},
		{Stdio, Options{Format: CSV, In: strings.NewReader("a,a\n")}, schemas.Invalid},
		{text, Options{Format: CSV, BatchRows: -1}, schemas.Invalid},
		{text, Options{Format: CSV, FromRow: -1}, schemas.Invalid},
	} {
		if _, err := Open(t.Context(), c.path, c.o); schemas.KindOf(err) != c.kind || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %+v: %v", c.path, c.o, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, text, Options{Format: CSV}); schemas.KindOf(err) != schemas.Unavailable {
		t.Error(err)
	}
}

func TestWiderArrowTypes(t *testing.T) {
	mem := memory.NewGoAllocator()
	dict := array.NewDictionaryBuilder(mem, &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}).(*array.BinaryDictionaryBuilder)
	large := array.NewLargeStringBuilder(mem)
	days := array.NewDate32Builder(mem)
	millis := array.NewTimestampBuilder(mem, &arrow.TimestampType{Unit: arrow.Millisecond})
	for i := range 5 {
		if err := dict.AppendString([]string{"a", "b"}[i%2]); err != nil {
			t.Fatal(err)
		}
		large.Append(strings.Repeat("z", i))
		days.Append(arrow.Date32(i))
		millis.Append(arrow.Timestamp(i))
	}
	cols := []arrow.Array{dict.NewArray(), large.NewArray(), days.NewArray(), millis.NewArray()}
	var fs []arrow.Field
	for i, c := range cols {
		fs = append(fs, arrow.Field{Name: string(rune('a' + i)), Type: c.DataType(), Nullable: true})
	}
	rec := array.NewRecord(arrow.NewSchema(fs, nil), cols, 5)
	var buf bytes.Buffer
	enc, err := rawStream(&buf, rec)
	if err != nil || enc == 0 {
		t.Fatal(err)
	}
	for _, from := range []int64{0, 3} {
		r, err := Open(t.Context(), Stdio, Options{Format: Stream, In: bytes.NewReader(buf.Bytes()), FromRow: from})
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := got.NumRows(); n != 5-from {
			t.Fatalf("%d rows", n)
		}
		at := int(4 - from)
		if got.Column(0).ValueStr(at) != "a" || got.Column(1).ValueStr(at) != "zzzz" ||
			got.Column(2).(*array.Timestamp).Value(at) != 4*86400*1e9 || got.Column(3).(*array.Timestamp).Value(at) != 4e6 {
			t.Errorf("%v", got)
		}
	}
}

// TestSample reads a file that another writer made: dictionaries, delta encoding, nulls, many pages. Whatever the
// batches and wherever the reading starts, the values are those of one read of the whole.
func TestSample(t *testing.T) {
	const path = "../../examples/flights/sample.parquet"
	whole, r := readAll(t, path, Options{BatchRows: MaxBatchRows})
	total, _ := r.TotalRows()
	if len(whole) != 1 || whole[0].NumRows() != total || total < 50_000 || r.Schema().NumFields() < 10 || len(r.Skipped()) > 0 {
		t.Fatalf("%d records, %d rows, columns %v, skipped %v", len(whole), total, r.Schema(), r.Skipped())
	}
	for _, o := range []Options{{BatchRows: 1000}, {BatchRows: 8192, FromRow: 40_007}} {
		recs, _ := readAll(t, path, o)
		at := o.FromRow
		for _, rec := range recs {
			want := whole[0].NewSlice(at, at+rec.NumRows())
			if !array.RecordEqual(want, rec) {
				t.Fatalf("%+v: rows from %d differ", o, at)
			}
			at += rec.NumRows()
		}
		if at != total {
			t.Errorf("%+v: ended at row %d of %d", o, at, total)
		}
	}
}
