package gateway

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/oip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// requester answers in memory.
type requester func(ctx context.Context, m *schemas.Message) (*schemas.Message, error)

func (f requester) Request(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
	return f(ctx, m)
}

// echo answers with the body, and with what arrived in the header Leat-Arm.
var echo = requester(func(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
	if m.Topic == "none" {
		return nil, schemas.Errorf(schemas.NotFound, "test", "no pipeline %q", m.Topic)
	}
	seen, _ := json.Marshal(m.Header)
	h := schemas.Header{schemas.HeaderContentType: m.Header[schemas.HeaderContentType], schemas.HeaderRequestID: m.Header[schemas.HeaderRequestID],
		schemas.HeaderArm: {string(seen)}, "Secret": {"x"}}
	if v := m.Header[oip.HeaderLength]; v != nil {
		h[oip.HeaderLength] = v
	}
	return &schemas.Message{Topic: m.Topic, Header: h, Payload: bytes.Clone(m.Payload)}, nil
})

type models struct{}

func (models) Model(ctx context.Context, name, version string) (Metadata, error) {
	if name == "none" || version == "9" {
		return Metadata{}, schemas.Errorf(schemas.NotFound, "test", "no model %s %s", name, version)
	}
	return Metadata{Name: name, Versions: []string{"1", "2"}, Platform: "onnxruntime_onnx", Ready: name != "cold", Signature: schemas.Signature{
		Inputs:  schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{3}}, schemas.Field{Name: "s", Type: schemas.String}),
		Outputs: schemas.MustSchema(schemas.Field{Name: "y", Type: schemas.Float32})}}, nil
}

// start serves until the test ends and returns the base URL. stop ends it early.
func start(t testing.TB, change func(*Config, *Deps)) (url string, s *Server, stop func() error) {
	t.Helper()
	c := Default()
	c.Listen = "127.0.0.1:0"
	d := Deps{Requester: echo, Models: models{}, Operations: operations(), Version: "test"}
	if change != nil {
		change(&c, &d)
	}
	s, err := New(c, d)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	var once atomic.Bool
	stop = func() error {
		cancel()
		if once.Swap(true) {
			return nil
		}
		return <-ended
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "http://" + addr.String(), s, stop
}

type answer struct {
	*http.Response
	body string
}

func (a answer) errorBody(t *testing.T) errorBody {
	t.Helper()
	var e errorBody
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil || strings.Contains(e.Error, "\n") || e.Error == "" {
		t.Errorf("status %d: not an error body: %q", a.StatusCode, a.body)
	}
	return e
}

func do(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		b = append(b, ("\n" + err.Error())...)
	}
	return answer{resp, string(b)}
}

