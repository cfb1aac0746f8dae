package onnxfile

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/leatstream/leat/schemas"
)

// maxDepth bounds nested subgraphs. Real models nest two or three deep.
const maxDepth = 16

// kind is a message type of onnx.proto, as far as weights or nodes can lie beneath it.
type kind uint8

const (
	leaf kind = iota
	model
	graph
	node
	attribute
	tensor
	sparse
	function
	training
)

// children says which fields of a message hold messages that matter.
var children = map[kind]map[protowire.Number]kind{
	model:     {7: graph, 20: training, 25: function},
	graph:     {1: node, 5: tensor, 15: sparse},
	node:      {5: attribute},
	attribute: {5: tensor, 6: graph, 10: tensor, 11: graph, 22: sparse, 23: sparse},
	sparse:    {1: tensor, 2: tensor},
	function:  {7: node, 11: attribute},
	training:  {1: graph, 2: graph},
}

// singular are the message fields that may come once. Protobuf merges repeats of them, so that a tensor could be spread
// over two occurrences, neither of which looks external.
var singular = map[kind][]protowire.Number{
	model:     {7},
	attribute: {5, 6, 22},
	sparse:    {1, 2},
	training:  {1, 2},
}

// field is one field of a message; raw is tag and value, val the payload of a length-delimited one.
type field struct {
	num protowire.Number
	typ protowire.Type
	raw []byte
	val []byte
	n   uint64 // value of a varint
}

func broken(what string) error {
	return schemas.Errorf(schemas.Invalid, "onnxfile", "not a valid ONNX file: %s", what)
}

// each calls fn for every field of a message, in order.
func each(b []byte, fn func(f field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return broken("damaged field tag")
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return broken("damaged or truncated field")
		}
		f := field{num: num, typ: typ, raw: b[:n+m]}
		switch typ {
		case protowire.BytesType:
			f.val, _ = protowire.ConsumeBytes(b[n:])
		case protowire.VarintType:
			f.n, _ = protowire.ConsumeVarint(b[n:])
		}
		if err := fn(f); err != nil {
			return err
		}
		b = b[n+m:]
	}
	return nil
}

// packed calls fn for the varints of a repeated field, packed or not.
func packed(f field, fn func(n uint64)) error {
	if f.typ == protowire.VarintType {
		fn(f.n)
		return nil
	}
	for b := f.val; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return broken("damaged packed field")
		}
		fn(v)
		b = b[n:]
	}
	return nil
}

func appendMessage(dst []byte, num protowire.Number, val []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), val)
}

func appendText(dst []byte, num protowire.Number, val string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), val)
}

func appendNumber(dst []byte, num protowire.Number, val uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), val)
}

// editTensors returns b, a message of kind k, with every tensor beneath it passed through fn, which returns its argument
// when there is nothing to change. b itself comes back when nothing changed.
func editTensors(k kind, b []byte, depth int, fn func(t []byte) ([]byte, error)) ([]byte, error) {
	if k == tensor {
		return fn(b)
	}
	if depth > maxDepth*4 { // graph, node, attribute, graph: up to four messages a level
		return nil, broken("subgraphs nested too deep")
	}
	if err := checkSingular(k, b); err != nil {
		return nil, err
	}
	var out []byte // nil until a field changes
	at := 0
	err := each(b, func(f field) error {
		child := children[k][f.num]
		if child == leaf || f.typ != protowire.BytesType {
			if out != nil {
				out = append(out, f.raw...)
			}
			at += len(f.raw)
			return nil
		}
		v, err := editTensors(child, f.val, depth+1, fn)
		if err != nil {
			return err
		}
		same := len(v) == len(f.val) && (len(v) == 0 || &v[0] == &f.val[0])
		if !same && out == nil {
			out = append(make([]byte, 0, len(b)+len(v)), b[:at]...)
		}
		switch {
		case same && out != nil:
			out = append(out, f.raw...)
		case !same:
			out = appendMessage(out, f.num, v)
		}
		at += len(f.raw)
		return nil
	})
	if err != nil || out == nil {
		return b, err
	}
	return out, nil
}

func checkSingular(k kind, b []byte) error {
	once := singular[k]
	if once == nil {
		return nil
	}
	var seen [32]bool
	return each(b, func(f field) error {
		for _, n := range once {
			if f.num != n {
				continue
			}
			if seen[n] {
				return broken("a field that may come once comes twice")
			}
			seen[n] = true
		}
		return nil
	})
}
