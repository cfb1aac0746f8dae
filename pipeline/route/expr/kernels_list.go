package expr

import (
	"cmp"
	"slices"
)

// few is the size up to which a list is looked through from its start; beyond, it is hashed or halved.
const few = 8

// byClass picks the kernel of a class.
func byClass(cl class, b, i, u, f, s kernel) kernel {
	return [...]kernel{cBool: b, cInt: i, cUint: u, cFloat: f, cText: s}[cl]
}

func choiceKernel(cl class, w int) kernel {
	return byClass(cl, choose(gb, w), choose(gi, w), choose(gu, w), choose(gf, w), choose(gs, w))
}

// choose is ?:. The branch that is not taken does not matter, be it null or an error.
func choose[T any](get func(*register) []T, w int) kernel {
	return func(fr *frame, d *register, a []*register) {
		cond, x, y, z := a[0], get(a[1]), get(a[2]), get(d)
		if w == 1 {
			for i, c := range cond.b {
				if c {
					z[i] = x[i]
				} else {
					z[i] = y[i]
				}
			}
		} else {
			for i, c := range cond.b {
				from := y
				if c {
					from = x
				}
				copy(z[i*w:(i+1)*w], from[i*w:(i+1)*w])
			}
		}
		if cond.st == nil && a[1].st == nil && a[2].st == nil {
			return
		}
		st := d.states(fr.n)
		for i, c := range cond.b {
			taken := a[2].st
			if c {
				taken = a[1].st
			}
			switch {
			case cond.st != nil && cond.st[i] != stOK:
				st[i] = cond.st[i]
			case taken != nil:
				st[i] = taken[i]
			}
		}
	}
}

func coalesceKernel(cl class, w int) kernel {
	return byClass(cl, fallback(gb, w), fallback(gi, w), fallback(gu, w), fallback(gf, w), fallback(gs, w))
}

// fallback is coalesce of two: the second where the first is null. An error of the first stays one.
func fallback[T any](get func(*register) []T, w int) kernel {
	return func(fr *frame, d *register, a []*register) {
		x, y, z := get(a[0]), get(a[1]), get(d)
		copy(z, x)
		for i, s := range a[0].st {
			if s == stNull {
				copy(z[i*w:(i+1)*w], y[i*w:(i+1)*w])
				if a[1].st != nil {
					s = a[1].st[i]
				} else {
					s = stOK
				}
			}
			if s != stOK {
				d.states(fr.n)[i] = s
			}
		}
	}
}

func listKernel(cl class, w int) kernel {
	return byClass(cl, weave(gb, w), weave(gi, w), weave(gu, w), weave(gf, w), weave(gs, w))
}

// weave makes a list of scalars.
func weave[T any](get func(*register) []T, w int) kernel {
	return func(_ *frame, d *register, a []*register) {
		z := get(d)
		for e, r := range a {
			for i, v := range get(r) {
				z[i*w+e] = v
			}
		}
	}
}

func joinKernel(cl class, w1, w2 int) kernel {
	return byClass(cl, join(gb, w1, w2), join(gi, w1, w2), join(gu, w1, w2), join(gf, w1, w2), join(gs, w1, w2))
}

// join is + of lists.
func join[T any](get func(*register) []T, w1, w2 int) kernel {
	return func(fr *frame, d *register, a []*register) {
		x, y, z := get(a[0]), get(a[1]), get(d)
		for i := range fr.n {
			row := z[i*(w1+w2):]
			copy(row[:w1], x[i*w1:])
			copy(row[w1:w1+w2], y[i*w2:])
		}
	}
}

func stridedKernel(cl class, w, e int) kernel {
	return byClass(cl, strided(gb, w, e), strided(gi, w, e), strided(gu, w, e), strided(gf, w, e), strided(gs, w, e))
}

// strided is list[e] of an index known now.
func strided[T any](get func(*register) []T, w, e int) kernel {
	return func(_ *frame, d *register, a []*register) {
		x, z := get(a[0]), get(d)
		for i := range z {
			z[i] = x[i*w+e]
		}
	}
}

func indexKernel(cl class, w int, unsigned bool, site state) kernel {
	return byClass(cl, at(gb, w, unsigned, site), at(gi, w, unsigned, site), at(gu, w, unsigned, site), at(gf, w, unsigned, site), at(gs, w, unsigned, site))
}

// at is list[index].
func at[T any](get func(*register) []T, w int, unsigned bool, site state) kernel {
	return func(fr *frame, d *register, a []*register) {
		x, z := get(a[0]), get(d)
		for i := range z {
			var e uint64
			if unsigned {
				e = a[1].u[i]
			} else {
				e = uint64(a[1].i[i]) // a negative one is out of range, too
			}
			if e >= uint64(w) {
				var zero T
				z[i] = zero
				d.fail(fr, i, site)
				continue
			}
			z[i] = x[i*w+int(e)]
		}
	}
}

func equalLists[T comparable](get func(*register) []T, w int, want bool) kernel {
	return func(_ *frame, d *register, a []*register) {
		x, y := get(a[0]), get(a[1])
		for i := range d.b {
			d.b[i] = slices.Equal(x[i*w:(i+1)*w], y[i*w:(i+1)*w]) == want
		}
	}
}

