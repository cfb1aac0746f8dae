package connectors

import "context"

// Queues are work queues: each message is handed to one subscriber of any process, in no promised order, again if it
// was not settled, and is gone once it was accepted. Jobs send their chunks to the scorers of all processes this way.
type Queues interface {
	// EnsureQueue makes the queue. A full queue (maxBytes) refuses to publish with Unavailable wrapping ErrFull: the
	// producer waits and tries again.
	EnsureQueue(ctx context.Context, name string, maxBytes int64) error
	// QueuePublisher stores into queues: Message.Topic is the queue's name, Message.ID folds repeats.
	QueuePublisher() Publisher
	SubscribeQueue(ctx context.Context, name string) (Source, error)
	DropQueue(ctx context.Context, name string) error
}
