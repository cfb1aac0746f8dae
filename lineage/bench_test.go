package lineage

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// benchRows are 4096 rows of 13 floats with 3 outputs.
func benchRows() (in, out *schemas.Batch) {
	rnd := rand.New(rand.NewPCG(1, 2))
	in, out = schemas.NewBatch(floats("x", 13)), schemas.NewBatch(floats("p", 3))
	fillRandom(in, 4096, rnd)
	fillRandom(out, 4096, rnd)
	return in, out
}

func BenchmarkAdd(b *testing.B) {
	in, out := benchRows()
	ctx := testContext()
	var rows [64]*Row
	for i := range rows {
		rows[i] = testRow(fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5F%02d", i), 0)
	}
	var recs Records
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%64 == 0 {
			recs.Reset()
		}
		if err := recs.Add(ctx, rows[i%64], in, i%4096, out, i%4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAddRange4096(b *testing.B) {
	in, out := benchRows()
	ctx, row := testContext(), testRow("job/17", 0)
	var recs Records
	b.ReportAllocs()
	for b.Loop() {
		recs.Reset()
		if err := recs.AddRange(ctx, row, in, 0, 4096, out, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4096, "ns/row")
}

// BenchmarkCommit is adding and encoding: rows of a request each, as online, or of one request, as in bulk, then with
// the input's digest.
func BenchmarkCommit(b *testing.B) {
	in, out := benchRows()
	ctx := testContext()
	for _, n := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("online-%d", n), func(b *testing.B) {
			rows := make([]*Row, n)
			for i := range rows {
				rows[i] = testRow(fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69%05d", i), 0)
			}
			var recs Records
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				recs.Reset()
				for i := range n {
					if err := recs.Add(ctx, rows[i], in, i, out, i); err != nil {
						b.Fatal(err)
					}
				}
				size = encodeBench(b, &recs)
			}
			report(b, n, size)
		})
	}
	for _, digest := range []bool{false, true} {
		b.Run(fmt.Sprintf("bulk-4096-digest=%v", digest), func(b *testing.B) {
			row := testRow("01ARZ3NDEKTSV4RRFFQ69G5FAV/17", 0)
			var recs Records
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				recs.Reset()
				if digest {
					row.InputDigest = InputDigest(in, 0, 4096)
				}
				if err := recs.AddRange(ctx, row, in, 0, 4096, out, 0); err != nil {
					b.Fatal(err)
				}
				size = encodeBench(b, &recs)
			}
			report(b, 4096, size)
		})
	}
}

func encodeBench(b testing.TB, recs *Records) int {
	size := 0
	for from := 0; from < recs.Len(); {
		msg, next, err := recs.encode(from)
		if err != nil {
			b.Fatal(err)
		}
		size += len(msg)
		from = next
	}
	return size
}

func report(b *testing.B, rows, size int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
	b.ReportMetric(float64(size)/float64(rows), "bytes/row")
}

func BenchmarkInputDigest1(b *testing.B) {
	in, _ := benchRows()
	b.ReportAllocs()
	for b.Loop() {
		InputDigest(in, 7, 8)
	}
}

func BenchmarkDecode4096(b *testing.B) {
	in, out := benchRows()
	var recs Records
	if err := recs.AddRange(testContext(), testRow("job/17", 0), in, 0, 4096, out, 0); err != nil {
		b.Fatal(err)
	}
	msg := encodeAll(b, &recs)[0]
	d, f := newDecoder(lookupIn(&recs)), newFolder(1<<20)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.open(msg); err != nil {
			b.Fatal(err)
		}
		var r Record
		for i := range d.rows() {
			_, id := d.ids(i)
			f.seen(id)
			d.record(i, &r)
			if err := d.data(b.Context(), i, &r); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4096, "ns/row")
}
