package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// Config is what a registry is allowed and where it may write.
type Config struct {
	MaxBytes int64         `yaml:"max_bytes"` // of a model's files together
	MaxFiles int           `yaml:"max_files"` // of a model
	CacheDir string        `yaml:"cache_dir"` // verified files are kept here and mapped from disk; "": read into memory
	TempDir  string        `yaml:"temp_dir"`  // uploads are spooled here; "": the system's
	Stale    time.Duration `yaml:"stale"`     // an upload that is older than this was given up; its blobs are removed
}

// Default returns 1 GiB, 256 files, no cache, the system's temporary folder, two hours.
func Default() Config {
	return Config{MaxBytes: 1 << 30, MaxFiles: 256, Stale: 2 * time.Hour}
}

// Validate reports every fault.
func (c *Config) Validate() error {
	var fs document.Faults
	if c.MaxBytes < 1 {
		fs = append(fs, document.Fault{Path: "max_bytes", Text: "want at least 1"})
	}
	if c.MaxFiles < 1 || c.MaxFiles > 10_000 {
		fs = append(fs, document.Fault{Path: "max_files", Text: "want 1 to 10000"})
	}
	if c.Stale < time.Minute {
		fs = append(fs, document.Fault{Path: "stale", Text: "want at least 1m: a slow upload would lose its files"})
	}
	return fs.Err("registry.Config.Validate")
}

// The keys, one prefix, so that a bucket may be shared with pipeline/control.
const (
	versionPrefix = "registry.version."
	uploadPrefix  = "registry.upload."
)

// record is one version as the KV keeps it. A deleted one stays as a tombstone, so that its number is never used again.
type record struct {
	scorers.Version
	Files   []file     `json:"files,omitempty"`
	Deleted *time.Time `json:"deleted,omitempty"`
}

// file is one file of a package.
type file struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
	Blob   string `json:"blob"`
}

// Registry implements scorers.Store and takes pushes. It is safe for concurrent use, also by several processes on the
// same stores.
type Registry struct {
	kv      schemas.KV
	blobs   schemas.Blobs
	loaders map[string]scorers.Loader
	c       Config
}

var _ scorers.Store = (*Registry)(nil)

// New returns a registry over the stores, for models of the loaders' runtimes. It does no I/O.
func New(kv schemas.KV, blobs schemas.Blobs, loaders []scorers.Loader, c Config) (*Registry, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Registry{kv: kv, blobs: blobs, loaders: map[string]scorers.Loader{}, c: c}
	for _, l := range loaders {
		r.loaders[l.Runtime()] = l
	}
	return r, nil
}

