package combine

import (
	"math"

	"github.com/leatstream/leat/schemas"
)

// chunk is how many sums are made at a time: they stay in the first-level cache, on the stack.
const chunk = 256

// means appends the weighted means of rows.
func means(dst *schemas.Column, vs []voter, from, to int) {
	w := dst.Width()
	at := dst.Rows() * w
	dst.Extend(to - from)
	total := 0.0 // of integers, and so exact
	for _, v := range vs {
		total += float64(v.weight)
	}
	alone := len(vs) == 1 // then its value, not weight x value / weight, which may differ in the last bit
	if alone {
		total = 1
	}
	var sums [chunk]float64
	for e, end := from*w, to*w; e < end; e += chunk {
		s := sums[:min(chunk, end-e)]
		for i, v := range vs {
			weight := float64(v.weight)
			if alone {
				weight = 1
			}
			addColumn(s, v.col, e, weight, i == 0)
		}
		for i, x := range s {
			s[i] = x / total
		}
		store(dst, at, s)
		at += len(s)
	}
}

// addColumn adds weight x elements from e on to the sums; the first one sets them, so that the sum of negative zeros is
// one.
func addColumn(sums []float64, c *schemas.Column, e int, weight float64, first bool) {
	switch c.Field().Type {
	case schemas.Int8:
		add(sums, schemas.Values[int8](c)[e:], weight, first)
	case schemas.Int16:
		add(sums, schemas.Values[int16](c)[e:], weight, first)
	case schemas.Int32:
		add(sums, schemas.Values[int32](c)[e:], weight, first)
	case schemas.Int64:
		add(sums, schemas.Values[int64](c)[e:], weight, first)
	case schemas.Uint8:
		add(sums, schemas.Values[uint8](c)[e:], weight, first)
	case schemas.Uint16:
		add(sums, schemas.Values[uint16](c)[e:], weight, first)
	case schemas.Uint32:
		add(sums, schemas.Values[uint32](c)[e:], weight, first)
	case schemas.Uint64:
		add(sums, schemas.Values[uint64](c)[e:], weight, first)
	case schemas.Float32:
		add(sums, schemas.Values[float32](c)[e:], weight, first)
	case schemas.Float64:
		add(sums, schemas.Values[float64](c)[e:], weight, first)
	case schemas.Float16:
		src := schemas.Values[uint16](c)[e:]
		for i := range sums {
			x := float64(weight * schemas.Float16Value(src[i]))
			if !first {
				x += sums[i]
			}
			sums[i] = x
		}
	}
}

func add[T schemas.Fixed](sums []float64, src []T, weight float64, first bool) {
	src = src[:len(sums)]
	if first {
		for i, v := range src {
			sums[i] = float64(weight * float64(v))
		}
		return
	}
	for i, v := range src {
		sums[i] += float64(weight * float64(v)) // the conversion keeps the product and the sum from being fused
	}
}

// store rounds values to the type of the column and writes them from element at on.
func store(c *schemas.Column, at int, values []float64) {
	switch c.Field().Type {
	case schemas.Float16:
		d := schemas.Values[uint16](c)[at:]
		for i, x := range values {
			d[i] = schemas.Float16Bits(quiet(x))
		}
	case schemas.Float32:
		d := schemas.Values[float32](c)[at:]
		for i, x := range values {
			d[i] = float32(quiet(x))
		}
	case schemas.Float64:
		d := schemas.Values[float64](c)[at:]
		for i, x := range values {
			d[i] = quiet(x)
		}
	}
}

// nan is the positive quiet NaN that columns hold; math.NaN is another.
var nan = math.Float64frombits(0x7ff8000000000000)

// quiet turns every NaN into the one.
func quiet(x float64) float64 {
	if x != x {
		return nan
	}
	return x
}

// medians appends the medians of rows.
func medians(dst *schemas.Column, vs []voter, from, to int) {
	switch vs[0].col.Field().Type {
	case schemas.Int8:
		middle[int8](dst, vs, from, to, false)
	case schemas.Int16:
		middle[int16](dst, vs, from, to, false)
	case schemas.Int32:
		middle[int32](dst, vs, from, to, false)
	case schemas.Int64:
		middle[int64](dst, vs, from, to, false)
	case schemas.Uint8:
		middle[uint8](dst, vs, from, to, false)
	case schemas.Uint16:
		middle[uint16](dst, vs, from, to, false)
	case schemas.Uint32:
		middle[uint32](dst, vs, from, to, false)
	case schemas.Uint64:
		middle[uint64](dst, vs, from, to, false)
	case schemas.Float16:
		middle[uint16](dst, vs, from, to, true)
	case schemas.Float32:
		middle[float32](dst, vs, from, to, false)
	case schemas.Float64:
		middle[float64](dst, vs, from, to, false)
	}
}

