package oip

import (
	"sync"

	"github.com/leatstream/leat/schemas"
)

// plan is what the names of inputs mean: made once for a schema.
type plan struct {
	schema  *schemas.Schema
	targets []target
	index   map[string]int
	cols    []column
	pool    sync.Pool // *decoder
}

// target is a column, or one element of a packed tensor.
type target struct {
	name string
	col  int
	elem int // -1: the whole column
}

type column struct {
	field    *schemas.Field
	typ      schemas.DType // as it travels: a timestamp as Int64
	width    int
	size     int
	rowBytes int
	whole    int // target
	first    int // target of the first feature
}

type planKey struct{}

func planOf(s *schemas.Schema) *plan {
	return s.Derived(planKey{}, func(s *schemas.Schema) any { return newPlan(s) }).(*plan)
}

func newPlan(s *schemas.Schema) *plan {
	p := &plan{schema: s, index: map[string]int{}, cols: make([]column, s.Len())}
	add := func(name string, col, elem int) int {
		p.index[name] = len(p.targets)
		p.targets = append(p.targets, target{name: name, col: col, elem: elem})
		return len(p.targets) - 1
	}
	for i := range p.cols {
		f := s.Field(i)
		c := column{field: f, typ: f.Type, width: f.Width(), size: f.Type.Size(), first: len(p.targets)}
		if c.typ == schemas.Timestamp {
			c.typ = schemas.Int64
		}
		c.rowBytes = c.width * max(c.size, 4)
		for e, n := range f.Features {
			add(n, i, e)
		}
		c.whole = add(f.Name, i, -1)
		p.cols[i] = c
	}
	p.pool.New = func() any {
		return &decoder{plan: p, seen: make([]bool, len(p.targets)), given: make([]int, len(p.cols))}
	}
	return p
}

// names lists the inputs for an error line.
func (p *plan) names() string {
	out := ""
	for i := range p.targets {
		if i == 20 {
			return out + ", ..."
		}
		if i > 0 {
			out += ", "
		}
		out += p.targets[i].name
	}
	return out
}
