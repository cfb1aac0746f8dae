package kafka

import (
	"slices"
	"sort"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// tracker follows the records of one partition from the fetch to the commit: what waits to be handed over, what is in
// somebody's hands, and up to where all is settled. Records are settled in any order; only the unbroken prefix may be
// committed. It reads no clock, starts nothing and does no I/O. Whoever owns it locks.
type tracker struct {
	limit   int     // of records handed over and not yet committable
	chunks  []chunk // fetched and not handed over
	taken   int     // records of the first chunk that were handed over
	bytes   int     // of keys and values in chunks
	records int     // in chunks, not handed over
	end     int64   // the offset that is fetched next; -1 until the first fetch told
	floor   int64   // everything below is settled; -1 until the first fetch told
	high    int64   // everything below was handed over here
	again   int64   // what lies below was in somebody's hands before: its attempt is the second, at least
	window  []inWork
	head    int // of window
	hands   int // entries in somebody's hands
	retries []retry
}

// chunk is what one fetch brought.
type chunk struct {
	recs  []fetched
	end   int64 // the offset after it, which may lie beyond its last record: markers, gaps, aborted records
	bytes int
}

// inWork is a record that was handed over.
type inWork struct {
	offset  int64
	next    int64 // may be committed once everything up to this record is settled
	attempt int
	state   workState
	since   time.Time // handed over
	stored  time.Time
}

type workState uint8

const (
	inHands workState = iota // lent to the receiver
	waiting                  // for its retry
	settled
)

// retry is a delivery that is to be handed over again, not before its time.
type retry struct {
	at time.Time
	d  *connectors.Delivery
}

func newTracker(limit int) tracker { return tracker{limit: limit, end: -1, floor: -1} }

// put adds what a fetch brought; end is the offset after it. The records are the tracker's now.
func (t *tracker) put(recs []fetched, end int64) {
	if t.floor < 0 {
		t.floor = end
		if len(recs) > 0 {
			t.floor = recs[0].offset
		}
	}
	t.end = end
	if len(recs) > 0 {
		c := chunk{recs: recs, end: end}
		for i := range recs {
			c.bytes += len(recs[i].key) + len(recs[i].value)
		}
		t.chunks = append(t.chunks, c)
		t.bytes += c.bytes
		t.records += len(recs)
		return
	}
	switch { // nothing but markers and gaps: they count as settled with what comes before them
	case len(t.chunks) > 0:
		t.chunks[len(t.chunks)-1].end = end
	case len(t.window) > t.head:
		t.window[len(t.window)-1].next = end
	default:
		t.floor = end
	}
}

// room reports whether another fetch of up to so many bytes is wanted: half of one is kept waiting at most.
func (t *tracker) room(fetch int) bool { return t.bytes <= fetch/2 && t.records <= max(t.limit, 1024) }

// pop hands over the next record, nil if there is none, if a retry holds the partition or the limit is reached.
func (t *tracker) pop(now time.Time) (r *fetched, attempt int) {
	if len(t.chunks) == 0 || len(t.retries) > 0 || len(t.window)-t.head >= t.limit {
		return nil, 0
	}
	c := &t.chunks[0]
	r = &c.recs[t.taken]
	w := inWork{offset: r.offset, next: r.offset + 1, attempt: 1, since: now, stored: r.time}
	if r.offset < t.again {
		w.attempt = 2
	}
	t.taken++
	t.records--
	if t.taken == len(c.recs) {
		w.next = c.end
		t.bytes -= c.bytes
		*c = chunk{}
		t.chunks, t.taken = t.chunks[1:], 0
	}
	t.high = w.offset + 1
	t.window = append(t.window, w)
	t.hands++
	return r, w.attempt
}

// due appends the retries whose time has come, in order, until ds holds max.
func (t *tracker) due(now time.Time, ds []*connectors.Delivery, max int) []*connectors.Delivery {
	i := 0
	for ; i < len(t.retries) && len(ds) < max && !t.retries[i].at.After(now); i++ {
		d := t.retries[i].d
		w := t.find(int64(d.From.Sequence) - 1)
		w.state, w.attempt, w.since = inHands, d.Attempt, now
		t.hands++
		ds = append(ds, d)
	}
	t.retries = slices.Delete(t.retries, 0, i)
	return ds
}

// find returns the record in work at an offset, nil if it is committable or unknown.
func (t *tracker) find(offset int64) *inWork {
	w := t.window[t.head:]
	if len(w) == 0 || offset < w[0].offset {
		return nil
	}
	if i := offset - w[0].offset; i < int64(len(w)) && w[i].offset == offset { // no gap so far, the usual case
		return &w[i]
	}
	i := sort.Search(len(w), func(i int) bool { return w[i].offset >= offset })
	if i == len(w) || w[i].offset != offset {
		return nil
	}
	return &w[i]
}

// held returns the record that d stands for; Internal if it is not in its receiver's hands.
func (t *tracker) held(op string, d *connectors.Delivery) (*inWork, error) {
	w := t.find(int64(d.From.Sequence) - 1)
	if w == nil || w.state != inHands || w.attempt != d.Attempt {
		return nil, schemas.Errorf(schemas.Internal, op, "%s (attempt %d) was settled already", d.From, d.Attempt)
	}
	return w, nil
}

// settle marks a record as done; advance follows.
func (t *tracker) settle(op string, d *connectors.Delivery) error {
	w, err := t.held(op, d)
	if err != nil {
		return err
	}
	w.state = settled
	t.hands--
	return nil
}

// retry keeps d and holds the partition until d was handed over again.
func (t *tracker) retry(op string, d *connectors.Delivery, at time.Time) error {
	w, err := t.held(op, d)
	if err != nil {
		return err
	}
	w.state = waiting
	t.hands--
	next := *d
	next.Attempt++
	i := sort.Search(len(t.retries), func(i int) bool { return t.retries[i].d.From.Sequence >= d.From.Sequence })
	t.retries = slices.Insert(t.retries, i, retry{at: at, d: &next})
	return nil
}

// advance moves the floor over what is settled and reports by how many records.
func (t *tracker) advance() int {
	from := t.head
	for t.head < len(t.window) && t.window[t.head].state == settled {
		t.floor = t.window[t.head].next
		t.head++
	}
	n := t.head - from
	if t.head == len(t.window) {
		t.window, t.head = t.window[:0], 0
	} else if t.head >= 1024 && t.head >= len(t.window)/2 {
		t.window = slices.Delete(t.window, 0, t.head)
		t.head = 0
	}
	return n
}

// oldest returns the oldest record that is not settled, nil if none is in work.
func (t *tracker) oldest() *inWork {
	if t.head == len(t.window) {
		return nil
	}
	return &t.window[t.head]
}

// since is when the oldest record that is here and not settled was stored; zero if there is none.
func (t *tracker) since() time.Time {
	if w := t.oldest(); w != nil {
		return w.stored
	}
	if len(t.chunks) > 0 {
		return t.chunks[0].recs[t.taken].time
	}
	return time.Time{}
}

// first checks that ds are the oldest records that are not settled, in order, each in its receiver's hands, and returns
// what may be committed once they are settled.
func (t *tracker) first(op string, ds []*connectors.Delivery) (next int64, err error) {
	at := t.head
	for _, d := range ds {
		for at < len(t.window) && t.window[at].state == settled {
			at++
		}
		w, err := t.held(op, d)
		if err != nil {
			return 0, err
		}
		if w != &t.window[at] {
			return 0, schemas.Errorf(schemas.Internal, op, "%s is accepted where offset %d is the oldest that is not settled", d.From, t.window[at].offset)
		}
		at++
	}
	for at < len(t.window) && t.window[at].state == settled {
		at++
	}
	return t.window[at-1].next, nil
}
