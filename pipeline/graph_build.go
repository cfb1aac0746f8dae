package pipeline

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// builder makes the graph of a spec: when it is applied, to find its types and what is wrong with them, and when it is
// loaded, to run it.
//
// The columns of a request are those that models read and that no step before them makes, in the order of the spec, then
// those of the spec's columns, then keys that nobody else knows (as text). So types are known before conditions and
// transforms are compiled.
type builder struct {
	*checker
	spec   *Spec
	sigs   map[string]schemas.Signature // of models, by node path; one that was not found is absent
	graph  *graph
	fields []schemas.Field
	shadow bool              // it is the graph of a shadow
	reader map[string]string // of a column: the node path that asked for it first
}

// buildGraph makes the graph of the route. It returns nil if there is a fault, or a model is not known; that is told already.
//
// The columns of a request may be more than those that the route reads: declared ones that only shadows read, as far as
// sigs has the models of these, and the one that feedback finds decisions by.
func buildGraph(c *checker, s *Spec, all map[string]schemas.Signature) *graph {
	sigs := map[string]schemas.Signature{}
	for path, sig := range all {
		if inRoute(path) {
			sigs[path] = sig
		}
	}
	b := &builder{checker: c, spec: s, sigs: sigs, graph: &graph{}, reader: map[string]string{}}
	before := len(c.faults)
	if !b.collect(&s.Route, RootPath, RootPath, nil) {
		return nil
	}
	for _, name := range sortedKeys(s.Columns) {
		t, err := schemas.ParseDType(s.Columns[name])
		if err == nil {
			b.column(schemas.Field{Name: name, Type: t, Nullable: true}, "", document.Join("columns", name))
		}
	}
	s.Route.Walk(RootPath, RootPath, func(path, at string, n *Node) {
		if key := n.key(); key != "" && b.find(key) == nil {
			b.column(schemas.Field{Name: key, Type: schemas.String, Nullable: true}, path, at)
		}
	})
	env, err := schemas.NewSchema(b.fields)
	if err != nil {
		c.fault(RootPath, "the columns of a request: %v", err)
	}
	if err != nil || len(c.faults) > before {
		return nil
	}
	root := b.build(&s.Route, RootPath, RootPath, lineage.RolePrimary, env)
	if root == nil || len(c.faults) > before {
		return nil
	}
	g := b.rooted(root)
	more := shadowsRead(s, all, env)
	if e := s.entity(); e != "" && env.Index(e) >= 0 {
		more = append(more, e)
	}
	if len(more) > 0 {
		g.widen(union(env, []graphNode{root}, more...))
	}
	return g
}

// rooted finishes the graph.
func (b *builder) rooted(root graphNode) *graph {
	for _, n := range b.graph.nodes[1:] {
		above := n.path[:strings.LastIndexByte(n.path, '/')]
		n.above = slices.IndexFunc(b.graph.nodes, func(o *nodeFacts) bool { return o.path == above })
	}
	b.graph.root, b.graph.in, b.graph.out = root, root.facts().in, root.facts().out
	return b.graph
}

// widen has the graph take more columns than it reads.
func (g *graph) widen(in *schemas.Schema) {
	if own := g.root.facts().in; own.ID() != in.ID() {
		g.in, g.give = in, newPicker(in, own)
	}
}

// key is the column that a node chooses or looks up by, "" if there is none.
func (n *Node) key() string {
	switch {
	case n.Split != nil:
		return n.Split.Key
	case n.Lookup != nil:
		return n.Lookup.Key
	}
	return ""
}

// build makes a node that sees the columns of env; nil if there is a fault.
func (b *builder) build(n *Node, path, at, role string, env *schemas.Schema) graphNode {
	facts := &nodeFacts{index: len(b.graph.nodes), path: path, role: role}
	b.graph.nodes = append(b.graph.nodes, nil)
	var node graphNode
	switch {
	case n.Model != "":
		node = b.model(facts, document.Join(at, "model"), env)
	case n.Split != nil:
		node = b.split(n, facts, at, env)
	case n.Switch != nil:
		node = b.switching(n, facts, at, env)
	case n.Sequence != nil:
		node = b.sequence(n, facts, at, env)
	case n.Transform != nil:
		node = b.transform(n, facts, document.Join(at, "transform.columns"), env)
	case n.Ensemble != nil:
		node = b.ensemble(n, facts, at, env)
	case n.Cascade != nil:
		node = b.cascade(n, facts, at, env)
	case n.Bandit != nil:
		node = b.bandit(n, facts, at, env)
	case n.Lookup != nil:
		node = b.lookup(n, facts, document.Join(at, "lookup"), env)
	}
	if node != nil {
		b.graph.nodes[facts.index] = node.facts()
	}
	return node
}

