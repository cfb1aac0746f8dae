package gateway

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/oip"
)

// scoring is what the path of a request says.
type scoring struct {
	topic       string
	contentType []string
	model       string // name@version; "": the active one
	idInBody    bool   // the body may name the request: no id is made here before it was read
}

// passed are the request headers that go on, and answered those of the answer that come back; others stay here. The
// names on the left are as net/http writes them.
var (
	passed = []struct{ http, name string }{
		{schemas.HeaderSchema, schemas.HeaderSchema},
		{schemas.HeaderKey, schemas.HeaderKey},
		{schemas.HeaderPriority, schemas.HeaderPriority},
		{schemas.HeaderEventTime, schemas.HeaderEventTime},
		{schemas.HeaderParent, schemas.HeaderParent},
		{schemas.HeaderArm, schemas.HeaderArm},
		{oip.HeaderLength, oip.HeaderLength},
		{"Traceparent", schemas.HeaderTrace},
	}
	answered = []string{
		schemas.HeaderContentType, schemas.HeaderRequestID, schemas.HeaderModel, schemas.HeaderRevision,
		schemas.HeaderSchema, schemas.HeaderArm, schemas.HeaderAnswered, schemas.HeaderFallback, schemas.HeaderErrorKind, oip.HeaderLength,
	}
)

// Headers of the caller's own go on to the pipeline, whose splits may choose by them: those that begin with X-, a few and
// short ones.
const (
	ownHeader  = "X-"
	maxHeaders = 32
	maxHeader  = 256 // bytes of a value
)

// socketBuffer is what a connection takes without its caller reading: larger answers are written under a deadline.
const socketBuffer = 64 << 10

// score is the hot path: body in, message out, answer back.
func (s *Server) score(w http.ResponseWriter, r *http.Request, c *call, sc *scoring) int {
	now := time.Now()
	h, deadline, err := s.header(r, c, sc, now)
	if err != nil {
		return s.fail(w, r, c, err)
	}
	buf := takeBuffer()
	if buf.b, err = s.body(r, buf.b); err != nil {
		buf.give()
		return s.fail(w, r, c, err)
	}
	if deadline.Sub(now) > s.config.BodyTimeout/2 {
		unbound(http.NewResponseController(w))
	}
	ctx, cancel := context.WithDeadline(r.Context(), deadline)
	defer cancel()
	m := schemas.Message{Topic: sc.topic, Header: h, Payload: buf.b}
	answer, err := s.deps.Requester.Request(ctx, &m)
	if err != nil {
		// The message may still be on its way to a runner in this process: its bytes are left to the collector.
		return s.fail(w, r, c, err)
	}
	if e := schemas.AnswerError(answer); e != nil {
		// So may it be here: a door that closes answers for the runner.
		if id := answer.Header.Get(schemas.HeaderRequestID); id != "" {
			c.id = id
		}
		return s.fail(w, r, c, e)
	}
	buf.give() // rows were scored and answered: nobody looks at the request's bytes any more
	return s.answer(w, r, c, answer)
}

// header makes the message's header and the time until which the caller waits. A deadline that the caller gave goes on
// in its absolute form; without one the pipeline's own applies, and the gateway waits for Config.Timeout.
func (s *Server) header(r *http.Request, c *call, sc *scoring, now time.Time) (schemas.Header, time.Time, error) {
	in := r.Header
	h := make(schemas.Header, 8)
	for _, p := range passed {
		if v := in[p.http]; v != nil {
			h[p.name] = v
		}
	}
	for name, v := range in {
		if strings.HasPrefix(name, ownHeader) && len(h) < maxHeaders && len(v) == 1 && len(v[0]) <= maxHeader {
			h[name] = v
		}
	}
	made := make([]string, 4) // one allocation for the values that are ours
	set := func(i int, name, value string) {
		made[i] = value
		h[name] = made[i : i+1 : i+1]
	}
	if sc.contentType != nil {
		h[schemas.HeaderContentType] = sc.contentType
	}
	if c.id != "" || !sc.idInBody {
		set(0, schemas.HeaderRequestID, c.requestID())
	}
	if c.principal != "" {
		set(1, schemas.HeaderPrincipal, c.principal)
	}
	if sc.model != "" {
		set(2, schemas.HeaderModel, sc.model)
	}
	deadline := now.Add(s.config.Timeout)
	if in[schemas.HeaderDeadline] != nil || in[schemas.HeaderTimeout] != nil {
		d, ok, err := schemas.Deadline(schemas.Header(in), now)
		if err != nil {
			return nil, d, err
		}
		if ok {
			if deadline = now.Add(s.config.MaxTimeout); d.Before(deadline) {
				deadline = d
			}
			if !deadline.After(now) {
				return nil, d, schemas.Errorf(schemas.Expired, "gateway.score", "the deadline %s had passed on arrival", schemas.FormatTime(d))
			}
			set(3, schemas.HeaderDeadline, schemas.FormatTime(deadline))
		}
	}
	return h, deadline, nil
}

// answer writes what the runner gave.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, c *call, m *schemas.Message) int {
	out := w.Header()
	for _, name := range answered {
		if v := m.Header[name]; v != nil {
			out[name] = v
		}
	}
	if out[schemas.HeaderRequestID] == nil {
		out[schemas.HeaderRequestID] = []string{c.requestID()}
	}
	body := m.Payload
	if enc := chooseEncoding(r.Header["Accept-Encoding"], len(body)); enc != "" {
		var packed *buffer
		packed, body = compress(enc, body)
		defer packed.give()
		out["Content-Encoding"] = []string{enc}
		out["Vary"] = []string{"Accept-Encoding"}
	}
	if len(body) > 2000 { // below, net/http counts by itself
		out["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(http.StatusOK)
	if len(body) > socketBuffer {
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(s.config.BodyTimeout))
		defer rc.SetWriteDeadline(time.Time{})
	}
	_, _ = w.Write(body) // a caller that is gone is no error
	return http.StatusOK
}
