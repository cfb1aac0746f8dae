package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// replayWait bounds one fetch of a replay. What it asks for is stored, so it hardly ever waits.
const replayWait = 500 * time.Millisecond

// Spans implements connectors.Replayer. The ends are the last stable offsets: what an open transaction has written is
// not part of it.
func (c *Client) Spans(ctx context.Context, topic string, start connectors.Start) ([]connectors.Span, error) {
	const op = "kafka.Spans"
	if err := checkTopicName(op, topic); err != nil {
		return nil, err
	}
	ends, err := c.endOffsets(ctx, op, topic)
	if err != nil {
		return nil, err
	}
	at := start.Time
	if start.Sequence > 0 {
		at = time.Time{}
	}
	firsts, err := c.offsets(ctx, op, topic, at)
	if err != nil {
		return nil, err
	}
	out := make([]connectors.Span, min(len(ends), len(firsts)))
	for p := range out {
		out[p] = connectors.Span{Topic: topic, Partition: int32(p), First: max(uint64(firsts[p])+1, start.Sequence), Last: uint64(ends[p])}
	}
	return out, nil
}

// Open implements connectors.Replayer. It holds up to two answers of FetchBytes in memory.
func (c *Client) Open(ctx context.Context, s connectors.Span) (connectors.Source, error) {
	const op = "kafka.Open"
	n, err := c.partitions(ctx, op, s.Topic)
	if err != nil {
		return nil, err
	}
	if s.Partition < 0 || int(s.Partition) >= n {
		return nil, noPartition(op, s.Topic, s.Partition, n)
	}
	r := &replay{span: s, ch: make(chan []fetched), done: make(chan struct{})}
	r.f = c.newFetcher(s.Topic, s.Partition, int64(max(s.First, 1))-1)
	r.f.onward = true
	run, cancel := context.WithCancel(c.closing)
	r.cancel = cancel
	if !c.spawn(func() { r.run(run) }) {
		cancel()
		return nil, errClosed(op)
	}
	return r, nil
}

// replay reads one span, one answer ahead of who receives.
type replay struct {
	f       *fetcher
	span    connectors.Span
	ch      chan []fetched
	cancel  context.CancelFunc
	done    chan struct{} // closed when run has returned
	err     error         // of run; read after done
	pending []fetched     // of Receive
}

func (r *replay) run(ctx context.Context) {
	defer close(r.done)
	defer r.cancel()
	for r.f.position() < int64(r.span.Last) {
		rs, err := r.f.next(ctx, replayWait)
		if err != nil {
			if !errors.Is(err, errGone) && ctx.Err() == nil {
				r.err = err
			}
			return
		}
		for len(rs) > 0 && rs[len(rs)-1].offset >= int64(r.span.Last) {
			rs = rs[:len(rs)-1]
		}
		if len(rs) == 0 {
			continue
		}
		select {
		case r.ch <- rs:
		case <-ctx.Done():
			return
		}
	}
}

// Receive waits for the first record and takes what came with it.
func (r *replay) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	if len(r.pending) == 0 {
		select {
		case r.pending = <-r.ch:
		case <-r.done:
			switch {
			case r.err != nil:
				return nil, r.err
			case r.f.c.closing.Err() != nil:
				return nil, errClosed("kafka.replay")
			}
			return nil, schemas.ErrDrained
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	n := min(max, len(r.pending))
	slab := make([]connectors.Delivery, n)
	out := make([]*connectors.Delivery, n)
	for i := range out {
		slab[i] = delivery(r.span.Topic, r.span.Partition, &r.pending[i])
		slab[i].Settler = noSettler{}
		out[i] = &slab[i]
	}
	if r.pending = r.pending[n:]; len(r.pending) == 0 {
		r.pending = nil
	}
	return out, nil
}

// Drain stops reading ahead.
func (r *replay) Drain() { r.cancel() }

// Close ends the reading.
func (r *replay) Close(ctx context.Context) error {
	r.cancel()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// noSettler is the settler of what needs no settlement.
type noSettler struct{}

// Accept does nothing.
func (noSettler) Accept(context.Context, []*connectors.Delivery) error { return nil }

// Retry is not offered: who reads a range again opens it again.
func (noSettler) Retry(context.Context, *connectors.Delivery, time.Duration) error {
	return schemas.ErrUnsupported
}

// Reject does nothing.
func (noSettler) Reject(context.Context, *connectors.Delivery, error) error { return nil }

var _ connectors.Replayer = (*Client)(nil)
