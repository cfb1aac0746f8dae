package badinput

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestBadInput is the table, on one server.
func TestBadInput(t *testing.T) {
	tg := start(t)
	for _, over := range []string{"http", "nats"} {
		tg.fine(t, over)
	}
	cases := append(scoringCases(tg), httpCases(tg)...)
	cases = append(cases, operationsOverNATS()...)
	for i := range cases {
		c := &cases[i]
		t.Run(c.name, func(t *testing.T) { tg.check(t, c) })
	}
	t.Run("sockets", func(t *testing.T) { sockets(t, tg) })
	t.Run("nats/unknown pipeline", func(t *testing.T) { unknownPipeline(t, tg) })
	t.Run("nats/beyond the limit", func(t *testing.T) { beyondLimit(t, tg) })
	if len(cases) < 45 {
		t.Errorf("%d cases", len(cases))
	}
	t.Logf("%d cases", len(cases))
	aftermath(t, tg)
}

func (tg *target) check(t *testing.T, c *bad) {
	if c.kind == "" {
		c.kind = "invalid"
	}
	over := "http"
	if c.path == "" {
		over = "nats"
	} else if c.status == 0 {
		c.status = statusOf[c.kind]
	}
	begun := time.Now()
	a, err := tg.send(t.Context(), &c.request)
	took := time.Since(begun)
	defer tg.fine(t, over)
	if err != nil {
		t.Fatalf("no answer: %v\n%s", err, tg.Log())
	}
	if a.kind != c.kind || a.status != c.status {
		t.Errorf("kind %q, status %d; want %q, %d: %.300q", a.kind, a.status, c.kind, c.status, a.body)
	}
	if !strings.Contains(a.field, c.field) || c.field != "" && !strings.Contains(a.message, c.field) {
		t.Errorf("field %q in %.300q; want %q", a.field, a.message, c.field)
	}
	if !strings.Contains(a.message, c.says) {
		t.Errorf("%.300q does not say %q", a.message, c.says)
	}
	clear(t, a)
	if took > 5*time.Second {
		t.Errorf("refused after %s", took)
	}
	if testing.Verbose() {
		t.Logf("%s %.200s", a.kind, a.message)
	}
}

// operationsOverNATS are what the API takes over NATS.
func operationsOverNATS() []bad {
	var cs []bad
	for _, c := range []struct{ name, operation, body, kind, field string }{
		{"unknown operation", "no.such", "{}", "not_found", ""},
		{"operation of an administrator", "pipelines.apply", `{"spec":""}`, "not_found", ""},
		{"operation's body cut off", "lineage.list", `{"limit":`, "invalid", ""},
		{"operation's body that is no object", "lineage.list", `[1]`, "invalid", ""},
		{"operation's unknown field", "lineage.list", `{"color":"red"}`, "invalid", "color"},
		{"operation's bad cursor", "lineage.list", `{"cursor":"x"}`, "invalid", "cursor"},
		{"operation with 900 KB of nonsense", "lineage.list", string(noise(900_000)), "invalid", ""},
	} {
		cs = append(cs, bad{name: "nats/" + c.name, kind: c.kind, field: c.field, request: request{subject: "leat.api." + c.operation, body: []byte(c.body)}})
	}
	for _, subject := range []string{"leat.score." + delay, "leat.score.typed"} {
		cs = append(cs, bad{name: "nats/900 KB of nonsense to " + subject, request: request{subject: subject, body: noise(900_000)}})
	}
	return cs
}

// sockets send what no HTTP client would.
func sockets(t *testing.T, tg *target) {
	g := string(tg.good[delay])
	post := "POST /v1/pipelines/" + delay + "/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
	for _, c := range []struct {
		name, send string
		status     int
		kind       string // "": the answer is not ours but that of net/http
	}{
		{"Content-Length too long, then the end", post + "Content-Length: 100000\r\n\r\n" + g, 400, "invalid"},
		{"Content-Length too short", post + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(g)/2) + g, 400, "invalid"},
		{"Content-Length of 2^62", post + "Content-Length: 4611686018427387904\r\n\r\n" + g, 413, "invalid"},
		{"Content-Length below 0", post + "Content-Length: -1\r\n\r\n" + g, 400, ""},
		{"Content-Length of nonsense", post + "Content-Length: x\r\n\r\n" + g, 400, ""},
		{"Content-Length twice", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + g, 400, ""},
		{"chunks of nonsense", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + g, 400, "invalid"},
		{"chunk of 2^63, then the end", post + "Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n" + g, 400, "invalid"},
		{"chunks that end early", post + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"row", 400, "invalid"},
		{"unknown transfer encoding", post + "Transfer-Encoding: gzip\r\n\r\n" + g, 501, ""},
		{"header of 1 MB", post + "X-Long: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431, ""},
		{"no HTTP", strings.Repeat("nonsense ", 100) + "\r\n\r\n", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer tg.fine(t, "http")
			nc, err := net.DialTimeout("tcp", strings.TrimPrefix(tg.HTTP, "http://"), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(nc, c.send); err != nil && c.status != 431 { // it may stop reading there
				t.Fatal(err)
			}
			if strings.Contains(c.name, "end") { // a caller that has gone would be answered too late
				_ = nc.(*net.TCPConn).CloseWrite()
			}
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Fatalf("status %d, want %d: %.300q", resp.StatusCode, c.status, b)
			}
			if c.kind != "" {
				a := parseHTTP(resp, b)
				if a.kind != c.kind {
					t.Errorf("kind %q, want %q", a.kind, c.kind)
				}
				clear(t, a)
			}
		})
	}
}

