package lineagetest_test

import (
	"testing"

	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/lineage/lineagetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }

// TestNATS runs the suite over the embedded server.
func TestNATS(t *testing.T) {
	lineagetest.Run(t, func(t *testing.T) lineagetest.Stores { return open(t) })
}

func open(t testing.TB) lineagetest.Stores {
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
}

// BenchmarkExport is an export of 200,000 rows of 13 floats and 3 outputs, after they were appended in chunks of 4096.
func BenchmarkExport(b *testing.B) {
	for _, format := range []string{lineage.FormatParquet, lineage.FormatNDJSON} {
		b.Run(format, func(b *testing.B) {
			r, rows := lineagetest.Bulk(b, open(b), 200_000)
			size := &counter{}
			for b.Loop() {
				size.n = 0
				if ex, err := r.Export(b.Context(), lineage.Query{}, format, size); err != nil || ex.Records != int64(rows) {
					b.Fatal(ex, err)
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(size.n)/float64(rows), "bytes/row")
		})
	}
	b.Run("count", func(b *testing.B) {
		r, rows := lineagetest.Bulk(b, open(b), 200_000)
		for b.Loop() {
			if n, err := r.Count(b.Context(), lineage.Query{}); err != nil || n.Records != int64(rows) {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
