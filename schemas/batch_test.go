package schemas_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// row is what a batch should hold, kept the slow way.
type row [][][]byte // by column: nil for null, else elements

// read takes rows out of a batch.
func read(b *schemas.Batch) []row {
	rows := make([]row, b.Rows())
	for r := range rows {
		for i := range b.Schema().Len() {
			c := b.Column(i)
			var v [][]byte
			for e := r * c.Width(); e < (r+1)*c.Width() && !c.IsNull(r); e++ {
				v = append(v, bytes.Clone(schemastest.Bytes(c, e)))
			}
			rows[r] = append(rows[r], v)
		}
	}
	return rows
}

func equal(a, b []row) bool {
	if len(a) != len(b) {
		return false
	}
	for r := range a {
		for i := range a[r] {
			if (a[r][i] == nil) != (b[r][i] == nil) {
				return false
			}
			for e := range a[r][i] {
				if !bytes.Equal(a[r][i][e], b[r][i][e]) {
					return false
				}
			}
		}
	}
	return true
}

// Whatever is done to a batch, it holds what a plain list of rows would hold after the same.
func TestBatchAgainstRows(t *testing.T) {
	s := schemastest.Everything()
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		b, other := schemas.NewBatch(s), schemas.NewBatch(s)
		var want []row
		for step := range 60 {
			switch op := r.IntN(10); {
			case op < 4:
				other.Reset()
				schemastest.Fill(other, r, r.IntN(12))
				from := r.IntN(other.Rows() + 1)
				to := from + r.IntN(other.Rows()-from+1)
				b.AppendRange(other, from, to)
				want = append(want, read(other)[from:to]...)
			case op < 6:
				n := r.IntN(5)
				before := b.Rows()
				schemastest.Fill(b, r, n)
				want = append(want, read(b)[before:]...)
			case op < 8: // a decoder that fails half-way
				for i := range b.Schema().Len() {
					c := b.Column(i)
					for range r.IntN(10) {
						if c.Field().Nullable && r.IntN(2) == 0 {
							c.AppendNull()
						} else {
							for range c.Width() {
								schemastest.Element(c, r)
							}
							c.EndRow()
						}
					}
					if r.IntN(2) == 0 {
						schemastest.Element(c, r) // part of a row
					}
				}
				b.Rollback()
			case op < 9:
				n := r.IntN(b.Rows() + 1)
				b.Truncate(n)
				want = want[:n]
			default:
				if r.IntN(4) == 0 {
					b.Reset()
					want = nil
				}
			}
			if got := read(b); !equal(got, want) {
				t.Fatalf("seed %d, step %d: the batch holds %d rows that are not the %d expected", seed, step, len(got), len(want))
			}
			nulls := make([]int, s.Len())
			for _, w := range want {
				for i := range w {
					if w[i] == nil {
						nulls[i]++
					}
				}
			}
			for i, n := range nulls {
				if b.Column(i).Nulls() != n {
					t.Fatalf("seed %d, step %d: column %s counts %d nulls, want %d", seed, step, s.Field(i).Name, b.Column(i).Nulls(), n)
				}
			}
		}
	}
}

func TestBatchNullsAreMissingValues(t *testing.T) {
	b := schemas.NewBatch(schemas.MustSchema(
		schemas.Field{Name: "f", Type: schemas.Float32, Nullable: true, Shape: []int{2}},
		schemas.Field{Name: "i", Type: schemas.Int64, Nullable: true},
		schemas.Field{Name: "s", Type: schemas.String, Nullable: true}))
	for i := range 3 {
		b.Column(i).AppendNull()
	}
	b.Advance(1)
	for _, v := range schemas.Values[float32](b.Column(0)) {
		if v == v {
			t.Errorf("a null float is %v, want NaN", v)
		}
	}
	if v := schemas.Values[int64](b.Column(1))[0]; v != 0 {
		t.Errorf("a null integer is %d, want 0", v)
	}
	if v := b.Column(2).Text(0); len(v) != 0 {
		t.Errorf("a null string is %q, want none", v)
	}
}

func TestAdvancePanicsOnRaggedColumns(t *testing.T) {
	b := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Int8}, schemas.Field{Name: "b", Type: schemas.Int8}))
	schemas.Append(b.Column(0), int8(1))
	b.Column(0).EndRow()
	defer func() {
		if recover() == nil {
			t.Error("a ragged batch was accepted")
		}
	}()
	b.Advance(1)
}

func TestRoom(t *testing.T) {
	b := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "s", Type: schemas.String}))
	b.Column(0).AppendString("abc")
	if !b.Room(schemas.MaxText-3) || b.Room(schemas.MaxText-2) {
		t.Error("a column of 3 bytes has room for MaxText-3 more, and for no more than that")
	}
	if n := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "i", Type: schemas.Int8})); !n.Room(schemas.MaxText) {
		t.Error("fixed-size columns have no such bound")
	}
}

// A reused batch allocates nothing.
func TestBatchReuseAllocatesNothing(t *testing.T) {
	s := schemastest.Everything()
	b, src := schemas.NewBatch(s), schemas.NewBatch(s)
	schemastest.Fill(src, rand.New(rand.NewPCG(1, 2)), 64)
	if n := testing.AllocsPerRun(50, func() { b.Reset(); b.AppendRange(src, 0, 64) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestFloat16(t *testing.T) {
	for h := range 1 << 16 {
		f := schemas.Float16Value(uint16(h))
		got := schemas.Float16Bits(f)
		if f != f {
			if got&0x7c00 != 0x7c00 || got&0x3ff == 0 {
				t.Fatalf("NaN %04x became %04x", h, got)
			}
		} else if got != uint16(h) {
			t.Fatalf("%04x is %v, which became %04x", h, f, got)
		}
	}
	for _, c := range []struct {
		f    float64
		want uint16
	}{
		{1 + 1.0/2048, 0x3c00}, {1 + 3.0/2048, 0x3c02}, {65519.99, 0x7bff}, {65520, 0x7c00}, {-1e300, 0xfc00},
		{0x1p-25, 0}, {0x1.8p-25, 1}, {0x1p-24, 1}, {-0x1p-26, 0x8000}, {0x1.ffcp-15, 0x0400},
	} {
		if got := schemas.Float16Bits(c.f); got != c.want {
			t.Errorf("Float16Bits(%v) = %04x, want %04x", c.f, got, c.want)
		}
	}
}
