package control

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// Registry is what control needs of scorers/registry. It is safe for concurrent use.
type Registry interface {
	scorers.Store
	// Names returns the models that have a version, sorted.
	Names(ctx context.Context) ([]string, error)
	// PushBody stores an upload as the next version; created is false if the same is there already.
	PushBody(ctx context.Context, body io.Reader, flags scorers.Manifest) (v scorers.Version, created bool, err error)
	// Delete removes a version without asking who uses it. Deleting again is no error.
	Delete(ctx context.Context, name string, version int) error
}

// Uses says what else refers to a pipeline, or to a version of a model, such as a job: one phrase each, "job 01J...".
// Either pipeline is set, or model and version.
type Uses func(ctx context.Context, pipeline, model string, version int) ([]string, error)

// Config is how patient control is.
type Config struct {
	Patience time.Duration `yaml:"patience"` // a decided change that nobody has finished for so long is finished by Run
	LogBytes int64         `yaml:"log_bytes"`

	Facts pipeline.Facts `yaml:"-"` // what specs are checked against
	// Records returns the records of a request, for Explain; nil: there is no lineage.
	Records func(ctx context.Context, requestID string, limit int) ([]*lineage.Record, error) `yaml:"-"`
	// Learning returns where bandits learn from, for Explain; nil: there is no lineage.
	Learning func() *pipeline.Learning `yaml:"-"`
}

// Default returns 2 s and 64 MiB.
func Default() Config { return Config{Patience: 2 * time.Second, LogBytes: 64 << 20} }

// Validate reports every fault.
func (c *Config) Validate() error {
	var fs document.Faults
	if c.Patience <= 0 {
		fs = append(fs, document.Fault{Path: "patience", Text: "want a duration above 0, such as 2s"})
	}
	if c.LogBytes < 1<<20 {
		fs = append(fs, document.Fault{Path: "log_bytes", Text: "want at least 1048576"})
	}
	return fs.Err("control.Config.Validate")
}

// Log describes the stream that the history goes to. It drops its oldest when full: what is live is in the KV.
func (c *Config) Log() schemas.LogConfig {
	return schemas.LogConfig{Name: "LEAT_CONTROL", Prefix: "leat.control", MaxBytes: c.LogBytes, DiscardOld: true}
}

// Control is safe for concurrent use, also by several processes on the same stores.
type Control struct {
	kv   schemas.KV
	log  schemas.Log
	reg  Registry
	uses []Uses
	c    Config
	out  *slog.Logger
	now  func() time.Time
}

// New returns a control over the stores: kv may be shared with the registry, log is the one that Config.Log describes. A
// nil logger discards. It does no I/O.
func New(kv schemas.KV, log schemas.Log, reg Registry, c Config, out *slog.Logger, uses ...Uses) (*Control, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if out == nil {
		out = slog.New(slog.DiscardHandler)
	}
	return &Control{kv: kv, log: log, reg: reg, uses: uses, c: c, out: out, now: func() time.Time { return time.Now().UTC() }}, nil
}

// Run finishes what other processes have left, makes models callable whose push was cut short, and goes on looking until
// ctx ends. It returns ctx's error, or what went wrong at the start.
func (c *Control) Run(ctx context.Context) error {
	if err := c.Finish(ctx); err != nil {
		return err
	}
	if err := c.adopt(ctx); err != nil {
		return err
	}
	t := time.NewTicker(c.c.Patience)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			ch, _, err := c.readChange(ctx)
			if err == nil && ch.Pending && c.now().Sub(ch.Time) > c.c.Patience {
				err = c.Finish(ctx)
			}
			if err != nil && ctx.Err() == nil {
				c.out.Warn("control: a decided change is not finished yet", "error", err)
			}
		}
	}
}

// adopt finishes pushes whose process died between storing the version and making it callable.
func (c *Control) adopt(ctx context.Context) error {
	names, err := c.reg.Names(ctx)
	if err != nil {
		return err
	}
	s, err := c.view(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if s.aliases[name] != nil {
			continue
		}
		vs, err := c.reg.Versions(ctx, name)
		if err != nil {
			return err
		}
		if _, err := c.Pushed(ctx, vs[0]); err != nil {
			return err
		}
	}
	return nil
}

// The keys, one prefix, so that a bucket may be shared with the registry.
const (
	prefix         = "control."
	changeKey      = prefix + "change"
	pipelinePrefix = prefix + "pipeline."
	aliasPrefix    = prefix + "alias."
)

// aliases are the aliases of one model.
type aliases struct {
	Aliases  map[string]int `json:"aliases"`
	Previous []int          `json:"previous,omitempty"` // champions before this one, newest last
}

// maxPrevious bounds how far demote can go back.
const maxPrevious = 16

func (a *aliases) clone() *aliases {
	if a == nil {
		return &aliases{Aliases: map[string]int{}}
	}
	return &aliases{Aliases: maps.Clone(a.Aliases), Previous: slices.Clone(a.Previous)}
}

// state is what the keys hold. It belongs to one goroutine.
type state struct {
	epoch     uint64
	revs      map[string]uint64 // KV revision of every key, also of those that hold null
	aliases   map[string]*aliases
	pipelines map[string]*pipeline.Revision
}

// set lays a value over the state; null removes.
func (s *state) set(key string, value []byte) error {
	if name, ok := strings.CutPrefix(key, pipelinePrefix); ok {
		return setValue(s.pipelines, name, key, value)
	}
	if name, ok := strings.CutPrefix(key, aliasPrefix); ok {
		return setValue(s.aliases, name, key, value)
	}
	return nil
}

