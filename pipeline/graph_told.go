package pipeline

import (
	"strconv"

	"github.com/leatstream/leat/schemas"
)

// What a caller is told of how an answer was made, beside the rows: which members of an ensemble have answered, where not
// all need to, and which cascades gave the best answer so far because their time was over. Each is a list of node paths with
// commas between; where it is not so for all rows, those for which it is stand behind: "route/a,route/b;rows=0-4+7".

// maxTold bounds such a list, in bytes. One that was cut ends with "...".
const maxTold = 1024

// told fills in what is told of an item's answer. The trace is sorted.
func (c *compiled) told(r *run, it *item, a *schemas.Answer) {
	if c.route == nil || !c.route.tells {
		return
	}
	var who, fell []mention
	for at := it.from; at < it.to; at++ {
		vs := r.trace.visitsOf(at)
		for k := range vs {
			v := &vs[k]
			n := c.route.nodes[v.node]
			row := it.row(at - it.from)
			for m := range n.members {
				who = mentioned(who, v.node, m, row, v.who&(1<<m) != 0)
			}
			if n.within > 0 && len(n.members) == 0 {
				fell = mentioned(fell, v.node, -1, row, v.fell)
			}
		}
	}
	a.Answered, a.Fallback = c.route.list(who), c.route.list(fell)
}

// mention is a node, or a member of it, and the rows that came by, of which it is told.
type mention struct {
	node   int32
	member int
	rows   []int // of which it is so
	came   int
}

func mentioned(ms []mention, node int32, member, row int, so bool) []mention {
	i := 0
	for i < len(ms) && (ms[i].node != node || ms[i].member != member) {
		i++
	}
	if i == len(ms) {
		ms = append(ms, mention{node: node, member: member})
	}
	ms[i].came++
	if so {
		ms[i].rows = append(ms[i].rows, row)
	}
	return ms
}

func (g *graph) list(ms []mention) string {
	var b []byte
	for i := range ms {
		m := &ms[i]
		if len(m.rows) == 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		n := g.nodes[m.node]
		b = append(b, n.path...)
		if m.member >= 0 {
			b = append(append(b, '/'), n.members[m.member]...)
		}
		if len(m.rows) < m.came {
			b = appendRanges(append(b, ";rows="...), m.rows)
		}
		if len(b) > maxTold {
			return string(append(b[:maxTold-3], "..."...))
		}
	}
	return string(b)
}

// appendRanges writes rows, which are in order: 0-4+7.
func appendRanges(b []byte, rows []int) []byte {
	for i := 0; i < len(rows) && len(b) <= maxTold; {
		j := i + 1
		for j < len(rows) && rows[j] == rows[j-1]+1 {
			j++
		}
		if i > 0 {
			b = append(b, '+')
		}
		b = strconv.AppendInt(b, int64(rows[i]), 10)
		if j > i+1 {
			b = strconv.AppendInt(append(b, '-'), int64(rows[j-1]), 10)
		}
		i = j
	}
	return b
}
