package lineage

import (
	"encoding/binary"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// A message of the lineage is a list of frames, one after another with nothing between or behind:
//
//	length     u32 little-endian   of what follows in this frame: 16 + len(batch)
//	schema id  16 bytes            as in Leat-Schema and in the schema catalogue (SEMANTICS 2)
//	batch      the rest            one encapsulated Arrow IPC RecordBatch message (package schemas/wire)
//
// Frame 0 is the envelope leat.lineage.v1 (EnvelopeSchema): one row for each record. Frame 1 is leat.context.v1
// (ContextSchema) and frame 2 leat.request.v1 (RequestSchema): what many rows share is written once a message. Row i's
// context and request are the rows of those frames that its columns context and request name. From frame 3 on: one frame
// for each distinct stored schema of inputs and outputs, in the order of first use. A row's input is row input_row of
// frame input_frame, its output row output_row of frame output_frame; -1 in both: the input is at the parent, or there
// is no output.
//
// Times are nanoseconds since the Unix epoch, UTC; durations are nanoseconds. event_time and received are null if
// unknown. record_id, request_key, the position and the append time are not stored: readers derive them (record.go). The
// salt of withheld columns stands in every row of the context frame.
//
// A message takes at most MaxMessage bytes. What is more is cut between rows: a request's rows may lie in several
// messages, each with its own row of the request frame; identity is by row. Messages that were cut from one append
// share their salt.

const (
	// MaxMessage is the longest message, in bytes; NATS takes 1 MiB with headers.
	MaxMessage = 900 << 10

	frameHeader = 4 + len(schemas.SchemaID{})
)

// encoding is the memory that cutting and encoding need.
type encoding struct {
	buf      []byte
	env      *schemas.Batch // the part of the envelope that a cut message holds
	ctx      *schemas.Batch // the contexts that it uses
	ctxRow   []int32        // row there for each context, -1: not used
	seen     []bool         // contexts that cut counted
	spans    []span         // what it uses of each data frame
	messages int            // cut so far: marks what was seen
}

// encode writes the message that starts at row from and returns it with the row that the next one starts at. The bytes
// are valid until the next call. The same rows give the same bytes.
func (r *Records) encode(from int) (msg []byte, next int, err error) {
	buf := r.out.buf[:0]
	if next = r.cut(from); from == 0 && next == r.Len() {
		buf = r.encodeWhole(buf)
	} else {
		buf = r.encodePart(buf, from, next)
	}
	r.out.buf = buf
	if len(buf) > MaxMessage {
		err = schemas.Errorf(schemas.Internal, "lineage.encode", "a message of %d rows takes %d bytes: at most %d", next-from, len(buf), MaxMessage)
	}
	return buf, next, err
}

var envelopeFormat, contextFormat, requestFormat = wire.FormatOf(EnvelopeSchema), wire.FormatOf(ContextSchema), wire.FormatOf(RequestSchema)

func (r *Records) encodeWhole(buf []byte) []byte {
	buf = appendFrame(buf, envelopeFormat, r.env, 0, r.env.Rows())
	buf = appendFrame(buf, contextFormat, r.ctx, 0, r.ctx.Rows())
	buf = appendFrame(buf, requestFormat, r.req, 0, r.req.Rows())
	for _, s := range r.active {
		buf = appendFrame(buf, s.format, s.rows, 0, s.rows.Rows())
	}
	return buf
}

// encodePart writes rows [from, to) with contexts, requests, frames and data rows counted anew.
func (r *Records) encodePart(buf []byte, from, to int) []byte {
	o := &r.out
	if o.env == nil {
		o.env, o.ctx = schemas.NewBatch(EnvelopeSchema), schemas.NewBatch(ContextSchema)
	}
	o.env.Reset()
	o.env.AppendRange(r.env, from, to)
	r.partContexts()
	requests := schemas.Values[int32](o.env.Column(envRequest))
	firstReq, lastReq := requests[0], requests[len(requests)-1]
	for i := range requests {
		requests[i] -= firstReq
	}
	r.partSpans()
	buf = appendFrame(buf, envelopeFormat, o.env, 0, o.env.Rows())
	buf = appendFrame(buf, contextFormat, o.ctx, 0, o.ctx.Rows())
	buf = appendFrame(buf, requestFormat, r.req, int(firstReq), int(lastReq)+1)
	for i, s := range o.spans {
		if s.n > 0 {
			buf = appendFrame(buf, r.active[i].format, r.active[i].rows, int(s.first), int(s.first)+s.n)
		}
	}
	return buf
}

// partContexts collects the contexts that the part uses.
func (r *Records) partContexts() {
	o := &r.out
	o.ctx.Reset()
	o.ctxRow = o.ctxRow[:0]
	for range r.contexts {
		o.ctxRow = append(o.ctxRow, -1)
	}
	rows := schemas.Values[int32](o.env.Column(envContext))
	for i, c := range rows {
		if o.ctxRow[c] < 0 {
			o.ctxRow[c] = int32(o.ctx.Rows())
			o.ctx.AppendRange(r.ctx, int(c), int(c)+1)
		}
		rows[i] = o.ctxRow[c]
	}
}

// partSpans finds what the part uses of each data frame: rows of a frame are used in the order of the records, so it is
// one range.
func (r *Records) partSpans() {
	o := &r.out
	o.spans = o.spans[:0]
	for range r.active {
		o.spans = append(o.spans, span{})
	}
	columns := [...][2]int{{envInFrame, envInRow}, {envOutFrame, envOutRow}}
	for _, at := range columns {
		frames, rows := schemas.Values[int32](o.env.Column(at[0])), schemas.Values[int32](o.env.Column(at[1]))
		for i, f := range frames {
			if f >= 0 {
				o.spans[f-frameData].add(rows[i])
			}
		}
	}
	frame := int32(frameData)
	for i := range o.spans {
		if o.spans[i].n > 0 {
			o.spans[i].frame = frame
			frame++
		}
	}
	for _, at := range columns {
		frames, rows := schemas.Values[int32](o.env.Column(at[0])), schemas.Values[int32](o.env.Column(at[1]))
		for i, f := range frames {
			if f >= 0 {
				rows[i] -= o.spans[f-frameData].first
				frames[i] = o.spans[f-frameData].frame
			}
		}
	}
}

// span is what a message uses of a data frame.
type span struct {
	first, frame int32
	n            int
}

func (s *span) add(row int32) {
	if s.n == 0 || row < s.first {
		if s.n > 0 {
			s.n += int(s.first - row)
		}
		s.first = row
	}
	s.n = max(s.n, int(row-s.first)+1)
}

// appendFrame writes rows [from, to) of b as one frame.
func appendFrame(buf []byte, f *wire.Format, b *schemas.Batch, from, to int) []byte {
	at := len(buf)
	id := f.Schema().ID()
	buf = append(buf, 0, 0, 0, 0)
	buf = append(buf, id[:]...)
	buf = f.AppendBatch(buf, b, from, to)
	binary.LittleEndian.PutUint32(buf[at:], uint32(len(buf)-at-4))
	return buf
}
