package lineage

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"time"

	"github.com/leatstream/leat/schemas"
)

// MaxFeedbackItems is how many one JSON list may hold.
const MaxFeedbackItems = 10_000

// ParseFeedback reads feedback as people write it: one JSON object, or a list of them.
//
//	{"pipeline":"flight-delay","request_id":"01M8...","row":0,"label":true,"reward":12.5,"comment":"..."}
//	{"pipeline":"flight-delay","entity":"N123","time":"2026-11-23T08:00:00Z","label":"late"}
//
// Also feedback_id and node. pipeline, if not empty, is that of the topic that it came by: it may be left out then, and must not be
// another. Each is complete (Feedback.Complete), or nothing is returned and Invalid names the field: "label", or
// "[3].label" in a list. Null is as if the field were absent.
func ParseFeedback(body []byte, pipeline string) ([]Feedback, error) {
	const op = "lineage.ParseFeedback"
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil, schemas.Errorf(schemas.Invalid, op, "empty: want a JSON object such as {\"request_id\":\"...\",\"label\":true}, or a list of them")
	}
	if body[0] != '[' {
		f, err := parseFeedback(body, pipeline, "")
		if err != nil {
			return nil, err
		}
		return []Feedback{f}, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.Token() // the bracket
	var fs []Feedback
	for d.More() {
		if len(fs) == MaxFeedbackItems {
			return nil, schemas.Errorf(schemas.Invalid, op, "more than %d in one list: send them in parts", MaxFeedbackItems)
		}
		var one json.RawMessage
		if err := d.Decode(&one); err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "["+itoa(len(fs))+"]", "no JSON: %w", err)
		}
		f, err := parseFeedback(one, pipeline, "["+itoa(len(fs))+"]")
		if err != nil {
			return nil, err
		}
		fs = append(fs, f)
	}
	if _, err := d.Token(); err != nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "the list does not end: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, schemas.Errorf(schemas.Invalid, op, "something follows the list: want one object or one list")
	}
	if len(fs) == 0 {
		return nil, schemas.Errorf(schemas.Invalid, op, "an empty list")
	}
	return fs, nil
}

// parseFeedback reads one object; at is its place in a list.
func parseFeedback(body []byte, pipeline, at string) (f Feedback, err error) {
	const op = "lineage.ParseFeedback"
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		const want = "want an object such as {\"request_id\":\"...\",\"label\":true}"
		if err == nil || body[0] != '{' {
			return f, schemas.FieldErrorf(schemas.Invalid, op, at, "%s: %s", clip(string(body)), want)
		}
		return f, schemas.FieldErrorf(schemas.Invalid, op, at, "no JSON: %w: %s", err, want)
	}
	for name, raw := range fields {
		if string(raw) == "null" {
			continue
		}
		read := feedbackFields[name]
		if read == nil {
			return f, schemas.FieldErrorf(schemas.Invalid, op, inside(at, clip(name)), "no such field: want pipeline, request_id, row, entity, time, node, label, reward, comment, feedback_id")
		}
		if want := read(&f, raw); want != "" {
			return f, schemas.FieldErrorf(schemas.Invalid, op, inside(at, name), "%s: want %s", clip(string(raw)), want)
		}
	}
	switch {
	case f.Pipeline == "":
		f.Pipeline = pipeline
	case pipeline != "" && f.Pipeline != pipeline:
		return f, schemas.FieldErrorf(schemas.Invalid, op, inside(at, "pipeline"), "%q, in the topic of %s: leave it out", clip(f.Pipeline), pipeline)
	}
	if err := f.Complete(); err != nil {
		e := *schemas.AsError(op, err)
		e.Field = inside(at, e.Field)
		return f, &e
	}
	return f, nil
}

func inside(at, field string) string {
	if at == "" {
		return field
	}
	return at + "." + field
}

