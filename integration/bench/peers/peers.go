package peers

import (
	"bufio"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

//go:embed requirements.txt nats_responder.py fastapi_app.py
var sources embed.FS

// Environment is a virtual environment with the peers' packages and sources.
type Environment struct{ dir string }

// Prepare makes the environment in dir, or finds it there as this version would make it. It takes a minute the first
// time and needs python3 with venv, and a package index. What pip says goes to log.
func Prepare(ctx context.Context, dir string, log io.Writer) (*Environment, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	e := &Environment{dir: dir}
	digest := sha256.New()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	for _, name := range []string{"requirements.txt", "nats_responder.py", "fastapi_app.py"} {
		b, err := sources.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
		}
		if err != nil {
			return nil, fmt.Errorf("peers: %w", err)
		}
		if name == "requirements.txt" {
			digest.Write(b)
		}
	}
	want := hex.EncodeToString(digest.Sum(nil))
	stamp := filepath.Join(dir, "installed")
	if b, err := os.ReadFile(stamp); err == nil && string(b) == want {
		if _, err := os.Stat(e.python()); err == nil {
			return e, nil
		}
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", filepath.Join(dir, "venv")},
		{e.python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", filepath.Join(dir, "requirements.txt")},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("peers: %v: %w", args, err)
		}
	}
	if err := os.WriteFile(stamp, []byte(want), 0o644); err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	return e, nil
}

func (e *Environment) python() string { return filepath.Join(e.dir, "venv", "bin", "python") }

// Library is the path of ONNX Runtime's shared library in the environment.
func (e *Environment) Library() (string, error) {
	for _, pattern := range []string{"libonnxruntime.so.*", "libonnxruntime.*.dylib"} {
		found, err := filepath.Glob(filepath.Join(e.dir, "venv", "lib", "python*", "site-packages", "onnxruntime", "capi", pattern))
		if err != nil {
			return "", fmt.Errorf("peers: %w", err)
		}
		if len(found) > 0 {
			slices.Sort(found)
			return found[len(found)-1], nil
		}
	}
	return "", errors.New("peers: the environment holds no ONNX Runtime library; delete " + e.dir + " and run again")
}

// Peer is a running peer.
type Peer struct {
	Address string // host:port of an HTTP peer, "" of one on NATS
	cmd     *exec.Cmd
}

// start runs Python in a process group of its own, so that workers end with their parent.
func (e *Environment) start(ctx context.Context, env []string, args ...string) (*exec.Cmd, *bufio.Reader, error) {
	cmd := exec.CommandContext(ctx, e.python(), args...)
	cmd.Dir = e.dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err == nil {
		// Never written to: it ends when this process does, however that ends, and the peer with it.
		_, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("peers: %w", err)
	}
	return cmd, bufio.NewReader(out), nil
}

// NATS starts the responder for subject on the NATS server at url and returns when it answers.
func (e *Environment) NATS(ctx context.Context, url, subject, model string) (*Peer, error) {
	model, err := filepath.Abs(model)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	cmd, out, err := e.start(ctx, nil, "nats_responder.py", url, subject, model)
	if err != nil {
		return nil, err
	}
	p := &Peer{cmd: cmd}
	if line, err := out.ReadString('\n'); err != nil || line != "ready\n" {
		p.Close()
		return nil, errors.New("peers: the nats-py responder ended before it was ready")
	}
	return p, nil
}

// HTTP starts FastAPI with that many workers on a free port of loopback and returns when it answers.
func (e *Environment) HTTP(ctx context.Context, workers int, model string) (*Peer, error) {
	model, err := filepath.Abs(model)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // uvicorn cannot say which port it took, so it is told one that was free
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	cmd, _, err := e.start(ctx, []string{"LEAT_PEER_MODEL=" + model}, "fastapi_app.py",
		strconv.Itoa(port), strconv.Itoa(workers))
	if err != nil {
		return nil, err
	}
	p := &Peer{cmd: cmd, Address: "127.0.0.1:" + strconv.Itoa(port)}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ready, http.MethodGet, "http://"+p.Address+"/v2/health/ready", nil)
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("peers: %w", err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		select {
		case <-tick.C:
		case <-ready.Done():
			p.Close()
			return nil, errors.New("peers: FastAPI was not ready within 30s")
		}
	}
}

// Close ends the peer and its workers and waits for it.
func (p *Peer) Close() {
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	stuck := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
	defer stuck.Stop()
	_ = p.cmd.Wait()
}
