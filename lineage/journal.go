package lineage

import (
	"context"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Journal is one pipeline's log as it was written, for who folds it: each record and each feedback in its place, and after the last
// of a message the message's end. Safe for concurrent use.
type Journal struct{ reader *StreamReader }

// NewJournal returns the journals of all pipelines.
func NewJournal(r *StreamReader) *Journal { return &Journal{r} }

// Entry is what stands at one place of a journal: a record, feedback, or, with neither, the end of a message. It is lent for
// the call.
type Entry struct {
	Event
	Sequence uint64
	Appended time.Time
}

// Read calls fn for what no job wrote to the pipeline's log from a sequence on, repeats too (RecordID and Superseded are not
// filled in), until fn returns false; with follow it goes on with what comes until ctx ends. data false leaves inputs and outputs
// out. Internal: a message cannot be decoded; fn may then have seen a part of it.
func (j *Journal) Read(ctx context.Context, pipeline string, from uint64, follow, data bool, fn func(Entry) bool) error {
	q := Query{Pipeline: pipeline, Run: RunNone, From: max(from, 1), Follow: follow, All: true}
	var at Entry
	on := events{
		record:   func(r *Record) (bool, error) { e := at; e.Record = r; return fn(e), nil },
		feedback: func(f *Feedback) (bool, error) { e := at; e.Feedback = f; return fn(e), nil },
		begin:    func(e *schemas.Entry) { at = Entry{Sequence: e.Sequence, Appended: e.Time} },
		end:      func() bool { return fn(at) },
	}
	s := j.reader.newScan(LogOnline, q, data, noFoldBack, on)
	s.fold = nil
	return s.run(ctx)
}

// Last returns the sequence of the last message in a pipeline's log and when it was appended; 0 if there is none.
func (j *Journal) Last(ctx context.Context, pipeline string) (uint64, time.Time, error) {
	e, err := j.reader.logs.Online.Last(ctx, pipeline)
	switch {
	case err == nil:
		return e.Sequence, e.Time, nil
	case schemas.KindOf(err) == schemas.NotFound:
		return 0, time.Time{}, nil
	}
	return 0, time.Time{}, err
}
