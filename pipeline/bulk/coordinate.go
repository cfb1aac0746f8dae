package bulk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/internal/fault"
	"github.com/leatstream/leat/schemas"
)

// coordinate runs one job as long as this process holds its lease and the job wants it.
func (s *Service) coordinate(ctx context.Context, j *Job) {
	log := s.log.With("job", j.ID)
	for ctx.Err() == nil {
		if !s.reachable(ctx, j) {
			return
		}
		l := s.takeLease(ctx, j.ID)
		if l == nil {
			return
		}
		err := s.underLease(ctx, l, j.ID)
		if !errors.Is(err, errLost) {
			l.release(ctx)
			if err != nil && ctx.Err() == nil {
				log.Error("job", "error", err)
			}
			return
		}
		log.Warn("another process coordinates the job")
	}
}

// reachable waits until this process sees the job's files; others may see them meanwhile. False: ctx has ended.
func (s *Service) reachable(ctx context.Context, j *Job) bool {
	if j.Status == Done || j.Status == Cancelled {
		return true
	}
	var paths []string
	if from, err := parseFrom(j.From); err == nil && from.kind == fileLocation {
		paths = append(paths, from.name)
	}
	if to, err := parseTo(j.To); err == nil && to.kind == fileLocation {
		paths = append(paths, filepath.Dir(to.name))
	}
	tick := time.NewTicker(s.config.LeaseExpiry)
	defer tick.Stop()
	for told := false; ; {
		missing := ""
		for _, p := range paths {
			if _, err := os.Stat(p); err != nil {
				missing = p
			}
		}
		if missing == "" {
			return true
		}
		if !told {
			told = true
			s.note(ctx, j.ID, "waiting for a process that sees "+missing)
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// note stores a reason with a job that goes on.
func (s *Service) note(ctx context.Context, id, reason string) {
	_, err := s.store.update(ctx, id, func(j *Job) error {
		if j.Reason == reason || j.Final() || j.Status == Paused {
			return errUnchanged
		}
		j.Reason = reason
		return nil
	})
	if err != nil && ctx.Err() == nil {
		s.log.Warn("job", "job", id, "error", err)
	}
}

// takeLease returns the lease, nil when ctx ended first.
func (s *Service) takeLease(ctx context.Context, id string) *lease {
	s.mu.Lock()
	l := s.mu.leases[id]
	delete(s.mu.leases, id)
	s.mu.Unlock()
	if l != nil {
		return l
	}
	l = s.newLease(id)
	if l.acquire(ctx) != nil {
		return nil
	}
	return l
}

// underLease does what the job needs and returns when it needs no more, or with the reason why this process stops.
func (s *Service) underLease(ctx context.Context, l *lease, id string) error {
	g, gctx := errgroup.WithContext(ctx)
	held, stop := context.WithCancel(gctx)
	g.Go(func() error {
		if err := l.hold(held); errors.Is(err, errLost) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		defer stop()
		return s.drive(gctx, l, id)
	})
	return g.Wait()
}

// drive tries until the job is done, or stands still for a reason that is stored with it.
func (s *Service) drive(ctx context.Context, l *lease, id string) error {
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		j, _, err := s.store.get(ctx, id)
		switch {
		case err != nil:
		case j.Status == Done || j.Status == Cancelled:
			if err = s.clean(ctx, j); err == nil || schemas.KindOf(err) != schemas.Unavailable && schemas.KindOf(err) != schemas.Expired {
				return err
			}
		case j.Status != Pending && !j.live():
			return nil
		default:
			if err = s.attempt(ctx, l, j); err == nil {
				continue // done: clean up
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch kind := schemas.KindOf(err); {
		case errors.Is(err, errOvertaken), errors.Is(err, connectors.ErrRevoked) && l.touch(ctx) != nil:
			return errLost
		case errors.Is(err, errNotLive):
			return nil
		case errors.Is(err, errResultsFull):
			return s.pauseFull(ctx, id)
		case kind == schemas.Unavailable || kind == schemas.Overloaded || kind == schemas.Expired:
			s.log.Warn("job stopped; it goes on by itself", "job", id, "error", err, "after", wait)
			s.note(ctx, id, "trying again: "+err.Error())
		default:
			return s.fail(ctx, id, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

var (
	errOvertaken   = errors.New("the job has another owner")
	errNotLive     = errors.New("the job is not running")
	errResultsFull = errors.New("the result stream is full")
)

// fail ends a job; its results stay for a resume.
func (s *Service) fail(ctx context.Context, id string, cause error) error {
	s.log.Error("job failed", "job", id, "error", cause)
	e := schemas.AsError("bulk.fail", cause)
	_, err := s.store.update(ctx, id, func(j *Job) error {
		if j.Final() {
			return errUnchanged
		}
		j.Status, j.Auto, j.Reason, j.Finished, j.Rate = Failed, false, e.Error(), time.Now().UTC(), 0
		return nil
	})
	return err
}

// pauseFull stops a job whose results do not fit. What was inserted stays; chunks in work come round again.
func (s *Service) pauseFull(ctx context.Context, id string) error {
	j, err := s.store.update(ctx, id, func(j *Job) error {
		if !j.live() {
			return errUnchanged
		}
		j.Status, j.Auto, j.Rate = Paused, false, 0
		j.Reason = "the result stream is full (" + sizeText(j.ResultBytes) + "): leat job resume " + j.ID + " --result-bytes " + sizeText(2*j.ResultBytes)
		return nil
	})
	if err == nil && j.Status == Paused {
		s.m.pauses.Inc()
		s.log.Warn("job paused", "job", id, "reason", j.Reason)
	}
	return err
}

// clean drops what a job that has ended leaves behind.
func (s *Service) clean(ctx context.Context, j *Job) error {
	if err := s.drop(ctx, j); err != nil {
		return err
	}
	_, err := s.store.update(ctx, j.ID, func(j *Job) error {
		j.Cleaned = true
		return nil
	})
	return err
}

// attempt feeds and collects until the sink is complete and the job is stored as done.
func (s *Service) attempt(ctx context.Context, l *lease, j *Job) error {
	c := &coordinator{s: s, owner: s.id + "/" + formatUint(l.term)}
	rev, err := s.store.revision(ctx, j.ID)
	if err != nil {
		return err
	}
	pinned, err := s.pin(ctx, j, rev)
	if err != nil {
		return err
	}
	defer pinned.Close()
	c.sig = rev.Signature
	// Queue and log first: workers come as soon as the job runs.
	if err := s.deps.Queues.EnsureQueue(ctx, j.queueName(), s.config.QueueBytes); err != nil {
		return err
	}
	if c.log, err = s.deps.Logs.OpenLog(ctx, j.logConfig()); err != nil {
		return err
	}
	if c.job, err = c.begin(ctx, j.ID, pinned.Environment()); err != nil {
		return err
	}
	if err := c.readLog(ctx); err != nil {
		return err
	}
	if c.sink, err = s.openSink(ctx, c.job, c.sig.Outputs); err != nil {
		return err
	}
	defer c.sink.abort()
	c.count.Counters = c.sink.counters()
	c.count.recall(c.plans)
	c.count.Total = c.job.Ends.total()
	c.gate = newGate(c.count.Written, int64(s.config.Window))
	c.total = make(chan int64, 1) // the feeder sends once
	g, gctx := errgroup.WithContext(ctx)
	keep, stop := context.WithCancel(gctx)
	g.Go(func() error {
		return c.feed(gctx, func() (source, error) { return s.openSource(gctx, c.job, rev) })
	})
	g.Go(func() error { return c.keep(keep) })
	g.Go(func() error {
		defer stop()
		return c.collect(gctx)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return c.finish(ctx, l)
}

// via is how lineage records name the way in.
const via = "job"

// coordinator is one attempt at a job.
type coordinator struct {
	s     *Service
	job   *Job // as it was at the start of the attempt
	owner string
	sig   schemas.Signature
	log   schemas.Log
	sink  sink
	gate  *gate
	total chan int64 // number of chunks, once the feeder knows it

	plans map[int64]span // of chunks that were fed, or have a result
	done  map[int64]bool // chunks that have a result

	count counting
}

// begin makes the attempt the owner of the job's counters.
func (c *coordinator) begin(ctx context.Context, id string, env pipeline.Environment) (*Job, error) {
	j, err := c.s.store.update(ctx, id, func(j *Job) error {
		if j.Status != Pending && !j.live() {
			return errNotLive
		}
		if j.Started.IsZero() {
			j.Started = time.Now().UTC()
		}
		if j.Environment == (pipeline.Environment{}) {
			j.Environment = env
		}
		j.Status, j.Auto, j.Reason, j.Owner = Running, false, "", c.owner
		if env != j.Environment && !j.MixedEnvironments {
			j.Reason = "waiting for a worker with " + environment(j.Environment) + "; this one has " + environment(env) +
				": leat job resume " + j.ID + " --mixed-environments lets it take part, with other last bits perhaps"
		}
		return nil
	})
	return j, err
}

// readLog finds out which chunks were planned and which have results.
func (c *coordinator) readLog(ctx context.Context) error {
	c.plans, c.done = map[int64]span{}, map[int64]bool{}
	var bad error
	err := c.log.Read(ctx, 0, nil, false, func(e *schemas.Entry) bool {
		bad = c.remember(e)
		return bad == nil
	})
	return errors.Join(err, bad)
}

func (c *coordinator) remember(e *schemas.Entry) error {
	if n, ok := planNumber(e.Subject); ok {
		sp, err := parsePlan(e.Payload)
		c.plans[n] = sp
		return err
	}
	r, err := parseResult(e.Payload)
	if err == nil && r.Part == 0 {
		c.plans[r.Chunk], c.done[r.Chunk] = r.span, true
	}
	return err
}

// finish makes the sink's content visible and the job done.
func (c *coordinator) finish(ctx context.Context, l *lease) error {
	if l.touch(ctx) != nil {
		return errOvertaken
	}
	if fault.DoneFirst {
		if err := c.storeDone(ctx); err != nil {
			return err
		}
		fault.Widen()
		return c.sink.commit(ctx)
	}
	if err := c.sink.commit(ctx); err != nil {
		return err
	}
	return c.storeDone(ctx)
}

// storeDone ends the job.
func (c *coordinator) storeDone(ctx context.Context) error {
	end := c.count.snapshot()
	_, err := c.s.store.update(ctx, c.job.ID, func(j *Job) error {
		if err := c.owns(j); err != nil {
			return err
		}
		now := time.Now().UTC()
		j.take(end)
		j.Chunks, j.Total, j.Passed = j.Written, max(j.Total, j.Passed), max(j.Total, j.Passed)
		if d := now.Sub(j.Started).Seconds(); d > 0 {
			j.Rate = float64(j.Rows) / d
		}
		j.Status, j.Auto, j.Reason, j.Finished = Done, false, "", now
		return nil
	})
	if err == nil {
		c.s.log.Info("job done", "job", c.job.ID, "rows", end.Rows, "rejected", end.Rejected, "skipped", end.Skipped)
	}
	return err
}

// owns reports why the attempt must not write the job any more.
func (c *coordinator) owns(j *Job) error {
	switch {
	case j.Owner != c.owner:
		return errOvertaken
	case !j.live():
		return errNotLive
	}
	return nil
}
