package kafka

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// logMessage is what a log's topic has to take: 900 KiB, the most that the lineage puts into one message, and what
// travels with it.
const logMessage = 900<<10 + 4<<10

// The bounds of a log's segments. What is purged leaves the disk by whole segments.
const (
	minSegment = 1 << 20 // Kafka 4 takes no less
	maxSegment = 256 << 20
)

// OpenLog makes the log, or checks that what exists is the same kind. A log is a topic of one partition by the name of
// lc.Prefix, so that its order is that of all subjects; a subject is a record's key. Only the size of a log that drops
// its oldest is changed where it differs.
//
// Replicas are those of the client's configuration, unless lc states more than one. A log that inserts once is
// Invalid, wrapping ErrUnsupported: Kafka cannot tell whether a key is there.
func (c *Client) OpenLog(ctx context.Context, lc schemas.LogConfig) (schemas.Log, error) {
	const op = "kafka.OpenLog"
	if lc.Once {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "once", "log %s: nothing is inserted once over Kafka: %w", lc.Name, schemas.ErrUnsupported)
	}
	if lc.MaxBytes <= 0 {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "max_bytes", "log %s has no bound: a full disk stops everything", lc.Name)
	}
	l := &log{c: c, name: lc.Name, topic: lc.Prefix, in: c.name(lc.Prefix), max: lc.MaxBytes, discardOld: lc.DiscardOld}
	l.mu.calls = map[string]*appending{}
	l.mu.ring = make([]string, foldIDs)
	if err := l.ensure(ctx, op, lc); err != nil {
		return nil, err
	}
	limit, err := c.maxMessage(ctx, l.in)
	if err == nil && limit < logMessage {
		err = schemas.Errorf(schemas.Invalid, op, "topic %s takes messages of %d bytes, and the log %s needs %d: raise its max.message.bytes", l.topic, limit, lc.Name, logMessage)
	}
	if err == nil {
		_, err = l.look(ctx)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ensure makes the topic, or compares what is there.
func (l *log) ensure(ctx context.Context, op string, lc schemas.LogConfig) error {
	spec := TopicSpec{Partitions: 1, Retention: -1, Settings: map[string]string{
		"cleanup.policy": "delete", "retention.bytes": "-1",
		"message.timestamp.type": "LogAppendTime", // the order of times is that of the log, whatever clocks writers have
	}}
	if lc.Replicas > 1 {
		spec.Replication = lc.Replicas
	}
	if lc.DiscardOld {
		spec.Settings["retention.bytes"] = strconv.FormatInt(lc.MaxBytes, 10)
	}
	_, err := l.c.meta.fresh(ctx, op, l.in)
	switch {
	case err == nil && lc.DiscardOld:
		if err := l.resize(ctx, op); err != nil {
			return err
		}
	case err == nil:
	case schemas.KindOf(err) == schemas.NotFound:
		spec.Settings["segment.bytes"] = strconv.FormatInt(min(max(lc.MaxBytes/16, minSegment), maxSegment), 10)
		spec.Settings["max.message.bytes"] = strconv.Itoa(max(logMessage, 1<<20))
	default:
		return err
	}
	return l.c.ensure(ctx, op, l.topic, spec)
}

// resize gives a log that drops its oldest the size that is wanted.
func (l *log) resize(ctx context.Context, op string) error {
	const setting = "retention.bytes"
	have, err := l.c.topicConfig(ctx, op, l.in, setting)
	want := strconv.FormatInt(l.max, 10)
	if err != nil || have[setting] == want || have[setting] == "-1" { // the last is a log of the other kind
		return err
	}
	r, err := l.c.kafka.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: l.in,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: setting, Value: want, ConfigOperation: kafka.ConfigOperationSet}},
	}}})
	if err == nil && len(r.Resources) == 1 {
		err = r.Resources[0].Error
	}
	if err != nil {
		return classify(op, setting+" of topic "+l.topic, err)
	}
	l.c.log.Info("the size of a log was changed", "topic", l.in, "from", have[setting], "to", want)
	// Brokers learn of it in their own time. One that has not would make the log look unlike what is stated.
	ctx, cancel := context.WithTimeout(ctx, l.c.cfg.CallTimeout)
	defer cancel()
	for {
		now, err := l.c.topicConfig(ctx, op, l.in, setting)
		if err == nil && now[setting] == want {
			return nil
		}
		if err != nil && !passing(err) {
			return err
		}
		if sleep(ctx, retryPause) != nil {
			return schemas.Errorf(schemas.Unavailable, op, "%s of topic %s is still %s after its change to %s: try again", setting, l.topic, now[setting], want)
		}
	}
}

// DropLog deletes the log and all it holds. A log that is not there is no error.
func (c *Client) DropLog(ctx context.Context, name string) error {
	err := c.DeleteTopic(ctx, logTopic(name))
	if err != nil && schemas.KindOf(err) == schemas.NotFound {
		return nil
	}
	return err
}

// logTopic is the topic of a log by its name, as logs are named: LEAT_LINEAGE_JOBS is leat.lineage-jobs.
func logTopic(name string) string {
	first, rest, ok := strings.Cut(strings.ToLower(name), "_")
	if !ok {
		return first
	}
	return first + "." + strings.ReplaceAll(rest, "_", "-")
}

