package pipeline

import (
	"context"
	"slices"
	"sync"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// WriteAhead is the lineage as the write-ahead log of topics: what was recorded before a crash is found again by the
// position of its input, so that it is answered from the record and never scored twice (SEMANTICS 4).
type WriteAhead interface {
	// Recover calls fn for the records of the pipeline whose input came from a durable stream, from a lineage sequence
	// on. The record is lent for the call.
	Recover(ctx context.Context, pipeline string, from uint64, fn func(*lineage.Record) bool) error
	// Checkpoint returns the lineage sequence before which every recorded event was settled, 0 if none was saved.
	Checkpoint(ctx context.Context, pipeline string) (uint64, error)
	SaveCheckpoint(ctx context.Context, pipeline string, sequence uint64) error
}

// recovered holds what the lineage knows of events that may be delivered again. The answers lie in one batch for each
// schema, so that an event costs some words, not batches of its own: most will never come again.
type recovered struct {
	mu      sync.Mutex
	records map[schemas.Position]*recordedRows
	outs    map[schemas.SchemaID]*schemas.Batch
}

// recordedRows is the recorded answer to one event.
type recordedRows struct {
	out    *schemas.Batch
	from   int
	rows   []int32 // of the event, in order: a crash between two messages of one append may leave some out
	torn   bool    // the record keeps columns back, or does not lie in one place
	by     answered
	failed *schemas.Error
}

// recoverSeen scans the lineage from the last checkpoint. It is called once, before a durable door opens. What it holds
// is bounded by what was recorded since the checkpoint, which trails by a few seconds.
func recoverSeen(ctx context.Context, wal WriteAhead, pipeline string) (*recovered, error) {
	from, err := wal.Checkpoint(ctx, pipeline)
	if err != nil {
		return nil, err
	}
	rc := &recovered{records: map[schemas.Position]*recordedRows{}, outs: map[schemas.SchemaID]*schemas.Batch{}}
	err = wal.Recover(ctx, pipeline, from, func(r *lineage.Record) bool {
		if r.Node == RootPath { // the answer; what nodes below it made is no output
			rc.add(r)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return rc, nil
}

func (rc *recovered) add(r *lineage.Record) {
	rows := rc.records[r.From]
	if rows == nil {
		rows = &recordedRows{by: answeredBy(r.Model, r.Version, r.Revision)}
		rc.records[r.From] = rows
	}
	switch {
	case r.Status != lineage.StatusOK:
		kind := schemas.ParseKind(r.ErrorKind)
		rows.failed = &schemas.Error{Kind: kind, ID: r.ErrorID, Err: schemas.Errorf(kind, "", "%s", r.Error)}
		return
	case r.Output == nil:
		rows.torn = true
		return
	case len(rows.rows) > 0 && r.Row.Row <= rows.rows[len(rows.rows)-1]:
		return // known
	}
	out := rc.outs[r.OutSchema]
	if out == nil {
		out = schemas.NewBatch(r.Output.Schema())
		rc.outs[r.OutSchema] = out
	}
	if rows.out == nil {
		rows.out, rows.from = out, out.Rows()
	}
	if rows.out != out || rows.from+len(rows.rows) != out.Rows() || keptBack(r) {
		rows.torn = true
		return
	}
	out.AppendRange(r.Output, r.OutputRow, r.OutputRow+1)
	rows.rows = append(rows.rows, r.Row.Row)
}

// keptBack reports whether the record may lack a part of the answer. What is masked or dropped of the input alone leaves
// the output whole, and its columns say so.
func keptBack(r *lineage.Record) bool {
	s := r.Output.Schema()
	for _, name := range r.Masked {
		if s.Index(name) >= 0 {
			return true
		}
	}
	return s.Index(lineage.DroppedColumn) >= 0
}

// take returns what is recorded of the event at p, once, nil if nothing is. A nil rc knows nothing.
func (rc *recovered) take(p schemas.Position) *recordedRows {
	if rc == nil {
		return nil
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	r := rc.records[p]
	if r == nil {
		return nil
	}
	if delete(rc.records, p); len(rc.records) == 0 {
		rc.outs = nil // what lies in it is held by those that were taken
	}
	return r
}

// empty reports whether all that was recorded has come again.
func (rc *recovered) empty() bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return len(rc.records) == 0
}

// replay answers an event from its record, in the name of the model that made it. If the record is not whole, the event
// is scored again and its records fold.
func (dr *door) replay(ctx context.Context, r *run, rev *compiled, it *item, rec *recordedRows) error {
	w := newWork(dr)
	if rec.failed != nil {
		w.reject = append(w.reject, rejection{it.d, rec.failed})
		dr.commit.resume(w)
		return nil
	}
	if err := dr.decodeRows(ctx, r, rev, it); err != nil {
		w.free()
		return err
	}
	n := it.to - it.from
	if rec.torn || rec.out == nil || !slices.Equal(rec.rows, it.eventRows()) {
		w.free()
		return nil
	}
	r.in.Truncate(it.from)
	if err := w.answer(it, &rec.by, rec.out, rec.from, rec.from+n); err != nil {
		w.free()
		return err
	}
	it.enc = nil
	dr.take(it)
	w.rows, w.bytes = it.admitted, it.size
	dr.commit.resume(w)
	return nil
}
