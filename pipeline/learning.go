package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"sync"
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

func snapshotKey(pipeline, identity string) string { return "bandit." + pipeline + "." + identity }

// learner returns a Learner for a bandit, from the newest snapshot at or before a position if there is one. An error is of the
// configuration; a snapshot that cannot be had is one that is not there.
func (l *Learning) learner(ctx context.Context, pipeline string, c learn.Config, most uint64) (*learn.Learner, error) {
	x, err := learn.New(c)
	if err != nil {
		return nil, err
	}
	b, _, err := l.Snapshots.Get(ctx, snapshotKey(pipeline, c.Identity()))
	if err == nil && learn.SnapshotPosition(b, c.Identity()) <= most {
		_ = x.Restore(b) // a damaged one is none: the log has all that is in it
	}
	return x, nil
}

// StateAt returns what a bandit knew when the last feedback that it knew was at a position of the log, made again from the log.
// Unavailable: the log, or a part of it that is needed, cannot be read any more.
func (l *Learning) StateAt(ctx context.Context, pipeline, node string, spec *Bandit, plan *route.Plan, position uint64) (*route.State, error) {
	const op = "pipeline.StateAt"
	x, err := l.learner(ctx, pipeline, spec.learning(node, plan), position)
	if err != nil {
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

// How the bandits of a pipeline keep up.
const (
	publishEvery = 200 * time.Millisecond // a new state, if there are new rewards
	lookEvery    = 5 * time.Second        // at the end of the log, for how far behind the bandits are
	saveEvery    = 30 * time.Second       // a snapshot, if there are new rewards
	learnAgain   = time.Second            // after the log could not be read, and longer each time
	learnWait    = 2 * time.Second        // for a snapshot, before a revision serves without it
)

// follower keeps the bandits of one pipeline in this process at what the log says: one goroutine reads the log, another hands on what was learnt.
type follower struct {
	p    *processor
	stop context.CancelFunc // nil: nobody reads
	done sync.WaitGroup

	mu struct {
		sync.Mutex
		bandits map[string]*following // by node path
		open    bool                  // a message was begun
		read    uint64                // the last message that was read as a whole
		at      time.Time             // when it was appended
		last    uint64                // the last message in the log, when it was looked at
		lastAt  time.Time
		failing error // why the log cannot be read
	}
}

// following is a bandit that learns.
type following struct {
	learner *learn.Learner
	spec    *Bandit
	bandit  *bandit
	saved   uint64 // position of the last reward in a snapshot of ours
}

// adopt makes the bandits of a revision, which is about to serve, learn: they begin with what is known. What learns the same as in
// the revision before goes on.
func (s *follower) adopt(ctx context.Context, c *compiled) error {
	var nodes []*bandit
	if c.route != nil {
		nodes = c.route.bandits
	}
	l := s.p.host.Learning
	if l == nil {
		if len(nodes) > 0 {
			s.p.host.Log.Warn("bandits do not learn in this process: it has no lineage to read", "pipeline", s.p.name)
		}
		return nil
	}
	s.mu.Lock()
	same := len(nodes) == len(s.mu.bandits)
	next := map[string]*following{}
	for _, b := range nodes {
		c := b.spec.learning(b.path, b.plan)
		old := s.mu.bandits[b.path]
		if old == nil || old.config() != c.Identity() {
			same = false
			continue
		}
		x, err := old.learner.Under(b.plan)
		if err != nil {
			s.mu.Unlock()
			return err
		}
		next[b.path] = &following{learner: x, spec: b.spec, bandit: b, saved: old.saved}
		b.state.Store(x.State())
	}
	if same {
		s.mu.bandits = next
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	s.halt(ctx)
	if s.mu.open { // nobody reads any more; who has seen a part of a message begins anew
		clear(next)
	}
	for _, b := range nodes {
		if next[b.path] != nil {
			continue
		}
		wait, cancel := context.WithTimeout(ctx, learnWait)
		x, err := l.learner(wait, s.p.name, b.spec.learning(b.path, b.plan), ^uint64(0))
		cancel()
		if err != nil {
			return err
		}
		next[b.path] = &following{learner: x, spec: b.spec, bandit: b, saved: x.Position()}
		b.state.Store(x.State())
	}
	s.mu.Lock()
	s.mu.bandits, s.mu.open = next, false
	s.mu.Unlock()
	if len(next) > 0 {
		s.begin()
	}
	return nil
}

func (p *following) config() string {
	c := p.learner.Config()
	return c.Identity()
}

// begin starts to read.
func (s *follower) begin() {
	ctx, stop := context.WithCancel(s.p.stopped)
	s.stop = stop
	s.done.Go(func() { s.follow(ctx) })
	s.done.Go(func() { s.publish(ctx) })
}

// halt stops reading, and keeps what was learnt.
func (s *follower) halt(ctx context.Context) {
	if s.stop == nil {
		return
	}
	s.stop()
	s.done.Wait()
	s.stop = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), learnWait)
	defer cancel()
	s.save(ctx)
}

// follow reads the log until ctx ends, and again when it could not be read: bandits go on with what they know.
func (s *follower) follow(ctx context.Context) {
	l := s.p.host.Learning
	for wait := learnAgain; ctx.Err() == nil; wait = min(2*wait, 30*time.Second) {
		from, data := ^uint64(0), false
		s.mu.Lock()
		for _, p := range s.mu.bandits {
			from, data = min(from, p.learner.From()), data || len(p.spec.Context) > 0
		}
		s.mu.Unlock()
		err := l.Journal.Read(ctx, s.p.name, from, true, data, func(e lineage.Entry) bool {
			s.entry(&e)
			wait = learnAgain
			return true
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = schemas.Errorf(schemas.Unavailable, "pipeline.learn", "the log ended")
		}
		s.broken(ctx, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (s *follower) entry(e *lineage.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.mu.bandits {
		feed(p.learner, e)
	}
	if s.mu.open = e.Record != nil || e.Feedback != nil; !s.mu.open {
		s.mu.read, s.mu.at = e.Sequence, e.Appended
		if s.mu.failing != nil {
			s.mu.failing = nil
			s.p.host.Log.Info("bandits learn again", "pipeline", s.p.name)
		}
	}
}

// broken notes that the log cannot be read. Who has seen a part of a message begins anew, or would see that part twice.
func (s *follower) broken(ctx context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failing == nil {
		s.p.host.Log.Warn("bandits cannot read the lineage, and go on with what they know", "pipeline", s.p.name, slog.Any("error", err))
	}
	s.mu.failing = err
	if !s.mu.open {
		return
	}
	s.mu.open = false
	for _, p := range s.mu.bandits {
		wait, cancel := context.WithTimeout(ctx, learnWait)
		x, err := s.p.host.Learning.learner(wait, s.p.name, p.learner.Config(), ^uint64(0))
		cancel()
		if err == nil {
			p.learner = x
		}
	}
}

// publish hands on what was learnt, tells how far behind it is, and keeps snapshots, until ctx ends.
func (s *follower) publish(ctx context.Context) {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	var looked, saved time.Time
	for {
		s.mu.Lock()
		if !s.mu.open {
			for _, p := range s.mu.bandits {
				p.publish()
			}
		}
		s.mu.Unlock()
		now := time.Now()
		if now.Sub(looked) >= lookEvery {
			looked = now
			s.look(ctx)
		}
		if saved.IsZero() {
			saved = now
		} else if now.Sub(saved) >= saveEvery {
			saved = now
			s.save(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// publish gives the bandit its new state, if there were rewards. A learner that had to begin anew is behind its own bandit for a while.
func (p *following) publish() {
	position, index := p.learner.Reward()
	if at, i := p.bandit.state.Load().Position(); at < position || at == position && i < index {
		p.bandit.state.Store(p.learner.State())
	}
}

// look finds out how far behind the bandits are.
func (s *follower) look(ctx context.Context) {
	wait, cancel := context.WithTimeout(ctx, learnWait)
	defer cancel()
	last, at, err := s.p.host.Learning.Journal.Last(wait, s.p.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.mu.last, s.mu.lastAt = last, at
	}
	s.p.host.m.behind.WithLabelValues(s.p.name).Set(s.behind(time.Now()).Seconds())
	reading := 1.0
	if s.mu.failing != nil {
		reading = 0
	}
	s.p.host.m.learning.WithLabelValues(s.p.name).Set(reading)
}

// behind returns for how long the bandits have not known all that is in the log: 0 when they have read it all. Callers hold mu.
func (s *follower) behind(now time.Time) time.Duration {
	if s.mu.read >= s.mu.last {
		return 0
	}
	if s.mu.at.IsZero() {
		return max(0, now.Sub(s.mu.lastAt))
	}
	return max(0, now.Sub(s.mu.at))
}

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
		if s.mu.open || !p.learner.Whole() || reward <= p.saved {
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
