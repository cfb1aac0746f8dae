package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// sink takes the results in the order of the chunks. One goroutine uses it; at and counters are called before it starts
// and by it.
type sink interface {
	// write adds a chunk: r.in holds the outputs.
	write(ctx context.Context, chunk int64, sp span, r *rows) error
	// at is what a job stores of the sink's place.
	at() map[int32]uint64
	// counters are those of what the sink holds already.
	counters() Counters
	commit(ctx context.Context) error
	abort()
}

func (s *Service) openSink(ctx context.Context, j *Job, out *schemas.Schema) (sink, error) {
	to, err := parseTo(j.To)
	if err != nil {
		return nil, err
	}
	if to.kind == topicLocation {
		return s.openTopicSink(ctx, j, to.name)
	}
	return s.openFileSink(ctx, j, to.name, out)
}

// rejectedSuffix is added to the sink's file name for the file that lists the bad rows.
const rejectedSuffix = ".rejected.ndjson"

// fileSink writes a file from its beginning: a job that goes on after a crash writes it again, from the results.
//
// Columns: of a file source "row" (from 0); of a stored source partition, sequence, row (in the message), request_id,
// event_time and key; then the carried columns; then the model's outputs. A column whose name is taken gets the suffix
// _2, or _3 and so on.
type fileSink struct {
	files Files
	path  string
	job   *Job
	out   *schemas.Batch // the rows of one chunk
	meta  int            // columns of the place
	w     FileWriter
	carry *carrier // nil: nothing is carried

	badBatch *schemas.Batch
	badFile  FileWriter // nil while no row was bad
}

func (s *Service) openFileSink(ctx context.Context, j *Job, path string, out *schemas.Schema) (_ *fileSink, err error) {
	if err := s.allow("to", path); err != nil {
		return nil, err
	}
	f := &fileSink{files: s.deps.Files, path: path, job: j}
	fields := []schemas.Field{{Name: "row", Type: schemas.Int64}}
	if j.Ends.Ranges != nil {
		fields = []schemas.Field{
			{Name: "partition", Type: schemas.Int32}, {Name: "sequence", Type: schemas.Int64}, {Name: "row", Type: schemas.Int32},
			{Name: "request_id", Type: schemas.String}, {Name: "event_time", Type: schemas.Timestamp, Nullable: true}, {Name: "key", Type: schemas.String},
		}
	}
	f.meta = len(fields)
	if len(j.Carry) > 0 {
		if f.carry, err = s.openCarrier(ctx, j); err != nil {
			return nil, err
		}
		fields = append(fields, f.carry.schema.Fields()...)
	}
	fields = append(fields, out.Fields()...)
	schema, err := schemas.NewSchema(distinct(fields))
	if err == nil {
		f.out = schemas.NewBatch(schema)
		f.w, err = s.deps.Files.Create(path, schema.Arrow())
	}
	if err != nil {
		f.abort()
		return nil, err
	}
	return f, nil
}

// distinct gives every column a name of its own.
func distinct(fields []schemas.Field) []schemas.Field {
	taken := map[string]bool{}
	for i := range fields {
		name := fields[i].Name
		for n := 2; taken[fields[i].Name]; n++ {
			fields[i].Name = name + "_" + strconv.Itoa(n)
		}
		taken[fields[i].Name] = true
		fields[i].Features = nil
	}
	return fields
}

func (f *fileSink) write(ctx context.Context, _ int64, sp span, r *rows) error {
	if err := f.reject(sp, r.bad); err != nil {
		return err
	}
	f.out.Reset()
	f.places(sp, r)
	col := f.meta
	if f.carry != nil {
		if err := f.carry.append(ctx, f.out, col, r.at); err != nil {
			return err
		}
		col += f.carry.schema.Len()
	}
	for i := range r.in.Schema().Len() {
		f.out.Column(col+i).AppendColumn(r.in.Column(i), 0, r.in.Rows())
	}
	f.out.Advance(r.in.Rows())
	if f.out.Rows() == 0 {
		return nil
	}
	return writeBatch(f.w, f.out)
}

func writeBatch(w FileWriter, b *schemas.Batch) error {
	rec, err := b.Record(nil)
	if err != nil {
		return err
	}
	defer rec.Release()
	return w.Write(rec)
}

