package lookup

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/wire"
)

// Column is a column of a table.
type Column struct {
	Name    string
	Type    schemas.DType
	Shape   []int   // of one value; nil: a scalar
	Default *string // stands for what a value lacks or has null; of a tensor, each element. nil: null
}

// Check reports, as an Invalid error, a default that is none of the column's type.
func (c *Column) Check() error {
	s, err := schemas.NewSchema([]schemas.Field{c.field()})
	if err != nil {
		return err
	}
	return c.appendDefault(schemas.NewBatch(s))
}

func (c *Column) field() schemas.Field {
	return schemas.Field{Name: c.Name, Type: c.Type, Shape: c.Shape, Nullable: true}
}

// appendDefault appends a row with the default to a batch of this column alone.
func (c *Column) appendDefault(b *schemas.Batch) error {
	if c.Default == nil {
		b.Column(0).AppendNull()
		b.Advance(1)
		return nil
	}
	f := c.field()
	text := *c.Default
	special := text == "NaN" || text == "Infinity" || text == "-Infinity"
	if numeric := c.Type == schemas.Bool || c.Type.Integer() || c.Type.Float(); !numeric || special {
		quoted, err := json.Marshal(text)
		if err != nil {
			return schemas.FieldErrorf(schemas.Invalid, op, c.Name, "default %.80q: %v", text, err)
		}
		text = string(quoted)
	} else if !json.Valid([]byte(text)) { // it must not become a part of the document
		return schemas.FieldErrorf(schemas.Invalid, op, c.Name, "default %.80q is no %s", text, c.Type)
	}
	if c.Shape != nil {
		text = "[" + strings.Repeat(text+",", f.Width()-1) + text + "]"
	}
	name, err := json.Marshal(c.Name)
	if err == nil {
		_, _, err = jsonrow.Codec{}.AppendRows(b, &schemas.Message{Payload: []byte(`{"rows":[{` + string(name) + `:` + text + `}]}`)})
	}
	if err == nil && b.Column(0).IsNull(0) {
		return schemas.FieldErrorf(schemas.Invalid, op, c.Name, "default %.80q is null; leave it out", *c.Default)
	}
	if err != nil {
		return schemas.FieldErrorf(schemas.Invalid, op, c.Name, "default %.80q is no %s", *c.Default, c.Type)
	}
	return nil
}

const op = "lookup"

// reader makes rows of values. One goroutine uses it.
type reader struct {
	layout   *layout
	defaults *schemas.Batch            // one row
	one      *schemas.Batch            // one row, as the value has it
	full     *schemas.Batch            // the same with defaults
	parts    map[string]*schemas.Batch // by which columns an Arrow stream has
	buf      []byte
}

// maxParts bounds the sets of columns that are remembered.
const maxParts = 64

func newReader(cols []Column) (*reader, error) {
	fs := make([]schemas.Field, len(cols))
	for i := range cols {
		fs[i] = cols[i].field()
	}
	s, err := schemas.NewSchema(fs)
	if err != nil {
		return nil, err
	}
	r := &reader{layout: newLayout(s), defaults: schemas.NewBatch(s), one: schemas.NewBatch(s), full: schemas.NewBatch(s), parts: map[string]*schemas.Batch{}}
	for i := range cols {
		b := schemas.NewBatch(schemas.MustSchema(fs[i]))
		if err := cols[i].appendDefault(b); err != nil {
			return nil, err
		}
		r.defaults.Column(i).AppendColumn(b.Column(0), 0, 1)
	}
	r.defaults.Advance(1)
	return r, nil
}

// row returns what a value says, with defaults where it says nothing. Invalid: it cannot be read.
func (r *reader) row(value []byte) ([]byte, error) {
	r.one.Reset()
	if err := r.decode(value); err != nil {
		return nil, err
	}
	r.full.Reset()
	for c := range r.full.Schema().Len() {
		src := r.one
		if src.Column(c).IsNull(0) {
			src = r.defaults
		}
		r.full.Column(c).AppendColumn(src.Column(c), 0, 1)
	}
	r.full.Advance(1)
	r.buf = r.layout.encode(r.buf[:0], r.full, 0)
	return r.buf, nil
}

func (r *reader) decode(value []byte) error {
	text := bytes.TrimLeft(value, " \t\r\n")
	switch {
	case len(text) == 0:
		return schemas.Errorf(schemas.Invalid, op, "the value is empty; want a JSON object or an Arrow stream of one row")
	case text[0] == '{':
		n, bad, _, err := jsonrow.Codec{}.AppendGood(r.one, &schemas.Message{Payload: value}, nil)
		switch {
		case err != nil:
			return err
		case len(bad) > 0:
			return bad[0].Err
		}
		return oneRow(n)
	case text[0] == '[' || text[0] == '"':
		return schemas.Errorf(schemas.Invalid, op, "the value is JSON, and no object; want one such as {\"column\": 1}")
	}
	return r.decodeArrow(value)
}

func oneRow(n int) error {
	if n != 1 {
		return schemas.Errorf(schemas.Invalid, op, "the value has %d rows; want one", n)
	}
	return nil
}

// decodeArrow reads the columns that a stream has; those that it lacks are null.
func (r *reader) decodeArrow(value []byte) error {
	names, err := wire.StreamColumns(value)
	if err != nil {
		return err
	}
	have := make([]byte, r.one.Schema().Len())
	var fs []schemas.Field
	for i := range have {
		if f := r.one.Schema().Field(i); slices.Contains(names, f.Name) {
			have[i] = 1
			fs = append(fs, *f)
		}
	}
	part := r.parts[string(have)]
	if part == nil {
		part = schemas.NewBatch(schemas.MustSchema(fs...))
		if len(r.parts) == maxParts {
			clear(r.parts)
		}
		r.parts[string(have)] = part
	}
	part.Reset()
	n, err := wire.AppendStreamRows(part, value)
	if err = cmp.Or(err, oneRow(n)); err != nil {
		return err
	}
	k := 0
	for i := range have {
		if have[i] == 0 {
			r.one.Column(i).AppendNull()
			continue
		}
		r.one.Column(i).AppendColumn(part.Column(k), 0, 1)
		k++
	}
	r.one.Advance(1)
	return nil
}

// absent is the row of a key that is not there: its defaults, or nulls alone.
func (r *reader) absent(defaults bool) *Row {
	b := r.defaults
	if !defaults {
		b = schemas.NewBatch(r.defaults.Schema())
		for c := range b.Schema().Len() {
			b.Column(c).AppendNull()
		}
		b.Advance(1)
	}
	return newRow(Row{}, r.layout.encode(nil, b, 0), "")
}
