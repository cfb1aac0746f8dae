package bare

import (
	"context"
	"sync"

	"github.com/segmentio/kafka-go"
)

// Sender writes the records of many callers to a topic by natural batching: what comes while two requests are on their
// way goes into the next one, so that one caller alone waits for nobody. Each batch goes to the next partition.
type Sender struct {
	k          *Kafka
	topic      string
	partitions int
	wg         sync.WaitGroup
	mu         struct {
		sync.Mutex
		queue []sending
		fly   int // requests under way
		turn  int // partition of the next batch
	}
}

type sending struct {
	record kafka.Record
	fail   func(error)
}

// flying is how many requests are on their way at once, which go over two connections.
const flying = 2

// NewSender returns a sender to that many partitions.
func NewSender(k *Kafka, topic string, partitions int) *Sender {
	return &Sender{k: k, topic: topic, partitions: partitions}
}

// Send queues a record; fail is called if it could not be written.
func (s *Sender) Send(ctx context.Context, r kafka.Record, fail func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.queue = append(s.mu.queue, sending{r, fail})
	if s.mu.fly < flying {
		s.mu.fly++
		s.wg.Go(func() { s.flush(ctx) })
	}
}

// Wait returns when nothing is under way.
func (s *Sender) Wait() { s.wg.Wait() }

// flush writes what is queued until nothing is.
func (s *Sender) flush(ctx context.Context) {
	var rs []kafka.Record
	for {
		s.mu.Lock()
		q := s.mu.queue
		q = q[:min(len(q), Batch)]
		s.mu.queue = s.mu.queue[len(q):]
		partition := s.mu.turn
		if len(q) == 0 {
			s.mu.queue = nil
			s.mu.fly--
			s.mu.Unlock()
			return
		}
		s.mu.turn = (partition + 1) % s.partitions
		s.mu.Unlock()
		rs = rs[:0]
		for i := range q {
			rs = append(rs, q[i].record)
		}
		if err := s.k.Produce(ctx, s.topic, partition, rs); err != nil {
			for i := range q {
				q[i].fail(err)
			}
		}
	}
}
