package faults

import (
	"testing"
	"time"

	"github.com/leatstream/leat/integration/child"
	"github.com/leatstream/leat/integration/kafka/broker"
)

// both are a pipeline of each guarantee.
func both() []*pipe { return []*pipe{{name: "once", once: true}, {name: "least"}} }

// TestOneBroker is the quick subset.
func TestOneBroker(t *testing.T) {
	c := broker.Start(t, 1)
	t.Run("kills", func(t *testing.T) { testKills(t, c) })
	t.Run("planted fault", func(t *testing.T) { testFault(t, c) })
}

// testKills kills the server at random moments, and then its only broker under it.
func testKills(t *testing.T, c *broker.Cluster) {
	tr := newTrial(t, c, "one.", 1, child.Options{Binary: *binary}, *seed, both()...)
	s := tr.seats[0]
	for range 8 {
		tr.live(100*time.Millisecond, 2*time.Second)
		tr.kill(s)
		tr.begin(s)
	}
	tr.recovers("8 times kill -9 of leat serve")
	c.Kill(t, 1)
	tr.live(100*time.Millisecond, 2*time.Second)
	c.Up(t, 1)
	tr.recovers("kill -9 and restart of the broker")
	tr.settle()
	tr.check()
}
