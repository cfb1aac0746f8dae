package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/pipeline/control"
)

// Every command explains itself.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short text %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && c.Example == "" {
			t.Errorf("%s: no example", c.CommandPath())
		}
		for _, l := range strings.Split(c.Example, "\n") {
			if c.Example != "" && !strings.HasPrefix(l, "  ") {
				t.Errorf("%s: the example line %q is not indented", c.CommandPath(), l)
			}
		}
		if c.HasParent() && c.Parent() == c.Root() && c.GroupID == "" {
			t.Errorf("%s: in no group", c.CommandPath())
		}
		has(t, ok(t, append(strings.Fields(c.CommandPath())[1:], "--help")...), "Usage:")
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&env{in: strings.NewReader(""), out: io.Discard, err: io.Discard}))
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := ok(t, "completion", shell); len(out) < 1000 {
			t.Errorf("%s: %q", shell, out)
		}
	}
	ok(t, "topics", "create", "completed.topic", "--partitions", "1")
	for line, want := range map[string]string{
		"score flight-":                        "flight-delay\nflight-boost",
		"models show fl":                       "flight-boost",
		"pipelines show ":                      "flight-delay",
		"topics show comp":                     "completed.topic",
		"job run --pipeline ":                  "flight-boost",
		"lineage count --status ":              "error",
		"lineage tail --pipeline flight-d":     "flight-delay",
		"job ":                                 "cancel",
		"score flight-delay f":                 ":0", // files
		"models promote x ":                    ":4", // no files
		"models push ":                         ":0",
		"topics publish completed.topic samp":  ":0",
		"lineage export x.parquet --role shad": "shadow",
	} {
		words := strings.Split(line, " ")
		// What is completed comes last: the server goes before it.
		r := leat(append([]string{"__complete", "--server", shared.HTTP}, words...)...)
		if r.code != 0 {
			t.Errorf("%q: %s", line, r.err)
		}
		for _, w := range strings.Split(want, "\n") {
			has(t, r.out, w)
		}
	}
}

// What is printed without a server is what a server answers.
func TestOffline(t *testing.T) {
	var offline, served map[string]any
	if err := json.Unmarshal([]byte(ok(t, "openapi")), &offline); err != nil {
		t.Fatal(err)
	}
	r, err := http.Get(shared.HTTP + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&served); err != nil {
		t.Fatal(err)
	}
	offline["info"], served["info"] = nil, nil
	a, _ := json.Marshal(offline)
	b, _ := json.Marshal(served)
	if string(a) != string(b) {
		t.Error("leat openapi and /openapi.json differ")
	}
	for _, generated := range []string{"openapi", "docs"} {
		once := ok(t, generated)
		if again := ok(t, generated); once != again {
			t.Errorf("leat %s differs from run to run", generated)
		}
	}
	var schema map[string]any
	if err := json.Unmarshal([]byte(ok(t, "pipelines", "schema")), &schema); err != nil || schema["$schema"] == nil {
		t.Errorf("pipelines schema: %v", err)
	}
	has(t, ok(t, "docs"), "## leat score", "### leat topics publish", "leat lineage export FILE", "```yaml\ndata:", "NO_COLOR")
	has(t, ok(t, "version"), "leat ")
}

