package badinput

import (
	"os"
	"path/filepath"
	"testing"
)

// typed writes a model of columns of other types than float: int8 "small", int64 "whole", bool "flag" and string "word",
// each given back as it came. ONNX is protobuf: onnx/onnx.proto names the numbers.
func typed(t *testing.T) string {
	t.Helper()
	const int8T, int64T, stringT, boolT = 3, 7, 8, 9
	var graph []byte
	columns := []struct {
		name string
		elem byte
	}{{"small", int8T}, {"whole", int64T}, {"flag", boolT}, {"word", stringT}}
	for _, c := range columns {
		graph = append(graph, message(1, text(1, c.name), text(2, c.name+"_out"), text(4, "Identity"))...)
	}
	graph = append(graph, text(2, "typed")...)
	for _, c := range columns {
		for field, name := range map[byte]string{11: c.name, 12: c.name + "_out"} {
			shape := message(2, message(1, text(2, "N")), message(1, number(1, 1)))
			graph = append(graph, message(field, text(1, name), message(2, message(1, number(1, c.elem), shape)))...)
		}
	}
	model := append(number(1, 8), message(7, graph)...)
	model = append(model, message(8, text(1, ""), number(2, 17))...)
	dir := t.TempDir()
	for name, b := range map[string][]byte{"model.onnx": model, "model.yaml": []byte("name: typed\nfile: model.onnx\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func message(field byte, parts ...[]byte) []byte {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	out := []byte{field<<3 | 2}
	for n := len(body); ; n >>= 7 {
		if n < 0x80 {
			return append(append(out, byte(n)), body...)
		}
		out = append(out, byte(n)|0x80)
	}
}

func text(field byte, s string) []byte { return message(field, []byte(s)) }
func number(field byte, v byte) []byte { return []byte{field << 3, v} }
