package expr

import (
	"fmt"
	"slices"
	"sync"

	"github.com/leatstream/leat/schemas"
)

// Env is what an expression sees.
type Env struct {
	Input  *schemas.Schema // the columns input.NAME
	Output *schemas.Schema // the columns output.NAME; nil: there is no output
	Name   string          // the columns of Input are NAME.COLUMN; "" is input
}

// Program is a compiled expression. It is immutable and safe for concurrent use.
type Program struct {
	env       Env
	src       string
	regs      []regInfo
	constants []int // registers
	code      []instr
	result    int
	chunk     int // rows that kernels work on at once
	field     schemas.Field
	kind      kind
	whole     *place // the result is this column as it is
	wholeSide int
	names     [2][]string
	sites     []site
	frames    sync.Pool
}

// site is a place of the expression that can fail for a row.
type site struct {
	line, col int
	text      string
}

// Compile parses, checks and compiles an expression. The error is Invalid and has one line: LINE:COLUMN, what is wrong,
// and what would be right.
func Compile(src string, env Env) (p *Program, err error) {
	const op = "expr.Compile"
	if env.Input == nil {
		return nil, schemas.Errorf(schemas.Internal, op, "no schema of the input")
	}
	a, f := checked(src, &env)
	if f != nil {
		return nil, &schemas.Error{Op: op, Kind: schemas.Invalid, Err: f}
	}
	c := &compiler{env: &env, ast: a, values: map[string]*value{}, loaded: map[string]int{}}
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(*fault)
			if !ok {
				panic(r)
			}
			p, err = nil, &schemas.Error{Op: op, Kind: schemas.Invalid, Err: f}
		}
	}()
	return c.program(src), nil
}

// Source returns the text that was compiled.
func (p *Program) Source() string { return p.src }

// Field returns dtype, shape and nullability of the result; it has no name. A result that is a column as it is keeps the
// names of its features too.
func (p *Program) Field() schemas.Field {
	f := p.field
	f.Shape, f.Features = slices.Clone(f.Shape), slices.Clone(f.Features)
	return f
}

// Condition returns an Invalid error unless the result is a bool, for Bools.
func (p *Program) Condition() error {
	if p.field.Type == schemas.Bool && !p.field.Tensor() {
		return nil
	}
	return schemas.Errorf(schemas.Invalid, "expr.Condition", "the expression is %s; a condition must be bool", p.typeName())
}

func (p *Program) typeName() string {
	f := p.field
	f.Name, f.Nullable = "", false
	return f.String()[1:]
}

// Fits returns an Invalid error unless results can be appended to a column of f: of the same kind (any integer for int and
// uint, any float for double) and the same number of elements a row.
func (p *Program) Fits(f *schemas.Field) error {
	const op = "expr.Fits"
	to, ok := f.Type, false
	switch p.kind {
	case kInt, kUint:
		ok = to.Integer()
	case kDouble:
		ok = to.Float()
	default:
		ok = to == p.kind.dtype()
	}
	if p.field.Width() > maxList && p.whole != nil && f.Type != p.whole.field.Type {
		return schemas.Errorf(schemas.Invalid, op, "the column has %d elements a row, which are not converted (at most %d); want a column of %s", f.Width(), maxList, p.whole.field.Type)
	}
	if !ok || f.Width() != p.field.Width() {
		g := *f
		g.Name, g.Nullable = "", false
		return schemas.Errorf(schemas.Invalid, op, "the expression is %s, the column is %s", p.typeName(), g.String()[1:])
	}
	return nil
}

// Columns returns the names of the columns that the expression reads, sorted. A feature counts as its tensor.
func (p *Program) Columns() (input, output []string) {
	return slices.Clone(p.names[0]), slices.Clone(p.names[1])
}

