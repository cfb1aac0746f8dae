package lineagetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// Stores is what a transport gives the lineage: empty, and the test's own until it ends.
type Stores struct {
	Logs schemas.Logs
	KV   schemas.KV // holds schemas here, and checkpoints and receipts: their keys do not meet
}

// Run runs every case, each with stores of its own.
func Run(t *testing.T, open func(t *testing.T) Stores) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, b *bench)
	}{
		{"RoundTrip", roundTrip}, {"Cut", cut}, {"Filters", filters}, {"Fold", fold}, {"IDReused", idReused}, {"Full", full},
		{"UnknownOutcome", unknownOutcome}, {"Withheld", withheld}, {"ConcurrentPipelines", concurrentPipelines}, {"Follow", follow},
		{"Corrupt", corrupt}, {"Recover", recoverRecords}, {"Export", export}, {"Prune", prune}, {"Refusals", refusals},
		{"Operations", operations}, {"FillWarning", fillWarning}, {"Feedback", feedback}, {"FeedbackPassedOver", feedbackPassedOver}, {"FeedbackFull", feedbackFull}, {"FeedbackJoined", feedbackJoined}, {"FeedbackExported", feedbackExported}, {"Journal", journal},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{config: lineage.Default(), stores: open(t)}
			b.config.MaxBytes, b.config.JobsMaxBytes, b.config.RejectedMaxBytes = 64<<20, 64<<20, 4<<20
			b.config.WatchEvery = 20 * time.Millisecond
			c.fn(t, b)
		})
	}
}

// bench is what a case works with.
type bench struct {
	config    lineage.Config
	stores    Stores
	logs      lineage.Logs
	catalogue *wire.Catalogue
	describe  func(schemas.SchemaID) *schemas.Schema
}

// open opens the logs and returns an appender and a reader over them.
func (b *bench) open(t testing.TB) (*lineage.Stream, *lineage.StreamReader) {
	t.Helper()
	if err := b.config.Validate(); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.logs, err = lineage.Open(t.Context(), b.stores.Logs, b.config); err != nil {
		t.Fatal(err)
	}
	b.catalogue = wire.NewCatalogue(b.stores.KV)
	return lineage.NewStream(b.logs, b.catalogue, b.config, nil, nil), b.reader()
}

// reader returns a reader that has seen nothing yet, as another process would.
func (b *bench) reader() *lineage.StreamReader {
	return lineage.NewReader(b.logs, wire.NewCatalogue(b.stores.KV), b.config, b.describe)
}

// running runs the stream until the test ends.
func running(t testing.TB, s *lineage.Stream) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func appendAll(t testing.TB, s *lineage.Stream, recs *lineage.Records) schemas.Position {
	t.Helper()
	pos, err := s.Append(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func scan(t testing.TB, r *lineage.StreamReader, q lineage.Query) []*lineage.Record {
	t.Helper()
	var rs []*lineage.Record
	err := r.Scan(t.Context(), q, func(rec *lineage.Record) (bool, error) {
		rs = append(rs, rec.Clone())
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(20 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("never: " + what)
		}
	}
}

// Bulk appends n rows of 13 floats with 3 outputs, as a job does, and returns a reader over them: for benchmarks.
func Bulk(t testing.TB, stores Stores, n int) (r *lineage.StreamReader, rows int) {
	t.Helper()
	b := &bench{config: lineage.Default(), stores: stores}
	b.config.MaxBytes, b.config.JobsMaxBytes, b.config.RejectedMaxBytes = 64<<20, 1<<30, 4<<20
	s, r := b.open(t)
	const chunk = 4096
	in, out := random(floats("x", 13), chunk, 1), random(floats("p", 3), chunk, 2)
	c := contextOf("fraud", "job")
	var recs lineage.Records
	for ; rows < n; rows += chunk {
		recs.Reset()
		add(t, &recs, c, rowOf(fmt.Sprint("job/", rows/chunk), in, 0, chunk), in, 0, chunk, out)
		appendAll(t, s, &recs)
	}
	return r, rows
}
