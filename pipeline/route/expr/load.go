package expr

import (
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
	st, valid := d.states(fr.n), c.Validity()
	for i := range st { // no branch: nulls come at random
		at := fr.from + i
		st[i] = stNull * state(1&^(valid[at>>3]>>(at&7)))
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
