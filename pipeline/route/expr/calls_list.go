package expr

import (
	"fmt"
	"math"

	"github.com/google/cel-go/common/ast"
	"github.com/leatstream/leat/schemas"
)

func (c *compiler) listEquality(a, b *value, want bool) *value {
	switch {
	case !b.t.list || a.t.kind != b.t.kind:
		return nil
	case a.t.w != b.t.w:
		return c.emit(op{name: "same", key: !want, t: scalar(kBool), run: sameKernel(!want)}, a, b)
	}
	o := op{name: "list ==", key: want, t: scalar(kBool)}
	switch w := a.t.w; a.t.kind.class() {
	case cBool:
		o.run = equalLists(gb, w, want)
	case cInt:
		o.run = equalLists(gi, w, want)
	case cUint:
		o.run = equalLists(gu, w, want)
	case cFloat:
		o.run = equalLists(gf, w, want)
	case cText:
		o.run = equalLists(gs, w, want)
	}
	return c.emit(o, a, b)
}

// resigned is a constant list of int as one of uint, or the other way round, less what the other does not hold.
func (c *compiler) resigned(list *value) *value {
	var v vec
	if list.t.kind == kInt {
		v.u = make([]uint64, 0, list.t.w)
		for _, i := range list.con.i {
			if i >= 0 {
				v.u = append(v.u, uint64(i))
			}
		}
		return c.constant(listOf(kUint, len(v.u)), v)
	}
	v.i = make([]int64, 0, list.t.w)
	for _, u := range list.con.u {
		if u <= math.MaxInt64 {
			v.i = append(v.i, int64(u))
		}
	}
	return c.constant(listOf(kInt, len(v.i)), v)
}

func membership(c *compiler, _ ast.Expr, exprs []ast.Expr, args []*value) *value {
	x, list := args[0], args[1]
	if list.t.w == 0 {
		return c.emit(op{name: "same", key: false, t: scalar(kBool), run: sameKernel(false)}, x)
	}
	switch {
	case x.t.kind == list.t.kind:
	case x.t.kind == kDouble || list.t.kind == kDouble:
		x, list = c.double(x), c.double(list)
	default: // int and uint
		if list.con == nil {
			c.fail(exprs[1], "%s in a list of %s: want one type, write int(x) or uint(x)", x.t, list.t.kind)
		}
		if list = c.resigned(list); list.t.w == 0 {
			return c.emit(op{name: "same", key: false, t: scalar(kBool), run: sameKernel(false)}, x)
		}
	}
	o := op{name: "in " + x.t.String(), t: scalar(kBool)}
	if list.con != nil && list.con.st == nil {
		o.key = list.key
		switch x.t.kind.class() {
		case cBool:
			o.run = inSet(gb, list.con.b)
		case cInt:
			o.run = inSet(gi, list.con.i)
		case cUint:
			o.run = inSet(gu, list.con.u)
		case cFloat:
			o.run = inSet(gf, list.con.f)
		case cText:
			o.run = inSet(gs, list.con.s)
		}
		return c.emit(o, x)
	}
	switch w := list.t.w; x.t.kind.class() {
	case cBool:
		o.run = inList(gb, w)
	case cInt:
		o.run = inList(gi, w)
	case cUint:
		o.run = inList(gu, w)
	case cFloat:
		o.run = inList(gf, w)
	case cText:
		o.run = inList(gs, w)
	}
	return c.emit(o, x, list)
}

