package kafka

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// The bounds of what travels together. More records in a batch gain nothing; a broker's answer waits for the slowest
// partition of a request; and with one request always on its way, a second fills the time that the first one takes.
const (
	maxBatchRecords = 2000
	maxRequestBytes = 4 << 20
	maxFlying       = 2 // requests on their way to one broker
)

// record is a message as it is stored. Nothing of it is kept once produce has returned.
type record struct {
	topic     string // in the cluster
	partition int32
	key       []byte // nil: none
	value     []byte // nil: a tombstone
	headers   []kafka.Header
	time      time.Time // zero: now
}

// producer writes records, each partition's in the order of produce, each once. What comes while a request is on its
// way travels in the next one; there is no timer. A batch whose outcome is not known is sent again as it was, and the
// broker knows it by its sequence, for as long as somebody waits for it.
type producer struct {
	c  *Client
	mu struct {
		sync.Mutex
		id     int64 // of this client's writes, -1: none yet
		lanes  map[laneKey]*lane
		ready  map[int32][]*lane // with something to send, by leader
		flying map[int32]int
	}
	idLook chan struct{} // held by who asks for an id
}

type laneKey struct {
	topic     string
	partition int32
}

// lane is the way to one partition. The producer's lock guards it, except that who has busy set owns batch.
type lane struct {
	laneKey
	who    producerID // of the next batch
	queue  []entry
	batch  *batch // taken off the queue and not settled
	busy   bool   // the batch is on its way, or waits to be sent again
	leader int32
	listed bool // in ready

	missing missing // of who has busy set
}

// entry is one record of a produce call.
type entry struct {
	sealed
	call *produceCall
	at   int // its place in the call
}

// produceCall is what one caller of produce waits for. The producer's lock guards it.
type produceCall struct {
	offsets []int64
	left    int
	err     error
	trouble error // what the last try met
	gone    bool  // the caller waits no more
	done    chan struct{}
}

// batch is what is sent to one partition at once, again with the same bytes until it is settled.
type batch struct {
	entries []entry
	who     producerID
	raw     []byte
	tries   int
	unsure  bool // some try may have stored it
	began   time.Time
}

func (p *producer) init(c *Client) {
	p.c = c
	p.mu.id = -1
	p.mu.lanes = map[laneKey]*lane{}
	p.mu.ready = map[int32][]*lane{}
	p.mu.flying = map[int32]int{}
	p.idLook = make(chan struct{}, 1)
}

// produce stores records and returns their offsets, in order, when all in-sync replicas have them. Records of one
// partition are stored in the order given. On error some may be stored.
func (c *Client) produce(ctx context.Context, recs []record) ([]int64, error) {
	const op = "kafka.produce"
	if len(recs) == 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, c.late(ctx, op, "publish", nil)
	}
	p := &c.producer
	if err := p.identify(ctx, op); err != nil {
		return nil, err
	}
	leaders := make([]int32, len(recs))
	for i := range recs {
		r := &recs[i]
		if i > 0 && r.topic == recs[i-1].topic && r.partition == recs[i-1].partition {
			leaders[i] = leaders[i-1]
			continue
		}
		var err error
		if leaders[i], err = c.meta.leader(ctx, op, r.topic, r.partition); err != nil {
			return nil, err
		}
	}
	call := &produceCall{offsets: make([]int64, len(recs)), left: len(recs), done: make(chan struct{})}
	bodies, slab := sealInto(recs)
	p.enqueue(call, recs, bodies, leaders)
	select {
	case <-call.done:
	case <-ctx.Done():
		p.leave(call, recs)
	case <-c.closing.Done():
		p.leave(call, recs)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if call.left == 0 {
		giveSlab(slab) // nothing that is queued or on its way has a part in it any more
	}
	switch {
	case call.left == 0 && call.err == nil:
		return call.offsets, nil
	case call.left == 0:
		return nil, call.err
	case c.closing.Err() != nil:
		return nil, errClosed(op)
	}
	return nil, unacknowledged(ctx, op, call.trouble)
}

