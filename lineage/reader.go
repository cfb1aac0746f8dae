package lineage

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/leatstream/leat/schemas"
)

// StreamReader reads what a Stream wrote. It is safe for concurrent use; every call has its own memory, bounded by
// Config.FoldRecords.
type StreamReader struct {
	config    Config
	logs      Logs
	catalogue Catalogue
	schemas   sync.Map // schemas.SchemaID -> *schemas.Schema
	describe  func(schemas.SchemaID) *schemas.Schema
	entityOf  EntityOf // nil: no feedback finds a decision by its entity
}

var _ Reader = (*StreamReader)(nil)

// NewReader returns a reader that opens nothing. describe, which may be nil, returns a schema of an id as a model's
// signature knows it, with the names of packed tensors' features, or nil: exports and JSON then name the features.
func NewReader(logs Logs, catalogue Catalogue, c Config, describe func(schemas.SchemaID) *schemas.Schema) *StreamReader {
	return &StreamReader{config: c, logs: logs, catalogue: catalogue, describe: describe}
}

// schema returns a schema by its id, with feature names if somebody knows them.
func (r *StreamReader) schema(ctx context.Context, id schemas.SchemaID) (*schemas.Schema, error) {
	if s, ok := r.schemas.Load(id); ok {
		return s.(*schemas.Schema), nil
	}
	if r.describe != nil {
		if s := r.describe(id); s != nil && s.ID() == id {
			r.schemas.Store(id, s)
			return s, nil
		}
	}
	s, err := r.catalogue.Lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.ID() != id {
		return nil, schemas.Errorf(schemas.Internal, "lineage.Scan", "the catalogue has schema %s under %s", s.ID(), id)
	}
	if r.describe == nil {
		r.schemas.Store(id, s)
	}
	return s, nil
}

// Scan implements Reader. Records that no job made come first (LEAT_LINEAGE), then those of jobs (LEAT_LINEAGE_JOBS), each in
// stream order; with Follow, both as they come. Query.From needs Query.Run to say which of the two is meant: RunNone or a
// job.
//
// A record is superseded if its id came before in what was scanned; what lies up to Config.FoldBack before Since or From
// is scanned for that alone. A message that cannot be decoded ends the scan with an Internal error that names its
// position. fn's error is returned as it is.
func (r *StreamReader) Scan(ctx context.Context, q Query, fn func(*Record) (bool, error)) error {
	if err := q.Check(); err != nil {
		return err
	}
	fn, err := r.joined(ctx, q, fn)
	if err != nil {
		return err
	}
	return r.scan(ctx, q, !q.Bare, 0, events{record: fn})
}

// events is what a scan calls for what it finds; nil: it passes over it.
type events struct {
	record   func(*Record) (bool, error)
	feedback func(*Feedback) (bool, error)
	repeats  bool // of feedback too, whatever Query.All says

	begin func(*schemas.Entry) // of a message; not if several logs are followed
	end   func() bool
}

// scan chooses the logs. data false leaves inputs and outputs out; back, if not 0, bounds the messages that are read
// before the start for folding.
func (r *StreamReader) scan(ctx context.Context, q Query, data bool, back uint64, on events) error {
	var scans []*scan
	if q.Run == "" || q.Run == RunNone || on.feedback != nil {
		scans = append(scans, r.newScan(LogOnline, q, data, back, on))
	}
	if q.Run != RunNone {
		scans = append(scans, r.newScan(LogJobs, q, data, back, on))
	}
	if !q.Follow || len(scans) == 1 {
		for _, s := range scans {
			if err := s.run(ctx); err != nil || s.stopped {
				return err
			}
		}
		return nil
	}
	return followAll(ctx, scans, on)
}

// followAll follows several logs at once; one thing is handed on at a time, and the first to end ends all.
func followAll(ctx context.Context, scans []*scan, on events) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	stopped := false
	errs := make(chan error, len(scans))
	one := events{record: inTurn(&mu, &stopped, on.record), feedback: inTurn(&mu, &stopped, on.feedback)}
	for _, s := range scans {
		s.on = one
		go func() { errs <- s.run(ctx) }()
	}
	var first error
	for i := range scans {
		err := <-errs
		if i == 0 {
			first = err
			cancel()
		}
	}
	return first
}

