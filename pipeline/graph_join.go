package pipeline

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/schemas"
)

// ensembleNode asks all its members, side by side, and joins their answers.
//
// Where all must have answered, all are waited for, and they work on what the ensemble was given. Where fewer do, or where it
// has a time of its own, the answer is made as soon as the rule is met: a member that has not come back by then is left
// behind (graph_late.go). Since it goes on, it works on copies. Jobs wait for all, so that a chunk that is run again gives the
// same bits; so do suspects, of which a death must tell the row.
type ensembleNode struct {
	*nodeFacts
	members  []graphNode
	give     []*picker
	required []bool
	quorum   int
	joins    joiner
	afoot    []atomic.Int32 // by member: runs that have not come back
}

// asked is what came of one member.
type asked struct {
	f     *flow
	out   *schemas.Batch
	came  bool           // it is done; known to who asked
	left  *schemas.Error // why it is not waited for: f and out are its own then
	panic any
	stack []byte
	slots []int32      // in the poison file, once it is left behind
	fate  atomic.Int32 // underWay, then hasCome or leftBehind, whoever is first to say so
}

const (
	underWay = iota
	hasCome
	leftBehind
)

func (n *ensembleNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	first := f.enter(n.nodeFacts, ids)
	if len(ids) == 0 {
		return
	}
	var all []*asked
	if n.hurries() && f.past == nil && !f.patient && f.owner(int(ids[0])).door != nil {
		all = n.askSome(f, in, ids)
	} else {
		all = n.askAll(f, in, ids)
	}
	outs := make([]*schemas.Batch, len(all))
	for m, a := range all {
		if a.left != nil {
			f.skip(n.members[m].facts(), a.left, ids)
			continue
		}
		outs[m] = a.out
		a.close(n.members[m].facts())
		f.merge(a.f)
	}
	for _, row := range ids {
		f.by[row] = -1
	}
	groups := n.groups(f, all, ids)
	for _, g := range groups {
		for i := g.from; i < g.to; i++ {
			f.visits[first+i].who = g.who
		}
	}
	n.joins.join(f, outs, groups, in, ids, out)
	for _, a := range all {
		if a.left == nil {
			a.f.part()
		}
	}
}

// part gives the memory of a flow back whose notes were merged: the batches in them are the other flow's now.
func (f *flow) part() {
	t := f.trace
	clear(t.outs)
	clear(t.of)
	clear(t.seen)
	t.outs, t.of, t.seen = t.outs[:0], t.of[:0], t.seen[:0]
	t.reset()
	f.g.beside.Put(t)
}

// hurries reports whether the answer may be made before all members have come back.
func (n *ensembleNode) hurries() bool { return n.quorum < len(n.members) || n.within > 0 }

// askAll asks all members and waits for them.
func (n *ensembleNode) askAll(f *flow, in *schemas.Batch, ids []int32) []*asked {
	all := make([]*asked, len(n.members))
	var wg sync.WaitGroup
	for m := range all {
		a := &asked{f: f.beside()}
		all[m] = a
		if f.past != nil {
			if a.left = f.past.skipped(n.members[m].facts()); a.left != nil {
				continue
			}
		}
		ask := func() {
			part := n.give[m].all(in)
			a.ask(n.members[m], part, ids)
			n.give[m].free(part, in)
		}
		if m == len(all)-1 || f.serial {
			ask()
		} else {
			wg.Go(ask)
		}
	}
	wg.Wait()
	for _, a := range all {
		if p := a.panic; p != nil { // a broken invariant of ours: as if it had come to pass here
			panic(p)
		}
	}
	return all
}

// beside returns a flow of the same rows for somebody who works at the same time. Rows keep their numbers, so that what is
// told of them needs no translation.
func (f *flow) beside() *flow {
	t, _ := f.g.beside.Get().(*trace)
	if t == nil {
		t = &trace{}
	}
	t.by = append(t.by[:0], f.by...)
	t.failed = slices.Grow(t.failed, len(f.failed))[:len(f.failed)]
	clear(t.failed)
	t.patient, t.serial = f.patient, f.serial
	return &flow{trace: t, ctx: f.ctx, g: f.g, host: f.host, owner: f.owner, past: f.past}
}

