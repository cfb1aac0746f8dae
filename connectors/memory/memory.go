package memory

import (
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Config bounds a Broker.
type Config struct {
	Queue      int   // requests that may wait for each pipeline; more are answered Overloaded
	MaxPayload int   // bytes of one message, headers included
	TopicBytes int64 // of payload that one topic keeps; a full topic refuses
}

// Default returns the bounds of the NATS transport.
func Default() Config { return Config{Queue: 4096, MaxPayload: 1 << 20, TopicBytes: 256 << 20} }

// Validate reports the first fault with its field.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name string
		v    int64
	}{{"queue", int64(c.Queue)}, {"max_payload", int64(c.MaxPayload)}, {"topic_bytes", c.TopicBytes}} {
		if f.v <= 0 {
			return schemas.FieldErrorf(schemas.Invalid, "memory.Config.Validate", "memory."+f.name, "must be positive")
		}
	}
	return nil
}

// Broker carries messages between the goroutines of a process. It is safe for concurrent use.
type Broker struct {
	cfg Config

	requests struct {
		sync.RWMutex
		served map[string][]*scoreSource // by pipeline
		turn   map[string]int
	}
	waiting struct {
		sync.Mutex
		next uint64
		by   map[string]*waiter
	}
	store struct {
		sync.Mutex
		topics map[string]*topic
		dead   []schemas.Message
	}
	now func() time.Time
}

var (
	_ connectors.Requester  = (*Broker)(nil)
	_ connectors.Responder  = (*Broker)(nil)
	_ connectors.Publisher  = (*Broker)(nil)
	_ connectors.Topics     = (*Broker)(nil)
	_ connectors.Replayer   = (*Broker)(nil)
	_ connectors.Queues     = (*Broker)(nil)
	_ connectors.Transactor = (*Broker)(nil)
)

// New makes a broker.
func New(c Config) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: c, now: time.Now}
	b.requests.served = map[string][]*scoreSource{}
	b.requests.turn = map[string]int{}
	b.waiting.by = map[string]*waiter{}
	b.store.topics = map[string]*topic{}
	return b, nil
}

func (b *Broker) fits(op string, m *schemas.Message) error {
	n := len(m.Payload)
	for k, vs := range m.Header {
		for _, v := range vs {
			n += len(k) + len(v) + 4
		}
	}
	if n > b.cfg.MaxPayload {
		return schemas.Errorf(schemas.Invalid, op, "message of %d bytes with its headers: at most %d", n, b.cfg.MaxPayload)
	}
	return nil
}
