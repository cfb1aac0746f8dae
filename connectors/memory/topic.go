package memory

import (
	"context"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// topic is what Broker.store guards.
type topic struct {
	name   string
	parts  [][]stored // by partition, sequences ascending
	next   uint64     // sequence of the newest message, one count for all partitions
	bytes  int64
	ids    map[string]schemas.Position
	robin  uint64
	groups map[string]*group
	change chan struct{} // closed and replaced when something may be received
}

type stored struct {
	seq uint64
	msg schemas.Message
}

func (t *topic) wake() {
	close(t.change)
	t.change = make(chan struct{})
}

// EnsureTopic implements connectors.Topics.
func (b *Broker) EnsureTopic(_ context.Context, name string, partitions int) error {
	const op = "memory.EnsureTopic"
	if err := schemas.CheckTopic(name); err != nil {
		return err
	}
	if partitions < 0 || partitions > 256 {
		return schemas.FieldErrorf(schemas.Invalid, op, "partitions", "%d: want 1 to 256", partitions)
	}
	b.store.Lock()
	defer b.store.Unlock()
	if t := b.store.topics[name]; t != nil {
		if partitions != 0 && partitions != len(t.parts) {
			return schemas.FieldErrorf(schemas.Invalid, op, "partitions", "topic %s has %d, wanted %d", name, len(t.parts), partitions)
		}
		return nil
	}
	if partitions == 0 {
		partitions = connectors.DefaultPartitions
	}
	b.store.topics[name] = &topic{
		name: name, parts: make([][]stored, partitions), ids: map[string]schemas.Position{},
		groups: map[string]*group{}, change: make(chan struct{}),
	}
	return nil
}

func (b *Broker) topic(op, name string) (*topic, error) {
	if err := schemas.CheckTopic(name); err != nil {
		return nil, err
	}
	t := b.store.topics[name]
	if t == nil {
		return nil, schemas.Errorf(schemas.NotFound, op, "no topic %s", name)
	}
	return t, nil
}

// Publish implements connectors.Publisher: all or none of the messages are stored. IDs are folded for as long as the
// broker lives.
func (b *Broker) Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error) {
	const op = "memory.Publish"
	if err := ctx.Err(); err != nil {
		return nil, schemas.Errorf(schemas.Unavailable, op, "%w", err)
	}
	b.store.Lock()
	defer b.store.Unlock()
	if _, err := b.room(op, msgs); err != nil {
		return nil, err
	}
	out := make([]schemas.Position, len(msgs))
	for i := range msgs {
		t := b.store.topics[msgs[i].Topic]
		if p, ok := t.ids[msgs[i].ID]; ok && msgs[i].ID != "" {
			out[i] = p
			continue
		}
		out[i] = t.add(&msgs[i], b.now())
		t.wake()
	}
	return out, nil
}

// room says why msgs cannot be stored. The index is not negative if one of them can never be, as it is. The lock is
// held.
func (b *Broker) room(op string, msgs []schemas.Message) (int, error) {
	size := map[*topic]int64{}
	for i := range msgs {
		if msgs[i].Topic == deadTopic {
			continue
		}
		t, err := b.topic(op, msgs[i].Topic)
		if err != nil {
			return -1, err
		}
		if err := b.fits(op, &msgs[i]); err != nil {
			return i, err
		}
		if size[t] += int64(len(msgs[i].Payload)); t.bytes+size[t] > b.cfg.TopicBytes {
			return -1, schemas.Errorf(schemas.Unavailable, op, "topic %s holds %d bytes: %w", t.name, t.bytes, schemas.ErrFull)
		}
	}
	return -1, nil
}

func (t *topic) add(m *schemas.Message, now time.Time) schemas.Position {
	p := 0
	if m.Key != "" {
		p = int(xxhash.Sum64String(m.Key) % uint64(len(t.parts)))
	} else {
		t.robin++
		p = int(t.robin % uint64(len(t.parts)))
	}
	t.next++
	n := *m
	n.Header, n.Time, n.Payload = m.Header.Clone(), now, append([]byte(nil), m.Payload...)
	if m.Key != "" {
		n.Header.Set(schemas.HeaderKey, m.Key)
	}
	t.parts[p] = append(t.parts[p], stored{seq: t.next, msg: n})
	t.bytes += int64(len(m.Payload))
	pos := schemas.Position{Stream: t.name, Partition: int32(p), Sequence: t.next}
	if m.ID != "" {
		t.ids[m.ID] = pos
	}
	return pos
}

