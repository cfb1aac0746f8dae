package kafka

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	meta "github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/leatstream/leat/schemas"
)

// metadataAge is how old a topic's partitions and leaders may be before they are looked up again, beside the work. A
// broker that refuses, saying that it does not lead, is believed at once.
const metadataAge = 5 * time.Second

// metadata knows the partitions and leaders of the topics that this client uses, and of no others.
type metadata struct {
	c  *Client
	mu struct {
		sync.Mutex
		topics  map[string]*topicMeta
		looking map[string]*look
		brokers []int32 // of the last answer
	}
}

// topicMeta is immutable.
type topicMeta struct {
	leaders []int32 // broker of each partition, -1: none now
	at      time.Time
}

// look is a question on its way, shared by all who ask the same meanwhile.
type look struct {
	done chan struct{}
	t    *topicMeta
	err  error
}

func (m *metadata) init(c *Client) {
	m.c = c
	m.mu.topics = map[string]*topicMeta{}
	m.mu.looking = map[string]*look{}
}

// lookTimeout bounds one broker's answer about the cluster: one that is frozen must not keep a client from those that
// are well. It is a matter of a millisecond.
const lookTimeout = time.Second

// look asks brokers, one after another, until one answers or each has had its chance. nil topics means none: the answer
// is about the cluster alone.
func (m *metadata) look(ctx context.Context, topics []string) (*meta.Response, error) {
	m.mu.Lock()
	brokers := m.mu.brokers
	m.mu.Unlock()
	if len(brokers) > 0 { // else this is the first look, with connections to make
		ask := append([]int32{anyBroker}, brokers...)
		rand.Shuffle(len(brokers), func(i, j int) { ask[i+1], ask[j+1] = ask[j+1], ask[i+1] })
		for _, b := range ask {
			quick, cancel := context.WithTimeout(ctx, lookTimeout)
			r, err := m.lookAt(quick, b, topics)
			cancel()
			if err == nil || !passing(err) || ctx.Err() != nil {
				return r, err
			}
		}
	}
	return m.lookAt(ctx, anyBroker, topics) // with time for a slow connection
}

func (m *metadata) lookAt(ctx context.Context, broker int32, topics []string) (*meta.Response, error) {
	if topics == nil {
		topics = []string{} // on the wire, null means all
	}
	a, err := m.c.ask(ctx, broker, &meta.Request{TopicNames: topics})
	if err != nil {
		return nil, err
	}
	r := a.(*meta.Response)
	brokers := make([]int32, len(r.Brokers))
	for i := range brokers {
		brokers[i] = r.Brokers[i].NodeID
	}
	m.mu.Lock()
	m.mu.brokers = brokers
	m.mu.Unlock()
	return r, nil
}

// topic returns what is known of a topic (its name in the cluster): NotFound if brokers say that there is none.
func (m *metadata) topic(ctx context.Context, op, topic string) (*topicMeta, error) {
	m.mu.Lock()
	t := m.mu.topics[topic]
	if t != nil && time.Since(t.at) > metadataAge && m.mu.looking[topic] == nil {
		m.start(topic)
	}
	m.mu.Unlock()
	if t != nil {
		return t, nil
	}
	return m.fresh(ctx, op, topic)
}

// fresh asks until a broker answers. A topic that is not there is asked for twice, since one that was just made is
// known to one broker sooner than to another.
func (m *metadata) fresh(ctx context.Context, op, topic string) (*topicMeta, error) {
	missing := 0
	for {
		t, err := m.ask(ctx, topic)
		switch {
		case err == nil:
			return t, nil
		case ctx.Err() != nil:
			return nil, m.c.late(ctx, op, "topic "+m.c.user(topic), err)
		case m.c.closing.Err() != nil:
			return nil, errClosed(op)
		case errors.Is(err, kafka.UnknownTopicOrPartition):
			if missing++; missing > 1 {
				return nil, noTopic(op, m.c.user(topic))
			}
		case !passing(err):
			return nil, classify(op, "topic "+m.c.user(topic), err)
		}
		if sleep(ctx, retryPause) != nil {
			return nil, m.c.late(ctx, op, "topic "+m.c.user(topic), err)
		}
	}
}

