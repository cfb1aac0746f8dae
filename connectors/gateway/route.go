package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// route is one method and path.
type route struct {
	method, path string
	scope        api.Scope // "": open to everybody
	free         bool      // not counted against MaxConcurrent, so that probes are answered by a busy server
	summary      string
	op           *api.Operation // of the table; nil: the gateway's own
	metrics      *routeMetrics
	s            *Server
	serve        func(w http.ResponseWriter, r *http.Request, c *call) (status int)
}

// call is what one request carries through its handler.
type call struct {
	s         *Server
	id        string // as the caller gave it, or made at first need
	principal string
	started   bool // the answer's header is out: a failure can only cut the connection
}

func (c *call) requestID() string {
	if c.id == "" {
		c.id = c.s.ids.next()
	}
	return c.id
}

// build makes the routes, the mux and the OpenAPI document.
func (s *Server) build() error {
	s.routes = append(s.routes, s.protocolRoutes()...)
	s.routes = append(s.routes,
		&route{method: "POST", path: "/v1/pipelines/{name}/score", scope: api.Score, summary: "Score rows in native JSON or as an Arrow stream", serve: s.scoreNative},
		&route{method: "GET", path: "/openapi.json", scope: api.Read, free: true, summary: "This document", serve: s.document})
	if s.deps.Metrics != nil {
		s.routes = append(s.routes, &route{method: "GET", path: "/metrics", scope: api.Read, free: true, summary: "Metrics as Prometheus reads them", serve: s.metrics})
	}
	for i := range s.deps.Operations {
		op := &s.deps.Operations[i]
		s.routes = append(s.routes, &route{method: op.Method, path: op.Path, scope: op.Scope, summary: op.Summary, op: op, serve: s.operation(op)})
	}
	s.mux = http.NewServeMux()
	for _, r := range s.routes {
		r.s = s
		r.metrics = s.deps.Counters.route(r.method + " " + r.path)
		if err := handle(s.mux, r.method+" "+r.path, r); err != nil {
			return err
		}
	}
	s.mux.Handle("/", &route{s: s, free: true, metrics: s.deps.Counters.route("other"), serve: s.nowhere})
	doc, err := s.describe()
	s.openapi = doc
	return err
}

// handle registers a pattern; the mux panics where two clash.
func handle(m *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = schemas.Errorf(schemas.Invalid, "gateway.New", "operation %s: %v", pattern, p)
		}
	}()
	m.Handle(pattern, h)
	return nil
}

// ServeHTTP implements http.Handler, also for tests without a port.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// ServeHTTP is every request's way: who may ask, then how many at a time, then the handler.
func (rt *route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := call{s: rt.s}
	status := rt.guarded(w, r, &c)
	rt.metrics.observe(status, start)
}

func (rt *route) guarded(w http.ResponseWriter, r *http.Request, c *call) (status int) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			rt.s.deps.Logger.Error("panic", "id", c.requestID(), "route", rt.path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if c.started {
				panic(http.ErrAbortHandler)
			}
			status = rt.s.fail(w, r, c, &schemas.Error{Kind: schemas.Internal, ID: c.requestID(), Err: errors.New("panic")})
		}
	}()
	if err := rt.admit(r, c); err != nil {
		return rt.s.fail(w, r, c, err)
	}
	if !rt.free {
		n := rt.s.flights.Add(1)
		defer rt.s.landed()
		if m := rt.s.deps.Counters; m != nil {
			m.flights.Set(float64(n))
		}
		if n > int64(rt.s.config.MaxConcurrent) {
			return rt.s.fail(w, r, c, schemas.Errorf(schemas.Overloaded, "gateway", "%d requests are being answered: try again shortly", rt.s.config.MaxConcurrent))
		}
	}
	return rt.serve(w, r, c)
}

func (s *Server) landed() {
	n := s.flights.Add(-1)
	if m := s.deps.Counters; m != nil {
		m.flights.Set(float64(n))
	}
}

// admit checks what holds for every request: its id, its host, its origin and its token.
func (rt *route) admit(r *http.Request, c *call) (err error) {
	const op = "gateway.admit"
	if v := r.Header[schemas.HeaderRequestID]; len(v) > 0 && v[0] != "" {
		if len(v[0]) > maxRequestID || !printable(v[0]) {
			return schemas.FieldErrorf(schemas.Invalid, op, schemas.HeaderRequestID, "want 1 to %d printable ASCII characters without spaces", maxRequestID)
		}
		c.id = v[0]
	}
	if rt.s.tokens == nil && !rt.s.ownHost(r.Host) {
		return schemas.FieldErrorf(schemas.Denied, op, "Host", "%.80q is not a name of this server; add it to http.hosts if it should be", r.Host)
	}
	if err := rt.s.cross.Check(r); err != nil {
		return schemas.Errorf(schemas.Denied, op, "a browser sent this from another origin; add it to http.origins if it may")
	}
	c.principal, err = rt.s.tokens.admit(r, rt.scope)
	return err
}

// ownHost defends an open loopback server against a web page whose name resolves to loopback (DNS rebinding).
func (s *Server) ownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return loopback(host) || s.hosts[host]
}

var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// nowhere answers what no route takes: 405 if another method would be taken, else 404.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request, c *call) int {
	var allowed []string
	for _, m := range methods {
		other := *r
		other.Method = m
		if _, pattern := s.mux.Handler(&other); pattern != "/" && pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 && !slices.Contains(allowed, r.Method) {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return s.fail(w, r, c, &schemas.Error{Op: "gateway", Kind: schemas.Invalid, Err: fmt.Errorf("%w: use %s", errBadMethod, strings.Join(allowed, " or "))})
	}
	return s.fail(w, r, c, schemas.Errorf(schemas.NotFound, "gateway", "nothing is at %.100q; GET /openapi.json lists what is", r.URL.Path))
}

func (s *Server) document(w http.ResponseWriter, r *http.Request, c *call) int {
	w.Header()[schemas.HeaderContentType] = jsonType
	_, _ = w.Write(s.openapi)
	return http.StatusOK
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request, c *call) int {
	s.deps.Metrics.ServeHTTP(w, r)
	return http.StatusOK
}
