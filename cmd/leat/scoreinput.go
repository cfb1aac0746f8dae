package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
)

// scoreInput gives the rows of a file, typed as the pipeline wants them, and the column of truth.
type scoreInput struct {
	next  func(ctx context.Context, dst *schemas.Batch) (expected []string, err error) // io.EOF after the last
	close func()
	total int64 // 0: not known
}

// maxBody bounds a JSON document that is read whole to see whether it is the body of a request.
const maxBody = 8 << 20

// open opens what leat score shall read.
func (s *scoring) open(ctx context.Context, path string) (*scoreInput, error) {
	o := files.Options{BatchRows: chunkRows, Want: s.sig.Inputs}
	if err := s.e.openOptions(path, s.flags.format, &o); err != nil {
		return nil, err
	}
	source, name := path, path
	if path == files.Stdio {
		name = "standard input"
	}
	if o.Format == files.JSON {
		if in, err := s.openBody(path, &o); in != nil || err != nil {
			return in, err
		}
		if o.In != nil {
			source = files.Stdio
		}
	}
	r, err := files.Open(ctx, source, o)
	if err != nil {
		return nil, err
	}
	in, err := s.project(r, name)
	if err != nil {
		r.Close()
		return nil, err
	}
	return in, nil
}

// openOptions settles the format: as the flag says, by the file's ending, or by the first bytes of standard input.
func (e *env) openOptions(path, format string, o *files.Options) (err error) {
	if format != "" {
		if o.Format, err = files.ParseFormat(format); err != nil {
			return &exitError{exitUsage, err}
		}
	}
	if path != files.Stdio {
		if o.Format == "" {
			o.Format, err = files.FormatOf(path)
		}
		return err
	}
	in := bufio.NewReaderSize(e.in, 64<<10)
	if _, err := in.Peek(1); err != nil && err != io.EOF {
		return err
	}
	head, _ := in.Peek(in.Buffered()) // what came at once: more would wait for a slow writer
	if len(bytes.TrimSpace(head)) == 0 {
		return errors.New("standard input is empty")
	}
	if o.Format == "" {
		o.Format = stdinFormat(head)
	}
	o.In = in
	return nil
}

// openBody looks whether a JSON document is the body of a request, and leaves it in o.In, or where it is, if not.
func (s *scoring) openBody(path string, o *files.Options) (*scoreInput, error) {
	src := o.In
	if path != files.Stdio {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil // files.Open says it better
		}
		defer f.Close()
		src = f
	}
	doc, err := io.ReadAll(io.LimitReader(src, maxBody))
	if err != nil {
		return nil, nil
	}
	if path == files.Stdio {
		o.In = io.MultiReader(bytes.NewReader(doc), src)
	}
	keys := topKeys(doc)
	if rows, ok := keys["rows"]; ok { // beside id and parameters
		o.In = bytes.NewReader(rows)
		return nil, nil
	}
	if !isBody(keys) {
		return nil, nil
	}
	if s.flags.expect != "" {
		return nil, &exitError{exitUsage, errors.New("--expect wants a file of rows, not the body of a request in columns")}
	}
	done := false
	return &scoreInput{close: func() {}, next: func(_ context.Context, dst *schemas.Batch) ([]string, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		m := schemas.Message{Payload: doc}
		cd, err := codec.For(&m)
		if err == nil {
			_, _, err = cd.AppendRows(dst, &m)
		}
		return nil, err
	}}, nil
}

// topKeys returns the members of a JSON object, nil if b is not one whole object.
func topKeys(b []byte) map[string]json.RawMessage {
	var keys map[string]json.RawMessage
	if json.Unmarshal(b, &keys) != nil {
		return nil
	}
	return keys
}

// isBody reports whether an object is the body of a request.
func isBody(keys map[string]json.RawMessage) bool {
	for _, k := range []string{"rows", "columns", "inputs"} {
		if v := bytes.TrimSpace(keys[k]); len(v) > 0 && (v[0] == '[' || v[0] == '{') {
			return true
		}
	}
	return false
}

// project matches the file's columns to the pipeline's inputs.
func (s *scoring) project(r files.Reader, path string) (*scoreInput, error) {
	p, err := schemas.NewProjection(r.Schema(), s.sig.Inputs)
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, "score", "%s: %w", path, err)
	}
	truth := -1
	if s.flags.expect != "" {
		found := r.Schema().FieldIndices(s.flags.expect)
		if len(found) == 0 {
			var names []string
			for _, f := range r.Schema().Fields() {
				names = append(names, f.Name)
			}
			return nil, &exitError{exitUsage, fmt.Errorf("--expect %s: %s has no such column; it has %s", s.flags.expect, path, strings.Join(names, ", "))}
		}
		truth = found[0]
	}
	in := &scoreInput{close: func() { r.Close() }}
	if n, ok := r.TotalRows(); ok {
		in.total = n
	}
	at := int64(0)
	in.next = func(ctx context.Context, dst *schemas.Batch) ([]string, error) {
		rec, err := r.Next(ctx)
		if err != nil {
			return nil, err
		}
		defer rec.Release()
		if err := p.AppendRecord(dst, rec, 0, int(rec.NumRows())); err != nil {
			if at > 0 {
				err = schemas.Errorf(schemas.Invalid, "score", "after row %d of %s: %w", at, path, err)
			}
			return nil, err
		}
		at = r.Position()
		if truth < 0 {
			return nil, nil
		}
		return texts(s.flags.expect, rec.Column(truth))
	}
	return in, nil
}

// nullTruth is what texts gives for null: no text of a value has a NUL byte.
const nullTruth = "\x00"

// texts writes a column of truth: numbers and booleans in their one usual form.
func texts(name string, a arrow.Array) ([]string, error) {
	var at func(i int) string
	float := func(v float64, bits int) string { return strconv.FormatFloat(v, 'g', -1, bits) }
	switch a := a.(type) {
	case *array.Boolean:
		at = func(i int) string { return strconv.FormatBool(a.Value(i)) }
	case *array.String:
		at = a.Value
	case *array.Float64:
		at = func(i int) string { return float(a.Value(i), 64) }
	case *array.Float32:
		at = func(i int) string { return float(float64(a.Value(i)), 32) }
	case *array.Float16:
		at = func(i int) string { return float(float64(a.Value(i).Float32()), 32) }
	case *array.Int8, *array.Int16, *array.Int32, *array.Int64, *array.Uint8, *array.Uint16, *array.Uint32, *array.Uint64:
		at = a.ValueStr
	default:
		return nil, &exitError{exitUsage, fmt.Errorf("--expect %s: a column of %s cannot be compared; want numbers, booleans or text", name, a.DataType())}
	}
	out := make([]string, a.Len())
	for i := range out {
		if a.IsNull(i) {
			out[i] = nullTruth
			continue
		}
		out[i] = at(i)
	}
	return out, nil
}
