package pipeline

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
)

// compiled is a revision that is loaded here: its spec as a graph of nodes with their models. It is immutable but for
// its reference count and its cache of contexts. A request holds the compiled revision that it was admitted under until
// its answer is committed, so a change of revision never mixes two of them in one request.
type compiled struct {
	rev      *Revision
	*batcher                 // of the model, if the route is one; else of the graph
	route    *graph          // nil: the route is one model
	nodes    []ResolvedModel // what it runs of the revision's models: those of the route, or of one shadow
	held     []*model        // in the same order
	shadows  []*shadow       // beside the route; nil where none is cast
	tables   []*lookup.Table // of its lookups
	by       answered        // the model; of a graph, the pipeline
	policy   *lineage.Policy
	input    *codec.Input // how events are written that do not say it
	models   *models
	refs     atomic.Int64

	count  *counted               // of a route of one model; nil: not counted
	series atomic.Pointer[series] // metrics of what was scored under it, resolved once

	contexts struct {
		sync.RWMutex
		known map[contextKey]*lineage.Context
	}
}

// answered names what made an answer.
type answered struct {
	name, version string
	label         []string // "fraud@3", as a header value
	revision      []string
}

// answeredBy names a model's version, or, with version 0, a pipeline in which several models have a part in the answer.
func answeredBy(name string, version int, revision string) answered {
	if version == 0 {
		return answered{name: name, label: []string{name}, revision: []string{revision}}
	}
	v := strconv.Itoa(version)
	return answered{name: name, version: v, label: []string{name + "@" + v}, revision: []string{revision}}
}

// RootPath is the node path of the route's root.
const RootPath = "route"