func TestProtocol(t *testing.T) {
	ready := errors.New("pipeline fraud is loading")
	url, _, _ := start(t, func(_ *Config, d *Deps) { d.Ready = func() error { return ready } })
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v2", "", 200, `{"name":"leat","version":"test","extensions":["binary_tensor_data"]}`},
		{"GET", "/v2/health/live", "", 200, `{"live":true}`},
		{"GET", "/v2/models/fraud", "", 200, `{"name":"fraud","versions":["1","2"],"platform":"onnxruntime_onnx","inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]},{"name":"s","datatype":"BYTES","shape":[-1]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}`},
		{"GET", "/v2/models/fraud/ready", "", 200, `{"name":"fraud","ready":true}`},
		{"GET", "/v2/models/cold/versions/2/ready", "", 503, `{"name":"cold","ready":false}`},
		{"GET", "/v2/models/none", "", 404, `"kind":"not_found"`},
		{"GET", "/v2/models/fraud/versions/9", "", 404, `"kind":"not_found"`},
		{"GET", "/v2/models/fraud/versions/01/ready", "", 400, `"field":"version"`},
		{"GET", "/v2/models/Fr%20aud", "", 400, `"kind":"invalid"`},
		{"GET", "/v2/models/..%2f..%2fetc", "", 400, `"kind":"invalid"`},
		{"POST", "/v2/models/fraud/infer", `{"inputs":[]}`, 200, `{"inputs":[]}`},
		{"POST", "/v2/models/none/infer", `{"inputs":[]}`, 404, `"kind":"not_found"`},
		{"POST", "/v1/pipelines/fraud/score", `{"rows":[]}`, 200, `{"rows":[]}`},
		{"GET", "/v1/pipelines/fraud/score", "", 405, "use POST"},
		{"DELETE", "/v2/health/live", "", 405, "use GET"},
		{"GET", "/v3", "", 404, `nothing is at`},
		{"GET", "/", "", 404, `openapi.json`},
	} {
		a := do(t, c.method, url+c.path, c.body)
		if a.StatusCode != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, a.StatusCode, a.body, c.status, c.want)
		}
		if a.Header.Get("Leat-Request-Id") == "" {
			t.Errorf("%s %s: no request id", c.method, c.path)
		}
		if a.StatusCode == 405 && a.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	a := do(t, "GET", url+"/v2/health/ready", "")
	if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, `"ready":false`) {
		t.Errorf("not ready: %d %s", a.StatusCode, a.body)
	}
	ready = nil
	if a := do(t, "GET", url+"/v2/health/ready", ""); a.StatusCode != 200 || strings.TrimSpace(a.body) != `{"ready":true}` {
		t.Errorf("ready: %d %s", a.StatusCode, a.body)
	}
}

// seen returns the header that the echo requester got.
func seen(t *testing.T, a answer) schemas.Header {
	t.Helper()
	var h schemas.Header
	if err := json.Unmarshal([]byte(a.Header.Get(schemas.HeaderArm)), &h); err != nil {
		t.Fatalf("%d %s: %v", a.StatusCode, a.body, err)
	}
	return h
}

