package schemas

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// chunk is how many elements are cast at a time: small enough to stay in the first-level cache on the stack.
const chunk = 512

// fillFixed adds f.n rows to a fixed-size column.
func (c *Column) fillFixed(srcs []source, packed bool, f *faults) {
	base := c.rows
	out := c.Extend(f.n)
	for k := range srcs {
		s := &srcs[k]
		stride, elem := 1, 0
		if packed {
			stride, elem = c.width, k
		}
		if !c.cast(out[elem*c.size:], stride, s, f) {
			return
		}
	}
	for k := range srcs {
		if s := &srcs[k]; s.mayNull() && !c.fillNulls(base, s, k, packed, f) {
			return
		}
	}
}

// fillNulls marks rows of one source that are null, or elements of it that are.
func (c *Column) fillNulls(base int, s *source, k int, packed bool, f *faults) bool {
	for i := range f.n {
		if s.rowNull(i) {
			switch {
			case !c.field.Nullable:
				if !f.add(i, s.name, "null, but the column is not nullable") {
					return false
				}
			case !packed:
				c.setNull(base + i)
			case !c.missing((base+i)*c.width + k):
				if !f.add(i, s.name, "null, but %s has no value for a missing element", c.typ) {
					return false
				}
			}
			continue
		}
		if s.list == nil {
			continue
		}
		for e := range s.per {
			if s.elemNull(i*s.per+e) && (!c.field.Nullable || !c.missing((base+i)*c.width+e)) {
				if !f.add(i, s.name, "element %d is null", e) {
					return false
				}
				break
			}
		}
	}
	return true
}

// setNull makes row i, which is there, null.
func (c *Column) setNull(i int) {
	if c.nulls == 0 {
		c.valid = c.valid[:0]
		for k := 0; k < c.rows; k++ {
			c.setValid(k, true)
		}
	}
	if c.valid[i>>3]&(1<<(i&7)) != 0 {
		c.valid[i>>3] &^= 1 << (i & 7)
		c.nulls++
	}
	for e := i * c.width; e < (i+1)*c.width; e++ {
		if !c.missing(e) {
			clear(c.data[e*c.size : (e+1)*c.size])
		}
	}
}

// missing writes NaN to element e of a fixed-size column; false if the type has none.
func (c *Column) missing(e int) bool {
	switch c.typ {
	case Float16:
		Values[uint16](c)[e] = 0x7e00
	case Float32:
		Values[uint32](c)[e] = 0x7fc00000
	case Float64:
		Values[uint64](c)[e] = 0x7ff8000000000000
	default:
		return false
	}
	return true
}

// cast writes the elements of s to every stride-th element of out. Null elements become zero.
func (c *Column) cast(out []byte, stride int, s *source, f *faults) bool {
	n := f.n * s.per
	if s.arr.DataType().ID() == arrow.NULL {
		for e := range n {
			clear(out[e*stride*c.size:][:c.size])
		}
		return true
	}
	if c.copySame(out, stride, s, n) {
		return true
	}
	nulls := s.mayNull()
	var ints [chunk]int64
	var floats [chunk]float64
	for at := 0; at < n; at += chunk {
		m := min(chunk, n-at)
		isFloat, badAt := load(s.arr, s.at+at, ints[:m], floats[:m], c.typ)
		for badAt >= 0 {
			if !(nulls && s.dead(at+badAt)) && !f.add((at+badAt)/s.per, s.name, "the value does not fit %s", c.typ) {
				return false
			}
			ints[badAt], floats[badAt] = 0, 0
			next := badAt + 1
			if next >= m {
				break
			}
			_, b := load(s.arr, s.at+at+next, ints[next:m], floats[next:m], c.typ)
			if b < 0 {
				break
			}
			badAt = next + b
		}
		if nulls {
			for e := range m {
				if s.dead(at + e) {
					ints[e], floats[e] = 0, 0
				}
			}
		}
		for e := 0; e < m; {
			var b int
			dst := out[(at+e)*stride*c.size:]
			if isFloat {
				b = storeFloats(dst, c.typ, stride, floats[e:m])
			} else {
				b = storeInts(dst, c.typ, stride, ints[e:m])
			}
			if b < 0 {
				break
			}
			e += b
			var v any = ints[e]
			if isFloat {
				v = floats[e]
			}
			if !f.add((at+e)/s.per, s.name, "%s", misfit(v, c.typ)) {
				return false
			}
			clear(out[(at+e)*stride*c.size:][:c.size])
			e++
		}
	}
	return true
}

