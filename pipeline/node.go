package pipeline

import (
	"maps"
	"slices"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// nodeKind is one kind of node. A new kind is a field of Node and an entry of nodeKinds; walking, defaults, validation,
// revisions and the JSON Schema follow from it.
type nodeKind struct {
	key      string             // its key in the spec, and the field of Node with that yaml tag
	used     func(n *Node) bool // whether the key is set
	children func(n *Node) []child
	check    func(n *Node, path string, c *checker)
	schema   map[string]any // JSON Schema of the key's value
}

// child is a node below another. Names are unique among siblings and make the node path.
type child struct {
	name string
	node *Node
}

var nodeKinds = []nodeKind{
	{
		key:      "model",
		used:     func(n *Node) bool { return n.Model != "" },
		children: func(*Node) []child { return nil },
		check: func(n *Node, path string, c *checker) {
			if _, err := schemas.ParseModelRef(n.Model); err != nil {
				c.fault(document.Join(path, "model"), "%v; write NAME, NAME@ALIAS or NAME@VERSION", err)
			}
		},
		schema: map[string]any{
			"type": "string", "pattern": modelPattern,
			"description": "The model that answers: NAME (its champion), NAME@ALIAS or NAME@VERSION.",
		},
	},
}

func kindKeys() []string {
	keys := make([]string, len(nodeKinds))
	for i := range nodeKinds {
		keys[i] = nodeKinds[i].key
	}
	return keys
}

// Walk calls fn for n and every node below it, parents first, with the node path: "route", "route/canary".
func (n *Node) Walk(path string, fn func(path string, n *Node)) {
	fn(path, n)
	for i := range nodeKinds {
		if !nodeKinds[i].used(n) {
			continue
		}
		for _, c := range nodeKinds[i].children(n) {
			c.node.Walk(path+"/"+c.name, fn)
		}
	}
}

// rewrite returns fn of a copy of n. Kinds with children will copy them here.
func (n Node) rewrite(fn func(Node) Node) Node { return fn(n) }

// Refs returns the model reference of every node that names one, by node path.
func (s *Spec) Refs() map[string]string {
	refs := map[string]string{}
	s.Route.Walk(RootPath, func(path string, n *Node) {
		if n.Model != "" {
			refs[path] = n.Model
		}
	})
	return refs
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
