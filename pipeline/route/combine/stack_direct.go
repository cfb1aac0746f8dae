package combine

import (
	"math"

	"github.com/leatstream/leat/schemas"
)

// An arrow.Record takes longer to build than a few rows to cast, so numbers go straight from the members' columns to
// the model's where that is possible. The direct way knows no errors: at the first null, at the first value that it
// cannot keep, it gives up, what it did is dropped, and the Projection decides. So it need not take everything, but what
// it takes it must make of it what the Projection does: TestStackDirect compares the two.

// straight is one source of one column of the model.
type straight struct {
	source
	to, element int // where it goes; element -1: the whole column
}

// direct plans the direct way: nil if a source needs what it does not know.
func (s *Stack) direct() []straight {
	var ss []straight
	k := 0 // of s.src, which lie in the order of the model's columns and features
	for i := range s.model.Len() {
		to := s.model.Field(i)
		elements := []int{-1}
		if len(to.Features) > 0 && s.work.Index(to.Name) < 0 {
			elements = elements[:0]
			for e := range to.Features {
				elements = append(elements, e)
			}
		}
		for _, e := range elements {
			from := s.work.Field(k).Type
			whole := e < 0 && s.src[k].element < 0
			number := func(t schemas.DType) bool { return t.Integer() || t.Float() }
			switch {
			case from == to.Type && (whole || !from.Variable()):
			case number(to.Type) && (number(from) || from == schemas.Bool):
			default:
				return nil
			}
			ss = append(ss, straight{s.src[k], i, e})
			k++
		}
	}
	return ss
}

// appendDirect appends the rows, or nothing and returns false.
func (s *Stack) appendDirect(present []*schemas.Batch, request, dst *schemas.Batch, from, to int) bool {
	if s.straight == nil {
		return false
	}
	for i := range s.straight {
		d := &s.straight[i]
		b := request
		if d.member >= 0 {
			b = present[d.member]
		}
		if b == nil || b.Column(d.column).Nulls() > 0 || !d.append(dst.Column(d.to), b.Column(d.column), from, to) {
			dst.Rollback()
			return false
		}
	}
	dst.Advance(to - from)
	return true
}

// append casts one source; the first element of a packed column makes room for all.
func (d *straight) append(dst, src *schemas.Column, from, to int) bool {
	t, as := src.Field().Type, dst.Field().Type
	if d.element < 0 && d.source.element < 0 && t == as {
		return appendRows(dst, src, from, to)
	}
	n := to - from
	if d.element <= 0 {
		dst.Extend(n)
	}
	in := stride{at: from * src.Width(), by: src.Width()}
	out := stride{at: (dst.Rows() - n) * dst.Width(), by: dst.Width()}
	switch {
	case d.source.element >= 0 || d.element >= 0: // one element a row
		in.at += max(d.source.element, 0)
		out.at += max(d.element, 0)
	default:
		n *= src.Width()
		in.by, out.by = 1, 1
	}
	if t == as {
		copyElements(dst, out, src, in, n)
		return true
	}
	var values [chunk]float64
	for n > 0 {
		v := values[:min(n, chunk)]
		if !load(v, src, in) || !place(dst, out, v, t.Float()) {
			return false
		}
		in.at += len(v) * in.by
		out.at += len(v) * out.by
		n -= len(v)
	}
	return true
}

// stride says which elements of a column: every by-th from at on.
type stride struct{ at, by int }

func copyElements(dst *schemas.Column, out stride, src *schemas.Column, in stride, n int) {
	switch src.Field().Type.Size() {
	case 1:
		copyStrided[uint8](dst, out, src, in, n)
	case 2:
		copyStrided[uint16](dst, out, src, in, n)
	case 4:
		copyStrided[uint32](dst, out, src, in, n)
	case 8:
		copyStrided[uint64](dst, out, src, in, n)
	}
}

