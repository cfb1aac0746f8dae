package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

type (
	thingRequest struct {
		Name  string `path:"name" doc:"of the thing"`
		Limit int    `query:"limit"`
	}
	thing struct {
		Name   string            `json:"name"`
		Limit  int               `json:"limit"`
		When   time.Time         `json:"when,omitzero"`
		Labels map[string]string `json:"labels,omitempty"`
		Parts  []thing           `json:"parts,omitempty"`
	}
	thingCreate struct {
		Name string `json:"name"`
	}
	upload struct {
		Name string    `path:"name"`
		Body io.Reader `body:"application/octet-stream"`
	}
	counted struct {
		Bytes int64 `json:"bytes"`
	}
	lines struct {
		ctx context.Context
		n   int
		err error
	}
)

func (l *lines) ContentType() string { return "application/x-ndjson" }

func (l *lines) WriteBody(w io.Writer) error {
	for i := range l.n {
		if _, err := fmt.Fprintf(w, "{\"n\":%d}\n", i); err != nil {
			return err
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
	}
	if l.ctx != nil {
		<-l.ctx.Done()
	}
	return l.err
}

func operations() []api.Operation {
	return []api.Operation{
		api.Op("things.show", "GET", "/v1/things/{name}", api.Read, "Show a thing", func(ctx context.Context, r *thingRequest) (*thing, error) {
			switch r.Name {
			case "none":
				return nil, schemas.FieldErrorf(schemas.NotFound, "things.show", "name", "no thing %q", r.Name)
			case "panic":
				panic("secret detail")
			case "broken":
				return nil, errors.New("secret detail")
			}
			return &thing{Name: r.Name, Limit: r.Limit, Parts: []thing{{Name: "part"}}}, nil
		}),
		api.Op("things.create", "POST", "/v1/things", api.Admin, "Make a thing", func(ctx context.Context, r *thingCreate) (*thing, error) {
			return &thing{Name: r.Name}, nil
		}),
		api.Op("things.upload", "PUT", "/v1/things/{name}/content", api.Admin, "Fill a thing", func(ctx context.Context, r *upload) (*counted, error) {
			n, err := io.Copy(io.Discard, r.Body)
			return &counted{n}, err
		}),
		api.Op("things.tail", "GET", "/v1/things/{name}/lines", api.Read, "Follow a thing", func(ctx context.Context, r *thingRequest) (*lines, error) {
			switch r.Name {
			case "fails":
				return &lines{n: 2, err: errors.New("disk gone")}, nil
			case "refuses":
				return &lines{err: schemas.Errorf(schemas.Unavailable, "test", "not now")}, nil
			case "follows":
				return &lines{n: 1, ctx: ctx}, nil
			}
			return &lines{n: 3}, nil
		}),
	}
}

func TestOperations(t *testing.T) {
	var log bytes.Buffer
	url, _, _ := start(t, func(_ *Config, d *Deps) { d.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/things/a?limit=3", "", 200, `{"name":"a","limit":3,"parts":[{"name":"part","limit":0}]}`},
		{"GET", "/v1/things/a?limit=x", "", 400, `"field":"limit"`},
		{"GET", "/v1/things/a?colour=x", "", 400, `"field":"colour"`},
		{"GET", "/v1/things/none", "", 404, `"field":"name"`},
		{"POST", "/v1/things", `{"name":"b"}`, 200, `"name":"b"`},
		{"POST", "/v1/things", `{"nom":"b"}`, 400, `nom`},
		{"POST", "/v1/things", `{`, 400, `"kind":"invalid"`},
		{"DELETE", "/v1/things", "", 405, "use POST"},
		{"GET", "/v1/things/a/lines", "", 200, "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n"},
		{"GET", "/v1/things/refuses/lines", "", 503, "not now"},
		{"GET", "/v1/things/fails/lines", "", 200, "unexpected EOF"},
		{"GET", "/v1/things/broken", "", 500, `"error":"internal error 0`},
		{"GET", "/v1/things/panic", "", 500, `"error":"internal error 0`},
	} {
		a := do(t, c.method, url+c.path, c.body)
		if a.StatusCode != c.status || !strings.Contains(a.body, c.want) || strings.Contains(a.body, "secret") {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, a.StatusCode, a.body, c.status, c.want)
		}
		if c.status == 500 {
			id := a.errorBody(t).ID
			if n := strings.Count(log.String(), "id="+id); n != 1 {
				t.Errorf("%s: id %s is in the log %d times", c.path, id, n)
			}
		}
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	url, _, stop := start(t, nil)
	resp, err := http.Get(url + "/v1/things/follows/lines")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "{\"n\":0}\n" {
		t.Fatalf("%q %v", line, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