func (r *Registry) runtimes() []string {
	names := make([]string, 0, len(r.loaders))
	for n := range r.loaders {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func versionKey(name string, version int) string {
	return versionPrefix + name + "." + strconv.Itoa(version)
}

// Version returns a version; NotFound if there is none, or it was deleted.
func (r *Registry) Version(ctx context.Context, name string, version int) (scorers.Version, error) {
	rec, _, err := r.record(ctx, name, version)
	return rec.Version, err
}

// record returns a live version and the KV revision of its key.
func (r *Registry) record(ctx context.Context, name string, version int) (record, uint64, error) {
	const op = "registry.Version"
	if err := schemas.CheckName("model", name); err != nil {
		return record{}, 0, err
	}
	b, rev, err := r.kv.Get(ctx, versionKey(name, version))
	if err != nil {
		if schemas.KindOf(err) == schemas.NotFound {
			return record{}, 0, schemas.Errorf(schemas.NotFound, op, "no model %s@%d", name, version)
		}
		return record{}, 0, err
	}
	rec, err := decodeRecord(b)
	if err != nil {
		return record{}, 0, fmt.Errorf("model %s@%d: %w", name, version, err)
	}
	if rec.Deleted != nil {
		return record{}, 0, schemas.Errorf(schemas.NotFound, op, "model %s@%d was deleted %s", name, version, rec.Deleted.Format(time.DateTime))
	}
	return rec, rev, nil
}

func decodeRecord(b []byte) (record, error) {
	var rec record
	if err := json.Unmarshal(b, &rec); err != nil {
		return record{}, schemas.Errorf(schemas.Internal, "registry.decodeRecord", "record of a version: %w", err)
	}
	return rec, nil
}

// Versions returns the versions of a model, oldest first; NotFound if there are none.
func (r *Registry) Versions(ctx context.Context, name string) ([]scorers.Version, error) {
	recs, _, err := r.history(ctx, name)
	if err != nil {
		return nil, err
	}
	vs := make([]scorers.Version, 0, len(recs))
	for _, rec := range recs {
		vs = append(vs, rec.Version)
	}
	if len(vs) == 0 {
		return nil, schemas.Errorf(schemas.NotFound, "registry.Versions", "no model %s", name)
	}
	return vs, nil
}

// history returns the live records of a model, oldest first, and the highest number ever used.
func (r *Registry) history(ctx context.Context, name string) (live []record, last int, err error) {
	if err := schemas.CheckName("model", name); err != nil {
		return nil, 0, err
	}
	keys, err := r.kv.Keys(ctx, versionPrefix+name+".")
	if err != nil {
		return nil, 0, err
	}
	for _, k := range keys {
		n, err := strconv.Atoi(strings.TrimPrefix(k, versionPrefix+name+"."))
		if err != nil {
			continue // not ours
		}
		last = max(last, n)
		rec, _, err := r.record(ctx, name, n)
		if schemas.KindOf(err) == schemas.NotFound && err != nil {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		live = append(live, rec)
	}
	slices.SortFunc(live, func(a, b record) int { return a.Version.Version - b.Version.Version })
	return live, last, nil
}

// Names returns the models that have a version, sorted.
func (r *Registry) Names(ctx context.Context) ([]string, error) {
	keys, err := r.kv.Keys(ctx, versionPrefix)
	if err != nil {
		return nil, err
	}
	var names []string
	tried := map[string]bool{}
	for _, k := range keys {
		name, number, _ := strings.Cut(strings.TrimPrefix(k, versionPrefix), ".")
		n, err := strconv.Atoi(number)
		if err != nil || tried[name] {
			continue
		}
		_, _, err = r.record(ctx, name, n)
		if err == nil {
			names, tried[name] = append(names, name), true
		} else if schemas.KindOf(err) != schemas.NotFound {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}

// Delete removes a version: its number stays used, its files go. The caller has made sure that nothing refers to it.
// Deleting what is deleted already is no error; a version that never was is NotFound.
func (r *Registry) Delete(ctx context.Context, name string, version int) error {
	const op = "registry.Delete"
	if err := schemas.CheckName("model", name); err != nil {
		return err
	}
	b, rev, err := r.kv.Get(ctx, versionKey(name, version))
	if err != nil {
		if schemas.KindOf(err) == schemas.NotFound {
			return schemas.Errorf(schemas.NotFound, op, "no model %s@%d", name, version)
		}
		return err
	}
	rec, err := decodeRecord(b)
	if err != nil {
		return err
	}
	if rec.Deleted == nil {
		now := time.Now().UTC()
		rec.Deleted = &now
		if b, err = json.Marshal(rec); err != nil {
			return schemas.Errorf(schemas.Internal, op, "%w", err)
		}
		if _, err = r.kv.Update(ctx, versionKey(name, version), b, rev); err != nil && !errors.Is(err, schemas.ErrConflict) {
			return err // a conflict can only be another delete: nothing else changes a version
		}
	}
	return r.dropBlobs(ctx, rec.Files)
}

// dropBlobs removes blobs that belong to one version or upload alone; what is gone already is fine.
func (r *Registry) dropBlobs(ctx context.Context, files []file) error {
	for _, f := range files {
		if err := r.blobs.Delete(ctx, f.Blob); err != nil && schemas.KindOf(err) != schemas.NotFound {
			return err
		}
	}
	return nil
}

// Load opens a version and loads it with the loader of its runtime: a warm scorer, the caller's to close.
func (r *Registry) Load(ctx context.Context, v scorers.Version) (scorers.Scorer, error) {
	l, ok := r.loaders[v.Manifest.Runtime]
	if !ok {
		return nil, schemas.Errorf(schemas.Unavailable, "registry.Load", "model %s@%d: runtime %q is not in this process", v.Name, v.Version, v.Manifest.Runtime)
	}
	p, err := r.Open(ctx, v)
	if err != nil {
		return nil, err
	}
	return l.Load(ctx, p, v.Probed)
}
