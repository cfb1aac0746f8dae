package faults

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// header returns a header's first value.
func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// readCommitted reads topics from their starts to where they end now, aborted records left out. It returns the records
// of each topic in the order of its partitions. A topic that does not exist has none. It waits until no transaction is
// open.
func readCommitted(ctx context.Context, brokers []string, topics ...string) (map[string][]*kgo.Record, error) {
	// Where a partition ends in a transaction, its last record is the transaction's marker.
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer k.Close()
	ends, err := kadm.NewClient(k).ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	left, from := map[place]bool{}, map[string]map[int32]kgo.Offset{} // place: see key
	key := func(topic string, p int32) place { return place{p, int64(slices.Index(topics, topic))} }
	last := map[place]int64{}
	for _, e := range ends.Offsets().Sorted() {
		if e.At > 0 {
			if from[e.Topic] == nil {
				from[e.Topic] = map[int32]kgo.Offset{}
			}
			from[e.Topic][e.Partition] = kgo.NewOffset().AtStart()
			left[key(e.Topic, e.Partition)], last[key(e.Topic, e.Partition)] = true, e.At-1
		}
	}
	k.AddConsumePartitions(from)
	out := map[string][]*kgo.Record{}
	for len(left) > 0 {
		fs := k.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return nil, fmt.Errorf("%d of %d partitions are not read to their ends: %w", len(left), len(last), err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			at := key(r.Topic, r.Partition)
			if r.Offset >= last[at] {
				delete(left, at)
			}
			if !r.Attrs.IsControl() && r.Offset <= last[at] {
				out[r.Topic] = append(out[r.Topic], r)
			}
		})
	}
	for _, rs := range out {
		slices.SortFunc(rs, func(a, b *kgo.Record) int {
			return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
		})
	}
	return out, nil
}

// asOutput reads an output or a dead letter.
func asOutput(r *kgo.Record) (output, error) {
	o := output{id: header(r, "Leat-Request-Id"), key: string(r.Key), at: place{r.Partition, r.Offset}, kind: header(r, "Leat-Error-Kind")}
	words := strings.Split(header(r, "Leat-Source"), "/")
	if len(words) != 3 {
		return o, fmt.Errorf("%s of %s: source %q", o.id, r.Topic, words)
	}
	p, err1 := strconv.ParseInt(words[1], 10, 32)
	n, err2 := strconv.ParseInt(words[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return o, err
	}
	o.from = place{int32(p), n - 1} // our sequences count from 1
	if o.kind != "" {
		return o, nil
	}
	var v struct{ Rows []outcome }
	if err := json.Unmarshal(r.Value, &v); err != nil || len(v.Rows) != 1 {
		return o, fmt.Errorf("%s of %s: %q: %w", o.id, r.Topic, r.Value, err)
	}
	o.answer = v.Rows[0]
	return o, nil
}

// watch reads outputs and dead letters while they come, committed ones alone, and remembers their ids.
type watch struct {
	client *kgo.Client
	done   chan struct{}
	mu     sync.Mutex
	seen   map[string]time.Time // when it came first
	more   chan struct{}        // closed when seen grows
}

func newWatch(ctx context.Context, brokers []string, topics ...string) (*watch, error) {
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(250*time.Millisecond), kgo.RequestTimeoutOverhead(impatience)) // recovery is timed by what comes here
	if err != nil {
		return nil, err
	}
	w := &watch{client: k, done: make(chan struct{}), seen: map[string]time.Time{}, more: make(chan struct{})}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			fs := k.PollFetches(ctx)
			if fs.IsClientClosed() {
				return
			}
			w.add(fs.Records())
		}
	}()
	return w, nil
}

func (w *watch) add(rs []*kgo.Record) {
	if len(rs) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, r := range rs {
		if id := header(r, "Leat-Request-Id"); w.seen[id].IsZero() {
			w.seen[id] = now
		}
	}
	close(w.more)
	w.more = make(chan struct{})
}

// all waits until each id was seen.
func (w *watch) all(ctx context.Context, ids []string) error {
	for {
		w.mu.Lock()
		more := w.more
		ids = slices.DeleteFunc(ids, func(id string) bool { return !w.seen[id].IsZero() })
		w.mu.Unlock()
		if len(ids) == 0 {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("%d events have no output, %s the first: %w", len(ids), ids[0], ctx.Err())
		}
	}
}

func (w *watch) close() {
	w.client.Close()
	<-w.done
}

// settled waits until a group has settled all of a topic.
func settled(ctx context.Context, brokers []string, group, topic string) error {
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer k.Close()
	adm := kadm.NewClient(k)
	for {
		ends, err := adm.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		at, err := adm.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		open := int64(0)
		for _, e := range ends.Offsets().Sorted() {
			o, _ := at.Lookup(topic, e.Partition) // zero: nothing settled
			open += e.At - max(0, o.At)
		}
		if open == 0 {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("group %s has not settled %d events of %s: %w", group, open, topic, ctx.Err())
		}
	}
}
