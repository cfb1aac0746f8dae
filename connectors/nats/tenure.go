package nats

import (
	"context"
	"encoding/json"
	"slices"
	"sort"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// tenure is the time during which one member owns one partition for its group. It hands the partition's messages over
// in order and keeps a window of those in work.
//
// The server's consumer acknowledges "all up to here": it is the group's place in the partition and nothing more. The
// server never redelivers by itself (its AckWait is far away). Whoever begins a tenure makes the consumer anew right
// after that place, and after a reconnect or a gap the consumer is reset to it; what is in the window by then is
// recognised by its sequence and not handed over again. So a partition's messages come in order, whatever fails.
type tenure struct {
	g          *groupSource
	p          int
	revision   uint64 // of the owner key
	again      uint64 // messages up to here were in somebody's hands before: their attempt is the second, at least
	session    *session
	epoch      int    // sessions so far: an acknowledgement of an earlier one would confuse the consumer
	seen       uint64 // newest message taken
	floor      uint64 // all up to here are settled
	confirmed  uint64 // the newest floor that was sent in this epoch
	window     []inWork
	head       int // of window
	retries    []retry
	stash      []*nats.Msg // came while a retry holds the partition
	leaving    bool        // hands nothing over any more; ends when the window is empty, or at the deadline
	leaveUntil time.Time
	over       bool // somebody else may own the partition: settling has no effect
}

type inWork struct {
	seq     uint64
	reply   string
	epoch   int
	attempt int
	state   workState
}

type workState uint8

const (
	inHands workState = iota // lent to the receiver
	waiting                  // for its retry
	done
)

// retry is a message that is to be handed over again, not before its time.
type retry struct {
	at time.Time
	d  *connectors.Delivery
}

// farAway is an AckWait that never matters: see tenure.
const farAway = 30 * 24 * time.Hour

func (g *groupSource) consumerConfig(p int, start uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: consumerName(g.group, p), FilterSubject: partitionSubject(g.topic, p),
		AckPolicy: jetstream.AckAllPolicy, AckWait: farAway, MaxDeliver: -1, MaxAckPending: g.c.cfg.InFlight,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: start,
	}
}

// restart resets the consumer to the place after its floor and opens a session on it.
func (t *tenure) restart(ctx context.Context) error {
	g := t.g
	g.mu.Lock()
	if t.session != nil {
		delete(g.mu.bySub, t.session.sub)
		t.session.close()
		t.session = nil
	}
	g.mu.Unlock()
	call, cancel := g.c.call(ctx)
	defer cancel()
	// On the connection of the session, so that the server has dropped its requests by then.
	m, err := g.c.data.RequestWithContext(call, "$JS.API.CONSUMER.RESET."+g.stream+"."+consumerName(g.group, t.p), nil)
	if err != nil {
		return classify("nats.reset", g.topic, err)
	}
	var r struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return schemas.Errorf(schemas.Internal, "nats.reset", "%s: %w", g.topic, err)
	}
	if r.Error != nil {
		return classify("nats.reset", g.topic, r.Error)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return t.open()
}

// open begins a session; the consumer stands at the floor. The lock is held.
func (t *tenure) open() error {
	g := t.g
	if t.over {
		return nil
	}
	s, err := g.c.openSession(g.stream, consumerName(g.group, t.p), g.ch, g.batch)
	if err != nil {
		return classify("nats.session", g.topic, err)
	}
	s.next = 1
	t.session, t.confirmed = s, 0
	t.epoch++
	g.mu.bySub[s.sub] = t
	return nil
}

// take looks at a message of the session and reports whether it fills d with a delivery. The lock is held.
func (t *tenure) take(m *nats.Msg, fenced bool, d *connectors.Delivery) bool {
	at, data := t.session.take(m)
	if !data || t.leaving {
		return false
	}
	if at.stream <= t.seen {
		t.seenAgain(at, m.Reply)
		return false
	}
	t.seen = at.stream
	if fenced || len(t.retries) > 0 || len(t.stash) > 0 {
		t.stash = append(t.stash, m)
		return false
	}
	t.deliver(m, at, d)
	return true
}

// seenAgain: after a reset the server sends what is in work once more. Only its reply subject is of use.
func (t *tenure) seenAgain(at place, reply string) {
	if at.stream <= t.floor {
		t.confirm(at.stream, reply)
		return
	}
	if w := t.find(at.stream); w != nil {
		w.reply, w.epoch = reply, t.epoch
	}
}

func (t *tenure) deliver(m *nats.Msg, at place, d *connectors.Delivery) {
	fill(d, m, at, t.g.topic, t.g.stream, int32(t.p), t)
	d.Attempt = 1
	if at.stream <= t.again {
		d.Attempt = 2
	}
	t.window = append(t.window, inWork{seq: at.stream, reply: m.Reply, epoch: t.epoch, attempt: d.Attempt})
}

// find returns the message in work of that sequence, nil if it is settled or unknown.
func (t *tenure) find(seq uint64) *inWork {
	w := t.window[t.head:]
	i := sort.Search(len(w), func(i int) bool { return w[i].seq >= seq })
	if i == len(w) || w[i].seq != seq {
		return nil
	}
	return &w[i]
}

