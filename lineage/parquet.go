package lineage

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/leatstream/leat/schemas"
)

// A row group holds at most so many records and bytes: what an export keeps in memory.
const (
	groupRecords = 64 << 10
	groupBytes   = 64 << 20
)

// parquetSchema is the columns of a Parquet export beside the structs input and output, named as in View.
var parquetSchema = schemas.MustSchema(
	text("record_id"), text("request_id"), number("row", schemas.Int32), number("attempt", schemas.Int32),
	text("trace_id"), text("parent_id"), text("principal"), text("via"), text("from"),
	text("pipeline"), text("revision"), text("node"), text("role"), text("arm"),
	number("propensity", schemas.Float64), number("seed", schemas.Uint64), number("state", schemas.Uint64),
	text("model"), number("version", schemas.Int32), text("digest"), text("run"),
	text("input_digest"), text("in_schema"), text("out_schema"), text("salt"), text("withheld"),
	text("runtime"), text("cpu"), number("batch_size", schemas.Int32), number("batch_row", schemas.Int32),
	text("status"), text("error_kind"), text("error_id"), text("error"),
	number("queue_ns", schemas.Int64), number("score_ns", schemas.Int64),
	moment("event_time"), moment("received"), moment("scored"),
	text("position"), number("sequence", schemas.Uint64), number("index", schemas.Int32), moment("appended"),
	number("id_reused", schemas.Bool), number("superseded", schemas.Bool),
)

func text(n string) schemas.Field                    { return schemas.Field{Name: n, Type: schemas.String} }
func number(n string, t schemas.DType) schemas.Field { return schemas.Field{Name: n, Type: t} }
func moment(n string) schemas.Field {
	return schemas.Field{Name: n, Type: schemas.Timestamp, Nullable: true}
}

// unique are the text columns whose values hardly repeat: no dictionary helps them.
var unique = map[string]bool{"record_id": true, "request_id": true, "trace_id": true, "parent_id": true, "from": true, "input_digest": true, "error_id": true, "error": true}

func (r *StreamReader) exportParquet(ctx context.Context, scans []exportScan, j *join, w io.Writer) (ex Exported, err error) {
	in, out, said := newUnion("input"), newUnion("output"), newUnion("said")
	seenIn, seenOut := map[schemas.SchemaID]bool{}, map[schemas.SchemaID]bool{}
	collect := func(u *union, id schemas.SchemaID, seen map[schemas.SchemaID]bool) error {
		if id == (schemas.SchemaID{}) || seen[id] {
			return nil
		}
		seen[id] = true
		s, err := r.schema(ctx, id)
		if err == nil {
			u.add(s)
		}
		return err
	}
	err = r.each(ctx, scans, false, false, func(rec *Record) error {
		if err := collect(in, rec.InSchema, seenIn); err != nil {
			return err
		}
		return collect(out, rec.OutSchema, seenOut)
	}, func(*Feedback) error {
		if len(said.fields) == 0 {
			said.add(FeedbackSchema)
		}
		return nil
	})
	if err != nil {
		return ex, err
	}
	p, err := newParquetWriter(w, in, out, said, j != nil)
	if err != nil {
		return ex, err
	}
	err = r.each(ctx, scans, true, true, func(rec *Record) error {
		ex.Records++
		rec.Feedback = j.of(rec)
		return p.add(rec)
	}, func(f *Feedback) error {
		ex.Feedback++
		return p.addFeedback(f)
	})
	if err != nil {
		return ex, err
	}
	return ex, p.close()
}

// union is the columns of all inputs, or outputs, or of what was said, of an export by name.
type union struct {
	name    string
	fields  []schemas.Field
	index   map[string]int
	sources map[schemas.SchemaID]source
	batch   *schemas.Batch
	valid   []byte // which rows have any
	present int
}

// source says where the columns of one schema go.
type source struct {
	names   []named
	columns []int // of each name
}