func unacknowledged(ctx context.Context, op string, trouble error) error {
	if trouble == nil {
		return schemas.Errorf(schemas.Unavailable, op, "not acknowledged in time, some may be stored: %w", context.Cause(ctx))
	}
	return schemas.Errorf(schemas.Unavailable, op, "not acknowledged in time, some may be stored: %w (%w)", plainly(trouble), context.Cause(ctx))
}

// seal encodes records into memory of their own.
func seal(recs []record) []sealed {
	out, _ := sealTo(make([]byte, 0, sealedSizes(recs)), recs)
	return out
}

// sealInto encodes records into a slab, which whoever holds it gives back once nothing needs what is returned.
func sealInto(recs []record) (_ []sealed, slab []byte) {
	return sealTo(takeSlab(sealedSizes(recs)), recs)
}

func sealedSizes(recs []record) (n int) {
	for i := range recs {
		n += sealedSize(recs[i].key, recs[i].value, recs[i].headers)
	}
	return n
}

func sealTo(slab []byte, recs []record) ([]sealed, []byte) {
	now := time.Now().UnixMilli()
	out := make([]sealed, len(recs))
	for i := range recs {
		r := &recs[i]
		from := len(slab)
		slab = appendSealed(slab, r.key, r.value, r.headers)
		out[i] = sealed{body: slab[from:len(slab):len(slab)], time: now}
		if !r.time.IsZero() {
			out[i].time = r.time.UnixMilli()
		}
	}
	return out, slab
}

// slabs are used again, by size: at 500 records of 512 bytes a call, making them anew took as long as all else here. The
// sizes are powers of two, from 4 KiB to more than a pipeline commits at once.
var slabs [maxSlab - minSlab + 1]sync.Pool

const minSlab, maxSlab = 12, 24

// takeSlab returns an empty slab with room for n bytes.
func takeSlab(n int) []byte {
	class := max(bits.Len(uint(max(n, 1)-1)), minSlab)
	if class > maxSlab {
		return make([]byte, 0, n)
	}
	if b, ok := slabs[class-minSlab].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 1<<class)
}

func giveSlab(b []byte) {
	if class := bits.Len(uint(cap(b))) - 1; class >= minSlab && class <= maxSlab {
		slabs[class-minSlab].Put(&b)
	}
}

func (p *producer) enqueue(call *produceCall, recs []record, bodies []sealed, leaders []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var l *lane
	for i := range recs {
		k := laneKey{recs[i].topic, recs[i].partition}
		if l == nil || l.laneKey != k {
			if l = p.mu.lanes[k]; l == nil {
				l = &lane{laneKey: k, leader: leaders[i], who: producerID{id: p.mu.id}}
				p.mu.lanes[k] = l
			}
		}
		if !l.busy && l.batch == nil {
			l.leader = leaders[i]
		}
		l.queue = append(l.queue, entry{bodies[i], call, i})
		p.list(l)
	}
	p.sendReady()
}

// leave takes what has not been sent out of the queues. What is on its way goes on without its caller.
func (p *producer) leave(call *produceCall, recs []record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	call.gone = true
	for i := range recs {
		if i > 0 && recs[i].topic == recs[i-1].topic && recs[i].partition == recs[i-1].partition {
			continue
		}
		l := p.mu.lanes[laneKey{recs[i].topic, recs[i].partition}]
		l.queue = slices.DeleteFunc(l.queue, func(e entry) bool { return e.call == call })
	}
}

// list puts a lane among those that have something to send. The lock is held.
func (p *producer) list(l *lane) {
	if !l.busy && !l.listed && (l.batch != nil || len(l.queue) > 0) {
		l.listed = true
		p.mu.ready[l.leader] = append(p.mu.ready[l.leader], l)
	}
}

// sendReady sends what may be sent now. The lock is held.
func (p *producer) sendReady() {
	for leader := range p.mu.ready {
		for p.mu.flying[leader] < maxFlying || leader < 0 {
			ls := p.take(leader)
			if len(ls) == 0 {
				break
			}
			p.mu.flying[leader]++
			if !p.c.spawn(func() { p.send(leader, ls) }) {
				return // closed: the callers know
			}
		}
	}
}

