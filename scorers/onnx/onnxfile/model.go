package onnxfile

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/leatstream/leat/schemas"
)

// Elem is TensorProto.DataType: the type of a tensor's elements as files and the runtime number it.
type Elem int32

// The element types that Leat carries.
const (
	Float32 Elem = 1
	Uint8   Elem = 2
	Int8    Elem = 3
	Uint16  Elem = 4
	Int16   Elem = 5
	Int32   Elem = 6
	Int64   Elem = 7
	String  Elem = 8
	Bool    Elem = 9
	Float16 Elem = 10
	Float64 Elem = 11
	Uint32  Elem = 12
	Uint64  Elem = 13
)

// bits is the size of an element in a file; 0: it has none, or is unknown.
var bits = [...]int{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128,
	16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8}

// Form is what kind of value an input or output is.
type Form string

// The forms.
const (
	Tensor   Form = "tensor"
	Sequence Form = "sequence"
	Map      Form = "map"
	Optional Form = "optional"
	Sparse   Form = "sparse tensor"
	Unknown  Form = "value of unknown type"
)

// Value is a declared input or output of the graph.
type Value struct {
	Name   string
	Form   Form
	Elem   Elem
	Shaped bool    // a shape is declared; it may lie for outputs
	Dims   []int64 // -1: not fixed. Empty with Shaped: rank 0
}

// Node is one node of the main graph.
type Node struct {
	Op, Domain, Name string
	Inputs, Outputs  []string // Inputs holds what its subgraphs refer to as well
	raw              []byte   // the NodeProto
}

// Model is what a file says. It aliases the bytes it was parsed from.
type Model struct {
	Inputs   []Value // without those that an initializer gives a default
	Outputs  []Value
	Nodes    []Node
	Opsets   map[string]int64  // domain to version; the default domain is ""
	Domains  map[string]bool   // of every node, in subgraphs and functions too
	Ops      map[string]bool   // "domain:op" of every node, as above
	Metadata map[string]string // metadata_props
	Strings  []string          // strings that attributes hold (categories, keys), at most maxStrings

	funcs map[string]bool // domains of functions that the file defines
}

const maxStrings = 256