func newUnion(name string) *union {
	return &union{name: name, index: map[string]int{}, sources: map[schemas.SchemaID]source{}}
}

func (u *union) add(s *schemas.Schema) {
	src := source{names: namesOf(s)}
	for _, n := range src.names {
		f := *s.Field(n.column)
		f.Name, f.Nullable, f.Features = n.name, true, nil
		if n.element >= 0 {
			f.Shape = nil
		}
		src.columns = append(src.columns, u.column(f))
	}
	u.sources[s.ID()] = src
}

// column finds or makes the column of a field: another type of the same name is a column of its own.
func (u *union) column(f schemas.Field) int {
	base := f.Name
	for try := 0; ; try++ {
		switch {
		case try == 1:
			f.Name = base + "_" + f.Type.String()
		case try > 1: // tensors of different sizes
			f.Name = base + "_" + f.Type.String() + "_" + itoa(try)
		}
		i, ok := u.index[f.Name]
		if !ok {
			u.index[f.Name] = len(u.fields)
			u.fields = append(u.fields, f)
			return len(u.fields) - 1
		}
		if h := &u.fields[i]; h.Type == f.Type && h.Width() == f.Width() && h.Tensor() == f.Tensor() {
			return i
		}
	}
}

// append adds one row's side; b nil: it has none.
func (u *union) append(b *schemas.Batch, row int) {
	if u.batch.Schema().Len() == 0 {
		return
	}
	n := u.batch.Rows()
	if n>>3 >= len(u.valid) {
		u.valid = append(u.valid, 0)
	}
	filled := 0
	if b != nil {
		u.valid[n>>3] |= 1 << (n & 7)
		u.present++
		src := u.sources[b.Schema().ID()]
		for i, nm := range src.names {
			appendNamed(u.batch.Column(src.columns[i]), b.Column(nm.column), nm.element, row)
		}
		filled = len(src.columns)
	}
	if filled < u.batch.Schema().Len() {
		for i := range u.batch.Schema().Len() {
			if c := u.batch.Column(i); c.Rows() == n {
				c.AppendNull()
			}
		}
	}
	u.batch.Advance(1)
}

func appendNamed(dst, src *schemas.Column, element, row int) {
	if element < 0 {
		dst.AppendColumn(src, row, row+1)
		return
	}
	if src.IsNull(row) {
		dst.AppendNull()
		return
	}
	at := row*src.Width() + element
	if size := src.Field().Type.Size(); size > 0 {
		dst.AppendFixed(src.Data()[at*size:(at+1)*size], 1)
		return
	}
	dst.AppendText(src.Text(at))
	dst.EndRow()
}

func (u *union) arrowField() arrow.Field {
	fields := slices.Clone(u.batch.Schema().Arrow().Fields())
	for i := range fields {
		if l, ok := fields[i].Type.(*arrow.FixedSizeListType); ok {
			fields[i].Type = arrow.ListOf(l.Elem())
		}
	}
	return arrow.Field{Name: u.name, Type: arrow.StructOf(fields...), Nullable: true}
}

// array sees the rows as one struct column.
func (u *union) array(mem memory.Allocator) (arrow.Array, error) {
	rec, err := u.batch.Record(mem)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	children := make([]arrow.ArrayData, rec.NumCols())
	for i := range children {
		children[i] = rec.Column(i).Data()
		if c := u.batch.Column(i); c.Field().Tensor() {
			l, err := listOf(c, mem)
			if err != nil {
				return nil, err
			}
			defer l.Release()
			children[i] = l
		}
	}
	rows := u.batch.Rows()
	d := array.NewData(u.arrowField().Type, rows, []*memory.Buffer{memory.NewBufferBytes(u.valid)}, children, rows-u.present, 0)
	defer d.Release()
	return array.NewStructData(d), nil
}

