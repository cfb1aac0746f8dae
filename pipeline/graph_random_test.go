package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// Random routes and their models, for the oracle test. A column's name says its type, so that every route is well typed.

var columnTypes = map[string]schemas.DType{
	"x": schemas.Float64, "y": schemas.Float64, "g": schemas.Float32, "k": schemas.Int64, "t": schemas.String, "b": schemas.Bool,
	"score": schemas.Float64, "label": schemas.String, "n": schemas.Int64,
}

var (
	requestColumns = []string{"b", "g", "k", "t", "x", "y"}
	allColumns     = []string{"b", "g", "k", "label", "n", "score", "t", "x", "y"}
)

// typeOf also knows the columns of concat: m1_score is a score.
func typeOf(column string) schemas.DType {
	return columnTypes[column[strings.LastIndexByte(column, '_')+1:]]
}

// fake is a model of known arithmetic. Some of its rows cannot be scored, and a batch with one of them fails as a whole.
type fake struct {
	id     int
	sig    schemas.Signature
	bad    int64 // rows of this remainder cannot be scored, -1: all can
	kind   schemas.Kind
	panics bool // at a bad row, instead of saying so
	yields bool // while it works: others overtake it
}

// eval is what the model answers for the values of its columns.
func (m *fake) eval(in []any) (out []any, ok bool) {
	acc := float64(m.id)
	for i, v := range in {
		acc = acc/2 + number(v)*float64(i+1)
	}
	acc = math.Mod(acc, 97)
	h := int64(math.Abs(acc) * 8)
	if h%17 == m.bad {
		return nil, false
	}
	for i, f := range m.sig.Outputs.Fields() {
		if f.Nullable && (h+int64(i))%6 == 0 {
			out = append(out, nil)
			continue
		}
		switch f.Type {
		case schemas.Float64:
			out = append(out, acc*float64(i+1)/3)
		case schemas.Float32:
			out = append(out, float32(acc/7))
		case schemas.Int64:
			out = append(out, h%11-3)
		case schemas.String:
			out = append(out, fmt.Sprint("s", h%4))
		case schemas.Bool:
			out = append(out, h%2 == 0)
		}
	}
	return out, true
}

func number(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case float32:
		return float64(v)
	case int64:
		return float64(v)
	case bool:
		if v {
			return 3
		}
	case string:
		n := 0
		for _, c := range []byte(v) {
			n = n*3 + int(c)
		}
		return float64(n % 101)
	}
	return -0.5 // a null
}

func (m *fake) Signature() schemas.Signature { return m.sig }
func (m *fake) Close() error                 { return nil }

func (m *fake) refuse(i int) error {
	return schemas.FieldErrorf(m.kind, "fake", fmt.Sprintf("rows[%d].%s", i, m.sig.Inputs.Field(0).Name), "model %d cannot score this", m.id)
}

func (m *fake) Score(_ context.Context, in, out *schemas.Batch) error {
	for i := range in.Rows() {
		if m.yields {
			runtime.Gosched()
		}
		vs, ok := m.eval(rowOf(in, i))
		switch {
		case !ok && m.panics:
			out.Column(0).AppendNull() // what is half done is taken back
			panic("as it shall")
		case !ok:
			return m.refuse(i)
		}
		appendValues(out, vs)
	}
	return nil
}

// picky is a fake that says which rows it would refuse.
type picky struct{ fake }

func (m *picky) CheckRows(in *schemas.Batch, from, to int) error {
	for i := from; i < to; i++ {
		if _, ok := m.eval(rowOf(in, i)); !ok {
			return m.refuse(i)
		}
	}
	return nil
}

// rowOf returns the values of a row, nil for a null.
func rowOf(b *schemas.Batch, i int) []any {
	vs := make([]any, b.Schema().Len())
	for c := range vs {
		col := b.Column(c)
		if col.IsNull(i) {
			continue
		}
		switch col.Field().Type {
		case schemas.Float64:
			vs[c] = schemas.Values[float64](col)[i]
		case schemas.Float32:
			vs[c] = schemas.Values[float32](col)[i]
		case schemas.Int64:
			vs[c] = schemas.Values[int64](col)[i]
		case schemas.Uint64: // a version
			vs[c] = schemas.Values[uint64](col)[i]
		case schemas.String:
			vs[c] = string(col.Text(i))
		case schemas.Bool:
			vs[c] = col.Data()[i] != 0
		}
	}
	return vs
}

