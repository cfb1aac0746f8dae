package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/schemas"
)

// processor serves one pipeline in this process: it holds the active revision, the doors, and a committer for requests
// and one for the topic, so that a stuck topic cannot hold up a caller.
type processor struct {
	host   *Host
	name   string
	active atomic.Pointer[compiled]

	append, transact, commitRows, total prometheus.Observer
	stats                               struct {
		requests, errors, processing atomic.Uint64
		last                         atomic.Pointer[string]
	}
	nodes   *nodeBook
	settled atomic.Uint64 // lineage sequence up to which everything of the topic is settled

	mu struct {
		sync.Mutex
		wanted *Revision
		gone   bool
		err    error  // why the wanted revision is not loaded
		opened string // revision that is active with all its doors open
		broken bool   // a source ended that nobody drained
		pins   []*compiled
		closed bool // no pins are kept any more

		shadows map[string]*shadowQueue // by name

		// Of a process that takes rows of others: the revision before the active one, whose rows may still come.
		before  *compiled
		settled chan struct{} // closed, and made anew, when a revision is active or a shadow is loaded
		missed  string        // revision that was waited for in vain
	}
	changed chan struct{} // capacity 1: something in mu changed
	pinning chan struct{} // capacity 1: held by who loads a version that a caller named; one at a time
	stop    context.CancelFunc
	stopped context.Context // ends when the pipeline shall not serve any more
	ended   chan struct{}   // closed when run has returned

	online, durable doors
	late            latecomers
	bandits         follower

	loading     sync.WaitGroup     // of shadows of the active revision
	stopLoading context.CancelFunc // nil: none is loaded
	fan         fanOut
	fans        map[string]*fanIn // by shadow
}

// doors are the open bindings of one kind and what runs them.
type doors struct {
	open   []*door
	commit *committer
	group  sync.WaitGroup
	wired  wiring // of a durable one, to see whether a new revision changes it
}

// series are the pre-resolved metrics of one revision.
type series struct {
	requests, rows prometheus.Counter
	queue, score   prometheus.Observer
}

func newProcessor(ctx context.Context, h *Host, name string) *processor {
	p := &processor{host: h, name: name, changed: make(chan struct{}, 1), pinning: make(chan struct{}, 1), ended: make(chan struct{}), nodes: newNodeBook()}
	p.stopped, p.stop = context.WithCancel(ctx)
	p.bandits.p = p
	p.fan.p, p.fan.kick = p, make(chan struct{}, 1)
	p.mu.settled = make(chan struct{})
	return p
}

func (p *processor) series(c *compiled) *series {
	if s := c.series.Load(); s != nil {
		return s
	}
	m, role := c.by.label[0], "primary"
	s := &series{
		requests: p.host.m.requests.WithLabelValues(p.name, m, role), rows: p.host.m.rows.WithLabelValues(p.name, m, role),
		queue: p.host.m.queue.WithLabelValues(p.name), score: p.host.m.score.WithLabelValues(p.name),
	}
	c.series.Store(s)
	return s
}

// failed counts n requests that ended in an error.
func (p *processor) failed(n int, e *schemas.Error) {
	p.host.m.errors.WithLabelValues(p.name, e.Kind.String()).Add(float64(n))
	p.stats.errors.Add(uint64(n))
	p.stats.requests.Add(uint64(n))
	line := e.Error()
	p.stats.last.Store(&line)
}

// want notes the revision that should be active; nil means that the pipeline was deleted.
func (p *processor) want(rev *Revision) {
	p.mu.Lock()
	p.mu.wanted, p.mu.gone = rev, rev == nil
	p.mu.Unlock()
	if rev == nil {
		p.stop()
	}
	p.wake()
}

func (p *processor) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *processor) state() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{}
	if p.mu.wanted != nil {
		s.Revision = p.mu.wanted.Revision
	}
	if c := p.active.Load(); c != nil {
		s.Serving = c.rev.Revision
	}
	if p.mu.err != nil {
		s.Error = p.mu.err.Error()
	}
	s.Ready = s.Error == "" && s.Serving == s.Revision && p.mu.opened == s.Revision
	if p.mu.wanted != nil {
		for i := range p.mu.wanted.Spec.Shadows {
			if q := p.mu.shadows[p.mu.wanted.Spec.Shadows[i].Name]; q != nil {
				if s.Shadows == nil {
					s.Shadows = map[string]ShadowState{}
				}
				s.Shadows[q.name] = q.report(s.Revision)
			}
		}
	}
	return s
}

// acquire returns the active revision with a reference for the caller.
func (p *processor) acquire() *compiled {
	for {
		if c := p.active.Load(); c.acquire() {
			return c
		}
	}
}