// listOf turns a tensor column into lists, of no elements where a row is null: the Parquet writer takes no others.
func listOf(c *schemas.Column, mem memory.Allocator) (arrow.ArrayData, error) {
	f := *c.Field()
	f.Nullable = false
	s, err := schemas.NewSchema([]schemas.Field{f})
	if err != nil {
		return nil, err
	}
	there := schemas.NewBatch(s)
	offsets := make([]int32, 1, c.Rows()+1)
	for i := range c.Rows() {
		if !c.IsNull(i) {
			there.Column(0).AppendColumn(c, i, i+1)
			there.Advance(1)
		}
		offsets = append(offsets, int32(there.Rows()*c.Width()))
	}
	rec, err := there.Record(mem)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	values := rec.Column(0).(*array.FixedSizeList).ListValues()
	var valid *memory.Buffer
	if v := c.Validity(); v != nil {
		valid = memory.NewBufferBytes(v)
	}
	bufs := []*memory.Buffer{valid, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets))}
	return array.NewData(arrow.ListOf(values.DataType()), c.Rows(), bufs, []arrow.ArrayData{values.Data()}, c.Nulls(), 0), nil
}

func (u *union) reset() {
	u.batch.Reset()
	u.valid, u.present = u.valid[:0], 0
}

// parquetWriter writes records, and feedback, in row groups.
type parquetWriter struct {
	head    *schemas.Batch
	sides   [3]*union      // input, output, said: those that have columns are in the file
	one     *schemas.Batch // of FeedbackSchema, for addFeedback
	schema  *arrow.Schema
	file    *pqarrow.FileWriter
	scratch []byte
	joined  bool // with feedback
}

func newParquetWriter(w io.Writer, in, out, said *union, joined bool) (*parquetWriter, error) {
	head := parquetSchema
	if joined {
		head = parquetJoined
	}
	p := &parquetWriter{head: schemas.NewBatch(head), sides: [3]*union{in, out, said}, one: schemas.NewBatch(FeedbackSchema), joined: joined}
	fields := append([]arrow.Field(nil), head.Arrow().Fields()...)
	props := []parquet.WriterProperty{
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(1), parquet.WithDictionaryDefault(false),
		parquet.WithMaxRowGroupLength(groupRecords), parquet.WithVersion(parquet.V2_LATEST), parquet.WithCreatedBy("leat"),
	}
	for _, f := range head.Fields() {
		if f.Type == schemas.String && !unique[f.Name] {
			props = append(props, parquet.WithDictionaryFor(f.Name, true))
		}
	}
	for _, u := range p.sides {
		s, err := schemas.NewSchema(u.fields)
		if err != nil {
			return nil, schemas.Errorf(schemas.Invalid, "lineage.Export", "the %ss have too many columns for one file; narrow the query: %w", u.name, err)
		}
		u.batch = schemas.NewBatch(s)
		if s.Len() == 0 {
			continue // Parquet has no struct without columns
		}
		fields = append(fields, u.arrowField())
		for _, f := range s.Fields() {
			if f.Type == schemas.String && !f.Tensor() {
				props = append(props, parquet.WithDictionaryFor(u.name+"."+f.Name, true))
			}
		}
	}
	p.schema = arrow.NewSchema(fields, nil)
	var err error
	p.file, err = pqarrow.NewFileWriter(p.schema, struct{ io.Writer }{w}, parquet.NewWriterProperties(props...), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, schemas.Errorf(schemas.Internal, "lineage.Export", "parquet: %w", err)
	}
	return p, nil
}

func (p *parquetWriter) add(r *Record) error {
	p.appendHead(r)
	p.sides[0].append(r.Input, r.InputRow)
	p.sides[1].append(r.Output, r.OutputRow)
	p.sides[2].append(nil, 0)
	return p.added()
}

// added ends the row group if it is full.
func (p *parquetWriter) added() error {
	n := p.head.Rows()
	if n < groupRecords {
		if n%256 != 0 {
			return nil
		}
		bytes := p.head.Bytes()
		for _, u := range p.sides {
			bytes += u.batch.Bytes()
		}
		if bytes < groupBytes {
			return nil
		}
	}
	return p.flush()
}

