package pipeline

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// Binding is one way into a pipeline. The three ways in differ in nothing else.
type Binding struct {
	Via       string               // how it is called in records: "nats", "http", "topic"
	Source    connectors.Source    // owned: drained and closed with the pipeline
	Responder connectors.Responder // answers callers; nil where nobody waits
	Output    connectors.Publisher // stores answers; nil where there is no output topic, or where Transactor does
	OutputTo  string               // the output topic, as Output or Transactor knows it; "" for none
	Durable   bool                 // a stored stream: ordered, settled, a bad message goes to the dead letters
	Trusted   bool                 // Leat-Principal was set by our own door, not by the caller

	// StoresAnswers says that the Responder waits until answers are stored: what comes next does not wait for that.
	StoresAnswers bool

	// Transactor makes a durable door exactly once: it is of the Source's transport, which holds the output topic and the
	// log of the lineage too. nil: at least once.
	Transactor connectors.Transactor
}

// Bounds on what one door has admitted and not yet committed. Beyond them a caller gets Overloaded and a topic waits.
const (
	maxInflightRows  = 1 << 16
	maxInflightBytes = 256 << 20
	receiveMax       = 512 // messages of one Receive: they decode together
)

// door runs one binding of a pipeline: it receives, decodes and admits, and, when the rows are scored, builds the
// answers and hands them to the committer.
type door struct {
	Binding
	p      *processor
	commit *committer
	seen   *recovered // what the lineage already holds; nil unless durable and at least once

	receiving sync.Mutex // Receive is for one caller at a time; a durable door also enqueues under it, which keeps order

	ended chan struct{} // closed when the door closes: what cannot be made durable now is handed back then

	answerBytes atomic.Int64 // of an output, about

	rows, bytes atomic.Int64  // admitted and not committed
	room        chan struct{} // capacity 1: a token each time something was committed, for whoever waits for that

	order struct {
		sync.Mutex
		sync.Cond
		last uint64 // sequence of the last group that was enqueued
		turn uint64 // sequence of the group that may commit next
	}
}

// item is one admitted request or event on its way through a run.
type item struct {
	door     *door
	by       string // principal where there is no door; see principal
	rev      *compiled
	d        *connectors.Delivery
	enc      schemas.Encoder
	id       string
	digest   [32]byte
	deadline time.Time // zero: none
	received time.Time
	size     int
	admitted int            // rows that were admitted
	from, to int            // its rows in the run
	err      *schemas.Error // why it has no answer, once that is known; with no rows: it was refused at the door
	group    uint64         // durable: sequence of the group that it was received in
	last     bool           // durable: the last item of its group
	again    bool           // durable: somebody had it in hands before, and may have died of it
	byRow    bool           // durable, in a form that takes row by row: a bad row is left out, the rest goes on
	bad      []schemas.RowError
	after    afterwards // nil: nobody waits for it
	copied   bool       // nothing in it is lent: see item.kept
	rows     []int32    // with bad rows: for each of the others its row in the event
}

func newDoor(p *processor, b Binding, c *committer, seen *recovered) *door {
	d := &door{Binding: b, p: p, commit: c, seen: seen, room: make(chan struct{}, 1), ended: make(chan struct{})}
	d.order.Cond.L = &d.order.Mutex
	d.order.turn = 1
	return d
}

// serve receives until the source is drained or ctx ends. Several goroutines call it at once, one of which receives
// while others decode and score.
func (dr *door) serve(ctx context.Context) error {
	for {
		r, b, rev, err := dr.fill(ctx)
		if err != nil {
			return err
		}
		if r != nil {
			b.run(ctx, r)
		}
		rev.release()
	}
}

// fill receives what is queued and decodes it into a new run. A nil run means that there is nothing to score, or that
// it joined a run that waits. The caller releases the revision.
func (dr *door) fill(ctx context.Context) (*run, *batcher, *compiled, error) {
	dr.receiving.Lock()
	locked := true
	unlock := func() {
		if locked {
			locked = false
			dr.receiving.Unlock()
		}
	}
	defer unlock()
	if err := dr.waitForRoom(ctx); err != nil {
		return nil, nil, nil, err
	}
	ds, err := dr.Source.Receive(ctx, receiveMax)
	if err != nil {
		return nil, nil, nil, err
	}
	if !dr.Durable {
		unlock()
	}
	rev := dr.p.acquire()
	b := rev.batcher
	r := b.newRun()
	now := time.Now()
	for _, d := range ds {
		dr.admit(ctx, r, rev, d, now)
	}
	if n := len(r.items); n > 0 && dr.Durable {
		dr.order.Lock()
		dr.order.last++
		for i := range r.items {
			r.items[i].group = dr.order.last
		}
		r.items[n-1].last = true
		dr.order.Unlock()
	}
	return b.enqueue(r), b, rev, nil
}

