package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// rack has models of several signatures.
type rack struct{}

// racked is what the models of a rack take and give, one column for each word.
var racked = map[string][2]string{
	"risk":    {"amount:float64 country:string", "label:int64 probabilities:float32[2]"},
	"deep":    {"amount:float64 hours:float32", "label:int64 probabilities:float32[2]"},
	"wide":    {"amount:float64", "label:int64 probabilities:float32[3]"},
	"bare":    {"amount:float64", "label:int64"},
	"more":    {"amount:float64", "label:int64 probabilities:float32[2] reason:string"},
	"words":   {"amount:float64", "label:string probabilities:float32[2]"},
	"named":   {"amount:float64", "label:int64 probability:float32[2]"},
	"texts":   {"amount:string", "label:int64 probabilities:float32[2]"},
	"scorer":  {"score:float32", "label:int64 probabilities:float32[2]"},
	"embed":   {"vector:float32[4]", "label:int64 probabilities:float32[2]"},
	"stack":   {"a_probabilities_1:float32 b_probabilities_1:float32 b_label:int64", "label:int64 probabilities:float32[2]"},
	"scored":  {"amount:float64", "score:float32"},
	"moments": {"amount:float64", "label:int64 at:timestamp"},
}

func (rack) Resolve(_ context.Context, r schemas.ModelRef) (scorers.Version, error) {
	cols, ok := racked[r.Name]
	if !ok || r.Version > 1 || r.Alias != "" && r.Alias != schemas.Champion {
		return scorers.Version{}, schemas.Errorf(schemas.NotFound, "rack", "no %s", r)
	}
	schema := func(words string) *schemas.Schema {
		var fs []schemas.Field
		for _, w := range strings.Fields(words) {
			name, kind, _ := strings.Cut(w, ":")
			f := schemas.Field{Name: name}
			if dtype, width, ok := strings.Cut(kind, "["); ok {
				kind, f.Shape = dtype, []int{int(width[0] - '0')}
			}
			f.Type, _ = schemas.ParseDType(kind)
			fs = append(fs, f)
		}
		return schemas.MustSchema(fs...)
	}
	sig := schemas.Signature{Inputs: schema(cols[0]), Outputs: schema(cols[1])}
	return scorers.Version{Name: r.Name, Version: 1, Digest: "d-" + r.Name, Probed: scorers.Probed{Signature: sig}}, nil
}

func (rack) Known(_ context.Context, name string) ([]string, error) {
	known := []string{}
	for _, n := range sortedKeys(racked) {
		known = append(known, n+"@champion")
	}
	if racked[name] != [2]string{} {
		known = append(known, name+"@1")
	}
	return known, nil
}

// Routes of two arms, cases, members, stages or steps.
func split(more, a, b string) string {
	return "route: {split: {" + more + "arms: [{name: a, weight: 50, " + a + "}, {name: b, weight: 50, " + b + "}]}}"
}

func cases(when, a, b string) string {
	return "route: {switch: [{name: a, when: '" + when + "', model: " + a + "}, {name: b, model: " + b + "}]}"
}

func members(rules, a, b string) string {
	return "route: {ensemble: {" + rules + ", members: [{name: a, " + a + "}, {name: b, " + b + "}]}}"
}

func stages(accept, a, b string) string {
	return "route: {cascade: [{name: a, accept: '" + accept + "', model: " + a + "}, {name: b, model: " + b + "}]}"
}

func made(name, cel, then string) string {
	return "route: {sequence: [{name: make, transform: {columns: {" + name + ": '" + cel + "'}}}, {name: ask, model: " + then + "}]}"
}

func armed(how, a, b string) string {
	return "route: {bandit: {" + how + ", arms: [{name: a, model: " + a + "}, {name: b, model: " + b + "}]}}"
}

// nested puts splits around a node.
func nested(deep int, node string) string {
	for range deep {
		node = "split: {arms: [{name: a, weight: 50, " + node + "}, {name: b, weight: 50, model: risk}]}"
	}
	return "route: {" + node + "}"
}

func shadows(of string) string {
	return "route: {model: risk}\nshadows: [{" + of + "}]"
}

func manyShadows(n int) string {
	all := "name: s0, model: risk"
	for i := range n - 1 {
		all += fmt.Sprintf("}, {name: t%d, model: risk", i)
	}
	return shadows(all)
}

func manyArms(n int) string {
	var arms []string
	for i := range n {
		arms = append(arms, fmt.Sprintf("{name: a%d, weight: %d, model: risk}", i, map[bool]int{true: 10000 - 100*(n-1), false: 100}[i == 0]))
	}
	return "route: {split: {arms: [" + strings.Join(arms, ", ") + "]}}"
}

