package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// child is a leat serve that this process started and ends.
type child struct {
	cmd  *exec.Cmd
	at   addresses
	done chan error
}

// startServer starts this same program as a server on free ports, with further flags, and waits until it is ready.
func startServer(ctx context.Context, data string, log io.Writer, flags ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{done: make(chan error, 1)}
	args := []string{"serve", "--data", data, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--json", "--log", "warn"}
	c.cmd = exec.CommandContext(ctx, self, append(args, flags...)...)
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.WaitDelay = 10 * time.Second
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = ownGroup() // a Ctrl-C ends the demo, which ends its server in order
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &c.at)
	}
	go func() { c.done <- c.cmd.Wait() }()
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("the server did not start: see its lines above")
	}
	return c, nil
}

// stop ends the server and waits for it.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // gone already: then Wait has returned
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
