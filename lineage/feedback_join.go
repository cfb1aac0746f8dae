package lineage

import (
	"context"
	"slices"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Feedback meets its decisions here, when the lineage is read: nothing of it is stored. What names a request id means the
// records of its pipeline, request, row and node, of every run. What names an entity means the answer, made by no job, of
// the latest request in which the pipeline's entity column had that value: latest by the event's time, or by receipt where
// a request brought none, at or before the feedback's time and no longer before it than the pipeline says.

// EntityOf says which column of a pipeline's requests holds what its decisions are about, and how long after one feedback
// may mean it; "" if none does.
type EntityOf func(pipeline string) (column string, within time.Duration)

// JoinBy tells the reader how feedback on entities finds its decisions. Call it before the reader is used. Without it, none does.
func (r *StreamReader) JoinBy(e EntityOf) { r.entityOf = e }

// maxJoined bounds the feedback, and the decisions, that one join holds: some 300 bytes each.
const maxJoined = 1 << 20

// Outcome is what feedback says of one decision in the end: of label, reward and comment each the last one in the log.
type Outcome struct {
	Label   any       `json:"label,omitempty"`
	Reward  *float64  `json:"reward,omitempty"`
	Comment string    `json:"comment,omitempty"`
	Count   int       `json:"count"` // of all that was said, repeats left out
	Last    time.Time `json:"last"`  // when the last of it was appended
}

// OutcomeOf sums up the feedback on one decision, given in the order of the log; nil if there is none.
func OutcomeOf(fs []*Feedback) *Outcome {
	var o *Outcome
	for _, f := range fs {
		if f.Superseded {
			continue
		}
		if o == nil {
			o = &Outcome{}
		}
		if f.Label != nil {
			o.Label = f.Label
		}
		if f.Reward != nil {
			o.Reward = f.Reward
		}
		if f.Comment != "" {
			o.Comment = f.Comment
		}
		o.Count++
		o.Last = f.Appended.UTC()
	}
	return o
}

// decisionKey is what feedback by request id names.
type decisionKey struct {
	pipeline, request, node string
	row                     int32
}

func (f *Feedback) target() decisionKey {
	node := f.Node
	if node == "" {
		node = rootNode
	}
	return decisionKey{f.Pipeline, f.RequestID, node, f.Row}
}

func (r *Record) target() decisionKey { return decisionKey{r.Pipeline, r.RequestID, r.Node, r.Row.Row} }

// place is where a record lies.
type place struct {
	log      string
	sequence uint64
	index    int
}

func (r *Record) place() place { return place{r.Position.Stream, r.Position.Sequence, r.Index} }

// subject is what feedback by entity names.
type subject struct{ pipeline, entity string }

// decided is one decision about an entity.
type decided struct {
	at       time.Time
	decision Decision
	place    place
}

// join is the feedback of some records.
type join struct {
	byTarget map[decisionKey][]*Feedback
	byPlace  map[place][]*Feedback
}

// of returns the feedback on a record, in the order of the log. A nil join knows none.
func (j *join) of(rec *Record) []*Feedback {
	if j == nil {
		return nil
	}
	named, about := j.byTarget[rec.target()], j.byPlace[rec.place()]
	if len(about) == 0 {
		return named
	}
	all := append(slices.Clone(named), about...)
	slices.SortFunc(all, inOrder)
	return all
}

// all returns all feedback by request id, in the order of the log.
func (j *join) all() (fs []*Feedback) {
	for _, of := range j.byTarget {
		fs = append(fs, of...)
	}
	slices.SortFunc(fs, inOrder)
	return fs
}

func inOrder(a, b *Feedback) int {
	switch {
	case a.Position.Sequence < b.Position.Sequence:
		return -1
	case a.Position.Sequence > b.Position.Sequence:
		return 1
	}
	return a.Index - b.Index
}

// join reads the feedback that q selects and want takes, and finds the decisions of what names an entity.
func (r *StreamReader) join(ctx context.Context, q Query, want func(*Feedback) bool) (*join, error) {
	j := &join{byTarget: map[decisionKey][]*Feedback{}, byPlace: map[place][]*Feedback{}}
	n := 0
	var about []*Feedback
	err := r.scan(ctx, Query{Pipeline: q.Pipeline, RequestID: q.RequestID, Since: q.Since, All: q.All, Run: RunNone}, false, 0, events{feedback: func(f *Feedback) (bool, error) {
		if !want(f) {
			return true, nil
		}
		if n++; n > maxJoined {
			return false, tooMuch("pieces of feedback")
		}
		if f.Entity != "" {
			about = append(about, f)
		} else {
			j.byTarget[f.target()] = append(j.byTarget[f.target()], f)
		}
		return true, nil
	}})
	if err != nil || len(about) == 0 {
		return j, err
	}
	found, err := r.decisions(ctx, about)
	for _, f := range about {
		if d := found[f]; d != nil {
			j.byPlace[d.place] = append(j.byPlace[d.place], f)
		}
	}
	return j, err
}

func tooMuch(what string) error {
	return schemas.Errorf(schemas.Invalid, "lineage.Join", "more than %d %s are concerned: ask for one pipeline, or for fewer records", maxJoined, what)
}

// decisions finds what feedback on entities is about.
func (r *StreamReader) decisions(ctx context.Context, about []*Feedback) (map[*Feedback]*decided, error) {
	made := map[subject][]decided{}
	pipelines := map[string]bool{}
	for _, f := range about {
		if column, _ := r.entity(f.Pipeline); column != "" {
			made[subject{f.Pipeline, f.Entity}] = nil
			pipelines[f.Pipeline] = true
		}
	}
	n := 0
	for p := range pipelines {
		column, _ := r.entity(p)
		err := r.scan(ctx, Query{Pipeline: p, Run: RunNone}, true, 0, events{record: func(rec *Record) (bool, error) {
			if rec.Node != rootNode || rec.Role != RolePrimary {
				return true, nil
			}
			s := subject{p, entityIn(rec, column)}
			if _, ok := made[s]; !ok || s.entity == "" {
				return true, nil
			}
			if n++; n > maxJoined {
				return false, tooMuch("decisions about these entities")
			}
			made[s] = append(made[s], decided{at: rec.When(), place: rec.place(), decision: rec.decision()})
			return true, nil
		}})
		if err != nil {
			return nil, err
		}
	}
	for _, ds := range made {
		slices.SortStableFunc(ds, func(a, b decided) int { return a.at.Compare(b.at) })
	}
	found := map[*Feedback]*decided{}
	for _, f := range about {
		ds := made[subject{f.Pipeline, f.Entity}]
		i, _ := slices.BinarySearchFunc(ds, f.EventTime, func(d decided, t time.Time) int {
			if d.at.After(t) {
				return 1
			}
			return -1
		})
		_, within := r.entity(f.Pipeline)
		if i > 0 && f.EventTime.Sub(ds[i-1].at) <= within {
			found[f] = &ds[i-1]
		}
	}
	return found, nil
}

func (r *StreamReader) entity(pipeline string) (column string, within time.Duration) {
	if r.entityOf == nil {
		return "", 0
	}
	return r.entityOf(pipeline)
}

// When is the time that a decision counts for: the event's, or that of receipt where the request brought none.
func (r *Record) When() time.Time {
	if !r.EventTime.IsZero() {
		return r.EventTime
	}
	return r.Received
}

func (r *Record) decision() Decision {
	return Decision{RequestID: r.RequestID, Row: r.Row.Row, Node: r.Node, Position: r.Position.String(), Index: r.Index}
}

// entityIn returns the value of a column as text: text as it is, all else as JSON shows it; "" for null or no such column.
func entityIn(rec *Record, column string) string {
	if rec.Input == nil {
		return ""
	}
	i := rec.Input.Schema().Index(column)
	if i < 0 {
		return ""
	}
	c := rec.Input.Column(i)
	switch {
	case c.IsNull(rec.InputRow) || c.Field().Tensor() || slices.Contains(rec.Masked, column):
		return ""
	case c.Field().Type == schemas.String:
		return string(c.Text(rec.InputRow))
	case c.Field().Type == schemas.Timestamp:
		return time.Unix(0, schemas.Values[int64](c)[rec.InputRow]).UTC().Format(time.RFC3339Nano)
	}
	return string(appendValue(nil, c, rec.InputRow))
}

// joinThese joins a few records: of no others anything is kept. since may leave out what was appended before it.
func (r *StreamReader) joinThese(ctx context.Context, recs []*Record, since time.Time) (*join, error) {
	requests, about := map[string]bool{}, map[subject]bool{}
	q := Query{Since: since, All: true}
	for i, rec := range recs {
		requests[rec.RequestID] = true
		if column, _ := r.entity(rec.Pipeline); column != "" && rec.Node == rootNode {
			if e := entityIn(rec, column); e != "" {
				about[subject{rec.Pipeline, e}] = true
			}
		}
		if i == 0 {
			q.Pipeline = rec.Pipeline
		} else if q.Pipeline != rec.Pipeline {
			q.Pipeline = ""
		}
	}
	if len(recs) == 0 {
		return &join{}, nil
	}
	return r.join(ctx, q, func(f *Feedback) bool {
		return f.RequestID != "" && requests[f.RequestID] || f.Entity != "" && about[subject{f.Pipeline, f.Entity}]
	})
}

// Known fills in what feedback is about, by its place in fs: the first record of its target, or the decision on its entity;
// nil for what is not known (any more, or yet).
func (r *StreamReader) Known(ctx context.Context, fs []*Feedback) ([]*Decision, error) {
	out := make([]*Decision, len(fs))
	targets, requests := map[decisionKey][]int{}, map[string]bool{}
	var about []*Feedback
	q := Query{Bare: true}
	for i, f := range fs {
		if f.Entity != "" {
			about = append(about, f)
		} else {
			targets[f.target()] = append(targets[f.target()], i)
			requests[f.RequestID] = true
		}
		if i == 0 {
			q.Pipeline = f.Pipeline
		} else if q.Pipeline != f.Pipeline {
			q.Pipeline = ""
		}
	}
	if len(targets) > 0 {
		left := len(targets)
		err := r.scan(ctx, q, false, 0, events{record: func(rec *Record) (bool, error) {
			if !requests[rec.RequestID] {
				return true, nil
			}
			for _, i := range targets[rec.target()] {
				if out[i] == nil {
					d := rec.decision()
					out[i] = &d
				}
			}
			if _, ok := targets[rec.target()]; ok {
				delete(targets, rec.target())
				left--
			}
			return left > 0, nil
		}})
		if err != nil {
			return nil, err
		}
	}
	found, err := r.decisions(ctx, about)
	if err != nil {
		return nil, err
	}
	for i, f := range fs {
		if d := found[f]; d != nil {
			out[i] = &d.decision
		}
	}
	return out, nil
}

// joined is fn behind a join, if the query asks for one.
func (r *StreamReader) joined(ctx context.Context, q Query, fn func(*Record) (bool, error)) (func(*Record) (bool, error), error) {
	if !q.Join {
		return fn, nil
	}
	j, err := r.join(ctx, Query{Pipeline: q.Pipeline}, func(*Feedback) bool { return true })
	if err != nil {
		return nil, err
	}
	return func(rec *Record) (bool, error) {
		rec.Feedback = j.of(rec)
		return fn(rec)
	}, nil
}
