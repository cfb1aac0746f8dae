package csvrow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/schemastest"
)

var flight = schemas.MustSchema(
	schemas.Field{Name: "delay", Type: schemas.Float32, Nullable: true},
	schemas.Field{Name: "seats", Type: schemas.Int16},
	schemas.Field{Name: "carrier", Type: schemas.String},
	schemas.Field{Name: "tail", Type: schemas.String, Nullable: true},
)

func codec(t testing.TB, columns ...string) *Codec {
	t.Helper()
	c, err := New(columns, jsonrow.Rows())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rows prints what a message became, as native JSON, and the errors after it.
func rows(t testing.TB, c *Codec, s *schemas.Schema, payload string) string {
	t.Helper()
	b := schemas.NewBatch(s)
	n, bad, enc, err := c.AppendGood(b, &schemas.Message{Payload: []byte(payload)}, nil)
	if err != nil {
		if k := schemas.KindOf(err); k != schemas.Invalid || b.Rows() != 0 || len(bad) != 0 {
			t.Errorf("%q: %v of kind %v, %d rows, %v", payload, err, k, b.Rows(), bad)
		}
		return "message: " + err.Error()
	}
	if n != b.Rows() {
		t.Errorf("%q: %d rows told, %d there", payload, n, b.Rows())
	}
	out, err := enc.EncodeRows(nil, schemas.Header{}, b, 0, n, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(strings.TrimPrefix(string(out), `{"rows":[`), "]}")
	for _, e := range bad {
		text += fmt.Sprintf(" !%d %v", e.Row, e.Err)
	}
	return text
}

func TestLines(t *testing.T) {
	tensors := schemas.MustSchema(
		schemas.Field{Name: "x", Type: schemas.Float64, Shape: []int{2}, Features: []string{"u", "v"}, Nullable: true},
		schemas.Field{Name: "m", Type: schemas.Int8, Shape: []int{2, 2}})
	kinds := schemas.MustSchema(
		schemas.Field{Name: "b", Type: schemas.Bool}, schemas.Field{Name: "t", Type: schemas.Timestamp},
		schemas.Field{Name: "r", Type: schemas.Binary, Nullable: true}, schemas.Field{Name: "h", Type: schemas.Float16})
	one := schemas.MustSchema(schemas.Field{Name: "u", Type: schemas.Uint64, Nullable: true})
	for _, c := range []struct {
		s             *schemas.Schema
		columns, line string
		want          string
	}{
		{flight, "", "1.5,180,UA,N1", `{"delay":1.5,"seats":180,"carrier":"UA","tail":"N1"}`},
		{flight, "", "1.5,180,UA,N1\n", `{"delay":1.5,"seats":180,"carrier":"UA","tail":"N1"}`},
		{flight, "", "1.5,180,UA,N1\r\n", `{"delay":1.5,"seats":180,"carrier":"UA","tail":"N1"}`},
		{flight, "", ",180,,", `{"delay":null,"seats":180,"carrier":"","tail":null}`},
		{flight, "", `"",180,"",""`, `{"delay":null,"seats":180,"carrier":"","tail":""}`},
		{flight, "", `"-2e1","180","a,""b""` + "\r\n" + `c",""""` + "\r", `{"delay":-20,"seats":180,"carrier":"a,\"b\"\r\nc","tail":"\""}`},
		{flight, "", " 1.5 ,\t180, UA ,x", `{"delay":1.5,"seats":180,"carrier":" UA ","tail":"x"}`},
		{flight, "", "nan,1,a,b", `{"delay":"NaN","seats":1,"carrier":"a","tail":"b"}`},
		{flight, "", "-inf,1,a,b", `{"delay":"-Infinity","seats":1,"carrier":"a","tail":"b"}`},
		{flight, "", "1,2,a,b\n3,4,c,d\n", `{"delay":1,"seats":2,"carrier":"a","tail":"b"},{"delay":3,"seats":4,"carrier":"c","tail":"d"}`},
		{flight, "", "1,2,a,b\n3,x,c,d\n5,6,e,f", `{"delay":1,"seats":2,"carrier":"a","tail":"b"},{"delay":5,"seats":6,"carrier":"e","tail":"f"} !1 rows[1].seats: want a number of int16, got "x"`},
		{flight, "", "1,2,a\n3,4,c,d\n1,2,3,4,5\n", `{"delay":3,"seats":4,"carrier":"c","tail":"d"} !0 rows[0]: 3 cells in the line: want 4 !2 rows[2]: 5 cells in the line: want 4`},
		{flight, "", "\n", ` !0 rows[0]: 1 cells in the line: want 4`},
		{flight, "", "1,40000,a,b", ` !0 rows[0].seats: 40000 is out of the range of int16`},
		{flight, "", "1,1.0,a,b", ` !0 rows[0].seats: want an integer of int16, got 1.0`},
		{flight, "", "1,,a,b", ` !0 rows[0].seats: empty, but the column is not nullable`},
		{flight, "", "1e39,1,a,b", ` !0 rows[0].delay: 1e39 is out of the range of float32`},
		{flight, "", "true,1,a,b", ` !0 rows[0].delay: want a number, got a boolean`},
		{flight, "", `"""NaN""",1,a,b`, ` !0 rows[0].delay: want a number of float32, got "\"NaN\""`},
		{flight, "", "1,1,\xff,b", ` !0 rows[0].carrier: not UTF-8`},
		{flight, "", "x,1," + strings.Repeat("y", 99) + `,"` + "\n\"\"" + `"` + "\n1,2,a,b", `{"delay":1,"seats":2,"carrier":"a","tail":"b"} !0 rows[0].delay: want a number of float32, got "x"`},
		{flight, "", `1,1,a"b,c`, `message: rows[0]: byte 5: a quote within a cell that is not quoted`},
		{flight, "", `1,1,"a"b,c`, `message: rows[0]: byte 7: text after the closing quote`},
		{flight, "", "1,1,a,b\n1,1,\"a,c", `message: rows[1]: byte 12: the quote is never closed`},
		{flight, "", `1,1,"a""`, `message: rows[0]: byte 4: the quote is never closed`},
		{flight, "tail,,seats,noise,delay,carrier", "N1,zz,7,9,,UA", `{"delay":null,"seats":7,"carrier":"UA","tail":"N1"}`},
		{flight, "seats,carrier", "7,UA", `{"delay":null,"seats":7,"carrier":"UA","tail":null}`},
		{flight, "seats", "7", `message: carrier: not among the columns, and not nullable`},
		{tensors, "", "1,2,3,4,5,6", `{"x":[1,2],"m":[[3,4],[5,6]]}`},
		{tensors, "", ",2,3,4,5,6", `{"x":["NaN",2],"m":[[3,4],[5,6]]}`},
		{tensors, "", "1,2,3,4,5,", ` !0 rows[0].m: empty, but the column is not nullable`},
		{tensors, "m,v", "3,4,5,6,2", `{"x":["NaN",2],"m":[[3,4],[5,6]]}`},
		{tensors, "x,m", "1,2,3,4,5,6", `{"x":[1,2],"m":[[3,4],[5,6]]}`},
		{tensors, "m", "3,4,5,6", `{"x":null,"m":[[3,4],[5,6]]}`},
		{tensors, "m,u,x", "3,4,5,6,2,2,2", `message: x: tensor x is given both as a whole and by its features`},
		{kinds, "", "true,2026-05-01T10:00:00Z,AAE=,1", `{"b":true,"t":"2026-05-01T10:00:00Z","r":"AAE=","h":1}`},
		{kinds, "", "0,-1,,0.5", `{"b":false,"t":"1969-12-31T23:59:59.999999999Z","r":null,"h":0.5}`},
		{kinds, "", "2,1,,1", ` !0 rows[0].b: want true or false, got "2"`},
		{kinds, "", "1,yesterday,,1", ` !0 rows[0].t: "yesterday" is not a time as in RFC 3339, nor integer nanoseconds`},
		{kinds, "", "1,9999-01-01T00:00:00Z,,1", ` !0 rows[0].t: "9999-01-01T00:00:00Z" is out of the range of nanosecond timestamps (1677-09-21 to 2262-04-11)`},
		{kinds, "", "1,1,@,1", ` !0 rows[0].r: want base64, got "@"`},
		{kinds, "", "1,1,,70000", ` !0 rows[0].h: 70000 is out of the range of float16`},
		{one, "", "\n18446744073709551615\n\n", `{"u":null},{"u":18446744073709551615},{"u":null}`},
		{one, "", "-1", ` !0 rows[0].u: -1 is out of the range of uint64`},
	} {
		var columns []string
		if c.columns != "" {
			columns = strings.Split(c.columns, ",")
		}
		if got := rows(t, codec(t, columns...), c.s, c.line); got != c.want {
			t.Errorf("%q as %s:\n got %s\nwant %s", c.line, c.columns, got, c.want)
		}
	}
}

// A request is all or nothing.
func TestRequest(t *testing.T) {
	c, b := codec(t), schemas.NewBatch(flight)
	if n, enc, err := c.AppendRows(b, &schemas.Message{Payload: []byte("1,2,a,b\n3,4,c,d")}); n != 2 || err != nil || enc != jsonrow.Rows() {
		t.Fatal(n, err)
	}
	n, _, err := c.AppendRows(b, &schemas.Message{Payload: []byte("1,2,a,b\n3,x,c,d")})
	if n != 0 || b.Rows() != 2 || schemas.KindOf(err) != schemas.Invalid || schemas.AsError("", err).Field != "rows[1].seats" {
		t.Fatal(n, b.Rows(), err)
	}
}

func TestColumnsThatCannotBe(t *testing.T) {
	for _, columns := range [][]string{{"a", "a"}, {strings.Repeat("x", 300)}, make([]string, 5000)} {
		if _, err := New(columns, jsonrow.Rows()); schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%.40v: %v", columns, err)
		}
	}
	if err := codec(t, "", "", "seats", "carrier").Check(flight); err != nil {
		t.Error(err)
	}
	if err := codec(t, "seats").Check(flight); schemas.KindOf(err) != schemas.Invalid {
		t.Error(err)
	}
	wide := schemas.MustSchema(schemas.Field{Name: "m", Type: schemas.Int8, Shape: []int{1 << 21}})
	if err := codec(t).Check(wide); schemas.KindOf(err) != schemas.Invalid {
		t.Error(err)
	}
}

// An empty line can stand for a row of thousands of nulls; many of them are refused.
func TestNullsAreBounded(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float64, Nullable: true}, schemas.Field{Name: "m", Type: schemas.Float64, Shape: []int{1 << 19}, Nullable: true})
	b := schemas.NewBatch(s)
	n, bad, _, err := codec(t, "x").AppendGood(b, &schemas.Message{Payload: []byte(strings.Repeat("\n", 1000))}, nil)
	if err != nil || n != 15 || len(bad) != 1000-15 || !strings.Contains(bad[0].Err.Error(), "send fewer rows") {
		t.Fatal(n, len(bad), err)
	}
}

