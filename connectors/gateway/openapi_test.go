package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct{ Title, Version string }
	Paths   map[string]map[string]struct {
		OperationID string           `json:"operationId"`
		Summary     string           `json:"summary"`
		Parameters  []map[string]any `json:"parameters"`
		RequestBody struct {
			Content map[string]map[string]any `json:"content"`
		} `json:"requestBody"`
		Responses map[string]struct {
			Description string                    `json:"description"`
			Content     map[string]map[string]any `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
}

// TestOpenAPI checks the document against the handlers: each stands in the other, every schema in it is a valid one of
// the dialect that OpenAPI 3.1 uses, and real answers fit theirs.
func TestOpenAPI(t *testing.T) {
	url, s, _ := start(t, func(_ *Config, d *Deps) { d.Metrics = http.NotFoundHandler() })
	a := do(t, "GET", url+"/openapi.json", "")
	var doc document
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Title == "" || doc.Info.Version == "" {
		t.Errorf("head: %q %+v", doc.OpenAPI, doc.Info)
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(a.body)))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("mem:///openapi.json", whole); err != nil {
		t.Fatal(err)
	}
	compile := func(pointer string) *jsonschema.Schema {
		sch, err := compiler.Compile("mem:///openapi.json#" + pointer)
		if err != nil {
			t.Errorf("%s: %v", pointer, err)
		}
		return sch
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")

	documented, ids := map[string]bool{}, map[string]bool{}
	fill := strings.NewReplacer("{name}", "a", "{model}", "a", "{version}", "1")
	for path, item := range doc.Paths {
		for method, op := range item {
			at := strings.ToUpper(method) + " " + path
			documented[at] = true
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" {
				t.Errorf("%s: id %q, summary %q", at, op.OperationID, op.Summary)
			}
			ids[op.OperationID] = true
			inPath := 0
			for _, p := range op.Parameters {
				if p["name"] == "" || p["schema"] == nil {
					t.Errorf("%s: parameter %v", at, p)
				}
				if p["in"] == "path" {
					inPath++
					if p["required"] != true || !strings.Contains(path, "{"+p["name"].(string)+"}") {
						t.Errorf("%s: parameter %v", at, p)
					}
				}
			}
			if inPath != strings.Count(path, "{") {
				t.Errorf("%s: %d path parameters", at, inPath)
			}
			base := "/paths/" + escape.Replace(path) + "/" + method
			body := ""
			if c, ok := op.RequestBody.Content["application/json"]; ok {
				body = "{}"
				if c["schema"] != nil {
					compile(base + "/requestBody/content/application~1json/schema")
				}
			}
			for code, r := range op.Responses {
				if r.Description == "" {
					t.Errorf("%s %s: no description", at, code)
				}
				for kind, c := range r.Content {
					if c["schema"] != nil {
						compile(base + "/responses/" + code + "/content/" + escape.Replace(kind) + "/schema")
					}
				}
			}
			// Whatever is documented is served.
			got := do(t, strings.ToUpper(method), url+fill.Replace(path), body)
			if got.StatusCode == 405 || strings.Contains(got.body, "nothing is at") {
				t.Errorf("%s is documented and not served: %d %s", at, got.StatusCode, got.body)
			}
			code := "default"
			if got.StatusCode == 200 {
				code = "200"
			}
			if c := op.Responses[code].Content["application/json"]; c["schema"] != nil && strings.HasPrefix(got.Header.Get("Content-Type"), "application/json") {
				v, err := jsonschema.UnmarshalJSON(strings.NewReader(got.body))
				if err == nil {
					err = compile(base + "/responses/" + code + "/content/application~1json/schema").Validate(v)
				}
				if err != nil && path != "/v2/health/ready" {
					t.Errorf("%s: %s does not fit its schema: %v", at, got.body, err)
				}
			} else if code == "200" && c == nil {
				if kind := got.Header.Get("Content-Type"); op.Responses[code].Content[kind] == nil {
					t.Errorf("%s: answers %q, which is not documented", at, kind)
				}
			}
		}
	}
	// Whatever is served is documented.
	for _, r := range s.routes {
		if !documented[r.method+" "+r.path] {
			t.Errorf("%s %s is served and not documented", r.method, r.path)
		}
	}
	for _, at := range []string{
		"GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /v2/models/{model}", "GET /v2/models/{model}/versions/{version}",
		"GET /v2/models/{model}/ready", "GET /v2/models/{model}/versions/{version}/ready", "POST /v2/models/{model}/infer",
		"POST /v2/models/{model}/versions/{version}/infer", "POST /v1/pipelines/{name}/score", "GET /v1/things/{name}", "GET /openapi.json",
	} {
		if !documented[at] {
			t.Errorf("%s is missing", at)
		}
	}
}
