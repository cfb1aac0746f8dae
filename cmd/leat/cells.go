package main

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
)

// cell is a column of a table: a column of a batch, or one element of a packed tensor under its feature's name.
type cell struct {
	name    string
	column  int
	element int // -1: the whole column
}

// cellsOf lists what a row is made of, in order.
func cellsOf(s *schemas.Schema) []cell {
	var cs []cell
	for i := range s.Len() {
		f := s.Field(i)
		if f.Features == nil {
			cs = append(cs, cell{f.Name, i, -1})
			continue
		}
		for k, n := range f.Features {
			cs = append(cs, cell{n, i, k})
		}
	}
	return cs
}

// at writes the cell's value of a row for people.
func (c cell) at(b *schemas.Batch, row int) string {
	col := b.Column(c.column)
	switch {
	case col.IsNull(row):
		return "-"
	case c.element >= 0:
		return brief(col, row*col.Width()+c.element)
	case !col.Field().Tensor():
		return brief(col, row)
	}
	const most = 8 // elements of a tensor that a table shows
	var parts []string
	for e := range min(col.Width(), most) {
		parts = append(parts, brief(col, row*col.Width()+e))
	}
	if col.Width() > most {
		parts = append(parts, "...")
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// brief writes an element for a table: floats with six digits, texts of one line and bounded length.
func brief(c *schemas.Column, e int) string {
	const longest = 60
	if c.Field().Type.Float() {
		v := number(c, e)
		if math.IsNaN(v) {
			return "-"
		}
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
	s := strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, text(c, e, longest+1))
	if r := []rune(s); len(r) > longest {
		return string(r[:longest-3]) + "..."
	}
	return s
}

// number returns an element of a float column.
func number(c *schemas.Column, e int) float64 {
	switch c.Field().Type {
	case schemas.Float16:
		return schemas.Float16Value(schemas.Values[uint16](c)[e])
	case schemas.Float32:
		return float64(schemas.Values[float32](c)[e])
	case schemas.Float64:
		return schemas.Values[float64](c)[e]
	}
	return math.NaN()
}

// text writes an element in full, or about so many bytes of a long text; 0: all.
func text(c *schemas.Column, e, most int) string {
	switch c.Field().Type {
	case schemas.Bool:
		return strconv.FormatBool(c.Data()[e] != 0)
	case schemas.Int8:
		return strconv.FormatInt(int64(schemas.Values[int8](c)[e]), 10)
	case schemas.Int16:
		return strconv.FormatInt(int64(schemas.Values[int16](c)[e]), 10)
	case schemas.Int32:
		return strconv.FormatInt(int64(schemas.Values[int32](c)[e]), 10)
	case schemas.Int64:
		return strconv.FormatInt(schemas.Values[int64](c)[e], 10)
	case schemas.Uint8:
		return strconv.FormatUint(uint64(c.Data()[e]), 10)
	case schemas.Uint16:
		return strconv.FormatUint(uint64(schemas.Values[uint16](c)[e]), 10)
	case schemas.Uint32:
		return strconv.FormatUint(uint64(schemas.Values[uint32](c)[e]), 10)
	case schemas.Uint64:
		return strconv.FormatUint(schemas.Values[uint64](c)[e], 10)
	case schemas.Float16, schemas.Float32:
		return strconv.FormatFloat(number(c, e), 'g', -1, 32)
	case schemas.Float64:
		return strconv.FormatFloat(number(c, e), 'g', -1, 64)
	case schemas.Timestamp:
		return time.Unix(0, schemas.Values[int64](c)[e]).UTC().Format(time.RFC3339Nano)
	}
	b := c.Text(e)
	if most > 0 && len(b) > 4*most {
		b = b[:4*most]
	}
	if c.Field().Type == schemas.Binary {
		return base64.StdEncoding.EncodeToString(b)
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}
