package bulk

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// source reads a job's range again and again in the same order. One goroutine uses it.
type source interface {
	// seek goes to a place of a partition's range: rows before it are not given.
	seek(ctx context.Context, r Range, from ref) error
	// fill appends the next rows and bad rows, a few or many; io.EOF after the last of the range.
	fill(ctx context.Context, r *rows) error
	// after returns the first place behind a row.
	after(ref) ref
	// stream names the source in positions; known once rows were given.
	stream() string
	close(ctx context.Context)
}

// openSource opens a job's source for rows of the revision's inputs.
func (s *Service) openSource(ctx context.Context, j *Job, rev *pipeline.Revision) (source, error) {
	from, err := parseFrom(j.From)
	if err != nil {
		return nil, err
	}
	in := rev.Signature.Inputs
	switch from.kind {
	case topicLocation:
		return s.openTopicSource(j, from.name, rev)
	case lineageLocation:
		return &lineageSource{pipeline: from.name, records: s.deps.Records, in: in, rows: j.ChunkRows, parents: j.shadow() != ""}, nil
	}
	return s.openFileSource(ctx, j, from.name, in)
}

// shadow is the name of the shadow that the job runs, "" if it runs the route.
func (j *Job) shadow() string {
	if to, err := parseTo(j.To); err == nil && to.kind == shadowLocation {
		return to.name
	}
	return ""
}

// pin loads what the job runs of its revision.
func (s *Service) pin(ctx context.Context, j *Job, rev *pipeline.Revision) (Pinned, error) {
	if name := j.shadow(); name != "" {
		return s.deps.Pipelines.PinShadow(ctx, rev, name)
	}
	return s.deps.Pipelines.Pin(ctx, rev, j.States)
}

// endsOf fixes what a job's source is.
func (s *Service) endsOf(ctx context.Context, from location, in *schemas.Schema) (Ends, error) {
	switch from.kind {
	case topicLocation:
		spans, err := s.deps.Replayer.Spans(ctx, from.name, from.start)
		if err == nil {
			spans, err = pick(spans, from)
		}
		if err != nil {
			return Ends{}, err
		}
		e := Ends{}
		for _, sp := range spans {
			if sp.Last >= sp.First && sp.Last > 0 {
				e.Ranges = append(e.Ranges, Range{Partition: sp.Partition, First: sp.First, Last: sp.Last})
			}
		}
		slices.SortFunc(e.Ranges, func(a, b Range) int { return int(a.Partition) - int(b.Partition) })
		s.edges(ctx, from.name, e.Ranges)
		return e, nil
	case lineageLocation:
		return s.lineageEnds(ctx, from)
	}
	return s.fileEnds(ctx, from.name, in)
}

// pick leaves the partitions that a location names, each from its own sequence on; all, if it names none.
func pick(spans []connectors.Span, from location) ([]connectors.Span, error) {
	if from.parts == nil {
		return spans, nil
	}
	var out []connectors.Span
	for p, first := range from.parts {
		i := slices.IndexFunc(spans, func(s connectors.Span) bool { return s.Partition == p })
		if i < 0 {
			return nil, schemas.FieldErrorf(schemas.Invalid, "bulk.pick", "from", "topic %s has no partition %d: it has %d, counted from 0", from.name, p, len(spans))
		}
		sp := spans[i]
		sp.First = max(sp.First, first)
		out = append(out, sp)
	}
	return out, nil
}

// total returns what Counters.Total is for the ends: rows or sequences, 0 if a file does not tell.
func (e *Ends) total() int64 {
	n := e.Rows
	for _, r := range e.Ranges {
		n += r.len()
	}
	return n
}

// ranges returns what is to be read. A file is one range whose end shows when it is reached.
func (e *Ends) ranges() []Range {
	if e.Size > 0 || e.Rows > 0 || !e.Modified.IsZero() {
		return []Range{{Last: math.MaxUint64 - 1}}
	}
	return e.Ranges
}

// fileSource reads a file. Its rows are numbered from 0, bad ones included.
type fileSource struct {
	files Files
	path  string
	ends  Ends
	opts  FileOptions
	in    *schemas.Schema

	reader FileReader
	proj   *schemas.Projection
	bad    []bad // of the record that is being read
}

func (s *Service) openFileSource(ctx context.Context, j *Job, path string, in *schemas.Schema) (source, error) {
	if err := s.allow("from", path); err != nil {
		return nil, err
	}
	f := &fileSource{files: s.deps.Files, path: path, ends: j.Ends, in: in}
	f.opts = FileOptions{BatchRows: j.ChunkRows, Want: in, OnRowError: f.rowError}
	return f, f.narrow(ctx)
}