// Bad command lines and bad inputs: the right exit status and one line that says what is wrong.
func TestBadInput(t *testing.T) {
	flight := filepath.Join(example, "flight.json")
	for _, c := range []struct {
		args string
		in   string
		code int
		says string
	}{
		{"nosuch", "", 2, `unknown command "nosuch"`},
		{"score flight-delay", "", 2, "accepts 2 arg(s)"},
		{"score --nosuch a b", "", 2, "unknown flag"},
		{"score nope " + flight, "", 1, "did you mean|want one of"},
		{"score flight-delay nope.json", "", 1, "nope.json: no such file"},
		{"score flight-delay " + flight + " --limit -1", "", 2, "--limit -1"},
		{"score flight-delay " + flight + " --output label", "", 2, "give both"},
		{"score flight-delay " + flight + " --expect late", "", 2, "flight.json has no such column; it has carrier"},
		{"score flight-delay " + sample + " --expect late --output nope", "", 2, "no such output"},
		{"score flight-delay " + flight + " --expect event_time", "", 2, "no such column"},
		{"score flight-delay " + sample + " --expect event_time", "", 2, "a column of timestamp"},
		{"score flight-delay " + flight + " --version 99", "", 1, "no model flight-delay@99"},
		{"score flight-delay " + flight + " --format xml", "", 2, "want parquet"},
		{"score flight-delay " + flight + " --id " + strings.Repeat("x", 200), "", 1, "1 to 128"},
		{"score flight-delay " + flight + " --timeout 1ns", "", 1, "deadline"},
		{"score flight-delay " + filepath.Join(example, "flight-boost.json"), "", 1, "columns missing: carrier, origin, dest"},
		{"score flight-delay -", "", 1, "standard input is empty"},
		{"score flight-delay -", `{"columns":{"dep_delay":[1]}}`, 1, "carrier: missing"},
		{"score flight-delay - --expect late", `{"columns":{"dep_delay":[1]}}`, 2, "--expect wants a file of rows"},
		{"score flight-delay -", `{"a":`, 1, "not JSON"},
		{"score flight-delay -", "PAR1", 1, "needs a file"},
		{"score flight-delay -", "carrier\n", 1, "no rows"},
		{"score flight-delay -", "carrier\nUA\n", 1, "columns missing: origin"},
		{"job run --pipeline flight-delay", "", 2, `required flag(s) "from", "to" not set`},
		{"job run --pipeline flight-delay --from nope.parquet --to x.parquet", "", 1, "nope.parquet: no such file"},
		{"job run --pipeline nope --from " + sample + " --to x.parquet", "", 1, `no pipeline "nope"`},
		{"job run --pipeline flight-delay --from topic:no --to x.parquet", "", 1, "no topic no"},
		{"job run --pipeline flight-delay --from lineage:flight-delay --to lineage:x", "", 1, "to: "},
		{"job show nope", "", 1, `no job "nope"`},
		{"job wait nope", "", 1, `no job "nope"`},
		{"job cancel nope", "", 1, `no job "nope"`},
		{"job list --status asleep", "", 2, `"asleep": want one of [pending`},
		{"lineage get nope", "", 1, `no record of request "nope"`},
		{"lineage count --since tomorrow", "", 2, "want a time such as"},
		{"lineage tail --since 3x", "", 2, "want a time such as"},
		{"lineage count --status bad", "", 1, `status: "bad": want ok, error or late`},
		{"lineage list --limit -3", "", 2, "--limit -3"},
		{"lineage export x.txt", "", 2, "ends in .parquet or .ndjson"},
		{"lineage export " + flight + " --format ndjson", "", 1, "exists: choose another name"},
		{"lineage export /nowhere/x.parquet", "", 1, "/nowhere"},
		{"lineage prune", "", 2, "--before is needed"},
		{"topics show nope", "", 1, "no topic nope"},
		{"topics delete nope", "", 1, "no topic nope"},
		{"topics read nope", "", 1, "no topic nope"},
		{"topics read nope --from x", "", 2, "invalid argument"},
		{"topics publish nope " + flight, "", 1, "no topic nope"},
		{"topics create Bad", "", 1, `topic name "Bad"`},
		{"topics create many --partitions 1000", "", 1, "partitions: 1000"},
		{"models show nope", "", 1, "no model nope"},
		{"models promote flight-delay", "", 2, "want NAME@VERSION"},
		{"models promote flight-delay@9", "", 1, "flight-delay@9"},
		{"models demote flight-delay", "", 1, "champion"},
		{"models push /nowhere/m.onnx", "", 1, "no such file"},
		{"models push " + flight + " --label x", "", 1, "KEY=VALUE"},
		{"pipelines show nope", "", 1, `no pipeline "nope"`},
		{"pipelines delete nope", "", 1, `no pipeline "nope"`},
		{"apply /nowhere.yaml", "", 1, "no such file"},
		{"bandit show nope", "", 1, `no pipeline "nope" in process`},
		{"features put aircraft N1 [1]", "", 2, `"[1]" is no JSON object; want one such as`},
		{"models list --server http://127.0.0.1:1", "", 1, "no server answers at http://127.0.0.1:1: start one"},
		{"models list --server :x", "", 2, "want http://HOST:PORT"},
		{"serve --sync sometimes", "", 2, "want always or interval"},
		{"serve --http nowhere", "", 1, "want HOST:PORT"},
		{"doctor --only nosuch", "", 2, `no check "nosuch"`},
	} {
		r := leatIn(t.Context(), c.in, strings.Fields(c.args)...)
		lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
		want := 1
		if c.code == exitUsage {
			want = 2 // and where to look
			if !strings.HasPrefix(lines[len(lines)-1], "Run 'leat") {
				t.Errorf("leat %s: no hint in %q", c.args, r.err)
			}
		}
		found := false
		for _, s := range strings.Split(c.says, "|") {
			found = found || strings.Contains(r.err, s)
		}
		if r.code != c.code || !found || len(lines) != want || r.out != "" {
			t.Errorf("leat %s: exit %d, %q %q; want %d and %q", c.args, r.code, r.err, r.out, c.code, c.says)
		}
	}
	if _, err := os.Stat("x.parquet"); err == nil {
		t.Error("a refused command left a file")
	}
}

