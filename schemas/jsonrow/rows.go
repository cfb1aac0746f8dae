package jsonrow

import (
	"strconv"

	"github.com/leatstream/leat/schemas"
)

// bare reports whether an event is one row itself: its first name, "id" and "parameters" aside, is neither "rows" with
// an array nor "columns" with an object. The scanner is at the start again.
func (d *decoder) bare(payload []byte) bool {
	s := &d.scan
	is := s.Open('{') && !d.native()
	s.Reset(payload)
	return is
}

func (d *decoder) native() bool {
	s := &d.scan
	for n := 0; s.More('}', n); n++ {
		k, ok := s.Key()
		if !ok {
			break
		}
		switch string(k) {
		case "rows":
			return s.Peek() == '['
		case "columns":
			return s.Peek() == '{'
		case "id", "parameters":
			s.Skip()
		default:
			return false
		}
	}
	return false
}

// rows reads [{..}, ..].
func (d *decoder) rows() bool {
	s := &d.scan
	if !s.Open('[') {
		return false
	}
	row := 0
	for ; s.More(']', row); row++ {
		if !d.element(row) {
			return false
		}
	}
	if s.Err() != nil {
		return false
	}
	if !d.event {
		d.dst.Advance(row)
	}
	return true
}

// element reads one row. With bad, a row that is JSON and no row of the schema is told there, and does not fail.
func (d *decoder) element(row int) bool {
	s := &d.scan
	at, depth := s.Offset(), s.Depth()
	if d.row() {
		if d.event {
			d.dst.Advance(1)
		}
		return true
	}
	d.where = rowPath(row, d.where)
	if !d.event || s.Syntax() {
		return false
	}
	e := s.Err()
	e.Field = d.where
	d.bad = append(d.bad, schemas.RowError{Row: row, Err: e})
	d.where = ""
	d.dst.Rollback()
	s.Rewind(at, depth)
	if !s.Skip() {
		d.where = rowPath(row, "")
		return false
	}
	return true
}

func rowPath(row int, field string) string {
	p := "rows[" + strconv.Itoa(row) + "]"
	if field != "" {
		p += "." + field
	}
	return p
}
