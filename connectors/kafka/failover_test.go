package kafka

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/kafka/broker"
)

// TestFailover: each broker in turn is killed, then frozen, while messages are written. Nothing acknowledged is lost,
// nothing is stored twice, each key is in order; and where there are others, writing goes on without the one that is away.
func TestFailover(t *testing.T) {
	ctx := t.Context() // as many kills as there are brokers: each wait has a bound of its own
	b := broker.Start(t, broker.Count(), broker.Heap("320m"))
	c := dialConfig(t, testConfig(b))
	must(t, c.EnsureTopic(ctx, "t", 6))
	stop := make(chan struct{})
	acked := writers(t, ctx, c, "t", 4, stop, nil)
	// One message to every partition, again and again: the longest time that it took is what a broker's absence costs.
	var mu sync.Mutex
	var longest time.Duration
	var rounds int
	var probe sync.WaitGroup
	probe.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			start := time.Now()
			recs := make([]record, 6)
			for p := range recs {
				recs[p] = record{topic: c.name("t"), partition: int32(p), key: fmt.Appendf(nil, "p%d", p), value: fmt.Appendf(nil, "%d/%d", 10+p, i)}
			}
			if _, err := c.produce(ctx, recs); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			longest, rounds = max(longest, time.Since(start)), rounds+1
			mu.Unlock()
		}
	})
	goesOn := func(what string) {
		t.Helper()
		mu.Lock()
		from := rounds
		longest = 0
		mu.Unlock()
		until(t, within(t), what, func() error {
			mu.Lock()
			defer mu.Unlock()
			if rounds < from+3 {
				return fmt.Errorf("%d of 3 rounds", rounds-from)
			}
			return nil
		})
		mu.Lock()
		t.Logf("%s: the longest write took %v", what, longest.Round(time.Millisecond))
		mu.Unlock()
	}
	goesOn("all are well")
	for i := 1; i <= b.N(); i++ {
		for _, way := range []struct {
			name       string
			away, back func(testing.TB, int)
		}{{"dead", b.Kill, b.Up}, {"frozen", b.Stop, b.Cont}} {
			way.away(t, i)
			if b.N() > 1 {
				goesOn(fmt.Sprintf("broker %d is %s", i, way.name))
			}
			way.back(t, i)
			goesOn(fmt.Sprintf("broker %d is back, after it was %s", i, way.name))
		}
	}
	close(stop)
	probe.Wait()
	judge(t, ctx, c, "t", acked(), true)
}
