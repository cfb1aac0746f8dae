package pipeline

import (
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// The columns of a request: what the nodes of a route read, less what steps before them make.

func (b *builder) find(name string) *schemas.Field {
	i := slices.IndexFunc(b.fields, func(f schemas.Field) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return &b.fields[i]
}

// column adds a column of the request, or checks that all who read it mean the same.
func (b *builder) column(f schemas.Field, path, at string) {
	old := b.find(f.Name)
	switch {
	case old == nil:
		b.fields = append(b.fields, f)
		b.reader[f.Name] = path
	case !sameType(old, &f):
		b.fault(at, "column %q is %s here, and %s for %s", f.Name, typeText(&f), typeText(old), b.reader[f.Name])
	case path != "":
		old.Nullable = old.Nullable && f.Nullable
	}
}

func sameType(a, b *schemas.Field) bool { return a.Type == b.Type && slices.Equal(a.Shape, b.Shape) }

func typeText(f *schemas.Field) string {
	g := schemas.Field{Type: f.Type, Shape: f.Shape}
	return strings.TrimSpace(g.String())
}

// collect gathers what models read of the request. made are the columns of steps before. false: a model is not known.
func (b *builder) collect(n *Node, path, at string, made map[string]bool) bool {
	if n.Model != "" {
		sig, ok := b.sigs[path]
		if !ok {
			return false
		}
		for _, f := range sig.Inputs.Fields() {
			switch {
			case made[f.Name]:
			case b.apart(&f):
				for _, name := range f.Features {
					if !made[name] {
						b.column(schemas.Field{Name: name, Type: f.Type, Nullable: f.Nullable}, path, document.Join(at, "model"))
					}
				}
			default:
				b.column(f, path, document.Join(at, "model"))
			}
		}
		return true
	}
	ok := true
	for i, c := range n.below() {
		if n.Ensemble != nil && n.Ensemble.combines(&c) {
			_, known := b.sigs[path+"/"+combiner]
			ok = ok && known
			continue // what it does not have from members must be a column that others read, or that is declared: a typo is none
		}
		seen := made
		if n.Cascade != nil && len(n.Cascade[i].Refine) > 0 {
			seen = map[string]bool{}
			maps.Copy(seen, made)
			for name := range n.Cascade[i].Refine {
				seen[name] = true
			}
		}
		ok = b.collect(c.node, path+"/"+c.name, document.Join(at, c.at), seen) && ok
		if n.Sequence != nil {
			next := map[string]bool{}
			for k := range made {
				next[k] = true
			}
			b.made(c.node, path+"/"+c.name, next)
			made = next
		}
	}
	return ok
}

// apart reports whether the elements of a packed tensor are columns of their own in this route: where another node reads or
// makes one of them by its name, or as an element of another tensor.
func (b *builder) apart(t *schemas.Field) bool {
	if len(t.Features) == 0 {
		return false
	}
	read := func(name string) bool { return slices.Contains(t.Features, name) }
	for name := range b.spec.Columns {
		if read(name) {
			return true
		}
	}
	made := false
	b.spec.Route.Walk(RootPath, RootPath, func(_, _ string, n *Node) {
		made = made || slices.ContainsFunc(n.makes(), read)
		for i := range n.Cascade {
			made = made || slices.ContainsFunc(sortedKeys(n.Cascade[i].Refine), read)
		}
	})
	if made {
		return true
	}
	for _, sig := range b.sigs {
		for _, f := range sig.Inputs.Fields() {
			other := f.Name != t.Name || !sameType(&f, t) || !slices.Equal(f.Features, t.Features)
			if len(f.Features) == 0 && read(f.Name) || other && slices.ContainsFunc(f.Features, read) {
				return true
			}
		}
	}
	return false
}

// makes returns the columns that the node itself makes, without a model or a node below.
func (n *Node) makes() (names []string) {
	switch {
	case n.Transform != nil:
		names = sortedKeys(n.Transform.Columns)
	case n.Lookup != nil:
		for _, c := range n.Lookup.Columns {
			names = append(names, c.Name)
		}
	}
	return names
}

// made adds the names of the columns that a node answers with.
func (b *builder) made(n *Node, path string, names map[string]bool) {
	switch {
	case n.Model != "":
		if sig, ok := b.sigs[path]; ok {
			for _, f := range sig.Outputs.Fields() {
				names[f.Name] = true
			}
		}
	case n.Transform != nil, n.Lookup != nil:
		for _, name := range n.makes() {
			names[name] = true
		}
	case n.Sequence != nil:
		last := &n.Sequence[len(n.Sequence)-1]
		b.made(&last.Node, path+"/"+last.Name, names)
	case n.Ensemble != nil && len(n.Ensemble.Columns) > 0:
		for name := range n.Ensemble.Columns {
			names[name] = true
		}
	case n.Ensemble != nil && n.Ensemble.stacks():
		b.made(&n.Ensemble.Combine.Node, path+"/"+combiner, names)
	case n.Ensemble != nil && n.Ensemble.Combine.Rule == combine.Concat:
		for i := range n.Ensemble.Members {
			m := &n.Ensemble.Members[i]
			of := map[string]bool{}
			b.made(&m.Node, path+"/"+m.Name, of)
			for name := range of {
				names[combine.Qualified(m.Name, name)] = true
			}
		}
	default:
		for _, c := range n.below()[:1] {
			b.made(c.node, path+"/"+c.name, names)
		}
	}
}
