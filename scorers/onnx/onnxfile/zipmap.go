package onnxfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// ZipMapMark is the metadata key under which WithoutZipMap leaves what it did.
const ZipMapMark = "leat.zipmap"

// zipMap is a ZipMap node whose output is an output of the graph and goes nowhere else.
type zipMap struct {
	in, out string
	classes []string
}

// WithoutZipMap returns the model with each ZipMap between a tensor and an output of the graph replaced by Identity, which
// the runtime's optimizer drops: the output keeps its name and becomes a float tensor [rows, classes]. The classes' names,
// in order, go to the metadata under ZipMapMark. b itself comes back when there is none.
func WithoutZipMap(b []byte) ([]byte, error) {
	m, err := Parse(b)
	if err != nil {
		return nil, err
	}
	found, err := m.zipMaps()
	if err != nil || len(found) == 0 {
		return b, err
	}
	out := make([]byte, 0, len(b)+256)
	err = each(b, func(f field) error {
		if f.num != 7 || f.typ != protowire.BytesType {
			out = append(out, f.raw...)
			return nil
		}
		g, err := unzip(f.val, found)
		out = appendMessage(out, 7, g)
		return err
	})
	if err != nil {
		return nil, err
	}
	var notes []string
	for _, v := range m.Outputs {
		if z, ok := found[v.Name]; ok {
			notes = append(notes, fmt.Sprintf("%s is a tensor of the classes %s", z.out, strings.Join(z.classes, ", ")))
		}
	}
	var meta []byte
	meta = appendText(meta, 1, ZipMapMark)
	meta = appendText(meta, 2, strings.Join(notes, "; "))
	return appendMessage(out, 14, meta), nil
}

func (m *Model) zipMaps() (map[string]zipMap, error) {
	outputs, uses := map[string]bool{}, map[string]int{}
	for _, v := range m.Outputs {
		outputs[v.Name] = true
	}
	for _, n := range m.Nodes {
		for _, in := range n.Inputs {
			uses[in]++
		}
	}
	found := map[string]zipMap{}
	for _, n := range m.Nodes {
		if n.Op != "ZipMap" || n.Domain != "ai.onnx.ml" || len(n.Inputs) != 1 || len(n.Outputs) != 1 {
			continue
		}
		if !outputs[n.Outputs[0]] || uses[n.Outputs[0]] > 0 {
			continue
		}
		classes, err := classLabels(n.raw)
		if err != nil {
			return nil, err
		}
		if len(classes) == 0 {
			return nil, broken("a ZipMap node without class labels")
		}
		found[n.Outputs[0]] = zipMap{in: n.Inputs[0], out: n.Outputs[0], classes: classes}
	}
	return found, nil
}

func classLabels(raw []byte) ([]string, error) {
	var labels []string
	err := each(raw, func(f field) error {
		if f.num != 5 || f.typ != protowire.BytesType {
			return nil
		}
		return each(f.val, func(a field) error {
			switch a.num {
			case 8: // ints
				return packed(a, func(v uint64) { labels = append(labels, strconv.FormatInt(int64(v), 10)) })
			case 9: // strings
				labels = append(labels, strings.ToValidUTF8(string(a.val), "?"))
			}
			return nil
		})
	})
	return labels, err
}

// unzip rewrites a GraphProto: the nodes and the declared outputs.
func unzip(g []byte, found map[string]zipMap) ([]byte, error) {
	out := make([]byte, 0, len(g))
	err := each(g, func(f field) error {
		var z zipMap
		var hit bool
		switch {
		case f.typ != protowire.BytesType:
		case f.num == 1:
			var n Node
			n, err := (&Model{Domains: map[string]bool{}, Ops: map[string]bool{}}).node(f.val, 0)
			if err != nil {
				return err
			}
			if n.Op == "ZipMap" && len(n.Outputs) == 1 {
				z, hit = found[n.Outputs[0]]
			}
			if hit {
				out = appendMessage(out, 1, nodeProto("Identity", []string{z.in}, z.out))
				return nil
			}
		case f.num == 12:
			v, err := value(f.val)
			if err != nil {
				return err
			}
			if z, hit = found[v.Name]; hit {
				out = appendMessage(out, 12, tensorInfo(z.out, Float32, -1, int64(len(z.classes))))
				return nil
			}
		}
		out = append(out, f.raw...)
		return nil
	})
	return out, err
}

func nodeProto(op string, in []string, out string) []byte {
	var b []byte
	for _, n := range in {
		b = appendText(b, 1, n)
	}
	b = appendText(b, 2, out)
	b = appendText(b, 3, "leat/"+out)
	return appendText(b, 4, op)
}

// tensorInfo is a ValueInfoProto; a negative dimension is the rows.
func tensorInfo(name string, elem Elem, dims ...int64) []byte {
	var shape []byte
	for _, d := range dims {
		var dim []byte
		if d < 0 {
			dim = appendText(dim, 2, "N")
		} else {
			dim = appendNumber(dim, 1, uint64(d))
		}
		shape = appendMessage(shape, 1, dim)
	}
	t := appendNumber(nil, 1, uint64(elem))
	t = appendMessage(t, 2, shape)
	b := appendText(nil, 1, name)
	return appendMessage(b, 2, appendMessage(nil, 1, t))
}

// ShapeOf returns the name of the output that WithShapes adds for another.
func ShapeOf(output string) string { return "leat/shape/" + output }

// WithShapes returns the model with one more int64 output, ShapeOf(name), for each of the named outputs: its true shape.
// The binding can learn no shape of an output of rank 0 or of float16 in another way.
func WithShapes(b []byte, names []string) ([]byte, error) {
	out := make([]byte, 0, len(b)+128*len(names))
	err := each(b, func(f field) error {
		if f.num != 7 || f.typ != protowire.BytesType {
			out = append(out, f.raw...)
			return nil
		}
		g := append(make([]byte, 0, len(f.val)+128*len(names)), f.val...)
		for _, n := range names {
			g = appendMessage(g, 1, nodeProto("Shape", []string{n}, ShapeOf(n)))
			// A vector of as many elements as the output has dimensions: not known here, so no shape is declared.
			t := appendMessage(nil, 1, appendNumber(nil, 1, uint64(Int64)))
			g = appendMessage(g, 12, appendMessage(appendText(nil, 1, ShapeOf(n)), 2, t))
		}
		out = appendMessage(out, 7, g)
		return nil
	})
	return out, err
}

// WithoutShapes returns the model with no shape declared for the named outputs. The runtime refuses memory of the true shape
// for an output whose declared shape is another.
func WithoutShapes(b []byte, names []string) ([]byte, error) {
	out := make([]byte, 0, len(b))
	err := each(b, func(f field) error {
		if f.num != 7 || f.typ != protowire.BytesType {
			out = append(out, f.raw...)
			return nil
		}
		g := make([]byte, 0, len(f.val))
		err := each(f.val, func(f field) error {
			if f.num == 12 && f.typ == protowire.BytesType {
				v, err := value(f.val)
				if err != nil {
					return err
				}
				if v.Form == Tensor && slices.Contains(names, v.Name) {
					t := appendMessage(nil, 1, appendNumber(nil, 1, uint64(v.Elem)))
					g = appendMessage(g, 12, appendMessage(appendText(nil, 1, v.Name), 2, t))
					return nil
				}
			}
			g = append(g, f.raw...)
			return nil
		})
		out = appendMessage(out, 7, g)
		return err
	})
	return out, err
}
