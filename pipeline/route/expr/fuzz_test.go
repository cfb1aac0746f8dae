package expr_test

import (
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// Whatever the text, Compile returns an error of one line or a program that runs.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"input.d > 1.0 && has(input.sn)", "max(output.probability) >= 0.9", "one_hot(input.s, ['a', 'b'])", "input[\"dep delay\"] / 0.0",
		"bucket(input.i, [1, 2.5])", "input.t.getHours('+02:00')", "input.ls[input.i]", "coalesce(input.k, 1) % 0", "[1, 2] + [3] == [1, 2, 3]",
		"input.p.map(x, x)", "{1: 2}[1]", "Foo{a: 1}.a", "input.?d", "((((", "'\\xff'", "b'\\377'", "input.b ? null : [1.0]", "-(-1)", "a.b.c(d)", ".input.d",
		"input.`dep delay`", "duration('1h') + timestamp(0)", "string(input.y) + 'x'", "input.s.matches('(a|b)*')", "int32(input.li)", "[][0]", "in", "has(1)",
		"google.protobuf.Int64Value{value: 1}", "input.i in [input.i]", "[[1]]", "null == null", "optional.none()", "1.0 == 1u", "\"\"\"a\nb\"\"\"",
	} {
		f.Add(s)
	}
	env := expr.Env{Input: inputs, Output: outputs}
	in, out := inputRows(), outputRows()
	f.Fuzz(func(t *testing.T, src string) {
		p, err := expr.Compile(src, env)
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid || strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 2*expr.MaxSource {
				t.Fatalf("%q: %v", src, err)
			}
			return
		}
		f := p.Field()
		f.Name = "r"
		s, err := schemas.NewSchema([]schemas.Field{f})
		if err != nil {
			t.Fatalf("%q: the result's field %v: %v", src, f, err)
		}
		dst := schemas.NewBatch(s)
		bad := p.Append(in, out, 0, 2, dst.Column(0), nil)
		dst.Advance(2)
		if nulls := dst.Column(0).Nulls(); nulls < len(bad) || nulls > len(bad) && !f.Nullable {
			t.Fatalf("%q: %d nulls, %d errors, nullable %v", src, nulls, len(bad), f.Nullable)
		}
		if p.Condition() == nil {
			p.Bools(in, out, 0, 2, make([]bool, 2))
		}
	})
}

// What is hostile to a parser is refused at the bounds, or done soon.
func TestHostileSources(t *testing.T) {
	n := expr.MaxSource
	for _, src := range []string{
		strings.Repeat("(", n), strings.Repeat("[", n), strings.Repeat("{", n), strings.Repeat("!", n), strings.Repeat("-", n),
		strings.Repeat("a.", n/2), strings.Repeat("a?", n/2), strings.Repeat("1?1:", n/4), strings.Repeat("a(", n/2), strings.Repeat("'", n),
		strings.Repeat("a||", n/3) + "a", strings.Repeat("1+", n/2-1) + "1", strings.Repeat("[1,", 47) + strings.Repeat("]", 47),
		"[" + strings.Repeat("1,", n/2-2) + "1]", "input.i in [" + strings.Repeat("1,", n/2-8) + "1]", strings.Repeat("true||", n/6-1) + "true",
		strings.Repeat("input.b&&", n/9-1) + "true", "input.s.matches('" + strings.Repeat("(a*)*", 1600) + "')", "input.s.matches('(((a{1,100}){1,100}){1,100})')",
		strings.Repeat("\n", n), strings.Repeat("@", n), "`" + strings.Repeat("a", n-2), "'" + strings.Repeat("\\x", n/2-1), strings.Repeat("((", 20) + strings.Repeat("input.s+", 900),
		strings.Repeat("(a?a:", 40) + "a" + strings.Repeat(")", 40),
	} {
		start := time.Now()
		_, err := expr.Compile(src, expr.Env{Input: inputs})
		if took := time.Since(start); took > 10*time.Second { // milliseconds, on a machine that does nothing else
			t.Errorf("%.30s...: took %v", src, took)
		} else {
			t.Logf("%-30.30q %8v %.90v", src, took.Round(10*time.Microsecond), err)
		}
	}
}
