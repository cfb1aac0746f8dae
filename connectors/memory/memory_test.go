package memory

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/connectortest"
	"github.com/leatstream/leat/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Claims of the in-process transport.
var claims = connectortest.Claims{
	Name: "memory", Request: true, Topics: true, Order: true, Retry: true, Dedup: true, Replay: true, Transact: true,
}

func TestConnector(t *testing.T) {
	c := Default()
	c.Queue = 100
	connectortest.Run(t, connectortest.Subject{
		Claims: claims, Queue: c.Queue, Max: 2 << 20,
		Open: func(t testing.TB) (connectortest.Transport, func() connectortest.Transport, func()) {
			b, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			tr := connectortest.Transport{
				Requester: b, Responder: b, Serve: b.Serve, Publisher: b, Topics: b, Replayer: b, Queues: b, Transactor: b, Revoke: b.Revoke,
				Dead: func(_ context.Context, topic string) ([]connectors.Delivery, error) {
					var out []connectors.Delivery
					for _, m := range b.Dead() {
						if m.Topic == topic {
							out = append(out, connectors.Delivery{Message: m})
						}
					}
					return out, nil
				},
			}
			return tr, func() connectortest.Transport { return tr }, nil
		},
	})
}

// TestNothingIsKeptOfCallersThatLeft: who gave up is forgotten, so that nothing grows with them.
func TestNothingIsKeptOfCallersThatLeft(t *testing.T) {
	b, err := New(Default())
	if err != nil {
		t.Fatal(err)
	}
	src, err := b.Serve(t.Context(), "p", "primary")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(context.WithoutCancel(t.Context()))
	gone, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	for range 3 {
		go func() {
			_, err := b.Request(gone, &schemas.Message{Topic: "p"})
			left <- err
		}()
		if _, err := src.Receive(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	for range 3 {
		if err := <-left; schemas.KindOf(err) != schemas.Expired {
			t.Errorf("a caller that left got %v", err)
		}
	}
	if n := len(b.waiting.by); n > 0 {
		t.Errorf("%d callers that left are still waited for", n)
	}
}