func appendValues(b *schemas.Batch, vs []any) {
	for c, v := range vs {
		col := b.Column(c)
		switch v := v.(type) {
		case nil:
			col.AppendNull()
			continue
		case float64:
			schemas.Append(col, v)
		case float32:
			schemas.Append(col, v)
		case int64:
			schemas.Append(col, v)
		case string:
			col.AppendString(v)
		case bool:
			col.AppendBool(v)
		}
		col.EndRow()
	}
	b.Advance(1)
}

// grower makes random routes.
type grower struct {
	*rand.Rand
	models map[string]scorers.Scorer // by node path
	sigs   map[string]schemas.Signature
	tables map[string]map[string]record // by bucket
	left   int                          // nodes that it may still make, about
}

func (g *grower) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *grower, of []T) T { return of[g.IntN(len(of))] }

// some returns at least one of the names, at random and in a random order.
func (g *grower) some(names []string, most int) []string {
	names = slices.Clone(names)
	g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names[:1+g.IntN(min(most, len(names)))]
}

// node makes a node that sees the columns of env and answers with those of want.
func (g *grower) node(path string, depth int, env, want []string) Node {
	g.left--
	kind := g.IntN(10)
	if depth == 1 || g.left <= 0 {
		kind = pick(g, []int{0, 0, 0, 0, 0, 1, 1, 9})
	}
	switch kind {
	case 9:
		return g.lookup(env, want)
	case 1:
		t := &Transform{Columns: map[string]string{}}
		for _, name := range want {
			t.Columns[name] = g.value(typeOf(name), env)
		}
		return Node{Transform: t}
	case 2:
		return g.split(path, depth, env, want)
	case 3:
		var cases []Case
		n := 2 + g.IntN(2)
		for i := range n {
			c := Case{Name: fmt.Sprint("c", i)}
			if i < n-1 {
				for c.When == "" || slices.ContainsFunc(cases, func(o Case) bool { return o.When == c.When }) { // a second one is refused
					c.When = g.condition("input", env)
				}
			}
			c.Node = g.node(path+"/"+c.Name, depth-1, env, want)
			cases = append(cases, c)
		}
		return Node{Switch: cases}
	case 4:
		return g.sequence(path, depth, env, want)
	case 5:
		if depth > 2 && g.chance(30) {
			return g.concat(path, depth, env, want)
		}
		if g.chance(30) {
			return g.stack(path, depth, env, want)
		}
		return g.ensemble(path, depth, env, want)
	case 6:
		var stages []Stage
		n := 2 + g.IntN(2)
		for i := range n {
			s, sees := Stage{Name: fmt.Sprint("g", i)}, env
			if i > 0 && g.chance(35) {
				s.When = g.condition(pick(g, []string{"input", "output"}), want)
				if strings.Contains(s.When, "input.") {
					s.When = g.condition("input", env)
				}
			}
			if i > 0 && g.chance(35) {
				s.Refine = map[string]string{}
				for _, name := range g.some(allColumns, 2) {
					s.Refine[name] = g.value(typeOf(name), env)
					if src, ok := g.fill(pick(g, values[typeOf(name)]), "output", want); ok && g.chance(60) {
						s.Refine[name] = src
					}
					sees = joined(sees, []string{name})
				}
			}
			if i < n-1 {
				s.Accept = g.condition("output", want)
				if g.chance(30) {
					s.Accept += " || " + g.condition("input", env)
				}
			}
			if i > 0 && s.When != "" && g.chance(50) {
				stages[i-1].Accept = ""
			}
			s.Node = g.node(path+"/"+s.Name, depth-1, sees, want)
			stages = append(stages, s)
		}
		return Node{Cascade: stages}
	case 8:
		return g.bandit(path, depth, env, want)
	}
	return g.model(path, env, want)
}

