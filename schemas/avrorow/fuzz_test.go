package avrorow

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/avro"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// kinds has a field of each Avro type, so that each is read, or passed over if no column wants it.
var kinds = rec(
	f("b", "boolean"), f("i", "int"), f("l", "long"), f("f", "float"), f("d", "double"), f("s", "string"), f("y", "bytes"),
	f("x", `{"type":"fixed","name":"X","size":3}`), f("e", `{"type":"enum","name":"E","symbols":["A","B","C"]}`),
	f("ms", `{"type":"long","logicalType":"timestamp-millis"}`), f("day", `{"type":"int","logicalType":"date"}`),
	f("u", `["null","long","string"]`), f("ud", `["double","null"]`),
	f("t", `{"type":"array","items":"double"}`), f("tt", `{"type":"array","items":{"type":"array","items":"int"}}`),
	f("r", `{"type":"record","name":"In","fields":[`+f("a", "int")+`,`+f("m", `{"type":"map","values":"float"}`)+`,`+f("n", `["null","In"]`)+`]}`),
	f("m", `{"type":"map","values":{"type":"array","items":["null","string","E"]}}`), f("dec", `{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}`))

var everything = cols(col("b", schemas.Bool), col("i", schemas.Int32), col("l", schemas.Int64), col("f", schemas.Float32), col("d", schemas.Float64),
	col("s", schemas.String), col("y", schemas.Binary), col("x", schemas.Binary), col("e", schemas.String), col("ms", schemas.Timestamp),
	col("day", schemas.Timestamp), null(col("ud", schemas.Float64)), col("t", schemas.Float64, 2), col("tt", schemas.Int32, 2, 1), col("r.a", schemas.Int32),
	null(col("r.n.a", schemas.Int32)))

// sample makes a record of kinds; tensors have the sizes that everything wants.
func sample(r *rand.Rand) map[string]any {
	text := func() string { return []string{"", "a", "Zürich", "🛫"}[r.IntN(4)] }
	inner := map[string]any{"a": int32(r.Uint32()), "m": map[string]any{text(): r.Float32()}, "n": nil}
	if r.IntN(2) == 0 {
		inner["n"] = map[string]any{"a": int32(r.Uint32()), "m": map[string]any{}, "n": nil}
	}
	var u, ud any
	switch r.IntN(3) {
	case 0:
		u, ud = int64(r.Uint64()), r.NormFloat64()
	case 1:
		u = text()
	}
	return map[string]any{"b": r.IntN(2) == 0, "i": int32(r.Uint32()), "l": int64(r.Uint64()), "f": float32(r.NormFloat64()), "d": math.Ldexp(r.Float64(), r.IntN(600)-300),
		"s": text(), "y": []byte(text()), "x": []byte{1, 2, byte(r.Uint32())}, "e": []string{"A", "B", "C"}[r.IntN(3)],
		"ms": time.UnixMilli(r.Int64N(1<<42) - 1<<41).UTC(), "day": time.Unix(86400*(r.Int64N(40_000)-20_000), 0).UTC(), "u": u, "ud": ud,
		"t": []float64{r.NormFloat64(), math.Inf(1)}, "tt": [][]int32{{int32(r.Uint32())}, {int32(r.Uint32())}}, "r": inner,
		"m": map[string]any{text(): []any{nil, "x", map[string]any{"E": "B"}}}, "dec": "1.25"}
}

// equal says whether a column's row 0 is the value that the library decoded; it may differ for NaN only.
func equal(c *schemas.Column, v any) bool {
	if v == nil {
		return c.IsNull(0)
	}
	if c.IsNull(0) {
		return false
	}
	switch v := v.(type) {
	case bool:
		return (c.Data()[0] == 1) == v
	case int32:
		return schemas.Values[int32](c)[0] == v
	case int64:
		return schemas.Values[int64](c)[0] == v
	case float32:
		f := schemas.Values[float32](c)[0]
		return f == v || f != f && v != v
	case float64:
		f := schemas.Values[float64](c)[0]
		return f == v || f != f && v != v
	case string:
		return string(c.Text(0)) == v
	case []byte:
		return string(c.Text(0)) == string(v)
	case time.Time:
		return schemas.Values[int64](c)[0] == v.UnixNano()
	case []any:
		var flat []any
		for _, e := range v {
			if l, ok := e.([]any); ok {
				flat = append(flat, l...)
			} else {
				flat = append(flat, e)
			}
		}
		for i, e := range flat {
			switch e := e.(type) {
			case float64:
				if f := schemas.Values[float64](c)[i]; f != e && (f == f || e == e) {
					return false
				}
			case int32:
				if schemas.Values[int32](c)[i] != e {
					return false
				}
			default:
				return false
			}
		}
		return len(flat) == c.Width()
	}
	panic(fmt.Sprintf("%T", v))
}