// ask looks once, together with others who ask the same. After an error that has to do with brokers the library looks
// for them again.
func (m *metadata) ask(ctx context.Context, topic string) (*topicMeta, error) {
	m.mu.Lock()
	l := m.mu.looking[topic]
	if l == nil {
		l = m.start(topic)
	}
	m.mu.Unlock()
	select {
	case <-l.done:
		return l.t, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start begins a look. The lock is held.
func (m *metadata) start(topic string) *look {
	l := &look{done: make(chan struct{})}
	m.mu.looking[topic] = l
	ok := m.c.spawn(func() {
		l.t, l.err = m.lookTopic(m.c.closing, topic)
		m.mu.Lock()
		delete(m.mu.looking, topic)
		switch {
		case l.err == nil:
			m.mu.topics[topic] = l.t
		case errors.Is(l.err, kafka.UnknownTopicOrPartition):
			delete(m.mu.topics, topic)
		}
		m.mu.Unlock()
		close(l.done)
	})
	if !ok {
		l.err = net.ErrClosed
		delete(m.mu.looking, topic)
		close(l.done)
	}
	return l
}

func (m *metadata) lookTopic(ctx context.Context, topic string) (*topicMeta, error) {
	r, err := m.look(ctx, []string{topic})
	if err != nil {
		return nil, err
	}
	if len(r.Topics) != 1 {
		return nil, kafka.UnknownTopicOrPartition
	}
	t := &r.Topics[0]
	if err := codeError(t.ErrorCode); err != nil {
		return nil, err
	}
	out := &topicMeta{leaders: make([]int32, len(t.Partitions)), at: time.Now()}
	for i := range out.leaders {
		out.leaders[i] = -1
	}
	for i := range t.Partitions {
		if p := &t.Partitions[i]; p.PartitionIndex >= 0 && int(p.PartitionIndex) < len(out.leaders) {
			out.leaders[p.PartitionIndex] = p.LeaderID
		}
	}
	if len(out.leaders) == 0 {
		return nil, kafka.LeaderNotAvailable
	}
	return out, nil
}

// forget makes the next use of a topic look it up anew.
func (m *metadata) forget(topic string) {
	m.mu.Lock()
	delete(m.mu.topics, topic)
	m.mu.Unlock()
}

// leader returns the broker that leads a partition; -1 if there is none now.
func (m *metadata) leader(ctx context.Context, op, topic string, partition int32) (int32, error) {
	t, err := m.topic(ctx, op, topic)
	if err != nil {
		return -1, err
	}
	if partition < 0 || int(partition) >= len(t.leaders) {
		return -1, noPartition(op, m.c.user(topic), partition, len(t.leaders))
	}
	return t.leaders[partition], nil
}

// refresh looks a topic up after a broker refused or did not answer, until one answers, and has the library find the
// brokers again.
func (m *metadata) refresh(ctx context.Context, op, topic string) (*topicMeta, error) {
	m.c.rediscoverSoon()
	return m.fresh(ctx, op, topic)
}

// relook is refresh, once. The error is the library's.
func (m *metadata) relook(ctx context.Context, topic string) (*topicMeta, error) {
	m.c.rediscoverSoon()
	return m.ask(ctx, topic)
}

// missing says since when brokers answer that a topic is not there.
type missing struct{ since time.Time }

// missingFor is how long brokers must say so before it is believed of a topic that was there: each learns of topics and
// their leaders in its own time.
const missingFor = 500 * time.Millisecond

// believe reports whether err is that answer, and has been for long enough.
func (m *missing) believe(err error) bool {
	if !errors.Is(err, kafka.UnknownTopicOrPartition) {
		m.since = time.Time{}
		return false
	}
	if m.since.IsZero() {
		m.since = time.Now()
	}
	return time.Since(m.since) >= missingFor
}

// partitions returns the number of partitions of a topic, as the user names it. NotFound if there is none.
func (c *Client) partitions(ctx context.Context, op, topic string) (int, error) {
	if err := checkTopicName(op, topic); err != nil {
		return 0, err
	}
	t, err := c.meta.topic(ctx, op, c.name(topic))
	if err != nil {
		return 0, err
	}
	return len(t.leaders), nil
}

// checkTopicName refuses what Kafka would not take.
func checkTopicName(op, topic string) error {
	if !legalName(topic) {
		return schemas.Errorf(schemas.Invalid, op, "topic name %.80q: want 1 to 249 of letters, digits, '.', '_' and '-'", topic)
	}
	return nil
}

// user is userName for messages to people.
func (c *Client) user(topic string) string {
	n, _ := c.userName(topic)
	return n
}

func noTopic(op, topic string) error {
	return schemas.Errorf(schemas.NotFound, op, "no topic %s in the Kafka cluster", topic)
}

func noPartition(op, topic string, partition int32, n int) error {
	return schemas.FieldErrorf(schemas.Invalid, op, "partition", "topic %s has partitions 0 to %d, not %d", topic, n-1, partition)
}

func errClosed(op string) error {
	return schemas.Errorf(schemas.Unavailable, op, "the Kafka client is closed")
}

// late is the error of what did not happen before ctx ended, with what stood in the way.
func (c *Client) late(ctx context.Context, op, what string, last error) error {
	if c.closing.Err() != nil {
		return errClosed(op)
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		return schemas.Errorf(schemas.Unavailable, op, "%s: %w", what, cause)
	}
	if last == nil || errors.Is(last, cause) {
		return schemas.Errorf(schemas.Expired, op, "%s: no answer in time: %w", what, cause)
	}
	return schemas.Errorf(schemas.Expired, op, "%s: no answer in time: %w (%w)", what, plainly(last), cause)
}
