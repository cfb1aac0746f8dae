package cells

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/schemas"
)

// Target is what a named value goes to: a column, or one element of a packed tensor.
type Target struct {
	Name  string
	Field *schemas.Field
	Col   int
	Elem  int // -1: the whole column
}

// Plan is what a schema's names mean. It is immutable, made once for a schema, and safe for concurrent use.
type Plan struct {
	Targets []Target
	index   map[string]int
	inside  map[string]bool // what stands before a dot of a name
	cols    []column
	rows    sync.Pool // *Row
}

// column is what filling asks of a column in the inner loop.
type column struct {
	field    *schemas.Field
	width    int
	rowBytes int // what a null row takes
	packed   bool
	whole    int // target
	first    int // target of the first feature
}

type planKey struct{}

// PlanOf returns the plan of a schema.
func PlanOf(s *schemas.Schema) *Plan {
	return s.Derived(planKey{}, func(s *schemas.Schema) any { return newPlan(s) }).(*Plan)
}

func newPlan(s *schemas.Schema) *Plan {
	p := &Plan{index: map[string]int{}, inside: map[string]bool{}, cols: make([]column, s.Len())}
	for i := range p.cols {
		f := s.Field(i)
		c := column{field: f, width: f.Width(), packed: len(f.Features) > 0, first: len(p.Targets)}
		c.rowBytes = c.width * max(f.Type.Size(), 4)
		for e, n := range f.Features {
			p.add(Target{Name: n, Field: f, Col: i, Elem: e})
		}
		c.whole = len(p.Targets)
		p.add(Target{Name: f.Name, Field: f, Col: i, Elem: -1})
		p.cols[i] = c
	}
	p.rows.New = func() any { return &Row{plan: p, cells: make([]Cell, len(p.Targets))} }
	return p
}

func (p *Plan) add(t Target) {
	p.index[t.Name] = len(p.Targets)
	p.Targets = append(p.Targets, t)
	for n := t.Name; ; {
		i := strings.LastIndexByte(n, '.')
		if i < 0 {
			return
		}
		n = n[:i]
		p.inside[n] = true
	}
}

// Target returns the index of the target of that name, -1 if there is none.
func (p *Plan) Target(name string) int {
	if i, ok := p.index[name]; ok {
		return i
	}
	return -1
}

// Inside reports whether some target's name begins with name and a dot: it is a field of the record of this name.
func (p *Plan) Inside(name string) bool { return p.inside[name] }

// Names lists the targets for an error line.
func (p *Plan) Names() string {
	out := ""
	for i := range p.Targets {
		if i == 20 {
			return out + ", ..."
		}
		if i > 0 {
			out += ", "
		}
		out += p.Targets[i].Name
	}
	return out
}

// maxPerSchema bounds a PerSchema. One foreign schema feeds the models of the pipelines that read its topic.
const maxPerSchema = 16

// PerSchema keeps what a decoder made for each of the last few model schemas that it met. The zero value is ready; it is
// safe for concurrent use. A foreign schema keeps its plans here and not in schemas.Schema.Derived: both come and go.
type PerSchema[T any] struct {
	made atomic.Pointer[[]perSchema[T]]
	mu   sync.Mutex
}

type perSchema[T any] struct {
	schema *schemas.Schema
	value  T
}

// For returns the value for s, which make makes if it is not there.
func (c *PerSchema[T]) For(s *schemas.Schema, make func(s *schemas.Schema) T) T {
	if v, ok := c.find(s); ok {
		return v
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.find(s); ok {
		return v
	}
	var old []perSchema[T]
	if p := c.made.Load(); p != nil {
		old = *p
	}
	if len(old) == maxPerSchema {
		old = old[1:]
	}
	v := make(s)
	next := append(append([]perSchema[T](nil), old...), perSchema[T]{s, v})
	c.made.Store(&next)
	return v
}

func (c *PerSchema[T]) find(s *schemas.Schema) (v T, ok bool) {
	if p := c.made.Load(); p != nil {
		for i := range *p {
			if (*p)[i].schema == s {
				return (*p)[i].value, true
			}
		}
	}
	return v, false
}
