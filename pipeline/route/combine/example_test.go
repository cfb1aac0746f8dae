package combine_test

import (
	"fmt"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
)

// Soft voting over three classifiers, of which one did not answer: the other two share its weight.
func ExampleNew() {
	out := schemas.MustSchema(schemas.Field{Name: "probabilities", Type: schemas.Float32, Shape: []int{2}})
	p, err := combine.New(combine.WeightedMean, []combine.Member{
		{Name: "forest", Weight: 50, Output: out},
		{Name: "boosted", Weight: 30, Output: out},
		{Name: "linear", Weight: 20, Output: out},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := func(onTime, late float32) *schemas.Batch {
		b := schemas.NewBatch(out)
		schemas.Append(b.Column(0), onTime)
		schemas.Append(b.Column(0), late)
		b.Column(0).EndRow()
		b.Advance(1)
		return b
	}
	dst := schemas.NewBatch(p.Output())
	if err := p.Combine([]*schemas.Batch{answer(0.5, 0.5), nil, answer(0.15, 0.85)}, dst, 0, 1); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(schemas.Values[float32](dst.Column(0)))
	// Output: [0.4 0.6]
}

// What does not line up is told when a pipeline is applied, all of it.
func ExampleNew_faults() {
	_, err := combine.New(combine.Mean, []combine.Member{
		{Name: "forest", Output: schemas.MustSchema(schemas.Field{Name: "probability", Type: schemas.Float32})},
		{Name: "linear", Output: schemas.MustSchema(schemas.Field{Name: "probability", Type: schemas.Float64})},
		{Name: "boosted", Weight: 2, Output: schemas.MustSchema(schemas.Field{Name: "probability", Type: schemas.Float32})},
	})
	fmt.Println(err)
	// Output:
	// members[2].weight: mean counts every member alike; write combine: weighted_mean, or take the weight away
	// members[1]: member linear: column probability is float64, but member forest answers float32; cast it in a transform of either
}
