package pipeline

import (
	"context"
	"errors"

	"github.com/leatstream/leat/schemas"
)

// How rows are run that may have ended a process: alone, until it is known which one it was (SEMANTICS 7).

// suspects reports whether an item of r may have ended a process: this one, as its marks tell, or another one whose
// events come round to us.
func (b *batcher) suspects(r *run) bool {
	marked := b.poison.Suspects() > 0
	for i := range r.items {
		if r.items[i].again || marked && b.poison.deaths(markOf(b.digest, r.items[i].digest)) > 0 {
			return true
		}
	}
	return false
}

// suspect runs an item that has seen the process die: alone, and row by row, so that a second death tells which row it
// was. That row is not run a third time: it fails its request, or goes to the dead letters alone if it came by a topic.
func (b *batcher) suspect(ctx context.Context, r *run, m mark) error {
	deaths := b.poison.deaths(m)
	r.trace.patient = true
	if r.in.Rows() == 1 {
		if deaths >= deadly {
			return quarantined()
		}
		r.slots = b.poison.beginAlone(m, deaths, r.slots[:0])
		defer b.poison.endAlone(r.slots)
		return b.apply(ctx, &r.trace, r.in, r.out, r.owner, r.public)
	}
	in, it := schemas.NewBatch(b.sig.Inputs), &r.items[0]
	in.AppendRange(r.in, 0, r.in.Rows())
	kills := false
	for i, at := 0, 0; i < in.Rows(); i++ {
		err := b.rowAlone(ctx, in, i, deaths, func(one *schemas.Batch) error {
			return b.apply(ctx, &r.trace, one, r.out, func(int) *item { return it }, r.public)
		})
		switch {
		case err == nil:
			at++
		case errors.Is(err, errDeadly) && it.byRow && r.in.Rows() > 1:
			kills = true
			it.remove(r.in, at, it.door.p.host.public(err, it.door.p.name))
		default:
			return schemas.FieldErrorf(schemas.KindOf(err), "pipeline.score", rowName(i), "%w", err)
		}
	}
	if !kills {
		b.poison.pass(m)
	}
	return nil
}

// rowAlone has row i of in scored while nothing else runs.
func (b *batcher) rowAlone(ctx context.Context, in *schemas.Batch, i int, deaths byte, score func(one *schemas.Batch) error) error {
	m := markOfRows(b.digest, in, i, i+1)
	if b.poison.deaths(m) >= deadly {
		return quarantined()
	}
	one := schemas.NewBatch(b.sig.Inputs)
	one.AppendRange(in, i, i+1)
	slots := b.poison.beginAlone(m, deaths, nil)
	defer b.poison.endAlone(slots)
	return score(one)
}
