package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/integration/child"
	"github.com/leatstream/leat/integration/kafka/broker"
)

var full = flag.Bool("full", false, "the tests on three brokers too")

// TestThreeBrokers: three replicas of everything, of which two must be in sync. Each test has topics of its own.
func TestThreeBrokers(t *testing.T) {
	if !*full {
		t.Skip("three brokers: -full")
	}
	c := broker.Start(t, 3)
	trials(t, c, []fault{
		{"each-killed", 1, eachKilled},
		{"all-gone", 1, allGone},
		{"frozen", 1, frozen},
		{"slow", 1, slow},
		{"partitions-added", 1, partitionsAdded},
		{"topic-deleted", 1, topicDeleted},
		{"rebalances", 2, rebalances},
	})
}

// TestDiskFull has a broker with a disk of its own, so it wants root.
func TestDiskFull(t *testing.T) {
	if !*full {
		t.Skip("three brokers: -full")
	}
	trials(t, broker.Start(t, 3, broker.Disk(1, "256m")), []fault{{"disk-full", 1, diskFull}})
}

// TestClockSkew has brokers whose clocks are off, which wants faketime(1).
func TestClockSkew(t *testing.T) {
	if !*full {
		t.Skip("three brokers: -full")
	}
	trials(t, broker.Start(t, 3, broker.Clock(1, "+45m"), broker.Clock(2, "-45m")), []fault{{"clock-skew", 1, eachKilled}})
}

// fault is what is done to a cluster under load.
type fault struct {
	name    string
	servers int
	do      func(*trial)
}

func trials(t *testing.T, c *broker.Cluster, faults []fault) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			tr := newTrial(t, c, f.name+".", f.servers, child.Options{Binary: *binary}, *seed, both()...)
			tr.live(time.Second, 2*time.Second)
			f.do(tr)
			tr.live(200*time.Millisecond, time.Second)
			tr.settle()
			tr.check()
		})
	}
}

// eachKilled kills one broker after the other. Service goes on without it: nobody waits for its return.
func eachKilled(tr *trial) {
	for i := 1; i <= tr.cluster.N(); i++ {
		tr.cluster.Kill(tr.t, i)
		tr.recovers(fmt.Sprintf("kill -9 of broker %d, which stays away", i))
		tr.cluster.Up(tr.t, i)
		tr.recovers(fmt.Sprintf("return of broker %d", i))
	}
}

func allGone(tr *trial) {
	for i := 1; i <= tr.cluster.N(); i++ {
		tr.cluster.Kill(tr.t, i)
	}
	tr.live(20*time.Second, 20*time.Second)
	tr.cluster.Revive(tr.t)
	tr.recovers("all brokers gone for 20 s")
}

// frozen stops a broker; its connections stand. Everything goes on while it is frozen.
func frozen(tr *trial) {
	start := time.Now()
	tr.cluster.Stop(tr.t, 1)
	tr.t.Cleanup(func() { tr.cluster.Cont(tr.t, 1) })
	tr.recovers("freezing of broker 1, while it is frozen")
	if rest := 10*time.Second - time.Since(start); rest > 0 {
		tr.live(rest, rest)
	}
	held := time.Since(start)
	tr.cluster.Cont(tr.t, 1)
	tr.recovers(fmt.Sprintf("thawing of broker 1, frozen for %.1f s", held.Seconds()))
}

// slow lets a broker run a tenth of the time for 20 s.
func slow(tr *trial) {
	ctx, over := context.WithTimeout(tr.ctx, 20*time.Second)
	defer over()
	tr.t.Cleanup(func() { tr.cluster.Cont(tr.t, 1) })
	for ctx.Err() == nil {
		tr.cluster.Stop(tr.t, 1)
		tr.live(90*time.Millisecond, 90*time.Millisecond)
		tr.cluster.Cont(tr.t, 1)
		tr.live(10*time.Millisecond, 10*time.Millisecond)
	}
	tr.recovers("20 s of a slow broker 1")
}

// diskFull takes all room on broker 1's disk. The broker ends by itself, and comes back when there is room again.
func diskFull(tr *trial) {
	tr.cluster.Fill(tr.t, 1)
	tr.recovers("a full disk of broker 1")
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	if err := tr.cluster.Ended(ctx, 1); err != nil {
		tr.t.Fatal(err)
	}
	tr.recovers("the end of broker 1")
	tr.cluster.Free(tr.t, 1)
	tr.cluster.Up(tr.t, 1)
	tr.recovers("return of broker 1")
}

