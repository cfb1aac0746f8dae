package kafka

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
)

// TestGroupRebalance: a member that joins gets its share once what was in work there is settled. What stays goes on
// through it, and nothing is delivered twice.
func TestGroupRebalance(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg := shared(t)
	a, b := dialConfig(t, cfg), dialConfig(t, cfg)
	must(t, a.EnsureTopic(ctx, "t", 4))
	publish(t, ctx, a, "t", 4, 0, 10)
	one := subscribe(t, ctx, a, "t")
	ds := receive(t, ctx, one, 40)

	two := subscribe(t, ctx, b, "t")
	eventually(t, ctx, "two partitions to leave", func() bool { _, l := one.partitions(); return len(l) == 2 })
	_, leaving := one.partitions()
	publish(t, ctx, a, "t", 4, 10, 5)
	more := receive(t, ctx, one, 10) // of the two that stay
	for _, d := range more {
		if slices.Contains(leaving, d.From.Partition) || d.Attempt != 1 {
			t.Fatalf("%v, attempt %d, came while its partition was to leave", d.From, d.Attempt)
		}
	}
	if owned, _ := two.partitions(); len(owned) != 0 {
		t.Fatalf("%v were given away with records in work", owned)
	}
	acceptAll(t, ctx, ds)
	acceptAll(t, ctx, more)
	moved := receive(t, ctx, two, 10)
	next := map[int32]int{}
	for _, d := range moved {
		n := 10 + next[d.From.Partition]
		next[d.From.Partition]++
		if !slices.Contains(leaving, d.From.Partition) || string(d.Payload) != strconv.Itoa(n) || d.Attempt != 1 {
			t.Fatalf("%v is %s, attempt %d; want %d of one of %v", d.From, d.Payload, d.Attempt, n, leaving)
		}
	}
	acceptAll(t, ctx, moved)
	eventually(t, ctx, "the commits", func() bool { return slices.Equal(committed(t, ctx, a, "t", 4), []int64{15, 15, 15, 15}) })

	// One that leaves gives its share back at once.
	start := time.Now()
	must(t, two.Close(ctx))
	publish(t, ctx, a, "t", 4, 15, 1)
	acceptAll(t, ctx, receive(t, ctx, one, 4))
	t.Logf("the first has all %v after the second left", time.Since(start))
	if took := time.Since(start); took > shortSession {
		t.Errorf("the first had all only %v after the second left", took)
	}
}

// TestGroupLateHands: a partition that is to move waits for its deliveries no longer than a session. Then settling them
// has no effect and is no error, and they come to the new owner.
func TestGroupLateHands(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg := shared(t)
	a, b := dialConfig(t, cfg), dialConfig(t, cfg)
	must(t, a.EnsureTopic(ctx, "t", 2))
	publish(t, ctx, a, "t", 2, 0, 3)
	one := subscribe(t, ctx, a, "t")
	ds := receive(t, ctx, one, 6)
	two := subscribe(t, ctx, b, "t")
	again := receive(t, ctx, two, 3)
	var late []*connectors.Delivery
	for _, d := range ds {
		if d.From.Partition == again[0].From.Partition {
			late = append(late, d)
		}
	}
	for i, d := range again {
		if d.From != late[i].From || d.Attempt < 2 {
			t.Fatalf("%v, attempt %d, came; want %v again", d.From, d.Attempt, late[i].From)
		}
	}
	must(t, late[0].Settler.Accept(ctx, late[:1]))
	must(t, late[1].Settler.Retry(ctx, late[1], 0))
	must(t, late[2].Settler.Reject(ctx, late[2], errors.New("too late")))
	if dead, err := deadLetters(ctx, a, "t"); err != nil || len(dead) != 0 {
		t.Fatalf("%d dead letters of a partition that was lost, %v", len(dead), err)
	}
	acceptAll(t, ctx, again)
	acceptAll(t, ctx, ds) // of both partitions
	eventually(t, ctx, "the commits", func() bool { return slices.Equal(committed(t, ctx, a, "t", 2), []int64{3, 3}) })
}

// TestGroupCrash: the partitions of a member that dies without a word go to the others after its session's time, and
// begin at the first record that was not committed.
func TestGroupCrash(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg := shared(t)
	a, b := dialConfig(t, cfg), dialConfig(t, cfg)
	must(t, a.EnsureTopic(ctx, "t", 4))
	one, two := subscribe(t, ctx, a, "t"), subscribe(t, ctx, b, "t")
	eventually(t, ctx, "the shares", func() bool { o, _ := one.partitions(); p, _ := two.partitions(); return len(o) == 2 && len(p) == 2 })
	lostOnes, _ := two.partitions()
	publish(t, ctx, a, "t", 4, 0, 4)
	mine, others := receive(t, ctx, one, 8), receive(t, ctx, two, 8)
	acceptAll(t, ctx, mine)
	by := map[int32][]*connectors.Delivery{}
	for _, d := range others {
		by[d.From.Partition] = append(by[d.From.Partition], d)
	}
	for _, ds := range by {
		acceptAll(t, ctx, ds[:2])
	}
	eventually(t, ctx, "the commits", func() bool {
		at := committed(t, ctx, a, "t", 4)
		return at[lostOnes[0]] == 2 && at[lostOnes[1]] == 2
	})
	start := time.Now()
	b.Close() // nothing is said to anybody
	again := receive(t, ctx, one, 4)
	took := time.Since(start)
	for _, d := range again {
		if !slices.Contains(lostOnes, d.From.Partition) || d.From.Sequence < 3 || d.Attempt < 2 {
			t.Fatalf("%v, attempt %d, came", d.From, d.Attempt)
		}
	}
	acceptAll(t, ctx, again)
	t.Logf("the survivor has all %v after the other died; sessions last %v", took, cfg.Session)
}

