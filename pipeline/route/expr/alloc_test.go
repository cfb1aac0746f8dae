//go:build !race

// The race detector makes sync.Pool forget at random, so allocations are counted without it.

package expr_test

import (
	"testing"

	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// After the first call, a program allocates nothing, whatever the rows hold.
func TestNoAllocations(t *testing.T) {
	in, out := schemas.NewBatch(inputs), schemas.NewBatch(outputs)
	for range 300 { // 600 rows: three chunks
		in.AppendRange(inputRows(), 0, 2)
		out.AppendRange(outputRows(), 0, 2)
	}
	got := make([]bool, in.Rows())
	for _, src := range []string{
		"input.f", "input.sn", "input.i * 2 + input.k", "max(output.probability) >= 0.9 && input.bn", "input.s in ['a','b','c','d','e','f','g','h','i']",
		"one_hot(input.sn, ['AA', 'UA'])", "input.s.upperAscii() + '-' + string(input.d)", "coalesce(input.ln, [1.0, 2.0, 3.0])", "input.t.getHours('+01:00')",
		"input.b ? input.p : [0.0, 0.0, 0.0]", "bucket(input.d, [1, 2, 3])", "input.s.matches('^J.K')", "float32(mean(input.li))", "input.d > 1 || input.i / 0 > 1",
	} {
		p, err := expr.Compile(src, expr.Env{Input: inputs, Output: outputs})
		if err != nil {
			t.Fatal(err)
		}
		f := p.Field()
		f.Name = "r"
		dst := schemas.NewBatch(schemas.MustSchema(f))
		condition := p.Condition() == nil
		run := func() {
			dst.Reset()
			if bad := p.Append(in, out, 0, in.Rows(), dst.Column(0), nil); len(bad) > 0 {
				t.Fatal(bad[0])
			}
			dst.Advance(in.Rows())
			if condition {
				p.Bools(in, out, 0, in.Rows(), got)
			}
		}
		run()
		// A collection may empty the pool once while this runs: less than one a call is none.
		if n := testing.AllocsPerRun(50, run); n >= 1 {
			t.Errorf("%s: %v allocations a call", src, n)
		}
	}
}
