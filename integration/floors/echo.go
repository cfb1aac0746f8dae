package floors

import (
	"context"

	"github.com/leatstream/leat/integration/bench/load"
)

// Echo is NATS core request-reply: an embedded server and, on a connection of its own in the same process, a responder
// that sends back what it gets, asked over loopback TCP.
type Echo struct {
	child  *child
	client *load.NATSClient
}

// The same responder twice: over an in-process connection it answers sooner, over TCP it answers more.
const (
	echoNear = "floor.echo.near"
	echoTCP  = "floor.echo.tcp"
)

// StartEcho starts the process; its server keeps its store in dir.
func StartEcho(ctx context.Context, dir string) (*Echo, error) {
	c, err := startChild(ctx, childNATS, dir)
	if err != nil {
		return nil, err
	}
	client, err := load.DialNATS(c.address)
	if err != nil {
		c.close()
		return nil, err
	}
	return &Echo{child: c, client: client}, nil
}

// URL is the server's client address, for peers that need a NATS server.
func (e *Echo) URL() string { return e.child.address }

// Run asks in a closed loop of callers, whichever responder is the better one for that many.
func (e *Echo) Run(ctx context.Context, payloads [][]byte, l load.Loop) (*load.Result, error) {
	return e.client.Callers(ctx, subject(l), payloads, l)
}

// Requests asks through the client library's own Request.
func (e *Echo) Requests(ctx context.Context, payloads [][]byte, l load.Loop) (*load.Result, error) {
	return e.client.Requests(ctx, subject(l), payloads, l)
}

// Pipelined asks from one goroutine.
func (e *Echo) Pipelined(ctx context.Context, payloads [][]byte, l load.Loop) (*load.Result, error) {
	return e.client.Pipelined(ctx, subject(l), payloads, l)
}

func subject(l load.Loop) string {
	if l.InFlight == 1 {
		return echoNear
	}
	return echoTCP
}

// Close ends the process.
func (e *Echo) Close() {
	e.client.Close()
	e.child.close()
}