// A message that is something else altogether is refused once, and not line by line.
func TestBadLinesAreBounded(t *testing.T) {
	b := schemas.NewBatch(flight)
	for n, want := range map[int]int{maxBad: maxBad, maxBad + 1: 0} {
		_, bad, _, err := codec(t).AppendGood(b, &schemas.Message{Payload: []byte("1,2,a,b\n" + strings.Repeat("\n", n))}, nil)
		if (err == nil) != (want > 0) || len(bad) != want || err != nil && (schemas.KindOf(err) != schemas.Invalid || b.Rows() != 0) {
			t.Errorf("%d lines: %d told, %v, %d rows", n, len(bad), err, b.Rows())
		}
		b.Reset()
	}
}

// What is written of every type comes back to the bit, nulls and tensors too.
func TestEveryType(t *testing.T) {
	var fs []schemas.Field
	for _, f := range schemastest.Everything().Fields() {
		if !f.Tensor() || !f.Nullable { // a tensor is never null here: its elements may be
			fs = append(fs, f)
		}
	}
	s := schemas.MustSchema(fs...)
	b, back := schemas.NewBatch(s), schemas.NewBatch(s)
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 2)), 200)
	n, bad, _, err := codec(t).AppendGood(back, &schemas.Message{Payload: encode(t, b)}, nil)
	if err != nil || n != 200 || len(bad) > 0 {
		t.Fatal(n, bad, err)
	}
	if d := schemastest.Diff(b, back); d != "" {
		t.Fatal(d)
	}
}

// encode writes rows with every cell in quotes that is not null.
func encode(t testing.TB, b *schemas.Batch) []byte {
	t.Helper()
	var out []byte
	for r := range b.Rows() {
		d := json.NewDecoder(bytes.NewReader(jsonrow.AppendObject(nil, b, r)))
		d.UseNumber()
		row := map[string]any{}
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		var line []string
		var flat func(v any)
		flat = func(v any) {
			switch v := v.(type) {
			case []any:
				for _, e := range v {
					flat(e)
				}
			case nil:
				line = append(line, "")
			default:
				line = append(line, `"`+strings.ReplaceAll(fmt.Sprint(v), `"`, `""`)+`"`)
			}
		}
		for _, f := range b.Schema().Fields() {
			flat(row[f.Name])
		}
		out = append(out, strings.Join(line, ",")+"\r\n"...)
	}
	return out
}
