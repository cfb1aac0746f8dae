package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// Sentinels whose status is finer than their kind's.
var (
	errNoToken   = errors.New("a token is asked for: send Authorization: Bearer TOKEN")
	errBadToken  = errors.New("this token is not known")
	errTooLarge  = errors.New("body is too large")
	errBadMethod = errors.New("method is not allowed here")
)

// errorBody is every error that the gateway answers with. The Open Inference Protocol asks for the key "error".
type errorBody struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
	ID    string `json:"id"`
	Field string `json:"field,omitempty"`
}

func statusOf(e *schemas.Error) int {
	switch {
	case errors.Is(e.Err, errNoToken), errors.Is(e.Err, errBadToken):
		return http.StatusUnauthorized
	case errors.Is(e.Err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(e.Err, errBadMethod):
		return http.StatusMethodNotAllowed
	}
	return e.Kind.HTTPStatus()
}

// line is the one line that a caller sees: the field, then what is wrong with it.
func line(e *schemas.Error) string {
	s := e.Public()
	if e.Field != "" && e.Kind != schemas.Internal && !strings.HasPrefix(s, e.Field+":") {
		s = e.Field + ": " + s
	}
	return strings.ReplaceAll(s, "\n", "; ")
}

// fail answers with an error and returns its status. An Internal error that nobody logged is logged here, once.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, c *call, err error) int {
	e := schemas.AsError("gateway", err)
	status := statusOf(e)
	if e.Kind == schemas.Internal && e.ID == "" {
		one := *e
		one.ID = c.requestID()
		e = &one
		s.deps.Logger.Error("request failed", "id", e.ID, "method", r.Method, "path", r.URL.Path, "op", e.Op, "error", e.Err)
	}
	b := errorBody{Error: line(e), Kind: e.Kind.String(), ID: c.requestID(), Field: e.Field}
	if e.Kind == schemas.Internal {
		b.ID = e.ID
	}
	h := w.Header()
	switch status {
	case http.StatusUnauthorized:
		h.Set("Www-Authenticate", `Bearer realm="leat"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h["Retry-After"] = retryAfter
	case http.StatusRequestEntityTooLarge:
		h.Set("Connection", "close") // the rest of the body is not read
	}
	h[schemas.HeaderErrorKind] = []string{b.Kind}
	return s.json(w, c, status, b)
}

var retryAfter = []string{"1"}

// json answers with v.
func (s *Server) json(w http.ResponseWriter, c *call, status int, v any) int {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"internal error","kind":"internal"}`)
		s.deps.Logger.Error("reply cannot be written as JSON", "id", c.requestID(), "error", err)
	}
	h := w.Header()
	h[schemas.HeaderContentType] = jsonType
	h[schemas.HeaderRequestID] = []string{c.requestID()}
	h["Content-Length"] = []string{strconv.Itoa(len(body) + 1)}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return status
}

var jsonType = []string{"application/json"}
