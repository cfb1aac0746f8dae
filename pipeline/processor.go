package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
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

	append, commitRows, total prometheus.Observer
	stats                     struct {
		requests, errors, processing atomic.Uint64
		last                         atomic.Pointer[string]
	}
	settled atomic.Uint64 // lineage sequence up to which everything of the topic is settled

	mu struct {
		sync.Mutex
		wanted *Revision
		gone   bool
		err    error  // why the wanted revision is not loaded
		opened string // revision that is active with all its doors open
		pins   []*compiled
	}
	changed chan struct{} // capacity 1: something in mu changed
	stopped context.CancelFunc
	stopCtx context.Context

	online, durable doors
	byRevision      sync.Map // revision -> *series
}

// doors are the open bindings of one kind and what runs them.
type doors struct {
	open   []*door
	commit *committer
	group  sync.WaitGroup
	input  *Input // of a durable one, to see whether a new revision changes it
	output *Output
}

// series are the pre-resolved metrics of one revision.
type series struct {
	requests, rows prometheus.Counter
	queue, score   prometheus.Observer
}

func newProcessor(ctx context.Context, h *Host, name string) *processor {
	p := &processor{host: h, name: name, changed: make(chan struct{}, 1)}
	p.append = h.m.append.WithLabelValues(name)
	p.commitRows = h.m.commit.WithLabelValues(name)
	p.total = h.m.total.WithLabelValues(name)
	p.stopCtx, p.stopped = context.WithCancel(ctx)
	return p
}

func (p *processor) series(c *compiled) *series {
	if s, ok := p.byRevision.Load(c.rev.Revision); ok {
		return s.(*series)
	}
	m, role := c.label[0], "primary"
	s := &series{
		requests: p.host.m.requests.WithLabelValues(p.name, m, role), rows: p.host.m.rows.WithLabelValues(p.name, m, role),
		queue: p.host.m.queue.WithLabelValues(p.name), score: p.host.m.score.WithLabelValues(p.name),
	}
	p.byRevision.Store(c.rev.Revision, s)
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
	p.wake()
}

func (p *processor) stop(context.Context) { p.stopped() }

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
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		p.mu.Lock()
		rev, gone := p.mu.wanted, p.mu.gone
		p.mu.Unlock()
		if gone {
			break
		}
		if err := p.activate(ctx, rev); err != nil {
			p.host.Log.Error("revision not loaded: the one before goes on serving; trying again", "pipeline", p.name, "revision", rev.Revision, slog.Any("error", err))
			p.host.m.loadFails.WithLabelValues(p.name).Inc()
			retry.Reset(5 * time.Second)
		}
		select {
		case <-p.changed:
		case <-retry.C:
		case <-p.stopCtx.Done():
			gone = true
		}
		if gone {
			break
		}
	}
	p.close(ctx)
}

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
		c, err := compile(ctx, p.host.models, rev)
		if err != nil {
			return err
		}
		p.active.Store(c)
		if old != nil {
			old.release()
		}
		p.unpin()
		p.host.Log.Info("revision active", "pipeline", p.name, "revision", rev.Revision[:12], "model", c.label[0], "cause", rev.Cause)
	}
	if err := p.openOnline(ctx); err != nil {
		return err
	}
	return p.openTopic(ctx, rev)
}

func (p *processor) openOnline(ctx context.Context) error {
	if p.online.open != nil {
		return nil
	}
	bs, err := p.host.Online(ctx, p.name)
	if err != nil {
		return err
	}
	p.online.commit = newCommitter(ctx, p, p.host.Lineage, p.host.AppendTimeout)
	for _, b := range bs {
		p.open(ctx, &p.online, newDoor(p, b, p.online.commit, nil))
	}
	return nil
}

