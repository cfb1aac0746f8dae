package lineage

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/leatstream/leat/schemas"
)

// WriteAhead is the lineage as the write-ahead log of topics (SEMANTICS 4): the records that a checkpoint does not cover,
// and the checkpoints themselves, kept in a KV under "checkpoint.<pipeline>". Safe for concurrent use; one process saves
// the checkpoint of a pipeline at a time.
type WriteAhead struct {
	reader *StreamReader
	kv     schemas.KV
}

// NewWriteAhead returns a WriteAhead over the KV that also holds export receipts.
func NewWriteAhead(r *StreamReader, kv schemas.KV) *WriteAhead { return &WriteAhead{reader: r, kv: kv} }

const checkpointPrefix = "checkpoint."

// Recover calls fn for the canonical records of the pipeline from sequence from on that no job made and whose input came
// from a durable stream (From is not zero), in stream order, until fn returns false. The record is lent for the call.
func (w *WriteAhead) Recover(ctx context.Context, pipeline string, from uint64, fn func(*Record) bool) error {
	q := Query{Pipeline: pipeline, Run: RunNone, From: max(from, 1)}
	s := w.reader.newScan(LogOnline, q, true, noFoldBack, events{record: func(r *Record) (bool, error) {
		return r.From.IsZero() || fn(r), nil
	}})
	return s.run(ctx)
}

// Checkpoint returns the lineage sequence before which every recorded event of the pipeline was settled, 0 if none was
// saved.
func (w *WriteAhead) Checkpoint(ctx context.Context, pipeline string) (uint64, error) {
	return loadSequence(ctx, w.kv, checkpointPrefix+pipeline)
}

// SaveCheckpoint keeps the sequence. A checkpoint never goes back: a lower one than is kept is ignored.
func (w *WriteAhead) SaveCheckpoint(ctx context.Context, pipeline string, sequence uint64) error {
	for {
		b, rev, err := w.kv.Get(ctx, checkpointPrefix+pipeline)
		v := binary.BigEndian.AppendUint64(nil, sequence)
		switch {
		case err == nil && len(b) == 8 && binary.BigEndian.Uint64(b) >= sequence:
			return nil
		case err == nil:
			_, err = w.kv.Update(ctx, checkpointPrefix+pipeline, v, rev)
		case schemas.KindOf(err) == schemas.NotFound:
			_, err = w.kv.Create(ctx, checkpointPrefix+pipeline, v)
		}
		if !errors.Is(err, schemas.ErrConflict) {
			return err
		}
	}
}

// DeleteCheckpoint forgets the checkpoint of a pipeline that was deleted.
func (w *WriteAhead) DeleteCheckpoint(ctx context.Context, pipeline string) error {
	err := w.kv.Delete(ctx, checkpointPrefix+pipeline, 0)
	if schemas.KindOf(err) == schemas.NotFound {
		return nil
	}
	return err
}

// loadSequence reads a key of 8 bytes, 0 if it is not there.
func loadSequence(ctx context.Context, kv schemas.KV, key string) (uint64, error) {
	b, _, err := kv.Get(ctx, key)
	switch {
	case err == nil && len(b) == 8:
		return binary.BigEndian.Uint64(b), nil
	case err == nil:
		return 0, schemas.Errorf(schemas.Internal, "lineage.Checkpoint", "key %s holds %d bytes: want 8", key, len(b))
	case schemas.KindOf(err) == schemas.NotFound:
		return 0, nil
	}
	return 0, err
}
