package confluent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
)

// fake answers requests by path, as the REST API of the registry is documented.
type fake struct {
	mu    sync.Mutex
	paths map[string]string // body of a 200
	asked []string
	fail  func(req *http.Request) (*http.Response, error)
}

func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.asked = append(f.asked, req.URL.EscapedPath())
	fail := f.fail
	f.mu.Unlock()
	if fail != nil {
		if resp, err := fail(req); resp != nil || err != nil {
			return resp, err
		}
	}
	if body, ok := f.paths[req.URL.EscapedPath()]; ok {
		return answerOf(200, body), nil
	}
	return answerOf(404, `{"error_code":40403,"message":"Schema not found"}`), nil
}

func (f *fake) set(fail func(req *http.Request) (*http.Response, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.asked = fail, nil
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func answerOf(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func registry(t testing.TB, f *fake) *Registry {
	t.Helper()
	r, err := newRegistry(Config{URL: "http://registry:8081"}, jsonrow.Rows(), f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func schemaOf(text, typ, references string) string {
	out := fmt.Sprintf(`{"schema":%q`, text)
	if typ != "" {
		out += fmt.Sprintf(`,"schemaType":%q`, typ)
	}
	if references != "" {
		out += `,"references":` + references
	}
	return out + "}"
}

func payload(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// row prints the row that a record became, or why it did not.
func row(t testing.TB, c schemas.RowCodec, err error, to *schemas.Schema, b []byte) string {
	t.Helper()
	if err != nil {
		return err.Error()
	}
	dst := schemas.NewBatch(to)
	n, bad, enc, err := c.AppendGood(dst, &schemas.Message{Payload: b}, nil)
	one, oneErr := schemas.NewBatch(to), error(nil)
	_, _, oneErr = c.AppendRows(one, &schemas.Message{Payload: b})
	switch {
	case err != nil:
		t.Fatal(err)
	case len(bad) == 1:
		if n != 0 || dst.Rows() != 0 || oneErr == nil || oneErr.Error() != bad[0].Err.Error() || bad[0].Row != 0 || one.Rows() != 0 {
			t.Errorf("%d rows, %v, at once %v", n, bad, oneErr)
		}
		return bad[0].Err.Error()
	case n != 1 || dst.Rows() != 1 || oneErr != nil || one.Rows() != 1 || enc != jsonrow.Rows():
		t.Errorf("%d rows, %v", n, oneErr)
	}
	return string(jsonrow.AppendObject(nil, dst, 0))
}

var (
	payment = schemaOf(`{"namespace":"io.confluent","name":"Payment","type":"record","fields":[{"name":"id","type":"string"},{"name":"amount","type":"double"}]}`, "", "")
	flight  = schemaOf(`syntax = "proto3"; import "carrier.proto"; message Flight { double distance = 1; Carrier carrier = 2; message Leg { int32 no = 1; } } message Other { int32 x = 1; }`,
		"PROTOBUF", `[{"name":"carrier.proto","subject":"a/carrier.proto","version":3}]`)
)

func flights() *fake { return &fake{paths: maps.Clone(paths)} }

var paths = map[string]string{
	"/schemas/ids/8":                         payment,
	"/schemas/ids/9":                         flight,
	"/subjects/a%2Fcarrier.proto/versions/3": schemaOf(`syntax = "proto3"; import "code.proto"; message Carrier { Code code = 1; }`, "PROTOBUF", `[{"name":"code.proto","subject":"code","version":1}]`),
	"/subjects/code/versions/1":              schemaOf(`syntax = "proto3"; enum Code { UA = 0; B6 = 1; }`, "PROTOBUF", ""),
	"/schemas/ids/10":                        schemaOf(`{"type":"record","name":"F","fields":[{"name":"c","type":"ref.Code"}]}`, "AVRO", `[{"name":"ref.Code","subject":"code-avro","version":1}]`),
	"/subjects/code-avro/versions/1":         schemaOf(`{"type":"enum","name":"Code","namespace":"ref","symbols":["UA","B6"]}`, "", ""),
	"/schemas/ids/11":                        schemaOf(`{"type":"object"}`, "JSON", ""),
	"/schemas/ids/12":                        schemaOf(`{"type":"record"`, "", ""),
	"/schemas/ids/13":                        schemaOf(`syntax = "proto3"; message M { Missing m = 1; }`, "PROTOBUF", ""),
	"/schemas/ids/14":                        schemaOf(`"int"`, "", `[{"name":"gone","subject":"gone","version":1}]`),
	"/schemas/ids/15":                        schemaOf(`"int"`, "", `[{"name":"self","subject":"self","version":1}]`),
	"/subjects/self/versions/1":              schemaOf(`"int"`, "", `[{"name":"self","subject":"self","version":1}]`),
	"/schemas/ids/16":                        schemaOf(strings.Repeat("x", maxAnswer), "", ""),
	"/schemas/ids/17":                        `{}`,
	"/schemas/ids/18":                        `<html>log in</html>`,
}

// The payment is the example that the documentation of Avrora, a library for Elixir, gives for the registry's format.
func TestRecords(t *testing.T) {
	amount := schemas.MustSchema(schemas.Field{Name: "amount", Type: schemas.Float32}, schemas.Field{Name: "id", Type: schemas.String})
	departure := schemas.MustSchema(schemas.Field{Name: "distance", Type: schemas.Float32}, schemas.Field{Name: "carrier.code", Type: schemas.String, Nullable: true})
	one := func(name string) *schemas.Schema {
		return schemas.MustSchema(schemas.Field{Name: name, Type: schemas.String})
	}
	x := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Int8})
	for _, c := range []struct {
		format, bytes string
		to            *schemas.Schema
		want          string
	}{
		{"avro", "00 00000008 48 30303030303030302d303030302d303030302d303030302d303030303030303030303030 7b14ae47e1fa2f40", amount, `{"amount":15.99,"id":"00000000-0000-0000-0000-000000000000"}`},
		{"avro", "00 00000008 48 30", amount, `rows[0]: byte 1 of the Avro record: a string of 36 bytes, but 1 are left`},
		{"avro", "00 00000008", amount, `rows[0]: byte 0 of the Avro record: want an integer`},
		{"avro", "00 00000008 00 0000000000000000", x, `rows[0].x: missing`},
		{"avro", "00 0000000a 02", one("c"), `{"c":"B6"}`},
		{"protobuf", "00 00000009 00 09 0000000000004540 1202 0801", departure, `{"distance":42,"carrier.code":"B6"}`},
		{"protobuf", "00 00000009 0200 09 0000000000004540", departure, `{"distance":42,"carrier.code":null}`},
		{"protobuf", "00 00000009 0202 0805", x, `{"x":5}`},
		{"protobuf", "00 00000009 0202 08 ac02", x, `rows[0].x: 300 is out of the range of int8`},
		{"protobuf", "00 00000009 040000 0805", schemas.MustSchema(schemas.Field{Name: "no", Type: schemas.Int8}), `{"no":5}`},
		{"protobuf", "00 00000009 0204", x, `rows[0]: the record is of message [2] of the schema, which has no such message`},
		{"protobuf", "00 00000009 0201", x, `rows[0]: the value does not say which message of the schema it is`},
		{"protobuf", "00 00000009 01", x, `rows[0]: the value does not say which message of the schema it is`},
		{"protobuf", "00 00000009", x, `rows[0]: the value does not say which message of the schema it is`},
		{"protobuf", "00 00000009 ffffffff0f", x, `rows[0]: the value does not say which message of the schema it is`},
		{"protobuf", "00 00000009 8001", x, `rows[0]: the value's message lies 64 messages deep: at most 32`},
		{"avro", "7b 2261223a317d", x, `the value begins with the byte 0x7b, not with the zero byte of the schema registry's format`},
		{"avro", "00 0000", x, `a value of 3 bytes is too short for the schema registry's format: a zero byte, then the id of a schema in 4`},
		{"avro", "00 00000009 00", x, `schema 9 is of type PROTOBUF, the record is read as AVRO`},
		{"protobuf", "00 00000008 00", x, `schema 8 is of type AVRO, the record is read as PROTOBUF`},
		{"avro", "00 0000000b 00", x, `schema 11: it is of type "JSON": want AVRO or PROTOBUF`},
		{"avro", "00 0000000c 00", x, `schema 12: the schema cannot be read: `},
		{"protobuf", "00 0000000d 00", x, `schema 13: the schema cannot be compiled: line 1:32: field M.m: unknown type Missing`},
		{"avro", "00 0000000e 00", x, `schema 14 cannot be used: it refers to /subjects/gone/versions/1, which the schema registry does not have`},
		{"avro", "00 0000000f 00", x, `schema 15: the schema is of type "int": want a record`},
		{"avro", "00 00000010 00", x, `schema 16 cannot be used: it has more than 2 MiB`},
		{"avro", "00 00000063 00", x, `schema 99 is not in the schema registry`},
	} {
		r := registry(t, flights())
		b := payload(t, c.bytes)
		find := r.Avro
		if c.format == "protobuf" {
			find = r.Protobuf
		}
		for range 2 { // the second time from memory
			codec, err := find(t.Context(), b)
			if err != nil && schemas.KindOf(err) != schemas.Invalid {
				t.Errorf("%s: %v of kind %v", c.bytes, err, schemas.KindOf(err))
			}
			if got := row(t, codec, err, c.to, b); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s: %s, want %s", c.bytes, got, c.want)
			}
		}
	}
}

// What is not the record's fault is Unavailable: the record is tried again.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		fail func(req *http.Request) (*http.Response, error)
		want string
	}{
		{func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, "the schema registry http://registry:8081 cannot be asked: connection refused"},
		{func(*http.Request) (*http.Response, error) {
			return answerOf(401, `{"error_code":40101,"message":"Unauthorized"}`), nil
		}, "refuses us (401): see schema_registry.username"},
		{func(*http.Request) (*http.Response, error) { return answerOf(403, ``), nil }, "refuses us (403)"},
		{func(*http.Request) (*http.Response, error) { return answerOf(404, `<html>nothing here</html>`), nil }, "has no /schemas/ids/8 (404): is this the address of its REST API?"},
		{func(*http.Request) (*http.Response, error) {
			return answerOf(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`), nil
		}, "is this the address"},
		{func(*http.Request) (*http.Response, error) {
			return answerOf(500, `{"error_code":50001,"message":"Error in the backend data store"}`), nil
		}, `answers 500: "Error in the backend data store"`},
		{func(*http.Request) (*http.Response, error) { return answerOf(429, strings.Repeat("x", 1000)), nil }, `answers 429`},
		{func(*http.Request) (*http.Response, error) { return answerOf(200, `<html>log in</html>`), nil }, "cannot be asked: unable to decode"},
		{func(*http.Request) (*http.Response, error) { return answerOf(200, `{}`), nil }, "does not answer as one: /schemas/ids/8 holds no schema"},
		{func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}, "did not answer in time"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := flights()
			f.set(c.fail)
			r := registry(t, f)
			_, err := r.Avro(t.Context(), payload(t, "00 00000008 00"))
			if schemas.KindOf(err) != schemas.Unavailable || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
				t.Errorf("%v of kind %v, want %s", err, schemas.KindOf(err), c.want)
			}
			// For a moment nobody asks, not for other ids either; then it is well again.
			f.set(nil)
			if _, again := r.Avro(t.Context(), payload(t, "00 0000000a 00")); again == nil || again.Error() != err.Error() || f.count() != 0 {
				t.Errorf("at once: %v, %d requests", again, f.count())
			}
			time.Sleep(pause)
			if _, err := r.Avro(t.Context(), payload(t, "00 00000008 00")); err != nil {
				t.Error(err)
			}
		})
	}
}

// A reference that cannot be asked for is no fault of the schema.
func TestReferenceUnavailable(t *testing.T) {
	f := flights()
	f.set(func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "code") {
			return answerOf(503, ""), nil
		}
		return nil, nil
	})
	if _, err := registry(t, f).Protobuf(t.Context(), payload(t, "00 00000009 00")); schemas.KindOf(err) != schemas.Unavailable {
		t.Error(err)
	}
}

func TestUnknownIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := flights()
		r := registry(t, f)
		b := payload(t, "00 00000063 00")
		for range 3 {
			if _, err := r.Avro(t.Context(), b); schemas.KindOf(err) != schemas.Invalid {
				t.Fatal(err)
			}
		}
		if n := f.count(); n != 1 {
			t.Errorf("%d requests for an unknown id", n)
		}
		time.Sleep(unknownFor)
		f.paths["/schemas/ids/99"] = payment
		if _, err := r.Avro(t.Context(), b); err != nil {
			t.Error(err)
		}
		for id := range uint32(3 * maxUnknown) { // records may name any id
			if _, err := r.Avro(t.Context(), []byte{0, 1, byte(id >> 16), byte(id >> 8), byte(id), 0}); schemas.KindOf(err) != schemas.Invalid {
				t.Fatal(err)
			}
		}
		if n := len(r.mu.unknown); n > maxUnknown {
			t.Errorf("%d unknown ids are remembered", n)
		}
	})
}

// Of those who need an id at once one asks; if it gives up another does.
func TestOneAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := flights()
		release := make(chan struct{})
		f.set(func(req *http.Request) (*http.Response, error) {
			select {
			case <-release:
				return nil, nil
			case <-req.Context().Done():
				return nil, req.Context().Err()
			}
		})
		r := registry(t, f)
		b := payload(t, "00 00000008 00")
		first, giveUp := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := r.Avro(first, b)
			gone <- err
		}()
		synctest.Wait()
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		waits := make(chan error, 50)
		for i := range 50 {
			ctx := t.Context()
			if i == 0 {
				ctx = short
			}
			go func() {
				_, err := r.Avro(ctx, b)
				waits <- err
			}()
		}
		synctest.Wait()
		if n := f.count(); n != 1 {
			t.Errorf("%d requests at once", n)
		}
		giveUp()
		if err := <-gone; schemas.KindOf(err) != schemas.Unavailable {
			t.Error("the one who gave up:", err)
		}
		synctest.Wait()
		if n := f.count(); n != 2 {
			t.Errorf("%d requests after the first caller gave up", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		close(release)
		expired := 0
		for range 50 {
			if err := <-waits; schemas.KindOf(err) == schemas.Expired {
				expired++
			} else if err != nil {
				t.Error(err)
			}
		}
		if expired != 1 {
			t.Errorf("%d callers expired, want the one with a deadline", expired)
		}
	})
}

// What is remembered is bounded by number and by size.
func TestBounds(t *testing.T) {
	f := &fake{paths: map[string]string{}}
	r := registry(t, f)
	for id := range maxSchemas + 10 {
		f.paths[fmt.Sprintf("/schemas/ids/%d", id)] = payment
		if _, err := r.Avro(t.Context(), []byte{0, 0, 0, byte(id >> 8), byte(id)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(*r.known.Load()); n != maxSchemas || len(r.mu.order) != maxSchemas {
		t.Errorf("%d schemas are remembered", n)
	}
	for id := range uint32(80) {
		r.mu.Lock()
		r.remember(&schema{id: 70000 + id, size: 1 << 20})
		r.mu.Unlock()
	}
	if r.mu.source > maxSource || len(*r.known.Load()) != maxSource>>20 {
		t.Errorf("%d schemas of %d bytes are remembered", len(*r.known.Load()), r.mu.source)
	}
	if _, err := r.Avro(t.Context(), []byte{0, 0, 0, 0, 1}); err != nil { // forgotten, and asked for again
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		c    Config
		want string
	}{
		{Config{}, ""}, {Config{URL: "https://host/apis/ccompat/v7"}, ""},
		{Config{URL: "host:8081"}, "schema_registry.url: want an address"},
		{Config{URL: "ftp://host"}, "schema_registry.url: want an address"},
		{Config{URL: "http://me:secret@host"}, "schema_registry.url: credentials"},
		{Config{URL: "http://host?x=1"}, "schema_registry.url: want an address without"},
		{Config{Username: "me"}, "schema_registry.url: missing"},
		{Config{URL: "http://host", Timeout: -1}, "schema_registry.timeout: "},
	} {
		_, err := New(c.c, jsonrow.Rows())
		if (err == nil) != (c.want == "") || err != nil && (!strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%+v: %v", c.c, err)
		}
	}
	r, err := New(Config{}, jsonrow.Rows())
	if err != nil || r.Configured() {
		t.Fatal(err)
	}
	if _, err := r.Avro(t.Context(), make([]byte, 9)); schemas.KindOf(err) != schemas.Unavailable || !strings.Contains(err.Error(), "set schema_registry.url") {
		t.Error(err)
	}
}

// Over real HTTP: credentials are sent, a path before /schemas is kept, nothing is left behind.
func TestHTTP(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != "me" || password != "secret" {
			w.WriteHeader(401)
			return
		}
		if !strings.HasPrefix(req.URL.Path, "/apis/v7/") {
			w.WriteHeader(500)
			return
		}
		req.URL.Path, req.URL.RawPath = strings.TrimPrefix(req.URL.Path, "/apis/v7"), strings.TrimPrefix(req.URL.RawPath, "/apis/v7")
		resp, err := flights().RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		w.WriteHeader(resp.StatusCode)
		if _, err := io.Copy(w, resp.Body); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	b := payload(t, "00 00000009 00 09 0000000000004540")
	r, err := New(Config{URL: srv.URL + "/apis/v7", Username: "me", Password: "secret"}, jsonrow.Rows())
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Protobuf(t.Context(), b)
	if got := row(t, c, err, schemas.MustSchema(schemas.Field{Name: "distance", Type: schemas.Float32}), b); got != `{"distance":42}` {
		t.Error(got)
	}
	if r, err = New(Config{URL: srv.URL + "/apis/v7", Username: "me", Password: "wrong"}, jsonrow.Rows()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Protobuf(t.Context(), b); schemas.KindOf(err) != schemas.Unavailable || !strings.Contains(err.Error(), "refuses us (401)") {
		t.Error(err)
	}
	url := srv.URL
	srv.Close()
	if r, err = New(Config{URL: url}, jsonrow.Rows()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Avro(t.Context(), b); schemas.KindOf(err) != schemas.Unavailable || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}
