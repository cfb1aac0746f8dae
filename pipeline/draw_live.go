package pipeline

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// What comes by a node, as it is drawn.

// liveCells are the headings of sketch.live: rows a second; which part of the rows of the node above comes here, and in a
// cascade which part is answered here; the time of a batch; and errors.
var liveCells = []string{"rows/s", "share", "p50", "p99", "errors"}

// Idle reports whether nothing came within the window; a drawing then shows the figures of all time.
func (s *RouteStats) Idle() bool { return len(s.Nodes) == 0 || s.Nodes[0].Recent.Rows == 0 }

func (s *RouteStats) byPath() map[string]*NodeStats {
	m := map[string]*NodeStats{}
	for i := range s.Nodes {
		m[s.Nodes[i].Node] = &s.Nodes[i]
	}
	return m
}

// figures are those of a node that are drawn; nil if there are none.
func (s *RouteStats) figures(path string) *NodeFigures {
	n := s.byPath()[path]
	switch {
	case n == nil:
		return nil
	case s.Idle():
		return &n.Total
	}
	return &n.Recent
}

// enliven gives a node and those below it their cells. above is nil for the root.
func (s *sketch) enliven(above *NodeFigures, path string, nodes map[string]*NodeStats, total bool) {
	n := nodes[path]
	if n == nil { // the process serves another revision
		return
	}
	f := &n.Recent
	if total {
		f = &n.Total
	}
	s.live = []string{figure(f.RowsPerSecond), percent(f.Share), duration(f.P50), duration(f.P99), strconv.FormatUint(f.Errors, 10)}
	if above == nil {
		s.live[1] = ""
	} else if above.Rows == 0 {
		s.live[1] = "-"
	}
	for i := range s.below {
		b := &s.below[i]
		b.enliven(f, path+"/"+b.name, nodes, total)
		if s.kind != cascadeKind.key || b.live == nil || f.Rows == 0 {
			continue
		}
		for _, a := range f.Arms {
			if a.Arm == b.name {
				b.live[1] += ", answers " + percent(a.Share)
			}
		}
	}
}

// Savings says of each cascade of the route that had rows how many of them stopped early, and what that saved: a line for each.
// The figures are those of the drawing.
func (s *RouteStats) Savings(rev *Revision) string {
	var b strings.Builder
	nodes := s.byPath()
	rev.Spec.Route.Walk(RootPath, RootPath, func(path, _ string, n *Node) {
		x := nodes[path]
		if n.Cascade == nil || x == nil {
			return
		}
		f := &x.Recent
		if s.Idle() {
			f = &x.Total
		}
		last := n.Cascade[len(n.Cascade)-1].Name
		for _, a := range f.Arms {
			if a.Arm == last && f.Rows > 0 {
				fmt.Fprintf(&b, "%s: %s of %d rows stopped early; it took %s, and the stages behind would have taken %s more\n",
					path, percent(1-a.Share), f.Rows, duration(f.Seconds), duration(f.SecondsSaved))
			}
		}
	})
	return b.String()
}

// drawn are the cells of a shadow: its rows, and why it is not loaded. They are of all time.
func (s ShadowState) drawn() []string {
	rest := fmt.Sprintf("%d scored, %d shed", s.Scored, s.Shed)
	if s.Elsewhere {
		rest = fmt.Sprintf("elsewhere, %d shed", s.Shed)
	}
	if s.SampledOut > 0 {
		rest += fmt.Sprintf(", %d not in the sample", s.SampledOut)
	}
	errors := strconv.FormatUint(s.Failed, 10)
	if s.Error != "" {
		errors += ", not loaded: " + shortened(s.Error)
	} else if !s.Ready && !s.Elsewhere {
		errors += ", not loaded yet"
	}
	return []string{"-", rest, "-", "-", errors}
}

// unlive gives a node of which no figures are kept, and those below it, empty cells.
func (s *sketch) unlive() {
	s.live = []string{"-", "-", "-", "-", "-"}
	for i := range s.below {
		s.below[i].unlive()
	}
}

// along is what is written at the edge to a node.
func (s *sketch) along() string {
	edge := strings.Join(s.edge, ", ")
	if s.live == nil {
		return edge
	}
	switch {
	case s.shadow:
		return edge + "\n" + s.live[1]
	case s.live[0] == "-":
		return edge
	}
	now := "now " + s.live[1] + ", " + s.live[0] + " rows/s"
	if edge == "" {
		return now
	}
	return edge + "\n" + now
}

// figure writes a number, of small ones two digits.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(math.Round(v), 'f', -1, 64)
}

func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

// duration writes seconds; nothing for none.
func duration(s float64) string {
	if s == 0 {
		return "-"
	}
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
