package gateway

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/schemas"
)

const inferBody = `{"inputs":[{"name":"features","shape":[1,13],"datatype":"FP32","data":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3]}]}`

var fixedAnswer = &schemas.Message{Header: schemas.Header{"Content-Type": {"application/json"}, "Leat-Request-Id": {"01"}},
	Payload: []byte(`{"model_name":"p","model_version":"1","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[0.5]}]}`)}

func benchServer(b *testing.B) *Server {
	s, err := New(Default(), Deps{Models: models{}, Counters: NewMetrics(prometheus.NewRegistry()), Requester: requester(
		func(ctx context.Context, m *schemas.Message) (*schemas.Message, error) { return fixedAnswer, nil })})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

type sink struct {
	h http.Header
	n int
}

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(p []byte) (int, error) { s.n += len(p); return len(p), nil }
func (s *sink) WriteHeader(int)             {}

// BenchmarkHandler is what the gateway costs above net/http: the handler alone, with a requester that answers at once.
func BenchmarkHandler(b *testing.B) {
	s := benchServer(b)
	r := httptest.NewRequest("POST", "http://127.0.0.1:8080/v2/models/p/infer", nil)
	r.Header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"x"}, "Content-Length": {"130"}}
	body := strings.NewReader(inferBody)
	w := &sink{h: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(inferBody)
		r.Body = io.NopCloser(body)
		r.ContentLength = int64(len(inferBody))
		clear(w.h)
		s.ServeHTTP(w, r)
	}
	if w.n == 0 {
		b.Fatal("no answer")
	}
}

// BenchmarkLoopback and BenchmarkLoopbackEcho compare 64 callers of the gateway with 64 of a bare net/http echo.
func BenchmarkLoopback(b *testing.B) { loopback64(b, benchServer(b)) }
func BenchmarkLoopbackEcho(b *testing.B) {
	loopback64(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf, _ := io.ReadAll(r.Body)
		_, _ = w.Write(buf)
	}))
}

func loopback64(b *testing.B, h http.Handler) {
	srv := httptest.NewServer(h)
	defer srv.Close()
	request := []byte("POST /v2/models/p/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(inferBody)) + "\r\n\r\n" + inferBody)
	b.SetParallelism(32) // x GOMAXPROCS 2 = 64
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 4096)
		for pb.Next() {
			if _, err := c.Write(request); err != nil {
				b.Error(err)
				return
			}
			if n, err := c.Read(buf); err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200")) {
				b.Errorf("%v %q", err, buf[:n])
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
