package connectortest

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/schemas"
)

// folder checks what lies beside the table's file, that included.
func (tb *table) folder(t testing.TB, want ...string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Dir(tb.path))
	must(t, err)
	var have []string
	for _, f := range all {
		have = append(have, f.Name())
	}
	if len(have) != len(want) || len(want) > 0 && have[0] != want[0] {
		t.Fatalf("the folder holds %q, want %q", have, want)
	}
}

// content reads the table's file as bytes.
func (tb *table) content(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(tb.path)
	must(t, err)
	return string(b)
}

// abandoned: what was not committed was never there.
func abandoned(t *testing.T, s Subject, f FileFormat) {
	tb := newTable(t, s, f, f.Columns, fileRows)
	name := filepath.Base(tb.path)
	rec, err := tb.Record(nil)
	must(t, err)
	w := tb.create(t, FileWriterOptions{Group: fileGroup}, fileParts...)
	if _, err := os.Lstat(tb.path); !os.IsNotExist(err) {
		t.Errorf("the file is there before Commit: %v", err)
	}
	w.Abort()
	w.Abort()
	tb.folder(t)
	wantKind(t, w.Write(rec), schemas.Internal)
	wantKind(t, w.Commit(), schemas.Internal)
	tb.folder(t)

	// The same over a file that is there: it stays as it was.
	must(t, tb.create(t, FileWriterOptions{}, 10).Commit())
	was := tb.content(t)
	w = tb.create(t, FileWriterOptions{Overwrite: true}, fileParts...)
	w.Abort()
	tb.folder(t, name)
	if tb.content(t) != was {
		t.Error("an abandoned writer changed the file that it would have replaced")
	}
	// A committed one is past abandoning.
	w = tb.create(t, FileWriterOptions{Overwrite: true}, fileParts...)
	must(t, w.Commit())
	w.Abort()
	wantKind(t, w.Write(rec), schemas.Internal)
	wantKind(t, w.Commit(), schemas.Internal)
	tb.folder(t, name)
	r := tb.open(t, 1000, 0)
	must(t, tb.next(t, r, 1000))
	must(t, r.Close())
}

// notOverwritten: a name that is taken is refused, at once and if it was taken meanwhile; nothing is left behind.
func notOverwritten(t *testing.T, s Subject, f FileFormat) {
	tb := newTable(t, s, f, f.Columns, 20)
	create := func(path string, o FileWriterOptions) error {
		w, err := tb.files.Create(path, tb.Schema().Arrow(), o)
		if err == nil {
			w.Abort()
		}
		return err
	}
	w := tb.create(t, FileWriterOptions{}, 20)
	must(t, os.WriteFile(tb.path, []byte("theirs"), 0o600))
	wantKind(t, w.Commit(), schemas.Invalid)
	wantKind(t, create(tb.path, FileWriterOptions{}), schemas.Invalid)
	if got := tb.content(t); got != "theirs" {
		t.Errorf("the other file now holds %q", got)
	}
	tb.folder(t, filepath.Base(tb.path))
	must(t, tb.create(t, FileWriterOptions{Overwrite: true}, 20).Commit())
	tb.folder(t, filepath.Base(tb.path))
	r := tb.open(t, 20, 0)
	must(t, tb.next(t, r, 20))
	must(t, r.Close())

	// Neither a folder nor a name in a folder that is not there can be replaced.
	dir := filepath.Join(t.TempDir(), "folder"+f.Ending)
	must(t, os.Mkdir(dir, 0o700))
	wantKind(t, create(dir, FileWriterOptions{Overwrite: true}), schemas.Invalid)
	wantKind(t, create(filepath.Join(dir, "none", "x"+f.Ending), FileWriterOptions{}), schemas.Invalid)
	// A column that no format writes is refused by name.
	other := arrow.NewSchema([]arrow.Field{{Name: "odd", Type: arrow.FixedWidthTypes.MonthInterval}}, nil)
	_, err := tb.files.Create(filepath.Join(dir, "x"+f.Ending), other, FileWriterOptions{})
	wantKind(t, err, schemas.Invalid)
	says(t, err, "odd")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

var versionColumn = schemas.MustSchema(schemas.Field{Name: "version", Type: schemas.Int64})

// replaced: whoever opens the name while it is replaced reads one version, whole; a reader that is open already goes on
// with its own.
func replaced(t *testing.T, s Subject, f FileFormat) {
	const rows, versions = 300, 10
	write := func(tb *table, v int64) {
		tb.Batch = schemas.NewBatch(versionColumn)
		for range rows {
			schemas.Append(tb.Column(0), v)
			tb.Column(0).EndRow()
		}
		tb.Advance(rows)
		must(t, tb.create(t, FileWriterOptions{Overwrite: true, Group: fileGroup}, rows).Commit())
	}
	tb := newTable(t, s, f, versionColumn, 0)
	write(tb, 0)
	old, oldRows := tb.open(t, 100, 0), *tb
	defer old.Close()
	must(t, oldRows.next(t, old, 100))

	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		last := int64(0)
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true // one more look: the last version
			default:
			}
			v, n, err := readVersion(t, tb.files, tb.path)
			if err != nil || n != rows || v < last || ended && v != versions {
				t.Errorf("after version %d, of %d: version %d with %d rows, %v", last, versions, v, n, err)
				return
			}
			last = v
		}
	})
	next := *tb
	for v := int64(1); v <= versions; v++ {
		write(&next, v)
	}
	close(done)
	reader.Wait()
	for old.Position() < rows {
		must(t, oldRows.next(t, old, 100))
	}
	tb.folder(t, filepath.Base(tb.path))
}

