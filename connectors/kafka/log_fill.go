package kafka

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/schemas"
)

// fillAge is how long a look at a log's size is believed. What this client appends in between is added, and what others
// do, by the offsets that it gets.
const fillAge = time.Second

// fill knows how full a log is. Brokers tell what lies on their disks, which is more than what can be read: purged
// records stay there until their whole segment goes. The share of them is estimated, from one look to the next, by the
// number of records; who has not seen a purge takes what is on the disk, which is never too little.
type fill struct {
	mu      sync.Mutex
	last    extent
	at      time.Time // when last was looked up
	own     []stake   // what this client appended behind last
	bytes   int64     // of own
	end     int64     // one past the last offset that this client was given
	looking bool      // somebody looks beside the appends
}

// stake is a record of this client.
type stake struct{ offset, bytes int64 }

// extent is what a look found.
type extent struct {
	first, end int64 // offsets
	disk       int64 // bytes on the leader's disk
	dead       int64 // of these, bytes of records that were purged
}

func (e extent) live() int64 { return e.disk - e.dead }

// after is what a look found, given what the one before it had found. It is pure.
func (e extent) after(was extent) extent {
	if was.end == was.first && was.disk == 0 || e.first < was.first || e.end < was.end { // empty, or made again
		return e
	}
	grown := int64(0) // bytes that came, by the size of those that are there
	if n := was.end - was.first; n > 0 {
		grown = was.live() / n * (e.end - was.end)
	}
	removed := max(0, was.disk+grown-e.disk)
	purged := int64(0)
	if n := e.end - was.first; n > 0 {
		purged = int64(float64(was.live()+grown) * float64(e.first-was.first) / float64(n))
	}
	e.dead = min(max(was.dead+purged-removed, 0), e.disk)
	if e.first == e.end { // exactly known
		e.dead = e.disk
	}
	return e
}

// add notes an append of this client.
func (f *fill) add(offset, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = max(f.end, offset+1)
	if offset >= f.last.end {
		f.own = append(f.own, stake{offset, bytes})
		f.bytes += bytes
	}
}

// set takes what a look found that began at a time; one that began later may be there already.
func (f *fill) set(e extent, begun time.Time) extent {
	f.mu.Lock()
	defer f.mu.Unlock()
	if begun.Before(f.at) {
		return f.last
	}
	if e.end < f.last.end { // made again
		f.own, f.end = nil, e.end
	}
	f.last, f.at = e.after(f.last), begun
	f.bytes = 0
	f.own = slices.DeleteFunc(f.own, func(s stake) bool { return s.offset < e.end })
	for _, s := range f.own {
		f.bytes += s.bytes
	}
	return f.last
}

// used returns how much of the log is in use, and how old the look is that this rests on. Records of others are taken
// to be as large as the mean of all. summed says that records were added to what the look found: one of them may be
// counted twice, since brokers have a record on the disk before they say that the log reaches to it.
func (f *fill) used() (bytes int64, age time.Duration, summed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	bytes = f.last.live() + f.bytes
	own := int64(len(f.own))
	known := f.last.end - f.last.first + own
	if others := f.end - f.last.end - own; others > 0 && known > 0 {
		bytes += bytes / known * others
	}
	return bytes, time.Since(f.at), f.end > f.last.end
}

// room is Unavailable wrapping ErrFull if n more bytes have no room. It looks only if that could be due to a sum, or to
// somebody else's appends or purges; while there is room, beside the appends.
func (l *log) room(ctx context.Context, op string, n int64) error {
	if l.discardOld {
		return nil
	}
	used, age, summed := l.fill.used()
	if used+n > l.max && (summed || age > fillAge) {
		if _, err := l.look(ctx); err != nil {
			return err
		}
		used, age, _ = l.fill.used()
	}
	if used+n > l.max {
		return schemas.Errorf(schemas.Unavailable, op, "%s holds %d bytes of %d: %w", l.name, used, l.max, schemas.ErrFull)
	}
	if age > fillAge {
		l.lookBeside()
	}
	return nil
}

func (l *log) lookBeside() {
	f := &l.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.looking {
		return
	}
	f.looking = l.c.spawn(func() {
		ctx, cancel := context.WithTimeout(l.c.closing, l.c.cfg.CallTimeout)
		defer cancel()
		if _, err := l.look(ctx); err != nil && l.c.closing.Err() == nil {
			l.c.log.Warn("the size of a log is not known", "topic", l.in, "error", err)
		}
		f.mu.Lock()
		f.looking = false
		f.mu.Unlock()
	})
}

