package lineage

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Stream is the Appender over two logs: records of jobs go to one of their own, so that a job that fills it stops no
// online request. It also keeps refusals. Safe for concurrent use.
type Stream struct {
	config    Config
	catalogue Catalogue
	log       *slog.Logger
	online    target
	jobs      target
	refusals  refusals

	known sync.Map // schemas.SchemaID -> struct{}: in the catalogue
}

var (
	_ Appender = (*Stream)(nil)
	_ Encoder  = (*Stream)(nil)
)

// target is one log that is appended to.
type target struct {
	name    string
	topic   string
	log     schemas.Log
	metrics logMetrics
	full    atomic.Bool // the last append found no room
	warned  bool        // of the watch alone
}

// NewStream returns a Stream that opens nothing and runs nothing: see Run. m and log may be nil.
func NewStream(logs Logs, catalogue Catalogue, c Config, m *Metrics, log *slog.Logger) *Stream {
	if m == nil {
		m = NewMetrics(nil)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Stream{config: c, catalogue: catalogue, log: log}
	s.online.name, s.online.topic, s.online.log, s.online.metrics = LogOnline, prefixOnline, logs.Online, m.of(LogOnline)
	s.jobs.name, s.jobs.topic, s.jobs.log, s.jobs.metrics = LogJobs, prefixJobs, logs.Jobs, m.of(LogJobs)
	s.refusals.init(logs.Rejected, c, m, log)
	return s
}

// Run writes refusals and watches the fill level until ctx ends. What waits then is written within a second.
func (s *Stream) Run(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.refusals.run(ctx)
	}()
	s.watch(ctx)
	<-done
	return ctx.Err()
}

// Append implements Appender. The records of jobs (Context.Run is not empty) go to LEAT_LINEAGE_JOBS. Appending the same
// Records again, unchanged, repeats the same messages under the same ids. No records: a zero Position and no error.
func (s *Stream) Append(ctx context.Context, recs *Records) (schemas.Position, error) {
	if recs.Len() == 0 {
		return schemas.Position{}, nil
	}
	t := s.of(recs)
	if err := s.ensure(ctx, recs); err != nil {
		return schemas.Position{}, err
	}
	pos := schemas.Position{Stream: t.name}
	for from, n := 0, 0; from < recs.Len(); n++ {
		msg, next, err := recs.encode(from)
		if err != nil {
			return schemas.Position{}, err
		}
		if pos.Sequence, err = s.append(ctx, t, recs.Pipeline(), recs.messageID(n), msg); err != nil {
			return schemas.Position{}, err
		}
		t.metrics.rows.Add(float64(next - from))
		from = next
	}
	return pos, nil
}

// of returns the log that records belong to.
func (s *Stream) of(recs *Records) *target {
	if recs.contexts[0].Run != "" {
		return &s.jobs
	}
	return &s.online
}

// Messages implements Encoder. The metrics count them as appended.
func (s *Stream) Messages(ctx context.Context, recs *Records) ([]schemas.Message, error) {
	if recs.Len() == 0 {
		return nil, nil
	}
	if err := s.ensure(ctx, recs); err != nil {
		return nil, err
	}
	t := s.of(recs)
	var out []schemas.Message
	for from := 0; from < recs.Len(); {
		msg, next, err := recs.encode(from)
		if err != nil {
			return nil, err
		}
		out = append(out, schemas.Message{Topic: t.topic, Key: recs.Pipeline(), ID: recs.messageID(len(out)), Payload: bytes.Clone(msg)})
		from = next
	}
	t.metrics.rows.Add(float64(recs.Len()))
	t.metrics.messages.Add(float64(len(out)))
	for i := range out {
		t.metrics.bytes.Add(float64(len(out[i].Payload)))
	}
	return out, nil
}

// messageID names message n of an append: 128 random bits, then the number.
func (r *Records) messageID(n int) string {
	var b [48]byte
	id := hex.AppendEncode(b[:0], r.id[:])
	id = append(id, '-')
	return string(append(id, itoa(n)...))
}

