package codec

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/confluent"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/oip"
	"github.com/leatstream/leat/schemas/wire"
)

var departures = schemas.MustSchema(schemas.Field{Name: "delay", Type: schemas.Float32}, schemas.Field{Name: "carrier", Type: schemas.String, Nullable: true})

// schemaRegistry serves an Avro schema under 1 and a Protobuf schema under 2.
func schemaRegistry(t testing.TB) *Set {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/schemas/ids/1":
			fmt.Fprintf(w, `{"schema":%q}`, `{"type":"record","name":"D","fields":[{"name":"delay","type":"double"},{"name":"carrier","type":["null","string"]}]}`)
		case "/schemas/ids/2":
			fmt.Fprintf(w, `{"schemaType":"PROTOBUF","schema":%q}`, `syntax = "proto3"; message D { double delay = 1; optional string carrier = 2; }`)
		case "/schemas/ids/3":
			w.WriteHeader(500)
		default:
			w.WriteHeader(404)
			fmt.Fprint(w, `{"error_code":40403,"message":"Schema not found"}`)
		}
	}))
	t.Cleanup(srv.Close)
	s, err := New(Config{Registry: confluent.Config{URL: srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func input(t testing.TB, format string, columns ...string) *Input {
	t.Helper()
	in, err := ParseInput(format, columns)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// records are one row, written in each format by others than our own encoders where there are such.
func records(t testing.TB) map[string][]byte {
	b := schemas.NewBatch(departures)
	schemas.Append(b.Column(0), float32(1.5))
	b.Column(0).EndRow()
	b.Column(1).AppendString("UA")
	b.Column(1).EndRow()
	b.Advance(1)
	arrow, err := wire.StreamCodec{}.EncodeRows(nil, schemas.Header{}, b, 0, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		JSON: []byte(`{"carrier":"UA","delay":1.5,"gate":"A7"}`), CSV: []byte("1.5,UA\n"), Arrow: arrow,
		Avro:     []byte("\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xf8\x3f\x02\x04UA"),
		Protobuf: []byte("\x00\x00\x00\x00\x02\x00\x09\x00\x00\x00\x00\x00\x00\xf8\x3f\x12\x02UA"),
	}
}

// Every format becomes the same row, and but for Arrow is answered in native JSON.
func TestFormats(t *testing.T) {
	s := schemaRegistry(t)
	for format, payload := range records(t) {
		in := input(t, format)
		if err := s.Check(in); err != nil {
			t.Error(err)
		}
		if err := in.Check(departures); err != nil {
			t.Error(err)
		}
		m := &schemas.Message{Payload: payload}
		c, err := s.For(t.Context(), m, in)
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		b := schemas.NewBatch(departures)
		var enc schemas.Encoder
		if rc, ok := c.(schemas.RowCodec); ok {
			var bad []schemas.RowError
			if _, bad, enc, err = rc.AppendGood(b, m, nil); len(bad) > 0 {
				err = bad[0].Err
			}
		} else {
			_, enc, err = c.AppendRows(b, m)
		}
		if err != nil || b.Rows() != 1 {
			t.Errorf("%s: %d rows, %v", format, b.Rows(), err)
			continue
		}
		if got := string(jsonrow.AppendObject(nil, b, 0)); got != `{"delay":1.5,"carrier":"UA"}` {
			t.Errorf("%s: %s", format, got)
		}
		h := schemas.Header{}
		out, err := enc.EncodeRows(nil, h, b, 0, 1, nil)
		want := `{"rows":[{"delay":1.5,"carrier":"UA"}]}`
		if ct := h.Get(schemas.HeaderContentType); err != nil || (format == Arrow) != (ct == wire.ContentTypeStream) || format != Arrow && string(out) != want {
			t.Errorf("%s: answered %s, %q, %v", format, ct, out, err)
		}
	}
}

func TestWhatDecides(t *testing.T) {
	s := schemaRegistry(t)
	rec := records(t)
	for _, c := range []struct {
		format, ct, length string
		payload            []byte
		want               string // type of the codec, or the error
	}{
		{"", "", "", rec[JSON], "jsonrow.Codec"},
		{JSON, "", "", []byte(`{"inputs":[{"name":"x"}]}`), "oip.Codec"},
		{JSON, "", "", []byte(`{"inputs":7,"delay":1}`), "jsonrow.Codec"},
		{JSON, "", "", []byte(`{"delay":1,"inputs":[]}`), "jsonrow.Codec"},
		{JSON, "application/octet-stream", "", rec[JSON], "jsonrow.Codec"},
		{CSV, "", "", rec[CSV], "*csvrow.Codec"},
		{CSV, "application/octet-stream", "", rec[CSV], "*csvrow.Codec"},
		{CSV, "application/octet-stream", "2", rec[CSV], "oip.Codec"},
		{CSV, "application/json", "", rec[JSON], "jsonrow.Codec"},
		{CSV, "application/vnd.apache.arrow.stream", "", rec[Arrow], "wire.StreamCodec"},
		{JSON, "Text/CSV; charset=utf-8", "", rec[CSV], "*csvrow.Codec"},
		{"", "application/avro", "", rec[Avro], "*confluent.avroCodec"},
		{CSV, "application/x-protobuf", "", rec[Protobuf], "*confluent.protoCodec"},
		{Avro, "", "", rec[Avro], "*confluent.avroCodec"},
		{Protobuf, "", "", rec[Protobuf], "*confluent.protoCodec"},
		{Arrow, "", "", rec[Arrow], "wire.StreamCodec"},
		{CSV, "image/png", "", rec[CSV], "invalid: Content-Type: \"image/png\" is not taken"},
		{Avro, "", "", rec[JSON], "invalid: the value begins with the byte 0x7b"},
		{Avro, "", "", rec[Protobuf], "invalid: schema 2 is of type PROTOBUF"},
		{Avro, "", "", []byte("\x00\x00\x00\x00\x09"), "invalid: schema 9 is not in the schema registry"},
		{Avro, "", "", []byte("\x00\x00\x00\x00\x03"), "unavailable: the schema registry "},
		{JSON, "", "", nil, "invalid: a record without a value (tombstone) holds no row"},
		{CSV, "", "", []byte{}, "invalid: a record without a value (tombstone) holds no row"},
		{Avro, "application/json", "", nil, "invalid: a record without a value (tombstone) holds no row"},
	} {
		m := &schemas.Message{Header: schemas.Header{}, Payload: c.payload}
		if c.ct != "" {
			m.Header.Set(schemas.HeaderContentType, c.ct)
		}
		if c.length != "" {
			m.Header.Set(oip.HeaderLength, c.length)
		}
		got, err := s.For(t.Context(), m, input(t, c.format))
		text := fmt.Sprintf("%T", got)
		if err != nil {
			text = schemas.KindOf(err).String() + ": " + err.Error()
			if got != nil {
				t.Errorf("%s %s: a codec and %v", c.format, c.ct, err)
			}
		}
		if !strings.HasPrefix(text, c.want) {
			t.Errorf("%s %s %.20q: %s, want %s", c.format, c.ct, c.payload, text, c.want)
		}
	}
	// A request is what it always was.
	m := &schemas.Message{Header: schemas.Header{schemas.HeaderContentType: {"text/csv"}}, Payload: rec[CSV]}
	if _, err := s.For(t.Context(), m, nil); schemas.KindOf(err) != schemas.Invalid {
		t.Error("CSV as a request:", err)
	}
}

func TestParseInput(t *testing.T) {
	for _, c := range []struct {
		format  string
		columns []string
		want    string
	}{
		{"", nil, ""}, {CSV, []string{"a", "", "b"}, ""},
		{"xml", nil, "input.format: \"xml\" is no format: want json, csv, arrow, avro, protobuf"},
		{strings.Repeat("x", 1000), nil, "input.format: "},
		{JSON, []string{"a"}, "input.columns: only lines of csv"},
		{CSV, []string{"a", "a"}, "input.columns: column \"a\" is there twice"},
	} {
		_, err := ParseInput(c.format, c.columns)
		if (err == nil) != (c.want == "") || err != nil && (!strings.HasPrefix(err.Error(), c.want) || schemas.KindOf(err) != schemas.Invalid) {
			t.Errorf("%.20s %v: %v", c.format, c.columns, err)
		}
	}
	if err := input(t, CSV, "carrier").Check(departures); err == nil || err.Error() != "input.columns: delay: not among the columns, and not nullable" {
		t.Error(err)
	}
	if err := input(t, JSON).Check(departures); err != nil {
		t.Error(err)
	}
	none, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := none.Check(input(t, Avro)); err == nil || !strings.HasPrefix(err.Error(), "input.format: avro needs a schema registry") {
		t.Error(err)
	}
	if err := none.Check(input(t, CSV)); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Registry: confluent.Config{URL: "nowhere"}}); schemas.KindOf(err) != schemas.Invalid {
		t.Error(err)
	}
}

func TestSetAllocatesNothing(t *testing.T) {
	s := schemaRegistry(t)
	for format, payload := range records(t) {
		m, in := &schemas.Message{Payload: payload}, input(t, format)
		b := schemas.NewBatch(departures)
		if n := testing.AllocsPerRun(100, func() {
			c, err := s.For(context.Background(), m, in)
			if err != nil {
				t.Fatal(err)
			}
			rc, ok := c.(schemas.RowCodec)
			if !ok {
				return
			}
			b.Reset()
			if n, bad, _, err := rc.AppendGood(b, m, nil); n != 1 || len(bad) > 0 || err != nil {
				t.Fatal(n, bad, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", format, n)
		}
	}
}

// BenchmarkSet finds the codec of a record and reads it, in each format, 13 float columns.
func BenchmarkSet(b *testing.B) {
	fs := make([]schemas.Field, 13)
	avro, proto, js, csv := []string{}, "", []string{}, []string{}
	avroRow, protoRow := []byte("\x00\x00\x00\x00\x01"), []byte("\x00\x00\x00\x00\x02\x00")
	values := []string{"1400.5", "7", "12", "0.25", "-3.75", "1013.2", "8.05546", "23", "0.5", "1.5e3", "310", "65.02", "4"}
	for i := range fs {
		n := fmt.Sprintf("feature_%02d", i)
		fs[i] = schemas.Field{Name: n, Type: schemas.Float32}
		avro = append(avro, fmt.Sprintf(`{"name":%q,"type":"float"}`, n))
		proto += fmt.Sprintf("float %s = %d; ", n, i+1)
		js, csv = append(js, fmt.Sprintf(`%q:%s`, n, values[i])), append(csv, values[i])
		avroRow = append(avroRow, "\x00\x00\x20\x41"...)
		protoRow = append(append(protoRow, byte((i+1)<<3|5)), "\x00\x00\x20\x41"...)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/1") {
			fmt.Fprintf(w, `{"schema":%q}`, `{"type":"record","name":"F","fields":[`+strings.Join(avro, ",")+`]}`)
			return
		}
		fmt.Fprintf(w, `{"schemaType":"PROTOBUF","schema":%q}`, `syntax = "proto3"; message F { `+proto+` }`)
	}))
	defer srv.Close()
	s, err := New(Config{Registry: confluent.Config{URL: srv.URL}})
	if err != nil {
		b.Fatal(err)
	}
	to := schemas.MustSchema(fs...)
	for _, f := range []struct {
		format  string
		payload []byte
	}{{JSON, []byte("{" + strings.Join(js, ",") + "}")}, {CSV, []byte(strings.Join(csv, ","))}, {Avro, avroRow}, {Protobuf, protoRow}} {
		b.Run(f.format, func(b *testing.B) {
			m, in, dst := &schemas.Message{Payload: f.payload}, input(b, f.format), schemas.NewBatch(to)
			b.ReportAllocs()
			for b.Loop() {
				dst.Reset()
				c, err := s.For(b.Context(), m, in)
				if err != nil {
					b.Fatal(err)
				}
				if n, bad, _, err := c.(schemas.RowCodec).AppendGood(dst, m, nil); n != 1 || len(bad) > 0 || err != nil {
					b.Fatal(n, bad, err)
				}
			}
		})
	}
}
