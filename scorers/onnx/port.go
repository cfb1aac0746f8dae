package onnx

import (
	"fmt"
	"slices"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
)

// port is one input or output as runs use it.
type port struct {
	field schemas.Field
	elem  onnxfile.Elem
	lead  bool  // its tensors lead with the rows; false only for an output of a one-row model that has no such dimension
	tail  []int // dimensions of its tensors after the rows: none for [N], 1 for [N,1]
	width int   // elements in a row
	size  int   // bytes of an element, 0 for strings
	fixed []byte
	// fixed, if not nil, is the one value of an output of rank 0 that no input reaches; runs do not ask for it.
}

var dtypes = map[onnxfile.Elem]schemas.DType{
	onnxfile.Bool: schemas.Bool, onnxfile.Int8: schemas.Int8, onnxfile.Int16: schemas.Int16, onnxfile.Int32: schemas.Int32,
	onnxfile.Int64: schemas.Int64, onnxfile.Uint8: schemas.Uint8, onnxfile.Uint16: schemas.Uint16, onnxfile.Uint32: schemas.Uint32,
	onnxfile.Uint64: schemas.Uint64, onnxfile.Float16: schemas.Float16, onnxfile.Float32: schemas.Float32,
	onnxfile.Float64: schemas.Float64, onnxfile.String: schemas.String,
}

// newPort describes a tensor of the given dimensions after the rows.
func newPort(op, name string, elem onnxfile.Elem, tail []int, lead bool) (port, error) {
	d, ok := dtypes[elem]
	if !ok {
		return port{}, schemas.FieldErrorf(schemas.Invalid, op, name, "element type %d of ONNX is not carried: cast it inside the model to a bool, integer, float16, float32, float64 or string", elem)
	}
	p := port{field: schemas.Field{Name: name, Type: d}, elem: elem, lead: lead, tail: tail, width: 1, size: d.Size()}
	for _, n := range tail {
		if n < 1 || n > schemas.MaxRowElements || p.width > schemas.MaxRowElements/n {
			return port{}, schemas.FieldErrorf(schemas.Invalid, op, name, "dimensions %v a row: want positive ones, at most %d elements in all", tail, schemas.MaxRowElements)
		}
		p.width *= n
	}
	if len(tail) > 1 || p.width > 1 {
		p.field.Shape = tail
	}
	return p, nil
}

// shape returns the tensor's dimensions for n rows.
func (p *port) shape(n int) ort.Shape {
	s := make(ort.Shape, 0, 1+len(p.tail))
	if p.lead {
		s = append(s, int64(n))
	}
	for _, d := range p.tail {
		s = append(s, int64(d))
	}
	return s
}

// rowBytes is what a row takes in a tensor; strings are counted as 32 bytes.
func (p *port) rowBytes() int {
	return p.width * max(p.size, 1) * map[bool]int{true: 32, false: 1}[p.size == 0]
}

// inputs describes the inputs by the file and the manifest. rows is the size that all of them fix, 0 if dynamic.
func inputs(m *onnxfile.Model, man *scorers.Manifest) (in []port, rows int, err error) {
	const op = "onnx.Probe"
	if len(m.Inputs) == 0 {
		return nil, 0, schemas.Errorf(schemas.Invalid, op, "the model has no inputs: nothing could be scored")
	}
	notes, err := annotations(man.Inputs, "input", m.Inputs)
	if err != nil {
		return nil, 0, err
	}
	for i, v := range m.Inputs {
		if v.Form != onnxfile.Tensor {
			return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, v.Name, "the input is a %s: only tensors are taken", v.Form)
		}
		if len(v.Dims) == 0 {
			return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, v.Name, "the input has no dimensions, so no place for rows: export it as [N, ...]")
		}
		size := int(max(v.Dims[0], 0))
		if i > 0 && size != rows {
			return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, v.Name, "the input takes %s, input %s takes %s: the first dimension of all inputs must be the rows", rowWord(size), m.Inputs[0].Name, rowWord(rows))
		}
		rows = size
		note := notes[v.Name]
		tail, err := inputTail(v, note)
		if err != nil {
			return nil, 0, err
		}
		p, err := newPort(op, v.Name, v.Elem, tail, true)
		if err != nil {
			return nil, 0, err
		}
		if note.Nullable && !p.field.Type.Float() && p.field.Type != schemas.String {
			return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, v.Name, "model.yaml says nullable, but a tensor of %s has no value for null: only floats (NaN) and strings (empty) have", p.field.Type)
		}
		p.field.Nullable, p.field.Features = note.Nullable, note.Features
		in = append(in, p)
	}
	return in, rows, nil
}

func rowWord(n int) string {
	switch n {
	case 0:
		return "any number of rows"
	case 1:
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// inputTail returns the dimensions after the rows; one that the file leaves open comes from the feature names.
func inputTail(v onnxfile.Value, note scorers.Annotation) ([]int, error) {
	const op = "onnx.Probe"
	tail := make([]int, len(v.Dims)-1)
	open, known := -1, 1
	for i, d := range v.Dims[1:] {
		tail[i] = int(d)
		switch {
		case d < 0 && open >= 0:
			return nil, schemas.FieldErrorf(schemas.Invalid, op, v.Name, "dimensions %d and %d are not fixed by the file: export the model with fixed ones", open+1, i+1)
		case d < 0:
			open = i
		case d > schemas.MaxRowElements || known > schemas.MaxRowElements/int(d):
			return nil, schemas.FieldErrorf(schemas.Invalid, op, v.Name, "dimensions %v: at most %d elements a row", v.Dims[1:], schemas.MaxRowElements)
		default:
			known *= int(d)
		}
	}
	if open >= 0 {
		n := len(note.Features)
		if n == 0 || n%known != 0 {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, v.Name, "dimension %d is not fixed by the file: list the names of the features in model.yaml (inputs: [{name: %s, features: [...]}]), or export the model with a fixed one", open+1, v.Name)
		}
		tail[open] = n / known
	}
	return tail, nil
}

// annotations returns the manifest's entries by name; each must name a value that exists.
func annotations(as []scorers.Annotation, what string, vs []onnxfile.Value) (map[string]scorers.Annotation, error) {
	by := map[string]scorers.Annotation{}
	for _, a := range as {
		if !slices.ContainsFunc(vs, func(v onnxfile.Value) bool { return v.Name == a.Name }) {
			names := make([]string, len(vs))
			for i, v := range vs {
				names[i] = v.Name
			}
			return nil, schemas.FieldErrorf(schemas.Invalid, "onnx.Probe", what+"s."+a.Name, "model.yaml names an %s that the model does not have; it has %q", what, names)
		}
		if _, twice := by[a.Name]; twice {
			return nil, schemas.FieldErrorf(schemas.Invalid, "onnx.Probe", what+"s."+a.Name, "model.yaml names the %s twice", what)
		}
		by[a.Name] = a
	}
	return by, nil
}

// signature checks names, shapes and features and gives the ports the fields as the schemas hold them.
func signature(in, out []port) (schemas.Signature, error) {
	is, err := schema(in)
	if err != nil {
		return schemas.Signature{}, err
	}
	os, err := schema(out)
	return schemas.Signature{Inputs: is, Outputs: os}, err
}

func schema(ps []port) (*schemas.Schema, error) {
	fs := make([]schemas.Field, len(ps))
	for i := range ps {
		fs[i] = ps[i].field
	}
	return schemas.NewSchema(fs)
}