func TestHeaders(t *testing.T) {
	url, _, _ := start(t, nil)
	a := do(t, "POST", url+"/v1/pipelines/p/score", "{}", "Leat-Request-Id", "mine", "Leat-Key", "k", "Leat-Arm", "canary", "X-User", "u7", "Traceparent", "00-1-2-01",
		"Leat-Principal", "root", "Authorization", "Bearer x", "Cookie", "a=b", "Leat-Attempt", "7", "Leat-Reply-To", "me", "Leat-Timeout", "5s", "Content-Type", "application/vnd.apache.arrow.stream")
	h := seen(t, a)
	for name, want := range map[string]string{"Leat-Request-Id": "mine", "Leat-Key": "k", "Leat-Arm": "canary", "X-User": "u7", "traceparent": "00-1-2-01", "Content-Type": "application/vnd.apache.arrow.stream",
		"Leat-Principal": "", "Authorization": "", "Cookie": "", "Leat-Attempt": "", "Leat-Reply-To": "", "Leat-Timeout": "", "Leat-Model": ""} {
		if h.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, h.Get(name), want)
		}
	}
	d, err := time.Parse(time.RFC3339Nano, h.Get("Leat-Deadline"))
	if left := time.Until(d); err != nil || left > 5*time.Second || left < time.Second {
		t.Errorf("Leat-Deadline %q", h.Get("Leat-Deadline"))
	}
	if a.Header.Get("Leat-Request-Id") != "mine" || a.Header.Get("Secret") != "" {
		t.Errorf("answer's header %v", a.Header)
	}
	// Without a deadline of the caller's the pipeline's own holds; ids are made, and rise.
	one := seen(t, do(t, "POST", url+"/v2/models/p/versions/3/infer", "{}", "Content-Type", "text/plain"))
	two := seen(t, do(t, "POST", url+"/v2/models/p/infer", "{}", "Inference-Header-Content-Length", "2"))
	if one.Get("Leat-Deadline") != "" || one.Get("Leat-Model") != "p@3" || one.Get("Content-Type") != "application/json" {
		t.Errorf("%v", one)
	}
	if two.Get("Content-Type") != "application/octet-stream" || two.Get("Inference-Header-Content-Length") != "2" {
		t.Errorf("%v", two)
	}
	if one["Leat-Request-Id"] != nil || two["Leat-Request-Id"] != nil { // the body may hold one
		t.Errorf("ids %v, %v were made before the body was read", one["Leat-Request-Id"], two["Leat-Request-Id"])
	}
	three := seen(t, do(t, "POST", url+"/v1/pipelines/p/score", "{}"))
	four := seen(t, do(t, "POST", url+"/v1/pipelines/p/score", "{}"))
	if x, y := three.Get("Leat-Request-Id"), four.Get("Leat-Request-Id"); len(x) != 26 || x >= y {
		t.Errorf("ids %q, %q", x, y)
	}
	if h := seen(t, do(t, "POST", url+"/v1/pipelines/p/score", "{}", "Content-Type", "application/x-www-form-urlencoded")); h.Get("Content-Type") != "" {
		t.Errorf("curl -d: %v", h)
	}
	for _, c := range []struct {
		name, value, kind, field string
		status                   int
	}{
		{"Leat-Request-Id", "a b", "invalid", "Leat-Request-Id", 400},
		{"Leat-Request-Id", strings.Repeat("a", 129), "invalid", "Leat-Request-Id", 400},
		{"Leat-Request-Id", "é", "invalid", "Leat-Request-Id", 400},
		{"Leat-Timeout", "soon", "invalid", "Leat-Timeout", 400},
		{"Leat-Timeout", "-1s", "invalid", "Leat-Timeout", 400},
		{"Leat-Deadline", "tomorrow", "invalid", "Leat-Deadline", 400},
		{"Leat-Deadline", "2001-01-01T00:00:00Z", "expired", "", 504},
		{"Content-Encoding", "br", "invalid", "Content-Encoding", 400},
		{"Content-Encoding", "gzip, gzip", "invalid", "Content-Encoding", 400},
		{"Content-Encoding", "gzip", "invalid", "Content-Encoding", 400},
		{"Content-Encoding", "deflate", "invalid", "Content-Encoding", 400},
	} {
		a := do(t, "POST", url+"/v2/models/p/infer", "{}", c.name, c.value)
		e := a.errorBody(t)
		if a.StatusCode != c.status || e.Kind != c.kind || e.Field != c.field || e.ID == "" || a.Header.Get("Leat-Error-Kind") != c.kind {
			t.Errorf("%s: %s: %d %+v", c.name, c.value, a.StatusCode, e)
		}
	}
}

func pack(encoding string, b []byte) string {
	var out bytes.Buffer
	var w io.WriteCloser
	switch encoding {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "zlib":
		w = zlib.NewWriter(&out)
	default:
		w, _ = flate.NewWriter(&out, 6)
	}
	_, _ = w.Write(b)
	_ = w.Close()
	return out.String()
}

