package jsonrow

import (
	"sync"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

// plan is what a schema's names mean: made once for a schema.
type plan struct {
	schema  *schemas.Schema
	targets []target
	index   map[string]int // name to target
	cols    []column
	pool    sync.Pool // *decoder
}

// target is a column, or one element of a packed tensor.
type target struct {
	name   string
	quoted []byte // the name as JSON
	col    int
	elem   int // -1: the whole column
}

// column is what decoding asks of a column in the inner loop.
type column struct {
	field     *schemas.Field
	width     int
	size      int
	rowBytes  int // what a null row takes
	packed    bool
	whole     int // target
	first     int // target of the first feature
	keyPrefix []byte
}

type planKey struct{}

func planOf(s *schemas.Schema) *plan {
	return s.Derived(planKey{}, func(s *schemas.Schema) any { return newPlan(s) }).(*plan)
}

func newPlan(s *schemas.Schema) *plan {
	p := &plan{schema: s, index: map[string]int{}, cols: make([]column, s.Len())}
	add := func(name string, col, elem int) int {
		i := len(p.targets)
		p.targets = append(p.targets, target{name: name, quoted: jsonscan.AppendString(nil, name), col: col, elem: elem})
		p.index[name] = i
		return i
	}
	for i := range p.cols {
		f := s.Field(i)
		c := column{field: f, width: f.Width(), size: f.Type.Size(), packed: len(f.Features) > 0}
		c.rowBytes = c.width * max(c.size, 4)
		c.first = len(p.targets)
		for e, n := range f.Features {
			add(n, i, e)
		}
		c.whole = add(f.Name, i, -1)
		c.keyPrefix = append(jsonscan.AppendString(nil, f.Name), ':')
		p.cols[i] = c
	}
	p.pool.New = func() any {
		return &decoder{plan: p, seen: make([]uint32, len(p.targets)), given: make([]int32, len(p.cols)), counts: make([]int, len(p.targets))}
	}
	return p
}
