package expr

import (
	"math"
	"regexp"
	"strings"

	"github.com/google/cel-go/common/ast"
)

func logic(and bool) lowering {
	return func(c *compiler, _ ast.Expr, _ []ast.Expr, args []*value) *value {
		return c.emit(op{name: "logic", key: and, t: scalar(kBool), own: true, run: logicKernel(and)}, args...)
	}
}

func not(c *compiler, _ ast.Expr, _ []ast.Expr, args []*value) *value {
	return c.emit(op{name: "not", t: scalar(kBool), run: notKernel}, args...)
}

func negation(c *compiler, e ast.Expr, _ []ast.Expr, args []*value) *value {
	t := args[0].t
	o := op{name: "neg", t: t}
	switch t.kind {
	case kDouble:
		o.run = negFloat
	case kInt, kDuration:
		o.run = negInt(c.site(e, "integer overflow"))
	default:
		return nil
	}
	return c.emit(o, args...)
}

// arithmetic is + - * / %, and + of texts and lists.
func arithmetic(c *compiler, e ast.Expr, _ []ast.Expr, args []*value) *value {
	name := e.AsCall().FunctionName()
	a, b := args[0].t, args[1].t
	o := op{name: name + " " + a.String() + b.String(), t: a}
	sym := name[1]
	switch {
	case a.list:
		if !b.list || a.kind != b.kind {
			return nil
		}
		o.t, o.dtype = listOf(a.kind, a.w+b.w), commonType(args...)
		o.run = joinKernel(a.kind.class(), a.w, b.w)
	case a.kind.class() == cText:
		o.run = concatKernel(c.site(e, "text of more than 1 MiB"))
	case a.kind == kDouble:
		o.run = arithFloat(sym)
	case a.kind == kInt && (sym == '/' || sym == '%'):
		o.run = divInt(sym, c.site(e, "division by zero"), c.site(e, "integer overflow"))
	case a.kind == kUint:
		o.run = arithUint(sym, c.site(e, "division by zero"), c.site(e, "integer overflow"))
	case a.kind == kInt:
		o.run = arithInt(sym, c.site(e, "integer overflow"))
	default: // times and durations
		o.run = arithInt(sym, c.site(e, "a time out of range (years 1678 to 2262)"))
		switch {
		case a.kind == kTime && b.kind == kTime:
			o.t = scalar(kDuration)
		case a.kind == kTime || b.kind == kTime:
			o.t = scalar(kTime)
		}
	}
	return c.emit(o, args...)
}

// double makes a double of a number, or a list of doubles of a list.
func (c *compiler) double(v *value) *value {
	if v.t.kind == kDouble {
		return v
	}
	t := v.t
	t.kind = kDouble
	return c.emit(op{name: "double " + v.t.String(), t: t, run: toDouble(v.t.kind)}, v)
}

func comparison(c *compiler, e ast.Expr, _ []ast.Expr, args []*value) *value {
	name := strings.Trim(e.AsCall().FunctionName(), "_")
	a, b := args[0], args[1]
	if a.t.kind == kNull || b.t.kind == kNull {
		if a.t.kind == kNull {
			a, b = b, a
		}
		if a.t.kind == kNull {
			return c.constant(scalar(kBool), vec{b: []bool{name == "=="}})
		}
		return c.present(a, name == "!=")
	}
	if a.t.list {
		return c.listEquality(a, b, name == "==")
	}
	if a.t.kind != b.t.kind && (a.t.kind == kDouble || b.t.kind == kDouble) {
		a, b = c.double(a), c.double(b)
	}
	o := op{name: name + " " + a.t.String() + b.t.String(), t: scalar(kBool)}
	if a.t.kind != b.t.kind {
		o.run = compareMixed(name, a.t.kind == kUint)
		return c.emit(o, a, b)
	}
	if name[0] == '>' {
		name, a, b = "<"+name[1:], b, a
		o.name = name + " " + a.t.String()
	}
	switch a.t.kind.class() {
	case cBool:
		o.run = compareBools(name)
	case cInt:
		o.run = compare(name, gi)
	case cUint:
		o.run = compare(name, gu)
	case cFloat:
		o.run = compare(name, gf)
	case cText:
		o.run = compare(name, gs)
	}
	return c.emit(o, a, b)
}

// unify gives the values one type: what is null becomes the null of the type, and lists must be of one length.
func (c *compiler) unify(exprs []ast.Expr, vs []*value) bool {
	var t typ
	for _, v := range vs {
		if v.t.kind != kNull {
			t = v.t
			break
		}
	}
	if t.kind == kNull {
		return false
	}
	for i, v := range vs {
		switch {
		case v.t.kind == kNull:
			vs[i] = c.null(t)
		case v.t.list && t.list && v.t.kind == t.kind && v.t.w != t.w:
			c.fail(exprs[i], "a list of %d elements beside one of %d: both must have one length", v.t.w, t.w)
		case v.t != t:
			return false
		}
	}
	return true
}

