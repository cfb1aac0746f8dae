package control

import (
	"context"
	"fmt"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// What can be done with a canary.
const (
	CanaryStart   = "start"   // give a model a share of the pipeline's rows
	CanarySet     = "set"     // change the share
	CanaryPromote = "promote" // the canary becomes the route
	CanaryAbort   = "abort"   // what was there before becomes the route again
)

// CanaryChange says what to do with a pipeline's canary.
type CanaryChange struct {
	Action string `json:"action" doc:"start, set, promote or abort"`
	Model  string `json:"model,omitempty" doc:"of start: NAME@VERSION or NAME@ALIAS"`
	Weight string `json:"weight,omitempty" doc:"of start and set: percent, with at most two decimals"`
	Key    string `json:"key,omitempty" doc:"of start: the column whose values stick to their arm; by default the request id"`
	DryRun bool   `json:"dry_run,omitempty" doc:"change nothing; reply with what would change"`
}

// Canary edits the route of a pipeline, as one revision: see pipeline.StartCanary, SetCanary and EndCanary.
func (c *Control) Canary(ctx context.Context, name string, ch CanaryChange) (Result, error) {
	const op = "pipelines.canary"
	var edit func(s *pipeline.Spec) error
	cause := fmt.Sprintf("canary %s", ch.Action)
	switch ch.Action {
	case CanaryStart:
		if ch.Model == "" {
			return Result{}, schemas.FieldErrorf(schemas.Invalid, op, "model", "missing: which model is the canary?")
		}
		cause += " " + ch.Model
		edit = func(s *pipeline.Spec) error { return s.StartCanary(ch.Model, ch.Key, ch.Weight) }
	case CanarySet:
		cause += " " + ch.Weight
		edit = func(s *pipeline.Spec) error { return s.SetCanary(ch.Weight) }
	case CanaryPromote:
		edit = func(s *pipeline.Spec) error { return s.EndCanary(pipeline.Canary) }
	case CanaryAbort:
		edit = func(s *pipeline.Spec) error { return s.EndCanary(pipeline.Stable) }
	default:
		return Result{}, schemas.FieldErrorf(schemas.Invalid, op, "action", "unknown action %.40q%s", ch.Action,
			document.Meant(ch.Action, []string{CanaryStart, CanarySet, CanaryPromote, CanaryAbort}))
	}
	return c.mutate(ctx, cause, ch.DryRun, func(d *draft) error {
		old := d.pipelines[name]
		if old == nil {
			return schemas.Errorf(schemas.NotFound, op, "no pipeline %.80q", name)
		}
		s := old.Spec.Defaulted() // with nothing in common with what serves
		if err := edit(&s); err != nil {
			return err
		}
		rev, err := c.revise(ctx, d, &s)
		if err != nil {
			return err
		}
		return d.activate(rev)
	})
}