func setValue[T any](m map[string]*T, name, key string, value []byte) error {
	var v *T
	if err := json.Unmarshal(value, &v); err != nil {
		return schemas.Errorf(schemas.Internal, "control.load", "key %s: %w", key, err)
	}
	if v == nil {
		delete(m, name)
	} else {
		m[name] = v
	}
	return nil
}

// load reads all keys in one pass. A key that cannot be read is logged and counts as absent.
func (c *Control) load(ctx context.Context) (*state, error) {
	s := &state{revs: map[string]uint64{}, aliases: map[string]*aliases{}, pipelines: map[string]*pipeline.Revision{}}
	pass, done := context.WithCancel(ctx)
	defer done()
	seen := false
	err := c.kv.Watch(pass, prefix, func(key string, value []byte, revision uint64, deleted bool) {
		switch {
		case seen:
		case key == "":
			seen = true
			done()
		case deleted || key == changeKey:
		default:
			s.revs[key] = revision
			if err := s.set(key, value); err != nil {
				c.out.Error("control: a key that cannot be read", "key", key, "error", err)
			}
		}
	})
	if !seen {
		return nil, schemas.AsError("control.load", err)
	}
	return s, nil
}

// view is load for readers: what is decided is laid over it.
func (c *Control) view(ctx context.Context) (*state, error) {
	for {
		ch, _, err := c.readChange(ctx)
		if err != nil {
			return nil, err
		}
		s, err := c.load(ctx)
		if err != nil {
			return nil, err
		}
		if ch.Pending {
			for _, w := range ch.Writes {
				if err := s.set(w.Key, w.Value); err != nil {
					return nil, err
				}
			}
		}
		s.epoch = ch.Epoch
		if again, _, err := c.readChange(ctx); err != nil || again.Epoch == ch.Epoch {
			return s, err
		}
		if err := ctx.Err(); err != nil { // another change was decided meanwhile: read again
			return nil, schemas.AsError("control.view", err)
		}
	}
}

// resolver answers model references from a state that a change is worked out on.
type resolver struct {
	c *Control
	s *state
}

func (r resolver) Resolve(ctx context.Context, ref schemas.ModelRef) (scorers.Version, error) {
	n := ref.Version
	if n == 0 {
		if a := r.s.aliases[ref.Name]; a != nil {
			n = a.Aliases[ref.Alias]
		}
		if n == 0 {
			return scorers.Version{}, schemas.Errorf(schemas.NotFound, "control.Resolve", "no model %s", ref)
		}
	}
	return r.c.reg.Version(ctx, ref.Name, n)
}

func (r resolver) Known(ctx context.Context, name string) ([]string, error) {
	names, err := r.c.reg.Names(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		if name = document.Near(name, names); name == "" {
			return names, nil
		}
	}
	var known []string
	if a := r.s.aliases[name]; a != nil {
		for _, alias := range slices.Sorted(maps.Keys(a.Aliases)) {
			known = append(known, name+"@"+alias)
		}
	}
	vs, err := r.c.reg.Versions(ctx, name)
	if err != nil && schemas.KindOf(err) != schemas.NotFound {
		return nil, err
	}
	for _, v := range vs {
		known = append(known, schemas.ModelRef{Name: name, Version: v.Version}.String())
	}
	return known, nil
}

// Resolve returns the version that a reference means now; NotFound, with what was probably meant.
func (c *Control) Resolve(ctx context.Context, ref schemas.ModelRef) (scorers.Version, error) {
	s, err := c.view(ctx)
	if err != nil {
		return scorers.Version{}, err
	}
	return c.resolve(ctx, s, ref)
}

func (c *Control) resolve(ctx context.Context, s *state, ref schemas.ModelRef) (scorers.Version, error) {
	r := resolver{c, s}
	v, err := r.Resolve(ctx, ref)
	if err != nil && schemas.KindOf(err) == schemas.NotFound {
		known, kerr := r.Known(ctx, ref.Name)
		if kerr != nil {
			return v, kerr
		}
		return v, schemas.Errorf(schemas.NotFound, "control.Resolve", "no model %s%s", ref, document.Meant(ref.String(), known))
	}
	return v, err
}

// Pipelines returns the active revisions, sorted by name.
func (c *Control) Pipelines(ctx context.Context) ([]pipeline.Revision, error) {
	s, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]pipeline.Revision, 0, len(s.pipelines))
	for _, name := range slices.Sorted(maps.Keys(s.pipelines)) {
		out = append(out, *s.pipelines[name])
	}
	return out, nil
}

// Pipeline returns the active revision of one pipeline; NotFound, with what was probably meant.
func (c *Control) Pipeline(ctx context.Context, name string) (pipeline.Revision, error) {
	s, err := c.view(ctx)
	if err != nil {
		return pipeline.Revision{}, err
	}
	rev, err := s.pipeline(name)
	if err != nil {
		return pipeline.Revision{}, err
	}
	return *rev, nil
}

func (s *state) pipeline(name string) (*pipeline.Revision, error) {
	if rev := s.pipelines[name]; rev != nil {
		return rev, nil
	}
	return nil, schemas.Errorf(schemas.NotFound, "control.Pipeline", "no pipeline %.80q%s", name, document.Meant(name, slices.Sorted(maps.Keys(s.pipelines))))
}