func (b *builder) model(facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	sig := b.sigs[facts.path]
	facts.in, facts.out = sig.Inputs, sig.Outputs
	n := &scoringNode{nodeFacts: facts, takes: sig.Inputs}
	var reads []string
	for _, f := range sig.Inputs.Fields() {
		i := env.Index(f.Name)
		switch {
		case i < 0 && len(f.Features) > 0:
			reads = append(reads, f.Features...)
			facts.in = nil
		case i < 0:
			b.fault(at, "the model reads column %q, which is not there%s%s", f.Name, document.Meant(f.Name, namesOf(env)), b.advice())
			return nil
		case !sameType(env.Field(i), &f):
			if b.shadow {
				b.fault(at, "the model reads column %q as %s, and it is %s here: cast it in a transform before", f.Name, typeText(&f), typeText(env.Field(i)))
				return nil
			}
			b.fault(at, "the model reads column %q as %s, and a step before makes it %s: cast it there", f.Name, typeText(&f), typeText(env.Field(i)))
			return nil
		default:
			reads = append(reads, f.Name)
		}
	}
	if facts.in != nil {
		return n
	}
	facts.in = union(env, nil, reads...)
	var err error
	if n.pack, err = combine.NewStack(nil, facts.in, sig.Inputs); err != nil {
		b.fault(at, "%v", schemas.AsError("", err).Err)
		return nil
	}
	n.work = n.pack.Work()
	return n
}

// advice is what else a shadow could do about a column that it does not see.
func (b *builder) advice() string {
	if b.shadow {
		return "; a shadow reads what requests have: say it under columns"
	}
	return ""
}

// below builds the children of a node; nil if one has a fault.
func (b *builder) below(n *Node, path, at, role string, env *schemas.Schema) []graphNode {
	return b.children(n.below(), path, at, role, env)
}

func (b *builder) children(below []child, path, at, role string, env *schemas.Schema) []graphNode {
	var out []graphNode
	for _, c := range below {
		out = append(out, b.build(c.node, path+"/"+c.name, document.Join(at, c.at), role, env))
	}
	for _, c := range out {
		if c == nil {
			return nil
		}
	}
	return out
}

// union returns the columns of env that children read, and some more, in the order of env.
func union(env *schemas.Schema, children []graphNode, more ...string) *schemas.Schema {
	var fs []schemas.Field
	for _, f := range env.Fields() {
		read := slices.Contains(more, f.Name) || slices.ContainsFunc(children, func(c graphNode) bool { return c.facts().in.Index(f.Name) >= 0 })
		if read {
			fs = append(fs, f)
		}
	}
	return schemas.MustSchema(fs...) // a part of a schema is one
}

// agree returns the columns with which any of the children answers; nil if they are not the same.
func (b *builder) agree(n *Node, children []graphNode, at string) *schemas.Schema {
	first := children[0].facts()
	fs := slices.Clone(first.out.Fields())
	ok := true
	for i, c := range children[1:] {
		at := document.Join(at, n.below()[i+1].at)
		o := c.facts().out
		for j := range fs {
			k := o.Index(fs[j].Name)
			switch {
			case k < 0:
				b.fault(at, "answers without column %q, which %s has%s", fs[j].Name, first.path, document.Meant(fs[j].Name, namesOf(o)))
			case !sameType(o.Field(k), &fs[j]):
				b.fault(at, "answers column %q as %s, and %s as %s", fs[j].Name, typeText(o.Field(k)), first.path, typeText(&fs[j]))
			default:
				fs[j].Nullable = fs[j].Nullable || o.Field(k).Nullable
				continue
			}
			ok = false
		}
		for _, f := range o.Fields() {
			if first.out.Index(f.Name) < 0 {
				b.fault(at, "answers column %q, which %s has not", f.Name, first.path)
				ok = false
			}
		}
	}
	if !ok {
		return nil
	}
	return schemas.MustSchema(fs...)
}

// parting makes a node that gives each row to one of its children.
func (b *builder) parting(n *Node, facts *nodeFacts, at string, env *schemas.Schema, reads ...string) *partingNode {
	children := b.below(n, facts.path, at, lineage.RoleArm, env)
	if children == nil {
		return nil
	}
	if facts.out = b.agree(n, children, at); facts.out == nil {
		return nil
	}
	facts.in = union(env, children, reads...)
	p := &partingNode{nodeFacts: facts, children: children}
	for i, c := range children {
		p.arms = append(p.arms, n.below()[i].name)
		p.give = append(p.give, newPicker(facts.in, c.facts().in))
		p.take = append(p.take, newPicker(c.facts().out, facts.out))
	}
	return p
}

func (b *builder) split(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	s := n.Split
	if s.Key != "" && !b.keyed(s.Key, document.Join(at, "split.key"), env) {
		return nil
	}
	p := b.parting(n, facts, at, env, s.Key)
	if p == nil {
		return nil
	}
	salt := s.Salt
	if salt == "" {
		salt = b.spec.Name + "/" + facts.path
	}
	x := &splitter{key: -1, header: s.Header, forced: s.Forced, path: facts.path, arms: p.arms}
	if s.Key != "" {
		x.key = p.in.Index(s.Key)
	}
	full := *s
	full.Arms = slices.Clone(s.Arms)
	full.inParts()
	for _, a := range full.Arms {
		x.parts = append(x.parts, a.Weight)
	}
	var err error
	if x.split, err = route.NewSplit(salt, p.arms, x.parts); err != nil {
		b.fault(document.Join(at, "split"), "%v", err)
		return nil
	}
	p.choose = x
	return p
}