// Bools evaluates a condition over rows [from, to) and sets dst[i] to that of row from+i. What is null is false, and so
// is a row that fails (division by zero); failed is the number of those. in has the schema that the expression was
// compiled for, and so has out, which is not looked at if the expression names no output. It panics if the result is no
// bool or dst is shorter than the rows.
func (p *Program) Bools(in, out *schemas.Batch, from, to int, dst []bool) (failed int) {
	if p.kind != kBool || p.field.Tensor() {
		panic("expr: Bools of " + p.typeName())
	}
	dst = dst[:to-from]
	fr := p.acquire(in, out)
	for at := from; at < to; at += p.chunk {
		n := min(p.chunk, to-at)
		fr.exec(at, n)
		r := &fr.regs[p.result]
		d := dst[at-from:][:n]
		copy(d, r.b)
		for i, s := range r.st {
			if s != stOK {
				d[i] = false
				if s >= stError {
					failed++
				}
			}
		}
	}
	p.give(fr)
	return failed
}

// Append evaluates rows [from, to) and appends a row to dst for each. A row that fails (integer overflow, division by
// zero, an index out of range, text that is no number, a number that dst's type does not hold) is appended as a null and
// reported in bad, with its number in the batch, so that columns stay aligned and the caller decides whether the request
// or the row is refused. The errors are Invalid. dst must fit (see Fits) or Append panics; it may be a column of another
// batch only.
func (p *Program) Append(in, out *schemas.Batch, from, to int, dst *schemas.Column, bad []schemas.RowError) []schemas.RowError {
	if err := p.Fits(dst.Field()); err != nil {
		panic("expr: Append: " + err.Error())
	}
	if w := p.whole; w != nil && dst.Field().Type == w.field.Type {
		return p.appendColumn(in, out, from, to, dst, bad)
	}
	fr := p.acquire(in, out)
	for at := from; at < to; at += p.chunk {
		n := min(p.chunk, to-at)
		fr.exec(at, n)
		r := &fr.regs[p.result]
		st := store(fr, r, &p.field, n, dst)
		for i, s := range st {
			if s >= stError {
				bad = append(bad, schemas.RowError{Row: at + i, Err: p.rowError(s)})
			}
		}
	}
	p.give(fr)
	return bad
}

// appendColumn appends a result that is a column as it is.
func (p *Program) appendColumn(in, out *schemas.Batch, from, to int, dst *schemas.Column, bad []schemas.RowError) []schemas.RowError {
	p.batch(p.wholeSide, in, out)
	b := in
	if p.wholeSide == 1 {
		b = out
	}
	src := b.Column(p.whole.column)
	off, w := src.Offsets(), src.Width()
	if off == nil || textRoom(dst, int(off[to*w]-off[from*w])) {
		dst.AppendColumn(src, from, to)
		return bad
	}
	for i := from; i < to; i++ {
		if textRoom(dst, int(off[(i+1)*w]-off[i*w])) {
			dst.AppendColumn(src, i, i+1)
			continue
		}
		dst.AppendNull()
		bad = append(bad, schemas.RowError{Row: i, Err: p.rowError(stFull)})
	}
	return bad
}

// rowError says why a row failed.
func (p *Program) rowError(s state) *schemas.Error {
	const op = "expr.Append"
	switch s {
	case stUnfit:
		return schemas.Errorf(schemas.Invalid, op, "the result does not fit its column's type")
	case stFull:
		return schemas.Errorf(schemas.Invalid, op, "more than 2 GiB of text in a column")
	}
	at := p.sites[s-stSites]
	return schemas.Errorf(schemas.Invalid, op, "%d:%d: %s", at.line, at.col, at.text)
}

// batch checks that a batch is what the expression was compiled for: anything else would read other columns.
func (p *Program) batch(side int, in, out *schemas.Batch) {
	b, s := in, p.env.Input
	if side == 1 {
		b, s = out, p.env.Output
	}
	if b == nil || b.Schema() != s && b.Schema().ID() != s.ID() {
		panic(fmt.Sprintf("expr: %q run on a batch of another schema than it was compiled for", p.src))
	}
}

func (p *Program) acquire(in, out *schemas.Batch) *frame {
	for side := range p.names {
		if len(p.names[side]) > 0 {
			p.batch(side, in, out)
		}
	}
	fr, _ := p.frames.Get().(*frame)
	if fr == nil {
		fr = newFrame(p)
	}
	fr.side = [2]*schemas.Batch{in, out}
	return fr
}

func (p *Program) give(fr *frame) {
	fr.release()
	p.frames.Put(fr)
}
