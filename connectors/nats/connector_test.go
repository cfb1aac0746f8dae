package nats

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/connectortest"
	"github.com/leatstream/leat/schemas"
)

func TestMain(m *testing.M) {
	// nats.go's object store leaves one goroutine a Put behind (its publisher of acknowledgements).
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// Claims of this transport.
var claims = connectortest.Claims{
	Name: "nats", Request: true, Topics: true, Order: true, Retry: true, Dedup: true, Replay: true, Queues: true, Restarts: true,
}

func transport(c *Client) connectortest.Transport {
	return connectortest.Transport{
		Requester: c, Responder: c, Serve: c.Serve, Publisher: c, Topics: c, Replayer: c, Queues: c,
		Dead: func(ctx context.Context, topic string) ([]connectors.Delivery, error) {
			l, err := c.OpenLog(ctx, schemas.LogConfig{Name: streamDead, Prefix: "leat.dead", MaxBytes: c.bounded(c.cfg.DeadBytes)})
			if err != nil {
				return nil, err
			}
			var out []connectors.Delivery
			err = l.Read(ctx, 0, []string{topic}, false, func(e *schemas.Entry) bool {
				out = append(out, connectors.Delivery{Message: schemas.Message{Topic: topic, Header: e.Header, Payload: e.Payload}})
				return true
			})
			return out, err
		},
	}
}

func testConfig() Config {
	c := Default()
	c.Queue, c.LeaseTTL = 100, 600*time.Millisecond
	return c
}

// testLog shows what the client has to say when a test fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func dialConfig(t testing.TB, c Config) *Client {
	t.Helper()
	cl, err := Dial(t.Context(), c, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestConnectorInProcess(t *testing.T) {
	cl := claims
	cl.Name, cl.Restarts = "nats embedded", false // it lives and dies with its process
	connectortest.Run(t, connectortest.Subject{
		Claims: cl, Queue: 100, Max: 2 << 20,
		Open: func(t testing.TB) (connectortest.Transport, func() connectortest.Transport, func()) {
			s := startServer(t, t.TempDir(), 0)
			c := testConfig()
			c.Server = s
			open := func() connectortest.Transport { return transport(dialConfig(t, c)) }
			return open(), open, nil
		},
	})
}

// TestConnectorNetwork joins over TCP with the server's own credentials, as another process of the same owner does.
func TestConnectorNetwork(t *testing.T) {
	connectortest.Run(t, connectortest.Subject{
		Claims: claims, Queue: 100, Max: 2 << 20,
		Open: func(t testing.TB) (connectortest.Transport, func() connectortest.Transport, func()) {
			dir := t.TempDir()
			s := startServer(t, dir, 0)
			port := s.Port()
			c := testConfig()
			c.URL, c.FrontURL = s.URL(), s.URL()
			var err error
			if c.Credentials, c.Front, err = ReadCredentials(dir); err != nil {
				t.Fatal(err)
			}
			open := func() connectortest.Transport { return transport(dialConfig(t, c)) }
			var mu sync.Mutex
			restart := func() {
				mu.Lock()
				defer mu.Unlock()
				s.Close()
				s = startServer(t, dir, port)
			}
			return open(), open, restart
		},
	})
}
