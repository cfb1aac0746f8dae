package expr_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// Two rows of everything: the first with values, the second with a null in each column whose name ends in "n".
var (
	inputs = schemas.MustSchema(
		schemas.Field{Name: "i", Type: schemas.Int64},
		schemas.Field{Name: "i8", Type: schemas.Int8},
		schemas.Field{Name: "u", Type: schemas.Uint32},
		schemas.Field{Name: "d", Type: schemas.Float64},
		schemas.Field{Name: "f", Type: schemas.Float32},
		schemas.Field{Name: "h", Type: schemas.Float16},
		schemas.Field{Name: "b", Type: schemas.Bool},
		schemas.Field{Name: "s", Type: schemas.String},
		schemas.Field{Name: "y", Type: schemas.Binary},
		schemas.Field{Name: "t", Type: schemas.Timestamp},
		schemas.Field{Name: "k", Type: schemas.Int64, Nullable: true},
		schemas.Field{Name: "dn", Type: schemas.Float32, Nullable: true},
		schemas.Field{Name: "bn", Type: schemas.Bool, Nullable: true},
		schemas.Field{Name: "sn", Type: schemas.String, Nullable: true},
		schemas.Field{Name: "tn", Type: schemas.Timestamp, Nullable: true},
		schemas.Field{Name: "ln", Type: schemas.Float64, Shape: []int{3}, Nullable: true},
		schemas.Field{Name: "dep delay", Type: schemas.Float64},
		schemas.Field{Name: "p", Type: schemas.Float32, Shape: []int{3}, Features: []string{"px", "py", "pz"}},
		schemas.Field{Name: "li", Type: schemas.Int16, Shape: []int{2, 2}},
		schemas.Field{Name: "ls", Type: schemas.String, Shape: []int{2}},
		schemas.Field{Name: "lh", Type: schemas.Float16, Shape: []int{2}},
		schemas.Field{Name: "lb", Type: schemas.Bool, Shape: []int{2}},
	)
	outputs = schemas.MustSchema(
		schemas.Field{Name: "probability", Type: schemas.Float32, Shape: []int{4}},
		schemas.Field{Name: "label", Type: schemas.String},
	)
	when = time.Date(2024, 2, 29, 23, 5, 7, 89e6, time.UTC)
)

func inputRows() *schemas.Batch {
	b := schemas.NewBatch(inputs)
	for row := range 2 {
		at := 0
		scalar := func(f func(c *schemas.Column)) {
			c := b.Column(at)
			at++
			if row == 1 && c.Field().Nullable {
				c.AppendNull()
				return
			}
			f(c)
			c.EndRow()
		}
		scalar(func(c *schemas.Column) { schemas.Append(c, int64(7)) })
		scalar(func(c *schemas.Column) { schemas.Append(c, int8(-5)) })
		scalar(func(c *schemas.Column) { schemas.Append(c, uint32(9)) })
		scalar(func(c *schemas.Column) { schemas.Append(c, 2.5) })
		scalar(func(c *schemas.Column) { schemas.Append(c, float32(0.1)) })
		scalar(func(c *schemas.Column) { schemas.Append(c, schemas.Float16Bits(1.5)) })
		scalar(func(c *schemas.Column) { c.AppendBool(true) })
		scalar(func(c *schemas.Column) { c.AppendString("JFK-Ä") })
		scalar(func(c *schemas.Column) { c.AppendText([]byte{0xff, 'a'}) })
		scalar(func(c *schemas.Column) { schemas.Append(c, when.UnixNano()) })
		scalar(func(c *schemas.Column) { schemas.Append(c, int64(3)) })
		scalar(func(c *schemas.Column) { schemas.Append(c, float32(0.5)) })
		scalar(func(c *schemas.Column) { c.AppendBool(true) })
		scalar(func(c *schemas.Column) { c.AppendString("AA") })
		scalar(func(c *schemas.Column) { schemas.Append(c, when.UnixNano()) })
		scalar(func(c *schemas.Column) {
			for _, v := range []float64{1, 2, 3} {
				schemas.Append(c, v)
			}
		})
		scalar(func(c *schemas.Column) { schemas.Append(c, 12.0) })
		scalar(func(c *schemas.Column) {
			for _, v := range []float32{0.25, 0.5, 0.125} {
				schemas.Append(c, v)
			}
		})
		scalar(func(c *schemas.Column) {
			for _, v := range []int16{4, -2, 9, 1} {
				schemas.Append(c, v)
			}
		})
		scalar(func(c *schemas.Column) { c.AppendString("a"); c.AppendString("b") })
		scalar(func(c *schemas.Column) {
			schemas.Append(c, schemas.Float16Bits(0.5))
			schemas.Append(c, schemas.Float16Bits(2))
		})
		scalar(func(c *schemas.Column) { c.AppendBool(true); c.AppendBool(false) })
	}
	b.Advance(2)
	return b
}

