package control_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
	"github.com/leatstream/leat/schemas/document"
)

// call runs an operation the way the gateway does, and returns its JSON.
func (h *house) call(name string, path map[string]string, query url.Values, body string) (string, error) {
	h.t.Helper()
	for _, o := range h.Operations() {
		if o.Name != name {
			continue
		}
		req, err := o.Decode(func(k string) string { return path[k] }, query, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		return h.handle(o, req)
	}
	h.t.Fatalf("no operation %s", name)
	return "", nil
}

func (h *house) handle(o api.Operation, req any) (string, error) {
	h.t.Helper()
	reply, err := o.Handle(h.t.Context(), req)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(reply)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b), nil
}

func TestOperations(t *testing.T) {
	h := newHouse(t)
	model, err := os.ReadFile("../../scorers/onnx/testdata/linear.onnx")
	if err != nil {
		t.Fatal(err)
	}
	at := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	apply := func(text string, dry bool) string {
		b, _ := json.Marshal(map[string]any{"spec": text, "dry_run": dry})
		return string(b)
	}
	for i, c := range []struct {
		op    string
		path  map[string]string
		query string
		body  string
		want  []string // in the JSON, or in the error
		kind  schemas.Kind
		fails bool
	}{
		{"models.list", nil, "", "", []string{`{"models":[]}`}, 0, false},
		{"pipelines.list", nil, "", "", []string{`{"pipelines":[]}`}, 0, false},
		{"models.push", nil, "name=fraud&label=team=x&label=a=b=c&description=d", string(model), []string{`"created":true`, `"version":1`, `"a":"b=c"`, `"champion -\u003e 1"`}, 0, false},
		{"models.push", nil, "name=fraud&label=team=x&label=a=b=c&description=d", string(model), []string{`"created":false`, `"version":1`}, 0, false},
		{"models.push", nil, "name=fraud", string(model), []string{`"created":true`, `"version":2`}, 0, false},
		{"models.push", nil, "name=fraud&label=x", string(model), []string{`label[0]: "x": want KEY=VALUE`}, schemas.Invalid, true},
		{"models.push", nil, "name=fraud", "", []string{"the body is empty"}, schemas.Invalid, true},
		{"models.push", nil, "name=fraud", "junk", []string{"not a valid ONNX file"}, schemas.Invalid, true},
		{"models.push", nil, "nme=fraud", string(model), []string{"no such query parameter"}, schemas.Invalid, true},
		{"models.push", nil, "name=other", string(model), []string{`"created":true`}, 0, false},
		{"models.list", nil, "limit=1", "", []string{`"name":"fraud","versions":2,"latest":2,"champion":1`, `"next":"fraud"`}, 0, false},
		{"models.list", nil, "limit=1&cursor=fraud", "", []string{`"name":"other"`, `]}`}, 0, false},
		{"models.list", nil, "limit=9999", "", []string{"limit: 9999: want 1 to 1000"}, schemas.Invalid, true},
		{"models.show", at("name", "fraud"), "limit=1", "", []string{`"pipelines":["fraud"]`, `"version":2`, `"next":"2"`}, 0, false},
		{"models.show", at("name", "fraud"), "limit=1&cursor=2", "", []string{`"version":1`, `"aliases":["champion"]`}, 0, false},
		{"models.show", at("name", "fraud@champion"), "", "", []string{`"version":1`}, 0, false},
		{"models.show", at("name", "fruad"), "", "", []string{`no model fruad; did you mean "fraud"?`}, schemas.NotFound, true},
		{"models.show", at("name", "fraud@9"), "", "", []string{`no model fraud@9`}, schemas.NotFound, true},
		{"models.show", at("name", "../x"), "", "", []string{`model name "../x"`}, schemas.Invalid, true},
		{"models.show", at("name", "fraud"), "cursor=x", "", []string{`cursor: "x" is not the next of a page`}, schemas.Invalid, true},
		{"models.promote", at("name", "fraud"), "", `{"version":2}`, []string{`"champion 1 -\u003e 2"`, `"pipeline":"fraud"`}, 0, false},
		{"models.promote", at("name", "fraud"), "", `{}`, []string{"version: 0: want the number of a version"}, schemas.Invalid, true},
		{"models.promote", at("name", "fraud"), "", `{"v":2}`, []string{"unknown field"}, schemas.Invalid, true},
		{"models.demote", at("name", "fraud"), "", "", []string{`"champion 2 -\u003e 1"`}, 0, false},
		{"models.alias.set", at("name", "fraud", "alias", "blue"), "", `{"version":2}`, []string{`"blue -\u003e 2"`}, 0, false},
		{"models.alias.delete", at("name", "fraud", "alias", "blue"), "", "", []string{`"blue 2 -\u003e nothing"`}, 0, false},
		{"models.history", at("name", "fraud"), "limit=2", "", []string{`"next":`, `blue`}, 0, false},
		{"models.history", at("name", "none"), "", "", []string{"no model none"}, schemas.NotFound, true},
		{"pipelines.apply", nil, "", apply(spec("p", "fraud", "input: {topic: a}\noutput: {topic: b}\n"), true), []string{`"dry_run":true`, `"action":"created"`}, 0, false},
		{"pipelines.show", at("name", "p"), "", "", []string{`no pipeline "p"`}, schemas.NotFound, true},
		{"pipelines.apply", nil, "", apply(spec("p", "fraud", "input: {topic: a}\noutput: {topic: b}\n"), false), []string{`"action":"created"`}, 0, false},
		{"pipelines.apply", nil, "", apply(spec("p", "fraud", "linage: x\n"), false), []string{`line 6: linage: unknown key; did you mean "lineage"?`}, schemas.Invalid, true},
		{"pipelines.apply", nil, "", `{}`, []string{"no pipeline in it"}, schemas.Invalid, true},
		{"pipelines.list", nil, "limit=1&cursor=other", "", []string{`"name":"p","models":["fraud@1"],"input":"a","output":"b","lineage":"strict"`}, 0, false},
		{"pipelines.show", at("name", "p"), "", "", []string{`"yaml":"apiVersion: leat/v1\nkind: Pipeline\nname: p\n`, `"spec_digest"`, `# route: fraud@champion is fraud@1`}, 0, false},
		{"pipelines.show", at("name", "ohter"), "", "", []string{`did you mean "other"?`}, schemas.NotFound, true},
		{"pipelines.history", at("name", "p"), "", "", []string{`"action":"created"`, `"cause":"apply"`}, 0, false},
		{"pipelines.history", at("name", "q"), "", "", []string{`no pipeline "q"`}, schemas.NotFound, true},
		{"pipelines.history", at("name", "*"), "", "", []string{`pipeline name "*"`}, schemas.Invalid, true},
		{"pipelines.schema", nil, "", "", []string{`"$schema":"https://json-schema.org/draft/2020-12/schema"`}, 0, false},
		{"models.delete", at("name", "fraud@2"), "", "", []string{`version 2 deleted`}, 0, false},
		{"models.delete", at("name", "fraud@champion"), "", "", []string{`want NAME@VERSION, or NAME for the whole model`}, schemas.Invalid, true},
		{"models.delete", at("name", "fraud"), "", "", []string{`in use by pipeline p`}, schemas.Invalid, true},
		{"pipelines.delete", at("name", "p"), "", "", []string{`"action":"deleted"`}, 0, false},
		{"models.delete", at("name", "fraud"), "version=1", "", []string{`version 1 deleted`, `"pipeline":"fraud"`}, 0, false},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.call(c.op, c.path, q, c.body)
		if c.fails {
			wantErr(t, err, c.kind, c.want...)
			continue
		}
		if err != nil {
			t.Fatalf("%d %s: %v", i, c.op, err)
		}
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%d %s: %s\nwithout %s", i, c.op, got, w)
			}
		}
	}
}

