package expr

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/cel-go/common/ast"
	"github.com/leatstream/leat/schemas"
)

// value is what a node of the AST became: a constant, a column that nothing has loaded yet, or a register.
type value struct {
	t        typ
	nullable bool
	dtype    schemas.DType // the values are values of this type: what a result is stored as. Narrower than the kind's where nothing was computed
	con      *vec          // one row
	col      *place        // the column as a whole
	side     int           // of col
	reg      int           // -1: none yet
	key      string        // equal for equal values
}

// compiler turns a checked AST into a program. Equal subexpressions become one register, constant ones are computed here.
type compiler struct {
	env    *Env
	ast    *ast.AST
	at     ast.Expr // what is being compiled, for errors
	values map[string]*value
	regs   []regInfo
	code   []instr
	sites  []site
	loaded map[string]int // registers of constants and columns, by key
	names  [2][]string
}

func (c *compiler) fail(e ast.Expr, format string, args ...any) {
	panic(faultAt(c.ast, e, format, args...))
}

// site returns the state of rows that fail here.
func (c *compiler) site(e ast.Expr, text string) state {
	l := c.ast.SourceInfo().GetStartLocation(e.ID())
	s := site{max(1, l.Line()), max(0, l.Column()) + 1, text}
	if i := slices.Index(c.sites, s); i >= 0 {
		return stSites + state(i)
	}
	if len(c.sites) >= math.MaxUint16-int(stSites) {
		c.fail(e, "too many places that can fail")
	}
	c.sites = append(c.sites, s)
	return stSites + state(len(c.sites)-1)
}

// program compiles the whole.
func (c *compiler) program(src string) *Program {
	root := c.ast.Expr()
	v := c.lower(root)
	if v.t.list && v.t.w == 0 {
		c.fail(root, "the result is an empty list, which no column holds")
	}
	if v.t.kind.dtype() == 0 {
		hint := "write int(x) for nanoseconds, or x.getSeconds()"
		if v.t.kind == kNull {
			hint = "want a value beside it, as in CONDITION ? x : null"
		}
		c.fail(root, "the result is %s, which no column holds; %s", v.t, hint)
	}
	p := &Program{env: *c.env, src: src, kind: v.t.kind, sites: c.sites, chunk: chunk}
	p.field = schemas.Field{Type: v.dtype, Nullable: v.nullable}
	if v.t.list {
		p.field.Shape = []int{v.t.w}
	}
	if v.col != nil {
		p.whole, p.wholeSide = v.col, v.side
		p.field.Shape, p.field.Features = v.col.field.Shape, v.col.field.Features
	}
	if v.col == nil || v.t.w <= maxList {
		p.result = c.reg(v)
	}
	c.live(p.result)
	for i := range c.regs {
		if !c.regs[i].dead {
			p.chunk = max(1, min(p.chunk, maxList/c.regs[i].t.w))
			if c.regs[i].con != nil {
				p.constants = append(p.constants, i)
			}
		}
	}
	p.regs, p.code = c.regs, c.code
	for side := range c.names {
		slices.Sort(c.names[side])
		p.names[side] = slices.Compact(c.names[side])
	}
	return p
}

// live drops the instructions that the result does not come from: branches that a constant condition never takes.
func (c *compiler) live(result int) {
	used := make([]bool, len(c.regs))
	if result < len(used) {
		used[result] = true
	}
	var code []instr
	for _, in := range slices.Backward(c.code) {
		if used[in.dst] {
			for _, a := range in.args {
				used[a] = true
			}
			code = append(code, in)
		}
	}
	slices.Reverse(code)
	c.code = code
	for i := range used {
		c.regs[i].dead = !used[i]
	}
}

// op describes an instruction to emit.
type op struct {
	name     string // with the types of its arguments and what key holds, says what it does
	key      any    // immediate operands
	t        typ
	nullable bool // also where no argument is
	total    bool // never null, whatever the arguments; only with own
	own      bool // run sets the states itself
	alias    bool
	dtype    schemas.DType // 0: the kind's own
	run      kernel
}

// emit appends an instruction, unless its value is there already or is constant.
func (c *compiler) emit(o op, args ...*value) *value {
	var key strings.Builder
	fmt.Fprintf(&key, "%s %v %v %v", o.name, o.t, o.dtype, o.key)
	con := len(args) > 0
	v := &value{t: o.t, nullable: o.nullable, dtype: o.dtype, reg: -1}
	for _, a := range args {
		key.WriteString("(" + a.key + ")")
		con = con && a.con != nil
		v.nullable = v.nullable || a.nullable
	}
	if o.total {
		v.nullable = false
	}
	if v.dtype == 0 {
		v.dtype = o.t.kind.dtype()
	}
	// Keys of deep trees would grow with the square of the source: they are replaced by the number of the value.
	full := key.String()
	if have := c.values[full]; have != nil {
		return have
	}
	v.key = fmt.Sprintf("#%d", len(c.values))
	c.values[full] = v
	if o.t.w > maxList {
		c.fail(c.at, "a list of %d elements a row: what is computed has at most %d", o.t.w, maxList)
	}
	if con {
		if r := fold(o, args); r != nil {
			v.con = r
			v.nullable = r.st != nil && r.st[0] == stNull
			return v
		}
	}
	in := instr{run: o.run, strict: !o.own}
	for _, a := range args {
		in.args = append(in.args, c.reg(a))
	}
	in.dst = c.register(regInfo{t: o.t, alias: o.alias})
	c.code = append(c.code, in)
	v.reg = in.dst
	return v
}

