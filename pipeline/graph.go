package pipeline

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/schemas"
)

// graph is a compiled route of more than one node. To the doors and the batcher it is what a model is: rows of many
// requests go in as one batch, and one row of answers comes out for each. It is immutable but for its pools, and safe for
// concurrent use.
//
// A batch parts where its rows do: a node gives each child the columns that it reads, of the rows that it gets, and puts
// the answers in the order of the rows. What a node decides for a row it decides by the row, its request and the spec
// alone (pipeline/route), so that the record tells it again. All nodes of one batch run in the goroutine of the caller;
// members of an ensemble side by side.
type graph struct {
	root   graphNode
	nodes  []*nodeFacts // by index, parents before children
	in     *schemas.Schema
	give   *picker // from in to what the root reads; nil: they are the same
	out    *schemas.Schema
	tells  bool      // there is something to tell of how an answer was made
	leaves bool      // a node may leave others behind: the items of its runs have afterwards
	beside sync.Pool // of *trace, for members
	afoot  int32     // runs of one member of an ensemble that may be under way, also if nobody waits for them

	bandits []*bandit
	lookups []*lookupNode
}

// nodeFacts are what all kinds of nodes have.
type nodeFacts struct {
	index   int
	above   int    // index of the parent; of the root 0
	path    string // node path: "route/canary"
	role    string // lineage.RoleArm, ...; of the root RolePrimary or RoleShadow
	in, out *schemas.Schema
	arms    []string       // names of the children, where one of them is chosen for each row
	members []string       // of an ensemble of which not all need to answer
	within  time.Duration  // how long it takes at most; 0: as long as the requests have
	model   *ResolvedModel // of a model node
	loaded  *model
	count   *counted // nil: not counted
	by      answered // of a model node
	pool    sync.Pool
}

// graphNode is a node as it runs.
type graphNode interface {
	facts() *nodeFacts
	// run appends one row to out for each row of in, in order. Row i of in is row ids[i] of the flow. A row that has no
	// answer is told by f.fail, and has a row of nulls in out. run keeps nothing of what it is given.
	// Only flow.run calls it, and what it does first is flow.enter.
	run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch)
}

func (n *nodeFacts) facts() *nodeFacts { return n }

// batch returns an empty batch for the answers of the node.
func (n *nodeFacts) batch() *schemas.Batch {
	if b, ok := n.pool.Get().(*schemas.Batch); ok {
		return b
	}
	return schemas.NewBatch(n.out)
}

// maxPooledBatch bounds what a pooled batch keeps.
const maxPooledBatch = 4 << 20

func (n *nodeFacts) free(b *schemas.Batch) {
	if b.Bytes() <= maxPooledBatch {
		b.Reset()
		n.pool.Put(b)
	}
}

// visit is one row's stay at one node.
type visit struct {
	row        int32 // of the flow
	node       int32
	arm        int32 // index of the child that was chosen, -1: nothing was
	batch      int32 // rows that the node worked on at once
	at         int32 // of the row among these
	kept       int32 // row of trace.outs[keptIn] that holds the node's answer; only if keptIn >= 0
	keptIn     int32 // -1: the answer is that of the node above
	propensity float64
	seed       uint64 // what a split or a bandit chose by
	state      uint64 // position of the state that a bandit chose by
	seen       int32  // row of trace.seen[seenIn] that it chose by; only if seenIn >= 0
	seenIn     int32
	took       time.Duration // of a model's run
	who        uint64        // of an ensemble: a bit for each member that has answered
	fell       bool          // of a cascade: its time was over, and this is the best answer so far
	err        *schemas.Error
}

// trace is what came of the rows of a run beside their answers.
type trace struct {
	visits []visit
	passes []pass
	by     []int32 // by row: index of the model node whose answer it is as it is, -1: of none
	failed []*schemas.Error
	outs   []*schemas.Batch
	of     []*nodeFacts // whose pool a batch of outs belongs to
	seen   []seen

	// Once they are sorted: the visits of row i are visits[from[i]:from[i+1]].
	sorted bool
	from   []int32
	spare  []visit // what sort works in
	// patient: all members of ensembles are waited for, and no time is saved.
	patient bool
	// serial: members of ensembles are asked one after the other, on the thread of the caller, which others go before.
	serial bool

	flow flow // scratch of graph.score
	ids  []int32
}

