package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// Config of a Host.
type Config struct {
	AppendTimeout time.Duration `yaml:"append_timeout"` // of one append to the lineage, for those who wait for an answer, and of one try of a transaction
	Cores         int           `yaml:"cores"`          // runs of one model in flight at most; 0: as many as Go uses threads

	// Of a pipeline that is exactly once: a partition's transaction is committed when it holds so many records, and at
	// the latest so long after its first.
	TransactionRecords  int           `yaml:"transaction_records"`
	TransactionInterval time.Duration `yaml:"transaction_interval"`

	Groups Groups `yaml:"groups"` // what this process does of the pipelines: primary, shadow:NAME; empty: all, by itself
}

// DefaultConfig returns what suits most. One commit costs Kafka about 7 ms, whatever it holds: every 100 ms, that is
// little.
func DefaultConfig() Config {
	return Config{AppendTimeout: 10 * time.Second, TransactionRecords: 5000, TransactionInterval: 100 * time.Millisecond}
}

// Validate reports what is wrong.
func (c Config) Validate() error {
	if c.AppendTimeout <= 0 {
		return schemas.FieldErrorf(schemas.Invalid, "pipeline.Config", "pipeline.append_timeout", "want a positive duration")
	}
	if c.TransactionRecords < 1 {
		return schemas.FieldErrorf(schemas.Invalid, "pipeline.Config", "pipeline.transaction_records", "%d: want at least 1", c.TransactionRecords)
	}
	if c.TransactionInterval < time.Millisecond || c.TransactionInterval > 10*time.Second {
		return schemas.FieldErrorf(schemas.Invalid, "pipeline.Config", "pipeline.transaction_interval", "%v: want 1ms to 10s", c.TransactionInterval)
	}
	if err := c.Groups.Validate(); err != nil {
		return err
	}
	if c.Cores < 0 || c.Cores > 1024 {
		return schemas.FieldErrorf(schemas.Invalid, "pipeline.Config", "pipeline.cores", "%d: want 0 to 1024", c.Cores)
	}
	return nil
}

// Deps is what a Host works with; cmd fills it.
type Deps struct {
	// Watch calls fn for each pipeline as it is now, then once with an empty name, then for each change until ctx ends;
	// a nil revision means deleted.
	Watch func(ctx context.Context, fn func(name string, rev *Revision)) error
	Store scorers.Store
	// Online opens the doors at which requests for a pipeline arrive.
	Online func(ctx context.Context, name string) ([]Binding, error)
	// Topic opens the durable input of a pipeline that has one, with a Transactor if its delivery is exactly once.
	Topic   func(ctx context.Context, s *Spec) (Binding, error)
	Fan     Fan // nil: no shadow is run by another process
	Loaders []scorers.Loader
	Tables  *lookup.Tables   // what lookups read; nil: routes with lookups cannot be loaded
	Lineage lineage.Appender // and lineage.Encoder, where a pipeline may be exactly once
	WAL     WriteAhead
	// Learning is what bandits learn from; nil: they decide as if there were no feedback.
	Learning *Learning
	Refuse   func(lineage.Refusal)                         // does not block
	Codec    func(*schemas.Message) (schemas.Codec, error) // of a request
	Formats  *codec.Set                                    // of events; nil: those that need no schema registry
	CPU      string                                        // features that decide bits
	Poison   *Poison                                       // nil: deaths during a run are not traced to their rows
	Metrics  *Metrics
	Log      *slog.Logger
	Process  string // this process, as RouteStats name it
}

// Host runs the pipelines of one process: it follows the control plane, loads what active revisions need, and serves
// each pipeline at its doors. A revision that cannot be loaded leaves the one before serving.
type Host struct {
	Config
	Deps
	models *models
	m      *Metrics
	full   func(jobs bool) bool // whether the lineage had no room when it was last asked

	mu struct {
		sync.Mutex
		procs    map[string]*processor
		leaving  map[string]*processor // deleted, and not yet ended
		synced   bool                  // every pipeline that existed at the start has been seen
		draining bool
	}
	group sync.WaitGroup // processors, and who waits for one to end
}

// NewHost makes a host; Run starts it.
func NewHost(c Config, d Deps) (*Host, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d.Metrics == nil {
		d.Metrics = NewMetrics(nil)
	}
	if d.Formats == nil {
		var err error
		if d.Formats, err = codec.New(codec.Config{}); err != nil {
			return nil, err
		}
	}
	h := &Host{Config: c, Deps: d, m: d.Metrics}
	h.models = newModels(d.Store, d.Loaders, c.Cores, d.Poison, d.Metrics)
	h.models.tables = d.Tables
	h.full = func(bool) bool { return false }
	if l, ok := d.Lineage.(interface{ Full(jobs bool) bool }); ok {
		h.full = l.Full
	}
	h.mu.procs, h.mu.leaving = map[string]*processor{}, map[string]*processor{}
	return h, nil
}