func misfit(v any, t DType) string {
	return fmt.Sprintf("%v cannot be a value of %s", v, t)
}

// copySame copies where the element types are equal, which is the usual case. What lies under nulls is overwritten by
// fillNulls.
func (c *Column) copySame(out []byte, stride int, s *source, n int) bool {
	if s.arr.DataType().ID() != c.typ.Arrow().ID() || c.typ == Bool || c.typ == Timestamp {
		return false
	}
	d := s.arr.Data()
	src := d.Buffers()[1].Bytes()[(d.Offset()+s.at)*c.size:][:n*c.size]
	if stride == 1 {
		copy(out, src)
		return true
	}
	switch c.size {
	case 1:
		strided[uint8](out, src, stride)
	case 2:
		strided[uint16](out, src, stride)
	case 4:
		strided[uint32](out, src, stride)
	case 8:
		strided[uint64](out, src, stride)
	}
	return true
}

func strided[T Fixed](out, src []byte, stride int) {
	d, s := as[T](out), as[T](src)
	for i, v := range s {
		d[i*stride] = v
	}
}

// as sees bytes as []T; a rest smaller than a T is cut.
func as[T Fixed](b []byte) []T {
	var z T
	n := len(b) / int(unsafe.Sizeof(z))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// load reads elements [at, at+len) into ints or floats and says which, and the first that cannot be read, -1 if none.
func load(a arrow.Array, at int, ints []int64, floats []float64, to DType) (isFloat bool, bad int) {
	n := len(ints)
	switch a := a.(type) {
	case *array.Boolean:
		for i := range n {
			ints[i] = 0
			if a.Value(at + i) {
				ints[i] = 1
			}
		}
	case *array.Int8:
		widen(ints, a.Int8Values()[at:])
	case *array.Int16:
		widen(ints, a.Int16Values()[at:])
	case *array.Int32:
		widen(ints, a.Int32Values()[at:])
	case *array.Int64:
		copy(ints, a.Int64Values()[at:])
	case *array.Uint8:
		widen(ints, a.Uint8Values()[at:])
	case *array.Uint16:
		widen(ints, a.Uint16Values()[at:])
	case *array.Uint32:
		widen(ints, a.Uint32Values()[at:])
	case *array.Uint64:
		return loadUint64(a.Uint64Values()[at:], ints, floats, to)
	case *array.Float16:
		for i := range n {
			floats[i] = Float16Value(a.Value(at + i).Uint16()) // Arrow's own Float32 is wrong for subnormal numbers
		}
		return true, -1
	case *array.Float32:
		for i, v := range a.Float32Values()[at : at+n] {
			floats[i] = float64(v)
		}
		return true, -1
	case *array.Float64:
		copy(floats, a.Float64Values()[at:])
		return true, -1
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		return false, scale(ints, a.TimestampValues()[at:], int64(unit.Multiplier()))
	case *array.Date32:
		return false, scale(ints, a.Date32Values()[at:], 86_400_000_000_000)
	case *array.Date64:
		return false, scale(ints, a.Date64Values()[at:], 1_000_000)
	case *array.Dictionary:
		return loadDictionary(a, at, ints, floats, to)
	}
	return false, -1
}

func widen[S ~int8 | ~int16 | ~int32 | ~uint8 | ~uint16 | ~uint32](dst []int64, src []S) {
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] = int64(v)
	}
}

// scale turns other units into nanoseconds.
func scale[S ~int32 | ~int64](dst []int64, src []S, by int64) int {
	for i := range dst {
		v := int64(src[i])
		if v > math.MaxInt64/by || v < math.MinInt64/by {
			return i
		}
		dst[i] = v * by
	}
	return -1
}

func loadUint64(src []uint64, ints []int64, floats []float64, to DType) (bool, int) {
	for i := range ints {
		v := src[i]
		if to.Float() {
			f := float64(v)
			if floats[i] = f; f >= 1<<64 || uint64(f) != v || !exactFloat(f, to) {
				return true, i
			}
			continue
		}
		if v > math.MaxInt64 { // Uint64 to Uint64 is copySame's
			return false, i
		}
		ints[i] = int64(v)
	}
	return to.Float(), -1
}

func loadDictionary(a *array.Dictionary, at int, ints []int64, floats []float64, to DType) (isFloat bool, bad int) {
	vals := a.Dictionary()
	for i := range ints {
		if a.IsNull(at + i) {
			continue
		}
		k := a.GetValueIndex(at + i)
		if k < 0 || k >= vals.Len() {
			return isFloat, i
		}
		if vals.IsNull(k) {
			continue
		}
		if isFloat, bad = load(vals, k, ints[i:i+1], floats[i:i+1], to); bad >= 0 {
			return isFloat, i
		}
	}
	id := vals.DataType().ID()
	return isFloat || id == arrow.FLOAT16 || id == arrow.FLOAT32 || id == arrow.FLOAT64 || id == arrow.UINT64 && to.Float(), -1
}

