package bulk

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// How far a job is in event time: of a message that is Leat-Event-Time, or when it was stored. Partitions are read one
// after another, so what is done is told by Counters.Passed, and one time is enough beside it.

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

// reach notes that a chunk is done: what it covers, and its newest event.
func (c *Counters) reach(e *Ends, sp span) {
	start := e.passed(span{Partition: sp.Partition, End: ref{Unit: e.first(sp.Partition)}})
	if c.Passed <= start { // the first of its partition
		c.EventTime = time.Time{}
	}
	if sp.Newest != 0 {
		if t := unixNano(sp.Newest); t.After(c.EventTime) {
			c.EventTime = t
		}
	}
	c.Passed = max(c.Passed, e.passed(sp))
}

// first is the first sequence of a partition.
func (e *Ends) first(partition int32) uint64 {
	for _, r := range e.Ranges {
		if r.Partition == partition {
			return r.First
		}
	}
	return 0
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
	left := j.Passed
	for _, r := range j.Ends.Ranges {
		done := min(left, r.len())
		left -= done
		v := PartitionView{Partition: r.Partition, First: r.First, Last: r.Last, Next: r.First + uint64(done), Left: r.len() - done, EventEnd: r.LastTime}
		from := r.FirstTime
		switch {
		case v.Left == 0:
			v.EventTime = r.LastTime
		case done > 0:
			v.EventTime, from = j.EventTime, j.EventTime
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
