package floors

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/nats-io/nats.go"
)

// The echoes answer from a process of their own, as the product does: client and server then share nothing but the
// cores. The process is this program again, started with ChildArg; its main hands over to ServeChild.

// ChildArg is the first argument of a program that shall be the server of a floor.
const ChildArg = "serve-floor"

// The servers that a child can be.
const (
	childNATS  = "nats"
	childHTTP  = "http"
	childKafka = "kafka"
)

// ServeChild is the child's main: args are what follows ChildArg, a kind and a folder, or Kafka's brokers. It writes the
// server's address as one line and serves until in ends, so that a child never outlives the program that started it.
func ServeChild(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("floors: a child wants a kind and a folder")
	}
	var address string
	switch args[0] {
	case childNATS:
		s, err := StartServer(args[1], false)
		if err != nil {
			return err
		}
		defer s.Close()
		for _, r := range []struct {
			subject   string
			inProcess bool
		}{{echoNear, true}, {echoTCP, false}} {
			nc, err := s.Connect(r.inProcess)
			if err != nil {
				return err
			}
			defer nc.Close()
			if _, err = nc.QueueSubscribe(r.subject, "floor", func(m *nats.Msg) { _ = nc.Publish(m.Reply, m.Data) }); err == nil {
				err = nc.Flush()
			}
			if err != nil {
				return fmt.Errorf("floors: echo: %w", err)
			}
		}
		address = s.URL()
	case childHTTP:
		s, err := startHTTP()
		if err != nil {
			return err
		}
		defer s.Close()
		address = s.addr
	case childKafka:
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- serveKafka(ctx, args[1]) }()
		defer func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
		address = args[1]
	default:
		return fmt.Errorf("floors: no child %q", args[0])
	}
	if _, err := fmt.Fprintln(out, address); err != nil {
		return fmt.Errorf("floors: %w", err)
	}
	_, _ = io.Copy(io.Discard, in)
	return nil
}

// child is a started ServeChild.
type child struct {
	cmd     *exec.Cmd
	in      io.Closer
	address string
}

func startChild(ctx context.Context, kind, dir string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("floors: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, ChildArg, kind, dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("floors: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("floors: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("floors: start a child: %w", err)
	}
	c := &child{cmd: cmd, in: in}
	line, err := bufio.NewReader(out).ReadString('\n')
	if c.address = strings.TrimSpace(line); err != nil || c.address == "" {
		c.close()
		return nil, fmt.Errorf("floors: the child %s gave no address", kind)
	}
	return c, nil
}

// close ends the child and waits for it.
func (c *child) close() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}
