package house

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/leatstream/leat/"

type pkg struct {
	ImportPath string
	Imports    []string
	Dir        string
	GoFiles    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Dir,GoFiles", module+"...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ps []pkg
	d := json.NewDecoder(out)
	for {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(ps) < 10 {
		t.Fatalf("only %d packages listed", len(ps))
	}
	return ps
}

// room is the first part of a package's path below the module.
func room(path string) string {
	r, _, _ := strings.Cut(strings.TrimPrefix(path, module), "/")
	return r
}

// mayImport is DESIGN section 3: schemas <- {connectors, scorers, lineage} <- pipeline <- cmd.
var mayImport = map[string][]string{
	"schemas":     {"schemas"},
	"connectors":  {"schemas", "connectors"},
	"scorers":     {"schemas", "scorers"},
	"lineage":     {"schemas", "lineage"},
	"pipeline":    {"schemas", "connectors", "scorers", "lineage", "pipeline"},
	"cmd":         {"schemas", "connectors", "scorers", "lineage", "pipeline", "cmd"},
	"integration": {"schemas", "connectors", "scorers", "lineage", "pipeline", "integration"},
	"examples":    {},
}

func TestDependencyDirection(t *testing.T) {
	for _, p := range list(t) {
		from := room(p.ImportPath)
		allowed, ok := mayImport[from]
		if !ok {
			t.Errorf("%s: no such room in the house", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			if !strings.HasPrefix(i, module) {
				continue
			}
			to := room(i)
			found := false
			for _, a := range allowed {
				found = found || a == to
			}
			if !found {
				t.Errorf("%s imports %s: %s may import only %v", p.ImportPath, i, from, allowed)
			}
		}
	}
}

// TestContractsOnly: pipeline imports the contracts of the three rooms below it, never an implementation.
func TestContractsOnly(t *testing.T) {
	for _, p := range list(t) {
		if room(p.ImportPath) != "pipeline" {
			continue
		}
		for _, i := range p.Imports {
			switch room(i) {
			case "connectors", "scorers", "lineage":
				if strings.HasPrefix(i, module) && strings.Count(strings.TrimPrefix(i, module), "/") > 0 {
					t.Errorf("%s imports the implementation %s", p.ImportPath, i)
				}
			}
		}
	}
}

// TestSiblings: implementations beneath one contract do not import each other, except a test suite's package.
func TestSiblings(t *testing.T) {
	for _, p := range list(t) {
		r := room(p.ImportPath)
		if r != "connectors" && r != "scorers" || p.ImportPath == module+r {
			continue
		}
		own := strings.Split(strings.TrimPrefix(p.ImportPath, module), "/")[1]
		for _, i := range p.Imports {
			if !strings.HasPrefix(i, module+r+"/") {
				continue
			}
			if other := strings.Split(strings.TrimPrefix(i, module), "/")[1]; other != own {
				t.Errorf("%s imports its sibling %s", p.ImportPath, i)
			}
		}
	}
}

// TestClientLibraries: only connectors/nats and connectors/kafka import the clients of their brokers, only scorers/onnx
// the binding of ONNX Runtime. Floors and benchmarks measure those libraries bare, and the examples show users' clients.
func TestClientLibraries(t *testing.T) {
	homes := map[string]string{
		"github.com/nats-io/":             module + "connectors/nats",
		"github.com/segmentio/kafka-go":   module + "connectors/kafka",
		"github.com/yalue/onnxruntime_go": module + "scorers/onnx",
	}
	for _, p := range list(t) {
		if r := room(p.ImportPath); r == "integration" || r == "examples" {
			continue
		}
		for _, i := range p.Imports {
			for lib, home := range homes {
				if strings.HasPrefix(i, lib) && !strings.HasPrefix(p.ImportPath, home) {
					t.Errorf("%s imports %s, which belongs to %s", p.ImportPath, i, home)
				}
			}
		}
	}
}

// TestDoc: every package says in doc.go what it is for.
func TestDoc(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		if b, err := os.ReadFile(p.Dir + "/doc.go"); err != nil || !strings.Contains(string(b), "// ") {
			t.Errorf("%s has no doc.go", p.ImportPath)
		}
	}
}
