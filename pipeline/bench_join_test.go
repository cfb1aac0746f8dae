package pipeline

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// busy is a model that takes about a microsecond a row. It is run by one goroutine.
type busy struct {
	costless
	kept float64
}

func (m *busy) Score(_ context.Context, in, out *schemas.Batch) error {
	x := 1.0
	for range in.Rows() * 300 { // about a microsecond a row
		x = x*1.0000001 + 1e-9
	}
	m.kept += x
	to := out.Column(0).Extend(in.Rows())
	for i := range in.Rows() { // the first column, so that conditions part the rows
		copy(to[4*i:4*i+4], in.Column(0).Data()[4*i:])
	}
	out.Advance(in.Rows())
	return nil
}

// BenchmarkJoin is what an ensemble of three, and a cascade of two whose first stage answers four rows of five, cost beside
// the models that they ask: "times" is the time over that of the models alone, one after the other.
func BenchmarkJoin(b *testing.B) {
	var in []schemas.Field
	for i := range 13 {
		in = append(in, schemas.Field{Name: fmt.Sprint("c", i), Type: schemas.Float32})
	}
	sig := schemas.Signature{Inputs: schemas.MustSchema(in...), Outputs: schemas.MustSchema(schemas.Field{Name: "score", Type: schemas.Float32})}
	three := Node{Ensemble: &Ensemble{Columns: map[string]string{"score": "mean"}}}
	for i := range 3 {
		three.Ensemble.Members = append(three.Ensemble.Members, Member{Name: fmt.Sprint("m", i), Node: Node{Model: "m@1"}})
	}
	cascade := Node{Cascade: []Stage{{Name: "small", Accept: "output.score < 0.8", Node: Node{Model: "m@1"}}, {Name: "large", Node: Node{Model: "m@2"}}}}
	for _, c := range []struct {
		name   string
		node   Node
		models float64 // that a row costs
	}{{"ensemble", three, 3}, {"cascade", cascade, 1.2}} {
		sigs := map[string]schemas.Signature{}
		spec := &Spec{APIVersion: APIVersion, Kind: Kind, Name: "p", Route: c.node}
		for path := range spec.Refs() {
			sigs[path] = sig
		}
		check := &checker{}
		g := buildGraph(check, spec, sigs)
		if g == nil {
			b.Fatal(check.faults.Err("test"))
		}
		for _, n := range g.nodes[1:] {
			n.model, n.loaded = &ResolvedModel{Name: "m", Version: 1}, &model{batcher: newBatcher(&busy{costless: costless{sig}}, "d", newLanes(1), nil, nil)}
		}
		it := &item{id: "r", d: &connectors.Delivery{}}
		for _, rows := range []int{64, 1024} {
			batch, out, part := schemas.NewBatch(g.in), schemas.NewBatch(g.out), schemas.NewBatch(g.in)
			for i := range rows {
				for c := range g.in.Len() {
					schemas.Append(batch.Column(c), float32(i%5)/5)
					batch.Column(c).EndRow()
				}
				batch.Advance(1)
			}
			b.Run(fmt.Sprintf("%s/rows=%d", c.name, rows), func(b *testing.B) {
				var t trace
				var alone, route time.Duration
				m := &busy{costless: costless{sig}}
				b.ReportAllocs()
				for b.Loop() {
					start := time.Now()
					for left := c.models; left > 0.01; left-- {
						out.Reset()
						if left < 1 {
							part.Reset()
							part.AppendRange(batch, 0, int(left*float64(rows)))
							_ = m.Score(b.Context(), part, out)
						} else {
							_ = m.Score(b.Context(), batch, out)
						}
					}
					alone += time.Since(start)
					start = time.Now()
					out.Reset()
					t.reset()
					err := g.safe(b.Context(), batch, out, &t, func(int) *item { return it }, func(err error) *schemas.Error { return schemas.AsError("test", err) })
					if err != nil {
						b.Fatal(err)
					}
					route += time.Since(start)
				}
				b.ReportMetric(float64(route.Nanoseconds())/float64(b.N*rows), "ns/row")
				b.ReportMetric(float64(route)/float64(alone), "times")
			})
		}
	}
}
