package oip

import (
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

// encoder answers one request.
type encoder struct {
	id        string
	allBinary bool
	wanted    []wanted // nil: all outputs
}

// wanted is one member of the request's "outputs".
type wanted struct {
	name   string
	binary int8 // 0: as the request says for all; 1 yes; -1 no
}

var plainEncoder schemas.Encoder = &encoder{}

// Plain returns the encoder of all outputs as JSON, for answers to nobody's request.
func Plain() schemas.Encoder { return plainEncoder }

func (e *encoder) plain() bool { return e.id == "" && !e.allBinary && e.wanted == nil }

// RequestID implements schemas.Identified.
func (e *encoder) RequestID() string { return e.id }

// CheckOutputs implements schemas.OutputChecker: a requested output that the schema does not have is Invalid.
func (e *encoder) CheckOutputs(s *schemas.Schema) error {
	for _, w := range e.wanted {
		if s.Index(w.name) < 0 {
			return schemas.FieldErrorf(schemas.Invalid, op, "outputs."+clip(w.name), "unknown output; the outputs are: %s", s)
		}
	}
	return nil
}

// outputs reads the request's "outputs".
func (d *decoder) outputs() bool {
	s := &d.scan
	if !s.Open('[') {
		return false
	}
	for n := 0; s.More(']', n); n++ {
		if n == schemas.MaxColumns {
			return s.Fail("more than %d outputs", schemas.MaxColumns)
		}
		if !s.Open('{') {
			return false
		}
		var w wanted
		for k := 0; s.More('}', k); k++ {
			if !d.outputMember(&w) {
				return false
			}
		}
		if s.Err() != nil {
			return false
		}
		if w.name == "" {
			return s.Fail("an output without a name")
		}
		for _, o := range d.enc.wanted {
			if o.name == w.name {
				return s.Fail("output %q is asked for twice", clip(w.name))
			}
		}
		d.enc.wanted = append(d.enc.wanted, w)
	}
	return s.Err() == nil
}

func (d *decoder) outputMember(w *wanted) bool {
	s := &d.scan
	k, ok := s.Key()
	if !ok {
		return false
	}
	switch string(k) {
	case "name":
		v, ok := s.String()
		if len(v) > schemas.MaxColumnName {
			return s.Fail("unknown output %q", clip(string(v)))
		}
		w.name = string(v)
		return ok
	case "datatype", "shape": // some clients repeat the metadata
		return s.Skip()
	case "parameters":
		return d.parameters(func(k []byte) bool {
			switch string(k) {
			case "binary_data":
				v, ok := s.Bool()
				w.binary = -1
				if v {
					w.binary = 1
				}
				return ok
			case "classification":
				return s.Fail("the classification extension is not spoken")
			}
			return s.Skip()
		})
	}
	return s.Fail("unknown name %q in an output", clip(string(k)))
}

// EncodeRows implements schemas.Encoder. A requested output that is unknown is Invalid, and so are nulls that a binary
// tensor cannot carry. The protocol has no place for errors of single rows: if there are any, the first is returned.
func (e *encoder) EncodeRows(dst []byte, h schemas.Header, out *schemas.Batch, from, to int, a *schemas.Answer) ([]byte, error) {
	if a != nil && len(a.Errs) > 0 {
		return dst, a.Errs[0].Err
	}
	if err := e.CheckOutputs(out.Schema()); err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(dst, '{')
	id := e.id
	if a != nil {
		dst = member(dst, `"model_name":`, a.Model)
		dst = member(dst, `"model_version":`, a.Version)
		if id == "" {
			id = a.RequestID
		}
	}
	dst = member(dst, `"id":`, id)
	if a != nil && (a.Answered != "" || a.Fallback != "") {
		dst = append(dst, `"parameters":{`...)
		dst = member(dst, `"answered":`, a.Answered)
		dst = member(dst, `"fallback":`, a.Fallback)
		dst = append(dst[:len(dst)-1], "},"...) // without the last comma
	}
	dst = append(dst, `"outputs":[`...)
	n := len(e.wanted)
	if e.wanted == nil {
		n = out.Schema().Len()
	}
	anyBinary := false
	for i := range n {
		c, bin := e.output(out, i)
		if i > 0 {
			dst = append(dst, ',')
		}
		if bin {
			anyBinary = true
			if c.Nulls() > 0 && !c.Field().Type.Float() {
				return dst[:start], schemas.FieldErrorf(schemas.Invalid, op, c.Field().Name, "a null that a binary tensor cannot carry: ask for JSON")
			}
		}
		dst = appendTensor(dst, c, from, to, bin)
	}
	dst = append(dst, "]}"...)
	h[schemas.HeaderContentType] = typeJSON
	if !anyBinary {
		return dst, nil
	}
	h[schemas.HeaderContentType] = typeBinary
	h.Set(HeaderLength, strconv.Itoa(len(dst)-start))
	for i := range n {
		if c, bin := e.output(out, i); bin {
			dst = appendBinary(dst, c, from, to)
		}
	}
	return dst, nil
}

// output returns the column of the answer's output i, and whether it goes as bytes.
func (e *encoder) output(out *schemas.Batch, i int) (*schemas.Column, bool) {
	if e.wanted == nil {
		return out.Column(i), e.allBinary
	}
	w := &e.wanted[i]
	return out.Column(out.Schema().Index(w.name)), w.binary > 0 || w.binary == 0 && e.allBinary
}

func member(dst []byte, key, v string) []byte {
	if v == "" {
		return dst
	}
	dst = append(dst, key...)
	dst = jsonscan.AppendString(dst, v)
	return append(dst, ',')
}

func appendTensor(dst []byte, c *schemas.Column, from, to int, bin bool) []byte {
	f := c.Field()
	t := f.Type
	if t == schemas.Timestamp {
		t = schemas.Int64
	}
	dst = append(dst, `{"name":`...)
	dst = jsonscan.AppendString(dst, f.Name)
	dst = append(dst, `,"datatype":"`...)
	dst = append(dst, Datatype(t)...)
	dst = append(dst, `","shape":[`...)
	dst = strconv.AppendInt(dst, int64(to-from), 10)
	for _, n := range f.Shape {
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, int64(n), 10)
	}
	if bin {
		dst = append(dst, `],"parameters":{"binary_data_size":`...)
		dst = strconv.AppendInt(dst, int64(binarySize(c, from, to)), 10)
		return append(dst, "}}"...)
	}
	dst = append(dst, `],"data":[`...)
	w := c.Width()
	for e := from * w; e < to*w; e++ {
		if e > from*w {
			dst = append(dst, ',')
		}
		if c.IsNull(e / w) {
			dst = append(dst, "null"...)
		} else {
			dst = jsonscan.AppendElement(dst, c, t, e)
		}
	}
	return append(dst, "]}"...)
}

func binarySize(c *schemas.Column, from, to int) int {
	a, z := from*c.Width(), to*c.Width()
	if o := c.Offsets(); o != nil {
		return 4*(z-a) + int(o[z]-o[a])
	}
	return (z - a) * c.Field().Type.Size()
}

func appendBinary(dst []byte, c *schemas.Column, from, to int) []byte {
	a, z := from*c.Width(), to*c.Width()
	dst = slices.Grow(dst, binarySize(c, from, to))
	if c.Offsets() == nil {
		size := c.Field().Type.Size()
		return append(dst, c.Data()[a*size:z*size]...)
	}
	for e := a; e < z; e++ {
		v := c.Text(e)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v)))
		dst = append(dst, v...)
	}
	return dst
}
