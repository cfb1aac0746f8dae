package kafka

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/schemas"
)

// followCheck is how often a follower looks whether it has all that there is.
const followCheck = 2 * time.Second

// usualForgets is for how long a topic keeps deletions unless it says otherwise.
const usualForgets = 24 * time.Hour

// FollowTopic reads a compacted topic from its beginning, all partitions side by side, and follows it: it calls each for every
// record, whose key it is about (a null value deletes it), and all when what was there at the start has come, and then every
// two seconds at which nothing is missing. Both run on the caller's goroutine; each partition keeps its order. Records
// without a key are passed over. Brokers that are away are waited for, as long as no deletion can have been missed.
//
// FollowTopic returns when ctx ends, or the topic has to be read anew: Unavailable. NotFound: there is none. Invalid: it is
// not compacted, so that its oldest values would go away without a word.
func (c *Client) FollowTopic(ctx context.Context, topic string, each func(*schemas.Change), all func(first uint64)) error {
	const op = "kafka.FollowTopic"
	if err := checkTopicName(op, topic); err != nil {
		return err
	}
	forgets, err := c.compacted(ctx, op, topic)
	if err != nil {
		return err
	}
	ends, err := c.endOffsets(ctx, op, topic)
	if err != nil {
		return err
	}
	f := &following{c: c, topic: topic, at: make([]int64, len(ends)), goal: ends, whole: time.Now(), forgets: forgets, each: each, all: all}
	g, run := errgroup.WithContext(ctx)
	came := make(chan brought, len(ends)) // one answer of each partition at hand
	for p := range ends {
		g.Go(func() error { return c.bring(run, topic, int32(p), came) })
	}
	g.Go(func() error { return f.run(run, came) })
	err = g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// compacted checks that a topic keeps the newest record of each key, and returns for how long it keeps a deletion.
func (c *Client) compacted(ctx context.Context, op, topic string) (time.Duration, error) {
	const policy, keeps = "cleanup.policy", "delete.retention.ms"
	if _, err := c.partitions(ctx, op, topic); err != nil {
		return 0, err
	}
	set, err := c.topicConfig(ctx, op, c.name(topic), policy, keeps)
	if err != nil && schemas.KindOf(err) == schemas.Denied {
		return usualForgets, nil // who may not ask has to know it
	}
	if err != nil {
		return 0, err
	}
	if set[policy] != "compact" {
		return 0, schemas.Errorf(schemas.Invalid, op, "topic %s has cleanup.policy=%s, so its oldest values go away: set cleanup.policy=compact", topic, strings.ReplaceAll(set[policy], " ", ""))
	}
	ms, err := strconv.ParseInt(set[keeps], 10, 64)
	if err != nil || ms < 0 {
		return 0, schemas.Errorf(schemas.Internal, op, "topic %s: %s is %q", topic, keeps, set[keeps])
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// brought is an answer of one partition: records, and where it goes on.
type brought struct {
	partition int32
	records   []fetched
	next      int64
	away      bool // nothing was answered
}

// bring reads a partition until ctx ends.
func (c *Client) bring(ctx context.Context, topic string, p int32, to chan<- brought) error {
	f := c.newFetcher(topic, p, fromFirst)
	f.onward = true
	for {
		rs, err := f.next(ctx, longPoll)
		switch {
		case errors.Is(err, errGone):
			return schemas.Errorf(schemas.Unavailable, "kafka.FollowTopic", "topic %s was made again", topic)
		case err != nil:
			return err
		}
		select {
		case to <- brought{p, rs, f.position(), f.trouble != nil}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// following is one reading of a topic.
type following struct {
	c       *Client
	topic   string
	at      []int64 // by partition: up to where its records have come
	goal    []int64 // by partition: the end at the last look
	told    bool    // what was there at the start
	whole   time.Time
	forgets time.Duration
	each    func(*schemas.Change)
	all     func(first uint64)
}

func (f *following) run(ctx context.Context, came <-chan brought) error {
	tick := time.NewTicker(followCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-came:
			for i := range b.records {
				if r := &b.records[i]; r.key != nil {
					f.each(&schemas.Change{Key: string(r.key), Value: r.value, Deleted: r.value == nil, Version: uint64(r.offset) + 1, Time: r.time})
				}
			}
			if !b.away {
				f.at[b.partition] = max(b.next, 0)
			}
			if !f.told && f.reached() {
				f.told = true
				f.current()
			}
		case <-tick.C:
			if !f.told {
				continue
			}
			if err := f.look(ctx); err != nil {
				return err
			}
		}
	}
}

// reached reports whether every partition has come as far as it went at the last look.
func (f *following) reached() bool {
	for p, end := range f.goal {
		if f.at[p] < end {
			return false
		}
	}
	return true
}

func (f *following) current() {
	f.whole = time.Now()
	f.all(0)
}

// look compares what has come with what there was at the last look, and finds the ends of now. It returns why the reading
// cannot go on.
func (f *following) look(ctx context.Context) error {
	const op = "kafka.FollowTopic"
	call, cancel := context.WithTimeout(ctx, f.c.cfg.CallTimeout)
	ends, err := f.c.endOffsets(call, op, f.topic)
	cancel()
	switch {
	case err != nil && schemas.KindOf(err) == schemas.NotFound:
		return err
	case err != nil: // the brokers are away
		if time.Since(f.whole) > f.forgets/2 {
			return schemas.Errorf(schemas.Unavailable, op, "topic %s: away for so long that deletions may have been missed", f.topic)
		}
		return nil
	case len(ends) != len(f.goal):
		return schemas.Errorf(schemas.Unavailable, op, "topic %s has %d partitions now, and had %d", f.topic, len(ends), len(f.goal))
	}
	for p := range ends {
		if ends[p] < f.goal[p] {
			return schemas.Errorf(schemas.Unavailable, op, "topic %s was made again", f.topic)
		}
	}
	if f.reached() {
		f.current()
	}
	f.goal = ends
	return nil
}