// askSome asks all members and waits for as many as the rule needs, until the last caller gives up or the ensemble's own time is over.
func (n *ensembleNode) askSome(f *flow, in *schemas.Batch, ids []int32) []*asked {
	const op = "pipeline.ensemble"
	c := newCrew(f, ids)
	until, why := c.until, "no answer before the deadline"
	if end := time.Now().Add(n.within); n.within > 0 && (until.IsZero() || end.Before(until)) {
		until, why = end, "no answer within "+n.within.String()
	}
	var over <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		over = t.C
	}
	came := make(chan int, len(n.members))
	all := make([]*asked, len(n.members))
	waiting := 0
	for m := range all {
		a := &asked{}
		all[m] = a
		if n.afoot[m].Add(1) > f.g.afoot {
			n.afoot[m].Add(-1)
			a.left = schemas.Errorf(schemas.Overloaded, op, "%s has %d runs under way that have not come back", n.members[m].facts().path, f.g.afoot)
			continue
		}
		a.f = c.beside(f)
		part := n.give[m].copied(in)
		waiting++
		go func() {
			a.ask(n.members[m], part, c.ids)
			n.give[m].free(part, nil)
			if a.fate.CompareAndSwap(underWay, hasCome) {
				n.afoot[m].Add(-1)
				came <- m // has room for all
				return
			}
			c.late(n.members[m].facts(), a)
			n.afoot[m].Add(-1)
		}()
	}
	left := schemas.Errorf(schemas.Expired, op, "no answer yet when enough others had answered")
	for waiting > 0 && !n.decided(all, ids) {
		select {
		case m := <-came:
			all[m].came = true
			waiting--
			continue
		case <-over:
			left = schemas.Errorf(schemas.Expired, op, "%s", why)
		case <-c.ended():
			left = schemas.Errorf(schemas.Unavailable, op, "shutting down")
		}
		break
	}
	for _, a := range all {
		if !a.came && a.left == nil && c.leave(a) {
			a.left = left
		}
		if a.left == nil && a.panic != nil { // a broken invariant of ours, but the others have answered
			a.left = f.host(schemas.Errorf(schemas.Internal, op, "the member panicked: %v\n%s", a.panic, a.stack))
		}
	}
	return all
}

// decided reports whether no member that is out can change what becomes of a row.
func (n *ensembleNode) decided(all []*asked, ids []int32) bool {
	for _, row := range ids {
		have, out, wanted, lost := 0, 0, false, false
		for m, a := range all {
			switch {
			case a.left != nil || a.came && (a.panic != nil || a.f.failed[row] != nil):
				lost = lost || n.required[m]
			case a.came:
				have++
			default:
				out++
				wanted = wanted || n.required[m]
			}
		}
		met := have >= n.quorum && !wanted
		if !met && !lost && have+out >= n.quorum {
			return false
		}
	}
	return true
}

// groups parts the rows by who has answered them, and fails those that too few have.
func (n *ensembleNode) groups(f *flow, all []*asked, ids []int32) (gs []group) {
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

// answered returns a bit for each member that has answered a row.
func (n *ensembleNode) answered(all []*asked, row int32) (who uint64) {
	for m := range all {
		if all[m].why(row) == nil {
			who |= 1 << m
		}
	}
	return who
}

// missing says why those who have answered are not enough.
func (n *ensembleNode) missing(all []*asked, row int32, who uint64) error {
	const op = "pipeline.ensemble"
	have := 0
	var first *schemas.Error
	name := ""
	for m := range all {
		if who&(1<<m) != 0 {
			have++
			continue
		}
		e := all[m].why(row)
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

// why says why a member has not answered a row, nil if it has.
func (a *asked) why(row int32) *schemas.Error {
	if a.left != nil {
		return a.left
	}
	return a.f.failed[row]
}

// skip notes that rows came to a node that is not waited for, or not asked: in no batch.
func (f *flow) skip(node *nodeFacts, why *schemas.Error, ids []int32) {
	first := f.enter(node, ids)
	for i := range ids {
		v := &f.visits[first+i]
		v.batch, v.at, v.err = 0, 0, why
	}
}

// close keeps the member's answers with its visits.
func (a *asked) close(member *nodeFacts) {
	a.f.keep(member, a.out, 0)
	for i := range a.f.visits {
		v := &a.f.visits[i]
		if v.node == int32(member.index) && v.err == nil { // those below have it from there
			v.err = a.f.failed[v.row]
		}
	}
}

// merge takes over what a flow beside has noted, and its answers.
func (f *flow) merge(o *flow) {
	at, sees := int32(len(f.outs)), int32(len(f.seen))
	for i := range o.visits {
		v := &o.visits[i]
		if v.keptIn >= 0 {
			v.keptIn += at
		}
		if v.seenIn >= 0 {
			v.seenIn += sees
		}
	}
	first := int32(len(f.visits))
	for _, p := range o.passes {
		p.first += first
		f.passes = append(f.passes, p)
	}
	f.visits = append(f.visits, o.visits...)
	f.outs = append(f.outs, o.outs...)
	f.of = append(f.of, o.of...)
	f.seen = append(f.seen, o.seen...)
}