func index(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value {
	list, at := args[0], args[1]
	if !list.t.list {
		return nil
	}
	if at.con != nil && at.con.st == nil {
		i, ok := uint64(0), true
		if at.t.kind == kInt {
			i, ok = uint64(at.con.i[0]), at.con.i[0] >= 0
		} else {
			i = at.con.u[0]
		}
		if !ok || i >= uint64(list.t.w) {
			c.fail(exprs[1], "index out of range: the list has %d elements, 0 to %d", list.t.w, list.t.w-1)
		}
		return c.element(list, int(i))
	}
	site := c.site(e, fmt.Sprintf("index out of range: the list has %d elements, 0 to %d", list.t.w, list.t.w-1))
	return c.emit(op{name: "index " + at.t.String(), t: scalar(list.t.kind), dtype: list.dtype,
		run: indexKernel(list.t.kind.class(), list.t.w, at.t.kind == kUint, site)}, list, at)
}

// extreme is max and min, of a list or of two numbers.
func extreme(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value {
	if len(args) == 1 {
		return reduction(c, e, exprs, args)
	}
	greatest := e.AsCall().FunctionName() == "max"
	t := args[0].t
	o := op{name: "extreme " + t.String(), key: greatest, t: t, dtype: commonType(args...)}
	switch t.kind {
	case kInt:
		o.run = extremePair(gi, greatest)
	case kUint:
		o.run = extremePair(gu, greatest)
	default:
		o.run = extremePair(gf, greatest)
	}
	return c.emit(o, args...)
}

func reduction(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value {
	name, v := e.AsCall().FunctionName(), args[0]
	if !v.t.list || !v.t.kind.number() {
		return nil
	}
	o := op{name: name + " " + v.t.String(), t: scalar(v.t.kind)}
	switch name {
	case "mean":
		o.t = scalar(kDouble)
	case "argmax":
		o.t = scalar(kInt)
	case "max", "min":
		o.dtype = v.dtype
	}
	var overflow state
	if name == "sum" && v.t.kind != kDouble {
		overflow = c.site(e, "integer overflow")
	}
	if v.col != nil && v.reg < 0 && v.col.field.Type != schemas.Float16 { // straight from the column's memory
		o.key, o.nullable, o.own = [2]int{v.side, v.col.column}, v.nullable, true
		o.run = reduceColumn(name, v.side, v.col.column, v.col.field.Type, v.t.w, overflow)
		return c.emit(o)
	}
	switch v.t.kind {
	case kInt:
		o.run = reduceKernel(name, gi, gi, v.t.w, overflow)
	case kUint:
		o.run = reduceKernel(name, gu, gu, v.t.w, overflow)
	default:
		o.run = reduceKernel(name, gf, gf, v.t.w, overflow)
	}
	return c.emit(o, v)
}

func bucket(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value {
	x, bounds := args[0], args[1]
	if bounds.con == nil || bounds.con.st != nil {
		c.fail(exprs[1], "the boundaries must be constants")
	}
	if x.t.kind != bounds.t.kind {
		x, bounds = c.double(x), c.double(bounds)
	}
	o := op{name: "bucket " + x.t.String(), key: bounds.key, t: scalar(kInt)}
	rising := true
	switch x.t.kind {
	case kInt:
		rising, o.run = ascending(bounds.con.i), bucketKernel(gi, bounds.con.i, 0)
	case kUint:
		rising, o.run = ascending(bounds.con.u), bucketKernel(gu, bounds.con.u, 0)
	default:
		rising, o.run = ascending(bounds.con.f), bucketKernel(gf, bounds.con.f, c.site(e, "bucket: NaN is in no bucket"))
	}
	if !rising {
		c.fail(exprs[1], "the boundaries must rise")
	}
	return c.emit(o, x)
}

func oneHot(c *compiler, _ ast.Expr, exprs []ast.Expr, args []*value) *value {
	x, list := args[0], args[1]
	if list.con == nil || list.con.st != nil {
		c.fail(exprs[1], "the values must be constants")
	}
	o := op{name: "one_hot " + x.t.String(), key: list.key, t: listOf(kDouble, list.t.w)}
	unique := true
	switch x.t.kind.class() {
	case cBool:
		unique, o.run = distinct(list.con.b), oneHotKernel(gb, list.con.b)
	case cInt:
		unique, o.run = distinct(list.con.i), oneHotKernel(gi, list.con.i)
	case cUint:
		unique, o.run = distinct(list.con.u), oneHotKernel(gu, list.con.u)
	case cText:
		unique, o.run = distinct(list.con.s), oneHotKernel(gs, list.con.s)
	default:
		return nil
	}
	if !unique {
		c.fail(exprs[1], "one_hot: a value is named twice")
	}
	return c.emit(o, x)
}

func distinct[T comparable](vs []T) bool {
	seen := map[T]bool{}
	for _, v := range vs {
		seen[v] = true
	}
	return len(seen) == len(vs)
}