func (p *processor) openTopic(ctx context.Context, rev *Revision) error {
	in, out := rev.Spec.Input, rev.Spec.Output
	if reflect.DeepEqual(in, p.durable.input) && reflect.DeepEqual(out, p.durable.output) {
		return nil
	}
	if p.durable.open != nil {
		if err := p.durable.close(ctx); err != nil {
			return err
		}
	}
	p.durable.input, p.durable.output = nil, nil
	if in != nil {
		seen, err := recoverSeen(ctx, p.host.WAL, p.name)
		if err != nil {
			return err
		}
		b, err := p.host.Topic(ctx, p.name, in, out)
		if err != nil {
			return err
		}
		p.durable.commit = newCommitter(ctx, p, p.host.Lineage, p.host.AppendTimeout)
		p.open(ctx, &p.durable, newDoor(p, b, p.durable.commit, seen))
		p.durable.group.Add(1)
		stop := make(chan struct{})
		p.durable.open[0].ended = stop
		go func() {
			defer p.durable.group.Done()
			p.saveCheckpoints(ctx, stop)
		}()
	}
	p.durable.input, p.durable.output = in, out
	return nil
}

// open starts the loops of a door: one for each core that scores, and one that receives meanwhile.
func (p *processor) open(ctx context.Context, ds *doors, d *door) {
	ds.open = append(ds.open, d)
	for range p.host.models.lanes.cores + 1 {
		ds.group.Add(1)
		go func() {
			defer ds.group.Done()
			if err := d.serve(ctx); err != nil && !drained(err) {
				p.host.Log.Error("door closed", "pipeline", p.name, "via", d.Via, slog.Any("error", err))
			}
		}()
	}
}

// close drains the doors, waits for what was accepted, and hands the rest back.
func (ds *doors) close(ctx context.Context) error {
	for _, d := range ds.open {
		d.Source.Drain()
		if d.ended != nil {
			close(d.ended)
		}
	}
	ds.group.Wait()
	var errs []error
	for _, d := range ds.open {
		errs = append(errs, d.settle(ctx), d.Source.Close(ctx))
	}
	ds.open = nil
	return errors.Join(errs...)
}

// settle waits until nothing that the door admitted is uncommitted.
func (dr *door) settle(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for dr.rows.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return dr.commit.idle(ctx)
}

func (p *processor) close(ctx context.Context) {
	if err := errors.Join(p.online.close(ctx), p.durable.close(ctx)); err != nil {
		p.host.Log.Warn("doors closed before all was settled", "pipeline", p.name, slog.Any("error", err))
	}
	p.unpin()
	if c := p.active.Load(); c != nil {
		c.release()
	}
	p.host.m.loaded.DeleteLabelValues(p.name)
}

// settledUpTo notes that every event whose record lies at or before the sequence is settled.
func (p *processor) settledUpTo(seq uint64) {
	if seq > p.settled.Load() {
		p.settled.Store(seq)
	}
}

// checkpointEvery is how often the checkpoint is saved. What is saved is what was settled one tick earlier, so that
// acknowledgements on their way to the stream have arrived.
const checkpointEvery = time.Second

func (p *processor) saveCheckpoints(ctx context.Context, stop <-chan struct{}) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	var before, saved uint64
	for {
		select {
		case <-t.C:
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
		if before > saved {
			if err := p.host.WAL.SaveCheckpoint(ctx, p.name, before+1); err != nil {
				p.host.Log.Warn("checkpoint not saved: a restart will scan more of the lineage", "pipeline", p.name, slog.Any("error", err))
			} else {
				saved = before
			}
		}
		before = p.settled.Load()
	}
}

// maxPins is how many versions beside the active one a pipeline keeps loaded because callers named them.
const maxPins = 4

// pinned returns the pipeline as it would be with another version of its model, for a caller that names one; nil if it
// is the active one. The caller releases it.
func (p *processor) pinned(ctx context.Context, active *compiled, ref string) (*compiled, error) {
	const op = "pipeline.pinned"
	if ref == active.label[0] {
		return nil, nil
	}
	r, err := schemas.ParseModelRef(ref)
	if err != nil {
		return nil, err
	}
	if r.Name != active.rev.Models[0].Name || r.Version == 0 {
		return nil, schemas.FieldErrorf(schemas.NotFound, op, schemas.HeaderModel, "pipeline %s serves %s: another version of it can be named as %s@N", p.name, active.label[0], active.rev.Models[0].Name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.pins {
		if c.label[0] == ref && c.acquire() {
			return c, nil
		}
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
	if len(p.mu.pins) == maxPins {
		p.mu.pins[0].release()
		p.mu.pins = p.mu.pins[1:]
	}
	p.mu.pins = append(p.mu.pins, c)
	c.acquire()
	return c, nil
}

func (p *processor) unpin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.pins {
		c.release()
	}
	p.mu.pins = nil
}
