package pipeline

import "encoding/json"

// Node is one node of the route: exactly one kind key is set. The table nodeKinds says what each kind is. Nodes nest; each
// works per row, so that the rows of a request may part at a node, and come back in their order.
type Node struct {
	Model     string     `yaml:"model,omitempty" json:"model,omitempty"` // NAME, NAME@ALIAS or NAME@VERSION
	Split     *Split     `yaml:"split,omitempty" json:"split,omitempty"`
	Switch    []Case     `yaml:"switch,omitempty" json:"switch,omitempty"`
	Sequence  []Step     `yaml:"sequence,omitempty" json:"sequence,omitempty"`
	Transform *Transform `yaml:"transform,omitempty" json:"transform,omitempty"`
	Ensemble  *Ensemble  `yaml:"ensemble,omitempty" json:"ensemble,omitempty"`
	Cascade   []Stage    `yaml:"cascade,omitempty" json:"cascade,omitempty"`
	Bandit    *Bandit    `yaml:"bandit,omitempty" json:"bandit,omitempty"`
	Lookup    *Lookup    `yaml:"lookup,omitempty" json:"lookup,omitempty"`
}

// Split gives each row to one of its arms by their weights, the same key always to the same arm: A/B tests and canaries.
// Arms are chosen by weighted rendezvous over the key and the salt (pipeline/route), so that a change of weights moves only
// the keys that must move.
type Split struct {
	Key    string `yaml:"key,omitempty" json:"key,omitempty"`       // column whose value sticks to its arm; "" or null: the request id
	Header string `yaml:"header,omitempty" json:"header,omitempty"` // instead: a header of the request
	Salt   string `yaml:"salt,omitempty" json:"salt,omitempty"`     // two splits with one salt choose alike; default PIPELINE/NODE PATH
	Forced bool   `yaml:"forced,omitempty" json:"forced,omitempty"` // the header Leat-Arm may choose
	Arms   []Arm  `yaml:"arms" json:"arms"`
}

// Arm is a child of a split.
type Arm struct {
	Name   string `yaml:"name" json:"name"`
	Weight int    `yaml:"weight" json:"weight"` // percent, or parts per 10,000: those of all arms add up to 100, or to 10,000
	Node   `yaml:",inline"`
}

// Case is a child of a switch: the first whose condition holds takes the row. The last one has none and takes the rest.
type Case struct {
	Name string `yaml:"name" json:"name"`
	When string `yaml:"when,omitempty" json:"when,omitempty"` // CEL over input.<column>; null counts as false
	Node `yaml:",inline"`
}

// Step is a child of a sequence. It sees the columns of the request and those that the steps before it made, the latest
// where names are equal. The answer is that of the last one.
type Step struct {
	Name string `yaml:"name" json:"name"`
	Node `yaml:",inline"`
}

// Transform makes columns.
type Transform struct {
	Columns map[string]string `yaml:"columns" json:"columns"` // name to CEL over input.<column>
}

// Ensemble asks all its members and joins their answers into one.
type Ensemble struct {
	Combine Combine           `yaml:"combine,omitempty" json:"combine,omitzero"`  // of all columns
	Columns map[string]string `yaml:"columns,omitempty" json:"columns,omitempty"` // instead: columns of the answer, each with its rule
	Quorum  int               `yaml:"quorum,omitempty" json:"quorum,omitempty"`   // members that must have answered a row; 0: all
	Within  Duration          `yaml:"within,omitempty" json:"within,omitempty"`   // they must by then; 0: by the request's deadline
	Members []Member          `yaml:"members" json:"members"`
}

// Combine is how the answers of all members become one: a rule, written as its name (see pipeline/route/combine), or a
// model that takes them as its inputs (stacking), written {model: REF}. That model is a node of its own.
type Combine struct {
	Rule string `yaml:"-" json:"-"`
	Node `yaml:",inline"`
}

// combiner is the name of the node that is a combining model, below its ensemble.
const combiner = "combine"

// UnmarshalText reads a rule.
func (c *Combine) UnmarshalText(b []byte) error {
	c.Rule = string(b)
	return nil
}

// MarshalJSON writes the rule, or the node as a map.
func (c Combine) MarshalJSON() ([]byte, error) {
	if c.Rule != "" {
		return json.Marshal(c.Rule)
	}
	return json.Marshal(c.Node)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Combine) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &c.Rule)
	}
	return json.Unmarshal(b, &c.Node)
}

// MarshalYAML is MarshalJSON for YAML.
func (c Combine) MarshalYAML() (any, error) {
	if c.Rule != "" {
		return c.Rule, nil
	}
	return c.Node, nil
}

// Member is a child of an ensemble.
type Member struct {
	Name     string `yaml:"name" json:"name"`
	Weight   int    `yaml:"weight,omitempty" json:"weight,omitempty"`     // of weighted_mean and weighted_vote
	Required bool   `yaml:"required,omitempty" json:"required,omitempty"` // no answer without it
	Node     `yaml:",inline"`
}

