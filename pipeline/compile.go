package pipeline

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
)

// compiled is a revision that is loaded here: its spec as a graph of nodes with their models. It is immutable but for
// its reference count and its cache of contexts. A request holds the compiled revision that it was admitted under until
// its answer is committed, so a change of revision never mixes two of them in one request.
type compiled struct {
	rev    *Revision
	root   *modelNode // the one kind of node there is so far; other kinds join as an interface over runs
	by     answered
	policy *lineage.Policy
	input  *codec.Input // how events are written that do not say it
	models *models
	refs   atomic.Int64

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

func answeredBy(model string, version int, revision string) answered {
	v := strconv.Itoa(version)
	return answered{name: model, version: v, label: []string{model + "@" + v}, revision: []string{revision}}
}

// modelNode scores rows with one model version.
type modelNode struct {
	path  string
	model *model
}

// RootPath is the node path of the route's root.
const RootPath = "route"

// compile loads what a revision needs. The caller owns one reference.
func compile(ctx context.Context, ms *models, rev *Revision) (*compiled, error) {
	const op = "pipeline.compile"
	if len(rev.Models) != 1 || rev.Models[0].Node != RootPath {
		return nil, schemas.Errorf(schemas.Invalid, op, "pipeline %s: a route of this kind is not known to this version of leat", rev.Spec.Name)
	}
	r := rev.Models[0]
	md, err := ms.acquire(ctx, r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	c := &compiled{rev: rev, models: ms, root: &modelNode{path: r.Node, model: md}, by: answeredBy(r.Name, r.Version, rev.Revision)}
	c.contexts.known = map[contextKey]*lineage.Context{}
	c.refs.Store(1)
	in := rev.Spec.Input
	if in == nil {
		in = &Input{}
	}
	if c.input, err = codec.ParseInput(in.Format, in.Columns); err != nil {
		c.release()
		return nil, err
	}
	if rec := rev.Spec.Record; rec != nil {
		if c.policy, err = lineage.NewPolicy(rec.Mask, rec.Drop); err != nil {
			c.release()
			return nil, err
		}
	}
	return c, nil
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
		c.models.release(c.root.model)
	}
}

type contextKey struct{ principal, via, run string }

// maxContexts bounds the cache of contexts: principals come from a token file or an account, so few are usual.
const maxContexts = 4096

// context returns the shared part of the records of this revision for one principal and way in.
func (c *compiled) context(principal, via, run, cpu string) *lineage.Context {
	k := contextKey{principal, via, run}
	c.contexts.RLock()
	x := c.contexts.known[k]
	c.contexts.RUnlock()
	if x != nil {
		return x
	}
	m, v := &c.rev.Models[0], &c.root.model.version // equal models of other names share one scorer
	x = &lineage.Context{
		Principal: principal, Via: via, Pipeline: c.rev.Spec.Name, Revision: c.rev.Revision,
		Node: c.root.path, Role: lineage.RolePrimary, Model: m.Name, Version: m.Version, Digest: v.Digest,
		Run: run, Runtime: v.Probed.Runtime, CPU: cpu, Policy: c.policy,
	}
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
