package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// HTTPClient posts bodies to one path over keep-alive HTTP/1.1 connections, one a slot. Requests are written from
// prepared bytes; of an answer it reads the status, the length and the body. It knows no redirects, no TLS and no
// trailers. Runs must not overlap.
type HTTPClient struct {
	addr  string
	conns []*httpConn
}

type httpConn struct {
	c    net.Conn
	r    *bufio.Reader
	body []byte // reused
}

// NewHTTPClient returns a client of the server at addr (host:port). It connects when it runs.
func NewHTTPClient(addr string) *HTTPClient { return &HTTPClient{addr: addr} }

// close closes the connections.
func (h *HTTPClient) close() {
	for _, c := range h.conns {
		_ = c.c.Close()
	}
	h.conns = nil
}

// InferPath is where the Open Inference Protocol takes rows for the boosted model.
const InferPath = "/v2/models/flight-boost/infer"

// prepare returns the bodies as POST requests, as they go over the wire.
func (h *HTTPClient) prepare(path string, bodies [][]byte) [][]byte {
	out := make([][]byte, len(bodies))
	for i, body := range bodies {
		out[i] = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			path, h.addr, len(body), body)
	}
	return out
}

// connect opens connections up to n.
func (h *HTTPClient) connect(ctx context.Context, n int) error {
	var d net.Dialer
	for len(h.conns) < n {
		c, err := d.DialContext(ctx, "tcp", h.addr)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		h.conns = append(h.conns, &httpConn{c: c, r: bufio.NewReaderSize(c, 16<<10)})
	}
	return nil
}

// Run posts JSON bodies to path, l.InFlight at once, taking the bodies in turn, and returns when the loop is over.
func (h *HTTPClient) Run(ctx context.Context, path string, bodies [][]byte, l Loop) (*Result, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	requests := h.prepare(path, bodies)
	defer h.close() // servers drop idle connections: the next run, maybe minutes later, makes its own
	if err := h.connect(ctx, l.InFlight); err != nil {
		return nil, err
	}
	start := time.Now()
	stop := context.AfterFunc(ctx, func() { h.expire(time.Now()) })
	defer stop()
	h.expire(start.Add(l.Warmup + l.Duration + giveUp))
	tallies := make([]*tally, l.InFlight)
	errs := make([]error, l.InFlight)
	var wg sync.WaitGroup
	for i := range tallies {
		tallies[i] = newTally(start, l)
		share := l.Requests / int64(l.InFlight)
		if int64(i) < l.Requests%int64(l.InFlight) {
			share++
		}
		wg.Go(func() { errs[i] = h.conns[i].run(requests, i*len(requests)/l.InFlight, share, l, tallies[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return merge(tallies), nil
}

func (h *HTTPClient) expire(t time.Time) {
	for _, c := range h.conns {
		_ = c.c.SetDeadline(t)
	}
}

// run is one slot's loop, from the given request on.
func (c *httpConn) run(requests [][]byte, next int, share int64, l Loop, t *tally) error {
	for n := int64(0); l.Requests == 0 || n < share; n++ {
		asked := time.Now()
		if asked.After(t.end) {
			return nil
		}
		if _, err := c.c.Write(requests[next]); err != nil {
			return fmt.Errorf("load: write: %w", err)
		}
		if next++; next == len(requests) {
			next = 0
		}
		status, body, err := c.answer()
		if err != nil {
			return fmt.Errorf("load: read: %w", err)
		}
		var failure error
		switch {
		case status != 200:
			failure = fmt.Errorf("status %d: %s", status, clip(body))
		case l.Answer != nil:
			failure = l.Answer(body)
		}
		t.answered(asked, time.Now(), failure)
	}
	return nil
}

// maxBody bounds an answer: a benchmark's answer is one row.
const maxBody = 16 << 20

// answer reads one response; the body is valid until the next call.
func (c *httpConn) answer() (status int, body []byte, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("not an HTTP/1.1 status line: %q", clip(line))
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("status line %q", clip(line))
	}
	length, chunked := -1, false
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if v, ok := field(line, "content-length"); ok {
			if length, err = strconv.Atoi(string(v)); err != nil || length < 0 || length > maxBody {
				return 0, nil, fmt.Errorf("header %q", clip(line))
			}
		} else if v, ok := field(line, "transfer-encoding"); ok {
			chunked = bytes.EqualFold(v, []byte("chunked"))
		}
	}
	switch {
	case chunked:
		body, err = c.chunks()
	case length >= 0:
		c.body = grow(c.body[:0], length)
		body = c.body
		_, err = io.ReadFull(c.r, body)
	default:
		err = errors.New("an answer without a length on a connection that is kept")
	}
	return status, body, err
}

// field returns the value of a header line if it has that (lower-case) name.
func field(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

// grow returns b with n more bytes.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, len(b)+n), b...)
	}
	return b[:len(b)+n]
}

// chunks reads a chunked body without trailers.
func (c *httpConn) chunks() ([]byte, error) {
	c.body = c.body[:0]
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil || int(n)+len(c.body) > maxBody {
			return nil, fmt.Errorf("chunk length %q", clip(line))
		}
		at := len(c.body)
		c.body = grow(c.body, int(n))
		if _, err = io.ReadFull(c.r, c.body[at:]); err != nil {
			return nil, err
		}
		if line, err = c.r.ReadSlice('\n'); err != nil || len(bytes.TrimRight(line, "\r\n")) > 0 {
			return nil, errors.New("a chunk must end with a line end")
		}
		if n == 0 {
			return c.body, nil
		}
	}
}
