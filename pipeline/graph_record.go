package pipeline

import (
	"context"
	"runtime/debug"
	"strings"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// safe is score, with a panic as an Internal error.
func (g *graph) safe(ctx context.Context, in, out *schemas.Batch, t *trace, owner func(row int) *item, public func(error) *schemas.Error) (err error) {
	const op = "pipeline.route"
	before := out.Rows()
	defer func() {
		if p := recover(); p != nil {
			err = schemas.Errorf(schemas.Internal, op, "the route panicked: %v\n%s", p, debug.Stack())
		} else if out.Rows()-before != in.Rows() {
			err = schemas.Errorf(schemas.Internal, op, "the route gave %d rows for %d", out.Rows()-before, in.Rows())
		}
		if err != nil {
			out.Rollback()
			out.Truncate(before)
		}
	}()
	g.score(ctx, in, out, t, owner, public)
	return nil
}

// madeBy names what made the answer to an item: the model, if all its rows have the answer of one as it is.
func (c *compiled) madeBy(r *run, it *item) *answered {
	if c.route == nil || it.from == it.to {
		return &c.by
	}
	by := r.trace.by[it.from]
	for _, o := range r.trace.by[it.from:it.to] {
		if o != by {
			return &c.by
		}
	}
	if by < 0 {
		return &c.by
	}
	return &c.route.nodes[by].by
}

// forcedArm returns the arm that the caller asks for at a node, -1 for none: Leat-Arm holds names of arms, or NODE PATH=ARM,
// with commas between them.
func forcedArm(it *item, path string, arms []string) int {
	h := it.d.Header.Get(schemas.HeaderArm)
	for h != "" {
		var one string
		one, h, _ = strings.Cut(h, ",")
		node, arm, at := strings.Cut(strings.TrimSpace(one), "=")
		if !at {
			arm = node
		} else if node != path {
			continue
		}
		for i, name := range arms {
			if name == arm {
				return i
			}
		}
	}
	return -1
}

// visited adds the records of an item that went through a graph.
func (l *line) visited(r *run, it *item, w *work) error {
	x := &visitor{rev: it.rev, trace: &r.trace, recs: &l.mu.open.recs, principal: w.door.principal(it.d), via: w.door.Via, cpu: l.c.p.host.CPU,
		public: r.public}
	env := l.mu.row // of the item's first row
	env.Status, env.ErrorKind, env.ErrorID, env.Error = lineage.StatusOK, "", "", ""
	for i := it.from; i < it.to; i++ {
		env.Row = int32(it.row(i - it.from))
		if err := x.record(&env, i, it.err, r.in, i, r.out, i); err != nil {
			return err
		}
	}
	return nil
}

// visitor writes the records of rows that went through a graph.
type visitor struct {
	rev                      *compiled
	trace                    *trace
	recs                     *lineage.Records
	principal, via, run, cpu string
	public                   func(error) *schemas.Error
	late                     bool        // nobody waited for it
	row                      lineage.Row // scratch
}

// record adds the records of row at of the trace: that of the root, with the input and the answer, then those of the nodes
// that it came by, in that order. A node's answer is stored where it is not the one of the node above; its input is not, since it
// follows from those, but for the context of a bandit, which learns from it. failed says why the request of the row has no answer, nil if it has one.
func (x *visitor) record(env *lineage.Row, at int, failed *schemas.Error, in *schemas.Batch, inRow int, out *schemas.Batch, outRow int) error {
	t := x.trace
	row := &x.row
	vs := t.visitsOf(at)
	for k := range vs {
		v := &vs[k]
		*row = *env
		row.BatchSize, row.BatchRow = v.batch, v.at
		row.Propensity, row.Seed, row.State = v.propensity, v.seed, v.state
		n := x.rev.route.nodes[v.node]
		ctx := x.context(n, v, t.by[at])
		if v.node == 0 {
			answer := out
			if failed != nil {
				errored(row, failed)
				answer = nil
			}
			if err := x.recs.Add(ctx, row, in, inRow, answer, outRow); err != nil {
				return err
			}
			continue
		}
		row.Score = v.took
		kept, e := x.rev.route.cameOf(t, vs, k, failed)
		if e != nil {
			errored(row, e)
		}
		if x.late {
			row.Status = lineage.StatusLate
		}
		var by *schemas.Batch
		if v.seenIn >= 0 {
			by = t.seen[v.seenIn].rows
		}
		err := x.recs.Add(ctx, row, by, int(v.seen), kept, int(v.kept))
		if err != nil { // the answer stands; what the node made is too large to be kept
			errored(row, x.public(err))
			err = x.recs.Add(ctx, row, nil, 0, nil, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cameOf returns what came of visit k of those of a row, at a node below the root: the answer that is stored with it, nil if
// it is the one of the node above, or the error. failed says why the request has no answer.
func (g *graph) cameOf(t *trace, vs []visit, k int, failed *schemas.Error) (*schemas.Batch, *schemas.Error) {
	v := &vs[k]
	switch above := g.nodes[v.node].above; {
	case v.keptIn >= 0:
		return t.outs[v.keptIn], nil
	case v.err != nil:
		return nil, v.err
	case above > 0: // it has the answer of the node above, or has failed with it
		for k--; vs[k].node != int32(above); k-- {
		}
		_, err := g.cameOf(t, vs, k, failed)
		return nil, err
	case t.failed[v.row] != nil:
		return nil, t.failed[v.row]
	}
	return nil, failed
}

// context is that of a visit. The model of the root's record is the one whose answer it is.
func (x *visitor) context(n *nodeFacts, v *visit, by int32) *lineage.Context {
	c := x.rev
	k := contextKey{principal: x.principal, via: x.via, run: x.run, node: v.node + 1, arm: v.arm + 1}
	m := n.model
	if v.node == 0 {
		if k.by = by + 1; by >= 0 {
			m = c.route.nodes[by].model
		}
	}
	return c.sharedContext(k, func() *lineage.Context {
		l := &lineage.Context{
			Principal: x.principal, Via: x.via, Pipeline: c.rev.Spec.Name, Revision: c.rev.Revision,
			Node: n.path, Role: n.role, Run: x.run, Runtime: c.held[0].version.Probed.Runtime, CPU: x.cpu, Policy: c.policy,
		}
		if v.arm >= 0 {
			l.Arm = n.arms[v.arm]
		}
		if m != nil {
			l.Model, l.Version, l.Digest = m.Name, m.Version, m.Digest
		} else if v.node == 0 {
			l.Model = c.by.name
		}
		return l
	})
}
