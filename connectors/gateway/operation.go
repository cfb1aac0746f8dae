package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// operation serves one row of the table.
func (s *Server) operation(op *api.Operation) func(http.ResponseWriter, *http.Request, *call) int {
	body := op.BodyType()
	return func(w http.ResponseWriter, r *http.Request, c *call) int {
		in, err := s.operationBody(w, r, body)
		if err != nil {
			return s.fail(w, r, c, err)
		}
		req, err := op.Decode(r.PathValue, r.URL.Query(), in)
		if err != nil {
			return s.fail(w, r, c, sized(err, s.config.MaxBody))
		}
		if body == "" || body == "application/json" {
			unbound(http.NewResponseController(w))
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		if s.drain != nil { // what follows a stream for ever ends with the server, not at the end of its patience
			defer context.AfterFunc(s.drain, cancel)()
		}
		reply, err := op.Handle(api.WithCaller(ctx, api.Caller{Principal: c.principal, Via: "http"}), req)
		if err != nil {
			return s.fail(w, r, c, sized(err, s.config.MaxUpload))
		}
		if stream, ok := reply.(api.Stream); ok {
			return s.stream(w, r, c, stream)
		}
		return s.json(w, c, http.StatusOK, reply)
	}
}

// operationBody bounds the body: JSON as for scoring, a raw body by MaxUpload and, in place of the time for the whole, a
// time between two reads.
func (s *Server) operationBody(w http.ResponseWriter, r *http.Request, kind string) (io.Reader, error) {
	limit := s.config.MaxBody
	if kind != "" && kind != "application/json" {
		limit = s.config.MaxUpload
	}
	if r.ContentLength > limit {
		return nil, tooLarge("more than "+strconv.FormatInt(limit, 10), limit)
	}
	if v := r.Header.Get("Content-Encoding"); v != "" && v != "identity" {
		return nil, schemas.FieldErrorf(schemas.Invalid, "gateway.body", "Content-Encoding", "%.40q: operations take bodies as they are", v)
	}
	in := http.MaxBytesReader(w, r.Body, limit)
	switch kind {
	case "":
		return nil, nil
	case "application/json":
		return in, nil
	}
	return &uploadReader{r: in, rc: http.NewResponseController(w), idle: s.config.BodyTimeout}, nil
}

// sized restores the status of a body over the limit, which the decoder wrapped.
func sized(err error, limit int64) error {
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return tooLarge("more than "+strconv.FormatInt(limit, 10), limit)
	}
	return err
}

// stream writes a reply that writes itself. Once its first byte is out a failure can only cut the connection, so that
// the caller sees that the answer is not whole.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, c *call, stream api.Stream) int {
	w.Header().Set(schemas.HeaderContentType, stream.ContentType())
	w.Header()[schemas.HeaderRequestID] = []string{c.requestID()}
	out := &firstByte{ResponseWriter: w, c: c, rc: http.NewResponseController(w), patience: s.config.BodyTimeout}
	err := stream.WriteBody(out)
	_ = out.rc.SetWriteDeadline(time.Time{}) // the connection may be used again
	if err == nil {
		return http.StatusOK
	}
	if !c.started {
		return s.fail(w, r, c, err)
	}
	if r.Context().Err() == nil {
		s.deps.Logger.Error("stream ended early", "id", c.requestID(), "path", r.URL.Path, "error", err)
	}
	panic(http.ErrAbortHandler)
}

// firstByte notes when the header is out, bounds each write, and lets a stream flush.
type firstByte struct {
	http.ResponseWriter
	c        *call
	rc       *http.ResponseController
	patience time.Duration
}

func (f *firstByte) Write(p []byte) (int, error) {
	f.c.started = true
	_ = f.rc.SetWriteDeadline(time.Now().Add(f.patience)) // a caller that does not read must not hold us for ever
	return f.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (f *firstByte) Flush() {
	f.c.started = true
	_ = f.rc.Flush() // a connection that cannot flush writes when it is full
}
