package kafka

import (
	"context"
	"slices"
	"sync"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Publish stores messages on their topics and returns when all in-sync replicas have them. Messages of one key keep
// their order. What a broker does not acknowledge is sent again, and stored once, until ctx ends.
func (c *Client) Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error) {
	const op = "kafka.Publish"
	room := publishRooms.Get().(*publishRoom)
	defer room.free()
	recs := slices.Grow(room.recs, len(msgs))[:len(msgs)]
	room.recs = recs
	a := addresser{c: c, op: op, room: room.headerRoom}
	if len(msgs) > 0 {
		a.room.reserve(len(msgs), &msgs[0])
	}
	defer func() { room.headerRoom = a.room }()
	// Messages without a key go together, call by call to another partition: together they cost less, and calls of one
	// message still spread over all.
	turn := c.robin.Add(1)
	for i := range msgs {
		var err error
		if recs[i], err = a.record(ctx, &msgs[i], turn+uint32(i/keylessRun)); err != nil {
			return nil, err
		}
	}
	offsets, err := c.produce(ctx, recs)
	if err != nil {
		return nil, err
	}
	out := make([]schemas.Position, len(msgs))
	for i := range out {
		out[i] = schemas.Position{Stream: msgs[i].Topic, Partition: recs[i].partition, Sequence: uint64(offsets[i]) + 1}
	}
	return out, nil
}

// publishRoom is what a call needs to make its records; nothing of it is kept once produce has returned.
type publishRoom struct {
	headerRoom
	recs []record
}

var publishRooms = sync.Pool{New: func() any { return new(publishRoom) }}

// maxPublishRoom is how many records, and bytes of their headers, are not given back to the collector.
const maxPublishRoom, maxPublishText = 1 << 13, 1 << 21

func (r *publishRoom) free() {
	if cap(r.recs) > maxPublishRoom || cap(r.text) > maxPublishText {
		return
	}
	clear(r.recs)
	clear(r.headers)
	r.recs, r.headers, r.text = r.recs[:0], r.headers[:0], r.text[:0]
	publishRooms.Put(r)
}

// keylessRun is how many messages without a key, of one call, go to a partition before the next one has its turn.
const keylessRun = 100

// toRecord addresses a message and checks that its topic takes it: NotFound, or Invalid with its size and the limit. If
// it has no key, it goes to the partition whose turn it is.
func (c *Client) toRecord(ctx context.Context, op string, m *schemas.Message, turn uint32) (record, error) {
	a := addresser{c: c, op: op}
	return a.record(ctx, m, turn)
}

// addresser makes records of messages and knows the topic of the last one.
type addresser struct {
	c           *Client
	op          string
	topic, name string // as the user names it, and in the cluster
	partitions  int
	room        headerRoom
}

func (a *addresser) record(ctx context.Context, m *schemas.Message, turn uint32) (record, error) {
	if a.topic != m.Topic || a.partitions == 0 {
		n, err := a.c.partitions(ctx, a.op, m.Topic)
		if err != nil {
			return record{}, err
		}
		a.topic, a.name, a.partitions = m.Topic, a.c.name(m.Topic), n
	}
	r := record{topic: a.name, value: m.Payload, headers: a.room.of(m)}
	if m.Key != "" {
		r.key, r.partition = []byte(m.Key), partitionOf(m.Key, a.partitions)
	} else {
		r.partition = int32(turn % uint32(a.partitions))
	}
	if r.value == nil {
		r.value = []byte{} // a null value is a tombstone, which deletes on a compacted topic: nothing here means one
	}
	return r, a.c.checkSize(ctx, a.op, &r)
}

// smallMessage is below every limit that is worth a look: brokers take 1 MiB as they come.
const smallMessage = 128 << 10

// checkSize is Invalid for a record that its topic would not take.
func (c *Client) checkSize(ctx context.Context, op string, r *record) error {
	size := sealedSize(r.key, r.value, r.headers)
	if size < smallMessage {
		return nil
	}
	limit, err := c.maxMessage(ctx, r.topic)
	if err != nil {
		if schemas.KindOf(err) == schemas.Denied {
			return nil // the broker refuses what is too large, with less to say
		}
		return err
	}
	if size = batchSize(size); size > limit {
		return oversize(op, c.user(r.topic), size, limit)
	}
	return nil
}

var _ connectors.Publisher = (*Client)(nil)