// narrow finds out which columns of the file are wanted, so that no others are read, and whether they fit.
func (f *fileSource) narrow(ctx context.Context) error {
	o := f.opts
	o.OnRowError = func(int64, *schemas.Error) error { return nil }
	r, err := f.files.Open(ctx, f.path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := schemas.NewProjection(r.Schema(), f.in); err != nil {
		e := schemas.AsError("bulk.openFile", err)
		return schemas.FieldErrorf(schemas.Invalid, "bulk.openFile", e.Field, "%s: %w", f.path, e.Err)
	}
	f.opts.Columns = wanted(r.Schema(), f.in)
	return nil
}

// wanted lists the columns of a file that a Projection to in reads.
func wanted(from *arrow.Schema, in *schemas.Schema) []string {
	var names []string
	for _, f := range in.Fields() {
		for _, n := range append([]string{f.Name}, f.Features...) {
			if len(from.FieldIndices(n)) > 0 && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

func (f *fileSource) rowError(row int64, err *schemas.Error) error {
	f.bad = append(f.bad, newBad(ref{Unit: uint64(row)}, err))
	return nil
}

func (f *fileSource) seek(ctx context.Context, _ Range, from ref) error {
	f.close(ctx)
	if err := f.unchanged(); err != nil {
		return err
	}
	o := f.opts
	o.FromRow = int64(from.Unit)
	r, err := f.files.Open(ctx, f.path, o)
	if err != nil {
		return err
	}
	f.reader = r
	f.proj, err = schemas.NewProjection(r.Schema(), f.in)
	return err
}

func (f *fileSource) fill(ctx context.Context, r *rows) error {
	first := f.reader.Position()
	f.bad = f.bad[:0]
	rec, err := f.reader.Next(ctx)
	if errors.Is(err, io.EOF) {
		if err := f.unchanged(); err != nil {
			return err
		}
		return io.EOF
	}
	if err != nil {
		return err
	}
	defer rec.Release()
	n := int(rec.NumRows())
	places := make([]uint64, 0, n) // of the record's rows: those that no error took
	b := 0
	for row := uint64(first); row < uint64(f.reader.Position()); row++ {
		if b < len(f.bad) && f.bad[b].at.Unit == row {
			b++
			continue
		}
		places = append(places, row)
	}
	if len(places) != n {
		return schemas.Errorf(schemas.Internal, "bulk.file", "%s: a record of %d rows for %d places", f.path, n, len(places))
	}
	nbad := len(r.bad)
	r.bad = append(r.bad, f.bad...)
	faults := f.proj.AppendGood(r.in, rec, 0, n, nil)
	b = 0
	for i, p := range places {
		if b < len(faults) && faults[b].Row == i {
			r.bad = append(r.bad, newBad(ref{Unit: p}, faults[b].Err))
			b++
			continue
		}
		r.at = append(r.at, ref{Unit: p})
	}
	slices.SortFunc(r.bad[nbad:], func(a, b bad) int { return compareRef(a.at, b.at) })
	return nil
}

func (f *fileSource) stream() string { return f.path }

func (f *fileSource) after(r ref) ref { return ref{Unit: r.Unit + 1} }

func (f *fileSource) close(context.Context) {
	if f.reader != nil {
		_ = f.reader.Close() // it was only read
		f.reader = nil
	}
}

// unchanged reports a file that is not the one that the job began with: its chunks would not be the same.
func (f *fileSource) unchanged() error {
	st, err := os.Stat(f.path)
	if err != nil {
		return fileError("from", f.path, err)
	}
	if st.Size() != f.ends.Size || !st.ModTime().Equal(f.ends.Modified) {
		return schemas.FieldErrorf(schemas.Invalid, "bulk.file", "from", "%s was changed while the job ran: start a new job", f.path)
	}
	return nil
}

func (s *Service) fileEnds(ctx context.Context, path string, in *schemas.Schema) (Ends, error) {
	if err := s.allow("from", path); err != nil {
		return Ends{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return Ends{}, fileError("from", path, err)
	}
	if !st.Mode().IsRegular() {
		return Ends{}, schemas.FieldErrorf(schemas.Invalid, "bulk.file", "from", "%s is not a regular file: a job may read it again from the start", path)
	}
	e := Ends{Size: st.Size(), Modified: st.ModTime().Round(0).UTC()}
	f := &fileSource{files: s.deps.Files, path: path, ends: e, in: in, opts: FileOptions{BatchRows: s.config.ChunkRows, Want: in}}
	if err := f.narrow(ctx); err != nil {
		return Ends{}, err
	}
	r, err := f.files.Open(ctx, path, FileOptions{BatchRows: s.config.ChunkRows, Want: in, OnRowError: func(int64, *schemas.Error) error { return nil }})
	if err != nil {
		return Ends{}, err
	}
	defer r.Close()
	if n, ok := r.TotalRows(); ok {
		e.Rows = n
	}
	return e, nil
}

// allow checks a path against Config.Folder, symbolic links included.
func (s *Service) allow(field, path string) error {
	const op = "bulk.allow"
	if s.config.Folder == "" {
		return nil
	}
	rel, err := filepath.Rel(s.config.Folder, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return schemas.FieldErrorf(schemas.Denied, op, field, "%s: jobs of this server read and write below %s only", path, s.config.Folder)
	}
	root, err := os.OpenRoot(s.config.Folder)
	if err != nil {
		return schemas.FieldErrorf(schemas.Unavailable, op, field, "the folder of jobs, %s: %w", s.config.Folder, err)
	}
	defer root.Close()
	// A sink's file need not exist: then its folder must lie inside.
	for _, p := range []string{rel, filepath.Dir(rel)} {
		if _, err = root.Stat(p); err == nil || !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // what is not there is reported by whoever opens it
		return schemas.FieldErrorf(schemas.Denied, op, field, "%s: jobs of this server read and write below %s only: %w", path, s.config.Folder, err)
	}
	return nil
}

// fileError gives an error of the file system its kind.
func fileError(field, path string, err error) error {
	kind := schemas.Unavailable
	switch {
	case errors.Is(err, os.ErrNotExist):
		kind = schemas.NotFound
	case errors.Is(err, os.ErrPermission):
		kind = schemas.Denied
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return schemas.FieldErrorf(kind, "bulk.file", field, "%s: %w", path, err)
}

// eventNanos is what origins keep of a time.
func eventNanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// unixNano is the inverse of eventNanos.
func unixNano(n int64) time.Time { return time.Unix(0, n).UTC() }
