package kafka

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

// Where a fetcher may begin beside an offset.
const (
	fromFirst = -2
	fromEnd   = -1
)

// fetcher reads one partition, committed records alone, in order. One goroutine uses it at a time. It looks for the
// leader itself, and steps over what is not there to be read: deleted and compacted records, aborted transactions,
// markers.
type fetcher struct {
	c         *Client
	topic     string // in the cluster
	partition int32
	pos       int64
	stable    int64 // last stable offset of the last answer, -1: none yet
	names     map[string]string
	tries     int
	trouble   error // why the last call brought nothing, nil if nothing is wrong
	missing   missing
	onward    bool // never go back: errGone if what was asked for is not there any more
}

// errGone says that a partition ends before where it was to be read.
var errGone = errors.New("the partition ends before it")

// newFetcher reads a partition of a topic, as the user names it, from an offset, fromFirst or fromEnd.
func (c *Client) newFetcher(topic string, partition int32, from int64) *fetcher {
	return &fetcher{c: c, topic: c.name(topic), partition: partition, pos: from, stable: -1, names: map[string]string{}}
}

// position is the offset that the next call starts at: one past the last record returned, and past what was stepped
// over after it. Before the first call of a fetcher without an offset it is negative.
func (f *fetcher) position() int64 { return f.pos }

// lag is how many offsets lie between the position and the last stable one of the last answer.
func (f *fetcher) lag() int64 {
	if f.pos < 0 || f.stable < f.pos {
		return 0
	}
	return f.stable - f.pos
}

// pollPause keeps a broker that answers a long poll at once, with nothing, from being asked in a hot loop.
const pollPause = 2 * time.Millisecond

// next returns the records from the position on, as many as come with one answer. It waits for the first for up to
// wait, and may return none. Brokers that refuse for now or do not answer are asked again, and are no error here:
// trouble says what it was. One that is silent is waited for beyond wait, up to CallTimeout. NotFound says that topic or
// partition is gone, Denied that it may not be read.
func (f *fetcher) next(ctx context.Context, wait time.Duration) ([]fetched, error) {
	end := time.Now().Add(wait)
	for {
		before := f.pos
		rs, err := f.once(ctx, max(0, time.Until(end)))
		switch {
		case err == nil:
			f.tries, f.trouble, f.missing = 0, nil, missing{}
			if len(rs) > 0 {
				return rs, nil
			}
			if f.pos != before { // over a gap: what comes after it may be there already
				continue
			}
			if !time.Now().Before(end) {
				return nil, nil
			}
			if err := sleep(ctx, min(pollPause, time.Until(end))); err != nil {
				return nil, err
			}
			continue
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case f.c.closing.Err() != nil:
			return nil, errClosed("kafka.fetch")
		}
		if f.trouble = err; !f.recoverable(err) {
			return nil, classify("kafka.fetch", fmt.Sprintf("topic %s, partition %d", f.c.user(f.topic), f.partition), err)
		}
		if err := f.recover(ctx, err); err != nil {
			return nil, err
		}
		if !time.Now().Before(end) {
			return nil, nil
		}
	}
}

func (f *fetcher) recoverable(err error) bool {
	return passing(err) || errors.Is(err, kafka.OffsetOutOfRange)
}

// recover does what helps against err. It returns what ends the reading.
func (f *fetcher) recover(ctx context.Context, err error) error {
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return f.reset(ctx)
	}
	if f.missing.believe(err) {
		return noTopic("kafka.fetch", f.c.user(f.topic))
	}
	f.tries++
	if f.tries > 1 {
		if serr := sleep(ctx, min(retryPause<<min(f.tries, 6), time.Second/4)); serr != nil {
			return serr
		}
	}
	_, rerr := f.c.meta.relook(ctx, f.topic)
	switch {
	case rerr == nil && !errors.Is(err, kafka.UnknownTopicOrPartition):
		f.missing = missing{}
	case ctx.Err() != nil:
		return ctx.Err()
	case f.missing.believe(rerr):
		return noTopic("kafka.fetch", f.c.user(f.topic))
	case rerr != nil && !passing(rerr):
		return classify("kafka.fetch", "topic "+f.c.user(f.topic), rerr)
	}
	return nil
}

// reset moves to the first offset there is. Either records were deleted before they were read, or the topic was deleted
// and made again, or a broker lost some: in each case what is there now is new.
func (f *fetcher) reset(ctx context.Context) error {
	first, err := f.c.listOffset(ctx, "kafka.fetch", f.topic, f.partition, fromFirst)
	if err != nil {
		return err
	}
	if f.onward && first <= f.pos {
		return errGone
	}
	f.c.log.Warn("offset is not there any more", "topic", f.topic, "partition", f.partition, "offset", f.pos, "first", first)
	f.pos = first
	return nil
}