// take picks the lanes of the next request to a leader and fills their batches. The lock is held.
func (p *producer) take(leader int32) []*lane {
	var out []*lane
	bytes := 0
	ready := p.mu.ready[leader]
	for len(ready) > 0 && bytes < maxRequestBytes {
		l := ready[0]
		ready = ready[1:]
		l.listed = false
		if l.batch == nil {
			l.fill(p.c.cfg.MaxBatchBytes)
		}
		if l.batch == nil {
			continue
		}
		for i := range l.batch.entries {
			bytes += len(l.batch.entries[i].body) + recordRoom
		}
		l.busy = true
		out = append(out, l)
	}
	if len(ready) == 0 {
		delete(p.mu.ready, leader)
	} else {
		p.mu.ready[leader] = ready
	}
	return out
}

// fill takes a batch off the queue. A record that is larger than a batch may be travels alone.
func (l *lane) fill(limit int) {
	n, size := 0, batchOverhead
	for n < len(l.queue) && n < maxBatchRecords {
		if size += len(l.queue[n].body) + recordRoom; size > limit && n > 0 {
			break
		}
		n++
	}
	if n == 0 {
		return
	}
	l.batch = &batch{entries: slices.Clone(l.queue[:n]), who: l.who}
	if n == len(l.queue) {
		clear(l.queue) // so that what was sent can be freed
		l.queue = l.queue[:0]
	} else {
		l.queue = slices.Clone(l.queue[n:])
	}
}

// send makes one request and settles what comes back.
func (p *producer) send(leader int32, ls []*lane) {
	parts := make([]producePart, len(ls))
	for i, l := range ls {
		l.batch.encode()
		parts[i] = producePart{topic: l.topic, partition: l.partition, batch: l.batch.raw}
	}
	var answers []produceAnswer
	var err error = kafka.LeaderNotAvailable
	if leader >= 0 {
		answers, err = p.c.produceRaw(p.c.closing, leader, "", parts)
	}
	type failure struct {
		l   *lane
		err error
	}
	var failed []failure
	p.mu.Lock()
	if p.mu.flying[leader]--; p.mu.flying[leader] == 0 {
		delete(p.mu.flying, leader)
	}
	for i, l := range ls {
		lerr := err
		if lerr == nil {
			lerr = answers[i].err
		}
		if lerr != nil {
			p.c.cfg.Metrics.unacknowledged()
			l.met(lerr)
			failed = append(failed, failure{l, lerr})
			continue
		}
		p.c.cfg.Metrics.produced(time.Since(l.batch.began))
		l.stored(answers[i].offset)
		p.list(l)
	}
	p.sendReady()
	p.mu.Unlock()
	for _, f := range failed {
		p.c.spawn(func() { p.again(f.l, f.err) })
	}
}

func (b *batch) encode() {
	if b.raw != nil {
		return
	}
	if b.began.IsZero() {
		b.began = time.Now()
	}
	n := batchOverhead
	for i := range b.entries {
		n += len(b.entries[i].body) + recordRoom
	}
	b.raw = appendBatch(takeSlab(n), len(b.entries), func(i int) *sealed { return &b.entries[i].sealed }, b.who, false)
}

// met counts a try that was not acknowledged and tells the callers that still wait what stood in the way. The lock is
// held.
func (l *lane) met(err error) {
	l.batch.tries++
	l.batch.unsure = l.batch.unsure || !notStored(err)
	for i := range l.batch.entries {
		l.batch.entries[i].call.trouble = err
	}
}

// stored settles the batch: it is in the log, from the offset on. The lock is held.
func (l *lane) stored(base int64) {
	b := l.batch
	for i := range b.entries {
		e := &b.entries[i]
		e.call.offsets[e.at] = base + int64(i)
		e.call.settle(nil)
	}
	l.who = b.who.after(len(b.entries))
	if b.tries == 0 {
		giveSlab(b.raw) // the one request that had it was answered; one that was given up may still be writing it
	}
	l.batch, l.busy, l.missing = nil, false, missing{}
}

// refused settles the batch, which will not be sent again. The lock is held.
func (l *lane) refused(err error) {
	for i := range l.batch.entries {
		l.batch.entries[i].call.settle(err)
	}
	l.forget()
}

// settle counts one record of the call. The lock is held.
func (c *produceCall) settle(err error) {
	if c.err == nil {
		c.err = err
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
}
