package main

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
	"syscall"
	"time"
)

// product is a running `leat serve` with the boosted model pushed.
type product struct {
	binary  string
	library string // ONNX Runtime
	cmd     *exec.Cmd
	log     *os.File
	done    chan error
	http    string // host:port
	nats    string // URL
	pprof   string // host:port, "" without
}

// model and pipeline that is asked; pushing a model makes a pipeline of its name.
const boosted = "flight-boost"

// readyLine is what serve prints with --json once it is ready. Addresses come with or without a scheme.
type readyLine struct {
	HTTP  string `json:"http"`
	NATS  string `json:"nats"`
	Pprof string `json:"pprof"`
}

// startProduct serves from dir, with further flags, and pushes the model.
func startProduct(ctx context.Context, c *config, library, dir string, flags ...string) (*product, error) {
	args := append([]string{"serve", "--data", filepath.Join(dir, "data"), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--json"}, flags...)
	if c.profile != "" {
		args = append(args, "--pprof", "127.0.0.1:0")
	}
	p := &product{binary: c.binary, library: library, done: make(chan error, 1)}
	p.cmd = exec.CommandContext(ctx, c.binary, args...)
	p.cmd.Env = append(os.Environ(), "LEAT_ONNXRUNTIME="+library)
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 20 * time.Second
	var err error
	if p.log, err = os.Create(filepath.Join(dir, "serve.log")); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		_ = p.log.Close()
		return nil, fmt.Errorf("bench: start %s: %w", c.binary, err)
	}
	ready := make(chan readyLine, 1)
	go func() { // reads until the process ends, so that it never blocks on its output
		r := bufio.NewReader(out)
		for {
			line, err := r.ReadBytes('\n')
			var l readyLine
			if json.Unmarshal(line, &l) == nil && l.NATS != "" {
				select {
				case ready <- l:
				default:
				}
			}
			if err != nil {
				break
			}
		}
		p.done <- p.cmd.Wait()
	}()
	select {
	case l := <-ready:
		p.http, p.pprof = host(l.HTTP), host(l.Pprof)
		p.nats = "nats://" + host(l.NATS)
	case err := <-p.done:
		p.done <- err
		return nil, p.fail("serve ended before it was ready", err)
	case <-time.After(20 * time.Second):
		p.close()
		return nil, p.fail("serve was not ready within 20s", nil)
	}
	if err := p.cli(ctx, "models", "push", filepath.Join(c.example, boosted)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// host strips a scheme and a path.
func host(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	address, _, _ = strings.Cut(address, "/")
	return address
}

// fail adds the end of the server's log.
func (p *product) fail(what string, err error) error {
	b, _ := os.ReadFile(p.log.Name())
	const most = 1000
	b = bytes.TrimSpace(b)
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return errors.Join(fmt.Errorf("bench: %s; the end of its log:\n%s", what, b), err)
}

// cli runs a command of the binary against this server.
func (p *product) cli(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, p.binary, append(args, "--server", "http://"+p.http)...)
	cmd.Env = append(os.Environ(), "LEAT_ONNXRUNTIME="+p.library)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("bench: leat %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(b))
	}
	return nil
}

// apply applies a pipeline written as YAML.
func (p *product) apply(ctx context.Context, dir, name, spec string) error {
	path := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(path, []byte(spec), 0o644); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return p.cli(ctx, "apply", path)
}

// profile stores a CPU profile of the next d in a file; wait for the channel.
func (p *product) profile(ctx context.Context, path string, d time.Duration) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.pprof, max(1, int(d.Seconds())))
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return fmt.Errorf("bench: profile: %w", err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return fmt.Errorf("bench: profile: %w", err)
			}
			defer func() { _ = res.Body.Close() }()
			b, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK {
				return errors.Join(fmt.Errorf("bench: profile: status %d", res.StatusCode), err)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return fmt.Errorf("bench: profile: %w", err)
			}
			if err := os.WriteFile(path, b, 0o644); err != nil {
				return fmt.Errorf("bench: profile: %w", err)
			}
			return nil
		}()
	}()
	return done
}

// close asks the server to drain and waits for it.
func (p *product) close() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	_ = p.log.Close()
}