func TestEncodings(t *testing.T) {
	url, _, _ := start(t, nil)
	text := strings.Repeat(`{"inputs":[0.125,0.25]}`, 200)
	for name, how := range map[string]string{"gzip": "gzip", "deflate": "zlib", "Deflate": "flate"} {
		if a := do(t, "POST", url+"/v2/models/p/infer", pack(how, []byte(text)), "Content-Encoding", name); a.StatusCode != 200 || a.body != text {
			t.Errorf("%s (%s): %d %.80s", name, how, a.StatusCode, a.body)
		}
	}
	for accept, want := range map[string]string{"gzip": "gzip", "deflate, gzip;q=0.5": "gzip", "deflate": "deflate", "gzip;q=0": "", "br": "", "": ""} {
		a := do(t, "POST", url+"/v2/models/p/infer", text, "Accept-Encoding", accept, "Inference-Header-Content-Length", "10")
		if a.Header.Get("Content-Encoding") != want || a.Header.Get("Inference-Header-Content-Length") != "10" {
			t.Errorf("Accept-Encoding %q: %v", accept, a.Header)
		}
		var r io.Reader = strings.NewReader(a.body)
		var err error
		switch want {
		case "gzip":
			r, err = gzip.NewReader(r)
		case "deflate":
			r, err = zlib.NewReader(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != text {
			t.Errorf("Accept-Encoding %q: %v, %d bytes", accept, err, len(b))
		}
	}
	if a := do(t, "POST", url+"/v2/models/p/infer", "{}", "Accept-Encoding", "gzip"); a.Header.Get("Content-Encoding") != "" {
		t.Error("a short answer was compressed")
	}
}

func TestSizes(t *testing.T) {
	url, _, _ := start(t, func(c *Config, _ *Deps) { c.MaxBody, c.MaxUpload = 1000, 5000 })
	big := strings.Repeat("x", 1001)
	for name, a := range map[string]answer{
		"declared":  do(t, "POST", url+"/v2/models/p/infer", big),
		"bomb":      do(t, "POST", url+"/v2/models/p/infer", pack("gzip", bytes.Repeat([]byte{0}, 900_000)), "Content-Encoding", "gzip"),
		"operation": do(t, "POST", url+"/v1/things", `{"name":"`+big+`"}`),
		"upload":    do(t, "PUT", url+"/v1/things/a/content", strings.Repeat(big, 5)),
		"chunked":   raw(t, url, "POST /v2/models/p/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n"+big+"\r\n0\r\n\r\n"),
		"upload, chunked": raw(t, url, "PUT /v1/things/a/content HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1389\r\n"+
			strings.Repeat("y", 5001)+"\r\n0\r\n\r\n"),
		"huge, declared only": raw(t, url, "POST /v2/models/p/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx"),
	} {
		if e := a.errorBody(t); a.StatusCode != 413 || e.Kind != "invalid" || !strings.Contains(e.Error, "at most") {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	if a := do(t, "POST", url+"/v2/models/p/infer", big[:1000]); a.StatusCode != 200 {
		t.Errorf("at the limit: %d", a.StatusCode)
	}
	if a := do(t, "PUT", url+"/v1/things/a/content", strings.Repeat("z", 5000)); a.StatusCode != 200 || !strings.Contains(a.body, `"bytes":5000`) {
		t.Errorf("upload at the limit: %d %s", a.StatusCode, a.body)
	}
}

// raw sends bytes as they are and half-closes, so that a body may be shorter than it says.
func raw(t *testing.T, url, text string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return answer{resp, string(b)}
}

func TestLyingContentLength(t *testing.T) {
	url, _, _ := start(t, nil)
	a := raw(t, url, "POST /v2/models/p/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{}")
	if e := a.errorBody(t); a.StatusCode != 400 || e.Kind != "invalid" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	for _, bad := range []string{"Content-Length: -1", "Content-Length: 2\r\nContent-Length: 3", "Content-Length: x"} {
		if a := raw(t, url, "POST /v2/models/p/infer HTTP/1.1\r\nHost: localhost\r\n"+bad+"\r\n\r\n{}"); a.StatusCode != 400 {
			t.Errorf("%s: %d", bad, a.StatusCode)
		}
	}
	if a := do(t, "POST", url+"/v2/models/p/infer", "{}"); a.StatusCode != 200 {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

func TestKindsAndAnswers(t *testing.T) {
	url, _, _ := start(t, func(_ *Config, d *Deps) {
		d.Requester = requester(func(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
			k := schemas.ParseKind(strings.ReplaceAll(m.Topic, "-", "_"))
			e := schemas.FieldErrorf(k, "test", "rows[0].x", "it is wrong")
			if k == schemas.Expired {
				<-ctx.Done() // the gateway's own deadline
				return nil, ctx.Err()
			}
			if k == schemas.Internal {
				e.ID = "log-17"
			}
			h, b := schemas.ErrorAnswer(e, m.Header.Get(schemas.HeaderRequestID))
			return &schemas.Message{Header: h, Payload: b}, nil
		})
	})
	for kind, status := range map[string]int{"invalid": 400, "not-found": 404, "denied": 403, "overloaded": 429, "expired": 504, "unavailable": 503, "internal": 500} {
		a := do(t, "POST", url+"/v2/models/"+kind+"/infer", "{}", "Leat-Timeout", "50ms", "Leat-Request-Id", "r1")
		e := a.errorBody(t)
		if a.StatusCode != status || e.Kind != strings.ReplaceAll(kind, "-", "_") || a.Header.Get("Leat-Request-Id") != "r1" {
			t.Errorf("%s: %d %s", kind, a.StatusCode, a.body)
		}
		if wait := a.Header.Get("Retry-After"); (wait != "") != (status == 429 || status == 503) {
			t.Errorf("%s: Retry-After %q", kind, wait)
		}
		if kind == "invalid" && (e.Error != "rows[0].x: it is wrong" || e.Field != "rows[0].x" || e.ID != "r1") {
			t.Errorf("%+v", e)
		}
		if kind == "internal" && (e.ID != "log-17" || strings.Contains(a.body, "wrong")) {
			t.Errorf("%+v", e)
		}
	}
}

func TestBrowsers(t *testing.T) {
	url, _, _ := start(t, func(c *Config, _ *Deps) {
		c.Hosts, c.Origins = []string{"score.internal"}, []string{"https://console.example.org"}
	})
	post := func(headers ...string) int {
		return do(t, "POST", url+"/v1/things", `{"name":"a"}`, headers...).StatusCode
	}
	for i, c := range []struct {
		headers []string
		want    int
	}{
		{nil, 200},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Origin", "https://evil.example"}, 403},
		{[]string{"Origin", "https://console.example.org", "Sec-Fetch-Site", "cross-site"}, 200},
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Host", "evil.example:8080"}, 403},
		{[]string{"Host", "127.0.0.1.evil.example"}, 403},
		{[]string{"Host", "localhost:9"}, 200},
		{[]string{"Host", "[::1]:9"}, 200},
		{[]string{"Host", "score.internal"}, 200},
	} {
		if got := post(c.headers...); got != c.want {
			t.Errorf("case %d %v: %d, want %d", i, c.headers, got, c.want)
		}
	}
	if a := do(t, "GET", url+"/v1/things/a", "", "Host", "evil.example"); a.StatusCode != 403 {
		t.Errorf("a read through a rebound name: %d", a.StatusCode)
	}
}

func TestOverload(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 2)
	reg := prometheus.NewRegistry()
	url, _, stop := start(t, func(c *Config, d *Deps) {
		c.MaxConcurrent = 2
		d.Counters = NewMetrics(reg)
		d.Requester = requester(func(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
			held <- struct{}{}
			<-hold
			return &schemas.Message{Header: schemas.Header{}, Payload: []byte("{}")}, nil
		})
	})
	answers := make(chan int, 2)
	for range 2 {
		go func() { answers <- do(t, "POST", url+"/v2/models/p/infer", "{}").StatusCode }()
		<-held
	}
	if a := do(t, "POST", url+"/v2/models/p/infer", "{}"); a.StatusCode != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("third: %d %s", a.StatusCode, a.body)
	}
	if a := do(t, "GET", url+"/v2/health/live", ""); a.StatusCode != 200 {
		t.Errorf("a probe of a busy server: %d", a.StatusCode)
	}
	// The server is told to end: what is in flight is answered, then Serve returns.
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for refused := false; !refused; {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if refused = err != nil; !refused {
			c.Close()
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("Serve returned with requests in flight: %v", err)
	default:
	}
	close(hold)
	for range 2 {
		if got := <-answers; got != 200 {
			t.Errorf("a request in flight at the end got %d", got)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	counts := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "leat_http_requests_total" && m.Counter.GetValue() > 0 {
				counts[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = m.Counter.GetValue()
			}
		}
	}
	want := map[string]float64{"POST /v2/models/{model}/infer 2xx": 2, "POST /v2/models/{model}/infer 4xx": 1, "GET /v2/health/live 2xx": 1}
	if !maps.Equal(counts, want) {
		t.Errorf("counted %v, want %v", counts, want)
	}
}
