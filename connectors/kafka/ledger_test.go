package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// ledgerSteps are what a Write is made of, after InitProducerId.
var ledgerSteps = []protocol.ApiKey{protocol.AddPartitionsToTxn, protocol.AddOffsetsToTxn, protocol.Produce, protocol.TxnOffsetCommit, protocol.EndTxn}

const ledgerChunk = 7 // messages of a Write

// ledgerWrite writes the messages of a chunk, on two topics.
func ledgerWrite(ctx context.Context, l *Ledger, chunk int64) error {
	var ms []schemas.Message
	for i := range int64(ledgerChunk) {
		ms = append(ms, schemas.Message{Topic: "out", Key: "k", Payload: []byte(strconv.FormatInt(chunk*ledgerChunk+i, 10))})
	}
	ms = append(ms, schemas.Message{Topic: "out.rejected", Key: "k", Payload: []byte(strconv.FormatInt(chunk, 10))})
	return l.Write(ctx, ms, chunk+1, fmt.Sprintf(`{"chunks":%d}`, chunk+1))
}

// ledgerHolds checks, with a client that shares no code with this one, that the chunks are there once each, in order.
func ledgerHolds(t *testing.T, ctx context.Context, c *Client, chunks int64) {
	t.Helper()
	for topic, each := range map[string]int64{"out": ledgerChunk, "out.rejected": 1} {
		must(t, lastOf(c.produce(ctx, []record{{topic: c.name(topic), value: []byte("end")}})))
		n := int64(0)
		for _, r := range franzUntil(t, ctx, c, c.name(topic), "end") {
			if string(r) != strconv.FormatInt(n, 10) {
				t.Fatalf("%s: %s comes where %d is due", topic, r, n)
			}
			n++
		}
		if n != chunks*each {
			t.Fatalf("%s: %d messages, want %d", topic, n, chunks*each)
		}
	}
}

// franzUntil reads a topic of one partition up to a value that ends it.
func franzUntil(t *testing.T, ctx context.Context, c *Client, topic, end string) (values [][]byte) {
	t.Helper()
	for n := 1; ; n++ {
		rs := franz(t, ctx, c, topic, n)
		n = len(rs)
		for i, r := range rs {
			if string(r.Value) == end {
				for _, r := range rs[:i] {
					values = append(values, r.Value)
				}
				return values
			}
		}
	}
}

func ledgerFloor(t *testing.T, ctx context.Context) (Config, *Client) {
	t.Helper()
	cfg := testConfig(broker.Shared(t))
	c := dialConfig(t, cfg)
	must(t, c.EnsureTopic(ctx, "out", 1))
	must(t, c.EnsureTopic(ctx, "out.rejected", 1))
	return cfg, c
}

// TestLedgerOfTheDead: a writer is killed at each of its calls, before it is sent and before it is answered. The next one
// goes on where the progress says, and readers see each message once.
func TestLedgerOfTheDead(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg, c := ledgerFloor(t, ctx)
	chunk := int64(0)
	for _, at := range append([]protocol.ApiKey{protocol.InitProducerId}, ledgerSteps...) {
		for _, f := range []fate{unsent, unheard} {
			for _, earlier := range []int64{0, 2} { // chunks written before the one that kills it
				life, die := context.WithCancel(ctx)
				var armed, met atomic.Bool
				armed.Store(earlier == 0)
				bad := cfg
				bad.dialer = (&wires{fate: func(k protocol.ApiKey) fate {
					if life.Err() != nil || armed.Load() && k == at {
						met.Store(true)
						die()
						return f
					}
					return served
				}}).dial
				victim := dialConfig(t, bad)
				l, err := victim.OpenLedger(life, "out", "job-1")
				if err == nil {
					n, text := l.Progress()
					if chunk = max(n, 0); text != "" && text != fmt.Sprintf(`{"chunks":%d}`, chunk) {
						t.Fatalf("progress %d says %s", n, text)
					}
					for i := int64(0); err == nil && i < 5; i++ {
						armed.Store(i >= earlier)
						if at == protocol.InitProducerId && i >= earlier { // a Write begins anew after a failure
							l.session = nil
						}
						if err = ledgerWrite(life, l, chunk); err == nil {
							chunk++
						}
					}
				}
				victim.Close()
				if err == nil || !met.Load() {
					t.Fatalf("%s: nobody was killed", at)
				}
				die()
				next, err := c.OpenLedger(ctx, "out", "job-1")
				must(t, err)
				n, _ := next.Progress()
				if n = max(n, 0); n != chunk && (n != chunk+1 || at != protocol.EndTxn) {
					t.Fatalf("killed at %s: progress %d after %d acknowledged", at, n, chunk)
				}
				must(t, ledgerWrite(ctx, next, n))
				chunk = n + 1
			}
		}
	}
	t.Logf("%d chunks", chunk)
	ledgerHolds(t, ctx, c, chunk)
}

