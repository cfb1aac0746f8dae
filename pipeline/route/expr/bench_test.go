package expr_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

var (
	benchIn = schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Float64}, schemas.Field{Name: "b", Type: schemas.Float64},
		schemas.Field{Name: "n", Type: schemas.Float32, Nullable: true}, schemas.Field{Name: "carrier", Type: schemas.String})
	benchOut = schemas.MustSchema(schemas.Field{Name: "probability", Type: schemas.Float32, Shape: []int{3}})
)

const benchRows = 1024

// benchData is rows as batches, and as cel-go takes them, built beforehand.
func benchData() (in, out *schemas.Batch, rows []map[string]any) {
	r := rand.New(rand.NewPCG(1, 1))
	in, out = schemas.NewBatch(benchIn), schemas.NewBatch(benchOut)
	carriers := []string{"AA", "UA", "DL", "B6", "WN", "AS"}
	for range benchRows {
		a, b, c := r.NormFloat64(), r.NormFloat64(), carriers[r.IntN(len(carriers))]
		schemas.Append(in.Column(0), a)
		schemas.Append(in.Column(1), b)
		in.Column(0).EndRow()
		in.Column(1).EndRow()
		if r.IntN(4) == 0 {
			in.Column(2).AppendNull()
		} else {
			schemas.Append(in.Column(2), float32(a))
			in.Column(2).EndRow()
		}
		in.Column(3).AppendString(c)
		in.Column(3).EndRow()
		p := make([]float64, 3)
		for i := range p {
			f := r.Float32()
			p[i] = float64(f)
			schemas.Append(out.Column(0), f)
		}
		out.Column(0).EndRow()
		rows = append(rows, map[string]any{"input": map[string]any{"a": a, "b": b, "n": a, "carrier": c}, "output": map[string]any{"probability": p}})
	}
	in.Advance(benchRows)
	out.Advance(benchRows)
	return in, out, rows
}

var benched = []struct{ name, src string }{
	{"max", "max(output.probability) >= 0.9"},
	{"arithmetic", "input.a * 2.0 + input.b"},
	{"in", "input.carrier in ['AA', 'DL', 'WN']"},
	{"one_hot", "one_hot(input.carrier, ['AA', 'UA', 'DL', 'B6'])"},
	{"logic", "input.a > 0.0 && input.b < 1.0 || input.carrier == 'AA'"},
	{"coalesce", "coalesce(input.n, 0.0)"},
}