func (t *trace) reset() {
	for i, b := range t.outs {
		t.of[i].free(b)
	}
	for _, s := range t.seen {
		s.of.free(s.rows, nil)
	}
	clear(t.outs)
	clear(t.failed)
	clear(t.seen)
	*t = trace{visits: t.visits[:0], passes: t.passes[:0], by: t.by[:0], failed: t.failed[:0], outs: t.outs[:0], of: t.of[:0], seen: t.seen[:0], ids: t.ids[:0], from: t.from[:0], spare: t.spare[:0]}
}

// sort brings visits into the order of rows; those of one row stay in the order in which it came by.
func (t *trace) sort() {
	if t.sorted {
		return
	}
	t.sorted = true
	rows := len(t.failed)
	t.from = slices.Grow(t.from[:0], rows+1)[:rows+1]
	clear(t.from)
	for i := range t.visits { // how many each row has, one place on
		t.from[t.visits[i].row+1]++
	}
	for i := range rows {
		t.from[i+1] += t.from[i]
	}
	t.spare = slices.Grow(t.spare[:0], len(t.visits))[:len(t.visits)]
	for i := range t.visits { // from[i] goes from the row's first place to its end, which is the next one's first
		to := &t.from[t.visits[i].row]
		t.spare[*to] = t.visits[i]
		*to++
	}
	copy(t.from[1:], t.from)
	t.from[0] = 0
	t.visits, t.spare = t.spare, t.visits
}

// visitsOf returns the visits of a row; that of the root comes first.
func (t *trace) visitsOf(row int) []visit {
	if t.sort(); row+1 >= len(t.from) {
		return nil // a run that failed as a whole
	}
	return t.visits[t.from[row]:t.from[row+1]]
}

// flow is one pass of rows through the graph. Members of an ensemble have flows of their own, which are joined after.
type flow struct {
	*trace
	ctx   context.Context
	g     *graph
	host  func(error) *schemas.Error // what of an error may be seen
	owner func(row int) *item        // whose row it is
	past  *past                      // nil, or what is recorded of the rows: models answer, and splits choose, by it
}

// score appends one row to out for each row of in.
func (g *graph) score(ctx context.Context, in, out *schemas.Batch, t *trace, owner func(row int) *item, public func(error) *schemas.Error) {
	first := len(t.by)
	t.flow = flow{trace: t, ctx: ctx, g: g, host: public, owner: owner}
	t.ids = t.ids[:0]
	for i := range in.Rows() {
		t.ids = append(t.ids, int32(first+i))
		t.by = append(t.by, -1)
		t.failed = append(t.failed, nil)
	}
	t.sorted = false
	g.run(&t.flow, in, t.ids, out)
}

// run is that of the root, on the columns of the graph.
func (g *graph) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	if g.give == nil {
		f.run(g.root, in, ids, out)
		return
	}
	part := g.give.all(in)
	f.run(g.root, part, ids, out)
	g.give.free(part, in)
}

// enter notes that rows came to a node, and returns where their visits are.
func (f *flow) enter(n *nodeFacts, ids []int32) (first int) {
	first = len(f.visits)
	f.passes = append(f.passes, pass{node: int32(n.index), rows: int32(len(ids)), first: int32(first), took: -1})
	for i, row := range ids {
		f.visits = append(f.visits, visit{row: row, node: int32(n.index), arm: -1, keptIn: -1, seenIn: -1, propensity: 1, batch: int32(len(ids)), at: int32(i)})
	}
	return first
}

// fail says that a row has no answer, and returns why: the first reason counts.
func (f *flow) fail(row int32, err error) *schemas.Error {
	if f.failed[row] == nil {
		f.failed[row] = f.host(err)
	}
	return f.failed[row]
}

// keep gives a batch to the trace, which the answers of visits [first, ...) are in, in their order.
func (f *flow) keep(n *nodeFacts, b *schemas.Batch, first int) {
	f.keepSome(n, b, first, func(int) bool { return true })
}