// compile loads what a revision needs: its models, and the tables of its lookups, full. The caller owns one reference.
func compile(ctx context.Context, ms *models, rev *Revision) (*compiled, error) {
	const op = "pipeline.compile"
	c := &compiled{rev: rev, models: ms}
	c.contexts.known = map[contextKey]*lineage.Context{}
	c.refs.Store(1)
	if err := c.hold(ctx, ofRoute(rev.Models)); err != nil {
		return nil, err
	}
	switch {
	case len(c.held) == 0:
		return nil, schemas.Errorf(schemas.Internal, op, "pipeline %s: a revision without models", rev.Spec.Name)
	case rev.Spec.Route.Model != "" && !c.widened():
		r := rev.Models[0]
		c.batcher, c.by = c.held[0].batcher, answeredBy(r.Name, r.Version, rev.Revision)
	default:
		check := &checker{}
		g := buildGraph(check, &rev.Spec, c.signatures())
		if g == nil {
			c.release()
			return nil, check.faults.Err(op)
		}
		if len(rev.Spec.Shadows) > 0 && rev.Signature.Inputs != nil {
			g.widen(rev.Signature.Inputs)
		}
		if err := c.grow(ctx, g, rev.Revision); err != nil {
			c.release()
			return nil, err
		}
	}
	var err error
	in := rev.Spec.Input
	if in == nil {
		in = &Input{}
	}
	if c.input, err = codec.ParseInput(in.Format, in.Columns); err != nil {
		c.release()
		return nil, err
	}
	if err := c.keepBack(); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

// hold loads models. On error nothing is held, and the reference is gone.
func (c *compiled) hold(ctx context.Context, ms []ResolvedModel) error {
	c.nodes = ms
	for _, r := range ms {
		md, err := c.models.acquire(ctx, r.Name, r.Version)
		if err != nil {
			c.release()
			return err
		}
		c.held = append(c.held, md)
	}
	return nil
}

// widened reports whether requests have columns that only shadows and feedback read: then a route of one model is a graph too.
func (c *compiled) widened() bool {
	in := c.rev.Signature.Inputs
	return (len(c.rev.Spec.Shadows) > 0 || c.rev.Spec.entity() != "") && in != nil && in.ID() != c.held[0].sig.Inputs.ID()
}

// keepBack makes the policy of what stays out of the records.
func (c *compiled) keepBack() (err error) {
	if rec := c.rev.Spec.Record; rec != nil {
		c.policy, err = lineage.NewPolicy(rec.Mask, rec.Drop)
	}
	return err
}

// acquire takes a reference unless the last one is gone.
func (c *compiled) acquire() bool {
	for {
		n := c.refs.Load()
		if n == 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a reference back; the last one unloads.
func (c *compiled) release() {
	if c.refs.Add(-1) == 0 {
		c.unloadShadows()
		for _, md := range c.held {
			c.models.release(md)
		}
		for _, t := range c.tables {
			t.Close()
		}
	}
}

// signatures returns those of the models that are held, by node path.
func (c *compiled) signatures() map[string]schemas.Signature {
	sigs := map[string]schemas.Signature{}
	for i, r := range c.nodes {
		sigs[r.Node] = c.held[i].sig
	}
	return sigs
}

// grow gives the nodes of a graph their models and tables, and makes it what is run. digest names it to the marks of rows that kill.
func (c *compiled) grow(ctx context.Context, g *graph, digest string) error {
	c.route = g
	for _, n := range g.nodes {
		i := slices.IndexFunc(c.nodes, func(r ResolvedModel) bool { return r.Node == n.path })
		if i >= 0 {
			r := &c.nodes[i]
			n.model, n.loaded, n.by = r, c.held[i], answeredBy(r.Name, r.Version, c.rev.Revision)
		}
	}
	ms := c.models
	for _, n := range g.lookups {
		t, err := n.open(ctx, ms, c.rev.Spec.Name)
		if err != nil {
			return err
		}
		c.tables = append(c.tables, t)
	}
	for _, s := range []*schemas.Schema{g.in, g.out} {
		ms.described.Store(s.ID(), s)
	}
	c.batcher = newGraphBatcher(g, digest, ms.lanes, ms.poison, ms.m)
	c.by = answeredBy(c.rev.Spec.Name, 0, c.rev.Revision)
	return nil
}

// contextKey tells contexts apart. node, arm and by are indexes plus one; they are zero where the route is one model.
type contextKey struct {
	principal, via, run string
	node, arm, by       int32
}

// maxContexts bounds the cache of contexts: principals come from a token file or an account, so few are usual.
const maxContexts = 4096

// context returns the shared part of the records of this revision for one principal and way in.
func (c *compiled) context(principal, via, run, cpu string) *lineage.Context {
	m, node, role := c.nodes[0], RootPath, lineage.RolePrimary
	if c.route != nil {
		m, node, role = ResolvedModel{Name: c.by.name}, c.route.nodes[0].path, c.route.nodes[0].role
	}
	return c.sharedContext(contextKey{principal: principal, via: via, run: run}, func() *lineage.Context {
		return &lineage.Context{
			Principal: principal, Via: via, Pipeline: c.rev.Spec.Name, Revision: c.rev.Revision,
			Node: node, Role: role, Model: m.Name, Version: m.Version, Digest: m.Digest,
			Run: run, Runtime: c.held[0].version.Probed.Runtime, CPU: cpu, Policy: c.policy,
		}
	})
}

func (c *compiled) sharedContext(k contextKey, make func() *lineage.Context) *lineage.Context {
	c.contexts.RLock()
	x := c.contexts.known[k]
	c.contexts.RUnlock()
	if x != nil {
		return x
	}
	x = make()
	c.contexts.Lock()
	defer c.contexts.Unlock()
	if old := c.contexts.known[k]; old != nil {
		return old
	}
	if len(c.contexts.known) == maxContexts {
		clear(c.contexts.known)
	}
	c.contexts.known[k] = x
	return x
}

// Environment is what decides the bits of an answer beside the model and its input (SEMANTICS 6).
type Environment struct {
	Runtime string `json:"runtime"` // "onnxruntime 1.27.0"
	CPU     string `json:"cpu"`     // features that choose kernels
}
