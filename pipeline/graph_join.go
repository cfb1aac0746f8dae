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
	plan     *combine.Plan
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
			n.members[m].run(a.f, part, ids, a.out)
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
	n.join(f, all, ids, out)
	for m := range all {
		n.adopt(f, n.members[m].facts(), &all[m])
	}
	for _, row := range ids {
		f.by[row] = -1
	}
}

// join appends the answer to each row: rows that the same members have answered go together.
func (n *ensembleNode) join(f *flow, all []asked, ids []int32, out *schemas.Batch) {
	present := make([]*schemas.Batch, len(all))
	for from := 0; from < len(ids); {
		who := n.answered(all, ids[from])
		to := from + 1
		for to < len(ids) && n.answered(all, ids[to]) == who {
			to++
		}
		if n.missing(all, ids[from], who) != nil {
			for _, row := range ids[from:to] { // each for a reason of its own
				f.fail(row, n.missing(all, row, who))
				blank(out)
			}
			from = to
			continue
		}
		for m := range all {
			if present[m] = nil; who&(1<<m) != 0 {
				present[m] = all[m].out
			}
		}
		if err := n.plan.Combine(present, out, from, to); err != nil {
			for _, row := range ids[from:to] {
				f.fail(row, err)
				blank(out)
			}
		}
		from = to
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
	at := int32(len(f.outs))
	for i := range a.f.visits {
		v := &a.f.visits[i]
		if v.node == int32(member.index) && v.err == nil { // those below have it from there
			v.err = a.f.failed[v.row]
		}
		if v.keptIn >= 0 {
			v.keptIn += at
		}
	}
	f.visits = append(f.visits, a.f.visits...)
	f.outs = append(f.outs, a.f.outs...)
	f.of = append(f.of, a.f.of...)
}
