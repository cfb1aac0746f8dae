package wire

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

func TestRoundTrip(t *testing.T) {
	s := schemastest.Everything()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 0))
		b, back, want := schemas.NewBatch(s), schemas.NewBatch(s), schemas.NewBatch(s)
		schemastest.Fill(b, r, r.IntN(40))
		schemastest.Fill(back, r, r.IntN(10)) // what is there stays there
		want.AppendRange(back, 0, back.Rows())
		from := r.IntN(b.Rows() + 1)
		to := from + r.IntN(b.Rows()-from+1)
		want.AppendRange(b, from, to)
		prefix := []byte("frame")
		payload := AppendBatch(prefix, b, from, to)[len(prefix):]
		if len(payload)%8 != 0 || len(payload) > FormatOf(s).MessageSize(b, from, to) {
			t.Errorf("seed %d: %d bytes, not a multiple of 8 or over the bound %d", seed, len(payload), FormatOf(s).MessageSize(b, from, to))
		}
		n, err := AppendRows(back, payload)
		if err != nil || n != to-from {
			t.Fatalf("seed %d: %d rows, %v", seed, n, err)
		}
		if d := schemastest.Diff(want, back); d != "" {
			t.Fatalf("seed %d, batch: %s", seed, d)
		}
		back.Truncate(back.Rows() - n)
		if _, err := AppendStreamRows(back, AppendStream(nil, b, from, to)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := schemastest.Diff(want, back); d != "" {
			t.Fatalf("seed %d, stream: %s", seed, d)
		}
	}
}

// A payload that begins at an odd address is read as well.
func TestUnaligned(t *testing.T) {
	b := schemas.NewBatch(schemastest.Everything())
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 1)), 5)
	payload := AppendBatch(nil, b, 0, 5)
	for shift := range 8 {
		moved := append(make([]byte, shift), payload...)[shift:]
		back := schemas.NewBatch(b.Schema())
		if _, err := AppendRows(back, moved); err != nil {
			t.Fatal(err)
		}
		if d := schemastest.Diff(b, back); d != "" {
			t.Errorf("shift %d: %s", shift, d)
		}
	}
}

// small is a schema of one column of each layout.
var small = schemas.MustSchema(
	schemas.Field{Name: "f", Type: schemas.Float32},
	schemas.Field{Name: "s", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "x", Type: schemas.Float64, Shape: []int{2}},
	schemas.Field{Name: "b", Type: schemas.Bool})

// lie returns a payload of 3 rows of small, changed by fn, which gets the metadata's nodes, buffers and body.
func lie(fn func(p, nodes, buffers, body []byte)) []byte {
	b := schemas.NewBatch(small)
	for range 3 {
		schemas.Append(b.Column(0), float32(1))
		b.Column(1).AppendString("héllo")
		schemas.Append(b.Column(2), 1.5)
		schemas.Append(b.Column(2), 2.5)
		b.Column(3).AppendBool(true)
		for i := range 4 {
			b.Column(i).EndRow()
		}
	}
	b.Advance(3)
	p := AppendBatch(nil, b, 0, 3)
	f := FormatOf(small)
	fn(p, p[nodesAt:nodesAt+16*f.nodes], p[nodesAt+16*f.nodes+8:len(f.head)], p[len(f.head):])
	return p
}

func put64(b []byte, v int64) { binary.LittleEndian.PutUint64(b, uint64(v)) }
func put32(b []byte, v int32) { binary.LittleEndian.PutUint32(b, uint32(v)) }

