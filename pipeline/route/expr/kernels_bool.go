package expr

import (
	"cmp"
	"unsafe"
)

// compare is == != < <= of one type; floats as IEEE 754 has it: what is compared with NaN is false, != true.
func compare[T cmp.Ordered](name string, get func(*register) []T) kernel {
	switch name {
	case "==":
		return func(_ *frame, d *register, a []*register) {
			z := d.b
			x, y := get(a[0])[:len(z)], get(a[1])[:len(z)]
			for i := range z {
				z[i] = x[i] == y[i]
			}
		}
	case "!=":
		return func(_ *frame, d *register, a []*register) {
			z := d.b
			x, y := get(a[0])[:len(z)], get(a[1])[:len(z)]
			for i := range z {
				z[i] = x[i] != y[i]
			}
		}
	case "<":
		return func(_ *frame, d *register, a []*register) {
			z := d.b
			x, y := get(a[0])[:len(z)], get(a[1])[:len(z)]
			for i := range z {
				z[i] = x[i] < y[i]
			}
		}
	}
	return func(_ *frame, d *register, a []*register) {
		z := d.b
		x, y := get(a[0])[:len(z)], get(a[1])[:len(z)]
		for i := range z {
			z[i] = x[i] <= y[i]
		}
	}
}

// compareBools: false is less than true.
func compareBools(name string) kernel {
	return func(_ *frame, d *register, a []*register) {
		for i, x := range a[0].b {
			y := a[1].b[i]
			switch name {
			case "==":
				d.b[i] = x == y
			case "!=":
				d.b[i] = x != y
			case "<":
				d.b[i] = !x && y
			default:
				d.b[i] = !x || y
			}
		}
	}
}

// compareMixed compares an int and a uint by value; swapped: the uint is on the left.
func compareMixed(name string, swapped bool) kernel {
	return func(_ *frame, d *register, a []*register) {
		in, un := a[0], a[1]
		if swapped {
			in, un = un, in
		}
		for i := range d.b {
			c := -1
			if v := in.i[i]; v >= 0 {
				c = cmp.Compare(uint64(v), un.u[i])
			}
			if swapped {
				c = -c
			}
			switch name {
			case "==":
				d.b[i] = c == 0
			case "!=":
				d.b[i] = c != 0
			case "<":
				d.b[i] = c < 0
			case "<=":
				d.b[i] = c <= 0
			case ">":
				d.b[i] = c > 0
			default:
				d.b[i] = c >= 0
			}
		}
	}
}

func notKernel(_ *frame, d *register, a []*register) {
	for i, v := range a[0].b {
		d.b[i] = !v
	}
}

// logicKernel is && and ||, three-valued: a side that decides wins over a null and an error of the other.
func logicKernel(and bool) kernel {
	return func(fr *frame, d *register, a []*register) {
		x, y := a[0], a[1]
		z := d.b
		xb, yb := x.b[:len(z)], y.b[:len(z)]
		zs, xs, ys := bits8(z), bits8(xb), bits8(yb)
		if and {
			for i := range zs {
				zs[i] = xs[i] & ys[i]
			}
		} else {
			for i := range zs {
				zs[i] = xs[i] | ys[i]
			}
		}
		if x.st == nil && y.st == nil {
			return
		}
		st := d.states(fr.n)
		for i := range z {
			var sx, sy state
			if x.st != nil {
				sx = x.st[i]
			}
			if y.st != nil {
				sy = y.st[i]
			}
			switch {
			case sx == stOK && xb[i] != and, sy == stOK && yb[i] != and:
				z[i], st[i] = !and, stOK
			case sx != stOK || sy != stOK:
				z[i], st[i] = false, max(sx, sy)
			}
		}
	}
}

// bits8 sees bools as the bytes 0 and 1 that they are, so that & and | of them need no branch.
func bits8(b []bool) []uint8 {
	return unsafe.Slice((*uint8)(unsafe.Pointer(unsafe.SliceData(b))), len(b))
}

// presentKernel is whether values are not null (want) or are; errors stay.
func presentKernel(want bool) kernel {
	return func(fr *frame, d *register, a []*register) {
		for i := range d.b {
			d.b[i] = want
		}
		for i, s := range a[0].st {
			switch {
			case s == stNull:
				d.b[i] = !want
			case s >= stError:
				d.states(fr.n)[i] = s
			}
		}
	}
}

// sameKernel gives every row that is there the same bool.
func sameKernel(v bool) kernel {
	return func(_ *frame, d *register, _ []*register) {
		for i := range d.b {
			d.b[i] = v
		}
	}
}
