package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }

// responder starts a server and answers "ask" with what answer says.
func responder(t *testing.T, answer func(m *nats.Msg) *nats.Msg) *NATSClient {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("server not ready")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if answer != nil {
		if _, err := nc.Subscribe("ask", func(m *nats.Msg) { _ = m.RespondMsg(answer(m)) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	c, err := DialNATS(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

type natsLoop func(c *NATSClient, ctx context.Context, subject string, payloads [][]byte, l Loop) (*Result, error)

var natsLoops = map[string]natsLoop{"callers": (*NATSClient).Callers, "requests": (*NATSClient).Requests, "pipelined": (*NATSClient).Pipelined}

// TestNATSCounts: each loop asks exactly as often as it may, with every payload, and never more at once than it may.
func TestNATSCounts(t *testing.T) {
	for name, run := range natsLoops {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			var seen [3]atomic.Int64
			c := responder(t, func(m *nats.Msg) *nats.Msg {
				asked.Add(1)
				seen[m.Data[0]-'a'].Add(1)
				return &nats.Msg{Data: m.Data}
			})
			const want = 5000
			r, err := run(c, t.Context(), "ask", [][]byte{[]byte("a"), []byte("b"), []byte("c")},
				Loop{InFlight: 8, Duration: time.Minute, Requests: want})
			if err != nil {
				t.Fatal(err)
			}
			if r.Err() != nil || r.Answers != want || asked.Load() != want || r.Latency.TotalCount() != want {
				t.Fatalf("%d answers, %d latencies, %d asked, want %d: %v", r.Answers, r.Latency.TotalCount(), asked.Load(), want, r.Err())
			}
			for i := range seen {
				if n := seen[i].Load(); n < want/4 {
					t.Errorf("payload %d went out %d times of %d", i, n, want)
				}
			}
			if r.Elapsed <= 0 || r.Elapsed > 30*time.Second || r.Rate() <= 0 || r.Quantile(50) > r.Quantile(99) {
				t.Errorf("elapsed %v, rate %v, p50 %v, p99 %v", r.Elapsed, r.Rate(), r.Quantile(50), r.Quantile(99))
			}
		})
	}
}

// TestNATSFailures: an answer that says a failure, one that fails the check and a subject without a responder all fail
// the result.
func TestNATSFailures(t *testing.T) {
	for name, run := range natsLoops {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			c := responder(t, func(m *nats.Msg) *nats.Msg {
				if n.Add(1) == 50 {
					return &nats.Msg{Header: nats.Header{"Leat-Error-Kind": {"Overloaded"}}, Data: []byte("busy")}
				}
				return &nats.Msg{Data: []byte("fine")}
			})
			l := Loop{InFlight: 4, Duration: time.Minute, Requests: 100}
			r, err := run(c, t.Context(), "ask", [][]byte{nil}, l)
			if err != nil || r.Failed != 1 || r.Answers != 99 || r.Err() == nil || !strings.Contains(r.Err().Error(), "Overloaded: busy") {
				t.Fatalf("%+v, %v", r, err)
			}
			wrong := errors.New("wrong")
			l.Answer = func(b []byte) error {
				if string(b) != "fine" {
					t.Errorf("checked %q", b)
				}
				return wrong
			}
			if r, err = run(c, t.Context(), "ask", [][]byte{nil}, l); err != nil || r.Failed != 100 || !errors.Is(r.Err(), wrong) {
				t.Fatalf("%+v, %v", r, err)
			}
			l.Answer = nil
			r, err = run(c, t.Context(), "nobody", [][]byte{nil}, l)
			if err != nil || r.Failed == 0 || r.Answers != 0 || !errors.Is(r.Err(), nats.ErrNoResponders) {
				t.Fatalf("%+v, %v", r, err)
			}
		})
	}
}

// TestNATSWarmup: what is answered during the warm-up is not measured, and the rate is that of the measured part.
func TestNATSWarmup(t *testing.T) {
	for name, run := range natsLoops {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			c := responder(t, func(m *nats.Msg) *nats.Msg { asked.Add(1); return &nats.Msg{} })
			r, err := run(c, t.Context(), "ask", [][]byte{nil}, Loop{InFlight: 2, Warmup: 200 * time.Millisecond, Duration: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if r.Answers == 0 || r.Answers >= asked.Load() || r.Elapsed > 200*time.Millisecond {
				t.Fatalf("%d of %d measured over %v", r.Answers, asked.Load(), r.Elapsed)
			}
		})
	}
}

func TestNATSOneLoopAtATime(t *testing.T) {
	hold, free := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	c := responder(t, func(*nats.Msg) *nats.Msg {
		if once.CompareAndSwap(false, true) {
			close(hold)
			<-free
		}
		return &nats.Msg{}
	})
	l := Loop{InFlight: 1, Duration: time.Minute, Requests: 1}
	first := make(chan error)
	go func() { _, err := c.Callers(context.Background(), "ask", [][]byte{nil}, l); first <- err }()
	<-hold
	if _, err := c.Callers(t.Context(), "ask", [][]byte{nil}, l); err == nil {
		t.Error("a second loop began")
	}
	close(free)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestCancelled(t *testing.T) {
	silent := make(chan struct{})
	c := responder(t, func(*nats.Msg) *nats.Msg { <-silent; return &nats.Msg{} })
	defer close(silent)
	for name, run := range natsLoops {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := run(c, ctx, "ask", [][]byte{nil}, Loop{InFlight: 2, Duration: time.Minute}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHTTP(t *testing.T) {
	var asked, inFlight, most atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != InferPath || string(b) != "body" || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		switch asked.Add(1) % 3 {
		case 0: // chunked
			_, _ = w.Write([]byte("an"))
			w.(http.Flusher).Flush()
			_, _ = w.Write([]byte("swer"))
		case 1:
			_, _ = w.Write([]byte("answer"))
		case 2:
			w.Header()["Content-Length"] = []string{"6"}
			_, _ = w.Write([]byte("answer"))
		}
	}))
	defer s.Close()
	h := NewHTTPClient(strings.TrimPrefix(s.URL, "http://"))
	l := Loop{InFlight: 4, Duration: time.Minute, Requests: 1001, Answer: func(b []byte) error {
		if string(b) != "answer" {
			return errors.New("body " + string(b))
		}
		return nil
	}}
	r, err := h.Run(t.Context(), InferPath, [][]byte{[]byte("body")}, l)
	if err != nil {
		t.Fatal(err)
	}
	if r.Err() != nil || r.Answers != 1001 || asked.Load() != 1001 || r.Latency.TotalCount() != 1001 || most.Load() > 4 {
		t.Fatalf("%d answers, %d asked, %d at once: %v", r.Answers, asked.Load(), most.Load(), r.Err())
	}
	r, err = h.Run(t.Context(), InferPath, [][]byte{[]byte("else")}, l)
	if err != nil || r.Failed != 1001 || r.Err() == nil || !strings.Contains(r.Err().Error(), "status 418") {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestHTTPCancelled(t *testing.T) {
	asked, free := make(chan struct{}, 4), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-free }))
	defer s.Close()
	defer close(free)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, err := NewHTTPClient(strings.TrimPrefix(s.URL, "http://")).Run(ctx, "/", [][]byte{nil}, Loop{InFlight: 2, Duration: time.Minute})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestValidate(t *testing.T) {
	for _, l := range []Loop{{}, {InFlight: 1}, {InFlight: -1, Duration: 1}, {InFlight: 1 << 20, Duration: 1}, {InFlight: 1, Duration: 1, Warmup: -1},
		{InFlight: 1, Duration: 1, Requests: -1}} {
		if l.Validate() == nil {
			t.Errorf("%+v is taken", l)
		}
	}
}

func TestRows(t *testing.T) {
	all, err := ReadRows(t.Context(), "../../../examples/flights/sample.parquet")
	if err != nil {
		t.Fatal(err)
	}
	nulls := 0
	for _, v := range all.Values {
		if math.IsNaN(float64(v)) {
			nulls++
		}
	}
	if all.N < 50_000 || len(all.Keys) != all.N || nulls == 0 {
		t.Fatalf("%d rows, %d keys, %d nulls", all.N, len(all.Keys), nulls)
	}
	r := all.Complete(100)
	if r.N != 100 || len(r.Values) != 100*len(Features) || len(r.Keys) != 100 {
		t.Fatalf("%d rows, %d values", r.N, len(r.Values))
	}
	one := &Rows{N: 1, Values: []float32{-8, 345, 190, 7, 1089, 73.04, 93.52, 8.06, 0, 1010.3, 10, 24, 178}}
	if got, want := string(one.OIP()[0]), `{"inputs":[{"name":"features","shape":[1,13],"datatype":"FP32","data":[-8,345,190,7,1089,73.04,93.52,8.06,0,1010.3,10,24,178]}]}`; got != want {
		t.Errorf("OIP %s", got)
	}
	if got := string(one.Native()[0]); !strings.HasPrefix(got, `{"rows":[{"dep_delay":-8,"sched_dep_minute":345,`) || !strings.HasSuffix(got, `"seats":178}]}`) {
		t.Errorf("native %s", got)
	}
}

// FuzzAnswer: no bytes of a server crash the client, make it read without end, or give it more than the bound.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer",
		"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nan\r\n4\r\nswer\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &httpConn{r: bufio.NewReader(bytes.NewReader(b))}
		for range len(b) + 1 {
			_, body, err := c.answer()
			if err != nil {
				return
			}
			if len(body) > len(b) {
				t.Fatalf("a body of %d bytes out of %d", len(body), len(b))
			}
		}
		t.Fatal("more answers than bytes")
	})
}
