package lineage

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// maxFrames bounds the data frames of a message: a commit of one pipeline has a few schemas.
const maxFrames = 4096

// decoder reads messages (the form is in encode.go). Every byte is taken for hostile: what does not fit is an Invalid
// error, never a panic, and memory is bounded by a small multiple of the message. It belongs to one goroutine; what it
// returns is valid until the next open.
type decoder struct {
	lookup func(context.Context, schemas.SchemaID) (*schemas.Schema, error)

	env, ctx, req *schemas.Batch
	frames        []frame
	batches       map[schemas.SchemaID]*schemas.Batch
	used          map[schemas.SchemaID]bool // by a frame of this message
	contexts      []sharedContext
	requests      []sharedRequest
	names         map[string]string // of streams, kinds: few and often
}

// frame is a data frame; rows is nil until somebody looks.
type frame struct {
	id      schemas.SchemaID
	payload []byte
	rows    *schemas.Batch
}

// sharedContext is a row of the context frame.
type sharedContext struct {
	Context
	masked, dropped []string
	salt            [16]byte
}

// sharedRequest is a row of the request frame, with the key under the context that it was last seen with.
type sharedRequest struct {
	Row
	context int32
	key     [32]byte
}

func newDecoder(lookup func(context.Context, schemas.SchemaID) (*schemas.Schema, error)) *decoder {
	return &decoder{
		lookup: lookup,
		env:    schemas.NewBatch(EnvelopeSchema), ctx: schemas.NewBatch(ContextSchema), req: schemas.NewBatch(RequestSchema),
		batches: map[schemas.SchemaID]*schemas.Batch{}, used: map[schemas.SchemaID]bool{}, names: map[string]string{},
	}
}

func corrupt(format string, args ...any) error {
	return schemas.Errorf(schemas.Invalid, "lineage.decode", format, args...)
}

// open reads the frames that head a message. Data frames are only found, not read.
func (d *decoder) open(msg []byte) error {
	d.frames, d.contexts, d.requests = d.frames[:0], d.contexts[:0], d.requests[:0]
	clear(d.used)
	n := 0
	for rest := msg; len(rest) > 0; n++ {
		if n >= frameData+maxFrames {
			return corrupt("more than %d frames", frameData+maxFrames)
		}
		if len(rest) < frameHeader {
			return corrupt("frame %d: %d bytes are no frame", n, len(rest))
		}
		size := binary.LittleEndian.Uint32(rest)
		if uint64(size) > uint64(len(rest)-4) || size < uint32(frameHeader-4) {
			return corrupt("frame %d of %d bytes, %d are there", n, size, len(rest)-4)
		}
		id := schemas.SchemaID(rest[4:frameHeader])
		payload := rest[frameHeader : 4+size]
		rest = rest[4+size:]
		if n >= frameData {
			d.frames = append(d.frames, frame{id: id, payload: payload})
			continue
		}
		b := [...]*schemas.Batch{d.env, d.ctx, d.req}[n]
		if id != b.Schema().ID() {
			return corrupt("frame %d has schema %s, want %s: written by another version?", n, id, b.Schema().ID())
		}
		b.Reset()
		if _, err := wire.AppendRows(b, payload); err != nil {
			return corrupt("frame %d: %w", n, err)
		}
	}
	if n < frameData {
		return corrupt("%d frames: want at least %d", n, frameData)
	}
	if err := d.readContexts(); err != nil {
		return err
	}
	d.readRequests()
	return d.check()
}

// check makes sure that every number of the envelope points at something. Rows of data frames are checked when read.
func (d *decoder) check() error {
	contexts, requests := schemas.Values[int32](d.env.Column(envContext)), schemas.Values[int32](d.env.Column(envRequest))
	inFrames, outFrames := schemas.Values[int32](d.env.Column(envInFrame)), schemas.Values[int32](d.env.Column(envOutFrame))
	status := d.env.Column(envStatus).Data()
	last := int32(frameData + len(d.frames))
	for i := range d.env.Rows() {
		switch {
		case int(status[i]) >= len(statuses):
			return corrupt("row %d has status %d", i, status[i])
		case contexts[i] < 0 || int(contexts[i]) >= len(d.contexts):
			return corrupt("row %d names context %d of %d", i, contexts[i], len(d.contexts))
		case requests[i] < 0 || int(requests[i]) >= len(d.requests):
			return corrupt("row %d names request %d of %d", i, requests[i], len(d.requests))
		case !frameOK(inFrames[i], last) || !frameOK(outFrames[i], last):
			return corrupt("row %d names frames %d and %d of %d", i, inFrames[i], outFrames[i], last)
		}
	}
	return nil
}

func frameOK(f, last int32) bool { return f == -1 || f >= frameData && f < last }

func (d *decoder) readContexts() error {
	version := schemas.Values[int32](d.ctx.Column(ctxVersion))
	salt := d.ctx.Column(ctxSalt).Data()
	for i := range d.ctx.Rows() {
		text := func(c int) string { return string(d.ctx.Column(c).Text(i)) }
		c := sharedContext{Context: Context{
			Principal: text(0), Via: text(1), Pipeline: text(2), Revision: text(3), Node: text(4), Role: text(5), Arm: text(6), Model: text(7),
			Version: int(version[i]), Digest: text(9), Run: text(10), Runtime: text(11), CPU: text(12),
		}}
		copy(c.salt[:], salt[16*i:])
		if w := d.ctx.Column(ctxWithheld).Text(i); len(w) > 0 {
			var p policyText
			if err := json.Unmarshal(w, &p); err != nil {
				return corrupt("context %d: withheld: %w", i, err)
			}
			c.masked, c.dropped = p.Mask, p.Drop
		}
		d.contexts = append(d.contexts, c)
	}
	return nil
}