func (f *fileSink) places(sp span, r *rows) {
	b := f.out
	if f.meta == 1 {
		c := b.Column(0)
		for _, at := range r.at {
			schemas.Append(c, int64(at.Unit))
			c.EndRow()
		}
		return
	}
	for i, at := range r.at {
		o := &r.origins[i]
		schemas.Append(b.Column(0), sp.Partition)
		schemas.Append(b.Column(1), int64(at.Unit))
		schemas.Append(b.Column(2), o.row)
		b.Column(3).AppendString(o.request)
		if o.event != 0 {
			schemas.Append(b.Column(4), o.event)
			b.Column(4).EndRow()
		} else {
			b.Column(4).AppendNull()
		}
		b.Column(5).AppendString(o.key)
		for _, c := range []int{0, 1, 2, 3, 5} {
			b.Column(c).EndRow()
		}
	}
}

var rejectedSchema = schemas.MustSchema(
	schemas.Field{Name: "partition", Type: schemas.Int32},
	schemas.Field{Name: "row", Type: schemas.Int64},  // of the file, or sequence of the message
	schemas.Field{Name: "part", Type: schemas.Int32}, // row in the message
	schemas.Field{Name: "skipped", Type: schemas.Bool},
	schemas.Field{Name: "kind", Type: schemas.String},
	schemas.Field{Name: "reason", Type: schemas.String},
)

// reject lists bad rows in the file beside the sink.
func (f *fileSink) reject(sp span, bads []bad) (err error) {
	if len(bads) == 0 {
		return nil
	}
	if f.badFile == nil {
		if f.badFile, err = f.files.Create(f.path+rejectedSuffix, rejectedSchema.Arrow()); err != nil {
			return err
		}
		f.badBatch = schemas.NewBatch(rejectedSchema)
	}
	b := f.badBatch
	b.Reset()
	for i := range bads {
		x := &bads[i]
		schemas.Append(b.Column(0), sp.Partition)
		schemas.Append(b.Column(1), int64(x.at.Unit))
		schemas.Append(b.Column(2), x.at.Sub)
		b.Column(3).AppendBool(x.skipped)
		b.Column(4).AppendString(x.kind)
		b.Column(5).AppendString(x.reason)
		for c := range rejectedSchema.Len() {
			b.Column(c).EndRow()
		}
		b.Advance(1)
	}
	return writeBatch(f.badFile, b)
}

func (f *fileSink) at() map[int32]uint64 { return nil }
func (f *fileSink) counters() Counters   { return Counters{} }

func (f *fileSink) commit(context.Context) error {
	if f.badFile != nil {
		if err := f.badFile.Commit(); err != nil {
			return err
		}
	}
	return f.w.Commit()
}

func (f *fileSink) abort() {
	if f.carry != nil {
		f.carry.close()
	}
	if f.badFile != nil {
		f.badFile.Abort()
	}
	if f.w != nil {
		f.w.Abort()
	}
}

// carrier reads the carried columns of the source's file again, in step with the sink.
type carrier struct {
	reader FileReader
	proj   *schemas.Projection
	schema *schemas.Schema
	rows   *rows // of the newest record
	bad    []int64
}

// carryAll as the only carried column means all.
const carryAll = "all"

