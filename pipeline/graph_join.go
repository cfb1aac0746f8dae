package pipeline

import (
	"runtime/debug"
	"sync"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
)

// ensembleNode asks all its members, side by side, and joins their answers.
type ensembleNode struct {
	*nodeFacts
	members  []graphNode
	give     []*picker
	required []bool
	quorum   int
	joins    joiner
}

// joiner makes one answer of those of the members. join appends one row to out for each row of in. It combines the rows
// of each group that is enough; the other rows have failed.
type joiner interface {
	join(f *flow, all []*schemas.Batch, groups []group, in *schemas.Batch, ids []int32, out *schemas.Batch)
}

// group is neighbouring rows that the same members have answered.
type group struct {
	from, to int
	who      uint64 // a bit for each member
	enough   bool
}

// present returns the answers of those who have answered, nil in the place of the others.
func (g *group) present(all []*schemas.Batch, scratch []*schemas.Batch) []*schemas.Batch {
	scratch = append(scratch[:0], all...)
	for m := range scratch {
		if g.who&(1<<m) == 0 {
			scratch[m] = nil
		}
	}
	return scratch
}

// asked is what came of one member.
type asked struct {
	f     *flow
	out   *schemas.Batch
	panic any
	stack []byte
}

func (n *ensembleNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	f.enter(n.nodeFacts, ids)
	all := make([]asked, len(n.members))
	var wg sync.WaitGroup
	for m := range all {
		a := &all[m]
		// Rows keep their numbers, so that what a member tells of them needs no translation.
		t := &trace{by: make([]int32, len(f.by)), failed: make([]*schemas.Error, len(f.failed))}
		a.f = &flow{trace: t, ctx: f.ctx, g: f.g, host: f.host, owner: f.owner, past: f.past}
		ask := func() {
			defer func() {
				if a.panic = recover(); a.panic != nil {
					a.stack = debug.Stack()
				}
			}()
			part := n.give[m].all(in)
			a.out = n.members[m].facts().batch()
			a.f.run(n.members[m], part, ids, a.out)
			n.give[m].free(part, in)
		}
		if m == len(all)-1 {
			ask()
		} else {
			wg.Go(ask)
		}
	}
	wg.Wait()
	for m := range all {
		if p := all[m].panic; p != nil { // a broken invariant of ours: as if it had come to pass here
			panic(p)
		}
	}
	outs := make([]*schemas.Batch, len(all))
	for m := range all {
		outs[m] = all[m].out
		n.adopt(f, n.members[m].facts(), &all[m])
	}
	for _, row := range ids {
		f.by[row] = -1
	}
	n.joins.join(f, outs, n.groups(f, all, ids), in, ids, out)
}

// groups parts the rows by who has answered them, and fails those that too few have.
func (n *ensembleNode) groups(f *flow, all []asked, ids []int32) (gs []group) {
	for from := 0; from < len(ids); {
		g := group{from: from, to: from + 1, who: n.answered(all, ids[from])}
		for g.to < len(ids) && n.answered(all, ids[g.to]) == g.who {
			g.to++
		}
		if g.enough = n.missing(all, ids[from], g.who) == nil; !g.enough {
			for _, row := range ids[from:g.to] { // each for a reason of its own
				f.fail(row, n.missing(all, row, g.who))
			}
		}
		from = g.to
		gs = append(gs, g)
	}
	return gs
}

// planned joins by rules.
type planned struct{ plan *combine.Plan }

func (p planned) join(f *flow, all []*schemas.Batch, groups []group, _ *schemas.Batch, ids []int32, out *schemas.Batch) {
	var scratch [8]*schemas.Batch
	for _, g := range groups {
		if g.enough {
			err := p.plan.Combine(g.present(all, scratch[:]), out, g.from, g.to)
			if err == nil {
				continue
			}
			for _, row := range ids[g.from:g.to] {
				f.fail(row, err)
			}
		}
		for range g.to - g.from {
			blank(out)
		}
	}
}

// stackNode joins by a further model, which is a node of its own.
type stackNode struct {
	*scoringNode
	stack *combine.Stack
}

