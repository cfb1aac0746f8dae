package faults

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The rules that the evidence and the truth are held against.
const (
	ruleStoredOnce = "an acknowledged event is stored once"
	ruleOnce       = "each input has one output or one dead letter, and no second one"
	ruleDelivered  = "each input is in the output, or in the dead letters"
	ruleFolds      = "repeats of an output fold"
	ruleOrder      = "outputs keep the order of their key"
	ruleRecorded   = "an input has its record, and one alone is canonical"
	ruleSingle     = "exactly once, no record is made twice"
	ruleContradict = "no record contradicts a reply or an output"
	ruleReply      = "a reply has its record"
	ruleClear      = "a caller is told a clear kind within the deadline"
	ruleCount      = "the count of records is that of the export"
	ruleExit       = "SIGTERM ends with exit status 0"
)

// outcome is one row's answer, to the bit.
type outcome struct {
	label  int64
	p0, p1 float32
}

// UnmarshalJSON reads {"label":0,"probabilities":[0.25,0.75]}, as answers, outputs and records write it.
func (o *outcome) UnmarshalJSON(b []byte) error {
	var v struct {
		Label         *int64
		Probabilities []float32
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v.Label == nil || len(v.Probabilities) != 2 {
		return fmt.Errorf("%s is no answer of the example's model", b)
	}
	*o = outcome{*v.Label, v.Probabilities[0], v.Probabilities[1]}
	return nil
}

// place is where a record of a topic lies.
type place struct {
	partition int32
	offset    int64
}

// stored is one record of an input topic.
type stored struct {
	id, key string
	at      place
}

// output is one record of an output topic, or a dead letter.
type output struct {
	id, key string
	from    place // of the input that it was made from
	at      place
	answer  outcome
	kind    string // of a dead letter's cause
}

// record is what the judge needs of a lineage record.
type record struct {
	RequestID  string  `json:"request_id"`
	Pipeline   string  `json:"pipeline"`
	Output     outcome `json:"output"`
	Status     string  `json:"status"`
	ErrorKind  string  `json:"error_kind"`
	Superseded bool    `json:"superseded"`
}

// UnmarshalJSON leaves out the output of what failed.
func (r *record) UnmarshalJSON(b []byte) error {
	type plain record
	var v struct {
		plain
		Output json.RawMessage `json:"output"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*r = record(v.plain)
	if r.Status != "ok" {
		return nil
	}
	return json.Unmarshal(v.Output, &r.Output)
}

// truth is what the cluster has of one pipeline, once everything has drained. Each list is in the order of its
// partitions.
type truth struct {
	inputs        []stored
	outputs, dead []output
	records       []record // superseded ones too
}

// verdict collects what is wrong, a few examples of each.
type verdict struct {
	broken map[string][]string
	counts map[string]int
}

func newVerdict() *verdict { return &verdict{broken: map[string][]string{}, counts: map[string]int{}} }

func (v *verdict) fault(rule, format string, args ...any) {
	if v.counts[rule]++; v.counts[rule] <= 5 {
		v.broken[rule] = append(v.broken[rule], fmt.Sprintf(format, args...))
	}
}

// String tells what is broken.
func (v *verdict) String() string {
	var b strings.Builder
	for _, r := range slices.Sorted(maps.Keys(v.broken)) {
		fmt.Fprintf(&b, "%s: broken %d times\n    %s\n", r, v.counts[r], strings.Join(v.broken[r], "\n    "))
	}
	return b.String()
}

// judge holds what a pipeline's producer saw acknowledged, by id, against what is stored. once: it is exactly once.
func judge(v *verdict, once bool, acked map[string]bool, t *truth) {
	inputs := map[string]stored{}
	copies := map[string]int{}
	for _, in := range t.inputs {
		inputs[in.id] = in
		copies[in.id]++
	}
	for id := range acked {
		if n := copies[id]; n != 1 {
			v.fault(ruleStoredOnce, "event %s is stored %d times", id, n)
		}
	}
	canonical := judgeRecords(v, once, t.records)
	first, buried, times := map[string]output{}, map[string]output{}, map[string]int{}
	for _, o := range t.outputs {
		times[o.id]++
		if f, ok := first[o.id]; !ok {
			first[o.id] = o
		} else if f.from != o.from || f.answer != o.answer || f.key != o.key {
			v.fault(ruleFolds, "outputs %+v and %+v", f, o)
		}
	}
	for _, o := range t.dead {
		times[o.id]++
		buried[o.id] = o
		if o.kind != "internal" { // only rows that were being run at two deaths are given up
			v.fault(ruleDelivered, "event %s is in the dead letters as %s", o.id, o.kind)
		}
	}
	for id, in := range inputs {
		out, there := first[id]
		_, dead := buried[id]
		rec, recorded := canonical[id]
		switch {
		case !there && !dead:
			v.fault(ruleDelivered, "event %s (key %s, at %v) is nowhere", id, in.key, in.at)
		case once && times[id] != 1:
			v.fault(ruleOnce, "event %s: %d outputs and dead letters", id, times[id])
		case there && (out.from != in.at || out.key != in.key):
			v.fault(ruleContradict, "input %+v has output %+v", in, out)
		case !recorded:
			v.fault(ruleRecorded, "event %s has no record", id)
		case there && (rec.Status != "ok" || rec.Output != out.answer):
			v.fault(ruleContradict, "event %s: output %v, record %+v", id, out.answer, rec)
		}
	}
	for id := range times {
		if _, ok := inputs[id]; !ok {
			v.fault(ruleContradict, "output %s has no input", id)
		}
	}
	for id := range canonical {
		if _, ok := inputs[id]; !ok {
			v.fault(ruleContradict, "record %s has no input", id)
		}
	}
	judgeOrder(v, t.outputs)
}

// judgeRecords returns the canonical records by request.
func judgeRecords(v *verdict, once bool, rs []record) map[string]record {
	canonical := map[string]record{}
	for _, r := range rs {
		f, again := canonical[r.RequestID]
		switch {
		case r.Superseded && once:
			v.fault(ruleSingle, "%s was recorded twice", r.RequestID)
		case r.Superseded && again && f.Status == "ok" && r.Status == "ok" && f.Output != r.Output:
			v.fault(ruleContradict, "records %+v and %+v", f, r)
		case !r.Superseded && again:
			v.fault(ruleRecorded, "%s has two canonical records", r.RequestID)
		case !again:
			canonical[r.RequestID] = r
		}
	}
	return canonical
}

// judgeOrder looks at the first output of each input. A key has one partition as long as none is added; Kafka promises
// no order beyond it.
func judgeOrder(v *verdict, outs []output) {
	type lane struct {
		key       string
		partition int32
	}
	seen, last, home := map[string]bool{}, map[lane]output{}, map[string]int32{}
	for _, o := range outs {
		if p, ok := home[o.key]; ok && p != o.at.partition {
			v.fault(ruleOrder, "outputs of key %s lie in partitions %d and %d", o.key, p, o.at.partition)
		}
		home[o.key] = o.at.partition
		if seen[o.id] {
			continue
		}
		seen[o.id] = true
		l := lane{o.key, o.from.partition}
		if before, ok := last[l]; ok && o.from.offset <= before.from.offset {
			v.fault(ruleOrder, "key %s: input %d comes after %d", o.key, o.from.offset, before.from.offset)
		}
		last[l] = o
	}
}

// reply is an answer that a caller saw.
type reply struct {
	id     string
	answer outcome
}

// judgeReplies holds what callers saw against the records of what was asked.
func judgeReplies(v *verdict, replies []reply, rs []record) {
	byID := map[string]record{}
	for _, r := range rs {
		if !r.Superseded {
			byID[r.RequestID] = r
		}
	}
	for _, r := range replies {
		switch rec, ok := byID[r.id]; {
		case !ok:
			v.fault(ruleReply, "%s was answered, and no record tells", r.id)
		case rec.Status != "ok" || rec.Output != r.answer:
			v.fault(ruleContradict, "%s: the caller saw %v, the record says %+v", r.id, r.answer, rec)
		}
	}
}
