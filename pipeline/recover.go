package pipeline

import (
	"context"
	"sync"

	"github.com/leatstream/leat/connectors"
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

// recovered holds what the lineage knows of events that may be delivered again.
type recovered struct {
	mu      sync.Mutex
	records map[schemas.Position]*recordedRows
}

// recordedRows is the recorded answer to one event.
type recordedRows struct {
	out    *schemas.Batch
	seen   map[int32]bool // rows found: a crash between two messages of one append may leave some out
	failed *schemas.Error
}

// recoverSeen scans the lineage from the last checkpoint. It is called once, before a durable door opens. What it holds
// is bounded by what was recorded since the checkpoint, which trails by a few seconds.
func recoverSeen(ctx context.Context, wal WriteAhead, pipeline string) (*recovered, error) {
	from, err := wal.Checkpoint(ctx, pipeline)
	if err != nil {
		return nil, err
	}
	rc := &recovered{records: map[schemas.Position]*recordedRows{}}
	err = wal.Recover(ctx, pipeline, from, func(r *lineage.Record) bool {
		rows := rc.records[r.From]
		if rows == nil {
			rows = &recordedRows{seen: map[int32]bool{}}
			rc.records[r.From] = rows
		}
		if rows.seen[r.Row.Row] {
			return true
		}
		rows.seen[r.Row.Row] = true
		switch {
		case r.Status != lineage.StatusOK:
			rows.failed = &schemas.Error{Kind: schemas.ParseKind(r.ErrorKind), ID: r.ErrorID, Err: schemas.Errorf(schemas.ParseKind(r.ErrorKind), "", "%s", r.Error)}
		case r.Output != nil:
			if rows.out == nil {
				rows.out = schemas.NewBatch(r.Output.Schema())
			}
			if int(r.Row.Row) == rows.out.Rows() {
				rows.out.AppendRange(r.Output, r.OutputRow, r.OutputRow+1)
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return rc, nil
}

// take returns what is recorded of the event at p, once, nil if nothing is.
func (rc *recovered) take(p schemas.Position) *recordedRows {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if len(rc.records) == 0 {
		return nil
	}
	r := rc.records[p]
	delete(rc.records, p)
	return r
}

// replay answers an event from its record. If the record is not whole, or another form than today's signature, the
// event is scored again and its records fold.
func (dr *door) replay(r *run, rev *compiled, it *item, rec *recordedRows) error {
	w := &work{door: dr}
	if rec.failed != nil {
		w.reject = []rejection{{it.d, rec.failed}}
		dr.commit.resume(w)
		return nil
	}
	at := r.in.Rows()
	if err := dr.decodeRows(r, rev, it, "pipeline.replay"); err != nil {
		return err
	}
	n := r.in.Rows() - at
	if rec.out == nil || rec.out.Rows() != n || rec.out.Schema().ID() != r.out.Schema().ID() {
		return nil
	}
	r.in.Truncate(at)
	if dr.Output != nil {
		one := *it
		one.rev, one.from, one.to = rev, 0, n
		if err := w.answer(&run{out: rec.out}, &one); err != nil {
			return err
		}
	} else {
		w.accept = []*connectors.Delivery{it.d}
	}
	it.enc = nil
	dr.commit.resume(w)
	return nil
}