// unknownPipeline: NATS itself answers, at once.
func unknownPipeline(t *testing.T, tg *target) {
	begun := time.Now()
	_, err := tg.nc.Request("leat.score.nobody", tg.good[delay], 5*time.Second)
	if !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("%v, want no responders", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("answered after %s", took)
	}
	tg.fine(t, "nats")
}

// beyondLimit writes past the payload limit that the server told, which a client library would not do. The server ends
// that connection; others do not notice.
func beyondLimit(t *testing.T, tg *target) {
	defer tg.fine(t, "nats")
	nc, err := net.DialTimeout("tcp", strings.TrimPrefix(tg.NATS, "nats://"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { // the server stops reading when it has seen the size
		_, _ = fmt.Fprintf(nc, "CONNECT {\"verbose\":false}\r\nPUB leat.score.%s %d\r\n", delay, 64<<20)
		_, _ = nc.Write(make([]byte, 64<<20))
	}()
	b, _ := io.ReadAll(nc)
	if !strings.Contains(string(b), "Maximum Payload Violation") {
		t.Errorf("the server said %.300q", b)
	}
}

// maxResident bounds the server's memory after the table: it took bodies of up to 64 MiB, one at a time.
const maxResident = 512 << 20

// aftermath: the same process, bounded in memory, with what it refused counted.
func aftermath(t *testing.T, tg *target) {
	select {
	case <-tg.Exited():
		t.Fatalf("the server has ended\n%s", tg.Log())
	default:
	}
	if n, ok := resident(tg.PID()); ok {
		t.Logf("resident: %d MiB", n>>20)
		if n > maxResident {
			t.Errorf("resident: %d MiB, want at most %d", n>>20, maxResident>>20)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var metrics string
	if err := tg.Do(ctx, http.MethodGet, "/metrics", nil, func(r io.Reader) error {
		b, err := io.ReadAll(r)
		metrics = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, pipeline := range []string{delay, "typed"} {
		if n := sum(metrics, "leat_errors_total{", `pipeline="`+pipeline+`"`, `kind="invalid"`); n < 30 {
			t.Errorf("%s: %v refused requests are counted", pipeline, n)
		}
	}
	// What came over a pipeline's door is kept in the bounded stream, or counted where there was too much of it.
	kept := sum(metrics, "leat_lineage_refusals_total{", `kind="invalid"`)
	if kept < 60 {
		t.Errorf("%v refusals are told to the lineage", kept)
	}
	var status struct {
		Logs []struct {
			Log                       string
			Messages, Bytes, MaxBytes uint64
		}
	}
	if err := tg.Do(ctx, http.MethodGet, "/v1/lineage/status", nil, &status); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v refusals counted, %v beyond the rate; %+v", kept, sum(metrics, "leat_lineage_refusals_suppressed_total{"), status.Logs)
	for _, l := range status.Logs {
		if l.Log == "LEAT_REJECTED" && l.Messages == 0 {
			t.Error("the stream of refusals is empty")
		}
	}
	for _, l := range strings.Split(tg.Log(), "\n") {
		if strings.Contains(l, "panic") || strings.Contains(l, "level=ERROR") && !strings.Contains(l, "part=nats-server") {
			t.Errorf("in the server's log: %.500s", l)
		}
	}
}

// sum adds the samples of Prometheus's text whose line holds all parts.
func sum(metrics string, parts ...string) (total float64) {
line:
	for l := range strings.Lines(metrics) {
		for _, p := range parts {
			if !strings.Contains(l, p) {
				continue line
			}
		}
		if i := strings.LastIndexByte(l, ' '); i > 0 {
			v, _ := strconv.ParseFloat(strings.TrimSpace(l[i:]), 64)
			total += v
		}
	}
	return total
}

// resident is the process's resident size, where the system tells.
func resident(pid int) (uint64, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b))
	pages, err := strconv.ParseUint(f[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err == nil
}
