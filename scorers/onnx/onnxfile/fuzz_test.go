package onnxfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/leatstream/leat/schemas"
)

// models returns the test models that are small enough to be seeds.
func models(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("../testdata/*.onnx")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test models: %v", err)
	}
	ms := map[string][]byte{}
	for _, p := range append(paths, "../testdata/external/model.onnx") {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		ms[p] = b
	}
	return ms
}

// FuzzEdit feeds hostile bytes to everything that reads or edits a file. Whatever is taken stays readable, keeps its inputs,
// and an edit done twice changes nothing the second time.
func FuzzEdit(f *testing.F) {
	for _, b := range models(f) {
		if len(b) < 16<<10 {
			f.Add(b)
			f.Add(b[:len(b)/2])
		}
	}
	f.Add(bomb(maxDepth * 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			invalid(t, err)
			return
		}
		m.FromInputs()
		invalid(t, m.CheckDomains())
		inside, err := Inline(b, func(e External) ([]byte, error) {
			if e.Length > 1<<20 || e.Location == "" || e.Offset < 0 {
				return nil, schemas.Errorf(schemas.Invalid, "test", "too much")
			}
			return make([]byte, e.Length), nil
		})
		if err != nil {
			invalid(t, err)
			return
		}
		if err := CheckSelfContained(inside); err != nil {
			t.Fatalf("inlined, and not self-contained: %v", err)
		}
		flat, err := WithoutZipMap(inside)
		if err != nil {
			invalid(t, err)
			return
		}
		again, err := WithoutZipMap(flat)
		if err != nil || string(again) != string(flat) {
			t.Fatalf("removing ZipMap twice: %v", err)
		}
		var names []string
		for _, v := range m.Outputs {
			names = append(names, v.Name)
		}
		for _, edit := range []func([]byte, []string) ([]byte, error){WithShapes, WithoutShapes} {
			e, err := edit(flat, names)
			if err != nil {
				t.Fatal(err)
			}
			n, err := Parse(e)
			if err != nil || len(n.Inputs) != len(m.Inputs) {
				t.Fatalf("edited: %v", err)
			}
		}
	})
}

func invalid(t *testing.T, err error) {
	t.Helper()
	var e *schemas.Error
	if err != nil && (!errors.As(err, &e) || e.Kind != schemas.Invalid || strings.Contains(err.Error(), "\n")) {
		t.Fatalf("want one line and Invalid, got %v", err)
	}
}

// bomb is a model whose nodes hold subgraphs nested so deep.
func bomb(depth int) []byte {
	var g []byte
	for range depth {
		a := appendMessage(nil, 6, g)
		n := appendMessage(nil, 5, a)
		g = appendMessage(nil, 1, n)
	}
	return appendMessage(nil, 7, g)
}

func TestHostileFiles(t *testing.T) {
	node := nodeProto("Identity", []string{"x"}, "y")
	tensorWith := func(fields ...[]byte) []byte {
		var tp []byte
		for _, f := range fields {
			tp = append(tp, f...)
		}
		return appendMessage(nil, 7, appendMessage(nil, 5, tp))
	}
	entry := func(k, v string) []byte { return appendMessage(nil, 13, appendText(appendText(nil, 1, k), 2, v)) }
	float := appendNumber(nil, 2, uint64(Float32))
	outside := appendNumber(nil, 14, 1)
	for name, b := range map[string][]byte{
		"nothing":                        nil,
		"subgraphs too deep":             bomb(200),
		"two graphs":                     append(appendMessage(nil, 7, node), appendMessage(nil, 7, node)...),
		"truncated":                      appendMessage(nil, 7, node)[:5],
		"a length past the end":          protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.BytesType), 1<<40),
		"an overflowing shape":           tensorWith(appendNumber(nil, 1, 1<<31), appendNumber(nil, 1, 1<<31), appendNumber(nil, 1, 1<<31), float, outside, entry("location", "w")),
		"a negative dimension":           tensorWith(appendNumber(nil, 1, ^uint64(0)), float, outside, entry("location", "w")),
		"2 GiB of weights":               tensorWith(appendNumber(nil, 1, 1<<29), float, outside, entry("location", "w")),
		"no location":                    tensorWith(appendNumber(nil, 1, 4), float, outside),
		"external strings":               tensorWith(appendNumber(nil, 1, 4), appendNumber(nil, 2, uint64(String)), outside, entry("location", "w")),
		"a length unlike the shape":      tensorWith(appendNumber(nil, 1, 4), float, outside, entry("location", "w"), entry("length", "17")),
		"an offset that is no number":    tensorWith(appendNumber(nil, 1, 4), float, outside, entry("location", "w"), entry("offset", "x")),
		"an offset before the beginning": tensorWith(appendNumber(nil, 1, 4), float, outside, entry("location", "w"), entry("offset", "-1")),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(b)
			if err == nil {
				_, err = Inline(b, func(e External) ([]byte, error) {
					t.Errorf("asked for %d bytes of %q at %d", e.Length, e.Location, e.Offset)
					return nil, nil
				})
			}
			if err == nil {
				t.Fatal("it was taken")
			}
			invalid(t, err)
		})
	}
}

// TestExternalInSubgraph: weights outside the file are seen wherever a tensor can lie.
func TestExternalInSubgraph(t *testing.T) {
	tp := appendNumber(appendNumber(nil, 1, 2), 2, uint64(Float32))
	tp = appendNumber(tp, 14, 1)
	tp = appendMessage(tp, 13, appendText(appendText(nil, 1, "location"), 2, "w.bin"))
	inNode := func(attr []byte) []byte { return appendMessage(nil, 1, appendMessage(nil, 5, attr)) }
	for name, g := range map[string][]byte{
		"an initializer":          appendMessage(nil, 5, tp),
		"a sparse initializer":    appendMessage(nil, 15, appendMessage(nil, 1, tp)),
		"a Constant node":         inNode(appendMessage(nil, 5, tp)),
		"a list of tensors":       inNode(appendMessage(nil, 10, tp)),
		"a sparse attribute":      inNode(appendMessage(nil, 22, appendMessage(nil, 2, tp))),
		"an initializer of an If": inNode(appendMessage(nil, 6, appendMessage(nil, 5, tp))),
	} {
		t.Run(name, func(t *testing.T) {
			b := appendMessage(nil, 7, g)
			if err := CheckSelfContained(b); err == nil {
				t.Error("not seen")
			}
			asked := 0
			in, err := Inline(b, func(e External) ([]byte, error) {
				asked++
				return []byte("12345678"), nil
			})
			if err != nil || asked != 1 || CheckSelfContained(in) != nil || !strings.Contains(string(in), "12345678") {
				t.Errorf("inlined %d times, %v", asked, err)
			}
		})
	}
	function := appendMessage(appendMessage(nil, 7, nil), 25, appendMessage(nil, 7, appendMessage(nil, 5, appendMessage(nil, 5, tp))))
	if err := CheckSelfContained(function); err == nil {
		t.Error("a function's tensor: not seen")
	}
}