// append stores one message, again and again while its outcome is unknown.
func (s *Stream) append(ctx context.Context, t *target, subject, id string, msg []byte) (uint64, error) {
	const op = "lineage.Append"
	start := time.Now()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		try, cancel := context.WithTimeout(ctx, s.config.TryTimeout)
		seq, err := t.log.Append(try, subject, id, msg)
		cancel()
		switch {
		case err == nil:
			t.full.Store(false)
			t.metrics.seconds.Observe(time.Since(start).Seconds())
			t.metrics.messages.Inc()
			t.metrics.bytes.Add(float64(len(msg)))
			return seq, nil
		case errors.Is(err, schemas.ErrFull):
			t.full.Store(true)
			return 0, schemas.Errorf(schemas.Unavailable, op, "%s is full; export and prune it, or raise its size: %w", t.name, err)
		case schemas.KindOf(err) == schemas.Invalid:
			return 0, schemas.Errorf(schemas.Internal, op, "%s refused %d bytes: %w", t.name, len(msg), err)
		}
		t.metrics.retries.Inc()
		select {
		case <-ctx.Done():
			return 0, schemas.Errorf(schemas.Unavailable, op, "%s did not acknowledge in time, the record may exist: %w", t.name, err)
		case <-time.After(wait):
		}
	}
}

// ensure puts the schemas of recs into the catalogue, once for the life of the Stream.
func (s *Stream) ensure(ctx context.Context, recs *Records) error {
	for _, h := range [...]*schemas.Schema{EnvelopeSchema, ContextSchema, RequestSchema} {
		if err := s.ensureOne(ctx, h); err != nil {
			return err
		}
	}
	for _, sl := range recs.active {
		if err := s.ensureOne(ctx, sl.rows.Schema()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stream) ensureOne(ctx context.Context, sc *schemas.Schema) error {
	if _, ok := s.known.Load(sc.ID()); ok {
		return nil
	}
	if err := s.catalogue.Put(ctx, sc); err != nil {
		e := schemas.AsError("lineage.Append", err)
		return schemas.Errorf(e.Kind, "lineage.Append", "schema %s cannot be put into the catalogue: %w", sc.ID(), err)
	}
	s.known.Store(sc.ID(), struct{}{})
	return nil
}

// Full reports whether the log of online records, or that of jobs, had no room when it was last asked: new work is
// refused as Unavailable until it has. It costs nothing.
func (s *Stream) Full(jobs bool) bool {
	if jobs {
		return s.jobs.full.Load()
	}
	return s.online.full.Load()
}

// Fill returns how full the log of online records, or that of jobs, is: 0 to 1.
func (s *Stream) Fill(ctx context.Context, jobs bool) (float64, error) {
	t := &s.online
	if jobs {
		t = &s.jobs
	}
	st, err := t.log.Stats(ctx)
	if err != nil || st.MaxBytes == 0 {
		return 0, err
	}
	return float64(st.Bytes) / float64(st.MaxBytes), nil
}

// watch keeps the fill level as a metric, warns when it passes the mark, and finds out that a full log has room again.
func (s *Stream) watch(ctx context.Context) {
	tick := time.NewTicker(s.config.WatchEvery)
	defer tick.Stop()
	for {
		for _, t := range [...]*target{&s.online, &s.jobs} {
			s.look(ctx, t)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Stream) look(ctx context.Context, t *target) {
	st, err := t.log.Stats(ctx)
	if err != nil || st.MaxBytes == 0 {
		return // the next look tells; an unreachable server is reported by those who need it
	}
	ratio := float64(st.Bytes) / float64(st.MaxBytes)
	t.metrics.fill.Set(ratio)
	if st.Bytes+2*MaxMessage < st.MaxBytes {
		t.full.Store(false)
	}
	switch over := ratio >= s.config.WarnAt; {
	case over && !t.warned:
		s.log.Warn("lineage is filling up; export and prune it before it refuses requests", "stream", t.name, "fill", ratio, "bytes", st.Bytes, "max_bytes", st.MaxBytes)
		t.warned = true
	case !over && t.warned:
		s.log.Info("lineage has room again", "stream", t.name, "fill", ratio)
		t.warned = false
	}
}
