package csvrow

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/cells"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

// maxBad bounds the lines that are told one by one as no rows: one byte, a line end, is enough for such a line.
const maxBad = 10_000

// keepScratch is the most scratch memory that a pooled decoder keeps.
const keepScratch = 64 << 10

// decoder decodes one payload. It is pooled with its layout.
type decoder struct {
	*layout
	b       []byte
	p       int
	from    int // where the cell began
	row     *cells.Row
	number  jsonscan.Scanner // over the payload, except while a quoted cell is read
	scratch []byte           // quoted cells without their quotes, and what was base64, of one row
	broken  *schemas.Error
	event   bool // lines can be refused one by one
	bad     []schemas.RowError
}

func (d *decoder) release() {
	d.b, d.broken, d.bad = nil, nil, nil
	d.number.Reset(nil)
	if cap(d.scratch) > keepScratch {
		d.scratch = nil
	}
}

// decode appends all lines, or of an event those that are rows.
func (d *decoder) decode(dst *schemas.Batch, payload []byte) *schemas.Error {
	d.b, d.p = payload, 0
	d.number.Reset(payload)
	d.row = d.plan.Row()
	defer d.plan.Free(d.row)
	row, before := 0, len(d.bad)
	for ; d.p < len(d.b); row++ {
		if row > 0 {
			d.row.Clear()
		}
		err := d.line()
		if d.broken != nil {
			return in(row, d.broken)
		}
		if err == nil {
			err = d.row.AppendTo(dst)
		}
		switch {
		case err != nil && !d.event:
			return in(row, err)
		case err != nil && len(d.bad)-before == maxBad:
			return schemas.Errorf(schemas.Invalid, op, "more than %d lines are no rows, the first: %w", maxBad, d.bad[before].Err)
		case err != nil:
			d.bad = append(d.bad, schemas.RowError{Row: row, Err: in(row, err)})
			dst.Rollback()
		case d.event:
			dst.Advance(1)
		}
	}
	if !d.event {
		dst.Advance(row)
	}
	return nil
}

// line reads a line and its end into the row. It reads on after a value that is wrong, for the next line begins after it.
func (d *decoder) line() (first *schemas.Error) {
	d.scratch = d.scratch[:0]
	n, more := 0, true
	for i := range d.slots {
		sl := &d.slots[i]
		if sl.list {
			d.row.Open(sl.target)
		}
		for range sl.cells {
			if !more {
				return d.count(n)
			}
			var v []byte
			var quoted bool
			v, quoted, more = d.cell()
			n++
			if d.broken != nil {
				return nil
			}
			if sl.target < 0 || first != nil {
				continue
			}
			c, why := d.value(v, quoted, sl)
			switch {
			case why != "":
				first = schemas.FieldErrorf(schemas.Invalid, op, d.plan.Targets[sl.target].Name, "%s", why)
			case sl.list:
				d.row.Add(sl.target, c)
			default:
				d.row.Set(sl.target, c)
			}
		}
	}
	for ; more && d.broken == nil; n++ {
		_, _, more = d.cell()
	}
	if n != d.cells {
		return d.count(n)
	}
	return first
}

func (d *decoder) count(n int) *schemas.Error {
	return schemas.Errorf(schemas.Invalid, op, "%d cells in the line: want %d", n, d.cells)
}

// cell reads one cell and the comma or line end after it; more says that it was a comma.
func (d *decoder) cell() (v []byte, quoted, more bool) {
	b := d.b
	d.from = d.p
	if d.p < len(b) && b[d.p] == '"' {
		v, more = d.quotedCell()
		return v, true, more
	}
	from := d.p
	for i := from; i < len(b); i++ {
		switch b[i] {
		case ',':
			d.p = i + 1
			return b[from:i], false, true
		case '\n':
			d.p = i + 1
			return trimCR(b[from:i]), false, false
		case '"':
			d.broken = schemas.Errorf(schemas.Invalid, op, "byte %d: a quote within a cell that is not quoted", i)
			return nil, false, false
		}
	}
	d.p = len(b)
	return trimCR(b[from:]), false, false
}

func trimCR(v []byte) []byte {
	if n := len(v); n > 0 && v[n-1] == '\r' {
		return v[:n-1]
	}
	return v
}

// quotedCell reads a cell that begins with a quote. Two quotes within it are one.
func (d *decoder) quotedCell() (v []byte, more bool) {
	open := d.p
	d.p++
	i := bytes.IndexByte(d.b[d.p:], '"')
	if i < 0 {
		d.broken = schemas.Errorf(schemas.Invalid, op, "byte %d: the quote is never closed", open)
		return nil, false
	}
	v = d.b[d.p : d.p+i]
	d.p += i + 1
	if d.p < len(d.b) && d.b[d.p] == '"' {
		if v = d.doubled(v); v == nil {
			d.broken = schemas.Errorf(schemas.Invalid, op, "byte %d: the quote is never closed", open)
			return nil, false
		}
	}
	rest := d.b[d.p:]
	switch {
	case len(rest) == 0:
		return v, false
	case rest[0] == ',':
		d.p++
		return v, true
	case rest[0] == '\n':
		d.p++
		return v, false
	case rest[0] == '\r' && (len(rest) == 1 || rest[1] == '\n'):
		d.p += min(2, len(rest))
		return v, false
	}
	d.broken = schemas.Errorf(schemas.Invalid, op, "byte %d: text after the closing quote", d.p)
	return nil, false
}

