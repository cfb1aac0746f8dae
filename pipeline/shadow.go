package pipeline

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// Shadows in the process of the primary: what a run has scored is offered to each shadow of its revision, which copies the
// rows that it samples into its queue, or drops them. Workers of its own take them from there when a core is idle, run
// them, and append their records themselves. Nothing of the primary waits for any of that.

// shadow is a shadow of a revision in this process. It is there from when the revision is active; until its models are
// loaded it drops what it is offered.
type shadow struct {
	spec    *Shadow
	salt    string
	rate    int
	key     int  // column of the request, -1: none
	remote  bool // another process runs it
	headers bool // a node asks for those of the caller
	queue   *shadowQueue
	loaded  atomic.Pointer[castShadow]
}

// castShadow is a loaded shadow. It holds a reference on its models until the revision is over; each batch holds another.
type castShadow struct {
	*compiled
	spec    *Shadow
	give    *picker // from the columns of a request
	headers bool    // as of the shadow
}

// cast makes the shadows of a revision, not loaded yet.
func (p *processor) cast(c *compiled) {
	in := c.sig.Inputs
	for i := range c.rev.Spec.Shadows {
		x := &c.rev.Spec.Shadows[i]
		s := &shadow{spec: x, salt: c.rev.Spec.Name + "/" + x.Path(), rate: x.rate(), key: -1, queue: p.shadowQueue(x.Name)}
		if x.Key != "" {
			s.key = in.Index(x.Key)
		}
		s.remote = !p.host.Groups.shadow(x.Name)
		x.Walk("", "", func(_, _ string, n *Node) {
			s.headers = s.headers || n.Split != nil && (n.Split.Header != "" || n.Split.Forced)
		})
		c.shadows = append(c.shadows, s)
	}
}

// castActive has the shadows of the active revision loaded, and gives up on those of the one before.
func (p *processor) castActive(c *compiled) {
	if p.stopLoading != nil {
		p.stopLoading()
		p.stopLoading = nil
	}
	if len(c.shadows) == 0 {
		return
	}
	var ctx context.Context
	ctx, p.stopLoading = context.WithCancel(p.stopped)
	c.refs.Add(1)
	p.loading.Go(func() { p.loadShadows(ctx, c) })
}

// replace lets go of the revision before the active one. A process that takes rows of others keeps it until there is
// another one: its rows are still under way.
func (p *processor) replace(old *compiled) {
	p.mu.Lock()
	before := old
	if p.host.Groups.shared() && (old == nil || slices.ContainsFunc(old.shadows, func(s *shadow) bool { return !s.remote })) {
		before, p.mu.before = p.mu.before, old
	}
	p.mu.Unlock()
	if before != nil {
		before.release()
	}
	p.wakeAwaiting()
}

// compileBeside is compile for a process that runs shadows of the revision and not its route.
func compileBeside(_ context.Context, ms *models, rev *Revision) (*compiled, error) {
	c := &compiled{rev: rev, models: ms, by: answeredBy(rev.Spec.Name, 0, rev.Revision)}
	c.batcher = &batcher{sig: rev.Signature, slots: ms.lanes.cores, lanes: ms.lanes, m: ms.m}
	c.contexts.known = map[contextKey]*lineage.Context{}
	c.refs.Store(1)
	return c, nil
}

// shadowQueue returns the queue of a shadow, which outlives revisions.
func (p *processor) shadowQueue(name string) *shadowQueue {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.mu.shadows[name]
	if q == nil {
		q = newShadowQueue(p, name)
		if p.mu.shadows == nil {
			p.mu.shadows = map[string]*shadowQueue{}
		}
		p.mu.shadows[name] = q
	}
	return q
}

