package confluent

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// FuzzRecord reads any bytes as a record of either format: nothing panics, what is refused is Invalid and leaves the
// batch as it was.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{"00 00000008 48 30303030303030302d303030302d303030302d303030302d303030303030303030303030 7b14ae47e1fa2f40",
		"00 00000009 00 09 0000000000004540 1202 0801", "00 00000009 0202 0805", "00 00000009 040000 0805", "00 0000000a 02", "00 0000000b 00", "7b"} {
		f.Add(payload(f, s))
	}
	to := schemas.MustSchema(schemas.Field{Name: "amount", Type: schemas.Float32, Nullable: true}, schemas.Field{Name: "id", Type: schemas.String, Nullable: true},
		schemas.Field{Name: "distance", Type: schemas.Float32, Nullable: true}, schemas.Field{Name: "carrier.code", Type: schemas.String, Nullable: true}, schemas.Field{Name: "x", Type: schemas.Int8, Nullable: true})
	known := flights()
	delete(known.paths, "/schemas/ids/17") // answers that are none: Unavailable
	delete(known.paths, "/schemas/ids/18")
	r := registry(f, known)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, find := range []func(context.Context, []byte) (schemas.RowCodec, error){r.Avro, r.Protobuf} {
			c, err := find(t.Context(), b)
			if err != nil {
				if schemas.KindOf(err) != schemas.Invalid {
					t.Fatal(err)
				}
				continue
			}
			dst, before := schemas.NewBatch(to), schemas.NewBatch(to)
			schemastest.Fill(dst, rand.New(rand.NewPCG(1, 1)), 2)
			before.AppendRange(dst, 0, 2)
			n, bad, _, err := c.AppendGood(dst, &schemas.Message{Payload: b}, nil)
			if err != nil || n+len(bad) != 1 || dst.Rows() != 2+n {
				t.Fatal(n, bad, err)
			}
			dst.Truncate(2)
			if d := schemastest.Diff(before, dst); d != "" {
				t.Fatal(d)
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	r := registry(t, flights())
	to := schemas.MustSchema(schemas.Field{Name: "distance", Type: schemas.Float32}, schemas.Field{Name: "carrier.code", Type: schemas.String})
	m := &schemas.Message{Payload: payload(t, "00 00000009 00 09 0000000000004540 1202 0801")}
	dst := schemas.NewBatch(to)
	if got := testing.AllocsPerRun(200, func() {
		dst.Reset()
		c, err := r.Protobuf(context.Background(), m.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if n, _, _, err := c.AppendGood(dst, m, nil); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}); got != 0 {
		t.Errorf("%v allocations for a record whose schema is known, want 0", got)
	}
}
