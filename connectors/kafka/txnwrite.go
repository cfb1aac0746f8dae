package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"

	"github.com/leatstream/leat/connectors"
)

// txnWrite is what one transaction writes: the records of each partition in their order, in batches.
type txnWrite struct {
	recs    []record
	bodies  []sealed
	slab    []byte     // where they lie
	lanes   []*txnLane // by first appearance
	offsets []int64    // of recs, once stored
	limit   int        // bytes of a batch
	mu      sync.Mutex // guards the sequences: leaders answer side by side
}

// txnLane is one partition's part.
type txnLane struct {
	laneKey
	at   []int  // its records, in recs
	done int    // of at, stored
	most int    // records in a batch: halved when a broker takes less
	n    int    // records in raw
	raw  []byte // the batch that is sent next, or again
}

func newTxnWrite(recs []record, limit int) *txnWrite {
	w := &txnWrite{recs: recs, offsets: make([]int64, len(recs)), limit: limit}
	w.bodies, w.slab = sealInto(recs)
	by := map[laneKey]*txnLane{}
	for i := range recs {
		k := laneKey{recs[i].topic, recs[i].partition}
		l := by[k]
		if l == nil {
			l = &txnLane{laneKey: k, most: maxBatchRecords}
			by[k] = l
			w.lanes = append(w.lanes, l)
		}
		l.at = append(l.at, i)
	}
	return w
}

// free gives the memory back. Nothing of it is on its way any more: send waits for all.
func (w *txnWrite) free() { giveSlab(w.slab) }

// rewind makes it ready to be written from its beginning.
func (w *txnWrite) rewind() {
	for _, l := range w.lanes {
		l.done, l.raw = 0, nil
	}
}

// topics are those that are written to.
func (w *txnWrite) topics() []string {
	var out []string
	for _, l := range w.lanes {
		if !slices.Contains(out, l.topic) {
			out = append(out, l.topic)
		}
	}
	return out
}

// partitions are those that are written to.
func (w *txnWrite) partitions() []addpartitionstotxn.RequestTopic {
	var out []addpartitionstotxn.RequestTopic
	for _, l := range w.lanes {
		i := slices.IndexFunc(out, func(t addpartitionstotxn.RequestTopic) bool { return t.Name == l.topic })
		if i < 0 {
			i = len(out)
			out = append(out, addpartitionstotxn.RequestTopic{Name: l.topic})
		}
		out[i].Partitions = append(out[i].Partitions, l.partition)
	}
	return out
}

// send writes everything and returns when all in-sync replicas have it. One batch of each partition is on its way at a
// time; leaders are written to side by side.
func (w *txnWrite) send(ctx context.Context, c *Client, transaction string, s *txnSession) error {
	for {
		by := map[int32][]*txnLane{}
		for _, l := range w.lanes {
			if l.done == len(l.at) {
				continue
			}
			if l.raw == nil {
				w.fill(l, s)
			}
			leader, err := c.meta.leader(ctx, "kafka.Transact", l.topic, l.partition)
			if err != nil {
				return err
			}
			by[leader] = append(by[leader], l)
		}
		if len(by) == 0 {
			return nil
		}
		errs := make(chan error, len(by))
		for leader, ls := range by {
			go func() { errs <- w.sendTo(ctx, c, transaction, s, leader, ls) }()
		}
		var failed error
		for range by {
			if err := <-errs; err != nil && (failed == nil || !passing(err)) {
				failed = err
			}
		}
		if failed == nil {
			continue
		}
		if !passing(failed) || ctx.Err() != nil {
			return failed
		}
		if err := w.pause(ctx, c); err != nil {
			return err
		}
	}
}

// fill makes the next batch of a partition.
func (w *txnWrite) fill(l *txnLane, s *txnSession) {
	left := l.at[l.done:]
	n, size := 0, batchOverhead
	for n < len(left) && n < l.most {
		if size += len(w.bodies[left[n]].body) + recordRoom; size > w.limit && n > 0 {
			break
		}
		n++
	}
	l.n = n
	l.raw = appendBatch(make([]byte, 0, min(size, w.limit+recordRoom)), n, func(i int) *sealed { return &w.bodies[left[i]] }, producerID{id: s.id, epoch: s.epoch, seq: s.seqs[l.laneKey]}, true)
}

func (w *txnWrite) sendTo(ctx context.Context, c *Client, transaction string, s *txnSession, leader int32, ls []*txnLane) error {
	if leader < 0 {
		return kafka.LeaderNotAvailable
	}
	parts := make([]producePart, len(ls))
	for i, l := range ls {
		parts[i] = producePart{topic: l.topic, partition: l.partition, batch: l.raw}
	}
	start := time.Now()
	answers, err := c.produceRaw(ctx, leader, transaction, parts)
	c.cfg.Metrics.produced(time.Since(start))
	if err != nil {
		return err
	}
	var failed error
	for i, l := range ls {
		switch err := answers[i].err; {
		case err == nil:
			w.stored(l, s, answers[i].offset)
		case isTooMuch(err) && l.n > 1:
			l.most, l.raw = l.n/2, nil
		case isTooMuch(err):
			return w.refuse(ctx, c, l, err)
		case failed == nil || !passing(err):
			failed = err
		}
	}
	return failed
}

func (w *txnWrite) stored(l *txnLane, s *txnSession, base int64) {
	for i, at := range l.at[l.done : l.done+l.n] {
		w.offsets[at] = base + int64(i)
	}
	l.done += l.n
	l.raw = nil
	w.mu.Lock()
	defer w.mu.Unlock()
	s.seqs[l.laneKey] = producerID{seq: s.seqs[l.laneKey]}.after(l.n).seq
}

// refuse is the error of a lone record that a broker does not take.
func (w *txnWrite) refuse(ctx context.Context, c *Client, l *txnLane, err error) error {
	const op = "kafka.Transact"
	r := &connectors.RefusedError{Index: l.at[l.done]}
	if limit, lerr := c.maxMessage(ctx, l.topic); lerr == nil && !errors.Is(err, kafka.InvalidRecord) && !errors.Is(err, kafka.InvalidTimestamp) {
		r.Err = oversize(op, c.user(l.topic), len(l.raw), limit)
	} else {
		r.Err = classify(op, "topic "+c.user(l.topic), err)
	}
	return r
}

// pause waits a little and looks for the leaders again.
func (w *txnWrite) pause(ctx context.Context, c *Client) error {
	for _, l := range w.lanes {
		if l.done < len(l.at) {
			if _, err := c.meta.refresh(ctx, "kafka.Transact", l.topic); err != nil {
				return err
			}
		}
	}
	return sleep(ctx, retryPause)
}
