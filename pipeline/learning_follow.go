package pipeline

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/learn"
	"github.com/leatstream/leat/schemas"
)

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
		read    uint64                // the last message that was read as a whole
		at      time.Time             // when it was appended
		last    uint64                // the last message in the log, when it was looked at
		lastAt  time.Time
		failing error // why the log cannot be read
	}
}

// following is a bandit that learns.
type following struct {
	learner  *learn.Learner
	spec     *Bandit
	bandit   *bandit
	restored bool   // the learner has what the snapshot knew: only then it reads on
	saved    uint64 // position of the last reward in a snapshot of ours
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
		next[b.path] = &following{learner: x, spec: b.spec, bandit: b, restored: old.restored, saved: old.saved}
		b.state.Store(x.State())
	}
	if same {
		s.mu.bandits = next
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	s.halt(ctx)
	for _, b := range nodes {
		if next[b.path] != nil {
			continue
		}
		x, err := learn.New(b.spec.learning(b.path, b.plan))
		if err != nil {
			return err
		}
		p := &following{spec: b.spec, bandit: b}
		if err := s.restore(ctx, p, x); err != nil {
			s.p.host.Log.Warn("what a bandit knew cannot be read: it begins without, and tries again", "pipeline", s.p.name, "node", b.path, slog.Any("error", err))
		}
		next[b.path] = p
		b.state.Store(x.State())
	}
	s.mu.Lock()
	s.mu.bandits = next
	s.mu.Unlock()
	if len(next) > 0 {
		s.begin()
	}
	return nil
}

// restore gives a bandit a new learner, with what the snapshot knows; without, if that cannot be had.
func (s *follower) restore(ctx context.Context, p *following, x *learn.Learner) error {
	wait, cancel := context.WithTimeout(ctx, learnWait)
	defer cancel()
	err := s.p.host.Learning.restore(wait, s.p.name, x, ^uint64(0))
	s.mu.Lock()
	defer s.mu.Unlock()
	p.learner, p.restored, p.saved = x, err == nil, x.Position()
	return err
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
	s.abort()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), learnWait)
	defer cancel()
	s.save(ctx)
}

// follow reads the log until ctx ends, and again when it could not be read: bandits go on with what they know.
func (s *follower) follow(ctx context.Context) {
	for wait := learnAgain; ctx.Err() == nil; wait = min(2*wait, 30*time.Second) {
		from, data, err := s.ready(ctx)
		if err == nil {
			err = s.p.host.Learning.Journal.Read(ctx, s.p.name, from, true, data, func(e lineage.Entry) bool {
				s.entry(&e)
				wait = learnAgain
				return true
			})
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = schemas.Errorf(schemas.Unavailable, "pipeline.learn", "the log ended")
		}
		s.broken(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// ready returns from where the log has to be read, and whether contexts are needed, once all learners have what snapshots knew.
func (s *follower) ready(ctx context.Context) (from uint64, data bool, err error) {
	for {
		var without *following
		var c learn.Config
		from, data = ^uint64(0), false
		s.mu.Lock()
		for _, p := range s.mu.bandits {
			if !p.restored {
				without, c = p, p.learner.Config()
			}
			from, data = min(from, p.learner.From()), data || len(p.spec.Context) > 0
		}
		s.mu.Unlock()
		if without == nil {
			return from, data, nil
		}
		x, err := learn.New(c)
		if err == nil {
			err = s.restore(ctx, without, x)
		}
		if err != nil {
			return 0, false, err
		}
	}
}

func (s *follower) entry(e *lineage.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.mu.bandits {
		feed(p.learner, e)
	}
	if e.Record != nil || e.Feedback != nil {
		return
	}
	s.mu.read, s.mu.at = e.Sequence, e.Appended
	if s.mu.failing != nil {
		s.mu.failing = nil
		s.p.host.Log.Info("bandits learn again", "pipeline", s.p.name)
	}
}

// broken notes that the log cannot be read. A message of which a part was read is read again.
func (s *follower) broken(err error) {
	s.abort()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failing == nil {
		s.p.host.Log.Warn("bandits cannot read the lineage, and go on with what they know", "pipeline", s.p.name, slog.Any("error", err))
	}
	s.mu.failing = err
}

// abort is called when nobody reads.
func (s *follower) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.mu.bandits {
		p.learner.Abort()
	}
}

// publish hands on what was learnt, tells how far behind it is, and keeps snapshots, until ctx ends.
func (s *follower) publish(ctx context.Context) {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	var looked, saved time.Time
	for {
		s.mu.Lock()
		for _, p := range s.mu.bandits {
			p.publish()
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

// publish gives the bandit its new state, if there were rewards.
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
