package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// example is the folder of the real models and data.
var example = filepath.Join("..", "..", "examples", "flights")

// shared is the one server of this package's tests: started once, with both models pushed.
var shared addresses

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "leat-cmd-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Nothing of the user's own may reach the tests, nor the other way round; the library of ONNX Runtime lies in the
	// cache folder, which stays.
	for k, v := range map[string]string{"XDG_CONFIG_HOME": dir, "XDG_DATA_HOME": dir, "LEAT_SERVER": "", "LEAT_TOKEN": "", "NO_COLOR": "1"} {
		os.Setenv(k, v)
	}
	at, stop, err := start(filepath.Join(dir, "data"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "leat serve:", err)
		return 1
	}
	shared = at
	code := 1
	if out := leat("models", "push", filepath.Join(example, "flight-delay")); out.code != 0 {
		fmt.Fprintln(os.Stderr, out.err)
	} else if out := leat("models", "push", filepath.Join(example, "flight-boost")); out.code != 0 {
		fmt.Fprintln(os.Stderr, out.err)
	} else {
		code = m.Run()
	}
	if served := stop(); served != 0 {
		fmt.Fprintln(os.Stderr, "leat serve ended with", served)
		code = 1
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	// The library leaves one goroutine behind when an object's upload ends before that goroutine has begun.
	if err := goleak.Find(goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect")); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// start serves in this process, from the command line on, and returns when the addresses are printed.
func start(data string, flags ...string) (at addresses, stop func() int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var log bytes.Buffer
	code := make(chan int, 1)
	go func() {
		args := append([]string{"serve", "--data", data, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--json", "--sync", "interval", "--log", "warn"}, flags...)
		code <- run(ctx, args, strings.NewReader(""), w, &log)
		w.Close()
	}()
	stop = func() int {
		cancel()
		return <-code
	}
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &at)
	}
	if err != nil {
		stop()
		return at, nil, fmt.Errorf("%w: %s", err, log.String())
	}
	return at, stop, nil
}

// result is what a command did.
type result struct {
	code     int
	out, err string
}

// leat runs a command line against the shared server.
func leat(args ...string) result { return leatIn(context.Background(), "", args...) }

func leatIn(ctx context.Context, stdin string, args ...string) result {
	if line := strings.Join(args, " "); !strings.Contains(line, "--server") && !strings.Contains(line, "--help") {
		args = append(args, "--server", shared.HTTP)
	}
	var out, errw bytes.Buffer
	code := run(ctx, args, strings.NewReader(stdin), &out, &errw)
	return result{code, out.String(), errw.String()}
}

// ok runs a command that shall succeed and returns what it printed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := leat(args...)
	if r.code != 0 {
		t.Fatalf("leat %s: exit %d: %s%s", strings.Join(args, " "), r.code, r.err, r.out)
	}
	return r.out
}

// okJSON adds --json and decodes.
func okJSON[T any](t *testing.T, args ...string) T {
	t.Helper()
	var v T
	out := ok(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("leat %s --json: %v: %.200s", strings.Join(args, " "), err, out)
	}
	return v
}

// has fails unless every part stands in s.
func has(t *testing.T, s string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(s, p) {
			t.Errorf("%q is missing in:\n%s", p, s)
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
