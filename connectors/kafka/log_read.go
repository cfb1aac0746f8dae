package kafka

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/leatstream/leat/schemas"
)

// entry makes an entry of a record. Its time is the brokers' millisecond, and below that the offset: so entries of one
// millisecond have times of their own, in their order.
func (l *log) entry(r *fetched) *schemas.Entry {
	h, id := header(r.headers)
	if id != "" {
		if h == nil {
			h = schemas.Header{}
		}
		h.Set(headerID, id)
	}
	return &schemas.Entry{
		Sequence: uint64(r.offset) + 1, Subject: string(r.key), Header: h, Payload: r.value,
		Time: r.time.Add(time.Duration(r.offset%int64(time.Millisecond/time.Nanosecond)) * time.Nanosecond),
	}
}

// firstFetch is how much a reader asks for at first: many want one entry only.
const firstFetch = 64 << 10

// Read implements schemas.Log. A reader holds one answer of FetchBytes in memory, and an entry that is kept keeps the
// answer that it came in.
func (l *log) Read(ctx context.Context, from uint64, subjects []string, follow bool, fn func(e *schemas.Entry) bool) error {
	const op = "kafka.Log.Read"
	first, err := l.c.listOffset(ctx, op, l.in, 0, fromFirst)
	if err != nil {
		return err
	}
	end, err := l.c.listOffset(ctx, op, l.in, 0, fromEnd)
	if err != nil {
		return err
	}
	pos := max(int64(max(from, 1))-1, first)
	if !follow && pos >= end {
		return nil
	}
	return l.read(ctx, op, min(pos, end), end, follow, func(r *fetched) bool {
		if r.offset < pos || len(subjects) > 0 && !slices.Contains(subjects, string(r.key)) {
			return true
		}
		return fn(l.entry(r))
	})
}

// read calls fn for the records from pos up to before end, or for ever with follow, until it returns false.
func (l *log) read(ctx context.Context, op string, pos, end int64, follow bool, fn func(r *fetched) bool) error {
	f := l.c.newFetcher(l.topic, 0, pos)
	f.onward = true
	rs := l.first(ctx, op, f)
	var trouble time.Time // since when brokers do not answer
	for {
		for i := range rs {
			if !follow && rs[i].offset >= end || !fn(&rs[i]) {
				return nil
			}
		}
		if !follow && f.position() >= end {
			return nil
		}
		var err error
		rs, err = f.next(ctx, longPoll)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errGone):
			return schemas.Errorf(schemas.Unavailable, op, "%s was made again while it was read", l.name)
		case err != nil:
			return err
		case f.trouble == nil:
			trouble = time.Time{}
		case trouble.IsZero():
			trouble = time.Now()
		case !follow && time.Since(trouble) > l.c.cfg.ConnectWait:
			return classify(op, l.name, f.trouble)
		}
	}
}

// first fetches a little. It returns nothing if that does not go at once: the fetcher itself knows what helps.
func (l *log) first(ctx context.Context, op string, f *fetcher) []fetched {
	leader, err := l.c.meta.leader(ctx, op, l.in, 0)
	if err != nil || leader < 0 {
		return nil
	}
	a, err := l.c.fetch(ctx, leader, 0, l.in, 0, f.pos, firstFetch)
	if err != nil {
		return nil
	}
	f.stable = a.stable
	rs, err := f.read(a)
	if err != nil {
		return nil
	}
	return rs
}

// Steps of Last: how many entries back it looks first, and by how much more each time.
const (
	lastStep   = 64
	lastFactor = 4
)

// Last implements schemas.Log. There is no index by subject: it looks back from the end in growing steps, and reads, if
// the subject is not there, the whole log.
func (l *log) Last(ctx context.Context, subject string) (*schemas.Entry, error) {
	const op = "kafka.Log.Last"
	first, err := l.c.listOffset(ctx, op, l.in, 0, fromFirst)
	if err != nil {
		return nil, err
	}
	to, err := l.c.listOffset(ctx, op, l.in, 0, fromEnd)
	if err != nil {
		return nil, err
	}
	for step := int64(lastStep); to > first; step *= lastFactor {
		from := max(first, to-step)
		var found *schemas.Entry
		err := l.read(ctx, op, from, to, false, func(r *fetched) bool {
			if string(r.key) == subject {
				found = l.entry(r)
				found.Payload = bytes.Clone(found.Payload) // not all that was read with it
			}
			return true
		})
		if err != nil || found != nil {
			return found, err
		}
		to = from
	}
	return nil, schemas.Errorf(schemas.NotFound, op, "%s has nothing of %s", l.name, subject)
}
