package bulk

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// arithmetic is a model that anybody can check: score = 2*x[0] + x[1] - x[2], label = name + "!". It refuses rows whose
// name is "poison", as a runtime refuses a string that it cannot take.
type arithmetic struct {
	sig   schemas.Signature
	delay time.Duration   // of a run
	input *pipeline.Input // of its pipeline
	runs  atomic.Int64
	fault atomic.Pointer[error] // every run fails with it
}

func newArithmetic() *arithmetic {
	return &arithmetic{sig: schemas.Signature{
		Inputs: schemas.MustSchema(
			schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{3}, Features: []string{"a", "b", "c"}},
			schemas.Field{Name: "name", Type: schemas.String},
		),
		Outputs: schemas.MustSchema(
			schemas.Field{Name: "score", Type: schemas.Float64},
			schemas.Field{Name: "label", Type: schemas.String},
		),
	}}
}

func (w *world) newModel() *arithmetic {
	if w.features > 0 {
		return &arithmetic{sig: summed(w.features)}
	}
	m := newArithmetic()
	m.input = w.input
	return m
}

func (a *arithmetic) Signature() schemas.Signature { return a.sig }
func (a *arithmetic) Close() error                 { return nil }
func (a *arithmetic) Runtime() string              { return "arithmetic" }

func (a *arithmetic) Score(ctx context.Context, in, out *schemas.Batch) error {
	a.runs.Add(1)
	if f := a.fault.Load(); f != nil {
		return *f
	}
	if a.delay > 0 {
		time.Sleep(a.delay)
	}
	if in.Schema().Len() == 1 {
		sum(in, out)
		return ctx.Err()
	}
	for i := range in.Rows() {
		if string(in.Column(1).Text(i)) == "poison" {
			return schemas.FieldErrorf(schemas.Invalid, "arithmetic.Score", fmt.Sprintf("rows[%d].name", i), "poison cannot be scored")
		}
	}
	x := schemas.Values[float32](in.Column(0))
	for i := range in.Rows() {
		schemas.Append(out.Column(0), 2*float64(x[3*i])+float64(x[3*i+1])-float64(x[3*i+2]))
		out.Column(0).EndRow()
		out.Column(1).AppendString(string(in.Column(1).Text(i)) + "!")
		out.Column(1).EndRow()
	}
	out.Advance(in.Rows())
	return ctx.Err()
}

func (a *arithmetic) Prepare(_ context.Context, p scorers.Package) (scorers.Package, error) {
	return p, nil
}
func (a *arithmetic) Probe(context.Context, scorers.Package) (scorers.Probed, error) {
	return a.version().Probed, nil
}
func (a *arithmetic) Load(context.Context, scorers.Package, scorers.Probed) (scorers.Scorer, error) {
	return a, nil
}

func (a *arithmetic) version() scorers.Version {
	return scorers.Version{
		Name: "sums", Version: 1, Digest: strings.Repeat("ab", 32), Manifest: scorers.Manifest{Name: "sums", Runtime: "arithmetic"},
		Probed: scorers.Probed{Signature: a.sig, Class: scorers.BatchInvariant, Runtime: "arithmetic 1"},
	}
}

// One model, one version.
func (a *arithmetic) Version(context.Context, string, int) (scorers.Version, error) {
	return a.version(), nil
}
func (a *arithmetic) Versions(context.Context, string) ([]scorers.Version, error) {
	return []scorers.Version{a.version()}, nil
}
func (a *arithmetic) Open(context.Context, scorers.Version) (scorers.Package, error) {
	return scorers.Package{}, nil
}

func (a *arithmetic) revision() *pipeline.Revision {
	v := a.version()
	return &pipeline.Revision{
		Revision: strings.Repeat("cd", 32), Spec: pipeline.Spec{Name: "sums", Input: a.input, Route: pipeline.Node{Model: "sums@1"},
			Shadows: []pipeline.Shadow{{Name: "twin", Node: pipeline.Node{Model: "sums@1"}}}},
		Models: []pipeline.ResolvedModel{
			{Node: pipeline.RootPath, Ref: "sums@1", Name: "sums", Version: 1, Digest: v.Digest},
			{Node: "shadows/twin", Ref: "sums@1", Name: "sums", Version: 1, Digest: v.Digest},
		},
		Signature: a.sig, Created: time.Now(), Cause: "apply",
	}
}
