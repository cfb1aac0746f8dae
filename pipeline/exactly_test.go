package pipeline_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// Whatever dies, fails or is taken away: of each event there is one output or one dead letter, and one record, and each
// key is in order. Nothing here folds anything.
func TestExactlyOnce(t *testing.T) {
	const n, keys, lives = 4000, 16, 12
	for range 4 {
		l := newLedger(t, 4)
		l.config.TransactionRecords, l.config.TransactionInterval = 20, time.Millisecond
		l.set(func([]schemas.Message, []*connectors.Delivery) error {
			switch rand.IntN(60) {
			case 0:
				return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
			case 1:
				l.lose.Add(1)
			}
			return nil
		})
		published := 0
		for i := range lives {
			p := l.begin(time.Millisecond)
			part := n / 10 * (i + 1) / lives * 10
			revokeAt, calls := published+rand.IntN(part-published+1), l.calls.Load()+rand.Int64N(60)
			eventually(t, "its part is done, or it dies", func() bool {
				for published < part && l.held() < 100 {
					l.publish(eventsFrom(published, 10, keys)...)
					if published += 10; published > revokeAt {
						revokeAt = n
						l.Revoke("in", "sums")
					}
				}
				return published == part && (l.held() == 0 || i < lives-1 && l.calls.Load() > calls)
			})
			p.kill()
		}
		l.check(n, keys)
		if l.scans.Load() != 0 {
			t.Error("the lineage was scanned")
		}
		t.Logf("%d calls, %d transactions", l.calls.Load(), len(l.transactions()))
	}
}

// Two processes share a topic, and partitions move between them.
func TestExactlyOnceInTwoProcesses(t *testing.T) {
	const n, keys = 4000, 24
	l := newLedger(t, 6)
	one, two := l.begin(20*time.Second), l.begin(20*time.Second)
	for at := 0; at < n; at += 500 {
		l.publish(eventsFrom(at, 500, keys)...)
		l.Revoke("in", "sums")
	}
	eventually(t, "half is done", func() bool { return l.held() < n/2 })
	one.kill()
	eventually(t, "all is done", func() bool { return l.held() == 0 })
	l.check(n, keys)
	two.stop()
}

// A partition commits one unit at a time while the next one gathers; partitions do so beside one another; and a unit
// that cannot be stored holds up its own partition only.
func TestPartitionsCommitBesideOneAnother(t *testing.T) {
	const n, keys = 2000, 40
	l := newLedger(t, 4)
	var held atomic.Int32
	held.Store(-1)
	release := make(chan struct{})
	l.set(func(_ []schemas.Message, accept []*connectors.Delivery) error {
		p := accept[0].From.Partition
		if held.CompareAndSwap(-1, p) || held.Load() == p {
			<-release
		}
		return nil
	})
	p := l.begin(20 * time.Second)
	l.publish(eventsFrom(0, n, keys)...)
	stuck := 0
	eventually(t, "the other partitions are done", func() bool {
		ms := l.partition("in", held.Load())
		stuck = len(ms)
		return held.Load() >= 0 && l.held() == stuck
	})
	if stuck == 0 || stuck == n {
		t.Fatalf("%d events are held up", stuck)
	}
	close(release)
	eventually(t, "all is done", func() bool { return l.held() == 0 })
	l.check(n, keys)
	p.stop()
	if p.mu.most < 2 {
		t.Errorf("%d partitions committed at once", p.mu.most)
	}
}

// What was scored of a partition that was lost is dropped: the unit that is being committed, and the one that is open.
func TestLostPartitionIsDropped(t *testing.T) {
	const n, keys = 600, 8
	l := newLedger(t, 2)
	entered, release := make(chan struct{}, 100), make(chan struct{})
	l.set(func([]schemas.Message, []*connectors.Delivery) error {
		entered <- struct{}{}
		<-release
		return nil
	})
	p := l.begin(20 * time.Second)
	l.publish(eventsFrom(0, n/2, keys)...)
	<-entered
	<-entered // both partitions commit
	l.publish(eventsFrom(n/2, n/2, keys)...)
	eventually(t, "the rest is scored", func() bool { return p.model.timesScored(n-1) > 0 })
	l.Revoke("in", "sums")
	eventually(t, "all comes again", func() bool { return p.model.timesScored(n-1) > 1 })
	close(release)
	eventually(t, "all is done", func() bool { return l.held() == 0 })
	l.check(n, keys)
	if !strings.Contains(l.logged.String(), "partition lost") {
		t.Error("nothing was lost")
	}
	p.stop()
}

