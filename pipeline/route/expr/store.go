package expr

import (
	"math"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// exact reports whether a narrow type holds a constant exactly.
func exact(v *vec, d schemas.DType) bool {
	for _, f := range v.f {
		if _, ok := fitFloat(f, d); !ok {
			return false
		}
		if g, _ := fitFloat(f, d); math.Float64bits(g) != math.Float64bits(f) {
			return false
		}
	}
	for _, i := range v.i {
		if !fitInt(i, d) {
			return false
		}
	}
	for _, u := range v.u {
		if !fitUint(u, d) {
			return false
		}
	}
	return true
}

// fitFloat rounds to a float type; a finite number that becomes infinite does not fit.
func fitFloat(f float64, d schemas.DType) (float64, bool) {
	g := f
	switch d {
	case schemas.Float16:
		g = schemas.Float16Value(schemas.Float16Bits(f))
	case schemas.Float32:
		g = float64(float32(f))
	}
	return g, !math.IsInf(g, 0) || math.IsInf(f, 0)
}

func fitInt(i int64, d schemas.DType) bool {
	if d >= schemas.Uint8 && d <= schemas.Uint64 {
		return i >= 0 && fitUint(uint64(i), d)
	}
	bits := 8*d.Size() - 1
	return i>>bits == 0 || i>>bits == -1
}

func fitUint(u uint64, d schemas.DType) bool {
	bits := 8 * d.Size()
	if d >= schemas.Int8 && d <= schemas.Int64 {
		bits--
	}
	return bits >= 64 || u>>bits == 0
}

// store appends the rows of a register to a column and returns their states, nil if all are there. Rows that are not are
// appended as nulls.
func store(fr *frame, r *register, from *schemas.Field, n int, dst *schemas.Column) []state {
	d, k, w := dst.Field().Type, kindOf(from.Type), from.Width()
	if d != from.Type { // what has the type already fits it
		check(fr, r, k, d, w)
	}
	if k.class() == cText {
		storeText(fr, r, w, n, dst)
		return r.st
	}
	if r.st == nil {
		put(r, d, 0, n*w, dst.Extend(n))
		return nil
	}
	for i := range n {
		if r.st[i] != stOK {
			dst.AppendNull()
		} else {
			put(r, d, i*w, (i+1)*w, dst.Extend(1))
		}
	}
	return r.st
}

// check marks rows that a narrower type does not hold.
func check(fr *frame, r *register, k kind, d schemas.DType, w int) {
	switch {
	case k == kInt && d != schemas.Int64:
		for i, v := range r.i {
			if !fitInt(v, d) {
				r.fail(fr, i/w, stUnfit)
			}
		}
	case k == kUint && d != schemas.Uint64:
		for i, v := range r.u {
			if !fitUint(v, d) {
				r.fail(fr, i/w, stUnfit)
			}
		}
	case k == kDouble && d != schemas.Float64:
		for i, v := range r.f {
			if _, ok := fitFloat(v, d); !ok {
				r.fail(fr, i/w, stUnfit)
			}
		}
	}
}

// put writes elements [from, to) of a register as d into buf.
func put(r *register, d schemas.DType, from, to int, buf []byte) {
	switch kindOf(d).class() {
	case cBool:
		for i, b := range r.b[from:to] {
			buf[i] = 0
			if b {
				buf[i] = 1
			}
		}
		return
	case cFloat:
		f := r.f[from:to]
		switch d {
		case schemas.Float32:
			as(f, buf, func(v float64) float32 { return float32(v) })
		case schemas.Float16:
			as(f, buf, schemas.Float16Bits)
		default:
			copy(view[float64](buf, len(f)), f)
		}
		return
	}
	if r.u != nil {
		putInts(r.u[from:to], d, buf)
	} else {
		putInts(r.i[from:to], d, buf)
	}
}

func putInts[K int64 | uint64](v []K, d schemas.DType, buf []byte) {
	switch d.Size() {
	case 1:
		as(v, buf, func(k K) uint8 { return uint8(k) })
	case 2:
		as(v, buf, func(k K) uint16 { return uint16(k) })
	case 4:
		as(v, buf, func(k K) uint32 { return uint32(k) })
	default:
		as(v, buf, func(k K) uint64 { return uint64(k) })
	}
}

func as[K, T any](v []K, buf []byte, f func(K) T) {
	dst := view[T](buf, len(v))
	for i, k := range v {
		dst[i] = f(k)
	}
}

// view sees a column's new bytes as its elements; columns are aligned (schemas.Values does the same).
func view[T any](buf []byte, n int) []T {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(buf))), n)
}

func storeText(fr *frame, r *register, w, n int, dst *schemas.Column) {
	for i := range n {
		if r.st != nil && r.st[i] != stOK {
			dst.AppendNull()
			continue
		}
		size := 0
		for _, s := range r.s[i*w : (i+1)*w] {
			size += len(s)
		}
		if !textRoom(dst, size) {
			r.fail(fr, i, stFull)
			dst.AppendNull()
			continue
		}
		for _, s := range r.s[i*w : (i+1)*w] {
			dst.AppendString(s)
		}
		dst.EndRow()
	}
}

// textRoom reports whether a column takes n more bytes of text.
func textRoom(dst *schemas.Column, n int) bool { return n <= schemas.MaxText-len(dst.Data()) }
