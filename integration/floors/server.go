package floors

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Server is an embedded NATS server with JetStream, on loopback, on a free port.
type Server struct {
	s *server.Server
}

// StartServer starts a server that keeps its streams in dir. With syncAlways every append is synced to disk before it is
// acknowledged.
func StartServer(dir string, syncAlways bool) (*Server, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, ServerName: "floor", NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: dir, SyncAlways: syncAlways, NoFastProducerStall: true,
	})
	if err != nil {
		return nil, fmt.Errorf("floors: server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, errors.New("floors: the embedded server was not ready within 10s")
	}
	return &Server{s}, nil
}

// URL is the client address.
func (s *Server) URL() string { return s.s.ClientURL() }

// Connect opens a connection: over loopback TCP, or within the process (lower latency, less throughput under load).
func (s *Server) Connect(inProcess bool) (*nats.Conn, error) {
	opts := []nats.Option{nats.NoReconnect(), nats.Timeout(5 * time.Second)}
	if inProcess {
		opts = append(opts, nats.InProcessServer(s.s))
	}
	nc, err := nats.Connect(s.URL(), opts...)
	if err != nil {
		return nil, fmt.Errorf("floors: connect: %w", err)
	}
	return nc, nil
}

// Close stops the server.
func (s *Server) Close() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}
