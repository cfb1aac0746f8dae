package child

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Build builds cmd/leat into the folder and returns the binary's path. root is the repository's; tags are build tags,
// "" for none.
func Build(ctx context.Context, root, dir, tags string) (string, error) {
	binary := filepath.Join(dir, "leat")
	args := []string{"build", "-o", binary}
	if tags != "" {
		args = append(args, "-tags", tags)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/leat")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("child: go build: %w\n%s", err, out)
	}
	return binary, nil
}

// Options say what to start.
type Options struct {
	Binary string
	Data   string   // data folder, kept between lives
	Config string   // file for --config; "": none
	Env    []string // beside the test's own environment
	Args   []string // further flags of leat serve
}

// Server is one life of leat serve. Its ports are picked by the system, new ones for each life. Safe for concurrent use.
type Server struct {
	HTTP, NATS string // set by Ready
	cmd        *exec.Cmd
	line       chan []byte // the line that says that it is ready
	exited     chan struct{}
	log        tail
	err        error // of Wait; read after exited is closed
}

// Start starts the process and returns at once.
func Start(o Options) (*Server, error) {
	args := []string{"serve", "--data", o.Data, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--json"}
	if o.Config != "" {
		args = append(args, "--config", o.Config)
	}
	args = append(args, o.Args...)
	s := &Server{cmd: exec.Command(o.Binary, args...), line: make(chan []byte, 1), exited: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), o.Env...)
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = attributes()
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	go func() {
		r := bufio.NewReader(out)
		if b, err := r.ReadBytes('\n'); err == nil {
			s.line <- b
		}
		_, _ = io.Copy(io.Discard, r)
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	return s, nil
}

// Ready waits until the server says that it serves, and learns its addresses.
func (s *Server) Ready(ctx context.Context) error {
	select {
	case b := <-s.line:
		var at struct{ HTTP, NATS string }
		if err := json.Unmarshal(b, &at); err != nil || at.HTTP == "" || at.NATS == "" {
			return fmt.Errorf("child: leat serve said %q", b)
		}
		s.HTTP, s.NATS = at.HTTP, at.NATS
		return nil
	case <-s.exited:
		return fmt.Errorf("child: leat serve ended before it was ready: %v\n%s", s.err, s.Log())
	case <-ctx.Done():
		return fmt.Errorf("child: leat serve is not ready: %w\n%s", ctx.Err(), s.Log())
	}
}

// PID is the process's.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Signal sends a signal; to a process that has ended it does nothing.
func (s *Server) Signal(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("child: %w", err)
	}
	return nil
}

// Exited is closed when the process has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Wait waits for the end and returns the exit status; -1: ended by a signal.
func (s *Server) Wait(ctx context.Context) (int, error) {
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("child: leat serve does not end: %w\n%s", ctx.Err(), s.Log())
	}
}

// Kill ends the process at once and waits until it is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // fails only if it has ended
	<-s.exited
}

// Log returns the last lines that the process wrote to its log.
func (s *Server) Log() string { return s.log.String() }

// Do asks an operation. in goes as JSON, or as a tar if it is an io.Reader; the answer is decoded into out, or handed to
// it if it is a func(io.Reader) error. Any status but 200 is an error.
func (s *Server) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	contentType := ""
	switch v := in.(type) {
	case nil:
	case io.Reader:
		body, contentType = v, "application/x-tar"
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("child: %w", err)
		}
		body, contentType = bytes.NewReader(b), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, s.HTTP+path, body)
	if err != nil {
		return fmt.Errorf("child: %w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("child: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("child: %s %s: %d %s", method, path, resp.StatusCode, strings.TrimSpace(string(b)))
	}
	if f, ok := out.(func(io.Reader) error); ok {
		return f(resp.Body)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("child: %s %s: %w", method, path, err)
	}
	return nil
}

// Push pushes a model's folder.
func (s *Server) Push(ctx context.Context, dir string) error {
	b, err := pack(dir)
	if err != nil {
		return err
	}
	return s.Do(ctx, http.MethodPost, "/v1/models", bytes.NewReader(b), nil)
}

// Apply applies a pipeline's specification.
func (s *Server) Apply(ctx context.Context, spec string) error {
	return s.Do(ctx, http.MethodPost, "/v1/pipelines", map[string]any{"spec": spec}, nil)
}

// keepLog is how much of a log is kept.
const keepLog = 32 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 2*keepLog {
		t.b = append(t.b[:0], t.b[len(t.b)-keepLog:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
