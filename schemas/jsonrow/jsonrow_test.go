package jsonrow

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

func appendRows(b *schemas.Batch, payload string) (int, schemas.Encoder, error) {
	return Codec{}.AppendRows(b, &schemas.Message{Payload: []byte(payload)})
}

// What is answered can be read as a request, to the bit, in both forms.
func TestRoundTrip(t *testing.T) {
	s := schemastest.Everything()
	for seed := range uint64(20) {
		b := schemas.NewBatch(s)
		r := rand.New(rand.NewPCG(seed, 0))
		schemastest.Fill(b, r, r.IntN(20))
		for _, enc := range []schemas.Encoder{Rows(), Columns()} {
			h := schemas.Header{}
			out, err := enc.EncodeRows(nil, h, b, 0, b.Rows(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !json.Valid(out) {
				t.Fatalf("seed %d: not JSON: %s", seed, out)
			}
			if h.Get(schemas.HeaderContentType) != ContentType {
				t.Error("no content type")
			}
			back := schemas.NewBatch(s)
			n, again, err := appendRows(back, string(out))
			if err != nil || n != b.Rows() {
				t.Fatalf("seed %d: %d rows, %v", seed, n, err)
			}
			if again != enc {
				t.Error("the answer would have another form")
			}
			if d := schemastest.Diff(b, back); d != "" {
				t.Fatalf("seed %d: %s\n%s", seed, d, out)
			}
		}
	}
}

var flight = schemas.MustSchema(
	schemas.Field{Name: "dep_delay", Type: schemas.Float32},
	schemas.Field{Name: "carrier", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "seats", Type: schemas.Int16},
	schemas.Field{Name: "x", Type: schemas.Float64, Shape: []int{3}, Features: []string{"a", "b", "c"}},
	schemas.Field{Name: "m", Type: schemas.Int32, Shape: []int{2, 2}, Nullable: true},
)

func print(t *testing.T, b *schemas.Batch) string {
	t.Helper()
	out, err := Rows().EncodeRows(nil, schemas.Header{}, b, 0, b.Rows(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(out), `{"rows":[`), `]}`)
}

func TestForms(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"rows":[{"dep_delay":1.5,"carrier":"UA","seats":-3,"x":[1,2,3]}]}`,
			`{"dep_delay":1.5,"carrier":"UA","seats":-3,"x":[1,2,3],"m":null}`},
		{` { "id" : "q" , "parameters" : {"a":[1,{"b":null}]} , "rows" : [ { "c" : 3 , "seats" : 0 , "a" : 1 , "dep_delay" : "NaN" , "b" : 2 , "m" : [ [ 1 , 2 ] , [ 3 , 4 ] ] } ] } `,
			`{"dep_delay":"NaN","carrier":null,"seats":0,"x":[1,2,3],"m":[[1,2],[3,4]]}`},
		{`{"rows":[{"\u0064ep_delay":1e-3,"carrier":"\u00e9\ud83d\udeeb\n","seats":1,"x":[1,2,3],"m":[1,2,3,4]}]}`,
			`{"dep_delay":0.001,"carrier":"é🛫\n","seats":1,"x":[1,2,3],"m":[[1,2],[3,4]]}`},
		{`{"columns":{"seats":[1,2],"b":[2,20],"dep_delay":["Infinity","-Infinity"],"c":[3,30],"a":[1,10],"carrier":[null,"B6"]}}`,
			`{"dep_delay":"Infinity","carrier":null,"seats":1,"x":[1,2,3],"m":null},{"dep_delay":"-Infinity","carrier":"B6","seats":2,"x":[10,20,30],"m":null}`},
		{`{"columns":{"seats":[1],"dep_delay":[16777217],"x":[[1,2,3]],"m":[[[1,2],[3,4]]]}}`,
			`{"dep_delay":16777216,"carrier":null,"seats":1,"x":[1,2,3],"m":[[1,2],[3,4]]}`},
		{`{"rows":[]}`, ``},
		{`{"columns":{"seats":[],"dep_delay":[],"x":[]}}`, ``},
	} {
		b := schemas.NewBatch(flight)
		if _, _, err := appendRows(b, c.in); err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if got := print(t, b); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.in, got, c.want)
		}
	}
}

func TestFaults(t *testing.T) {
	row := `{"dep_delay":1,"seats":1,"x":[1,2,3]}`
	with := func(s string) string { return `{"rows":[` + row + `,{` + s + `}]}` }
	deep := strings.Repeat("[", 100_000)
	for _, c := range []struct{ in, field, want string }{
		{``, "", "ends at byte 0"},
		{`null`, "", "want an object, got null"},
		{`{"rows":[`, "rows[0]", "ends at byte 9"},
		{`{"rows":[]`, "", "ends at byte"},
		{`{"rows":[]}x`, "", "want the end of the document"},
		{`{"rows":[],}`, "", "a value after ','"},
		{`{"rows":[],"rows":[]}`, "", `"rows" comes after`},
		{`{"rows":[],"columns":{}}`, "", `"columns" comes after`},
		{`{"id":"a"}`, "", `neither "rows" nor "columns"`},
		{`{"id":1,"rows":[]}`, "id", "want a string"},
		{`{"parameters":[],"rows":[]}`, "parameters", "want an object"},
		{`{"parameters":{"a":01},"rows":[]}`, "parameters", "leading zeros"},
		{`{"row":[]}`, "", `unknown name "row"`},
		{`{"rows":{}}`, "", "want an array, got an object"},
		{`{"rows":[1]}`, "rows[0]", "want an object, got a number"},
		{`{"parameters":{"a":` + deep, "parameters", "nested more than 32 deep"},
		{`{"rows":` + deep, "rows[0]", "want an object, got an array"},
		{`{"rows":[{"x":` + deep, "rows[0].x", "want a number, got an array"},
		{with(`"dep_delay":1,"seats":1`), "rows[1].a", "missing"},
		{with(`"dep_delay":1,"seats":1,"a":1,"c":2`), "rows[1].b", "missing"},
		{with(`"seats":1,"x":[1,2,3]`), "rows[1].dep_delay", "missing"},
		{with(`"dep_delay":1,"seats":1,"x":[1,2,3],"dep_delay":2`), "rows[1].dep_delay", "given twice"},
		{with(`"dep_delay":1,"seats":1,"x":[1,2,3],"a":2`), "rows[1].a", "both as a whole and by its features"},
		{with(`"dep_delay":1,"seats":1,"a":2,"x":[1,2,3]`), "rows[1].x", "both as a whole and by its features"},
		{with(`"dep_dellay":1`), "rows[1].dep_dellay", "unknown field; the fields are: dep_delay, carrier"},
		{with(`"dep_delay":"1"`), "rows[1].dep_delay", "the string \"1\""},
		{with(`"dep_delay":NaN`), "rows[1].dep_delay", "want a number"},
		{with(`"dep_delay":1e39`), "rows[1].dep_delay", "out of the range of float32"},
		{with(`"dep_delay":null`), "rows[1].dep_delay", "not nullable"},
		{with(`"dep_delay":true`), "rows[1].dep_delay", "got a boolean"},
		{with(`"dep_delay":.5`), "rows[1].dep_delay", "want a number"},
		{with(`"dep_delay":1.`), "rows[1].dep_delay", "want a digit"},
		{with(`"dep_delay":+1`), "rows[1].dep_delay", "want a number"},
		{with(`"dep_delay":1e`), "rows[1].dep_delay", "exponent"},
		{with(`"dep_delay":0x10`), "rows[1].dep_delay", "end of a number"},
		{with(`"dep_delay":-`), "rows[1].dep_delay", "want a number"},
		{with(`"seats":32768`), "rows[1].seats", "out of the range of int16"},
		{with(`"seats":99999999999999999999999`), "rows[1].seats", "out of the range of int16"},
		{with(`"seats":1.0`), "rows[1].seats", "want an integer of int16"},
		{with(`"seats":"1"`), "rows[1].seats", "got a string"},
		{with(`"carrier":5`), "rows[1].carrier", "want a string, got a number"},
		{with(`"carrier":"` + "\xff" + `"`), "rows[1].carrier", "not UTF-8"},
		{with(`"carrier":"\ud800"`), "rows[1].carrier", "escape of a whole character"},
		{with(`"carrier":"\x"`), "rows[1].carrier", "escape"},
		{with("\"carrier\":\"a\nb\""), "rows[1].carrier", "control character"},
		{with(`"carrier":"abc`), "rows[1].carrier", ""},
		{with(`"x":[1,2]`), "rows[1].x", "2 elements in a dimension of 3"},
		{with(`"x":[1,2,3,4]`), "rows[1].x", "more than 3 elements"},
		{with(`"x":[[1,2,3]]`), "rows[1].x", "got an array"},
		{with(`"x":[1,null,3]`), "rows[1].x", "got null"},
		{with(`"m":[[1,2],[3]]`), "rows[1].m", "1 elements in a dimension of 2"},
		{with(`"m":[[1,2],3]`), "rows[1].m", "want an array"},
		{`{"columns":{"dep_delay":[1,2],"seats":[1]}}`, "columns.seats", "ragged columns: 1 values, but dep_delay has 2"},
		{`{"columns":{"dep_delay":[1],"seats":[1,2]}}`, "columns.seats", "ragged"},
		{`{"columns":{"dep_delay":[1,"x"]}}`, "columns.dep_delay[1]", "want a number"},
		{`{"columns":{"dep_delay":[1],"seats":[1],"a":[1],"b":[2]}}`, "columns.c", "missing"},
		{`{"columns":{"dep_delay":[1],"x":[[1,2,3]]}}`, "columns.seats", "missing"},
		{`{"columns":{"dep_delay":[1],"dep_delay":[1]}}`, "columns.dep_delay", "given twice"},
		{`{"columns":{"nope":[1]}}`, "columns.nope", "unknown field"},
		{`{"columns":{"dep_delay":1}}`, "columns.dep_delay", "want an array"},
		{`{"columns":[]}`, "", "want an object"},
		{`{"columns":{"seats":[null]}}`, "columns.seats[0]", "not nullable"},
	} {
		b := schemas.NewBatch(flight)
		if _, _, err := appendRows(b, `{"rows":[`+row+`]}`); err != nil {
			t.Fatal(err)
		}
		before := print(t, b)
		n, _, err := appendRows(b, c.in)
		name := c.in
		if len(name) > 80 {
			name = name[:80]
		}
		e := schemas.AsError("", err)
		if e == nil || e.Kind != schemas.Invalid || e.Field != c.field || !strings.Contains(e.Err.Error(), c.want) || n != 0 {
			t.Errorf("%s\n got %d, %v, want Invalid at %q with %q", name, n, err, c.field, c.want)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: an error of several lines: %v", name, err)
		}
		if got := print(t, b); got != before {
			t.Errorf("%s: the batch changed", name)
		}
	}
}

func TestTypes(t *testing.T) {
	for _, c := range []struct {
		typ      schemas.DType
		in, want string // want "" means Invalid
	}{
		{schemas.Int64, `9223372036854775807`, `9223372036854775807`}, {schemas.Int64, `"-9223372036854775808"`, `-9223372036854775808`},
		{schemas.Int64, `9223372036854775808`, ``}, {schemas.Int64, `-9223372036854775809`, ``}, {schemas.Int64, `"1 "`, ``}, {schemas.Int64, `"0x1"`, ``},
		{schemas.Int64, `" 1"`, ``}, {schemas.Int64, `""`, ``}, {schemas.Int64, `1e3`, ``}, {schemas.Int64, `-0`, `0`},
		{schemas.Uint64, `18446744073709551615`, `18446744073709551615`}, {schemas.Uint64, `"18446744073709551615"`, `18446744073709551615`},
		{schemas.Uint64, `18446744073709551616`, ``}, {schemas.Uint64, `-1`, ``}, {schemas.Uint64, `184467440737095516150`, ``}, {schemas.Uint64, `-0`, `0`},
		{schemas.Uint8, `255`, `255`}, {schemas.Uint8, `256`, ``}, {schemas.Int8, `-128`, `-128`}, {schemas.Int8, `-129`, ``}, {schemas.Uint32, `4294967296`, ``},
		{schemas.Bool, `true`, `true`}, {schemas.Bool, `1`, ``}, {schemas.Bool, `"true"`, ``}, {schemas.Bool, `truex`, ``},
		{schemas.Timestamp, `"2013-07-01T12:00:00.5+02:00"`, `"2013-07-01T10:00:00.5Z"`}, {schemas.Timestamp, `1372680000000000001`, `"2013-07-01T12:00:00.000000001Z"`},
		{schemas.Timestamp, `"2013-07-01"`, ``}, {schemas.Timestamp, `"1400-01-01T00:00:00Z"`, ``}, {schemas.Timestamp, `1.5`, ``},
		{schemas.Binary, `"AAH/"`, `"AAH/"`}, {schemas.Binary, `""`, `""`}, {schemas.Binary, `"AAH"`, ``}, {schemas.Binary, `"!!!!"`, ``}, {schemas.Binary, `"AAH\/"`, `"AAH/"`},
		{schemas.Float16, `0.1`, `0.1`}, {schemas.Float16, `65504`, `65500`}, {schemas.Float16, `65520`, ``}, {schemas.Float16, `"NaN"`, `"NaN"`}, {schemas.Float16, `"Infinity"`, `"Infinity"`},
		{schemas.Float64, `1e309`, ``}, {schemas.Float64, `0.1000000000000000055511151231257827021181583404541015625`, `0.1`}, {schemas.Float64, `-0.0`, `-0`},
		{schemas.Float64, `"nan"`, ``}, {schemas.Float64, `1e-400`, `0`}, {schemas.Float32, `1e-46`, `0`}, {schemas.Float32, `3.4028235e38`, `340282350000000000000000000000000000000`},
		{schemas.Float32, `1` + strings.Repeat("0", 500) + `e-500`, `1`}, {schemas.Float32, `0.` + strings.Repeat("0", 400) + `1e401`, `1`}, {schemas.Float64, `1e99999999999`, ``},
		{schemas.Float32, `1e-7`, `1e-07`},
	} {
		b := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "v", Type: c.typ}))
		_, _, err := appendRows(b, `{"rows":[{"v":`+c.in+`}]}`)
		if c.want == "" {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Errorf("%s %.60s: got %v, %v, want Invalid", c.typ, c.in, print(t, b), err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %.60s: %v", c.typ, c.in, err)
			continue
		}
		want := fmt.Sprintf(`{"v":%s}`, c.want)
		if got := print(t, b); got != want && !(c.typ == schemas.Float32 && strings.HasPrefix(c.in, "3.40")) {
			t.Errorf("%s %.60s: got %s, want %s", c.typ, c.in, got, want)
		}
	}
}

// Features of tensors of text, and features that are left out of a nullable tensor.
func TestFeatures(t *testing.T) {
	s := schemas.MustSchema(
		schemas.Field{Name: "t", Type: schemas.String, Shape: []int{3}, Features: []string{"p", "q", "r"}, Nullable: true},
		schemas.Field{Name: "f", Type: schemas.Float32, Shape: []int{2}, Features: []string{"u", "v"}, Nullable: true},
		schemas.Field{Name: "i", Type: schemas.Int8, Shape: []int{2}, Features: []string{"g", "h"}, Nullable: true})
	for in, want := range map[string]string{
		`{"rows":[{"r":"3","p":"1","v":null,"u":1,"q":null},{"v":2,"g":1,"h":2},{"t":["a","b","c"],"f":null}]}`: `{"t":["1","","3"],"f":[1,"NaN"],"i":null},{"t":null,"f":["NaN",2],"i":[1,2]},{"t":["a","b","c"],"f":null,"i":null}`,
		`{"columns":{"r":["3","c"],"v":[1,2],"p":["1",null]}}`:                                                  `{"t":["1","","3"],"f":["NaN",1],"i":null},{"t":["","","c"],"f":["NaN",2],"i":null}`,
		`{"columns":{"r":[],"v":[]}}`: ``,
	} {
		b := schemas.NewBatch(s)
		if _, _, err := appendRows(b, in); err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := print(t, b); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
	for in, field := range map[string]string{`{"rows":[{"g":1}]}`: "rows[0].h", `{"rows":[{"g":null,"h":1}]}`: "rows[0].g", `{"columns":{"h":[1]}}`: "columns.g"} {
		if _, _, err := appendRows(schemas.NewBatch(s), in); err == nil || schemas.AsError("", err).Field != field {
			t.Errorf("%s: %v, want an error at %s", in, err, field)
		}
	}
}

// Few bytes cannot ask for much memory.
func TestNullsAreBounded(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{1 << 22}, Nullable: true})
	for _, in := range []string{`{"rows":[` + strings.Repeat(`{},`, 50) + `{}]}`, `{"rows":[` + strings.Repeat(`{"x":null},`, 50) + `{}]}`, `{"columns":{"x":[` + strings.Repeat(`null,`, 50) + `null]}}`} {
		b := schemas.NewBatch(s)
		if _, _, err := appendRows(b, in); schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "send fewer rows") {
			t.Errorf("%.40s: %v", in, err)
		}
	}
}

func TestGoodRows(t *testing.T) {
	b := schemas.NewBatch(flight)
	in := `{"rows":[{"dep_delay":1,"seats":1,"x":[1,2,3]},{"dep_delay":{"a":[1,"}"]},"seats":1},{"dep_delay":2,"seats":70000,"x":[1,2,3]},5,{"a":1,"b":2,"c":3,"dep_delay":3,"seats":3}]}`
	n, bad, enc, err := Codec{}.AppendGood(b, &schemas.Message{Payload: []byte(in)}, nil)
	if err != nil || n != 2 || len(bad) != 3 {
		t.Fatalf("%d rows, bad %v, %v", n, bad, err)
	}
	for i, want := range []string{"1 rows[1].dep_delay", "2 rows[2].seats", "3 rows[3]"} {
		if got := fmt.Sprint(bad[i].Row, " ", bad[i].Err.Field); got != want {
			t.Errorf("bad row %d is %s, want %s", i, got, want)
		}
	}
	out, err := enc.EncodeRows(nil, schemas.Header{}, b, 0, n, &schemas.Answer{RequestID: "r", Errs: bad})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ID     string
		Rows   []map[string]any
		Errors []struct {
			Row                  int
			Kind, Message, Field string
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 5 || got.Rows[0]["seats"] != 1.0 || got.Rows[1] != nil || got.Rows[3] != nil || got.Rows[4]["seats"] != 3.0 ||
		len(got.Errors) != 3 || got.Errors[2].Kind != "invalid" || got.Errors[1].Field != "rows[2].seats" || got.ID != "r" {
		t.Errorf("answer %s", out)
	}
	// A document that is no JSON has no good rows.
	n, bad, _, err = Codec{}.AppendGood(b, &schemas.Message{Payload: []byte(in[:len(in)-2])}, nil)
	if err == nil || n != 0 || len(bad) != 0 || b.Rows() != 2 {
		t.Errorf("truncated: %d %v %v, %d rows in the batch", n, bad, err, b.Rows())
	}
}

func TestAnswer(t *testing.T) {
	b := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "p", Type: schemas.Float32}))
	for _, v := range []float32{0.25, 0.1} {
		schemas.Append(b.Column(0), v)
		b.Column(0).EndRow()
	}
	b.Advance(2)
	a := &schemas.Answer{RequestID: "header", Model: "flight-delay", Version: "3"}
	for in, want := range map[string]string{
		`{"rows":[]}`:                      `{"id":"header","model":"flight-delay","version":"3","rows":[{"p":0.25},{"p":0.1}]}`,
		`{"id":"body","columns":{"p":[]}}`: `{"id":"body","model":"flight-delay","version":"3","columns":{"p":[0.25,0.1]}}`,
	} {
		_, enc, err := appendRows(schemas.NewBatch(b.Schema()), in)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := enc.EncodeRows(nil, schemas.Header{}, b, 0, 2, a); err != nil || string(out) != want {
			t.Errorf("%s: %s, %v, want %s", in, out, err, want)
		}
		if id := enc.(schemas.Identified).RequestID(); (id == "body") != strings.Contains(in, "body") {
			t.Errorf("%s: request id %q", in, id)
		}
	}
}