// Run follows the control plane until ctx ends; then it drains: the doors close, what was accepted finishes, and Run
// returns. grace bounds the draining; what is not finished by then is given up, and Run waits for it a little longer.
// A Host runs once.
func (h *Host) Run(ctx context.Context, grace time.Duration) error {
	work, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	err := h.Watch(ctx, func(name string, rev *Revision) { h.change(work, name, rev) })
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, h.drain(grace, kill))
}

// change notes what a pipeline should be now; its processor makes it so.
func (h *Host) change(ctx context.Context, name string, rev *Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name == "" {
		h.mu.synced = true
		return
	}
	p := h.mu.procs[name]
	if p == nil {
		if rev == nil {
			return
		}
		p = newProcessor(ctx, h, name)
		p.want(rev)
		h.mu.procs[name] = p
		before := h.mu.leaving[name]
		h.group.Go(func() {
			defer close(p.ended)
			if before != nil {
				<-before.ended // two processors of one pipeline would answer one topic twice
			}
			p.run(ctx)
		})
	}
	if rev == nil {
		delete(h.mu.procs, name)
		h.mu.leaving[name] = p
		h.group.Go(func() {
			<-p.ended
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.mu.leaving[name] == p {
				delete(h.mu.leaving, name)
			}
		})
	}
	p.want(rev)
}

// killPatience is how long Run waits, after the grace period, for what it has told to stop: a run of a model cannot be
// interrupted.
const killPatience = 5 * time.Second

func (h *Host) drain(grace time.Duration, kill func()) error {
	h.mu.Lock()
	h.mu.draining = true
	for _, p := range h.mu.procs {
		p.stop()
	}
	h.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the processors
		h.group.Wait()
		close(done)
	}()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
	}
	h.Log.Warn("not everything finished within the grace period: given up", "grace", grace)
	kill()
	t.Reset(killPatience)
	select {
	case <-done:
		return nil
	case <-t.C:
		return schemas.Errorf(schemas.Internal, "pipeline.Run", "a model is still running %v after the grace period", killPatience)
	}
}

