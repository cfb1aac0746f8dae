package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/child"
	"github.com/leatstream/leat/integration/kafka/broker"
)

// testFault commits offsets before the outputs are written, and requires that the loss is seen: a test that cannot fail
// proves nothing. The kills are few, so the fault has several series of them to show itself.
func testFault(t *testing.T, c *broker.Cluster) {
	faulty, err := child.Build(t.Context(), root, t.TempDir(), "leatfault")
	if err != nil {
		t.Fatal(err)
	}
	o := child.Options{Binary: faulty, Env: []string{"LEAT_FAULT=accept-first"}}
	for series := range uint64(4) {
		caught := 0
		t.Run(fmt.Sprint("series ", series), func(t *testing.T) {
			tr := newTrial(t, c, fmt.Sprintf("fault%d.", series), 1, o, *seed+series, &pipe{name: "least"})
			for range 2 {
				tr.live(2*time.Second, 4*time.Second)
				tr.kill(tr.seats[0])
				tr.begin(tr.seats[0])
			}
			tr.settle()
			caught = tr.v.counts[ruleDelivered]
			t.Logf("%s", tr.v)
		})
		if caught > 0 || t.Failed() {
			return
		}
	}
	t.Errorf("seed %d: the fault stayed unseen: %q was never broken", *seed, ruleDelivered)
}