func (p *parquetWriter) appendHead(r *Record) {
	b, i := p.head, 0
	str := func(ss ...string) {
		for _, s := range ss {
			putString(b, i, s)
			i++
		}
	}
	hexed := func(h []byte) {
		p.scratch = hex.AppendEncode(p.scratch[:0], h)
		b.Column(i).AppendText(p.scratch)
		b.Column(i).EndRow()
		i++
	}
	i32 := func(v int32) { put(b, i, v); i++ }
	flag := func(v bool) { b.Column(i).AppendBool(v); b.Column(i).EndRow(); i++ }
	hexed(r.RecordID[:])
	str(r.RequestID)
	i32(r.Row.Row)
	i32(r.Attempt)
	str(r.TraceID, r.ParentID, r.Principal, r.Via, r.From.String(), r.Pipeline, r.Revision, r.Node, r.Role, r.Arm)
	put(b, i, r.Propensity)
	put(b, i+1, r.Seed)
	put(b, i+2, r.State)
	i += 3
	str(r.Model)
	i32(int32(r.Version))
	str(r.Digest, r.Run)
	hexed(r.InputDigest[:])
	hexed(idBytes(r.Input, &r.InSchema))
	hexed(idBytes(r.Output, &r.OutSchema))
	if len(r.Masked)+len(r.Dropped) > 0 {
		hexed(r.Salt[:])
		w, err := json.Marshal(policyText{r.Masked, r.Dropped})
		if err != nil {
			w = nil // strings always marshal
		}
		str(string(w))
	} else {
		str("", "")
	}
	str(r.Runtime, r.CPU)
	i32(r.BatchSize)
	i32(r.BatchRow)
	str(r.Status, r.ErrorKind, r.ErrorID, r.Error)
	put(b, i, int64(r.Queue))
	put(b, i+1, int64(r.Score))
	putTime(b, i+2, r.EventTime)
	putTime(b, i+3, r.Received)
	putTime(b, i+4, r.Scored)
	i += 5
	str(r.Position.String())
	put(b, i, r.Position.Sequence)
	put(b, i+1, int32(r.Index))
	putTime(b, i+2, r.Appended)
	i += 3
	flag(r.IDReused)
	flag(r.Superseded)
	if p.joined {
		appendOutcome(b, i, r.Feedback)
	}
	b.Advance(1)
}

// idBytes returns a schema id, nothing for data that is not there.
func idBytes(b *schemas.Batch, id *schemas.SchemaID) []byte {
	if b == nil {
		return nil
	}
	return id[:]
}

// flush writes a row group.
func (p *parquetWriter) flush() error {
	n := p.head.Rows()
	if n == 0 {
		return nil
	}
	rec, err := p.head.Record(nil)
	if err != nil {
		return err
	}
	defer rec.Release()
	cols := append([]arrow.Array(nil), rec.Columns()...)
	for _, u := range p.sides {
		if u.batch.Schema().Len() == 0 {
			continue
		}
		a, err := u.array(memory.DefaultAllocator)
		if err != nil {
			return err
		}
		defer a.Release()
		cols = append(cols, a)
	}
	all := array.NewRecord(p.schema, cols, int64(n))
	defer all.Release()
	if err := p.file.Write(all); err != nil {
		return schemas.Errorf(schemas.Internal, "lineage.Export", "parquet: %w", err)
	}
	p.head.Reset()
	for _, u := range p.sides {
		u.reset()
	}
	return nil
}

func (p *parquetWriter) close() error {
	if err := p.flush(); err != nil {
		return err
	}
	if err := p.file.Close(); err != nil {
		return schemas.Errorf(schemas.Internal, "lineage.Export", "parquet: %w", err)
	}
	return nil
}
