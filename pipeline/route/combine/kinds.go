package combine

import (
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// The kinds of rules, as specs name them.
const (
	Mean         = "mean"
	WeightedMean = "weighted_mean"
	Median       = "median"
	MajorityVote = "majority_vote"
	WeightedVote = "weighted_vote"
	Max          = "max"
	Concat       = "concat"
)

// Kinds are the names of all rules, in the order of the documentation.
var Kinds = []string{Mean, WeightedMean, Median, MajorityVote, WeightedVote, Max, Concat}

// rule is what a kind does to a column.
type rule uint8

const (
	mean rule = iota + 1
	median
	vote
	maximum
	concat
)

// kinds says of each kind what it does, whether it weighs, and which kind of the same rule weighs or does not.
var kinds = map[string]struct {
	rule    rule
	weighs  bool
	weighed string // the kind for those who want weights, "" if there is none
}{
	Mean:         {mean, false, WeightedMean},
	WeightedMean: {mean, true, ""},
	Median:       {median, false, ""},
	MajorityVote: {vote, false, WeightedVote},
	WeightedVote: {vote, true, ""},
	Max:          {maximum, false, ""},
	Concat:       {concat, false, ""},
}

// answer returns the type of what the rule makes of a column of type t; else 0, and what would be right.
func (r rule) answer(t schemas.DType) (schemas.DType, string) {
	switch r {
	case mean, median:
		switch {
		case t.Integer():
			return schemas.Float64, ""
		case t.Float():
			return t, ""
		case t == schemas.Bool:
			return 0, "a bool has none; vote on it, take max (true if any is), or cast it to a number in a transform"
		case t == schemas.Timestamp:
			return 0, "a timestamp has none; take max (the latest), or cast it to a number in a transform"
		}
		return 0, "a " + t.String() + " has none; vote on it, or leave the column out"
	case vote:
		if t.Float() {
			return 0, "a " + t.String() + " is no label: two members rarely give the same bits; use mean, or leave the column out"
		}
	case maximum:
		if t.Variable() {
			return 0, "a " + t.String() + " has none; vote on it, or leave the column out"
		}
	}
	return t, ""
}

// parseKind returns the fault's text if there is no such kind.
func parseKind(kind string) (r rule, weighs bool, fault string) {
	k, ok := kinds[kind]
	if ok {
		return k.rule, k.weighs, ""
	}
	if kind == "" {
		return 0, false, "missing" + document.Meant("", Kinds)
	}
	return 0, false, "unknown rule " + quote(kind) + document.Meant(kind, Kinds)
}
