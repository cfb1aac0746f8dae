package jsonrow

import (
	"strconv"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

// columns reads {"name": [values], ...}.
func (d *decoder) columns() bool {
	d.at = -1
	if d.allColumns() {
		return true
	}
	if d.where != "" {
		d.where = "columns." + d.where
		if d.at >= 0 {
			d.where += "[" + strconv.Itoa(d.at) + "]"
		}
	}
	return false
}

func (d *decoder) allColumns() bool {
	s := &d.scan
	if !s.Open('{') {
		return false
	}
	d.nextGeneration()
	total, first, guess := -1, "", 0
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
		if !d.mark(i, t) {
			return false
		}
		if t.elem >= 0 {
			d.given[t.col]++
		}
		if !d.values(i, t, total) {
			return false
		}
		if total < 0 {
			total, first = d.counts[i], t.name
		}
		if d.counts[i] != total {
			return s.Fail("ragged columns: %d values, but %s has %d", d.counts[i], first, total)
		}
		d.where = ""
	}
	if s.Err() != nil {
		return false
	}
	total = max(total, 0)
	if !d.completeColumns(total) {
		return false
	}
	d.dst.Advance(total)
	return true
}

// values reads the array of one column or feature.
func (d *decoder) values(i int, t *target, total int) bool {
	s := &d.scan
	if !s.Open('[') {
		return false
	}
	c := d.dst.Column(t.col)
	p := &d.cols[t.col]
	n := 0
	for ; s.More(']', n); n++ {
		if n == total {
			return s.Fail("ragged columns: more than the %d values of the first column", total)
		}
		var ok bool
		switch {
		case t.elem < 0:
			ok = (s.Peek() != 'n' || d.afford(p)) && s.Row(c)
		case p.size > 0:
			ok = d.featureAt(c, p, t, n)
		default:
			ok = d.textAt(p, t, n)
		}
		if !ok {
			d.at = n
			return false
		}
	}
	d.counts[i] = n
	return s.Err() == nil
}

// featureAt reads an element of row n of a packed tensor; its first feature makes the row.
func (d *decoder) featureAt(c *schemas.Column, p *column, t *target, n int) bool {
	if d.start+n >= c.Rows() {
		// A row of the tensor may be much wider than the one element that stands for it here, until the others come.
		if n >= (maxNulls+8*d.size)/p.rowBytes {
			return d.scan.Fail("%d rows of a tensor of %d elements in a payload of %d bytes", n+1, p.width, d.size)
		}
		c.Extend(1)
	}
	v, ok := d.feature(p)
	if ok {
		jsonscan.Put(c.Data(), p.size, (d.start+n)*p.width+t.elem, v)
	}
	return ok
}

// textAt keeps an element of row n of a tensor of text. Spans of a feature lie together: columns come whole.
func (d *decoder) textAt(p *column, t *target, n int) bool {
	if n == 0 {
		d.counts[p.first+t.elem] = 0
		d.feats = append(d.feats, featureSpans{target: p.first + t.elem, from: len(d.spans)})
	}
	s := &d.scan
	if s.Peek() == 'n' {
		if !s.Null() {
			return s.Skip()
		}
		if !p.field.Nullable {
			return s.Fail("null, but the column is not nullable")
		}
		d.spans = append(d.spans, span{})
		return true
	}
	v, ok := s.Text(p.field.Type)
	if !ok {
		return false
	}
	from := len(d.texts)
	d.texts = append(d.texts, v...)
	d.spans = append(d.spans, span{from, len(d.texts)})
	return true
}

// featureSpans says where the spans of a text feature begin.
type featureSpans struct{ target, from int }

// completeColumns fills columns and features that were left out, where that is allowed.
func (d *decoder) completeColumns(total int) bool {
	for i := range d.cols {
		p := &d.cols[i]
		c := d.dst.Column(i)
		if d.seen[p.whole] == d.gen || total == 0 && d.given[i] > 0 {
			continue
		}
		if d.given[i] == 0 {
			if !p.field.Nullable {
				d.where = p.missingName()
				return d.scan.Fail("missing")
			}
			for range total {
				if !d.afford(p) {
					return false
				}
				c.AppendNull()
			}
			continue
		}
		if !d.missingFeatures(c, p, total) {
			return false
		}
		if p.size == 0 {
			d.weave(c, p, total)
		}
	}
	return true
}

func (d *decoder) missingFeatures(c *schemas.Column, p *column, total int) bool {
	for e := range p.width {
		if d.seen[p.first+e] == d.gen {
			continue
		}
		v, ok := jsonscan.Missing(p.field.Type)
		if !p.field.Nullable || p.size > 0 && !ok {
			d.where = p.field.Features[e]
			return d.scan.Fail("missing")
		}
		for r := d.start; p.size > 0 && r < d.start+total; r++ {
			jsonscan.Put(c.Data(), p.size, r*p.width+e, v)
		}
	}
	return true
}

// weave writes the rows of a tensor of text out of its features' columns.
func (d *decoder) weave(c *schemas.Column, p *column, total int) {
	from := make([]int, p.width)
	for e := range from {
		from[e] = -1
	}
	for _, f := range d.feats {
		if f.target >= p.first && f.target < p.first+p.width {
			from[f.target-p.first] = f.from
		}
	}
	for r := range total {
		for _, at := range from {
			var sp span
			if at >= 0 {
				sp = d.spans[at+r]
			}
			c.AppendText(d.texts[sp.from:sp.to])
		}
		c.EndRow()
	}
}