// look asks how large the log is. The disk comes before the end: what is appended meanwhile counts the next time, and
// nothing counts twice.
func (l *log) look(ctx context.Context) (extent, error) {
	const op = "kafka.Log.Stats"
	begun := time.Now()
	var e extent
	var err error
	if e.disk, err = l.c.logSize(ctx, op, l.in); err != nil {
		return e, err
	}
	if e.first, err = l.c.listOffset(ctx, op, l.in, 0, fromFirst); err != nil {
		return e, err
	}
	if e.end, err = l.c.listOffset(ctx, op, l.in, 0, fromEnd); err != nil {
		return e, err
	}
	return l.fill.set(e, begun), nil
}

// Stats implements schemas.Log. Messages counts sequences: the markers of transactions are among them. Subjects are not
// known.
func (l *log) Stats(ctx context.Context) (schemas.LogStats, error) {
	e, err := l.look(ctx)
	if err != nil {
		return schemas.LogStats{}, err
	}
	return schemas.LogStats{
		First: uint64(e.first) + 1, Last: uint64(e.end), Messages: uint64(e.end - e.first), Bytes: uint64(e.live()), MaxBytes: uint64(l.max),
	}, nil
}

// logSize is what partition 0 of a topic takes on its leader's disk.
func (c *Client) logSize(ctx context.Context, op, topic string) (size int64, _ error) {
	silent := 0
	err := c.persist(ctx, op, topic, func(t *topicMeta) error {
		leader := t.leaders[0]
		if leader < 0 {
			return kafka.LeaderNotAvailable
		}
		m, err := c.trip(ctx, c.cfg.CallTimeout, &call{key: protocol.DescribeLogDirs, broker: leader, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
			if _, err := rw.Write(logDirsRequest(c.cfg.ClientID, leader, []*described{{topic: topic, leaders: t.leaders[:1]}})); err != nil {
				return nil, err
			}
			b, err := readAnswer(rw)
			if err != nil {
				return nil, err
			}
			return parseLogDirs(b)
		}})
		if err != nil {
			return err
		}
		for _, s := range *m.(*logSizes) {
			if s.topic == topic && s.partition == 0 {
				size = s.bytes
				return nil
			}
		}
		if silent++; silent > 2 { // who may not ask gets an empty answer and no error
			return said{"the brokers do not tell its size: allow Describe on the cluster", kafka.ClusterAuthorizationFailed}
		}
		return kafka.NotLeaderForPartition
	})
	return size, err
}

// deleteRecordsVersion is one that every broker from Kafka 0.11 on knows; the library has no such call.
const deleteRecordsVersion = 1

// deleteRecords deletes the records of a partition before an offset. topic is the cluster's name.
func (c *Client) deleteRecords(ctx context.Context, op, topic string, partition int32, before int64) error {
	return c.persist(ctx, op, topic, func(t *topicMeta) error {
		leader := t.leaders[partition]
		if leader < 0 {
			return kafka.LeaderNotAvailable
		}
		_, err := c.trip(ctx, c.cfg.CallTimeout, &call{key: protocol.DeleteRecords, broker: leader, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
			w := newRequest(protocol.DeleteRecords, deleteRecordsVersion, c.cfg.ClientID)
			w.int32(1)
			w.string(topic)
			w.int32(1)
			w.int32(partition)
			w.int64(before)
			w.int32(int32(c.cfg.CallTimeout.Milliseconds() * 9 / 10))
			if _, err := rw.Write(w.done()); err != nil {
				return nil, err
			}
			b, err := readAnswer(rw)
			if err != nil {
				return nil, err
			}
			return deleted{}, parseDeleted(b)
		}})
		return err
	})
}

// deleted is the answer to a deletion of records.
type deleted struct{}

// ApiKey implements protocol.Message.
func (deleted) ApiKey() protocol.ApiKey { return protocol.DeleteRecords }

// parseDeleted returns the error of the one partition.
func parseDeleted(b []byte) error {
	r := answerReader{b: b}
	r.int32() // throttle
	for range r.count(6) {
		r.string()
		for range r.count(14) {
			r.int32()
			r.int64() // the first offset that is left
			if err := codeError(r.int16()); err != nil {
				return err
			}
		}
	}
	if r.bad {
		return fmt.Errorf("delete records: %w", errCut)
	}
	return nil
}