// Stage is a child of a cascade. Rows go from stage to stage until one accepts its own answer; the last one always does.
type Stage struct {
	Name   string            `yaml:"name" json:"name"`
	Accept string            `yaml:"accept,omitempty" json:"accept,omitempty"` // CEL over input.<column> and output.<column>: the answer stands; null counts as false
	When   string            `yaml:"when,omitempty" json:"when,omitempty"`     // CEL over these, output being the answer before: else that one stands
	Refine map[string]string `yaml:"refine,omitempty" json:"refine,omitempty"` // columns that the stage sees beside the others: name to CEL over these
	Within Duration          `yaml:"within,omitempty" json:"within,omitempty"` // since the rows came to the cascade: else the answer before stands
	Node   `yaml:",inline"`
}

// Bandit gives each row to one of its arms and learns from feedback which of them is the best (pipeline/route). A parameter that
// is absent has the default of the policy; one that is not of the policy is refused.
type Bandit struct {
	Policy string `yaml:"policy" json:"policy"` // epsilon_greedy, ucb1, thompson, thompson_gaussian, linucb or lin_thompson
	// Reward is CEL over feedback.<field>: what a decision was worth, a number, or a bool as 1 and 0. Null is no reward.
	Reward       string   `yaml:"reward" json:"reward"`
	Context      []string `yaml:"context,omitempty" json:"context,omitempty"`             // columns by which linucb and lin_thompson choose
	MinimumShare float64  `yaml:"minimum_share,omitempty" json:"minimum_share,omitempty"` // of each arm, whatever the policy says; 0.05 is 5 %

	Epsilon      *float64 `yaml:"epsilon,omitempty" json:"epsilon,omitempty"` // epsilon_greedy: the share of rows that try any arm
	Explore      float64  `yaml:"explore,omitempty" json:"explore,omitempty"` // ucb1, linucb, lin_thompson
	PriorSuccess float64  `yaml:"prior_success,omitempty" json:"prior_success,omitempty"`
	PriorFailure float64  `yaml:"prior_failure,omitempty" json:"prior_failure,omitempty"`
	PriorMean    float64  `yaml:"prior_mean,omitempty" json:"prior_mean,omitempty"`
	PriorSD      float64  `yaml:"prior_sd,omitempty" json:"prior_sd,omitempty"`
	Noise        float64  `yaml:"noise,omitempty" json:"noise,omitempty"`
	Ridge        float64  `yaml:"ridge,omitempty" json:"ridge,omitempty"`
	Draws        int      `yaml:"draws,omitempty" json:"draws,omitempty"`         // Monte-Carlo draws of a propensity
	Remember     int      `yaml:"remember,omitempty" json:"remember,omitempty"`   // rewarded decisions whose reward may still change
	Decisions    int      `yaml:"decisions,omitempty" json:"decisions,omitempty"` // the last decisions, which may still get their first reward

	Arms []BanditArm `yaml:"arms" json:"arms"`
}

// BanditArm is a child of a bandit. Rewards are counted for its name.
type BanditArm struct {
	Name string `yaml:"name" json:"name"`
	Node `yaml:",inline"`
}

// Lookup answers with columns that are kept by key beside the requests: features of a customer, of an aircraft. They are read
// from a NATS KV bucket or a compacted topic of Kafka into this process's memory, and follow its changes.
type Lookup struct {
	Bucket  string         `yaml:"bucket,omitempty" json:"bucket,omitempty"`
	Topic   string         `yaml:"topic,omitempty" json:"topic,omitempty"` // instead: kafka:NAME
	Key     string         `yaml:"key" json:"key"`                         // column whose value is the key
	Columns []LookupColumn `yaml:"columns" json:"columns"`
	Missing string         `yaml:"missing,omitempty" json:"missing,omitempty"` // MissingNull (""), MissingDefault or MissingError
	Stale   Duration       `yaml:"stale,omitempty" json:"stale,omitempty"`     // a value that is older is missing; 0: none is
}

// What becomes of a row whose key is null, or is not there, or is stale.
const (
	MissingNull    = "null"    // its columns are null
	MissingDefault = "default" // its columns are their defaults
	MissingError   = "error"   // it fails: Invalid
)

// LookupColumn is a column that a lookup answers with.
type LookupColumn struct {
	Name    string   `yaml:"name" json:"name"`
	Type    string   `yaml:"type" json:"type"`                       // a dtype
	Shape   []int    `yaml:"shape,omitempty" json:"shape,omitempty"` // of one value; absent: a scalar
	Default *Literal `yaml:"default,omitempty" json:"default,omitempty"`
}

// Literal is a value as text: of a number, a bool or a text. What it means, the type of its column says.
type Literal string

// UnmarshalText takes any text.
func (l *Literal) UnmarshalText(b []byte) error {
	*l = Literal(b)
	return nil
}