func (g *grower) model(path string, env, want []string) Node {
	fields := func(names []string, nullable int) *schemas.Schema {
		var fs []schemas.Field
		for _, name := range names {
			fs = append(fs, schemas.Field{Name: name, Type: typeOf(name), Nullable: g.chance(nullable)})
		}
		return schemas.MustSchema(fs...)
	}
	m := fake{id: len(g.models) + 1, bad: -1, kind: pick(g, []schemas.Kind{schemas.Invalid, schemas.Denied, schemas.NotFound}), yields: g.chance(10)}
	m.sig.Inputs, m.sig.Outputs = fields(g.some(env, 4), 85), fields(g.some(want, 1000), 20)
	if rest := absent(want, m.sig.Outputs); len(rest) > 0 { // all of them, in an order of its own
		m.sig.Outputs = schemas.MustSchema(append(slices.Clone(m.sig.Outputs.Fields()), fields(rest, 20).Fields()...)...)
	}
	var s scorers.Scorer = &m
	if g.chance(35) {
		m.bad = int64(g.IntN(17))
		if m.panics = g.chance(20); !m.panics && g.chance(40) {
			s = &picky{m}
		}
	}
	g.models[path], g.sigs[path] = s, m.sig
	return Node{Model: fmt.Sprintf("m%d@1", m.id)}
}

func absent(names []string, s *schemas.Schema) (rest []string) {
	for _, name := range names {
		if s.Index(name) < 0 {
			rest = append(rest, name)
		}
	}
	return rest
}

func (g *grower) split(path string, depth int, env, want []string) Node {
	s := &Split{Forced: g.chance(50), Salt: pick(g, []string{"", "", "autumn"})}
	switch g.IntN(3) {
	case 0:
		s.Key = pick(g, keysOf(env))
	case 1:
		s.Header = "X-User"
	}
	for i, w := range pick(g, [][]int{{50, 50}, {90, 10}, {0, 100}, {30, 0, 70}, {3300, 3300, 3400}}) {
		a := Arm{Name: fmt.Sprint("a", i), Weight: w}
		a.Node = g.node(path+"/"+a.Name, depth-1, env, want)
		s.Arms = append(s.Arms, a)
	}
	return Node{Split: s}
}

func (g *grower) bandit(path string, depth int, env, want []string) Node {
	b := &Bandit{Policy: pick(g, route.Policies()), Reward: "feedback.reward", MinimumShare: pick(g, []float64{0, 0, 0.01, 0.25})}
	switch b.Policy {
	case "linucb", "lin_thompson":
		numbers := slices.DeleteFunc(slices.Clone(env), func(name string) bool { return typeOf(name) == schemas.String })
		b.Context = g.some(numbers, 3)
	case "epsilon_greedy":
		e := pick(g, []float64{0, 0.1, 1})
		b.Epsilon = &e
	}
	if b.Policy != "epsilon_greedy" && b.Policy != "ucb1" && b.Policy != "linucb" {
		b.Draws = 1 + g.IntN(50)
	}
	for i := range 2 + g.IntN(2) {
		a := BanditArm{Name: fmt.Sprint("b", i)}
		a.Node = g.node(path+"/"+a.Name, depth-1, env, want)
		b.Arms = append(b.Arms, a)
	}
	return Node{Bandit: b}
}

// learn gives the bandits of a graph some rewards, and returns what they then know.
func (g *grower) learn(gr *graph) map[string]*route.State {
	states := map[string]*route.State{}
	for _, b := range gr.bandits {
		f := route.NewFold(b.plan)
		for i := range g.IntN(12) {
			r := route.Reward{Position: uint64(i/3 + 1), Index: uint32(i % 3), DecisionID: [32]byte{byte(i)}, Value: float64(g.IntN(9)) / 8}
			r.Arm = pick(g, b.plan.Bandit().Arms)
			for range b.spec.Context {
				r.Context = append(r.Context, float64(g.IntN(40))/8)
			}
			if o, err := f.Apply(r); err != nil || o != route.Counted {
				panic(fmt.Sprint(o, err))
			}
		}
		states[b.path] = f.State()
		b.state.Store(states[b.path])
	}
	return states
}

func keysOf(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(name string) bool {
		return typeOf(name) == schemas.Float64 || typeOf(name) == schemas.Float32
	})
}

