package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// nodeKind is one kind of node. A new kind is a field of Node and an entry of nodeKinds; walking, defaults, validation,
// revisions and the JSON Schema follow from it. What it does is in graph.go.
type nodeKind struct {
	key      string             // its key in the spec, and the field of Node with that yaml tag
	used     func(n *Node) bool // whether the key is set
	children func(n *Node) []child
	copy     func(n *Node) // gives n maps and slices of its own
	check    func(n *Node, at string, c *checker)
	schema   map[string]any // JSON Schema of the key's value
}

// child is a node below another. Names are unique among siblings and make the node path.
type child struct {
	name string
	at   string // where it is below its parent, in the spec: "split.arms[1]"
	node *Node
}

// nodeKinds is filled by init, since the checks of kinds with children come back to it.
var nodeKinds []nodeKind

func init() {
	nodeKinds = []nodeKind{modelKind, splitKind, switchKind, sequenceKind, transformKind, ensembleKind, cascadeKind, banditKind, lookupKind}
}

var modelKind = nodeKind{
	key:      "model",
	used:     func(n *Node) bool { return n.Model != "" },
	children: func(*Node) []child { return nil },
	copy:     func(*Node) {},
	check: func(n *Node, at string, c *checker) {
		if _, err := schemas.ParseModelRef(n.Model); err != nil {
			c.fault(document.Join(at, "model"), "%v; write NAME, NAME@ALIAS or NAME@VERSION", err)
		}
	},
	schema: map[string]any{
		"type": "string", "pattern": modelPattern,
		"description": "The model that answers: NAME (its champion), NAME@ALIAS or NAME@VERSION.",
	},
}

var splitKind = nodeKind{
	key:  "split",
	used: func(n *Node) bool { return n.Split != nil },
	children: func(n *Node) []child {
		return children("split.arms", n.Split.Arms, func(a *Arm) (string, *Node) { return a.Name, &a.Node })
	},
	copy: func(n *Node) {
		s := *n.Split
		s.Arms = slices.Clone(s.Arms)
		n.Split = &s
	},
	check: func(n *Node, at string, c *checker) {
		s := n.Split
		at = document.Join(at, "split")
		if s.Key != "" && s.Header != "" {
			c.fault(document.Join(at, "header"), "both a key and a header; keep one of them")
		}
		if s.Header != "" && !headerName(s.Header) {
			c.fault(document.Join(at, "header"), "%.80q is not a header's name: letters, digits and hyphens", s.Header)
		}
		sum := 0
		for i, a := range s.Arms {
			if a.Weight < 0 || a.Weight > fullWeight {
				c.fault(document.Join(document.Index(document.Join(at, "arms"), i), "weight"), "%d: want 0 to 100 percent, or 0 to %d parts", a.Weight, fullWeight)
				return
			}
			sum += a.Weight
		}
		if len(s.Arms) < 2 {
			c.fault(document.Join(at, "arms"), "%s: a split has at least two", few(len(s.Arms), "arm"))
		} else if sum != 100 && sum != fullWeight {
			c.fault(document.Join(at, "arms"), "the weights add up to %d; want 100 (percent) or %d (parts)", sum, fullWeight)
		}
	},
	schema: object("Each row goes to one arm by weight, the same key always to the same arm.", []string{"arms"}, map[string]any{
		"key":    map[string]any{"type": "string", "minLength": 1, "description": "The column whose value sticks to its arm; absent or null: the request id."},
		"header": map[string]any{"type": "string", "pattern": headerPattern, "description": "Instead of key: the header whose value sticks to its arm."},
		"salt":   map[string]any{"type": "string", "maxLength": MaxLabel, "description": "Splits with one salt choose alike; by default each chooses for itself."},
		"forced": map[string]any{"type": "boolean", "default": false, "description": "Whether the header Leat-Arm may choose the arm."},
		"arms": childrenOf("The arms. Weights are percent, or parts per 10,000, and add up to 100 or 10,000.", 2, []string{"weight"}, map[string]any{
			"weight": map[string]any{"type": "integer", "minimum": 0, "maximum": fullWeight},
		}),
	}),
}

var switchKind = nodeKind{
	key:  "switch",
	used: func(n *Node) bool { return n.Switch != nil },
	children: func(n *Node) []child {
		return children("switch", n.Switch, func(a *Case) (string, *Node) { return a.Name, &a.Node })
	},
	copy: func(n *Node) { n.Switch = slices.Clone(n.Switch) },
	check: func(n *Node, at string, c *checker) {
		at = document.Join(at, "switch")
		if len(n.Switch) < 2 {
			c.fault(at, "%s: a switch has at least two, the last without when", few(len(n.Switch), "case"))
		}
		first := map[string]int{} // case of a condition
		for i, x := range n.Switch {
			last := i == len(n.Switch)-1
			when := strings.TrimSpace(x.When)
			j, twice := first[when]
			if !twice {
				first[when] = i
			}
			switch at := document.Join(document.Index(at, i), "when"); {
			case last && x.When != "":
				c.fault(at, "the last case takes all rows that are left; leave when out, or add a case behind it")
			case !last && x.When == "":
				c.fault(at, "missing; only the last case goes without, and those behind it are never reached")
			case twice && !last:
				c.fault(at, "the condition of %s too, which takes its rows; this case is never reached", document.Index("switch", j))
			case !last:
				c.constant(at, when, "the case")
			}
		}
	},
	schema: childrenOf("The first case whose condition holds takes the row; the last has none and takes the rest.", 2, nil, map[string]any{
		"when": map[string]any{"type": "string", "minLength": 1, "description": "A condition in CEL over input.<column>; null counts as false."},
	}),
}