// inTurn guards fn with mu; after stopped nothing is handed on.
func inTurn[T any](mu *sync.Mutex, stopped *bool, fn func(T) (bool, error)) func(T) (bool, error) {
	if fn == nil {
		return nil
	}
	return func(v T) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		if *stopped {
			return false, nil
		}
		more, err := fn(v)
		*stopped = *stopped || !more || err != nil
		return more, err
	}
}

// noFoldBack as scan's back: duplicates of what lies before the start are not looked for.
const noFoldBack = ^uint64(0)

// scan is one pass over one log.
type scan struct {
	r       *StreamReader
	name    string
	log     schemas.Log
	q       Query
	data    bool
	back    uint64
	through uint64 // last sequence wanted; 0: all
	on      events

	needle  []byte
	ref     modelFilter
	dec     *decoder
	said    *schemas.Batch // of feedback; nil until some came
	fold    *folder        // nil: nobody wants ids
	start   uint64         // first sequence that is emitted
	stopped bool           // by who is called or by Until
}

func (r *StreamReader) newScan(name string, q Query, data bool, back uint64, on events) *scan {
	return &scan{
		r: r, name: name, log: r.logs.log(name), q: q, data: data, back: back, on: on,
		needle: []byte(q.RequestID), ref: parseModel(q.Model), dec: newDecoder(r.schema), fold: newFolder(r.config.FoldRecords),
	}
}