func (d *decoder) readRequests() {
	attempt, part := schemas.Values[int32](d.req.Column(reqAttempt)), schemas.Values[int32](d.req.Column(reqPartition))
	seq, digest := schemas.Values[uint64](d.req.Column(reqSequence)), d.req.Column(reqDigest).Data()
	for i := range d.req.Rows() {
		q := sharedRequest{context: -1, Row: Row{
			RequestID: string(d.req.Column(reqID).Text(i)), Attempt: attempt[i],
			TraceID: string(d.req.Column(reqTrace).Text(i)), ParentID: string(d.req.Column(reqParent).Text(i)),
			From:      schemas.Position{Stream: d.name(d.req.Column(reqStream).Text(i)), Partition: part[i], Sequence: seq[i]},
			EventTime: timeAt(d.req.Column(reqEvent), i), Received: timeAt(d.req.Column(reqReceived), i),
		}}
		copy(q.InputDigest[:], digest[digestWidth*i:])
		d.requests = append(d.requests, q)
	}
}

// name returns a string that is the same for the same bytes, as long as there are few of them.
func (d *decoder) name(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if len(d.names) >= 1024 {
		clear(d.names)
	}
	s := string(b)
	d.names[s] = s
	return s
}

func timeAt(c *schemas.Column, i int) time.Time {
	if c.IsNull(i) {
		return time.Time{}
	}
	return time.Unix(0, schemas.Values[int64](c)[i]).UTC()
}

// rows returns the number of records.
func (d *decoder) rows() int { return d.env.Rows() }

// context and request return what row i shares with others.
func (d *decoder) context(i int) *sharedContext {
	return &d.contexts[schemas.Values[int32](d.env.Column(envContext))[i]]
}

func (d *decoder) request(i int) *sharedRequest {
	return &d.requests[schemas.Values[int32](d.env.Column(envRequest))[i]]
}

// ids returns request_key and record_id of row i.
func (d *decoder) ids(i int) (key, id [32]byte) {
	c, q := d.context(i), d.request(i)
	if at := schemas.Values[int32](d.env.Column(envContext))[i]; q.context != at {
		q.key = RequestKey(c.Principal, c.Pipeline, q.RequestID)
		q.context = at
	}
	return q.key, RecordID(q.key, q.InputDigest, schemas.Values[int32](d.env.Column(envRow))[i], c.Node, c.Run)
}

// status returns the status of row i.
func (d *decoder) status(i int) string { return statuses[d.env.Column(envStatus).Data()[i]] }

// record fills r with row i but for its data, ids and place.
func (d *decoder) record(i int, r *Record) {
	c, q := d.context(i), d.request(i)
	*r = Record{Context: c.Context, Row: q.Row, Salt: c.salt, Masked: c.masked, Dropped: c.dropped, Index: i}
	e := d.env
	i32 := func(col int) int32 { return schemas.Values[int32](e.Column(col))[i] }
	r.Row.Row = i32(envRow)
	r.Status = d.status(i)
	r.ErrorKind = d.name(e.Column(envErrorKind).Text(i))
	r.ErrorID = string(e.Column(envErrorID).Text(i))
	r.Error = string(e.Column(envError).Text(i))
	r.Propensity = schemas.Values[float64](e.Column(envPropensity))[i]
	r.Seed = schemas.Values[uint64](e.Column(envSeed))[i]
	r.State = schemas.Values[uint64](e.Column(envState))[i]
	r.BatchSize, r.BatchRow = i32(envBatchSize), i32(envBatchRow)
	r.Queue = time.Duration(schemas.Values[int64](e.Column(envQueue))[i])
	r.Score = time.Duration(schemas.Values[int64](e.Column(envScore))[i])
	r.Scored = timeAt(e.Column(envScored), i)
	if f := i32(envInFrame); f >= 0 {
		r.InSchema = d.frames[f-frameData].id
	}
	if f := i32(envOutFrame); f >= 0 {
		r.OutSchema = d.frames[f-frameData].id
	}
}

// data adds input and output to r.
func (d *decoder) data(ctx context.Context, i int, r *Record) (err error) {
	if r.Input, r.InputRow, err = d.side(ctx, i, envInFrame, envInRow); err != nil {
		return err
	}
	r.Output, r.OutputRow, err = d.side(ctx, i, envOutFrame, envOutRow)
	return err
}

func (d *decoder) side(ctx context.Context, i, frameCol, rowCol int) (*schemas.Batch, int, error) {
	n := schemas.Values[int32](d.env.Column(frameCol))[i]
	if n < 0 {
		return nil, 0, nil
	}
	f := &d.frames[n-frameData]
	if f.rows == nil {
		if err := d.read(ctx, f); err != nil {
			return nil, 0, err
		}
	}
	row := schemas.Values[int32](d.env.Column(rowCol))[i]
	if row < 0 || int(row) >= f.rows.Rows() {
		return nil, 0, corrupt("row %d names row %d of %d in frame %d", i, row, f.rows.Rows(), n)
	}
	return f.rows, int(row), nil
}

// read decodes a data frame, into a batch that is used again for the next message.
func (d *decoder) read(ctx context.Context, f *frame) error {
	b := d.batches[f.id]
	if b == nil || d.used[f.id] {
		s, err := d.lookup(ctx, f.id)
		if err != nil {
			return err
		}
		b = schemas.NewBatch(s)
		if len(d.batches) >= retainedSlots {
			clear(d.batches)
		}
		d.batches[f.id] = b
	}
	d.used[f.id] = true
	b.Reset()
	if _, err := wire.AppendRows(b, f.payload); err != nil {
		return corrupt("frame of schema %s: %w", f.id, err)
	}
	f.rows = b
	return nil
}
