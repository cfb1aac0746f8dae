package pipeline

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// oracle says what a route answers, row by row, in the plainest way. Of the code that it judges it shares none; the arm of a
// key it asks of pipeline/route, and the value of an expression of pipeline/route/expr, a row at a time: both are proven there.
type oracle struct {
	pipeline string
	models   map[string]scorers.Scorer
	tables   map[string]map[string]record // of lookups, by bucket and key; what a value lacks is absent
	header   schemas.Header               // of the request
	id       string
	row      int
	states   map[string]*route.State // of bandits, by node path
}

type record map[string]any // by column; nil is a null

// stay is what shall be recorded of a row at a node.
type stay struct {
	node, role, arm string
	propensity      float64
	out             record // nil: it is that of the node above, or there is none
	failed          bool
	kind            schemas.Kind
}

// fate is what becomes of a row at a node and below. stays[0] is the node's own.
type fate struct {
	out    record
	failed bool
	kind   schemas.Kind
	by     string // node path of the model whose answer it is
	stays  []*stay
}

// eval follows a row through a node.
func (o *oracle) eval(n *Node, path, role string, row record) fate {
	own := &stay{node: path, role: role, propensity: 1}
	f := fate{stays: []*stay{own}}
	pass := func(c fate) { // a child's answer is the node's
		f.out, f.failed, f.kind, f.by = c.out, c.failed, c.kind, c.by
		f.stays = append(f.stays, c.stays...)
	}
	step := func(c fate) { // a child's answer is its own
		f.stays = append(f.stays, c.stays...)
		if c.stays[0].out == nil { // a lookup has its own
			c.stays[0].out = c.out
		}
	}
	switch {
	case n.Model != "":
		o.score(&f, path, row)
	case n.Transform != nil:
		f.out = record{}
		for name, src := range n.Transform.Columns {
			var ok bool
			if f.out[name], ok = ask(src, typeOf(name), row, nil); !ok {
				f.failed, f.kind = true, schemas.Invalid
			}
		}
	case n.Lookup != nil:
		o.lookup(&f, n.Lookup, path, row)
	case n.Split != nil:
		i, p := o.arm(n.Split, path, row)
		own.arm, own.propensity = n.Split.Arms[i].Name, p
		pass(o.eval(&n.Split.Arms[i].Node, path+"/"+own.arm, lineage.RoleArm, row))
	case n.Bandit != nil:
		i, p, ok := o.learnt(n.Bandit, path, row)
		if !ok {
			f.failed, f.kind = true, schemas.Invalid
			break
		}
		own.arm, own.propensity = n.Bandit.Arms[i].Name, p
		pass(o.eval(&n.Bandit.Arms[i].Node, path+"/"+own.arm, lineage.RoleArm, row))
	case n.Switch != nil:
		i := slices.IndexFunc(n.Switch, func(c Case) bool { return c.When == "" || holds(c.When, row, nil) })
		own.arm = n.Switch[i].Name
		pass(o.eval(&n.Switch[i].Node, path+"/"+own.arm, lineage.RoleArm, row))
	case n.Sequence != nil:
		for i := range n.Sequence {
			c := o.eval(&n.Sequence[i].Node, path+"/"+n.Sequence[i].Name, lineage.RoleStage, row)
			if c.failed || i == len(n.Sequence)-1 {
				pass(c)
				break
			}
			step(c)
			next := record{}
			for _, cols := range []record{row, c.out} {
				for k, v := range cols {
					next[k] = v
				}
			}
			row = next
		}
	case n.Cascade != nil:
		sees := row
		for i := range n.Cascade {
			own.arm = n.Cascade[i].Name
			c := o.eval(&n.Cascade[i].Node, path+"/"+own.arm, lineage.RoleStage, sees)
			stands := c.failed || i == len(n.Cascade)-1 || n.Cascade[i].Accept != "" && holds(n.Cascade[i].Accept, row, c.out)
			if !stands && n.Cascade[i+1].When != "" {
				stands = !holds(n.Cascade[i+1].When, row, c.out)
			}
			if stands {
				pass(c)
				break
			}
			step(c)
			sees = maps.Clone(row)
			for name, src := range n.Cascade[i+1].Refine {
				var ok bool
				if sees[name], ok = ask(src, typeOf(name), row, c.out); !ok {
					f.failed, f.kind = true, schemas.Invalid
				}
			}
			if f.failed {
				break
			}
		}
	case n.Ensemble != nil:
		var all []fate
		for i := range n.Ensemble.Members {
			all = append(all, o.eval(&n.Ensemble.Members[i].Node, path+"/"+n.Ensemble.Members[i].Name, lineage.RoleMember, row))
			step(all[i])
		}
		if join(&f, n.Ensemble, all); n.Ensemble.stacks() && !f.failed {
			pass(o.stack(n.Ensemble, path, row, all))
		}
	}
	if own.failed, own.kind = f.failed, f.kind; f.failed {
		f.out = nil
	}
	return f
}

