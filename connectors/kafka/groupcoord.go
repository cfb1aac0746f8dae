package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
)

// coordinator is the broker that keeps a group's or a transactional id's state, as this client knows it. The library
// asks for it before each call and does not look at the answer's error: here it is asked for once, and again when it
// moved. It is safe for concurrent use.
type coordinator struct {
	c    *Client
	key  string // in the cluster
	kind kafka.CoordinatorKeyType
	mu   sync.Mutex
	node int32 // -1: not known
}

func (c *Client) coordinator(kind kafka.CoordinatorKeyType, key string) *coordinator {
	return &coordinator{c: c, key: key, kind: kind, node: -1}
}

// ask makes one call, once. code takes the error out of an answer: the one that matters, if it has several.
func (k *coordinator) ask(ctx context.Context, req protocol.Message, code func(protocol.Message) int16) (protocol.Message, error) {
	return k.do(ctx, func(ctx context.Context, node int32) (protocol.Message, error) {
		r, err := k.c.ask(ctx, node, req)
		if err == nil {
			err = codeError(code(r))
		}
		return r, err
	})
}

// do makes one call to the coordinator and forgets who it was if it did not answer, or not as one.
func (k *coordinator) do(ctx context.Context, call func(ctx context.Context, node int32) (protocol.Message, error)) (protocol.Message, error) {
	node, err := k.find(ctx)
	if err != nil {
		return nil, err
	}
	r, err := call(ctx, node)
	if err != nil && coordinatorGone(err) && ctx.Err() == nil {
		k.mu.Lock()
		if k.node == node {
			k.node = -1
		}
		k.mu.Unlock()
	}
	return r, err
}

// coordinatorGone reports whether another broker may be the coordinator now.
func coordinatorGone(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return true // it did not answer
	}
	switch code {
	case kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup, kafka.BrokerNotAvailable:
		return true
	}
	return false
}

func (k *coordinator) find(ctx context.Context) (int32, error) {
	k.mu.Lock()
	node := k.node
	k.mu.Unlock()
	if node >= 0 {
		return node, nil
	}
	req := &findcoordinator.Request{Key: k.key, KeyType: int8(k.kind)}
	m, err := k.findAt(ctx, anyBroker, req)
	if err != nil && passing(err) && ctx.Err() == nil {
		// The one that was asked may be frozen or gone: the others know as well.
		if all, lerr := k.c.meta.look(ctx, nil); lerr == nil {
			for _, i := range rand.Perm(len(all.Brokers)) {
				if m, err = k.findAt(ctx, all.Brokers[i].NodeID, req); err == nil || ctx.Err() != nil {
					break
				}
			}
		}
	}
	if err != nil {
		return -1, err
	}
	k.mu.Lock()
	k.node = m.NodeID
	k.mu.Unlock()
	return m.NodeID, nil
}

// findTimeout bounds one broker's answer to who the coordinator is: it knows, or does not answer at all.
const findTimeout = time.Second

func (k *coordinator) findAt(ctx context.Context, broker int32, req *findcoordinator.Request) (*findcoordinator.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, min(findTimeout, k.c.cfg.CallTimeout))
	defer cancel()
	m, err := k.c.ask(ctx, broker, req)
	if err != nil {
		return nil, err
	}
	r := m.(*findcoordinator.Response)
	return r, codeError(r.ErrorCode)
}

// generation is one member's place in its group.
type generation struct {
	id     int32
	member string // "": not in the group
}

// place is how far a group is in a partition.
type place struct {
	offset int64  // the first record that is not settled, -1: none committed
	high   int64  // records below were in somebody's hands
	exact  bool   // committed by a transaction
	text   string // of a ledger
}

// The note that is kept with an offset: up to where records were handed over when it was committed. Whoever goes on
// from there marks them as second attempts.
const (
	notePlain = "leat:"
	noteExact = "leat-tx:"
	noteText  = "leat-ledger:" // what a ledger's writer says
)

func (p place) note() string {
	if p.exact {
		return noteExact + strconv.FormatInt(p.high, 10)
	}
	return notePlain + strconv.FormatInt(p.high, 10)
}

// parsePlace is the inverse of note; other software's notes say nothing.
func parsePlace(offset int64, note string) place {
	p := place{offset: offset}
	if text, ok := strings.CutPrefix(note, noteText); ok {
		p.text = text
		return p
	}
	s, ok := strings.CutPrefix(note, noteExact)
	if p.exact = ok; !ok {
		s, ok = strings.CutPrefix(note, notePlain)
	}
	if n, err := strconv.ParseInt(s, 10, 64); ok && err == nil {
		p.high = n
	}
	return p
}

