package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// deaf is a connection that loses answers to produce requests: the broker has done what was asked, and nobody hears.
type deaf struct {
	net.Conn
	lose  func() bool
	loses bool
}

// Write notes whether a produce request begins here.
func (d *deaf) Write(b []byte) (int, error) {
	if len(b) > 6 && binary.BigEndian.Uint32(b) > 8 && protocol.ApiKey(binary.BigEndian.Uint16(b[4:])) == protocol.Produce {
		d.loses = d.lose()
	}
	return d.Conn.Write(b)
}

// Read waits for the answer before it breaks the connection.
func (d *deaf) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if d.loses && err == nil {
		d.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// writers publishes numbered messages of several keys from several goroutines until stop is closed, and returns what was
// acknowledged: payload by position. An error ends the test, unless it is tolerated.
func writers(t testing.TB, ctx context.Context, c *Client, topic string, n int, stop <-chan struct{}, tolerate func(error) bool) func() map[schemas.Position]string {
	var wg sync.WaitGroup
	all := make([]map[schemas.Position]string, n)
	for w := range n {
		all[w] = map[schemas.Position]string{}
		wg.Go(func() {
			for i := 0; ; i += 5 {
				select {
				case <-stop:
					return
				default:
				}
				ms := make([]schemas.Message, 5)
				for j := range ms {
					ms[j] = schemas.Message{Topic: topic, Key: fmt.Sprintf("%d-%d", w, j%2), Payload: fmt.Appendf(nil, "%d/%d", w, i+j)}
				}
				pos, err := c.Publish(ctx, ms)
				if err != nil {
					if tolerate == nil || !tolerate(err) {
						t.Errorf("writer %d: %v", w, err)
						return
					}
					continue
				}
				for j, p := range pos {
					all[w][p] = string(ms[j].Payload)
				}
			}
		})
	}
	return func() map[schemas.Position]string {
		wg.Wait()
		out := map[schemas.Position]string{}
		for _, m := range all {
			for p, v := range m {
				if old, ok := out[p]; ok {
					t.Errorf("%v was acknowledged for %s and for %s", p, old, v)
				}
				out[p] = v
			}
		}
		return out
	}
}

// judge reads the topic with an independent client: everything acknowledged is where it was said to be, nothing is there
// twice, and each key is in order. stray says whether what was not acknowledged may be there.
func judge(t testing.TB, ctx context.Context, c *Client, topic string, acked map[schemas.Position]string, stray bool) {
	t.Helper()
	last := map[int32]int64{}
	for p := range acked {
		last[p.Partition] = max(last[p.Partition], int64(p.Sequence)-1)
	}
	seen := map[string]schemas.Position{}
	lastOf := map[string]int{}
	found := 0
	for _, r := range franzTo(t, ctx, c, c.name(topic), last) {
		p := schemas.Position{Stream: topic, Partition: r.Partition, Sequence: uint64(r.Offset) + 1}
		if old, ok := seen[string(r.Value)]; ok {
			t.Errorf("%s is stored at %v and at %v", r.Value, old, p)
		}
		seen[string(r.Value)] = p
		want, ok := acked[p]
		switch {
		case ok && want != string(r.Value):
			t.Errorf("%v holds %s, acknowledged was %s", p, r.Value, want)
		case !ok && !stray && r.Offset <= last[r.Partition]:
			t.Errorf("%s at %v was never acknowledged", r.Value, p)
		}
		found += b2i(ok)
		var w, n int
		fmt.Sscanf(string(r.Value), "%d/%d", &w, &n)
		if old, ok := lastOf[string(r.Key)]; ok && n <= old {
			t.Errorf("key %s: %d comes after %d", r.Key, n, old)
		}
		lastOf[string(r.Key)] = n
	}
	if found != len(acked) {
		t.Errorf("%d of %d acknowledged messages are there", found, len(acked))
	}
}

// TestLostAnswers: the answer to every third produce request is lost, and nothing is stored twice.
func TestLostAnswers(t *testing.T) {
	ctx := within(t)
	cfg := testConfig(broker.Shared(t))
	var requests, lost atomic.Int32
	cfg.dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		return &deaf{Conn: nc, lose: func() bool {
			if requests.Add(1)%3 != 0 {
				return false
			}
			lost.Add(1)
			return true
		}}, err
	}
	c := dialConfig(t, cfg)
	must(t, c.EnsureTopic(ctx, "t", 4))
	stop := make(chan struct{})
	acked := writers(t, ctx, c, "t", 6, stop, nil)
	until(t, ctx, "lost answers", func() error {
		if lost.Load() < 40 && !t.Failed() {
			return fmt.Errorf("%d lost of %d", lost.Load(), requests.Load())
		}
		return nil
	})
	close(stop)
	judge(t, ctx, c, "t", acked(), false)
}