func outputRows() *schemas.Batch {
	b := schemas.NewBatch(outputs)
	for range 2 {
		for _, v := range []float32{0.01, 0.9375, 0.02, 0.03} {
			schemas.Append(b.Column(0), v)
		}
		b.Column(0).EndRow()
		b.Column(1).AppendString("late")
		b.Column(1).EndRow()
	}
	b.Advance(2)
	return b
}

// show writes a row of a column: "null", or its elements.
func show(c *schemas.Column, row int) string {
	if c.IsNull(row) {
		return "null"
	}
	var out []string
	for e := row * c.Width(); e < (row+1)*c.Width(); e++ {
		switch c.Field().Type {
		case schemas.Bool:
			out = append(out, fmt.Sprint(c.Data()[e] == 1))
		case schemas.Int8:
			out = append(out, fmt.Sprint(schemas.Values[int8](c)[e]))
		case schemas.Int16:
			out = append(out, fmt.Sprint(schemas.Values[int16](c)[e]))
		case schemas.Int32:
			out = append(out, fmt.Sprint(schemas.Values[int32](c)[e]))
		case schemas.Int64:
			out = append(out, fmt.Sprint(schemas.Values[int64](c)[e]))
		case schemas.Uint8:
			out = append(out, fmt.Sprint(schemas.Values[uint8](c)[e]))
		case schemas.Uint16:
			out = append(out, fmt.Sprint(schemas.Values[uint16](c)[e]))
		case schemas.Uint32:
			out = append(out, fmt.Sprint(schemas.Values[uint32](c)[e]))
		case schemas.Uint64:
			out = append(out, fmt.Sprint(schemas.Values[uint64](c)[e]))
		case schemas.Float16:
			out = append(out, fmt.Sprint(schemas.Float16Value(schemas.Values[uint16](c)[e])))
		case schemas.Float32:
			out = append(out, fmt.Sprint(schemas.Values[float32](c)[e]))
		case schemas.Float64:
			out = append(out, fmt.Sprint(schemas.Values[float64](c)[e]))
		case schemas.Timestamp:
			out = append(out, time.Unix(0, schemas.Values[int64](c)[e]).UTC().Format(time.RFC3339Nano))
		default:
			out = append(out, fmt.Sprintf("%q", c.Text(e)))
		}
	}
	return strings.Join(out, " ")
}

// run evaluates both rows and returns what each became: a value, null, or an error.
func run(t *testing.T, src string) (f schemas.Field, rows [2]string) {
	t.Helper()
	p, err := expr.Compile(src, expr.Env{Input: inputs, Output: outputs})
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	f = p.Field()
	f.Name = "r"
	dst := schemas.NewBatch(schemas.MustSchema(f)).Column(0)
	in, out := inputRows(), outputRows()
	bad := p.Append(in, out, 0, 2, dst, nil)
	if dst.Rows() != 2 {
		t.Fatalf("%s: %d rows", src, dst.Rows())
	}
	for i := range rows {
		rows[i] = show(dst, i)
	}
	for _, e := range bad {
		if rows[e.Row] != "null" || schemas.KindOf(e.Err) != schemas.Invalid {
			t.Errorf("%s: row %d: %v beside %s", src, e.Row, e.Err, rows[e.Row])
		}
		rows[e.Row] = e.Err.Error()
	}
	if p.Condition() == nil {
		got := []bool{true, true}
		failed := p.Bools(in, out, 0, 2, got)
		if failed != len(bad) {
			t.Errorf("%s: %d rows failed as a condition, %d else", src, failed, len(bad))
		}
		for i := range got {
			if got[i] != (rows[i] == "true") {
				t.Errorf("%s: row %d: condition %v, value %s", src, i, got[i], rows[i])
			}
		}
	}
	return f, rows
}

