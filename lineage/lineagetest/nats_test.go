package lineagetest_test

import (
	"testing"

	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/lineage/lineagetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestNATS runs the suite over the embedded server.
func TestNATS(t *testing.T) {
	lineagetest.Run(t, func(t *testing.T) lineagetest.Stores {
		sc := nats.DefaultServer()
		sc.Dir, sc.Port, sc.Sync, sc.StoreLimit = t.TempDir(), 0, false, 8<<30
		server, err := nats.NewServer(sc, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		c := nats.Default()
		c.Server = server
		client, err := nats.Dial(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		kv, err := client.KV(t.Context(), "LEAT_TEST")
		if err != nil {
			t.Fatal(err)
		}
		return lineagetest.Stores{Logs: client, KV: kv}
	})
}
