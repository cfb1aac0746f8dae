package kafka

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/schemas"
)

// requestBatch is how many requests travel together at most.
const requestBatch = 500

// requestWait bounds the write of requests whose callers have no deadline.
const requestWait = 30 * time.Second

// outbox sends the requests for one pipeline: those that are made at the same moment together, to one partition, and
// the next ones to the next. So a lone request waits for nothing, many travel as few, and the members of the group
// take turns.
type outbox struct {
	q        *requests
	pipeline string
	topic    string // in the cluster
	presence presence
	mu       struct {
		sync.Mutex
		waiting  []*waiter // to be written
		sending  bool      // somebody is about to
		last     int32     // partition that was written to last
		watching bool
	}
}

// box returns the outbox of a pipeline. A new one is not kept: names that callers make up take no memory.
func (q *requests) box(pipeline string) *outbox {
	q.mu.Lock()
	defer q.mu.Unlock()
	if o := q.mu.boxes[pipeline]; o != nil {
		return o
	}
	o := &outbox{q: q, pipeline: pipeline, topic: q.c.name(topicScore + pipeline)}
	o.presence.init(q.c, pipeline)
	return o
}

// keepBox keeps an outbox, unless there is another one for its pipeline by now. It returns the one that is kept.
func (q *requests) keepBox(o *outbox) *outbox {
	q.mu.Lock()
	defer q.mu.Unlock()
	if kept := q.mu.boxes[o.pipeline]; kept != nil {
		return kept
	}
	q.mu.boxes[o.pipeline] = o
	return o
}

// send hands w over to be written; it does not wait.
func (o *outbox) send(w *waiter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.waiting = append(o.mu.waiting, w)
	if !o.mu.sending {
		o.mu.sending = o.q.c.spawn(o.run)
	}
	if !o.mu.watching {
		o.mu.watching = o.q.c.spawn(o.watch)
	}
}

// run writes what waits. What comes meanwhile has a run of its own: the producer bounds how many are on their way.
func (o *outbox) run() {
	runtime.Gosched() // lets callers that are about to ask join: at low load nobody else is runnable
	o.mu.Lock()
	ws := o.mu.waiting
	o.mu.waiting = nil
	if len(ws) > requestBatch {
		o.mu.waiting = slices.Clone(ws[requestBatch:])
		ws = ws[:requestBatch]
	}
	o.mu.sending = len(o.mu.waiting) > 0 && o.q.c.spawn(o.run)
	o.mu.Unlock()
	if ws = slices.DeleteFunc(ws, func(w *waiter) bool { return w.gone.Load() }); len(ws) == 0 {
		return
	}
	ctx, cancel := context.WithDeadline(o.q.c.closing, latest(ws))
	defer cancel()
	if err := o.write(ctx, ws); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) { // that of each of them
			err = schemas.Errorf(schemas.Expired, "kafka.Request", "pipeline %s: the request was not stored in time: %w", o.pipeline, err)
		}
		for _, w := range ws {
			o.q.fail(w, classify("kafka.Request", "pipeline "+o.pipeline, err))
		}
	}
}

// latest is when the last of the callers gives up.
func latest(ws []*waiter) time.Time {
	var out time.Time
	for _, w := range ws {
		d := w.deadline
		if d.IsZero() {
			d = time.Now().Add(requestWait)
		}
		if d.After(out) {
			out = d
		}
	}
	return out
}

func (o *outbox) write(ctx context.Context, ws []*waiter) error {
	p, err := o.next(ctx)
	if err != nil {
		return err
	}
	recs := make([]record, len(ws))
	for i, w := range ws {
		w.rec.partition = p
		recs[i] = w.rec
	}
	offsets, err := o.q.c.produce(ctx, recs)
	if err != nil {
		return err
	}
	for i, w := range ws {
		w.sent.Store(offsets[i] + 1)
	}
	return nil
}

// next returns the partition for the next batch: the one after the last, or the first after that which has a leader.
func (o *outbox) next(ctx context.Context) (int32, error) {
	t, err := o.q.c.meta.topic(ctx, "kafka.Request", o.topic)
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := int32(len(t.leaders))
	p := (o.mu.last + 1) % n
	for i := range n {
		if t.leaders[(p+i)%n] >= 0 {
			p = (p + i) % n
			break
		}
	}
	o.mu.last = p
	return p, nil
}
