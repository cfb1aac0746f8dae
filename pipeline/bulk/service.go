package bulk

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// Service runs jobs in one process: it coordinates those whose lease it gets, and works on the chunks of all. Every
// process of a deployment runs one. Safe for concurrent use; Run is called once.
type Service struct {
	config Config
	deps   Deps
	store  store
	m      *Metrics
	log    *slog.Logger
	id     string // of this process's life, in leases and jobs

	mu struct {
		sync.Mutex
		jobs   map[string]*watched
		leases map[string]*lease // of jobs that were made here, until their coordinator takes them
	}
	tasks sync.WaitGroup
}

// watched is what a process knows of one job.
type watched struct {
	job   *Job
	rev   uint64
	tasks [2]*task // coordinating, working
}

// task is a goroutine that runs as long as the job wants it.
type task struct {
	generation int
	cancel     context.CancelFunc
	stopped    bool // guarded by Service.mu
	done       chan struct{}
}

// The tasks of a job.
const (
	coordinating = iota
	working
)

// New checks the configuration and the dependencies. It opens nothing.
func New(c Config, d Deps) (*Service, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := d.validate(); err != nil {
		return nil, err
	}
	s := &Service{config: c, deps: d, store: store{d.Jobs}, m: d.Metrics, log: d.Log, id: strings.ToLower(ulid.Make().String())}
	if s.m == nil {
		s.m = NewMetrics(nil)
	}
	s.mu.jobs, s.mu.leases = map[string]*watched{}, map[string]*lease{}
	return s, nil
}

// Run coordinates and works until ctx ends. Then chunks in work are handed back, leases are given up, and the jobs go on
// in other processes or at the next start. It returns ctx's error, or the store's if it cannot be watched.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.tasks.Wait()
	defer cancel()
	return s.deps.Jobs.Watch(ctx, jobPrefix, func(key string, value []byte, rev uint64, deleted bool) {
		id := strings.TrimPrefix(key, jobPrefix)
		if id == "" {
			return
		}
		if deleted {
			s.forget(id)
			return
		}
		j, err := parseJob(value)
		if err != nil {
			s.log.Error("job", "job", id, "error", err)
			return
		}
		s.seen(ctx, j, rev)
	})
}

func (s *Service) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.mu.jobs[id]; w != nil {
		for _, t := range w.tasks {
			if t != nil {
				t.cancel()
			}
		}
		delete(s.mu.jobs, id)
		s.countLocked()
	}
}

// seen starts and stops the job's tasks by what the job says now.
func (s *Service) seen(ctx context.Context, j *Job, rev uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.mu.jobs[j.ID]
	if w == nil {
		w = &watched{}
		s.mu.jobs[j.ID] = w
	}
	if rev <= w.rev {
		return
	}
	w.job, w.rev = j, rev
	coordinate := j.Status == Pending || j.live() || (j.Status == Done || j.Status == Cancelled) && !j.Cleaned
	s.want(ctx, w, coordinating, coordinate, s.coordinate)
	s.want(ctx, w, working, j.Status == Running && j.Environment != pipeline.Environment{}, s.work)
	s.countLocked()
}

// want starts a task or ends it. A new one begins when the one before it has ended.
func (s *Service) want(ctx context.Context, w *watched, which int, on bool, run func(context.Context, *Job)) {
	before := w.tasks[which]
	if before != nil && on && before.generation == w.job.Generation && !before.stopped && !before.ended() {
		return
	}
	if before != nil {
		before.stopped = true
		before.cancel()
	}
	if !on {
		return
	}
	t := &task{generation: w.job.Generation, done: make(chan struct{})}
	var tctx context.Context
	tctx, t.cancel = context.WithCancel(ctx)
	w.tasks[which] = t
	j := w.job
	s.tasks.Go(func() {
		defer close(t.done)
		defer t.cancel()
		if before != nil {
			<-before.done
		}
		if tctx.Err() == nil {
			run(tctx, j)
		}
	})
}

func (t *task) ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// countLocked sets the gauges.
func (s *Service) countLocked() {
	n := map[Status]int{}
	for _, w := range s.mu.jobs {
		n[w.job.Status]++
	}
	for _, st := range Statuses {
		s.m.jobs.WithLabelValues(string(st)).Set(float64(n[st]))
	}
}

// logConfig describes the job's result log.
func (j *Job) logConfig() schemas.LogConfig {
	return schemas.LogConfig{Name: "LEAT_J_" + strings.ToUpper(j.ID), Prefix: "leat.job." + j.ID, MaxBytes: j.ResultBytes, Once: true}
}

// drop removes the job's queue and results, and what its topic keeps of its progress.
func (s *Service) drop(ctx context.Context, j *Job) error {
	ctx, cancel := context.WithTimeout(ctx, sinkPatience)
	defer cancel()
	var err error
	if to, perr := parseTo(j.To); perr == nil && to.kind == topicLocation && !j.Started.IsZero() {
		err = s.deps.Ledgers.DropLedger(ctx, to.name, j.ledgerName())
		if schemas.KindOf(err) == schemas.Denied && err != nil { // who may not delete it leaves it to the brokers
			s.log.Warn("the job's progress stays in the cluster until its brokers forget it", "job", j.ID, "error", err)
			err = nil
		}
	}
	return errors.Join(s.deps.Queues.DropQueue(ctx, j.queueName()), s.deps.Logs.DropLog(ctx, j.logConfig().Name), err)
}
