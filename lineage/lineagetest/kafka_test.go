package lineagetest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/lineage/lineagetest"
)

// TestKafka runs the suite with the logs on a real broker; the control plane stays where it is.
func TestKafka(t *testing.T) {
	b := broker.Shared(t)
	n := 0
	lineagetest.Run(t, func(t *testing.T) lineagetest.Stores {
		n++
		c := kafka.Default()
		c.Bootstrap, c.Prefix = b.Addrs(), fmt.Sprintf("lineage%d-%d.", n, time.Now().UnixNano()%1e6)
		client, err := kafka.Dial(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		return lineagetest.Stores{Logs: client, KV: open(t).KV}
	})
}
