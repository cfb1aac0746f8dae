package jsonrow

import (
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

const op = "schemas.JSON"

// maxNulls bounds the bytes that nulls and absent fields of one payload may grow to: three bytes can ask for a row of
// thousands of columns, four for a tensor of millions of elements.
const maxNulls = 64 << 20

// decoder decodes one payload. It is pooled with its plan.
type decoder struct {
	*plan
	scan   jsonscan.Scanner
	dst    *schemas.Batch
	start  int
	size   int // of the payload
	nulls  int // bytes that nulls took
	id     string
	form   form
	event  bool               // rows can be refused one by one
	bad    []schemas.RowError // those that were
	seen   []uint32           // by target: the generation in which it was given
	gen    uint32
	given  []int32 // by column: features given in this row
	counts []int   // by target: rows, in columns form
	texts  []byte  // features of text tensors, until the row or the column is whole
	spans  []span
	feats  []featureSpans
	filled int
	where  string // the field that a failure belongs to
	at     int    // and its value, in columns form; -1: none
}

type span struct{ from, to int }

// form is how a payload has its rows.
type form uint8

const (
	none form = iota
	rows
	columns
)

func (d *decoder) decode(payload []byte) (int, *schemas.Error) {
	s := &d.scan
	s.Reset(payload)
	d.size = len(payload)
	if d.event && d.bare(payload) {
		d.form = rows
		if !d.element(0) || !s.End() {
			return 0, d.failure()
		}
		return d.dst.Rows() - d.start, nil
	}
	if !s.Open('{') {
		return 0, d.failure()
	}
	var keys uint8
	for n := 0; s.More('}', n); n++ {
		k, ok := s.Key()
		if !ok {
			break
		}
		if !d.member(k, &keys) {
			break
		}
	}
	if s.Err() == nil && s.End() && d.form == none {
		s.Fail(`neither "rows" nor "columns"`)
	}
	if s.Err() != nil {
		return 0, d.failure()
	}
	return d.dst.Rows() - d.start, nil
}

// member reads one top-level member. keys are those seen.
func (d *decoder) member(k []byte, keys *uint8) bool {
	s := &d.scan
	bit := uint8(0)
	switch string(k) {
	case "rows", "columns":
		bit = 1
	case "id":
		bit = 2
	case "parameters":
		bit = 4
	default:
		return s.Fail(`unknown name %q: want "rows" or "columns", and perhaps "id" and "parameters"`, clip(k))
	}
	if *keys&bit != 0 {
		return s.Fail(`%q comes after "rows", "columns" or another of its name`, clip(k))
	}
	*keys |= bit
	switch k[0] {
	case 'r':
		d.form = rows
		return d.rows()
	case 'c':
		d.form = columns
		return d.columns()
	case 'i':
		d.where = "id"
		v, ok := s.String()
		if ok {
			d.id, d.where = string(v), ""
		}
		return ok
	}
	d.where = "parameters"
	if s.Peek() != '{' {
		s.Open('{')
		return false
	}
	if !s.Skip() {
		return false
	}
	d.where = ""
	return true
}

// failure takes back what was appended and names the field.
func (d *decoder) failure() *schemas.Error {
	d.dst.Rollback()
	d.dst.Truncate(d.start)
	e := d.scan.Err()
	if e.Field == "" {
		e.Field = d.where
	}
	return e
}

// row reads one object. It leaves the field's name in where when it fails.
func (d *decoder) row() bool {
	s := &d.scan
	d.where = ""
	if !s.Open('{') {
		return false
	}
	d.nextGeneration()
	guess := 0 // names tend to come in the order of the schema
	for n := 0; s.More('}', n); n++ {
		i, ok := d.name(guess)
		if !ok {
			return false
		}
		if i < 0 {
			continue
		}
		guess = i + 1
		t := &d.targets[i]
		d.where = t.name
		if !d.mark(i, t) || !d.value(t) {
			return false
		}
		if t.elem >= 0 && guess < len(d.targets) && d.targets[guess].elem < 0 {
			guess++ // the tensor's own name stands after its features
		}
		d.where = ""
	}
	if s.Err() != nil {
		return false
	}
	return d.filled == len(d.cols) || d.complete()
}

// name reads a field's name and returns its target; guess is the one that it probably is. Of an event, a field that is
// none of the model's is passed over with its value, and the target is -1.
func (d *decoder) name(guess int) (int, bool) {
	s := &d.scan
	if guess < len(d.targets) && s.KeyIs(d.targets[guess].quoted) {
		return guess, true
	}
	k, ok := s.Key()
	if !ok {
		return 0, false
	}
	i, ok := d.index[string(k)]
	if !ok && d.event { // an event is described by its producer and may hold more than a model takes
		return -1, s.Skip()
	}
	if !ok {
		d.where = clip(k)
		return 0, s.Fail("unknown field; the fields are: %s", d.names())
	}
	return i, true
}

func (d *decoder) nextGeneration() {
	if d.gen++; d.gen == 0 {
		clear(d.seen)
		d.gen = 1
	}
	d.filled = 0
	clear(d.given)
	d.texts, d.spans = d.texts[:0], d.spans[:0]
}

// mark notes that a target was given; twice is a failure, and so is a tensor both as a whole and by its features.
func (d *decoder) mark(i int, t *target) bool {
	if d.seen[i] == d.gen {
		return d.scan.Fail("given twice")
	}
	d.seen[i] = d.gen
	c := &d.cols[t.col]
	if !c.packed {
		return true
	}
	if t.elem < 0 && d.given[t.col] > 0 || t.elem >= 0 && d.seen[c.whole] == d.gen {
		return d.scan.Fail("tensor %s is given both as a whole and by its features", c.field.Name)
	}
	return true
}

// value reads one value of the row.
func (d *decoder) value(t *target) bool {
	c := d.dst.Column(t.col)
	if t.elem < 0 {
		d.filled++
		if d.scan.Peek() == 'n' && !d.afford(&d.cols[t.col]) {
			return false
		}
		return d.scan.Row(c)
	}
	p := &d.cols[t.col]
	n := d.given[t.col]
	d.given[t.col]++
	if p.size == 0 {
		return d.textFeature(t, p)
	}
	if n == 0 {
		c.Extend(1)
	}
	v, ok := d.feature(p)
	if !ok {
		return false
	}
	jsonscan.Put(c.Data(), p.size, (c.Rows()-1)*p.width+t.elem, v)
	if int(n)+1 == p.width {
		d.filled++
	}
	return true
}

// feature reads one element of a packed tensor of fixed-size type.
func (d *decoder) feature(p *column) (uint64, bool) {
	s := &d.scan
	if s.Peek() != 'n' {
		return s.Fixed(p.field.Type)
	}
	if !s.Null() {
		return 0, s.Skip()
	}
	v, ok := jsonscan.Missing(p.field.Type)
	if !ok || !p.field.Nullable {
		return 0, s.Fail("null, but %s has no value for a missing element", p.field)
	}
	return v, true
}

// textFeature keeps one element of a packed tensor of text until the row is whole: they may come in any order.
func (d *decoder) textFeature(t *target, p *column) bool {
	at := d.spanOf(t)
	if d.scan.Peek() == 'n' {
		if !d.scan.Null() {
			return d.scan.Skip()
		}
		if !p.field.Nullable {
			return d.scan.Fail("null, but the column is not nullable")
		}
		d.spans[at] = span{}
		return true
	}
	v, ok := d.scan.Text(p.field.Type)
	if !ok {
		return false
	}
	from := len(d.texts)
	d.texts = append(d.texts, v...)
	d.spans[at] = span{from, len(d.texts)}
	return true
}

// spanOf makes room for a span for each target and returns the target's.
func (d *decoder) spanOf(t *target) int {
	for len(d.spans) < len(d.targets) {
		d.spans = append(d.spans, span{})
	}
	return d.cols[t.col].first + t.elem
}

// complete fills what the row left out, where that is allowed, and writes tensors of text.
func (d *decoder) complete() bool {
	for i := range d.cols {
		p := &d.cols[i]
		c := d.dst.Column(i)
		if d.seen[p.whole] == d.gen || p.size > 0 && p.packed && int(d.given[i]) == p.width {
			continue
		}
		if d.given[i] == 0 {
			if !p.field.Nullable {
				d.where = p.missingName()
				return d.scan.Fail("missing")
			}
			if !d.afford(p) {
				return false
			}
			c.AppendNull()
			continue
		}
		if int(d.given[i]) < p.width && p.field.Nullable && !d.afford(p) {
			return false
		}
		for e := range p.width {
			if d.seen[p.first+e] == d.gen {
				continue
			}
			v, ok := jsonscan.Missing(p.field.Type)
			if !p.field.Nullable || p.size > 0 && !ok {
				d.where = p.field.Features[e]
				return d.scan.Fail("missing")
			}
			if p.size > 0 {
				jsonscan.Put(c.Data(), p.size, (c.Rows()-1)*p.width+e, v)
			} else {
				d.spans[p.first+e] = span{}
			}
		}
		if p.size == 0 {
			for _, sp := range d.spans[p.first : p.first+p.width] {
				c.AppendText(d.texts[sp.from:sp.to])
			}
			c.EndRow()
		}
	}
	return true
}

// missingName is what a caller has to add.
func (p *column) missingName() string {
	if p.packed {
		return p.field.Features[0]
	}
	return p.field.Name
}

// afford counts a null row against maxNulls.
func (d *decoder) afford(p *column) bool {
	if d.nulls += p.rowBytes; d.nulls > maxNulls {
		return d.scan.Fail("nulls and absent fields would take more than %d MiB: send fewer rows at once", maxNulls>>20)
	}
	return true
}

func clip(k []byte) string {
	if len(k) > 60 {
		return string(k[:57]) + "..."
	}
	return string(k)
}

// names lists the fields for an error line.
func (d *decoder) names() string {
	out := ""
	for i := range d.targets {
		if i == 20 {
			return out + ", ..."
		}
		if i > 0 {
			out += ", "
		}
		out += d.targets[i].name
	}
	return out
}