// The table is sound: names and routes are unique, every path is under /v1, and what takes one JSON object over NATS is
// told apart from what takes a raw body.
func TestTableOfOperations(t *testing.T) {
	c, err := control.New(nil, nil, nil, control.Default(), nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range c.Operations() {
		route := o.Method + " " + o.Path
		if seen[o.Name] || seen[route] || !strings.HasPrefix(o.Path, "/v1/") || o.Summary == "" {
			t.Errorf("%s %s", o.Name, route)
		}
		seen[o.Name], seen[route] = true, true
		if raw := o.BodyType() == "application/x-tar"; raw != (o.Name == "models.push") {
			t.Errorf("%s takes %q", o.Name, o.BodyType())
		}
		if read := o.Method == "GET"; read != (o.Scope == api.Read) {
			t.Errorf("%s: %s with scope %s", o.Name, o.Method, o.Scope)
		}
	}
}

func TestOperationsOverNATSTakeOneObject(t *testing.T) {
	h := newHouse(t)
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	for _, o := range h.Operations() {
		if o.Name != "models.promote" {
			continue
		}
		req, err := o.DecodeObject([]byte(`{"name":"fraud","version":2}`))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.handle(o, req); err != nil || !strings.Contains(got, `champion 1 -\u003e 2`) {
			t.Fatal(got, err)
		}
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := control.New(nil, nil, nil, control.Config{}, nil)
	wantErr(t, err, schemas.Invalid, "patience: want a duration", "log_bytes: want at least")
}

func TestDiff(t *testing.T) {
	var long []string
	for i := range 30 {
		long = append(long, fmt.Sprint("line ", i))
	}
	a := strings.Join(long, "\n") + "\n"
	b := strings.Replace(strings.Replace(a, "line 4\n", "line four\n", 1), "line 25\n", "", 1)
	for _, c := range []struct{ from, to, want string }{
		{"a\n", "a\n", ""},
		{"", "a\nb\n", "--- x\n+++ y\n@@ -0,0 +1,2 @@\n+a\n+b\n"},
		{"a\nb\n", "", "--- x\n+++ y\n@@ -1,2 +0,0 @@\n-a\n-b\n"},
		{"a\nb\nc\n", "a\nB\nc\n", "--- x\n+++ y\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{a, b, "--- x\n+++ y\n@@ -2,7 +2,7 @@\n line 1\n line 2\n line 3\n-line 4\n+line four\n line 5\n line 6\n line 7\n" +
			"@@ -23,7 +23,6 @@\n line 22\n line 23\n line 24\n-line 25\n line 26\n line 27\n line 28\n"},
	} {
		if got := control.Diff("x", "y", c.from, c.to); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
	many := strings.Repeat("x\n", 5000)
	other := strings.Repeat("y\n", 5000)
	if got := control.Diff("x", "y", many, other); strings.Count(got, "\n") != 10_003 {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
}

// Control is what pipeline needs to resolve references of, and its errors keep their list of faults.
func TestApplyKeepsTheFaults(t *testing.T) {
	h := newHouse(t)
	_, err := h.tryApply(spec("a", "x", "")+spec("b", "y", ""), true)
	var fs document.Faults
	wantErr(t, err, schemas.Invalid, "no model x@champion", "no model y@champion")
	if !errors.As(err, &fs) || len(fs) != 2 || fs[0].Path != "route.model" {
		t.Fatal(err)
	}
	_, err = h.Apply(t.Context(), nil, true)
	wantErr(t, err, schemas.Invalid, "no pipeline to apply")
	specs := must(pipeline.ParseSpec([]byte(spec("a", "x", ""))))
	_, err = h.Apply(t.Context(), append(specs, specs[0]), true)
	wantErr(t, err, schemas.Invalid, `pipeline "a" is here twice`)
}

// TestCanary: a canary is started, grows and is promoted, or aborted, each as one revision.
func TestCanary(t *testing.T) {
	h := newHouse(t)
	h.push("stable", "linear", "1")
	h.push("fresh", "linear", "2")
	step := func(body, want string) {
		t.Helper()
		got, err := h.call("pipelines.canary", map[string]string{"name": "stable"}, nil, body)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Fatalf("%s: %s\nwant %q", body, got, want)
		}
	}
	route := func() pipeline.Node {
		t.Helper()
		got, err := h.call("pipelines.show", map[string]string{"name": "stable"}, nil, "")
		var rev pipeline.Revision
		if err == nil {
			err = json.Unmarshal([]byte(got), &rev)
		}
		if err != nil {
			t.Fatal(err)
		}
		return rev.Spec.Route
	}
	step(`{"action":"set","weight":"5"}`, "has no canary")
	step(`{"action":"start","weight":"5"}`, "which model")
	step(`{"action":"strat"}`, `did you mean "start"?`)
	step(`{"action":"start","model":"fresh@9","weight":"5"}`, "no model fresh@9")
	step(`{"action":"start","model":"fresh@1","weight":"120"}`, "want a share in percent")
	step(`{"action":"start","model":"fresh@1","weight":"0.25","dry_run":true}`, "changed")
	if route().Split != nil {
		t.Fatal("a dry run has changed the route")
	}
	step(`{"action":"start","model":"fresh@1","weight":"0.25%"}`, "changed")
	if s := route().Split; s == nil || s.Arms[0].Weight != 9975 || s.Arms[1].Weight != 25 || s.Arms[1].Model != "fresh@1" {
		t.Fatalf("%+v", s)
	}
	step(`{"action":"start","model":"fresh@1","weight":"1"}`, "has a canary already")
	step(`{"action":"set","weight":"50"}`, "changed")
	step(`{"action":"set","weight":"50"}`, "unchanged")
	step(`{"action":"promote"}`, "changed")
	if r := route(); r.Model != "fresh@1" {
		t.Fatalf("%+v", r)
	}
	step(`{"action":"start","model":"stable@champion","weight":"10"}`, "changed")
	step(`{"action":"abort"}`, "changed")
	if r := route(); r.Model != "fresh@1" {
		t.Fatalf("%+v", r)
	}
	if _, err := h.call("pipelines.canary", map[string]string{"name": "nobody"}, nil, `{"action":"abort"}`); schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
}
