package files

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/schemas"
)

// WriterOptions says how to write.
type WriterOptions struct {
	Format    Format // "": by the path's ending
	Overwrite bool   // replace a file that exists; without it Create and Commit refuse
	// RowGroup is the rows of a Parquet row group; 0: DefaultRowGroup. Readers that resume start at a row group.
	RowGroup int
	Out      io.Writer // what Stdio means
}

// DefaultRowGroup is the rows of a Parquet row group: 64 Ki rows of 14 float columns are 4 MB, which is what the writer
// holds in memory.
const DefaultRowGroup = 64 << 10

// Writer writes records to a file that appears whole or not at all. One goroutine uses a Writer at a time.
type Writer struct {
	path string
	tmp  string // "" for Stdio
	over bool
	file *os.File
	buf  *bufio.Writer
	enc  encoder
	rows int64
	err  error // of the first failure; a Writer that failed can only be aborted
	done bool
}

// encoder writes one format.
type encoder interface {
	write(rec arrow.Record) error
	finish() error
}

// Create opens a writer of records of the schema. path is a file's name, whose folder exists, or Stdio (CSV, NDJSON,
// JSON and Arrow streams; then Commit only flushes). Nothing is seen under path before Commit.
func Create(path string, schema *arrow.Schema, o WriterOptions) (*Writer, error) {
	const op = "files.Create"
	for _, f := range schema.Fields() {
		if t, ok := normalType(f.Type); !ok || !arrow.TypeEqual(t, f.Type) {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, f.Name, "type %s cannot be written", f.Type)
		}
	}
	if err := settleFormat(path, &o); err != nil {
		return nil, err
	}
	w := &Writer{path: path, over: o.Overwrite}
	var out io.Writer = o.Out
	if path != Stdio {
		if err := w.openTemp(); err != nil {
			return nil, err
		}
		out = w.file
	}
	w.buf = bufio.NewWriterSize(out, 1<<20)
	enc, err := newEncoder(w.buf, schema, &o)
	if err != nil {
		w.Abort()
		return nil, schemas.AsError(op, err)
	}
	w.enc = enc
	return w, nil
}

func settleFormat(path string, o *WriterOptions) (err error) {
	const op = "files.Create"
	if path == Stdio {
		switch {
		case o.Format == "":
			return schemas.Errorf(schemas.Invalid, op, "writing to -: state the format: ndjson, json, csv or arrows")
		case o.Format == Parquet || o.Format == Arrow:
			return schemas.Errorf(schemas.Invalid, op, "writing to -: %s needs a file; use ndjson, json, csv or arrows", o.Format)
		case o.Out == nil:
			return schemas.Errorf(schemas.Invalid, op, "writing to -: no standard output was given")
		}
	}
	if o.Format == "" {
		o.Format, err = FormatOf(path)
	} else {
		o.Format, err = ParseFormat(string(o.Format))
	}
	return err
}

// saltBytes makes the names of temporary files differ, so that no writer renames another's half file.
const saltBytes = 6

func (w *Writer) openTemp() error {
	const op = "files.Create"
	if err := w.free(); err != nil {
		return err
	}
	var salt [saltBytes]byte
	_, _ = rand.Read(salt[:]) // never fails
	w.tmp = filepath.Join(filepath.Dir(w.path), "."+filepath.Base(w.path)+"."+hex.EncodeToString(salt[:])+".tmp")
	f, err := os.OpenFile(w.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return schemas.Errorf(schemas.Invalid, op, "%s cannot be written: %w", w.path, errors.Unwrap(err))
	}
	w.file = f
	return nil
}

// free checks that the target's name may be taken.
func (w *Writer) free() error {
	st, err := os.Lstat(w.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return schemas.Errorf(schemas.Invalid, "files.Create", "%w", err)
	case !st.Mode().IsRegular():
		return schemas.Errorf(schemas.Invalid, "files.Create", "%s is there and is no regular file", w.path)
	case !w.over:
		return schemas.Errorf(schemas.Invalid, "files.Create", "%s is there already: choose another name, or say that it may be overwritten", w.path)
	}
	return nil
}