// loadShadows loads the shadows of a revision beside what it answers, and again and again where that fails, until the
// revision is over. It owns a reference on c.
func (p *processor) loadShadows(ctx context.Context, c *compiled) {
	defer c.release()
	retry := time.NewTimer(activateAgain)
	defer retry.Stop()
	for missing := true; missing; {
		missing = false
		for i, s := range c.shadows {
			if s.remote || s.loaded.Load() != nil {
				continue
			}
			err := safely("load", func() error { return s.load(ctx, c, i) })
			if ctx.Err() != nil {
				return
			}
			s.queue.state(c.rev.Revision, err)
			p.wakeAwaiting()
			if err != nil {
				missing = true
				p.host.Log.Error("shadow not loaded: its rows are dropped; trying again", "pipeline", p.name, "shadow", s.spec.Name, slog.Any("error", err))
			}
		}
		retry.Reset(activateAgain)
		for missing {
			select {
			case <-retry.C:
			case <-ctx.Done():
				return
			}
			break
		}
	}
}

// load makes a shadow ready.
func (s *shadow) load(ctx context.Context, c *compiled, i int) error {
	x, err := compileShadow(ctx, c.models, c.rev, i, false)
	if err != nil {
		return err
	}
	s.queue.p.nodes.join(x, s.spec.Path())
	s.loaded.Store(&castShadow{compiled: x, spec: s.spec, give: newPicker(c.sig.Inputs, x.sig.Inputs), headers: s.headers})
	return nil
}

