package schemas

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Header carries a message's headers. Names are case-sensitive and written as below on NATS, Kafka and HTTP alike;
// connectors whose transport folds case restore them.
type Header map[string][]string

// The header names of the wire protocol (docs/wire.md).
const (
	HeaderContentType    = "Content-Type"
	HeaderRequestID      = "Leat-Request-Id"
	HeaderSchema         = "Leat-Schema"
	HeaderModel          = "Leat-Model"    // name@version that answered
	HeaderDeadline       = "Leat-Deadline" // absolute, RFC 3339 with nanoseconds
	HeaderTimeout        = "Leat-Timeout"  // relative, as Go writes durations ("250ms"); the first of our processes turns it into Leat-Deadline
	HeaderReplyTo        = "Leat-Reply-To"
	HeaderReplyPartition = "Leat-Reply-Partition"
	HeaderAttempt        = "Leat-Attempt"
	HeaderRole           = "Leat-Role"
	HeaderJob            = "Leat-Job"
	HeaderSource         = "Leat-Source" // Position.String of what an output was made from
	HeaderErrorKind      = "Leat-Error-Kind"
	HeaderKey            = "Leat-Key"
	HeaderRevision       = "Leat-Revision"
	HeaderArm            = "Leat-Arm"
	HeaderAnswered       = "Leat-Answered" // of an answer: members that have answered, where not all need to
	HeaderFallback       = "Leat-Fallback" // of an answer: cascades that gave the best answer so far, since their time was over
	HeaderPriority       = "Leat-Priority"
	HeaderParent         = "Leat-Parent"
	HeaderNode           = "Leat-Node"
	HeaderEventTime      = "Leat-Event-Time" // RFC 3339 with nanoseconds
	HeaderPrincipal      = "Leat-Principal"  // set by an authenticating door, never believed from outside
	HeaderTrace          = "traceparent"
)

// Get returns the first value of name, "" if absent. Get on a nil Header is "".
func (h Header) Get(name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set replaces the values of name.
func (h Header) Set(name, value string) { h[name] = []string{value} }

// Clone returns a copy that shares no map; values are immutable strings.
func (h Header) Clone() Header {
	c := make(Header, len(h)+2)
	for k, v := range h {
		c[k] = v
	}
	return c
}

// Message is what connectors carry. A connector never looks into the payload.
type Message struct {
	Topic   string // where it came from or goes to, in the user's words ("flights.departures"), not the transport's
	Key     string // partitioning and order; "" means none
	ID      string // on publish: the transport's duplicate window folds equal ids; "" means none
	Header  Header
	Payload []byte    // immutable
	Time    time.Time // set by the transport when the message was stored; zero for a core request
}

// Position is the place of a message in a durable stream. The zero Position means "not stored" (a core request).
type Position struct {
	Stream    string // JetStream stream, Kafka topic or file name
	Partition int32
	Sequence  uint64 // JetStream stream sequence (from 1), Kafka offset + 1, or row number + 1
}

// IsZero reports whether p names no place.
func (p Position) IsZero() bool { return p.Stream == "" && p.Sequence == 0 }

// String writes stream/partition/sequence.
func (p Position) String() string {
	if p.IsZero() {
		return ""
	}
	b := make([]byte, 0, len(p.Stream)+24)
	b = append(b, p.Stream...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(p.Partition), 10)
	b = append(b, '/')
	b = strconv.AppendUint(b, p.Sequence, 10)
	return string(b)
}

// ParsePosition is the inverse of String.
func ParsePosition(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	fail := func() (Position, error) {
		return Position{}, Errorf(Invalid, "schemas.ParsePosition", "position %q: want stream/partition/sequence", clip(s))
	}
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return fail()
	}
	j := strings.LastIndexByte(s[:i], '/')
	if j <= 0 {
		return fail()
	}
	part, err := strconv.ParseInt(s[j+1:i], 10, 32)
	if err != nil || part < 0 {
		return fail()
	}
	seq, err := strconv.ParseUint(s[i+1:], 10, 64)
	if err != nil {
		return fail()
	}
	return Position{Stream: s[:j], Partition: int32(part), Sequence: seq}, nil
}

// Deadline returns the earlier of Leat-Deadline and now + Leat-Timeout; ok is false if neither is there. A malformed
// header is Invalid.
func Deadline(h Header, now time.Time) (d time.Time, ok bool, err error) {
	if s := h.Get(HeaderDeadline); s != "" {
		if d, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return time.Time{}, false, FieldErrorf(Invalid, "schemas.Deadline", HeaderDeadline, "%q is not a time as in RFC 3339", clip(s))
		}
		ok = true
	}
	if s := h.Get(HeaderTimeout); s != "" {
		t, perr := time.ParseDuration(s)
		if perr != nil || t <= 0 {
			return time.Time{}, false, FieldErrorf(Invalid, "schemas.Deadline", HeaderTimeout, "%q is not a positive duration such as 250ms", clip(s))
		}
		if e := now.Add(t); !ok || e.Before(d) {
			d, ok = e, true
		}
	}
	return d, ok, nil
}

// Codec turns messages into rows and answers into bytes. Codecs are pure, keep nothing, and are safe for concurrent use.
type Codec interface {
	// AppendRows decodes the payload and appends all its rows to dst, whose schema says what is expected, or appends
	// none and returns an Invalid *Error that names row and field. The Encoder answers in the caller's own form.
	AppendRows(dst *Batch, m *Message) (rows int, enc Encoder, err error)
}

// RowCodec is a Codec whose payloads hold rows that can be refused one by one, for topics and jobs, where a bad row is
// dead-lettered and the rest goes on. (Online requests are atomic: AppendRows.)
type RowCodec interface {
	Codec
	// AppendGood appends the rows that can be read, in order, and one RowError to bad for each of the others, in order
	// of rows. A payload that cannot be read at all is an error, and appends nothing.
	AppendGood(dst *Batch, m *Message, bad []RowError) (rows int, all []RowError, enc Encoder, err error)
}

// Identified is an Encoder of a request whose body named it: native JSON and the Open Inference Protocol have "id".
type Identified interface {
	// RequestID returns the body's id, "" if it has none. Leat-Request-Id goes before it.
	RequestID() string
}

// OutputChecker is an Encoder whose request asked for outputs by name. The runner asks it before it admits the request,
// so that an unknown name costs no scoring.
type OutputChecker interface {
	// CheckOutputs is Invalid if the answer's schema lacks what was asked for.
	CheckOutputs(s *Schema) error
}

// Answer is what an Encoder may tell a caller beside the rows.
type Answer struct {
	RequestID string
	Model     string // name of the pipeline's answering model
	Version   string // its version, in digits
	Answered  string // node paths of members that have answered, where not all need to; "" where all do
	Fallback  string // node paths of cascades that gave the best answer so far, since their time was over
	Errs      []RowError
}

// Encoder writes an answer. Encoders are pure and safe for concurrent use.
type Encoder interface {
	// EncodeRows appends rows [from, to) of out to dst and sets what the answer's header must carry
	// (Content-Type at least; h is never nil).
	EncodeRows(dst []byte, h Header, out *Batch, from, to int, a *Answer) ([]byte, error)
}

// FormatTime writes t as headers do.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

var _ fmt.Stringer = Position{}
