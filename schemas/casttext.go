package schemas

import (
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// fillText adds f.n rows to a String or Binary column.
func (c *Column) fillText(srcs []source, packed bool, f *faults) {
	if len(srcs) == 1 && c.fillTextBulk(&srcs[0], f) {
		return
	}
	for i := range f.n {
		if !packed && srcs[0].rowNull(i) {
			if c.field.Nullable {
				c.AppendNull()
				continue
			}
			if !f.add(i, srcs[0].name, "null, but the column is not nullable") {
				return
			}
		}
		for e := range c.width {
			s, k := &srcs[0], i*srcs[0].per+e
			if packed {
				s, k = &srcs[e], i
			}
			v, why := s.text(k, c)
			if why != "" && !f.add(i, s.name, "%s", why) {
				return
			}
			c.AppendText(v)
		}
		c.EndRow()
	}
}

// fillTextBulk takes the usual case at once: plain UTF-8 or binary without nulls. False means nothing was done.
func (c *Column) fillTextBulk(s *source, f *faults) bool {
	if id := s.arr.DataType().ID(); id != arrow.STRING && id != arrow.BINARY || s.mayNull() {
		return false
	}
	d := s.arr.Data()
	n := f.n * s.per
	offs := as[int32](d.Buffers()[1].Bytes())
	if len(offs) < d.Offset()+s.at+n+1 {
		return false
	}
	offs = offs[d.Offset()+s.at:][:n+1]
	var data []byte
	if b := d.Buffers()[2]; b != nil {
		data = b.Bytes()
	}
	if !CheckTexts(data, offs, c.typ == String) || int(offs[n]-offs[0]) > MaxText-len(c.data) {
		return false // the slow path says which row
	}
	c.AppendTexts(data, offs)
	return true
}

// CheckTexts reports whether offsets never decrease, lie within data, and, with text, cut it into valid UTF-8.
func CheckTexts(data []byte, offsets []int32, text bool) bool {
	prev := offsets[0]
	if prev < 0 || int(prev) > len(data) {
		return false
	}
	last := offsets[len(offsets)-1]
	if last < prev || int(last) > len(data) {
		return false
	}
	for _, o := range offsets[1:] {
		if o < prev || o > last {
			return false
		}
		prev = o
	}
	if !text {
		return true
	}
	if !utf8.Valid(data[offsets[0]:last]) {
		return false
	}
	for _, o := range offsets {
		// The whole is valid: so is each part that starts at the start of a character.
		if o < last && !utf8.RuneStart(data[o]) {
			return false
		}
	}
	return true
}

// text returns element k of the range, and why it cannot be taken, "" if it can.
func (s *source) text(k int, c *Column) ([]byte, string) {
	if s.elemNull(k) {
		if c.field.Nullable {
			return nil, ""
		}
		return nil, "null, but the column is not nullable"
	}
	v, ok := textAt(s.arr, s.at+k)
	switch {
	case !ok:
		return nil, "broken offsets"
	case c.typ == String && !utf8.Valid(v):
		return nil, "not UTF-8"
	case len(v) > MaxText-len(c.data):
		return nil, "more than 2 GiB of text in one batch"
	}
	return v, ""
}

// textAt returns element i of any text array, after checking its offsets.
func textAt(a arrow.Array, i int) ([]byte, bool) {
	d := a.Data()
	buf := func(k int) []byte {
		if b := d.Buffers()[k]; b != nil {
			return b.Bytes()
		}
		return nil
	}
	cut := func(data []byte, x, y int64) ([]byte, bool) {
		if x < 0 || y < x || y > int64(len(data)) {
			return nil, false
		}
		return data[x:y], true
	}
	switch t := a.DataType().(type) {
	case *arrow.DictionaryType:
		dict := a.(*array.Dictionary)
		k := dict.GetValueIndex(i)
		if k < 0 || k >= dict.Dictionary().Len() {
			return nil, false
		}
		return textAt(dict.Dictionary(), k)
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		o := as[int64](buf(1))
		if len(o) < d.Offset()+i+2 {
			return nil, false
		}
		return cut(buf(2), o[d.Offset()+i], o[d.Offset()+i+1])
	case *arrow.FixedSizeBinaryType:
		w := int64(t.ByteWidth)
		return cut(buf(1), int64(d.Offset()+i)*w, int64(d.Offset()+i+1)*w)
	}
	o := as[int32](buf(1))
	if len(o) < d.Offset()+i+2 {
		return nil, false
	}
	return cut(buf(2), int64(o[d.Offset()+i]), int64(o[d.Offset()+i+1]))
}