// Write adds rows. rec has the writer's schema and stays the caller's.
func (w *Writer) Write(rec arrow.Record) error {
	const op = "files.Writer.Write"
	if w.done {
		return schemas.Errorf(schemas.Internal, op, "%s: write after Commit or Abort", w.path)
	}
	if w.err == nil && rec.NumRows() > 0 {
		if w.err = w.guarded(func() error { return w.enc.write(rec) }); w.err == nil {
			w.rows += rec.NumRows()
		}
	}
	return w.err
}

// Rows returns the rows written so far.
func (w *Writer) Rows() int64 { return w.rows }

// guarded makes a full disk Unavailable, and a panic of a library an error.
func (w *Writer) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = schemas.Errorf(schemas.Internal, "files.Writer", "%s: %.200v", w.path, p)
		}
	}()
	if err := f(); err != nil {
		var e *schemas.Error
		if errors.As(err, &e) {
			return e
		}
		return schemas.Errorf(schemas.Unavailable, "files.Writer", "%s: %w", w.path, err)
	}
	return nil
}

// Commit finishes the file, syncs it, gives it its name and syncs the folder. When it returns nil the file survives a
// power cut. On error nothing is left behind under path or the temporary name.
func (w *Writer) Commit() error {
	if w.done {
		return schemas.Errorf(schemas.Internal, "files.Writer.Commit", "%s: Commit after Commit or Abort", w.path)
	}
	if w.err == nil {
		w.err = w.guarded(func() error {
			if err := w.enc.finish(); err != nil {
				return err
			}
			if err := w.buf.Flush(); err != nil || w.file == nil {
				return err
			}
			return w.file.Sync()
		})
	}
	if w.err == nil && w.file != nil {
		w.err = w.place()
	}
	err := w.err
	if err != nil {
		w.Abort()
	}
	w.done = true
	return err
}

// place gives the file its name. A hard link refuses a name that was taken in the meantime, in one step.
func (w *Writer) place() error {
	const op = "files.Writer.Commit"
	if err := w.file.Close(); err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "%s: %w", w.path, err)
	}
	if w.over {
		if err := w.free(); err != nil {
			return err
		}
		if err := os.Rename(w.tmp, w.path); err != nil {
			return schemas.Errorf(schemas.Unavailable, op, "%w", err)
		}
	} else {
		err := os.Link(w.tmp, w.path)
		switch {
		case errors.Is(err, fs.ErrExist):
			return w.free()
		case err == nil:
			_ = os.Remove(w.tmp) // a second name that stays harms nobody
		default: // a file system without links: the name can still be taken between these two
			if err := w.free(); err != nil {
				return err
			}
			if err := os.Rename(w.tmp, w.path); err != nil {
				return schemas.Errorf(schemas.Unavailable, op, "%w", err)
			}
		}
	}
	return syncFolder(filepath.Dir(w.path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, "files.Writer.Commit", "%w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return schemas.Errorf(schemas.Unavailable, "files.Writer.Commit", "%s: %w", dir, err)
	}
	return nil
}

// Abort removes what was written. Idempotent; does nothing after Commit.
func (w *Writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	if w.file != nil {
		_ = w.file.Close()
		_ = os.Remove(w.tmp)
	}
}

// RemoveLeftovers removes the temporary files that writers of path left behind when their processes died. A writer of
// the same path that still lives cannot commit any more: call it only where one writer of a path is meant to live.
func RemoveLeftovers(path string) error {
	all, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, "files.RemoveLeftovers", "%w", err)
	}
	prefix := "." + filepath.Base(path) + "."
	for _, f := range all {
		salt, ok := strings.CutPrefix(f.Name(), prefix)
		if salt, ok2 := strings.CutSuffix(salt, ".tmp"); !ok || !ok2 || len(salt) != 2*saltBytes {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return schemas.Errorf(schemas.Unavailable, "files.RemoveLeftovers", "%w", err)
		}
	}
	return nil
}