func TestMeaning(t *testing.T) {
	const same = "same"
	for _, c := range []struct {
		src, typ, first, second string
	}{
		// Columns and literals.
		{"input.i", "int64", "7", same},
		{"input.f", "float32", "0.1", same},
		{"input.h", "float16", "1.5", same},
		{"input.y", "binary", `"\xffa"`, same},
		{"input.li", "int16[2,2]", "4 -2 9 1", same},
		{"input.k", "int64?", "3", "null"},
		{"input.ln", "float64[3]?", "1 2 3", "null"},
		{"input['dep delay'] + 1.0", "float64", "13", same},
		{"input.`dep delay`", "float64", "12", same},
		{"input.py", "float32", "0.5", same},
		{"has(input.py)", "bool", "true", same},
		{"output.label", "string", `"late"`, same},
		{"'x'", "string", `"x"`, same},
		{"[1u, 2u]", "uint64[2]", "1 2", same},
		// Which type a result has.
		{"input.f + 0.0", "float64", "0.10000000149011612", same},
		{"coalesce(input.dn, 0.0)", "float32", "0.5", "0"},
		{"coalesce(input.dn, 0.1)", "float64", "0.5", "0.1"},
		{"coalesce(input.dn, float32(0.1))", "float32", "0.5", "0.1"},
		{"input.b ? input.i8 : 3", "int8", "-5", same},
		{"input.b ? input.i8 : 300", "int64", "-5", same},
		{"[input.f, 1.0]", "float32[2]", "0.1 1", same},
		{"max(input.p)", "float32", "0.5", same},
		{"double(input.f)", "float64", "0.10000000149011612", same},
		{"double(input.p)", "float64[3]", "0.25 0.5 0.125", same},
		{"float32(input.d)", "float32", "2.5", same},
		{"float32(one_hot(input.sn, ['AA', 'UA']))", "float32[2]?", "1 0", "null"},
		{"int32(input.i)", "int32", "7", same},
		{"int32(input.i8)", "int32", "-5", same},
		// Null.
		{"input.k + 1", "int64?", "4", "null"},
		{"input.k > 1", "bool?", "true", "null"},
		{"input.k == 3", "bool?", "true", "null"},
		{"input.k == null", "bool", "false", "true"},
		{"null != input.ln", "bool", "true", "false"},
		{"(input.k + 1) == null", "bool", "false", "true"},
		{"has(input.k)", "bool", "true", "false"},
		{"has(input.ln) && !has(input.sn)", "bool", "false", same},
		{"input.bn && false", "bool?", "false", same},
		{"input.bn && true", "bool?", "true", "null"},
		{"input.bn || true", "bool?", "true", same},
		{"false || input.bn", "bool?", "true", "null"},
		{"!input.bn", "bool?", "false", "null"},
		{"input.bn ? 1 : 2", "int64?", "1", "null"},
		{"input.b ? input.k : 2", "int64?", "3", "null"},
		{"input.b ? null : 2", "int64?", "null", same},
		{"has(input.k) ? 1.5 : null", "float64?", "1.5", "null"},
		{"input.tn == null ? 0 : 1", "int64", "1", "0"},
		{"coalesce(input.k, -1)", "int64", "3", "-1"},
		{"coalesce(input.k, input.k)", "int64?", "3", "null"},
		{"coalesce(input.k, input.k, input.i)", "int64", "3", "7"},
		{"coalesce(input.ln, [7.0, 8.0, 9.0])", "float64[3]", "1 2 3", "7 8 9"},
		{"coalesce(input.sn, 'none')", "string", `"AA"`, `"none"`},
		{"input.k in [3, 4]", "bool?", "true", "null"},
		{"max(input.ln)", "float64?", "3", "null"},
		{"input.ln[1]", "float64?", "2", "null"},
		{"[1.0, double(input.k)]", "float64[2]?", "1 3", "null"},
		{"size(input.ln)", "int64?", "3", "null"},
		{"10 / input.k", "int64?", "3", "null"}, // the zero beneath a null is no divisor
		{"null == null", "bool", "true", same},
		// Errors of a row.
		{"input.i / 0", "int64", "1:9: division by zero", same},
		{"input.i % (input.i - 7)", "int64", "1:9: division by zero", same},
		{"1 / 0", "int64", "1:3: division by zero", same},
		{"input.i + 9223372036854775807", "int64", "1:9: integer overflow", same},
		{"-9223372036854775807 - input.i", "int64", "1:22: integer overflow", same},
		{"input.i * 4611686018427387904", "int64", "1:9: integer overflow", same},
		{"input.i8 * -9223372036854775807", "int64", "1:10: integer overflow", same},
		{"-(-9223372036854775807 - 1)", "int64", "1:1: integer overflow", same},
		{"abs(-9223372036854775807 - 1)", "int64", "1:4: integer overflow", same},
		{"2u - 3u", "uint64", "1:4: integer overflow", same},
		{"int(1e30)", "int64", "1:4: the number does not fit an int", same},
		{"int(-9223372036854775808.0)", "int64", "1:4: the number does not fit an int", same}, // as cel-go has it
		{"uint(input.i8)", "uint64", "1:5: the number does not fit a uint", same},
		{"int32(input.i * 1000000000)", "int32", "1:6: the number does not fit an int32", same},
		{"float32(1e300)", "float32", "1:8: the number does not fit a float32", same},
		{"int(input.s)", "int64", "1:4: the text is no whole number that fits", same},
		{"double(input.s)", "float64", "1:7: the text is no number", same},
		{"bool(input.s)", "bool", `1:5: the text is no bool: want "true" or "false"`, same},
		{"string(input.y)", "string", "1:7: the bytes are not UTF-8", same},
		{"timestamp(input.s)", "timestamp", "1:10: the text is no time in RFC 3339 of the years 1678 to 2262", same},
		{"timestamp(99999999999999)", "timestamp", "1:10: a time out of range (years 1678 to 2262)", same},
		{"input.li[input.i]", "int16", "1:9: index out of range: the list has 4 elements, 0 to 3", same},
		{"input.li[input.i8]", "int16", "1:9: index out of range: the list has 4 elements, 0 to 3", same},
		{"bucket(0.0/0.0, [1.0])", "int64", "1:7: bucket: NaN is in no bucket", same},
		{"clamp(input.i, input.i, 3)", "int64", "1:6: clamp: the lower bound is above the upper one", same},
		{"sum([9223372036854775807, input.i])", "int64", "1:4: integer overflow", same},
		{"input.i / 0 + input.k", "int64?", "1:9: division by zero", same}, // an error wins over a null
		{"input.i / 0 > 1 && false", "bool", "false", same},
		{"input.i / 0 > 1 || true", "bool", "true", same},
		{"input.i / 0 > 1 || false", "bool", "1:9: division by zero", same},
		{"input.i / 0 > 1 || input.bn", "bool?", "true", "1:9: division by zero"},
		{"input.i / 0 == null", "bool", "1:9: division by zero", same},
		{"input.i > 0 ? 1 : input.i / 0", "int64", "1", same},
		{"input.i < 0 ? 1 : input.i / 0", "int64", "1:27: division by zero", same},
		{"coalesce(input.k, input.i / 0)", "int64", "3", "1:27: division by zero"},
		// Numbers.
		{"input.i + 2 * 3 - 1", "int64", "12", same},
		{"-7 / 2", "int64", "-3", same},
		{"-7 % 2", "int64", "-1", same},
		{"input.u / 2u * 3u % 5u + 1u", "uint64", "3", same},
		{"input.d / 0.0", "float64", "+Inf", same},
		{"-input.d", "float64", "-2.5", same},
		{"input.i > input.u", "bool", "false", same},
		{"input.u >= input.i", "bool", "true", same},
		{"input.i8 < input.u", "bool", "true", same},
		{"input.u == 9", "bool", "true", same},
		{"input.u == 9.0", "bool", "true", same},
		{"input.u != 9.5", "bool", "true", same},
		{"input.d <= 3", "bool", "true", same},
		{"0.0/0.0 < 1.0", "bool", "false", same},
		{"0.0/0.0 != 0.0/0.0", "bool", "true", same},
		{"is_nan(0.0/0.0)", "bool", "true", same},
		{"abs(input.i8)", "int64", "5", same},
		{"abs(-2.5)", "float64", "2.5", same},
		{"floor(input.d) + ceil(input.d) * 10.0 + round(input.d) * 100.0", "float64", "332", same},
		{"round(-2.5)", "float64", "-3", same},
		{"sqrt(input.u)", "float64", "3", same},
		{"log(exp(2.0))", "float64", "2", same},
		{"pow(input.u, 2)", "float64", "81", same},
		{"clamp(input.i, 0, 5)", "int64", "5", same},
		{"clamp(input.f, 0.25, 1.0)", "float32", "0.25", same},
		{"max(input.i, 9)", "int64", "9", same},
		{"min(input.d, 1.0)", "float64", "1", same},
		{"bucket(input.d, [1, 2, 3])", "int64", "2", same},
		{"bucket(input.i, [7])", "int64", "1", same},
		{"bucket(input.i, [0.5, 6.5, 7.5])", "int64", "2", same},
		{"bucket(input.u, [1u,2u,3u,4u,5u,6u,7u,8u,9u,10u,11u,12u,13u,14u,15u,16u,17u])", "int64", "9", same},
		{"true > false", "bool", "true", same},
		// Texts.
		{"input.s + '!'", "string", `"JFK-Ä!"`, same},
		{"size(input.s)", "int64", "5", same},
		{"input.y.size()", "int64", "2", same},
		{"input.s.startsWith('JFK') && input.s.endsWith('Ä') && input.s.contains('-')", "bool", "true", same},
		{"input.s.matches('^[A-Z]{3}-.$')", "bool", "true", same},
		{"matches(input.s, '^x')", "bool", "false", same},
		{"input.s.lowerAscii()", "string", `"jfk-Ä"`, same},
		{"'aé'.upperAscii()", "string", `"Aé"`, same},
		{"input.sn < 'B'", "bool?", "true", "null"},
		{"input.s in ['a','b','c','d','e','f','g','h','i','JFK-Ä']", "bool", "true", same},
		{"string(input.i) + string(input.u) + string(input.d) + string(input.b) + string(input.t)", "string", `"792.5true2024-02-29T23:05:07.089Z"`, same},
		{"bytes('a') + b'b' == b'ab'", "bool", "true", same},
		{"bytes(input.s)", "binary", `"JFK-Ä"`, same},
		// Lists.
		{"max(output.probability) >= 0.9", "bool", "true", same},
		{"argmax(output.probability)", "int64", "1", same},
		{"min(input.li)", "int16", "-2", same},
		{"sum(input.li)", "int64", "12", same},
		{"mean(input.li)", "float64", "3", same},
		{"sum(input.lh) + max(input.lh)", "float64", "4.5", same},
		{"max([1.0, 0.0/0.0, 2.0])", "float64", "NaN", same},
		{"argmax([1.0, 0.0/0.0, 2.0])", "int64", "1", same},
		{"argmax([1, 5, 5])", "int64", "1", same},
		{"input.li[2]", "int16", "9", same},
		{"input.li[input.i - 5]", "int16", "9", same},
		{"input.ls[uint(input.i) - 6u]", "string", `"b"`, same},
		{"input.lb[1]", "bool", "false", same},
		{"input.lh[1]", "float16", "2", same},
		{"'b' in input.ls", "bool", "true", same},
		{"2 in input.li", "bool", "false", same},
		{"-2 in input.li", "bool", "true", same},
		{"0.5 in input.p", "bool", "true", same},
		{"input.u in [1, -1, 9]", "bool", "true", same},
		{"input.u in [-9]", "bool", "false", same},
		{"input.i in [18446744073709551615u, 7u]", "bool", "true", same},
		{"has(input.`dep delay`)", "bool", "true", same},
		{"input.i in []", "bool", "false", same},
		{"input.d in [1, 2, 3]", "bool", "false", same},
		{"input.i in [input.i, 3]", "bool", "true", same},
		{"input.p + [1.0]", "float32[4]", "0.25 0.5 0.125 1", same},
		{"[1, 2] == [1, 2]", "bool", "true", same},
		{"input.ls != ['a', 'b']", "bool", "false", same},
		{"input.ls == ['a']", "bool", "false", same},
		{"input.b ? input.p : [0.0, 0.0, 0.0]", "float32[3]", "0.25 0.5 0.125", same},
		{"one_hot(input.i, [1, 7])", "float64[2]", "0 1", same},
		{"one_hot(input.b, [true])", "float64[1]", "1", same},
		{"one_hot(input.s, ['1','2','3','4','5','6','7','8','9'])", "float64[9]", "0 0 0 0 0 0 0 0 0", same},
		{"int(input.lb)", "int64[2]", "1 0", same},
		{"size([]) + size([1]) + input.li.size()", "int64", "5", same},
		// Casts.
		{"int(2.9) + int(-2.9) + int('12') + int(3u) + int(true)", "int64", "16", same},
		{"uint(2.9) + uint('12') + uint(3) + uint(false)", "uint64", "17", same},
		{"double('2.5') + double(1u) + double(true)", "float64", "4.5", same},
		{"bool('true') && bool(true)", "bool", "true", same},
		// Times.
		{"input.t.getFullYear()", "int64", "2024", same},
		{"[input.t.getMonth(), input.t.getDate(), input.t.getDayOfMonth(), input.t.getDayOfYear(), input.t.getDayOfWeek()]", "int64[5]", "1 29 28 59 4", same},
		{"[input.t.getHours(), input.t.getMinutes(), input.t.getSeconds(), input.t.getMilliseconds()]", "int64[4]", "23 5 7 89", same},
		{"[input.t.getHours('+02:00'), input.t.getDate('02:00'), input.t.getMinutes('-00:30')]", "int64[3]", "1 1 35", same},
		{"input.tn.getHours()", "int64?", "23", "null"},
		{"input.t + duration('1h')", "timestamp", "2024-03-01T00:05:07.089Z", same},
		{"input.t - timestamp('2024-02-29T00:00:00Z') > duration('23h')", "bool", "true", same},
		{"(input.t - duration('48h')) < input.t", "bool", "true", same},
		{"(input.t - timestamp('2024-02-29T00:00:00Z')).getMinutes()", "int64", "1385", same},
		{"int(input.t)", "int64", "1709247907", same},
		{"timestamp(60)", "timestamp", "1970-01-01T00:01:00Z", same},
		{"int(timestamp('1969-12-31T23:59:59.5Z'))", "int64", "-1", same},
		{"int(timestamp('1969-12-31T23:59:59.999999999Z'))", "int64", "-1", same},
		{"input.t + duration('2540400h')", "timestamp", "1:9: a time out of range (years 1678 to 2262)", same},
	} {
		f, rows := run(t, c.src)
		if typ := strings.TrimPrefix(f.String(), "r "); typ != c.typ {
			t.Errorf("%s: is %s, want %s", c.src, typ, c.typ)
		}
		if c.second == same {
			c.second = c.first
		}
		if rows != [2]string{c.first, c.second} {
			t.Errorf("%s:\n got %q\nwant %q", c.src, rows, [2]string{c.first, c.second})
		}
	}
}

