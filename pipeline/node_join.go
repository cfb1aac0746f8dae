package pipeline

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// The kinds that ask several models for one row: ensembles and cascades.

var ensembleKind = nodeKind{
	key:  "ensemble",
	used: func(n *Node) bool { return n.Ensemble != nil },
	children: func(n *Node) []child {
		all := n.Ensemble.members()
		if e := n.Ensemble; e.stacks() {
			all = append(all, child{combiner, "ensemble.combine", &e.Combine.Node})
		}
		return all
	},
	copy: func(n *Node) {
		e := *n.Ensemble
		e.Members, e.Columns = slices.Clone(e.Members), maps.Clone(e.Columns)
		n.Ensemble = &e
	},
	check: checkEnsemble,
	schema: object("All members are asked; their answers become one.", []string{"members"}, map[string]any{
		"combine": map[string]any{
			"description": "How all columns of the answers are joined: a rule, or a model that takes the answers as its inputs.",
			"oneOf":       []any{map[string]any{"enum": combine.Kinds}, object("Stacking.", []string{"model"}, map[string]any{"model": modelKind.schema})},
		},
		"columns": map[string]any{
			"type": "object", "minProperties": 1, "propertyNames": map[string]any{"minLength": 1},
			"additionalProperties": map[string]any{"enum": columnKinds},
			"description":          "Instead of combine: the columns of the answer, each with its rule.",
		},
		"quorum": map[string]any{"type": "integer", "minimum": 1, "description": "Members that must have answered a row; by default all. The answer is made as soon as they have."},
		"within": map[string]any{"type": "string", "pattern": durationPattern, "description": "They must have answered by then: 50ms. By default as long as the request has."},
		"members": childrenOf("The members.", 2, nil, map[string]any{
			"weight":   map[string]any{"type": "integer", "minimum": 1, "maximum": combine.MaxWeight, "description": "For weighted_mean and weighted_vote; only proportions count."},
			"required": map[string]any{"type": "boolean", "default": false, "description": "There is no answer without this one."},
		}),
	}),
}

func checkEnsemble(n *Node, at string, c *checker) {
	e := n.Ensemble
	at = document.Join(at, "ensemble")
	switch rule, model := e.Combine.Rule, e.stacks(); {
	case model && e.Combine.Model == "":
		c.fault(document.Join(at, "combine"), "only a model combines; write {model: NAME}, or put what else is to be done behind the ensemble in a sequence")
	case (rule != "" || model) && len(e.Columns) > 0:
		what := "a rule for all columns"
		if model {
			what = "a model that combines"
		}
		c.fault(document.Join(at, "columns"), "both %s and rules for some; keep one of them", what)
	case rule == "" && !model && len(e.Columns) == 0:
		c.fault(document.Join(at, "combine"), "missing; want one of %s; or columns, each with its rule; or {model: NAME}", strings.Join(combine.Kinds, ", "))
	case rule != "" && !slices.Contains(combine.Kinds, rule):
		c.fault(document.Join(at, "combine"), "unknown rule %.80q%s", rule, document.Meant(rule, combine.Kinds))
	}
	if len(e.Members) < 2 {
		c.fault(document.Join(at, "members"), "%s: an ensemble has at least two", few(len(e.Members), "member"))
	}
	if e.Quorum < 0 || e.Quorum > len(e.Members) {
		c.fault(document.Join(at, "quorum"), "%d of %d members; want 1 to %d", e.Quorum, len(e.Members), len(e.Members))
	}
	c.within(document.Join(at, "within"), e.Within)
	for _, name := range sortedKeys(e.Columns) {
		switch kind, at := e.Columns[name], document.Join(document.Join(at, "columns"), name); {
		case kind == combine.Concat:
			c.fault(at, "concat puts whole members side by side; write combine: concat instead of columns, or another rule%s", document.Meant("", columnKinds))
		case kind == "":
			c.fault(at, "no rule%s", document.Meant(kind, columnKinds))
		case !slices.Contains(columnKinds, kind):
			c.fault(at, "unknown rule %.80q%s", kind, document.Meant(kind, columnKinds))
		}
	}
	weighted := e.weighs()
	for i, m := range e.Members {
		at := document.Join(document.Index(document.Join(at, "members"), i), "weight")
		switch {
		case m.Weight < 0 || m.Weight > combine.MaxWeight:
			c.fault(at, "%d: want 1 to %d", m.Weight, combine.MaxWeight)
		case m.Weight > 0 && e.stacks():
			c.fault(at, "the combining model weighs its inputs itself; leave it out")
		case m.Weight > 0 && !weighted:
			c.fault(at, "no rule takes weights here; leave it out, or write weighted_mean or weighted_vote")
		}
	}
}

