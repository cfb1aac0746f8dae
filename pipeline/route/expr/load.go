package expr

import (
	"math"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// stored is the set of Go types that number columns are seen as; float16 is read apart.
type stored interface {
	int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64
}

// loadNulls gives a register the nulls of a column's rows.
func loadNulls(fr *frame, d *register, c *schemas.Column) {
	if c.Nulls() == 0 {
		return
	}
	st := d.states(fr.n)
	for i := range st {
		if c.IsNull(fr.from + i) {
			st[i] = stNull
		}
	}
}

// loadKernel reads a column. What lies in memory as a register does is not copied (alias).
func loadKernel(side, col int, d schemas.DType, w int) (run kernel, alias bool) {
	load := func(set func(fr *frame, d *register, c *schemas.Column)) kernel {
		return func(fr *frame, d *register, _ []*register) {
			c := fr.side[side].Column(col)
			loadNulls(fr, d, c)
			set(fr, d, c)
		}
	}
	switch d {
	case schemas.Int64, schemas.Timestamp:
		return load(func(fr *frame, d *register, c *schemas.Column) {
			d.i = schemas.Values[int64](c)[fr.from*w : (fr.from+fr.n)*w]
		}), true
	case schemas.Uint64:
		return load(func(fr *frame, d *register, c *schemas.Column) {
			d.u = schemas.Values[uint64](c)[fr.from*w : (fr.from+fr.n)*w]
		}), true
	case schemas.Float64:
		return load(func(fr *frame, d *register, c *schemas.Column) {
			d.f = schemas.Values[float64](c)[fr.from*w : (fr.from+fr.n)*w]
		}), true
	case schemas.Int8:
		return load(widen[int8](gi, w)), false
	case schemas.Int16:
		return load(widen[int16](gi, w)), false
	case schemas.Int32:
		return load(widen[int32](gi, w)), false
	case schemas.Uint8:
		return load(widen[uint8](gu, w)), false
	case schemas.Uint16:
		return load(widen[uint16](gu, w)), false
	case schemas.Uint32:
		return load(widen[uint32](gu, w)), false
	case schemas.Float32:
		return load(widen[float32](gf, w)), false
	case schemas.Float16:
		return load(func(fr *frame, d *register, c *schemas.Column) {
			for i, h := range schemas.Values[uint16](c)[fr.from*w : (fr.from+fr.n)*w] {
				d.f[i] = schemas.Float16Value(h)
			}
		}), false
	case schemas.Bool:
		return load(func(fr *frame, d *register, c *schemas.Column) {
			for i, b := range c.Data()[fr.from*w : (fr.from+fr.n)*w] {
				d.b[i] = b != 0
			}
		}), false
	}
	return load(func(fr *frame, d *register, c *schemas.Column) {
		data, off := c.Data(), c.Offsets()[fr.from*w:]
		for i := range d.s {
			d.s[i] = textAt(data, off[i], off[i+1])
		}
	}), false
}

func textAt(data []byte, from, to int32) string {
	if from == to {
		return ""
	}
	return unsafe.String(&data[from], int(to-from))
}

func widen[T stored, K int64 | uint64 | float64](get func(*register) []K, w int) func(fr *frame, d *register, c *schemas.Column) {
	return func(fr *frame, d *register, c *schemas.Column) {
		src := schemas.Values[T](c)[fr.from*w : (fr.from+fr.n)*w]
		dst := get(d)[:len(src)]
		for i, v := range src {
			dst[i] = K(v)
		}
	}
}

// elementKernel reads element e of each row of a column of lists.
func elementKernel(side, col int, d schemas.DType, w, e int) kernel {
	load := func(set func(fr *frame, d *register, c *schemas.Column)) kernel {
		return func(fr *frame, d *register, _ []*register) {
			c := fr.side[side].Column(col)
			loadNulls(fr, d, c)
			set(fr, d, c)
		}
	}
	switch d {
	case schemas.Int8:
		return load(pluck[int8](gi, w, e))
	case schemas.Int16:
		return load(pluck[int16](gi, w, e))
	case schemas.Int32:
		return load(pluck[int32](gi, w, e))
	case schemas.Int64, schemas.Timestamp:
		return load(pluck[int64](gi, w, e))
	case schemas.Uint8:
		return load(pluck[uint8](gu, w, e))
	case schemas.Uint16:
		return load(pluck[uint16](gu, w, e))
	case schemas.Uint32:
		return load(pluck[uint32](gu, w, e))
	case schemas.Uint64:
		return load(pluck[uint64](gu, w, e))
	case schemas.Float32:
		return load(pluck[float32](gf, w, e))
	case schemas.Float64:
		return load(pluck[float64](gf, w, e))
	case schemas.Float16:
		return load(func(fr *frame, d *register, c *schemas.Column) {
			src := schemas.Values[uint16](c)[fr.from*w : (fr.from+fr.n)*w]
			for i := range d.f {
				d.f[i] = schemas.Float16Value(src[i*w+e])
			}
		})
	case schemas.Bool:
		return load(func(fr *frame, d *register, c *schemas.Column) {
			src := c.Data()[fr.from*w : (fr.from+fr.n)*w]
			for i := range d.b {
				d.b[i] = src[i*w+e] != 0
			}
		})
	}
	return load(func(fr *frame, d *register, c *schemas.Column) {
		data, off := c.Data(), c.Offsets()[fr.from*w:]
		for i := range d.s {
			d.s[i] = textAt(data, off[i*w+e], off[i*w+e+1])
		}
	})
}

func pluck[T stored, K int64 | uint64 | float64](get func(*register) []K, w, e int) func(fr *frame, d *register, c *schemas.Column) {
	return func(fr *frame, d *register, c *schemas.Column) {
		src := schemas.Values[T](c)[fr.from*w : (fr.from+fr.n)*w]
		dst := get(d)
		for i := range dst {
			dst[i] = K(src[i*w+e])
		}
	}
}

// hasKernel is whether a column's rows are not null (want) or are.
func hasKernel(side, col int, want bool) kernel {
	return func(fr *frame, d *register, _ []*register) {
		c := fr.side[side].Column(col)
		for i := range d.b {
			d.b[i] = c.IsNull(fr.from+i) != want
		}
	}
}

// columnSize is the size of a column of lists: known, unless the row is null.
func columnSize(side, col, w int) kernel {
	return func(fr *frame, d *register, _ []*register) {
		loadNulls(fr, d, fr.side[side].Column(col))
		for i := range d.i {
			d.i[i] = int64(w)
		}
	}
}

// reduceColumn is reduceKernel over a column's own memory.
func reduceColumn(name string, side, col int, d schemas.DType, w int, overflow state) kernel {
	switch d {
	case schemas.Int8:
		return overColumn[int8](name, side, col, gi, w, overflow)
	case schemas.Int16:
		return overColumn[int16](name, side, col, gi, w, overflow)
	case schemas.Int32:
		return overColumn[int32](name, side, col, gi, w, overflow)
	case schemas.Int64:
		return overColumn[int64](name, side, col, gi, w, overflow)
	case schemas.Uint8:
		return overColumn[uint8](name, side, col, gu, w, overflow)
	case schemas.Uint16:
		return overColumn[uint16](name, side, col, gu, w, overflow)
	case schemas.Uint32:
		return overColumn[uint32](name, side, col, gu, w, overflow)
	case schemas.Uint64:
		return overColumn[uint64](name, side, col, gu, w, overflow)
	case schemas.Float32:
		return overColumn[float32](name, side, col, gf, w, overflow)
	}
	return overColumn[float64](name, side, col, gf, w, overflow)
}

func overColumn[T stored, K int64 | uint64 | float64](name string, side, col int, get func(*register) []K, w int, overflow state) kernel {
	reduce := reducer[T](name, get, w, overflow)
	return func(fr *frame, d *register, _ []*register) {
		c := fr.side[side].Column(col)
		loadNulls(fr, d, c)
		reduce(fr, d, schemas.Values[T](c)[fr.from*w:(fr.from+fr.n)*w])
	}
}

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
func store(fr *frame, r *register, k kind, w, n int, dst *schemas.Column) []state {
	d := dst.Field().Type
	check(fr, r, k, d, w, n)
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
func check(fr *frame, r *register, k kind, d schemas.DType, w, n int) {
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
