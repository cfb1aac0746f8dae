package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// The topic of a pipeline: how its door is opened and closed, and the checkpoints of one that is at least once.

// wiring is what of a spec decides how its topic is read and written.
type wiring struct {
	input    *Input
	output   *Output
	delivery Guarantee
}

// openTopic makes the durable door what the revision wants.
func (p *processor) openTopic(ctx context.Context, rev *Revision) error {
	want := wiring{rev.Spec.Input, rev.Spec.Output, rev.Spec.Delivery}
	if reflect.DeepEqual(want, p.durable.wired) {
		return nil
	}
	if err := p.closeTopic(ctx); err != nil {
		return err
	}
	if want.input != nil {
		if err := p.openDurable(ctx, rev); err != nil {
			return err
		}
	}
	p.durable.wired = want
	return nil
}

// closeTopic closes the durable door, if one is open. One that is exactly once keeps no checkpoint while it is open; it
// leaves one behind, so that the pipeline can go on at least once without a scan of all that was recorded meanwhile.
func (p *processor) closeTopic(ctx context.Context) error {
	err := p.durable.close(ctx)
	if at := p.settled.Load(); p.durable.wired.delivery == ExactlyOnce && at > 0 {
		if err := p.host.WAL.SaveCheckpoint(ctx, p.name, at+1); err != nil {
			p.host.Log.Warn("checkpoint not saved", "pipeline", p.name, slog.Any("error", err))
		}
	}
	p.durable.wired = wiring{}
	return err
}

func (p *processor) openDurable(ctx context.Context, rev *Revision) error {
	exactly := rev.Spec.Delivery == ExactlyOnce
	var seen *recovered
	if !exactly {
		var err error
		if seen, err = recoverSeen(p.stopped, p.host.WAL, p.name); err != nil {
			return err
		}
	}
	b, err := p.host.Topic(p.stopped, &rev.Spec)
	if err != nil {
		return err
	}
	records, ok := p.host.Lineage.(lineage.Encoder)
	switch {
	case exactly && (b.Transactor == nil || !ok):
		return errors.Join(schemas.FieldErrorf(schemas.Invalid, "pipeline.openTopic", "delivery", "%s: this server has no transactions for topic %s", ExactlyOnce, rev.Spec.Input.Topic), b.Source.Close(ctx))
	case exactly:
		p.transact = p.host.m.transact.WithLabelValues(p.name)
		p.durable.commit = newTransactional(ctx, p, b.Transactor, records)
	default:
		b.Transactor = nil
		p.durable.commit = newOrdered(ctx, p)
	}
	d := newDoor(p, b, p.durable.commit, seen)
	p.open(ctx, &p.durable, d)
	if !exactly {
		p.durable.group.Go(func() { p.saveCheckpoints(ctx, d) })
	}
	return nil
}

// settledUpTo notes that every event whose record lies at or before the sequence is settled.
func (p *processor) settledUpTo(seq uint64) {
	for at := p.settled.Load(); seq > at && !p.settled.CompareAndSwap(at, seq); at = p.settled.Load() {
	}
}

const (
	// checkpointEvery is how often the checkpoint is saved. What is saved is what was settled one tick earlier, so that
	// acknowledgements on their way to the stream have arrived.
	checkpointEvery = time.Second
	// holdCheckpoint is how long what was recorded before the start may take to come again, from a quiet partition or one
	// that a dead member still holds: until then the checkpoint stays, so that another crash finds it once more. A stream
	// that is not ours gives back after 30 s what was in hand (connectors/nats).
	holdCheckpoint = time.Minute
)

func (p *processor) saveCheckpoints(ctx context.Context, d *door) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	opened := time.Now()
	var before, saved uint64
	for {
		select {
		case <-t.C:
		case <-d.ended:
			return
		case <-ctx.Done():
			return
		}
		if !d.seen.empty() && time.Since(opened) < holdCheckpoint {
			continue
		}
		if before > saved {
			if err := p.host.WAL.SaveCheckpoint(ctx, p.name, before+1); err != nil {
				p.host.Log.Warn("checkpoint not saved: a restart will scan more of the lineage", "pipeline", p.name, slog.Any("error", err))
			} else {
				saved = before
			}
		}
		before = p.settled.Load()
	}
}