// within checks a time that a node takes at most.
func (c *checker) within(at string, d Duration) {
	if d < 0 || d > 0 && d < Duration(time.Millisecond) || d > MaxDeadline {
		c.fault(at, "%v: want %v to %v; absent: as long as the request has", time.Duration(d), time.Millisecond, time.Duration(MaxDeadline))
	}
}

// columnKinds are the rules that one column can have.
var columnKinds = slices.DeleteFunc(slices.Clone(combine.Kinds), func(k string) bool { return k == combine.Concat })

// combines reports whether a child is the combining model.
func (e *Ensemble) combines(c *child) bool { return c.node == &e.Combine.Node }

// stacks reports whether a node combines, and no rule.
func (e *Ensemble) stacks() bool {
	for i := range nodeKinds {
		if nodeKinds[i].used(&e.Combine.Node) {
			return true
		}
	}
	return false
}

// members are the children but for the combiner.
func (e *Ensemble) members() []child {
	return children("ensemble.members", e.Members, func(a *Member) (string, *Node) { return a.Name, &a.Node })
}

// weighs reports whether a rule takes the members' weights.
func (e *Ensemble) weighs() bool {
	weighted := strings.HasPrefix(e.Combine.Rule, "weighted_")
	for _, kind := range e.Columns {
		weighted = weighted || strings.HasPrefix(kind, "weighted_")
	}
	return weighted
}

var cascadeKind = nodeKind{
	key:  "cascade",
	used: func(n *Node) bool { return n.Cascade != nil },
	children: func(n *Node) []child {
		return children("cascade", n.Cascade, func(a *Stage) (string, *Node) { return a.Name, &a.Node })
	},
	copy: func(n *Node) {
		n.Cascade = slices.Clone(n.Cascade)
		for i := range n.Cascade {
			n.Cascade[i].Refine = maps.Clone(n.Cascade[i].Refine)
		}
	},
	check: checkCascade,
	schema: childrenOf("Stages in order: the answer of the first that accepts its own stands; the last one always does.", 2, nil, map[string]any{
		"accept": map[string]any{"type": "string", "minLength": 1, "description": "The answer stands: a condition in CEL over input.<column> and output.<column>; null counts as false."},
		"when":   map[string]any{"type": "string", "minLength": 1, "description": "The stage is asked: a condition over input.<column> and output.<column>, the answer before it, which stands otherwise."},
		"refine": map[string]any{
			"type": "object", "minProperties": 1, "maxProperties": schemas.MaxColumns, "propertyNames": map[string]any{"minLength": 1},
			"additionalProperties": map[string]any{"type": "string", "minLength": 1},
			"description":          "Columns that the stage sees beside the others: name to CEL over input.<column> and output.<column>, the answer before it.",
		},
		"within": map[string]any{"type": "string", "pattern": durationPattern, "description": "The stage has answered so long after the rows came to the cascade; else the answer before it stands."},
	}),
}

func checkCascade(n *Node, at string, c *checker) {
	at = document.Join(at, "cascade")
	if len(n.Cascade) < 2 {
		c.fault(at, "%s: a cascade has at least two, the last without accept", few(len(n.Cascade), "stage"))
	}
	for i, x := range n.Cascade {
		last := i == len(n.Cascade)-1
		at := document.Index(at, i)
		switch at := document.Join(at, "accept"); {
		case last && x.Accept != "":
			c.fault(at, "the last stage always answers; leave accept out, or add a stage behind it")
		case !last && x.Accept == "" && n.Cascade[i+1].When == "":
			c.fault(at, "missing; without it, or a when of the next stage, every answer stands, and the stages behind it are never reached")
		case !last:
			c.constant(at, strings.TrimSpace(x.Accept), "the stage")
		}
		for key, there := range map[string]bool{"when": x.When != "", "refine": len(x.Refine) > 0, "within": x.Within != 0} {
			if i == 0 && there {
				c.fault(document.Join(at, key), "there is no answer before the first stage; leave it out")
			}
		}
		if i > 0 {
			c.constant(document.Join(at, "when"), strings.TrimSpace(x.When), "the stage")
			c.within(document.Join(at, "within"), x.Within)
		}
		for _, name := range sortedKeys(x.Refine) {
			if at := document.Join(at, "refine"); name == "" || len(name) > schemas.MaxColumnName {
				c.fault(at, "column %.80q: a name has 1 to %d bytes", name, schemas.MaxColumnName)
			} else if strings.TrimSpace(x.Refine[name]) == "" {
				c.fault(document.Join(at, name), "no expression; want one such as output.COLUMN")
			}
		}
	}
}