// badRoutes is what people get wrong in a route, as far as its text tells: the text behind head, every fault, in order.
// Where the JSON Schema sees it too, an editor marks it.
var badRoutes = []struct {
	name, text string
	want       []string
	shape      bool
}{
	{"no arms", "route: {split: {}}", []string{`line 4: route.split.arms: no arms: a split has at least two`}, true},
	{"empty arms", "route: {split: {arms: []}}", []string{`line 4: route.split.arms: no arms: a split has at least two`}, true},
	{"one arm", "route: {split: {arms: [{name: a, weight: 100, model: risk}]}}", []string{`line 4: route.split.arms: 1 arm: a split has at least two`}, true},
	{"arms as a map", "route: {split: {arms: {a: 50, b: 50}}}", []string{`line 4: route.split.arms: want a list of maps with name, weight, model, split, switch, sequence, transform, ensemble, cascade, bandit, lookup, got a map`}, true},
	{"arms as names", "route: {split: {arms: [a, b]}}", []string{`line 4: route.split.arms[0]: want a map with name, weight, model, split, switch, sequence, transform, ensemble, cascade, bandit, lookup, got text ("a")`, `line 4: route.split.arms[1]: want a map with name, weight, model, split, switch, sequence, transform, ensemble, cascade, bandit, lookup, got text ("b")`}, true},
	{"names twice", "route:\n  split:\n    arms:\n      - {name: a, weight: 50, model: risk}\n      - {name: a, weight: 50, model: risk}", []string{`line 8: route.split.arms[1].name: "a" is the name of route.split.arms[0] too; siblings have names of their own`}, false},
	{"no name", "route: {split: {arms: [{weight: 50, model: risk}, {name: b, weight: 50, model: risk}]}}", []string{`line 4: route.split.arms[0].name: missing; it names the node in records and metrics`}, true},
	{"name upper", "route: {split: {arms: [{name: A_1, weight: 50, model: risk}, {name: b, weight: 50, model: risk}]}}", []string{`line 4: route.split.arms[0].name: node name "A_1": want a lower-case letter, then up to 62 of a-z, 0-9 and '-'`}, true},
	{"weights short", "route: {split: {arms: [{name: a, weight: 50, model: risk}, {name: b, weight: 40, model: risk}]}}", []string{`line 4: route.split.arms: the weights add up to 90; want 100 (percent) or 10000 (parts)`}, false},
	{"weights absent", "route: {split: {arms: [{name: a, model: risk}, {name: b, model: risk}]}}", []string{`line 4: route.split.arms: the weights add up to 0; want 100 (percent) or 10000 (parts)`}, true},
	{"weight negative", "route: {split: {arms: [{name: a, weight: -1, model: risk}, {name: b, weight: 101, model: risk}]}}", []string{`line 4: route.split.arms[0].weight: -1: want 0 to 100 percent, or 0 to 10000 parts`}, true},
	{"weight of half a percent", "route: {split: {arms: [{name: a, weight: 99.5, model: risk}, {name: b, weight: 0.5, model: risk}]}}", []string{`line 4: route.split.arms[0].weight: want a whole number, got a number (99.5); weights are percent or, of all arms, parts per 10,000: 9950 and 50 for 99.5 and 0.5 %`, `line 4: route.split.arms[1].weight: want a whole number, got a number (0.5); weights are percent or`}, true},
	{"weight with a sign", "route: {split: {arms: [{name: a, weight: 50%, model: risk}, {name: b, weight: 50, model: risk}]}}", []string{`line 4: route.split.arms[0].weight: want a whole number, got text ("50%"); weights are percent`}, true},
	{"key and header", split("key: k, header: X-User, ", "model: risk", "model: risk"), []string{`line 4: route.split.header: both a key and a header; keep one of them`}, false},
	{"header name", split("header: X User, ", "model: risk", "model: risk"), []string{`line 4: route.split.header: "X User" is not a header's name: letters, digits and hyphens`}, true},
	{"header of colons", split("header: 'X-User:', ", "model: risk", "model: risk"), []string{`route.split.header: "X-User:" is not a header's name`}, true},
	{"forced", split("forced: maybe, ", "model: risk", "model: risk"), []string{`line 4: route.split.forced: want true or false, got text ("maybe")`}, true},
	{"salt", split("salt: 2013, ", "model: risk", "model: risk"), []string{`line 4: route.split.salt: want text, got a number: write "2013" in quotes`}, true},
	{"unknown key of a split", split("keys: [a], ", "model: risk", "model: risk"), []string{`line 4: route.split.keys: unknown key; did you mean "key"?`}, true},
	{"unknown key of an arm", split("", "wieght: 50, model: risk", "model: risk"), []string{`line 4: route.split.arms[0].wieght: unknown key; did you mean "weight"?`}, true},
	{"key of another kind", split("", "when: 'true', model: risk", "model: risk"), []string{`line 4: route.split.arms[0].when: unknown key; want one of name, weight, model, split`}, true},
	{"kind misspelt in an arm", split("", "modle: risk", "model: risk"), []string{`line 4: route.split.arms[0].modle: unknown key; did you mean "model"?`}, true},
	{"arm without a node", "route: {split: {arms: [{name: a, weight: 50}, {name: b, weight: 50, model: risk}]}}", []string{`line 4: route.split.arms[0]: names nothing to run; want one of model, split, switch, sequence, transform, ensemble, cascade`}, true},
	{"kind that is not built", "route: {magic: {arms: []}}", []string{`line 4: route.magic: unknown key; want one of model, split, switch, sequence, transform, ensemble, cascade, bandit`}, true},
	{"two kinds", "route:\n  model: risk\n  transform: {columns: {a: '1'}}", []string{`line 4: route: has model and transform; a node has exactly one of model, split`}, true},
	{"two kinds in an arm", split("", "model: risk, sequence: []", "model: risk"), []string{`line 4: route.split.arms[0]: has model and sequence; a node has exactly one of`}, true},
	{"model of an arm", split("", "model: Risk", "model: risk@0"), []string{`line 4: route.split.arms[0].model: model name "Risk": want a lower-case letter`, `line 4: route.split.arms[1].model: model "risk@0": versions count from 1`}, true},
	{"no cases", "route: {switch: []}", []string{`line 4: route.switch: no cases: a switch has at least two, the last without when`}, true},
	{"one case", "route: {switch: [{name: a, model: risk}]}", []string{`line 4: route.switch: 1 case: a switch has at least two, the last without when`}, true},
	{"cases as a map", "route: {switch: {cases: []}}", []string{`line 4: route.switch: want a list of maps with name, when, model, split, switch, sequence, transform, ensemble, cascade, bandit, lookup, got a map`}, true},
	{"no last case", "route:\n  switch:\n    - {name: a, when: input.amount > 1.0, model: risk}\n    - {name: b, when: input.amount <= 1.0, model: risk}", []string{`line 7: route.switch[1].when: the last case takes all rows that are left; leave when out, or add a case behind it`}, false},
	{"case without when", "route: {switch: [{name: a, model: risk}, {name: b, when: input.amount > 1.0, model: risk}, {name: c, model: risk}]}", []string{`line 4: route.switch[0].when: missing; only the last case goes without, and those behind it are never reached`}, false},
	{"when as a bool", "route: {switch: [{name: a, when: true, model: risk}, {name: b, model: risk}]}", []string{`line 4: route.switch[0].when: want text, got true or false: write "true" in quotes`}, true},
	{"when always", cases("true", "risk", "risk"), []string{`line 4: route.switch[0].when: always true; those behind the case are never reached: leave them out, or write a condition over input.COLUMN`}, false},
	{"when never", cases(" false ", "risk", "risk"), []string{`line 4: route.switch[0].when: never true; the case is there for nothing`}, false},
	{"when twice", "route: {switch: [{name: a, when: input.x, model: risk}, {name: b, when: input.x, model: risk}, {name: c, model: risk}]}", []string{`line 4: route.switch[1].when: the condition of switch[0] too, which takes its rows; this case is never reached`}, false},
	{"one step", "route: {sequence: [{name: a, model: risk}]}", []string{`line 4: route.sequence: 1 step: a sequence has at least two`}, true},
	{"no columns", "route: {transform: {}}", []string{`line 4: route.transform.columns: no columns; name at least one, such as hour: input.minute / 60`}, true},
	{"columns as a list", "route: {transform: {columns: [a]}}", []string{`line 4: route.transform.columns: want a map, got a list`}, true},
	{"column number", "route: {transform: {columns: {a: 1}}}", []string{`line 4: route.transform.columns.a: want text, got a number: write "1" in quotes`}, true},
	{"column without a name", "route: {transform: {columns: {\"\": '1'}}}", []string{`line 4: route.transform.columns: column "": a name has 1 to 256 bytes`}, true},
	{"column without an expression", made("score", " ", "scorer"), []string{`line 4: route.sequence[0].transform.columns.score: no expression; want one such as input.COLUMN / 60`}, false},
	{"no rule", "route: {ensemble: {members: [{name: a, model: risk}, {name: b, model: risk}]}}", []string{`line 4: route.ensemble.combine: missing; want one of mean, weighted_mean, median, majority_vote, weighted_vote, max, concat; or columns, each with its rule`}, false},
	{"unknown rule", members("combine: weightedmean", "model: risk", "model: risk"), []string{`line 4: route.ensemble.combine: unknown rule "weightedmean"; did you mean "weighted_mean"?`}, true},
	{"unknown rule far", members("combine: avg", "model: risk", "model: risk"), []string{`line 4: route.ensemble.combine: unknown rule "avg"; want one of mean, weighted_mean`}, true},
	{"a model and rules", members("combine: {model: stack}, columns: {label: max}", "model: risk", "model: risk"), []string{`line 4: route.ensemble.columns: both a model that combines and rules for some; keep one of them`}, false},
	{"a split that combines", members("combine: {split: {arms: [{name: a, weight: 50, model: risk}, {name: b, weight: 50, model: risk}]}}", "model: risk", "model: risk"), []string{`line 4: route.ensemble.combine: only a model combines; write {model: NAME}, or put what else is to be done behind the ensemble in a sequence`}, true},
	{"a combining model misspelt", members("combine: {modle: stack}", "model: risk", "model: risk"), []string{`line 4: route.ensemble.combine.modle: unknown key; did you mean "model"?`}, true},
	{"combining models", members("combine: [stack]", "model: risk", "model: risk"), []string{`line 4: route.ensemble.combine: want text or a map, got a list`}, true},
	{"a combining model's name", members("combine: {model: Stack}", "model: risk", "model: risk"), []string{`line 4: route.ensemble.combine.model: model name "Stack": want a lower-case letter`}, true},
	{"weights beside a combining model", members("combine: {model: stack}", "weight: 2, model: risk", "model: risk"), []string{`line 4: route.ensemble.members[0].weight: the combining model weighs its inputs itself; leave it out`}, false},
	{"a member of the combiner's name", "route: {ensemble: {combine: {model: stack}, members: [{name: combine, model: risk}, {name: b, model: risk}]}}", []string{`line 4: route.ensemble.members[0].name: "combine" is the name of route.ensemble.combine too; siblings have names of their own`}, false},
	{"both rules", members("combine: mean, columns: {label: max}", "model: risk", "model: risk"), []string{`line 4: route.ensemble.columns: both a rule for all columns and rules for some; keep one of them`}, false},
	{"concat of a column", members("columns: {label: concat}", "model: risk", "model: risk"), []string{`line 4: route.ensemble.columns.label: concat puts whole members side by side; write combine: concat instead of columns, or another rule; want one of mean`}, true},
	{"no rule of a column", members("columns: {label: }", "model: risk", "model: risk"), []string{`line 4: route.ensemble.columns.label: no rule; want one of mean`}, true},
	{"unknown rule of a column", members("columns: {label: medain}", "model: risk", "model: risk"), []string{`line 4: route.ensemble.columns.label: unknown rule "medain"; did you mean "median"?`}, true},
	{"no members", "route: {ensemble: {combine: mean}}", []string{`line 4: route.ensemble.members: no members: an ensemble has at least two`}, true},
	{"quorum over the members", members("combine: mean, quorum: 3", "model: risk", "model: risk"), []string{`line 4: route.ensemble.quorum: 3 of 2 members; want 1 to 2`}, false},
	{"quorum negative", members("combine: mean, quorum: -1", "model: risk", "model: risk"), []string{`line 4: route.ensemble.quorum: -1 of 2 members; want 1 to 2`}, true},
	{"within too short", members("combine: mean, within: 10us", "model: risk", "model: risk"), []string{`line 4: route.ensemble.within: 10µs: want 1ms to 1h0m0s; absent: as long as the request has`}, false},
	{"within negative", members("combine: mean, within: -1s", "model: risk", "model: risk"), []string{`line 4: route.ensemble.within: -1s: want 1ms to 1h0m0s`}, true},
	{"within a number", members("combine: mean, within: 50", "model: risk", "model: risk"), []string{`line 4: route.ensemble.within: "50" is not a duration; write it with a unit, such as 250ms or 2s`}, true},
	{"weights without a weighted rule", members("combine: mean", "weight: 2, model: risk", "model: risk"), []string{`line 4: route.ensemble.members[0].weight: no rule takes weights here; leave it out, or write weighted_mean or weighted_vote`}, false},
	{"weight out of range", members("combine: weighted_mean", "weight: 2000001, model: risk", "weight: -3, model: risk"), []string{`line 4: route.ensemble.members[0].weight: 2000001: want 1 to 1000000`, `line 4: route.ensemble.members[1].weight: -3: want 1 to 1000000`}, true},
	{"required beside the members", members("combine: mean, required: [a]", "model: risk", "model: risk"), []string{`line 4: route.ensemble.required: unknown key; want one of combine, columns, quorum, within, members`}, true},
	{"one stage", "route: {cascade: [{name: a, model: risk}]}", []string{`line 4: route.cascade: 1 stage: a cascade has at least two, the last without accept`}, true},
	{"accept on the last stage", "route:\n  cascade:\n    - {name: a, accept: output.label == 1, model: risk}\n    - name: b\n      accept: output.label == 0\n      model: risk", []string{`line 8: route.cascade[1].accept: the last stage always answers; leave accept out, or add a stage behind it`}, false},
	{"when of the first stage", "route: {cascade: [{name: a, accept: 'output.label > 1', when: 'input.amount > 1.0', model: risk}, {name: b, model: deep}]}", []string{`line 4: route.cascade[0].when: there is no answer before the first stage; leave it out`}, false},
	{"refine of the first stage", "route: {cascade: [{name: a, accept: 'output.label > 1', refine: {hours: '1.0'}, model: risk}, {name: b, model: deep}]}", []string{`line 4: route.cascade[0].refine: there is no answer before the first stage; leave it out`}, false},
	{"within of the first stage", "route: {cascade: [{name: a, accept: 'output.label > 1', within: 5ms, model: risk}, {name: b, model: deep}]}", []string{`line 4: route.cascade[0].within: there is no answer before the first stage; leave it out`}, false},
	{"when that never holds", "route: {cascade: [{name: a, model: risk}, {name: b, when: 'false', model: deep}]}", []string{`line 4: route.cascade[1].when: never true; the stage is there for nothing`}, false},
	{"within of a stage too long", "route: {cascade: [{name: a, accept: 'output.label > 1', model: risk}, {name: b, within: 2h, model: deep}]}", []string{`line 4: route.cascade[1].within: 2h0m0s: want 1ms to 1h0m0s; absent: as long as the request has`}, false},
	{"refine without an expression", "route: {cascade: [{name: a, accept: 'output.label > 1', model: risk}, {name: b, refine: {hours: ' '}, model: deep}]}", []string{`line 4: route.cascade[1].refine.hours: no expression; want one such as output.COLUMN`}, false},
	{"stage without accept", "route: {cascade: [{name: a, model: risk}, {name: b, model: risk}]}", []string{`line 4: route.cascade[0].accept: missing; without it, or a when of the next stage, every answer stands, and the stages behind it are never reached`}, false},
	{"accept always", stages("true", "risk", "deep"), []string{`line 4: route.cascade[0].accept: always true; those behind the stage are never reached`}, false},
	{"accept misspelt", "route: {cascade: [{name: a, acept: output.label == 1, model: risk}, {name: b, model: risk}]}", []string{`line 4: route.cascade[0].acept: unknown key; did you mean "accept"?`, `line 4: route.cascade[0].accept: missing`}, true},
	{"bandit of nothing", "route: {bandit: {}}", []string{`line 4: route.bandit.policy: missing; want one of epsilon_greedy, ucb1, thompson, thompson_gaussian, linucb, lin_thompson`, `line 4: route.bandit.reward: missing; say what a decision was worth, such as feedback.reward`, `line 4: route.bandit.arms: no arms: a bandit has at least two`}, true},
	{"bandit of one arm", "route: {bandit: {policy: ucb1, reward: feedback.reward, arms: [{name: a, model: risk}]}}", []string{`line 4: route.bandit.arms: 1 arm: a bandit has at least two`}, true},
	{"bandit without reward", armed("policy: ucb1", "risk", "risk"), []string{`line 4: route.bandit.reward: missing; say what a decision was worth`}, true},
	{"policy misspelt", armed("policy: linusb, reward: feedback.reward", "risk", "risk"), []string{`line 4: route.bandit.policy: unknown policy "linusb"; did you mean "linucb"?`}, true},
	{"reward of an unknown field", armed("policy: ucb1, reward: feedback.rewrad", "risk", "risk"), []string{`line 4: route.bandit.reward: 1:9: no column "rewrad" in feedback; did you mean "reward"?`}, false},
	{"reward over the input", armed("policy: ucb1, reward: input.amount", "risk", "risk"), []string{`line 4: route.bandit.reward: 1:1: unknown name "input"; columns are written feedback.COLUMN`}, false},
	{"reward of text", armed("policy: ucb1, reward: feedback.comment", "risk", "risk"), []string{`line 4: route.bandit.reward: the expression is string; a reward is a number or a bool`}, false},
	{"minimum share in percent", armed("policy: ucb1, reward: feedback.reward, minimum_share: 5", "risk", "risk"), []string{`line 4: route.bandit.minimum_share: 5: want a share from 0 to 1 with at most four digits after the point, such as 0.05`}, true},
	{"minimum share of all", armed("policy: ucb1, reward: feedback.reward, minimum_share: 0.6", "risk", "risk"), []string{`line 4: route.bandit.minimum_share: 0.6 for each of 2 arms is more than all rows`}, false},
	{"epsilon of five digits", armed("policy: epsilon_greedy, reward: feedback.reward, epsilon: 0.00001", "risk", "risk"), []string{`line 4: route.bandit.epsilon: 1e-05: want a share from 0 to 1 with at most four digits`}, false},
	{"parameters of another policy", armed("policy: ucb1, reward: feedback.reward, epsilon: 0", "risk", "risk"), []string{`line 4: route.bandit.epsilon: is no parameter of ucb1: leave it out`}, false},
	{"prior of another policy", armed("policy: linucb, context: [amount], reward: feedback.reward, noise: 2", "risk", "risk"), []string{`line 4: route.bandit.noise: is no parameter of linucb: leave it out`}, false},
	{"prior below one", armed("policy: thompson, reward: feedback.reward, prior_success: 0.5", "risk", "risk"), []string{`line 4: route.bandit.prior_success: 0.5 is not between 1 and 1e+06`}, false},
	{"context of thompson", armed("policy: thompson, context: [amount], reward: feedback.reward", "risk", "risk"), []string{`line 4: route.bandit.context: thompson looks at no context: leave it out, or take linucb or lin_thompson`}, false},
	{"linucb without context", armed("policy: linucb, reward: feedback.reward", "risk", "risk"), []string{`line 4: route.bandit.context: 0 columns: linucb needs 1 to 63`}, false},
	{"context twice", armed("policy: linucb, context: [amount, amount], reward: feedback.reward", "risk", "risk"), []string{`line 4: route.bandit.context[1]: "amount": columns of the context have names, and each is named once`}, true},
	{"too many decisions", armed("policy: ucb1, reward: feedback.reward, decisions: 2000000", "risk", "risk"), []string{`line 4: route.bandit.decisions: 2000000: want 1 to 1048576`}, true},
	{"weights in a bandit", "route: {bandit: {policy: ucb1, reward: feedback.reward, arms: [{name: a, weight: 50, model: risk}, {name: b, model: risk}]}}", []string{`line 4: route.bandit.arms[0].weight: unknown key; want one of name, model, split`}, true},
	{"too deep", nested(8, "model: risk"), []string{`arms[0].split.arms[0]: nodes nested deeper than 8; nest fewer`, `arms[0].split.arms[1]: nodes nested deeper than 8`}, false},
	{"too many", manyArms(65), []string{`line 4: route.split.arms: 65 nodes: at most 64`}, true},
	{"unknown dtype", split("", "model: risk", "model: risk") + "\ncolumns: {tenant: strnig}", []string{`line 5: columns.tenant: unknown dtype "strnig"; did you mean "string"?`}, true},
	{"dtype of a tensor", split("", "model: risk", "model: risk") + "\ncolumns: {vector: 'float32[2]'}", []string{`line 5: columns.vector: unknown dtype "float32[2]"`}, true},
	{"declared without a name", split("", "model: risk", "model: risk") + "\ncolumns: {'': string}", []string{`line 5: columns: column "": a name has 1 to 256 bytes`}, true},
	{"declared as a list", split("", "model: risk", "model: risk") + "\ncolumns: [tenant]", []string{`line 5: columns: want a map, got a list`}, true},
	{"shadow without a name", shadows("model: risk"), []string{`line 5: shadows[0].name: missing; it names the shadow in records and metrics, and its group`}, true},
	{"two shadows of one name", shadows("name: a, model: risk}, {name: a, model: deep"), []string{`line 5: shadows[1].name: "a" is the name of shadows[0] too; shadows have names of their own`}, false},
	{"shadow misnamed", shadows("name: Forest, model: risk"), []string{`line 5: shadows[0].name: `}, true},
	{"shadow of nothing", shadows("name: a"), []string{`line 5: shadows[0]: names nothing to run; want one of model, split`}, true},
	{"sample in percent", shadows("name: a, sample: 25, model: risk"), []string{`line 5: shadows[0].sample: 25: want a share from 0 to 1, such as 0.25 for a quarter of the rows`}, true},
	{"sample below nothing", shadows("name: a, sample: -0.5, model: risk"), []string{`line 5: shadows[0].sample: -0.5: want a share from 0 to 1`}, true},
	{"too much at once", shadows("name: a, concurrency: 1000, model: risk"), []string{`line 5: shadows[0].concurrency: 1000: want 1 to 64 batches`}, true},
	{"budget of all memory", shadows("name: a, budget: 10000000, model: risk"), []string{`line 5: shadows[0].budget: 10000000: want 1 to 1048576 rows`}, true},
	{"weight of a shadow", shadows("name: a, weight: 5, model: risk"), []string{`line 5: shadows[0].weight: unknown key; want one of name, sample, key, concurrency, budget, model`}, true},
	{"too many shadows", manyShadows(17), []string{`line 5: shadows: 17 shadows: at most 16`}, true},
}

