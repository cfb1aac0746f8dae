package schemas_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// A batch seen as a record and projected back is the same batch, and the view leaks nothing.
func TestRecordRoundTrip(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	s := schemastest.Everything()
	for _, n := range []int{0, 1, 7, 8, 9, 1000, 1300} {
		b, back := schemas.NewBatch(s), schemas.NewBatch(s)
		schemastest.Fill(b, rand.New(rand.NewPCG(3, uint64(n))), n)
		rec, err := b.Record(mem)
		if err != nil {
			t.Fatal(err)
		}
		if int(rec.NumRows()) != n || !rec.Schema().Equal(s.Arrow()) {
			t.Fatalf("record of %d rows, %s", rec.NumRows(), rec.Schema())
		}
		p, err := schemas.NewProjection(rec.Schema(), s)
		if err != nil {
			t.Fatal(err)
		}
		for from := 0; from < n || from == 0; from += 300 { // ranges that start in the middle
			if err := p.AppendRecord(back, rec, from, min(n, from+300)); err != nil {
				t.Fatal(err)
			}
		}
		if d := schemastest.Diff(b, back); d != "" {
			t.Errorf("%d rows: %s", n, d)
		}
		sliced := rec.NewSlice(int64(n/3), int64(n))
		tail, want := schemas.NewBatch(s), schemas.NewBatch(s)
		if err := p.AppendRecord(tail, sliced, 0, n-n/3); err != nil {
			t.Fatal(err)
		}
		want.AppendRange(b, n/3, n)
		if d := schemastest.Diff(want, tail); d != "" {
			t.Errorf("slice of %d rows: %s", n, d)
		}
		sliced.Release()
		rec.Release()
	}
}

// The view shares the batch's memory.
func TestRecordDoesNotCopy(t *testing.T) {
	b := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{4}}, schemas.Field{Name: "s", Type: schemas.String}))
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 1)), 5)
	rec, _ := b.Record(nil)
	defer rec.Release()
	got := rec.Column(0).(*array.FixedSizeList).ListValues().(*array.Float32).Float32Values()
	if &got[0] != &schemas.Values[float32](b.Column(0))[0] {
		t.Error("tensors are copied")
	}
	if &rec.Column(1).Data().Buffers()[2].Bytes()[0] != &b.Column(1).Data()[0] {
		t.Error("strings are copied")
	}
}

// one builds a record of one column "x" from a JSON array.
func one(t *testing.T, dt arrow.DataType, json string) arrow.Record {
	t.Helper()
	a, _, err := array.FromJSON(memory.DefaultAllocator, dt, strings.NewReader(json), array.WithUseNumber())
	if err != nil {
		t.Fatal(err)
	}
	return array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "x", Type: dt, Nullable: true}}, nil), []arrow.Array{a}, int64(a.Len()))
}

