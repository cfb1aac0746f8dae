package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/pipeline/route"
)

// routes is the folder of a pipeline for each kind of node.
var routes = filepath.Join("..", "..", "examples", "routes")

// asked is the answer to one row.
type asked struct {
	id            string
	Model         string    `json:"model"`
	Label         int       `json:"label"`
	Probabilities []float64 `json:"probabilities"`
	visits        []string  // what the lineage has of it: node, role, arm, model, and the probability of the arm if it was not certain
}

// askOne scores one row over HTTP, with more headers in pairs, and reads its records. A value of more replaces a column.
func askOne(t *testing.T, name, file string, more map[string]any, headers ...string) asked {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		Rows []map[string]any `json:"rows"`
	}
	if err := json.Unmarshal(b, &body); err != nil {
		t.Fatal(err)
	}
	maps.Copy(body.Rows[0], more)
	if b, err = json.Marshal(body); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, shared.HTTP+"/v1/pipelines/"+name+"/score", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var reply struct {
		ID    string  `json:"id"`
		Model string  `json:"model"`
		Rows  []asked `json:"rows"`
	}
	if err := json.Unmarshal(text, &reply); err != nil || len(reply.Rows) != 1 {
		t.Fatalf("%s: %s %s %v", name, r.Status, text, err)
	}
	a := reply.Rows[0]
	a.id, a.Model = reply.ID, reply.Model
	for _, v := range okJSON[lineage.GetReply](t, "lineage", "get", reply.ID).Records {
		if v.Status != lineage.StatusOK {
			t.Errorf("%s at %s: %s", name, v.Node, v.Error)
		}
		visit := strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s", v.Node, v.Role, v.Arm, v.Model)), " ")
		if v.Propensity != 1 {
			visit += fmt.Sprintf(" %v", v.Propensity)
		}
		a.visits = append(a.visits, visit)
	}
	return a
}

