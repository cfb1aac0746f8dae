package bulk

import (
	"context"
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

	next func() (*lineage.Record, error, bool)
	stop func()
	from ref
	name string

	last    schemas.SchemaID // of the columns that match was made for
	match   []int
	matched bool
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
		e.Ranges = []Range{{0, first, last}}
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
		for i, c := range l.match {
			r.in.Column(i).AppendColumn(rec.Input.Column(c), rec.InputRow, rec.InputRow+1)
		}
		r.in.Advance(1)
		r.at = append(r.at, at)
		r.origins = append(r.origins, origin{request: rec.RequestID, row: rec.Row.Row, event: eventNanos(rec.EventTime)})
	}
	return ctx.Err()
}

// unfit says why a record's input cannot be scored again, "" if it can.
func (l *lineageSource) unfit(rec *lineage.Record) string {
	if rec.Input == nil {
		return "the record holds no input"
	}
	if id := rec.Input.Schema().ID(); !l.matched || id != l.last {
		l.last, l.matched = id, true
		l.match = matchColumns(rec.Input.Schema(), l.in)
	}
	if l.match == nil {
		if len(rec.Masked)+len(rec.Dropped) > 0 {
			return "the record masks or drops columns of the input"
		}
		return "the recorded columns are not those of the pipeline"
	}
	for i, c := range l.match {
		if rec.Input.Column(c).IsNull(rec.InputRow) && !l.in.Field(i).Nullable {
			return "column " + l.in.Field(i).Name + " is null"
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

// matchColumns finds the columns of to in from, by name and type; nil if one is missing.
func matchColumns(from, to *schemas.Schema) []int {
	m := make([]int, to.Len())
	for i := range m {
		f := to.Field(i)
		c := from.Index(f.Name)
		if c < 0 || from.Field(c).Type != f.Type || from.Field(c).Width() != f.Width() {
			return nil
		}
		m[i] = c
	}
	return m
}

func (l *lineageSource) stream() string { return l.name }

func (l *lineageSource) after(r ref) ref { return r.next() }

func (l *lineageSource) close(context.Context) {
	if l.stop != nil {
		l.stop()
		l.next, l.stop = nil, nil
	}
}
