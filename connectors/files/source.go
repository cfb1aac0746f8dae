package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/leatstream/leat/schemas"
)

// source is an open file or the standard input. Parquet needs the random access of the first.
type source struct {
	io.Reader
	file *os.File // nil: the standard input
}

// Close is idempotent.
func (s source) Close() error {
	if s.file == nil {
		return nil
	}
	if err := s.file.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// openSource opens path and settles o.Format. size is -1 if it is not known.
func openSource(path string, o *Options) (s source, size int64, err error) {
	const op = "files.Open"
	if path == Stdio {
		switch o.Format {
		case "":
			return s, 0, schemas.Errorf(schemas.Invalid, op, "reading from -: state the format: ndjson, json, csv or arrows")
		case Parquet, Arrow:
			return s, 0, schemas.Errorf(schemas.Invalid, op, "reading from -: %s needs a file; use ndjson, json, csv or arrows", o.Format)
		}
		if o.In == nil {
			return s, 0, schemas.Errorf(schemas.Invalid, op, "reading from -: no standard input was given")
		}
		return source{Reader: o.In}, -1, nil
	}
	if o.Format == "" {
		if o.Format, err = FormatOf(path); err != nil {
			return s, 0, err
		}
	} else if o.Format, err = ParseFormat(string(o.Format)); err != nil {
		return s, 0, err
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, 0, schemas.Errorf(schemas.NotFound, op, "%s: no such file", path)
	}
	if err != nil {
		return s, 0, schemas.Errorf(schemas.Invalid, op, "%w", err)
	}
	size = st.Size()
	switch {
	case st.IsDir():
		return s, 0, schemas.Errorf(schemas.Invalid, op, "%s: is a folder, want a file", path)
	case st.Mode().IsRegular():
	case o.Format == Parquet || o.Format == Arrow:
		return s, 0, schemas.Errorf(schemas.Invalid, op, "%s: %s needs a regular file", path, o.Format)
	default:
		size = -1
	}
	f, err := os.Open(path)
	if err != nil {
		return s, 0, schemas.Errorf(schemas.Invalid, op, "%w", err)
	}
	return source{Reader: f, file: f}, size, nil
}

// bounded is an allocator that refuses sizes that only a damaged file asks for. Its panic is caught by guard2.
type bounded struct{ memory.Allocator }

func newBounded() memory.Allocator { return bounded{memory.NewGoAllocator()} }

func (b bounded) Allocate(n int) []byte {
	b.check(n)
	return b.Allocator.Allocate(n)
}

func (b bounded) Reallocate(n int, p []byte) []byte {
	b.check(n)
	return b.Allocator.Reallocate(n, p)
}

func (bounded) check(n int) {
	if n < 0 || n > maxAlloc {
		panic(fmt.Sprintf("it asks for a buffer of %d bytes, at most %d are given", n, maxAlloc))
	}
}
