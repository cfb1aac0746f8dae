package expr_test

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// The property: on random expressions and rows our programs give what cel-go's own interpreter gives. A null is an unknown
// attribute there, which CEL carries through functions, && || and ?: as we carry nulls. Where both a null and an error
// come in, CEL may give either; we give the error.

var oracleSchema = schemas.MustSchema(
	schemas.Field{Name: "i", Type: schemas.Int64}, schemas.Field{Name: "i8", Type: schemas.Int8},
	schemas.Field{Name: "u", Type: schemas.Uint64}, schemas.Field{Name: "u16", Type: schemas.Uint16},
	schemas.Field{Name: "d", Type: schemas.Float64}, schemas.Field{Name: "f", Type: schemas.Float32},
	schemas.Field{Name: "b", Type: schemas.Bool}, schemas.Field{Name: "s", Type: schemas.String},
	schemas.Field{Name: "t", Type: schemas.Timestamp},
	schemas.Field{Name: "ni", Type: schemas.Int32, Nullable: true}, schemas.Field{Name: "nu", Type: schemas.Uint8, Nullable: true},
	schemas.Field{Name: "nd", Type: schemas.Float64, Nullable: true}, schemas.Field{Name: "nb", Type: schemas.Bool, Nullable: true},
	schemas.Field{Name: "ns", Type: schemas.String, Nullable: true}, schemas.Field{Name: "nt", Type: schemas.Timestamp, Nullable: true},
	schemas.Field{Name: "li", Type: schemas.Int16, Shape: []int{3}}, schemas.Field{Name: "ld", Type: schemas.Float32, Shape: []int{3}},
	schemas.Field{Name: "ls", Type: schemas.String, Shape: []int{3}}, schemas.Field{Name: "nld", Type: schemas.Float64, Shape: []int{3}, Nullable: true},
)

// Columns by the letter of their kind; a capital is a list.
var oracleColumns = map[byte][]string{
	'i': {"i", "i8", "ni"}, 'u': {"u", "u16", "nu"}, 'd': {"d", "f", "nd"}, 'b': {"b", "nb"}, 's': {"s", "ns"}, 't': {"t", "nt"},
	'I': {"li"}, 'D': {"ld", "nld"}, 'S': {"ls"},
}

// productions are what a kind is made from: letters in <> are replaced by random expressions of that kind.
var productions = map[byte][]string{
	'b': {"<b> && <b>", "<b> || <b>", "!<b>", "<b> ? <b> : <b>", "<i> < <i>", "<i> <= <u>", "<d> > <i>", "<u> >= <d>", "<u> == <i>", "<d> != <i>",
		"<s> == <s>", "<s> < <s>", "<t> < <t>", "<t> == <t>", "<b> == <b>", "<b> <= <b>", "<i> in <I>", "<d> in <D>", "<s> in <S>", "<s>.startsWith(<s>)",
		"<s>.endsWith(<s>)", "<s>.contains(<s>)", "<s>.matches('^[a-c]+')", "<I> == <I>", "<S> != <S>", "<D> == <D>", "<r> < <r>", "<d> < <d>",
		"<i> in [1, 2, 3, -1, 0, 7, 8, 9, 10, 11]", "<s> in ['a', 'bc']", "bool('true')", "<u> != <u>", "<i> > <d>", "<d> == <d>"},
	'i': {"<i> + <i>", "<i> - <i>", "<i> * <i>", "<i> / <i>", "<i> % <i>", "-<i>", "<b> ? <i> : <i>", "int(<d>)", "int(<u>)", "int(<s>)", "int(<t>)",
		"size(<s>)", "<I>.size()", "<I>[1]", "<I>[<i>]", "size(<S>)", "<t>.getHours()", "<t>.getMonth()", "<t>.getDayOfYear('-05:30')", "<t>.getFullYear()",
		"<t>.getDayOfWeek()", "<t>.getMilliseconds()", "<t>.getDate('+01:00')", "<r>.getMinutes()", "<r>.getSeconds()", "max(<I>)", "min(<I>)", "argmax(<D>)", "bucket(<d>, [-1.0, 0.0, 2.5])", "clamp(<i>, -3, 3)"},
	'u': {"<u> + <u>", "<u> - <u>", "<u> * <u>", "<u> / <u>", "<u> % <u>", "<b> ? <u> : <u>", "uint(<i>)", "uint(<d>)", "uint(<s>)"},
	'd': {"<d> + <d>", "<d> - <d>", "<d> * <d>", "<d> / <d>", "-<d>", "<b> ? <d> : <d>", "double(<i>)", "double(<u>)", "double(<s>)", "<D>[2]", "<D>[<i>]",
		"max(<D>)", "min(<D>)", "sum(<D>)", "mean(<D>)", "clamp(<d>, 0.0, 1.0)", "floor(<d>)", "sqrt(<d>)", "abs(<d>)"},
	's': {"<s> + <s>", "<b> ? <s> : <s>", "string(<i>)", "string(<u>)", "string(<d>)", "string(<b>)", "string(<t>)", "<s>.lowerAscii()", "<s>.upperAscii()", "<S>[0]", "<S>[<i>]"},
	't': {"<t> + <r>", "<t> - <r>", "<b> ? <t> : <t>", "timestamp('2024-05-06T07:08:09.125Z')"},
	'r': {"<t> - <t>", "duration('90m')", "duration('-1.5s')", "<r> + <r>", "<r> - <r>"},
	'I': {"[<i>, <i>]", "<b> ? [<i>, 1, 2] : input.li", "<I> + [<i>]"},
	'D': {"[<d>, <d>, <d>]", "<b> ? input.ld : [<d>, 1.0, 2.5]", "[0.5] + <D>", "one_hot(<s>, ['a', 'bc', 'AB'])"},
	'S': {"[<s>, <s>]", "<S> + ['a']"},
}