func (s *scan) run(ctx context.Context) error {
	from, err := s.begin(ctx)
	if err != nil {
		return err
	}
	var subjects []string
	if s.q.Pipeline != "" {
		subjects = []string{s.q.Pipeline}
	}
	var failed error
	err = s.log.Read(ctx, from, subjects, s.q.Follow, func(e *schemas.Entry) bool {
		if !s.q.Until.IsZero() && !e.Time.Before(s.q.Until) || s.through > 0 && e.Sequence > s.through {
			return false
		}
		var more bool
		if s.on.begin != nil {
			s.on.begin(e)
		}
		if more, failed = s.entry(ctx, e); more && failed == nil && s.on.end != nil {
			more = s.on.end()
		}
		s.stopped = s.stopped || !more
		return more && failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// begin finds the first sequence to emit, and the one to start reading at so that duplicates are known.
func (s *scan) begin(ctx context.Context) (from uint64, err error) {
	s.start = s.q.From
	at := s.q.Since
	if !at.IsZero() {
		seq, err := s.log.SequenceAt(ctx, at)
		if err != nil {
			return 0, err
		}
		s.start = max(s.start, seq)
	}
	if s.start <= 1 || s.back == noFoldBack {
		return s.start, nil
	}
	if at.IsZero() || s.q.From > 0 {
		err := s.log.Read(ctx, s.q.From, nil, false, func(e *schemas.Entry) bool {
			at = e.Time
			return false
		})
		if err != nil || at.IsZero() {
			return s.start, err
		}
	}
	back, err := s.log.SequenceAt(ctx, at.Add(-s.r.config.FoldBack))
	if err != nil {
		return 0, err
	}
	if s.back > 0 && s.start > s.back {
		back = max(back, s.start-s.back)
	}
	return min(back, s.start), nil
}

// entry handles one message.
func (s *scan) entry(ctx context.Context, e *schemas.Entry) (more bool, err error) {
	if len(s.needle) > 0 && !bytes.Contains(e.Payload, s.needle) {
		return true, nil
	}
	if isFeedback(e.Payload) {
		return s.feedback(e)
	}
	if s.on.record == nil {
		return true, nil
	}
	pos := schemas.Position{Stream: s.name, Sequence: e.Sequence}
	if err := s.dec.open(e.Payload); err != nil {
		return false, s.broken(pos, err)
	}
	emit := e.Sequence >= s.start && !e.Time.Before(s.q.Since)
	var rec Record
	for i := range s.dec.rows() {
		c, q := s.dec.context(i), s.dec.request(i)
		if !s.wanted(c, q) {
			continue
		}
		var id [32]byte
		superseded, reused := false, false
		if s.fold != nil {
			var key [32]byte
			key, id = s.dec.ids(i)
			superseded, reused = s.fold.seen(id), s.fold.reused(key, q.InputDigest)
		}
		if !emit || superseded && !s.q.All && s.q.Status != StatusLate || !s.matches(c, i) {
			continue
		}
		s.dec.record(i, &rec)
		rec.RecordID, rec.Superseded, rec.IDReused, rec.Position, rec.Appended = id, superseded, reused, pos, e.Time
		if s.data {
			if err := s.dec.data(ctx, i, &rec); err != nil {
				if ctx.Err() != nil {
					return false, ctx.Err()
				}
				return false, s.broken(pos, err)
			}
		}
		if more, err := s.on.record(&rec); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

func (s *scan) broken(pos schemas.Position, err error) error {
	return schemas.Errorf(schemas.Internal, "lineage.Scan", "message %s cannot be read: %w", pos, err)
}

// wanted filters by what all records of one id agree in: before folding.
func (s *scan) wanted(c *sharedContext, q *sharedRequest) bool {
	switch s.q.Run {
	case "":
	case RunNone:
		if c.Run != "" {
			return false
		}
	default:
		if c.Run != s.q.Run {
			return false
		}
	}
	return (s.q.Pipeline == "" || c.Pipeline == s.q.Pipeline) && (s.q.RequestID == "" || q.RequestID == s.q.RequestID)
}

// matches filters by the rest: after folding, or a superseded record would appear where the canonical one does not match.
func (s *scan) matches(c *sharedContext, i int) bool {
	if s.q.Role != "" && c.Role != s.q.Role || !s.ref.matches(&c.Context) {
		return false
	}
	return s.q.Status == "" || s.q.Status == s.dec.status(i)
}

// modelFilter is Query.Model.
type modelFilter struct {
	name    string
	version int // 0: any
	never   bool
}

func parseModel(m string) modelFilter {
	if m == "" {
		return modelFilter{}
	}
	ref, err := schemas.ParseModelRef(m)
	if err != nil || ref.Alias != "" && ref.String() == m {
		return modelFilter{never: true} // an alias is not recorded: Query.Check says so
	}
	return modelFilter{name: ref.Name, version: ref.Version}
}

func (f modelFilter) matches(c *Context) bool {
	return !f.never && (f.name == "" || c.Model == f.name && (f.version == 0 || c.Version == f.version))
}

// Check returns Invalid, naming the field, if the query can never select anything.
func (q *Query) Check() error {
	const op = "lineage.Query"
	if q.Pipeline != "" {
		if err := schemas.CheckName("pipeline", q.Pipeline); err != nil {
			return schemas.FieldErrorf(schemas.Invalid, op, "pipeline", "%w", err)
		}
	}
	if q.Model != "" && parseModel(q.Model).never {
		return schemas.FieldErrorf(schemas.Invalid, op, "model", "%q: want NAME or NAME@VERSION; aliases are not recorded", clip(q.Model))
	}
	switch q.Status {
	case "", StatusOK, StatusError, StatusLate:
	default:
		return schemas.FieldErrorf(schemas.Invalid, op, "status", "%q: want ok, error or late", clip(q.Status))
	}
	switch q.Role {
	case "", RolePrimary, RoleShadow, RoleMember, RoleStage, RoleArm, RoleCombiner:
	default:
		return schemas.FieldErrorf(schemas.Invalid, op, "role", "%q: want primary, shadow, member, stage, arm or combiner", clip(q.Role))
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return schemas.FieldErrorf(schemas.Invalid, op, "until", "%s is not after since", q.Until.Format(time.RFC3339))
	}
	if q.Join && q.Follow {
		return schemas.FieldErrorf(schemas.Invalid, op, "with", "what is followed has no feedback yet")
	}
	if q.From > 0 && q.Run == "" {
		return schemas.FieldErrorf(schemas.Invalid, op, "from", "a sequence is of one stream: say run too (%q for records that no job made)", RunNone)
	}
	return nil
}

// Clone returns a record whose data is its own: one row each.
func (r *Record) Clone() *Record {
	c := *r
	own := func(b *schemas.Batch, row int) (*schemas.Batch, int) {
		if b == nil {
			return nil, 0
		}
		o := schemas.NewBatch(b.Schema())
		o.AppendRange(b, row, row+1)
		return o, 0
	}
	c.Input, c.InputRow = own(r.Input, r.InputRow)
	c.Output, c.OutputRow = own(r.Output, r.OutputRow)
	return &c
}
