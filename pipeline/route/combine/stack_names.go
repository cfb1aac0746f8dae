package combine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// modelPath is where faults of the model's inputs lie.
const modelPath = "combine.model"

type stackBuilder struct {
	members []Member
	request *schemas.Schema
	names   map[string][]found
	known   []string // keys of names, in order, without the numbered elements
	fields  []schemas.Field
	src     []source
	faults  document.Faults
}

// found is what a name means, by rank: the lowest counts, and if it is there twice, the name means nothing.
type found struct {
	source
	rank int
}

const (
	qualifiedColumn = iota
	qualifiedFeature
	qualifiedElement
	plainColumn
	plainFeature
	plainElement
	requestColumn
	requestFeature
)

func (b *stackBuilder) fault(path, format string, args ...any) {
	b.faults = append(b.faults, document.Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

func (b *stackBuilder) name(name string, rank int, s source) {
	if b.names[name] == nil && rank != qualifiedElement && rank != plainElement {
		b.known = append(b.known, name)
	}
	b.names[name] = append(b.names[name], found{s, rank})
}

// nameAll lists everything that a model's input may name. Numbered elements are found on demand: see number.
func (b *stackBuilder) nameAll() {
	for m := range b.members {
		member := &b.members[m]
		for k, f := range member.Output.Fields() {
			whole := source{m, k, -1}
			b.name(Qualified(member.Name, f.Name), qualifiedColumn, whole)
			b.name(f.Name, plainColumn, whole)
			for e, n := range f.Features {
				b.name(Qualified(member.Name, n), qualifiedFeature, source{m, k, e})
				b.name(n, plainFeature, source{m, k, e})
			}
		}
	}
	if b.request == nil {
		return
	}
	for k, f := range b.request.Fields() {
		b.name(f.Name, requestColumn, source{-1, k, -1})
		for e, n := range f.Features {
			b.name(n, requestFeature, source{-1, k, e})
		}
	}
}

// number adds the numbered elements that a name may mean. There may be millions of them, so they are not listed.
func (b *stackBuilder) number(name string) {
	cut := strings.LastIndexByte(name, '_')
	if cut < 0 {
		return
	}
	e, err := strconv.Atoi(name[cut+1:])
	if err != nil || e < 0 || strconv.Itoa(e) != name[cut+1:] {
		return
	}
	for _, f := range b.names[name[:cut]] {
		if f.element >= 0 || f.member < 0 {
			continue
		}
		c := b.members[f.member].Output.Field(f.column)
		if rank := qualifiedElement; c.Tensor() && e < c.Width() {
			if f.rank == plainColumn {
				rank = plainElement
			}
			b.name(name, rank, source{f.member, f.column, e})
		}
	}
}

// input finds the sources of one input of the model.
func (b *stackBuilder) input(f *schemas.Field) {
	if len(f.Features) == 0 {
		b.add(f, f.Name)
		return
	}
	if s, several := b.resolve(f.Name); s != nil && several == nil && s.element < 0 {
		if g := b.field(*s); g.Width() == f.Width() && (len(g.Features) == 0 || slices.Equal(g.Features, f.Features)) {
			b.add(f, f.Name)
			return
		}
	}
	for _, n := range f.Features {
		b.add(f, n)
	}
}

// add adds a source, by its name, of the model's input f.
func (b *stackBuilder) add(f *schemas.Field, name string) {
	input := "input " + clip(f.String())
	if name != f.Name {
		input = "input " + quote(name) + " of " + clip(f.Name)
	}
	s, several := b.resolve(name)
	if len(several) > 0 {
		var owners, better []string
		for _, m := range several {
			owners = append(owners, "member "+b.members[m.member].Name) // the names of the request are unique
			better = append(better, b.qualified(m))
		}
		if !slices.ContainsFunc(better, func(n string) bool { return n != better[0] }) {
			b.fault(modelPath, "%s: %s all have it by that name; rename the column in a transform of one", input, strings.Join(owners, " and "))
			return
		}
		b.fault(modelPath, "%s: %s all have it; name the input %s, or drop it from all but one in a transform",
			input, strings.Join(owners, " and "), strings.Join(better, " or "))
		return
	}
	if s == nil {
		meant := "; there are " + listed(b.known)
		if near := document.Near(name, b.known); near != "" {
			meant = fmt.Sprintf("; did you mean %q?", near)
		}
		b.fault(modelPath, "%s: neither a member nor the request has it%s", input, meant)
		return
	}
	g := *b.field(*s)
	packed := name != f.Name
	takesNull := f.Nullable && (!packed || f.Type.Float() || f.Type.Variable())
	if s.member >= 0 && !takesNull {
		switch m := &b.members[s.member]; {
		case !m.Required:
			b.fault(modelPath, "%s takes no null, but member %s may be missing; make it required, or the quorum all members", input, m.Name)
		case g.Nullable:
			b.fault(modelPath, "%s takes no null, but column %s of member %s may be null; give it a default in a transform", input, clip(g.Name), m.Name)
		}
	}
	if s.element >= 0 || g.Width() == 1 { // a tensor of one element, as many runtimes answer, is a number to the cast
		g.Shape = nil
	}
	g.Name, g.Features = name, nil
	g.Nullable = g.Nullable || s.member >= 0 && !b.members[s.member].Required
	b.fields, b.src = append(b.fields, g), append(b.src, *s)
}

// resolve returns what a name means, nil if nothing, or the members that all have it.
func (b *stackBuilder) resolve(name string) (*source, []source) {
	if !slices.ContainsFunc(b.names[name], func(f found) bool { return f.rank == qualifiedElement || f.rank == plainElement }) {
		b.number(name)
	}
	fs := b.names[name]
	if len(fs) == 0 {
		return nil, nil
	}
	best := slices.MinFunc(fs, func(x, y found) int { return x.rank - y.rank })
	var same []source
	for _, f := range fs {
		// A plain name is the members' together, be it a column here and a feature there.
		if f.rank == best.rank || best.rank >= plainColumn && f.rank <= plainElement && f.member != best.member {
			same = append(same, f.source)
		}
	}
	if len(same) > 1 {
		return nil, same
	}
	return &best.source, nil
}

func (b *stackBuilder) field(s source) *schemas.Field {
	if s.member < 0 {
		return b.request.Field(s.column)
	}
	return b.members[s.member].Output.Field(s.column)
}

// qualified writes the name that a member's source has with the member's name before it.
func (b *stackBuilder) qualified(s source) string {
	f := b.field(s)
	n := f.Name
	if s.element >= 0 && len(f.Features) > 0 {
		n = f.Features[s.element]
	} else if s.element >= 0 {
		n += "_" + strconv.Itoa(s.element)
	}
	return quote(Qualified(b.members[s.member].Name, n))
}

// listed joins names, the first sixteen.
func listed(ns []string) string {
	if len(ns) > 16 {
		return strings.Join(ns[:16], ", ") + " and " + strconv.Itoa(len(ns)-16) + " more"
	}
	return strings.Join(ns, ", ")
}
