package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// Result says what a change did, or would do.
type Result struct {
	Epoch   uint64   `json:"epoch"` // number of the change; of the last one if nothing changed
	DryRun  bool     `json:"dry_run,omitempty"`
	Changes []Change `json:"changes"`
}

// Change is what a change did to one pipeline or model.
type Change struct {
	Pipeline string `json:"pipeline,omitempty"`
	Model    string `json:"model,omitempty"`
	Action   string `json:"action"` // created, changed, unchanged, deleted; for a model: champion 1 -> 2
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"` // revision
	Note     string `json:"note,omitempty"`
	Diff     string `json:"diff,omitempty"`
}

// What a change does to a pipeline.
const (
	Created   = "created"
	Changed   = "changed"
	Unchanged = "unchanged"
	Deleted   = "deleted"
)

// Apply makes the pipelines what the specs say: all of them or, if anything is wrong with any of them, none, and then
// the Invalid error has every fault (document.Faults). With dry nothing is changed, and the Result says what would be.
func (c *Control) Apply(ctx context.Context, specs []pipeline.Spec, dry bool) (Result, error) {
	const op = "control.Apply"
	if len(specs) == 0 {
		return Result{}, schemas.Errorf(schemas.Invalid, op, "no pipeline to apply")
	}
	return c.mutate(ctx, "apply", dry, func(d *draft) error {
		var faults document.Faults
		named := map[string]bool{}
		for i := range specs {
			s := &specs[i]
			if named[s.Name] {
				faults = append(faults, document.Fault{Path: "name", Text: fmt.Sprintf("pipeline %.80q is here twice", s.Name)})
				continue
			}
			named[s.Name] = true
			rev, err := c.revise(ctx, d, s)
			var fs document.Faults
			if errors.As(err, &fs) {
				faults = append(faults, prefixed(fs, s.Name, len(specs) > 1)...)
				continue
			}
			if err != nil {
				return err
			}
			if err := d.activate(rev); err != nil {
				return err
			}
		}
		if len(faults) == 0 {
			faults = d.loops(named, c.c.Facts)
		}
		return faults.Err(op)
	})
}

// prefixed says which pipeline a fault is of, where there are several.
func prefixed(fs document.Faults, name string, several bool) document.Faults {
	if !several || name == "" {
		return fs
	}
	out := slices.Clone(fs)
	for i := range out {
		out[i].Text += " (in pipeline " + name + ")"
	}
	return out
}

// revise makes the revision that a spec means on the draft.
func (c *Control) revise(ctx context.Context, d *draft, s *pipeline.Spec) (*pipeline.Revision, error) {
	models, sig, err := s.Resolve(ctx, resolver{c, d.state}, c.c.Facts)
	if err != nil {
		return nil, err
	}
	digest, err := pipeline.SpecDigest(*s)
	if err != nil {
		return nil, err
	}
	return &pipeline.Revision{
		Revision: pipeline.RevisionOf(digest, models), SpecDigest: digest, Spec: s.Defaulted(), Models: models,
		Signature: sig, Created: d.time, Cause: d.cause,
	}, nil
}

// activate puts a revision in place of the one that is active, unless they are the same.
func (d *draft) activate(rev *pipeline.Revision) error {
	name := rev.Spec.Name
	old := d.pipelines[name]
	ch := Change{Pipeline: name, Action: Created, To: rev.Revision}
	if old != nil {
		ch.Action, ch.From = Changed, old.Revision
		if old.Revision == rev.Revision {
			ch.Action = Unchanged
			d.changes = append(d.changes, ch)
			return nil
		}
		ch.Note = signatureNote(old.Signature, rev.Signature)
	}
	var err error
	if ch.Diff, err = textDiff(old, rev); err != nil {
		return err
	}
	d.setPipeline(name, rev)
	d.changes = append(d.changes, ch)
	d.note(Entry{Action: ch.Action, Pipeline: name, From: ch.From, To: ch.To, Models: rev.Models, Diff: ch.Diff, Spec: &rev.Spec})
	return nil
}

