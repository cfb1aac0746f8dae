package avrorow

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/avro"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
)

func parse(t testing.TB, schema string, references ...string) *Schema {
	t.Helper()
	s, err := Parse(schema, references)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// encode writes a record with the library, which knows nothing of our decoder.
func encode(t testing.TB, schema string, v any) []byte {
	t.Helper()
	s, err := avro.Parse(schema)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// row prints the row that a datum became, or why it did not.
func row(t testing.TB, s *Schema, to *schemas.Schema, datum []byte) string {
	t.Helper()
	b := schemas.NewBatch(to)
	if err := s.Append(b, datum); err != nil {
		if err.Kind != schemas.Invalid || b.Rows() != 0 {
			t.Errorf("%v of kind %v, %d rows", err, err.Kind, b.Rows())
		}
		return err.Error()
	}
	return string(jsonrow.AppendObject(nil, b, 0))
}

func rec(fields ...string) string {
	return `{"type":"record","name":"R","namespace":"a.b","fields":[` + strings.Join(fields, ",") + `]}`
}

func f(name, typ string) string {
	if !strings.HasPrefix(typ, "{") && !strings.HasPrefix(typ, "[") {
		typ = `"` + typ + `"`
	}
	return `{"name":"` + name + `","type":` + typ + `}`
}

func cols(fields ...schemas.Field) *schemas.Schema { return schemas.MustSchema(fields...) }

func col(name string, t schemas.DType, shape ...int) schemas.Field {
	return schemas.Field{Name: name, Type: t, Shape: shape}
}

func null(f schemas.Field) schemas.Field {
	f.Nullable = true
	return f
}

// Bytes that others wrote: the examples of the Avro specification (binary encoding), and of the documentation of
// Avrora, a library for Elixir (a payment, without the registry's first five bytes).
func TestRecordedBytes(t *testing.T) {
	for _, c := range []struct {
		schema, bytes string
		to            *schemas.Schema
		want          string
	}{
		{rec(f("a", "long"), f("b", "string")), "36 06 66 6f 6f", cols(col("a", schemas.Int64), col("b", schemas.String)), `{"a":27,"b":"foo"}`},
		{rec(f("a", `{"type":"array","items":"long"}`)), "04 06 36 00", cols(col("a", schemas.Int64, 2)), `{"a":[3,27]}`},
		{rec(f("u", `["null","string"]`)), "02 02 61", cols(null(col("u", schemas.String))), `{"u":"a"}`},
		{rec(f("u", `["null","string"]`)), "00", cols(null(col("u", schemas.String))), `{"u":null}`},
		{`{"namespace":"io.confluent","name":"Payment","type":"record","fields":[{"name":"id","type":"string"},{"name":"amount","type":"double"}]}`,
			"48 30 30 30 30 30 30 30 30 2d 30 30 30 30 2d 30 30 30 30 2d 30 30 30 30 2d 30 30 30 30 30 30 30 30 30 30 30 30 7b 14 ae 47 e1 fa 2f 40",
			cols(col("amount", schemas.Float64), col("id", schemas.String)), `{"amount":15.99,"id":"00000000-0000-0000-0000-000000000000"}`},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(c.bytes, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := row(t, parse(t, c.schema), c.to, b); got != c.want {
			t.Errorf("%s: %s, want %s", c.bytes, got, c.want)
		}
	}
}

func TestFields(t *testing.T) {
	noon := time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC)
	suit := `{"type":"enum","name":"Suit","symbols":["HEARTS","SPADES"]}`
	carrier := `{"type":"record","name":"Carrier","fields":[` + f("code", "string") + `,` + f("fleet", "int") + `]}`
	type m = map[string]any
	for _, c := range []struct {
		name   string
		schema string
		value  any
		to     *schemas.Schema
		want   string
	}{
		{"order is no matter, others are passed over", rec(f("z", `{"type":"map","values":"string"}`), f("b", "int"), f("a", "float"), f("l", `{"type":"array","items":"string"}`)),
			m{"z": m{"k": "v"}, "b": 7, "a": 1.5, "l": []string{"x", "y"}}, cols(col("a", schemas.Float32), col("b", schemas.Int8)), `{"a":1.5,"b":7}`},
		{"missing is null", rec(f("a", "int")), m{"a": 1}, cols(null(col("b", schemas.Float32)), col("a", schemas.Int64)), `{"b":null,"a":1}`},
		{"missing is refused", rec(f("a", "int")), m{"a": 1}, cols(col("b", schemas.Float32)), `b: missing`},
		{"null is refused", rec(f("a", `["null","int"]`)), m{"a": nil}, cols(col("a", schemas.Int32)), `a: null, but the column is not nullable`},
		{"int widens", rec(f("a", "int")), m{"a": -5}, cols(col("a", schemas.Float64)), `{"a":-5}`},
		{"long rounds", rec(f("a", "long")), m{"a": int64(16777217)}, cols(col("a", schemas.Float32)), `{"a":16777216}`},
		{"long narrows", rec(f("a", "long")), m{"a": int64(300)}, cols(col("a", schemas.Int8)), `a: 300 is out of the range of int8`},
		{"double narrows", rec(f("a", "double")), m{"a": 1e300}, cols(col("a", schemas.Float32)), `a: 1e+300 is out of the range of float32`},
		{"double that is whole", rec(f("a", "double")), m{"a": 3.0}, cols(col("a", schemas.Int16)), `{"a":3}`},
		{"double that is not", rec(f("a", "double")), m{"a": 3.5}, cols(col("a", schemas.Int16)), `a: want an integer of int16, got 3.5`},
		{"boolean", rec(f("a", "boolean"), f("b", "boolean")), m{"a": true, "b": false}, cols(col("a", schemas.Bool), col("b", schemas.Float32)), `{"a":true,"b":0}`},
		{"text is no number", rec(f("a", "string")), m{"a": "5"}, cols(col("a", schemas.Float32)), `a: text cannot be a value of float32`},
		{"enum", rec(f("a", suit)), m{"a": "SPADES"}, cols(col("a", schemas.String)), `{"a":"SPADES"}`},
		{"bytes and fixed", rec(f("a", "bytes"), f("b", `{"type":"fixed","name":"F","size":2}`)), m{"a": []byte{1}, "b": []byte{2, 3}}, cols(col("a", schemas.Binary), col("b", schemas.Binary)), `{"a":"AQ==","b":"AgM="}`},
		{"timestamps", rec(f("a", `{"type":"long","logicalType":"timestamp-millis"}`), f("b", `{"type":"long","logicalType":"timestamp-micros"}`), f("c", `{"type":"long","logicalType":"timestamp-nanos"}`), f("d", `{"type":"int","logicalType":"date"}`), f("e", "long"), f("g", "string"), f("h", `{"type":"long","logicalType":"local-timestamp-millis"}`)),
			m{"a": noon, "b": noon, "c": noon, "d": noon, "e": noon.UnixNano(), "g": "2026-05-01T14:00:00+02:00", "h": noon},
			cols(col("a", schemas.Timestamp), col("b", schemas.Timestamp), col("c", schemas.Timestamp), col("d", schemas.Timestamp), col("e", schemas.Timestamp), col("g", schemas.Timestamp), col("h", schemas.Timestamp)),
			`{"a":"2026-05-01T12:00:00.123Z","b":"2026-05-01T12:00:00.123456Z","c":"2026-05-01T12:00:00.123456789Z","d":"2026-05-01T00:00:00Z","e":"2026-05-01T12:00:00.123456789Z","g":"2026-05-01T12:00:00Z","h":"2026-05-01T12:00:00.123Z"}`},
		{"a timestamp is no number", rec(f("a", `{"type":"long","logicalType":"timestamp-millis"}`)), m{"a": noon}, cols(col("a", schemas.Int64)), `a: a timestamp cannot be a value of int64`},
		{"an unknown logical type is none", rec(f("a", `{"type":"long","logicalType":"mood"}`)), m{"a": 5}, cols(col("a", schemas.Int64)), `{"a":5}`},
		{"uuid", rec(f("a", `{"type":"string","logicalType":"uuid"}`)), m{"a": "00000000-0000-0000-0000-000000000001"}, cols(col("a", schemas.String)), `{"a":"00000000-0000-0000-0000-000000000001"}`},
		{"unions", rec(f("a", `["null","int","double","string"]`), f("b", `["string","null"]`)), m{"a": 2.5, "b": "x"}, cols(null(col("a", schemas.Float64)), null(col("b", schemas.String))), `{"a":2.5,"b":"x"}`},
		{"the branch that was written counts", rec(f("a", `["null","double","string"]`)), m{"a": "x"}, cols(null(col("a", schemas.Float64))), `a: text cannot be a value of float64`},
		{"a branch that no column can hold", rec(f("a", `["double",{"type":"map","values":"int"}]`)), m{"a": m{"k": 1}}, cols(col("a", schemas.Float64)), `a: the Avro field is a map, which no column can hold`},
		{"the same, with the other branch", rec(f("a", `["double",{"type":"map","values":"int"}]`)), m{"a": 1.5}, cols(col("a", schemas.Float64)), `{"a":1.5}`},
		{"decimal", rec(f("a", `{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`)), m{"a": "1.25"}, cols(col("a", schemas.Float64)), `a: the Avro field is a decimal, which no column can hold: write a double`},
		{"decimal or null", rec(f("a", `["null",{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}]`)), m{"a": nil}, cols(null(col("a", schemas.Float64))), `a: the Avro field is a decimal, which no column can hold: write a double`},
		{"a decimal that nobody wants", rec(f("a", `{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}`), f("b", "int")), m{"a": "1.25", "b": 1}, cols(col("b", schemas.Int64)), `{"b":1}`},
		{"time of day", rec(f("a", `{"type":"int","logicalType":"time-millis"}`)), m{"a": 5 * time.Second}, cols(col("a", schemas.Int64)), `a: the Avro field is a time of day (time-millis), which no column can hold`},
		{"nested", rec(f("carrier", carrier), f("n", `["null",{"type":"record","name":"N","fields":[`+f("x", "double")+`]}]`)), m{"carrier": m{"code": "UA", "fleet": 900}, "n": m{"x": 1.5}},
			cols(col("carrier.code", schemas.String), col("carrier.fleet", schemas.Float32), null(col("n.x", schemas.Float64))), `{"carrier.code":"UA","carrier.fleet":900,"n.x":1.5}`},
		{"nested and null", rec(f("n", `["null",{"type":"record","name":"N","fields":[`+f("x", "double")+`]}]`)), m{"n": nil}, cols(null(col("n.x", schemas.Float64))), `{"n.x":null}`},
		{"nested and null, refused", rec(f("n", `["null",{"type":"record","name":"N","fields":[`+f("x", "double")+`]}]`)), m{"n": nil}, cols(col("n.x", schemas.Float64)), `n.x: missing`},
		{"a record as a column", rec(f("carrier", carrier)), m{"carrier": m{"code": "UA", "fleet": 9}}, cols(col("carrier", schemas.String)), `carrier: the Avro field is a record, which no column can hold: name one of its fields, with a dot`},
		{"a field of no record", rec(f("a", "int")), m{"a": 1}, cols(null(col("a.b", schemas.String))), `a: the Avro field is no record, as the name of a column asks`},
		{"tensors", rec(f("a", `{"type":"array","items":"float"}`), f("b", `{"type":"array","items":{"type":"array","items":"int"}}`), f("c", `{"type":"array","items":["null","double"]}`)),
			m{"a": []float32{1, 2, 3, 4}, "b": [][]int{{1, 2}, {3, 4}}, "c": []any{1.0, nil}}, cols(col("a", schemas.Float32, 2, 2), col("b", schemas.Int64, 2, 2), null(col("c", schemas.Float32, 2))), `{"a":[[1,2],[3,4]],"b":[[1,2],[3,4]],"c":[1,"NaN"]}`},
		{"too few", rec(f("a", `{"type":"array","items":"float"}`)), m{"a": []float32{1}}, cols(col("a", schemas.Float32, 2)), `a: an array of 1 elements for a dimension of 2 of the tensor`},
		{"too many", rec(f("a", `{"type":"array","items":"float"}`)), m{"a": []float32{1, 2, 3}}, cols(col("a", schemas.Float32, 2)), `a: more than 2 elements in a dimension of the tensor`},
		{"ragged", rec(f("b", `{"type":"array","items":{"type":"array","items":"int"}}`)), m{"b": [][]int{{1, 2, 3}, {4}}}, cols(col("b", schemas.Int64, 2, 2)), `b: more than 2 elements in a dimension of the tensor`},
		{"nested otherwise", rec(f("b", `{"type":"array","items":{"type":"array","items":"int"}}`)), m{"b": [][]int{{1, 2}}}, cols(col("b", schemas.Int64, 2)), `b: the Avro field is arrays nested otherwise than the tensor`},
		{"an array is no number", rec(f("a", `{"type":"array","items":"float"}`)), m{"a": []float32{1}}, cols(col("a", schemas.Float32)), `a: the Avro field is an array, which no column can hold`},
		{"a null tensor", rec(f("a", `["null",{"type":"array","items":"float"}]`)), m{"a": nil}, cols(null(col("a", schemas.Float32, 2))), `{"a":null}`},
		{"features", rec(f("v", "double"), f("u", `["null","int"]`)), m{"v": 2.5, "u": nil}, cols(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"u", "v"}, Nullable: true}), `{"x":["NaN",2.5]}`},
		{"a packed tensor at once", rec(f("x", `{"type":"array","items":"int"}`)), m{"x": []int{1, 2}}, cols(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"u", "v"}}), `{"x":[1,2]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := row(t, parse(t, c.schema), c.to, encode(t, c.schema, c.value)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Named types are found by their full names, in references too, and may contain themselves.
func TestNamedTypes(t *testing.T) {
	list := `{"type":"record","name":"Node","namespace":"x","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","Node"]}]}`
	type m = map[string]any
	v := m{"v": 1, "next": m{"v": 2, "next": m{"v": 3, "next": nil}}}
	if got := row(t, parse(t, list), cols(col("next.next.v", schemas.Int8), col("v", schemas.Int8), null(col("next.next.next.v", schemas.Int8))), encode(t, list, v)); got != `{"next.next.v":3,"v":1,"next.next.next.v":null}` {
		t.Error(got)
	}
	code := `{"type":"enum","name":"Code","namespace":"ref","symbols":["UA","B6"]}`
	carrier := `{"type":"record","name":"Carrier","namespace":"ref","fields":[{"name":"code","type":"Code"}]}`
	flight := `{"type":"record","name":"Flight","fields":[{"name":"first","type":"ref.Carrier"},{"name":"second","type":["null","ref.Carrier"],"default":null},{"name":"c","type":"ref.Code"}]}`
	s := parse(t, flight, code, carrier)
	if got := row(t, s, cols(col("first.code", schemas.String), col("second.code", schemas.String), col("c", schemas.String)), []byte{0, 2, 2, 0}); got != `{"first.code":"UA","second.code":"B6","c":"UA"}` {
		t.Error(got)
	}
	if _, err := Parse(flight, nil); schemas.KindOf(err) != schemas.Invalid {
		t.Error("without its references:", err)
	}
}

func TestSchemas(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{`"string"`, "want a record"},
		{`["null","string"]`, "want a record"},
		{`{"type":"array","items":"int"}`, "want a record"},
		{`{"type":"record"`, "cannot be read"},
		{``, "cannot be read"},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"Nowhere"}]}`, "cannot be read"},
		{strings.Repeat("[", 100_000), "cannot be read"},
		{rec(f("a", "int"), f("a", "int")), "cannot be read"},
		{rec(f("a", `{"type":"enum","name":"E","symbols":["A","`+strings.Repeat("B", 300)+`"]}`)), "symbol of more than 256 bytes"},
	} {
		if _, err := Parse(c.schema, nil); schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 400 {
			t.Errorf("%.60s: %v", c.schema, err)
		}
	}
	// Registries hold schemas with names that the specification does not allow, and with defaults that do not fit.
	odd := `{"type":"record","name":"my-record","fields":[{"name":"dep-delay","type":["string","null"],"default":null},{"name":"n","type":"int","default":"zero"}]}`
	if got := row(t, parse(t, odd), cols(col("n", schemas.Int8), col("dep-delay", schemas.String)), []byte{0, 2, 'x', 4}); got != `{"n":2,"dep-delay":"x"}` {
		t.Error(got)
	}
}

