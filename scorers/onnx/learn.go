package onnx

import (
	"slices"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
)

// opened is a model on its way to a scorer.
type opened struct {
	op      string
	man     scorers.Manifest
	bytes   []byte
	file    *onnxfile.Model
	in, out []port
	fixed   int // rows that every run must have, 0: any
	level   level
	failed  error // why a more daring level did not run
	session *ort.DynamicAdvancedSession
	sig     schemas.Signature
}

// read looks into the file: everything that can be refused without running it is refused here.
func (o *opened) read() error {
	var err error
	if o.file, err = onnxfile.Parse(o.bytes); err != nil {
		return err
	}
	if err := o.file.CheckDomains(); err != nil {
		return err
	}
	if err := onnxfile.CheckSelfContained(o.bytes); err != nil {
		return err
	}
	if len(o.file.Outputs) == 0 {
		return schemas.Errorf(schemas.Invalid, o.op, "the model has no outputs")
	}
	for _, v := range o.file.Outputs {
		if v.Form != onnxfile.Tensor && v.Form != onnxfile.Unknown {
			return schemas.FieldErrorf(schemas.Invalid, o.op, v.Name, "the output is a %s: only tensors are given back (a ZipMap right before an output is removed at push, others are not): export the model with tensor outputs", v.Form)
		}
	}
	if _, err := annotations(o.man.Outputs, "output", o.file.Outputs); err != nil {
		return err
	}
	o.in, o.fixed, err = inputs(o.file, &o.man)
	return err
}

// asked is an output as a learning run asks for it.
type asked struct {
	name  string // the output
	shape bool   // ask for its shape, not for itself
}

// learn runs the model twice, on 2 and on 3 rows, and makes ports of the outputs that came.
func (o *opened) learn() error {
	var ask []asked
	var odd []string // outputs whose shape the binding cannot report
	for _, v := range o.file.Outputs {
		a := asked{name: v.Name, shape: v.Form == onnxfile.Tensor && (len(v.Dims) == 0 || v.Elem == onnxfile.Float16)}
		if a.shape {
			odd = append(odd, v.Name)
		}
		ask = append(ask, a)
	}
	bytes := o.bytes
	if len(odd) > 0 {
		var err error
		if bytes, err = onnxfile.WithShapes(o.bytes, odd); err != nil {
			return err
		}
	}
	s, err := newSession(o.op, bytes, o.inputNames(), askedNames(ask))
	if err != nil {
		return err
	}
	seen, err := o.observe(s, ask)
	if err != nil {
		s.Destroy()
		return err
	}
	lies := o.lies(seen)
	if len(odd) > 0 || len(lies) > 0 {
		s.Destroy()
		if o.bytes, err = onnxfile.WithoutShapes(o.bytes, lies); err != nil {
			return err
		}
		if s, err = newSession(o.op, o.bytes, o.inputNames(), nil); err != nil {
			return err
		}
	}
	o.session = s
	if err := o.outputs(seen); err != nil {
		s.Destroy()
		return err
	}
	return nil
}

// lies returns the outputs that came in another shape than the file declares: LightGBM's label says [1] and is [N].
func (o *opened) lies(all []seen) []string {
	var names []string
	for i, v := range o.file.Outputs {
		for _, x := range all {
			sh := x.shapes[i]
			if !v.Shaped || slices.EqualFunc(v.Dims, sh, func(d, n int64) bool { return d < 0 || d == n }) {
				continue
			}
			names = append(names, v.Name)
			break
		}
	}
	return names
}

func (o *opened) inputNames() []string {
	names := make([]string, len(o.in))
	for i := range o.in {
		names[i] = o.in[i].field.Name
	}
	return names
}

func askedNames(ask []asked) []string {
	names := make([]string, len(ask))
	for i, a := range ask {
		if names[i] = a.name; a.shape {
			names[i] = onnxfile.ShapeOf(a.name)
		}
	}
	return names
}

// seen is what came out for some number of rows.
type seen struct {
	rows   int
	elems  []onnxfile.Elem
	shapes []ort.Shape
}