func TestBadExpressions(t *testing.T) {
	deep := strings.Repeat("(", 60) + "1" + strings.Repeat(")", 60)
	for _, c := range []struct{ src, want string }{
		{"", "1:1: no expression; want one such as input.COLUMN > 0.5"},
		{"input.d > ", "1:11: the expression ends too early"},
		{"'abc", "1:1: the quotation mark is never closed"},
		{"@", `1:1: "@" does not belong here`},
		{"1\n+ + 2", "2:3: unexpected '+'"},
		{"input.depdelay", `1:6: no column "depdelay" in input; did you mean "dep delay"?`},
		{"input.nosuch", `1:6: no column "nosuch" in input`},
		{"input.in > 1", `1:7: "in" is a word of CEL; write input["in"]`},
		{"input.dep delay > 1", `unexpected 'delay'; a name with other characters than a-z, 0-9 and _ is written input["NAME"]`},
		{"input.dep-delay > 1", `1:6: no column "dep" in input; did you mean input["dep delay"]?`},
		{"output.probabilty", `1:7: no column "probabilty" in output; did you mean "probability"?`},
		{"has(output.lable)", `1:4: no column "lable" in output; did you mean "label"?`},
		{"probability > 1", `1:1: unknown name "probability"; did you mean output.probability?`},
		{"foo", `1:1: unknown name "foo"; columns are written input.COLUMN or output.COLUMN`},
		{"input", "1:1: input is no value; write input.COLUMN"},
		{"input.d.x", `1:8: no field "x" here: a column has none`},
		{"input.d + 1", "1:9: there is no double + int; both sides must be of one type: write 2.0 for 2, 2u for an unsigned 2, or double(x), int(x), uint(x)"},
		{"input.d % 2.0", "1:9: there is no double % double; % takes two int or two uint"},
		{"input.s == 1", "1:9: there is no string == int; both sides must be of types that go together"},
		{"!input.d", "1:1: there is no !double; ! takes bool"},
		{"true && 1", "1:9: expected type 'bool' but found 'int'"},
		{"1 ? 2 : 3", "1:3: there is no int ? int : int; the condition must be bool"},
		{"input.b ? 2 : 'a'", "1:9: there is no bool ? int : string; both branches must be of one type, or one null"},
		{"strtsWith(input.s)", `1:10: no function "strtsWith"; did you mean text.startsWith(text)?`},
		{"input.s.startsWith(1)", "1:19: there is no string.startsWith(int); want text.startsWith(text)"},
		{"max(input.s)", "1:4: there is no max(string); want max(list of numbers) or max(a, b) of one type"},
		{"input.s.matches('[')", "1:17: the pattern: missing closing ]: `[`"},
		{"input.s.matches(input.s)", "1:22: the pattern must be a constant text"},
		{"input.p[3]", "1:9: index out of range: the list has 3 elements, 0 to 2"},
		{"input.p[-1]", "1:9: index out of range: the list has 3 elements, 0 to 2"},
		{"input.p.map(x, x)", "1:12: comprehensions (map) are not run here; max, min, sum, mean, argmax and in work on lists"},
		{"input.p.all(x, x > 0)", "1:12: comprehensions (all) are not run here; max, min, sum, mean, argmax and in work on lists"},
		{"{1: 2}", "1:1: maps are not run here; want columns, lists and scalars"},
		{"Foo{a: 1}", "1:4: messages (Foo{...}) are not run here"},
		{"dyn(1)", "1:4: dyn() is not run here: every column has one type"},
		{"[[1]]", "1:2: a list in a list: lists hold scalars; lists are joined by +"},
		{"[1, 2.0]", "1:5: double in a list of int: the elements must be of one type"},
		{"[1, null]", "1:5: null in a list: a row is null as a whole"},
		{"max([])", "1:5: an empty list is of no use here"},
		{"null", "1:1: the result is null, which no column holds; want a value beside it, as in CONDITION ? x : null"},
		{"input.t - input.t", "1:9: the result is duration, which no column holds; write int(x) for nanoseconds, or x.getSeconds()"},
		{"input.t < null", "1:11: null is of no use here; compare with == null, or give it in ?:"},
		{"input.t.getHours('Europe/Berlin')", `1:18: time zone "Europe/Berlin": want "UTC" or an offset such as "+02:00"; what a named zone means differs between machines`},
		{"duration('x') > duration('1s')", `1:10: "x" is no duration; want one such as "1h30m"`},
		{"clamp(input.d, 3.0, 1.0)", "1:16: clamp: the lower bound is above the upper one"},
		{"bucket(input.d, [2, 1])", "1:17: the boundaries must rise"},
		{"bucket(input.i, [input.i])", "1:17: the boundaries must be constants"},
		{"one_hot(input.s, ['a', 'a'])", "1:18: one_hot: a value is named twice"},
		{"input.b ? input.p : [1.0]", "1:21: a list of 1 elements beside one of 3: both must have one length"},
		{deep, "1:49: more than 48 brackets within each other"},
		{"input.i in [input.u]", "1:12: int in a list of uint: want one type, write int(x) or uint(x)"},
		{strings.Repeat("true ? 1 : ", 300) + "1", "nested too deeply"},
		{"1" + strings.Repeat("+1", 300), "nested too deeply: at most 256 levels"},
		{strings.Repeat("1", expr.MaxSource+1), "1:1: 8193 characters: an expression has at most 8192"},
		{"\xff", "1:1: not UTF-8"},
	} {
		p, err := expr.Compile(c.src, expr.Env{Input: inputs, Output: outputs})
		if err == nil {
			t.Errorf("%.60s: compiled to %v", c.src, p.Field())
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%.60s:\n got %v\nwant %s", c.src, err, c.want)
		}
	}
	if _, err := expr.Compile("input.i"+strings.Repeat(" + input.i", 200), expr.Env{Input: inputs}); err != nil {
		t.Errorf("a sum of 201 columns: %v", err)
	}
	if _, err := expr.Compile("output.label", expr.Env{Input: inputs}); err == nil || err.Error() != "1:1: there is no output here; want input.COLUMN" {
		t.Errorf("output that is not there: %v", err)
	}
}

