package bulk

import (
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// ref is the place of a row in its source: a file's row number, or a stored message's sequence and the row in it.
type ref struct {
	Unit uint64 `json:"unit"`
	Sub  int32  `json:"sub,omitempty"`
}

func (a ref) before(b ref) bool { return a.Unit < b.Unit || a.Unit == b.Unit && a.Sub < b.Sub }

// next is the smallest place behind a.
func (a ref) next() ref { return ref{a.Unit, a.Sub + 1} }

// span is what a chunk covers: rows of one partition from First up to, not including, End. Rows that retention takes
// from a stored source between two readings are missing from it; none can move to another chunk.
type span struct {
	Stream    string `json:"stream,omitempty"` // of the source, in positions
	Partition int32  `json:"partition,omitempty"`
	First     ref    `json:"first"`
	End       ref    `json:"end"`
	Newest    int64  `json:"newest,omitempty"` // event time of its newest row when it was cut, nanoseconds; 0: not known
}

// origin is what a stored message says beside its rows. Files have none.
type origin struct {
	request string
	row     int32 // in the request
	event   int64 // as its message states it, nanoseconds; 0: none
	key     string
	when    int64 // event time, nanoseconds: event, or when the message was stored; of the source alone, no chunk carries it
}

// bad is a row that is not scored: rejected, or skipped because the lineage does not hold its input whole.
type bad struct {
	at      ref
	skipped bool
	kind    string
	reason  string
	when    int64 // as origin.when
}

// maxReason bounds what a bad row says of itself, so that a chunk of bad rows still fits a message.
const maxReason = 120

func newBad(at ref, err error) bad {
	e := schemas.AsError("bulk", err)
	r := e.Error()
	if e.Kind == schemas.Internal { // its text is for the log, not for a report
		if r = "internal error"; e.ID != "" {
			r += " " + e.ID
		}
	}
	if len(r) > maxReason {
		r = r[:maxReason-3] + "..."
	}
	return bad{at: at, kind: e.Kind.String(), reason: strings.ToValidUTF8(r, "?")}
}

// rows are decoded rows with their places: what a source fills, a chunk carries and a worker scores.
type rows struct {
	in      *schemas.Batch
	stored  bool // of stored messages, which have origins; else of a file
	at      []ref
	origins []origin // as long as at if stored
	bad     []bad    // sorted by place
}

func newRows(s *schemas.Schema) *rows { return &rows{in: schemas.NewBatch(s)} }

func (r *rows) reset() {
	r.in.Reset()
	r.at = r.at[:0]
	clear(r.origins)
	r.origins = r.origins[:0]
	clear(r.bad)
	r.bad = r.bad[:0]
}

// before returns how many rows, and bad rows, lie before end.
func (r *rows) before(end ref) (n, nbad int) {
	n, _ = slices.BinarySearchFunc(r.at, end, compareRef)
	nbad, _ = slices.BinarySearchFunc(r.bad, end, func(b bad, e ref) int { return compareRef(b.at, e) })
	return n, nbad
}

func compareRef(a, b ref) int {
	switch {
	case a.before(b):
		return -1
	case b.before(a):
		return 1
	}
	return 0
}

// drop removes the first n rows and nbad bad rows; spare is an empty batch of the same schema that takes the rest.
func (r *rows) drop(n, nbad int, spare *schemas.Batch) (empty *schemas.Batch) {
	r.bad = append(r.bad[:0], r.bad[nbad:]...)
	if n == len(r.at) {
		r.in.Reset()
		r.at, r.origins = r.at[:0], r.origins[:0]
		return spare
	}
	spare.Reset()
	spare.AppendRange(r.in, n, r.in.Rows())
	r.at = append(r.at[:0], r.at[n:]...)
	if len(r.origins) > 0 {
		r.origins = append(r.origins[:0], r.origins[n:]...)
	}
	empty, r.in = r.in, spare
	empty.Reset()
	return empty
}

// fit returns how many of the rows [from, to) take at most limit bytes of columns.
func (r *rows) fit(from, to, limit int) int {
	fixed := 0
	var text []*schemas.Column
	for i := range r.in.Schema().Len() {
		c := r.in.Column(i)
		if size := c.Field().Type.Size(); size > 0 {
			fixed += size * c.Width()
		} else {
			fixed += 4 * c.Width()
			text = append(text, c)
		}
	}
	total := 0
	for i := from; i < to; i++ {
		total += fixed + 32
		for _, c := range text {
			w := c.Width()
			total += int(c.Offsets()[(i+1)*w] - c.Offsets()[i*w])
		}
		if i < len(r.origins) {
			total += len(r.origins[i].request) + len(r.origins[i].key) + 16
		}
		if total > limit {
			return i - from
		}
	}
	return to - from
}

// layout says which columns a chunk's batch has before the inputs.
type layout uint8

const (
	withOrigins layout = 1 << iota // sub, request, row, event, key
	withBad                        // state, kind, reason: bad rows follow the good ones, with empty inputs
	layouts     = 4
)

// States of a row in a chunk with withBad.
const (
	stateGood = iota
	stateRejected
	stateSkipped
)

// prefix keeps our columns apart from the model's.
const prefix = "leat:"

func (l layout) fields() []schemas.Field {
	fs := []schemas.Field{{Name: prefix + "unit", Type: schemas.Uint64}}
	if l&withOrigins != 0 {
		fs = append(fs,
			schemas.Field{Name: prefix + "sub", Type: schemas.Int32},
			schemas.Field{Name: prefix + "request", Type: schemas.String},
			schemas.Field{Name: prefix + "row", Type: schemas.Int32},
			schemas.Field{Name: prefix + "event", Type: schemas.Int64},
			schemas.Field{Name: prefix + "key", Type: schemas.String})
	}
	if l&withBad != 0 {
		fs = append(fs,
			schemas.Field{Name: prefix + "state", Type: schemas.Uint8},
			schemas.Field{Name: prefix + "kind", Type: schemas.String},
			schemas.Field{Name: prefix + "reason", Type: schemas.String})
	}
	return fs
}

// chunkSchemas are the schemas of chunks, and of results, over one set of data columns.
type chunkSchemas [layouts]*schemas.Schema

func newChunkSchemas(data *schemas.Schema) (cs chunkSchemas, err error) {
	for l := range layout(layouts) {
		fs := append(l.fields(), data.Fields()...)
		for i := range fs {
			fs[i].Features = nil // not part of a schema's identity
		}
		if cs[l], err = schemas.NewSchema(fs); err != nil {
			return cs, err
		}
	}
	return cs, nil
}

// packer turns rows into payloads and back, reusing its memory. One goroutine uses it.
type packer struct {
	schemas chunkSchemas
	batches [layouts]*schemas.Batch
}

func newPacker(data *schemas.Schema) (*packer, error) {
	cs, err := newChunkSchemas(data)
	return &packer{schemas: cs}, err
}

func (p *packer) batch(l layout) *schemas.Batch {
	if p.batches[l] == nil {
		p.batches[l] = schemas.NewBatch(p.schemas[l])
	}
	p.batches[l].Reset()
	return p.batches[l]
}

// pack appends rows [from, to) and bad rows of r as one Arrow batch message.
func (p *packer) pack(dst []byte, r *rows, from, to int, bads []bad) ([]byte, layout) {
	var l layout
	if r.stored {
		l |= withOrigins
	}
	if len(bads) > 0 {
		l |= withBad
	}
	b := p.batch(l)
	unit := b.Column(0)
	for _, at := range r.at[from:to] {
		schemas.Append(unit, at.Unit)
		unit.EndRow()
	}
	col := 1
	if l&withOrigins != 0 {
		appendOrigins(b, r.at[from:to], r.origins[from:to])
		col = 6
	}
	if l&withBad != 0 {
		for range to - from {
			appendState(b, col, stateGood, "", "")
		}
		col += 3
	}
	for i := range r.in.Schema().Len() {
		b.Column(col+i).AppendColumn(r.in.Column(i), from, to)
	}
	b.Advance(to - from)
	for i := range bads {
		appendBad(b, l, &bads[i], col)
	}
	return wire.AppendBatch(dst, b, 0, b.Rows()), l
}

func appendOrigins(b *schemas.Batch, at []ref, os []origin) {
	for i := range os {
		o := &os[i]
		schemas.Append(b.Column(1), at[i].Sub)
		b.Column(2).AppendString(o.request)
		schemas.Append(b.Column(3), o.row)
		schemas.Append(b.Column(4), o.event)
		b.Column(5).AppendString(o.key)
		for c := 1; c <= 5; c++ {
			b.Column(c).EndRow()
		}
	}
}

func appendState(b *schemas.Batch, col int, state uint8, kind, reason string) {
	schemas.Append(b.Column(col), state)
	b.Column(col + 1).AppendString(kind)
	b.Column(col + 2).AppendString(reason)
	for c := col; c < col+3; c++ {
		b.Column(c).EndRow()
	}
}

func appendBad(b *schemas.Batch, l layout, x *bad, data int) {
	schemas.Append(b.Column(0), x.at.Unit)
	b.Column(0).EndRow()
	col := 1
	if l&withOrigins != 0 {
		appendOrigins(b, []ref{x.at}, []origin{{}})
		col = 6
	}
	state := uint8(stateRejected)
	if x.skipped {
		state = stateSkipped
	}
	appendState(b, col, state, x.kind, x.reason)
	for i := data; i < b.Schema().Len(); i++ {
		c := b.Column(i)
		if c.Field().Type.Variable() {
			for range c.Width() {
				c.AppendString("")
			}
			c.EndRow()
			continue
		}
		clear(c.Extend(1))
	}
	b.Advance(1)
}

// unpack is the inverse of pack: it replaces what r holds. The payload is not kept.
func (p *packer) unpack(r *rows, payload []byte, l layout) error {
	const op = "bulk.unpack"
	if l >= layouts {
		return schemas.Errorf(schemas.Invalid, op, "layout %d is not known: the chunk was made by another version of Leat", l)
	}
	r.reset()
	r.stored = l&withOrigins != 0
	b := p.batch(l)
	n, err := wire.AppendRows(b, payload)
	if err != nil {
		return err
	}
	good, col := n, 1
	if l&withOrigins != 0 {
		col = 6
	}
	if l&withBad != 0 {
		states := schemas.Values[uint8](b.Column(col))
		good = 0
		for good < n && states[good] == stateGood {
			good++
		}
		col += 3
	}
	units := schemas.Values[uint64](b.Column(0))
	var subs []int32
	if l&withOrigins != 0 {
		subs = schemas.Values[int32](b.Column(1))
	}
	place := func(i int) ref {
		if subs != nil {
			return ref{units[i], subs[i]}
		}
		return ref{Unit: units[i]}
	}
	for i := range n {
		at := place(i)
		if i > 0 && i != good && !place(i-1).before(at) {
			return schemas.Errorf(schemas.Invalid, op, "row %d is out of order", i)
		}
		if i < good {
			r.at = append(r.at, at)
			continue
		}
		s := schemas.Values[uint8](b.Column(col - 3))[i]
		if s != stateRejected && s != stateSkipped {
			return schemas.Errorf(schemas.Invalid, op, "row %d: state %d among the bad rows", i, s)
		}
		r.bad = append(r.bad, bad{
			at: at, skipped: s == stateSkipped,
			kind: string(b.Column(col - 2).Text(i)), reason: string(b.Column(col - 1).Text(i)),
		})
	}
	if l&withOrigins != 0 {
		r.readOrigins(b, good)
	}
	for i := range r.in.Schema().Len() {
		r.in.Column(i).AppendColumn(b.Column(col+i), 0, good)
	}
	r.in.Advance(good)
	return nil
}

func (r *rows) readOrigins(b *schemas.Batch, n int) {
	row, event := schemas.Values[int32](b.Column(3)), schemas.Values[int64](b.Column(4))
	for i := range n {
		r.origins = append(r.origins, origin{
			request: string(b.Column(2).Text(i)), row: row[i], event: event[i], key: string(b.Column(5).Text(i)),
		})
	}
}

// Headers of a chunk's message beside Leat-Job, Leat-Revision and Leat-Schema.
const (
	headerChunk     = "Leat-Chunk"     // its number, from 0
	headerStream    = "Leat-Stream"    // of the source, in positions
	headerPartition = "Leat-Partition" // same
	headerFirst     = "Leat-First"     // place of its first row: unit.sub
	headerEnd       = "Leat-End"       // first place behind it
	headerNewest    = "Leat-Newest"    // event time of its newest row, nanoseconds; 0: not known
	headerLayout    = "Leat-Layout"    // columns before the inputs
)

func (a ref) String() string {
	return strconv.FormatUint(a.Unit, 10) + "." + strconv.FormatInt(int64(a.Sub), 10)
}

func parseRef(s string) (r ref, err error) {
	i := 0
	for i < len(s) && s[i] != '.' {
		i++
	}
	if i < len(s) {
		var sub int64
		r.Unit, err = strconv.ParseUint(s[:i], 10, 64)
		if err == nil {
			sub, err = strconv.ParseInt(s[i+1:], 10, 32)
			r.Sub = int32(sub)
		}
	}
	if err != nil || i >= len(s) {
		return ref{}, schemas.Errorf(schemas.Invalid, "bulk.parseRef", "%.40q is not a place such as 4096.0", s)
	}
	return r, nil
}

// chunkHead is what the headers of a chunk's message say.
type chunkHead struct {
	chunk  int64
	layout layout
	span
}

func (h *chunkHead) header(j *Job, schema schemas.SchemaID) schemas.Header {
	return schemas.Header{
		schemas.HeaderContentType: {contentChunk},
		schemas.HeaderJob:         {j.ID},
		schemas.HeaderRevision:    {j.Revision},
		schemas.HeaderSchema:      {schema.String()},
		headerChunk:               {strconv.FormatInt(h.chunk, 10)},
		headerStream:              {h.Stream},
		headerPartition:           {strconv.FormatInt(int64(h.Partition), 10)},
		headerFirst:               {h.First.String()},
		headerEnd:                 {h.End.String()},
		headerNewest:              {strconv.FormatInt(h.Newest, 10)},
		headerLayout:              {strconv.Itoa(int(h.layout))},
	}
}

// contentChunk names the payload: one Arrow RecordBatch message.
const contentChunk = "application/vnd.apache.arrow.batch"

func parseChunkHead(h schemas.Header) (c chunkHead, err error) {
	const op = "bulk.parseChunkHead"
	number := func(name string, bits int) int64 {
		n, perr := strconv.ParseInt(h.Get(name), 10, bits)
		if perr != nil || n < 0 && name != headerNewest {
			err = schemas.FieldErrorf(schemas.Invalid, op, name, "%.40q is not a number", h.Get(name))
		}
		return n
	}
	c.chunk = number(headerChunk, 64)
	c.Partition = int32(number(headerPartition, 32))
	if h.Get(headerNewest) != "" { // chunks of earlier versions have none
		c.Newest = number(headerNewest, 64)
	}
	l := number(headerLayout, 8)
	c.layout, c.Stream = layout(l), h.Get(headerStream)
	if err != nil {
		return c, err
	}
	if c.First, err = parseRef(h.Get(headerFirst)); err == nil {
		c.End, err = parseRef(h.Get(headerEnd))
	}
	if err == nil && (c.chunk >= MaxChunks || c.layout >= layouts || c.End.before(c.First)) {
		err = schemas.Errorf(schemas.Invalid, op, "chunk %d, layout %d, places %s to %s make no sense", c.chunk, l, c.First, c.End)
	}
	return c, err
}
