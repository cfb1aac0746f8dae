package expr

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/common/ast"
	"github.com/leatstream/leat/schemas"
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

func membership(c *compiler, _ ast.Expr, _ []ast.Expr, args []*value) *value {
	x, list := args[0], args[1]
	if list.t.w == 0 {
		return c.emit(op{name: "same", key: false, t: scalar(kBool), run: sameKernel(false)}, x)
	}
	if x.t.kind != list.t.kind {
		x, list = c.double(x), c.double(list)
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

// casts says what the conversions make.
var casts = map[string]struct {
	kind  kind
	dtype schemas.DType
}{
	"bool": {kBool, schemas.Bool}, "int": {kInt, schemas.Int64}, "int32": {kInt, schemas.Int32}, "uint": {kUint, schemas.Uint64},
	"double": {kDouble, schemas.Float64}, "float32": {kDouble, schemas.Float32}, "string": {kString, schemas.String},
	"bytes": {kBytes, schemas.Binary}, "timestamp": {kTime, schemas.Timestamp}, "duration": {kDuration, 0},
}

// holds lists the types all of whose values the narrow results hold.
var holds = map[schemas.DType][]schemas.DType{
	schemas.Int32:   {schemas.Int8, schemas.Int16, schemas.Int32},
	schemas.Float32: {schemas.Float16, schemas.Float32},
}

func cast(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value {
	name, v := e.AsCall().FunctionName(), args[0]
	to := casts[name]
	narrow := holds[to.dtype]
	if v.t.kind == to.kind && (narrow == nil || slices.Contains(narrow, v.dtype)) {
		same := *v // the same values, said to be of another type
		same.reg = c.lazy(v)
		same.dtype = to.dtype
		return &same
	}
	if to.kind == kDuration {
		d, err := time.ParseDuration(c.text(exprs[0], v, "a duration"))
		if err != nil {
			c.fail(exprs[0], `%q is no duration; want one such as "1h30m"`, v.con.s[0])
		}
		return c.constant(scalar(kDuration), vec{i: []int64{int64(d)}})
	}
	run := castKernel(v.t.kind, to.kind, to.dtype, v.t.w, func(text string) state { return c.site(e, text) })
	if run == nil {
		return nil
	}
	t := v.t
	t.kind = to.kind
	return c.emit(op{name: name + " " + v.t.String(), t: t, dtype: to.dtype, run: run}, v)
}

// lazy is the register of a value that may not be loaded yet.
func (c *compiler) lazy(v *value) int {
	if v.con != nil || v.col != nil {
		return v.reg
	}
	return c.reg(v)
}

func timeField(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value {
	name := e.AsCall().FunctionName()
	if args[0].t.kind == kDuration {
		unit := map[string]int64{"getHours": int64(time.Hour), "getMinutes": int64(time.Minute), "getSeconds": int64(time.Second), "getMilliseconds": int64(time.Millisecond)}[name]
		if unit == 0 {
			return nil
		}
		return c.emit(op{name: name + " duration", t: scalar(kInt), run: durationField(unit)}, args...)
	}
	var offset int64
	if len(args) == 2 {
		z := c.text(exprs[1], args[1], "the time zone")
		var ok bool
		if offset, ok = zone(z); !ok {
			c.fail(exprs[1], `time zone %q: want "UTC" or an offset such as "+02:00"; what a named zone means differs between machines`, z)
		}
	}
	return c.emit(op{name: name, key: offset, t: scalar(kInt), run: timeKernel(timeFields[name], offset)}, args[0])
}

// zone reads UTC, +hh:mm, -hh:mm or hh:mm as nanoseconds east of UTC.
func zone(s string) (int64, bool) {
	if s == "UTC" || s == "Z" {
		return 0, true
	}
	sign := int64(1)
	switch {
	case strings.HasPrefix(s, "-"):
		sign, s = -1, s[1:]
	case strings.HasPrefix(s, "+"):
		s = s[1:]
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != 5 {
		return 0, false
	}
	return sign * int64(time.Duration(t.Hour())*time.Hour+time.Duration(t.Minute())*time.Minute), true
}
