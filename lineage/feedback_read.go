package lineage

import (
	"context"

	"github.com/leatstream/leat/schemas"
)

// Event is what stands at one place of a log: a record, or feedback; the other is nil. Both are lent for the call.
type Event struct {
	Record   *Record
	Feedback *Feedback
}

// Events is Scan with the feedback too, each in its place: what a log says of a pipeline, in one order. Feedback lies in
// LEAT_LINEAGE alone, whatever its decision was made by. Model, Status, Role and Run select among records; all else of the
// query selects feedback too, by its own pipeline, request id, place and time of append. To go on from where a reader
// stopped, give its last sequence as From, and pass over what is at or before its last (Sequence, Index).
func (r *StreamReader) Events(ctx context.Context, q Query, fn func(Event) (bool, error)) error {
	if err := q.Check(); err != nil {
		return err
	}
	if q.From > 0 && q.Run != RunNone {
		return schemas.FieldErrorf(schemas.Invalid, "lineage.Events", "from", "feedback lies in %s: want run %q with a sequence", LogOnline, RunNone)
	}
	return r.scan(ctx, q, !q.Bare, 0, events{
		record:   func(rec *Record) (bool, error) { return fn(Event{Record: rec}) },
		feedback: func(f *Feedback) (bool, error) { return fn(Event{Feedback: f}) },
	})
}

// Feedback is Events without the records, which are not even decoded. The feedback is fn's to keep.
func (r *StreamReader) Feedback(ctx context.Context, q Query, fn func(*Feedback) (bool, error)) error {
	if err := q.Check(); err != nil {
		return err
	}
	if q.Run != "" && q.Run != RunNone {
		return schemas.FieldErrorf(schemas.Invalid, "lineage.Feedback", "run", "feedback is of no job: leave it out")
	}
	q.Run = RunNone
	return r.scan(ctx, q, false, 0, events{feedback: fn})
}

// feedback handles a message of feedback.
func (s *scan) feedback(e *schemas.Entry) (more bool, err error) {
	if s.on.feedback == nil {
		return true, nil
	}
	pos := schemas.Position{Stream: s.name, Sequence: e.Sequence}
	if s.said == nil {
		s.said = schemas.NewBatch(FeedbackSchema)
	}
	if err := decodeFeedback(e.Payload, s.said); err != nil {
		return false, s.broken(pos, err)
	}
	emit := e.Sequence >= s.start && !e.Time.Before(s.q.Since)
	for i := range s.said.Rows() {
		f := feedbackAt(s.said, i)
		if s.q.Pipeline != "" && f.Pipeline != s.q.Pipeline || s.q.RequestID != "" && f.RequestID != s.q.RequestID {
			continue
		}
		f.Superseded = s.fold != nil && s.fold.seen(f.key())
		if !emit || f.Superseded && !s.q.All && !s.on.repeats {
			continue
		}
		f.Position, f.Appended = pos, e.Time
		if more, err := s.on.feedback(f); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