// lookup makes a node that finds its answer in a bucket of its own.
func (g *grower) lookup(env, want []string) Node {
	l := &Lookup{Bucket: fmt.Sprint("b", len(g.tables)), Key: pick(g, keysOf(env)), Missing: pick(g, []string{"", "", MissingNull, MissingDefault, MissingDefault, MissingError})}
	for _, name := range want {
		c := LookupColumn{Name: name, Type: typeOf(name).String()}
		if l.Missing == MissingDefault || g.chance(30) {
			v := Literal(fmt.Sprint(g.constant(name)))
			c.Default = &v
		}
		l.Columns = append(l.Columns, c)
	}
	table := map[string]record{}
	for _, key := range []string{"0", "1", "2", "3", "4", "5", "6", "s1", "s2", "none", "", "true", "c"} {
		if g.chance(80) && key != "" {
			table[key] = record{}
			for _, name := range g.some(want, 1000) {
				table[key][name] = g.constant(name)
			}
		}
	}
	g.tables[l.Bucket] = table
	return Node{Lookup: l}
}

func (g *grower) constant(name string) any {
	switch typeOf(name) {
	case schemas.Float64:
		return float64(g.IntN(80))/8 - 3
	case schemas.Float32:
		return float32(g.IntN(40)) / 8
	case schemas.Int64:
		return int64(g.IntN(12))
	case schemas.Bool:
		return g.chance(50)
	}
	return pick(g, []string{"s1", "s2", "none", "a text"})
}

// Follow tells the values of a bucket. A value's version is the number of its columns and one.
func (g *grower) Follow(ctx context.Context, s lookup.Source, each func(*schemas.Change), all func(uint64)) error {
	for key, v := range g.tables[s.Name] {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		each(&schemas.Change{Key: key, Value: b, Version: uint64(len(v) + 1), Time: time.Unix(1<<33, 0)})
	}
	all(0)
	<-ctx.Done()
	return ctx.Err()
}

func (g *grower) sequence(path string, depth int, env, want []string) Node {
	var steps []Step
	n := 2 + g.IntN(2)
	for i := range n {
		s := Step{Name: fmt.Sprint("s", i)}
		made := want
		if i < n-1 {
			made = g.some(allColumns, 4)
		}
		s.Node = g.node(path+"/"+s.Name, depth-1, env, made)
		steps = append(steps, s)
		env = joined(env, made)
	}
	return Node{Sequence: steps}
}