func (s *Service) openCarrier(ctx context.Context, j *Job) (*carrier, error) {
	from, err := parseFrom(j.From)
	if err != nil {
		return nil, err
	}
	c := &carrier{}
	o := FileOptions{BatchRows: j.ChunkRows, OnRowError: func(row int64, _ *schemas.Error) error {
		c.bad = append(c.bad, row)
		return nil
	}}
	if !(len(j.Carry) == 1 && j.Carry[0] == carryAll) {
		o.Columns = j.Carry
	}
	if c.reader, err = s.deps.Files.Open(ctx, from.name, o); err != nil {
		return nil, err
	}
	if c.schema, err = carriedSchema(c.reader.Schema()); err == nil {
		c.proj, err = schemas.NewProjection(c.reader.Schema(), c.schema)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	c.rows = newRows(c.schema)
	return c, nil
}

// carriedSchema takes a file's columns as they are, all nullable: what the model does not read may be missing.
func carriedSchema(as *arrow.Schema) (*schemas.Schema, error) {
	s, err := schemas.SchemaFromArrow(as)
	if err != nil {
		return nil, err
	}
	fs := append([]schemas.Field(nil), s.Fields()...)
	for i := range fs {
		fs[i].Nullable = true
	}
	return schemas.NewSchema(fs)
}

// append adds the carried columns of the rows at these places to dst, from column col on. A row that cannot be carried
// is null in all of them.
func (c *carrier) append(ctx context.Context, dst *schemas.Batch, col int, at []ref) error {
	for i := 0; i < len(at); {
		if err := c.reach(ctx, at[i]); err != nil {
			return err
		}
		from, _ := c.rows.before(at[i])
		if from == len(c.rows.at) || c.rows.at[from] != at[i] {
			for k := range c.schema.Len() {
				dst.Column(col + k).AppendNull()
			}
			i++
			continue
		}
		n := 1 // rows that follow each other in both
		for i+n < len(at) && from+n < len(c.rows.at) && at[i+n] == c.rows.at[from+n] {
			n++
		}
		for k := range c.schema.Len() {
			dst.Column(col+k).AppendColumn(c.rows.in.Column(k), from, from+n)
		}
		i += n
	}
	return nil
}

// reach reads on until the record that covers a row is there.
func (c *carrier) reach(ctx context.Context, at ref) error {
	for uint64(c.reader.Position()) <= at.Unit {
		first := uint64(c.reader.Position())
		c.rows.reset()
		c.bad = c.bad[:0]
		rec, err := c.reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return schemas.FieldErrorf(schemas.Invalid, "bulk.carry", "from", "the source was changed while the job ran: start a new job")
		}
		if err != nil {
			return err
		}
		faults := c.proj.AppendGood(c.rows.in, rec, 0, int(rec.NumRows()), nil)
		rec.Release()
		k, b := 0, 0
		for row := first; row < uint64(c.reader.Position()); row++ {
			if b < len(c.bad) && uint64(c.bad[b]) == row {
				b++
				continue
			}
			if len(faults) > 0 && faults[0].Row == k {
				faults = faults[1:]
			} else {
				c.rows.at = append(c.rows.at, ref{Unit: row})
			}
			k++
		}
	}
	return nil
}

func (c *carrier) close() { _ = c.reader.Close() } // it was only read

// topicSink publishes one message a row, in the order of the source, with the source's key. Ids follow from the job and
// the row's place alone. A coordinator that takes over reads what the topic holds behind the place that the job stored
// last, and publishes what is missing there.
type topicSink struct {
	s      *Service
	job    *Job
	topic  string
	stored map[int32]uint64 // place of each partition that at returns while there is not empty
	ends   map[int32]uint64
	there  map[string]bool // rows that lie behind the stored place already and were not passed yet
	answer schemas.Answer
	buf    []byte
}

// rejectedTopic takes the bad rows of a job that writes a topic.
const rejectedTopic = ".rejected"

