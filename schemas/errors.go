package schemas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Kind says what a caller can do about an error. Transports map it to their own codes.
type Kind uint8

// The kinds. Internal is the zero value: an error that nobody classified is ours.
const (
	Internal    Kind = iota // HTTP 500: our fault; the answer carries an id and no internals
	Invalid                 // HTTP 400: the request can never succeed as it is
	NotFound                // HTTP 404: no such model, pipeline, topic, job or record
	Denied                  // HTTP 401 or 403
	Overloaded              // HTTP 429: a bound was reached; try again later or elsewhere
	Expired                 // HTTP 504: the deadline passed
	Unavailable             // HTTP 503: something that is needed cannot be reached or is full; try again later
)

var kindNames = [...]string{"internal", "invalid", "not_found", "denied", "overloaded", "expired", "unavailable"}

// String returns the kind as headers and records write it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// ParseKind is the inverse of String; an unknown name is Internal.
func ParseKind(s string) Kind {
	for i, n := range kindNames {
		if n == s {
			return Kind(i)
		}
	}
	return Internal
}

// HTTPStatus returns the status of the kind; Denied is 403 (401 is the gateway's own, where credentials are absent).
func (k Kind) HTTPStatus() int {
	if int(k) >= len(kindNames) {
		k = Internal
	}
	return [...]int{500, 400, 404, 403, 429, 504, 503}[k]
}

// Error is the one error type that crosses a package or a process boundary.
type Error struct {
	Op    string // package.Function, for logs; never shown to callers
	Kind  Kind
	Field string // path of the offending field or column, if one is to blame: "rows[3].dep_delay"
	ID    string // set on Internal errors that were logged: what a caller quotes to an operator
	Err   error  // the cause; its text is shown to callers unless Kind is Internal
}

// Error returns one line.
func (e *Error) Error() string {
	switch {
	case e.Err == nil && e.Field != "":
		return e.Kind.String() + ": " + e.Field
	case e.Err == nil:
		return e.Kind.String()
	case e.Field != "":
		return e.Field + ": " + e.Err.Error()
	}
	return e.Err.Error()
}

// Public returns the line that a caller may see: without the field, which travels beside it, and without the cause of an
// Internal error.
func (e *Error) Public() string {
	switch {
	case e.Kind == Internal && e.ID != "":
		return "internal error " + e.ID
	case e.Kind == Internal:
		return "internal error"
	case e.Err == nil:
		return e.Kind.String()
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error; the format takes %w.
func Errorf(kind Kind, op, format string, args ...any) *Error {
	return &Error{Op: op, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// FieldErrorf makes an Error that blames a field.
func FieldErrorf(kind Kind, op, field, format string, args ...any) *Error {
	return &Error{Op: op, Kind: kind, Field: field, Err: fmt.Errorf(format, args...)}
}

// AsError returns err as an *Error: itself if it is or wraps one (an outer wrap's text is kept), Expired for an
// exceeded deadline, Unavailable for a cancelled context, else Internal. AsError(op, nil) is nil.
func AsError(op string, err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		if error(e) == err {
			return e
		}
		return &Error{Op: e.Op, Kind: e.Kind, Field: e.Field, ID: e.ID, Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Op: op, Kind: Expired, Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Op: op, Kind: Unavailable, Err: err}
	}
	return &Error{Op: op, Kind: Internal, Err: err}
}

// KindOf returns the kind of err as AsError would.
func KindOf(err error) Kind {
	if e := AsError("", err); e != nil {
		return e.Kind
	}
	return Internal
}

// RowError says that one row of a batch failed while others went on.
type RowError struct {
	Row int // in the request, from 0
	Err *Error
}

// ErrDrained is returned by a source that was drained and has handed over everything it took.
var ErrDrained = errors.New("drained")

// ErrUnsupported is returned by an operation that an implementation does not claim.
var ErrUnsupported = errors.New("not supported")

// ErrorBody is how an error crosses the wire, on every transport.
type ErrorBody struct {
	Kind    string `json:"kind"`
	ID      string `json:"id,omitempty"` // the request's id, or for an Internal error what an operator finds in the log
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

// ErrorAnswer writes e as an answer: its header with Leat-Error-Kind, and the JSON of ErrorBody.
func ErrorAnswer(e *Error, requestID string) (Header, []byte) {
	b := ErrorBody{Kind: e.Kind.String(), ID: e.ID, Message: e.Error(), Field: e.Field}
	if e.Kind == Internal {
		b.Message = e.Public()
	}
	if b.ID == "" {
		b.ID = requestID
	}
	body, err := json.Marshal(b)
	if err != nil { // strings alone: cannot fail
		panic(err)
	}
	h := Header{HeaderContentType: {"application/json"}, HeaderErrorKind: {b.Kind}}
	if requestID != "" {
		h[HeaderRequestID] = []string{requestID}
	}
	return h, body
}

// AnswerError is the inverse of ErrorAnswer: the error that an answer carries, nil if it carries none.
func AnswerError(m *Message) *Error {
	k := m.Header.Get(HeaderErrorKind)
	if k == "" {
		return nil
	}
	var b ErrorBody
	if err := json.Unmarshal(m.Payload, &b); err != nil || b.Message == "" {
		b.Message = k
	}
	return &Error{Kind: ParseKind(k), ID: b.ID, Field: b.Field, Err: errors.New(b.Message)}
}
