package schemas

import (
	"context"
	"errors"
	"io"
	"time"
)

// The ports are the stores that lineage, registry and control need. connectors/nats implements them (Kafka later
// implements Log); cmd hands them over. All are safe for concurrent use, and every call ends with its context.

// ErrConflict is wrapped by a compare-and-set that lost, and by a Create of a key that exists.
var ErrConflict = errors.New("changed by somebody else")

// ErrFull is wrapped (in an Unavailable error) by an append to a log that is full and discards the new.
var ErrFull = errors.New("stream is full")

// KV is a small, watched, versioned map: the control plane.
type KV interface {
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error) // NotFound
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)              // ErrConflict if it exists
	Update(ctx context.Context, key string, value []byte, last uint64) (revision uint64, err error) // ErrConflict unless last is current
	Delete(ctx context.Context, key string, last uint64) error                                      // last 0: whatever is there
	Keys(ctx context.Context, prefix string) ([]string, error)                                      // sorted
	// Watch calls fn for every key under prefix as it is now, then once with an empty key ("all seen"), then for each
	// change until ctx ends. fn runs on one goroutine; a deletion has deleted set. Watch returns ctx's error.
	Watch(ctx context.Context, prefix string, fn func(key string, value []byte, revision uint64, deleted bool)) error
}

// Change is what became of a key of a bucket or a compacted topic that is followed.
type Change struct {
	Key     string
	Value   []byte // whoever gets the change may keep it; nil if the key was deleted
	Deleted bool
	Version uint64    // KV revision; of a topic the offset + 1. It rises with each change of a key
	Time    time.Time // when it was stored
}

// Blobs stores artifacts under names that never change their content.
type Blobs interface {
	Put(ctx context.Context, name string, r io.Reader) error
	Get(ctx context.Context, name string) (io.ReadCloser, error) // NotFound
	Has(ctx context.Context, name string) (bool, error)
	Delete(ctx context.Context, name string) error
}

// Entry is one message of a Log.
type Entry struct {
	Sequence uint64
	Subject  string // below the log's prefix: "fraud" of leat.lineage.fraud
	Time     time.Time
	Header   Header
	Payload  []byte
}

// Log is a durable stream that is appended to and read by position.
type Log interface {
	// Append returns the sequence when the log has acknowledged. id folds repeats within the transport's duplicate
	// window; "" for none. A full log is Unavailable wrapping ErrFull. An error that is neither ErrFull nor Invalid
	// leaves the outcome unknown: repeat with the same id and the same bytes.
	Append(ctx context.Context, subject, id string, payload []byte) (uint64, error)
	// Insert appends unless the subject holds a message already, now and for ever; then existed is true and the
	// sequence that of the first one. Works, for a subject that exists, on a full log too.
	Insert(ctx context.Context, subject string, payload []byte) (seq uint64, existed bool, err error)
	// Read calls fn for the entries from sequence on (0: the first there is) whose subject is in subjects (none: all),
	// up to the last one stored when it was called, or until fn returns false. The entry's bytes are fn's to keep.
	// With follow it goes on for new entries until ctx ends.
	Read(ctx context.Context, from uint64, subjects []string, follow bool, fn func(e *Entry) bool) error
	// Last returns the newest entry of a subject, NotFound if there is none.
	Last(ctx context.Context, subject string) (*Entry, error)
	// SequenceAt returns the first sequence stored at or after t; one past the last if there is none.
	SequenceAt(ctx context.Context, t time.Time) (uint64, error)
	Stats(ctx context.Context) (LogStats, error)
	// Purge deletes everything before the sequence.
	Purge(ctx context.Context, before uint64) error
}

// LogStats says how full a log is.
type LogStats struct {
	First, Last, Messages, Bytes, MaxBytes uint64
	Subjects                               uint64
}

// LogConfig describes a log to be made.
type LogConfig struct {
	Name       string // stream name: LEAT_LINEAGE
	Prefix     string // subjects are Prefix + "." + subject
	MaxBytes   int64  // always set: a full disk stops everything
	DiscardOld bool   // when full: drop the oldest instead of refusing the new
	Once       bool   // one message a subject, for ever (Insert)
	Replicas   int    // 0: 1
}

// Logs makes, opens and drops logs.
type Logs interface {
	OpenLog(ctx context.Context, c LogConfig) (Log, error) // creates it, or checks that what exists is the same kind
	DropLog(ctx context.Context, name string) error
}