func TestModels(t *testing.T) {
	list := okJSON[control.ModelList](t, "models", "list")
	if len(list.Models) < 2 {
		t.Fatalf("%+v", list)
	}
	has(t, ok(t, "models", "list"), "MODEL", "CHAMPION", "flight-boost", "onnx")
	// A bare file takes flags in place of model.yaml.
	onnx := filepath.Join(example, "flight-boost", "model.onnx")
	p := okJSON[control.PushReply](t, "models", "push", onnx, "--name", "bare", "--label", "team=a", "--description", "first")
	if !p.Created || p.Version.Name != "bare" || p.Version.Version != 1 || p.Version.Manifest.Labels["team"] != "a" {
		t.Fatalf("%+v", p)
	}
	has(t, ok(t, "models", "push", onnx, "--name", "bare", "--label", "team=a", "--description", "first"), "bare@1 is the same, nothing was stored")
	has(t, ok(t, "models", "push", onnx, "--name", "bare", "--description", "second"), "bare@2  ", "takes  features float32[13]", "bits   ")
	has(t, ok(t, "models", "alias", "bare@2", "challenger"), "model bare: challenger")
	has(t, ok(t, "models", "promote", "bare@2"), "model bare: champion 1 -> 2", "pipeline bare: changed", "-# route: bare@champion is bare@1", "+# route: bare@champion is bare@2")
	has(t, ok(t, "models", "show", "bare"), "bare@2", "(challenger, champion)", "pushed", "team=a", "pipelines  bare")
	if d := okJSON[control.ModelDetail](t, "models", "show", "bare@1"); len(d.Versions) != 1 || d.Versions[0].Version.Version != 1 {
		t.Errorf("%+v", d)
	}
	has(t, ok(t, "models", "demote", "bare"), "champion 2 -> 1")
	has(t, ok(t, "models", "history", "bare"), "promote bare@2", "demote")
	has(t, ok(t, "pipelines", "history", "bare"), "promote bare@2: changed  route = bare@2")
	if r := leat("models", "delete", "bare@1"); r.code != 1 || !strings.Contains(r.err, "bare@1") {
		t.Errorf("a version in use was deleted: %+v", r)
	}
	ok(t, "models", "alias", "bare", "challenger", "--delete")
	ok(t, "models", "delete", "bare@2")
	ok(t, "pipelines", "delete", "bare")
	ok(t, "models", "delete", "bare")
	if r := leat("models", "show", "bare"); r.code != 1 {
		t.Errorf("it is still there: %+v", r)
	}
}

func TestApply(t *testing.T) {
	spec := "apiVersion: leat/v1\nkind: Pipeline\nname: applied\nroute: {model: flight-delay}\n"
	path := file(t, "p.yaml", spec)
	has(t, ok(t, "apply", path, "--dry-run"), "pipeline applied: created", "dry run: nothing was changed")
	if r := leat("pipelines", "show", "applied"); r.code != 1 {
		t.Fatal("a dry run changed something")
	}
	ok(t, "apply", path)
	has(t, ok(t, "apply", path), "pipeline applied: unchanged")
	if r := leat("models", "delete", "flight-delay"); r.code != 1 || !strings.Contains(r.err, "applied") {
		t.Fatalf("a model that a pipeline names was deleted: %+v", r)
	}
	more := file(t, "q.yaml", strings.Replace(spec, "name: applied", "name: applied-too", 1))
	r := leatIn(t.Context(), strings.Replace(spec, "route:", "deadline: 2s\nroute:", 1), "apply", "-", more)
	if r.code != 0 {
		t.Fatal(r.err)
	}
	has(t, r.out, "pipeline applied: changed", "-deadline: 5s", "+deadline: 2s", "pipeline applied-too: created")
	has(t, ok(t, "pipelines", "list"), "applied-too", "flight-delay@1", "strict")
	show := ok(t, "pipelines", "show", "applied")
	has(t, show, "name: applied", "# takes carrier string", "# gives label int64")
	has(t, ok(t, "apply", file(t, "again.yaml", show)), "applied: unchanged") // what show prints can be applied
	d := okJSON[control.PipelineDetail](t, "pipelines", "show", "applied")
	if d.Spec.Name != "applied" || d.Signature.Inputs.Len() != 16 {
		t.Errorf("%+v", d)
	}
	bad := leat("apply", file(t, "bad.yaml", "apiVersion: leat/v1\nkind: Pipeline\nname: applied\nroute: {modle: flight-delay}\nlinage: strict\n"))
	if bad.code != 1 || !strings.Contains(bad.err, "line 4") || !strings.Contains(bad.err, "did you mean") || !strings.Contains(bad.err, "line 5") {
		t.Errorf("%+v", bad)
	}
	has(t, ok(t, "pipelines", "delete", "applied"), "pipeline applied: deleted")
	ok(t, "pipelines", "delete", "applied-too")
}
