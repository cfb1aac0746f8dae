package lineage

import (
	"time"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// The schemas of the three frames that head every message. Their ids name their version: a change of a column is a new
// schema, and a reader that does not know it says so.
var (
	// EnvelopeSchema is leat.lineage.v1: one row for each record.
	EnvelopeSchema = schemas.MustSchema(
		schemas.Field{Name: "context", Type: schemas.Int32}, // row of the context frame
		schemas.Field{Name: "request", Type: schemas.Int32}, // row of the request frame
		schemas.Field{Name: "row", Type: schemas.Int32},
		schemas.Field{Name: "status", Type: schemas.Uint8}, // 0 error, 1 ok, 2 late
		schemas.Field{Name: "error_kind", Type: schemas.String},
		schemas.Field{Name: "error_id", Type: schemas.String},
		schemas.Field{Name: "error", Type: schemas.String},
		schemas.Field{Name: "propensity", Type: schemas.Float64},
		schemas.Field{Name: "seed", Type: schemas.Uint64},
		schemas.Field{Name: "state", Type: schemas.Uint64},
		schemas.Field{Name: "batch_size", Type: schemas.Int32},
		schemas.Field{Name: "batch_row", Type: schemas.Int32},
		schemas.Field{Name: "queue_ns", Type: schemas.Int64},
		schemas.Field{Name: "score_ns", Type: schemas.Int64},
		schemas.Field{Name: "scored", Type: schemas.Timestamp},
		schemas.Field{Name: "input_frame", Type: schemas.Int32}, // frame of the message; -1: at the parent
		schemas.Field{Name: "input_row", Type: schemas.Int32},
		schemas.Field{Name: "output_frame", Type: schemas.Int32}, // -1: no output
		schemas.Field{Name: "output_row", Type: schemas.Int32},
	)
	// ContextSchema is leat.context.v1: one row for each distinct Context of the message.
	ContextSchema = schemas.MustSchema(
		schemas.Field{Name: "principal", Type: schemas.String},
		schemas.Field{Name: "via", Type: schemas.String},
		schemas.Field{Name: "pipeline", Type: schemas.String},
		schemas.Field{Name: "revision", Type: schemas.String},
		schemas.Field{Name: "node", Type: schemas.String},
		schemas.Field{Name: "role", Type: schemas.String},
		schemas.Field{Name: "arm", Type: schemas.String},
		schemas.Field{Name: "model", Type: schemas.String},
		schemas.Field{Name: "version", Type: schemas.Int32},
		schemas.Field{Name: "digest", Type: schemas.String},
		schemas.Field{Name: "run", Type: schemas.String},
		schemas.Field{Name: "runtime", Type: schemas.String},
		schemas.Field{Name: "cpu", Type: schemas.String},
		schemas.Field{Name: "withheld", Type: schemas.String}, // JSON {"mask":[..],"drop":[..]}, "" for nothing
		schemas.Field{Name: "salt", Type: schemas.Uint8, Shape: []int{16}},
	)
	// RequestSchema is leat.request.v1: one row for each request that has rows in the message.
	RequestSchema = schemas.MustSchema(
		schemas.Field{Name: "request_id", Type: schemas.String},
		schemas.Field{Name: "attempt", Type: schemas.Int32},
		schemas.Field{Name: "trace_id", Type: schemas.String},
		schemas.Field{Name: "parent_id", Type: schemas.String},
		schemas.Field{Name: "from_stream", Type: schemas.String},
		schemas.Field{Name: "from_partition", Type: schemas.Int32},
		schemas.Field{Name: "from_sequence", Type: schemas.Uint64}, // 0 and no stream: a core request
		schemas.Field{Name: "input_digest", Type: schemas.Uint8, Shape: []int{digestWidth}},
		schemas.Field{Name: "event_time", Type: schemas.Timestamp, Nullable: true},
		schemas.Field{Name: "received", Type: schemas.Timestamp, Nullable: true},
	)
)

// Columns of EnvelopeSchema, ContextSchema and RequestSchema that the code speaks of by number.
const (
	envContext, envRequest, envRow, envStatus, envErrorKind, envErrorID, envError, envPropensity, envSeed = 0, 1, 2, 3, 4, 5, 6, 7, 8
	envState, envBatchSize, envBatchRow, envQueue, envScore, envScored                                    = 9, 10, 11, 12, 13, 14
	envInFrame, envInRow, envOutFrame, envOutRow                                                          = 15, 16, 17, 18

	ctxVersion, ctxWithheld, ctxSalt = 8, 13, 14

	reqID, reqAttempt, reqTrace, reqParent, reqStream, reqPartition, reqSequence = 0, 1, 2, 3, 4, 5, 6
	reqDigest, reqEvent, reqReceived                                             = 7, 8, 9
)

// The frames of a message: the data frames follow.
const (
	frameEnvelope = 0
	frameContext  = 1
	frameRequest  = 2
	frameData     = 3
)

// put adds one value and its row.
func put[T schemas.Fixed](b *schemas.Batch, col int, v T) {
	c := b.Column(col)
	schemas.Append(c, v)
	c.EndRow()
}

func putString(b *schemas.Batch, col int, s string) {
	c := b.Column(col)
	c.AppendString(s)
	c.EndRow()
}

func putTime(b *schemas.Batch, col int, t time.Time) {
	if t.IsZero() {
		b.Column(col).AppendNull()
		return
	}
	put(b, col, t.UnixNano())
}

// fill adds n rows that start at v and go up by step.
func fill[T schemas.Fixed](b *schemas.Batch, col int, v, step T, n int) {
	d := b.Column(col).Extend(n)
	vs := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(d))), n)
	for i := range vs {
		vs[i] = v
		v += step
	}
}

