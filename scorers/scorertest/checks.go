package scorertest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// inOrder scores rows, then the same rows backwards: answers must go with their rows.
func inOrder(ctx context.Context, f *Fixture) error {
	const n = 64
	return f.with(ctx, n, func(s scorers.Scorer, in *schemas.Batch) error {
		there, err := score(ctx, s, in, 0, n)
		if err != nil {
			return err
		}
		if there.Rows() != n {
			return fmt.Errorf("%d rows in, %d rows out", n, there.Rows())
		}
		back := schemas.NewBatch(in.Schema())
		for r := n - 1; r >= 0; r-- {
			back.AppendRange(in, r, r+1)
		}
		answers, err := score(ctx, s, back, 0, n)
		if err != nil {
			return err
		}
		distinct := false
		for r := range n {
			one := schemas.NewBatch(there.Schema())
			one.AppendRange(there, r, r+1)
			if err := EqualRows(one, answers, n-1-r, f.Tolerance); err != nil {
				return fmt.Errorf("row %d of a batch scored backwards: %w", r, err)
			}
			distinct = distinct || EqualRows(one, there, 0, 0) != nil
		}
		if !distinct {
			return errors.New("all rows of the fixture have the same answer: order cannot be seen")
		}
		return nil
	})
}

func empty(ctx context.Context, f *Fixture) error {
	return f.with(ctx, 0, func(s scorers.Scorer, in *schemas.Batch) error {
		out, err := score(ctx, s, in, 0, 0)
		if err == nil && out.Rows() != 0 {
			err = fmt.Errorf("%d rows out of none", out.Rows())
		}
		return err
	})
}

// batchSizes scores batches of every size from 1 to MaxRows, each at another place of the rows, and every row alone.
func batchSizes(ctx context.Context, f *Fixture) error {
	return f.with(ctx, MaxRows, func(s scorers.Scorer, in *schemas.Batch) error {
		whole, err := score(ctx, s, in, 0, MaxRows)
		if err != nil {
			return err
		}
		for n := 1; n <= MaxRows; n++ {
			from := (n * 7919) % (MaxRows - n + 1)
			part, err := score(ctx, s, in, from, from+n)
			if err != nil {
				return fmt.Errorf("batch of %d: %w", n, err)
			}
			if part.Rows() != n {
				return fmt.Errorf("batch of %d: %d rows out", n, part.Rows())
			}
			if err := EqualRows(part, whole, from, f.Tolerance); err != nil {
				return fmt.Errorf("batch of %d at row %d against one of %d (%s): %w", n, from, MaxRows, f.Class, err)
			}
		}
		for r := range MaxRows {
			part, err := score(ctx, s, in, r, r+1)
			if err == nil {
				err = EqualRows(part, whole, r, f.Tolerance)
			}
			if err != nil {
				return fmt.Errorf("row %d alone against a batch of %d (%s): %w", r, MaxRows, f.Class, err)
			}
		}
		return nil
	})
}

func largerThanPieces(ctx context.Context, f *Fixture) error {
	const n = 2*MaxRows + 1 // the last piece of many sizes is a lone row
	return f.with(ctx, n, func(s scorers.Scorer, in *schemas.Batch) error {
		whole, err := score(ctx, s, in, 0, n)
		if err != nil {
			return err
		}
		if whole.Rows() != n {
			return fmt.Errorf("%d rows in, %d rows out", n, whole.Rows())
		}
		for from := 0; from < n; from += 100 {
			to := min(from+100, n)
			part, err := score(ctx, s, in, from, to)
			if err != nil {
				return err
			}
			if err := EqualRows(part, whole, from, f.Tolerance); err != nil {
				return fmt.Errorf("rows %d to %d alone: %w", from, to, err)
			}
		}
		return nil
	})
}

// appended scores into a batch that holds answers already, and then changes what went in.
func appended(ctx context.Context, f *Fixture) error {
	return f.with(ctx, 20, func(s scorers.Scorer, in *schemas.Batch) error {
		whole, err := score(ctx, s, in, 0, 20)
		if err != nil {
			return err
		}
		part := schemas.NewBatch(in.Schema())
		out := schemas.NewBatch(s.Signature().Outputs)
		for from := 0; from < 20; from += 5 {
			part.Reset()
			part.AppendRange(in, from, from+5)
			if err := s.Score(ctx, part, out); err != nil {
				return err
			}
			if err := EqualRows(part, in, from, 0); err != nil {
				return fmt.Errorf("the input was written to: %w", err)
			}
		}
		if out.Rows() != 20 {
			return fmt.Errorf("4 batches of 5 gave %d rows", out.Rows())
		}
		return EqualRows(out, whole, 0, f.Tolerance)
	})
}