var oracleLiterals = map[byte][]string{
	'b': {"true", "false"}, 'i': {"0", "1", "-1", "2", "7", "-3", "9223372036854775807", "(-9223372036854775807 - 1)", "3000000000"},
	'u': {"0u", "1u", "2u", "255u", "18446744073709551615u"}, 'd': {"0.0", "1.0", "-1.5", "0.1", "1e300", "9223372036854775808.0", "2.5"},
	's': {"''", "'a'", "'bc'", "'7'", "'-12.5'", "'Äb'", "'AB'"},
	't': {"timestamp('1970-01-01T00:00:00Z')"}, 'r': {"duration('36h')"}, 'I': {"[1, 2, 3]", "[0]"}, 'D': {"[0.5, 1.0, 2.0]"}, 'S': {"['a', 'bc']"},
}

func randomExpr(r *rand.Rand, kind byte, depth int) string {
	if depth == 0 || r.IntN(6) == 0 {
		cols := oracleColumns[kind]
		if lits := oracleLiterals[kind]; len(cols) == 0 || r.IntN(3) == 0 {
			return lits[r.IntN(len(lits))]
		}
		return "input." + cols[r.IntN(len(cols))]
	}
	p := productions[kind][r.IntN(len(productions[kind]))]
	var b strings.Builder
	b.WriteByte('(')
	for i := 0; i < len(p); i++ {
		if p[i] == '<' && i+2 < len(p) && p[i+2] == '>' && productions[p[i+1]] != nil {
			b.WriteString(randomExpr(r, p[i+1], depth-1))
			i += 2
			continue
		}
		b.WriteByte(p[i])
	}
	b.WriteByte(')')
	return b.String()
}

