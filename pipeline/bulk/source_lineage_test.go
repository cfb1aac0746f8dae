package bulk

import (
	"math"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// Columns are found by name, also as elements of a packed tensor, in both directions.
func TestMatchColumns(t *testing.T) {
	named := schemas.MustSchema(
		schemas.Field{Name: "who", Type: schemas.String}, schemas.Field{Name: "b", Type: schemas.Float32, Nullable: true}, schemas.Field{Name: "a", Type: schemas.Float32})
	packed := schemas.MustSchema(
		schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Nullable: true, Features: []string{"a", "b"}}, schemas.Field{Name: "who", Type: schemas.String})
	texts := schemas.MustSchema(schemas.Field{Name: "t", Type: schemas.String, Shape: []int{1}, Features: []string{"who"}})
	wide := schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Float64})

	in := schemas.NewBatch(named)
	in.Column(0).AppendString("ann")
	in.Column(0).EndRow()
	in.Column(1).AppendNull()
	schemas.Append(in.Column(2), float32(7))
	in.Column(2).EndRow()
	in.Advance(1)

	carry := func(from *schemas.Batch, to *schemas.Schema) *schemas.Batch {
		t.Helper()
		ms := matchColumns(from.Schema(), to)
		if ms == nil {
			t.Fatalf("%s does not feed %s", from.Schema(), to)
		}
		out := schemas.NewBatch(to)
		for i, m := range ms {
			m.append(out.Column(i), from, 0)
		}
		out.Advance(1)
		return out
	}
	p := carry(in, packed)
	if v := schemas.Values[float32](p.Column(0)); v[0] != 7 || !math.IsNaN(float64(v[1])) || string(p.Column(1).Text(0)) != "ann" {
		t.Errorf("packed: %v", v)
	}
	back := carry(p, named)
	if v := schemas.Values[float32](back.Column(1)); !math.IsNaN(float64(v[0])) || schemas.Values[float32](back.Column(2))[0] != 7 {
		t.Errorf("named: %v", v)
	}
	if s := carry(in, texts); string(s.Column(0).Text(0)) != "ann" {
		t.Error("a text was not packed")
	}
	for _, to := range []*schemas.Schema{wide, schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"a", "c"}}),
		schemas.MustSchema(schemas.Field{Name: "y", Type: schemas.Float32, Shape: []int{2}})} {
		if matchColumns(named, to) != nil {
			t.Errorf("%s feeds %s", named, to)
		}
	}
}
