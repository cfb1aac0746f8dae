package combine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

const (
	MaxMembers = 64        // of an ensemble: a row's voters are one machine word
	MaxWeight  = 1_000_000 // so that sums of weights are exact, and weights of 0.0001 % can be written
)

// Member is a member of an ensemble, as its spec has it.
type Member struct {
	Name     string
	Weight   int  // any positive integer, see the package documentation; 0: not given
	Required bool // never missing; set it for all if the quorum is all of them
	Output   *schemas.Schema
}

// Column names a column of the answer and its rule.
type Column struct{ Name, Kind string }

// Plan is how the answers of an ensemble's members become one. It is immutable and safe for concurrent use.
type Plan struct {
	members []Member
	out     *schemas.Schema
	cols    []column // of out
}

// column is how one column of the answer is made.
type column struct {
	rule   rule
	weighs bool
	src    []int // the column in each member's output; concat: of the one at member alone
	member int   // concat's
}

// New plans to combine every column of the members by one rule of Kinds. The error is Invalid and holds all faults
// (document.Faults), with paths relative to the ensemble: "combine", "members[1].weight".
func New(kind string, members []Member) (*Plan, error) {
	b := builder{members: slices.Clone(members)}
	r, weighs, fault := parseKind(kind)
	if fault != "" {
		b.fault("combine", "%s", fault)
	}
	sound := b.check()
	b.weigh(kind, weighs)
	switch {
	case !sound || fault != "":
	case r == concat:
		b.concat()
	default:
		b.align()
		for _, f := range b.members[0].Output.Fields() {
			b.column(Column{f.Name, kind}, r, weighs, "combine")
		}
	}
	return b.plan("combine.New")
}

// NewColumns plans to combine the columns that it is told of, in this order, each by its own rule, and leaves out those
// that it is not told of. concat is no rule of a column. Errors are as New's; a column's path is "combine.<column>".
func NewColumns(columns []Column, members []Member) (*Plan, error) {
	b := builder{members: slices.Clone(members)}
	if len(columns) == 0 {
		b.fault("combine", "no columns; name the columns of the answer and their rules, or one rule for all")
	}
	sound := b.check()
	weighed, plain := "", ""
	for i, c := range columns {
		at := document.Join("combine", clip(c.Name))
		before := len(b.faults)
		if c.Name == "" {
			b.fault(at, "a rule without a column's name")
		}
		if slices.ContainsFunc(columns[:i], func(o Column) bool { return o.Name == c.Name }) {
			b.fault(at, "named twice")
		}
		r, weighs, fault := parseKind(c.Kind)
		switch {
		case fault != "":
			b.fault(at, "%s", fault)
		case r == concat:
			b.fault(at, "concat puts whole members side by side; write combine: concat, or choose another rule for the column")
		case weighs:
			weighed = c.Kind
		default:
			plain = c.Kind
		}
		if sound && len(b.faults) == before {
			b.column(c, r, weighs, at)
		}
	}
	if weighed != "" {
		b.weigh(weighed, true)
	} else {
		b.weigh(plain, false)
	}
	return b.plan("combine.NewColumns")
}

// Output returns the columns of the answer.
func (p *Plan) Output() *schemas.Schema { return p.out }

// builder collects a plan and its faults.
type builder struct {
	members []Member
	fields  []schemas.Field
	cols    []column
	faults  document.Faults
}