// run makes the wanted revision the active one, as often as it changes, until the pipeline is deleted or stopped; then
// it drains. ctx ends only when the process gives up on draining.
func (p *processor) run(ctx context.Context) {
	defer p.stop()
	p.append = p.host.m.append.WithLabelValues(p.name)
	p.commitRows = p.host.m.commit.WithLabelValues(p.name)
	p.total = p.host.m.total.WithLabelValues(p.name)
	p.host.m.nodes.show(p.name, p.nodes)
	retry := time.NewTimer(activateAgain)
	defer retry.Stop()
	for p.stopped.Err() == nil {
		p.mu.Lock()
		rev := p.mu.wanted
		p.mu.Unlock()
		if rev == nil {
			break
		}
		err := p.activate(ctx, rev)
		switch {
		case p.stopped.Err() != nil:
		case err != nil:
			p.host.Log.Error("revision not loaded: the one before goes on serving; trying again", "pipeline", p.name, "revision", rev.Revision, slog.Any("error", err))
			p.host.m.loadFails.WithLabelValues(p.name).Inc()
			retry.Reset(activateAgain)
		default:
			retry.Stop()
		}
		select {
		case <-p.changed:
		case <-retry.C:
		case <-p.stopped.Done():
		}
	}
	p.close(ctx)
}

// activateAgain is how long after a failure a revision is tried again.
const activateAgain = 5 * time.Second

// activate loads rev if it is not active, and opens what doors it needs.
func (p *processor) activate(ctx context.Context, rev *Revision) (err error) {
	defer func() {
		p.mu.Lock()
		p.mu.err = err
		if err == nil {
			p.mu.opened = rev.Revision
		}
		p.mu.Unlock()
		ready := 0.0
		if err == nil {
			ready = 1
		}
		p.host.m.loaded.WithLabelValues(p.name).Set(ready)
	}()
	old := p.active.Load()
	if old == nil || old.rev.Revision != rev.Revision {
		load := compile
		if !p.host.Groups.Primary() {
			load = compileBeside
		}
		c, err := load(p.stopped, p.host.models, rev)
		if err != nil {
			return err
		}
		p.nodes.follow(c)
		if err := p.bandits.adopt(p.stopped, c); err != nil {
			c.release()
			return err
		}
		p.cast(c)
		p.active.Store(c)
		p.replace(old)
		p.unpin()
		p.castActive(c)
		p.followFan(c)
		p.host.Log.Info("revision active", "pipeline", p.name, "revision", rev.Revision[:min(12, len(rev.Revision))], "model", c.by.label[0], "cause", rev.Cause)
	}
	if !p.host.Groups.Primary() {
		return nil
	}
	if err := p.closeBroken(ctx); err != nil {
		return err
	}
	if err := p.openOnline(ctx); err != nil {
		return err
	}
	return p.openTopic(ctx, rev)
}

// closeBroken closes the doors if a source ended by itself, so that they are opened anew.
func (p *processor) closeBroken(ctx context.Context) error {
	p.mu.Lock()
	broken := p.mu.broken
	p.mu.broken = false
	p.mu.Unlock()
	if !broken {
		return nil
	}
	return errors.Join(p.online.close(ctx), p.closeTopic(ctx))
}

func (p *processor) openOnline(ctx context.Context) error {
	if p.online.open != nil {
		return nil
	}
	bs, err := p.host.Online(p.stopped, p.name)
	if err != nil {
		return err
	}
	p.online.commit = newOrdered(ctx, p)
	for _, b := range bs {
		p.open(ctx, &p.online, newDoor(p, b, p.online.commit, nil))
	}
	return nil
}

// open starts the loops of a door: one for each core that scores, and one that receives meanwhile.
func (p *processor) open(ctx context.Context, ds *doors, d *door) {
	ds.open = append(ds.open, d)
	for range p.host.models.lanes.cores + 1 {
		ds.group.Go(func() {
			if err := d.serve(ctx); !drained(err) {
				p.sourceEnded(d, err)
			}
		})
	}
}

// sourceEnded notes that a source ended that nobody drained: its doors are opened anew.
func (p *processor) sourceEnded(d *door, err error) {
	p.mu.Lock()
	first := !p.mu.broken
	if first {
		p.mu.broken = true
		p.mu.err = schemas.Errorf(schemas.Unavailable, "pipeline.serve", "the door %s closed: %w", d.Via, err)
	}
	p.mu.Unlock()
	if first {
		p.host.Log.Error("door closed: opening it again", "pipeline", p.name, "via", d.Via, slog.Any("error", err))
		p.wake()
	}
}

