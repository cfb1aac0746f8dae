package pipeline

import (
	"encoding/json"
	"time"

	"github.com/leatstream/leat/schemas"
	"gopkg.in/yaml.v3"
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
	Input       *Input            `yaml:"input,omitempty" json:"input,omitempty"`   // continuous scoring from a topic
	Output      *Output           `yaml:"output,omitempty" json:"output,omitempty"` // where its answers go
	Lineage     Mode              `yaml:"lineage,omitempty" json:"lineage,omitempty"`
	Deadline    Duration          `yaml:"deadline,omitempty" json:"deadline,omitempty"` // for a request that brings none
	Record      *Record           `yaml:"record,omitempty" json:"record,omitempty"`
	Route       Node              `yaml:"route" json:"route"`
}

// Mode is when an answer may be seen: after its record is acknowledged (strict) or before (async).
type Mode string

// The modes.
const (
	Strict Mode = "strict"
	Async  Mode = "async"
)

// Input names what is scored continuously: a topic, or a foreign stream without the claim of order.
type Input struct {
	Topic   string `yaml:"topic,omitempty" json:"topic,omitempty"`
	Stream  string `yaml:"stream,omitempty" json:"stream,omitempty"`
	Subject string `yaml:"subject,omitempty" json:"subject,omitempty"`
}

// Output names the topic of the answers.
type Output struct {
	Topic string `yaml:"topic" json:"topic"`
}

// Record keeps columns out of the lineage: masked ones leave a salted digest, dropped ones nothing but that digest in
// the request's input digest.
type Record struct {
	Mask []string `yaml:"mask,omitempty" json:"mask,omitempty"`
	Drop []string `yaml:"drop,omitempty" json:"drop,omitempty"`
}

// Node is one node of the route: exactly one kind key is set. So far there is one kind, model.
type Node struct {
	Model string `yaml:"model,omitempty" json:"model,omitempty"` // NAME, NAME@ALIAS or NAME@VERSION
}

// Duration is written as Go writes durations: "250ms".
type Duration time.Duration

// MarshalJSON writes the text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads the text.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// MarshalYAML writes the text.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// UnmarshalYAML reads the text.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	*d = Duration(v)
	return err
}

// Revision is an active pipeline: a specification and what its aliases resolve to, as one value under one KV key.
type Revision struct {
	Revision   string            `json:"revision"`    // SHA-256(spec digest, sorted (node path, model digest)), hex
	SpecDigest string            `json:"spec_digest"` // SHA-256 of the RFC 8785 JSON of the spec with defaults filled in, hex
	Spec       Spec              `json:"spec"`        // with defaults filled in
	Models     []ResolvedModel   `json:"models"`      // sorted by node path
	Signature  schemas.Signature `json:"signature"`   // of the pipeline
	Created    time.Time         `json:"created"`
	Cause      string            `json:"cause"` // "apply", "push", "promote flight-delay@2", ...
}

// ResolvedModel is what one node's reference meant when the revision was made.
type ResolvedModel struct {
	Node    string `json:"node"` // node path: "route"
	Ref     string `json:"ref"`  // as written: "fraud@champion"
	Name    string `json:"name"`
	Version int    `json:"version"`
	Digest  string `json:"digest"`
}