// A process that stops while a transaction cannot be stored leaves it, and what is behind it, to the next one.
func TestStopsWhileTransactionsFail(t *testing.T) {
	const n, keys = 200, 5
	l := newLedger(t, 1)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	l.set(func(_ []schemas.Message, accept []*connectors.Delivery) error {
		if accept[0].From.Sequence > 1 {
			return nil
		}
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
	})
	p := l.begin(20 * time.Second)
	l.publish(eventsFrom(0, n/2, keys)...)
	<-entered
	l.publish(eventsFrom(n/2, n/2, keys)...)
	eventually(t, "more waits behind it", func() bool { return p.model.timesScored(n-1) > 0 })
	p.cancel()
	close(release)
	<-p.stopped
	if len(l.transactions()) > 0 || l.held() != n {
		t.Errorf("%d transactions behind one that failed, %d events are held", len(l.transactions()), l.held())
	}
	l.set(func([]schemas.Message, []*connectors.Delivery) error { return nil })
	p = l.begin(20 * time.Second)
	eventually(t, "all is done", func() bool { return l.held() == 0 })
	l.check(n, keys)
	p.stop()
}

// An output that the transport never takes ends in the dead letters, inside the same transaction as all else.
func TestRefusedOutput(t *testing.T) {
	l := newLedger(t, 1)
	var refused atomic.Int64
	l.set(func(msgs []schemas.Message, _ []*connectors.Delivery) error {
		for i, m := range msgs {
			if id := m.Header.Get(schemas.HeaderRequestID); m.Topic == "out" && (id == "event-20" || id == "event-29") {
				refused.Add(1)
				return &connectors.RefusedError{Index: i, Err: schemas.Errorf(schemas.Invalid, "test", "2 MB: at most 1 MB")}
			}
		}
		return nil
	})
	p := l.begin(20 * time.Second)
	l.publish(unfolded(0, 30, 3)...)
	eventually(t, "all is done", func() bool { return l.held() == 0 })
	p.stop()
	dead := l.Dead()
	if len(dead) != 2 || len(l.topic("out")) != 28 || refused.Load() != 2 {
		t.Errorf("%d dead letters, %d outputs, %d refusals", len(dead), len(l.topic("out")), refused.Load())
	}
	for _, d := range dead {
		if !strings.Contains(d.Header.Get("Leat-Error"), "at most 1 MB") {
			t.Errorf("dead letter of %v", d.Header)
		}
	}
}

// A transaction gathers rows until it is full; what is open when the process stops is committed at once.
func TestTransactionsGather(t *testing.T) {
	const n, keys = 12_000, 100
	l := newLedger(t, 4)
	l.config.TransactionRecords, l.config.TransactionInterval = 1000, 10*time.Second
	p := l.begin(20 * time.Second)
	for at := 0; at < n; at += 1000 {
		l.publish(eventsFrom(at, 1000, keys)...)
	}
	eventually(t, "what is left would not fill a transaction", func() bool {
		i, err := l.Topic(t.Context(), "in")
		return err == nil && i.Groups[0].Lag == 0 && i.Groups[0].Pending < 4*1000
	})
	rows := l.transactions()
	if slices.Min(rows) < 1000 || len(rows) > n/1000 {
		t.Errorf("%d transactions of %v events", len(rows), rows)
	}
	p.stop()
	if l.held() != 0 {
		t.Errorf("%d events are left behind", l.held())
	}
	l.check(n, keys)
}

// A pipeline goes over from one guarantee to the other and back. What is exactly once is never looked up in the lineage,
// and leaves a checkpoint behind.
func TestGuaranteeChanges(t *testing.T) {
	const keys = 5
	l := newLedger(t, 2)
	p := l.begin(20*time.Second, func(s *pipeline.Spec) { s.Delivery = pipeline.AtLeastOnce })
	for i, g := range []pipeline.Guarantee{"", pipeline.ExactlyOnce, pipeline.AtLeastOnce} {
		p.serve(func(s *pipeline.Spec) { s.Delivery = g })
		before := l.calls.Load()
		l.publish(eventsFrom(100*i, 100, keys)...)
		eventually(t, "all is done", func() bool { return l.held() == 0 })
		if did := l.calls.Load() > before; did != (g == pipeline.ExactlyOnce) {
			t.Errorf("%q: transactions were made: %v", g, did)
		}
	}
	p.stop()
	l.check(300, keys)
	if l.scans.Load() != 2 || l.checkpoint.Load() == 0 {
		t.Errorf("%d scans of the lineage, checkpoint %d", l.scans.Load(), l.checkpoint.Load())
	}
}

// A transport without transactions does not serve a pipeline that is exactly once, and says why.
func TestExactlyOnceNeedsTransactions(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.change("sums", revision(p.model, "sums", "sums", 1, exactly))
	w.eventually("State says so", func() bool {
		s, _ := p.State("sums")
		return !s.Ready && strings.Contains(s.Error, "delivery: exactly_once: this server has no transactions for topic in")
	})
	p.stop()
}
