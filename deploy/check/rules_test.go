package check

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"gopkg.in/yaml.v3"
)

const folder = "../prometheus/"

// rulesOf reads a file of rules as Prometheus does.
func rulesOf(t *testing.T, file string) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(folder+file, false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if len(errs) > 0 {
		t.FailNow()
	}
	var out []rulefmt.Rule
	for _, g := range groups.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// TestRules: the rules ask for what there is, say how bad it is and what to do, and are those that docs/operations.md lists.
func TestRules(t *testing.T) {
	metrics := exported(t)
	var names []string
	for _, r := range rulesOf(t, "leat.rules.yaml") {
		names = append(names, r.Alert)
		parse(t, r.Alert, r.Expr, metrics)
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s has severity %q", r.Alert, s)
		}
		if s := r.Annotations["summary"]; s == "" || strings.Contains(s, "\n") || len(s) > 120 {
			t.Errorf("%s has the summary %q", r.Alert, s)
		}
		if d := r.Annotations["description"]; len(d) < 80 || !strings.HasSuffix(d, ".") {
			t.Errorf("%s does not say what to do: %q", r.Alert, d)
		}
	}
	_, rest, _ := strings.Cut(read(t, "../../docs/operations.md"), "## Alerts")
	part, _, _ := strings.Cut(rest, "\n## ")
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(Leat[A-Za-z]+)` ").FindAllStringSubmatch(part, -1) {
		listed = append(listed, m[1])
	}
	slices.Sort(names)
	slices.Sort(listed)
	if !slices.Equal(names, listed) {
		t.Errorf("docs/operations.md lists the alerts\n%v\nand there are\n%v", listed, names)
	}
}

// ruleTests is the part of promtool's format that leat.rules.test.yaml uses: annotations are not compared, but expanded.
type ruleTests struct {
	RuleFiles []string       `yaml:"rule_files"`
	Interval  model.Duration `yaml:"evaluation_interval"`
	Tests     []struct {
		Name     string         `yaml:"name"`
		Interval model.Duration `yaml:"interval"`
		Series   []struct {
			Series string `yaml:"series"`
			Values string `yaml:"values"`
		} `yaml:"input_series"`
		Alerts []struct {
			At   model.Duration `yaml:"eval_time"`
			Name string         `yaml:"alertname"`
			Want []struct {
				Labels map[string]string `yaml:"exp_labels"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	} `yaml:"tests"`
}

// TestAlerts runs leat.rules.test.yaml with Prometheus' own engine and rules.
func TestAlerts(t *testing.T) {
	var f ruleTests
	d := yaml.NewDecoder(strings.NewReader(read(t, folder+"leat.rules.test.yaml")))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	var all []rulefmt.Rule
	for _, file := range f.RuleFiles {
		all = append(all, rulesOf(t, file)...)
	}
	metrics := exported(t)
	fired, quiet := map[string]bool{}, map[string]bool{}
	for _, c := range f.Tests {
		t.Run(c.Name, func(t *testing.T) {
			load := fmt.Sprintf("load %s\n", c.Interval)
			for _, s := range c.Series {
				parse(t, "a series", "rate("+s.Series+"[1m])", metrics) // what is fed in is what servers export
				load += "  " + s.Series + " " + s.Values + "\n"
			}
			store := promqltest.LoadedStorage(t, load)
			query := rules.EngineQueryFunc(promqltest.NewTestEngineWithOpts(t, promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promQL}), store)
			for _, want := range c.Alerts {
				i := slices.IndexFunc(all, func(r rulefmt.Rule) bool { return r.Alert == want.Name })
				if i < 0 {
					t.Errorf("no rule %s", want.Name)
					continue
				}
				var expected []string
				for _, w := range want.Want {
					w.Labels[labels.AlertName] = want.Name
					expected = append(expected, labels.FromMap(w.Labels).String())
				}
				got := firing(t, query, &all[i], time.Duration(f.Interval), time.Duration(want.At))
				slices.Sort(expected)
				if !slices.Equal(got, expected) {
					t.Errorf("%s at %s: firing\n%s\nwant\n%s", want.Name, want.At, strings.Join(got, "\n"), strings.Join(expected, "\n"))
				}
				fired[want.Name] = fired[want.Name] || len(expected) > 0
				quiet[want.Name] = quiet[want.Name] || len(expected) == 0
			}
		})
	}
	for _, r := range all {
		if !fired[r.Alert] || !quiet[r.Alert] {
			t.Errorf("%s is not tested both firing and not: %v, %v", r.Alert, fired[r.Alert], quiet[r.Alert])
		}
	}
}

// firing evaluates a rule from the start of the series until a moment, and returns the labels of what fires then, sorted.
func firing(t *testing.T, query rules.QueryFunc, r *rulefmt.Rule, every, until time.Duration) []string {
	t.Helper()
	e, err := promQL.ParseExpr(r.Expr)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	rule := rules.NewAlertingRule(r.Alert, e, time.Duration(r.For), time.Duration(r.KeepFiringFor), labels.FromMap(r.Labels),
		labels.FromMap(r.Annotations), labels.EmptyLabels(), "", true, slog.New(slog.NewTextHandler(&log, nil)))
	for at := time.Duration(0); at <= until; at += every {
		if _, err := rule.Eval(t.Context(), 0, time.Unix(0, 0).Add(at), query, &url.URL{}, 0); err != nil {
			t.Fatalf("%s: %v", r.Alert, err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("%s: %s", r.Alert, &log)
	}
	var out []string
	for _, a := range rule.ActiveAlerts() {
		if a.State != rules.StateFiring {
			continue
		}
		out = append(out, a.Labels.String())
		a.Annotations.Range(func(l labels.Label) {
			if strings.Contains(l.Value, "<no value>") || strings.Contains(l.Value, "{{") || strings.Contains(l.Value, "<error") {
				t.Errorf("%s: %s is %q", r.Alert, l.Name, l.Value)
			}
		})
		t.Logf("%s: %s", r.Alert, a.Annotations.Get("summary"))
	}
	slices.Sort(out)
	return out
}
