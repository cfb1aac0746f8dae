package expr_test

import (
	"fmt"

	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// A stage of a cascade accepts the rows that it is sure of; a row whose column is null is not accepted.
func ExampleProgram_Bools() {
	in := schemas.MustSchema(schemas.Field{Name: "dep_delay", Type: schemas.Float32, Nullable: true})
	out := schemas.MustSchema(schemas.Field{Name: "probability", Type: schemas.Float32, Shape: []int{2}})
	p, err := expr.Compile("max(output.probability) >= 0.9 && input.dep_delay < 60", expr.Env{Input: in, Output: out})
	if err != nil {
		fmt.Println(err)
		return
	}
	inputs, outputs := schemas.NewBatch(in), schemas.NewBatch(out)
	for i, probability := range []float32{0.95, 0.5, 0.99} {
		if i == 2 {
			inputs.Column(0).AppendNull()
		} else {
			schemas.Append(inputs.Column(0), float32(10))
			inputs.Column(0).EndRow()
		}
		schemas.Append(outputs.Column(0), 1-probability)
		schemas.Append(outputs.Column(0), probability)
		outputs.Column(0).EndRow()
	}
	inputs.Advance(3)
	outputs.Advance(3)
	accepted := make([]bool, 3)
	p.Bools(inputs, outputs, 0, 3, accepted)
	fmt.Println(accepted)
	// Output: [true false false]
}

// A transform's column has the type that its expression has.
func ExampleProgram_Append() {
	in := schemas.MustSchema(schemas.Field{Name: "dep_delay", Type: schemas.Float32, Nullable: true})
	p, err := expr.Compile("1000 / int(coalesce(input.dep_delay, 3.0))", expr.Env{Input: in})
	if err != nil {
		fmt.Println(err)
		return
	}
	b := schemas.NewBatch(in)
	schemas.Append(b.Column(0), float32(0))
	b.Column(0).EndRow()
	b.Column(0).AppendNull()
	b.Advance(2)
	f := p.Field()
	f.Name = "rate"
	dst := schemas.NewBatch(schemas.MustSchema(f)).Column(0)
	for _, bad := range p.Append(b, nil, 0, 2, dst, nil) {
		fmt.Println("row", bad.Row, "failed at", bad.Err)
	}
	fmt.Println(dst.Field(), schemas.Values[int64](dst)[1])

	_, err = expr.Compile("input.depdelay > 3", expr.Env{Input: in})
	fmt.Println(err)
	// Output:
	// row 0 failed at 1:6: division by zero
	// rate int64 333
	// 1:6: no column "depdelay" in input; did you mean "dep_delay"?
}
