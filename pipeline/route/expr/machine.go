package expr

import "github.com/leatstream/leat/schemas"

// chunk is the most rows that kernels work on at once: few enough that the registers of a usual expression stay in the
// first-level cache, enough that the calls between kernels cost nothing.
const chunk = 256

// maxList is the most elements a row of a list in a register; the rows of a chunk become fewer as lists get wider.
const maxList = 1 << 16

// maxText is the most bytes of one text that an expression makes.
const maxText = 1 << 20

// state says whether a row's value is there. The greater wins where values meet: an error beats a null.
type state uint16

const (
	stOK    state = iota
	stNull        // null
	stUnfit       // the result does not fit the column that it is appended to
	stFull        // there is no more room for text in it
	stSites       // and above: the error of site state - stSites

	stError = stUnfit // and above: an error
)

// vec is a register: rows*w elements in the slice of its class, and a state a row.
type vec struct {
	b  []bool
	i  []int64
	u  []uint64
	f  []float64
	s  []string // alias column memory or the frame's text; cleared when the frame is given back
	st []state  // nil: every row is there
}

// register is a vec and the memory it owns; a vec may see a column's memory instead.
type register struct {
	vec
	own vec
}

// kernel computes a register from others, for all rows of the chunk.
type kernel func(fr *frame, d *register, a []*register)

// instr is one step of a program.
type instr struct {
	run    kernel
	dst    int
	args   []int
	strict bool // null or error in, null or error out: done before run is called
}

// regInfo describes a register at compile time.
type regInfo struct {
	t     typ
	con   *vec // one row: the register is constant
	alias bool // run sets the slices itself, to a column's memory
	dead  bool // the result does not come from it
}

// frame is the scratch of one evaluation.
type frame struct {
	p    *Program
	regs []register
	args [][]*register
	side [2]*schemas.Batch
	from int    // first row of the chunk
	n    int    // rows of the chunk
	most int    // rows of the largest chunk since the frame was taken
	text []byte // what string functions made
}

func newFrame(p *Program) *frame {
	fr := &frame{p: p, regs: make([]register, len(p.regs)), args: make([][]*register, len(p.code))}
	for i := range p.regs {
		info, r := &p.regs[i], &fr.regs[i]
		if info.dead {
			continue
		}
		if info.con == nil && info.alias {
			continue
		}
		n := info.t.w * p.chunk
		switch info.t.kind.class() {
		case cBool:
			r.own.b = make([]bool, n)
		case cInt:
			r.own.i = make([]int64, n)
		case cUint:
			r.own.u = make([]uint64, n)
		case cFloat:
			r.own.f = make([]float64, n)
		case cText:
			r.own.s = make([]string, n)
		}
		if info.con != nil {
			r.fill(info, p.chunk)
		}
	}
	for i := range p.code {
		for _, a := range p.code[i].args {
			fr.args[i] = append(fr.args[i], &fr.regs[a])
		}
	}
	return fr
}

// fill repeats a constant's row.
func (r *register) fill(info *regInfo, rows int) {
	w, c := info.t.w, info.con
	for i := range rows {
		copyRow(&r.own, i, c, 0, w)
	}
	if c.st != nil {
		r.own.st = make([]state, rows)
		for i := range r.own.st {
			r.own.st[i] = c.st[0]
		}
	}
}

// copyRow copies one row of w elements, whatever the class.
func copyRow(d *vec, i int, s *vec, j, w int) {
	switch {
	case s.b != nil:
		copy(d.b[i*w:(i+1)*w], s.b[j*w:])
	case s.i != nil:
		copy(d.i[i*w:(i+1)*w], s.i[j*w:])
	case s.u != nil:
		copy(d.u[i*w:(i+1)*w], s.u[j*w:])
	case s.f != nil:
		copy(d.f[i*w:(i+1)*w], s.f[j*w:])
	case s.s != nil:
		copy(d.s[i*w:(i+1)*w], s.s[j*w:])
	}
}

// exec runs the program over rows [from, from+n).
func (fr *frame) exec(from, n int) {
	fr.from, fr.n, fr.text = from, n, fr.text[:0]
	fr.most = max(fr.most, n)
	for _, r := range fr.p.constants {
		fr.regs[r].show(n * fr.p.regs[r].t.w)
		fr.regs[r].st = nil
		if fr.p.regs[r].con.st != nil {
			fr.regs[r].st = fr.regs[r].own.st[:n]
		}
	}
	for k := range fr.p.code {
		in := &fr.p.code[k]
		d, args := &fr.regs[in.dst], fr.args[k]
		if !fr.p.regs[in.dst].alias {
			d.show(n * fr.p.regs[in.dst].t.w)
		}
		d.st = nil
		if in.strict {
			for _, a := range args {
				d.join(a.st)
			}
		}
		in.run(fr, d, args)
	}
}

// show makes the vec see n elements of its own memory.
func (r *register) show(n int) {
	switch {
	case r.own.f != nil:
		r.f = r.own.f[:n]
	case r.own.i != nil:
		r.i = r.own.i[:n]
	case r.own.b != nil:
		r.b = r.own.b[:n]
	case r.own.s != nil:
		r.s = r.own.s[:n]
	case r.own.u != nil:
		r.u = r.own.u[:n]
	}
}

// join adds the states of an argument.
func (r *register) join(st []state) {
	if st == nil {
		return
	}
	if r.st == nil {
		r.st = append(r.own.st[:0], st...)
		r.own.st = r.st
		return
	}
	for i, s := range st {
		r.st[i] = max(r.st[i], s)
	}
}

// states returns the states, all there if there were none yet, for n rows.
func (r *register) states(n int) []state {
	if r.st == nil {
		if cap(r.own.st) < n {
			r.own.st = make([]state, max(n, chunk))
		}
		r.st = r.own.st[:n]
		clear(r.st)
	}
	return r.st
}

// fail makes row i an error of the site, unless it is null or an error already.
func (r *register) fail(fr *frame, i int, site state) {
	if st := r.states(fr.n); st[i] == stOK {
		st[i] = site
	}
}

// release drops what the frame sees of others' memory.
func (fr *frame) release() {
	fr.side = [2]*schemas.Batch{}
	for i := range fr.regs {
		r, info := &fr.regs[i], &fr.p.regs[i]
		if info.con != nil {
			continue
		}
		if info.alias {
			r.vec = vec{}
		}
		if r.own.s != nil {
			clear(r.own.s[:fr.most*info.t.w])
		}
	}
	fr.most = 0
	if cap(fr.text) > maxText {
		fr.text = nil
	}
}