// keepSome is keep where only some of the answers are the nodes' own.
func (f *flow) keepSome(n *nodeFacts, b *schemas.Batch, first int, own func(i int) bool) {
	f.outs = append(f.outs, b)
	f.of = append(f.of, n)
	for i := range b.Rows() {
		v := &f.visits[first+i]
		if f.failed[v.row] == nil && v.keptIn < 0 && own(i) { // a lookup has kept its own
			v.keptIn, v.kept = int32(len(f.outs)-1), int32(i)
		}
	}
}

// blank appends a row that nobody will see.
func blank(b *schemas.Batch) {
	for i := range b.Schema().Len() {
		b.Column(i).AppendNull()
	}
	b.Advance(1)
}

// picker gives a child the columns that it reads.
type picker struct {
	to   *schemas.Schema
	from []int // column of the source, by column of to
	same bool  // nothing to do
	pool sync.Pool
}

func newPicker(from, to *schemas.Schema) *picker {
	p := &picker{to: to, from: make([]int, to.Len()), same: from.ID() == to.ID()}
	for i := range p.from {
		p.from[i] = from.Index(to.Field(i).Name)
	}
	return p
}

// all returns a batch with the columns of all rows; it is src itself if they are the same. The caller gives it back.
func (p *picker) all(src *schemas.Batch) *schemas.Batch {
	if p.same {
		return src
	}
	b := p.get()
	for i, j := range p.from {
		b.Column(i).AppendColumn(src.Column(j), 0, src.Rows())
	}
	b.Advance(src.Rows())
	return b
}

// some returns a batch with the columns of some rows. The caller gives it back.
func (p *picker) some(src *schemas.Batch, rows []int32) *schemas.Batch {
	b := p.get()
	for i, j := range p.from {
		appendRows(b.Column(i), src.Column(j), rows)
	}
	b.Advance(len(rows))
	return b
}

func (p *picker) get() *schemas.Batch {
	if b, ok := p.pool.Get().(*schemas.Batch); ok {
		return b
	}
	return schemas.NewBatch(p.to)
}

// free takes back what all or some has returned for src.
func (p *picker) free(b, src *schemas.Batch) {
	if b != src && b.Bytes() <= maxPooledBatch {
		b.Reset()
		p.pool.Put(b)
	}
}

// appendRow appends row i of src, whose columns are those of dst in another order.
func (p *picker) appendRow(dst, src *schemas.Batch, i int) {
	if p.same {
		dst.AppendRange(src, i, i+1)
		return
	}
	for c, j := range p.from {
		dst.Column(c).AppendColumn(src.Column(j), i, i+1)
	}
	dst.Advance(1)
}

// appendRows appends some rows of another column.
func appendRows(dst, src *schemas.Column, rows []int32) {
	if flat(dst, src) {
		collect(dst.Extend(len(rows)), src.Data(), dst.Width()*dst.Field().Type.Size(), rows)
		return
	}
	for _, r := range rows {
		dst.AppendColumn(src, int(r), int(r)+1)
	}
}

// flat reports whether values can go from one column to the other as bytes: they are fixed in size, and none is null.
func flat(dst, src *schemas.Column) bool {
	return src.Nulls() == 0 && dst.Nulls() == 0 && src.Field().Type.Size() > 0
}

// collect copies values of a size: dst[k] is src[rows[k]].
func collect(dst, src []byte, size int, rows []int32) {
	switch size {
	case 4:
		for k, r := range rows {
			*(*[4]byte)(dst[4*k:]) = *(*[4]byte)(src[4*int(r):])
		}
	case 8:
		for k, r := range rows {
			*(*[8]byte)(dst[8*k:]) = *(*[8]byte)(src[8*int(r):])
		}
	default:
		for k, r := range rows {
			copy(dst[k*size:(k+1)*size], src[int(r)*size:])
		}
	}
}

// scatter is the way back: dst[rows[k]] is src[k].
func scatter(dst, src []byte, size int, rows []int32) {
	switch size {
	case 4:
		for k, r := range rows {
			*(*[4]byte)(dst[4*int(r):]) = *(*[4]byte)(src[4*k:])
		}
	case 8:
		for k, r := range rows {
			*(*[8]byte)(dst[8*int(r):]) = *(*[8]byte)(src[8*k:])
		}
	default:
		for k, r := range rows {
			copy(dst[int(r)*size:(int(r)+1)*size], src[k*size:])
		}
	}
}
