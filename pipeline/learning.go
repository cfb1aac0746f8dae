package pipeline

import (
	"context"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/learn"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// Journal is a pipeline's log of decisions and feedback in one order: see lineage.Journal.
type Journal interface {
	// Read calls fn for what is in the log from a sequence on until fn returns false; with follow until ctx ends.
	Read(ctx context.Context, pipeline string, from uint64, follow, data bool, fn func(lineage.Entry) bool) error
	// Last returns the sequence of the last message, 0 if there is none, and when it was appended.
	Last(ctx context.Context, pipeline string) (uint64, time.Time, error)
}

// Learning is where bandits learn from, and where snapshots of what they know are kept, under bandit.PIPELINE.IDENTITY. Any
// number of processes may share both. Safe for concurrent use.
type Learning struct {
	Journal   Journal
	Snapshots schemas.KV
}

// restore gives a new Learner the newest snapshot, if there is one at or before a position. Errors are of what keeps snapshots: without
// its snapshot the Learner would not know what the log does not hold any more.
func (l *Learning) restore(ctx context.Context, pipeline string, x *learn.Learner, most uint64) error {
	c := x.Config()
	b, _, err := l.Snapshots.Get(ctx, snapshotKey(pipeline, c.Identity()))
	switch {
	case schemas.KindOf(err) == schemas.NotFound:
		return nil
	case err != nil:
		return err
	}
	if learn.SnapshotPosition(b, c.Identity()) <= most {
		_ = x.Restore(b) // a damaged one is none: the log has what is left
	}
	return nil
}

// StateAt returns what a bandit knew when the last feedback that it knew was at a position of the log, made again from the log.
// Unavailable: the log or the snapshots, or a part that is needed, cannot be read (any more).
func (l *Learning) StateAt(ctx context.Context, pipeline, node string, spec *Bandit, plan *route.Plan, position uint64) (*route.State, error) {
	const op = "pipeline.StateAt"
	x, err := learn.New(spec.learning(node, plan))
	if err != nil {
		return nil, err
	}
	if err := l.restore(ctx, pipeline, x, position); err != nil {
		return nil, err
	}
	if position > x.Position() {
		err = l.Journal.Read(ctx, pipeline, x.From(), false, len(spec.Context) > 0, func(e lineage.Entry) bool {
			if e.Sequence <= position {
				feed(x, &e)
			}
			return e.Sequence < position || e.Sequence == position && x.From() <= position
		})
		if err != nil {
			return nil, err
		}
	}
	if at, _ := x.Reward(); at != position {
		return nil, schemas.Errorf(schemas.Unavailable, op, "the bandit at %s knew the log up to %d, which comes out as %d now: the log before it was pruned", node, position, at)
	}
	return x.State(), nil
}

// feed hands one entry of the journal over.
func feed(x *learn.Learner, e *lineage.Entry) {
	switch {
	case e.Record != nil:
		x.Decision(e.Sequence, e.Record)
	case e.Feedback != nil:
		x.Feedback(e.Sequence, e.Feedback)
	default:
		x.End(e.Sequence)
	}
}

// learning is what the bandit at a node learns.
func (b *Bandit) learning(node string, plan *route.Plan) learn.Config {
	c := learn.Config{Node: node, Plan: plan, Reward: b.Reward, Decisions: b.Decisions}
	if c.Decisions == 0 {
		c.Decisions = learn.DefaultDecisions
	}
	return c
}