func (b *builder) fault(path, format string, args ...any) {
	b.faults = append(b.faults, document.Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

func at(member int) string { return document.Index("members", member) }

func (b *builder) plan(op string) (*Plan, error) {
	if len(b.faults) > 0 {
		return nil, b.faults.Err(op)
	}
	out, err := schemas.NewSchema(b.fields)
	if err != nil {
		e := schemas.AsError(op, err)
		b.fault("combine", "the answer's columns: %v", e)
		return nil, b.faults.Err(op)
	}
	return &Plan{members: b.members, out: out, cols: b.cols}, nil
}

// check looks at the members as such and reports whether their outputs can be looked at.
func (b *builder) check() bool {
	b.faults = append(b.faults, checkMembers(b.members, 1)...)
	return len(b.members) > 0 && len(b.members) <= MaxMembers &&
		!slices.ContainsFunc(b.members, func(m Member) bool { return m.Output == nil })
}

func checkMembers(members []Member, least int) (fs document.Faults) {
	if n := len(members); n < least || n > MaxMembers {
		fs = append(fs, document.Fault{Path: "members", Text: fmt.Sprintf("%d of them: want %d to %d", n, least, MaxMembers)})
	}
	seen := map[string]int{}
	for i, m := range members {
		if err := schemas.CheckName("member", m.Name); err != nil {
			fs = append(fs, document.Fault{Path: at(i) + ".name", Text: err.Error()})
		} else if j, dup := seen[m.Name]; dup {
			fs = append(fs, document.Fault{Path: at(i) + ".name", Text: fmt.Sprintf("%q is the name of %s already", m.Name, at(j))})
		}
		seen[m.Name] = i
		if m.Output == nil || m.Output.Len() == 0 {
			fs = append(fs, document.Fault{Path: at(i), Text: fmt.Sprintf("member %s answers no columns", clip(m.Name))})
		}
	}
	return fs
}

// weigh checks the weights against what the kind wants and cuts them by their greatest common divisor.
func (b *builder) weigh(kind string, weighs bool) {
	divisor := 0
	for i := range b.members {
		w := &b.members[i].Weight
		path := at(i) + ".weight"
		switch {
		case *w < 0 || *w > MaxWeight:
			b.fault(path, "%d: want a positive integer, at most %d; only proportions count", *w, MaxWeight)
		case *w == 0 && weighs:
			b.fault(path, "missing; %s wants a positive integer of every member; only proportions count", kind)
		case *w > 0 && !weighs && kinds[kind].weighed != "":
			b.fault(path, "%s counts every member alike; write combine: %s, or take the weight away", kind, kinds[kind].weighed)
		case *w > 0 && !weighs && kinds[kind].rule != 0:
			b.fault(path, "%s knows no weights; take it away", kind)
		}
		for x := max(*w, 0); x != 0; {
			divisor, x = x, divisor%x
		}
	}
	if divisor > 1 && len(b.faults) == 0 {
		for i := range b.members {
			b.members[i].Weight /= divisor
		}
	}
}

// align looks for columns that only some members have; the first member says what there should be.
func (b *builder) align() {
	first := &b.members[0]
	for i := 1; i < len(b.members); i++ {
		m := &b.members[i]
		extra := names(m.Output, func(n string) bool { return first.Output.Index(n) < 0 })
		for _, f := range first.Output.Fields() {
			if m.Output.Index(f.Name) >= 0 {
				continue
			}
			near := document.Near(f.Name, extra)
			meant := ""
			if near != "" {
				meant = fmt.Sprintf("; did you mean its %q?", near)
				extra = slices.DeleteFunc(extra, func(n string) bool { return n == near })
			}
			b.fault(at(i), "member %s: no column %s, which member %s answers%s; it answers %s; rename, add or drop columns in a transform",
				m.Name, clip(f.String()), first.Name, meant, brief(m.Output))
		}
		for _, n := range extra {
			b.fault(at(i), "member %s: column %s, which member %s does not answer; it answers %s; rename, add or drop columns in a transform",
				m.Name, clip(m.Output.Field(m.Output.Index(n)).String()), first.Name, brief(first.Output))
		}
	}
}

// column plans one column of the answer that all members have a share in.
func (b *builder) column(want Column, r rule, weighs bool, path string) {
	c := column{rule: r, weighs: weighs, src: make([]int, len(b.members))}
	var first *schemas.Field // of the members that have the column
	var owner, namer string
	var f schemas.Field
	for i := range b.members {
		m := &b.members[i]
		c.src[i] = m.Output.Index(want.Name)
		if c.src[i] < 0 {
			if path != "combine" { // else align has told
				b.fault(at(i), "member %s: no column %s%s", m.Name, quote(want.Name), meantColumn(want.Name, m.Output))
			}
			continue
		}
		g := m.Output.Field(c.src[i])
		if first == nil {
			first, owner, f = g, m.Name, *g
		}
		f.Nullable = f.Nullable || g.Nullable
		if g.Type != first.Type || !slices.Equal(g.Shape, first.Shape) {
			b.fault(at(i), "member %s: column %s is %s, but member %s answers %s; cast it in a transform of either",
				m.Name, clip(g.Name), typeOf(g), owner, typeOf(first))
			continue
		}
		switch {
		case len(g.Features) == 0:
		case namer == "":
			f.Features, namer = g.Features, m.Name
		case !slices.Equal(f.Features, g.Features):
			b.fault(at(i), "member %s: the elements of column %s are %s, but in member %s %s; bring them into one order",
				m.Name, clip(g.Name), clip(strings.Join(g.Features, ", ")), namer, clip(strings.Join(f.Features, ", ")))
		}
	}
	if first == nil {
		return
	}
	t, right := r.answer(first.Type)
	if t == 0 {
		b.fault(path, "column %s %s: %s: %s", clip(first.Name), typeOf(first), want.Kind, right)
		return
	}
	f.Type = t
	b.fields, b.cols = append(b.fields, f), append(b.cols, c)
}

// concat plans the columns of all members side by side.
func (b *builder) concat() {
	owner := map[string]string{}
	total := 0
	for i := range b.members {
		m := &b.members[i]
		total += m.Output.Len()
		for k, f := range m.Output.Fields() {
			f.Name = Qualified(m.Name, f.Name)
			f.Nullable = f.Nullable || !m.Required
			f.Features = slices.Clone(f.Features)
			for e := range f.Features {
				f.Features[e] = Qualified(m.Name, f.Features[e])
			}
			for _, n := range append([]string{f.Name}, f.Features...) {
				switch o := owner[n]; {
				case len(n) > schemas.MaxColumnName:
					b.fault(at(i), "member %s: column name %s has %d bytes: at most %d; rename the column in a transform", m.Name, quote(n), len(n), schemas.MaxColumnName)
				case o != "":
					b.fault(at(i), "member %s: column name %s comes of member %s too; rename the column in a transform", m.Name, quote(n), o)
				default:
					owner[n] = m.Name
				}
			}
			b.fields = append(b.fields, f)
			b.cols = append(b.cols, column{rule: concat, src: []int{k}, member: i})
		}
	}
	if total > schemas.MaxColumns {
		b.fault("members", "%d columns together: at most %d; drop some in a transform", total, schemas.MaxColumns)
	}
}

// Qualified returns the name that a member's column has beside those of others: <member>_<column>, with the member's
// dashes as underscores, since CEL cannot select a name with dashes.
func Qualified(member, column string) string {
	return strings.ReplaceAll(member, "-", "_") + "_" + column
}

// names returns the names of the columns that keep.
func names(s *schemas.Schema, keep func(string) bool) (ns []string) {
	for i := range s.Len() {
		if n := s.Field(i).Name; keep == nil || keep(n) {
			ns = append(ns, n)
		}
	}
	return ns
}

func meantColumn(name string, s *schemas.Schema) string {
	if near := document.Near(name, names(s, nil)); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; it answers " + brief(s)
}

// typeOf writes a field's dtype and shape.
func typeOf(f *schemas.Field) string {
	t := *f
	t.Name, t.Nullable = "", false
	return strings.TrimPrefix(t.String(), " ")
}

// brief lists a schema's first columns.
func brief(s *schemas.Schema) string {
	fs := s.Fields()
	parts := make([]string, 0, 9)
	for i := range fs {
		if i == 8 {
			parts = append(parts, "and "+strconv.Itoa(len(fs)-i)+" more")
			break
		}
		parts = append(parts, clip(fs[i].String()))
	}
	return strings.Join(parts, ", ")
}

func quote(s string) string { return strconv.Quote(clip(s)) }

// clip keeps a hostile name from filling an error line.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:77], "") + "..."
	}
	return s
}