func TestCasts(t *testing.T) {
	p := arrow.PrimitiveTypes
	dict := &arrow.DictionaryType{IndexType: p.Int8, ValueType: arrow.BinaryTypes.String}
	ts := func(u arrow.TimeUnit) arrow.DataType { return &arrow.TimestampType{Unit: u} }
	for _, c := range []struct {
		name string
		from arrow.DataType
		json string
		to   schemas.Field
		want string // values, or
		bad  string // what the error says
	}{
		{"int64 to float32", p.Int64, `[1, -16777216, 33554432]`, schemas.Field{Type: schemas.Float32}, "[1 -1.6777216e+07 3.3554432e+07]", ""},
		{"int64 to float32, not exact", p.Int64, `[1, 16777217]`, schemas.Field{Type: schemas.Float32}, "", "rows[1].x: 16777217"},
		{"int64 to float64, not exact", p.Int64, `[9007199254740993]`, schemas.Field{Type: schemas.Float64}, "", "rows[0].x: 9007199254740993"},
		{"int64 max to float64", p.Int64, `[9223372036854775807]`, schemas.Field{Type: schemas.Float64}, "", "rows[0].x"},
		{"uint64 to float64", p.Uint64, `[1024]`, schemas.Field{Type: schemas.Float64}, "[1024]", ""},
		{"float64 to float32 rounds", p.Float64, `[0.1, 1e-50]`, schemas.Field{Type: schemas.Float32}, "[0.1 0]", ""},
		{"float64 to float32 overflows", p.Float64, `[1, 1e39]`, schemas.Field{Type: schemas.Float32}, "", "rows[1].x: 1e+39"},
		{"float64 to int32", p.Float64, `[3, -4]`, schemas.Field{Type: schemas.Int32}, "[3 -4]", ""},
		{"float64 to int32, fraction", p.Float64, `[3.5]`, schemas.Field{Type: schemas.Int32}, "", "rows[0].x: 3.5"},
		{"float64 to int64, out of range", p.Float64, `[9223372036854775808]`, schemas.Field{Type: schemas.Int64}, "", "rows[0].x"},
		{"int64 to int8, out of range", p.Int64, `[127, 128]`, schemas.Field{Type: schemas.Int8}, "", "rows[1].x: 128"},
		{"int64 to uint64, negative", p.Int64, `[-1]`, schemas.Field{Type: schemas.Uint64}, "", "rows[0].x: -1"},
		{"uint64 to int64, too large", p.Uint64, `[1, 18446744073709551615]`, schemas.Field{Type: schemas.Int64}, "", "rows[1].x"},
		{"bool to float32", arrow.FixedWidthTypes.Boolean, `[true, false]`, schemas.Field{Type: schemas.Float32}, "[1 0]", ""},
		{"seconds to timestamp", ts(arrow.Second), `[1372680000]`, schemas.Field{Type: schemas.Timestamp}, "[1372680000000000000]", ""},
		{"seconds, out of range", ts(arrow.Second), `[9300000000]`, schemas.Field{Type: schemas.Timestamp}, "", "rows[0].x"},
		{"int64 to timestamp", p.Int64, `[5]`, schemas.Field{Type: schemas.Timestamp}, "[5]", ""},
		{"dictionary to string", dict, `["a", "b", "a"]`, schemas.Field{Type: schemas.String}, "[a b a]", ""},
		{"large string", arrow.BinaryTypes.LargeString, `["ab", ""]`, schemas.Field{Type: schemas.String}, "[ab ]", ""},
		{"null into nullable", p.Float64, `[1, null]`, schemas.Field{Type: schemas.Float32, Nullable: true}, "[1 null]", ""},
		{"null string into nullable", arrow.BinaryTypes.String, `["a", null]`, schemas.Field{Type: schemas.String, Nullable: true}, "[a null]", ""},
		{"null dictionary value", dict, `["a", null]`, schemas.Field{Type: schemas.String, Nullable: true}, "[a null]", ""},
		{"null into not nullable", p.Float64, `[1, null]`, schemas.Field{Type: schemas.Float32}, "", "rows[1].x: null"},
		{"null string into not nullable", arrow.BinaryTypes.String, `[null]`, schemas.Field{Type: schemas.String}, "", "rows[0].x: null"},
		{"null uint64 keeps the others", p.Uint64, `[18446744073709551615, null]`, schemas.Field{Type: schemas.Uint64, Nullable: true}, "[18446744073709551615 null]", ""},
		{"string to float32", arrow.BinaryTypes.String, `["1"]`, schemas.Field{Type: schemas.Float32}, "", "x: Arrow type utf8 cannot become"},
		{"list to scalar", arrow.ListOf(p.Float32), `[[1]]`, schemas.Field{Type: schemas.Float32}, "", "x: Arrow type list"},
		{"tensor", arrow.FixedSizeListOf(2, p.Int32), `[[1, 2], [3, 4]]`, schemas.Field{Type: schemas.Float32, Shape: []int{2}}, "[[1 2] [3 4]]", ""},
		{"tensor of another width", arrow.FixedSizeListOf(3, p.Int32), `[[1, 2, 3]]`, schemas.Field{Type: schemas.Float32, Shape: []int{2}}, "", "3 elements for 2"},
		{"null in a tensor", arrow.FixedSizeListOf(2, p.Float32), `[[1, null]]`, schemas.Field{Type: schemas.Float32, Shape: []int{2}}, "", "rows[0].x: element 1"},
		{"null in a nullable tensor", arrow.FixedSizeListOf(2, p.Float32), `[[1, null], null]`, schemas.Field{Type: schemas.Float32, Shape: []int{2}, Nullable: true}, "[[1 NaN] null]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := one(t, c.from, c.json)
			c.to.Name = "x"
			dst := schemas.NewBatch(schemas.MustSchema(c.to))
			p, err := schemas.NewProjection(rec.Schema(), dst.Schema())
			if err == nil {
				err = p.AppendRecord(dst, rec, 0, int(rec.NumRows()))
			}
			if c.bad != "" {
				if schemas.KindOf(err) != schemas.Invalid || !strings.Contains(fmt.Sprint(err), c.bad) {
					t.Errorf("error %v, want Invalid with %q", err, c.bad)
				}
				if dst.Rows() != 0 || dst.Column(0).Rows() != 0 {
					t.Error("a failed append left rows")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := show(dst.Column(0)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// show prints a column's rows.
func show(c *schemas.Column) string {
	elem := func(e int) any {
		switch c.Field().Type {
		case schemas.Float32:
			return schemas.Values[float32](c)[e]
		case schemas.Float64:
			return schemas.Values[float64](c)[e]
		case schemas.Int32:
			return schemas.Values[int32](c)[e]
		case schemas.Uint64:
			return schemas.Values[uint64](c)[e]
		case schemas.Int64, schemas.Timestamp:
			return schemas.Values[int64](c)[e]
		}
		return string(c.Text(e))
	}
	var out []any
	for r := range c.Rows() {
		switch {
		case c.IsNull(r):
			out = append(out, "null")
		case c.Field().Tensor():
			var v []any
			for e := range c.Width() {
				v = append(v, elem(r*c.Width()+e))
			}
			out = append(out, v)
		default:
			out = append(out, elem(r))
		}
	}
	return fmt.Sprint(out)
}

func table(t *testing.T, cols ...any) arrow.Record {
	var fs []arrow.Field
	var as []arrow.Array
	for i := 0; i < len(cols); i += 3 {
		a, _, err := array.FromJSON(memory.DefaultAllocator, cols[i+1].(arrow.DataType), strings.NewReader(cols[i+2].(string)), array.WithUseNumber())
		if err != nil {
			t.Fatal(err)
		}
		fs = append(fs, arrow.Field{Name: cols[i].(string), Type: a.DataType(), Nullable: true})
		as = append(as, a)
	}
	return array.NewRecord(arrow.NewSchema(fs, nil), as, int64(as[0].Len()))
}

func TestPackedTensorFromColumns(t *testing.T) {
	p := arrow.PrimitiveTypes
	rec := table(t, "b", p.Float32, `[4, null, 6]`, "other", arrow.ListOf(p.Int8), `[[1], [], [2]]`, "a", p.Int64, `[1, 2, 3]`)
	for _, nullable := range []bool{true, false} {
		dst := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"a", "b"}, Nullable: nullable}))
		proj, err := schemas.NewProjection(rec.Schema(), dst.Schema())
		if err != nil {
			t.Fatal(err)
		}
		err = proj.AppendRecord(dst, rec, 0, 3)
		if nullable {
			if got := show(dst.Column(0)); err != nil || got != "[[1 4] [2 NaN] [3 6]]" {
				t.Errorf("got %s, %v", got, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), "rows[1].b") {
			t.Errorf("a null feature of a tensor that is not nullable: %v", err)
		}
	}
	strs := table(t, "u", arrow.BinaryTypes.String, `["p", "q"]`, "v", arrow.BinaryTypes.LargeString, `["r", "s"]`)
	dst := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.String, Shape: []int{2}, Features: []string{"v", "u"}}))
	proj, err := schemas.NewProjection(strs.Schema(), dst.Schema())
	if err != nil {
		t.Fatal(err)
	}
	if err := proj.AppendRecord(dst, strs, 0, 2); err != nil || show(dst.Column(0)) != "[[r p] [s q]]" {
		t.Errorf("got %s, %v", show(dst.Column(0)), err)
	}
}