// Topic implements connectors.Topics.
func (b *Broker) Topic(_ context.Context, name string) (connectors.TopicInfo, error) {
	b.store.Lock()
	defer b.store.Unlock()
	t, err := b.topic("memory.Topic", name)
	if err != nil {
		return connectors.TopicInfo{}, err
	}
	return t.info(), nil
}

// ListTopics implements connectors.Topics.
func (b *Broker) ListTopics(context.Context) ([]connectors.TopicInfo, error) {
	b.store.Lock()
	defer b.store.Unlock()
	out := make([]connectors.TopicInfo, 0, len(b.store.topics))
	for _, t := range b.store.topics {
		out = append(out, t.info())
	}
	slices.SortFunc(out, func(x, y connectors.TopicInfo) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func (t *topic) info() connectors.TopicInfo {
	i := connectors.TopicInfo{Name: t.name, Partitions: len(t.parts), Bytes: uint64(t.bytes)}
	for _, p := range t.parts {
		i.Messages += uint64(len(p))
		for _, s := range p {
			if i.First.IsZero() || s.msg.Time.Before(i.First) {
				i.First = s.msg.Time
			}
			if s.msg.Time.After(i.Last) {
				i.Last = s.msg.Time
			}
		}
	}
	for _, g := range t.groups {
		info := connectors.Group{Name: g.name}
		for p := range g.parts {
			info.Lag += uint64(len(t.parts[p]) - g.parts[p].next)
			info.Pending += uint64(len(g.parts[p].work))
		}
		i.Groups = append(i.Groups, info)
	}
	slices.SortFunc(i.Groups, func(x, y connectors.Group) int { return strings.Compare(x.Name, y.Name) })
	return i
}

// Spans implements connectors.Replayer.
func (b *Broker) Spans(_ context.Context, name string, start connectors.Start) ([]connectors.Span, error) {
	b.store.Lock()
	defer b.store.Unlock()
	t, err := b.topic("memory.Spans", name)
	if err != nil {
		return nil, err
	}
	out := make([]connectors.Span, len(t.parts))
	for p, part := range t.parts {
		s := connectors.Span{Topic: name, Partition: int32(p), First: max(start.Sequence, 1)}
		if start.Sequence == 0 && !start.Time.IsZero() {
			s.First = t.next + 1
			if i := sort.Search(len(part), func(i int) bool { return !part[i].msg.Time.Before(start.Time) }); i < len(part) {
				s.First = part[i].seq
			}
		}
		if len(part) > 0 {
			s.Last = part[len(part)-1].seq
		}
		out[p] = s
	}
	return out, nil
}

// Open implements connectors.Replayer.
func (b *Broker) Open(_ context.Context, s connectors.Span) (connectors.Source, error) {
	const op = "memory.Open"
	b.store.Lock()
	defer b.store.Unlock()
	t, err := b.topic(op, s.Topic)
	if err != nil {
		return nil, err
	}
	if s.Partition < 0 || int(s.Partition) >= len(t.parts) {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "partition", "topic %s has no partition %d", s.Topic, s.Partition)
	}
	part := t.parts[s.Partition]
	from := sort.Search(len(part), func(i int) bool { return part[i].seq >= s.First })
	to := sort.Search(len(part), func(i int) bool { return part[i].seq > s.Last })
	return &replay{t: t.name, p: s.Partition, left: part[min(from, to):to]}, nil
}

// EnsureQueue returns ErrUnsupported: a queue is for several processes.
func (b *Broker) EnsureQueue(context.Context, string, int64) error { return schemas.ErrUnsupported }

// QueuePublisher's publisher returns ErrUnsupported.
func (b *Broker) QueuePublisher() connectors.Publisher { return noQueue{} }

// SubscribeQueue returns ErrUnsupported.
func (b *Broker) SubscribeQueue(context.Context, string) (connectors.Source, error) {
	return nil, schemas.ErrUnsupported
}

// DropQueue returns ErrUnsupported.
func (b *Broker) DropQueue(context.Context, string) error { return schemas.ErrUnsupported }

type noQueue struct{}

func (noQueue) Publish(context.Context, []schemas.Message) ([]schemas.Position, error) {
	return nil, schemas.ErrUnsupported
}
