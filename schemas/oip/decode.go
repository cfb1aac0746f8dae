package oip

import (
	"math"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

// maxNulls bounds the bytes that inputs left out may grow to, maxRank the dimensions of a shape.
const (
	maxNulls = 64 << 20
	maxRank  = 16
)

// decoder decodes one payload. It is pooled with its plan.
type decoder struct {
	*plan
	scan  jsonscan.Scanner
	dst   *schemas.Batch
	start int
	rows  int // -1 until the first input says it
	size  int // of the payload
	tail  []byte
	seen  []bool // by target
	given []int  // by column: features given
	texts map[int][][]byte
	enc   encoder
	where string
	in    input
}

// input is one member of "inputs" as far as it is read.
type input struct {
	target   int // -1: no name yet
	name     string
	shape    [maxRank]int64
	rank     int // -1: no shape yet
	datatype string
	binary   int64 // bytes in the tail; -1: none
	dataAt   int   // offset of data that came before the rest was known; -1: none
	depth    int   // of the scanner there
	done     bool
}

func (d *decoder) decode(dst *schemas.Batch, doc, tail []byte) (int, schemas.Encoder, *schemas.Error) {
	d.dst, d.start, d.rows, d.tail = dst, dst.Rows(), -1, tail
	d.size = len(doc) + len(tail)
	d.where, d.enc = "", encoder{}
	clear(d.seen)
	clear(d.given)
	s := &d.scan
	s.Reset(doc)
	if s.Open('{') {
		d.members()
	}
	if s.Err() == nil && s.End() && len(d.tail) > 0 {
		s.Fail("%d bytes after the last binary tensor", len(d.tail))
	}
	if s.Err() == nil {
		d.complete()
	}
	if e := s.Err(); e != nil {
		dst.Rollback()
		dst.Truncate(d.start)
		if e.Field == "" {
			e.Field = d.where
		}
		return 0, nil, e
	}
	dst.Advance(d.rows)
	if d.enc.plain() {
		return d.rows, plainEncoder, nil
	}
	enc := d.enc
	return d.rows, &enc, nil
}

func (d *decoder) release() {
	d.scan.Reset(nil)
	d.dst, d.tail, d.texts, d.enc = nil, nil, nil, encoder{}
}

func (d *decoder) members() {
	s := &d.scan
	var keys uint8
	for n := 0; s.More('}', n); n++ {
		k, ok := s.Key()
		if !ok {
			return
		}
		bit, what := uint8(0), ""
		switch string(k) {
		case "inputs":
			bit, what = 1, "inputs"
		case "outputs":
			bit, what = 2, "outputs"
		case "id":
			bit, what = 4, "id"
		case "parameters":
			bit, what = 8, "parameters"
		case "model_name", "model_version": // some clients repeat here what the address says
			if _, ok := s.String(); !ok {
				return
			}
			continue
		default:
			s.Fail(`unknown name %q: want "inputs", and perhaps "id", "parameters" and "outputs"`, clip(string(k)))
			return
		}
		d.where = what
		if keys&bit != 0 {
			s.Fail("given twice")
			return
		}
		keys |= bit
		if !d.member(bit) {
			return
		}
		d.where = ""
	}
	if s.Err() == nil && keys&1 == 0 {
		s.Fail(`no "inputs"`)
	}
}

func (d *decoder) member(bit uint8) bool {
	s := &d.scan
	switch bit {
	case 1:
		if !s.Open('[') {
			return false
		}
		for n := 0; s.More(']', n); n++ {
			if !d.input() {
				return false
			}
			d.where = "inputs"
		}
		return s.Err() == nil
	case 2:
		return d.outputs()
	case 4:
		v, ok := s.String()
		d.enc.id = string(v)
		return ok
	}
	return d.parameters(func(k []byte) bool {
		if string(k) != "binary_data_output" {
			return s.Skip()
		}
		v, ok := s.Bool()
		d.enc.allBinary = v
		return ok
	})
}

// parameters reads an object; known names are read by fn.
func (d *decoder) parameters(fn func(k []byte) bool) bool {
	s := &d.scan
	if !s.Open('{') {
		return false
	}
	for n := 0; s.More('}', n); n++ {
		k, ok := s.Key()
		if !ok || !fn(k) {
			return false
		}
	}
	return s.Err() == nil
}

// input reads one member of "inputs". Its data goes into the column as it is met, if name, shape and datatype came
// before; otherwise it is passed over and read when they are known.
func (d *decoder) input() bool {
	s := &d.scan
	d.in = input{target: -1, rank: -1, binary: -1, dataAt: -1}
	in := &d.in
	if !s.Open('{') {
		return false
	}
	var keys uint8
	for n := 0; s.More('}', n); n++ {
		if !d.inputMember(&keys) {
			return false
		}
	}
	if s.Err() != nil {
		return false
	}
	switch {
	case in.target < 0:
		return s.Fail("an input without a name")
	case in.rank < 0:
		return s.Fail("an input without a shape")
	case in.datatype == "":
		return s.Fail("an input without a datatype")
	case in.binary >= 0 && (in.dataAt >= 0 || in.done):
		return s.Fail("both data and binary_data_size")
	case in.binary >= 0:
		return d.check() && d.binaryData()
	case in.done:
		return true
	case in.dataAt < 0:
		return s.Fail("an input without data")
	}
	at, depth := s.Offset(), s.Depth()
	s.Rewind(in.dataAt, in.depth)
	if !d.check() || !d.data() {
		return false
	}
	s.Rewind(at, depth)
	return true
}

func (d *decoder) inputMember(keys *uint8) bool {
	s, in := &d.scan, &d.in
	k, ok := s.Key()
	if !ok {
		return false
	}
	bit := uint8(0)
	switch string(k) {
	case "name":
		bit = 1
	case "shape":
		bit = 2
	case "datatype":
		bit = 4
	case "parameters":
		bit = 8
	case "data":
		bit = 16
	default:
		return s.Fail("unknown name %q in an input", clip(string(k)))
	}
	if *keys&bit != 0 {
		return s.Fail("%q is given twice in an input", clip(string(k)))
	}
	*keys |= bit
	switch bit {
	case 1:
		return d.inputName()
	case 2:
		return d.shape()
	case 4:
		v, ok := s.String()
		if !ok {
			return false
		}
		for _, n := range names {
			if n != "" && n == string(v) {
				in.datatype = n
				return true
			}
		}
		return s.Fail("unknown datatype %q", clip(string(v)))
	case 8:
		return d.parameters(func(k []byte) bool {
			if string(k) != "binary_data_size" {
				return s.Skip()
			}
			v, ok := s.Int(schemas.Int64, 0, math.MaxInt64, false)
			in.binary = v
			return ok
		})
	}
	if in.target >= 0 && in.rank >= 0 && in.datatype != "" && in.binary < 0 {
		in.done = true
		return d.check() && d.data()
	}
	s.Peek()
	in.dataAt, in.depth = s.Offset(), s.Depth()
	return s.Skip()
}

func (d *decoder) inputName() bool {
	s := &d.scan
	v, ok := s.String()
	if !ok {
		return false
	}
	i, ok := d.index[string(v)]
	if !ok {
		d.where = "inputs." + clip(string(v))
		return s.Fail("unknown input; the inputs are: %s", d.names())
	}
	t := &d.targets[i]
	d.in.target, d.in.name, d.where = i, t.name, t.name
	c := &d.cols[t.col]
	switch {
	case d.seen[i]:
		return s.Fail("given twice")
	case t.elem < 0 && d.given[t.col] > 0 || t.elem >= 0 && d.seen[c.whole]:
		return s.Fail("tensor %s is given both as a whole and by its features", c.field.Name)
	}
	d.seen[i] = true
	if t.elem >= 0 {
		d.given[t.col]++
	}
	return true
}

func (d *decoder) shape() bool {
	s, in := &d.scan, &d.in
	if !s.Open('[') {
		return false
	}
	in.rank = 0
	for n := 0; s.More(']', n); n++ {
		if n == maxRank {
			return s.Fail("a shape of more than %d dimensions", maxRank)
		}
		v, ok := s.Int(schemas.Int64, 0, math.MaxInt64, false)
		if !ok {
			return false
		}
		in.shape[n] = v
		in.rank = n + 1
	}
	if s.Err() == nil && in.rank == 0 {
		return s.Fail("an empty shape: the first dimension is the number of rows")
	}
	return s.Err() == nil
}

// check compares shape and datatype with the column.
func (d *decoder) check() bool {
	s, in := &d.scan, &d.in
	t := &d.targets[in.target]
	c := &d.cols[t.col]
	if want := Datatype(c.typ); in.datatype != want {
		return s.Fail("datatype %s, but the column is %s (%s)", in.datatype, want, c.field)
	}
	rows, want := in.shape[0], c.field.Shape
	if t.elem >= 0 {
		want = nil
	}
	total := rows
	for _, n := range in.shape[1:in.rank] {
		if n != 0 && total > math.MaxInt32/n {
			return s.Fail("shape %v has too many elements", in.shape[:in.rank])
		}
		total *= n
	}
	ok := in.rank == len(want)+1
	for i := 0; ok && i < len(want); i++ {
		ok = in.shape[i+1] == int64(want[i])
	}
	if width := c.width; !ok && (width == 1 || t.elem >= 0) {
		ok = total == rows && in.rank <= max(2, len(want)+1)
	}
	if !ok || rows > math.MaxInt32 {
		return s.Fail("shape %v does not fit %s: want [rows%s]", in.shape[:in.rank], t.name, dims(want))
	}
	if d.rows < 0 {
		d.rows = int(rows)
	}
	if int(rows) != d.rows {
		return s.Fail("%d rows, but the inputs before have %d", rows, d.rows)
	}
	return true
}

// complete fills inputs that were left out, where that is allowed.
func (d *decoder) complete() bool {
	d.rows = max(d.rows, 0)
	nulls := 0
	for i := range d.cols {
		p := &d.cols[i]
		c := d.dst.Column(i)
		if d.seen[p.whole] {
			continue
		}
		if d.given[i] == 0 {
			if !p.field.Nullable {
				d.where = p.field.Name
				if len(p.field.Features) > 0 {
					d.where = p.field.Features[0]
				}
				return d.scan.Fail("missing input")
			}
			for range d.rows {
				if nulls += p.rowBytes; nulls > maxNulls {
					return d.scan.Fail("inputs that were left out would take more than %d MiB: send fewer rows at once", maxNulls>>20)
				}
				c.AppendNull()
			}
			continue
		}
		if !d.completeTensor(c, p) {
			return false
		}
	}
	return true
}

// completeTensor fills features that were left out, and writes a tensor of text.
func (d *decoder) completeTensor(c *schemas.Column, p *column) bool {
	for e := range p.width {
		if d.seen[p.first+e] {
			continue
		}
		v, ok := jsonscan.Missing(p.typ)
		if !p.field.Nullable || p.size > 0 && !ok {
			d.where = p.field.Features[e]
			return d.scan.Fail("missing input")
		}
		for r := d.start; p.size > 0 && r < d.start+d.rows; r++ {
			jsonscan.Put(c.Data(), p.size, r*p.width+e, v)
		}
	}
	for r := 0; p.size == 0 && r < d.rows; r++ {
		for e := range p.width {
			var v []byte
			if col := d.texts[p.first+e]; col != nil {
				v = col[r]
			}
			c.AppendText(v)
		}
		c.EndRow()
	}
	return true
}