func TestMissingColumnsAreAllNamed(t *testing.T) {
	rec := table(t, "a", arrow.PrimitiveTypes.Int8, `[1]`)
	s := schemas.MustSchema(schemas.Field{Name: "c", Type: schemas.Int8},
		schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{3}, Features: []string{"a", "b", "d"}})
	_, err := schemas.NewProjection(rec.Schema(), s)
	if schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "c, b, d") {
		t.Errorf("got %v, want Invalid that names c, b and d", err)
	}
}

// Good rows go in, bad ones come back, each with its row and its first fault.
func TestAppendGood(t *testing.T) {
	p := arrow.PrimitiveTypes
	rec := table(t,
		"i", p.Int64, `[1, 300, 3, 4, null, 6, 7]`,
		"s", arrow.BinaryTypes.String, `["a", "b", null, "d", "e", "f", "g"]`,
		"f", p.Float64, `[1, 2, 3, 1e300, 5, 6, 7]`)
	s := schemas.MustSchema(schemas.Field{Name: "i", Type: schemas.Int8}, schemas.Field{Name: "s", Type: schemas.String}, schemas.Field{Name: "f", Type: schemas.Float32})
	proj, err := schemas.NewProjection(rec.Schema(), s)
	if err != nil {
		t.Fatal(err)
	}
	dst := schemas.NewBatch(s)
	bad := proj.AppendGood(dst, rec, 0, 7, nil)
	if got := show(dst.Column(1)) + show(dst.Column(2)); got != "[a f g][1 6 7]" || dst.Rows() != 3 {
		t.Errorf("good rows are %s", got)
	}
	var rows []string
	for _, b := range bad {
		rows = append(rows, fmt.Sprint(b.Row, " ", b.Err.Field))
	}
	if got := strings.Join(rows, "; "); got != "1 rows[1].i; 2 rows[2].s; 3 rows[3].f; 4 rows[4].i" {
		t.Errorf("bad rows are %s", got)
	}
	if err := proj.AppendRecord(dst, rec, 0, 7); err == nil || dst.Rows() != 3 {
		t.Errorf("all or none: %v, %d rows", err, dst.Rows())
	}
	if bad := proj.AppendGood(dst, rec, 5, 7, nil); len(bad) != 0 || dst.Rows() != 5 {
		t.Errorf("rows 5 and 6 are good, got %v", bad)
	}
}

