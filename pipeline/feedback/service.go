package feedback

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// Door is a way in.
type Door struct {
	Via       string
	Source    connectors.Source
	Responder connectors.Responder // nil: nobody waits for an answer
	Trusted   bool                 // Leat-Principal was set by our own side, not by the caller
	Pipeline  string               // of all its deliveries; "": their topic says it
}

// Deps are what a Service works with.
type Deps struct {
	Lineage lineage.FeedbackAppender
	// Exists returns nil for a pipeline that there is, NotFound for another. It is asked for each message.
	Exists func(ctx context.Context, pipeline string) error
	// Online opens the door of requests and messages that are not stored, on all pipelines.
	Online func(ctx context.Context) (Door, error)
	// Topic opens the durable topic of a pipeline; nil: there are none.
	Topic   func(ctx context.Context, pipeline string) (Door, error)
	Refuse  func(lineage.Refusal) // keeps what was refused at a door; does not block
	Metrics *Metrics              // nil: none
	Log     *slog.Logger
}

// Service takes feedback. Safe for concurrent use.
type Service struct {
	Deps

	mu struct {
		sync.Mutex
		work   context.Context // of Run; nil before
		wanted map[string]bool // pipelines with a topic
		topics map[string]*taker
	}
	wg sync.WaitGroup
}

// New returns a Service that opens nothing: see Run.
func New(d Deps) *Service {
	if d.Metrics == nil {
		d.Metrics = NewMetrics(nil)
	}
	if d.Refuse == nil {
		d.Refuse = func(lineage.Refusal) {}
	}
	s := &Service{Deps: d}
	s.mu.wanted, s.mu.topics = map[string]bool{}, map[string]*taker{}
	return s
}

// Metrics count feedback. Labels are bounded: pipelines exist, outcomes are few.
type Metrics struct{ total *prometheus.CounterVec }

// The outcomes of feedback.
const (
	kept    = "kept"
	refused = "refused" // it can never be kept as it is
	failed  = "failed"  // the lineage did not take it; who sent it may send it again
)

// NewMetrics registers the metrics; a nil registerer gives metrics that nobody reads.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "leat_feedback_total", Help: "Feedback that came, by pipeline and outcome: kept, refused or failed. Messages that cannot be read count as one, without a pipeline.",
	}, []string{"pipeline", "outcome"})}
	if r != nil {
		r.MustRegister(m.total)
	}
	return m
}

func (m *Metrics) count(pipeline, outcome string, n int) {
	m.total.WithLabelValues(pipeline, outcome).Add(float64(n))
}

// Bounds of a round: what is appended together.
const (
	roundMessages = 512
	roundTimeout  = 10 * time.Second
	retryAfter    = time.Second
	reopenAfter   = 2 * time.Second
)

// Reply is the answer to feedback that is kept.
type Reply struct {
	Kept int      `json:"kept"`
	IDs  []string `json:"feedback_ids"` // as given, or made
}

// Run takes feedback until ctx ends; then what has arrived is finished, within grace.
func (s *Service) Run(ctx context.Context, grace time.Duration) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.mu.Lock()
	s.mu.work = work
	for p := range s.mu.wanted {
		s.startTopic(p)
	}
	s.mu.Unlock()
	online := s.start(work, func(ctx context.Context) (Door, error) { return s.Online(ctx) }, "")
	<-ctx.Done()
	s.mu.Lock()
	s.mu.work = nil
	takers := []*taker{online}
	for _, t := range s.mu.topics {
		takers = append(takers, t)
	}
	clear(s.mu.topics)
	s.mu.Unlock()
	for _, t := range takers {
		t.drain()
	}
	late := time.AfterFunc(grace, stop)
	defer late.Stop()
	s.wg.Wait()
	return ctx.Err()
}

// Follow says whether a pipeline has a durable topic of feedback from now on. It does not wait for the topic.
func (s *Service) Follow(pipeline string, topic bool) {
	if s.Topic == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if topic == s.mu.wanted[pipeline] {
		return
	}
	if topic {
		s.mu.wanted[pipeline] = true
		s.startTopic(pipeline)
		return
	}
	delete(s.mu.wanted, pipeline)
	if t := s.mu.topics[pipeline]; t != nil {
		t.drain()
		delete(s.mu.topics, pipeline)
	}
}

// startTopic is called with mu held.
func (s *Service) startTopic(pipeline string) {
	if s.mu.work != nil {
		s.mu.topics[pipeline] = s.start(s.mu.work, func(ctx context.Context) (Door, error) { return s.Topic(ctx, pipeline) }, pipeline)
	}
}

// taker serves one door, which it opens again when it breaks.
type taker struct {
	s        *Service
	open     func(context.Context) (Door, error)
	pipeline string
	ended    context.Context // told to end
	end      context.CancelFunc
}

func (s *Service) start(work context.Context, open func(context.Context) (Door, error), pipeline string) *taker {
	t := &taker{s: s, open: open, pipeline: pipeline}
	t.ended, t.end = context.WithCancel(work)
	s.wg.Go(func() {
		defer t.end()
		t.run(work)
	})
	return t
}

func (t *taker) drain() { t.end() }

func (t *taker) run(work context.Context) {
	for t.ended.Err() == nil {
		door, err := t.open(t.ended)
		if err == nil {
			err = t.serve(work, door)
		}
		if t.ended.Err() != nil {
			return
		}
		t.s.Log.Warn("feedback cannot be taken here; trying again", "pipeline", t.pipeline, slog.Any("error", err))
		select {
		case <-time.After(reopenAfter):
		case <-t.ended.Done():
		}
	}
}