// A few bytes cannot ask for much work, whatever the schema.
func TestHostile(t *testing.T) {
	doubling := `{"type":"record","name":"R0","fields":[]}`
	for i := range 40 {
		if i == 0 {
			doubling = fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"a","type":%s},{"name":"b","type":"R%d"}]}`, i+1, doubling, i)
			continue
		}
		doubling = fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"a","type":%s},{"name":"b","type":"R%d"}]}`, i+1, doubling, i)
	}
	list := `{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}`
	nulls := rec(f("a", `{"type":"array","items":"null"}`))
	for _, c := range []struct {
		schema string
		bytes  string
		want   string
	}{
		{doubling, "", "values without bytes"},
		{nulls, "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "values without bytes"},
		{nulls, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00", "a block of -9223372036854775808 items"},
		{list, strings.Repeat("\x02", 5000), "nested more than 1000 deep"},
		{rec(f("a", "string")), "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a string of 9223372036854775807 bytes, but 0 are left"},
		{rec(f("a", "string")), "\x01", "a string of -1 bytes"},
		{rec(f("a", "bytes")), "\x04a", "bytes of 2 bytes, but 1 are left"},
		{rec(f("a", "double")), "1234567", "a double of 8 bytes, but 7 are left"},
		{rec(f("a", "boolean")), "\x02", "want a boolean"},
		{rec(f("a", "int")), "\x80\x80\x80\x80\x20", "the int before is longer than 32 bits"},
		{rec(f("a", "long")), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "want an integer"},
		{rec(f("a", "long")), "\x80", "want an integer"},
		{rec(f("a", `["null","int"]`)), "\x04", "union branch 2 of 2"},
		{rec(f("a", `{"type":"enum","name":"E","symbols":["A"]}`)), "\x02", "enum symbol 1 of 1"},
		{rec(f("a", `{"type":"array","items":"double"}`)), "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "items of 8 bytes"},
		{rec(f("a", `{"type":"array","items":"int"}`)), "\x03\x08\x02", "a block of -2 items in 4 bytes, but 1 are left"},
		{rec(f("a", `{"type":"map","values":"int"}`)), "\x02\x10a", "a key of 8 bytes"},
		{rec(f("a", "int")), "\x02\x02", "1 bytes after the record"},
		{rec(f("a", "int")), "", "want an integer"},
	} {
		start := time.Now()
		for _, to := range []*schemas.Schema{cols(null(col("other", schemas.Int8))), cols(null(col("a", schemas.Float64)))} {
			got := row(t, parse(t, c.schema), to, []byte(c.bytes))
			if to.Index("other") == 0 && !strings.Contains(got, c.want) {
				t.Errorf("%.80s %x: %s, want %s", c.schema, c.bytes, got, c.want)
			}
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%.80s: took %v", c.schema, d)
		}
	}
	// A block that tells its size is passed over by it, and one of a wanted array is read.
	s := parse(t, rec(f("a", `{"type":"array","items":"int"}`), f("b", "int")))
	if got := row(t, s, cols(col("b", schemas.Int8)), []byte("\x03\x04\x02\x04\x02\x06\x00\x08")); got != `{"b":4}` {
		t.Error(got)
	}
	if got := row(t, s, cols(col("a", schemas.Int8, 3)), []byte("\x03\x04\x02\x04\x02\x06\x00\x08")); got != `{"a":[1,2,3]}` {
		t.Error(got)
	}
}
