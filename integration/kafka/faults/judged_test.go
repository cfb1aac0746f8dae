package faults

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// sound is a truth without a fault: four events of two keys in one partition.
func sound() (map[string]bool, *truth) {
	acked, t := map[string]bool{}, &truth{}
	for i := range int64(4) {
		id, key, at, answer := fmt.Sprint("e", i), fmt.Sprint("k", i%2), place{1, i}, outcome{i, 0.25, 0.75}
		acked[id] = true
		t.inputs = append(t.inputs, stored{id, key, at})
		t.outputs = append(t.outputs, output{id: id, key: key, from: at, at: place{2, i}, answer: answer})
		t.records = append(t.records, record{RequestID: id, Output: answer, Status: "ok"})
	}
	return acked, t
}

// TestJudge: each fault of a truth breaks its rule, and no other.
func TestJudge(t *testing.T) {
	again := func(tr *truth) { tr.outputs = append(tr.outputs, tr.outputs[0]) }
	twice := func(tr *truth) {
		r := tr.records[0]
		r.Superseded = true
		tr.records = append(tr.records, r)
	}
	for _, c := range []struct {
		name  string
		once  bool
		fault func(*truth)
		rules []string
	}{
		{"nothing, exactly once", true, func(*truth) {}, nil},
		{"nothing, at least once", false, func(*truth) {}, nil},
		{"an output twice, exactly once", true, again, []string{ruleOnce}},
		{"an output twice, at least once", false, again, nil},
		{"a record twice, exactly once", true, twice, []string{ruleSingle}},
		{"a record twice, at least once", false, twice, nil},
		{"two canonical records", false, func(tr *truth) { tr.records = append(tr.records, tr.records[0]) }, []string{ruleRecorded}},
		{"no output", true, func(tr *truth) { tr.outputs = tr.outputs[1:] }, []string{ruleDelivered}},
		{"no record", false, func(tr *truth) { tr.records = tr.records[1:] }, []string{ruleRecorded}},
		{"no input", false, func(tr *truth) { tr.inputs = tr.inputs[1:] }, []string{ruleStoredOnce, ruleContradict}},
		{"an input twice", false, func(tr *truth) { tr.inputs = append(tr.inputs, tr.inputs[3]) }, []string{ruleStoredOnce}},
		{"another output", false, func(tr *truth) { tr.outputs[0].answer.label++ }, []string{ruleContradict}},
		{"repeats that differ", false, func(tr *truth) { again(tr); tr.outputs[4].answer.label++ }, []string{ruleFolds}},
		{"out of order", true, func(tr *truth) { tr.outputs[0], tr.outputs[2] = tr.outputs[2], tr.outputs[0] }, []string{ruleOrder}},
		{"a key in two partitions", true, func(tr *truth) { tr.outputs[2].at.partition++ }, []string{ruleOrder}},
		{"a dead letter beside the output", true, func(tr *truth) { tr.dead = []output{{id: "e0", kind: "internal"}} }, []string{ruleOnce}},
		{"a dead letter without cause", false, func(tr *truth) { tr.outputs, tr.dead = tr.outputs[1:], []output{{id: "e0", kind: "invalid"}} }, []string{ruleDelivered}},
	} {
		acked, tr := sound()
		c.fault(tr)
		v := newVerdict()
		judge(v, c.once, acked, tr)
		slices.Sort(c.rules)
		if got := slices.Sorted(maps.Keys(v.broken)); !slices.Equal(got, c.rules) {
			t.Errorf("%s: broken are %q, want %q\n%s", c.name, got, c.rules, v)
		}
	}
}

// TestJudgeReplies: a reply without a record, and one that its record contradicts.
func TestJudgeReplies(t *testing.T) {
	_, tr := sound()
	for _, c := range []struct {
		r    reply
		rule string
	}{{reply{"e1", outcome{1, 0.25, 0.75}}, ""}, {reply{"e9", outcome{}}, ruleReply}, {reply{"e1", outcome{}}, ruleContradict}} {
		v := newVerdict()
		judgeReplies(v, []reply{c.r}, tr.records)
		if c.rule == "" && len(v.broken) > 0 || c.rule != "" && v.counts[c.rule] != 1 {
			t.Errorf("%+v: %s", c.r, v)
		}
	}
}