// Buffers of small: f validity, data; s validity, offsets, data; x validity, child validity, data; b validity, data.
func TestLies(t *testing.T) {
	for name, c := range map[string]struct {
		payload []byte
		want    string
	}{
		"empty":                {nil, "no Arrow message"},
		"JSON":                 {[]byte(`{"rows":[]}`), "continuation marker"},
		"giant metadata":       {lie(func(p, n, b, body []byte) { put32(p[4:], 0x7fffffff) }), "metadata of"},
		"negative metadata":    {lie(func(p, n, b, body []byte) { put32(p[4:], -1) }), "metadata of"},
		"root outside":         {lie(func(p, n, b, body []byte) { put32(p[8:], 1<<30) }), "broken Arrow metadata"},
		"vtable outside":       {lie(func(p, n, b, body []byte) { put32(p[24:], -1<<30) }), "broken Arrow metadata"},
		"version V4":           {lie(func(p, n, b, body []byte) { p[8+32] = 3 }), "version V4"},
		"another kind":         {lie(func(p, n, b, body []byte) { p[8+34] = headerDictionaryBatch }), "another kind"},
		"1 TiB body":           {lie(func(p, n, b, body []byte) { put64(p[bodyLengthAt:], 1<<40) }), "body of 1099511627776 bytes"},
		"negative body":        {lie(func(p, n, b, body []byte) { put64(p[bodyLengthAt:], -8) }), "body of -8 bytes"},
		"short body":           {lie(func(p, n, b, body []byte) { put64(p[bodyLengthAt:], 8) }), "after the Arrow message"},
		"negative rows":        {lie(func(p, n, b, body []byte) { put64(p[rowsAt:], -1) }), "batch of -1 rows"},
		"rows and nodes":       {lie(func(p, n, b, body []byte) { put64(p[rowsAt:], 2) }), "f: 3 values, want 2"},
		"2^31 rows":            {lie(func(p, n, b, body []byte) { put64(p[rowsAt:], 1<<31-1); put64(n, 1<<31-1) }), "f: Arrow buffer of 12 bytes"},
		"giant node vector":    {lie(func(p, n, b, body []byte) { put32(p[nodesAt-4:], 1<<28) }), "broken Arrow RecordBatch"},
		"one node less":        {lie(func(p, n, b, body []byte) { put32(p[nodesAt-4:], 4) }), "4 field nodes"},
		"more nulls than rows": {lie(func(p, n, b, body []byte) { put64(n[16+8:], 4) }), "s: null count 4"},
		"negative nulls":       {lie(func(p, n, b, body []byte) { put64(n[16+8:], -1) }), "s: null count -1"},
		"nulls, no bitmap":     {lie(func(p, n, b, body []byte) { put64(n[16+8:], 1) }), "s: Arrow validity bitmap of 0 bytes"},
		"nulls, not nullable":  {lie(func(p, n, b, body []byte) { put64(n[8:], 3); put64(b[8:], 1); body[0] = 0 }), "f: "},
		"null elements": {lie(func(p, n, b, body []byte) {
			// the child's validity becomes the padding of the column before: all null
			put64(n[3*16+8:], 6)
			put64(b[6*16:], 48)
			put64(b[6*16+8:], 1)
			body[48] = 0
		}), "x: "},
		"buffer outside":     {lie(func(p, n, b, body []byte) { put64(b[16:], 1<<40) }), "f: Arrow buffer at"},
		"buffer too long":    {lie(func(p, n, b, body []byte) { put64(b[16+8:], 1<<62) }), "f: Arrow buffer at"},
		"buffer negative":    {lie(func(p, n, b, body []byte) { put64(b[16:], -8) }), "f: Arrow buffer at"},
		"buffers shared":     {lie(func(p, n, b, body []byte) { put64(b[7*16:], 0) }), "x: Arrow buffer at 0"},
		"buffer too short":   {lie(func(p, n, b, body []byte) { put64(b[16+8:], 11) }), "f: Arrow buffer of 11 bytes, want 12"},
		"offsets fall":       {lie(func(p, n, b, body []byte) { put32(body[16+8:], 1) }), "s: broken Arrow offsets"},
		"offsets negative":   {lie(func(p, n, b, body []byte) { put32(body[16:], -1) }), "s: broken Arrow offsets"},
		"offsets outside":    {lie(func(p, n, b, body []byte) { put32(body[16+12:], 1000) }), "s: broken Arrow offsets"},
		"character cut":      {lie(func(p, n, b, body []byte) { put32(body[16+4:], 2) }), "s: broken Arrow offsets, or text"},
		"not UTF-8":          {lie(func(p, n, b, body []byte) { body[33] = 0xff }), "s: broken Arrow offsets, or text"},
		"something after":    {append(lie(func(p, n, b, body []byte) {}), 0), "1 bytes after"},
		"stream for a batch": {AppendStream(nil, schemas.NewBatch(small), 0, 0), "another kind"},
	} {
		t.Run(name, func(t *testing.T) {
			dst := schemas.NewBatch(small)
			_, err := AppendRows(dst, c.payload)
			if schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want Invalid with %q", err, c.want)
			}
			if dst.Rows() != 0 || dst.Column(0).Rows() != 0 || dst.Column(1).Rows() != 0 {
				t.Error("rows were left")
			}
		})
	}
	if n, err := AppendRows(schemas.NewBatch(small), lie(func(p, n, b, body []byte) {})); n != 3 || err != nil {
		t.Errorf("the truth: %d, %v", n, err)
	}
}