func (f *fetcher) once(ctx context.Context, wait time.Duration) ([]fetched, error) {
	const op = "kafka.fetch"
	if f.pos < 0 {
		pos, err := f.c.listOffset(ctx, op, f.topic, f.partition, f.pos)
		if err != nil {
			return nil, err
		}
		f.pos = pos
	}
	leader, err := f.c.meta.leader(ctx, op, f.topic, f.partition)
	if err != nil {
		return nil, err
	}
	if leader < 0 {
		return nil, kafka.LeaderNotAvailable
	}
	a, err := f.c.fetch(ctx, leader, wait, f.topic, f.partition, f.pos, f.c.cfg.FetchBytes)
	if err != nil {
		return nil, err
	}
	f.stable = a.stable
	return f.read(a)
}

// read takes the committed records out of an answer and moves the position.
func (f *fetcher) read(a *fetchAnswer) ([]fetched, error) {
	out := make([]fetched, 0, recordsIn(a.records))
	aborted := newAborted(a.aborted)
	for b := a.records; ; {
		s, rest, ok, err := nextBatch(b)
		if err != nil {
			return out, f.broken(out, err)
		}
		if !ok {
			return out, nil
		}
		b = rest
		if s.old != nil {
			var next int64
			if out, next, err = s.readOld(out, f.pos); err != nil {
				return out, f.broken(out, err)
			}
			f.pos = max(f.pos, next)
			continue
		}
		if aborted.drops(&s) {
			f.pos = max(f.pos, s.last+1)
			continue
		}
		n := len(out)
		if out, err = s.records(out, f.pos, f.names); err != nil {
			out = out[:n]
			return out, f.broken(out, err)
		}
		f.pos = max(f.pos, s.last+1)
	}
}

// broken is the error of bytes that cannot be read; what came before them is handed out first.
func (f *fetcher) broken(out []fetched, err error) error {
	if len(out) > 0 {
		return nil
	}
	return err
}

// aborted follows the transactions that were dropped through an answer's batches.
type aborted struct {
	ahead []abortedTxn // by first offset
	now   map[int64]bool
}

type abortedTxn struct{ producer, first int64 }