func fillString(b *schemas.Batch, col int, s string, n int) {
	c := b.Column(col)
	for range n {
		c.AppendString(s)
		c.EndRow()
	}
}

// appendEnvelope adds n records: rows, batch rows and data rows count up, the rest is as in the first.
func appendEnvelope(b *schemas.Batch, ctx, req int32, r *Row, inFrame, inRow, outFrame, outRow int32, n int) {
	status := statusCode(r.Status)
	step := func(frame int32) int32 {
		if frame < 0 {
			return 0
		}
		return 1
	}
	if n == 1 {
		appendOne(b, ctx, req, r, status, inFrame, inRow, outFrame, outRow)
		b.Advance(1)
		return
	}
	fill(b, envContext, ctx, 0, n)
	fill(b, envRequest, req, 0, n)
	fill(b, envRow, r.Row, 1, n)
	fill(b, envStatus, status, 0, n)
	fillString(b, envErrorKind, r.ErrorKind, n)
	fillString(b, envErrorID, r.ErrorID, n)
	fillString(b, envError, r.Error, n)
	fill(b, envPropensity, r.Propensity, 0, n)
	fill(b, envSeed, r.Seed, 0, n)
	fill(b, envState, r.State, 0, n)
	fill(b, envBatchSize, r.BatchSize, 0, n)
	fill(b, envBatchRow, r.BatchRow, 1, n)
	fill(b, envQueue, int64(r.Queue), 0, n)
	fill(b, envScore, int64(r.Score), 0, n)
	fill(b, envScored, r.Scored.UnixNano(), 0, n)
	fill(b, envInFrame, inFrame, 0, n)
	fill(b, envInRow, inRow, step(inFrame), n)
	fill(b, envOutFrame, outFrame, 0, n)
	fill(b, envOutRow, outRow, step(outFrame), n)
	b.Advance(n)
}

// statuses are the values of the envelope's status column.
var statuses = [...]string{StatusError, StatusOK, StatusLate}

func statusCode(s string) uint8 {
	for i, o := range statuses {
		if o == s {
			return uint8(i)
		}
	}
	return 1 // a Row of its zero value is ok
}

func appendOne(b *schemas.Batch, ctx, req int32, r *Row, status uint8, inFrame, inRow, outFrame, outRow int32) {
	put(b, envContext, ctx)
	put(b, envRequest, req)
	put(b, envRow, r.Row)
	put(b, envStatus, status)
	putString(b, envErrorKind, r.ErrorKind)
	putString(b, envErrorID, r.ErrorID)
	putString(b, envError, r.Error)
	put(b, envPropensity, r.Propensity)
	put(b, envSeed, r.Seed)
	put(b, envState, r.State)
	put(b, envBatchSize, r.BatchSize)
	put(b, envBatchRow, r.BatchRow)
	put(b, envQueue, int64(r.Queue))
	put(b, envScore, int64(r.Score))
	put(b, envScored, r.Scored.UnixNano())
	put(b, envInFrame, inFrame)
	put(b, envInRow, inRow)
	put(b, envOutFrame, outFrame)
	put(b, envOutRow, outRow)
}

func appendContext(b *schemas.Batch, c *Context, salt *[16]byte) {
	for i, s := range [...]string{c.Principal, c.Via, c.Pipeline, c.Revision, c.Node, c.Role, c.Arm, c.Model} {
		putString(b, i, s)
	}
	put(b, ctxVersion, int32(c.Version))
	for i, s := range [...]string{c.Digest, c.Run, c.Runtime, c.CPU} {
		putString(b, ctxVersion+1+i, s)
	}
	text := ""
	if c.Policy != nil {
		text = c.Policy.text
	}
	putString(b, ctxWithheld, text)
	b.Column(ctxSalt).AppendFixed(salt[:], 1)
	b.Advance(1)
}

func appendRequest(b *schemas.Batch, r *Row) {
	putString(b, reqID, r.RequestID)
	put(b, reqAttempt, r.Attempt)
	putString(b, reqTrace, r.TraceID)
	putString(b, reqParent, r.ParentID)
	putString(b, reqStream, r.From.Stream)
	put(b, reqPartition, r.From.Partition)
	put(b, reqSequence, r.From.Sequence)
	b.Column(reqDigest).AppendFixed(r.InputDigest[:], 1)
	putTime(b, reqEvent, r.EventTime)
	putTime(b, reqReceived, r.Received)
	b.Advance(1)
}

// requestFields is what the request frame holds of a row: rows that agree in it share one row there.
type requestFields struct {
	id, trace, parent string
	attempt           int32
	from              schemas.Position
	digest            [32]byte
	event, received   time.Time
}

func (r *Row) request() requestFields {
	return requestFields{r.RequestID, r.TraceID, r.ParentID, r.Attempt, r.From, r.InputDigest, r.EventTime, r.Received}
}