// close drains the doors, waits for what was accepted, and hands the rest back.
func (ds *doors) close(ctx context.Context) error {
	for _, d := range ds.open {
		d.Source.Drain()
		close(d.ended)
	}
	ds.group.Wait()
	var errs []error
	for _, d := range ds.open {
		errs = append(errs, d.settle(ctx), d.Source.Close(ctx))
	}
	if ds.commit != nil {
		ds.commit.close()
		ds.commit = nil
	}
	ds.open = nil
	return errors.Join(errs...)
}

// settle waits until nothing that the door admitted is uncommitted.
func (dr *door) settle(ctx context.Context) error {
	for dr.rows.Load() > 0 {
		select {
		case <-dr.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return dr.commit.idle(ctx)
}

func (p *processor) close(ctx context.Context) {
	if err := errors.Join(p.online.close(ctx), p.closeTopic(ctx)); err != nil {
		p.host.Log.Warn("doors closed before all was settled", "pipeline", p.name, slog.Any("error", err))
	}
	if !p.late.wait(ctx, latePatience) {
		p.host.Log.Warn("members that nobody waits for are still under way", "pipeline", p.name)
	}
	p.bandits.halt(ctx)
	p.mu.Lock()
	p.mu.closed = true
	gone := p.mu.gone
	shadows := p.mu.shadows
	p.mu.Unlock()
	p.stop()
	p.closeFans()
	p.fan.close()
	for _, q := range shadows {
		q.close()
	}
	p.loading.Wait()
	p.replace(nil)
	p.unpin()
	if c := p.active.Load(); c != nil {
		c.release()
	}
	p.host.m.nodes.hide(p.name, p.nodes)
	if gone {
		p.bandits.forget(ctx)
		p.host.m.forget(p.name)
	}
}

// latePatience is how long a pipeline that ends waits for members that were left behind, so that what they answer is recorded.
const latePatience = 5 * time.Second

// maxPins is how many versions beside the active one a pipeline keeps loaded because callers named them.
const maxPins = 4

// pinned returns the pipeline as it would be with another version of its model, for a caller that names one. The caller
// releases it.
func (p *processor) pinned(ctx context.Context, active *compiled, ref string) (*compiled, error) {
	const op = "pipeline.pinned"
	r, err := schemas.ParseModelRef(ref)
	if err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, schemas.HeaderModel, "%w", err)
	}
	if active.route != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, schemas.HeaderModel, "pipeline %s has a route of several nodes, whose models cannot be named by a caller", p.name)
	}
	if m := active.rev.Models[0]; r.Name != m.Name || r.Version == 0 {
		return nil, schemas.FieldErrorf(schemas.NotFound, op, schemas.HeaderModel, "pipeline %s serves %s: another version of it can be named as %s@N", p.name, active.by.label[0], m.Name)
	}
	if c := p.findPin(active, ref); c != nil {
		return c, nil
	}
	select { // one at a time: callers cannot make us load many models at once
	case p.pinning <- struct{}{}:
	case <-ctx.Done():
		return nil, schemas.Errorf(schemas.Expired, op, "%s was not loaded before the deadline: %w", ref, ctx.Err())
	}
	defer func() { <-p.pinning }()
	if c := p.findPin(active, ref); c != nil {
		return c, nil
	}
	v, err := p.host.Store.Version(ctx, r.Name, r.Version)
	if err != nil {
		return nil, err
	}
	rev := *active.rev
	rev.Models = []ResolvedModel{{Node: RootPath, Ref: ref, Name: v.Name, Version: v.Version, Digest: v.Digest}}
	rev.Revision = RevisionOf(rev.SpecDigest, rev.Models)
	c, err := compile(ctx, p.host.models, &rev)
	if err != nil {
		return nil, err
	}
	c.count = active.count
	p.keepPin(c)
	return c, nil
}

// findPin takes a reference to a pin that was made under the same spec.
func (p *processor) findPin(active *compiled, ref string) *compiled {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.pins {
		if c.by.label[0] == ref && c.rev.SpecDigest == active.rev.SpecDigest && c.acquire() {
			return c
		}
	}
	return nil
}

// keepPin keeps c loaded, in the place of the oldest pin if there are many.
func (p *processor) keepPin(c *compiled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return
	}
	if len(p.mu.pins) == maxPins {
		p.mu.pins[0].release()
		p.mu.pins = slices.Delete(p.mu.pins, 0, 1)
	}
	c.acquire()
	p.mu.pins = append(p.mu.pins, c)
}

func (p *processor) unpin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.pins {
		c.release()
	}
	p.mu.pins = nil
}
