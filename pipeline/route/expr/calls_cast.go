package expr

import (
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/common/ast"
	"github.com/leatstream/leat/schemas"
)

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