// commit moves the group's places, as a member of a generation. It returns the first partition's error: the reasons
// are the group's, not a partition's.
func (k *coordinator) commit(ctx context.Context, g generation, topic string, at map[int32]place) error {
	req := &offsetcommit.Request{
		GroupID: k.key, GenerationID: g.id, MemberID: g.member, RetentionTimeMs: -1,
		Topics: []offsetcommit.RequestTopic{{Name: topic}},
	}
	now := time.Now().UnixMilli()
	for p, to := range at {
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, offsetcommit.RequestPartition{
			PartitionIndex: p, CommittedOffset: to.offset, CommitTimestamp: now, CommittedLeaderEpoch: -1, CommittedMetadata: to.note(),
		})
	}
	_, err := k.ask(ctx, req, func(m protocol.Message) int16 {
		for _, t := range m.(*offsetcommit.Response).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return p.ErrorCode
				}
			}
		}
		return 0
	})
	return err
}

// heartbeat tells that the member lives. RebalanceInProgress is no failure: the member is in the group.
func (k *coordinator) heartbeat(ctx context.Context, g generation) error {
	_, err := k.ask(ctx, &heartbeat.Request{GroupID: k.key, GenerationID: g.id, MemberID: g.member},
		func(m protocol.Message) int16 { return m.(*heartbeat.Response).ErrorCode })
	return err
}

// offsetFetchVersion is the first that can be told to wait for open transactions (KIP-447, Kafka 2.5); the library
// knows only earlier ones.
const offsetFetchVersion = 7

// places returns how far the group is. A partition for which a transaction is still open is the error
// UnstableOffsetCommit: its outcome decides.
func (k *coordinator) places(ctx context.Context, topic string, partitions []int32) (map[int32]place, error) {
	m, err := k.do(ctx, func(ctx context.Context, node int32) (protocol.Message, error) {
		return k.c.trip(ctx, k.c.cfg.CallTimeout, &call{key: protocol.OffsetFetch, broker: node, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
			if _, err := rw.Write(offsetFetchRequest(k.c.cfg.ClientID, k.key, topic, partitions)); err != nil {
				return nil, err
			}
			b, err := readAnswer(rw)
			if err != nil {
				return nil, err
			}
			return parseOffsetFetch(b)
		}})
	})
	if err != nil {
		return nil, err
	}
	out := *m.(*groupPlaces)
	for _, p := range partitions {
		if _, ok := out[p]; !ok {
			return nil, fmt.Errorf("offset fetch: no answer about partition %d: %w", p, kafka.Unknown)
		}
	}
	return out, nil
}

type groupPlaces map[int32]place

// ApiKey implements protocol.Message.
func (*groupPlaces) ApiKey() protocol.ApiKey { return protocol.OffsetFetch }

func offsetFetchRequest(clientID, group, topic string, partitions []int32) []byte {
	w := newRequest(protocol.OffsetFetch, offsetFetchVersion, clientID)
	w.tags()
	w.compact(group)
	w.uvarint(2) // one topic
	w.compact(topic)
	w.uvarint(uint64(len(partitions)) + 1)
	for _, p := range partitions {
		w.int32(p)
	}
	w.tags()
	w.int8(1) // stable offsets only
	w.tags()
	return w.done()
}

func parseOffsetFetch(b []byte) (*groupPlaces, error) {
	r := answerReader{b: b}
	out := groupPlaces{}
	r.tags() // of the header
	r.int32()
	var failed error
	for range r.compactCount(2) {
		r.compact()
		for range r.compactCount(20) {
			p, offset := r.int32(), r.int64()
			r.int32() // leader epoch
			note := r.compact()
			if err := codeError(r.int16()); err != nil && failed == nil {
				failed = err
			}
			r.tags()
			out[p] = parsePlace(offset, note)
		}
		r.tags()
	}
	if err := codeError(r.int16()); err != nil {
		failed = err
	}
	if r.bad {
		return nil, fmt.Errorf("offset fetch: %w", errCut)
	}
	return &out, failed
}

// The parts of Kafka's flexible encoding (KIP-482): lengths are unsigned varints plus one, 0 is null.

func (w *requestWriter) uvarint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *requestWriter) tags()            { w.int8(0) }
func (w *requestWriter) compact(s string) {
	w.uvarint(uint64(len(s)) + 1)
	w.b = append(w.b, s...)
}

func (r *answerReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// compactCount is the length of an array whose elements take at least so many bytes; null is 0.
func (r *answerReader) compactCount(least int) int {
	n := r.uvarint()
	if n == 0 {
		return 0
	}
	if n--; n > uint64(len(r.b)/least) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *answerReader) compact() string {
	n := r.uvarint()
	if n == 0 {
		return ""
	}
	if n--; n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	return string(r.take(int(n)))
}

// tags steps over tagged fields.
func (r *answerReader) tags() {
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		r.uvarint()
		if size := r.uvarint(); size <= uint64(len(r.b)) {
			r.take(int(size))
		} else {
			r.bad, r.b = true, nil
		}
	}
}
