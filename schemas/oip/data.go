package oip

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

// data reads the JSON array of the current input, flat or nested as its shape is.
func (d *decoder) data() bool {
	s, in := &d.scan, &d.in
	shape := in.shape[:in.rank]
	if in.rank > 1 && !s.Nested() {
		total := int64(1)
		for _, n := range shape {
			total *= n
		}
		in.shape[0], in.rank = total, 1
		shape = in.shape[:1]
	}
	n := 0
	return d.array(shape, &n)
}

// array reads one dimension; n counts the elements of the input.
func (d *decoder) array(shape []int64, n *int) bool {
	s := &d.scan
	if !s.Open('[') {
		return false
	}
	k := 0
	for ; s.More(']', k); k++ {
		if int64(k) == shape[0] {
			return s.Fail("more data than the shape says")
		}
		if len(shape) > 1 {
			if !d.array(shape[1:], n) {
				return false
			}
			continue
		}
		if !d.element(*n) {
			t := &d.targets[d.in.target]
			row := *n
			if t.elem < 0 {
				row /= d.cols[t.col].width
			}
			d.where = "rows[" + strconv.Itoa(row) + "]." + t.name
			return false
		}
		*n++
	}
	if s.Err() == nil && int64(k) < shape[0] {
		return s.Fail("less data than the shape says: %d of %d", k, shape[0])
	}
	return s.Err() == nil
}

// element reads element n of the current input.
func (d *decoder) element(n int) bool {
	s := &d.scan
	t := &d.targets[d.in.target]
	p := &d.cols[t.col]
	c := d.dst.Column(t.col)
	if t.elem >= 0 {
		return d.feature(c, p, t, n)
	}
	if p.width == 1 && s.Peek() == 'n' && s.Null() {
		if !p.field.Nullable {
			return s.Fail("null, but the column is not nullable")
		}
		c.AppendNull()
		return true
	}
	if !s.Element(c, p.typ) {
		return false
	}
	if (n+1)%p.width == 0 {
		c.EndRow()
	}
	return true
}

// feature reads one element of a packed tensor; the first feature makes the rows, as far as there is data for them.
func (d *decoder) feature(c *schemas.Column, p *column, t *target, n int) bool {
	if d.grown(n+1, p) {
		return false
	}
	if p.size == 0 {
		v, ok := d.scan.Text(p.typ)
		if ok {
			d.keepText(t, p, v)
		}
		return ok
	}
	v, ok := d.scan.Fixed(p.typ)
	if ok {
		d.put(c, p, t, n, v)
	}
	return ok
}

// grown fails when the first features of a wide tensor ask for more rows than its other features can be there for.
func (d *decoder) grown(rows int, p *column) bool {
	return rows > (maxNulls+8*d.size)/p.rowBytes && !d.scan.Fail("%d rows of a tensor of %d elements in a payload of %d bytes", rows, p.width, d.size)
}

func (d *decoder) put(c *schemas.Column, p *column, t *target, n int, v uint64) {
	if d.start+n >= c.Rows() {
		c.Extend(1)
	}
	jsonscan.Put(c.Data(), p.size, (d.start+n)*p.width+t.elem, v)
}

func (d *decoder) keepText(t *target, p *column, v []byte) {
	if d.texts == nil {
		d.texts = map[int][][]byte{}
	}
	d.texts[p.first+t.elem] = append(d.texts[p.first+t.elem], bytes.Clone(v))
}

// binaryData takes the current input's bytes from the tail.
func (d *decoder) binaryData() bool {
	s, in := &d.scan, &d.in
	if in.binary > int64(len(d.tail)) {
		return s.Fail("binary_data_size is %d, but %d bytes are left", in.binary, len(d.tail))
	}
	b := d.tail[:in.binary]
	d.tail = d.tail[in.binary:]
	t := &d.targets[in.target]
	p := &d.cols[t.col]
	width := p.width
	if t.elem >= 0 {
		width = 1
	}
	n := d.rows * width // shape was checked against the column: no overflow
	if p.size == 0 {
		return d.binaryTexts(b, t, p, n)
	}
	if len(b) != n*p.size {
		return s.Fail("binary_data_size is %d, but the shape needs %d", len(b), n*p.size)
	}
	if p.typ == schemas.Bool {
		for _, v := range b {
			if v > 1 {
				return s.Fail("a BOOL is 0 or 1, got %d", v)
			}
		}
	}
	c := d.dst.Column(t.col)
	if t.elem < 0 {
		c.AppendFixed(b, d.rows)
		return true
	}
	if d.grown(n, p) {
		return false
	}
	for i := range n {
		var w [8]byte
		copy(w[:], b[i*p.size:(i+1)*p.size])
		d.put(c, p, t, i, binary.LittleEndian.Uint64(w[:]))
	}
	return true
}

// binaryTexts reads elements with their lengths before them, 4 bytes little-endian.
func (d *decoder) binaryTexts(b []byte, t *target, p *column, n int) bool {
	s := &d.scan
	c := d.dst.Column(t.col)
	if t.elem >= 0 && d.grown(n, p) {
		return false
	}
	for i := range n {
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return s.Fail("element %d of %d runs over the end of its BYTES tensor", i, n)
		}
		size := int(binary.LittleEndian.Uint32(b))
		v := b[4 : 4+size]
		b = b[4+size:]
		if p.typ == schemas.String && !utf8.Valid(v) {
			return s.Fail("element %d is not UTF-8", i)
		}
		if t.elem >= 0 {
			d.keepText(t, p, v)
			continue
		}
		c.AppendText(v)
		if (i+1)%p.width == 0 {
			c.EndRow()
		}
	}
	if len(b) > 0 {
		return s.Fail("%d bytes after the last element of a BYTES tensor", len(b))
	}
	return true
}

func dims(shape []int) string {
	out := ""
	for _, n := range shape {
		out += "," + strconv.Itoa(n)
	}
	return out
}
