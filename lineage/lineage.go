package lineage

import (
	"context"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Appender makes records durable. It encodes and appends; it never settles a delivery. Safe for concurrent use; calls
// for one pipeline are made one at a time (its committer), so their order in the stream is the order of the calls.
type Appender interface {
	// Append returns when the stream has acknowledged all of recs (split into messages of at most 900 KiB), with the
	// position of the last message. Unavailable wrapping schemas.ErrFull: the stream is full and nothing was written of
	// the message that did not fit. An unknown outcome is retried with the same bytes and the same id until ctx ends;
	// then Unavailable, and the record may exist.
	Append(ctx context.Context, recs *Records) (schemas.Position, error)
}

// Encoder hands out what an Appender would append, for who stores it himself: in a transaction of the transport that holds
// the log, with what depends on the records. Safe for concurrent use.
type Encoder interface {
	// Messages returns recs as messages to the log's topic: leat.lineage, or leat.lineage-jobs for records of jobs, with
	// the pipeline as key. They are as Append would store them, in that order, and the caller's to keep; ids and bytes are
	// the same each time while recs stay unchanged. When it returns, the schemas that readers need are in the catalogue.
	// No records: none and no error.
	Messages(ctx context.Context, recs *Records) ([]schemas.Message, error)
}

// Refusal is a request that was refused before admission.
type Refusal struct {
	Pipeline  string    `json:"pipeline,omitempty"` // as the caller wrote it
	Principal string    `json:"principal,omitempty"`
	Via       string    `json:"via,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
	Kind      string    `json:"kind"`
	Error     string    `json:"error"`
	Time      time.Time `json:"time"`
}

// Query selects records. Zero fields select everything.
type Query struct {
	Pipeline  string
	Model     string // name, or name@version
	Status    string // ok, error or late; those late are superseded, and selected all the same
	Role      string
	Run       string // job; RunNone selects records that no job made
	RequestID string
	Since     time.Time // append time, inclusive
	Until     time.Time // append time, exclusive
	From      uint64    // stream sequence, inclusive
	Follow    bool      // go on with new records until ctx ends
	All       bool      // superseded duplicates too
	Bare      bool      // without inputs and outputs, which are then nil: quicker
	Join      bool      // with Record.Feedback filled in, of all that is in the log when the scan begins; not with Follow
}

// RunNone as Query.Run selects records that no job made.
const RunNone = "-"

// Reader reads records back, in stream order, folded to the canonical record unless Query.All.
type Reader interface {
	// Scan calls fn for each record until it returns false or an error. The record is lent for the call.
	Scan(ctx context.Context, q Query, fn func(*Record) (bool, error)) error
}