// Parse reads a model.
func Parse(b []byte) (*Model, error) {
	// ONNX Runtime takes a FlatBuffers file with this mark for its own format, which nothing here would have looked into.
	if len(b) >= 8 && string(b[4:8]) == "ORTM" {
		return nil, broken("ORT format; push the .onnx file it was made from")
	}
	if err := checkSingular(model, b); err != nil {
		return nil, err
	}
	m := &Model{Opsets: map[string]int64{}, Domains: map[string]bool{}, Ops: map[string]bool{}, Metadata: map[string]string{}, funcs: map[string]bool{}}
	var g []byte
	err := each(b, func(f field) error {
		switch {
		case f.typ != protowire.BytesType:
		case f.num == 7:
			g = f.val
		case f.num == 8:
			d, v, err := pair(f.val)
			m.Opsets[canonicalDomain(d)] = int64(v.n)
			return err
		case f.num == 14:
			k, v, err := pair(f.val)
			m.Metadata[k] = string(v.val)
			return err
		case f.num == 25:
			return m.function(f.val)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if g == nil {
		return nil, broken("it holds no graph")
	}
	return m, m.graph(g)
}

func canonicalDomain(d string) string {
	if d == "ai.onnx" {
		return ""
	}
	return d
}

// pair reads a message of a string (field 1) and something (field 2).
func pair(b []byte) (key string, val field, err error) {
	err = each(b, func(f field) error {
		switch f.num {
		case 1:
			key = string(f.val)
		case 2:
			val = f
		}
		return nil
	})
	return key, val, err
}

func (m *Model) function(b []byte) error {
	return each(b, func(f field) error {
		switch {
		case f.typ != protowire.BytesType:
		case f.num == 7:
			_, err := m.node(f.val, 1)
			return err
		case f.num == 10:
			m.funcs[canonicalDomain(string(f.val))] = true
		}
		return nil
	})
}

func (m *Model) graph(b []byte) error {
	defaults := map[string]bool{}
	var inputs []Value
	err := each(b, func(f field) error {
		if f.typ != protowire.BytesType {
			return nil
		}
		var err error
		switch f.num {
		case 1:
			var n Node
			n, err = m.node(f.val, 0)
			m.Nodes = append(m.Nodes, n)
		case 5:
			err = each(f.val, func(t field) error {
				if t.num == 8 {
					defaults[string(t.val)] = true
				}
				return nil
			})
		case 11, 12:
			var v Value
			v, err = value(f.val)
			if f.num == 11 {
				inputs = append(inputs, v)
			} else {
				m.Outputs = append(m.Outputs, v)
			}
		}
		return err
	})
	for _, v := range inputs {
		if !defaults[v.Name] {
			m.Inputs = append(m.Inputs, v)
		}
	}
	return err
}

// node reads a NodeProto and what lies in its attributes.
func (m *Model) node(b []byte, depth int) (Node, error) {
	n := Node{raw: b}
	if depth > maxDepth {
		return n, broken("subgraphs nested too deep")
	}
	err := each(b, func(f field) error {
		switch f.num {
		case 1:
			n.Inputs = append(n.Inputs, string(f.val))
		case 2:
			n.Outputs = append(n.Outputs, string(f.val))
		case 3:
			n.Name = string(f.val)
		case 4:
			n.Op = string(f.val)
		case 5:
			return each(f.val, func(a field) error { return m.attribute(&n, a, depth) })
		case 7:
			n.Domain = canonicalDomain(string(f.val))
		}
		return nil
	})
	m.Domains[n.Domain] = true
	m.Ops[n.Domain+":"+n.Op] = true
	return n, err
}

func (m *Model) attribute(n *Node, a field, depth int) error {
	if a.typ != protowire.BytesType {
		return nil
	}
	switch a.num {
	case 9: // strings
		if len(m.Strings) < maxStrings && len(a.val) < 256 && utf8.Valid(a.val) {
			m.Strings = append(m.Strings, string(a.val))
		}
	case 6, 11: // graphs
		return each(a.val, func(g field) error {
			if g.num != 1 || g.typ != protowire.BytesType {
				return nil
			}
			inner, err := m.node(g.val, depth+1)
			n.Inputs = append(n.Inputs, inner.Inputs...)
			return err
		})
	}
	return nil
}

// value reads a ValueInfoProto.
func value(b []byte) (Value, error) {
	v := Value{Form: Unknown}
	err := each(b, func(f field) error {
		switch f.num {
		case 1:
			v.Name = string(f.val)
		case 2:
			return each(f.val, func(t field) error { return v.readType(t) })
		}
		return nil
	})
	return v, err
}

func (v *Value) readType(t field) error {
	forms := map[protowire.Number]Form{1: Tensor, 4: Sequence, 5: Map, 8: Sparse, 9: Optional}
	form, ok := forms[t.num]
	if !ok {
		return nil
	}
	v.Form = form
	if form != Tensor {
		return nil
	}
	return each(t.val, func(f field) error {
		switch {
		case f.num == 1:
			v.Elem = Elem(int32(f.n))
		case f.num == 2:
			v.Shaped = true
			return each(f.val, func(d field) error {
				if d.num != 1 {
					return nil
				}
				size := int64(-1)
				err := each(d.val, func(x field) error {
					if x.num == 1 && x.typ == protowire.VarintType && int64(x.n) > 0 {
						size = int64(x.n)
					}
					return nil
				})
				v.Dims = append(v.Dims, size)
				return err
			})
		}
		return nil
	})
}

// CheckDomains returns an Invalid error if a node needs operators that come with no ONNX Runtime: those live in
// libraries of their own, and a model package never brings a library.
func (m *Model) CheckDomains() error {
	for d := range m.Domains {
		switch d {
		case "", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "org.pytorch.aten":
			continue
		}
		if !m.funcs[d] {
			return schemas.Errorf(schemas.Invalid, "onnxfile.CheckDomains", "the model uses operators of domain %q, which come in a library of their own; such libraries are not loaded: export the model with standard operators", d)
		}
	}
	return nil
}

// FromInputs returns the names of the main graph that depend on its inputs.
func (m *Model) FromInputs() map[string]bool {
	dep := map[string]bool{}
	for _, v := range m.Inputs {
		dep[v.Name] = true
	}
	for _, n := range m.Nodes { // a valid file has them in topological order
		for _, in := range n.Inputs {
			if in != "" && dep[in] { // "" stands for an optional input that is left out
				for _, o := range n.Outputs {
					dep[o] = true
				}
				break
			}
		}
	}
	return dep
}
