package onnx

import (
	"bytes"
	"runtime"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
)

// tensor is one bound input or output: memory of ours that the runtime reads or writes in place, or a string tensor that
// is the runtime's own.
type tensor struct {
	port  *port
	data  []byte // rows of fixed-size elements, 8-byte aligned
	value ort.Value
	text  *ort.StringTensor
	strs  []string // what goes into text; aliases a column only while fill runs
}

// bound is a set of tensors of one number of rows, bound to a session: a run with it allocates nothing in Go, strings
// apart. It belongs to one goroutine at a time.
type bound struct {
	rows    int
	bytes   int // memory held, for the pool's budget
	in, out []tensor
	io      *ort.IoBinding
	pin     runtime.Pinner // the runtime keeps pointers into data
}

// newBound makes tensors of the given rows for the ports and binds them.
func newBound(s *ort.DynamicAdvancedSession, in, out []port, rows int) (*bound, error) {
	b := &bound{rows: rows}
	fail := func(err error) (*bound, error) {
		b.destroy()
		return nil, schemas.Errorf(schemas.Internal, "onnx.Score", "binding tensors of %d rows: %w", rows, err)
	}
	var err error
	if b.io, err = s.CreateIoBinding(); err != nil {
		return fail(err)
	}
	if b.in, err = b.tensors(in); err != nil {
		return fail(err)
	}
	if b.out, err = b.tensors(out); err != nil {
		return fail(err)
	}
	for i := range b.in {
		if err := b.io.BindInput(in[i].field.Name, b.in[i].value); err != nil {
			return fail(err)
		}
	}
	for i := range b.out {
		if b.out[i].value == nil {
			continue // a constant
		}
		if err := b.io.BindOutput(out[i].field.Name, b.out[i].value); err != nil {
			return fail(err)
		}
	}
	return b, nil
}

func (b *bound) tensors(ps []port) ([]tensor, error) {
	ts := make([]tensor, len(ps))
	for i := range ps {
		p := &ps[i]
		ts[i].port = p
		b.bytes += b.rows * p.rowBytes()
		switch {
		case p.fixed != nil:
		case p.elem == onnxfile.String:
			t, err := ort.NewStringTensor(p.shape(b.rows))
			if err != nil {
				return ts, err
			}
			ts[i].text, ts[i].value, ts[i].strs = t, t, make([]string, b.rows*p.width)
		default:
			ts[i].data = aligned(b.rows * p.width * p.size)
			b.pin.Pin(unsafe.SliceData(ts[i].data))
			t, err := ort.NewCustomDataTensor(p.shape(b.rows), ts[i].data, ort.TensorElementDataType(p.elem))
			if err != nil {
				return ts, err
			}
			ts[i].value = t
		}
	}
	return ts, nil
}

// aligned returns n bytes at an address that suits any element: 64, as the runtime's own allocator gives.
func aligned(n int) []byte {
	b := make([]byte, n+64)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 63)
	return b[off : off+n : off+n]
}

func (b *bound) destroy() {
	if b.io != nil {
		b.io.Destroy()
	}
	for _, ts := range [][]tensor{b.in, b.out} {
		for i := range ts {
			if ts[i].value != nil {
				ts[i].value.Destroy()
			}
		}
	}
	b.pin.Unpin()
}

// fill copies rows [from, to) of in into the input tensors and repeats the last one up to b.rows.
func (b *bound) fill(in *schemas.Batch, from, to int) error {
	for i := range b.in {
		t, c := &b.in[i], in.Column(i)
		if t.text != nil {
			if err := t.fillText(c, from, to); err != nil {
				return err
			}
			continue
		}
		row := t.port.width * t.port.size
		n := copy(t.data, c.Data()[from*row:to*row])
		last := t.data[n-row : n]
		for ; n < len(t.data); n += row {
			copy(t.data[n:], last)
		}
	}
	return nil
}

// fillText hands the strings over without a copy in Go; the binding copies each to C and the runtime from there.
func (t *tensor) fillText(c *schemas.Column, from, to int) error {
	w := t.port.width
	n := 0
	for e := from * w; e < to*w; e++ {
		s := c.Text(e)
		t.strs[n] = unsafe.String(unsafe.SliceData(s), len(s))
		n++
	}
	for ; n < len(t.strs); n++ {
		t.strs[n] = t.strs[n-w]
	}
	err := t.text.SetContents(t.strs)
	clear(t.strs)
	if err != nil {
		return schemas.FieldErrorf(schemas.Internal, "onnx.Score", t.port.field.Name, "filling a string tensor: %w", err)
	}
	return nil
}

// take appends the first n rows of the output tensors to out, without counting them as rows.
func (b *bound) take(out *schemas.Batch, n int) error {
	for i := range b.out {
		t, c := &b.out[i], out.Column(i)
		switch {
		case t.port.fixed != nil:
			for range n {
				c.AppendFixed(t.port.fixed, 1)
			}
		case t.text != nil:
			ss, err := t.text.GetContents()
			if err != nil {
				return schemas.FieldErrorf(schemas.Internal, "onnx.Score", t.port.field.Name, "reading a string tensor: %w", err)
			}
			for r := range n {
				for _, s := range ss[r*t.port.width : (r+1)*t.port.width] {
					c.AppendString(s)
				}
				c.EndRow()
			}
		default:
			c.AppendFixed(t.data[:n*t.port.width*t.port.size], n)
		}
	}
	return nil
}

// checkText returns the row and true if a string of rows [from, to) holds a NUL byte.
func checkText(c *schemas.Column, from, to int) (row int, bad bool) {
	w := c.Width()
	o := c.Offsets()
	at := bytes.IndexByte(c.Data()[o[from*w]:o[to*w]], 0)
	if at < 0 {
		return 0, false
	}
	at += int(o[from*w])
	for r := from; r < to; r++ {
		if at < int(o[(r+1)*w]) {
			return r, true
		}
	}
	return 0, false
}
