package lineage

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Receipts say what of the logs was exported: only that may be pruned. One key of the KV for each log,
// "exported.<stream>", holds a Receipt; "export.<id>" holds the ranges of an export that was written and not confirmed.

// Receipt is the contiguous range of one log that lies in files.
type Receipt struct {
	From    uint64    `json:"from"` // first sequence, inclusive
	Through uint64    `json:"through"`
	Time    time.Time `json:"time"`
}

// Ranges is what an export covers: for each log by its stream's name. A filtered export covers nothing.
type Ranges map[string]Receipt

const (
	receiptPrefix = "exported."
	pendingPrefix = "export."
)

// Keeper decides what may be deleted. Safe for concurrent use.
type Keeper struct {
	reader *StreamReader
	kv     schemas.KV
}

// NewKeeper returns a Keeper over the KV that also holds checkpoints.
func NewKeeper(r *StreamReader, kv schemas.KV) *Keeper { return &Keeper{reader: r, kv: kv} }

// Confirm counts the ranges as exported: call it when the file is safe under its name. Ranges that leave a gap behind
// what was exported so far are Invalid: prune deletes from the start of the log only.
func (k *Keeper) Confirm(ctx context.Context, rs Ranges) error {
	for name, r := range rs {
		if r.Through < r.From {
			continue // empty
		}
		if err := k.confirm(ctx, name, r); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) confirm(ctx context.Context, name string, r Receipt) error {
	const op = "lineage.Confirm"
	st, err := k.reader.logs.log(name).Stats(ctx)
	if err != nil {
		return err
	}
	for {
		have, rev, err := k.receipt(ctx, name)
		if err != nil {
			return err
		}
		next := max(have.Through+1, st.First)
		if r.From > next {
			return schemas.Errorf(schemas.Invalid, op, "the export of %s starts at %d, but %d to %d are not exported: export from the start, or from the last one's end", name, r.From, next, r.From-1)
		}
		if r.Through <= have.Through {
			return nil
		}
		have = Receipt{From: min(r.From, next), Through: r.Through, Time: r.Time}
		b, err := json.Marshal(have)
		if err != nil {
			return err
		}
		if rev == 0 {
			_, err = k.kv.Create(ctx, receiptPrefix+name, b)
		} else {
			_, err = k.kv.Update(ctx, receiptPrefix+name, b, rev)
		}
		if !errors.Is(err, schemas.ErrConflict) {
			return err
		}
	}
}

func (k *Keeper) receipt(ctx context.Context, name string) (r Receipt, rev uint64, err error) {
	b, rev, err := k.kv.Get(ctx, receiptPrefix+name)
	switch {
	case schemas.KindOf(err) == schemas.NotFound && err != nil:
		return r, 0, nil
	case err != nil:
		return r, 0, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, 0, schemas.Errorf(schemas.Internal, "lineage.receipt", "key %s%s: %w", receiptPrefix, name, err)
	}
	return r, rev, nil
}

// maxPending bounds the exports that wait to be confirmed; those older than pendingFor are forgotten to make room.
const (
	maxPending = 64
	pendingFor = 24 * time.Hour
)

// Pending remembers what an export under this id covers until ConfirmID. Overloaded: too many exports of the last day
// were never confirmed.
func (k *Keeper) Pending(ctx context.Context, id string, rs Ranges) error {
	keys, err := k.kv.Keys(ctx, pendingPrefix)
	if err != nil {
		return err
	}
	if len(keys) >= maxPending {
		if err := k.forget(ctx, keys); err != nil {
			return err
		}
	}
	b, err := json.Marshal(rs)
	if err != nil {
		return err
	}
	_, err = k.kv.Put(ctx, pendingPrefix+id, b)
	return err
}

// forget deletes old exports that nobody confirmed.
func (k *Keeper) forget(ctx context.Context, keys []string) error {
	left := len(keys)
	for _, key := range keys {
		b, rev, err := k.kv.Get(ctx, key)
		if err != nil {
			return err
		}
		var rs Ranges
		old := json.Unmarshal(b, &rs) != nil
		for _, r := range rs {
			old = old || time.Since(r.Time) > pendingFor
		}
		if old {
			if err := k.kv.Delete(ctx, key, rev); err != nil {
				return err
			}
			left--
		}
	}
	if left >= maxPending {
		return schemas.Errorf(schemas.Overloaded, "lineage.Pending", "%d exports of the last day wait to be confirmed: confirm them, or export without an id", left)
	}
	return nil
}

// ConfirmID is Confirm for an export that ran to its end under this id; NotFound if none did.
func (k *Keeper) ConfirmID(ctx context.Context, id string) (Ranges, error) {
	b, rev, err := k.kv.Get(ctx, pendingPrefix+id)
	if err != nil {
		if schemas.KindOf(err) == schemas.NotFound {
			return nil, schemas.Errorf(schemas.NotFound, "lineage.Confirm", "no export %q ran to its end", clip(id))
		}
		return nil, err
	}
	var rs Ranges
	if err := json.Unmarshal(b, &rs); err != nil {
		return nil, schemas.Errorf(schemas.Internal, "lineage.Confirm", "export %s: %w", id, err)
	}
	if err := k.Confirm(ctx, rs); err != nil {
		return nil, err
	}
	return rs, k.kv.Delete(ctx, pendingPrefix+id, rev)
}

// Pruned is what Prune did to one log.
type Pruned struct {
	Log      string `json:"log"`
	Before   uint64 `json:"before"`   // first sequence that is kept
	Messages uint64 `json:"messages"` // deleted
	Bytes    uint64 `json:"bytes"`    // freed
}

// Prune deletes what was appended before the time, in both logs, or nothing at all: Invalid, naming the command to run, if
// part of it was not exported; Unavailable, naming the pipeline, if events that it records may be delivered again.
func (k *Keeper) Prune(ctx context.Context, before time.Time) ([]Pruned, error) {
	const op = "lineage.Prune"
	var ps []Pruned
	for _, name := range [...]string{LogOnline, LogJobs} {
		log := k.reader.logs.log(name)
		seq, err := log.SequenceAt(ctx, before)
		if err != nil {
			return nil, err
		}
		st, err := log.Stats(ctx)
		if err != nil {
			return nil, err
		}
		r, _, err := k.receipt(ctx, name)
		if err != nil {
			return nil, err
		}
		if seq > st.First && seq > r.Through+1 && st.Messages > 0 {
			return nil, schemas.Errorf(schemas.Invalid, op, "%s is exported up to sequence %d only, and %d to %d are older than %s: run `leat lineage export FILE.parquet --until %s` first",
				name, r.Through, max(r.Through+1, st.First), seq-1, schemas.FormatTime(before), schemas.FormatTime(before))
		}
		ps = append(ps, Pruned{Log: name, Before: seq, Messages: st.Messages, Bytes: st.Bytes})
	}
	if err := k.settled(ctx, ps[0].Before); err != nil {
		return nil, err
	}
	for i := range ps {
		p := &ps[i]
		log := k.reader.logs.log(p.Log)
		if err := log.Purge(ctx, p.Before); err != nil {
			return nil, err
		}
		st, err := log.Stats(ctx)
		if err != nil {
			return nil, err
		}
		p.Messages, p.Bytes = p.Messages-min(p.Messages, st.Messages), p.Bytes-min(p.Bytes, st.Bytes)
	}
	return ps, nil
}

// settled makes sure that no pipeline with a topic still needs records before seq for its recovery.
func (k *Keeper) settled(ctx context.Context, seq uint64) error {
	keys, err := k.kv.Keys(ctx, checkpointPrefix)
	if err != nil {
		return err
	}
	for _, key := range keys {
		at, err := loadSequence(ctx, k.kv, key)
		if err != nil {
			return err
		}
		pipeline := strings.TrimPrefix(key, checkpointPrefix)
		if at+1 >= seq {
			continue
		}
		needed := false
		after := k.reader.newScan(LogOnline, Query{Pipeline: pipeline, From: at + 1}, false, noFoldBack, events{record: func(*Record) (bool, error) {
			needed = true
			return false, nil
		}})
		after.through = seq - 1
		if err := after.run(ctx); err != nil {
			return err
		}
		if needed {
			return schemas.Errorf(schemas.Unavailable, "lineage.Prune", "pipeline %s has settled its events up to sequence %d only, and needs what it recorded after that to recover: start it, or delete it, or prune less", pipeline, at)
		}
	}
	return nil
}