// TestNamed: the columns have the name that they are compiled under, and no other.
func TestNamed(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "reward", Type: schemas.Float64, Nullable: true})
	env := expr.Env{Input: s, Name: "feedback"}
	p, err := expr.Compile("coalesce(feedback.reward, 0.5) * 2.0", env)
	if err != nil {
		t.Fatal(err)
	}
	in, out := schemas.NewBatch(s), schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "r", Type: schemas.Float64, Nullable: true}))
	in.Column(0).AppendNull()
	schemas.Append(in.Column(0), 3.0)
	in.Column(0).EndRow()
	in.Advance(2)
	if bad := p.Append(in, nil, 0, 2, out.Column(0), nil); len(bad) > 0 || !slices.Equal(schemas.Values[float64](out.Column(0)), []float64{1, 6}) {
		t.Fatal(bad, schemas.Values[float64](out.Column(0)))
	}
	for src, want := range map[string]string{
		"input.reward":    `unknown name "input"; columns are written feedback.COLUMN`,
		"reward":          `unknown name "reward"; did you mean feedback.reward?`,
		"feedback.reword": `no column "reword" in feedback; did you mean "reward"?`,
	} {
		if _, err := expr.Compile(src, env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", src, err, want)
		}
	}
}

func TestColumns(t *testing.T) {
	p, err := expr.Compile("input.py > 0 && has(input.sn) && output.label == 'a' && input.d > max(output.probability) && input.d > 0", expr.Env{Input: inputs, Output: outputs})
	if err != nil {
		t.Fatal(err)
	}
	in, out := p.Columns()
	if fmt.Sprint(in, out) != "[d p sn] [label probability]" {
		t.Error(in, out)
	}
	if f := p.Field(); f.Nullable || p.Condition() != nil {
		t.Error("has and comparisons of columns without nulls are never null", f)
	}
}