// readVersion returns the version that all rows have, -1 if they differ, and how many rows there are.
func readVersion(t testing.TB, fs Files, path string) (v, n int64, err error) {
	r, err := fs.Open(t.Context(), path, FileOptions{BatchRows: 100, Want: versionColumn})
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	p, err := schemas.NewProjection(r.Schema(), versionColumn)
	if err != nil {
		return 0, 0, err
	}
	b := schemas.NewBatch(versionColumn)
	for {
		rec, err := r.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, 0, err
		}
		err = p.AppendRecord(b, rec, 0, int(rec.NumRows()))
		rec.Release()
		if err != nil {
			return 0, 0, err
		}
	}
	for i, x := range schemas.Values[int64](b.Column(0)) {
		if i > 0 && x != v {
			return -1, int64(b.Rows()), nil
		}
		v = x
	}
	return v, int64(b.Rows()), nil
}

var numberColumns = schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Float64}, schemas.Field{Name: "b", Type: schemas.Int64})

// flatMemory: neither a writer nor a reader holds what has passed through it.
func flatMemory(t *testing.T, s Subject, f FileFormat) {
	const part, parts, rowBytes = 2048, 32, 16
	tb := newTable(t, s, f, numberColumns, part)
	rec, err := tb.Record(nil)
	must(t, err)
	w := tb.create(t, FileWriterOptions{Group: 2 * part})
	var writing, reading growth
	for i := range parts {
		must(t, w.Write(rec))
		if i%4 == 3 {
			writing.look()
		}
	}
	must(t, w.Commit())
	r := tb.open(t, part, 0)
	defer r.Close()
	for i := range parts {
		rec, err := r.Next(t.Context())
		must(t, err)
		tb.same(t, rec, 0)
		rec.Release()
		if i%4 == 3 {
			reading.look()
		}
	}
	const passed = part * parts * rowBytes
	if limit := int64(passed / 4); writing.grown() > limit || reading.grown() > limit {
		t.Errorf("while %d bytes of values passed, memory grew by %d in writing and by %d in reading, want at most %d", passed, writing.grown(), reading.grown(), limit)
	}
}

// growth watches the memory that is in use.
type growth struct{ first, most int64 }

func (g *growth) look() {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if g.first == 0 {
		g.first = int64(m.HeapAlloc)
	}
	g.most = max(g.most, int64(m.HeapAlloc))
}

// grown is how far it went beyond the first look, which was taken with all buffers filled.
func (g *growth) grown() int64 { return g.most - g.first }