// TestGroupPartitionsAdded: partitions added to a topic are picked up while the group runs.
func TestGroupPartitionsAdded(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	cfg := shared(t)
	a, b := dialConfig(t, cfg), dialConfig(t, cfg)
	must(t, a.EnsureTopic(ctx, "t", 1))
	one, two := subscribe(t, ctx, a, "t"), subscribe(t, ctx, b, "t")
	publish(t, ctx, a, "t", 1, 0, 1)
	held := make(chan []*connectors.Delivery, 1)
	run, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, src := range []*groupSource{one, two} {
		wg.Go(func() {
			for {
				ds, err := src.Receive(run, 10)
				if err != nil {
					return
				}
				select {
				case held <- ds:
				case <-run.Done():
				}
			}
		})
	}
	first := <-held // stays in work
	r, err := a.kafka.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: a.name("t"), Count: 4}}})
	must(t, err)
	must(t, errors.Join(slices.Collect(maps.Values(r.Errors))...))
	eventually(t, ctx, "the partitions", func() bool {
		o, _ := one.partitions()
		p, _ := two.partitions()
		return len(o) == 2 && len(p) == 2
	})
	_, err = a.meta.refresh(ctx, "test", a.name("t"))
	must(t, err)
	publish(t, ctx, a, "t", 4, 1, 1)
	seen := map[int32]bool{}
	for len(seen) < 4 {
		ds := <-held
		for _, d := range ds {
			if string(d.Payload) != "1" || seen[d.From.Partition] {
				t.Fatalf("%s came at %v", d.Payload, d.From)
			}
			seen[d.From.Partition] = true
		}
		acceptAll(t, ctx, ds)
	}
	acceptAll(t, ctx, first)
	stop()
	wg.Wait()
}

// TestGroupTopicMadeAgain: a topic that is deleted and made again is read from its beginning by those who were on it.
func TestGroupTopicMadeAgain(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	c := dialConfig(t, shared(t))
	must(t, c.EnsureTopic(ctx, "t", 2))
	publish(t, ctx, c, "t", 2, 0, 5)
	src := subscribe(t, ctx, c, "t")
	ds := receive(t, ctx, src, 10)
	acceptAll(t, ctx, ds[:8])
	must(t, c.DeleteTopic(ctx, "t"))
	must(t, c.EnsureTopic(ctx, "t", 2))
	publish(t, ctx, c, "t", 2, 100, 2)
	for _, d := range receive(t, ctx, src, 4) {
		if n, _ := strconv.Atoi(string(d.Payload)); n < 100 {
			t.Fatalf("%v is %s", d.From, d.Payload)
		}
		acceptAll(t, ctx, []*connectors.Delivery{d})
	}
	acceptAll(t, ctx, ds[8:]) // of a topic that is no more
	var got []int64
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("committed: %v", got)
		}
	})
	eventually(t, ctx, "the commits", func() bool { got = committed(t, ctx, c, "t", 2); return slices.Equal(got, []int64{2, 2}) })
}

// TestGroupCoordinatorRestarts: records in work stay in work through a restart of the coordinator.
func TestGroupCoordinatorRestarts(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	b := broker.Start(t, 1)
	cfg := testConfig(b)
	c := dialConfig(t, cfg)
	must(t, c.EnsureTopic(ctx, "t", 2))
	publish(t, ctx, c, "t", 2, 0, 5)
	src := subscribe(t, ctx, c, "t")
	ds := receive(t, ctx, src, 10)
	acceptAll(t, ctx, ds[:1])
	b.Kill(t, 1)
	acceptAll(t, ctx, ds[1:2])
	b.Up(t, 1)
	start := time.Now()
	publish(t, ctx, c, "t", 2, 5, 1)
	more := receive(t, ctx, src, 2)
	t.Logf("goes on after %v", time.Since(start))
	for _, d := range more {
		if string(d.Payload) != "5" || d.Attempt != 1 || d.Term != ds[0].Term && d.Term != ds[9].Term {
			t.Fatalf("%v (%s), attempt %d, term %d, came after the restart", d.From, d.Payload, d.Attempt, d.Term)
		}
	}
	acceptAll(t, ctx, ds[2:])
	acceptAll(t, ctx, more)
	eventually(t, ctx, "the commits", func() bool { return slices.Equal(committed(t, ctx, c, "t", 2), []int64{6, 6}) })
	t.Logf("commits after %v", time.Since(start))
}
