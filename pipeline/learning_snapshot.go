package pipeline

import (
	"context"
	"errors"
	"log/slog"

	"github.com/leatstream/leat/pipeline/learn"
	"github.com/leatstream/leat/schemas"
)

func snapshotKey(pipeline, identity string) string { return "bandit." + pipeline + "." + identity }

// save keeps snapshots of what has new rewards. A snapshot that is further on than ours stays.
func (s *follower) save(ctx context.Context) {
	type snapshot struct {
		p        *following
		identity string
		bytes    []byte
		position uint64
		reward   uint64
	}
	var all []snapshot
	s.mu.Lock()
	for _, p := range s.mu.bandits {
		reward, _ := p.learner.Reward()
		if !p.learner.Whole() || reward <= p.saved {
			continue
		}
		b, err := p.learner.Snapshot()
		if err == nil {
			all = append(all, snapshot{p, p.config(), b, p.learner.Position(), reward})
		}
	}
	s.mu.Unlock()
	for _, x := range all {
		if err := s.p.host.Learning.keep(ctx, s.p.name, x.identity, x.bytes, x.position); err != nil {
			if ctx.Err() == nil {
				s.p.host.Log.Warn("a bandit's snapshot could not be kept: who starts next reads more of the lineage", "pipeline", s.p.name, slog.Any("error", err))
			}
			continue
		}
		s.mu.Lock()
		x.p.saved = x.reward
		s.mu.Unlock()
	}
}

// forget deletes the snapshots of a pipeline that was deleted. What it learnt stays in the lineage: of a pipeline that is made anew
// under the name, the bandits know it again.
func (s *follower) forget(ctx context.Context) {
	l := s.p.host.Learning
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, learnWait)
	defer cancel()
	keys, err := l.Snapshots.Keys(ctx, snapshotKey(s.p.name, ""))
	for _, k := range keys {
		if e := l.Snapshots.Delete(ctx, k, 0); schemas.KindOf(e) != schemas.NotFound {
			err = errors.Join(err, e)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.p.host.Log.Warn("snapshots of a deleted pipeline's bandits stay behind", "pipeline", s.p.name, slog.Any("error", err))
	}
}

// keep stores a snapshot unless there is one that is as far on.
func (l *Learning) keep(ctx context.Context, pipeline, identity string, b []byte, position uint64) error {
	key := snapshotKey(pipeline, identity)
	for {
		old, rev, err := l.Snapshots.Get(ctx, key)
		switch {
		case err == nil && learn.SnapshotPosition(old, identity) >= position:
			return nil
		case err == nil:
			_, err = l.Snapshots.Update(ctx, key, b, rev)
		case schemas.KindOf(err) == schemas.NotFound:
			_, err = l.Snapshots.Create(ctx, key, b)
		}
		if !errors.Is(err, schemas.ErrConflict) {
			return err
		}
	}
}