func (n *stackNode) join(f *flow, all []*schemas.Batch, groups []group, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	rows := make([]int32, 0, len(ids)) // of in, that enough members have answered
	live := ids
	for _, g := range groups {
		for i := g.from; i < g.to && g.enough; i++ {
			rows = append(rows, int32(i))
		}
	}
	if len(rows) == len(ids) {
		n.ask(f, all, groups, in, live, out)
		return
	}
	live = make([]int32, len(rows))
	for k, r := range rows {
		live[k] = ids[r]
	}
	part := n.batch()
	n.ask(f, all, groups, in, live, part)
	spread(part, rows, len(ids), out)
	n.free(part)
}

// ask has the model answer the rows of the groups that are enough, which are rows ids of the flow.
func (n *stackNode) ask(f *flow, all []*schemas.Batch, groups []group, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	defer f.left(len(f.passes), sinceStart())
	first := f.enter(n.nodeFacts, ids)
	if len(ids) == 0 {
		return
	}
	if f.past != nil {
		f.past.answer(f, n.nodeFacts, ids, first, out)
		return
	}
	for _, row := range ids {
		f.by[row] = int32(n.index)
	}
	n.scorePacked(f, ids, first, out, func(p *packed) (bad []schemas.RowError, err error) {
		var scratch [8]*schemas.Batch
		at := 0
		for _, g := range groups {
			if !g.enough {
				continue
			}
			k := len(bad)
			if bad, err = n.stack.Append(g.present(all, scratch[:]), in, p.work, p.in, g.from, g.to, bad); err != nil {
				return nil, err
			}
			for ; k < len(bad); k++ {
				bad[k].Row += at - g.from
			}
			at += g.to - g.from
		}
		return bad, nil
	})
}

// spread appends n rows to out: those that are rows of part, which are in order, and blanks between them.
func spread(part *schemas.Batch, rows []int32, n int, out *schemas.Batch) {
	for i, k := 0, 0; i < n; i++ {
		if k < len(rows) && rows[k] == int32(i) {
			out.AppendRange(part, k, k+1)
			k++
		} else {
			blank(out)
		}
	}
}

// answered returns a bit for each member that has answered a row.
func (n *ensembleNode) answered(all []asked, row int32) (who uint64) {
	for m := range all {
		if all[m].f.failed[row] == nil {
			who |= 1 << m
		}
	}
	return who
}

// missing says why those who have answered are not enough.
func (n *ensembleNode) missing(all []asked, row int32, who uint64) error {
	const op = "pipeline.ensemble"
	have := 0
	var first *schemas.Error
	name := ""
	for m := range all {
		if who&(1<<m) != 0 {
			have++
			continue
		}
		e := all[m].f.failed[row]
		if n.required[m] {
			return schemas.Errorf(e.Kind, op, "member %s, which is required, did not answer: %w", n.members[m].facts().path, e)
		}
		if first == nil {
			first, name = e, n.members[m].facts().path
		}
	}
	if have < n.quorum {
		return schemas.Errorf(first.Kind, op, "%d of %d members answered, and %d must; %s: %w", have, len(all), n.quorum, name, first)
	}
	return nil
}

// adopt takes over what a member's flow has noted, and its answers.
func (n *ensembleNode) adopt(f *flow, member *nodeFacts, a *asked) {
	a.f.keep(member, a.out, 0)
	at, sees := int32(len(f.outs)), int32(len(f.seen))
	for i := range a.f.visits {
		v := &a.f.visits[i]
		if v.node == int32(member.index) && v.err == nil { // those below have it from there
			v.err = a.f.failed[v.row]
		}
		if v.keptIn >= 0 {
			v.keptIn += at
		}
		if v.seenIn >= 0 {
			v.seenIn += sees
		}
	}
	first := int32(len(f.visits))
	for _, p := range a.f.passes {
		p.first += first
		f.passes = append(f.passes, p)
	}
	f.visits = append(f.visits, a.f.visits...)
	f.outs = append(f.outs, a.f.outs...)
	f.of = append(f.of, a.f.of...)
	f.seen = append(f.seen, a.f.seen...)
}
