package wire

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// fuzz checks what holds for any payload: an error leaves the batch as it was, rows take memory in proportion to the
// payload, and what was read is written and read again as it is.
func fuzz(t *testing.T, s *schemas.Schema, payload []byte, read func(*schemas.Batch, []byte) (int, error), growth int) {
	dst, before := schemas.NewBatch(s), schemas.NewBatch(s)
	schemastest.Fill(dst, rand.New(rand.NewPCG(1, 1)), 3)
	before.AppendRange(dst, 0, 3)
	n, err := read(dst, payload)
	if err != nil {
		if k := schemas.KindOf(err); k != schemas.Invalid {
			t.Fatalf("kind %v: %v", k, err)
		}
		if d := schemastest.Diff(before, dst); d != "" || n != 0 {
			t.Fatalf("after an error: %s, %d rows", d, n)
		}
		return
	}
	if dst.Rows() != n+3 {
		t.Fatalf("%d rows, but the batch grew by %d", n, dst.Rows()-3)
	}
	if got := dst.Bytes() - before.Bytes(); got > growth*len(payload)+1<<20 {
		t.Fatalf("%d bytes became %d", len(payload), got)
	}
	got, back := schemas.NewBatch(s), schemas.NewBatch(s)
	got.AppendRange(dst, 3, dst.Rows())
	if _, err := AppendRows(back, AppendBatch(nil, dst, 3, dst.Rows())); err != nil {
		t.Fatalf("what was read cannot be read again: %v", err)
	}
	if d := schemastest.Diff(got, back); d != "" {
		t.Fatalf("read again: %s", d)
	}
}

func seeds(f *testing.F, files ...string) {
	for _, name := range files {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

func FuzzBatch(f *testing.F) {
	seeds(f, "everything.batch", "empty.batch", "floats.batch")
	f.Add(lie(func(p, n, b, body []byte) {}))
	all := schemastest.Everything()
	f.Fuzz(func(t *testing.T, payload []byte) {
		fuzz(t, small, payload, AppendRows, 16)
		fuzz(t, all, payload, AppendRows, 16)
	})
}

func FuzzStream(f *testing.F) {
	seeds(f, "foreign.stream", "everything.stream", "empty.stream")
	all := schemastest.Everything()
	f.Fuzz(func(t *testing.T, payload []byte) {
		fuzz(t, foreignSchema, payload, AppendStreamRows, 80)
		fuzz(t, all, payload, AppendStreamRows, 80)
	})
}