func copyStrided[T schemas.Fixed](dst *schemas.Column, out stride, src *schemas.Column, in stride, n int) {
	d, s := schemas.Values[T](dst), schemas.Values[T](src)
	for i := range n {
		d[out.at+i*out.by] = s[in.at+i*in.by]
	}
}

// load reads numbers; false if a float64 cannot hold one exactly.
func load(v []float64, c *schemas.Column, in stride) bool {
	switch c.Field().Type {
	case schemas.Bool, schemas.Uint8:
		loadAs[uint8](v, c, in)
	case schemas.Int8:
		loadAs[int8](v, c, in)
	case schemas.Int16:
		loadAs[int16](v, c, in)
	case schemas.Int32:
		loadAs[int32](v, c, in)
	case schemas.Uint16:
		loadAs[uint16](v, c, in)
	case schemas.Uint32:
		loadAs[uint32](v, c, in)
	case schemas.Float32:
		loadAs[float32](v, c, in)
	case schemas.Float64:
		loadAs[float64](v, c, in)
	case schemas.Float16:
		s := schemas.Values[uint16](c)
		for i := range v {
			v[i] = schemas.Float16Value(s[in.at+i*in.by])
		}
	case schemas.Int64:
		s := schemas.Values[int64](c)
		for i := range v {
			x := s[in.at+i*in.by]
			if x > 1<<53 || x < -1<<53 {
				return false
			}
			v[i] = float64(x)
		}
	case schemas.Uint64:
		s := schemas.Values[uint64](c)
		for i := range v {
			x := s[in.at+i*in.by]
			if x > 1<<53 {
				return false
			}
			v[i] = float64(x)
		}
	}
	return true
}

func loadAs[T schemas.Fixed](v []float64, c *schemas.Column, in stride) {
	s := schemas.Values[T](c)
	for i := range v {
		v[i] = float64(s[in.at+i*in.by])
	}
}

// place writes numbers, which are floats if round; false if one does not fit: only a float may be rounded, to a narrower
// float, and not to an infinity.
func place(c *schemas.Column, out stride, v []float64, round bool) bool {
	switch c.Field().Type {
	case schemas.Int8:
		return placeWhole[int8](c, out, v, math.MinInt8, 1<<7)
	case schemas.Int16:
		return placeWhole[int16](c, out, v, math.MinInt16, 1<<15)
	case schemas.Int32:
		return placeWhole[int32](c, out, v, math.MinInt32, 1<<31)
	case schemas.Int64:
		return placeWhole[int64](c, out, v, math.MinInt64, 1<<63)
	case schemas.Uint8:
		return placeWhole[uint8](c, out, v, 0, 1<<8)
	case schemas.Uint16:
		return placeWhole[uint16](c, out, v, 0, 1<<16)
	case schemas.Uint32:
		return placeWhole[uint32](c, out, v, 0, 1<<32)
	case schemas.Uint64:
		return placeWhole[uint64](c, out, v, 0, 1<<64)
	case schemas.Float32:
		d := schemas.Values[float32](c)
		for i, x := range v {
			f := float32(x)
			if !kept(x, float64(f), round) {
				return false
			}
			d[out.at+i*out.by] = f
		}
	case schemas.Float64:
		d := schemas.Values[float64](c)
		for i, x := range v {
			d[out.at+i*out.by] = x
		}
	case schemas.Float16:
		d := schemas.Values[uint16](c)
		for i, x := range v {
			h := schemas.Float16Bits(x)
			if !kept(x, schemas.Float16Value(h), round) {
				return false
			}
			d[out.at+i*out.by] = h
		}
	}
	return true
}

// kept reports whether y may stand for x.
func kept(x, y float64, round bool) bool {
	return x == y || round && (x != x || !math.IsInf(y, 0))
}

func placeWhole[T schemas.Fixed](c *schemas.Column, out stride, v []float64, lo, end float64) bool {
	d := schemas.Values[T](c)
	for i, x := range v {
		if !(x >= lo && x < end) || x != math.Trunc(x) {
			return false
		}
		d[out.at+i*out.by] = T(x)
	}
	return true
}
