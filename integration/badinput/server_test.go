package badinput

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/integration/child"
)

const (
	boost = "flight-boost"
	delay = "flight-delay"
)

// target is the one server of the table.
type target struct {
	*child.Server
	nc   *nats.Conn
	http *http.Client
	good map[string][]byte // native JSON by pipeline
}

func start(t *testing.T) *target {
	t.Helper()
	s, err := child.Start(child.Options{Binary: *leat, Data: filepath.Join(t.TempDir(), "data")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(root, "examples", "flights")
	for _, dir := range []string{filepath.Join(examples, boost), filepath.Join(examples, delay), typed(t)} {
		if err := s.Push(ctx, dir); err != nil {
			t.Fatalf("%v\n%s", err, s.Log())
		}
	}
	tg := &target{Server: s, good: map[string][]byte{"typed": []byte(`{"rows":[{"small":-128,"whole":"9223372036854775807","flag":true,"word":"x"}]}`)}}
	for p, file := range map[string]string{boost: "flight-boost.json", delay: "flight.json"} {
		if tg.good[p], err = os.ReadFile(filepath.Join(examples, file)); err != nil {
			t.Fatal(err)
		}
	}
	if tg.nc, err = nats.Connect(s.NATS, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tg.nc.Close)
	tg.http = &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 20 * time.Second}
	t.Cleanup(tg.http.CloseIdleConnections)
	return tg
}

// answer is what came back.
type answer struct {
	status  int // 0: over NATS
	kind    string
	message string
	field   string
	header  map[string][]string
	body    []byte
}

func (a *answer) get(name string) string {
	if v := a.header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// request is one request, by whatever door.
type request struct {
	method, path string // HTTP; an empty path means NATS
	subject      string
	header       map[string]string
	body         []byte
}

func (tg *target) send(ctx context.Context, r *request) (*answer, error) {
	if r.path == "" {
		return tg.sendNATS(ctx, r)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, tg.HTTP+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[http.CanonicalHeaderKey(k)] = []string{v}
		if k == "Host" {
			req.Host = v
		}
	}
	resp, err := tg.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	return parseHTTP(resp, b), nil
}

func parseHTTP(resp *http.Response, b []byte) *answer {
	a := &answer{status: resp.StatusCode, kind: resp.Header.Get("Leat-Error-Kind"), header: resp.Header, body: b}
	var body struct{ Error, Kind, Field string }
	if json.Unmarshal(b, &body) == nil {
		a.message, a.field = body.Error, body.Field
	}
	return a
}

func (tg *target) sendNATS(ctx context.Context, r *request) (*answer, error) {
	m := &nats.Msg{Subject: r.subject, Data: r.body, Header: nats.Header{}}
	for k, v := range r.header {
		m.Header[k] = []string{v}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reply, err := tg.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return nil, err
	}
	a := &answer{kind: reply.Header.Get("Leat-Error-Kind"), header: reply.Header, body: reply.Data}
	var body struct{ Message, Kind, Field string }
	if json.Unmarshal(reply.Data, &body) == nil {
		a.message, a.field = body.Message, body.Field
	}
	return a, nil
}

// fine sends a good request by the door of r and wants its answer.
func (tg *target) fine(t *testing.T, over string) {
	t.Helper()
	g := &request{method: http.MethodPost, path: "/v1/pipelines/" + delay + "/score", body: tg.good[delay]}
	if over == "nats" {
		g = &request{subject: "leat.score." + delay, body: tg.good[delay]}
	}
	start := time.Now()
	a, err := tg.send(t.Context(), g)
	if err != nil || a.kind != "" || a.status != 0 && a.status != http.StatusOK || !strings.Contains(string(a.body), "probabilities") {
		t.Fatalf("a good request after it: %v %+v\n%s", err, a, tg.Log())
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a good request after it took %s", took)
	}
}

// inside are words that only a look into the server would show.
var inside = []string{"goroutine", ".go:", "github.com/", "runtime error", "panic", "0xc0", "runtime.", "reflect.", "*schemas", "unmarshal Go"}

const longest = 600 // of an error's line

// clear wants one line without anything of the server's inside.
func clear(t *testing.T, a *answer) {
	t.Helper()
	switch {
	case a.message == "":
		t.Errorf("no message in %.300q", a.body)
	case strings.ContainsAny(a.message, "\n\r"):
		t.Errorf("more than one line: %q", a.message)
	case len(a.message) > longest:
		t.Errorf("a line of %d bytes: %.200q...", len(a.message), a.message)
	}
	for _, w := range inside {
		if strings.Contains(a.message, w) {
			t.Errorf("%q shows %q", a.message, w)
		}
	}
	if id := a.get("Leat-Request-Id"); id == "" && a.status != 0 {
		t.Errorf("no request id with %q", a.message)
	}
}

var statusOf = map[string]int{"invalid": 400, "not_found": 404, "denied": 403, "overloaded": 429, "expired": 504, "unavailable": 503, "internal": 500}
