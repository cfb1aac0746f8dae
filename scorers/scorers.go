package scorers

import (
	"context"
	"io/fs"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Scorer is a loaded model version.
type Scorer interface {
	// Signature returns the rows it takes and gives.
	Signature() schemas.Signature
	// Score appends one row to out for each row of in, in the same order, or none on error. in has the schema
	// Signature().Inputs, out Signature().Outputs; the scorer keeps neither and does not write to in. Safe for
	// concurrent use with distinct batches. After Close it returns Unavailable. A cancelled ctx is looked at between
	// pieces: one run of the runtime is not interrupted.
	Score(ctx context.Context, in, out *schemas.Batch) error
	// Close waits for runs in flight and frees the model. Idempotent.
	Close() error
}

// RowChecker is implemented by scorers that must refuse some rows of the right schema (ONNX: a string with a NUL byte,
// which the runtime would cut in silence). Score makes the same check, but refuses the whole batch: who merges rows of
// several callers asks before merging, so that one caller's row costs no other caller anything.
type RowChecker interface {
	// CheckRows returns an Invalid error whose Field is "rows[i].column", i counted from the batch's first row, for
	// the first of rows [from, to) that Score would refuse. Pure; safe for concurrent use with Score.
	CheckRows(in *schemas.Batch, from, to int) error
}

// Class says whether a scorer's answer for a row depends on the batch it rides in (SEMANTICS 6).
type Class string

// The classes.
const (
	BatchInvariant  Class = "batch_invariant"  // equal bits at every batch size
	InvariantPadded Class = "invariant_padded" // equal bits once a lone row is padded to two; Score does so
	BatchVariant    Class = "batch_variant"    // equal within Tolerance only
)

// Probed is what a probe at push found out about a model.
type Probed struct {
	Signature schemas.Signature `json:"signature"` // true shapes: of what came out, not of what was declared
	Class     Class             `json:"class"`
	Tolerance float64           `json:"tolerance,omitempty"` // largest relative difference seen, for BatchVariant
	MaxBatch  int               `json:"max_batch,omitempty"` // rows a run takes at most; 0: no limit. A fixed first dimension is a MaxBatch that every run is padded to
	Runtime   string            `json:"runtime"`             // "onnxruntime 1.27.0"
	Notes     []string          `json:"notes,omitempty"`     // what the operator should know: "ZipMap removed", "needs locale en_US.UTF-8"
}

// Package is a model's files, verified: what a loader may read and nothing else.
type Package struct {
	Manifest Manifest
	Files    fs.FS // holds Manifest.File and what it refers to
}

// Manifest is model.yaml.
type Manifest struct {
	Name        string            `yaml:"name" json:"name"`
	Description string            `yaml:"description,omitempty" json:"description,omitempty"`
	File        string            `yaml:"file" json:"file"`
	Runtime     string            `yaml:"runtime,omitempty" json:"runtime,omitempty"` // "onnx"; by the file's ending if absent
	Labels      map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	Inputs      []Annotation      `yaml:"inputs,omitempty" json:"inputs,omitempty"`
	Outputs     []Annotation      `yaml:"outputs,omitempty" json:"outputs,omitempty"`
}

// Annotation adds to what the model's file says of one input or output.
type Annotation struct {
	Name     string   `yaml:"name" json:"name"`
	Features []string `yaml:"features,omitempty" json:"features,omitempty"` // names of a tensor's elements, in order
	Nullable bool     `yaml:"nullable,omitempty" json:"nullable,omitempty"` // a null becomes NaN, or an empty string
}

// Loader makes scorers of one runtime. It is safe for concurrent use.
type Loader interface {
	// Runtime returns the name that manifests use: "onnx".
	Runtime() string
	// Prepare makes the model fit to serve (ONNX: removes ZipMap) and returns the package to keep: p itself if
	// nothing was to do.
	Prepare(ctx context.Context, p Package) (Package, error)
	// Probe loads a prepared package, runs it on synthetic rows at several batch sizes and reports. Invalid says what
	// is wrong with the model; Unavailable that the runtime is not here and what to run.
	Probe(ctx context.Context, p Package) (Probed, error)
	// Load returns a warm scorer of a package that was probed.
	Load(ctx context.Context, p Package, probed Probed) (Scorer, error)
}

// Version is an immutable version of a model, as the registry keeps it.
type Version struct {
	Name     string    `json:"name"`
	Version  int       `json:"version"` // from 1, without gaps
	Digest   string    `json:"digest"`  // hex SHA-256 over the prepared package: names and contents of its files
	Size     int64     `json:"size"`    // bytes of the prepared package
	Created  time.Time `json:"created"`
	Manifest Manifest  `json:"manifest"`
	Probed   Probed    `json:"probed"`
}

// Store gives back what was pushed. It is safe for concurrent use.
type Store interface {
	Version(ctx context.Context, name string, version int) (Version, error) // NotFound
	Versions(ctx context.Context, name string) ([]Version, error)           // oldest first; NotFound if there is no such model
	Open(ctx context.Context, v Version) (Package, error)                   // the verified package
}