func newAborted(list []abortedTxn) *aborted {
	slices.SortFunc(list, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
	return &aborted{ahead: list}
}

// drops reports whether the batch is no data of a committed writer: part of an aborted transaction, or a marker.
func (a *aborted) drops(s *stored) bool {
	for len(a.ahead) > 0 && a.ahead[0].first <= s.last {
		if a.now == nil {
			a.now = map[int64]bool{}
		}
		a.now[a.ahead[0].producer] = true
		a.ahead = a.ahead[1:]
	}
	if s.control {
		if a.now[s.producer] && s.abortMarker() {
			delete(a.now, s.producer)
		}
		return true
	}
	return s.transactional && a.now[s.producer]
}

// offsets returns the offset of the first record of each partition that was stored at or after a time, and the end
// where there is none. The zero time means the first record there is. topic is the user's name.
func (c *Client) offsets(ctx context.Context, op, topic string, at time.Time) ([]int64, error) {
	if at.IsZero() {
		return c.listOffsets(ctx, op, c.name(topic), fromFirst)
	}
	ends, err := c.endOffsets(ctx, op, topic) // first: what is stored while we look is not to be passed over
	if err != nil {
		return nil, err
	}
	out, err := c.listOffsets(ctx, op, c.name(topic), max(at.UnixMilli(), 0))
	for i := range out {
		if out[i] < 0 && i < len(ends) {
			out[i] = ends[i]
		}
	}
	return out, err
}

// endOffsets returns the last stable offset of each partition: one past the last record that can be read now.
func (c *Client) endOffsets(ctx context.Context, op, topic string) ([]int64, error) {
	return c.listOffsets(ctx, op, c.name(topic), fromEnd)
}

// listOffsets asks the leaders until all have answered. at is fromFirst, fromEnd or Unix milliseconds.
func (c *Client) listOffsets(ctx context.Context, op, topic string, at int64) ([]int64, error) {
	t, err := c.meta.topic(ctx, op, topic)
	if err != nil {
		return nil, err
	}
	out := make([]int64, len(t.leaders))
	todo := make([]int32, len(t.leaders))
	for i := range todo {
		todo[i] = int32(i)
	}
	err = c.persist(ctx, op, topic, func(t *topicMeta) error {
		var err error
		todo, err = c.offsetsOnce(ctx, t, topic, at, todo, out)
		return err
	})
	return out, err
}

func (c *Client) listOffset(ctx context.Context, op, topic string, partition int32, at int64) (int64, error) {
	if _, err := c.meta.leader(ctx, op, topic, partition); err != nil {
		return 0, err
	}
	out := make([]int64, partition+1)
	err := c.persist(ctx, op, topic, func(t *topicMeta) error {
		_, err := c.offsetsOnce(ctx, t, topic, at, []int32{partition}, out)
		return err
	})
	return out[partition], err
}

// persist calls fn with the topic's leaders until it succeeds, fails for good, or ctx ends.
func (c *Client) persist(ctx context.Context, op, topic string, fn func(t *topicMeta) error) error {
	t, err := c.meta.topic(ctx, op, topic)
	if err != nil {
		return err
	}
	var gone missing
	for tries := 0; ; tries++ {
		if err == nil {
			err = fn(t)
		}
		if err == nil {
			return nil
		}
		if gone.believe(err) {
			return noTopic(op, c.user(topic))
		}
		if err := c.again(ctx, op, "topic "+c.user(topic), tries, err); err != nil {
			return err
		}
		t, err = c.meta.relook(ctx, topic)
	}
}

// offsetsOnce asks each leader once and returns the partitions that have no answer yet, with the reason.
func (c *Client) offsetsOnce(ctx context.Context, t *topicMeta, topic string, at int64, todo []int32, out []int64) (left []int32, _ error) {
	by := map[int32][]listoffsets.RequestPartition{}
	for _, p := range todo {
		l := int32(-1)
		if int(p) < len(t.leaders) {
			l = t.leaders[p]
		}
		by[l] = append(by[l], listoffsets.RequestPartition{Partition: p, CurrentLeaderEpoch: -1, Timestamp: at})
	}
	var firstErr error
	fail := func(p int32, err error) {
		left = append(left, p)
		if firstErr == nil || !passing(err) {
			firstErr = err
		}
	}
	for leader, ps := range by {
		var err error = kafka.LeaderNotAvailable
		var r protocol.Message
		if leader >= 0 {
			r, err = c.ask(ctx, leader, &listoffsets.Request{ReplicaID: -1, IsolationLevel: int8(kafka.ReadCommitted),
				Topics: []listoffsets.RequestTopic{{Topic: topic, Partitions: ps}}})
		}
		if err != nil {
			for i := range ps {
				fail(ps[i].Partition, err)
			}
			continue
		}
		for _, t := range r.(*listoffsets.Response).Topics {
			for _, p := range t.Partitions {
				if err := codeError(p.ErrorCode); err != nil {
					fail(p.Partition, err)
				} else if int(p.Partition) < len(out) {
					out[p.Partition] = p.Offset
				}
			}
		}
	}
	return left, firstErr
}

// newRequest begins a request in the wire format.
func newRequest(key protocol.ApiKey, version int16, clientID string) *requestWriter {
	w := &requestWriter{b: make([]byte, 4, 160)}
	w.int16(int16(key))
	w.int16(version)
	w.int32(1) // one request at a time is on a connection
	w.string(clientID)
	return w
}

type requestWriter struct{ b []byte }

func (w *requestWriter) int8(v int8)   { w.b = append(w.b, byte(v)) }
func (w *requestWriter) int16(v int16) { w.b = binary.BigEndian.AppendUint16(w.b, uint16(v)) }
func (w *requestWriter) int32(v int32) { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) }
func (w *requestWriter) int64(v int64) { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) }
func (w *requestWriter) string(s string) {
	w.int16(int16(len(s)))
	w.b = append(w.b, s...)
}

// done sets the size of what was written.
func (w *requestWriter) done() []byte {
	binary.BigEndian.PutUint32(w.b, uint32(len(w.b)-4))
	return w.b
}

// maxAnswer bounds an answer, so that nonsense on the wire does not take all memory.
const maxAnswer = 1 << 30

// readAnswer reads a whole answer, after its correlation id.
func readAnswer(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(head[:]))) - 4
	if size < 0 || size > maxAnswer {
		return nil, fmt.Errorf("answer of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}

// answerReader takes values off an answer; bad says that one was not there.
type answerReader struct {
	b   []byte
	bad bool
}

func (r *answerReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *answerReader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *answerReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *answerReader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// count is the length of an array whose elements take at least so many bytes; null is 0.
func (r *answerReader) count(least int) int {
	n := int(r.int32())
	if n < -1 || n > 0 && n > len(r.b)/least {
		r.bad = true
		return 0
	}
	return max(n, 0)
}

func (r *answerReader) string() string {
	n := r.int16()
	if n < 0 {
		return ""
	}
	return string(r.take(int(n)))
}

func (r *answerReader) bytes() []byte {
	n := r.int32()
	if n < 0 {
		return nil
	}
	return r.take(int(n))
}
