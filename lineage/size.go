package lineage

import (
	"github.com/leatstream/leat/schemas"
)

// Sizes are estimated from above: a frame's metadata, its buffers with their padding, and the values.

// sizes says what the rows of a schema take in a frame.
type sizes struct {
	fixed    int   // bytes of a row without the content of its strings
	variable []int // columns of strings and binaries
	overhead int   // of the frame itself
}

type sizesKey struct{}

// sizesOf returns the sizes of a schema, computed once.
//
// The overhead of a frame: for each column two FieldNodes of 16 bytes (a list has two), up to four buffer descriptors of
// 16, and for up to four buffers the padding to 8 and the last odd byte or offset.
func sizesOf(s *schemas.Schema) *sizes {
	return s.Derived(sizesKey{}, func(s *schemas.Schema) any {
		z := &sizes{fixed: (s.Len() + 7) / 8, overhead: frameHeader + 256 + s.Len()*(2*16+4*16+4*8)}
		for i := range s.Len() {
			f := s.Field(i)
			if f.Type.Variable() {
				z.fixed += 4 * f.Width()
				z.variable = append(z.variable, i)
			} else {
				z.fixed += f.Type.Size() * f.Width()
			}
		}
		return z
	}).(*sizes)
}

// texts returns the bytes of the strings in rows [from, to) of b.
func (z *sizes) texts(b *schemas.Batch, from, to int) int {
	n := 0
	for _, c := range z.variable {
		n += textBytes(b.Column(c), from, to)
	}
	return n
}

func textBytes(c *schemas.Column, from, to int) int {
	o := c.Offsets()
	return int(o[to*c.Width()] - o[from*c.Width()])
}

var (
	envelopeSize = sizesOf(EnvelopeSchema)
	contextSize  = sizesOf(ContextSchema)
	requestSize  = sizesOf(RequestSchema)
	headOverhead = envelopeSize.overhead + contextSize.overhead + requestSize.overhead
)

func requestBytes(r *Row) int {
	return requestSize.fixed + len(r.RequestID) + len(r.TraceID) + len(r.ParentID) + len(r.From.Stream)
}

func contextBytes(c *Context) int {
	n := contextSize.fixed + len(c.Principal) + len(c.Via) + len(c.Pipeline) + len(c.Revision) + len(c.Node) + len(c.Role) +
		len(c.Arm) + len(c.Model) + len(c.Digest) + len(c.Run) + len(c.Runtime) + len(c.CPU)
	if c.Policy != nil {
		n += len(c.Policy.text)
	}
	return n
}

// rowReserve is what Fits leaves for what comes with a row: its context, its request, ids and an error.
const rowReserve = 16 << 10

// Fits returns Invalid, naming the row, its size and the limit, if one of the rows [from, to) of in can never be
// recorded: with an output of schema out (nil: unknown) it would not fit into one message of the stream. Strings and
// binaries of the output are not known yet and count as empty. The runner asks it at the door. It costs some
// nanoseconds unless rows hold large strings, and allocates nothing.
func Fits(in *schemas.Batch, from, to int, out *schemas.Schema) error {
	z := sizesOf(in.Schema())
	limit := MaxMessage - headOverhead - rowReserve - z.overhead - z.fixed
	if out != nil {
		o := sizesOf(out)
		limit -= o.overhead + o.fixed
	}
	if z.texts(in, from, to) <= limit {
		return nil
	}
	for i := from; i < to; i++ {
		if n := z.texts(in, i, i+1); n > limit {
			return schemas.FieldErrorf(schemas.Invalid, "lineage.Fits", "rows["+itoa(i-from)+"]",
				"the row takes %d bytes and its record up to %d: at most %d bytes can be recorded", n+z.fixed, n+MaxMessage-limit, MaxMessage)
		}
	}
	return nil
}

// fits is Fits for rows with all that is known of them, for Add.
func fits(ctx *Context, row *Row, si *slot, in *schemas.Batch, inRow int, so *slot, out *schemas.Batch, outRow, n int) error {
	limit := MaxMessage - headOverhead - contextBytes(ctx) - requestBytes(row) -
		envelopeSize.fixed - len(row.ErrorKind) - len(row.ErrorID) - len(row.Error)
	for _, s := range [...]*slot{si, so} {
		if s != nil {
			limit -= s.size.overhead + s.size.fixed
		}
	}
	if si.texts(in, inRow, n)+so.texts(out, outRow, n) <= limit {
		return nil
	}
	for i := range n {
		if one := si.texts(in, inRow+i, 1) + so.texts(out, outRow+i, 1); one > limit {
			return schemas.FieldErrorf(schemas.Invalid, "lineage.Records.Add", "rows["+itoa(int(row.Row)+i)+"]",
				"its record takes %d bytes: at most %d can be recorded", one+MaxMessage-limit, MaxMessage)
		}
	}
	return nil
}

// texts returns the bytes of the strings of n source rows, before any is withheld.
func (s *slot) texts(b *schemas.Batch, from, n int) int {
	if s == nil {
		return 0
	}
	return s.source.texts(b, from, from+n)
}

// cut returns the row after the last one of the message that starts at from.
func (r *Records) cut(from int) int {
	n := r.Len()
	if from == 0 && r.bytes+headOverhead <= MaxMessage {
		return n
	}
	r.out.messages++
	mark := r.out.messages
	size, last := headOverhead, int32(-1)
	r.out.seen = append(r.out.seen[:0], make([]bool, len(r.contexts))...)
	contexts, requests := schemas.Values[int32](r.env.Column(envContext)), schemas.Values[int32](r.env.Column(envRequest))
	inFrames, inRows := schemas.Values[int32](r.env.Column(envInFrame)), schemas.Values[int32](r.env.Column(envInRow))
	outFrames, outRows := schemas.Values[int32](r.env.Column(envOutFrame)), schemas.Values[int32](r.env.Column(envOutRow))
	for i := from; i < n; i++ {
		size += envelopeSize.fixed + envelopeSize.texts(r.env, i, i+1)
		if c := contexts[i]; !r.out.seen[c] {
			r.out.seen[c] = true
			size += contextBytes(r.contexts[c])
		}
		if q := requests[i]; q != last {
			last = q
			size += requestSize.fixed + requestSize.texts(r.req, int(q), int(q)+1)
		}
		size += r.dataBytes(inFrames[i], int(inRows[i]), mark) + r.dataBytes(outFrames[i], int(outRows[i]), mark)
		if size > MaxMessage && i > from {
			return i
		}
	}
	return n
}

// dataBytes returns what a row of a data frame adds to a message, with the frame itself if it is the first.
func (r *Records) dataBytes(frame int32, row, mark int) int {
	if frame < 0 {
		return 0
	}
	s := r.active[frame-frameData]
	n := s.size.fixed + s.size.texts(s.rows, row, row+1)
	if s.mark != mark {
		s.mark = mark
		n += s.size.overhead
	}
	return n
}
