package crash

import (
	"fmt"
	"slices"
)

// The rules that the evidence and the truth are held against.
const (
	ruleReplyRecorded   = "a reply has its record"
	ruleContradiction   = "no record contradicts a reply or an output"
	ruleCanonical       = "one canonical record for each id"
	ruleDelivered       = "an acknowledged event is in the output, or in the dead letters"
	ruleOutputRecorded  = "an output has its record"
	ruleFolds           = "repeats of an output fold"
	ruleStoredOnce      = "an acknowledged event is stored once"
	ruleOrder           = "outputs keep the order of their key"
	ruleBadEvent        = "an event that cannot be scored is in the dead letters and nowhere else"
	ruleSameBits        = "the same row gives the same bits by every way in"
	ruleNoLeftovers     = "killed jobs leave no temporary files behind"
	ruleJobRows         = "a job's output is that of a job that nobody disturbed"
	ruleJobRecorded     = "each row of a job has one canonical record with its output"
	ruleExit            = "SIGTERM ends with exit status 0"
	rulePromptlyDrained = "what was accepted drains"
)

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

// rowKey names a row of a request within its pipeline.
type rowKey struct {
	pipeline, id string
	row          int
}

// judge holds what callers and publishers saw against what is stored.
func judge(v *verdict, e *evidence, t *truth, pipeline string) {
	records := judgeRecords(v, t.records)
	bits := sameBits{v: v, seen: map[bitsKey]outcome{}}
	judgeReplies(v, e.replies, records, &bits)
	judgeEvents(v, e.events, t, records, pipeline, &bits)
}

// judgeRecords returns the canonical records by row.
func judgeRecords(v *verdict, rs []record) map[rowKey]*record {
	type full struct {
		rowKey
		digest string
	}
	canonical, byID, byInput := map[rowKey]*record{}, map[string]*record{}, map[full]*record{}
	seen := map[string]int{}
	for i := range rs {
		r := &rs[i]
		k := rowKey{r.Pipeline, r.RequestID, r.Row}
		if r.Superseded != (seen[r.RecordID] > 0) {
			v.fault(ruleCanonical, "record %s of %s: %d came before it, superseded is %v", r.RecordID, r.RequestID, seen[r.RecordID], r.Superseded)
		}
		seen[r.RecordID]++
		if r.Status != "ok" {
			continue
		}
		if f := byID[r.RecordID]; f == nil {
			byID[r.RecordID] = r
		} else if f.Output != r.Output {
			v.fault(ruleContradiction, "record %s of %s row %d: %v and %v", r.RecordID, r.RequestID, r.Row, f.Output, r.Output)
		}
		if f := byInput[full{k, r.InputDigest}]; f == nil {
			byInput[full{k, r.InputDigest}] = r
		} else if f.Output != r.Output || f.RecordID != r.RecordID {
			v.fault(ruleContradiction, "request %s row %d: records %s %v and %s %v for one input", r.RequestID, r.Row, f.RecordID, f.Output, r.RecordID, r.Output)
		}
		if canonical[k] == nil {
			canonical[k] = r
		}
	}
	return canonical
}

func judgeReplies(v *verdict, rs []reply, records map[rowKey]*record, bits *sameBits) {
	for i := range rs {
		r := &rs[i]
		if len(r.rows) != len(r.sample) {
			v.fault(ruleContradiction, "%s over %s: %d rows asked, %d answered", r.id, r.via, len(r.sample), len(r.rows))
			continue
		}
		for row, got := range r.rows {
			bits.add(r.pipeline, r.sample[row], got, r.id)
			switch rec := records[rowKey{r.pipeline, r.id, row}]; {
			case rec == nil:
				v.fault(ruleReplyRecorded, "%s row %d was answered over %s, and no record tells", r.id, row, r.via)
			case rec.Output != got:
				v.fault(ruleContradiction, "%s row %d: the caller saw %v, the record says %v", r.id, row, got, rec.Output)
			}
		}
	}
}