func TestSchemaFromArrow(t *testing.T) {
	s := schemastest.Everything()
	back, err := schemas.SchemaFromArrow(s.Arrow())
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Len() {
		a, b := s.Field(i), back.Field(i)
		if a.Name != b.Name || a.Type != b.Type || a.Nullable != b.Nullable || a.Width() != b.Width() {
			t.Errorf("%s came back as %s", a, b)
		}
	}
	list := arrow.NewSchema([]arrow.Field{{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int8)}}, nil)
	if _, err := schemas.SchemaFromArrow(list); schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "l:") {
		t.Errorf("a list column: %v", err)
	}
}

// Rounding to narrower floats is what Go's own conversion does.
func TestFloatsRound(t *testing.T) {
	b := array.NewFloat64Builder(memory.DefaultAllocator)
	r := rand.New(rand.NewPCG(5, 5))
	want := make([]float32, 2000)
	for i := range want {
		v := r.NormFloat64() * math.Pow(10, float64(r.IntN(60)-30))
		b.Append(v)
		want[i] = float32(v)
	}
	rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Float64}}, nil), []arrow.Array{b.NewArray()}, 2000)
	dst := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32}))
	p, _ := schemas.NewProjection(rec.Schema(), dst.Schema())
	if err := p.AppendRecord(dst, rec, 0, 2000); err != nil {
		t.Fatal(err)
	}
	for i, v := range schemas.Values[float32](dst.Column(0)) {
		if v != want[i] {
			t.Fatalf("row %d: %v, want %v", i, v, want[i])
		}
	}
}

// A bulk job casts float64 columns of a file into one packed float32 tensor.
func BenchmarkProjection(b *testing.B) {
	const rows, cols = 4096, 13
	var fs []arrow.Field
	var as []arrow.Array
	var names []string
	for i := range cols {
		bl := array.NewFloat64Builder(memory.DefaultAllocator)
		for r := range rows {
			bl.Append(float64(r * i))
		}
		names = append(names, fmt.Sprint("f", i))
		fs = append(fs, arrow.Field{Name: names[i], Type: arrow.PrimitiveTypes.Float64})
		as = append(as, bl.NewArray())
	}
	rec := array.NewRecord(arrow.NewSchema(fs, nil), as, rows)
	dst := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{cols}, Features: names}))
	p, err := schemas.NewProjection(rec.Schema(), dst.Schema())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		dst.Reset()
		if err := p.AppendRecord(dst, rec, 0, rows); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
}

// Every float16 keeps its value in a wider float, subnormal numbers too.
func TestFloat16Widens(t *testing.T) {
	from := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float16})
	b := schemas.NewBatch(from)
	for h := range 1 << 16 {
		schemas.Append(b.Column(0), uint16(h))
		b.Column(0).EndRow()
	}
	b.Advance(1 << 16)
	rec, err := b.Record(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	to := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32})
	p, err := schemas.NewProjection(rec.Schema(), to)
	if err != nil {
		t.Fatal(err)
	}
	wide := schemas.NewBatch(to)
	if err := p.AppendRecord(wide, rec, 0, 1<<16); err != nil {
		t.Fatal(err)
	}
	for h, got := range schemas.Values[float32](wide.Column(0)) {
		if want := schemas.Float16Value(uint16(h)); float64(got) != want && (got == got || want == want) {
			t.Fatalf("%04x: %v, want %v", h, got, want)
		}
	}
}