// randomRows fills a batch, and the same rows as cel-go takes them; nulls are absent there.
func randomRows(r *rand.Rand, rows int) (*schemas.Batch, []map[string]any) {
	pick := func(vs ...any) any { return vs[r.IntN(len(vs))] }
	b := schemas.NewBatch(oracleSchema)
	maps := make([]map[string]any, rows)
	for row := range maps {
		m := map[string]any{}
		for c := range oracleSchema.Len() {
			f, col := oracleSchema.Field(c), b.Column(c)
			if f.Nullable && r.IntN(3) == 0 {
				col.AppendNull()
				continue
			}
			var list []any
			for range f.Width() {
				var v any
				switch f.Type {
				case schemas.Int64:
					v = pick(int64(0), int64(1), int64(-1), int64(2), int64(math.MaxInt64), int64(math.MinInt64), int64(r.IntN(2000)-1000))
					schemas.Append(col, v.(int64))
				case schemas.Int32:
					v = pick(int64(0), int64(1), int64(math.MinInt32), int64(r.IntN(200)-100))
					schemas.Append(col, int32(v.(int64)))
				case schemas.Int16:
					v = pick(int64(0), int64(3), int64(r.IntN(20)-10))
					schemas.Append(col, int16(v.(int64)))
				case schemas.Int8:
					v = pick(int64(0), int64(1), int64(-128), int64(r.IntN(10)-5))
					schemas.Append(col, int8(v.(int64)))
				case schemas.Uint64:
					v = pick(uint64(0), uint64(1), uint64(math.MaxUint64), uint64(math.MaxInt64), r.Uint64N(1000))
					schemas.Append(col, v.(uint64))
				case schemas.Uint16:
					v = r.Uint64N(4)
					schemas.Append(col, uint16(v.(uint64)))
				case schemas.Uint8:
					v = r.Uint64N(256)
					schemas.Append(col, uint8(v.(uint64)))
				case schemas.Float64:
					v = pick(0.0, math.Copysign(0, -1), 1.5, -2.5, math.Inf(1), 1e308, r.NormFloat64()*100, float64(r.IntN(5)))
					schemas.Append(col, v.(float64))
				case schemas.Float32:
					f := float32(r.NormFloat64())
					v = float64(f)
					schemas.Append(col, f)
				case schemas.Bool:
					v = r.IntN(2) == 0
					col.AppendBool(v.(bool))
				case schemas.String:
					v = pick("", "a", "bc", "abc", "Äb", "12", "-7", "2.5", "AB")
					col.AppendString(v.(string))
				case schemas.Timestamp:
					ns := r.Int64N(4e18) - 1e18
					v = time.Unix(0, ns).UTC()
					schemas.Append(col, ns)
				}
				list = append(list, v)
			}
			col.EndRow()
			if m[f.Name] = list[0]; f.Tensor() {
				m[f.Name] = list
			}
		}
		maps[row] = m
	}
	b.Advance(rows)
	return b, maps
}