// badGraphs is what is wrong with a route once its models are known.
var badGraphs = []struct {
	name, text string
	want       []string
}{
	{"unknown model deep inside", "route:\n  switch:\n    - name: a\n      when: input.amount > 1.0\n      ensemble:\n        combine: mean\n        members:\n          - {name: x, model: risk}\n          - name: y\n            model: rsik\n    - {name: b, model: risk@7}", []string{`line 13: route.switch[0].ensemble.members[1].model: no model rsik@champion; did you mean "risk@champion"?`, `line 14: route.switch[1].model: no model risk@7; did you mean "risk@1"?`}},
	{"unknown alias", split("", "model: risk@champoin", "model: risk"), []string{`line 4: route.split.arms[0].model: no model risk@champoin; did you mean "risk@champion"?`}},
	{"unknown model at the bottom", nested(7, "model: riks"), []string{`arms[0].split.arms[0].model: no model riks@champion; did you mean "risk@champion"?`}},
	{"column of another width", split("", "model: risk", "model: wide"), []string{`line 4: route.split.arms[1]: answers column "probabilities" as float32[3], and route/a as float32[2]`}},
	{"column of another type", split("", "model: risk", "model: words"), []string{`line 4: route.split.arms[1]: answers column "label" as string, and route/a as int64`}},
	{"column missing", split("", "model: risk", "model: bare"), []string{`line 4: route.split.arms[1]: answers without column "probabilities", which route/a has`}},
	{"column too many", split("", "model: risk", "model: more"), []string{`line 4: route.split.arms[1]: answers column "reason", which route/a has not`}},
	{"column of another name", split("", "model: risk", "model: named"), []string{`line 4: route.split.arms[1]: answers without column "probabilities", which route/a has; did you mean "probability"?`, `line 4: route.split.arms[1]: answers column "probability", which route/a has not`}},
	{"stages that do not line up", stages("output.label == 1", "risk", "wide"), []string{`line 4: route.cascade[1]: answers column "probabilities" as float32[3], and route/a as float32[2]`}},
	{"two meanings of a column", split("", "model: risk", "model: texts"), []string{`line 4: route.split.arms[1].model: column "amount" is string here, and float64 for route/a`}},
	{"key of a tensor", split("key: vector, ", "model: embed", "model: embed"), []string{`line 4: route.split.key: column "vector" is float32[4]; a key is text, a whole number, a bool or a timestamp`}},
	{"key of a float", split("key: tenant, ", "model: risk", "model: risk") + "\ncolumns: {tenant: float32}", []string{`line 4: route.split.key: column "tenant" is float32; a key is text, a whole number, a bool or a timestamp`}},
	{"condition misspelt", cases("input.amuont > 1.0", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:6: no column "amuont" in input; did you mean "amount"?`}},
	{"condition on an absent column", cases("input.currency == \"EUR\"", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:6: no column "currency" in input; want one of amount, country`}},
	{"condition without input", cases("amount > 1.0", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:1: unknown name "amount"; did you mean input.amount?`}},
	{"condition on the answer", cases("output.label == 1", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:1: there is no output here; want input.COLUMN`}},
	{"condition that is no bool", cases("input.amount + 1.0", "risk", "risk"), []string{`line 4: route.switch[0].when: the expression is float64; a condition must be bool`}},
	{"condition of two types", cases("input.amount > \"1\"", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:14: there is no double > string`}},
	{"condition of two numbers", cases("input.amount * 2 > 1.0", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:14: there is no double * int; both sides must be of one type: write 2.0 for 2`}},
	{"condition cut off", cases("input.amount >", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:15: the expression ends too early`}},
	{"unknown function", cases("strtsWith(input.country)", "risk", "risk"), []string{`line 4: route.switch[0].when: 1:10: no function "strtsWith"; did you mean text.startsWith(text)?`}},
	{"accept misspelt", stages("max(output.probability) >= 0.9", "risk", "deep"), []string{`line 4: route.cascade[0].accept: 1:11: no column "probability" in output; did you mean "probabilities"?`}},
	{"accept of a list", stages("output.probabilities >= 0.9", "risk", "deep"), []string{`line 4: route.cascade[0].accept: 1:22: there is no list(double) >= double`}},
	{"when of an absent column", "route: {cascade: [{name: a, model: risk}, {name: b, when: 'output.lable > 0', model: deep}]}", []string{`line 4: route.cascade[1].when: 1:7: no column "lable" in output; did you mean "label"?`}},
	{"refine of an absent column", "route: {cascade: [{name: a, accept: 'output.label > 1', model: risk}, {name: b, refine: {hours: 'float32(output.hour)'}, model: deep}]}", []string{`line 4: route.cascade[1].refine.hours: 1:15: no column "hour" in output`}},
	{"refine of the wrong type", "route: {cascade: [{name: a, accept: 'output.label > 1', model: risk}, {name: b, refine: {hours: 'output.label'}, model: deep}]}", []string{`line 4: route.cascade[1].model: the model reads column "hours" as float32, and a step before makes it int64: cast it there`}},
	{"accept that is no bool", stages("max(output.probabilities)", "risk", "deep"), []string{`line 4: route.cascade[0].accept: the expression is float32; a condition must be bool`}},
	{"mean of text", members("combine: mean", "model: words", "model: words"), []string{`line 4: route.ensemble.combine: column label string: mean: a string has none; vote on it, or leave the column out`}},
	{"max of text", members("columns: {label: max}", "model: words", "model: words"), []string{`line 4: route.ensemble.columns.label: column label string: max: a string has none; vote on it`}},
	{"mean of times", members("combine: mean", "model: moments", "model: moments"), []string{`line 4: route.ensemble.combine: column at timestamp: mean: a timestamp has none; take max (the latest)`}},
	{"vote on floats", members("columns: {probabilities: majority_vote}", "model: risk", "model: deep"), []string{`line 4: route.ensemble.columns.probabilities: column probabilities float32[2]: majority_vote: a float32 is no label`}},
	{"rule of an absent column", members("columns: {lable: max}", "model: risk", "model: deep"), []string{`line 4: route.ensemble.members[0]: member a: no column "lable"; did you mean "label"?`, `line 4: route.ensemble.members[1]: member b: no column "lable"; did you mean "label"?`}},
	{"members of two widths", members("combine: mean", "model: risk", "model: wide"), []string{`line 4: route.ensemble.members[1]: member b: column probabilities is float32[3], but member a answers float32[2]; cast it in a transform of either`}},
	{"member without a column", members("combine: mean", "model: risk", "model: bare"), []string{`line 4: route.ensemble.members[1]: member b: no column probabilities float32[2], which member a answers; it answers label int64; rename, add or drop columns in a transform`}},
	{"a combining model that is not there", members("combine: {model: stak}", "model: risk", "model: deep"), []string{`line 4: route.ensemble.combine.model: no model stak@champion; did you mean "stack@champion"?`}},
	{"input of a combining model", members("combine: {model: stack}", "model: risk", "model: words"), []string{`line 4: route.ensemble.combine.model: input "b_label": Arrow type utf8 cannot become b_label int64; cast it in a transform of the member`}},
	{"input that no member has", "route: {ensemble: {combine: {model: stack}, members: [{name: a, model: risk}, {name: c, model: deep}]}}", []string{`line 4: route.ensemble.combine.model: input b_probabilities_1 float32: neither a member nor the request has it; did you mean "a_probabilities"?`, `line 4: route.ensemble.combine.model: input b_label int64: neither a member nor the request has it; did you mean "a_label"?`}},
	{"input of a member that may be missing", members("combine: {model: stack}, quorum: 1", "required: true, model: risk", "model: deep"), []string{`line 4: route.ensemble.combine.model: input b_probabilities_1 float32 takes no null, but member b may be missing; make it required, or the quorum all members`, `line 4: route.ensemble.combine.model: input b_label int64 takes no null, but member b may be missing`}},
	{"input that several members have", members("combine: {model: scorer}", "model: scored", "model: scored"), []string{`line 4: route.ensemble.combine.model: input score float32: member a and member b all have it; name the input "a_score" or "b_score", or drop it from all but one in a transform`}},
	{"weight of one member alone", members("combine: weighted_mean", "weight: 2, model: risk", "model: deep"), []string{`line 4: route.ensemble.members[1].weight: missing; weighted_mean wants a positive integer of every member; only proportions count`}},
	{"step of the wrong float", made("score", "input.amount * 2.0", "scorer") + "\ncolumns: {amount: float64}", []string{`line 4: route.sequence[1].model: the model reads column "score" as float32, and a step before makes it float64: cast it there`}},
	{"step of the wrong type", made("score", "string(input.amount)", "scorer") + "\ncolumns: {amount: float64}", []string{`line 4: route.sequence[1].model: the model reads column "score" as float32, and a step before makes it string`}},
	{"step of the wrong width", made("vector", "[input.amount, input.amount]", "embed") + "\ncolumns: {amount: float32}", []string{`line 4: route.sequence[1].model: the model reads column "vector" as float32[4], and a step before makes it float32[2]`}},
	{"column of the same transform", "route: {sequence: [{name: a, transform: {columns: {x: input.b, y: input.x}}}, {name: b, model: risk}]}\ncolumns: {b: float64}", []string{`line 4: route.sequence[0].transform.columns.y: 1:6: no column "x" in input; want one of amount, country, b`}},
	{"column of nothing", made("x", "null", "risk"), []string{`line 4: route.sequence[0].transform.columns.x: 1:1: the result is null, which no column holds; want a value beside it`}},
	{"column of a loop", made("x", "[1, 2].exists(x, x > 1)", "risk"), []string{`line 4: route.sequence[0].transform.columns.x: 1:14: comprehensions (exists) are not run here; max, min, sum, mean, argmax and in work on lists`}},
	{"declared and not read", split("", "model: risk", "model: risk") + "\ncolumns: {extra: string}", []string{`line 5: columns.extra: no node reads it; leave it out`}},
	{"declared as another type", split("", "model: risk", "model: risk") + "\ncolumns: {amount: string}", []string{`line 5: columns.amount: column "amount" is string here, and float64 for route/a`}},
	{"context of an absent column", armed("policy: linucb, context: [amuont], reward: feedback.reward", "risk", "risk"), []string{`line 4: route.bandit.context[0]: no column "amuont"; did you mean "amount"?; the type of one that no model reads is said under columns`}},
	{"context of text", armed("policy: linucb, context: [amount, country], reward: feedback.reward", "risk", "risk"), []string{`line 4: route.bandit.context[1]: column "country" is string; a bandit chooses by numbers and bools: make one of it in a transform before`}},
	{"context that is masked", armed("policy: lin_thompson, context: [amount], reward: feedback.reward", "risk", "risk") + "\nrecord: {mask: [amount]}", []string{`line 4: route.bandit.context[0]: column "amount" is kept out of the record, from which the bandit learns; leave it out here, or there`}},
	{"arms of a bandit that do not line up", armed("policy: ucb1, reward: feedback.reward", "risk", "wide"), []string{`line 4: route.bandit.arms[1]: answers column "probabilities" as float32[3], and route/a as float32[2]`}},
	{"entity of an absent column", split("", "model: risk", "model: deep") + "\nfeedback: {entity: contry}", []string{`line 5: feedback.entity: no column "contry" in requests of this pipeline; did you mean "country"?; say the type of one that nothing else reads under columns`}},
	{"entity of a model alone that is absent", "route: {model: risk}\nfeedback: {entity: tail}", []string{`line 5: feedback.entity: no column "tail" in requests of this pipeline; want one of amount, country; say the type of one that nothing else reads under columns`}},
	{"entity of a declared float", "route: {model: risk}\nfeedback: {entity: tail}\ncolumns: {tail: float32}", []string{`line 5: feedback.entity: column "tail" is float32: want text, integers, booleans or times`}},
	{"declared, and not the entity", "route: {model: risk}\nfeedback: {entity: tail}\ncolumns: {tail: int64, tial: string}", []string{`line 6: columns.tial: no node reads it; leave it out`}},
	{"entity of a float", split("", "model: risk", "model: deep") + "\nfeedback: {entity: amount}", []string{`line 5: feedback.entity: column "amount" is float64: want text, integers, booleans or times`}},
	{"mask of an absent column", split("", "model: risk", "model: deep") + "\nrecord: {mask: [amuont]}", []string{`line 5: record.mask[0]: no column "amuont" in the model's signature; did you mean "amount"?`}},
	{"shadow of an unknown model", shadows("name: a, model: rosk"), []string{`line 5: shadows[0].model: no model rosk@champion; did you mean "risk@champion"?`}},
	{"shadow of columns that are not there", shadows("name: a, model: deep"), []string{`line 5: shadows[0].model: the model reads column "hours", which is not there; want one of amount, country; a shadow reads what requests have: say it under columns`}},
	{"shadow of another type", shadows("name: a, model: texts"), []string{`line 5: shadows[0].model: the model reads column "amount" as string, and it is float64 here: cast it in a transform before`}},
	{"sampled by an absent column", shadows("name: a, key: tail, model: risk"), []string{`line 5: shadows[0].key: no column "tail"; want one of amount, country; a column that the route does not read is said under columns`}},
	{"sampled by a fraction", shadows("name: a, key: amount, model: risk"), []string{`line 5: shadows[0].key: column "amount" is float64; a key is text, a whole number, a bool or a timestamp`}},
	{"shadow parts by an absent column", shadows("name: a, split: {key: tail, arms: [{name: b, weight: 50, model: risk}, {name: c, weight: 50, model: risk}]}"), []string{`line 5: shadows[0].split.key: no column "tail"`}},
	{"shadow without a model", shadows("name: a, transform: {columns: {x: input.amount}}"), []string{`line 5: shadows[0]: runs no model; a shadow has at least one`}},
	{"bandit in a shadow", shadows("name: a, bandit: {policy: ucb1, reward: feedback.label, arms: [{name: b, model: risk}, {name: c, model: risk}]}"), []string{`line 5: shadows[0].bandit: feedback is about what was answered, and nobody sees what a shadow answers`}},
	{"condition in a shadow", shadows("name: a, switch: [{name: b, when: input.amuont > 1.0, model: risk}, {name: c, model: risk}]"), []string{`line 5: shadows[0].switch[0].when: 1:6: no column "amuont" in input`}},
}

// told fails unless an error holds exactly the faults.
func told(t *testing.T, err error, want []string) {
	t.Helper()
	var fs document.Faults
	if !errors.As(err, &fs) || schemas.KindOf(err) != schemas.Invalid || len(fs) != len(want) {
		t.Fatalf("%d faults, want %d: %v", len(fs), len(want), err)
	}
	lines := strings.Split(err.Error(), "\n")
	for i, w := range want {
		if !strings.Contains(lines[i], w) {
			t.Errorf("says %q\nwithout %q", lines[i], w)
		}
		if fs[i].Line == 0 || !strings.HasPrefix(fs[i].Path, "route") && !strings.HasPrefix(fs[i].Path, "columns") && !strings.HasPrefix(fs[i].Path, "record") && !strings.HasPrefix(fs[i].Path, "feedback") && !strings.HasPrefix(fs[i].Path, "shadows") {
			t.Errorf("fault at %q, line %d", fs[i].Path, fs[i].Line)
		}
	}
}

func TestBadRoutes(t *testing.T) {
	sch := schemaOf(t)
	for _, c := range badRoutes {
		t.Run(c.name, func(t *testing.T) {
			specs, err := ParseSpec([]byte(head + c.text))
			if specs != nil {
				t.Fatal("it passed")
			}
			told(t, err, c.want)
			if err := sch.Validate(asJSON(t, head+c.text)); (err != nil) != c.shape {
				t.Errorf("the JSON Schema says %v", err)
			}
		})
	}
}

// TestRouteWithinItself: a route is a tree, so a cycle can only be written with YAML's aliases.
func TestRouteWithinItself(t *testing.T) {
	for _, route := range []string{
		"route: &r {split: {arms: [{name: a, weight: 50, model: risk}, {name: b, weight: 50, split: *r}]}}",
		"route:\n  sequence:\n    - &r {name: a, sequence: [{name: b, model: risk}, *r]}\n    - {name: c, model: risk}",
	} {
		specs, err := ParseSpec([]byte(head + route))
		if specs != nil || err == nil || schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "*r is a part of &r itself, which then has no end; write out what is meant") {
			t.Errorf("%s: %v", route, err)
		}
	}
}

func TestBadGraphs(t *testing.T) {
	for _, c := range badGraphs {
		t.Run(c.name, func(t *testing.T) {
			specs, err := ParseSpec([]byte(head + c.text))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = specs[0].Resolve(t.Context(), rack{}, Facts{})
			told(t, err, c.want)
		})
	}
}
