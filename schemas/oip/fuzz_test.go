package oip

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// check is what holds for any payload.
func check(t *testing.T, s *schemas.Schema, m *schemas.Message) {
	dst, before := schemas.NewBatch(s), schemas.NewBatch(s)
	schemastest.Fill(dst, rand.New(rand.NewPCG(1, 1)), 3)
	before.AppendRange(dst, 0, 3)
	n, enc, err := Codec{}.AppendRows(dst, m)
	if err != nil {
		if d := schemastest.Diff(before, dst); schemas.KindOf(err) != schemas.Invalid || d != "" || n != 0 {
			t.Fatalf("%v (kind %v): %s, %d rows", err, schemas.KindOf(err), d, n)
		}
		return
	}
	if m.Header == nil && !json.Valid(m.Payload) {
		t.Fatalf("%q was taken and is no JSON", m.Payload)
	}
	if dst.Bytes()-before.Bytes() > 2*maxNulls+16*len(m.Payload)+1<<16 {
		t.Fatalf("%d bytes became %d", len(m.Payload), dst.Bytes())
	}
	got, back := schemas.NewBatch(s), schemas.NewBatch(s)
	got.AppendRange(dst, 3, dst.Rows())
	h := schemas.Header{}
	if _, err := enc.EncodeRows(nil, h, got, 0, n, nil); err != nil && schemas.KindOf(err) != schemas.Invalid {
		t.Fatal(err)
	}
	for i := range s.Len() {
		if got.Column(i).Nulls() > 0 && got.Column(i).Width() > 1 {
			return // a null tensor has no form in the protocol
		}
	}
	out, err := Plain().EncodeRows(nil, schemas.Header{}, got, 0, n, nil)
	if err != nil || !json.Valid(out) {
		t.Fatalf("answer %q, %v", out, err)
	}
	if _, _, err := (Codec{}).AppendRows(back, asRequest(schemas.Header{}, string(out))); err != nil {
		t.Fatalf("%q cannot be asked: %v", out, err)
	}
	if d := schemastest.Diff(got, back); d != "" {
		t.Fatalf("%q: %s", out, d)
	}
}

func FuzzJSON(f *testing.F) {
	b := schemas.NewBatch(required())
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 1)), 1)
	out, _ := Plain().EncodeRows(nil, schemas.Header{}, b, 0, 1, nil)
	f.Add(asRequest(schemas.Header{}, string(out)).Payload)
	f.Add([]byte(`{"id":"q","outputs":[{"name":"dep_delay","parameters":{"binary_data":true}}],"inputs":[` + delay + `,` + carrier + `,` + packed + `]}`))
	f.Add([]byte(`{"inputs":[{"data":[[1,2,3],[4,5,6]],"shape":[2,3],"datatype":"FP32","name":"x"},` + delay + `]}`))
	f.Add([]byte(`{"inputs":[` + delay + `,{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]},{"name":"b","shape":[2],"datatype":"FP32","data":[1,2]},{"name":"c","shape":[2],"datatype":"FP32","data":[1,2]}]}`))
	all := required()
	f.Fuzz(func(t *testing.T, payload []byte) {
		check(t, flight, &schemas.Message{Payload: payload})
		check(t, all, &schemas.Message{Payload: payload})
	})
}

func FuzzBinary(f *testing.F) {
	b := schemas.NewBatch(required())
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 1)), 2)
	h := schemas.Header{}
	out, _ := (&encoder{allBinary: true}).EncodeRows(nil, h, b, 0, 2, nil)
	m := asRequest(h, string(out))
	n, _ := strconv.Atoi(m.Header.Get(HeaderLength))
	f.Add(m.Payload, n)
	m = tail(`{"inputs":[{"name":"carrier","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":12}},`+delay+`,`+packed+`]}`, texts("UA", "B6"))
	n, _ = strconv.Atoi(m.Header.Get(HeaderLength))
	f.Add(m.Payload, n)
	all := required()
	f.Fuzz(func(t *testing.T, payload []byte, n int) {
		h := schemas.Header{HeaderLength: {strconv.Itoa(n)}}
		check(t, flight, &schemas.Message{Header: h, Payload: payload})
		check(t, all, &schemas.Message{Header: h, Payload: payload})
	})
}
