package control

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// Entry is one line of the history: what a change did to one pipeline or one model.
type Entry struct {
	Epoch    uint64                   `json:"epoch"` // number of the change; several entries may share one
	Time     time.Time                `json:"time"`
	Cause    string                   `json:"cause"`  // "apply", "promote fraud@2"
	Action   string                   `json:"action"` // created, changed, deleted; for a model what was done to it
	Pipeline string                   `json:"pipeline,omitempty"`
	Model    string                   `json:"model,omitempty"`
	From     string                   `json:"from,omitempty"` // revision
	To       string                   `json:"to,omitempty"`
	Models   []pipeline.ResolvedModel `json:"models,omitempty"` // of To
	Diff     string                   `json:"diff,omitempty"`   // unified, of the spec as YAML
	Spec     *pipeline.Spec           `json:"spec,omitempty"`   // of To; not in what History returns
}

func (e *Entry) subject() string {
	if e.Pipeline != "" {
		return "pipeline." + e.Pipeline
	}
	return "model." + e.Model
}

func (c *Control) append(ctx context.Context, e *Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return schemas.Errorf(schemas.Internal, "control.history", "%w", err)
	}
	_, err = c.log.Append(ctx, e.subject(), strconv.FormatUint(e.Epoch, 10)+"-"+e.subject(), b)
	return err
}

// History returns what happened to a pipeline or, if pipeline is "", to a model: newest first, at most limit entries of
// changes before the one numbered before (0: all). The log keeps what fits; older entries are gone.
func (c *Control) History(ctx context.Context, pipeline, model string, limit int, before uint64) ([]Entry, error) {
	const op = "control.History"
	subject := (&Entry{Pipeline: pipeline, Model: model}).subject()
	var out []Entry
	var bad error
	seen := map[uint64]bool{} // a change that was finished twice appends twice
	err := c.log.Read(ctx, 0, []string{subject}, false, func(le *schemas.Entry) bool {
		var e Entry
		if err := json.Unmarshal(le.Payload, &e); err != nil {
			bad = schemas.Errorf(schemas.Internal, op, "entry %d: %w", le.Sequence, err)
			return false
		}
		if seen[e.Epoch] || before > 0 && e.Epoch >= before {
			return true
		}
		seen[e.Epoch] = true
		e.Spec = nil
		out = append(out, e)
		if len(out) > 2*limit { // only the newest are wanted, and they come last
			out = append(out[:0], out[len(out)-limit:]...)
		}
		return true
	})
	if err == nil {
		err = bad
	}
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	slices.Reverse(out)
	return out, err
}
