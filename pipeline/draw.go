package pipeline

import (
	"fmt"
	"strings"
	"time"

	"github.com/leatstream/leat/pipeline/route"
)

// sketch is what a drawing shows of one node.
type sketch struct {
	name  string   // "" at the root
	kind  string   // split, model, ...
	model string   // of a model: what its reference means, "fraud@3"
	notes []string // how it works: "by tailnum", "when input.amount > 9.0"
	edge  []string // why a row comes here from the node above: "90 %", "weight 2"
	live  []string // what comes by, cell by cell as liveCells names them; empty: not known
	below []sketch

	shadow bool // beside the route: it is asked, and has no part in the answer
}

// undrawn reports whether there is nothing to draw: a route of one model, without shadows.
func undrawn(rev *Revision) bool { return rev.Spec.Route.Model != "" && len(rev.Spec.Shadows) == 0 }

// Draw draws the route of a revision as a tree for a terminal, a line for each node: its name, its kind or the version
// that its reference means, the share or condition by which rows come to it, and how it works. It is "" for a route of one
// model without shadows. Shadows hang at the root by dashes. Each line ends with a newline. An expression is drawn on one line,
// shortened to 60 characters.
//
// With stats, which may be nil, each line says what comes by the node: below a line of headings, and for one model too.
func Draw(rev *Revision, stats *RouteStats) string {
	if undrawn(rev) && stats == nil {
		return ""
	}
	root := sketchOf(rev, stats)
	rows := drawn(nil, &root, nil, "", "")
	if stats != nil {
		rows = append([][]string{append([]string{"", "", ""}, liveCells...)}, rows...)
	}
	wide := make([]int, 3+len(liveCells))
	for _, r := range rows {
		for i, cell := range r {
			wide[i] = max(wide[i], length(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := ""
		for i, cell := range r {
			if i < 3 {
				line += pad(cell, wide[i]) + "  "
			} else {
				line += strings.Repeat(" ", wide[i]-length(cell)) + cell + "  " // numbers
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// drawn appends the cells of a node's line, then those of the nodes below: where it is, what it is, how rows come there and
// what becomes of them.
func drawn(rows [][]string, s, above *sketch, first, rest string) [][]string {
	var how []string
	if above != nil && (above.kind != "sequence" || s.shadow) && len(s.edge) > 0 { // the order of steps is that of the lines
		how = append(how, strings.Join(s.edge, ", "))
	}
	if len(s.notes) > 0 {
		how = append(how, strings.Join(s.notes, ", "))
	}
	rows = append(rows, append([]string{first + s.title(), s.what(), strings.Join(how, "; ")}, s.live...))
	for i := range s.below {
		line := "─ "
		if s.below[i].shadow {
			line = "╌ "
		}
		if i < len(s.below)-1 {
			rows = drawn(rows, &s.below[i], s, rest+"├"+line, rest+"│  ")
		} else {
			rows = drawn(rows, &s.below[i], s, rest+"└"+line, rest+"   ")
		}
	}
	return rows
}

func (s *sketch) title() string {
	if s.name == "" {
		return RootPath
	}
	return s.name
}

func (s *sketch) what() string {
	if s.kind == "model" {
		return s.model
	}
	return s.kind
}

// DrawDot writes the route of a revision for Graphviz, left to right; "" for a route of one model without shadows. With stats, which may be
// nil, the edges say what goes along them.
func DrawDot(rev *Revision, stats *RouteStats) string {
	if undrawn(rev) {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %s {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];\n", dotText(rev.Spec.Name))
	root := sketchOf(rev, stats)
	root.each(func(id, above int, s *sketch) {
		style := ""
		if s.kind == "model" {
			style = ", style=rounded"
		}
		fmt.Fprintf(&b, "  n%d [label=%s%s];\n", id, dotText(s.box()), style)
		if above >= 0 {
			dashed := ""
			if s.shadow {
				dashed = ", style=dashed"
			}
			fmt.Fprintf(&b, "  n%d -> n%d [label=%s%s];\n", above, id, dotText(s.along()), dashed)
		}
	})
	return b.String() + "}\n"
}

// DrawMermaid is DrawDot for Mermaid.
func DrawMermaid(rev *Revision, stats *RouteStats) string {
	if undrawn(rev) {
		return ""
	}
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	root := sketchOf(rev, stats)
	root.each(func(id, above int, s *sketch) {
		open, end := "[", "]"
		if s.kind == "model" {
			open, end = "([", "])"
		}
		fmt.Fprintf(&b, "  n%d%s%s%s\n", id, open, mermaidText(s.box()), end)
		switch edge := s.along(); {
		case above < 0:
		case s.shadow:
			fmt.Fprintf(&b, "  n%d -.->|%s| n%d\n", above, mermaidText(edge), id)
		case edge == "":
			fmt.Fprintf(&b, "  n%d --> n%d\n", above, id)
		default:
			fmt.Fprintf(&b, "  n%d -->|%s| n%d\n", above, mermaidText(edge), id)
		}
	})
	return b.String()
}

// each calls fn for a node and those below it, parents first, with numbers from 0; above is -1 for the root.
func (s *sketch) each(fn func(id, above int, s *sketch)) {
	next := 0
	var walk func(s *sketch, above int)
	walk = func(s *sketch, above int) {
		id := next
		next++
		fn(id, above, s)
		for i := range s.below {
			walk(&s.below[i], id)
		}
	}
	walk(s, -1)
}

// box is what stands in a node of a diagram, line by line.
func (s *sketch) box() string {
	return strings.Join(append([]string{s.title(), s.what()}, s.notes...), "\n")
}

func sketchOf(rev *Revision, stats *RouteStats) sketch {
	models := map[string]string{}
	for _, m := range rev.Models {
		models[m.Node] = fmt.Sprintf("%s@%d", m.Name, m.Version)
		if m.Ref != models[m.Node] {
			models[m.Node] += " (" + m.Ref + ")"
		}
	}
	root := sketchNode(&rev.Spec.Route, RootPath, models)
	if stats != nil {
		root.enliven(nil, RootPath, stats.byPath(), stats.Idle())
	}
	for i := range rev.Spec.Shadows {
		x := &rev.Spec.Shadows[i]
		s := sketchNode(&x.Node, x.Path(), models)
		s.name, s.edge, s.shadow = x.Name, x.drawn(), true
		if stats != nil {
			s.unlive()
			s.enliven(stats.figures(RootPath), x.Path(), stats.byPath(), stats.Idle())
			if of, ok := stats.Shadows[x.Name]; ok {
				cells := of.drawn()
				s.live[1], s.live[4] = cells[1], cells[4]
			}
		}
		root.below = append(root.below, s)
	}
	return root
}

func (x *Shadow) drawn() []string {
	edge := "shadow"
	if x.Sample != nil {
		edge += fmt.Sprintf(" of %v %%", float64(x.rate())*100/route.Million)
		if x.Key != "" {
			edge += " by " + x.Key
		}
	}
	return []string{edge}
}

func sketchNode(n *Node, path string, models map[string]string) sketch {
	var s sketch
	for i := range nodeKinds {
		if nodeKinds[i].used(n) {
			s.kind = nodeKinds[i].key
		}
	}
	switch {
	case n.Model != "":
		if s.model = models[path]; s.model == "" {
			s.model = n.Model
		}
	case n.Split != nil:
		s.notes = n.Split.drawn()
	case n.Transform != nil:
		s.notes = []string{"makes " + listed(sortedKeys(n.Transform.Columns), 6)}
	case n.Ensemble != nil:
		s.notes = n.Ensemble.drawn()
	case n.Bandit != nil:
		s.notes = n.Bandit.drawn()
	case n.Lookup != nil:
		s.notes = []string{"by " + shortened(n.Lookup.Key) + " in " + n.Lookup.source().String(), "makes " + listed(n.makes(), 6)}
	}
	for i, c := range n.below() {
		b := sketchNode(c.node, path+"/"+c.name, models)
		b.name, b.edge = c.name, n.edge(i)
		s.below = append(s.below, b)
	}
	return s
}

func (s *Split) drawn() []string {
	by := "request id"
	switch {
	case s.Key != "":
		by = s.Key
	case s.Header != "":
		by = "header " + s.Header
	}
	notes := []string{"by " + by}
	if s.Salt != "" {
		notes = append(notes, "salt "+shortened(s.Salt))
	}
	if s.Forced {
		notes = append(notes, "or forced")
	}
	return notes
}

func (b *Bandit) drawn() []string {
	notes := []string{b.Policy}
	if len(b.Context) > 0 {
		notes = append(notes, "by "+listed(b.Context, 6))
	}
	notes = append(notes, "rewarded "+shortened(b.Reward))
	if b.MinimumShare > 0 {
		notes = append(notes, fmt.Sprintf("at least %v %% each", b.MinimumShare*100))
	}
	return notes
}

func (e *Ensemble) drawn() (notes []string) {
	if e.Combine.Rule != "" {
		notes = append(notes, e.Combine.Rule)
	}
	var rules []string
	for _, name := range sortedKeys(e.Columns) {
		rules = append(rules, name+": "+e.Columns[name])
	}
	if len(rules) > 0 {
		notes = append(notes, listed(rules, 6))
	}
	if e.Quorum > 0 && e.Quorum < len(e.Members) {
		notes = append(notes, fmt.Sprintf("quorum %d of %d", e.Quorum, len(e.Members)))
	}
	if e.Within > 0 {
		notes = append(notes, fmt.Sprintf("within %v", time.Duration(e.Within)))
	}
	return notes
}

// edge says why a row comes to the node's i-th child.
func (n *Node) edge(i int) []string {
	switch {
	case n.Split != nil:
		full := *n.Split
		full.Arms = append([]Arm(nil), full.Arms...)
		full.inParts()
		return []string{fmt.Sprintf("%v %%", float64(full.Arms[i].Weight)*100/fullWeight)}
	case n.Switch != nil:
		if w := n.Switch[i].When; w != "" {
			return []string{"when " + shortened(w)}
		}
		return []string{"the rest"}
	case n.Sequence != nil:
		return []string{fmt.Sprintf("step %d", i+1)}
	case n.Ensemble != nil && i == len(n.Ensemble.Members):
		return []string{"takes the answers"}
	case n.Ensemble != nil:
		m := &n.Ensemble.Members[i]
		var edge []string
		if m.Weight > 0 {
			edge = append(edge, fmt.Sprintf("weight %d", m.Weight))
		}
		if m.Required {
			edge = append(edge, "required")
		}
		return edge
	case n.Cascade != nil:
		st := &n.Cascade[i]
		var edge []string
		if st.When != "" {
			edge = append(edge, "when "+shortened(st.When))
		}
		if len(st.Refine) > 0 {
			edge = append(edge, "with "+listed(sortedKeys(st.Refine), 6))
		}
		if st.Within > 0 {
			edge = append(edge, fmt.Sprintf("within %v", time.Duration(st.Within)))
		}
		if st.Accept != "" {
			edge = append(edge, "accepts if "+shortened(st.Accept))
		}
		if len(edge) == 0 {
			edge = []string{"the rest"}
		}
		return edge
	}
	return nil
}

// drawnText is the characters of an expression that are drawn at most.
const drawnText = 60

// shortened writes text on one line, its end left out if it is long. What would move a terminal's cursor becomes a space.
func shortened(s string) string {
	r := []rune(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 }), " "))
	if len(r) > drawnText {
		return string(r[:drawnText-3]) + "..."
	}
	return string(r)
}

// listed joins names, the first few of many.
func listed(names []string, most int) string {
	more := ""
	if len(names) > most {
		names, more = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
	}
	short := make([]string, len(names))
	for i, n := range names {
		short[i] = shortened(n)
	}
	return strings.Join(short, ", ") + more
}

func length(s string) int { return len([]rune(s)) }

func pad(s string, to int) string { return s + strings.Repeat(" ", to-length(s)) }

// dotText quotes for Graphviz, where a backslash begins an escape: a newline is \n.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// mermaidText quotes for Mermaid, which reads entity codes in quoted text, and lines as <br/>.
func mermaidText(s string) string {
	return `"` + strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "`", "#96;", "\n", "<br/>").Replace(s) + `"`
}