// inSet is x in a constant list.
func inSet[T comparable](get func(*register) []T, list []T) kernel {
	if len(list) > few {
		set := make(map[T]struct{}, len(list))
		for _, v := range list {
			set[v] = struct{}{} // NaN is never found, as it equals nothing
		}
		return func(_ *frame, d *register, a []*register) {
			for i, v := range get(a[0]) {
				_, d.b[i] = set[v]
			}
		}
	}
	return func(_ *frame, d *register, a []*register) {
		for i, v := range get(a[0]) {
			d.b[i] = slices.Contains(list, v)
		}
	}
}

func inList[T comparable](get func(*register) []T, w int) kernel {
	return func(_ *frame, d *register, a []*register) {
		list := get(a[1])
		for i, v := range get(a[0]) {
			d.b[i] = slices.Contains(list[i*w:(i+1)*w], v)
		}
	}
}

func listSize(w int) kernel {
	return func(_ *frame, d *register, _ []*register) {
		for i := range d.i {
			d.i[i] = int64(w)
		}
	}
}

// reduceKernel is max, min, sum, mean and argmax of a list in a register.
func reduceKernel[T stored, K int64 | uint64 | float64](name string, list func(*register) []T, get func(*register) []K, w int, overflow state) kernel {
	reduce := reducer[T](name, get, w, overflow)
	return func(fr *frame, d *register, a []*register) { reduce(fr, d, list(a[0])) }
}

// reducer works on rows of w elements in any memory. A NaN makes max, min, sum and mean NaN, and argmax the index of the
// first NaN, as in NumPy. Sums run from the first element to the last, in the kind of the result.
func reducer[T stored, K int64 | uint64 | float64](name string, get func(*register) []K, w int, overflow state) func(fr *frame, d *register, src []T) {
	switch name {
	case "max":
		return func(_ *frame, d *register, src []T) {
			z := get(d)
			for i := range z {
				row := src[i*w : i*w+w]
				m := row[0]
				for _, v := range row[1:] {
					m = max(m, v)
				}
				z[i] = K(m)
			}
		}
	case "min":
		return func(_ *frame, d *register, src []T) {
			z := get(d)
			for i := range z {
				row := src[i*w : i*w+w]
				m := row[0]
				for _, v := range row[1:] {
					m = min(m, v)
				}
				z[i] = K(m)
			}
		}
	case "argmax":
		return func(_ *frame, d *register, src []T) {
			for i := range d.i {
				row := src[i*w : i*w+w]
				m, at := row[0], 0
				for e, v := range row[1:] {
					if v > m || v != v && m == m {
						m, at = v, e+1
					}
				}
				d.i[i] = int64(at)
			}
		}
	case "mean":
		return func(_ *frame, d *register, src []T) {
			for i := range d.f {
				s := 0.0
				for _, v := range src[i*w : i*w+w] {
					s += float64(v)
				}
				d.f[i] = s / float64(w)
			}
		}
	}
	return func(fr *frame, d *register, src []T) {
		z := get(d)
		for i := range z {
			var s K
			for _, v := range src[i*w : i*w+w] {
				k := K(v)
				n := s + k
				// Floats never come by here: overflow is 0 for them, and the order of s and n holds or is NaN.
				if overflow != 0 && (k >= 0) != (n >= s) {
					d.fail(fr, i, overflow)
				}
				s = n
			}
			z[i] = s
		}
	}
}

func ascending[T cmp.Ordered](vs []T) bool {
	for i, v := range vs {
		if v != v || i > 0 && vs[i-1] >= v {
			return false
		}
	}
	return true
}

// bucketKernel is the number of boundaries that are not above x.
func bucketKernel[T cmp.Ordered](get func(*register) []T, bounds []T, nan state) kernel {
	return func(fr *frame, d *register, a []*register) {
		for i, v := range get(a[0]) {
			if v != v {
				d.i[i] = 0
				d.fail(fr, i, nan)
				continue
			}
			n := 0
			if len(bounds) <= 2*few {
				for _, b := range bounds {
					if b <= v {
						n++
					}
				}
			} else {
				at, found := slices.BinarySearch(bounds, v)
				if n = at; found {
					n++
				}
			}
			d.i[i] = int64(n)
		}
	}
}

// oneHotKernel writes 1 at the place of x in the list and 0 elsewhere; all 0 for a value that is not in it.
func oneHotKernel[T comparable](get func(*register) []T, list []T) kernel {
	find := func(v T) int { return slices.Index(list, v) }
	if len(list) > few {
		places := make(map[T]int, len(list))
		for i, v := range list {
			places[v] = i
		}
		find = func(v T) int {
			if i, ok := places[v]; ok {
				return i
			}
			return -1
		}
	}
	w := len(list)
	return func(_ *frame, d *register, a []*register) {
		clear(d.f)
		for i, v := range get(a[0]) {
			if e := find(v); e >= 0 {
				d.f[i*w+e] = 1
			}
		}
	}
}
