package pipeline

import (
	"context"
	"fmt"
	"testing"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// costless is a model that does nothing but answer.
type costless struct{ sig schemas.Signature }

func (m *costless) Signature() schemas.Signature { return m.sig }
func (m *costless) Close() error                 { return nil }

func (m *costless) Score(_ context.Context, in, out *schemas.Batch) error {
	out.Column(0).Extend(in.Rows())
	out.Advance(in.Rows())
	return nil
}

// BenchmarkSplit is what a split over two models costs beside them: 13 float columns, and a key that parts the rows half and
// half. "alone" is one model without a route.
func BenchmarkSplit(b *testing.B) {
	var in []schemas.Field
	for i := range 13 {
		in = append(in, schemas.Field{Name: fmt.Sprint("c", i), Type: schemas.Float32})
	}
	sig := schemas.Signature{Inputs: schemas.MustSchema(in...), Outputs: schemas.MustSchema(schemas.Field{Name: "score", Type: schemas.Float32})}
	m := &costless{sig}
	spec := &Spec{APIVersion: APIVersion, Kind: Kind, Name: "p", Columns: map[string]string{"k": "int64"}, Route: Node{Split: &Split{
		Key: "k", Arms: []Arm{{Name: "a", Weight: 50, Node: Node{Model: "m@1"}}, {Name: "b", Weight: 50, Node: Node{Model: "m@2"}}},
	}}}
	check := &checker{}
	g := buildGraph(check, spec, map[string]schemas.Signature{"route/a": sig, "route/b": sig})
	if g == nil {
		b.Fatal(check.faults.Err("test"))
	}
	for _, n := range g.nodes[1:] {
		n.model, n.loaded = &ResolvedModel{Name: "m", Version: 1}, &model{batcher: newBatcher(m, "d", newLanes(1), nil, nil)}
	}
	it := &item{id: "r", d: &connectors.Delivery{}}
	owner := func(int) *item { return it }
	public := func(err error) *schemas.Error { return schemas.AsError("test", err) }
	for _, rows := range []int{1, 64, 1024} {
		batch, out := schemas.NewBatch(g.in), schemas.NewBatch(g.out)
		plain := schemas.NewBatch(sig.Inputs)
		for i := range rows {
			for c, f := range g.in.Fields() {
				col := batch.Column(c)
				if f.Name == "k" {
					schemas.Append(col, int64(i))
				} else {
					schemas.Append(col, float32(i*c))
				}
				col.EndRow()
			}
			batch.Advance(1)
			for c := range sig.Inputs.Len() {
				schemas.Append(plain.Column(c), float32(i*c))
				plain.Column(c).EndRow()
			}
			plain.Advance(1)
		}
		perRow := func(b *testing.B) { b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row") }
		b.Run(fmt.Sprintf("alone/rows=%d", rows), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if err := safeScore(b.Context(), m, plain, out); err != nil {
					b.Fatal(err)
				}
			}
			perRow(b)
		})
		b.Run(fmt.Sprintf("split/rows=%d", rows), func(b *testing.B) {
			var t trace
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				t.reset()
				if err := g.safe(b.Context(), batch, out, &t, owner, public); err != nil {
					b.Fatal(err)
				}
			}
			perRow(b)
		})
	}
}