// Ready returns nil when every pipeline that is applied is loaded in its active revision, else what is missing.
func (h *Host) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.draining {
		return schemas.Errorf(schemas.Unavailable, "pipeline.Ready", "shutting down")
	}
	if !h.mu.synced {
		return schemas.Errorf(schemas.Unavailable, "pipeline.Ready", "still reading the control plane")
	}
	var missing []string
	for name, p := range h.mu.procs {
		if s := p.state(); s.Error != "" {
			missing = append(missing, name+": "+s.Error)
		} else if !s.Ready {
			missing = append(missing, name+": loading")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	sort.Strings(missing)
	return schemas.Errorf(schemas.Unavailable, "pipeline.Ready", "%s", strings.Join(missing, "; "))
}

// State says what this process serves of a pipeline.
type State struct {
	Ready    bool   `json:"ready"`    // the active revision is loaded here
	Serving  string `json:"serving"`  // revision that answers now; "" for none
	Revision string `json:"revision"` // active revision
	Error    string `json:"error,omitempty"`

	Shadows map[string]ShadowState `json:"shadows,omitempty"` // by name
}

// State of a pipeline in this process.
func (h *Host) State(name string) (State, bool) {
	h.mu.Lock()
	p := h.mu.procs[name]
	h.mu.Unlock()
	if p == nil {
		return State{}, false
	}
	return p.state(), true
}

// Active returns the revision that answers here now.
func (h *Host) Active(name string) (*Revision, bool) {
	h.mu.Lock()
	p := h.mu.procs[name]
	h.mu.Unlock()
	if p == nil {
		return nil, false
	}
	c := p.active.Load()
	if c == nil {
		return nil, false
	}
	return c.rev, true
}

// Stats are a pipeline's counters in this process since it began to serve.
type Stats struct {
	Requests, Errors uint64
	Processing       time.Duration // sum over requests, from receipt to answer
	LastError        string
}

// Stats of a pipeline; zero if it is not served here.
func (h *Host) Stats(name string) Stats {
	h.mu.Lock()
	p := h.mu.procs[name]
	h.mu.Unlock()
	if p == nil {
		return Stats{}
	}
	s := Stats{Requests: p.stats.requests.Load(), Errors: p.stats.errors.Load(), Processing: time.Duration(p.stats.processing.Load())}
	if e := p.stats.last.Load(); e != nil {
		s.LastError = *e
	}
	return s
}

// Describe returns a schema as the signature of a model that was loaded here knows it, with the names of packed
// tensors' features; nil if none was.
func (h *Host) Describe(id schemas.SchemaID) *schemas.Schema {
	if s, ok := h.models.described.Load(id); ok {
		return s.(*schemas.Schema)
	}
	return nil
}

// public turns an error into what a caller may see: an Internal error is logged under an id, and only the id leaves.
func (h *Host) public(err error, pipeline string) *schemas.Error {
	e := schemas.AsError("pipeline", err)
	if e.Kind != schemas.Internal || e.ID != "" {
		return e
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (Go 1.24)
	out := &schemas.Error{Op: e.Op, Kind: schemas.Internal, ID: hex.EncodeToString(id[:])}
	out.Err = fmt.Errorf("internal error %s: its cause is in the server's log", out.ID)
	h.Log.Error("internal error", "id", out.ID, "pipeline", pipeline, "op", e.Op, slog.Any("error", err))
	return out
}

func (h *Host) env(c *compiled) Environment {
	return Environment{Runtime: c.held[0].version.Probed.Runtime, CPU: h.CPU}
}

// Pinned is a revision that is held loaded, for a job.
type Pinned struct {
	h *Host
	c *compiled
}

// Pin loads (or finds) a revision here and holds it until Close. Its bandits decide by what they knew at the positions states, as of
// BanditStates, whatever they learn meanwhile; where states has none, as without feedback. Unavailable: what they knew cannot be
// made again from the lineage.
func (h *Host) Pin(ctx context.Context, rev *Revision, states map[string]uint64) (*Pinned, error) {
	c, err := compile(ctx, h.models, rev)
	if err != nil {
		return nil, err
	}
	if c.route != nil {
		for _, b := range c.route.bandits {
			if err := h.pinBandit(ctx, rev.Spec.Name, b, states[b.path]); err != nil {
				c.release()
				return nil, err
			}
		}
	}
	return &Pinned{h: h, c: c}, nil
}

func (h *Host) pinBandit(ctx context.Context, name string, b *bandit, position uint64) error {
	switch {
	case position == 0:
		return nil
	case h.Learning == nil:
		return schemas.Errorf(schemas.Unavailable, "pipeline.Pin", "the bandit at %s decides by the lineage up to %d, which this process cannot read", b.path, position)
	}
	s, err := h.Learning.StateAt(ctx, name, b.path, b.spec, b.plan, position)
	if err == nil {
		b.state.Store(s)
	}
	return err
}

// BanditStates returns what the bandits of a pipeline know here now, by node path: positions of the lineage, for Pin.
func (h *Host) BanditStates(name string) map[string]uint64 {
	h.mu.Lock()
	p := h.mu.procs[name]
	h.mu.Unlock()
	if p == nil {
		return nil
	}
	c := p.active.Load()
	if c == nil || c.route == nil || len(c.route.bandits) == 0 {
		return nil
	}
	states := map[string]uint64{}
	for _, b := range c.route.bandits {
		states[b.path], _ = b.state.Load().Position()
	}
	return states
}

// PinShadow is Pin for a shadow of the revision alone: it is asked for the rows of requests, and answers as it would beside
// the route. The revision that is held has the shadow's columns as its outputs. NotFound: there is no such shadow.
func (h *Host) PinShadow(ctx context.Context, rev *Revision, name string) (*Pinned, error) {
	const op = "pipeline.PinShadow"
	i := slices.IndexFunc(rev.Spec.Shadows, func(s Shadow) bool { return s.Name == name })
	if i < 0 {
		var names []string
		for _, s := range rev.Spec.Shadows {
			names = append(names, s.Name)
		}
		return nil, schemas.Errorf(schemas.NotFound, op, "pipeline %s has no shadow %q%s", rev.Spec.Name, name, document.Meant(name, names))
	}
	own := *rev
	c, err := compileShadow(ctx, h.models, &own, i, true)
	if err != nil {
		return nil, err
	}
	own.Signature.Outputs = c.sig.Outputs
	return &Pinned{h: h, c: c}, nil
}

// Revision returns what is held.
func (p *Pinned) Revision() *Revision { return p.c.rev }

// Environment returns what decides the bits of its answers here.
func (p *Pinned) Environment() Environment { return p.h.env(p.c) }

// Context returns the shared part of the records that a job makes.
func (p *Pinned) Context(via, principal, run string) *lineage.Context {
	return p.c.context(principal, via, run, p.h.CPU)
}

// ScoreBulk scores one piece in the bulk lane: it waits for its turn, then appends one row to out for each row of in. Where
// the route has several nodes, the Trail says which rows have failed and where all have been; else it is nil. id names a
// row, for splits that stick to nothing else; via, principal and run are those of Context.
func (p *Pinned) ScoreBulk(ctx context.Context, in, out *schemas.Batch, via, principal, run string, id func(row int) string) (*Trail, error) {
	public := func(err error) *schemas.Error { return p.h.public(err, p.c.rev.Spec.Name) }
	if p.c.route == nil {
		return nil, p.c.scoreBulk(ctx, nil, in, out, nil, public)
	}
	t := &Trail{visitor: visitor{rev: p.c, principal: principal, via: via, run: run, cpu: p.h.CPU, public: public}}
	t.trace = &t.t
	if err := p.c.scoreBulk(ctx, &t.t, in, out, asker(principal, id), public); err != nil {
		t.Free()
		return nil, err
	}
	return t, nil
}

// Online reports whether interactive work was seen within the last second: jobs then run smaller pieces.
func (p *Pinned) Online() bool { return p.h.models.lanes.online() }

// Close lets go.
func (p *Pinned) Close() { p.c.release() }