func choice(c *compiler, _ ast.Expr, exprs []ast.Expr, args []*value) *value {
	if !c.unify(exprs[1:], args[1:]) {
		return nil
	}
	cond, a, b := args[0], args[1], args[2]
	if cond.con != nil && cond.con.st == nil {
		if cond.con.b[0] {
			return a
		}
		return b
	}
	return c.emit(op{name: "?:", t: a.t, own: true, dtype: commonType(a, b), run: choiceKernel(a.t.kind.class(), a.t.w)}, cond, a, b)
}

func coalesce(c *compiler, _ ast.Expr, exprs []ast.Expr, args []*value) *value {
	if !c.unify(exprs, args) {
		return nil
	}
	v, d := args[0], commonType(args...)
	for _, next := range args[1:] {
		nullable := v.nullable && next.nullable
		v = c.emit(op{name: "coalesce", t: v.t, own: true, dtype: d, run: coalesceKernel(v.t.kind.class(), v.t.w)}, v, next)
		if v.con == nil {
			v.nullable = nullable
		}
	}
	return v
}

func size(c *compiler, _ ast.Expr, _ []ast.Expr, args []*value) *value {
	v := args[0]
	o := op{name: "size " + v.t.String(), t: scalar(kInt)}
	switch {
	case v.t.list && v.t.w == 0:
		return c.constant(scalar(kInt), vec{i: []int64{0}})
	case v.t.list && v.col != nil: // the elements need no loading
		o.key, o.own, o.nullable = [2]int{v.side, v.col.column}, true, v.nullable
		o.run = columnSize(v.side, v.col.column, v.t.w)
		return c.emit(o)
	case v.t.list:
		o.run = listSize(v.t.w)
	case v.t.kind == kString:
		o.run = runes
	default:
		o.run = bytesSize
	}
	return c.emit(o, v)
}

func textTest(c *compiler, e ast.Expr, _ []ast.Expr, args []*value) *value {
	name := e.AsCall().FunctionName()
	f := map[string]func(string, string) bool{"startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix, "contains": strings.Contains}[name]
	return c.emit(op{name: name, t: scalar(kBool), run: testTexts(f)}, args...)
}

// text is the constant text that an argument must be.
func (c *compiler) text(e ast.Expr, v *value, what string) string {
	if v.con == nil || v.con.st != nil || v.t.kind != kString {
		c.fail(e, "%s must be a constant text", what)
	}
	return v.con.s[0]
}

func matches(c *compiler, _ ast.Expr, exprs []ast.Expr, args []*value) *value {
	pattern := c.text(exprs[1], args[1], "the pattern")
	re, err := regexp.Compile(pattern)
	if err != nil {
		c.fail(exprs[1], "the pattern: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return c.emit(op{name: "matches", key: args[1].key, t: scalar(kBool), run: matchTexts(re)}, args[0])
}

func letterCase(c *compiler, e ast.Expr, _ []ast.Expr, args []*value) *value {
	name := e.AsCall().FunctionName()
	return c.emit(op{name: name, t: scalar(kString), run: caseKernel(name == "upperAscii")}, args...)
}

func absolute(c *compiler, e ast.Expr, _ []ast.Expr, args []*value) *value {
	o := op{name: "abs", t: args[0].t, run: mapFloat(math.Abs)}
	if args[0].t.kind == kInt {
		o.run = absInt(c.site(e, "integer overflow"))
	}
	return c.emit(o, args...)
}

func real(c *compiler, e ast.Expr, _ []ast.Expr, args []*value) *value {
	name := e.AsCall().FunctionName()
	f := map[string]func(float64) float64{"floor": math.Floor, "ceil": math.Ceil, "round": math.Round, "sqrt": math.Sqrt, "log": math.Log, "exp": math.Exp}[name]
	return c.emit(op{name: name, t: scalar(kDouble), run: mapFloat(f)}, c.double(args[0]))
}

func power(c *compiler, _ ast.Expr, _ []ast.Expr, args []*value) *value {
	return c.emit(op{name: "pow", t: scalar(kDouble), run: powKernel}, c.double(args[0]), c.double(args[1]))
}

func isNaN(c *compiler, _ ast.Expr, _ []ast.Expr, args []*value) *value {
	return c.emit(op{name: "is_nan", t: scalar(kBool), run: nanKernel}, args...)
}

func clamp(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value {
	const text = "clamp: the lower bound is above the upper one"
	site, lo, hi := c.site(e, text), args[1].con, args[2].con
	o := op{name: "clamp", t: args[0].t, dtype: commonType(args...)}
	ordered := true
	known := lo != nil && hi != nil && lo.st == nil && hi.st == nil
	switch o.t.kind {
	case kInt:
		o.run = clampKernel(gi, site)
		ordered = !known || lo.i[0] <= hi.i[0]
	case kUint:
		o.run = clampKernel(gu, site)
		ordered = !known || lo.u[0] <= hi.u[0]
	default:
		o.run = clampKernel(gf, site)
		ordered = !known || lo.f[0] <= hi.f[0]
	}
	if !ordered {
		c.fail(exprs[1], text)
	}
	return c.emit(o, args...)
}
