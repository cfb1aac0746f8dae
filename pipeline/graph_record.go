package pipeline

import (
	"context"
	"runtime/debug"
	"strings"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// safe is score, with a panic as an Internal error.
func (g *graph) safe(ctx context.Context, in, out *schemas.Batch, t *trace, owner func(row int) *item) (err error) {
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
	if in.Rows() > 0 {
		dr := owner(0).door
		g.score(ctx, in, out, t, owner, func(err error) *schemas.Error { return dr.p.host.public(err, dr.p.name) })
	}
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

// visited adds the records of an item that went through a graph: for each row that of the root, with the input and the
// answer, then those of the nodes that it came by, in that order. A node's answer is stored where it is not the one of the
// node above; its input is never, since it follows from those.
func (l *line) visited(r *run, it *item, w *work) error {
	t := &r.trace
	t.sort()
	env := l.mu.row // of the item's first row
	env.Status, env.ErrorKind, env.ErrorID, env.Error = lineage.StatusOK, "", "", ""
	recs, row := &l.mu.open.recs, &l.mu.row
	principal := w.door.principal(it.d)
	for i := it.from; i < it.to; i++ {
		for _, v := range t.visitsOf(i) {
			*row = env
			row.Row, row.BatchSize, row.BatchRow = int32(it.row(i-it.from)), v.batch, v.at
			row.Propensity, row.Seed, row.Score = v.propensity, v.seed, v.took
			n := it.rev.route.nodes[v.node]
			var in, out *schemas.Batch
			outRow := 0
			switch root := v.node == 0; {
			case root:
				row.Score = r.took
				in = r.in
				if it.err == nil {
					out, outRow = r.out, i
				} else {
					errored(row, it.err)
				}
			case v.err != nil:
				errored(row, v.err)
			case v.keptIn >= 0:
				out, outRow = t.outs[v.keptIn], int(v.kept)
			case t.failed[i] != nil:
				errored(row, t.failed[i])
			case it.err != nil:
				errored(row, it.err)
			}
			ctx := it.rev.visitContext(n, &v, t.by[i], principal, w.door.Via, l.c.p.host.CPU)
			err := recs.Add(ctx, row, in, i, out, outRow)
			if err != nil && v.node != 0 { // the answer stands; what the node made is too large to be kept
				errored(row, l.c.p.host.public(err, l.c.p.name))
				err = recs.Add(ctx, row, nil, 0, nil, 0)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// visitContext is context for a visit. The model of the root's record is the one whose answer it is.
func (c *compiled) visitContext(n *nodeFacts, v *visit, by int32, principal, via, cpu string) *lineage.Context {
	k := contextKey{principal: principal, via: via, node: v.node + 1, arm: v.arm + 1}
	m := n.model
	if v.node == 0 {
		if k.by = by + 1; by >= 0 {
			m = c.route.nodes[by].model
		}
	}
	return c.sharedContext(k, func() *lineage.Context {
		x := &lineage.Context{
			Principal: principal, Via: via, Pipeline: c.rev.Spec.Name, Revision: c.rev.Revision,
			Node: n.path, Role: n.role, Runtime: c.held[0].version.Probed.Runtime, CPU: cpu, Policy: c.policy,
		}
		if v.arm >= 0 {
			x.Arm = n.arms[v.arm]
		}
		if m != nil {
			x.Model, x.Version, x.Digest = m.Name, m.Version, m.Digest
		} else if v.node == 0 {
			x.Model = c.by.name
		}
		return x
	})
}
