package pipeline

import (
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// APIVersion and Kind head every specification.
const (
	APIVersion = "leat/v1"
	Kind       = "Pipeline"
)

// Spec is a pipeline as its user writes it (DESIGN section 7).
type Spec struct {
	APIVersion  string            `yaml:"apiVersion" json:"apiVersion"`
	Kind        string            `yaml:"kind" json:"kind"`
	Name        string            `yaml:"name" json:"name"`
	Description string            `yaml:"description,omitempty" json:"description,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	Input       *Input            `yaml:"input,omitempty" json:"input,omitempty"`       // continuous scoring from a topic
	Output      *Output           `yaml:"output,omitempty" json:"output,omitempty"`     // where its answers go
	Delivery    Guarantee         `yaml:"delivery,omitempty" json:"delivery,omitempty"` // "" is AtLeastOnce
	Lineage     Mode              `yaml:"lineage,omitempty" json:"lineage,omitempty"`
	Deadline    Duration          `yaml:"deadline,omitempty" json:"deadline,omitempty"` // for a request that brings none
	Record      *Record           `yaml:"record,omitempty" json:"record,omitempty"`
	Feedback    *Feedback         `yaml:"feedback,omitempty" json:"feedback,omitempty"`
	Columns     map[string]string `yaml:"columns,omitempty" json:"columns,omitempty"` // of requests, which no model reads: name to dtype
	Route       Node              `yaml:"route" json:"route"`
	Shadows     []Shadow          `yaml:"shadows,omitempty" json:"shadows,omitempty"`

	text *document.Value // what it was parsed from, so that faults found later still name a line; nil otherwise
}

// Mode is when an answer may be seen: after its record is acknowledged (strict) or before (async).
type Mode string

// The modes.
const (
	Strict Mode = "strict"
	Async  Mode = "async"
)

// Guarantee is how often what follows from an event of the input is seen.
type Guarantee string

// The guarantees.
const (
	AtLeastOnce Guarantee = "at_least_once" // repeats carry the same ids, and readers fold them
	ExactlyOnce Guarantee = "exactly_once"  // output, records, dead letters and settlement are one transaction (Kafka)
)

// Input names what is scored continuously: a topic (schemas.TopicRef), or a foreign stream without the claim of order.
type Input struct {
	Topic   string `yaml:"topic,omitempty" json:"topic,omitempty"`
	Stream  string `yaml:"stream,omitempty" json:"stream,omitempty"`
	Subject string `yaml:"subject,omitempty" json:"subject,omitempty"`
	// Format is what records are written in that say nothing of it: json (""), csv, arrow, avro or protobuf; see
	// schemas/codec. Columns name the cells of a CSV line.
	Format  string   `yaml:"format,omitempty" json:"format,omitempty"`
	Columns []string `yaml:"columns,omitempty" json:"columns,omitempty"`
}

// Output names the topic of the answers (schemas.TopicRef).
type Output struct {
	Topic string `yaml:"topic" json:"topic"`
}

// Record keeps columns out of the lineage: masked ones leave a salted digest, dropped ones nothing but that digest in
// the request's input digest.
type Record struct {
	Mask []string `yaml:"mask,omitempty" json:"mask,omitempty"`
	Drop []string `yaml:"drop,omitempty" json:"drop,omitempty"`
}

// Feedback says how feedback finds its decision by what was decided about. With it, be it empty, feedback is also taken from
// the topic leat.feedback.NAME, where the server has a Kafka.
type Feedback struct {
	Entity string   `yaml:"entity,omitempty" json:"entity,omitempty"` // column of requests that says about what the decision is
	Within Duration `yaml:"within,omitempty" json:"within,omitempty"` // how long after a decision feedback may mean it
}

// Duration is written as Go writes durations: "250ms".
type Duration time.Duration

// MarshalText writes the text, for JSON and YAML alike.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the text.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return schemas.Errorf(schemas.Invalid, "pipeline.Duration", "%.40q is not a duration; write it with a unit, such as 250ms or 2s", b)
	}
	*d = Duration(v)
	return nil
}

// Revision is an active pipeline: a specification and what its aliases resolve to, as one value under one KV key.
type Revision struct {
	Revision   string            `json:"revision"`    // SHA-256(spec digest, sorted (node path, model digest)), hex
	SpecDigest string            `json:"spec_digest"` // SHA-256 of the RFC 8785 JSON of the spec with defaults filled in, hex
	Spec       Spec              `json:"spec"`        // with defaults filled in
	Models     []ResolvedModel   `json:"models"`      // sorted by node path: those of the route, then those of the shadows
	Signature  schemas.Signature `json:"signature"`   // of the pipeline
	Created    time.Time         `json:"created"`
	Cause      string            `json:"cause"` // "apply", "push", "promote flight-delay@2", ...
}

// ResolvedModel is what one node's reference meant when the revision was made.
type ResolvedModel struct {
	Node    string `json:"node"` // node path: "route", "shadows/forest"
	Ref     string `json:"ref"`  // as written: "fraud@champion"
	Name    string `json:"name"`
	Version int    `json:"version"`
	Digest  string `json:"digest"`
}
