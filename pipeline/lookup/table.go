package lookup

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

// How a table follows its source.
const (
	loadPatience = 30 * time.Second       // without anything new, while it is filled
	againSoon    = 100 * time.Millisecond // a source that was followed until now; then twice as long each time,
	againAfter   = 5 * time.Second        // up to this
	sayEvery     = time.Minute            // of the same trouble again
)

// Table holds the rows of one source. Find, Absent and Append may be called by any number of goroutines.
type Table struct {
	source Source
	id     string // among the tables that are open
	of     *Tables
	users  int // guarded by of.mu
	layout *layout
	index  index
	absent [2]*Row // nulls, defaults
	log    *slog.Logger

	keys, bytes  atomic.Int64
	bad, refused atomic.Uint64
	changes      atomic.Uint64 // that have come: progress
	current      atomic.Int64  // when the table was last known to have all there is, Unix nanoseconds; 0: never

	cancel context.CancelFunc
	ready  chan struct{} // closed when the table is full, or cannot be filled: err
	once   sync.Once
	err    error
	done   chan struct{} // closed when nobody writes any more

	// Of the goroutine that follows.
	reader *reader
	round  uint32 // rises each time that the source is read from its beginning
	first  uint64 // versions before it are swept out
	whole  bool   // this round has seen everything
	said   map[string]time.Time
}

// Find returns the row of a key, nil if it is not there. It takes no lock and does not allocate.
func (t *Table) Find(key []byte) *Row { return t.index.find(key) }

// Absent is the row of a key that is not there, for Append: of defaults, or of nulls.
func (t *Table) Absent(defaults bool) *Row {
	if defaults {
		return t.absent[1]
	}
	return t.absent[0]
}

// Age is how long ago the table was known to have everything that its source had.
func (t *Table) Age() time.Duration {
	at := t.current.Load()
	if at == 0 {
		return 0
	}
	return max(time.Since(time.Unix(0, at)), 0)
}

// run follows the source until ctx ends. If that fails before the table was full, it has failed for good.
func (t *Table) run(ctx context.Context) {
	defer close(t.done)
	again := time.NewTimer(againAfter)
	defer again.Stop()
	pause := againSoon
	for {
		t.round, t.whole = t.round+1, false
		err := t.of.follower.Follow(ctx, t.source, t.change, t.all)
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case err == nil:
			err = schemas.Errorf(schemas.Unavailable, op, "%s: the watch ended", t.source)
		}
		t.finish(err)
		if ctx.Err() != nil || t.err != nil {
			return
		}
		t.say("the source cannot be followed: lookups go on with what they have", "error", err)
		if t.whole {
			pause = againSoon
		}
		again.Reset(pause)
		pause = min(2*pause, againAfter)
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// finish says that the table is full, or why it cannot be; the first to say so counts.
func (t *Table) finish(err error) {
	t.once.Do(func() {
		t.err = err
		close(t.ready)
	})
}

// change takes in what became of a key.
func (t *Table) change(c *schemas.Change) {
	t.changes.Add(1)
	h := xxhash.Sum64String(c.Key)
	old := t.index.now.Load().slot(h, c.Key).Load()
	if there(old) && old.version == c.Version && old.time == c.Time.UnixNano() {
		old.seen = t.round // nothing new: the source is read from its beginning again
		return
	}
	if c.Deleted {
		t.drop(old)
		return
	}
	data, err := t.reader.row(c.Value)
	if err != nil {
		t.bad.Add(1)
		t.drop(old)
		t.say("a value cannot be read: its key is missing", "key", clip(c.Key), "version", c.Version, "error", err)
		return
	}
	if len(data)+len(c.Key) > math.MaxUint32 || c.Version == 0 {
		t.refuse(old, c)
		return
	}
	r := newRow(Row{hash: h, version: c.Version, time: c.Time.UnixNano(), seen: t.round}, data, c.Key)
	grown := r.bytes()
	if there(old) {
		grown -= old.bytes()
	}
	if !t.of.take(grown) {
		t.refuse(old, c)
		return
	}
	t.bytes.Add(grown)
	t.index.set(r)
	t.keys.Store(int64(t.index.keys))
}

// refuse takes a key out whose value has no room.
func (t *Table) refuse(old *Row, c *schemas.Change) {
	t.refused.Add(1)
	t.drop(old)
	err := schemas.Errorf(schemas.Overloaded, op, "%s: the tables of this process would hold more than %d MiB: raise lookup.max_bytes, or read fewer columns", t.source, t.of.config.MaxBytes>>20)
	select {
	case <-t.ready:
		t.say("no room for a value: its key is missing", "key", clip(c.Key), "error", err)
	default:
		t.finish(err)
		t.cancel()
	}
}

// drop takes a key out, if it is there.
func (t *Table) drop(old *Row) {
	if !there(old) {
		return
	}
	t.free(old.bytes())
	t.index.set(newRow(Row{hash: old.hash}, nil, old.key()))
	t.keys.Store(int64(t.index.keys))
}

func (t *Table) free(n int64) {
	t.bytes.Add(-n)
	t.of.used.Add(-n)
}

// all notes that everything that the source had has come. What it had before and has no more goes: keys that this round has
// not brought, and versions before first.
func (t *Table) all(first uint64) {
	t.changes.Add(1)
	if !t.whole && t.round > 1 {
		t.sweep(func(r *Row) bool { return r.seen != t.round })
	}
	if first > t.first {
		t.sweep(func(r *Row) bool { return r.version < first })
		t.first = first
	}
	if !t.whole {
		t.said = map[string]time.Time{}
	}
	t.whole = true
	t.current.Store(time.Now().UnixNano())
	t.finish(nil)
}

func (t *Table) sweep(gone func(r *Row) bool) {
	var rows []*Row
	t.index.each(func(r *Row) {
		if gone(r) {
			rows = append(rows, r)
		}
	})
	for _, r := range rows {
		t.drop(r)
	}
}

// say logs a trouble, but not again within a minute.
func (t *Table) say(what string, more ...any) {
	if now := time.Now(); now.Sub(t.said[what]) >= sayEvery {
		t.said[what] = now
		t.log.Warn("lookup: "+what, append([]any{"source", t.source.String()}, more...)...)
	}
}

// wait returns when the table is full: nil; or why it is not.
func (t *Table) wait(ctx context.Context) error {
	tick := time.NewTicker(loadPatience)
	defer tick.Stop()
	for before := uint64(0); ; {
		select {
		case <-t.ready:
			return t.err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if n := t.changes.Load(); n != before {
				before = n
				continue
			}
			return schemas.Errorf(schemas.Unavailable, op, "%s: nothing has come for %v", t.source, loadPatience)
		}
	}
}

// stop ends the following.
func (t *Table) stop() {
	t.cancel()
	<-t.done
	t.free(t.bytes.Load())
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80]
	}
	return s
}
