package pipeline

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/learn"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// bandit chooses by what it has learnt. Whoever learns sets the state; to choose takes no lock.
type bandit struct {
	path  string
	name  string // of the pipeline
	base  uint64 // hash of the node path
	spec  *Bandit
	plan  *route.Plan
	cols  []int   // of the node's input: the context
	seen  *picker // the context as it is recorded; nil: the record of the root has it, or there is none
	state atomic.Pointer[route.State]
}

func (b *builder) bandit(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	s := n.Bandit
	at2 := document.Join(at, "bandit.context")
	for i, name := range s.Context {
		switch c := env.Index(name); {
		case c < 0:
			b.fault(document.Index(at2, i), "no column %.80q%s; the type of one that no model reads is said under columns", name, document.Meant(name, namesOf(env)))
			return nil
		case !learn.Numeric(env.Field(c)):
			b.fault(document.Index(at2, i), "column %q is %s; a bandit chooses by numbers and bools: make one of it in a transform before", name, typeText(env.Field(c)))
			return nil
		case b.spec.Record.withholds(name):
			b.fault(document.Index(at2, i), "column %q is kept out of the record, from which the bandit learns; leave it out here, or there", name)
			return nil
		}
	}
	p := b.parting(n, facts, at, env, s.Context...)
	if p == nil {
		return nil
	}
	x := &bandit{path: facts.path, name: b.spec.Name, base: xxhash.Sum64String(facts.path), spec: s}
	var err error
	if x.plan, err = s.plan(); err != nil {
		b.fault(document.Join(at, "bandit"), "%v", err)
		return nil
	}
	var fs []schemas.Field
	for _, name := range s.Context {
		x.cols = append(x.cols, p.in.Index(name))
		fs = append(fs, p.in.Fields()[p.in.Index(name)])
	}
	if len(fs) > 0 && facts.index > 0 {
		x.seen = newPicker(p.in, schemas.MustSchema(fs...))
	}
	x.state.Store(route.NewFold(x.plan).State())
	p.choose = x
	b.graph.bandits = append(b.graph.bandits, x)
	return p
}

// withholds reports whether a column is masked or dropped.
func (r *Record) withholds(column string) bool {
	if r == nil {
		return false
	}
	for _, l := range [][]string{r.Mask, r.Drop} {
		for _, c := range l {
			if c == column {
				return true
			}
		}
	}
	return false
}

func (b *bandit) choose(f *flow, in *schemas.Batch, ids []int32, first int) {
	state := b.state.Load() // one for all rows of a batch
	position, _ := state.Position()
	var scratch [route.MaxContext]float64
	var of *item
	var key [32]byte
	for i, row := range ids {
		v := &f.visits[first+i]
		if f.past != nil {
			if state = f.past.state(b, v); state == nil {
				continue
			}
		} else {
			it := f.owner(int(row))
			if it != of {
				of, key = it, lineage.RequestKey(it.principal(), b.name, it.id)
			}
			v.seed, v.state = b.seed(&key, it.row(int(row)-it.from)), position
		}
		context, err := learn.AppendContext(scratch[:0], in, i, b.cols)
		var d route.Decision
		if err == nil {
			d, err = route.Decide(b.plan, v.seed, context, state)
		}
		if err != nil {
			v.err = f.fail(row, err)
			f.by[row] = -1
			continue
		}
		v.arm, v.propensity = int32(d.Arm), d.Propensity
	}
	if b.seen != nil && f.past == nil && len(ids) > 0 {
		f.sees(b.seen, in, first)
	}
}

// seed is what a row is decided by beside its context and the state: the same for the same request key, row and node.
func (b *bandit) seed(request *[32]byte, row int) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(b.base)
	_, _ = d.Write(request[:])
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], uint32(row))
	_, _ = d.Write(n[:])
	return d.Sum64()
}

// sees gives the trace what the visits [first, ...) were decided by, which their records hold.
func (f *flow) sees(p *picker, in *schemas.Batch, first int) {
	b := p.get()
	for i, j := range p.from {
		b.Column(i).AppendColumn(in.Column(j), 0, in.Rows())
	}
	b.Advance(in.Rows())
	f.seen = append(f.seen, seen{b, p})
	for i := range in.Rows() {
		v := &f.visits[first+i]
		v.seenIn, v.seen = int32(len(f.seen)-1), int32(i)
	}
}

// seen is what a node recorded of its input, and whose pool it belongs to.
type seen struct {
	rows *schemas.Batch
	of   *picker
}
