package check

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// exported is what docs/operations.md says a server exports: metrics, as PromQL names them, with their labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, "../../docs/operations.md"), "## Metrics")
	if !ok {
		t.Fatal("docs/operations.md has no part on metrics")
	}
	table, _, _ := strings.Cut(rest, "\n## ")
	name := regexp.MustCompile("`(leat_[a-z_]+)`")
	out := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			continue
		}
		var ls []string
		for l := range strings.SplitSeq(cells[3], ",") {
			if l = strings.TrimSpace(l); l != "" {
				ls = append(ls, l)
			}
		}
		for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
			if strings.TrimSpace(cells[2]) != "histogram" {
				out[m[1]] = ls
				continue
			}
			out[m[1]+"_sum"], out[m[1]+"_count"] = ls, ls
			out[m[1]+"_bucket"] = append(slices.Clone(ls), labels.BucketLabel)
		}
	}
	if len(out) < 50 {
		t.Fatalf("docs/operations.md lists only %d metrics", len(out))
	}
	return out
}

// ofScrape are the labels that Prometheus adds.
var ofScrape = []string{"instance", "job"}

// foreign says which metrics are not ours: Prometheus' own, and those of client_golang's collectors, without labels.
var foreign = regexp.MustCompile("^(up|go_(goroutines|memstats_heap_inuse_bytes)|process_(resident_memory_bytes|cpu_seconds_total|open_fds|start_time_seconds))$")

var promQL = parser.NewParser(parser.Options{})

// parse reads an expression and checks that its metrics are exported, that those have the labels which it asks for or groups
// by, and that counters are not read as they stand.
func parse(t *testing.T, where, expr string, metrics map[string][]string) {
	t.Helper()
	e, err := promQL.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v in %s", where, err, expr)
		return
	}
	found := false
	labelsOf := func(n parser.Node) (all []string) {
		parser.Inspect(n, func(n parser.Node, _ []parser.Node) error {
			if v, ok := n.(*parser.VectorSelector); ok {
				all = append(all, metrics[v.Name]...)
			}
			return nil
		})
		return append(all, ofScrape...)
	}
	parser.Inspect(e, func(n parser.Node, path []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			found = true
			has, ok := metrics[n.Name]
			if !ok && !foreign.MatchString(n.Name) {
				t.Errorf("%s asks for %s, which docs/operations.md does not list", where, n.Name)
			}
			for _, m := range n.LabelMatchers {
				if m.Name != model.MetricNameLabel && !slices.Contains(has, m.Name) && !slices.Contains(ofScrape, m.Name) {
					t.Errorf("%s: %s has no label %s", where, n.Name, m.Name)
				}
			}
			ranged := false
			if len(path) > 0 {
				_, ranged = path[len(path)-1].(*parser.MatrixSelector)
			}
			if counts := regexp.MustCompile("_(total|bucket|sum|count)$").MatchString(n.Name); counts && !ranged {
				t.Errorf("%s reads the counter %s without rate or increase", where, n.Name)
			}
		case *parser.AggregateExpr:
			for _, l := range n.Grouping {
				if !slices.Contains(labelsOf(n.Expr), l) {
					t.Errorf("%s groups by %s, which nothing has in %s", where, l, n)
				}
			}
		}
		return nil
	})
	if !found {
		t.Errorf("%s asks for no metric: %s", where, expr)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