// The pipelines of examples/routes are what users copy: each is applied as it stands and answers with what the real models
// alone say of the same flight, by the nodes that it is about.
func TestExampleRoutes(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(routes, "*.yaml"))
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	for _, name := range []string{"flight-forest", "flight-stack"} { // of stacking.yaml
		ok(t, "models", "push", filepath.Join(example, name))
		defer func() { ok(t, "pipelines", "delete", name); ok(t, "models", "delete", name) }()
	}
	has(t, ok(t, "features", "create", "aircraft"), "bucket aircraft: ready, 0 values")
	ok(t, "features", "put", "aircraft", "N542MQ", `{"plane_age": 9, "seats": 150}`)
	ok(t, append([]string{"apply"}, files...)...)
	for _, p := range okJSON[control.PipelineList](t, "pipelines", "list").Pipelines { // a model of several nodes stands once
		if slices.Sort(p.Models); p.Name == "flights-shadows" && !slices.Equal(p.Models, []string{"flight-boost@1", "flight-delay@1"}) {
			t.Errorf("%s has the models %v", p.Name, p.Models)
		}
	}
	readme, err := os.ReadFile(filepath.Join(routes, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	flight, metric := filepath.Join(routes, "flight.json"), filepath.Join(routes, "sequence.json")
	plain := filepath.Join(example, "flight.json") // without the aircraft, which keys and conditions read
	linear := askOne(t, "flight-delay", plain, nil)
	trees := askOne(t, "flight-boost", filepath.Join(example, "flight-boost.json"), nil)
	both := asked{Label: 1, Probabilities: []float64{(linear.Probabilities[0] + 2*trees.Probabilities[0]) / 3, (linear.Probabilities[1] + 2*trees.Probabilities[1]) / 3}}
	forest := askOne(t, "flight-forest", filepath.Join(example, "flight-boost.json"), nil)
	if p := forest.Probabilities; math.Abs(p[0]+p[1]-1) > 1e-6 || (p[1] > 0.5) != (forest.Label == 1) {
		t.Errorf("the forest says %+v: ONNX Runtime takes the votes of two classes for raw scores", forest)
	}
	said := filepath.Join(t.TempDir(), "said.json")
	err = os.WriteFile(said, fmt.Appendf(nil, `{"rows":[{"regression_probabilities_1":%v,"trees_probabilities_1":%v,"forest_probabilities_1":%v}]}`,
		linear.Probabilities[1], trees.Probabilities[1], forest.Probabilities[1]), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	weighed := askOne(t, "flight-stack", said, nil)
	known := map[string]any{"plane_age": 9, "seats": 150}
	old := askOne(t, "flight-boost", filepath.Join(example, "flight-boost.json"), known)
	for _, c := range []struct {
		pipeline, file string
		more           map[string]any
		headers        []string
		want           *asked // nil: only the way is looked at
		visits         []string
	}{
		{"flights-split", flight, nil, nil, &linear, []string{"route primary regression flight-delay 0.5", "route/regression arm flight-delay"}},
		{"flights-split", flight, map[string]any{"tailnum": "N501MQ"}, nil, &trees, []string{"route primary trees flight-boost 0.5", "route/trees arm flight-boost"}},
		{"flights-canary", flight, nil, nil, &linear, []string{"route primary stable flight-delay 0.95", "route/stable arm flight-delay"}},
		{"flights-canary", flight, nil, []string{"Leat-Arm", "canary"}, &trees, []string{"route primary canary flight-boost 0", "route/canary arm flight-boost"}},
		{"flights-canary", flight, nil, []string{"Leat-Arm", "route=canary"}, &trees, []string{"route primary canary flight-boost 0", "route/canary arm flight-boost"}},
		{"flights-canary", flight, nil, []string{"Leat-Arm", "route/stable=canary, nobody"}, &linear, []string{"route primary stable flight-delay 0.95", "route/stable arm flight-delay"}},
		{"flights-switch", flight, nil, nil, &linear, []string{"route primary fleet flight-delay", "route/fleet arm flight-delay"}},
		{"flights-switch", flight, map[string]any{"tailnum": nil}, nil, &linear, []string{"route primary unknown flight-delay", "route/unknown arm flight-delay"}},
		{"flights-switch", flight, map[string]any{"tailnum": nil, "plane_age": 9, "seats": 150}, nil, &old, []string{"route primary known flight-boost", "route/known arm flight-boost"}},
		{"flights-sequence", metric, nil, nil, nil, []string{"route primary flight-boost", "route/units stage", "route/pack stage", "route/score stage flight-boost"}},
		{"flights-lookup", filepath.Join(routes, "lookup.json"), nil, nil, &old, []string{"route primary flight-boost", "route/aircraft stage", "route/score stage flight-boost"}},
		{"flights-ensemble", plain, nil, nil, &both, []string{"route primary flights-ensemble", "route/regression member flight-delay", "route/trees member flight-boost"}},
		{"flights-stacking", plain, nil, nil, &weighed, []string{"route primary flight-stack", "route/regression member flight-delay", "route/trees member flight-boost", "route/forest member flight-forest", "route/combine combiner flight-stack"}},
		{"flights-cascade", plain, nil, nil, &trees, []string{"route primary large flight-boost", "route/small stage flight-delay", "route/large stage flight-boost"}},
		{"flights-bandit", plain, nil, []string{"Leat-Request-Id", "bandit-example-1"}, &trees, []string{"route primary trees flight-boost 0.494960503949605", "route/trees arm flight-boost"}},
		{"flights-bandit", plain, nil, []string{"Leat-Request-Id", "bandit-example-2"}, &linear, []string{"route primary regression flight-delay 0.505039496050395", "route/regression arm flight-delay"}},
		{"flights-cascade", plain, map[string]any{"dep_delay": 120}, nil, nil, []string{"route primary small flight-delay", "route/small stage flight-delay"}},
	} {
		a := askOne(t, c.pipeline, c.file, c.more, c.headers...)
		if strings.Contains(a.visits[0], " canary flight-boost 0") {
			has(t, ok(t, "lineage", "get", a.id), "flight-boost@1, digest", "canary, forced by the caller")
		}
		slices.Sort(a.visits)
		slices.Sort(c.visits)
		if !slices.Equal(a.visits, c.visits) {
			t.Errorf("%s %v %v went\n%s\nwant\n%s", c.pipeline, c.more, c.headers, strings.Join(a.visits, "\n"), strings.Join(c.visits, "\n"))
		}
		if c.want != nil && (a.Label != c.want.Label || math.Abs(a.Probabilities[1]-c.want.Probabilities[1]) > 1e-6) {
			t.Errorf("%s %v %v answered %v, want %v", c.pipeline, c.more, c.headers, a, *c.want)
		}
	}
	var cascade struct{ Live pipeline.RouteStats }
	if err := json.Unmarshal([]byte(ok(t, "pipelines", "show", "flights-cascade", "--json")), &cascade); err != nil {
		t.Fatal(err)
	}
	var came []string
	for _, n := range cascade.Live.Nodes {
		came = append(came, fmt.Sprint(n.Node, " ", n.Recent.Rows, " ", n.Recent.Share, " ", n.Total.Arms))
	}
	if want := []string{"route 2 1 [{small 1 0.5} {large 1 0.5}]", "route/small 2 1 []", "route/large 1 0.5 []"}; !slices.Equal(came, want) {
		t.Errorf("what came by the cascade: %q, want %q", came, want)
	}
	large, all := cascade.Live.Nodes[2].Recent, cascade.Live.Nodes[0].Recent // one of two rows came to it
	if all.SecondsSaved <= 0 || all.SecondsSaved != large.Seconds || all.Seconds < large.Seconds {
		t.Errorf("a cascade that asked the second stage for one row of two, in %v s, saved %v of %v s", large.Seconds, all.SecondsSaved, all.Seconds)
	}
	has(t, ok(t, "pipelines", "show", "flights-cascade"), "# route: 50.0 % of 2 rows stopped early; it took ", ", and the stages behind would have taken ")
	has(t, ok(t, "pipelines", "show", "flights-cascade", "--dot", "--live"), "now 100.0 %, answers 50.0 %, ")
	tail := ""
	for i := 0; tail == "" || !route.SampledString("flights-shadows/shadows/careful", tail, route.Million/2); i++ {
		tail = fmt.Sprintf("N%dMQ", 500+i)
	}
	a := askOne(t, "flights-shadows", flight, map[string]any{"tailnum": tail})
	if a.Model != "flight-delay" || a.Label != linear.Label || math.Abs(a.Probabilities[1]-linear.Probabilities[1]) > 1e-6 {
		t.Errorf("the route with shadows answers %+v, want %+v", a, linear)
	}
	var visits []string
	eventually(t, "the shadows are recorded", func() bool {
		visits = nil
		for _, v := range okJSON[lineage.GetReply](t, "lineage", "get", a.id).Records {
			visits = append(visits, strings.Join(strings.Fields(v.Node+" "+v.Role+" "+v.Arm+" "+v.Model+" "+v.Status), " "))
		}
		return len(visits) == 5
	})
	slices.Sort(visits)
	if got := strings.Join(visits, "\n"); got != "route primary flight-delay ok\nshadows/careful shadow large flight-boost ok\nshadows/careful/large stage flight-boost ok\n"+
		"shadows/careful/small stage flight-delay ok\nshadows/trees shadow flight-boost ok" {
		t.Errorf("went\n%s", got)
	}
	has(t, ok(t, "lineage", "list", "--pipeline", "flights-shadows", "--role", "shadow"), "flight-boost")
	has(t, ok(t, "lineage", "explain-route", a.id), "nothing was to be decided")
	has(t, ok(t, "pipelines", "show", "flights-shadows"), "1 scored, 0 shed")
	has(t, ok(t, "pipelines", "show", "flights-shadows", "--mermaid", "--live"), `-.->|"shadow<br/>1 scored, 0 shed"|`)
	for _, path := range files {
		name := "flights-" + strings.TrimSuffix(filepath.Base(path), ".yaml")
		show := ok(t, "pipelines", "show", name)
		drawn := withoutFigures(t, show)
		if !strings.Contains(string(readme), drawn) {
			t.Errorf("examples/routes/README.md does not show how %s is drawn:\n%s", name, drawn)
		}
		if specs, err := pipeline.ParseSpec([]byte(show)); err != nil || specs[0].Name != name {
			t.Errorf("what is shown of %s cannot be applied: %v", name, err)
		}
		has(t, ok(t, "pipelines", "show", name, "--dot"), "digraph \""+name+"\" {\n", "flight-boost@1")
		has(t, ok(t, "pipelines", "show", name, "--mermaid"), "flowchart LR\n", "flight-boost@1")
		ok(t, "pipelines", "delete", name)
	}
	for args, says := range map[string]string{
		"flight-delay --dot": "its route is one model", "flight-delay --mermaid --json": "give one of them", "flight-delay --dot --mermaid": "none of the others",
	} {
		if r := leat(append([]string{"pipelines", "show"}, strings.Fields(args)...)...); r.code == 0 || !strings.Contains(r.err, says) || r.out != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// withoutFigures is the drawing of what is shown of a pipeline, less the columns of what came by.
func withoutFigures(t *testing.T, show string) string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(show), "\n")
	head := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "# ") && strings.Contains(l, "  rows/s  ") })
	end := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, ", in process ") })
	if head < 0 || end < head {
		t.Fatalf("no figures are shown:\n%s", show)
	}
	from := strings.Index(lines[head], "rows/s")
	var drawn []string
	for _, l := range lines[head+1 : end] {
		drawn = append(drawn, strings.TrimSpace(string([]rune(l)[:from])))
	}
	return strings.Join(drawn, "\n")
}
