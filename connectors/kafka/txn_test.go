package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// fate is what becomes of a request.
type fate int

const (
	served  fate = iota
	unsent       // the connection breaks before it
	unheard      // the broker does it, and the connection breaks before its answer
	nowhere      // it is swallowed, and nothing happens until the caller gives up
)

// wires makes connections whose requests meet a fate, and which can be frozen as a whole.
type wires struct {
	fate func(protocol.ApiKey) fate // nil: all are served
	ice  atomic.Pointer[chan struct{}]
}

func (w *wires) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.wait()
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, w: w}, nil
}

// freeze stops everything until thaw, as a process does that is not run.
func (w *wires) freeze() { ch := make(chan struct{}); w.ice.Store(&ch) }
func (w *wires) thaw()   { close(*w.ice.Swap(nil)) }

func (w *wires) wait() {
	if ch := w.ice.Load(); ch != nil {
		<-*ch
	}
}

type wire struct {
	net.Conn
	w     *wires
	fated fate
}

// Write looks at the request that begins here, if one does.
func (c *wire) Write(b []byte) (int, error) {
	c.w.wait()
	if c.w.fate != nil && len(b) > 8 && binary.BigEndian.Uint32(b) >= 8 {
		if k := protocol.ApiKey(binary.BigEndian.Uint16(b[4:])); k >= 0 && int(k) < 60 {
			c.fated = c.w.fate(k)
		}
	}
	switch c.fated {
	case unsent:
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	case nowhere:
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Read brings an answer, or not.
func (c *wire) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.wait()
	if c.fated == unheard && err == nil {
		c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// txnCalls are what a transaction is made of.
var txnCalls = map[protocol.ApiKey]bool{
	protocol.Produce: true, protocol.InitProducerId: true, protocol.AddPartitionsToTxn: true, protocol.AddOffsetsToTxn: true,
	protocol.TxnOffsetCommit: true, protocol.EndTxn: true, protocol.OffsetFetch: true, protocol.FindCoordinator: true,
}

// owner copies "in" to "out" until ctx ends.
type owner struct {
	c                       *Client
	tries, revoked, aborted atomic.Int64
	done                    chan struct{}
}

func startOwner(t testing.TB, ctx context.Context, c *Client) *owner {
	o := &owner{c: c, done: make(chan struct{})}
	src, err := c.Subscribe(ctx, "in", "g")
	must(t, err)
	go func() {
		defer close(o.done)
		defer src.Close(context.WithoutCancel(ctx))
		for {
			ds, err := src.Receive(ctx, 100)
			if err != nil {
				return
			}
			by := map[[2]uint64][]*connectors.Delivery{}
			for _, d := range ds {
				k := [2]uint64{uint64(d.From.Partition), d.Term}
				by[k] = append(by[k], d)
			}
			var wg sync.WaitGroup
			for _, ds := range by {
				wg.Go(func() { o.commit(t, ctx, ds) })
			}
			wg.Wait()
		}
	}()
	return o
}

func (o *owner) commit(t testing.TB, ctx context.Context, ds []*connectors.Delivery) {
	ms := make([]schemas.Message, len(ds))
	for i, d := range ds {
		ms[i] = schemas.Message{Topic: "out", Key: d.Key, Payload: d.Payload}
	}
	for ctx.Err() == nil {
		call, cancel := ctx, context.CancelFunc(func() {})
		if rand.IntN(5) == 0 { // given up somewhere on the way
			call, cancel = context.WithTimeout(ctx, rand.N(10*time.Millisecond))
		}
		o.tries.Add(1)
		_, err := o.c.Transact(call, ms, ds)
		cancel()
		switch {
		case err == nil:
			return
		case errors.Is(err, connectors.ErrRevoked):
			o.revoked.Add(1)
			return
		case schemas.KindOf(err) == schemas.Internal || schemas.KindOf(err) == schemas.Invalid:
			t.Errorf("Transact: %v", err)
			return
		}
		o.aborted.Add(1)
	}
}

// TestExactlyOnce: two owners copy a topic while requests and answers are lost at random and calls are given up. One of
// them freezes in the middle of its work for so long that the other takes its partitions, and comes back; then the broker
// is killed and started again. A reader that shares no code with this client sees each message once, each key in order.
func TestExactlyOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*testLimit)
	defer cancel()
	b := broker.Start(t, 1)
	cfg := testConfig(b)
	cfg.Session, cfg.Heartbeat = shortSession, 100*time.Millisecond
	c := dialConfig(t, cfg)
	const partitions, keys = 4, 24
	must(t, c.EnsureTopic(ctx, "in", partitions))
	must(t, c.EnsureTopic(ctx, "out", 3))

	var losing atomic.Bool
	lossy := func() fate {
		if losing.Load() && rand.IntN(10) == 0 {
			return unsent + fate(rand.IntN(2))
		}
		return served
	}
	var w [2]*wires
	var owners [2]*owner
	run, stop := context.WithCancel(ctx)
	defer stop()
	for i := range owners {
		w[i] = &wires{fate: func(k protocol.ApiKey) fate {
			if txnCalls[k] {
				return lossy()
			}
			return served
		}}
		cfg := cfg
		cfg.dialer = w[i].dial
		owners[i] = startOwner(t, run, dialConfig(t, cfg))
	}
	var published, settled atomic.Int64
	var writer, looker sync.WaitGroup
	looker.Go(func() {
		for run.Err() == nil {
			settled.Store(settledIn(t, run, c, partitions))
			time.Sleep(5 * time.Millisecond) // poll
		}
	})
	ending := make(chan struct{})
	each := 0
	writer.Go(func() {
		for ; ; each++ {
			select {
			case <-ending:
				return
			default:
			}
			ms := make([]schemas.Message, keys)
			for k := range ms {
				ms[k] = schemas.Message{Topic: "in", Key: fmt.Sprint("key-", k), Payload: []byte(strconv.Itoa(each))}
			}
			if _, err := c.Publish(ctx, ms); err != nil {
				t.Error(err)
				return
			}
			published.Add(keys)
			eventually(t, ctx, "room", func() bool { return settled.Load() > published.Load()-60*keys })
		}
	})
	// more waits until so many more messages were copied.
	more := func(n int64) {
		from := settled.Load()
		eventually(t, ctx, "progress", func() bool { return settled.Load() >= from+n })
	}
	more(300)
	losing.Store(true)
	more(1000)

	frozen := time.Now()
	w[0].freeze()
	more(500) // by the other one, of all partitions sooner or later
	eventually(t, ctx, "the other to own all", func() bool {
		return len(members(t, c, "g")) == 1
	})
	more(500)
	t.Logf("one was frozen for %v", time.Since(frozen))
	w[0].thaw()
	more(1000)

	b.Kill(t, 1)
	b.Up(t, 1)
	up := time.Now()
	more(300)
	t.Logf("goes on %v after the broker is up", time.Since(up))
	losing.Store(false)
	close(ending)
	writer.Wait()
	eventually(t, ctx, "the rest", func() bool { return settled.Load() == published.Load() })
	stop()
	looker.Wait()
	for i, o := range owners {
		<-o.done
		t.Logf("owner %d: %d calls, %d failed, %d revoked", i, o.tries.Load(), o.aborted.Load(), o.revoked.Load())
	}
	if t.Failed() {
		return
	}
	// What the independent reader sees up to a last record of each partition.
	last := map[int32]int64{}
	for p := range int32(3) {
		at, err := c.produce(ctx, []record{{topic: c.name("out"), partition: p, value: []byte("end")}})
		must(t, err)
		last[p] = at[0]
	}
	next := map[string]int{}
	for _, r := range franzTo(t, ctx, c, c.name("out"), last) {
		if string(r.Value) == "end" {
			continue
		}
		if n, err := strconv.Atoi(string(r.Value)); err != nil || n != next[string(r.Key)] {
			t.Fatalf("%s: %s came where %d was due, at %d/%d", r.Key, r.Value, next[string(r.Key)], r.Partition, r.Offset)
		}
		next[string(r.Key)]++
	}
	for k := range keys {
		if n := next[fmt.Sprint("key-", k)]; n != each {
			t.Errorf("key-%d: %d messages came out, %d went in", k, n, each)
		}
	}
	t.Logf("%d messages, each once", each*keys)
}

// settledIn is how many messages of "in" the group has settled. What is in a transaction cannot be read; no transaction
// is open for long.
func settledIn(t testing.TB, ctx context.Context, c *Client, partitions int) int64 {
	t.Helper()
	ps := make([]int32, partitions)
	for i := range ps {
		ps[i] = int32(i)
	}
	for start := time.Now(); ctx.Err() == nil; {
		at, err := groupPlacesOf(c).places(ctx, c.name("in"), ps)
		if err != nil {
			if ctx.Err() == nil && (!passing(err) || time.Since(start) > testLimit) {
				t.Errorf("after %v: %v", time.Since(start), err)
				return 0
			}
			_ = sleep(ctx, time.Millisecond) // the next look tells
			continue
		}
		n := int64(0)
		for _, a := range at {
			n += max(a.offset, 0)
		}
		return n
	}
	return 0
}

// txnFloor is a topic of one partition with n messages, received by a client with those wires.
func txnFloor(t *testing.T, ctx context.Context, w *wires, n int) (Config, *Client, *groupSource, []*connectors.Delivery) {
	t.Helper()
	cfg := shared(t)
	plain := dialConfig(t, cfg)
	must(t, plain.EnsureTopic(ctx, "in", 1))
	must(t, plain.EnsureTopic(ctx, "out", 1))
	publish(t, ctx, plain, "in", 1, 0, n)
	bad := cfg
	bad.dialer = w.dial
	c := dialConfig(t, bad)
	src := subscribe(t, ctx, c, "in")
	return cfg, c, src, receive(t, ctx, src, n)
}

// TestTransactUnheard: a call whose end nobody heard took effect, and its repeat finds out.
func TestTransactUnheard(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	call, giveUp := context.WithCancel(ctx)
	var ends atomic.Int64
	cfg, c, _, ds := txnFloor(t, ctx, &wires{fate: func(k protocol.ApiKey) fate {
		if k == protocol.EndTxn && ends.Add(1) == 1 {
			time.AfterFunc(50*time.Millisecond, giveUp)
			return unheard
		}
		if k == protocol.EndTxn || k == protocol.FindCoordinator && call.Err() == nil && ends.Load() == 1 {
			return unsent
		}
		return served
	}}, 3)
	out := []schemas.Message{{Topic: "out", Key: "k", Payload: []byte("once")}}
	if _, err := c.Transact(call, out, ds[:2]); err == nil || errors.Is(err, connectors.ErrRevoked) {
		t.Fatalf("nobody heard the end: %v", err)
	}
	pos, err := c.Transact(ctx, out, ds[:2])
	must(t, err)
	if len(pos) != 1 || pos[0].Sequence != 0 {
		t.Errorf("positions %v of what was stored before", pos)
	}
	ends.Store(100)
	other := dialConfig(t, cfg)
	must(t, lastOf(other.produce(ctx, []record{{topic: other.name("out"), value: []byte("end")}})))
	rs := franz(t, ctx, other, other.name("out"), 2)
	if len(rs) != 2 || string(rs[0].Value) != "once" || string(rs[1].Value) != "end" {
		t.Fatalf("a reader sees %d records", len(rs))
	}
	if at := committed(t, ctx, other, "in", 1); at[0] != 2 {
		t.Errorf("committed %d", at[0])
	}
}

func lastOf(_ []int64, err error) error { return err }

// TestTransactOfTheDead: an owner that dies before the end of a transaction holds nobody up for longer than its session:
// whoever takes over ends what it left open.
func TestTransactOfTheDead(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	call, giveUp := context.WithCancel(ctx)
	cfg, c, _, ds := txnFloor(t, ctx, &wires{fate: func(k protocol.ApiKey) fate {
		if k == protocol.EndTxn {
			giveUp()
			return nowhere
		}
		return served
	}}, 3)
	if _, err := c.Transact(call, []schemas.Message{{Topic: "out", Payload: []byte("dropped")}}, ds); err == nil {
		t.Fatal("committed although nothing was sent")
	}
	start := time.Now()
	c.Close() // nothing is said to anybody
	other := dialConfig(t, cfg)
	src := subscribe(t, ctx, other, "in")
	again := receive(t, ctx, src, 3)
	must(t, lastPos(other.Transact(ctx, []schemas.Message{{Topic: "out", Payload: []byte("kept")}}, again)))
	took := time.Since(start)
	if again[0].From != ds[0].From {
		t.Errorf("%v came", again[0].From)
	}
	if rs := franz(t, ctx, other, other.name("out"), 1); string(rs[0].Value) != "kept" {
		t.Errorf("a reader sees %s", rs[0].Value)
	}
	t.Logf("the next owner has committed after %v; sessions last %v, transactions %v", took, cfg.Session, txnTimeout)
	if took > txnTimeout {
		t.Errorf("the next owner waited %v for the dead one's transaction", took)
	}
}

func lastPos(_ []schemas.Position, err error) error { return err }

// TestTransactAndAccept: plain settlements and transactions of one partition do not undo each other.
func TestTransactAndAccept(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	_, c, src, ds := txnFloor(t, ctx, &wires{}, 10)
	acceptAll(t, ctx, ds[:2])
	must(t, lastPos(c.Transact(ctx, nil, ds[2:5])))
	acceptAll(t, ctx, ds[6:7])
	must(t, lastPos(c.Transact(ctx, []schemas.Message{{Topic: "out", Payload: []byte("x")}}, ds[5:6])))
	eventually(t, ctx, "the commits", func() bool { return committed(t, ctx, c, "in", 1)[0] == 7 })
	acceptAll(t, ctx, ds[7:8])
	must(t, src.Close(ctx))
	if at := committed(t, ctx, c, "in", 1); at[0] != 8 {
		t.Errorf("committed %d", at[0])
	}
}
