package bulk

import (
	"context"
	"strconv"

	"github.com/leatstream/leat/schemas"
)

// sink takes the results in the order of the chunks. One goroutine uses it; at and counters are called before it starts
// and by it.
type sink interface {
	// write adds a part of the next chunk: r.in holds the outputs.
	write(ctx context.Context, sp span, r *rows) error
	// end says that the chunk is whole; c counts it.
	end(ctx context.Context, c Counters) error
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
	switch to.kind {
	case topicLocation:
		return s.openTopicSink(ctx, j, to.name)
	case shadowLocation:
		return noSink{}, nil
	}
	return s.openFileSink(ctx, j, to.name, out)
}

// noSink is that of a shadow, whose answers are in the lineage and nowhere else.
type noSink struct{}

func (noSink) write(context.Context, span, *rows) error { return nil }
func (noSink) end(context.Context, Counters) error      { return nil }
func (noSink) at() map[int32]uint64                     { return nil }
func (noSink) counters() Counters                       { return Counters{} }
func (noSink) commit(context.Context) error             { return nil }
func (noSink) abort()                                   {}

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

func (f *fileSink) end(context.Context, Counters) error { return nil }

func (f *fileSink) write(ctx context.Context, sp span, r *rows) error {
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
