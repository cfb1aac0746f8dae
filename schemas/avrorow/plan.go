package avrorow

import (
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/cells"
)

// plan is a walk over records of an Avro schema that fills rows of a model's schema.
type plan struct {
	cells *cells.Plan
	root  *step
	err   *schemas.Error // records can never be rows
}

// step is what is done with one value: it is passed over if it has neither target nor inside.
type step struct {
	node    *node
	path    string
	target  int     // -1: none of its own
	elem    bool    // an element of the target's tensor
	want    int     // elements of an array
	inside  []*step // of a record its fields, of a union its branches, of an array its items
	refused string  // why the value cannot be what is wanted of it
}

func (s *Schema) plan(to *schemas.Schema) *plan {
	return s.plans.For(to, func(to *schemas.Schema) *plan {
		p := &plan{cells: cells.PlanOf(to), root: &step{node: s.root, target: -1}}
		for _, f := range s.root.fields {
			p.root.inside = append(p.root.inside, p.value(f.node, f.name))
		}
		p.err = p.root.fault()
		return p
	})
}

// value plans the value at a path of field names. It goes as deep as the names of columns do, so that a type that
// contains itself ends.
func (p *plan) value(n *node, path string) *step {
	st := &step{node: n, path: path, target: p.cells.Target(path)}
	deeper := p.cells.Inside(path)
	switch {
	case st.target < 0 && !deeper:
	case n.shape == union:
		for _, b := range n.union {
			st.inside = append(st.inside, p.value(b, path))
		}
		st.refused = ofUnion(st)
	case n.shape == record && st.target < 0:
		for _, f := range n.fields {
			st.inside = append(st.inside, p.value(f.node, path+"."+f.name))
		}
	case n.shape == array && st.target >= 0:
		p.tensor(st)
	case n.refused != "":
		st.refused = n.refused
	case st.target < 0 && n.shape != nothing:
		st.refused = "is no record, as the name of a column asks"
	}
	return st
}

// tensor plans an array, which is flat or nested as the tensor's shape is.
func (p *plan) tensor(st *step) {
	f := p.cells.Targets[st.target].Field
	depth := 0
	for n := st.node; n.shape == array; n = n.items {
		depth++
	}
	switch {
	case f.Shape == nil || p.cells.Targets[st.target].Elem >= 0:
		st.refused = "is an array" + noColumn
	case depth > 1 && depth != len(f.Shape):
		st.refused = "is arrays nested otherwise than the tensor"
	case depth > 1:
		p.nested(st, f.Shape)
	default:
		p.nested(st, []int{f.Width()})
	}
}

func (p *plan) nested(st *step, shape []int) {
	st.want = shape[0]
	in := &step{node: st.node.items, path: st.path, target: st.target, elem: true}
	switch n := in.node; {
	case len(shape) > 1:
		p.nested(in, shape[1:])
		in.elem = false
	case n.shape == union:
		for _, b := range n.union {
			c := &step{node: b, path: st.path, target: st.target, elem: true, refused: b.refused}
			if b.shape == array || b.shape == union {
				c.refused = "is an array within a union" + noColumn
			}
			in.inside = append(in.inside, c)
		}
		in.refused = ofUnion(in)
	default:
		in.refused = n.refused
	}
	st.inside = []*step{in}
	if in.refused != "" {
		st.refused = "is an array of which an element " + in.refused
	}
}

// ofUnion says why no value of a union can be taken; "" if one of its branches can.
func ofUnion(st *step) string {
	why := ""
	for _, c := range st.inside {
		switch {
		case c.node.shape == nothing:
		case c.refused == "":
			return ""
		default:
			why = c.refused
		}
	}
	return why
}

// fault finds what is refused whatever a record holds: a branch of a union is only where it was written.
func (st *step) fault() *schemas.Error {
	if st.refused != "" {
		return st.refusal()
	}
	if st.node.shape == union {
		return nil
	}
	for _, c := range st.inside {
		if e := c.fault(); e != nil {
			return e
		}
	}
	return nil
}

func (st *step) refusal() *schemas.Error {
	return schemas.FieldErrorf(schemas.Invalid, op, st.path, "the Avro field %s", st.refused)
}