// feedbackFields reads a field, and says what would be right where it is not.
var feedbackFields = map[string]func(*Feedback, json.RawMessage) (want string){
	"pipeline":    func(f *Feedback, raw json.RawMessage) string { return readText(raw, &f.Pipeline) },
	"feedback_id": func(f *Feedback, raw json.RawMessage) string { return readText(raw, &f.ID) },
	"request_id":  func(f *Feedback, raw json.RawMessage) string { return readText(raw, &f.RequestID) },
	"entity":      func(f *Feedback, raw json.RawMessage) string { return readText(raw, &f.Entity) },
	"node":        func(f *Feedback, raw json.RawMessage) string { return readText(raw, &f.Node) },
	"comment":     func(f *Feedback, raw json.RawMessage) string { return readText(raw, &f.Comment) },
	"row": func(f *Feedback, raw json.RawMessage) string {
		if json.Unmarshal(raw, &f.Row) != nil {
			return "a whole number, from 0"
		}
		return ""
	},
	"time": func(f *Feedback, raw json.RawMessage) string {
		if json.Unmarshal(raw, &f.EventTime) != nil {
			return "a time as in RFC 3339, such as 2026-11-23T08:00:00Z"
		}
		return ""
	},
	"reward": func(f *Feedback, raw json.RawMessage) string {
		var v float64
		if json.Unmarshal(raw, &v) != nil {
			return "a finite number"
		}
		f.Reward = &v
		return ""
	},
	"label": func(f *Feedback, raw json.RawMessage) string {
		if json.Unmarshal(raw, &f.Label) == nil {
			switch f.Label.(type) {
			case float64, string, bool:
				return ""
			}
		}
		return "a finite number, a text or a boolean"
	},
}

func readText(raw json.RawMessage, to *string) string {
	if json.Unmarshal(raw, to) != nil {
		return "a text"
	}
	return ""
}

// FeedbackView is feedback as JSON: as ParseFeedback takes it, with what the log adds.
type FeedbackView struct {
	ID         string    `json:"feedback_id"`
	Pipeline   string    `json:"pipeline"`
	RequestID  string    `json:"request_id,omitempty"`
	Row        *int32    `json:"row,omitempty"` // with request_id
	Entity     string    `json:"entity,omitempty"`
	Node       string    `json:"node,omitempty"`
	Label      any       `json:"label,omitempty"`
	Reward     *float64  `json:"reward,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	Time       time.Time `json:"time,omitzero"`
	Principal  string    `json:"principal,omitempty"`
	Via        string    `json:"via,omitempty"`
	Received   time.Time `json:"received"`
	Position   string    `json:"position"`
	Index      int       `json:"index"`
	Appended   time.Time `json:"appended"`
	Superseded bool      `json:"superseded,omitempty"`
	Decision   *Decision `json:"decision,omitempty"` // that it is about; absent: not known (yet)
	Unknown    bool      `json:"unknown,omitempty"`  // no such decision is in the log
}

// Decision names a record of the lineage.
type Decision struct {
	RequestID string `json:"request_id"`
	Row       int32  `json:"row"`
	Node      string `json:"node,omitempty"`
	Position  string `json:"position"`
	Index     int    `json:"index"`
}

// View returns the feedback as JSON shows it.
func (f *Feedback) View() FeedbackView {
	v := FeedbackView{
		ID: f.ID, Pipeline: f.Pipeline, RequestID: f.RequestID, Entity: f.Entity, Node: f.Node, Label: f.Label, Reward: f.Reward,
		Comment: f.Comment, Time: f.EventTime, Principal: f.Principal, Via: f.Via, Received: f.Received.UTC(), Position: f.Position.String(),
		Index: f.Index, Appended: f.Appended.UTC(), Superseded: f.Superseded,
	}
	if f.RequestID != "" {
		v.Row = &f.Row
	}
	if l, ok := f.Label.(float64); ok && (math.IsNaN(l) || math.IsInf(l, 0)) {
		v.Label = nil // none that Complete lets through
	}
	return v
}

// FeedbackInput is the JSON that ParseFeedback takes.
type FeedbackInput struct {
	Pipeline  string   `json:"pipeline,omitempty" doc:"the pipeline that decided"`
	RequestID string   `json:"request_id,omitempty" doc:"of the decision, as the answer's Leat-Request-Id said; or else entity and time"`
	Row       int32    `json:"row,omitempty" doc:"in the request, from 0"`
	Entity    string   `json:"entity,omitempty" doc:"value of the pipeline's entity column: its latest decision at or before time is meant"`
	Time      string   `json:"time,omitempty" doc:"when what is said was so, RFC 3339; needed with entity"`
	Node      string   `json:"node,omitempty" doc:"path of the node whose decision is meant; absent: the answer"`
	Label     any      `json:"label,omitempty" doc:"what was true: a number, a text or a boolean"`
	Reward    *float64 `json:"reward,omitempty" doc:"what the decision was worth"`
	Comment   string   `json:"comment,omitempty"`
	ID        string   `json:"feedback_id,omitempty" doc:"the same id again is a repeat; made from what is said if absent"`
}