// waitForRoom holds a durable door while too much of it is uncommitted.
func (dr *door) waitForRoom(ctx context.Context) error {
	for dr.Durable && (dr.rows.Load() >= maxInflightRows/4 || dr.bytes.Load() >= maxInflightBytes/4) {
		dr.commit.hasten()
		select {
		case <-dr.room:
		case <-dr.ended:
			return schemas.ErrDrained
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// take counts an item as admitted, until gone. One that was refused counts as a row: it is in hand until it is settled.
func (dr *door) take(it *item) {
	it.admitted = max(1, it.to-it.from)
	dr.rows.Add(int64(it.admitted))
	dr.bytes.Add(int64(it.size))
}

// gone gives back rows and bytes that were admitted.
func (dr *door) gone(rows, bytes int) {
	dr.rows.Add(-int64(rows))
	dr.bytes.Add(-int64(bytes))
	select {
	case dr.room <- struct{}{}:
	default:
	}
}

// admit decodes one delivery into r. A request that cannot be is answered at once; an event takes its place in the run,
// without rows, and goes to the dead letters when what came before it is durable.
func (dr *door) admit(ctx context.Context, r *run, rev *compiled, d *connectors.Delivery, now time.Time) {
	it := item{door: dr, d: d, received: now, size: len(d.Payload), from: r.in.Rows()}
	err := dr.decode(ctx, r, rev, &it)
	if err != nil {
		r.in.Truncate(it.from)
	}
	switch {
	case err != nil && !dr.Durable:
		dr.refuse(ctx, &it, err)
		return
	case err != nil && dr.commit.broken.Load():
		return // the door closes: it stays unsettled
	case err != nil:
		it.err, it.again = dr.p.host.public(err, dr.p.name), false
	case it.enc == nil:
		return // answered already: from the record, or by another version's own batcher
	}
	it.to = r.in.Rows()
	it.rev = rev
	rev.refs.Add(1)
	dr.take(&it)
	r.add(it)
}

func (dr *door) decode(ctx context.Context, r *run, rev *compiled, it *item) (err error) {
	if !dr.Durable { // an event has no caller who could give up
		if it.deadline, err = deadline(rev, it.d.Header, it.received); err != nil {
			return err
		}
	}
	if id := it.d.Header.Get(schemas.HeaderRequestID); id != "" {
		if it.id, err = checkRequestID(id); err != nil {
			return err
		}
	}
	if dr.Durable {
		// Leat-Model on an event says who made it (the output of another pipeline carries it), not who shall score it.
		it.again = it.d.Attempt > 1
		if rec := dr.seen.take(it.d.From); rec != nil {
			return dr.replay(ctx, r, rev, it, rec)
		}
	} else if m := it.d.Header.Get(schemas.HeaderModel); m != "" && m != rev.by.label[0] {
		return dr.elsewhere(ctx, rev, m, it)
	}
	return dr.decodeRows(ctx, r, rev, it)
}

func (dr *door) decodeRows(ctx context.Context, r *run, rev *compiled, it *item) (err error) {
	const op = "pipeline.admit"
	if !dr.Durable {
		if dr.rows.Load() > maxInflightRows || dr.bytes.Load() > maxInflightBytes {
			return schemas.Errorf(schemas.Overloaded, op, "pipeline %s has %d rows in hand: try again shortly", dr.p.name, dr.rows.Load())
		}
		if dr.p.host.full(false) {
			return schemas.Errorf(schemas.Unavailable, op, "the lineage is full, and nothing is answered unrecorded: export and prune it")
		}
	}
	codec, err := dr.codec(ctx, rev, it)
	if err != nil {
		return err
	}
	n, enc, err := dr.appendRows(codec, r, it)
	if err != nil {
		return err
	}
	it.to = it.from + n
	sig := &rev.sig
	if c, ok := enc.(schemas.OutputChecker); ok {
		if err := c.CheckOutputs(sig.Outputs); err != nil {
			return err
		}
	}
	if b, ok := enc.(schemas.Identified); ok && it.id == "" && b.RequestID() != "" {
		if it.id, err = checkRequestID(b.RequestID()); err != nil {
			return err
		}
	}
	if it.id == "" {
		it.id = makeID(it.d)
	}
	if n == 0 {
		return schemas.Errorf(schemas.Invalid, op, "the request holds no rows")
	}
	if err := it.check(r.in, rev.check); err != nil {
		return err
	}
	if err := lineage.Fits(r.in, it.from, it.to, sig.Outputs); err != nil {
		return err
	}
	it.digest = lineage.InputDigest(r.in, it.from, it.to)
	it.enc = enc
	return nil
}

// codec finds how a message is written. An event whose schema cannot be looked up now is no bad event: it is tried until
// it can, while later ones wait, which keeps order. If the door closes before, the event, and all after it, stay
// unsettled.
func (dr *door) codec(ctx context.Context, rev *compiled, it *item) (schemas.Codec, error) {
	if !dr.Durable {
		return dr.p.host.Codec(&it.d.Message)
	}
	for {
		c, err := dr.p.host.Formats.For(ctx, &it.d.Message, rev.input)
		if err == nil || !passing(err) || dr.commit.broken.Load() {
			return c, err
		}
		dr.p.host.Log.Error("schema of an event not found now: trying again", "pipeline", dr.p.name, slog.Any("error", err))
		if !dr.wait(dr.commit.ctx, retryPause) {
			dr.commit.broken.Store(true)
			return nil, err
		}
	}
}

// appendRows takes a request as a whole, an event row by row: its bad rows are told in the item and end in the dead
// letters, the rest goes on. A decoder that panics fails its own message alone.
func (dr *door) appendRows(codec schemas.Codec, r *run, it *item) (n int, enc schemas.Encoder, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = schemas.Errorf(schemas.Internal, "pipeline.admit", "decoder panicked: %v", p)
		}
	}()
	rows, ok := codec.(schemas.RowCodec)
	if !ok || !dr.Durable {
		return codec.AppendRows(r.in, &it.d.Message)
	}
	it.byRow = true
	n, bad, enc, err := rows.AppendGood(r.in, &it.d.Message, nil)
	if err == nil && n == 0 && len(bad) > 0 {
		return 0, nil, bad[0].Err
	}
	if it.bad = bad; err == nil && len(bad) > 0 {
		it.rows = goodRows(n, bad)
	}
	return n, enc, err
}

// elsewhere admits a request that names another version than the active one to that version's own batcher. Loading it
// may take long, so it is done beside the loop.
func (dr *door) elsewhere(ctx context.Context, rev *compiled, ref string, it *item) error {
	if dr.rows.Load() > maxInflightRows {
		return schemas.Errorf(schemas.Overloaded, "pipeline.admit", "pipeline %s has %d rows in hand: try again shortly", dr.p.name, dr.rows.Load())
	}
	rev.refs.Add(1)
	dr.rows.Add(1) // bounds these goroutines until the rows themselves are counted, and is waited for when the door closes
	one := *it
	go func() {
		defer dr.gone(1, 0)
		defer rev.release()
		if err := dr.admitElsewhere(ctx, rev, ref, &one); err != nil {
			dr.refuse(ctx, &one, err)
		}
	}()
	return nil
}

func (dr *door) admitElsewhere(ctx context.Context, rev *compiled, ref string, it *item) error {
	load, cancel := ctx, context.CancelFunc(func() {})
	if !it.deadline.IsZero() {
		load, cancel = context.WithDeadline(ctx, it.deadline)
	}
	other, err := dr.p.pinned(load, rev, ref)
	cancel()
	if err != nil {
		return err
	}
	b := other.batcher
	r := b.newRun()
	it.from = 0
	if err := dr.decodeRows(ctx, r, other, it); err != nil {
		r.in.Truncate(0)
		b.free(r)
		other.release()
		return err
	}
	it.rev = other
	dr.take(it)
	r.add(*it)
	if r := b.enqueue(r); r != nil {
		b.run(ctx, r)
	}
	return nil
}

func deadline(rev *compiled, h schemas.Header, now time.Time) (time.Time, error) {
	var t time.Time
	var ok bool
	if len(h) > 0 {
		var err error
		if t, ok, err = schemas.Deadline(h, now); err != nil {
			return t, err
		}
	}
	if d := time.Duration(rev.rev.Spec.Deadline); !ok && d > 0 {
		return now.Add(d), nil
	}
	if ok && !t.After(now) {
		return t, schemas.Errorf(schemas.Expired, "pipeline.admit", "the deadline %s had passed on arrival", schemas.FormatTime(t))
	}
	return t, nil
}

// maxRequestID bounds what a caller can make us store with every row.
const maxRequestID = 128

// makeID names what came without a name: by position for a stored message, else a new ULID.
func makeID(d *connectors.Delivery) string {
	if !d.From.IsZero() {
		return lineage.PositionID(d.From)
	}
	// 48 bits of time, 80 of chance from a generator that the operating system seeded. ulid.Make would also count up within
	// a millisecond, under a lock that all doors share.
	var id ulid.ULID
	_ = id.SetTime(ulid.Now()) // fails in the year 10889
	binary.BigEndian.PutUint64(id[6:], rand.Uint64())
	binary.BigEndian.PutUint16(id[14:], uint16(rand.Uint32()))
	var text [ulid.EncodedSize]byte
	_ = id.MarshalTextTo(text[:]) // fails for another size
	return string(text[:])
}

func checkRequestID(id string) (string, error) {
	ok := len(id) <= maxRequestID
	for i := 0; ok && i < len(id); i++ {
		ok = id[i] > ' ' && id[i] < 0x7f
	}
	if !ok {
		return "", schemas.FieldErrorf(schemas.Invalid, "pipeline.admit", schemas.HeaderRequestID, "want 1 to %d printable ASCII characters without spaces", maxRequestID)
	}
	return id, nil
}