func (c *compiler) register(r regInfo) int {
	c.regs = append(c.regs, r)
	return len(c.regs) - 1
}

// reg returns the register that a value lies in, and loads it if need be.
func (c *compiler) reg(v *value) int {
	if v.reg >= 0 {
		return v.reg
	}
	if r, ok := c.loaded[v.key]; ok {
		v.reg = r
		return r
	}
	defer func() { c.loaded[v.key] = v.reg }()
	switch {
	case v.con != nil:
		v.reg = c.register(regInfo{t: v.t, con: v.con})
	case v.col != nil:
		f := v.col.field
		if v.t.w > maxList {
			c.fail(c.at, "%s has %d elements a row: a list that is computed with has at most %d; size, max, min, sum, mean, argmax and [INDEX] take any", f.Name, v.t.w, maxList)
		}
		run, alias := loadKernel(v.side, v.col.column, f.Type, v.t.w)
		v.reg = c.register(regInfo{t: v.t, alias: alias})
		c.code = append(c.code, instr{run: run, dst: v.reg})
	}
	return v.reg
}

// fold computes an instruction whose arguments are all constant; nil if that fails, so that it fails for the rows that
// come by it, as CEL has it.
func fold(o op, args []*value) *vec {
	fr := &frame{n: 1}
	d := &register{own: makeVec(o.t)}
	d.show(o.t.w)
	var regs []*register
	for _, a := range args {
		regs = append(regs, &register{vec: *a.con})
		if !o.own {
			d.join(a.con.st)
		}
	}
	o.run(fr, d, regs)
	v := d.vec
	if v.st != nil && v.st[0] >= stError {
		return nil
	}
	if v.st != nil && v.st[0] == stOK {
		v.st = nil
	}
	for i := range v.s {
		v.s[i] = strings.Clone(v.s[i])
	}
	return &v
}

// makeVec makes memory for one row.
func makeVec(t typ) vec {
	switch t.kind.class() {
	case cInt:
		return vec{i: make([]int64, t.w)}
	case cUint:
		return vec{u: make([]uint64, t.w)}
	case cFloat:
		return vec{f: make([]float64, t.w)}
	case cText:
		return vec{s: make([]string, t.w)}
	}
	return vec{b: make([]bool, t.w)}
}

// constant makes a constant value of a row.
func (c *compiler) constant(t typ, v vec) *value {
	key := fmt.Sprintf("const %v %v", t, v)
	if t.kind == kDouble { // -0 and NaN differ by their bits
		key = fmt.Sprintf("const %v", t)
		for _, f := range v.f {
			key += fmt.Sprintf(" %x", math.Float64bits(f))
		}
	} else if t.kind.class() == cText {
		key = fmt.Sprintf("const %v %q", t, v.s)
	}
	key += fmt.Sprint(v.st)
	if have := c.values[key]; have != nil {
		return have
	}
	out := &value{t: t, con: &v, reg: -1, dtype: t.kind.dtype(), nullable: v.st != nil, key: fmt.Sprintf("#%d", len(c.values))}
	c.values[key] = out
	return out
}

// null makes the null of a type.
func (c *compiler) null(t typ) *value {
	v := makeVec(t)
	v.st = []state{stNull}
	return c.constant(t, v)
}

// column makes the value of a column, or of one element of it.
func (c *compiler) column(side int, p place) *value {
	c.names[side] = append(c.names[side], p.field.Name)
	t := scalar(kindOf(p.field.Type))
	if p.field.Tensor() {
		t = listOf(t.kind, p.field.Width())
	}
	key := fmt.Sprintf("column %d %d", side, p.column)
	v := c.values[key]
	if v == nil {
		v = &value{t: t, nullable: p.field.Nullable, dtype: p.field.Type, col: &place{p.column, -1, p.field}, side: side, reg: -1,
			key: fmt.Sprintf("#%d", len(c.values))}
		c.values[key] = v
	}
	if p.element >= 0 {
		return c.element(v, p.element)
	}
	return v
}

// element is one element, known now, of a list.
func (c *compiler) element(list *value, i int) *value {
	if list.col != nil {
		o := op{name: "load element", key: [3]int{list.side, list.col.column, i}, t: scalar(list.t.kind), nullable: list.nullable, own: true,
			dtype: list.dtype, run: elementKernel(list.side, list.col.column, list.col.field.Type, list.t.w, i)}
		return c.emit(o)
	}
	o := op{name: "element", key: i, t: scalar(list.t.kind), dtype: list.dtype, run: stridedKernel(list.t.kind.class(), list.t.w, i)}
	return c.emit(o, list)
}

// commonType is the type that all of the values are values of: that of a column where nothing else comes in but constants
// that it holds exactly, else the kind's own.
func commonType(vs ...*value) schemas.DType {
	own := vs[0].t.kind.dtype()
	var d schemas.DType
	for _, v := range vs {
		switch {
		case v.con != nil && v.dtype == own:
		case d == 0:
			d = v.dtype
		case d != v.dtype:
			return own
		}
	}
	if d == 0 || d == own {
		return own
	}
	for _, v := range vs {
		if v.con != nil && v.dtype == own && !(v.con.st != nil) && !exact(v.con, d) {
			return own
		}
	}
	return d
}