// lookup finds the columns of a key. Values of tables are from the time to come, so that their age is 0.
func (o *oracle) lookup(f *fate, l *Lookup, path string, row record) {
	name := path[strings.LastIndexByte(path, '/')+1:]
	var value record
	if k := row[l.Key]; k != nil {
		value = o.tables[l.Bucket][fmt.Sprint(k)]
	}
	f.out = record{}
	for _, c := range l.Columns {
		v := value[c.Name]
		if v == nil && c.Default != nil && (value != nil || l.Missing == MissingDefault) {
			v = parsed(string(*c.Default), typeOf(c.Name))
		}
		f.out[c.Name] = v
	}
	if value == nil && l.Missing == MissingError {
		f.failed, f.kind = true, schemas.Invalid
		return
	}
	kept := record{name + ".version": nil, name + ".age": nil}
	if value != nil {
		kept = record{name + ".version": uint64(len(value) + 1), name + ".age": int64(0)}
	}
	for k, v := range f.out {
		kept[k] = v
	}
	f.stays[0].out = kept
}

func parsed(text string, t schemas.DType) any {
	switch t {
	case schemas.Bool:
		return text == "true"
	case schemas.String:
		return text
	}
	v, _ := strconv.ParseFloat(text, 64)
	switch t {
	case schemas.Float32:
		return float32(v)
	case schemas.Int64:
		return int64(v)
	}
	return v
}

func (o *oracle) score(f *fate, path string, row record) {
	m := o.models[path]
	var in []any
	for _, c := range m.Signature().Inputs.Fields() {
		if row[c.Name] == nil && !c.Nullable {
			f.failed, f.kind = true, schemas.Invalid
		}
		in = append(in, row[c.Name])
	}
	own, ok := m.(*fake)
	if !ok {
		own = &m.(*picky).fake
	}
	out, ok := own.eval(in)
	switch f.by = path; {
	case f.failed: // a null comes first
	case ok:
		f.out = record{}
		for i, v := range out {
			f.out[own.sig.Outputs.Field(i).Name] = v
		}
	case own.panics:
		f.failed, f.kind = true, schemas.Internal
	default:
		f.failed, f.kind = true, own.kind
	}
}

func (o *oracle) arm(s *Split, path string, row record) (int, float64) {
	var names []string
	var weights []int
	sum := 0
	for _, a := range s.Arms {
		names, weights, sum = append(names, a.Name), append(weights, a.Weight), sum+a.Weight
	}
	for _, one := range strings.Split(o.header.Get(schemas.HeaderArm), ",") {
		if one = strings.TrimSpace(one); s.Forced {
			if i := slices.Index(names, strings.TrimPrefix(one, path+"=")); i >= 0 {
				return i, 0
			}
		}
	}
	for i := range weights {
		weights[i] *= 10_000 / sum
	}
	salt, key := s.Salt, ""
	if salt == "" {
		salt = o.pipeline + "/" + path
	}
	if s.Header != "" {
		key = o.header.Get(s.Header)
	} else if v := row[s.Key]; v != nil {
		key = fmt.Sprint(v)
	}
	split, err := route.NewSplit(salt, names, weights)
	if err != nil {
		panic(err)
	}
	i := split.Arm([]byte(cmp.Or(key, o.id)))
	return i, float64(weights[i]) / 10_000
}

// learnt is what a bandit chooses; false: it cannot.
func (o *oracle) learnt(b *Bandit, path string, row record) (int, float64, bool) {
	var context []float64
	for _, c := range b.Context {
		switch v := row[c].(type) {
		case nil:
			return 0, 0, false
		case bool:
			context = append(context, map[bool]float64{true: 1}[v])
		default:
			context = append(context, number(v))
		}
	}
	plan, err := b.plan()
	if err != nil {
		panic(err)
	}
	var seed xxhash.Digest
	seed.ResetWithSeed(xxhash.Sum64String(path))
	key := lineage.RequestKey(o.header.Get(schemas.HeaderPrincipal), o.pipeline, o.id)
	_, _ = seed.Write(key[:])
	_, _ = seed.Write(binary.LittleEndian.AppendUint32(nil, uint32(o.row)))
	d, err := route.Decide(plan, seed.Sum64(), context, o.states[path])
	return d.Arm, d.Propensity, err == nil
}

