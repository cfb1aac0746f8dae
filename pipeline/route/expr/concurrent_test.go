package expr_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// One program, many goroutines, each with rows of its own: everybody gets their own answer.
func TestConcurrentUse(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Int64}, schemas.Field{Name: "s", Type: schemas.String})
	p, err := expr.Compile("input.s + '/' + string(1000 / input.x)", expr.Env{Input: s})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			if _, err := expr.Compile(fmt.Sprintf("input.x * %d > max([input.x, 7])", g), expr.Env{Input: s}); err != nil {
				t.Error(err)
			}
			b := schemas.NewBatch(s)
			for i := range 700 {
				schemas.Append(b.Column(0), int64(g*i%11))
				b.Column(0).EndRow()
				b.Column(1).AppendString(fmt.Sprint(g))
				b.Column(1).EndRow()
			}
			b.Advance(700)
			dst := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "r", Type: schemas.String, Nullable: true}))
			for range 20 {
				dst.Reset()
				bad := p.Append(b, nil, 0, 700, dst.Column(0), nil)
				dst.Advance(700)
				for i := range 700 {
					want := "null"
					if x := g * i % 11; x != 0 {
						want = fmt.Sprintf("%q", fmt.Sprintf("%d/%d", g, 1000/x))
					} else if len(bad) == 0 || bad[0].Row != i {
						t.Errorf("row %d of %d did not fail", i, g)
					} else {
						bad = bad[1:]
					}
					if got := show(dst.Column(0), i); got != want {
						t.Errorf("goroutine %d, row %d: %s, want %s", g, i, got, want)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
