package wire

import (
	"fmt"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// floats returns a schema of n named float32 columns and a batch of so many rows of it.
func floats(n, rows int) *schemas.Batch {
	fs := make([]schemas.Field, n)
	for i := range fs {
		fs[i] = schemas.Field{Name: fmt.Sprintf("feature_%02d", i), Type: schemas.Float32}
	}
	b := schemas.NewBatch(schemas.MustSchema(fs...))
	for r := range rows {
		for i := range fs {
			schemas.Append(b.Column(i), float32(r*n+i)/8)
			b.Column(i).EndRow()
		}
	}
	b.Advance(rows)
	return b
}

func BenchmarkEncode(b *testing.B) {
	for _, size := range [][2]int{{30, 1}, {13, 1}, {13, 256}} {
		b.Run(fmt.Sprintf("columns=%d/rows=%d", size[0], size[1]), func(b *testing.B) {
			batch := floats(size[0], size[1])
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendBatch(dst[:0], batch, 0, size[1])
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range [][2]int{{30, 1}, {13, 1}, {13, 256}} {
		b.Run(fmt.Sprintf("columns=%d/rows=%d", size[0], size[1]), func(b *testing.B) {
			batch := floats(size[0], size[1])
			payload := AppendBatch(nil, batch, 0, size[1])
			dst := schemas.NewBatch(batch.Schema())
			b.ReportAllocs()
			for b.Loop() {
				dst.Reset()
				if _, err := AppendRows(dst, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The figures that the issue asks for hold without an allocation.
func TestNoAllocation(t *testing.T) {
	batch := floats(30, 1)
	payload := AppendBatch(nil, batch, 0, 1)
	dst := schemas.NewBatch(batch.Schema())
	h := schemas.Header{}
	m := &schemas.Message{Header: schemas.Header{schemas.HeaderSchema: {batch.Schema().ID().String()}}, Payload: payload}
	buf := make([]byte, 0, 2*len(payload))
	got := testing.AllocsPerRun(200, func() {
		dst.Reset()
		var c schemas.Codec = Codec{}
		_, enc, err := c.AppendRows(dst, m)
		if err != nil {
			t.Fatal(err)
		}
		if buf, err = enc.EncodeRows(buf[:0], h, batch, 0, 1, nil); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations to decode and encode a request, want 0", got)
	}
}
