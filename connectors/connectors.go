package connectors

import (
	"context"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Delivery is a message lent to its receiver until it is settled, once, as a whole.
type Delivery struct {
	schemas.Message
	From    schemas.Position // zero for a core request
	Attempt int              // from 1; a hint: a server that dies may forget
	Term    uint64           // which hold of its partition it came under, from 1; 0 where nothing depends on it: see Transactor
	ReplyTo string           // where a Response goes; "" if nobody waits
	Settler Settler
}

// Source hands over deliveries. One goroutine calls Receive; Drain and Close may be called from any.
type Source interface {
	// Receive blocks for the first delivery, then adds what is queued already, up to max, and returns. It returns
	// ctx.Err() when ctx ends first, schemas.ErrDrained when the source was drained and nothing is left, and an
	// Unavailable error only when the source cannot recover by itself.
	Receive(ctx context.Context, max int) ([]*Delivery, error)
	// Drain stops taking new messages: what was taken is still received, then ErrDrained. Idempotent; does not block.
	Drain()
	// Close hands unsettled deliveries back to the transport, so that another consumer gets them. Idempotent; legal
	// without Drain.
	Close(ctx context.Context) error
}

// Settler ends the loan of deliveries. It is safe for concurrent use. Settling twice is an error of the caller and is
// reported as Internal. On a core request Accept and Reject do nothing and Retry returns ErrUnsupported.
type Settler interface {
	// Accept says that everything that followed from the deliveries is durable.
	Accept(ctx context.Context, ds []*Delivery) error
	// Retry asks for d again, Attempt + 1, after at least the given time. On an ordered source nothing later of its
	// partition is delivered before it.
	Retry(ctx context.Context, d *Delivery, after time.Duration) error
	// Reject writes d and the cause to the dead-letter stream, then advances. If that write fails, d stays unsettled.
	Reject(ctx context.Context, d *Delivery, cause error) error
}

// Publisher stores messages. It is safe for concurrent use.
type Publisher interface {
	// Publish returns when the transport has acknowledged all messages, with their positions, in order. On error some
	// may be stored: publishing the same messages again with the same IDs is safe for readers that fold by id. A
	// message beyond the transport's limit is Invalid, with its size and the limit; a full stream is Unavailable.
	Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error)
}

// Requester asks a topic and waits for the one answer. It is safe for concurrent use.
type Requester interface {
	// Request returns the answer, or NotFound at once when nobody serves the topic, or Expired when ctx ends first.
	// An answer that carries Leat-Error-Kind is returned as a message, not as an error. The caller keeps m.
	Request(ctx context.Context, m *schemas.Message) (*schemas.Message, error)
}

// Response is an answer to a Delivery that has a ReplyTo.
type Response struct {
	To      string
	Header  schemas.Header
	Payload []byte // may be reused by the caller once Respond has returned
}

// Responder answers. It is safe for concurrent use.
type Responder interface {
	// Respond writes all answers with one flush. An answer to a caller that is gone is not an error.
	Respond(ctx context.Context, rs []Response) error
}

// Start says where in a topic to begin. The zero Start is the beginning.
type Start struct {
	Sequence uint64    // first sequence wanted, in every partition; 0: from the beginning
	Time     time.Time // first stored time wanted; used if not zero and Sequence is 0
}

// Span is a stored range of one partition, both ends included. Last < First means empty.
type Span struct {
	Topic       string
	Partition   int32
	First, Last uint64
}

// Replayer reads what is stored. It is safe for concurrent use.
type Replayer interface {
	// Spans fixes the ends now: one span for each partition, from start to the last message stored at this moment.
	Spans(ctx context.Context, topic string, start Start) ([]Span, error)
	// Open returns a source over one span that ends with ErrDrained after its last message. Gaps (deleted or expired
	// messages) are passed over. Its deliveries need no settlement.
	Open(ctx context.Context, s Span) (Source, error)
}

// Topics creates and describes topics. It is safe for concurrent use.
type Topics interface {
	// EnsureTopic makes the topic with so many partitions, or checks what is there: a difference is an Invalid error
	// that names it, never changed in silence. partitions 0 means the default (8), or whatever exists.
	EnsureTopic(ctx context.Context, name string, partitions int) error
	Topic(ctx context.Context, name string) (TopicInfo, error)
	ListTopics(ctx context.Context) ([]TopicInfo, error)
	// Subscribe joins a group on a topic: messages stored from its first subscription on (all, for a new group).
	Subscribe(ctx context.Context, topic, group string) (Source, error)
}

// TopicInfo describes a topic.
type TopicInfo struct {
	Name       string    `json:"name"`
	Partitions int       `json:"partitions"`
	Messages   uint64    `json:"messages"`
	Bytes      uint64    `json:"bytes"`
	First      time.Time `json:"first,omitzero"` // stored time of the oldest message
	Last       time.Time `json:"last,omitzero"`
	Groups     []Group   `json:"groups,omitempty"`
}

// Group describes a consumer group of a topic.
type Group struct {
	Name    string `json:"name"`
	Lag     uint64 `json:"lag"`     // stored and not yet delivered
	Pending uint64 `json:"pending"` // delivered and not yet settled
}

// DefaultPartitions is the number of partitions of a topic that nobody stated.
const DefaultPartitions = 8