// log is a schemas.Log on a topic of one partition.
type log struct {
	c          *Client
	name       string
	topic, in  string // as the user names it and as the cluster knows it
	max        int64
	discardOld bool

	mu struct {
		sync.Mutex
		calls map[string]*appending // by id
		ring  []string              // ids that were acknowledged, the oldest first from next on
		next  int
	}
	fill fill
}

// foldIDs is how many ids a log remembers: those of the last appends of this client. Whoever repeats an append does it
// within a few seconds, and from the process that made it.
const foldIDs = 4096

// appending is an append that is on its way or was acknowledged.
type appending struct {
	call *produceCall
	size int64
	once sync.Once
}

// Append stores one message. An id that this client has appended lately is not appended again: its sequence is
// returned, once it is known. The append goes on when ctx ends before it was acknowledged.
func (l *log) Append(ctx context.Context, subject, id string, payload []byte) (uint64, error) {
	const op = "kafka.Log.Append"
	if !legalName(subject) {
		return 0, schemas.Errorf(schemas.Invalid, op, "subject %.80q: want 1 to 249 of letters, digits, '.', '_' and '-'", subject)
	}
	if payload == nil {
		payload = []byte{} // null would be a deletion
	}
	r := record{topic: l.in, key: []byte(subject), value: payload}
	if id != "" {
		r.headers = []kafka.Header{{Key: headerID, Value: []byte(id)}}
	}
	if err := l.c.checkSize(ctx, op, &r); err != nil {
		return 0, err
	}
	a, err := l.begin(ctx, op, id, &r)
	if err != nil {
		return 0, err
	}
	select {
	case <-a.call.done:
	case <-ctx.Done():
		return 0, schemas.Errorf(schemas.Unavailable, op, "%s: not acknowledged in time: %w", l.name, ctx.Err())
	case <-l.c.closing.Done():
		return 0, errClosed(op)
	}
	return l.end(op, id, a)
}

// begin hands a record to the producer, unless its id was before.
func (l *log) begin(ctx context.Context, op, id string, r *record) (*appending, error) {
	p := &l.c.producer
	if err := p.identify(ctx, op); err != nil {
		return nil, err
	}
	leader, err := l.c.meta.leader(ctx, op, l.in, 0)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	a := l.mu.calls[id]
	l.mu.Unlock()
	if a != nil && id != "" {
		return a, nil
	}
	recs := []record{*r}
	bodies := seal(recs)
	size := int64(batchSize(len(bodies[0].body)))
	if err := l.room(ctx, op, size); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.mu.calls[id]; a != nil && id != "" {
		return a, nil
	}
	a = &appending{call: &produceCall{offsets: make([]int64, 1), left: 1, done: make(chan struct{})}, size: size}
	if id != "" {
		l.mu.calls[id] = a
	}
	p.enqueue(a.call, recs, bodies, []int32{leader})
	return a, nil
}

// end returns what came of an append.
func (l *log) end(op, id string, a *appending) (uint64, error) {
	l.c.producer.mu.Lock()
	offset, err := a.call.offsets[0], a.call.err
	l.c.producer.mu.Unlock()
	a.once.Do(func() { l.settle(id, a, offset, err) })
	if err != nil {
		return 0, classify(op, l.name, err)
	}
	return uint64(offset) + 1, nil
}

// settle counts the bytes of what was stored, and forgets the oldest id, or this one if nothing was stored.
func (l *log) settle(id string, a *appending, offset int64, err error) {
	if err == nil {
		l.fill.add(offset, a.size)
	}
	if id == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		delete(l.mu.calls, id)
		return
	}
	delete(l.mu.calls, l.mu.ring[l.mu.next])
	l.mu.ring[l.mu.next] = id
	l.mu.next = (l.mu.next + 1) % len(l.mu.ring)
}

// Insert is not offered.
func (l *log) Insert(context.Context, string, []byte) (uint64, bool, error) {
	return 0, false, fmt.Errorf("kafka.Log.Insert: %w", schemas.ErrUnsupported)
}

// SequenceAt implements schemas.Log. Brokers keep milliseconds; see entry.
func (l *log) SequenceAt(ctx context.Context, t time.Time) (uint64, error) {
	const op = "kafka.Log.SequenceAt"
	offs, err := l.c.offsets(ctx, op, l.topic, t.Truncate(time.Millisecond))
	if err != nil {
		return 0, err
	}
	seq := uint64(offs[0]) + 1
	if t.Equal(t.Truncate(time.Millisecond)) {
		return seq, nil
	}
	err = l.Read(ctx, seq, nil, false, func(e *schemas.Entry) bool {
		if e.Time.Before(t) {
			seq = e.Sequence + 1
			return true
		}
		return false
	})
	return seq, err
}

// Purge deletes everything before the sequence. Readers do not see it any more; it leaves the disk by whole segments,
// when the brokers next look, some minutes later.
func (l *log) Purge(ctx context.Context, before uint64) error {
	const op = "kafka.Log.Purge"
	if before <= 1 {
		return nil
	}
	st, err := l.look(ctx) // so that the next look tells what this purge took
	if err != nil || int64(before)-1 <= st.first {
		return err
	}
	if err := l.c.deleteRecords(ctx, op, l.in, 0, min(int64(before)-1, st.end)); err != nil {
		return err
	}
	_, err = l.look(ctx)
	return err
}

var (
	_ schemas.Logs = (*Client)(nil)
	_ schemas.Log  = (*log)(nil)
)