func concurrent(ctx context.Context, f *Fixture) error {
	const n, callers, rounds = 256, 8, 20
	return f.with(ctx, n, func(s scorers.Scorer, in *schemas.Batch) error {
		whole, err := score(ctx, s, in, 0, n)
		if err != nil {
			return err
		}
		errs := make([]error, callers)
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for r := range rounds {
					size := 1 + (c*31+r*17)%64
					from := (c*97 + r*13) % (n - size)
					part, err := score(ctx, s, in, from, from+size)
					if err == nil {
						err = EqualRows(part, whole, from, f.Tolerance)
					}
					if err != nil {
						errs[c] = fmt.Errorf("caller %d, batch of %d: %w", c, size, err)
						return
					}
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}

func cancelled(ctx context.Context, f *Fixture) error {
	return f.with(ctx, 3, func(s scorers.Scorer, in *schemas.Batch) error {
		stop, cancel := context.WithCancel(ctx)
		cancel()
		out, err := score(stop, s, in, 0, 3)
		if err := refused(err, schemas.Unavailable, out); err != nil {
			return fmt.Errorf("cancelled: %w", err)
		}
		late, cancel := context.WithTimeout(ctx, 0)
		defer cancel()
		out, err = score(late, s, in, 0, 3)
		if err := refused(err, schemas.Expired, out); err != nil {
			return fmt.Errorf("past its deadline: %w", err)
		}
		_, err = score(ctx, s, in, 0, 3)
		return err
	})
}

// refused returns an error unless err is of the kind and out is as it was: empty, and ready for a good score.
func refused(err error, kind schemas.Kind, out *schemas.Batch) error {
	var e *schemas.Error
	switch {
	case err == nil:
		return errors.New("it was scored")
	case !errors.As(err, &e) || e.Kind != kind:
		return fmt.Errorf("want %s, got %w", kind, err)
	case out.Rows() != 0:
		return fmt.Errorf("%d rows out of a score that failed", out.Rows())
	}
	for i := range out.Schema().Len() {
		if out.Column(i).Rows() != 0 {
			return fmt.Errorf("column %s holds rows that nobody counted", out.Schema().Field(i).Name)
		}
	}
	return nil
}

func wrongSchema(ctx context.Context, f *Fixture) error {
	return f.with(ctx, 2, func(s scorers.Scorer, in *schemas.Batch) error {
		sig := s.Signature()
		fields := append([]schemas.Field(nil), sig.Inputs.Fields()...)
		fields[0].Type = map[bool]schemas.DType{true: schemas.Int64, false: schemas.String}[fields[0].Type == schemas.String]
		fields[0].Features = nil
		other, err := schemas.NewSchema(fields)
		if err != nil {
			return err
		}
		out := schemas.NewBatch(sig.Outputs)
		if err := refused(s.Score(ctx, Rows(other, 2), out), schemas.Invalid, out); err != nil {
			return fmt.Errorf("an input of another type: %w", err)
		}
		more := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "no-such-output", Type: schemas.Int8}))
		if err := refused(s.Score(ctx, in, more), schemas.Invalid, more); err != nil {
			return fmt.Errorf("an output of another schema: %w", err)
		}
		return nil
	})
}

// closed closes a scorer under load.
func closed(ctx context.Context, f *Fixture) error {
	return f.with(ctx, 64, func(s scorers.Scorer, in *schemas.Batch) error {
		whole, err := score(ctx, s, in, 0, 64)
		if err != nil {
			return err
		}
		const callers = 4
		errs := make([]error, callers)
		started := make(chan struct{}, callers)
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for r := 0; ; r++ {
					out, err := score(ctx, s, in, 0, 64)
					if r == 0 {
						started <- struct{}{}
					}
					if err != nil {
						errs[c] = refused(err, schemas.Unavailable, out)
						return
					}
					if err := EqualRows(out, whole, 0, f.Tolerance); err != nil {
						errs[c] = err
						return
					}
				}
			})
		}
		for range callers {
			<-started
		}
		first, second := s.Close(), s.Close()
		wg.Wait()
		return errors.Join(first, second, errors.Join(errs...))
	})
}