// TestLedgerOfTheLate: a writer is held up at each of its calls until another one has taken over and written. It stores
// nothing more and is told why.
func TestLedgerOfTheLate(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg, c := ledgerFloor(t, ctx)
	chunk := int64(0)
	for _, at := range ledgerSteps {
		var armed atomic.Bool
		held, release := make(chan struct{}), make(chan struct{})
		slow := cfg
		slow.dialer = (&wires{fate: func(k protocol.ApiKey) fate {
			if k == at && armed.CompareAndSwap(true, false) {
				close(held)
				<-release
			}
			return served
		}}).dial
		late := dialConfig(t, slow)
		l, err := late.OpenLedger(ctx, "out", "job-1")
		must(t, err)
		must(t, ledgerWrite(ctx, l, chunk))
		armed.Store(true)
		written := make(chan error, 1)
		go func() { written <- ledgerWrite(ctx, l, chunk+1) }()
		<-held
		next, err := c.OpenLedger(ctx, "out", "job-1")
		must(t, err)
		n, _ := next.Progress()
		if n != chunk+1 {
			t.Fatalf("progress %d, want %d", n, chunk+1)
		}
		must(t, ledgerWrite(ctx, next, n))
		close(release)
		if err := <-written; !errors.Is(err, connectors.ErrRevoked) {
			t.Fatalf("held up at %s: %v", at, err)
		}
		must(t, ledgerWrite(ctx, next, n+1))
		chunk = n + 2
		late.Close()
	}
	ledgerHolds(t, ctx, c, chunk)
}

// TestLedgerOverBadLines: requests and answers that are lost on the way do no more than take time.
func TestLedgerOverBadLines(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg, c := ledgerFloor(t, ctx)
	var calls atomic.Int64
	cfg.dialer = (&wires{fate: func(k protocol.ApiKey) fate {
		if !txnCalls[k] {
			return served
		}
		switch calls.Add(1) % 7 { // 7 and the calls of a Write have no common factor: sooner or later each is met
		case 3:
			return unsent
		case 6:
			return unheard
		}
		return served
	}}).dial
	l, err := dialConfig(t, cfg).OpenLedger(ctx, "out", "job-1")
	must(t, err)
	for i := range int64(30) {
		must(t, ledgerWrite(ctx, l, i))
	}
	ledgerHolds(t, ctx, c, 30)
}

// TestLedgerRefuses: what cannot be stored is refused whole, and a chunk without messages moves the progress.
func TestLedgerRefuses(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	_, c := ledgerFloor(t, ctx)
	if _, err := c.OpenLedger(ctx, "nowhere", "job-1"); schemas.KindOf(err) != schemas.NotFound {
		t.Fatalf("a topic that is not there: %v", err)
	}
	l, err := c.OpenLedger(ctx, "out", "job-1")
	must(t, err)
	if n, text := l.Progress(); n != -1 || text != "" {
		t.Fatalf("progress %d %q of nobody", n, text)
	}
	must(t, l.Write(ctx, nil, 0, "begun"))
	var refused *connectors.RefusedError
	err = l.Write(ctx, []schemas.Message{{Topic: "out", Payload: []byte("0")}, {Topic: "out", Payload: make([]byte, 2<<20)}}, 1, "")
	if !errors.As(err, &refused) || refused.Index != 1 {
		t.Fatalf("a message of 2 MiB: %v", err)
	}
	if err := l.Write(ctx, nil, 0, ""); schemas.KindOf(err) != schemas.Internal {
		t.Fatalf("progress that goes back: %v", err)
	}
	if err := ledgerWrite(ctx, l, 0); err != nil {
		t.Fatal(err)
	}
	must(t, l.Write(ctx, nil, 2, "nothing to say"))
	if n, text := l.Progress(); n != 2 || text != "nothing to say" {
		t.Fatalf("progress %d %q", n, text)
	}
	// Another name is another ledger; a topic that is gone takes the progress along.
	other, err := c.OpenLedger(ctx, "out", "job-2")
	must(t, err)
	if n, _ := other.Progress(); n != -1 {
		t.Fatalf("progress %d of another", n)
	}
	ledgerHolds(t, ctx, c, 1)
	must(t, c.DeleteTopic(ctx, "out"))
	if err := ledgerWrite(ctx, l, 2); schemas.KindOf(err) != schemas.NotFound {
		t.Fatalf("a topic that is gone: %v", err)
	}
	must(t, c.EnsureTopic(ctx, "out", 1))
	l, err = c.OpenLedger(ctx, "out", "job-1")
	must(t, err)
	if n, _ := l.Progress(); n != -1 {
		t.Fatalf("progress %d in a topic that was made again", n)
	}
}

// TestDropLedger: nothing of a ledger but its messages stays, and its writer cannot bring it back.
func TestDropLedger(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	_, c := ledgerFloor(t, ctx)
	must(t, c.DropLedger(ctx, "out", "job-1"))
	l, err := c.OpenLedger(ctx, "out", "job-1")
	must(t, err)
	must(t, ledgerWrite(ctx, l, 0))
	adm := kadm.NewClient(franzClient(t, c))
	there := func() bool {
		gs, err := adm.ListGroups(ctx)
		must(t, err)
		_, ok := gs[c.name("leat.ledger.job-1")]
		return ok
	}
	if !there() {
		t.Fatal("no group keeps the progress")
	}
	i, err := c.Topic(ctx, "out")
	must(t, err)
	if len(i.Groups) != 0 {
		t.Fatalf("a ledger is no reader of the topic: %+v", i.Groups)
	}
	must(t, c.DropLedger(ctx, "out", "job-1"))
	if there() {
		t.Fatal("the group is there")
	}
	if err := ledgerWrite(ctx, l, 1); !errors.Is(err, connectors.ErrRevoked) {
		t.Fatalf("written after the end: %v", err)
	}
	if there() {
		t.Fatal("the group is there again")
	}
	must(t, c.DropLedger(ctx, "out", "job-1"))
	ledgerHolds(t, ctx, c, 1)
}
