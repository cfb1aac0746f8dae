package pipeline

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// Shadow is a node beside the route. It is asked what the route was asked, for a sample of the rows; its answers go to the
// lineage and nowhere else. It never slows, fails or changes the answer of the route: what it has no time for is dropped
// and counted.
type Shadow struct {
	Name        string   `yaml:"name" json:"name"`
	Sample      *float64 `yaml:"sample,omitempty" json:"sample,omitempty"`           // share of the rows, 0 to 1; absent: all
	Key         string   `yaml:"key,omitempty" json:"key,omitempty"`                 // column whose values are sampled; "" or null: request ids
	Concurrency int      `yaml:"concurrency,omitempty" json:"concurrency,omitempty"` // batches in work at most, in each process; default 1
	Budget      int      `yaml:"budget,omitempty" json:"budget,omitempty"`           // rows in hand at most, in each process; default DefaultShadowBudget
	Node        `yaml:",inline"`
}

// Bounds of shadows.
const (
	DefaultShadowBudget  = 4096
	maxShadows           = 16
	maxShadowConcurrency = 64
	maxShadowBudget      = 1 << 20
)

// ShadowPath is where the node paths of shadows begin: shadows/NAME.
const ShadowPath = "shadows"

// Path is the node path of the shadow.
func (s *Shadow) Path() string { return ShadowPath + "/" + s.Name }

// rate is the sample in parts per million.
func (s *Shadow) rate() int {
	if s.Sample == nil {
		return route.Million
	}
	return int(math.Round(*s.Sample * route.Million))
}

// inRoute reports whether a node path is of the route, not of a shadow.
func inRoute(path string) bool { return path == RootPath || strings.HasPrefix(path, RootPath+"/") }

// under returns the models at a node path and below it.
func under(ms []ResolvedModel, path string) []ResolvedModel {
	var out []ResolvedModel
	for _, m := range ms {
		if m.Node == path || strings.HasPrefix(m.Node, path+"/") {
			out = append(out, m)
		}
	}
	return out
}

func ofRoute(ms []ResolvedModel) []ResolvedModel { return under(ms, RootPath) }

func (c *checker) shadows(s *Spec) {
	if len(s.Shadows) > maxShadows {
		c.fault("shadows", "%d shadows: at most %d", len(s.Shadows), maxShadows)
		return
	}
	seen := map[string]string{}
	for i := range s.Shadows {
		x, at := &s.Shadows[i], document.Index("shadows", i)
		switch first, twice := seen[x.Name]; {
		case x.Name == "":
			c.fault(document.Join(at, "name"), "missing; it names the shadow in records and metrics, and its group")
		case twice:
			c.fault(document.Join(at, "name"), "%q is the name of %s too; shadows have names of their own", x.Name, first)
		default:
			c.err(document.Join(at, "name"), schemas.CheckName("shadow", x.Name))
		}
		seen[x.Name] = at
		if f := x.Sample; f != nil && !(*f >= 0 && *f <= 1) {
			c.fault(document.Join(at, "sample"), "%v: want a share from 0 to 1, such as 0.25 for a quarter of the rows", *f)
		}
		if x.Concurrency < 0 || x.Concurrency > maxShadowConcurrency {
			c.fault(document.Join(at, "concurrency"), "%d: want 1 to %d batches", x.Concurrency, maxShadowConcurrency)
		}
		if x.Budget < 0 || x.Budget > maxShadowBudget {
			c.fault(document.Join(at, "budget"), "%d: want 1 to %d rows", x.Budget, maxShadowBudget)
		}
		c.node(&x.Node, at, 1)
	}
}

// shadowGraphs checks shadows against the columns of a request.
func (c *checker) shadowGraphs(s *Spec, sigs map[string]schemas.Signature, in *schemas.Schema) {
	for i := range s.Shadows {
		x := &s.Shadows[i]
		if k := in.Index(x.Key); x.Key != "" && k < 0 {
			c.fault(document.Join(document.Index("shadows", i), "key"), "no column %q%s; a column that the route does not read is said under columns", x.Key, document.Meant(x.Key, namesOf(in)))
		} else if x.Key != "" && !keyType(in.Field(k)) {
			c.fault(document.Join(document.Index("shadows", i), "key"), "column %q is %s; a key is text, a whole number, a bool or a timestamp", x.Key, typeText(in.Field(k)))
		}
		if buildShadow(c, s, i, sigs, in) != nil {
			models := 0
			x.Walk("", "", func(_, _ string, n *Node) {
				if n.Model != "" {
					models++
				}
			})
			if models == 0 {
				c.fault(document.Index("shadows", i), "runs no model; a shadow has at least one")
			}
		}
	}
}

// buildShadow makes the graph of a shadow, which reads of the columns in of a request; nil if there is a fault, or a model
// is not known.
func buildShadow(c *checker, s *Spec, i int, sigs map[string]schemas.Signature, in *schemas.Schema) *graph {
	x := &s.Shadows[i]
	known := true
	x.Walk(x.Path(), "", func(path, _ string, n *Node) {
		if n.Model != "" {
			_, ok := sigs[path]
			known = known && ok
		}
	})
	if !known {
		return nil
	}
	before := len(c.faults)
	at := document.Index("shadows", i)
	b := &builder{checker: c, spec: s, sigs: sigs, graph: &graph{}, shadow: true, reader: map[string]string{}}
	x.Walk(x.Path(), at, func(_, at string, n *Node) {
		if n.Bandit != nil {
			c.fault(document.Join(at, "bandit"), "feedback is about what was answered, and nobody sees what a shadow answers: a bandit cannot learn here; let a split choose")
		}
		if n.Split != nil && n.Split.Key != "" && in.Index(n.Split.Key) < 0 {
			c.fault(document.Join(at, "split.key"), "no column %q%s; a column that the route does not read is said under columns", n.Split.Key, document.Meant(n.Split.Key, namesOf(in)))
		}
	})
	if len(c.faults) > before {
		return nil
	}
	root := b.build(&x.Node, x.Path(), at, lineage.RoleShadow, in)
	if root == nil || len(c.faults) > before {
		return nil
	}
	return b.rooted(root)
}

// shadowsRead returns the declared columns that shadows read, as far as their models are known.
func shadowsRead(s *Spec, sigs map[string]schemas.Signature, env *schemas.Schema) (names []string) {
	for i := range s.Shadows {
		reads := []string{s.Shadows[i].Key}
		if g := buildShadow(&checker{}, s, i, sigs, env); g != nil {
			reads = append(reads, namesOf(g.in)...)
		}
		for _, name := range reads {
			if _, declared := s.Columns[name]; declared && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// schemaOfShadows is the JSON Schema of shadows: named nodes with some keys more.
func schemaOfShadows() map[string]any {
	s := childrenOf("Nodes beside the route that are asked what it was asked. Their answers go to the lineage alone.", 0, nil, map[string]any{
		"sample":      map[string]any{"type": "number", "minimum": 0, "maximum": 1, "default": 1, "description": "Share of the rows; the same key is always in the sample, or never."},
		"key":         map[string]any{"type": "string", "minLength": 1, "description": "The column whose values are sampled; absent or null: the request id."},
		"concurrency": map[string]any{"type": "integer", "minimum": 1, "maximum": maxShadowConcurrency, "default": 1, "description": "Batches in work at most, in each process."},
		"budget":      map[string]any{"type": "integer", "minimum": 1, "maximum": maxShadowBudget, "default": DefaultShadowBudget, "description": "Rows in hand at most, in each process; more are dropped, and counted."},
	})
	s = maps.Clone(s)
	s["maxItems"] = maxShadows
	return s
}
