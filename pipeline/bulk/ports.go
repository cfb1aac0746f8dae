package bulk

import (
	"context"
	"log/slog"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
)

// Pipelines is what jobs need of the pipelines that live in this process.
type Pipelines interface {
	// Active returns the revision that serves now.
	Active(name string) (*pipeline.Revision, bool)
	// BanditStates returns what the pipeline's bandits know now, by node path, for Pin.
	BanditStates(name string) map[string]uint64
	// Pin loads (or finds) a revision here and holds it until Close. Its bandits decide by what they knew at states.
	Pin(ctx context.Context, rev *pipeline.Revision, states map[string]uint64) (Pinned, error)
	// PinShadow is Pin for a shadow of the revision; the outputs of the revision that is held are the shadow's.
	PinShadow(ctx context.Context, rev *pipeline.Revision, shadow string) (Pinned, error)
}

// Pinned is a revision that stays loaded until Close. Safe for concurrent use. *pipeline.Pinned satisfies it.
type Pinned interface {
	Revision() *pipeline.Revision
	// ScoreBulk appends one row to out for each row of in, or none on error. It waits for its turn in the bulk lane. The
	// Trail is nil where the route is one model.
	ScoreBulk(ctx context.Context, in, out *schemas.Batch, via, principal, run string, id func(row int) string) (*pipeline.Trail, error)
	Context(via, principal, run string) *lineage.Context
	// Online reports whether there was interactive work within the last second.
	Online() bool
	// Environment decides the bits of its answers here.
	Environment() pipeline.Environment
	Close()
}

// Records reads the lineage of requests and topics, as a job's source.
type Records interface {
	lineage.Reader
	// Bounds returns the first and the last sequence that the stream holds; last < first: it is empty.
	Bounds(ctx context.Context) (first, last uint64, err error)
}

// FileOptions says what to read of a file.
type FileOptions struct {
	Columns   []string        // only these, in the file's order; nil: all
	BatchRows int             // rows of the file that a record covers
	FromRow   int64           // rows to pass over
	Want      *schemas.Schema // types the columns of text files
	// OnRowError takes each row of a text file that cannot be read; row counts from 0.
	OnRowError func(row int64, err *schemas.Error) error
}

// FileReader gives the rows of a file in order. connectors/files.Reader satisfies it.
type FileReader interface {
	Schema() *arrow.Schema
	TotalRows() (int64, bool)
	// Next returns a record of the next BatchRows rows of the file, without those that OnRowError took; io.EOF after
	// the last. The caller releases it.
	Next(ctx context.Context) (arrow.Record, error)
	Position() int64 // rows of the file that were passed
	Close() error
}

// FileWriter writes a file that appears under its name by Commit alone, synced and renamed. *connectors/files.Writer
// satisfies it.
type FileWriter interface {
	Write(rec arrow.Record) error // rec stays the caller's
	Commit() error
	Abort() // removes what was written; does nothing after Commit
}

// Files opens and creates files; the format follows from the path's ending. An ending that names no format is Invalid.
type Files interface {
	Open(ctx context.Context, path string, o FileOptions) (FileReader, error)
	// Create begins a file that replaces whatever has its name when it is committed. Invalid: the format cannot hold a
	// column. With an error the FileWriter is nil.
	Create(path string, s *arrow.Schema) (FileWriter, error)
	// CheckFormat returns Invalid unless the path's ending names a format.
	CheckFormat(path string) error
}

// Ledgers opens topics whose transport stores messages, and how far their writer is, as one.
type Ledgers interface {
	// OpenLedger opens the ledger of a name on a topic that exists. Whoever opened it before can store nothing more: what
	// he did not complete is gone, what he completed is in Progress. ErrUnsupported: the topic's transport has none.
	OpenLedger(ctx context.Context, topic, name string) (Ledger, error)
	// DropLedger removes what a ledger keeps beside its messages, and fences its writer. It is no error if there is none,
	// or can be none.
	DropLedger(ctx context.Context, topic, name string) error
}

// Ledger is an open ledger. One goroutine at a time uses it.
type Ledger interface {
	// Progress is what the last Write that took effect said; n is -1 if there was none, or if that was forgotten.
	Progress() (n int64, text string)
	// Write stores messages, on any topics of the transport, in their order, and the progress: both or nothing, and once.
	// n grows from call to call; text is a few hundred bytes. After an error the outcome may not be known: open it again
	// and see. An error that wraps connectors.ErrRevoked says that somebody else may have opened it.
	Write(ctx context.Context, msgs []schemas.Message, n int64, text string) error
}

// Deps is what a Service works with. All are required.
type Deps struct {
	Jobs      schemas.KV // keys job.<id> and lease.<id>
	Logs      schemas.Logs
	Queues    connectors.Queues
	Pipelines Pipelines
	Lineage   lineage.Appender // of the jobs' stream
	Records   Records          // of the requests' and topics' stream
	// Fill returns how full the lineage stream of jobs is, 0 to 1.
	Fill      func(ctx context.Context) (float64, error)
	Replayer  connectors.Replayer
	Topics    connectors.Topics
	Publisher connectors.Publisher
	Ledgers   Ledgers
	Files     Files
	// Codec finds how a topic's message is written, by its headers, or as the pipeline's input says; Unavailable if that
	// cannot be found out now. A schemas.RowCodec loses only bad rows of a message. See codec.Set.For.
	Codec   func(ctx context.Context, m *schemas.Message, in *codec.Input) (schemas.Codec, error)
	Encoder schemas.Encoder // of the messages of a topic sink
	Log     *slog.Logger
	Metrics *Metrics // nil: counted nowhere
}

func (d *Deps) validate() error {
	for name, missing := range map[string]bool{
		"Jobs": d.Jobs == nil, "Logs": d.Logs == nil, "Queues": d.Queues == nil, "Pipelines": d.Pipelines == nil,
		"Lineage": d.Lineage == nil, "Records": d.Records == nil, "Fill": d.Fill == nil, "Replayer": d.Replayer == nil,
		"Topics": d.Topics == nil, "Publisher": d.Publisher == nil, "Ledgers": d.Ledgers == nil, "Files": d.Files == nil, "Codec": d.Codec == nil,
		"Encoder": d.Encoder == nil, "Log": d.Log == nil,
	} {
		if missing {
			return schemas.FieldErrorf(schemas.Internal, "bulk.New", "Deps."+name, "is missing")
		}
	}
	return nil
}