// oracle is CEL's standard library with our functions on top, the plain way.
func oracle(t *testing.T) *cel.Env {
	floats := func(v ref.Val) []float64 {
		l := v.(traits.Lister)
		out := make([]float64, int(l.Size().(types.Int)))
		for i := range out {
			switch e := l.Get(types.Int(i)).(type) {
			case types.Double:
				out[i] = float64(e)
			case types.Int:
				out[i] = float64(e)
			}
		}
		return out
	}
	fold := func(f func(a, b float64) float64) func(ref.Val) ref.Val {
		return func(v ref.Val) ref.Val {
			fs := floats(v)
			m := fs[0]
			for _, x := range fs[1:] {
				m = f(m, x)
			}
			if _, ok := v.(traits.Lister).Get(types.Int(0)).(types.Int); ok {
				is := make([]int64, len(fs))
				for i := range is {
					is[i] = int64(v.(traits.Lister).Get(types.Int(i)).(types.Int))
				}
				if f(0, 1) == 1 {
					return types.Int(slices.Max(is))
				}
				return types.Int(slices.Min(is))
			}
			return types.Double(m)
		}
	}
	sum := func(fs []float64) (s float64) {
		for _, f := range fs {
			s += f
		}
		return s
	}
	unary := func(name string, f func(ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(name, []*cel.Type{cel.DynType}, cel.DynType, cel.UnaryBinding(f)))
	}
	float := func(name string, f func(float64) float64) cel.EnvOption {
		return unary(name, func(v ref.Val) ref.Val { return types.Double(f(float64(v.(types.Double)))) })
	}
	env, err := cel.NewEnv(ext.Strings(), cel.Variable("input", cel.DynType),
		unary("max", fold(func(a, b float64) float64 { return max(a, b) })),
		unary("min", fold(func(a, b float64) float64 { return min(a, b) })),
		unary("sum", func(v ref.Val) ref.Val { return types.Double(sum(floats(v))) }),
		unary("mean", func(v ref.Val) ref.Val { fs := floats(v); return types.Double(sum(fs) / float64(len(fs))) }),
		unary("argmax", func(v ref.Val) ref.Val {
			fs := floats(v)
			at := 0
			for i, f := range fs {
				if !math.IsNaN(fs[at]) && (f > fs[at] || math.IsNaN(f)) {
					at = i
				}
			}
			return types.Int(at)
		}),
		float("floor", math.Floor), float("sqrt", math.Sqrt), float("abs", math.Abs),
		cel.Function("clamp", cel.Overload("clamp", []*cel.Type{cel.DynType, cel.DynType, cel.DynType}, cel.DynType, cel.FunctionBinding(func(a ...ref.Val) ref.Val {
			if x, ok := a[0].(types.Int); ok {
				return max(min(x, a[2].(types.Int)), a[1].(types.Int))
			}
			switch x, lo, hi := a[0].(types.Double), a[1].(types.Double), a[2].(types.Double); {
			case x < lo:
				return lo
			case x > hi:
				return hi
			default:
				return x
			}
		}))),
		cel.Function("bucket", cel.Overload("bucket", []*cel.Type{cel.DynType, cel.DynType}, cel.DynType, cel.BinaryBinding(func(x, bounds ref.Val) ref.Val {
			n := 0
			if math.IsNaN(float64(x.(types.Double))) {
				return types.NewErr("NaN")
			}
			for _, b := range floats(bounds) {
				if b <= float64(x.(types.Double)) {
					n++
				}
			}
			return types.Int(n)
		}))),
		cel.Function("one_hot", cel.Overload("one_hot", []*cel.Type{cel.DynType, cel.DynType}, cel.DynType, cel.BinaryBinding(func(x, list ref.Val) ref.Val {
			l := list.(traits.Lister)
			out := make([]float64, int(l.Size().(types.Int)))
			for i := range out {
				if l.Get(types.Int(i)).Equal(x) == types.True {
					out[i] = 1
				}
			}
			return types.DefaultTypeAdapter.NativeToValue(out)
		}))),
	)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// showVal writes what CEL gave as show writes a column.
func showVal(v ref.Val) string {
	switch v := v.(type) {
	case types.Double:
		return fmt.Sprint(float64(v))
	case types.String:
		return strconv.Quote(string(v))
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339Nano)
	case traits.Lister:
		var out []string
		for i := range int(v.Size().(types.Int)) {
			out = append(out, showVal(v.Get(types.Int(i))))
		}
		return strings.Join(out, " ")
	}
	return fmt.Sprint(v.Value())
}

var (
	seed        = flag.Uint64("expr.seed", 22, "seed of TestAgainstCEL")
	expressions = flag.Int("expr.expressions", 3000, "expressions of TestAgainstCEL, each on 10 rows")
)

