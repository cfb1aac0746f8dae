package jsonrow

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// check is what holds for any payload.
func check(t *testing.T, s *schemas.Schema, payload []byte) {
	dst, before := schemas.NewBatch(s), schemas.NewBatch(s)
	schemastest.Fill(dst, rand.New(rand.NewPCG(1, 1)), 3)
	before.AppendRange(dst, 0, 3)
	m := &schemas.Message{Payload: payload}
	n, enc, err := Codec{}.AppendRows(dst, m)
	if err != nil {
		if d := schemastest.Diff(before, dst); schemas.KindOf(err) != schemas.Invalid || d != "" || n != 0 {
			t.Fatalf("%v (kind %v): %s, %d rows", err, schemas.KindOf(err), d, n)
		}
	} else {
		if !json.Valid(payload) {
			t.Fatalf("%q was taken and is no JSON", payload)
		}
		if dst.Bytes()-before.Bytes() > maxNulls+8*len(payload)+1<<16 {
			t.Fatalf("%d bytes became %d", len(payload), dst.Bytes())
		}
		out, err := enc.EncodeRows(nil, schemas.Header{}, dst, 3, dst.Rows(), nil)
		if err != nil || !json.Valid(out) {
			t.Fatalf("answer %q, %v", out, err)
		}
		got, back := schemas.NewBatch(s), schemas.NewBatch(s)
		got.AppendRange(dst, 3, dst.Rows())
		if _, _, err := (Codec{}).AppendRows(back, &schemas.Message{Payload: out}); err != nil {
			t.Fatalf("%q cannot be read again: %v", out, err)
		}
		if d := schemastest.Diff(got, back); d != "" {
			t.Fatalf("%q read again: %s", out, d)
		}
		dst.Truncate(3)
	}
	// Row by row: what is good in all-or-none mode is good here, and the other way round.
	k, bad, _, gerr := Codec{}.AppendGood(dst, m, nil)
	switch {
	case err == nil && (gerr != nil || k != n || len(bad) > 0):
		t.Fatalf("row by row: %d rows, %v, %v; at once %d", k, bad, gerr, n)
	case err != nil && gerr == nil && len(bad) == 0 && !strings.Contains(err.Error(), "unknown field"):
		checkBare(t, dst, payload, err)
	case dst.Rows() != 3+k:
		t.Fatalf("row by row: %d rows, the batch has %d", k, dst.Rows())
	}
	if gerr != nil || k == 0 {
		if d := schemastest.Diff(before, dst); d != "" {
			t.Fatalf("row by row: %s", d)
		}
	}
}

// checkBare is what holds for an event that is no request: it is one row, and the same row within "rows".
func checkBare(t *testing.T, dst *schemas.Batch, payload []byte, err error) {
	want, got := schemas.NewBatch(dst.Schema()), schemas.NewBatch(dst.Schema())
	want.AppendRange(dst, 3, dst.Rows())
	framed := append(append([]byte(`{"rows":[`), payload...), "]}"...)
	if _, bad, _, gerr := (Codec{}).AppendGood(got, &schemas.Message{Payload: framed}, nil); gerr != nil || len(bad) > 0 {
		t.Fatalf("row by row takes what is %v at once; as a row it is %v, %v", err, gerr, bad)
	}
	if d := schemastest.Diff(want, got); d != "" || got.Rows() != 1 {
		t.Fatalf("%q as a row: %s", payload, d)
	}
}

var features = schemas.MustSchema(
	schemas.Field{Name: "t", Type: schemas.String, Shape: []int{3}, Features: []string{"p", "q", "r"}, Nullable: true},
	schemas.Field{Name: "f", Type: schemas.Float32, Shape: []int{2}, Features: []string{"u", "v"}, Nullable: true},
	schemas.Field{Name: "i", Type: schemas.Int8, Shape: []int{2}, Features: []string{"g", "h"}})

func seeds(f *testing.F, enc schemas.Encoder, extra ...string) {
	b := schemas.NewBatch(schemastest.Everything())
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 1)), 2)
	out, _ := enc.EncodeRows(nil, schemas.Header{}, b, 0, 2, nil)
	f.Add(out)
	for _, s := range extra {
		f.Add([]byte(s))
	}
}

func FuzzRows(f *testing.F) {
	seeds(f, Rows(), `{"id":"a","rows":[{"dep_delay":1.5e3,"carrier":"\u00e9\ud83d\udeeb","seats":1,"a":1,"b":2,"c":3,"m":[[1,2],[3,4]]},5]}`,
		`{"rows":[{"r":"3","p":"1","v":null,"u":1,"q":null,"g":1,"h":2},{"t":["a","b","c"],"f":null,"i":[1,2]}]}`, `{"parameters":{"x":[]},"rows":[{}]}`,
		`{"id":"a","dep_delay":1,"carrier":"UA","seats":4,"a":1,"b":2,"c":3,"m":[1,2,3,4]}`, `{"g":1,"h":2}`, `{"rows":{},"g":1,"h":2}`)
	all := schemastest.Everything()
	f.Fuzz(func(t *testing.T, payload []byte) {
		check(t, flight, payload)
		check(t, features, payload)
		check(t, all, payload)
	})
}

func FuzzColumns(f *testing.F) {
	seeds(f, Columns(), `{"columns":{"seats":[1,2],"b":[2,20],"dep_delay":["Infinity","-Infinity"],"c":[3,30],"a":[1,10],"carrier":[null,"B6"]}}`,
		`{"columns":{"r":["3","c"],"v":[1,2],"p":["1",null],"g":[1,2],"h":[3,4]}}`)
	all := schemastest.Everything()
	f.Fuzz(func(t *testing.T, payload []byte) {
		check(t, flight, payload)
		check(t, features, payload)
		check(t, all, payload)
	})
}