// middle makes medians of elements of type T, which are bits of float16 if half.
func middle[T schemas.Fixed](dst *schemas.Column, vs []voter, from, to int, half bool) {
	w := dst.Width()
	at := dst.Rows() * w
	dst.Extend(to - from)
	var views [MaxMembers][]T
	for i, v := range vs {
		views[i] = schemas.Values[T](v.col)
	}
	var out [chunk]float64
	var sorted [MaxMembers]float64
	for e, end := from*w, to*w; e < end; {
		o := out[:min(chunk, end-e)]
		for k := range o {
			x := sorted[:0]
			for i := range vs {
				v := float64(views[i][e+k])
				if half {
					v = schemas.Float16Value(uint16(views[i][e+k]))
				}
				if v != v {
					x = append(x[:0], nan)
					break
				}
				// Insertion: ensembles are small, and equal values stay in the order of the spec.
				j := len(x)
				x = x[:j+1]
				for ; j > 0 && x[j-1] > v; j-- {
					x[j] = x[j-1]
				}
				x[j] = v
			}
			o[k] = x[len(x)/2]
			if len(x)%2 == 0 {
				o[k] = (x[len(x)/2-1] + x[len(x)/2]) / 2
			}
		}
		store(dst, at, o)
		at += len(o)
		e += len(o)
	}
}

// maxima appends the maxima of rows.
func maxima(dst *schemas.Column, vs []voter, from, to int) {
	switch dst.Field().Type {
	case schemas.Int8:
		largest[int8](dst, vs, from, to)
	case schemas.Int16:
		largest[int16](dst, vs, from, to)
	case schemas.Int32:
		largest[int32](dst, vs, from, to)
	case schemas.Int64, schemas.Timestamp:
		largest[int64](dst, vs, from, to)
	case schemas.Uint8, schemas.Bool:
		largest[uint8](dst, vs, from, to)
	case schemas.Uint16:
		largest[uint16](dst, vs, from, to)
	case schemas.Uint32:
		largest[uint32](dst, vs, from, to)
	case schemas.Uint64:
		largest[uint64](dst, vs, from, to)
	case schemas.Float32:
		for i, v := range largest[float32](dst, vs, from, to) {
			if v != v {
				schemas.Values[uint32](dst)[dst.Rows()*dst.Width()-(to-from)*dst.Width()+i] = 0x7fc00000
			}
		}
	case schemas.Float64:
		for i, v := range largest[float64](dst, vs, from, to) {
			if v != v {
				schemas.Values[uint64](dst)[dst.Rows()*dst.Width()-(to-from)*dst.Width()+i] = 0x7ff8000000000000
			}
		}
	case schemas.Float16:
		largestHalf(dst, vs, from, to)
	}
}

// largest appends maxima and returns them where they lie. max is Go's: a NaN makes it NaN, and 0 is more than -0.
func largest[T schemas.Fixed](dst *schemas.Column, vs []voter, from, to int) []T {
	w := dst.Width()
	at := dst.Rows() * w
	dst.Extend(to - from)
	out := schemas.Values[T](dst)[at:]
	copy(out, schemas.Values[T](vs[0].col)[from*w:to*w])
	for _, v := range vs[1:] {
		for i, x := range schemas.Values[T](v.col)[from*w : to*w] {
			out[i] = max(out[i], x)
		}
	}
	return out
}

func largestHalf(dst *schemas.Column, vs []voter, from, to int) {
	w := dst.Width()
	at := dst.Rows() * w
	dst.Extend(to - from)
	out := schemas.Values[uint16](dst)[at:]
	for i := range out {
		x := math.Inf(-1)
		for _, v := range vs {
			x = max(x, schemas.Float16Value(schemas.Values[uint16](v.col)[from*w+i]))
		}
		out[i] = schemas.Float16Bits(quiet(x))
	}
}
