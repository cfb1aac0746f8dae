package codec

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/oip"
	"github.com/leatstream/leat/schemas/wire"
)

func TestFor(t *testing.T) {
	long := `{"id":"a","parameters":{"inputs":[{"rows":1}]},`
	for _, c := range []struct{ ct, length, payload, want string }{
		{"", "", `{"rows":[]}`, "jsonrow.Codec"},
		{"application/json", "", `{"columns":{}}`, "jsonrow.Codec"},
		{"application/json; charset=utf-8", "", `{"inputs":[]}`, "oip.Codec"},
		{"Application/JSON", "", ` {"outputs":[],"inputs":[]}`, "oip.Codec"},
		{"", "", long + `"inputs":[]}`, "oip.Codec"},
		{"", "", long + `"rows":[]}`, "jsonrow.Codec"},
		{"", "", `{"in\u0070uts":[]}`, "oip.Codec"},
		{"", "", ``, "jsonrow.Codec"},
		{"", "", `{"id":[`, "jsonrow.Codec"},
		{"", "", `[1]`, "jsonrow.Codec"},
		{"", "", `{"id":` + strings.Repeat("[", 1e5), "jsonrow.Codec"},
		{"application/json", "12", `{"inputs":[]}xx`, "oip.Codec"},
		{"application/octet-stream", "12", ``, "oip.Codec"},
		{"application/vnd.leat.batch", "", ``, "wire.Codec"},
		{"application/vnd.apache.arrow.stream", "", ``, "wire.StreamCodec"},
		{"application/octet-stream", "", ``, oip.HeaderLength},
		{"text/csv", "", `a,b`, wire.ContentTypeStream},
		{strings.Repeat("x", 1000), "", ``, "accepted are: application/json"},
	} {
		m := &schemas.Message{Header: schemas.Header{}, Payload: []byte(c.payload)}
		if c.ct != "" {
			m.Header.Set(schemas.HeaderContentType, c.ct)
		}
		if c.length != "" {
			m.Header.Set(oip.HeaderLength, c.length)
		}
		got, err := For(m)
		if err != nil {
			e := schemas.AsError("", err)
			if e.Kind != schemas.Invalid || e.Field != schemas.HeaderContentType || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 400 {
				t.Errorf("%.40s %.60s: %v, want %s", c.ct, c.payload, err, c.want)
			}
		} else if name := fmt.Sprintf("%T", got); name != c.want {
			t.Errorf("%.40s %.60s: %s, want %s", c.ct, c.payload, name, c.want)
		}
	}
}

func TestForAllocatesNothing(t *testing.T) {
	m := &schemas.Message{Payload: []byte(`{"id":"a","parameters":{"x":[1,2,"y"]},"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`)}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := For(m); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkFor(b *testing.B) {
	m := &schemas.Message{Payload: []byte(`{"id":"a","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := For(m); err != nil {
			b.Fatal(err)
		}
	}
}