// serve takes what comes through an open door until it is drained or breaks, and closes it.
func (t *taker) serve(work context.Context, d Door) error {
	stop := context.AfterFunc(t.ended, d.Source.Drain)
	defer stop()
	var err error
	for {
		var ds []*connectors.Delivery
		if ds, err = d.Source.Receive(work, roundMessages); err != nil {
			break
		}
		t.s.round(work, &d, ds)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(work), roundTimeout)
	defer cancel()
	return errors.Join(err, d.Source.Close(closing))
}

// round keeps the feedback of deliveries with one append a pipeline, answers, and settles.
func (s *Service) round(ctx context.Context, d *Door, ds []*connectors.Delivery) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	var all []lineage.Feedback
	parts := make([]int, len(ds)+1) // of all, by delivery
	errs := make([]error, len(ds))
	for i, m := range ds {
		var fs []lineage.Feedback
		pipeline := d.Pipeline
		if pipeline == "" {
			pipeline = m.Topic
		}
		if errs[i] = s.exists(ctx, pipeline); errs[i] == nil {
			fs, errs[i] = lineage.ParseFeedback(m.Payload, pipeline)
		}
		for j := range fs {
			fs[j].Via, fs[j].Received = d.Via, time.Now()
			if d.Trusted {
				fs[j].Principal = m.Header.Get(schemas.HeaderPrincipal)
			}
		}
		if errs[i] != nil {
			s.refuse(d, m, errs[i])
		}
		all = append(all, fs...)
		parts[i+1] = len(all)
	}
	failures := s.keep(ctx, all)
	for i := range ds {
		for _, err := range failures[min(parts[i], len(failures)):min(parts[i+1], len(failures))] {
			if err != nil && errs[i] == nil {
				errs[i] = err
			}
		}
	}
	s.answer(ctx, d, ds, errs, func(i int) []lineage.Feedback { return all[parts[i]:parts[i+1]] })
	s.settle(ctx, ds, errs)
}

func (s *Service) exists(ctx context.Context, pipeline string) error {
	if err := schemas.CheckName("pipeline", pipeline); err != nil {
		return schemas.FieldErrorf(schemas.Invalid, "feedback", "pipeline", "%w", err)
	}
	return s.Exists(ctx, pipeline)
}

// keep appends, and counts.
func (s *Service) keep(ctx context.Context, all []lineage.Feedback) []error {
	if len(all) == 0 {
		return nil
	}
	errs := s.Lineage.AppendFeedback(ctx, all)
	for i := range all {
		switch {
		case errs == nil || errs[i] == nil:
			s.Metrics.count(all[i].Pipeline, kept, 1)
		case schemas.KindOf(errs[i]) == schemas.Invalid:
			s.Metrics.count(all[i].Pipeline, refused, 1)
		default:
			s.Metrics.count(all[i].Pipeline, failed, 1)
		}
	}
	return errs
}

// refuse counts and keeps what a message of a door was refused for. Its pipeline may be anything: it is no label.
func (s *Service) refuse(d *Door, m *connectors.Delivery, err error) {
	outcome := refused
	if k := schemas.KindOf(err); k != schemas.Invalid && k != schemas.NotFound {
		outcome = failed
	}
	s.Metrics.count("", outcome, 1)
	e := schemas.AsError("feedback", err)
	s.Refuse(lineage.Refusal{Pipeline: m.Topic, Via: d.Via, RequestID: m.Header.Get(schemas.HeaderRequestID), Kind: e.Kind.String(), Error: "feedback: " + e.Error()})
}

// answer tells those who wait what became of theirs: only what the log has acknowledged is said to be kept.
func (s *Service) answer(ctx context.Context, d *Door, ds []*connectors.Delivery, errs []error, of func(int) []lineage.Feedback) {
	if d.Responder == nil {
		return
	}
	var rs []connectors.Response
	for i, m := range ds {
		if m.ReplyTo == "" {
			continue
		}
		r := connectors.Response{To: m.ReplyTo}
		if errs[i] != nil {
			e := schemas.AsError("feedback", errs[i])
			if e.Kind == schemas.Internal {
				s.Log.Error("feedback failed", "pipeline", m.Topic, slog.Any("error", e))
			}
			r.Header, r.Payload = schemas.ErrorAnswer(e, m.Header.Get(schemas.HeaderRequestID))
		} else {
			r.Header = schemas.Header{schemas.HeaderContentType: {"application/json"}}
			r.Payload, _ = json.Marshal(replyTo(of(i))) // strings always marshal
		}
		rs = append(rs, r)
	}
	if err := d.Responder.Respond(ctx, rs); err != nil {
		s.Log.Warn("feedback was taken, and its sender could not be told", slog.Any("error", err))
	}
}

func replyTo(fs []lineage.Feedback) *Reply {
	r := &Reply{Kept: len(fs), IDs: make([]string, len(fs))}
	for i := range fs {
		r.IDs[i] = fs[i].ID
	}
	return r
}

// settle ends the loans: what is kept is accepted, what never will be is put aside, the rest comes again.
func (s *Service) settle(ctx context.Context, ds []*connectors.Delivery, errs []error) {
	settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundTimeout)
	defer cancel()
	var done []*connectors.Delivery
	tell := func(err error) {
		if err != nil && !errors.Is(err, schemas.ErrUnsupported) {
			s.Log.Warn("feedback could not be settled; it may come again", slog.Any("error", err))
		}
	}
	for i, m := range ds {
		switch k := schemas.KindOf(errs[i]); {
		case errs[i] == nil:
			done = append(done, m)
		case k == schemas.Invalid || k == schemas.NotFound:
			tell(m.Settler.Reject(settle, m, errs[i]))
		default:
			tell(m.Settler.Retry(settle, m, retryAfter))
		}
	}
	if len(done) > 0 {
		tell(done[0].Settler.Accept(settle, done))
	}
}
