package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// Promote makes a version the champion of its model, and every pipeline that names the champion a new revision, as one
// change. The champion before is kept for Demote.
func (c *Control) Promote(ctx context.Context, model string, version int) (Result, error) {
	return c.move(ctx, fmt.Sprintf("promote %s@%d", model, version), model, schemas.Champion, version)
}

// Demote undoes the last Promote that was not undone: Invalid if there is none.
func (c *Control) Demote(ctx context.Context, model string) (Result, error) {
	const op = "control.Demote"
	return c.mutate(ctx, "demote "+model, false, func(d *draft) error {
		a, err := c.aliasesOf(ctx, d, model)
		if err != nil {
			return err
		}
		for n := len(a.Previous); n > 0; n = len(a.Previous) {
			back := a.Previous[n-1]
			a.Previous = a.Previous[:n-1]
			_, err := c.reg.Version(ctx, model, back)
			if err == nil {
				return c.point(ctx, d, model, schemas.Champion, back, a)
			}
			if schemas.KindOf(err) != schemas.NotFound { // a version that is gone is passed over
				return err
			}
		}
		return schemas.Errorf(schemas.Invalid, op, "model %s has no earlier champion to go back to; promote a version instead", model)
	})
}

// SetAlias points an alias of a model at a version and makes a new revision of every pipeline that names it, as one
// change. Setting champion is a Promote.
func (c *Control) SetAlias(ctx context.Context, model, alias string, version int) (Result, error) {
	return c.move(ctx, fmt.Sprintf("alias %s@%s", model, alias), model, alias, version)
}

func (c *Control) move(ctx context.Context, cause, model, alias string, version int) (Result, error) {
	if err := schemas.CheckName("alias", alias); err != nil {
		return Result{}, err
	}
	return c.mutate(ctx, cause, false, func(d *draft) error {
		a, err := c.aliasesOf(ctx, d, model)
		if err != nil {
			return err
		}
		if _, err := c.resolve(ctx, d.state, schemas.ModelRef{Name: model, Version: version}); err != nil {
			return err
		}
		if old := a.Aliases[alias]; alias == schemas.Champion && old != 0 && old != version {
			a.Previous = append(a.Previous, old)
			a.Previous = a.Previous[max(0, len(a.Previous)-maxPrevious):]
		}
		return c.point(ctx, d, model, alias, version, a)
	})
}

// aliasesOf returns a copy of a model's aliases; NotFound if there is no such model.
func (c *Control) aliasesOf(ctx context.Context, d *draft, model string) (*aliases, error) {
	if _, err := c.versions(ctx, model); err != nil {
		return nil, err
	}
	return d.aliases[model].clone(), nil
}

// versions is the registry's with a "did you mean".
func (c *Control) versions(ctx context.Context, model string) ([]scorers.Version, error) {
	vs, err := c.reg.Versions(ctx, model)
	if err == nil || schemas.KindOf(err) != schemas.NotFound {
		return vs, err
	}
	names, nerr := c.reg.Names(ctx)
	if nerr != nil {
		return nil, nerr
	}
	return nil, schemas.Errorf(schemas.NotFound, "control.models", "no model %.80s%s", model, document.Meant(model, names))
}

// point sets alias to version on a, puts a into the draft and revises every pipeline that names the alias.
func (c *Control) point(ctx context.Context, d *draft, model, alias string, version int, a *aliases) error {
	old := a.Aliases[alias]
	action := fmt.Sprintf("%s -> %d", alias, version)
	if old != 0 {
		action = fmt.Sprintf("%s %d -> %d", alias, old, version)
	}
	if old == version {
		d.changes = append(d.changes, Change{Model: model, Action: Unchanged})
		return nil
	}
	a.Aliases[alias] = version
	d.setAliases(model, a)
	d.changes = append(d.changes, Change{Model: model, Action: action})
	d.note(Entry{Action: action, Model: model})
	return c.reviseAll(ctx, d, schemas.ModelRef{Name: model, Alias: alias})
}

// reviseAll makes a new revision of every pipeline that names ref. If one of them does not fit the new version, nothing
// changes, and the error names it.
func (c *Control) reviseAll(ctx context.Context, d *draft, ref schemas.ModelRef) error {
	for _, name := range slices.Sorted(maps.Keys(d.pipelines)) {
		old := d.pipelines[name]
		if !names(old, ref) {
			continue
		}
		spec := old.Spec
		rev, err := c.revise(ctx, d, &spec)
		if err != nil {
			return fmt.Errorf("pipeline %s cannot follow %s: %w", name, ref, err)
		}
		if err := d.activate(rev); err != nil {
			return err
		}
	}
	return nil
}

// names reports whether a pipeline's spec names exactly this reference.
func names(rev *pipeline.Revision, ref schemas.ModelRef) bool {
	return slices.ContainsFunc(rev.Models, func(m pipeline.ResolvedModel) bool { return m.Ref == ref.String() })
}

// DeleteAlias removes an alias; Invalid while a pipeline names it, NotFound if there is none.
func (c *Control) DeleteAlias(ctx context.Context, model, alias string) (Result, error) {
	const op = "control.DeleteAlias"
	return c.mutate(ctx, fmt.Sprintf("delete alias %s@%s", model, alias), false, func(d *draft) error {
		a, err := c.aliasesOf(ctx, d, model)
		if err != nil {
			return err
		}
		version, ok := a.Aliases[alias]
		if !ok {
			return schemas.Errorf(schemas.NotFound, op, "model %s has no alias %.80q%s", model, alias, document.Meant(alias, slices.Sorted(maps.Keys(a.Aliases))))
		}
		var users []string
		for _, name := range slices.Sorted(maps.Keys(d.pipelines)) {
			if names(d.pipelines[name], schemas.ModelRef{Name: model, Alias: alias}) {
				users = append(users, "pipeline "+name)
			}
		}
		if len(users) > 0 {
			return schemas.Errorf(schemas.Invalid, op, "alias %s@%s is in use by %s", model, alias, strings.Join(users, ", "))
		}
		delete(a.Aliases, alias)
		if alias == schemas.Champion {
			a.Previous = nil
		}
		d.setAliases(model, a)
		action := fmt.Sprintf("%s %d -> nothing", alias, version)
		d.changes = append(d.changes, Change{Model: model, Action: action})
		d.note(Entry{Action: action, Model: model})
		return nil
	})
}

// Aliases returns what the aliases of a model point at. A model without any has an empty map.
func (c *Control) Aliases(ctx context.Context, model string) (map[string]int, error) {
	s, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	return s.aliases[model].clone().Aliases, nil
}