// Results go into columns of other types of their kind; what does not fit is an error of its row.
func TestAppendConverts(t *testing.T) {
	for _, c := range []struct {
		src  string
		to   schemas.Field
		want string
	}{
		{"input.i", schemas.Field{Type: schemas.Int8}, "7"},
		{"input.i", schemas.Field{Type: schemas.Uint16}, "7"},
		{"input.u", schemas.Field{Type: schemas.Int32}, "9"},
		{"input.u", schemas.Field{Type: schemas.Uint64}, "9"},
		{"input.i * 20", schemas.Field{Type: schemas.Int8}, "the result does not fit its column's type"},
		{"input.i8", schemas.Field{Type: schemas.Uint64}, "the result does not fit its column's type"},
		{"300", schemas.Field{Type: schemas.Uint8}, "the result does not fit its column's type"},
		{"input.d", schemas.Field{Type: schemas.Float32}, "2.5"},
		{"1e300", schemas.Field{Type: schemas.Float32}, "the result does not fit its column's type"},
		{"70000.0", schemas.Field{Type: schemas.Float16}, "the result does not fit its column's type"},
		{"1.0 / 0.0", schemas.Field{Type: schemas.Float16}, "+Inf"},
		{"input.f", schemas.Field{Type: schemas.Float64}, "0.10000000149011612"},
		{"input.li", schemas.Field{Type: schemas.Int64, Shape: []int{4}}, "4 -2 9 1"},
		{"input.p", schemas.Field{Type: schemas.Float16, Shape: []int{3}}, "0.25 0.5 0.125"},
	} {
		p, err := expr.Compile(c.src, expr.Env{Input: inputs})
		if err != nil {
			t.Fatal(err)
		}
		c.to.Name = "r"
		dst := schemas.NewBatch(schemas.MustSchema(c.to)).Column(0)
		if err := p.Fits(dst.Field()); err != nil {
			t.Fatal(c.src, err)
		}
		for range 2 { // a second time with the same scratch
			at := dst.Rows()
			bad := p.Append(inputRows(), nil, 0, 1, dst, nil)
			got := show(dst, at)
			if len(bad) > 0 {
				got = bad[0].Err.Error()
			}
			if got != c.want {
				t.Errorf("%s as %s: %s, want %s", c.src, dst.Field(), got, c.want)
			}
		}
	}
	p, _ := expr.Compile("input.d", expr.Env{Input: inputs})
	if err := p.Fits(&schemas.Field{Name: "x", Type: schemas.Int64}); err == nil || err.Error() != "the expression is float64, the column is int64" {
		t.Error(err)
	}
	if err := p.Condition(); err == nil || err.Error() != "the expression is float64; a condition must be bool" {
		t.Error(err)
	}
}