var sequenceKind = nodeKind{
	key:  "sequence",
	used: func(n *Node) bool { return n.Sequence != nil },
	children: func(n *Node) []child {
		return children("sequence", n.Sequence, func(a *Step) (string, *Node) { return a.Name, &a.Node })
	},
	copy: func(n *Node) { n.Sequence = slices.Clone(n.Sequence) },
	check: func(n *Node, at string, c *checker) {
		if len(n.Sequence) < 2 {
			c.fault(document.Join(at, "sequence"), "%s: a sequence has at least two", few(len(n.Sequence), "step"))
		}
	},
	schema: childrenOf("Steps in order. Each sees the columns of the request and of the steps before it; the last one answers.", 2, nil, map[string]any{}),
}

var transformKind = nodeKind{
	key:      "transform",
	used:     func(n *Node) bool { return n.Transform != nil },
	children: func(*Node) []child { return nil },
	copy:     func(n *Node) { n.Transform = &Transform{Columns: maps.Clone(n.Transform.Columns)} },
	check: func(n *Node, at string, c *checker) {
		at = document.Join(document.Join(at, "transform"), "columns")
		if len(n.Transform.Columns) == 0 {
			c.fault(at, "no columns; name at least one, such as hour: input.minute / 60")
		}
		for _, name := range sortedKeys(n.Transform.Columns) {
			if name == "" || len(name) > schemas.MaxColumnName {
				c.fault(at, "column %.80q: a name has 1 to %d bytes", name, schemas.MaxColumnName)
			} else if strings.TrimSpace(n.Transform.Columns[name]) == "" {
				c.fault(document.Join(at, name), "no expression; want one such as input.COLUMN / 60")
			}
		}
	},
	schema: object("Makes columns.", []string{"columns"}, map[string]any{
		"columns": map[string]any{
			"type": "object", "minProperties": 1, "maxProperties": schemas.MaxColumns, "propertyNames": map[string]any{"minLength": 1},
			"additionalProperties": map[string]any{"type": "string", "minLength": 1},
			"description":          "Name of the new column to CEL over input.<column>.",
		},
	}),
}

// few counts what there is not enough of.
func few(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// constant finds a condition that says the same of every row.
func (c *checker) constant(at, condition, of string) {
	switch condition {
	case "true":
		c.fault(at, "always true; those behind %s are never reached: leave them out, or write a condition over input.COLUMN", of)
	case "false":
		c.fault(at, "never true; %s is there for nothing: leave it out, or write a condition over input.COLUMN", of)
	}
}

// fullWeight is all of it, in parts.
const fullWeight = 10_000

// children lists what is below a node.
func children[T any](at string, l []T, of func(*T) (string, *Node)) []child {
	out := make([]child, len(l))
	for i := range l {
		name, n := of(&l[i])
		out[i] = child{name, document.Index(at, i), n}
	}
	return out
}

// childrenOf is the JSON Schema of a list of named nodes.
func childrenOf(describe string, least int, required []string, more map[string]any) map[string]any {
	props := map[string]any{"name": map[string]any{"type": "string", "pattern": namePattern, "description": "Unique among its neighbours; it names the node in records and metrics."}}
	maps.Copy(props, more)
	return map[string]any{
		"type": "array", "minItems": least, "maxItems": maxChildren, "description": describe,
		"items": map[string]any{
			"type": "object", "required": append([]string{"name"}, required...), "properties": props,
			"$ref": "#/$defs/kinds", "unevaluatedProperties": false,
		},
	}
}

// maxChildren bounds the children of a node, maxDepth how deep nodes nest.
const (
	maxChildren = 64
	maxDepth    = 8
)

func headerName(s string) bool {
	for _, r := range s {
		if r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return len(s) <= 64
}

func kindKeys() []string {
	keys := make([]string, len(nodeKinds))
	for i := range nodeKinds {
		keys[i] = nodeKinds[i].key
	}
	return keys
}

// Walk calls fn for n and every node below it, parents first, with the node path ("route", "route/canary") and where it
// stands in the spec ("route", "route.split.arms[1]").
func (n *Node) Walk(path, at string, fn func(path, at string, n *Node)) {
	fn(path, at, n)
	for _, c := range n.below() {
		c.node.Walk(path+"/"+c.name, document.Join(at, c.at), fn)
	}
}

func (n *Node) below() (all []child) {
	for i := range nodeKinds {
		if nodeKinds[i].used(n) {
			all = append(all, nodeKinds[i].children(n)...)
		}
	}
	return all
}

// rewrite returns fn of a copy of n in which everything below was rewritten in the same way.
func (n Node) rewrite(fn func(Node) Node) Node {
	for i := range nodeKinds {
		if nodeKinds[i].used(&n) {
			nodeKinds[i].copy(&n)
		}
	}
	for _, c := range n.below() {
		*c.node = c.node.rewrite(fn)
	}
	return fn(n)
}

// Refs returns the model reference of every node that names one, by node path.
func (s *Spec) Refs() map[string]string {
	refs := map[string]string{}
	s.Walk(func(path, _ string, n *Node) {
		if n.Model != "" {
			refs[path] = n.Model
		}
	})
	return refs
}

// Walk calls fn for every node of the route, then of the shadows: see Node.Walk.
func (s *Spec) Walk(fn func(path, at string, n *Node)) {
	s.Route.Walk(RootPath, RootPath, fn)
	for i := range s.Shadows {
		s.Shadows[i].Walk(s.Shadows[i].Path(), document.Index("shadows", i), fn)
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
