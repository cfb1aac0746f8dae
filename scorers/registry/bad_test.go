package registry_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/registry"
)

// badManifests is what people get wrong in model.yaml, and the line that says so.
var badManifests = []struct{ name, text, want string }{
	{"key", "name: m\nfeatures: [a]", `line 2: features: unknown key; want one of name, description, file, runtime, labels, inputs, outputs`},
	{"key near", "nmae: m", `line 1: nmae: unknown key; did you mean "name"?`},
	{"name", "name: My Model", `line 1: name: model name "My Model": want a lower-case letter`},
	{"name number", "name: 3", `line 1: name: want text, got a number: write "3" in quotes`},
	{"file up", "name: m\nfile: ../m.onnx", `line 2: file: file name "../m.onnx": want a relative path`},
	{"file root", "name: m\nfile: /m.onnx", `line 2: file: file name "/m.onnx"`},
	{"file dot", "name: m\nfile: ./m.onnx", `line 2: file: file name "./m.onnx"`},
	{"file windows", `{"name": "m", "file": "a\\m.onnx"}`, `line 1: file: file name "a\\m.onnx"`},
	{"file absent", "name: m\nfile: modle.onnx", `file: no file "modle.onnx" in the package; did you mean "model.onnx"?`},
	{"file itself", "name: m\nfile: model.yaml", `file: no file "model.yaml" in the package`},
	{"runtime", "name: m\nruntime: onx", `runtime: unknown runtime "onx"; did you mean "onnx"?`},
	{"runtime far", "name: m\nruntime: pickle", `runtime: unknown runtime "pickle"; want onnx`},
	{"labels list", "name: m\nlabels: [a]", `line 2: labels: want a map, got a list`},
	{"label number", "name: m\nlabels: {year: 2013}", `line 2: labels.year: want text, got a number: write "2013" in quotes`},
	{"label long", "name: m\nlabels: {a: " + strings.Repeat("x", 300) + "}", `line 2: labels.a: a label's name takes 1 to 256 bytes, its value up to 256`},
	{"description", "name: m\ndescription: " + strings.Repeat("x", 5000), `line 2: description: 5000 bytes: at most 4096`},
	{"inputs map", "name: m\ninputs: {a: b}", `line 2: inputs: want a list of maps with name, features, nullable, got a map`},
	{"input name", "name: m\ninputs:\n  - features: [a]", `line 3: inputs[0].name: missing; name the input or output of the model's file`},
	{"input key", "name: m\ninputs:\n  - name: a\n    nulable: true", `line 4: inputs[0].nulable: unknown key; did you mean "nullable"?`},
	{"input nullable", "name: m\ninputs:\n  - {name: a, nullable: yep}", `line 3: inputs[0].nullable: want true or false, got text ("yep")`},
	{"input twice", "name: m\ninputs: [{name: a}, {name: a}]", `line 2: inputs[1].name: "a" is at inputs[0] already`},
	{"input unknown", "name: m\ninputs: [{name: alpha}]", `inputs[0].name: the model has no input "alpha"; want one of a, b`},
	{"output unknown", "name: m\noutputs: [{name: smu}]", `outputs[0].name: the model has no output "smu"; did you mean "sum"?`},
	{"feature twice", "name: m\ninputs: [{name: a, features: [x, x]}]", `inputs[0].features[1]: "x" is here twice`},
	{"feature empty", "name: m\ninputs: [{name: a, features: ['']}]", `inputs[0].features[0]: want 1 to 256 bytes`},
	{"two documents", "name: m\n---\nname: n", `model.yaml holds 2 documents; want one`},
	{"empty", "", `model.yaml holds 0 documents; want one`},
	{"list", "- name: m", `line 1: want a map with name, description`},
	{"syntax", "name: [m", `not YAML: line`},
	{"twice", "name: m\nname: n", `line 2: name: this key is here twice`},
	{"bytes", "name: \xff", `not UTF-8`},
	{"bomb", "labels: &a {a: &b [*a]}\nname: *b", `*a is a part of &a itself`},
	{"no name", "file: model.onnx", `name: the model has no name; give one in model.yaml or with --name`},
	{"several faults", "nmae: m\nruntme: onnx", "line 2: runtme: unknown key; did you mean \"runtime\"?"},
}