func joined(a, b []string) []string {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

var rules = map[schemas.DType][]string{
	schemas.Float64: {combine.Mean, combine.WeightedMean, combine.Median, combine.Max},
	schemas.Float32: {combine.Mean, combine.WeightedMean, combine.Median, combine.Max},
	schemas.Int64:   {combine.Max, combine.MajorityVote, combine.WeightedVote},
	schemas.Bool:    {combine.Max, combine.MajorityVote, combine.WeightedVote},
	schemas.String:  {combine.MajorityVote, combine.WeightedVote},
}

func (g *grower) members(e *Ensemble, path string, depth int, env, want []string) {
	n := 2 + g.IntN(2)
	e.Quorum = g.IntN(n + 1)
	for i := range n {
		m := Member{Name: fmt.Sprint("m", i), Required: g.chance(15)}
		m.Node = g.node(path+"/"+m.Name, depth-1, env, want)
		e.Members = append(e.Members, m)
	}
}

func (g *grower) ensemble(path string, depth int, env, want []string) Node {
	e := &Ensemble{Columns: map[string]string{}}
	weighted := false
	for _, name := range want {
		rule := pick(g, rules[typeOf(name)])
		e.Columns[name] = rule
		weighted = weighted || strings.HasPrefix(rule, "weighted")
	}
	made := want
	if g.chance(30) { // what has no rule is left out
		made = joined(want, g.some(allColumns, 2))
	}
	g.members(e, path, depth, env, made)
	for i := range e.Members {
		if weighted {
			e.Members[i].Weight = 1 + g.IntN(6)
		}
	}
	return Node{Ensemble: e}
}

// stack makes an ensemble whose answers a further model takes, and perhaps columns of the request.
func (g *grower) stack(path string, depth int, env, want []string) Node {
	e := &Ensemble{}
	made := g.some(allColumns, 3)
	g.members(e, path, depth, env, made)
	var given []string
	for _, m := range e.Members {
		for _, name := range made {
			given = append(given, combine.Qualified(m.Name, name))
		}
	}
	reads := g.some(given, 4)
	if rest := slices.DeleteFunc(slices.Clone(env), func(name string) bool { return slices.Contains(made, name) || slices.Contains(given, name) }); len(rest) > 0 && g.chance(50) {
		reads = append(reads, g.some(rest, 2)...)
	}
	e.Combine.Node = g.model(path+"/"+combiner, reads, want)
	sig := g.sigs[path+"/"+combiner]
	for i, f := range sig.Inputs.Fields() {
		if slices.Contains(given, f.Name) { // a member may be missing
			f.Nullable = true
			fs := slices.Clone(sig.Inputs.Fields())
			fs[i] = f
			sig.Inputs = schemas.MustSchema(fs...)
		}
	}
	g.sigs[path+"/"+combiner] = sig
	switch m := g.models[path+"/"+combiner].(type) {
	case *fake:
		m.sig = sig
	case *picky:
		m.sig = sig
	}
	return Node{Ensemble: e}
}

// concat makes an ensemble that lays the answers side by side, and a step that makes one of them.
func (g *grower) concat(path string, depth int, env, want []string) Node {
	e := &Ensemble{Combine: Combine{Rule: combine.Concat}}
	made := g.some(allColumns, 3)
	g.members(e, path+"/s0", depth-1, env, made)
	for _, m := range e.Members {
		for _, name := range made {
			env = joined(env, []string{combine.Qualified(m.Name, name)})
		}
	}
	return Node{Sequence: []Step{{Name: "s0", Node: Node{Ensemble: e}}, {Name: "s1", Node: g.node(path+"/s1", 1, env, want)}}}
}

// fill puts columns of the right types for the letters F, G, I, S and B of an expression.
func (g *grower) fill(src, of string, env []string) (string, bool) {
	var b strings.Builder
	for _, word := range strings.Split(src, " ") {
		at := strings.IndexAny(word, "FGISB")
		if at < 0 {
			b.WriteString(" " + word)
			continue
		}
		t := map[byte]schemas.DType{'F': schemas.Float64, 'G': schemas.Float32, 'I': schemas.Int64, 'S': schemas.String, 'B': schemas.Bool}[word[at]]
		fit := slices.DeleteFunc(slices.Clone(env), func(name string) bool { return typeOf(name) != t })
		if len(fit) == 0 {
			return "", false
		}
		b.WriteString(" " + word[:at] + of + "." + pick(g, fit) + word[at+1:])
	}
	return b.String()[1:], true
}

var values = map[schemas.DType][]string{
	schemas.Float64: {"F * 0.75 + 1.0", "coalesce( F , 0.25)", "double( I ) / 4.0", "double( I / ( I - 3))", "F > 2.0 ? F : 1.5", "2.5", "max( F , F )"},
	schemas.Float32: {"G", "coalesce( G , float32(0.5))", "float32( F )", "float32(1.5)"},
	schemas.Int64:   {"I + 1", "10 / I", "coalesce( I , 4)", "7", "int( F )", "I % 5"},
	schemas.String:  {"S + \"!\"", "coalesce( S , \"none\")", "B ? \"yes\" : \"no\"", "\"c\"", "S"},
	schemas.Bool:    {"F > 3.0", "I % 2 == 0", "B || F < 1.0", "! B", "S == \"s1\""},
}

func (g *grower) value(t schemas.DType, env []string) string {
	for {
		if s, ok := g.fill(pick(g, values[t]), "input", env); ok {
			return s
		}
	}
}

var conditions = []string{"F > 2.0", "F < F", "G >= 1.0", "I % 2 == 0", "10 / I > 2", "S == \"s1\"", "S .contains(\"1\")", "B", "F == F", "I != I"}

func (g *grower) condition(of string, env []string) string {
	for {
		if s, ok := g.fill(pick(g, conditions), of, env); ok {
			return strings.ReplaceAll(s, " .", ".")
		}
	}
}
