package floors

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/leatstream/leat/integration/bench/load"
)

// HTTPEcho is a net/http server in a process of its own that reads a whole body and sends it back.
type HTTPEcho struct {
	child  *child
	client *load.HTTPClient
}

// StartHTTPEcho starts the process.
func StartHTTPEcho(ctx context.Context) (*HTTPEcho, error) {
	c, err := startChild(ctx, childHTTP, ".")
	if err != nil {
		return nil, err
	}
	return &HTTPEcho{child: c, client: load.NewHTTPClient(c.address)}, nil
}

// Run posts the bodies in a closed loop.
func (e *HTTPEcho) Run(ctx context.Context, bodies [][]byte, l load.Loop) (*load.Result, error) {
	return e.client.Run(ctx, load.InferPath, bodies, l)
}

// Close ends the process.
func (e *HTTPEcho) Close() { e.child.close() }

// httpServer is the child's side.
type httpServer struct {
	s    *http.Server
	addr string
	done chan struct{}
}

func startHTTP() (*httpServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("floors: %w", err)
	}
	h := &httpServer{s: &http.Server{Handler: http.HandlerFunc(echo)}, addr: l.Addr().String(), done: make(chan struct{})}
	go func() { defer close(h.done); _ = h.s.Serve(l) }()
	return h, nil
}

func echo(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength < 0 || r.ContentLength > 1<<20 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, b); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h := w.Header()
	h["Content-Type"] = contentType // shared: no allocation, no sniffing
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	_, _ = w.Write(b)
}

var contentType = []string{"application/json"}

// Close stops the server.
func (h *httpServer) Close() {
	_ = h.s.Close()
	<-h.done
}