// exactFloat reports whether f is a value of the float type.
func exactFloat(f float64, t DType) bool {
	switch t {
	case Float32:
		return float64(float32(f)) == f
	case Float16:
		return Float16Value(Float16Bits(f)) == f
	}
	return true
}

// storeInts writes integers and returns the first that does not fit, -1 if all do.
func storeInts(out []byte, t DType, stride int, src []int64) int {
	switch t {
	case Bool:
		return narrow(as[uint8](out), stride, src, 0, 1)
	case Int8:
		return narrow(as[int8](out), stride, src, math.MinInt8, math.MaxInt8)
	case Int16:
		return narrow(as[int16](out), stride, src, math.MinInt16, math.MaxInt16)
	case Int32:
		return narrow(as[int32](out), stride, src, math.MinInt32, math.MaxInt32)
	case Int64, Timestamp:
		return narrow(as[int64](out), stride, src, math.MinInt64, math.MaxInt64)
	case Uint8:
		return narrow(as[uint8](out), stride, src, 0, math.MaxUint8)
	case Uint16:
		return narrow(as[uint16](out), stride, src, 0, math.MaxUint16)
	case Uint32:
		return narrow(as[uint32](out), stride, src, 0, math.MaxUint32)
	case Uint64:
		return narrow(as[uint64](out), stride, src, 0, math.MaxInt64)
	case Float32:
		d := as[float32](out)
		for i, v := range src {
			f := float32(v)
			if (v > 1<<24 || v < -1<<24) && !exactInt(float64(f), v) {
				return i
			}
			d[i*stride] = f
		}
	case Float64:
		d := as[float64](out)
		for i, v := range src {
			f := float64(v)
			if !exactInt(f, v) {
				return i
			}
			d[i*stride] = f
		}
	case Float16:
		d := as[uint16](out)
		for i, v := range src {
			h := Float16Bits(float64(v))
			if !exactInt(Float16Value(h), v) {
				return i
			}
			d[i*stride] = h
		}
	}
	return -1
}

func exactInt(f float64, v int64) bool { return f < 1<<63 && int64(f) == v }

func narrow[D Fixed](dst []D, stride int, src []int64, lo, hi int64) int {
	for i, v := range src {
		if v < lo || v > hi {
			return i
		}
		dst[i*stride] = D(v)
	}
	return -1
}

// storeFloats writes floats and returns the first that does not fit, -1 if all do.
func storeFloats(out []byte, t DType, stride int, src []float64) int {
	switch t {
	case Int8:
		return whole(as[int8](out), stride, src, math.MinInt8, 1<<7)
	case Int16:
		return whole(as[int16](out), stride, src, math.MinInt16, 1<<15)
	case Int32:
		return whole(as[int32](out), stride, src, math.MinInt32, 1<<31)
	case Int64:
		return whole(as[int64](out), stride, src, math.MinInt64, 1<<63)
	case Uint8:
		return whole(as[uint8](out), stride, src, 0, 1<<8)
	case Uint16:
		return whole(as[uint16](out), stride, src, 0, 1<<16)
	case Uint32:
		return whole(as[uint32](out), stride, src, 0, 1<<32)
	case Uint64:
		return whole(as[uint64](out), stride, src, 0, 1<<64)
	case Float32:
		d := as[float32](out)
		for i, v := range src {
			f := float32(v)
			if math.Abs(float64(f)) > math.MaxFloat32 && math.Abs(v) <= math.MaxFloat64 {
				return i
			}
			d[i*stride] = f
		}
	case Float64:
		d := as[float64](out)
		for i, v := range src {
			d[i*stride] = v
		}
	case Float16:
		d := as[uint16](out)
		for i, v := range src {
			h := Float16Bits(v)
			if h&0x7fff == 0x7c00 && math.Abs(v) <= math.MaxFloat64 {
				return i
			}
			d[i*stride] = h
		}
	}
	return -1
}

// whole writes floats that are integers of [lo, end).
func whole[D Fixed](dst []D, stride int, src []float64, lo, end float64) int {
	for i, v := range src {
		if !(v >= lo && v < end) || v != math.Trunc(v) {
			return i
		}
		dst[i*stride] = D(v)
	}
	return -1
}