// TestSequences: what a broker says about a writer that it does not know, or not any more, costs nothing.
func TestSequences(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.EnsureTopic(ctx, "t", 1))
	n := 0
	acked := map[schemas.Position]string{}
	publish := func() {
		t.Helper()
		m := schemas.Message{Topic: "t", Key: "0", Payload: fmt.Appendf(nil, "0/%d", n)}
		n++
		pos, err := c.Publish(ctx, []schemas.Message{m})
		must(t, err)
		acked[pos[0]] = string(m.Payload)
	}
	forge := func(f func(w *producerID)) {
		c.producer.mu.Lock()
		defer c.producer.mu.Unlock()
		f(&c.producer.mu.lanes[laneKey{c.name("t"), 0}].who)
	}
	publish()
	publish()
	forge(func(w *producerID) { w.seq += 5 }) // OUT_OF_ORDER_SEQUENCE_NUMBER
	publish()
	publish()
	forge(func(w *producerID) { w.epoch, w.seq = w.epoch+3, 0 })
	publish()
	forge(func(w *producerID) { w.epoch-- }) // INVALID_PRODUCER_EPOCH
	publish()
	publish()
	forge(func(w *producerID) { w.epoch, w.seq = -1, 0 }) // after the last epoch
	publish()
	publish()
	if n != len(acked) {
		t.Fatalf("%d places for %d messages", len(acked), n)
	}
	judge(t, ctx, c, "t", acked, false)
}

func TestSequenceWraps(t *testing.T) {
	for _, k := range []struct {
		seq  int32
		n    int
		want int32
	}{{0, 1, 1}, {1<<31 - 1, 1, 0}, {1<<31 - 2, 5, 3}, {7, 0, 7}} {
		if got := (producerID{seq: k.seq}).after(k.n).seq; got != k.want {
			t.Errorf("%d after %d is %d, want %d", k.n, k.seq, got, k.want)
		}
	}
}

// TestHarm is done to a broker of its own.
func TestHarm(t *testing.T) {
	b := broker.Start(t, 1)
	t.Run("callers leave", func(t *testing.T) { callersLeave(t, b) })
	t.Run("close", func(t *testing.T) { closeClient(t, b) })
}

// callersLeave: callers whose time ends while a broker is frozen get a clear error, the others what they asked for,
// and what was given up is not stored after what came later.
func callersLeave(t *testing.T, b *broker.Cluster) {
	ctx := within(t)
	cfg := testConfig(b)
	cfg.CallTimeout = time.Second
	c := dialConfig(t, cfg)
	must(t, c.EnsureTopic(ctx, "t", 2))
	stop := make(chan struct{})
	patient := writers(t, ctx, c, "t", 2, stop, nil)
	var gaveUp atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			sctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			_, err := c.Publish(sctx, []schemas.Message{{Topic: "t", Key: "9", Payload: []byte("9/" + strconv.Itoa(i))}})
			cancel()
			if err != nil {
				gaveUp.Add(1)
				if k := schemas.KindOf(err); k != schemas.Unavailable && k != schemas.Expired || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v: %v", k, err)
				}
			}
		}
	})
	for range 2 {
		before := gaveUp.Load()
		b.Stop(t, 1)
		until(t, ctx, "callers to give up", func() error {
			if gaveUp.Load() < before+10 {
				return errors.New("not yet")
			}
			return nil
		})
		b.Cont(t, 1)
		pctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := c.Publish(pctx, []schemas.Message{{Topic: "t", Key: "x", Payload: []byte("8/" + strconv.Itoa(int(before)))}})
		cancel()
		must(t, err)
	}
	close(stop)
	wg.Wait()
	judge(t, ctx, c, "t", patient(), true)
}

// closeClient: a client that is closed while a broker is frozen lets everybody go at once.
func closeClient(t *testing.T, b *broker.Cluster) {
	ctx := within(t)
	c := dialConfig(t, testConfig(b))
	must(t, c.EnsureTopic(ctx, "t", 1))
	_, err := c.Publish(ctx, texts("t", 1))
	must(t, err)
	b.Stop(t, 1)
	errs := make(chan error, 3)
	go func() { _, err := c.Publish(ctx, texts("t", 1)); errs <- err }()
	go func() { _, err := c.newFetcher("t", 0, fromEnd).next(ctx, time.Minute); errs <- err }()
	go func() { _, err := c.Topic(ctx, "t"); errs <- err }()
	until(t, ctx, "requests on their way", func() error {
		c.producer.mu.Lock()
		defer c.producer.mu.Unlock()
		if len(c.producer.mu.flying) == 0 {
			return errors.New("none")
		}
		return nil
	})
	c.Close()
	for range 3 {
		select {
		case err := <-errs:
			wantKind(t, err, schemas.Unavailable, "closed")
		case <-time.After(5 * time.Second):
			t.Fatal("somebody still waits")
		}
	}
	b.Cont(t, 1)
	_, err = c.Publish(ctx, texts("t", 1))
	wantKind(t, err, schemas.Unavailable, "closed")
	c.Close()
}
