package registry

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

//go:embed registry-dev.sh
var script []byte

// maxStart bounds a start; the first one fetches 142 MB.
const maxStart = 5 * time.Minute

// Registry is a running schema registry.
type Registry struct {
	url   string
	cmd   *exec.Cmd
	leash io.Closer     // the script ends when this end is closed, by Stop or by the death of the process
	ended chan struct{} // its output has ended
	dir   string
	once  sync.Once
}

// Start starts a registry that ends with the test.
func Start(t testing.TB) *Registry {
	t.Helper()
	r, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

// URL is the address of its REST API: what stands before /subjects and /schemas.
func (r *Registry) URL() string { return r.url + "/apis/ccompat/v7" }

// Stop ends the registry, which forgets everything.
func (r *Registry) Stop() {
	r.once.Do(func() {
		if err := r.end(); err != nil {
			fmt.Fprintln(os.Stderr, "registry:", err)
		}
	})
}

func (r *Registry) end() error {
	r.leash.Close()
	<-r.ended // before Wait, which closes the pipe
	return errors.Join(r.cmd.Wait(), os.RemoveAll(r.dir))
}

func start() (*Registry, error) {
	dir, err := os.MkdirTemp("", "leat-registry-")
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	path := filepath.Join(dir, "registry-dev.sh")
	r := &Registry{cmd: exec.Command("bash", path, "run"), dir: dir, ended: make(chan struct{})}
	out, err := r.run(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registry: %w", err), os.RemoveAll(dir))
	}
	late := time.AfterFunc(maxStart, func() { r.leash.Close() })
	defer late.Stop()
	up := make(chan string, 1)
	var log []string // the last lines before it was up, or before it ended
	go func() {
		defer close(r.ended)
		defer close(up)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				up <- m[1]
				break
			}
			if log = append(log, lines.Text()); len(log) > 20 {
				log = log[1:]
			}
		}
		_, _ = io.Copy(io.Discard, out) // ends with the process
	}()
	if r.url = <-up; r.url == "" {
		return nil, fmt.Errorf("registry: not started (%v): %s", r.end(), strings.Join(log, "\n"))
	}
	return r, nil
}

// run starts the script. Its session is its own, so that an interrupt from the terminal ends it by the leash only.
func (r *Registry) run(path string) (io.Reader, error) {
	if err := os.WriteFile(path, script, 0o700); err != nil {
		return nil, err
	}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.cmd.Stderr = r.cmd.Stdout
	if r.leash, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return out, r.cmd.Start()
}

var listening = regexp.MustCompile(`Listening on: (http://[0-9.:]+)`)
