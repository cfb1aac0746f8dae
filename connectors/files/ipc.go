package files

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/leatstream/leat/schemas"
)

const arrowMagic = "ARROW1"

// ipcReader reads both Arrow formats. A file is read as the stream that it holds between its magic and its footer: the
// footer only indexes the same messages.
type ipcReader struct {
	path   string
	src    source
	mem    memory.Allocator
	frames *frames
	ipc    *ipc.Reader
	plan   plan
	batch  int64
	cur    arrow.Record // rows not given yet start at off
	off    int64
	pos    int64
	past   int64 // rows of the file before the batch that comes next
	ended  bool
	err    error
}

func openIPC(path string, src source, size int64, o *Options) (Reader, error) {
	mem := newBounded()
	r := &ipcReader{path: path, src: src, mem: mem, batch: int64(o.BatchRows)}
	r.frames = &frames{r: src, left: size, skip: o.FromRow}
	if o.Format == Arrow {
		start, end, err := messages(path, src.file, size)
		if err != nil {
			return nil, err
		}
		r.frames.left = end - start
	}
	var err error
	if r.ipc, err = ipc.NewReaderFromMessageReader(r.frames, ipc.WithAllocator(mem)); err != nil {
		return nil, schemas.Errorf(schemas.Invalid, "files.Open", "%s: not a readable Arrow file: %w", path, err)
	}
	if r.plan, err = choose(path, r.ipc.Schema().Fields(), o.Columns); err != nil {
		r.ipc.Release()
		return nil, err
	}
	r.past = o.FromRow
	// The frames passed over whole batches at the first read; what is left to skip lies in the next one.
	if err := r.more(); err != nil && err != io.EOF {
		r.ipc.Release()
		return nil, err
	}
	r.pos = o.FromRow - r.frames.skip
	if r.cur != nil {
		r.off = r.frames.skip
		r.pos = o.FromRow
	}
	r.frames.skip = 0
	return r, nil
}

// messages checks both ends of a file, so that one cut short is found before its first row, returns where its messages
// lie, and moves there. Writers pad the magic to 8 bytes or to 64, and end the messages with a mark or with the footer.
func messages(path string, f *os.File, size int64) (start, end int64, err error) {
	const op = "files.Open"
	var head [72]byte
	var tail [4 + len(arrowMagic)]byte
	if size < int64(len(head)) {
		return 0, 0, schemas.Errorf(schemas.Invalid, op, "%s: not an Arrow file: %d bytes", path, size)
	}
	if _, err = f.ReadAt(head[:], 0); err == nil {
		_, err = f.ReadAt(tail[:], size-int64(len(tail)))
	}
	for start = 8; start < 64 && binary.LittleEndian.Uint64(head[start:]) == 0; {
		start += 8
	}
	if err == nil {
		_, err = f.Seek(start, io.SeekStart)
	}
	footer := int64(int32(binary.LittleEndian.Uint32(tail[:])))
	end = size - int64(len(tail)) - footer
	switch {
	case err != nil:
		return 0, 0, schemas.Errorf(schemas.Invalid, op, "%w", err)
	case string(head[:len(arrowMagic)]) != arrowMagic:
		return 0, 0, schemas.Errorf(schemas.Invalid, op, "%s: not an Arrow file; if it is a stream, name it .arrows", path)
	case string(tail[4:]) != arrowMagic:
		return 0, 0, schemas.Errorf(schemas.Invalid, op, "%s: the file is cut short: its footer is missing", path)
	case footer < 0 || end < start:
		return 0, 0, schemas.Errorf(schemas.Invalid, op, "%s: the file is damaged: a footer of %d bytes", path, footer)
	}
	return start, end, nil
}

func (r *ipcReader) Schema() *arrow.Schema    { return r.plan.schema }
func (r *ipcReader) Skipped() []string        { return r.plan.skipped }
func (r *ipcReader) TotalRows() (int64, bool) { return 0, false }
func (r *ipcReader) Position() int64          { return r.pos }

// more reads the next record that has rows into cur. io.EOF: there is none.
func (r *ipcReader) more() error {
	r.drop()
	for !r.ended {
		rec, err := r.ipc.Read()
		if err == io.EOF {
			r.ended = true
			break
		}
		if err != nil {
			return schemas.Errorf(schemas.Invalid, "files.Reader.Next", "%s: the file is damaged: %w", r.path, err)
		}
		if rec.NumRows() == 0 {
			continue
		}
		r.past -= r.frames.skip // of the first batch only: the rest lies in it
		if r.cur, err = r.chosen(rec); err != nil {
			return err
		}
		r.past += rec.NumRows()
		return nil
	}
	return io.EOF
}

// chosen checks the wanted columns and brings them to their normal types.
func (r *ipcReader) chosen(rec arrow.Record) (arrow.Record, error) {
	cols := make([]arrow.Array, 0, len(r.plan.columns))
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for i, at := range r.plan.columns {
		c := rec.Column(at)
		err := checkData(c.Data())
		if err == nil {
			var n arrow.Array
			if n, err = normal(r.mem, c, r.past); err == nil {
				cols = append(cols, n)
			}
		}
		if err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, "files.Reader.Next", r.plan.schema.Field(i).Name, "%s from row %d: %w", r.path, r.past, err)
		}
	}
	return array.NewRecord(r.plan.schema, cols, rec.NumRows()), nil
}

func (r *ipcReader) drop() {
	if r.cur != nil {
		r.cur.Release()
	}
	r.cur, r.off = nil, 0
}

func (r *ipcReader) Next(ctx context.Context) (arrow.Record, error) {
	if r.err == nil {
		if err := ctx.Err(); err != nil {
			return nil, schemas.AsError("files.Reader.Next", err)
		}
		var rec arrow.Record
		if rec, r.err = guard2(r.path, r.next); r.err == nil {
			r.pos += rec.NumRows()
			return rec, nil
		}
	}
	return nil, r.err
}

// next cuts the file's own batches into records of r.batch rows.
func (r *ipcReader) next() (arrow.Record, error) {
	var parts []arrow.Record
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	rows := int64(0)
	for rows < r.batch {
		if r.cur == nil || r.off >= r.cur.NumRows() {
			if err := r.more(); err == io.EOF {
				break
			} else if err != nil {
				return nil, err
			}
		}
		n := min(r.batch-rows, r.cur.NumRows()-r.off)
		parts = append(parts, r.cur.NewSlice(r.off, r.off+n))
		r.off += n
		rows += n
	}
	switch len(parts) {
	case 0:
		return nil, io.EOF
	case 1:
		parts[0].Retain()
		return parts[0], nil
	}
	cols := make([]arrow.Array, 0, r.plan.schema.NumFields())
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	chunks := make([]arrow.Array, len(parts))
	for i := range r.plan.schema.Fields() {
		for j, p := range parts {
			chunks[j] = p.Column(i)
		}
		c, err := array.Concatenate(chunks, r.mem)
		if err != nil {
			return nil, schemas.Errorf(schemas.Invalid, "files.Reader.Next", "%s: %w", r.path, err)
		}
		cols = append(cols, c)
	}
	return array.NewRecord(r.plan.schema, cols, rows), nil
}

func (r *ipcReader) Close() error {
	if !errors.Is(r.err, io.ErrClosedPipe) {
		r.err = io.ErrClosedPipe
		r.drop()
		r.ipc.Release()
	}
	return r.src.Close()
}