// Rows are those asked for, across chunks, with nulls and errors where they are.
func TestManyRows(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Int32, Nullable: true}, schemas.Field{Name: "w", Type: schemas.Float64, Shape: []int{1000}})
	b := schemas.NewBatch(s)
	const rows = 1111
	for i := range rows {
		if i%7 == 3 {
			b.Column(0).AppendNull()
		} else {
			schemas.Append(b.Column(0), int32(i%50))
			b.Column(0).EndRow()
		}
		for e := range 1000 {
			schemas.Append(b.Column(1), float64(i+e))
		}
		b.Column(1).EndRow()
	}
	b.Advance(rows)
	p, err := expr.Compile("[1000 / input.x, int((input.w + [0.5])[999]), int(max(input.w))]", expr.Env{Input: s})
	if err != nil {
		t.Fatal(err)
	}
	f := p.Field()
	f.Name = "r"
	const from, to = 5, 1100
	dst := schemas.NewBatch(schemas.MustSchema(f)).Column(0)
	bad := p.Append(b, nil, from, to, dst, nil)
	if dst.Rows() != to-from {
		t.Fatal(dst.Rows())
	}
	next := 0
	for i := from; i < to; i++ {
		want := "null"
		switch {
		case i%7 == 3:
		case i%50 == 0:
			if next >= len(bad) || bad[next].Row != i {
				t.Fatalf("row %d did not fail: %v", i, bad)
			}
			next++
		default:
			want = fmt.Sprintf("%d %d %d", 1000/(i%50), i+999, i+999)
		}
		if got := show(dst, i-from); got != want {
			t.Fatalf("row %d: %s, want %s", i, got, want)
		}
	}
	if next != len(bad) {
		t.Error("more errors than rows that fail", bad[next:])
	}
}

