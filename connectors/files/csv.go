package files

import (
	"encoding/csv"
	"errors"
	"io"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// csvRows reads RFC 4180 with a header line.
type csvRows struct {
	r      *csv.Reader
	in     *budget
	header []string
	nulls  []string
	bound  []bound
}

// bound is one cell's column.
type bound struct {
	cell   int
	column int
	empty  bool // an empty cell is an empty string, not a null
}

func newCSV(path string, in *budget, o *Options) (*csvRows, error) {
	const op = "files.Open"
	c := &csvRows{r: csv.NewReader(in), in: in, nulls: o.Nulls}
	if c.nulls == nil {
		c.nulls = []string{""}
	}
	h, err := c.r.Read()
	if err == io.EOF {
		return nil, schemas.Errorf(schemas.Invalid, op, "%s: empty: want a header line with the names of the columns", path)
	}
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "%s: header line: %w", path, err)
	}
	in.refill()
	h[0] = strings.TrimPrefix(h[0], "\ufeff") // as spreadsheets write it
	c.header = append(c.header, h...)
	seen := map[string]bool{}
	for _, n := range h {
		if seen[n] {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, n, "%s has two columns of this name", path)
		}
		seen[n] = true
	}
	c.r.FieldsPerRecord, c.r.ReuseRecord = len(h), true
	return c, nil
}

func (c *csvRows) next(r *row) error {
	start := c.r.InputOffset()
	cells, err := c.r.Read()
	if c.r.InputOffset()-start > int64(c.in.limit) {
		return longRow(c.in.limit)
	}
	var pe *csv.ParseError
	switch {
	case err == nil:
		l, _ := c.r.FieldPos(0)
		r.line, r.cells = int64(l), cells
		c.in.refill()
		return nil
	case errors.As(err, &pe):
		r.line, r.cells = int64(pe.StartLine), nil
		c.in.refill()
		if errors.Is(err, csv.ErrFieldCount) {
			return &rowFault{schemas.Errorf(schemas.Invalid, "files.Reader", "%d cells, the header names %d", len(cells), len(c.header))}
		}
		return &rowFault{schemas.Errorf(schemas.Invalid, "files.Reader", "%w", pe.Err)}
	}
	return err
}

func (c *csvRows) look(r *row, g *guess) error {
	for i, n := range c.header {
		g.text(n, r.cells[i], c.null(r.cells[i]))
	}
	return nil
}

func (c *csvRows) bind(s *schemas.Schema) {
	for i, n := range c.header {
		if col := s.Index(n); col >= 0 {
			f := s.Field(col)
			c.bound = append(c.bound, bound{i, col, f.Type.Variable() && !f.Nullable})
		}
	}
}

func (c *csvRows) append(b *schemas.Batch, r *row) *schemas.Error {
	for _, w := range c.bound {
		col, cell := b.Column(w.column), r.cells[w.cell]
		if c.null(cell) && (cell != "" || !w.empty) {
			col.AppendNull()
			continue
		}
		if err := appendText(col, cell); err != nil {
			return blame(col.Field().Name, err)
		}
		col.EndRow()
	}
	return nil
}

func (c *csvRows) null(cell string) bool {
	for _, n := range c.nulls {
		if cell == n {
			return true
		}
	}
	return false
}

// blame makes an error of one value; one that names its own place keeps it.
func blame(field string, err error) *schemas.Error {
	var e *schemas.Error
	if errors.As(err, &e) {
		return e
	}
	return schemas.FieldErrorf(schemas.Invalid, "files.Reader", field, "%w", err)
}