func TestBadManifestsSayWhatWouldBeRight(t *testing.T) {
	kv, b := stores(t)
	r := open(t, kv, b, nil)
	for _, c := range badManifests {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := r.Push(t.Context(), folder(map[string]string{"model.yaml": c.text, "model.onnx": "a b"}), scorers.Manifest{})
			if err == nil || schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
	if names, err := r.Names(t.Context()); err != nil || len(names) > 0 {
		t.Fatal(names, err)
	}
}

func TestBadFoldersAreRefused(t *testing.T) {
	kv, b := stores(t)
	r := open(t, kv, b, func(c *registry.Config) { c.MaxBytes, c.MaxFiles = 100, 4 })
	many := map[string]string{}
	for i := range 5 {
		many[fmt.Sprintf("f%d.bin", i)] = "x"
	}
	link := folder(map[string]string{"m.onnx": "a"})
	link["l.bin"] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte("/etc/passwd")}
	device := folder(map[string]string{"m.onnx": "a"})
	device["d"] = &fstest.MapFile{Mode: fs.ModeDevice | 0o666}
	for _, c := range []struct {
		name  string
		files fstest.MapFS
		flags scorers.Manifest
		want  string
	}{
		{"nothing", folder(nil), scorers.Manifest{Name: "m"}, "no model.yaml that names the model's file"},
		{"no model", folder(map[string]string{"readme.txt": "x"}), scorers.Manifest{Name: "m"}, "not exactly one file that looks like a model (.onnx)"},
		{"two models", folder(map[string]string{"a.onnx": "a", "b.onnx": "b"}), scorers.Manifest{Name: "m"}, "not exactly one file"},
		{"wrong manifest name", folder(map[string]string{"model.yml": "x", "m.bin": "x"}), scorers.Manifest{Name: "m"}, `is "model.yml" meant to be it?`},
		{"unknown ending", folder(map[string]string{"m.pkl": "a"}), scorers.Manifest{Name: "m", File: "m.pkl"}, `"m.pkl" does not tell its runtime by its ending; write runtime:; want onnx`},
		{"bad flag name", folder(map[string]string{"m.onnx": "a"}), scorers.Manifest{Name: "M"}, `model name "M"`},
		{"too large", folder(map[string]string{"m.onnx": strings.Repeat("a ", 60)}), scorers.Manifest{Name: "m"}, "larger than 100 bytes"},
		{"too many", folder(many), scorers.Manifest{Name: "m"}, "more than 4 files"},
		{"link", link, scorers.Manifest{Name: "m"}, "l.bin is no regular file"},
		{"device", device, scorers.Manifest{Name: "m"}, "d is no regular file"},
		{"case", folder(map[string]string{"m.onnx": "a", "M.onnx": "a"}), scorers.Manifest{Name: "m"}, "differ in case only"},
		{"backslash", folder(map[string]string{`a\b.onnx`: "a"}), scorers.Manifest{Name: "m"}, "want a relative path of plain names"},
		{"newline", folder(map[string]string{"a\nb.onnx": "a"}), scorers.Manifest{Name: "m"}, "want a relative path of plain names"},
		{"deep", folder(map[string]string{"a/b/c/d/e/f/g/h/m.onnx": "a"}), scorers.Manifest{Name: "m"}, "at most 8 deep"},
		{"loader says no", folder(map[string]string{"m.onnx": ""}), scorers.Manifest{Name: "m"}, "no inputs in m.onnx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := r.Push(t.Context(), c.files, c.flags)
			if err == nil || schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

// hostileTars are archives that mean harm, or are broken.
func hostileTars(t testing.TB) map[string]struct {
	body []byte
	want string
} {
	ok := tar.Header{Name: "m.onnx", Uname: "a"}
	good := tarOf(t, ok)
	huge := bytes.Clone(good)
	copy(huge[124:136], "\x80\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff") // base-256 size, checksum now wrong
	many := make([]tar.Header, 40)
	for i := range many {
		many[i] = tar.Header{Name: fmt.Sprintf(".hidden%d", i)}
	}
	type c = struct {
		body []byte
		want string
	}
	return map[string]c{
		"empty":     {nil, "the body is empty"},
		"up":        {tarOf(t, ok, tar.Header{Name: "../x", Uname: "x"}), `file name "../x"`},
		"up inside": {tarOf(t, ok, tar.Header{Name: "a/../../x", Uname: "x"}), `file name "a/../../x"`},
		"absolute":  {tarOf(t, ok, tar.Header{Name: "/etc/cron.d/x", Uname: "x"}), `file name "/etc/cron.d/x"`},
		"backslash": {tarOf(t, ok, tar.Header{Name: `..\x`, Uname: "x"}), `want a relative path`},
		"drive":     {tarOf(t, ok, tar.Header{Name: `C:x`, Uname: "x"}), `want a relative path`},
		"symlink":   {tarOf(t, ok, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), "links and devices are not taken"},
		"hard link": {tarOf(t, ok, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "m.onnx"}), "links and devices are not taken"},
		"device":    {tarOf(t, ok, tar.Header{Name: "d", Typeflag: tar.TypeBlock}), "links and devices are not taken"},
		"fifo":      {tarOf(t, ok, tar.Header{Name: "d", Typeflag: tar.TypeFifo}), "links and devices are not taken"},
		"twice":     {tarOf(t, ok, tar.Header{Name: "./m.onnx", Uname: "b"}), "is in it twice"},
		"case":      {tarOf(t, ok, tar.Header{Name: "M.ONNX", Uname: "b"}), "in two cases"},
		"large":     {tarOf(t, tar.Header{Name: "m.onnx", Uname: strings.Repeat("a ", 6000)}), "larger than 10000 bytes"},
		"large sum": {tarOf(t, tar.Header{Name: "m.onnx", Uname: strings.Repeat("a ", 3000)}, tar.Header{Name: "n.bin", Uname: strings.Repeat("a ", 3000)}), "larger than 10000 bytes"},
		"many":      {tarOf(t, many...), "more than 8 files"},
		"file dir":  {tarOf(t, tar.Header{Name: "a", Uname: "x"}, tar.Header{Name: "a/b", Uname: "x"}), "a"},
		"cut":       {tarOf(t, tar.Header{Name: "m.onnx", Uname: strings.Repeat("a ", 100)})[:520], "unexpected EOF"},
		"header":    {huge, "tar"},
		"bare long": {bytes.Repeat([]byte("a "), 6000), "larger than 10000 bytes"},
	}
}

func TestHostileTarsAreRefused(t *testing.T) {
	kv, b := stores(t)
	r := open(t, kv, b, func(c *registry.Config) { c.MaxBytes, c.MaxFiles = 10_000, 8 })
	for name, c := range hostileTars(t) {
		t.Run(name, func(t *testing.T) {
			_, _, err := r.PushBody(t.Context(), bytes.NewReader(c.body), scorers.Manifest{Name: "m"})
			if err == nil || schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
	if names, err := r.Names(t.Context()); err != nil || len(names) > 0 {
		t.Fatal(names, err)
	}
}

func FuzzParseManifest(f *testing.F) {
	for _, c := range badManifests {
		f.Add([]byte(c.text))
	}
	f.Add([]byte(fraud["model.yaml"]))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := registry.ParseManifest(b)
		if err != nil && schemas.KindOf(err) != schemas.Invalid {
			t.Fatalf("not Invalid: %v", err)
		}
		if err == nil && m.Name != "" && schemas.CheckName("model", m.Name) != nil {
			t.Fatalf("name %q passed", m.Name)
		}
	})
}
