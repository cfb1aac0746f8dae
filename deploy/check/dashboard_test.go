package check

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is the part of Grafana's JSON that matters here.
type dashboard struct {
	UID        string `json:"uid"`
	Title      string `json:"title"`
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct{ RefID, Expr, LegendFormat string }
}

// TestDashboard: what every panel and variable asks for is exported, legends name labels that are there, panels do not overlap,
// and the metrics of a data plane are all shown.
func TestDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "../grafana/leat.json")), &d); err != nil {
		t.Fatal(err)
	}
	metrics := exported(t)
	if d.UID == "" || d.Title == "" {
		t.Error("no uid or title")
	}
	replace := []string{"$__rate_interval", "5m"}
	for _, v := range d.Templating.List {
		replace = append(replace, "$"+v.Name, "x")
		if v.Type != "query" {
			continue
		}
		q := v.Query.(map[string]any)["query"].(string)
		m := regexp.MustCompile(`^label_values\((.+), ([a-z]+)\)$`).FindStringSubmatch(q)
		if m == nil {
			t.Errorf("variable %s: %s", v.Name, q)
			continue
		}
		parse(t, "variable "+v.Name, fmt.Sprintf("count by (%s) (rate(%s[5m]))", m[2], m[1]), metrics)
	}
	known := strings.NewReplacer(replace...)
	ids, shown := map[int]bool{}, ""
	for i, p := range d.Panels {
		where := fmt.Sprintf("panel %d, %s", p.ID, p.Title)
		if ids[p.ID] || p.Title == "" {
			t.Errorf("%s: no id of its own, or no title", where)
		}
		ids[p.ID] = true
		for _, o := range d.Panels[:i] {
			if a, b := p.GridPos, o.GridPos; a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies over panel %d", where, o.ID)
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s has no unit or asks for nothing", where)
		}
		for _, g := range p.Targets {
			expr := known.Replace(g.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s has a variable that is not declared: %s", where, g.Expr)
			}
			shown += expr + "\n"
			parse(t, where, expr, metrics)
			for _, l := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(g.LegendFormat, -1) {
				by := regexp.MustCompile(`by \(([^)]*)\)`).FindStringSubmatch(expr)
				if by != nil && !slices.Contains(strings.Split(by[1], ", "), l[1]) || by == nil && !slices.Contains(ofScrape, l[1]) {
					t.Errorf("%s: the legend names %s, which %s does not have", where, l[1], expr)
				}
			}
		}
	}
	for m := range metrics {
		name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(m, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "leat_kafka_") && !strings.Contains(shown, name) {
			t.Errorf("%s is on no panel", name)
		}
	}
}
