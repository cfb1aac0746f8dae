package csvrow

import (
	"strconv"
	"sync"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/cells"
)

// ContentType is what messages carry that say so.
const ContentType = "text/csv"

const op = "schemas.CSV"

// maxCells bounds the cells of a line: a layout of more is refused.
const maxCells = 1 << 20

// Codec reads CSV. It is immutable and safe for concurrent use.
type Codec struct {
	columns []string
	answers schemas.Encoder
	layouts cells.PerSchema[*layout]
}

var _ schemas.RowCodec = (*Codec)(nil)

// New returns a codec for lines whose cells have these names, in order; none means the columns of the schema. An empty
// name passes over its cell. answers writes what is answered: a line has no form for names and errors.
func New(columns []string, answers schemas.Encoder) (*Codec, error) {
	if len(columns) > schemas.MaxColumns {
		return nil, schemas.Errorf(schemas.Invalid, op, "%d columns: at most %d", len(columns), schemas.MaxColumns)
	}
	seen := make(map[string]bool, len(columns))
	for _, n := range columns {
		if len(n) > schemas.MaxColumnName {
			return nil, schemas.Errorf(schemas.Invalid, op, "column %.40q...: a name has at most %d bytes", n, schemas.MaxColumnName)
		}
		if n != "" && seen[n] {
			return nil, schemas.Errorf(schemas.Invalid, op, "column %q is there twice", n)
		}
		seen[n] = true
	}
	return &Codec{columns: append([]string(nil), columns...), answers: answers}, nil
}

// Check is Invalid if lines of these columns can never be rows of the schema: what is not nullable must be among them.
func (c *Codec) Check(s *schemas.Schema) error {
	if e := c.layout(s).err; e != nil {
		return e
	}
	return nil
}

// layout says where the cells of a line go.
type layout struct {
	plan  *cells.Plan
	slots []slot
	cells int
	err   *schemas.Error // lines cannot be rows at all
	pool  sync.Pool      // *decoder
}

// slot is one target, or cells that are passed over.
type slot struct {
	target int // -1: none
	typ    schemas.DType
	null   bool // the column is nullable
	list   bool // an element a cell
	cells  int
}

func (c *Codec) layout(s *schemas.Schema) *layout {
	return c.layouts.For(s, func(s *schemas.Schema) *layout { return newLayout(s, c.columns) })
}

func newLayout(s *schemas.Schema, columns []string) *layout {
	l := &layout{plan: cells.PlanOf(s)}
	l.pool.New = func() any { return &decoder{layout: l} }
	if len(columns) == 0 {
		for i := range s.Len() {
			f := s.Field(i)
			if len(f.Features) > 0 {
				for _, n := range f.Features {
					l.add(n)
				}
				continue
			}
			l.add(f.Name)
		}
	}
	for _, n := range columns {
		l.add(n)
	}
	if l.cells > maxCells {
		l.err = schemas.Errorf(schemas.Invalid, op, "a line of %d cells: at most %d", l.cells, maxCells)
		return l
	}
	l.err = l.check(s)
	return l
}

func (l *layout) add(name string) {
	sl := slot{target: l.plan.Target(name), cells: 1}
	if sl.target >= 0 {
		t := &l.plan.Targets[sl.target]
		sl.typ, sl.null = t.Field.Type, t.Field.Nullable
		if t.Elem < 0 && t.Field.Tensor() {
			sl.list, sl.cells = true, t.Field.Width()
		}
	}
	l.slots = append(l.slots, sl)
	l.cells += sl.cells
}

// check tries the layout's names on a row that has all of its cells.
func (l *layout) check(s *schemas.Schema) *schemas.Error {
	has := make([]bool, len(l.plan.Targets))
	for _, sl := range l.slots {
		if sl.target >= 0 {
			has[sl.target] = true
		}
	}
	given := make([]int, s.Len())
	for i, t := range l.plan.Targets {
		if has[i] && t.Elem >= 0 {
			given[t.Col]++
		}
	}
	for i, t := range l.plan.Targets {
		packed := len(t.Field.Features) > 0
		switch {
		case t.Elem < 0 && has[i] && given[t.Col] > 0:
			return schemas.FieldErrorf(schemas.Invalid, op, t.Name, "tensor %s is given both as a whole and by its features", t.Name)
		case has[i] || t.Field.Nullable:
		case t.Elem < 0 && packed && given[t.Col] == 0:
			return schemas.FieldErrorf(schemas.Invalid, op, t.Field.Features[0], "not among the columns, and not nullable")
		case t.Elem < 0 && !packed, t.Elem >= 0 && given[t.Col] > 0:
			return schemas.FieldErrorf(schemas.Invalid, op, t.Name, "not among the columns, and not nullable")
		}
	}
	return nil
}

// AppendRows implements schemas.Codec.
func (c *Codec) AppendRows(dst *schemas.Batch, m *schemas.Message) (int, schemas.Encoder, error) {
	n, _, err := c.decode(dst, m.Payload, false, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, c.answers, nil
}

// AppendGood implements schemas.RowCodec.
func (c *Codec) AppendGood(dst *schemas.Batch, m *schemas.Message, bad []schemas.RowError) (int, []schemas.RowError, schemas.Encoder, error) {
	n, all, err := c.decode(dst, m.Payload, true, bad)
	if err != nil {
		return 0, all[:len(bad)], nil, err
	}
	return n, all, c.answers, nil
}

func (c *Codec) decode(dst *schemas.Batch, payload []byte, event bool, bad []schemas.RowError) (int, []schemas.RowError, *schemas.Error) {
	l := c.layout(dst.Schema())
	if l.err != nil {
		return 0, bad, l.err
	}
	if !dst.Room(len(payload)) {
		return 0, bad, schemas.Errorf(schemas.Overloaded, op, "the batch holds too much text to take %d bytes more", len(payload))
	}
	d := l.pool.Get().(*decoder)
	start := dst.Rows()
	d.event, d.bad = event, bad
	err := d.decode(dst, payload)
	bad = d.bad
	d.release()
	l.pool.Put(d)
	if err != nil {
		dst.Rollback()
		dst.Truncate(start)
		return 0, bad, err
	}
	return dst.Rows() - start, bad, nil
}

// in says which row, counted from 0, and which field of it a failure belongs to.
func in(row int, e *schemas.Error) *schemas.Error {
	at := "rows[" + strconv.Itoa(row) + "]"
	if e.Field != "" {
		at += "." + e.Field
	}
	e.Field = at
	return e
}
