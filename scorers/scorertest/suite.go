package scorertest

import (
	"context"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// MaxRows is the largest batch that the checks score.
const MaxRows = 1024

// Fixture is a scorer under test.
type Fixture struct {
	Open func(ctx context.Context) (scorers.Scorer, error) // a new scorer each time; checks close it
	// Class and Tolerance are what the scorer's probe found. With BatchVariant, answers may differ between batch sizes
	// by a relative Tolerance, else not by a bit.
	Class     scorers.Class
	Tolerance float64
	// Rows returns n valid rows, the same ones every time, of which at least two get different answers; nil means
	// Rows(signature, n).
	Rows func(n int) *schemas.Batch
}

// Check is one property.
type Check struct {
	Name string
	Run  func(ctx context.Context, f *Fixture) error
}

// Checks returns the suite.
func Checks() []Check {
	return []Check{
		{"rows out are rows in, in order", inOrder},
		{"an empty batch gives no rows", empty},
		{"every batch size gives the same answers", batchSizes},
		{"a larger batch than any piece gives the same answers", largerThanPieces},
		{"answers are appended and belong to the caller", appended},
		{"concurrent scores do not disturb each other", concurrent},
		{"a cancelled context ends a score", cancelled},
		{"a wrong schema is refused", wrongSchema},
		{"close waits, repeats and refuses", closed},
	}
}

// Run runs all checks. None is skipped.
func Run(t *testing.T, f *Fixture) {
	t.Helper()
	for _, c := range Checks() {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Run(t.Context(), f); err != nil {
				t.Error(err)
			}
		})
	}
}

// with opens a scorer, hands it to fn with n rows, and closes it.
func (f *Fixture) with(ctx context.Context, n int, fn func(s scorers.Scorer, in *schemas.Batch) error) error {
	s, err := f.Open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(s, f.rows(s, n))
}

func (f *Fixture) rows(s scorers.Scorer, n int) *schemas.Batch {
	if f.Rows != nil {
		return f.Rows(n)
	}
	return Rows(s.Signature().Inputs, n)
}

// score returns the answers for rows [from, to).
func score(ctx context.Context, s scorers.Scorer, in *schemas.Batch, from, to int) (*schemas.Batch, error) {
	part := schemas.NewBatch(s.Signature().Inputs)
	part.AppendRange(in, from, to)
	out := schemas.NewBatch(s.Signature().Outputs)
	return out, s.Score(ctx, part, out)
}