// doubled goes on with a quoted cell at its first doubled quote; nil if it does not end.
func (d *decoder) doubled(head []byte) []byte {
	at := len(d.scratch)
	d.scratch = append(d.scratch, head...)
	for {
		d.scratch = append(d.scratch, '"')
		d.p++
		i := bytes.IndexByte(d.b[d.p:], '"')
		if i < 0 {
			return nil
		}
		d.scratch = append(d.scratch, d.b[d.p:d.p+i]...)
		d.p += i + 1
		if d.p == len(d.b) || d.b[d.p] != '"' {
			return d.scratch[at:]
		}
	}
}

// value reads a cell's text at its column's type, or says why it cannot be one.
func (d *decoder) value(v []byte, quoted bool, sl *slot) (c cells.Cell, why string) {
	if len(v) == 0 {
		switch text := sl.typ.Variable(); {
		case sl.null && !(text && quoted):
			return cells.Null, ""
		case text:
			return cells.Text(nil), ""
		}
		return c, "empty, but the column is not nullable"
	}
	switch sl.typ {
	case schemas.String:
		return cells.Text(v), ""
	case schemas.Binary:
		at := len(d.scratch)
		out, err := base64.StdEncoding.AppendDecode(d.scratch, v)
		if err != nil {
			return c, "want base64, got " + quote(v)
		}
		d.scratch = out
		return cells.Bytes(out[at:]), ""
	case schemas.Bool:
		switch string(v) {
		case "true", "True", "TRUE", "t", "T", "1":
			return cells.Bool(true), ""
		case "false", "False", "FALSE", "f", "F", "0":
			return cells.Bool(false), ""
		}
		return c, "want true or false, got " + quote(v)
	case schemas.Timestamp:
		if !digits(v) {
			ns, why := cells.ParseTime(v)
			return cells.Time(ns), why
		}
	}
	return d.numeric(v, quoted, sl.typ)
}

// numeric reads a number. One that is not quoted is read where it stands: a comma and a line end are ends of numbers.
func (d *decoder) numeric(v []byte, quoted bool, t schemas.DType) (cells.Cell, string) {
	s := &d.number
	if v[0] == '"' { // it would be read as a JSON string
		return cells.Absent, unfit(v, t)
	}
	from := d.from
	if quoted {
		s.Reset(v)
		from = 0
	} else {
		s.Rewind(from, 0)
	}
	bits, ok := s.Fixed(t)
	if n := s.Offset() - from; !ok || n > len(v) || len(bytes.TrimSpace(v[n:])) > 0 {
		c, why := d.noNumber(v, t)
		s.Reset(d.b)
		return c, why
	}
	if quoted {
		s.Reset(d.b)
	}
	switch t {
	case schemas.Float32:
		return cells.Float(float64(math.Float32frombits(uint32(bits)))), ""
	case schemas.Float64:
		return cells.Float(math.Float64frombits(bits)), ""
	case schemas.Float16:
		return cells.Float(schemas.Float16Value(uint16(bits))), ""
	case schemas.Uint64:
		return cells.Uint(bits), ""
	}
	return cells.Int(int64(bits)), ""
}

// noNumber takes the words for what has no digits, or says what is wrong.
func (d *decoder) noNumber(v []byte, t schemas.DType) (cells.Cell, string) {
	if f, ok := special(v); ok && t.Float() {
		return cells.Float(f), ""
	}
	// The scanner takes what begins with a minus sign for a number, so that it would say "want a number, got a number".
	if e := d.number.Err(); e != nil && !d.number.Syntax() && (v[0] != '-' || len(v) > 1 && v[1]-'0' <= 9) {
		return cells.Absent, e.Error()
	}
	return cells.Absent, unfit(v, t)
}

func unfit(v []byte, t schemas.DType) string {
	return "want a number of " + t.String() + ", got " + quote(v)
}

// special reads the words for what has no digits.
func special(v []byte) (float64, bool) {
	switch string(v) {
	case "NaN", "nan":
		return math.NaN(), true
	case "Infinity", "+Infinity", "inf", "+inf", "Inf", "+Inf":
		return math.Inf(1), true
	case "-Infinity", "-inf", "-Inf":
		return math.Inf(-1), true
	}
	return 0, false
}

// digits reports whether the cell is an integer by its looks.
func digits(v []byte) bool {
	if v[0] == '-' {
		v = v[1:]
	}
	for _, c := range v {
		if c-'0' > 9 {
			return false
		}
	}
	return true
}

func quote(v []byte) string {
	if len(v) > 40 {
		return strconv.Quote(string(v[:37]) + "...")
	}
	return strconv.Quote(string(v))
}