// rebalances kills one of two servers and starts it again, so soon that the kill often falls into the rebalance that the
// last start began.
func rebalances(tr *trial) {
	for range 50 {
		s := tr.seats[tr.rand.IntN(len(tr.seats))]
		tr.live(50*time.Millisecond, 1500*time.Millisecond)
		tr.kill(s)
		tr.live(0, 500*time.Millisecond)
		tr.begin(s)
	}
	tr.recovers("50 kills of one of two servers")
}

// admin makes changes to the cluster as its operator does.
func (tr *trial) admin(do func(*kadm.Client) error) {
	tr.t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(tr.cluster.Addrs()...))
	if err == nil {
		defer k.Close()
		err = do(kadm.NewClient(k))
	}
	if err != nil {
		tr.t.Fatal(err)
	}
}

func partitionsAdded(tr *trial) {
	tr.admin(func(a *kadm.Client) error {
		rs, err := a.UpdatePartitions(tr.ctx, 7, tr.prefix+"once.in", tr.prefix+"least.in")
		for _, r := range rs {
			err = errors.Join(err, r.Err)
		}
		return err
	})
	tr.recovers("from 4 to 7 partitions")
	ctx, cancel := context.WithTimeout(tr.ctx, patience)
	defer cancel()
	for _, topic := range []string{tr.prefix + "once.in", tr.prefix + "least.in"} {
		tr.admin(func(a *kadm.Client) error { return filled(ctx, a, topic, 7) })
	}
	tr.recovers("from 4 to 7 partitions, all in use")
}

// filled waits until each of n partitions of a topic has an event.
func filled(ctx context.Context, a *kadm.Client, topic string, n int) error {
	for {
		ends, err := a.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		used := 0
		for _, e := range ends.Offsets().Sorted() {
			if e.At > 0 {
				used++
			}
		}
		if used == n {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: %d partitions of %d have an event: %w", topic, used, n, ctx.Err())
		}
	}
}

// topicDeleted deletes the input of a third pipeline under it. The two others are not disturbed, and when the topic is made
// again it is scored without a restart.
func topicDeleted(tr *trial) {
	gone := &pipe{name: "gone"}
	if err := tr.seats[0].now.Apply(tr.ctx, gone.spec()); err != nil {
		tr.t.Fatal(err)
	}
	tr.admin(func(a *kadm.Client) error {
		rs, err := a.DeleteTopics(tr.ctx, tr.prefix+gone.in())
		return errors.Join(err, rs.Error())
	})
	tr.recovers("deletion of another pipeline's topic")
	tr.live(3*time.Second, 5*time.Second)
	tr.recovers("deletion of another pipeline's topic, a little later")
	tr.admin(func(a *kadm.Client) error {
		rs, err := a.CreateTopics(tr.ctx, 4, 3, nil, tr.prefix+gone.in())
		return errors.Join(err, rs.Error())
	})
	tr.feed(gone, 2*time.Second)
}

// feed lets a further pipeline have a load of its own for a while, and waits until it is scored. It is judged with the
// others.
func (tr *trial) feed(p *pipe, d time.Duration) {
	tr.t.Helper()
	start := time.Now()
	tr.pipes = append(tr.pipes, p)
	tr.watch.client.AddConsumeTopics(tr.prefix + p.out())
	p.producer.acked = map[string]bool{}
	over, cut := context.WithTimeout(tr.ctx, patience)
	defer cut()
	until, unload := context.WithTimeout(tr.ctx, d)
	defer unload()
	p.producer.run(over, until, tr.cluster.Addrs(), tr.prefix+p.in(), tr.samples, tr.seed+1000)
	if err := errors.Join(p.producer.err, tr.watch.all(over, p.producer.stored())); err != nil {
		tr.t.Fatalf("%s: %v\n%s", p.name, err, tr.logs())
	}
	tr.t.Logf("%s: a topic that was made again, and %.1f s of events, was scored after %.2f s", p.name, d.Seconds(), time.Since(start).Seconds())
}
