package control

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// Push stores an upload as a model's next version (see registry.PushBody) and, if it is the first, makes it callable
// (see Pushed). If the process dies in between, pushing again or Run does the second half.
func (c *Control) Push(ctx context.Context, body io.Reader, flags scorers.Manifest) (v scorers.Version, created bool, r Result, err error) {
	v, created, err = c.reg.PushBody(ctx, body, flags)
	if err != nil {
		return v, false, r, err
	}
	r, err = c.Pushed(ctx, v)
	return v, created, r, err
}

// Pushed makes a model that has no aliases yet callable: alias champion points at v, and there is a pipeline of the
// model's name with the route {model: NAME@champion}, unless a pipeline of that name exists. For a model that was made
// callable before it does nothing: later versions go live by Promote alone.
func (c *Control) Pushed(ctx context.Context, v scorers.Version) (Result, error) {
	return c.mutate(ctx, "push", false, func(d *draft) error {
		if d.aliases[v.Name] != nil {
			return nil
		}
		a := d.aliases[v.Name].clone()
		if err := c.point(ctx, d, v.Name, schemas.Champion, v.Version, a); err != nil {
			return err
		}
		if d.pipelines[v.Name] != nil {
			return nil
		}
		spec := ownPipeline(v.Name)
		rev, err := c.revise(ctx, d, &spec)
		if err != nil {
			return err
		}
		return d.activate(rev)
	})
}

// ownPipeline is the pipeline that a first push makes.
func ownPipeline(model string) pipeline.Spec {
	return pipeline.Spec{
		APIVersion: pipeline.APIVersion, Kind: pipeline.Kind, Name: model,
		Route: pipeline.Node{Model: schemas.ModelRef{Name: model, Alias: schemas.Champion}.String()},
	}.Defaulted()
}

// isOwn reports whether a pipeline is still what the first push of its model made.
func isOwn(rev *pipeline.Revision, model string) bool {
	if rev == nil || rev.Spec.Name != model {
		return false
	}
	digest, err := pipeline.SpecDigest(ownPipeline(model))
	return err == nil && digest == rev.SpecDigest
}

// DeleteModel removes a version, or with version 0 the model: all its versions, its aliases, and the pipeline that its
// first push made. Invalid, naming who, while anything else refers to it: a pipeline that resolves to it, an alias that
// points at it (champion too, unless the whole model goes), or whatever Uses knows. The only version is the model.
func (c *Control) DeleteModel(ctx context.Context, model string, version int) (Result, error) {
	const op = "control.DeleteModel"
	cause := "delete " + model
	if version > 0 {
		cause = fmt.Sprintf("delete %s@%d", model, version)
	}
	return c.mutate(ctx, cause, false, func(d *draft) error {
		vs, err := c.versions(ctx, model)
		if err != nil {
			return err
		}
		if version != 0 {
			if _, err := c.resolve(ctx, d.state, schemas.ModelRef{Name: model, Version: version}); err != nil {
				return err
			}
			if len(vs) > 1 {
				vs = slices.DeleteFunc(vs, func(v scorers.Version) bool { return v.Version != version })
				return c.deleteVersion(ctx, d, vs[0])
			}
		}
		users, err := c.users(ctx, d, model, vs, true)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return schemas.Errorf(schemas.Invalid, op, "model %s is in use by %s", model, strings.Join(users, ", "))
		}
		if isOwn(d.pipelines[model], model) {
			if err := d.remove(model); err != nil {
				return err
			}
		}
		d.setAliases(model, nil)
		for _, v := range vs {
			d.drop(v)
		}
		return nil
	})
}

func (c *Control) deleteVersion(ctx context.Context, d *draft, v scorers.Version) error {
	users, err := c.users(ctx, d, v.Name, []scorers.Version{v}, false)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return schemas.Errorf(schemas.Invalid, "control.DeleteModel", "model %s@%d is in use by %s", v.Name, v.Version, strings.Join(users, ", "))
	}
	d.drop(v)
	return nil
}

func (d *draft) drop(v scorers.Version) {
	d.drops = append(d.drops, drop{v.Name, v.Version})
	d.changes = append(d.changes, Change{Model: v.Name, Action: fmt.Sprintf("version %d %s", v.Version, Deleted)})
	d.note(Entry{Action: fmt.Sprintf("version %d %s", v.Version, Deleted), Model: v.Name})
}

// users lists what refers to the versions. whole: the model goes altogether, so what its first push made does not count.
func (c *Control) users(ctx context.Context, d *draft, model string, vs []scorers.Version, whole bool) ([]string, error) {
	going := map[int]bool{}
	for _, v := range vs {
		going[v.Version] = true
	}
	var users []string
	if a := d.aliases[model]; a != nil {
		for _, alias := range slices.Sorted(maps.Keys(a.Aliases)) {
			if going[a.Aliases[alias]] && !(whole && alias == schemas.Champion) {
				users = append(users, fmt.Sprintf("alias %s@%s", model, alias))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.pipelines)) {
		rev := d.pipelines[name]
		if whole && isOwn(rev, model) {
			continue
		}
		for _, m := range rev.Models {
			if m.Name == model && going[m.Version] {
				users = append(users, fmt.Sprintf("pipeline %s (%s: %s)", name, m.Node, m.Ref))
			}
		}
	}
	for _, uses := range c.uses {
		for _, v := range vs {
			u, err := uses(ctx, "", model, v.Version)
			if err != nil {
				return nil, err
			}
			users = append(users, u...)
		}
		if whole && isOwn(d.pipelines[model], model) {
			u, err := uses(ctx, model, "", 0)
			if err != nil {
				return nil, err
			}
			users = append(users, u...)
		}
	}
	return slices.Compact(users), nil
}
