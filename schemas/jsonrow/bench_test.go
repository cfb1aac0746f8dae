package jsonrow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// flights are requests of 13 float32 columns with values as callers write them.
func flights(form string, rows int) (*schemas.Schema, []byte) {
	fs := make([]schemas.Field, 13)
	values := []string{"1400.5", "7", "12", "0.25", "-3.75", "1013.2", "8.05546", "23", "0", "1.5e3", "310", "65.02", "4"}
	var row, cols []string
	for i := range fs {
		fs[i] = schemas.Field{Name: fmt.Sprintf("feature_%02d", i), Type: schemas.Float32}
		row = append(row, fmt.Sprintf(`"%s":%s`, fs[i].Name, values[i]))
		cols = append(cols, fmt.Sprintf(`"%s":[%s]`, fs[i].Name, strings.TrimSuffix(strings.Repeat(values[i]+",", rows), ",")))
	}
	s := schemas.MustSchema(fs...)
	if form == "columns" {
		return s, []byte(`{"columns":{` + strings.Join(cols, ",") + `}}`)
	}
	return s, []byte(`{"rows":[` + strings.TrimSuffix(strings.Repeat("{"+strings.Join(row, ",")+"},", rows), ",") + `]}`)
}

func BenchmarkAppend(b *testing.B) {
	for _, form := range []string{"rows", "columns"} {
		for _, rows := range []int{1, 256} {
			b.Run(fmt.Sprintf("%s=%d", form, rows), func(b *testing.B) {
				s, payload := flights(form, rows)
				dst := schemas.NewBatch(s)
				m := &schemas.Message{Payload: payload}
				b.ReportAllocs()
				for b.Loop() {
					dst.Reset()
					if _, _, err := (Codec{}).AppendRows(dst, m); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	s, payload := flights("rows", 1)
	dst := schemas.NewBatch(s)
	if _, _, err := (Codec{}).AppendRows(dst, &schemas.Message{Payload: payload}); err != nil {
		b.Fatal(err)
	}
	h, a := schemas.Header{}, &schemas.Answer{RequestID: "01JD", Model: "flights", Version: "3"}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out, _ = Rows().EncodeRows(out[:0], h, dst, 0, 1, a)
	}
}

func TestNoAllocation(t *testing.T) {
	for _, form := range []string{"rows", "columns"} {
		s, payload := flights(form, 1)
		dst := schemas.NewBatch(s)
		m := &schemas.Message{Payload: payload}
		h, a := schemas.Header{}, &schemas.Answer{RequestID: "01JD", Model: "flights", Version: "3"}
		var out []byte
		got := testing.AllocsPerRun(200, func() {
			dst.Reset()
			_, enc, err := (Codec{}).AppendRows(dst, m)
			if err != nil {
				t.Fatal(err)
			}
			if out, err = enc.EncodeRows(out[:0], h, dst, 0, 1, a); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations to decode and answer a request, want 0", form, got)
		}
	}
}

// BenchmarkEvent reads an event that is one row itself, as AppendGood takes it.
func BenchmarkEvent(b *testing.B) {
	s, payload := flights("rows", 1)
	m := &schemas.Message{Payload: payload[len(`{"rows":[`) : len(payload)-len("]}")]}
	dst := schemas.NewBatch(s)
	b.ReportAllocs()
	for b.Loop() {
		dst.Reset()
		if n, bad, _, err := (Codec{}).AppendGood(dst, m, nil); n != 1 || len(bad) > 0 || err != nil {
			b.Fatal(n, bad, err)
		}
	}
}

func TestEventAllocatesNothing(t *testing.T) {
	s, payload := flights("rows", 1)
	m := &schemas.Message{Payload: payload[len(`{"rows":[`) : len(payload)-len("]}")]}
	dst := schemas.NewBatch(s)
	if got := testing.AllocsPerRun(200, func() {
		dst.Reset()
		if n, bad, _, err := (Codec{}).AppendGood(dst, m, nil); n != 1 || len(bad) > 0 || err != nil {
			t.Fatal(n, bad, err)
		}
	}); got != 0 {
		t.Errorf("%v allocations to decode an event, want 0", got)
	}
}
