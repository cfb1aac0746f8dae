package onnx

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// scorer is a loaded model. It implements scorers.Scorer and scorers.RowChecker.
type scorer struct {
	sig     schemas.Signature
	in, out []port
	session *ort.DynamicAdvancedSession
	piece   int // rows of a run at most
	fixed   int // rows of every run, 0 if the model takes any number
	least   int // rows of a run at least: 2 where a lone row would get other bits
	slots   *scorers.Slots
	metrics *Metrics
	pool    pool

	mu     sync.RWMutex // held for reading by Score, for writing by Close
	closed bool
}

var (
	_ scorers.Scorer     = (*scorer)(nil)
	_ scorers.RowChecker = (*scorer)(nil)
)

// Signature returns the rows it takes and gives.
func (s *scorer) Signature() schemas.Signature { return s.sig }

// Score appends a row to out for each row of in. Pieces are of one constant size from the first row, so that the same
// batch is cut in the same way every time.
func (s *scorer) Score(ctx context.Context, in, out *schemas.Batch) error {
	const op = "onnx.Score"
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return schemas.Errorf(schemas.Unavailable, op, "the model was unloaded")
	}
	if err := s.checkSchemas(in, out); err != nil {
		return err
	}
	n := in.Rows()
	if err := s.CheckRows(in, 0, n); err != nil {
		return err
	}
	for from := 0; from < n; from += s.piece {
		if err := s.scorePiece(ctx, in, out, from, min(from+s.piece, n)); err != nil {
			out.Rollback()
			return err
		}
	}
	out.Advance(n)
	return nil
}

func (s *scorer) scorePiece(ctx context.Context, in, out *schemas.Batch, from, to int) error {
	if err := s.slots.Acquire(ctx); err != nil {
		return err
	}
	defer s.slots.Release()
	rows := max(to-from, s.least)
	if s.fixed > 0 {
		rows = s.fixed
	}
	return s.run(in, out, from, to, rows)
}

// run scores rows [from, to) in one run of so many rows, padded, and appends the answers without counting them.
func (s *scorer) run(in, out *schemas.Batch, from, to, rows int) error {
	b := s.pool.take(rows)
	if b == nil {
		var err error
		if b, err = newBound(s.session, s.in, s.out, rows); err != nil {
			return err
		}
	}
	err := s.runBound(b, in, out, from, to)
	if err != nil {
		b.destroy() // whatever state it is in
		return err
	}
	s.pool.put(b)
	return nil
}

func (s *scorer) runBound(b *bound, in, out *schemas.Batch, from, to int) error {
	if err := b.fill(in, from, to); err != nil {
		return err
	}
	m := s.metrics
	var start time.Time
	if m != nil {
		m.inFlight.Inc()
		start = time.Now()
	}
	err := s.session.RunWithBinding(b.io)
	if m != nil {
		m.inFlight.Dec()
		m.seconds.Observe(time.Since(start).Seconds())
		m.rows.Observe(float64(to - from))
	}
	if err != nil {
		return runError("onnx.Score", err)
	}
	return b.take(out, to-from)
}

func (s *scorer) checkSchemas(in, out *schemas.Batch) error {
	const op = "onnx.Score"
	if i := in.Schema(); i != s.sig.Inputs && i.ID() != s.sig.Inputs.ID() {
		return schemas.Errorf(schemas.Invalid, op, "rows of (%s) given to a model that takes (%s)", i, s.sig.Inputs)
	}
	if o := out.Schema(); o != s.sig.Outputs && o.ID() != s.sig.Outputs.ID() {
		return schemas.Errorf(schemas.Invalid, op, "answers of (%s) asked of a model that gives (%s)", o, s.sig.Outputs)
	}
	return nil
}

// CheckRows refuses nulls where the model has no value for them, and strings with a NUL byte.
func (s *scorer) CheckRows(in *schemas.Batch, from, to int) error {
	const op = "onnx.CheckRows"
	if from == to {
		return nil
	}
	for i := range s.in {
		c := in.Column(i)
		if f := &s.in[i].field; c.Nulls() > 0 && !f.Nullable {
			for r := from; r < to; r++ {
				if c.IsNull(r) {
					return schemas.FieldErrorf(schemas.Invalid, op, rowField(r, f.Name), "null, and the column is not nullable")
				}
			}
		}
		if s.in[i].size > 0 {
			continue
		}
		if r, bad := checkText(c, from, to); bad {
			return schemas.FieldErrorf(schemas.Invalid, op, rowField(r, s.in[i].field.Name), "a string with a NUL byte, which ONNX Runtime would cut there: remove it")
		}
	}
	return nil
}

func rowField(row int, column string) string { return fmt.Sprintf("rows[%d].%s", row, column) }

// Close waits for runs in flight and frees the model.
func (s *scorer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	runtime.SetFinalizer(s, nil)
	s.pool.drain()
	if err := s.session.Destroy(); err != nil {
		return schemas.Errorf(schemas.Internal, "onnx.Close", "%w", err)
	}
	return nil
}