func TestWideTensor(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "image", Type: schemas.Uint8, Shape: []int{300, 300}})
	env := expr.Env{Input: s}
	b := schemas.NewBatch(s)
	for e := range 90000 {
		schemas.Append(b.Column(0), uint8(e%200))
	}
	b.Column(0).EndRow()
	b.Advance(1)
	for _, src := range []string{"max(input.image) == 199", "input.image[70001] == 1", "size(input.image) == 90000"} {
		p, err := expr.Compile(src, env)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]bool, 1)
		if p.Bools(b, nil, 0, 1, got); !got[0] {
			t.Error(src, "does not hold")
		}
	}
	p, err := expr.Compile("input.image", env)
	if err != nil {
		t.Fatal(err)
	}
	dst := schemas.NewBatch(s)
	p.Append(b, nil, 0, 1, dst.Column(0), nil)
	dst.Advance(1)
	if err := p.Fits(&schemas.Field{Name: "x", Type: schemas.Int64, Shape: []int{90000}}); err == nil {
		t.Error("a conversion of 90,000 elements a row was taken on")
	}
	if _, err := expr.Compile("float32(input.image)", env); err == nil || !strings.Contains(err.Error(), "a list of 90000 elements a row: what is computed has at most 65536") {
		t.Error(err)
	}
	if _, err := expr.Compile("input.image == input.image", env); err == nil || !strings.Contains(err.Error(), "image has 90000 elements a row: a list that is computed with has at most 65536") {
		t.Error(err)
	}
}

func TestAnotherSchemaPanics(t *testing.T) {
	p, err := expr.Compile("output.label == 'a'", expr.Env{Input: inputs, Output: outputs})
	if err != nil {
		t.Fatal(err)
	}
	p.Bools(nil, outputRows(), 0, 2, make([]bool, 2)) // the input is not looked at
	defer func() {
		if recover() == nil {
			t.Error("ran on a batch of another schema")
		}
	}()
	p.Bools(nil, inputRows(), 0, 2, make([]bool, 2))
}

func TestFloatsAreNotFused(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Float64}, schemas.Field{Name: "b", Type: schemas.Float64})
	b := schemas.NewBatch(s)
	x, y := 1.0000000000000002, -1.0000000000000004
	schemas.Append(b.Column(0), x)
	schemas.Append(b.Column(1), y)
	b.Column(0).EndRow()
	b.Column(1).EndRow()
	b.Advance(1)
	p, err := expr.Compile("input.a * input.a + input.b", expr.Env{Input: s})
	if err != nil {
		t.Fatal(err)
	}
	dst := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "r", Type: schemas.Float64})).Column(0)
	p.Append(b, nil, 0, 1, dst, nil)
	if got, want := schemas.Values[float64](dst)[0], float64(x*x)+y; math.Float64bits(got) != math.Float64bits(want) {
		t.Error(got, want)
	}
}
