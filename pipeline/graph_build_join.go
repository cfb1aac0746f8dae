package pipeline

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

func (b *builder) ensemble(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	e := n.Ensemble
	children := b.children(e.members(), facts.path, at, lineage.RoleMember, env)
	if children == nil {
		return nil
	}
	x := &ensembleNode{nodeFacts: facts, members: children, quorum: e.Quorum, afoot: make([]atomic.Int32, len(children))}
	if x.quorum == 0 {
		x.quorum = len(children)
	}
	facts.within = time.Duration(e.Within)
	if x.quorum < len(children) {
		b.graph.tells = true
		for _, m := range e.Members {
			facts.members = append(facts.members, m.Name)
		}
	}
	var ms []combine.Member
	for i, m := range e.Members {
		required := m.Required || x.quorum == len(children)
		ms = append(ms, combine.Member{Name: m.Name, Weight: m.Weight, Required: required, Output: children[i].facts().out})
		x.required = append(x.required, required)
	}
	ok := false
	if e.stacks() {
		ok = b.stack(x, e, ms, at, env)
	} else {
		ok = b.rules(x, e, ms, at, env)
	}
	if !ok {
		return nil
	}
	for _, c := range children {
		x.give = append(x.give, newPicker(facts.in, c.facts().in))
	}
	return x
}

// rules makes an ensemble that joins answers by rules.
func (b *builder) rules(x *ensembleNode, e *Ensemble, ms []combine.Member, at string, env *schemas.Schema) bool {
	var plan *combine.Plan
	var err error
	if len(e.Columns) > 0 {
		var cols []combine.Column
		for _, name := range sortedKeys(e.Columns) {
			cols = append(cols, combine.Column{Name: name, Kind: e.Columns[name]})
		}
		plan, err = combine.NewColumns(cols, ms)
	} else {
		plan, err = combine.New(e.Combine.Rule, ms)
	}
	if err != nil {
		b.combining(err, at, len(e.Columns) > 0)
		return false
	}
	x.joins = planned{plan}
	x.in, x.out = union(env, x.members), plan.Output()
	return true
}

// stack makes an ensemble whose answers a further model takes.
func (b *builder) stack(x *ensembleNode, e *Ensemble, ms []combine.Member, at string, env *schemas.Schema) bool {
	path := x.path + "/" + combiner
	sig := b.sigs[path]
	all, err := combine.NewStack(ms, env, sig.Inputs)
	if err != nil {
		b.combining(err, at, false)
		return false
	}
	x.in, x.out = union(env, x.members, all.Reads()...), sig.Outputs
	s := &stackNode{}
	if s.stack, err = combine.NewStack(ms, x.in, sig.Inputs); err != nil { // as before, of fewer columns
		b.combining(err, at, false)
		return false
	}
	facts := &nodeFacts{index: len(b.graph.nodes), path: path, role: lineage.RoleCombiner, in: x.in, out: sig.Outputs}
	s.scoringNode = &scoringNode{nodeFacts: facts, takes: sig.Inputs, work: s.stack.Work()}
	b.graph.nodes = append(b.graph.nodes, facts)
	x.joins = s
	return true
}

// combining tells what is wrong with how answers are combined.
func (b *builder) combining(err error, at string, columns bool) {
	var fs document.Faults
	if at = document.Join(at, "ensemble"); !errors.As(err, &fs) {
		b.fault(at, "%v", err)
	}
	for _, f := range fs {
		if rest, ok := strings.CutPrefix(f.Path, "combine."); ok && columns {
			f.Path = document.Join("columns", rest)
		}
		b.fault(document.Join(at, f.Path), "%s", f.Text)
	}
}

func (b *builder) cascade(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	children := b.below(n, facts.path, at, lineage.RoleStage, env)
	if children == nil {
		return nil
	}
	var reads []string
	last := len(children) - 1
	for i := range last {
		p := b.compiled(n.Cascade[i].Accept, acceptAt(at, i), env, children[i].facts().out, true)
		if p == nil {
			return nil
		}
		in, _ := p.Columns()
		reads = append(reads, in...)
	}
	if facts.out = b.agree(n, children, at); facts.out == nil {
		return nil
	}
	facts.in = union(env, children, reads...)
	x := &cascadeNode{stages: children}
	for i, c := range children {
		x.give = append(x.give, newPicker(facts.in, c.facts().in))
		x.take = append(x.take, newPicker(c.facts().out, facts.out))
		facts.arms = append(facts.arms, n.Cascade[i].Name)
		if i < last {
			x.accept = append(x.accept, b.acceptance(n.Cascade[i].Accept, acceptAt(at, i), facts.in, c.facts().out))
		}
	}
	x.nodeFacts = facts
	return x
}

func acceptAt(at string, i int) string {
	return document.Join(document.Index(document.Join(at, "cascade"), i), "accept")
}

// acceptance compiles a condition for the columns that it reads alone.
func (b *builder) acceptance(src, at string, in, out *schemas.Schema) *acceptance {
	p := b.compiled(src, at, in, out, true)
	ins, outs := p.Columns()
	i, o := union(in, nil, ins...), union(out, nil, outs...)
	return &acceptance{program: b.compiled(src, at, i, o, true), reads: newPicker(in, i), readsOfOut: newPicker(out, o)}
}