// BenchmarkRow gives nanoseconds a row (ns/op is a row): of our programs over batches of 1,024, and of cel-go's
// interpreter on maps that are there already.
func BenchmarkRow(b *testing.B) {
	in, out, rows := benchData()
	for _, c := range benched {
		b.Run(c.name+"/leat", func(b *testing.B) {
			p, err := expr.Compile(c.src, expr.Env{Input: benchIn, Output: benchOut})
			if err != nil {
				b.Fatal(err)
			}
			f := p.Field()
			f.Name = "r"
			dst := schemas.NewBatch(schemas.MustSchema(f))
			hold, condition := make([]bool, benchRows), p.Condition() == nil
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += benchRows {
				if condition {
					p.Bools(in, out, 0, benchRows, hold)
					continue
				}
				dst.Reset()
				p.Append(in, out, 0, benchRows, dst.Column(0), nil)
				dst.Advance(benchRows)
			}
		})
		b.Run(c.name+"/cel-go", func(b *testing.B) {
			prg := celProgram(b, c.src)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if _, _, err := prg.Eval(rows[i%benchRows]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// transforms are the columns that people make; docs/routes.md has a table of what they take.
var transforms = []struct{ name, src string }{
	{"rename", "input.a"},
	{"rename_text", "input.carrier"},
	{"cast", "float32(input.a)"},
	{"default", "coalesce(input.n, 0.0)"},
	{"arithmetic", "(input.a - 0.5) / 2.0 + input.b"},
	{"one_hot", "one_hot(input.carrier, ['AA', 'UA', 'DL', 'B6'])"},
	{"bucketise", "bucket(input.a, [-2.0, -1.0, 0.0, 1.0, 2.0])"},
	{"choose", "input.a > 0.0 ? input.a : -input.a"},
	{"argmax", "argmax(output.probability)"},
}

// BenchmarkTransform gives nanoseconds a row (ns/op is a row) of a transform's column, over batches of 1,024 rows and of one.
func BenchmarkTransform(b *testing.B) {
	in, out, _ := benchData()
	for _, c := range transforms {
		p, err := expr.Compile(c.src, expr.Env{Input: benchIn, Output: benchOut})
		if err != nil {
			b.Fatal(err)
		}
		f := p.Field()
		f.Name = "r"
		dst := schemas.NewBatch(schemas.MustSchema(f))
		for _, rows := range []int{benchRows, 1} {
			b.Run(fmt.Sprintf("%s/%d", c.name, rows), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; i < b.N; i += rows {
					dst.Reset()
					if bad := p.Append(in, out, i%benchRows/rows*rows, i%benchRows/rows*rows+rows, dst.Column(0), nil); len(bad) > 0 {
						b.Fatal(bad[0].Err)
					}
					dst.Advance(rows)
				}
			})
		}
	}
}

// BenchmarkOneRow is a whole call for a batch of one row, as a lone request makes it.
func BenchmarkOneRow(b *testing.B) {
	in, out, _ := benchData()
	for _, c := range benched {
		p, err := expr.Compile(c.src, expr.Env{Input: benchIn, Output: benchOut})
		if err != nil {
			b.Fatal(err)
		}
		if p.Condition() != nil {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			dst := make([]bool, 1)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				p.Bools(in, out, i%benchRows, i%benchRows+1, dst)
				i++
			}
		})
	}
}

// celProgram is the expression for cel-go's interpreter, constants folded, with our functions written the plain way.
func celProgram(b *testing.B, src string) cel.Program {
	list := cel.ListType(cel.DoubleType)
	env, err := cel.NewEnv(
		cel.Variable("input", cel.MapType(cel.StringType, cel.DynType)), cel.Variable("output", cel.MapType(cel.StringType, list)),
		cel.Function("max", cel.Overload("max_list", []*cel.Type{list}, cel.DoubleType, cel.UnaryBinding(func(v ref.Val) ref.Val {
			fs := v.Value().([]float64)
			m := fs[0]
			for _, f := range fs[1:] {
				m = max(m, f)
			}
			return types.Double(m)
		}))),
		cel.Function("one_hot", cel.Overload("one_hot_list", []*cel.Type{cel.DynType, cel.ListType(cel.StringType)}, list, cel.BinaryBinding(func(x, l ref.Val) ref.Val {
			values := l.(traits.Lister)
			hot := make([]float64, int(values.Size().(types.Int)))
			for i := range hot {
				if values.Get(types.Int(i)).Equal(x) == types.True {
					hot[i] = 1
				}
			}
			return types.DefaultTypeAdapter.NativeToValue(hot)
		}))),
		cel.Function("coalesce", cel.Overload("coalesce_two", []*cel.Type{cel.DynType, cel.DynType}, cel.DynType, cel.BinaryBinding(func(x, y ref.Val) ref.Val {
			if x.Type() == types.NullType {
				return y
			}
			return x
		}))),
	)
	if err != nil {
		b.Fatal(err)
	}
	a, iss := env.Compile(src)
	if iss.Err() != nil {
		b.Fatal(iss.Err())
	}
	prg, err := env.Program(a, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		b.Fatal(err)
	}
	return prg
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := expr.Compile("max(output.probability) >= 0.9 && input.carrier in ['AA', 'DL']", expr.Env{Input: benchIn, Output: benchOut}); err != nil {
			b.Fatal(err)
		}
	}
}
