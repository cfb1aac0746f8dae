package nats

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

func FuzzPlace(f *testing.F) {
	for _, s := range []string{
		"$JS.ACK.LEAT_T_a.g-x-0.1.22.3.1795369498908906186.301", "$JS.ACK.dom.acc.S.C.2.3.4.5.6", "$JS.ACK.dom.acc.S.C.2.3.4.5.6.tok",
		"$JS.ACK", "$JS.ACK.....", "$JS.ACK.S.C.1.2.3.4.", "$JS.ACK.S.C.1.2.x.4.5", "_INBOX.x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parsePlace(s)
		if !ok {
			return
		}
		parts := strings.Split(s, ".")
		at := 4
		if len(parts) >= 11 {
			at = 6
		}
		if !strings.HasPrefix(s, ackPrefix) || len(parts) < at+5 {
			t.Fatalf("%q read as %+v", s, p)
		}
	})
}

func TestPlace(t *testing.T) {
	p, ok := parsePlace("$JS.ACK.S.C.1.22.3.1795369498908906186.301")
	if !ok || p != (place{1, 22, 3, 1795369498908906186, 301}) {
		t.Fatalf("%+v %v", p, ok)
	}
	if n := testing.AllocsPerRun(100, func() { parsePlace("$JS.ACK.S.C.1.22.3.1795369498908906186.301") }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzAck(f *testing.F) {
	for _, s := range []string{
		`{"stream":"S","seq":12}`, `{"stream":"S", "seq": 12, "duplicate": true}`, `{"error":{"code":400,"err_code":10071,"description":"x"}}`, `{`, `{"seq":`, "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAck(b)
		var want struct {
			Seq   uint64              `json:"seq"`
			Error *jetstream.APIError `json:"error"`
		}
		if json.Unmarshal(b, &want) == nil && want.Error != nil && err == nil {
			t.Fatalf("%q: an error was read as success %+v", b, a)
		}
	})
}

func FuzzKeyName(f *testing.F) {
	for _, s := range []string{"a", "a.b/c_d-e", "", "x y", "=AA", "fraud@champion", ".", "..", "a..b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := keyName(s)
		if keyOfName(n) != s {
			t.Fatalf("%q became %q and then %q", s, n, keyOfName(n))
		}
		if n != "=" && !plainKey(strings.ReplaceAll(n, "=", "x")) {
			t.Fatalf("%q became %q, which NATS refuses", s, n)
		}
	})
}

func FuzzUserCreate(f *testing.F) {
	for _, s := range []string{
		`{"stream_name":"LEAT_T_a","config":{"durable_name":"app-x","ack_policy":"explicit"}}`, `{"config":{"deliver_subject":"leat.lineage.p","name":"app-x"}}`, `{}`, `null`, `[`,
	} {
		f.Add("app-x", s)
	}
	f.Fuzz(func(t *testing.T, name, body string) {
		m, got, err := userCreate([]string{"LEAT_T_a", name}, []byte(body))
		if err != nil {
			return
		}
		var r struct {
			Stream string         `json:"stream_name"`
			Config map[string]any `json:"config"`
		}
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Fatal(err)
		}
		if r.Config["deliver_subject"] != nil || r.Stream != "LEAT_T_a" || !strings.HasPrefix(got, userConsumer) || r.Config["name"] != got {
			t.Fatalf("%s lets %s through", body, m.Data)
		}
	})
}

func TestServeAPI(t *testing.T) {
	s := startServer(t, t.TempDir(), 0)
	c := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	type req struct {
		Name string `path:"name"`
		N    int    `query:"n"`
	}
	type reply struct {
		Said string `json:"said"`
	}
	ops := []api.Operation{
		api.Op("things.show", "GET", "/v1/things/{name}", api.Read, "x", func(_ context.Context, r *req) (*reply, error) {
			switch r.Name {
			case "bad":
				return nil, schemas.FieldErrorf(schemas.Invalid, "t", "name", "bad name")
			case "broken":
				return nil, context.Canceled
			}
			return &reply{Said: r.Name + strings.Repeat("!", r.N)}, nil
		}),
		api.Op("things.drop", "DELETE", "/v1/things/{name}", api.Admin, "x", func(_ context.Context, r *req) (*reply, error) {
			return &reply{Said: "gone"}, nil
		}),
	}
	if err := c.ServeAPI(ctx, ops); err != nil {
		t.Fatal(err)
	}
	nc := user(t, s)
	ask := func(op, body string) (string, string) {
		t.Helper()
		m, err := nc.Request(subjectAPI+op, []byte(body), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if k := m.Header.Get(schemas.HeaderErrorKind); k != "" && m.Header.Get(micro.ErrorCodeHeader) == "" {
			t.Fatalf("headers %v", m.Header)
		}
		return m.Header.Get(schemas.HeaderErrorKind), string(m.Data)
	}
	for _, x := range []struct{ op, body, kind, want string }{
		{"things.show", `{"name":"a","n":2}`, "", `{"said":"a!!"}`},
		{"things.show", `{"name":"bad"}`, "invalid", `"field":"name"`},
		{"things.show", `{"nme":"a"}`, "invalid", `nme`},
		{"things.show", `{`, "invalid", `"kind":"invalid"`},
		{"things.drop", `{"name":"a"}`, "not_found", `things.drop`}, // users read only
		{"none", ``, "not_found", `none`},
	} {
		if kind, body := ask(x.op, x.body); kind != x.kind || !strings.Contains(body, x.want) {
			t.Errorf("%s %s: %q %s", x.op, x.body, kind, body)
		}
	}
	m, err := c.core.RequestWithContext(ctx, subjectAPI+"things.drop", []byte(`{"name":"a"}`))
	if err != nil || string(m.Data) != `{"said":"gone"}` {
		t.Fatal(m, err)
	}
}
