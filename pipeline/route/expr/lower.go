package expr

import (
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
)

// lower compiles a node and what is beneath it.
func (c *compiler) lower(e ast.Expr) *value {
	before := c.at
	c.at = e
	defer func() { c.at = before }()
	switch e.Kind() {
	case ast.LiteralKind:
		return c.literal(e)
	case ast.SelectKind:
		return c.selection(e)
	case ast.ListKind:
		return c.list(e)
	case ast.CallKind:
		return c.call(e)
	}
	c.fail(e, "this is not run here")
	return nil
}

func (c *compiler) literal(e ast.Expr) *value {
	switch v := e.AsLiteral().(type) {
	case types.Bool:
		return c.constant(scalar(kBool), vec{b: []bool{bool(v)}})
	case types.Int:
		return c.constant(scalar(kInt), vec{i: []int64{int64(v)}})
	case types.Uint:
		return c.constant(scalar(kUint), vec{u: []uint64{uint64(v)}})
	case types.Double:
		return c.constant(scalar(kDouble), vec{f: []float64{float64(v)}})
	case types.String:
		return c.constant(scalar(kString), vec{s: []string{string(v)}})
	case types.Bytes:
		return c.constant(scalar(kBytes), vec{s: []string{string(v)}})
	case types.Null:
		return c.null(scalar(kNull))
	}
	c.fail(e, "this constant is not run here")
	return nil
}

// selection is input.NAME, or has(input.NAME).
func (c *compiler) selection(e ast.Expr) *value {
	sel := e.AsSelect()
	side := 0
	if sel.Operand().AsIdent() == "output" {
		side = 1
	}
	s := c.env.Input
	if side == 1 {
		s = c.env.Output
	}
	p, ok := find(s, sel.FieldName())
	if !ok {
		c.fail(e, "no column %q", sel.FieldName())
	}
	if !sel.IsTestOnly() {
		return c.column(side, p)
	}
	p.element = -1
	return c.present(c.column(side, p), true)
}

// present is whether a value is not null, or is.
func (c *compiler) present(v *value, want bool) *value {
	if v.col != nil { // only its validity is looked at
		return c.emit(op{name: "has", key: [3]any{v.side, v.col.column, want}, t: scalar(kBool), own: true,
			run: hasKernel(v.side, v.col.column, want)})
	}
	return c.emit(op{name: "present", key: want, t: scalar(kBool), own: true, total: true, run: presentKernel(want)}, v)
}

func (c *compiler) list(e ast.Expr) *value {
	var vs []*value
	for _, x := range e.AsList().Elements() {
		v := c.lower(x)
		switch {
		case v.t.list:
			c.fail(x, "a list in a list: lists hold scalars; lists are joined by +")
		case v.t.kind == kNull:
			c.fail(x, "null in a list: a row is null as a whole")
		case len(vs) > 0 && v.t != vs[0].t:
			c.fail(x, "%s in a list of %s: the elements must be of one type", v.t, vs[0].t)
		}
		vs = append(vs, v)
	}
	if len(vs) == 0 {
		return c.constant(listOf(kNull, 0), vec{b: []bool{}})
	}
	t := listOf(vs[0].t.kind, len(vs))
	return c.emit(op{name: "list", t: t, dtype: commonType(vs...), run: listKernel(t.kind.class(), len(vs))}, vs...)
}

// filled refuses the empty list, which has no type.
func (c *compiler) filled(e ast.Expr, v *value) *value {
	if v.t.list && v.t.w == 0 {
		c.fail(e, "an empty list is of no use here")
	}
	return v
}

func (c *compiler) call(e ast.Expr) *value {
	call := e.AsCall()
	var exprs []ast.Expr
	if call.IsMemberFunction() {
		exprs = append(exprs, call.Target())
	}
	exprs = append(exprs, call.Args()...)
	name := call.FunctionName()
	args := make([]*value, len(exprs))
	for i, x := range exprs {
		args[i] = c.lower(x)
		if name != "@in" && name != "size" {
			c.filled(x, args[i])
		}
	}
	// The checker takes null for a timestamp or a duration anywhere, since those are messages in CEL.
	if name != "_==_" && name != "_!=_" && name != "_?_:_" {
		for i, v := range args {
			if v.t.kind == kNull && !v.t.list {
				c.fail(exprs[i], "null is of no use here; compare with == null, or give it in ?:")
			}
		}
	}
	if f := lowerings(name); f != nil {
		if v := f(c, e, exprs, args); v != nil {
			return v
		}
	}
	c.fail(e, "%s of these types is not run here", name)
	return nil
}

// lowering compiles the call e of a function; args are its compiled arguments, exprs what they come from. It returns nil
// for types that it does not know.
type lowering func(c *compiler, e ast.Expr, exprs []ast.Expr, args []*value) *value

// lowerings returns the lowering of a function of the table. It is a switch, not a map, since lowerings call lower.
func lowerings(name string) lowering {
	switch name {
	case "_&&_":
		return logic(true)
	case "_||_":
		return logic(false)
	case "!_":
		return not
	case "-_":
		return negation
	case "_+_", "_-_", "_*_", "_/_", "_%_":
		return arithmetic
	case "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_":
		return comparison
	case "@in":
		return membership
	case "_[_]":
		return index
	case "_?_:_":
		return choice
	case "size":
		return size
	case "startsWith", "endsWith", "contains":
		return textTest
	case "matches":
		return matches
	case "lowerAscii", "upperAscii":
		return letterCase
	case "max", "min":
		return extreme
	case "sum", "mean", "argmax":
		return reduction
	case "coalesce":
		return coalesce
	case "abs":
		return absolute
	case "floor", "ceil", "round", "sqrt", "log", "exp":
		return real
	case "pow":
		return power
	case "clamp":
		return clamp
	case "is_nan":
		return isNaN
	case "bucket":
		return bucket
	case "one_hot":
		return oneHot
	case "bool", "int", "uint", "double", "int32", "float32", "string", "bytes", "timestamp", "duration":
		return cast
	}
	if timeFields[name] != nil {
		return timeField
	}
	return nil
}