func (s *Service) openTopicSink(ctx context.Context, j *Job, topic string) (sink, error) {
	if err := s.deps.Topics.EnsureTopic(ctx, topic, 0); err != nil {
		return nil, err
	}
	t := &topicSink{s: s, job: j, topic: topic, stored: j.SinkAt, ends: maps.Clone(j.SinkAt), there: map[string]bool{}}
	spans, err := s.deps.Replayer.Spans(ctx, topic, connectors.Start{})
	if err != nil {
		return nil, err
	}
	if t.ends == nil { // the first attempt: what was there before is not of this job
		t.ends = map[int32]uint64{}
		for _, sp := range spans {
			t.ends[sp.Partition] = sp.Last
		}
		_, err := s.store.update(ctx, j.ID, func(j *Job) error {
			j.SinkAt = t.ends
			return nil
		})
		return t, err
	}
	for _, sp := range spans {
		sp.First = max(sp.First, t.ends[sp.Partition]+1)
		if err := t.recall(ctx, sp); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// recall notes the job's messages in a span.
func (t *topicSink) recall(ctx context.Context, sp connectors.Span) error {
	if sp.Last < sp.First {
		return nil
	}
	src, err := t.s.deps.Replayer.Open(ctx, sp)
	if err != nil {
		return err
	}
	defer src.Close(context.WithoutCancel(ctx))
	for {
		ds, err := src.Receive(ctx, 1024)
		if errors.Is(err, schemas.ErrDrained) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, d := range ds {
			if d.Header.Get(schemas.HeaderJob) == t.job.ID {
				t.there[d.Header.Get(headerRow)] = true
				t.ends[d.From.Partition] = d.From.Sequence
			}
		}
	}
}

// headerRow names a row of the job, as Leat-Job names the job: partition/unit.sub of the source.
const headerRow = "Leat-Row"

func rowName(sp span, at ref) string {
	return strconv.Itoa(int(sp.Partition)) + "/" + at.String()
}

func (t *topicSink) write(ctx context.Context, _ int64, sp span, r *rows) error {
	msgs := make([]schemas.Message, 0, len(r.at))
	for i, at := range r.at {
		name := rowName(sp, at)
		if t.there[name] {
			delete(t.there, name)
			continue
		}
		h := schemas.Header{}
		t.buf = t.buf[:0]
		b, err := t.s.deps.Encoder.EncodeRows(t.buf, h, r.in, i, i+1, &t.answer)
		if err != nil {
			return err
		}
		t.buf = b
		m := t.message(t.topic, name, sp, at, h, append([]byte(nil), b...))
		if len(r.origins) > 0 {
			o := &r.origins[i]
			m.Key = o.key
			if o.request != "" {
				m.Header[schemas.HeaderRequestID] = []string{o.request}
			}
			if o.event != 0 {
				m.Header[schemas.HeaderEventTime] = []string{schemas.FormatTime(unixNano(o.event))}
			}
		}
		msgs = append(msgs, m)
	}
	if err := t.publish(ctx, msgs); err != nil {
		return err
	}
	return t.reject(ctx, sp, r.bad)
}

func (t *topicSink) message(topic, name string, sp span, at ref, h schemas.Header, payload []byte) schemas.Message {
	from := schemas.Position{Stream: sp.Stream, Partition: sp.Partition, Sequence: at.Unit}
	if t.job.Ends.Ranges == nil {
		from.Sequence++ // rows of files count from 0, positions from 1
	}
	h[schemas.HeaderJob] = []string{t.job.ID}
	h[schemas.HeaderRevision] = []string{t.job.Revision}
	h[schemas.HeaderSource] = []string{from.String()}
	h[headerRow] = []string{name}
	return schemas.Message{Topic: topic, ID: t.job.ID + "/" + name, Header: h, Payload: payload}
}

func (t *topicSink) publish(ctx context.Context, msgs []schemas.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	at, err := t.s.deps.Publisher.Publish(ctx, msgs)
	if err != nil {
		return err
	}
	for _, p := range at {
		if p.Sequence > t.ends[p.Partition] {
			t.ends[p.Partition] = p.Sequence
		}
	}
	return nil
}

// reject publishes bad rows, as JSON, to the topic beside the sink's.
func (t *topicSink) reject(ctx context.Context, sp span, bads []bad) error {
	if len(bads) == 0 {
		return nil
	}
	topic := t.topic + rejectedTopic
	if err := t.s.deps.Topics.EnsureTopic(ctx, topic, 0); err != nil {
		return err
	}
	msgs := make([]schemas.Message, len(bads))
	for i := range bads {
		b := &bads[i]
		payload, err := json.Marshal(rejectedRow{sp.Partition, b.at.Unit, b.at.Sub, b.skipped, b.kind, b.reason})
		if err != nil {
			return schemas.Errorf(schemas.Internal, "bulk.reject", "%w", err)
		}
		msgs[i] = t.message(topic, rowName(sp, b.at), sp, b.at, schemas.Header{schemas.HeaderContentType: {"application/json"}}, payload)
	}
	_, err := t.s.deps.Publisher.Publish(ctx, msgs)
	return err
}

// rejectedRow is a message of the rejected topic.
type rejectedRow struct {
	Partition int32  `json:"partition"`
	Row       uint64 `json:"row"`
	Part      int32  `json:"part"`
	Skipped   bool   `json:"skipped"`
	Kind      string `json:"kind"`
	Reason    string `json:"reason"`
}

// at moves on when everything that was found behind the stored place is passed: until then the rows that are still to
// be passed must be found again after the next crash.
func (t *topicSink) at() map[int32]uint64 {
	if len(t.there) == 0 {
		t.stored = maps.Clone(t.ends)
	}
	return t.stored
}

func (t *topicSink) counters() Counters           { return t.job.Counters }
func (t *topicSink) commit(context.Context) error { return nil }
func (t *topicSink) abort()                       {}