func TestAgainstCEL(t *testing.T) {
	const rows = 10
	env := oracle(t)
	r := rand.New(rand.NewPCG(5, *seed))
	in, maps := randomRows(r, 400)
	kinds := "bbbbiiuddsstIDS"
	var cases, values, nulls, errs, skipped int
	for n := range *expressions {
		src := randomExpr(r, kinds[r.IntN(len(kinds))], 1+r.IntN(5))
		p, err := expr.Compile(src, expr.Env{Input: oracleSchema})
		if err != nil {
			// The grammar above does not know the lengths of lists.
			if s := err.Error(); strings.Contains(s, "both must have one length") || strings.Contains(s, "index out of range") {
				continue
			}
			t.Fatalf("%s: %v", src, err)
		}
		parsed, iss := env.Parse(src)
		if iss.Err() != nil {
			t.Fatal(src, iss.Err())
		}
		prg, err := env.Program(parsed, cel.EvalOptions(cel.OptPartialEval))
		if err != nil {
			t.Fatal(src, err)
		}
		f := p.Field()
		f.Name = "r"
		if f.Type.Float() {
			f.Type = schemas.Float64
		}
		dst := schemas.NewBatch(schemas.MustSchema(f)).Column(0)
		from := r.IntN(len(maps) - rows)
		failed := map[int]string{}
		for _, e := range p.Append(in, nil, from, from+rows, dst, nil) {
			failed[e.Row] = e.Err.Error()
		}
		for i := range rows {
			row := maps[from+i]
			var unknown []*cel.AttributePatternType
			for c := range oracleSchema.Len() {
				if name := oracleSchema.Field(c).Name; row[name] == nil {
					unknown = append(unknown, cel.AttributePattern("input").QualString(name))
				}
			}
			vars, err := cel.PartialVars(map[string]any{"input": row}, unknown...)
			if err != nil {
				t.Fatal(err)
			}
			want, _, err := prg.Eval(vars)
			got, bad := show(dst, i), failed[from+i]
			cases++
			ok := false
			switch {
			case err != nil && strings.Contains(err.Error(), "NaN values cannot be ordered"),
				bad != "" && strings.Contains(bad, "time out of range"):
				skipped++ // where we differ on purpose: see the package's page
				ok = true
			case err != nil:
				errs++
				ok = bad != ""
			case types.IsUnknown(want):
				nulls++
				ok = got == "null"
			default:
				values++
				ok = bad == "" && got == showVal(want)
			}
			if !ok {
				t.Fatalf("expression %d: %s\nrow %v\n ours %s %s\n CEL  %v %v", n, src, row, got, bad, want, err)
			}
		}
	}
	t.Logf("%d cases: %d values, %d nulls, %d errors, %d skipped", cases, values, nulls, errs, skipped)
	if cases < 20000 || values < cases/3 || nulls < cases/50 || errs < cases/50 || skipped > cases/20 {
		t.Error("the cases are too few or too much alike")
	}
}

// What CEL has no word for is held against our own: e == null is where e is null, and coalesce(e, x) is e elsewhere.
func TestNullIdentities(t *testing.T) {
	r := rand.New(rand.NewPCG(6, *seed))
	in, _ := randomRows(r, 300)
	eval := func(src string) []string {
		p, err := expr.Compile(src, expr.Env{Input: oracleSchema})
		if err != nil {
			if s := err.Error(); strings.Contains(s, "both must have one length") || strings.Contains(s, "index out of range") {
				return nil
			}
			t.Fatalf("%s: %v", src, err)
		}
		f := p.Field()
		f.Name = "r"
		if f.Type.Float() {
			f.Type = schemas.Float64
		}
		dst := schemas.NewBatch(schemas.MustSchema(f)).Column(0)
		bad := p.Append(in, nil, 0, in.Rows(), dst, nil)
		out := make([]string, in.Rows())
		for i := range out {
			out[i] = show(dst, i)
		}
		for _, e := range bad {
			out[e.Row] = "error"
		}
		return out
	}
	other := map[byte]string{'b': "true", 'i': "42", 'u': "42u", 'd': "42.0", 's': "'other'", 't': "timestamp(42)"}
	shown := map[byte]string{'b': "true", 'i': "42", 'u': "42", 'd': "42", 's': `"other"`, 't': "1970-01-01T00:00:42Z"}
	for range 400 {
		kind := "biudst"[r.IntN(6)]
		e := randomExpr(r, kind, r.IntN(4))
		plain := eval(e)
		if plain == nil {
			continue
		}
		isNull, isThere, filled := eval("("+e+") == null"), eval("null != ("+e+")"), eval("coalesce("+e+", "+other[kind]+")")
		for i, v := range plain {
			want := [3]string{"false", "true", v}
			switch v {
			case "null":
				want = [3]string{"true", "false", shown[kind]}
			case "error":
				want = [3]string{"error", "error", "error"}
			}
			if got := [3]string{isNull[i], isThere[i], filled[i]}; got != want {
				t.Fatalf("%s is %s: == null, != null, coalesce give %v, want %v", e, v, got, want)
			}
		}
	}
}