// keyed checks that a column can be a key.
func (b *builder) keyed(key, at string, env *schemas.Schema) bool {
	i := env.Index(key)
	if i < 0 { // in a shadow: nobody reads it of a request
		b.fault(at, "no column %q%s; a column that the route does not read is said under columns", key, document.Meant(key, namesOf(env)))
		return false
	}
	f := env.Field(i)
	if !keyType(f) {
		b.fault(at, "column %q is %s; a key is text, a whole number, a bool or a timestamp", key, typeText(f))
		return false
	}
	return true
}

// compiled compiles a condition or a column. It sees the columns of in, and of out if that is not nil.
func (b *builder) compiled(src, at string, in, out *schemas.Schema, condition bool) *expr.Program {
	p, err := expr.Compile(src, expr.Env{Input: in, Output: out})
	if err == nil && condition {
		err = p.Condition()
	}
	if err != nil {
		b.fault(at, "%v", schemas.AsError("", err).Err)
		return nil
	}
	return p
}

func (b *builder) switching(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	var reads []string
	ok := true
	last := len(n.Switch) - 1
	where := func(i int) string { return document.Join(document.Index(document.Join(at, "switch"), i), "when") }
	for i := range last {
		p := b.compiled(n.Switch[i].When, where(i), env, nil, true)
		if ok = ok && p != nil; p != nil {
			in, _ := p.Columns()
			reads = append(reads, in...)
		}
	}
	p := b.parting(n, facts, at, env, reads...)
	if p == nil || !ok {
		return nil
	}
	x := &switcher{}
	for i := range last {
		x.when = append(x.when, b.compiled(n.Switch[i].When, where(i), p.in, nil, true))
	}
	p.choose = x
	return p
}

func (b *builder) transform(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	var reads []string
	var outs []schemas.Field
	names := sortedKeys(n.Transform.Columns)
	ok := true
	for _, name := range names {
		p := b.compiled(n.Transform.Columns[name], document.Join(at, name), env, nil, false)
		if ok = ok && p != nil; p != nil {
			in, _ := p.Columns()
			reads = append(reads, in...)
			f := p.Field()
			f.Name = name
			outs = append(outs, f)
		}
	}
	if !ok {
		return nil
	}
	var err error
	if facts.out, err = schemas.NewSchema(outs); err != nil {
		b.fault(at, "%v", err)
		return nil
	}
	facts.in = union(env, nil, reads...)
	t := &transformNode{nodeFacts: facts}
	for _, name := range names {
		t.cols = append(t.cols, b.compiled(n.Transform.Columns[name], document.Join(at, name), facts.in, nil, false))
	}
	return t
}

func (b *builder) sequence(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	s := &sequenceNode{}
	envs := []*schemas.Schema{env} // what each step sees
	for i, c := range n.below() {
		step := b.build(c.node, facts.path+"/"+c.name, document.Join(at, c.at), lineage.RoleStage, envs[i])
		if step == nil {
			return nil
		}
		s.steps = append(s.steps, step)
		next, err := overlaid(envs[i], step.facts().out)
		if err != nil {
			b.fault(document.Join(at, c.at), "%v", err)
			return nil
		}
		envs = append(envs, next)
	}
	// From the last step back: what is read of what a step sees, and where it comes from.
	last := len(s.steps) - 1
	s.have = make([]*schemas.Schema, len(s.steps))
	s.have[last] = union(envs[last], s.steps[last:])
	for i := last - 1; i >= 0; i-- {
		var stay []string
		for _, f := range s.have[i+1].Fields() {
			if s.steps[i].facts().out.Index(f.Name) < 0 {
				stay = append(stay, f.Name)
			}
		}
		s.have[i] = union(envs[i], s.steps[i:i+1], stay...)
	}
	for i, step := range s.steps {
		s.give = append(s.give, newPicker(s.have[i], step.facts().in))
		if i == last {
			break
		}
		made := make([]int, s.have[i+1].Len())
		for c, f := range s.have[i+1].Fields() {
			made[c] = step.facts().out.Index(f.Name)
		}
		s.made = append(s.made, made)
		s.keep = append(s.keep, newPicker(s.have[i], s.have[i+1]))
	}
	facts.in, facts.out = s.have[0], s.steps[last].facts().out
	s.nodeFacts = facts
	return s
}

// overlaid returns the columns of env with those of made, in the place of those of the same name.
func overlaid(env, made *schemas.Schema) (*schemas.Schema, error) {
	fs := slices.Clone(env.Fields())
	for _, f := range made.Fields() {
		if i := env.Index(f.Name); i >= 0 {
			fs[i] = f
		} else {
			fs = append(fs, f)
		}
	}
	return schemas.NewSchema(fs)
}

func namesOf(s *schemas.Schema) []string {
	out := make([]string, s.Len())
	for i := range out {
		out[i] = s.Field(i).Name
	}
	return out
}