// signatureNote tells an operator that callers may have to change too.
func signatureNote(from, to schemas.Signature) string {
	var parts []string
	for _, s := range []struct {
		what string
		a, b *schemas.Schema
	}{{"inputs", from.Inputs, to.Inputs}, {"outputs", from.Outputs, to.Outputs}} {
		if s.a != nil && s.b != nil && s.a.ID() != s.b.ID() {
			parts = append(parts, fmt.Sprintf("%s were (%s), are (%s)", s.what, s.a, s.b))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "the signature changes: " + strings.Join(parts, "; ")
}

func (d *draft) remove(name string) error {
	old := d.pipelines[name]
	diff, err := textDiff(old, nil)
	if err != nil {
		return err
	}
	d.setPipeline(name, nil)
	d.changes = append(d.changes, Change{Pipeline: name, Action: Deleted, From: old.Revision, Diff: diff})
	d.note(Entry{Action: Deleted, Pipeline: name, From: old.Revision, Diff: diff})
	return nil
}

// loops finds applied pipelines whose answers come back to them through the topics of others: they would be scored again
// for ever.
func (d *draft) loops(applied map[string]bool, f pipeline.Facts) document.Faults {
	next := map[schemas.TopicRef][]*pipeline.Revision{} // by input topic
	for _, rev := range d.pipelines {
		if in := rev.Spec.Input; in != nil && in.Topic != "" {
			at := f.Topic(in.Topic)
			next[at] = append(next[at], rev)
		}
	}
	for _, revs := range next {
		slices.SortFunc(revs, func(a, b *pipeline.Revision) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	}
	var faults document.Faults
	for name, rev := range d.pipelines {
		if !applied[name] || rev.Spec.Output == nil || rev.Spec.Input.Topic == "" {
			continue
		}
		if path := findLoop(rev, next, f); path != nil {
			faults = append(faults, document.Fault{Path: "output.topic", Text: fmt.Sprintf(
				"%q leads back to the input of pipeline %s (%s): its answers would be scored again, for ever; choose another", rev.Spec.Output.Topic, name, strings.Join(path, " -> "))})
		}
	}
	slices.SortFunc(faults, func(a, b document.Fault) int { return strings.Compare(a.Text, b.Text) })
	return faults
}

// findLoop returns the pipelines on the way from a pipeline back to itself, nil if there is none.
func findLoop(from *pipeline.Revision, next map[schemas.TopicRef][]*pipeline.Revision, f pipeline.Facts) []string {
	seen := map[string]bool{}
	var walk func(topic string, path []string) []string
	walk = func(topic string, path []string) []string {
		for _, rev := range next[f.Topic(topic)] {
			name := rev.Spec.Name
			if name == from.Spec.Name {
				return append(path, name)
			}
			if seen[name] || rev.Spec.Output == nil {
				continue
			}
			seen[name] = true
			if found := walk(rev.Spec.Output.Topic, append(path, name)); found != nil {
				return found
			}
		}
		return nil
	}
	return walk(from.Spec.Output.Topic, []string{from.Spec.Name})
}

// DeletePipeline removes a pipeline: NotFound if there is none, Invalid while something uses it.
func (c *Control) DeletePipeline(ctx context.Context, name string) (Result, error) {
	return c.mutate(ctx, "delete", false, func(d *draft) error {
		if _, err := d.pipeline(name); err != nil {
			return err
		}
		var users []string
		for _, uses := range c.uses {
			u, err := uses(ctx, name, "", 0)
			if err != nil {
				return err
			}
			users = append(users, u...)
		}
		if len(users) > 0 {
			return schemas.Errorf(schemas.Invalid, "control.DeletePipeline", "pipeline %s is in use by %s", name, strings.Join(users, ", "))
		}
		return d.remove(name)
	})
}
