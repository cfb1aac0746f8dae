package lookup

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

// many is a source of so many customers.
type many int

func (n many) Follow(ctx context.Context, _ Source, each func(*schemas.Change), all func(uint64)) error {
	for i := range int(n) {
		each(&schemas.Change{Key: fmt.Sprint("customer-", i), Value: fmt.Appendf(nil, `{"tier":"gold","limit":%d.5}`, i), Version: uint64(i + 1), Time: time.Unix(1, 0)})
	}
	all(0)
	<-ctx.Done()
	return ctx.Err()
}

// BenchmarkHit is one key found and its columns appended, a text and a number (ns/op is a key), in batches of 64 of keys that
// are far from each other.
func BenchmarkHit(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ts := newTables(b, many(n), 1<<30, nil)
			table, err := ts.Open(b.Context(), customers, plain)
			if err != nil {
				b.Fatal(err)
			}
			defer table.Close()
			const batch = 64
			keys := make([][]byte, 4096)
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "customer-%d", i*7919%n)
			}
			out := schemas.NewBatch(table.layout.schema)
			rows := make([]*Row, 0, batch)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				rows = append(rows, table.Find(keys[i%len(keys)]))
				if len(rows) == batch {
					table.Append(out, rows)
					out.Advance(batch)
					out.Reset()
					rows = rows[:0]
				}
			}
			b.ReportMetric(float64(table.bytes.Load())/float64(n), "bytes/key")
		})
	}
}

// BenchmarkLoad is one value read into the table (ns/op).
func BenchmarkLoad(b *testing.B) {
	ts := newTables(b, many(b.N), 8<<30, nil)
	b.ReportAllocs()
	table, err := ts.Open(b.Context(), customers, plain)
	if err != nil {
		b.Fatal(err)
	}
	table.Close()
}
