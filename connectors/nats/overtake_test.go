package nats

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/schemas"
)

// TestNothingOvertakesWhatWasRefused: a stream that comes up while a batch is on its way refuses the first messages and
// would store the rest. The order is kept all the same.
func TestNothingOvertakesWhatWasRefused(t *testing.T) {
	c := dial(t, startServer(t, t.TempDir(), 0))
	c.topics.Store("t", 1) // nothing stands behind it but the subscription below
	var stored []string
	seen := 0
	sub, err := c.core.Subscribe(partitionSubject("t", 0), func(m *nats.Msg) {
		if seen++; seen <= 3 {
			_ = m.Respond([]byte(`{"error":{"code":503,"err_code":10008,"description":"not up yet"}}`))
			return
		}
		stored = append(stored, string(m.Data))
		ack, _ := json.Marshal(map[string]any{"stream": "LEAT_T_t", "seq": len(stored)})
		_ = m.Respond(ack)
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	var ms []schemas.Message
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		ms = append(ms, schemas.Message{Topic: "t", Key: "k", Payload: []byte(want[i])})
	}
	if _, err := c.Publish(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(stored, want) {
		t.Errorf("stored %v", stored)
	}
}
