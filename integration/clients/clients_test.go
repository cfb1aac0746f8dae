package clients

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	root     = "../.."
	examples = root + "/examples/clients"
	flight   = root + "/examples/flights/flight.json"
)

// TestShown: docs/wire.md shows the clients as they are.
func TestShown(t *testing.T) {
	doc := read(t, root+"/docs/wire.md")
	for name, fence := range map[string]string{"python/score.py": "python", "go/main.go": "go", "python/infer.py": "python", "python/score_kafka.py": "python", "python/put_feature.py": "python"} {
		if want := "```" + fence + "\n" + read(t, examples+"/"+name) + "```\n"; !strings.Contains(doc, want) {
			t.Errorf("docs/wire.md does not show examples/clients/%s as it is", name)
		}
	}
}

// TestClients: each client scores a flight and names the request under which its record is found; a bad row and an unknown
// pipeline are told in one line.
func TestClients(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // the first time, pip fetches a package
	defer cancel()
	python, ask := environment(t, ctx, "requirements.txt"), build(t, ctx, "./examples/clients/go", "ask")
	s := start(t, ctx)
	s.push(t, ctx, root+"/examples/flights/flight-delay")
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`{"rows":[{"carrier":"UA"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, via  string
		command    []string
		label      string
		wrong, own string // what it says of a bad row, and of an unknown pipeline
	}{
		{"nats-py", "nats", []string{python, examples + "/python/score.py", s.NATS}, "'label': 1,", "invalid: rows[0].origin: missing", "no responders"},
		{"nats.go", "nats", []string{ask, s.NATS}, `"label":1,`, `"message":"rows[0].origin: missing"`, "no responders"},
		{"urllib", "http", []string{python, examples + "/python/infer.py", s.HTTP}, "label [1]", "400 origin: missing", "404 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := run(ctx, append(c.command, "flight-delay", flight)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			m := regexp.MustCompile(`flight-delay@1 ([0-9A-Z]{26})\s`).FindStringSubmatch(out)
			if m == nil || !strings.Contains(out, c.label) || !strings.Contains(out, "0.61862177") {
				t.Fatalf("unexpected answer:\n%s", out)
			}
			if via := s.recorded(t, ctx, m[1]); via != c.via {
				t.Errorf("request %s came by %q, want %q", m[1], via, c.via)
			}
			if out, _ := run(ctx, append(c.command, "flight-delay", bad)...); !strings.Contains(out, c.wrong) {
				t.Errorf("a bad row: want %q in\n%s", c.wrong, out)
			}
			if out, err := run(ctx, append(c.command, "no-such-pipeline", flight)...); err == nil || !strings.Contains(out, c.own) {
				t.Errorf("an unknown pipeline: %v, want %q in\n%s", err, c.own, out)
			}
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func run(ctx context.Context, command ...string) (string, error) {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	return string(out), err
}

// environment returns a Python with what a file of requirements asks for, from the user's cache folder; it is made when
// it is not there, or was made for other requirements.
func environment(t *testing.T, ctx context.Context, file string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "leat", "venv-clients"+strings.TrimSuffix(strings.TrimPrefix(file, "requirements"), ".txt"))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(dir + ".lock") // two test runs at the same time
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	requirements := examples + "/python/" + file
	python, stamp := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "requirements.txt")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == read(t, requirements) {
		return python
	}
	for _, command := range [][]string{
		{"python3", "-m", "venv", "--clear", dir},
		{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements},
	} {
		if out, err := run(ctx, command...); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	if err := os.WriteFile(stamp, []byte(read(t, requirements)), 0o600); err != nil {
		t.Fatal(err)
	}
	return python
}

// build builds a command of this module.
func build(t *testing.T, ctx context.Context, pkg, name string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return binary
}

// server is a running leat serve.
type server struct{ HTTP, NATS string }

// start runs it with more flags than those that keep it apart from others, until the end of the test.
func start(t *testing.T, ctx context.Context, flags ...string) *server {
	t.Helper()
	cmd := exec.Command(build(t, ctx, "./cmd/leat", "leat"), append([]string{"serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--json"}, flags...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }) // fails only if it has ended
		defer stuck.Stop()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("leat serve: %v\n%s", err, &log)
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	s := &server{}
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil {
		t.Fatalf("leat serve said %q: %v", line, err)
	}
	return s
}

// push stores a model and waits until its pipeline answers.
func (s *server) push(t *testing.T, ctx context.Context, dir string) {
	t.Helper()
	var body bytes.Buffer
	w := tar.NewWriter(&body)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.call(t, ctx, http.MethodPost, "/v1/models", "application/x-tar", &body, nil)
	s.ready(t, ctx, filepath.Base(dir))
}

// apply makes a pipeline of its YAML and waits until it answers.
func (s *server) apply(t *testing.T, ctx context.Context, name, spec string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	s.call(t, ctx, http.MethodPost, "/v1/pipelines", "application/json", bytes.NewReader(body), nil)
	s.ready(t, ctx, name)
}

func (s *server) ready(t *testing.T, ctx context.Context, pipeline string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.Get(s.HTTP + "/v2/models/" + pipeline + "/ready")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode == http.StatusOK {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the pipeline is not ready: %s", r.Status)
		}
	}
}

// recorded returns how a request came in, by its one record.
func (s *server) recorded(t *testing.T, ctx context.Context, id string) string {
	t.Helper()
	var got struct {
		Records []struct{ Via, Status string }
	}
	s.call(t, ctx, http.MethodGet, "/v1/lineage/"+id, "", nil, &got)
	if len(got.Records) != 1 || got.Records[0].Status != "ok" {
		t.Fatalf("records of request %s: %+v", id, got.Records)
	}
	return got.Records[0].Via
}

func (s *server) call(t *testing.T, ctx context.Context, method, path, contentType string, body io.Reader, out any) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, s.HTTP+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", r.Status)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, b)
	}
}