// compileShadow loads one shadow of a revision as if it were a pipeline of its own, whose root is the shadow. It takes
// the columns that it reads, or, if whole, those of requests. The caller owns one reference.
func compileShadow(ctx context.Context, ms *models, rev *Revision, i int, whole bool) (*compiled, error) {
	const op = "pipeline.compileShadow"
	path := rev.Spec.Shadows[i].Path()
	c := &compiled{rev: rev, models: ms}
	c.contexts.known = map[contextKey]*lineage.Context{}
	c.refs.Store(1)
	if err := c.hold(ctx, under(rev.Models, path)); err != nil {
		return nil, err
	}
	if len(c.held) == 0 {
		return nil, schemas.Errorf(schemas.Internal, op, "%s of pipeline %s: a revision without its models", path, rev.Spec.Name)
	}
	check := &checker{}
	g := buildShadow(check, &rev.Spec, i, c.signatures(), rev.Signature.Inputs)
	if g == nil {
		c.release()
		return nil, check.faults.Err(op)
	}
	if whole {
		g.widen(rev.Signature.Inputs)
	}
	err := c.grow(ctx, g, rev.Revision+"/"+path)
	if err == nil {
		err = c.keepBack()
	}
	if err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

// unloadShadows lets go of what a revision has loaded for its shadows. It is called with the last reference.
func (c *compiled) unloadShadows() {
	for _, s := range c.shadows {
		if l := s.loaded.Swap(nil); l != nil {
			l.release()
		}
	}
}

// offer gives the shadows of their revisions what came of the items of a run. It is called by the primary, so it only
// copies, and a fault of ours in it is no fault of the primary's.
func (dr *door) offer(r *run, items []item) {
	if !slices.ContainsFunc(items, func(it item) bool { return len(it.rev.shadows) > 0 }) {
		return
	}
	err := safely("offer", func() error {
		for i := range items {
			it := &items[i]
			if it.from == it.to || it.err != nil && it.err.Kind == schemas.Expired {
				continue // nobody scored it
			}
			from := caller{dr.Via, dr.principal(it.d)}
			var far []*shadow
			for _, s := range it.rev.shadows {
				switch {
				case !s.remote && it.again: // whoever had it in hands before may have died of this very shadow
					s.queue.count(shed, it.to-it.from)
				case !s.remote:
					s.take(it, from, r.in)
				case dr.p.host.Fan != nil && s.samples(it, r.in):
					far = append(far, s)
				}
			}
			if len(far) > 0 {
				dr.p.fan.put(it, from, r.in, far)
			}
		}
		return nil
	})
	if err != nil {
		dr.p.host.Log.Error("rows not given to shadows", "pipeline", dr.p.name, slog.Any("error", err))
	}
}

// caller is who asked, and by which way in.
type caller struct{ via, principal string }

// take copies the rows of an item that are in the sample into the queue, all of them or none.
func (s *shadow) take(it *item, by caller, in *schemas.Batch) {
	n := it.to - it.from
	var scratch [64]int32
	rows := scratch[:0]
	if s.key < 0 {
		if route.SampledString(s.salt, it.id, s.rate) {
			for i := it.from; i < it.to; i++ {
				rows = append(rows, int32(i))
			}
		}
	} else {
		var text [64]byte
		for i := it.from; i < it.to; i++ {
			if s.sampled(text[:0], it, in, i) {
				rows = append(rows, int32(i))
			}
		}
	}
	s.queue.count(sampledOut, n-len(rows))
	if len(rows) > 0 {
		s.queue.put(s, it, by, in, rows)
	}
}

// sampled reports whether a row is in the sample, by its key.
func (s *shadow) sampled(scratch []byte, it *item, in *schemas.Batch, row int) bool {
	key := appendKey(scratch, in.Column(s.key), row)
	if len(key) == 0 {
		key = append(key, it.id...)
	}
	return route.Sampled(s.salt, key, s.rate)
}

// shadowed is one request of a batch of a shadow: what its records need of it.
type shadowed struct {
	item     item // with id, and the headers that nodes ask for
	root     lineage.Row
	key      [32]byte // request key
	by       caller
	from, to int // its rows in the batch
}

func newShadowed(pipeline string, it *item, by caller, headers bool) shadowed {
	x := shadowed{item: item{id: it.id, d: &noDelivery}, by: by}
	if headers {
		d := noDelivery
		d.Header = make(schemas.Header, len(it.d.Header))
		for k, v := range it.d.Header {
			d.Header[k] = slices.Clone(v)
		}
		x.item.d = &d
	}
	it.stamp(&x.root)
	x.item.id, x.by.principal = strings.Clone(x.item.id), strings.Clone(x.by.principal) // of a delivery that is settled before
	x.root.RequestID = x.item.id
	x.key = lineage.RequestKey(x.by.principal, pipeline, x.item.id)
	return x
}

// shadowFate is what becomes of a row that a shadow was offered.
type shadowFate int

const (
	scored     shadowFate = iota // recorded, with an answer
	sampledOut                   // not in the sample
	shed                         // dropped: over budget, not loaded, or the process ended
	failed                       // recorded with an error, or not recorded
)

var shadowFates = [...]string{"scored", "sampled_out", "shed", "failed"}

// ShadowState is what this process does for one shadow of a pipeline.
type ShadowState struct {
	Ready bool   `json:"ready"`           // it is loaded in the active revision
	Error string `json:"error,omitempty"` // why it is not

	Elsewhere bool `json:"elsewhere,omitempty"` // other processes run it: here only what is not sent to them is counted

	// Rows since the pipeline began to be served here.
	Scored     uint64 `json:"scored"`
	SampledOut uint64 `json:"sampled_out"`
	Shed       uint64 `json:"shed"`   // dropped: over budget, not loaded, or the process ended
	Failed     uint64 `json:"failed"` // recorded with an error, or not recorded
}

// tally counts rows by fate, in the metrics and for ShadowState.
type tally struct {
	rows   [len(shadowFates)]atomic.Uint64
	series [len(shadowFates)]prometheus.Counter
}

func (t *tally) count(o shadowFate, n int) {
	if n > 0 {
		t.rows[o].Add(uint64(n))
		t.series[o].Add(float64(n))
	}
}

// safely turns a panic into an Internal error.
func safely(what string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = schemas.Errorf(schemas.Internal, "pipeline.shadow", "%s panicked: %v", what, p)
		}
	}()
	return fn()
}