// against compares a row with what the library makes of the same bytes.
func against(t *testing.T, lib *avro.Schema, b *schemas.Batch, datum []byte) {
	t.Helper()
	var v any
	rest, err := lib.Decode(datum, &v)
	if err != nil || len(rest) > 0 {
		t.Fatalf("%x: we read it, the library says %v, %d bytes left", datum, err, len(rest))
	}
	rec := v.(map[string]any)
	inner := rec["r"].(map[string]any)
	rec["r.a"] = inner["a"]
	if n, ok := inner["n"].(map[string]any); ok {
		rec["r.n.a"] = n["a"]
	}
	for i := range b.Schema().Len() {
		if c := b.Column(i); !equal(c, rec[c.Field().Name]) {
			t.Fatalf("%x: %s is %v for the library, and ours is %x (null %v)", datum, c.Field(), rec[c.Field().Name], c.Data(), c.IsNull(0))
		}
	}
}

// What the library writes, we read as the library does.
func TestAgainstLibrary(t *testing.T) {
	s, lib := parse(t, kinds), avro.MustParse(kinds)
	r := rand.New(rand.NewPCG(1, 2))
	b := schemas.NewBatch(everything)
	for range 2000 {
		v := sample(r)
		datum, err := lib.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Reset()
		if err := s.Append(b, datum); err != nil {
			t.Fatalf("%v: %v", v, err)
		}
		against(t, lib, b, datum)
	}
}

// FuzzDatum reads any bytes with a schema of all types: what we take the library takes too, with the same values, and
// what we refuse leaves the batch as it was.
func FuzzDatum(f *testing.F) {
	s, lib := parse(f, kinds), avro.MustParse(kinds)
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		datum, err := lib.Encode(sample(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(datum)
	}
	few := cols(col("e", schemas.String), null(col("u", schemas.String)), null(col("none", schemas.Float64, 4)))
	f.Fuzz(func(t *testing.T, datum []byte) {
		b := schemas.NewBatch(everything)
		if err := s.Append(b, datum); err == nil {
			against(t, lib, b, datum)
		} else if err.Kind != schemas.Invalid {
			t.Fatal(err)
		}
		dst, before := schemas.NewBatch(few), schemas.NewBatch(few)
		schemastest.Fill(dst, rand.New(rand.NewPCG(1, 1)), 3)
		before.AppendRange(dst, 0, 3)
		if err := s.Append(dst, datum); err != nil {
			if d := schemastest.Diff(before, dst); d != "" {
				t.Fatal(d)
			}
		} else if dst.Rows() != 4 {
			t.Fatal(dst.Rows(), "rows")
		}
	})
}

// FuzzSchema reads any schema, and a few bytes with it.
func FuzzSchema(f *testing.F) {
	for _, s := range []string{kinds, rec(), `{"type":"record","name":"N","fields":[{"name":"b","type":["null","N"]}]}`, `"int"`, `{"type":"error","name":"a.b.E","fields":[{"name":"i","type":{"type":"fixed","name":"F","size":0}}]}`} {
		f.Add(s, []byte("\x00\x02\x04\x06aaaaaaaaaaaaaaaaaaaaaaaa\x00\x00\x00"))
	}
	f.Fuzz(func(t *testing.T, schema string, datum []byte) {
		if len(schema) > 4<<10 {
			return
		}
		s, err := Parse(schema, nil)
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Fatal(err)
			}
			return
		}
		for _, to := range []*schemas.Schema{everything, cols(null(col("i", schemas.Float32)))} {
			if err := s.Append(schemas.NewBatch(to), datum); err != nil && err.Kind != schemas.Invalid {
				t.Fatal(err)
			}
		}
	})
}

// flights is a record of 13 floats, and as many columns.
func flights(t testing.TB) (*Schema, *schemas.Schema, []byte) {
	fs, v := []string{}, map[string]any{}
	cs := make([]schemas.Field, 13)
	for i := range cs {
		name := fmt.Sprintf("feature_%02d", i)
		fs = append(fs, f(name, "float"))
		v[name] = float32(i) * 1.25
		cs[i] = col(name, schemas.Float32)
	}
	return parse(t, rec(fs...)), cols(cs...), encode(t, rec(fs...), v)
}

func BenchmarkAppend(b *testing.B) {
	s, to, datum := flights(b)
	dst := schemas.NewBatch(to)
	b.ReportAllocs()
	for b.Loop() {
		dst.Reset()
		if err := s.Append(dst, datum); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLibrary decodes the same record into the library's map, which is not yet a row.
func BenchmarkLibrary(b *testing.B) {
	_, to, datum := flights(b)
	var fs []string
	for _, c := range to.Fields() {
		fs = append(fs, f(c.Name, "float"))
	}
	lib := avro.MustParse(rec(fs...))
	b.ReportAllocs()
	for b.Loop() {
		var v any
		if _, err := lib.Decode(datum, &v); err != nil || reflect.ValueOf(v).Len() != 13 {
			b.Fatal(err)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	s, to, datum := flights(t)
	dst := schemas.NewBatch(to)
	if got := testing.AllocsPerRun(200, func() {
		dst.Reset()
		if err := s.Append(dst, datum); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations to decode a record, want 0", got)
	}
}
