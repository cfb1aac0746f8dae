package bulk

import (
	"context"
	"encoding/hex"
	"io"
	"iter"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// lineageSource reads the canonical root inputs of role primary that no job made, in the order of the stream. An input
// that is not recorded whole (at the parent, masked, dropped, or of other columns) is a skipped row.
type lineageSource struct {
	pipeline string
	records  Records
	in       *schemas.Schema
	rows     int
	parents  bool // the key of an origin is the id of the record, which those of a shadow point at

	next func() (*lineage.Record, error, bool)
	stop func()
	from ref
	name string

	last    schemas.SchemaID // of the columns that match was made for
	match   []matched        // nil: they do not fit
	decided bool
}

// lineageEnds fixes the range of the stream. Sequences of other pipelines lie between.
func (s *Service) lineageEnds(ctx context.Context, from location) (Ends, error) {
	first, last, err := s.deps.Records.Bounds(ctx)
	if err != nil {
		return Ends{}, err
	}
	e := Ends{}
	if !from.start.Time.IsZero() {
		seq := last + 1
		q := lineage.Query{Pipeline: from.name, Role: lineage.RolePrimary, Run: lineage.RunNone, Since: from.start.Time}
		err := s.deps.Records.Scan(ctx, q, func(r *lineage.Record) (bool, error) {
			seq = r.Position.Sequence
			return false, nil
		})
		if err != nil {
			return Ends{}, err
		}
		first = max(first, seq)
	}
	if first = max(first, 1); last >= first {
		e.Ranges = []Range{{First: first, Last: last}}
	}
	return e, nil
}

func (l *lineageSource) seek(ctx context.Context, r Range, from ref) error {
	l.close(ctx)
	l.from = from
	q := lineage.Query{Pipeline: l.pipeline, Role: lineage.RolePrimary, Run: lineage.RunNone, From: r.First}
	// The scan begins at the range's start even if the place is later: only so are duplicates folded as they were.
	l.next, l.stop = iter.Pull2(func(yield func(*lineage.Record, error) bool) {
		err := l.records.Scan(ctx, q, func(rec *lineage.Record) (bool, error) {
			if rec.Position.Sequence > r.Last {
				return false, nil
			}
			return yield(rec, nil), nil
		})
		if err != nil {
			yield(nil, err)
		}
	})
	return nil
}

func (l *lineageSource) fill(ctx context.Context, r *rows) error {
	for n := 0; n < l.rows; {
		rec, err, ok := l.next()
		if !ok {
			if n > 0 {
				return nil
			}
			return io.EOF
		}
		if err != nil {
			return err
		}
		at := ref{rec.Position.Sequence, int32(rec.Index)}
		if at.before(l.from) {
			continue
		}
		n++
		l.name = rec.Position.Stream
		if why := l.unfit(rec); why != "" {
			b := newBad(at, schemas.Errorf(schemas.Invalid, "bulk.lineage", "%s", why))
			b.skipped = true
			r.bad = append(r.bad, b)
			continue
		}
		for i, m := range l.match {
			m.append(r.in.Column(i), rec.Input, rec.InputRow)
		}
		r.in.Advance(1)
		r.at = append(r.at, at)
		o := origin{request: rec.RequestID, row: rec.Row.Row, event: eventNanos(rec.EventTime)}
		if l.parents {
			o.key = hex.EncodeToString(rec.RecordID[:])
		}
		if o.when = o.event; o.when == 0 {
			o.when = eventNanos(rec.Received)
		}
		r.origins = append(r.origins, o)
	}
	return ctx.Err()
}

// unfit says why a record's input cannot be scored again, "" if it can.
func (l *lineageSource) unfit(rec *lineage.Record) string {
	if rec.Input == nil {
		return "the record holds no input"
	}
	if id := rec.Input.Schema().ID(); !l.decided || id != l.last {
		l.last, l.decided = id, true
		l.match = matchColumns(rec.Input.Schema(), l.in)
	}
	if l.match == nil {
		if len(rec.Masked)+len(rec.Dropped) > 0 {
			return "the record masks or drops columns of the input"
		}
		return "the recorded columns are not those of the pipeline"
	}
	for i, m := range l.match {
		f := l.in.Field(i)
		for _, p := range m {
			c := rec.Input.Column(p.column)
			if c.IsNull(rec.InputRow) && !(f.Nullable && (len(m) == 1 || f.Type.Float())) {
				return "column " + c.Field().Name + " is null"
			}
		}
	}
	for _, names := range [][]string{rec.Masked, rec.Dropped} {
		for _, n := range names {
			if wants(l.in, n) {
				return "the record masks or drops " + n
			}
		}
	}
	return ""
}

// wants reports whether a name is a column, or a feature of one.
func wants(s *schemas.Schema, name string) bool {
	for _, f := range s.Fields() {
		if f.Name == name {
			return true
		}
		for _, n := range f.Features {
			if n == name {
				return true
			}
		}
	}
	return false
}

// matched says where a column comes from: from one column as it is, or element by element.
type matched []place

// place is a column, or one element of it.
type place struct {
	column  int
	element int // -1: the whole column
}

// append copies a row. A null among several elements is NaN there.
func (m matched) append(dst *schemas.Column, from *schemas.Batch, row int) {
	if m[0].element < 0 {
		dst.AppendColumn(from.Column(m[0].column), row, row+1)
		return
	}
	if len(m) == 1 && from.Column(m[0].column).IsNull(row) {
		dst.AppendNull()
		return
	}
	size := dst.Field().Type.Size()
	if size == 0 {
		for _, p := range m {
			c := from.Column(p.column)
			dst.AppendText(c.Text(row*c.Width() + p.element))
		}
		dst.EndRow()
		return
	}
	out := dst.Extend(1)
	for i, p := range m {
		c := from.Column(p.column)
		at := (row*c.Width() + p.element) * size
		copy(out[i*size:(i+1)*size], c.Data()[at:at+size])
	}
}

// matchColumns finds the columns of to in from, by name and type; nil if one is missing. As with files, a packed tensor
// may come from single columns of its features' names, and a single column from a packed tensor that has it.
func matchColumns(from, to *schemas.Schema) []matched {
	single := map[string]place{}
	for i, f := range from.Fields() {
		if f.Width() == 1 {
			single[f.Name] = place{i, 0}
		}
		for e, n := range f.Features {
			single[n] = place{i, e}
		}
	}
	ms := make([]matched, to.Len())
	for i := range ms {
		f := to.Field(i)
		if c := from.Index(f.Name); c >= 0 && from.Field(c).Type == f.Type && from.Field(c).Width() == f.Width() {
			ms[i] = matched{{c, -1}}
			continue
		}
		names := f.Features
		if names == nil && f.Width() == 1 {
			names = []string{f.Name}
		}
		for _, n := range names {
			p, ok := single[n]
			if !ok || from.Field(p.column).Type != f.Type {
				return nil
			}
			ms[i] = append(ms[i], p)
		}
		if ms[i] == nil {
			return nil
		}
	}
	return ms
}

func (l *lineageSource) stream() string { return l.name }

func (l *lineageSource) after(r ref) ref { return r.next() }

func (l *lineageSource) close(context.Context) {
	if l.stop != nil {
		l.stop()
		l.next, l.stop = nil, nil
	}
}
