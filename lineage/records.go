package lineage

import (
	"crypto/rand"
	"slices"
	"strconv"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// Records is what one append makes durable: rows of one pipeline, of one run or of none, with copies of their inputs and
// outputs. The zero Records is ready. It belongs to one goroutine at a time; Reset keeps its memory, so that filling it
// again allocates nothing.
type Records struct {
	env, ctx, req *schemas.Batch
	contexts      []*Context
	contextRow    map[*Context]int32 // of contexts, once they are many
	last          requestFields      // of the last row of req
	slots         []*slot            // one for each stored schema that was ever seen, until Reset lets go
	active        []*slot            // those with rows, in the order of their frames
	salt, id      [16]byte           // drawn with the first row; the id names the messages
	bytes         int
	scratch       []byte
	out           encoding
}

// slot holds the rows of one data frame.
type slot struct {
	src    *schemas.Schema
	policy *Policy
	plan   *plan // nil: stored as it is
	rows   *schemas.Batch
	format *wire.Format // of rows
	frame  int32        // -1: no rows since Reset
	size   *sizes       // of rows
	source *sizes       // of src
	mark   int          // last message that cut gave it to
}

// retainedSlots and retainedBytes bound what Reset keeps: a pipeline has few schemas, and one huge commit shall not pin
// its size for ever.
const (
	retainedSlots = 32
	retainedBytes = 16 << 20
)

// Len returns the number of rows.
func (r *Records) Len() int {
	if r.env == nil {
		return 0
	}
	return r.env.Rows()
}

// Bytes returns about the bytes that the rows will take in the stream.
func (r *Records) Bytes() int { return r.bytes }

// Pipeline returns the pipeline of the rows, "" while there are none.
func (r *Records) Pipeline() string {
	if len(r.contexts) == 0 {
		return ""
	}
	return r.contexts[0].Pipeline
}

// Add adds one row with copies of row inRow of in and row outRow of out. in nil: the input is at the parent; out nil:
// there is no output (an error). ctx is kept and must not change; row is copied.
//
// Invalid, with nothing added: the row does not fit into a message (see Fits), with its size and the limit. Internal: ctx
// is of another pipeline, or of another kind of run, than the rows before.
func (r *Records) Add(ctx *Context, row *Row, in *schemas.Batch, inRow int, out *schemas.Batch, outRow int) error {
	return r.add(ctx, row, in, inRow, out, outRow, 1)
}

// AddRange is Add for rows [inFrom, inTo) of in, which are rows first.Row, first.Row+1, ... of one request and rows
// first.BatchRow, first.BatchRow+1, ... of one batch; the output of the first is row outFrom of out, and so on. All else
// is as in first. in nil: as many rows, whose input is at the parent. Errors as in Add; then no row was added.
func (r *Records) AddRange(ctx *Context, first *Row, in *schemas.Batch, inFrom, inTo int, out *schemas.Batch, outFrom int) error {
	return r.add(ctx, first, in, inFrom, out, outFrom, inTo-inFrom)
}

func (r *Records) add(ctx *Context, row *Row, in *schemas.Batch, inRow int, out *schemas.Batch, outRow, n int) error {
	if n <= 0 {
		return nil
	}
	if len(r.contexts) == 0 {
		r.begin()
	}
	var si, so *slot
	var err error
	if in != nil {
		if si, err = r.slot(in.Schema(), ctx.Policy); err != nil {
			return err
		}
	}
	if out != nil {
		if so, err = r.slot(out.Schema(), ctx.Policy); err != nil {
			return err
		}
	}
	if err := fits(ctx, row, si, in, inRow, so, out, outRow, n); err != nil {
		return err
	}
	c, err := r.context(ctx)
	if err != nil {
		return err
	}
	if q := row.request(); r.req.Rows() == 0 || q != r.last {
		appendRequest(r.req, row)
		r.last = q
		r.bytes += requestBytes(row)
	}
	inFrame, inAt := r.store(si, in, inRow, n)
	outFrame, outAt := r.store(so, out, outRow, n)
	appendEnvelope(r.env, c, int32(r.req.Rows()-1), row, inFrame, inAt, outFrame, outAt, n)
	r.bytes += n * (envelopeSize.fixed + len(row.ErrorKind) + len(row.ErrorID) + len(row.Error))
	return nil
}

// Reset drops all rows and keeps the memory.
func (r *Records) Reset() {
	if r.env == nil {
		return
	}
	r.env.Reset()
	r.ctx.Reset()
	r.req.Reset()
	r.last = requestFields{}
	clear(r.contexts)
	r.contexts = r.contexts[:0]
	clear(r.contextRow)
	if len(r.slots) > retainedSlots || r.bytes > retainedBytes {
		clear(r.slots)
		r.slots = r.slots[:0]
	}
	for _, s := range r.active {
		s.rows.Reset()
		s.frame, s.mark = -1, 0
	}
	clear(r.active)
	r.active = r.active[:0]
	r.bytes = 0
	if cap(r.out.buf) > 2*MaxMessage {
		r.out.buf = nil
	}
}

// begin draws salt and id before the first row.
func (r *Records) begin() {
	if r.env == nil {
		r.env, r.ctx, r.req = schemas.NewBatch(EnvelopeSchema), schemas.NewBatch(ContextSchema), schemas.NewBatch(RequestSchema)
	}
	rand.Read(r.salt[:]) // never fails: crypto/rand ends the process instead
	rand.Read(r.id[:])
}

// fewContexts is up to where a list is searched faster than a map.
const fewContexts = 16

// context returns the row of ctx in the context frame.
func (r *Records) context(ctx *Context) (int32, error) {
	if n := len(r.contexts); n <= fewContexts {
		for i := n - 1; i >= 0; i-- {
			if r.contexts[i] == ctx {
				return int32(i), nil
			}
		}
	} else if i, ok := r.contextRow[ctx]; ok {
		return i, nil
	}
	if len(r.contexts) > 0 {
		if f := r.contexts[0]; f.Pipeline != ctx.Pipeline || (f.Run == "") != (ctx.Run == "") {
			return 0, schemas.Errorf(schemas.Internal, "lineage.Records.Add", "rows of pipeline %q run %q cannot join rows of pipeline %q run %q: one commit is of one pipeline, and of jobs or not", ctx.Pipeline, ctx.Run, f.Pipeline, f.Run)
		}
	}
	appendContext(r.ctx, ctx, &r.salt)
	r.contexts = append(r.contexts, ctx)
	r.bytes += contextBytes(ctx)
	if n := len(r.contexts); n > fewContexts {
		if r.contextRow == nil {
			r.contextRow = map[*Context]int32{}
		}
		for i := len(r.contextRow); i < n; i++ {
			r.contextRow[r.contexts[i]] = int32(i)
		}
	}
	return int32(len(r.contexts) - 1), nil
}

// slot finds or makes the data frame of a schema under a policy.
func (r *Records) slot(s *schemas.Schema, p *Policy) (*slot, error) {
	for _, sl := range r.slots {
		if sl.policy == p && (sl.src == s || sl.src.ID() == s.ID() && (p == nil || sameFeatures(sl.src, s))) {
			return sl, nil
		}
	}
	pl, err := p.plan(s)
	if err != nil {
		return nil, err
	}
	stored := s
	if pl != nil {
		stored = pl.stored
	}
	sl := &slot{src: s, policy: p, plan: pl, rows: schemas.NewBatch(stored), format: wire.FormatOf(stored), frame: -1, size: sizesOf(stored), source: sizesOf(s)}
	r.slots = append(r.slots, sl)
	return sl, nil
}

// store copies rows into the slot and returns their frame and first row there.
func (r *Records) store(s *slot, b *schemas.Batch, from, n int) (frame, at int32) {
	if s == nil {
		return -1, -1
	}
	if s.frame < 0 {
		s.frame = int32(frameData + len(r.active))
		r.active = append(r.active, s)
		r.bytes += s.size.overhead
	}
	at = int32(s.rows.Rows())
	if s.plan == nil {
		s.rows.AppendRange(b, from, from+n)
	} else {
		r.scratch = s.plan.append(s.rows, b, from, from+n, &r.salt, r.scratch)
	}
	r.bytes += n*s.size.fixed + s.size.texts(s.rows, int(at), int(at)+n)
	return s.frame, at
}

// sameFeatures reports whether two schemas of one id name the elements of their tensors alike: a policy may speak of
// these names.
func sameFeatures(a, b *schemas.Schema) bool {
	for i := range a.Len() {
		if !slices.Equal(a.Field(i).Features, b.Field(i).Features) {
			return false
		}
	}
	return true
}

func itoa(n int) string { return strconv.Itoa(n) }

// clip keeps long names out of error lines.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
