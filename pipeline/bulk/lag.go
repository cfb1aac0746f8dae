package bulk

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// How far a job is, in each partition and in event time: of a message that is Leat-Event-Time, or when it was stored.

// eventTime is when a message's event was: as it says, or when the message was stored.
func eventTime(d *connectors.Delivery) time.Time {
	if t, ok := statedTime(d); ok {
		return t
	}
	return d.Time
}

// statedTime is what a message says of its event's time; one that cannot be read is none.
func statedTime(d *connectors.Delivery) (time.Time, bool) {
	s := d.Header.Get(schemas.HeaderEventTime)
	if s == "" {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

// Bounds of the look at a range's ends: for people only, so it is given up when it takes long.
const (
	edgeWait  = 5 * time.Second
	edgeCalls = 8       // at once
	edgeMost  = 1 << 16 // sequences that may be missing at an end
)

// edges notes the event times of the first and the last message of each range, as far as they are found in time.
func (s *Service) edges(ctx context.Context, topic string, rs []Range) {
	ctx, cancel := context.WithTimeout(ctx, edgeWait)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(edgeCalls)
	for i := range rs {
		r := &rs[i]
		g.Go(func() error {
			var err error
			if r.FirstTime, err = s.edge(ctx, topic, r, false); err == nil {
				r.LastTime, err = s.edge(ctx, topic, r, true)
			}
			if err != nil {
				s.log.Debug("event times of a job's source", "topic", topic, "partition", r.Partition, "error", err)
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
}

// edge finds the first message of a range, or the last one: further and further from its end, for messages may be
// missing. The time is zero if there is none near.
func (s *Service) edge(ctx context.Context, topic string, r *Range, last bool) (time.Time, error) {
	for n := uint64(1); ; n *= 16 {
		sp := connectors.Span{Topic: topic, Partition: r.Partition, First: r.First, Last: r.Last}
		all := uint64(r.len()) <= n
		switch {
		case all:
		case last:
			sp.First = r.Last - n + 1
		default:
			sp.Last = r.First + n - 1
		}
		t, found, err := s.look(ctx, sp, last)
		if err != nil || found || all || n >= edgeMost {
			return t, err
		}
	}
}

// look returns the event time of a span's first or last message.
func (s *Service) look(ctx context.Context, sp connectors.Span, last bool) (t time.Time, found bool, err error) {
	src, err := s.deps.Replayer.Open(ctx, sp)
	if err != nil {
		return t, false, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = src.Close(end) // it was only read
	}()
	for {
		ds, err := src.Receive(ctx, 1024)
		if errors.Is(err, schemas.ErrDrained) {
			return t, found, nil
		}
		if err != nil {
			return t, found, err
		}
		if !last {
			return eventTime(ds[0]).UTC(), true, nil
		}
		t, found = eventTime(ds[len(ds)-1]).UTC(), true
	}
}

// newest returns the newest event time of the rows before end, 0 if none is known.
func (r *rows) newest(end ref) (nanos int64) {
	n, nbad := r.before(end)
	for i := range r.origins[:min(n, len(r.origins))] {
		nanos = max(nanos, r.origins[i].when)
	}
	for i := range r.bad[:nbad] {
		nanos = max(nanos, r.bad[i].when)
	}
	return nanos
}

// Reached is how far a job is in a partition.
type Reached struct {
	Next      uint64    `json:"next"`                // first sequence that is not done
	EventTime time.Time `json:"event_time,omitzero"` // newest that is done
}

// reached is how far a job is in each partition of its source.
type reached map[int32]Reached

// pass notes that a chunk is done. A message that it ends in counts as done.
func (m reached) pass(sp span) {
	at := m[sp.Partition]
	next := sp.End.Unit
	if sp.End.Sub > 0 {
		next++
	}
	at.Next = max(at.Next, next)
	if sp.Newest != 0 {
		if t := unixNano(sp.Newest); t.After(at.EventTime) {
			at.EventTime = t
		}
	}
	m[sp.Partition] = at
}

// progress notes in the counters what the chunks that are done cover.
func (m reached) progress(c *Counters, e *Ends) {
	if e.Ranges == nil {
		c.Passed = int64(m[0].Next)
		return
	}
	c.Passed = 0
	for _, r := range e.Ranges {
		at := m[r.Partition]
		c.Passed += r.done(at.Next)
		if at.EventTime.After(c.EventTime) {
			c.EventTime = at.EventTime
		}
	}
}

// done returns how many sequences of the range lie before next.
func (r Range) done(next uint64) int64 {
	if next <= r.First {
		return 0
	}
	return min(int64(next-r.First), r.len())
}

// PartitionView is how far a job is in a partition of its source.
type PartitionView struct {
	Partition int32     `json:"partition"`
	First     uint64    `json:"first"`               // sequence
	Last      uint64    `json:"last"`                // same; what comes later is not of the job
	Next      uint64    `json:"next"`                // first sequence that is not done
	Left      int64     `json:"left"`                // sequences that are not done
	EventTime time.Time `json:"event_time,omitzero"` // of the newest message that is done
	EventEnd  time.Time `json:"event_end,omitzero"`  // of the last message
	EventLag  float64   `json:"event_lag,omitempty"` // seconds from the one to the other; before it is begun, from its first message
}

// partitions tells how far a job is in each partition.
func (j *Job) partitions() []PartitionView {
	var out []PartitionView
	for _, r := range j.Ends.Ranges {
		at := j.Reached[r.Partition]
		done := r.done(at.Next)
		if j.Status == Done {
			done = r.len()
		}
		v := PartitionView{Partition: r.Partition, First: r.First, Last: r.Last, Next: r.First + uint64(done), Left: r.len() - done,
			EventTime: at.EventTime, EventEnd: r.LastTime}
		from := at.EventTime
		if done == 0 {
			from = r.FirstTime
		}
		if v.Left > 0 && !from.IsZero() && !r.LastTime.IsZero() {
			v.EventLag = max(r.LastTime.Sub(from).Seconds(), 0)
		}
		out = append(out, v)
	}
	return out
}

// remaining estimates the rows that are left: what is not passed, at the rows that came of what is. It is exact for a
// file that tells its rows, and where each sequence of a partition is a message of one row.
func (j *Job) remaining() int64 {
	left := max(j.Total-j.Passed, 0)
	if j.Ends.Ranges == nil || j.Passed <= 0 || j.Rows <= 0 {
		return left
	}
	return int64(float64(left)*float64(j.Rows)/float64(j.Passed) + 0.5)
}