// Every truncation and every changed byte is an error or other values, never a panic or rows on error.
func TestEveryByte(t *testing.T) {
	p := lie(func(p, n, b, body []byte) {})
	foreign, err := os.ReadFile("testdata/foreign.stream")
	if err != nil {
		t.Fatal(err)
	}
	try := func(s *schemas.Schema, p []byte, read func(*schemas.Batch, []byte) (int, error)) {
		dst := schemas.NewBatch(s)
		n, err := read(dst, p)
		if err != nil && (n != 0 || dst.Rows() != 0 || schemas.KindOf(err) != schemas.Invalid) || err == nil && dst.Rows() != n {
			t.Errorf("%d rows, %d in the batch, %v", n, dst.Rows(), err)
		}
	}
	for i := range p {
		try(small, p[:i], AppendRows)
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff, p[i] + 1, p[i] ^ 0x10} {
			q := append([]byte(nil), p...)
			q[i] = v
			try(small, q, AppendRows)
		}
	}
	for i := range foreign {
		try(foreignSchema, foreign[:i], AppendStreamRows)
		for _, v := range []byte{0, 1, 0xff, foreign[i] ^ 0x10} {
			q := append([]byte(nil), foreign...)
			q[i] = v
			try(foreignSchema, q, AppendStreamRows)
		}
	}
}

func TestStreamFaults(t *testing.T) {
	b := floats(3, 2)
	stream := AppendStream(nil, b, 0, 2)
	read := func(s *schemas.Schema, p []byte) string {
		dst := schemas.NewBatch(s)
		if _, err := AppendStreamRows(dst, p); err != nil {
			if schemas.KindOf(err) != schemas.Invalid || dst.Rows() != 0 {
				t.Errorf("%v: kind %v, %d rows left", err, schemas.KindOf(err), dst.Rows())
			}
			return err.Error()
		}
		return ""
	}
	ints := schemas.MustSchema(schemas.Field{Name: "feature_00", Type: schemas.String})
	for name, c := range map[string]struct {
		s    *schemas.Schema
		p    []byte
		want string
	}{
		"whole":                  {b.Schema(), stream, ""},
		"without end of stream":  {b.Schema(), stream[:len(stream)-8], ""},
		"bytes after the end":    {b.Schema(), append(stream[:len(stream):len(stream)], 1, 2), "after the end"},
		"batch without schema":   {b.Schema(), AppendBatch(nil, b, 0, 2), "starts with its schema"},
		"columns are missing":    {small, stream, "4 columns missing: f, s, x, b"},
		"columns cannot be cast": {ints, stream, "feature_00: Arrow type float32 cannot become"},
		"schema twice":           {b.Schema(), append(stream[:len(stream)-8:len(stream)-8], stream...), "no RecordBatch"},
	} {
		if got := read(c.s, c.p); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestCodecs(t *testing.T) {
	b := floats(3, 2)
	for _, enc := range []interface {
		schemas.Codec
		schemas.Encoder
	}{Codec{}, StreamCodec{}} {
		h := schemas.Header{}
		payload, err := enc.EncodeRows([]byte("x"), h, b, 0, 2, &schemas.Answer{})
		if err != nil {
			t.Fatal(err)
		}
		back := schemas.NewBatch(b.Schema())
		m := &schemas.Message{Header: h, Payload: payload[1:]}
		n, again, err := enc.AppendRows(back, m)
		if err != nil || n != 2 || again == nil {
			t.Fatalf("%T: %d %v", enc, n, err)
		}
		if d := schemastest.Diff(b, back); d != "" {
			t.Errorf("%T: %s", enc, d)
		}
		bad := &schemas.Answer{Errs: []schemas.RowError{{Row: 1, Err: schemas.Errorf(schemas.Expired, "op", "late")}}}
		if _, err := enc.EncodeRows(nil, h, b, 0, 1, bad); schemas.KindOf(err) != schemas.Expired {
			t.Errorf("%T: errors of rows were dropped: %v", enc, err)
		}
	}
	other := schemas.NewBatch(small)
	m := &schemas.Message{Header: schemas.Header{schemas.HeaderSchema: {b.Schema().ID().String()}}, Payload: AppendBatch(nil, b, 0, 2)}
	if _, _, err := (Codec{}).AppendRows(other, m); err == nil || !strings.Contains(err.Error(), b.Schema().ID().String()) || !strings.Contains(err.Error(), small.ID().String()) {
		t.Errorf("another schema: %v, want both ids", err)
	}
	m.Header = nil
	if _, _, err := (Codec{}).AppendRows(schemas.NewBatch(b.Schema()), m); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("no Leat-Schema: %v", err)
	}
}