// observe runs the model on the most daring rows that it takes.
func (o *opened) observe(s *ort.DynamicAdvancedSession, ask []asked) ([]seen, error) {
	sizes := []int{2, 3}
	if o.fixed > 0 {
		sizes = []int{o.fixed}
	}
	var first error
	for o.level = wide; o.level < levels; o.level++ {
		var all []seen
		var err error
		for _, rows := range sizes {
			var x seen
			if x, err = o.observeRows(s, ask, rows); err != nil {
				break
			}
			all = append(all, x)
		}
		if err == nil {
			o.failed = first
			return all, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, schemas.Errorf(schemas.Invalid, o.op, "the model fails on every kind of row that was tried: %w", first)
}

func (o *opened) observeRows(s *ort.DynamicAdvancedSession, ask []asked, rows int) (seen, error) {
	x := seen{rows: rows}
	is, err := schema(o.in)
	if err != nil {
		return x, err
	}
	b, err := newBound(s, o.in, nil, rows)
	if err != nil {
		return x, err
	}
	defer b.destroy()
	if err := b.fill(synthetic(is, o.file, o.level, rows), 0, rows); err != nil {
		return x, err
	}
	in := make([]ort.Value, len(b.in))
	for i := range b.in {
		in[i] = b.in[i].value
	}
	out := make([]ort.Value, len(ask))
	defer func() {
		for _, v := range out {
			if v != nil {
				v.Destroy()
			}
		}
	}()
	if err := s.Run(in, out); err != nil {
		return x, runError(o.op, err)
	}
	for i, a := range ask {
		switch v := out[i].(type) {
		case *ort.Tensor[int64]:
			if a.shape {
				x.shapes = append(x.shapes, slices.Clone(ort.Shape(v.GetData())))
				x.elems = append(x.elems, o.file.Outputs[i].Elem)
				continue
			}
		case *ort.Sequence, *ort.Map:
			return x, schemas.FieldErrorf(schemas.Invalid, o.op, a.name, "the output is not a tensor")
		}
		x.shapes = append(x.shapes, out[i].GetShape())
		x.elems = append(x.elems, onnxfile.Elem(out[i].DataType()))
	}
	return x, nil
}

// outputs makes ports of what was seen and closes the signature.
func (o *opened) outputs(all []seen) error {
	reached := o.file.FromInputs()
	notes, err := annotations(o.man.Outputs, "output", o.file.Outputs)
	if err != nil {
		return err
	}
	asking := 0
	for i, v := range o.file.Outputs {
		tail, lead, err := o.tailOf(i, all)
		if err != nil {
			return err
		}
		rank0 := len(all[0].shapes[i]) == 0
		p, err := newPort(o.op, v.Name, all[0].elems[i], tail, lead)
		if err != nil {
			return err
		}
		if rank0 {
			if reached[v.Name] {
				return schemas.FieldErrorf(schemas.Invalid, o.op, v.Name, "the output is one value for all rows of a run, which mixes rows of different callers: export the model with an output of [N] or [N, ...]")
			}
			if p.fixed, err = o.constant(&p); err != nil {
				return err
			}
		} else {
			asking++
		}
		if notes[v.Name].Nullable {
			return schemas.FieldErrorf(schemas.Invalid, o.op, v.Name, "model.yaml says nullable, but outputs are never null")
		}
		p.field.Features = notes[v.Name].Features
		o.out = append(o.out, p)
	}
	if asking == 0 {
		return schemas.Errorf(schemas.Invalid, o.op, "no output depends on a row")
	}
	o.sig, err = signature(o.in, o.out)
	return err
}

// tailOf returns the dimensions of output i after the rows, and whether it has a dimension of rows.
func (o *opened) tailOf(i int, all []seen) (tail []int, lead bool, err error) {
	name := o.file.Outputs[i].Name
	a := all[0].shapes[i]
	if len(a) == 0 {
		return nil, false, nil
	}
	for _, x := range all {
		sh := x.shapes[i]
		if o.fixed == 1 && sh[0] != 1 {
			return dims(sh), false, nil // a one-row model without a dimension of rows: everything is the row
		}
		if sh[0] != int64(x.rows) {
			return nil, false, schemas.FieldErrorf(schemas.Invalid, o.op, name, "the output has %d rows for %d rows in (shape %v): its first dimension must be the rows", sh[0], x.rows, sh)
		}
		if !slices.Equal(sh[1:], a[1:]) {
			return nil, false, schemas.FieldErrorf(schemas.Invalid, o.op, name, "the output's shape changes with the rows: %v for %d rows, %v for %d", a, all[0].rows, sh, x.rows)
		}
	}
	return dims(a[1:]), true, nil
}

func dims(s ort.Shape) []int {
	d := make([]int, len(s))
	for i, n := range s {
		d[i] = int(n)
	}
	return d
}

// constant returns the bytes of an output of rank 0 that no input reaches.
func (o *opened) constant(p *port) ([]byte, error) {
	name := p.field.Name
	s, err := newSession(o.op, o.bytes, o.inputNames(), []string{name})
	if err != nil {
		return nil, err
	}
	defer s.Destroy()
	v, bytes, err := scalar(p.field.Type)
	if err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, o.op, name, "a constant output of type %s is not carried: %w", p.field.Type, err)
	}
	defer v.Destroy()
	rows := max(o.fixed, 1)
	b, err := newBound(s, o.in, nil, rows)
	if err != nil {
		return nil, err
	}
	defer b.destroy()
	is, err := schema(o.in)
	if err != nil {
		return nil, err
	}
	if err := b.fill(synthetic(is, o.file, o.level, rows), 0, rows); err != nil {
		return nil, err
	}
	in := make([]ort.Value, len(b.in))
	for i := range b.in {
		in[i] = b.in[i].value
	}
	if err := s.Run(in, []ort.Value{v}); err != nil {
		return nil, runError(o.op, err)
	}
	return bytes(), nil
}

// scalar returns a value of rank 0 and a function that reads its bytes.
func scalar(t schemas.DType) (ort.Value, func() []byte, error) {
	switch t {
	case schemas.Bool:
		return scalarOf[bool]()
	case schemas.Int8:
		return scalarOf[int8]()
	case schemas.Int16:
		return scalarOf[int16]()
	case schemas.Int32:
		return scalarOf[int32]()
	case schemas.Int64:
		return scalarOf[int64]()
	case schemas.Uint8:
		return scalarOf[uint8]()
	case schemas.Uint16:
		return scalarOf[uint16]()
	case schemas.Uint32:
		return scalarOf[uint32]()
	case schemas.Uint64:
		return scalarOf[uint64]()
	case schemas.Float32:
		return scalarOf[float32]()
	case schemas.Float64:
		return scalarOf[float64]()
	}
	return nil, nil, schemas.ErrUnsupported
}

func scalarOf[T ort.TensorData]() (ort.Value, func() []byte, error) {
	s, err := ort.NewEmptyScalar[T]()
	if err != nil {
		return nil, nil, err
	}
	return s, func() []byte {
		v := s.GetData()
		return slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)))
	}, nil
}