func judgeEvents(v *verdict, events []event, t *truth, records map[rowKey]*record, pipeline string, bits *sameBits) {
	stored, dead := map[string]int{}, map[string]letter{}
	for i := range t.inputs {
		stored[t.inputs[i].header("Leat-Request-Id")]++
	}
	for _, l := range t.dead {
		dead[l.id] = l
	}
	outputs := judgeOutputs(v, t.outputs, records, pipeline)
	for i := range events {
		e := &events[i]
		out, there := outputs[e.id]
		letter, buried := dead[e.id]
		if n := stored[e.id]; n != 1 {
			v.fault(ruleStoredOnce, "event %s is stored %d times", e.id, n)
		}
		switch {
		case e.bad && (there || !buried || letter.kind != "invalid"):
			v.fault(ruleBadEvent, "event %s: in the output %v, in the dead letters %v as %q", e.id, there, buried, letter.kind)
		case e.bad:
		case !there && !buried:
			v.fault(ruleDelivered, "event %s (key %s, number %d) was acknowledged and is nowhere", e.id, e.key, e.n)
		case !there && letter.kind != "internal": // only rows that were being run at two deaths are given up
			v.fault(ruleDelivered, "event %s is in the dead letters as %s: %s", e.id, letter.kind, letter.reason)
		case there && len(out) != len(e.sample):
			v.fault(ruleContradiction, "event %s has %d rows, its output %d", e.id, len(e.sample), len(out))
		case there:
			for row, got := range out {
				bits.add(pipeline, e.sample[row], got, e.id)
			}
		}
	}
	judgeOrder(v, events, t.outputs)
}

// judgeOutputs folds the outputs and returns their rows by event.
func judgeOutputs(v *verdict, outs []message, records map[rowKey]*record, pipeline string) map[string][]outcome {
	rows, source := map[string][]outcome{}, map[string]string{}
	for i := range outs {
		m := &outs[i]
		id, from := m.header("Leat-Request-Id"), m.header("Leat-Source")
		got, err := m.answers()
		if err != nil {
			v.fault(ruleFolds, "output of %s: %v", id, err)
			continue
		}
		if first, ok := rows[id]; ok {
			if source[id] != from || !slices.Equal(first, got) {
				v.fault(ruleFolds, "event %s: outputs from %s %v and from %s %v", id, source[id], first, from, got)
			}
			continue
		}
		rows[id], source[id] = got, from
		for row := range got {
			switch rec := records[rowKey{pipeline, id, row}]; {
			case rec == nil:
				v.fault(ruleOutputRecorded, "output of %s row %d has no record", id, row)
			case rec.Output != got[row]:
				v.fault(ruleContradiction, "event %s row %d: the output says %v, the record %v", id, row, got[row], rec.Output)
			case rec.From != from:
				v.fault(ruleContradiction, "event %s: the output is from %s, the record from %s", id, from, rec.From)
			}
		}
	}
	return rows
}

// judgeOrder looks at the first output of each event, in the order of the partitions.
func judgeOrder(v *verdict, events []event, outs []message) {
	number, key := map[string]int{}, map[string]string{}
	for i := range events {
		number[events[i].id], key[events[i].id] = events[i].n, events[i].key
	}
	seen, last, home := map[string]bool{}, map[string]int{}, map[string]int32{}
	for i := range outs {
		m := &outs[i]
		id := m.header("Leat-Request-Id")
		n, ok := number[id]
		if !ok || seen[id] {
			continue
		}
		seen[id] = true
		k := key[id]
		if p, ok := home[k]; m.Key != k || ok && p != m.Partition {
			v.fault(ruleOrder, "output of %s lies under key %q in partition %d, others of key %q in %d", id, m.Key, m.Partition, k, p)
		}
		home[k] = m.Partition
		if before, ok := last[k]; ok && n <= before {
			v.fault(ruleOrder, "key %s: number %d comes after number %d", k, n, before)
		}
		last[k] = n
	}
}

// sameBits remembers what each row of the sample gave.
type sameBits struct {
	v    *verdict
	seen map[bitsKey]outcome
}

type bitsKey struct {
	model  string
	sample int
}

func (s *sameBits) add(pipeline string, sample int, got outcome, by string) {
	k := bitsKey{modelOf(pipeline), sample}
	if first, ok := s.seen[k]; ok && first != got {
		s.v.fault(ruleSameBits, "row %d of the sample on %s: %v, and %v for %s", sample, k.model, first, got, by)
		return
	}
	s.seen[k] = got
}
