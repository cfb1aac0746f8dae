package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// Models describes pipelines as the Open Inference Protocol does: a model there is a pipeline here.
type Models interface {
	// Model returns what the pipeline answers with; version "" is its active one. NotFound: no such pipeline, or no
	// such version of its model.
	Model(ctx context.Context, name, version string) (Metadata, error)
}

// Metadata describes a model of the Open Inference Protocol.
type Metadata struct {
	Name      string
	Versions  []string // that can be asked for
	Platform  string   // "onnxruntime_onnx"
	Signature schemas.Signature
	Ready     bool // loaded
}

// Deps is what the gateway calls. Requester and Models must be there.
type Deps struct {
	Requester  connectors.Requester
	Models     Models
	Operations []api.Operation
	Ready      func() error // nil error: every applied pipeline is loaded; nil func: always
	Metrics    http.Handler // serves /metrics; nil: none
	Counters   *Metrics     // nil: none
	Logger     *slog.Logger // nil: discards
	Version    string       // of this program, in the server metadata
}

// Server is the gateway. New, Listen, Serve, in that order.
type Server struct {
	config  Config
	deps    Deps
	tokens  *Tokens // nil: open
	hosts   map[string]bool
	cross   *http.CrossOriginProtection
	routes  []*route
	mux     *http.ServeMux
	openapi []byte
	flights atomic.Int64
	ids     idSource
	ln      net.Listener
	drain   context.Context // ends when Serve begins to drain: streams end with it
}

// New checks the configuration and builds the routes. It does no I/O. Operations that clash are Invalid.
func New(c Config, d Deps) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d.Requester == nil || d.Models == nil {
		return nil, schemas.Errorf(schemas.Invalid, "gateway.New", "Deps.Requester and Deps.Models must be there")
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Ready == nil {
		d.Ready = func() error { return nil }
	}
	s := &Server{config: c, deps: d, hosts: map[string]bool{}, cross: http.NewCrossOriginProtection()}
	for _, h := range c.Hosts {
		s.hosts[h] = true
	}
	for _, o := range c.Origins {
		if err := s.cross.AddTrustedOrigin(o); err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, "gateway.New", "http.origins", "%w", err)
		}
	}
	if err := s.build(); err != nil {
		return nil, err
	}
	return s, nil
}

// Listen reads the token file and the certificate and binds the port. It returns the bound address.
func (s *Server) Listen(ctx context.Context) (net.Addr, error) {
	const op = "gateway.Listen"
	if s.config.TokenFile != "" {
		b, err := os.ReadFile(s.config.TokenFile)
		if err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "http.token_file", "%w", err)
		}
		if s.tokens, err = ParseTokens(b); err != nil {
			return nil, err
		}
	}
	var secure *tls.Config
	if s.config.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(s.config.TLSCert, s.config.TLSKey)
		if err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "http.tls_cert", "%w", err)
		}
		secure = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return nil, schemas.FieldErrorf(schemas.Unavailable, op, "http.listen", "%w", err)
	}
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	s.ln = ln
	return ln.Addr(), nil
}

// Serve serves what Listen bound until ctx ends; then it takes no new connections, waits for the requests in flight, at
// most Config.DrainTimeout, and returns nil. Any other return is an error.
func (s *Server) Serve(ctx context.Context) error {
	const op = "gateway.Serve"
	if s.ln == nil {
		return schemas.Errorf(schemas.Internal, op, "Serve without Listen")
	}
	s.drain = ctx
	base := context.WithoutCancel(ctx) // a request in flight outlives ctx, by its own deadline
	h := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: s.config.HeaderTimeout,
		ReadTimeout:       s.config.BodyTimeout,
		IdleTimeout:       s.config.IdleTimeout,
		MaxHeaderBytes:    s.config.MaxHeader,
		ErrorLog:          slog.NewLogLogger(s.deps.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetHTTP2(true)
	ended := make(chan error, 1) // 1: the server's goroutine never waits for us
	go func() { ended <- h.Serve(s.ln) }()
	select {
	case err := <-ended:
		return schemas.Errorf(schemas.Unavailable, op, "%w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(base, s.config.DrainTimeout)
	defer cancel()
	err := h.Shutdown(last)
	if err != nil {
		_ = h.Close()
	}
	<-ended
	if errors.Is(err, context.DeadlineExceeded) {
		return schemas.Errorf(schemas.Expired, op, "requests were still in flight after %s", s.config.DrainTimeout)
	}
	return err
}

// Close gives back the port of a Server that was not served.
func (s *Server) Close() error {
	if s.ln == nil {
		return nil
	}
	return s.ln.Close()
}

// uploadReader extends the read deadline at each read: an upload may take long, but not stand still.
type uploadReader struct {
	r    interface{ Read([]byte) (int, error) }
	rc   *http.ResponseController
	idle time.Duration
}

func (u *uploadReader) Read(p []byte) (int, error) {
	_ = u.rc.SetReadDeadline(time.Now().Add(u.idle)) // where a connection has no deadline, the read is bounded by the request
	n, err := u.r.Read(p)
	if err != nil {
		unbound(u.rc)
	}
	return n, err
}

// unbound lifts the connection's read deadline once a body is in: it would cancel the context of a handler that works
// longer than the body took, because net/http goes on reading to see whether the caller is still there.
func unbound(rc *http.ResponseController) { _ = rc.SetReadDeadline(time.Time{}) }
