package learn

import (
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// FeedbackSchema is what a reward's expression sees of one feedback, as feedback.<field>. All may be null.
var FeedbackSchema = schemas.MustSchema(
	schemas.Field{Name: "reward", Type: schemas.Float64, Nullable: true},
	schemas.Field{Name: "label", Type: schemas.Float64, Nullable: true}, // a number; of a bool 1 or 0
	schemas.Field{Name: "label_text", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "label_bool", Type: schemas.Bool, Nullable: true},
	schemas.Field{Name: "comment", Type: schemas.String, Nullable: true},
)

// CompileReward compiles what a decision was worth: a number, or a bool as 1 and 0. Errors are Invalid.
func CompileReward(src string) (*expr.Program, error) {
	p, err := expr.Compile(src, expr.Env{Input: FeedbackSchema, Name: "feedback"})
	if err != nil {
		return nil, err
	}
	if f := p.Field(); !Numeric(&f) {
		f.Nullable = false
		return nil, schemas.Errorf(schemas.Invalid, "learn.CompileReward", "the expression is%s; a reward is a number or a bool", f.String())
	}
	return p, nil
}

// worth evaluates a reward's expression over single feedbacks.
type worth struct {
	program *expr.Program
	in, out *schemas.Batch
}

func newWorth(p *expr.Program) worth {
	f := p.Field()
	f.Name, f.Nullable = "reward", true
	return worth{program: p, in: schemas.NewBatch(FeedbackSchema), out: schemas.NewBatch(schemas.MustSchema(f))}
}

// of returns what a feedback says that the decision was worth; false: nothing, or the expression failed.
func (w *worth) of(f *lineage.Feedback) (float64, bool) {
	w.in.Reset()
	w.out.Reset()
	number := func(c int, v float64, ok bool) {
		if !ok {
			w.in.Column(c).AppendNull()
			return
		}
		schemas.Append(w.in.Column(c), v)
		w.in.Column(c).EndRow()
	}
	text := func(c int, s string, ok bool) {
		if !ok {
			w.in.Column(c).AppendNull()
			return
		}
		w.in.Column(c).AppendString(s)
		w.in.Column(c).EndRow()
	}
	if f.Reward != nil {
		number(0, *f.Reward, true)
	} else {
		number(0, 0, false)
	}
	label, isNumber := f.Label.(float64)
	truth, isBool := f.Label.(bool)
	if isBool && truth {
		label = 1
	}
	number(1, label, isNumber || isBool)
	s, isText := f.Label.(string)
	text(2, s, isText)
	if isBool {
		w.in.Column(3).AppendBool(truth)
		w.in.Column(3).EndRow()
	} else {
		w.in.Column(3).AppendNull()
	}
	text(4, f.Comment, f.Comment != "")
	w.in.Advance(1)
	bad := w.program.Append(w.in, nil, 0, 1, w.out.Column(0), nil)
	w.out.Advance(1)
	if len(bad) > 0 {
		return 0, false
	}
	return Number(w.out.Column(0), 0)
}

// Numeric reports whether Number reads columns of the field.
func Numeric(f *schemas.Field) bool {
	return !f.Tensor() && (f.Type.Integer() || f.Type.Float() || f.Type == schemas.Bool)
}

// Number returns a value of a numeric column as a float, of a bool 1 or 0; false for a null. Integers beyond 2^53 are rounded;
// a bandit takes none beyond route.MaxValue.
func Number(c *schemas.Column, i int) (float64, bool) {
	if c.IsNull(i) {
		return 0, false
	}
	switch c.Field().Type {
	case schemas.Float64:
		return schemas.Values[float64](c)[i], true
	case schemas.Float32:
		return float64(schemas.Values[float32](c)[i]), true
	case schemas.Float16:
		return float64(schemas.Float16Value(schemas.Values[uint16](c)[i])), true
	case schemas.Int64:
		return float64(schemas.Values[int64](c)[i]), true
	case schemas.Int32:
		return float64(schemas.Values[int32](c)[i]), true
	case schemas.Int16:
		return float64(schemas.Values[int16](c)[i]), true
	case schemas.Int8:
		return float64(schemas.Values[int8](c)[i]), true
	case schemas.Uint64:
		return float64(schemas.Values[uint64](c)[i]), true
	case schemas.Uint32:
		return float64(schemas.Values[uint32](c)[i]), true
	case schemas.Uint16:
		return float64(schemas.Values[uint16](c)[i]), true
	case schemas.Uint8:
		return float64(c.Data()[i]), true
	case schemas.Bool:
		return float64(c.Data()[i]), true
	}
	return 0, false
}

// AppendContext appends a row's values of the columns cols, for route.Decide. Invalid, naming the column: a null.
func AppendContext(dst []float64, b *schemas.Batch, row int, cols []int) ([]float64, error) {
	for _, c := range cols {
		col := b.Column(c)
		v, ok := Number(col, row)
		if !ok {
			return dst, schemas.FieldErrorf(schemas.Invalid, "learn.AppendContext", col.Field().Name, "null, and the bandit chooses by it: give a default in a transform before")
		}
		dst = append(dst, v)
	}
	return dst, nil
}
