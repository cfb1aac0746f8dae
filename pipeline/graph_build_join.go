package pipeline

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/pipeline/route/expr"
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
	b.graph.leaves = b.graph.leaves || x.quorum < len(children) || e.Within > 0
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
	x := &cascadeNode{nodeFacts: facts, afoot: make([]atomic.Int32, len(n.Cascade))}
	var reads []string
	var seen []*schemas.Schema // what each stage sees
	below := n.below()
	var out *schemas.Schema // of the stage before
	for i := range n.Cascade {
		st, sees := &n.Cascade[i], env
		reads = append(reads, b.readsOf(st.When, stageAt(at, i, "when"), env, out)...)
		var made []schemas.Field
		for _, name := range sortedKeys(st.Refine) {
			p := b.compiled(st.Refine[name], document.Join(stageAt(at, i, "refine"), name), env, out, false)
			if p == nil {
				return nil
			}
			ins, _ := p.Columns()
			reads = append(reads, ins...)
			f := p.Field()
			f.Name = name
			made = append(made, f)
		}
		if len(made) > 0 {
			m, err := schemas.NewSchema(made)
			if err == nil {
				sees, err = overlaid(env, m)
			}
			if err != nil {
				b.fault(stageAt(at, i, "refine"), "%v", err)
				return nil
			}
		}
		c := b.build(below[i].node, facts.path+"/"+below[i].name, document.Join(at, below[i].at), lineage.RoleStage, sees)
		if c == nil {
			return nil
		}
		for _, f := range c.facts().in.Fields() {
			if _, ok := st.Refine[f.Name]; !ok {
				reads = append(reads, f.Name)
			}
		}
		out = c.facts().out
		reads = append(reads, b.readsOf(st.Accept, stageAt(at, i, "accept"), env, out)...)
		x.stages, seen = append(x.stages, c), append(seen, sees)
	}
	if len(b.faults) > 0 {
		return nil
	}
	if facts.out = b.agree(n, x.stages, at); facts.out == nil {
		return nil
	}
	facts.in = union(env, nil, reads...)
	for i, c := range x.stages {
		st := &n.Cascade[i]
		facts.arms = append(facts.arms, st.Name)
		sees := facts.in
		out = nil
		if i > 0 {
			out = x.stages[i-1].facts().out
		}
		var r *refinement
		if len(st.Refine) > 0 {
			// All are made, also what the stage does not read: a column that fails for a row fails that row.
			r = b.refinement(st, stageAt(at, i, "refine"), facts.in, union(seen[i], []graphNode{c}, sortedKeys(st.Refine)...), out)
			sees = r.have
		}
		x.refine = append(x.refine, r)
		x.give = append(x.give, newPicker(sees, c.facts().in))
		x.take = append(x.take, newPicker(c.facts().out, facts.out))
		x.accept = append(x.accept, b.acceptance(st.Accept, stageAt(at, i, "accept"), facts.in, c.facts().out))
		x.when = append(x.when, b.acceptance(st.When, stageAt(at, i, "when"), facts.in, out))
		x.within = append(x.within, time.Duration(st.Within))
		if facts.within = max(facts.within, time.Duration(st.Within)); st.Within > 0 {
			b.graph.tells, b.graph.leaves = true, true
		}
	}
	return x
}

// readsOf returns the columns of the input that a condition reads; a fault is told.
func (b *builder) readsOf(src, at string, in, out *schemas.Schema) []string {
	if src == "" {
		return nil
	}
	p := b.compiled(src, at, in, out, true)
	if p == nil {
		return nil
	}
	ins, _ := p.Columns()
	return ins
}

// refinement makes what a stage reads, have, of the node's input and of the answer before it.
func (b *builder) refinement(st *Stage, at string, in, have, out *schemas.Schema) *refinement {
	r := &refinement{have: have, from: make([]int, have.Len()), cols: make([]*expr.Program, have.Len())}
	var ins, outs []string
	for _, name := range sortedKeys(st.Refine) {
		i, o := b.compiled(st.Refine[name], at, in, out, false).Columns()
		ins, outs = append(ins, i...), append(outs, o...)
	}
	i, o := union(in, nil, ins...), union(out, nil, outs...)
	r.needs = &acceptance{reads: newPicker(in, i), readsOfOut: newPicker(out, o)}
	for c, f := range have.Fields() {
		if src, ok := st.Refine[f.Name]; ok {
			r.from[c], r.cols[c] = -1, b.compiled(src, at, i, o, false)
		} else {
			r.from[c] = in.Index(f.Name)
		}
	}
	return r
}

func stageAt(at string, i int, key string) string {
	return document.Join(document.Index(document.Join(at, "cascade"), i), key)
}

// acceptance compiles a condition for the columns that it reads alone.
func (b *builder) acceptance(src, at string, in, out *schemas.Schema) *acceptance {
	if src == "" {
		return nil
	}
	p := b.compiled(src, at, in, out, true)
	ins, outs := p.Columns()
	i, o := union(in, nil, ins...), union(out, nil, outs...)
	return &acceptance{program: b.compiled(src, at, i, o, true), reads: newPicker(in, i), readsOfOut: newPicker(out, o)}
}
