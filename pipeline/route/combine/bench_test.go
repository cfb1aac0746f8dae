package combine_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

const benchRows = 256

// ensemble returns a plan over members with one column each, random answers, and a batch to append to.
func ensemble(tb testing.TB, kind string, members int, f schemas.Field, element func(*schemas.Column, *rand.Rand)) (*combine.Plan, []*schemas.Batch, *schemas.Batch) {
	tb.Helper()
	s := schema(f)
	var ms []combine.Member
	var present []*schemas.Batch
	for i := range members {
		m := combine.Member{Name: fmt.Sprintf("m%d", i), Output: s}
		if strings.HasPrefix(kind, "weighted") {
			m.Weight = i + 1
		}
		b := schemas.NewBatch(s)
		fill(b, rand.New(rand.NewPCG(uint64(i), 3)), benchRows, element)
		ms, present = append(ms, m), append(present, b)
	}
	p, err := combine.New(kind, ms)
	if err != nil {
		tb.Fatal(err)
	}
	return p, present, schemas.NewBatch(p.Output())
}

// plain appends a probability or one of three labels.
func plain(c *schemas.Column, r *rand.Rand) {
	if c.Field().Type == schemas.Float32 {
		schemas.Append(c, r.Float32())
		return
	}
	few(c, r)
}

// Nothing is allocated once the answer's batch has its memory, with and without nulls and missing members.
func TestAllocations(t *testing.T) {
	for _, kind := range combine.Kinds {
		for _, d := range schemastest.DTypes() {
			for _, nullable := range []bool{false, true} {
				if !fits(kind, d) {
					continue
				}
				p, present, dst := ensemble(t, kind, 5, schemas.Field{Name: "x", Type: d, Shape: []int{2}, Nullable: nullable}, few)
				present[3] = nil
				n := testing.AllocsPerRun(5, func() {
					dst.Reset()
					if err := p.Combine(present, dst, 0, benchRows); err != nil {
						t.Fatal(err)
					}
				})
				if n != 0 {
					t.Errorf("%s of %s, nullable %v: %v allocations", kind, d, nullable, n)
				}
			}
		}
	}
}

func BenchmarkCombine(b *testing.B) {
	for _, c := range []struct {
		kind  string
		field schemas.Field
	}{
		{combine.Mean, field("p", schemas.Float32, 2)},
		{combine.WeightedMean, field("p", schemas.Float32, 2)},
		{combine.Median, field("p", schemas.Float32, 2)},
		{combine.Max, field("p", schemas.Float32, 2)},
		{combine.MajorityVote, field("label", schemas.Int64)},
		{combine.WeightedVote, field("label", schemas.Int64)},
		{combine.MajorityVote, field("label", schemas.String)},
		{combine.Concat, field("p", schemas.Float32, 2)},
		{combine.Mean, schemas.Field{Name: "p", Type: schemas.Float32, Shape: []int{2}, Nullable: true}},
	} {
		for _, members := range []int{3, 10} {
			for _, rows := range []int{1, benchRows} {
				b.Run(fmt.Sprintf("%s/%s/members=%d/rows=%d", c.kind, strings.ReplaceAll(c.field.String(), " ", "-"), members, rows), func(b *testing.B) {
					p, present, dst := ensemble(b, c.kind, members, c.field, plain)
					for b.Loop() {
						dst.Reset()
						if err := p.Combine(present, dst, 0, rows); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
				})
			}
		}
	}
}