// due appends the retries whose time has come, in order, and once none is left what waited behind them, until ds holds
// max. What does not fit stays: one of those handed over may be asked for again. The lock is held.
func (t *tenure) due(now time.Time, ds []*connectors.Delivery, max int) []*connectors.Delivery {
	i := 0
	for ; i < len(t.retries) && len(ds) < max && !t.retries[i].at.After(now); i++ {
		d := t.retries[i].d
		if w := t.find(d.From.Sequence); w != nil {
			w.state, w.attempt = inHands, d.Attempt
			ds = append(ds, d)
		}
	}
	t.retries = slices.Delete(t.retries, 0, i)
	if len(t.retries) > 0 {
		return ds
	}
	i = 0
	for ; i < len(t.stash) && len(ds) < max; i++ {
		if at, ok := parsePlace(t.stash[i].Reply); ok { // take parsed it before
			d := new(connectors.Delivery)
			t.deliver(t.stash[i], at, d)
			ds = append(ds, d)
		}
	}
	t.stash = slices.Delete(t.stash, 0, i)
	return ds
}

// settle marks a message as done. The lock is held.
func (t *tenure) settle(d *connectors.Delivery) error {
	if t.over {
		return nil // the next owner gets it again; nothing here can change that
	}
	w := t.find(d.From.Sequence)
	if w == nil || w.state != inHands || w.attempt != d.Attempt {
		return settledTwice(d)
	}
	w.state = done
	return nil
}

func settledTwice(d *connectors.Delivery) error {
	return schemas.Errorf(schemas.Internal, "nats.Settle", "%s (attempt %d) was settled already", d.From, d.Attempt)
}

// advance moves the floor over what is done and tells the server. The lock is held.
func (t *tenure) advance() {
	reply, seq := "", uint64(0)
	for t.head < len(t.window) && t.window[t.head].state == done {
		w := &t.window[t.head]
		t.floor = w.seq
		if w.epoch == t.epoch {
			reply, seq = w.reply, w.seq
		}
		*w = inWork{}
		t.head++
	}
	if t.head == len(t.window) {
		t.window, t.head = t.window[:0], 0
	} else if t.head >= 1024 && t.head >= len(t.window)/2 {
		t.window = slices.Delete(t.window, 0, t.head)
		t.head = 0
	}
	if reply != "" {
		t.confirm(seq, reply)
	}
	if t.leaving && len(t.window) == 0 {
		wakeUp(t.g.work)
	}
}

// confirm acknowledges everything up to a message, without waiting. A lost acknowledgement is made good by the next
// one, or costs a redelivery.
func (t *tenure) confirm(seq uint64, reply string) {
	if t.session == nil || t.session.broken || seq <= t.confirmed || t.g.fenced() {
		return
	}
	if err := t.g.c.data.Publish(reply, ackBody); err != nil {
		t.session.broken = true
		wakeUp(t.g.work)
		return
	}
	t.confirmed = seq
}

// Accept implements connectors.Settler for deliveries of any tenure of the source.
func (t *tenure) Accept(_ context.Context, ds []*connectors.Delivery) error {
	g := t.g
	g.mu.Lock()
	defer g.mu.Unlock()
	var first error
	for _, d := range ds {
		u, ok := d.Settler.(*tenure)
		if !ok || u.g != g {
			return schemas.Errorf(schemas.Internal, "nats.Accept", "a delivery of another source")
		}
		if err := u.settle(d); err != nil && first == nil {
			first = err
		}
	}
	for i, d := range ds {
		u := d.Settler.(*tenure)
		if i == 0 || ds[i-1].Settler != d.Settler { // neighbours are mostly of one partition
			u.advance()
		}
	}
	return first
}

// Retry keeps the message here and holds its partition until it was handed over again.
func (t *tenure) Retry(_ context.Context, d *connectors.Delivery, after time.Duration) error {
	g := t.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.over {
		return nil
	}
	w := t.find(d.From.Sequence)
	if w == nil || w.state != inHands || w.attempt != d.Attempt {
		return settledTwice(d)
	}
	w.state = waiting
	next := *d
	next.Attempt++
	i := sort.Search(len(t.retries), func(i int) bool { return t.retries[i].d.From.Sequence >= d.From.Sequence })
	t.retries = slices.Insert(t.retries, i, retry{at: time.Now().Add(after), d: &next})
	time.AfterFunc(max(after, 0), func() { wakeUp(g.kick) })
	if t.leaving {
		wakeUp(g.work)
	}
	return nil
}

// Reject writes the dead letter, then settles.
func (t *tenure) Reject(ctx context.Context, d *connectors.Delivery, cause error) error {
	g := t.g
	g.mu.Lock()
	w := t.find(d.From.Sequence)
	bad := !t.over && (w == nil || w.state != inHands || w.attempt != d.Attempt)
	g.mu.Unlock()
	if bad {
		return settledTwice(d)
	}
	if err := g.c.bury(ctx, d, cause); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := t.settle(d); err != nil {
		return err
	}
	t.advance()
	return nil
}