// join makes one answer of the members'.
func join(f *fate, e *Ensemble, all []fate) {
	have, quorum := 0, cmp.Or(e.Quorum, len(all))
	for _, m := range all {
		if !m.failed {
			have++
		}
	}
	for _, must := range []bool{true, false} { // of those who are missing, a required one says why first
		for i, m := range all {
			required := e.Members[i].Required || quorum == len(all)
			if m.failed && !f.failed && (must && required || !must && have < quorum) {
				f.failed, f.kind = true, m.kind
			}
		}
	}
	if f.out = (record{}); e.Combine.Rule == combine.Concat {
		for i, m := range all {
			for name := range answerOf(all) {
				f.out[combine.Qualified(e.Members[i].Name, name)] = m.out[name]
			}
		}
		return
	}
	g := 0
	for _, m := range e.Members {
		for a, b := g, m.Weight; ; a, b = b, a%b {
			if b == 0 {
				g = a
				break
			}
		}
	}
	for name, rule := range e.Columns {
		var vs []any
		var ws []int
		for i, m := range all {
			if !m.failed && m.out[name] != nil {
				w := 1
				if strings.HasPrefix(rule, "weighted") {
					w = e.Members[i].Weight / g
				}
				vs, ws = append(vs, m.out[name]), append(ws, w)
			}
		}
		if f.out[name] = nil; len(vs) > 0 {
			f.out[name] = combined(rule, vs, ws)
		}
	}
}

// stack asks the combining model.
func (o *oracle) stack(e *Ensemble, path string, row record, all []fate) fate {
	own := &stay{node: path + "/" + combiner, role: lineage.RoleCombiner, propensity: 1}
	f := fate{stays: []*stay{own}}
	in := maps.Clone(row)
	for i, m := range all {
		for name := range answerOf(all) {
			in[combine.Qualified(e.Members[i].Name, name)] = m.out[name]
		}
	}
	o.score(&f, own.node, in)
	own.failed, own.kind = f.failed, f.kind
	return f
}

func answerOf(all []fate) record {
	for _, m := range all {
		if !m.failed {
			return m.out
		}
	}
	return nil
}

func combined(rule string, vs []any, ws []int) any {
	less := func(a, b any) int { return cmp.Compare(number(a), number(b)) }
	switch rule {
	case combine.Max:
		return slices.MaxFunc(vs, less)
	case combine.MajorityVote, combine.WeightedVote:
		votes, best := map[any]int{}, vs[0]
		for i, v := range vs {
			votes[v] += ws[i]
		}
		for _, v := range vs {
			if votes[v] > votes[best] {
				best = v
			}
		}
		return best
	}
	if len(vs) == 1 {
		return vs[0]
	}
	sum, n := 0.0, 0
	if rule == combine.Median {
		slices.SortFunc(vs, less)
		vs = vs[(len(vs)-1)/2 : len(vs)/2+1]
		ws = ws[:len(vs)]
	}
	for i, v := range vs {
		sum, n = sum+float64(ws[i])*number(v), n+ws[i]
	}
	if _, ok := vs[0].(float32); ok {
		return float32(sum / float64(n))
	}
	return sum / float64(n)
}

// everything has each column that an expression can name.
var everything = func() *schemas.Schema {
	var fs []schemas.Field
	for _, of := range []string{"", "m0_", "m1_", "m2_"} {
		for _, name := range allColumns {
			fs = append(fs, schemas.Field{Name: of + name, Type: typeOf(name), Nullable: true})
		}
	}
	return schemas.MustSchema(fs...)
}()

// question is an expression over the columns that it reads.
type question struct {
	program *expr.Program
	in, out *schemas.Schema
}

var results = map[schemas.DType]*schemas.Schema{}

func init() {
	for _, t := range columnTypes {
		results[t] = schemas.MustSchema(schemas.Field{Name: "v", Type: t, Nullable: true})
	}
}

var questions sync.Map // source -> *question

func newQuestion(src string) *question {
	p, err := expr.Compile(src, expr.Env{Input: everything, Output: everything})
	if err != nil {
		panic(err)
	}
	i, o := p.Columns()
	q := &question{in: union(everything, nil, i...), out: union(everything, nil, o...)}
	if q.program, err = expr.Compile(src, expr.Env{Input: q.in, Output: q.out}); err != nil {
		panic(err)
	}
	return q
}

// ask evaluates an expression for one row; false: it fails.
func ask(src string, t schemas.DType, in, out record) (any, bool) {
	v, ok := questions.Load(src)
	if !ok {
		v, _ = questions.LoadOrStore(src, newQuestion(src))
	}
	q := v.(*question)
	dst := schemas.NewBatch(results[t])
	bad := q.program.Append(alone(in, q.in), alone(out, q.out), 0, 1, dst.Column(0), nil)
	dst.Advance(1)
	return rowOf(dst, 0)[0], len(bad) == 0
}

func holds(src string, in, out record) bool {
	v, ok := ask(src, schemas.Bool, in, out)
	return ok && v == true
}

func alone(r record, s *schemas.Schema) *schemas.Batch {
	b := schemas.NewBatch(s)
	vs := make([]any, s.Len())
	for i := range vs {
		vs[i] = r[s.Field(i).Name]
	}
	appendValues(b, vs)
	return b
}
