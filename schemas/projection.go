package schemas

import (
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// Projection fills batches of one schema from Arrow records of another: from files, tables and callers' Arrow streams.
//
// Columns are matched by name. A packed tensor whose Field has Features is filled from the columns of those names, or
// from one FixedSizeList column of its own name if the features are not there. Columns that nobody wants are ignored.
//
// What becomes what: a number becomes another number type if its value is kept exactly, row by row; only a float may be
// rounded, to a narrower float (one that would overflow to infinity is refused). Bools become 0 and 1 in number
// columns. Timestamps of any unit, dates and int64 (nanoseconds) become timestamps. Large and fixed-size strings and
// binaries, and dictionaries of anything above, are taken. Text must be UTF-8.
//
// Nulls go into nullable fields only. A null feature of a nullable packed tensor becomes NaN or an empty string there;
// in a tensor of integers it is refused, since no value means "missing".
//
// A Projection is immutable and safe for concurrent use.
type Projection struct {
	from *arrow.Schema
	to   *Schema
	cols []projected
}

// projected says where a column comes from: one source, or one for each element.
type projected struct {
	src    []int
	packed bool // src has one column for each element
}

// NewProjection matches names and types once. The error is Invalid; it names every column that is missing, or the
// first whose type cannot be cast.
func NewProjection(from *arrow.Schema, to *Schema) (*Projection, error) {
	const op = "schemas.NewProjection"
	index := make(map[string]int, len(from.Fields()))
	var twice string
	for i, f := range from.Fields() {
		if _, dup := index[f.Name]; dup && twice == "" && to.wants(f.Name) {
			twice = f.Name
		}
		index[f.Name] = i
	}
	if twice != "" {
		return nil, FieldErrorf(Invalid, op, twice, "two columns of this name")
	}
	p := &Projection{from: from, to: to, cols: make([]projected, to.Len())}
	var missing []string
	for i := range p.cols {
		var lacks []string
		p.cols[i], lacks = match(index, to.Field(i))
		missing = append(missing, lacks...)
	}
	if len(missing) > 0 {
		return nil, FieldErrorf(Invalid, op, missing[0], "%s missing: %s; the columns are: %s", plural(len(missing), "column"),
			list(missing), list(arrowNames(from)))
	}
	for i := range p.cols {
		f := to.Field(i)
		for _, j := range p.cols[i].src {
			if err := castable(from.Field(j), f, p.cols[i].packed); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// wants reports whether name is a column or a feature.
func (s *Schema) wants(name string) bool {
	if _, ok := s.index[name]; ok {
		return true
	}
	for i := range s.fields {
		for _, n := range s.fields[i].Features {
			if n == name {
				return true
			}
		}
	}
	return false
}

func match(index map[string]int, f *Field) (projected, []string) {
	own, has := index[f.Name]
	if len(f.Features) == 0 {
		if !has {
			return projected{}, []string{f.Name}
		}
		return projected{src: []int{own}}, nil
	}
	p := projected{packed: true}
	var lacks []string
	for _, n := range f.Features {
		j, ok := index[n]
		if !ok {
			lacks = append(lacks, n)
			continue
		}
		p.src = append(p.src, j)
	}
	if has && len(lacks) == len(f.Features) {
		return projected{src: []int{own}}, nil
	}
	return p, lacks
}

func castable(af arrow.Field, f *Field, packed bool) error {
	t := af.Type
	bad := func(why string) error {
		return FieldErrorf(Invalid, "schemas.NewProjection", af.Name, "Arrow type %s cannot become %s%s", af.Type, f, why)
	}
	if l, ok := t.(*arrow.FixedSizeListType); ok && !packed {
		if int(l.Len()) != f.Width() {
			return bad(": " + strconv.Itoa(int(l.Len())) + " elements for " + strconv.Itoa(f.Width()))
		}
		t = l.Elem()
	} else if f.Width() != 1 && !packed {
		return bad("")
	}
	if t.ID() == arrow.NULL {
		return nil
	}
	from, to := plainType(t), f.Type
	number := func(d DType) bool { return d.Integer() || d.Float() }
	ok := from == to || number(to) && (number(from) || from == Bool) || to == Timestamp && from == Int64 ||
		to == Binary && from == String || to == String && from == Binary
	if !ok {
		return bad("")
	}
	return nil
}

// AppendRecord appends rows [from, to) of rec, all or none. A value that does not fit is Invalid and names row (of rec)
// and column. It panics if rec has not the Arrow schema that the projection was made for, or dst another schema.
func (p *Projection) AppendRecord(dst *Batch, rec arrow.Record, from, to int) error {
	f := faults{first: from, n: to - from}
	p.fill(dst, rec, &f)
	if f.err != nil {
		dst.Rollback()
		return f.err.Err
	}
	dst.Advance(to - from)
	return nil
}

// AppendGood appends those of the rows [from, to) of rec that fit, in order, and appends one RowError to bad for each
// of the others, in order of rows (counted as in rec).
func (p *Projection) AppendGood(dst *Batch, rec arrow.Record, from, to int, bad []RowError) []RowError {
	f := faults{first: from, n: to - from, lenient: true}
	p.fill(dst, rec, &f)
	if f.err == nil {
		dst.Advance(to - from)
		return bad
	}
	good := NewBatch(p.to)
	base := dst.Rows()
	for row, n := 0, to-from; row < n; {
		end := row
		for end < n && f.rows[end] == nil {
			end++
		}
		if end > row {
			for i := range dst.cols {
				good.cols[i].AppendColumn(&dst.cols[i], base+row, base+end)
			}
			good.Advance(end - row)
		}
		for ; end < n && f.rows[end] != nil; end++ {
			bad = append(bad, *f.rows[end])
		}
		row = end
	}
	dst.Rollback()
	dst.AppendRange(good, 0, good.Rows())
	return bad
}

func (p *Projection) fill(dst *Batch, rec arrow.Record, f *faults) {
	if dst.schema != p.to && dst.schema.id != p.to.id {
		panic("schemas: projection into a batch of another schema")
	}
	if rec.Schema() != p.from && !rec.Schema().Equal(p.from) {
		panic("schemas: projection of a record of another schema")
	}
	if f.first < 0 || f.n < 0 || int64(f.first+f.n) > rec.NumRows() {
		panic("schemas: projection out of range")
	}
	if f.n == 0 {
		return
	}
	for i := range p.cols {
		srcs := make([]source, len(p.cols[i].src))
		for k, j := range p.cols[i].src {
			srcs[k] = newSource(p.from.Field(j).Name, rec.Column(j), f.first, f.n)
		}
		c := &dst.cols[i]
		if c.size == 0 {
			c.fillText(srcs, p.cols[i].packed, f)
		} else {
			c.fillFixed(srcs, p.cols[i].packed, f)
		}
		if f.err != nil && !f.lenient {
			return
		}
	}
}

// faults collects what was wrong: the first row in all-or-none mode, else one error for each bad row.
type faults struct {
	first, n int // rows of the record
	lenient  bool
	err      *RowError
	rows     []*RowError
}

// add blames row i (from 0, of the range) and says whether to go on.
func (f *faults) add(i int, column, format string, args ...any) bool {
	if f.rows != nil && f.rows[i] != nil {
		return true
	}
	row := f.first + i
	e := &RowError{Row: row, Err: FieldErrorf(Invalid, "schemas.Projection", "rows["+strconv.Itoa(row)+"]."+column, format, args...)}
	if f.err == nil {
		f.err = e
	}
	if f.lenient {
		if f.rows == nil {
			f.rows = make([]*RowError, f.n)
		}
		f.rows[i] = e
	}
	return f.lenient
}

// source is the elements of a column's rows: an array of n*per elements from element at on, and which rows are null.
type source struct {
	name string
	list *array.FixedSizeList // nil for a scalar
	arr  arrow.Array          // of elements; a dictionary stays one
	at   int
	row  int // first row, in list or arr
	per  int // elements a row
}

func newSource(name string, a arrow.Array, first, n int) source {
	s := source{name: name, arr: a, at: first, row: first, per: 1}
	if l, ok := a.(*array.FixedSizeList); ok {
		s.list, s.arr = l, l.ListValues()
		s.per = int(l.DataType().(*arrow.FixedSizeListType).Len())
		s.at = (l.Data().Offset() + first) * s.per
	}
	return s
}

// rowNull reports whether row i (of the range) is null as a whole.
func (s *source) rowNull(i int) bool {
	if s.list != nil {
		return s.list.IsNull(s.row + i)
	}
	return s.elemNull(i)
}

// elemNull reports whether element e (of the range) is null; a dictionary's index or value may be.
func (s *source) elemNull(e int) bool {
	e += s.at
	if s.arr.IsNull(e) {
		return true
	}
	switch a := s.arr.(type) {
	case *array.Null: // has no bitmap
		return true
	case *array.Dictionary:
		k := a.GetValueIndex(e)
		return k >= 0 && k < a.Dictionary().Len() && a.Dictionary().IsNull(k)
	}
	return false
}

// dead reports whether element e is null or lies in a null row: whatever is there means nothing.
func (s *source) dead(e int) bool {
	return s.elemNull(e) || s.list != nil && s.list.IsNull(s.row+e/s.per)
}

// mayNull reports whether any row or element can be null.
func (s *source) mayNull() bool {
	if s.list != nil && s.list.NullN() > 0 || s.arr.NullN() > 0 || s.arr.DataType().ID() == arrow.NULL {
		return true
	}
	d, ok := s.arr.(*array.Dictionary)
	return ok && d.Dictionary().NullN() > 0
}

func plural(n int, what string) string {
	if n == 1 {
		return what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func arrowNames(s *arrow.Schema) []string {
	names := make([]string, len(s.Fields()))
	for i, f := range s.Fields() {
		names[i] = f.Name
	}
	return names
}

// list joins names for an error line, the first twenty of them.
func list(names []string) string {
	var b strings.Builder
	for i, n := range names {
		if i == 20 {
			b.WriteString(" and " + strconv.Itoa(len(names)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(clip(n))
	}
	if len(names) == 0 {
		return "none"
	}
	return b.String()
}
