package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/schemas"
)

// feeder cuts the source into chunks and puts those without a result into the queue. Chunks of several partitions take
// turns; the next rows of each are read and decoded meanwhile (see lane).
//
// How a source is cut must be the same in every attempt. A file does not change, so the same cutting gives the same
// chunks. A stored source may lose messages to retention between two attempts: there each chunk's span is inserted once
// into the job's log before the chunk is fed, one after another, and later attempts, or a coordinator that believes it
// still holds the lease, follow what was inserted first.
type feeder struct {
	*coordinator
	stored bool // the source is a topic or the lineage
	lanes  []*lane
	active []*lane // that take turns, the next one first
	packer *packer
	buf    []byte

	chunk   int64     // next number
	started time.Time // of the throttle
	paced   float64   // rows fed since
}

// feed feeds all chunks. open opens the source, once for each partition.
func (c *coordinator) feed(ctx context.Context, open func() (source, error)) error {
	f := &feeder{coordinator: c, stored: c.job.Ends.Ranges != nil, started: time.Now()}
	var err error
	if f.packer, err = newPacker(c.sig.Inputs); err != nil {
		return err
	}
	for _, r := range c.job.Ends.ranges() {
		f.lanes = append(f.lanes, newLane(r, open, c.sig.Inputs, f.stored))
	}
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		for _, l := range f.lanes {
			l.close(ctx)
		}
	}()
	for {
		more, err := f.next(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	c.count.setChunks(f.chunk)
	c.total <- f.chunk
	return nil
}

// next feeds one chunk, or finds out more about it. False: there is none.
func (f *feeder) next(ctx context.Context) (more bool, _ error) {
	sp, known := f.plans[f.chunk]
	var l *lane
	if known {
		i := slices.IndexFunc(f.lanes, func(l *lane) bool { return l.r.Partition == sp.Partition })
		if i < 0 {
			return false, schemas.Errorf(schemas.Internal, "bulk.feed", "chunk %d is planned in partition %d, of which the job is not", f.chunk, sp.Partition)
		}
		l = f.lanes[i]
	} else if l = f.turn(); l == nil {
		return false, nil
	}
	if err := l.wait(); err != nil {
		return false, err
	}
	if known && f.done[f.chunk] {
		f.pass(l, sp)
		return true, nil
	}
	if err := l.stage(ctx, f.job.ChunkRows, sp, known); err != nil {
		return false, err
	}
	if !known {
		if l.eof && len(l.staged.at)+len(l.staged.bad) == 0 {
			l.finished = true
			return true, nil
		}
		sp = l.cut(f.job.ChunkRows)
		sp.Newest = l.staged.newest(sp.End)
		var err error
		if sp, err = f.pin(ctx, sp); err != nil {
			return false, err
		}
		if f.stored && (sp.Partition != l.r.Partition || l.short(sp)) {
			return true, nil // somebody else's plan: of another partition, or it reaches further than what is staged
		}
	}
	if err := f.send(ctx, l, sp); err != nil {
		return false, err
	}
	f.pass(l, sp)
	l.ahead(ctx, f.job.ChunkRows)
	return true, nil
}

// pass goes behind a chunk.
func (f *feeder) pass(l *lane, sp span) {
	f.chunk++
	l.pass(sp)
}

// partitionsAtOnce bounds the partitions that are read side by side: each takes a chunk, and what its transport reads
// ahead, in memory.
const partitionsAtOnce = 4

// turn returns the lane whose turn it is, nil if all are read.
func (f *feeder) turn() *lane {
	f.active = slices.DeleteFunc(f.active, (*lane).over)
	for _, l := range f.lanes {
		if len(f.active) == partitionsAtOnce {
			break
		}
		if !l.over() && !slices.Contains(f.active, l) {
			f.active = append(f.active, l)
		}
	}
	if len(f.active) == 0 {
		return nil
	}
	l := f.active[0]
	f.active = append(f.active[1:], l)
	return l
}

// pin makes the span of a chunk of a stored source final, and returns the one that was there first.
func (f *feeder) pin(ctx context.Context, sp span) (span, error) {
	if f.stored {
		b, err := json.Marshal(sp)
		if err != nil {
			return sp, schemas.Errorf(schemas.Internal, "bulk.pin", "%w", err)
		}
		_, existed, err := f.log.Insert(ctx, planSubject(f.chunk), b)
		if err != nil {
			return sp, full(err)
		}
		if existed {
			e, err := f.log.Last(ctx, planSubject(f.chunk))
			if err != nil {
				return sp, err
			}
			if sp, err = parsePlan(e.Payload); err != nil {
				return sp, err
			}
		}
	}
	f.plans[f.chunk] = sp
	return sp, nil
}

// full marks an error of a log without room.
func full(err error) error {
	if errors.Is(err, schemas.ErrFull) {
		return errors.Join(errResultsFull, err)
	}
	return err
}

// send publishes the staged rows of a span as the next chunk.
func (f *feeder) send(ctx context.Context, l *lane, sp span) error {
	if f.chunk >= MaxChunks {
		return schemas.FieldErrorf(schemas.Invalid, "bulk.feed", "chunk_rows", "the source has more than %d chunks of %d rows: start the job with larger ones", MaxChunks, f.job.ChunkRows)
	}
	n, nbad := l.staged.before(sp.End)
	if n+nbad == 0 { // retention took them all
		r := result{Chunk: f.chunk, Parts: 1, span: sp}
		_, _, err := f.log.Insert(ctx, resultSubject(f.chunk, 0), r.append(nil))
		return full(err)
	}
	if err := f.gate.pass(ctx, f.chunk); err != nil {
		return err
	}
	if err := f.pace(ctx, n+nbad); err != nil {
		return err
	}
	h := chunkHead{chunk: f.chunk, span: sp}
	f.buf, h.layout = f.packer.pack(f.buf[:0], l.staged, 0, n, l.staged.bad[:nbad])
	m := schemas.Message{
		Topic: f.job.queueName(), ID: f.owner + "/" + strconv.FormatInt(f.chunk, 10),
		Header: h.header(f.job, f.packer.schemas[h.layout].ID()), Payload: slices.Clone(f.buf),
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		_, err := f.s.deps.Queues.QueuePublisher().Publish(ctx, []schemas.Message{m})
		if err == nil {
			f.s.m.chunks.WithLabelValues("fed").Inc()
			return nil
		}
		if !errors.Is(err, schemas.ErrFull) {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// pace keeps the throttle: the rows fed never run ahead of the time by more than one chunk.
func (f *feeder) pace(ctx context.Context, n int) error {
	if f.job.Throttle <= 0 {
		return nil
	}
	due := time.Duration(f.paced / f.job.Throttle * float64(time.Second))
	f.paced += float64(n)
	return sleep(ctx, due-time.Since(f.started))
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// gate lets the feeder run a bounded number of chunks ahead of the sink, so that what waits to be written in order is
// bounded too, and stops it while the lineage is full.
type gate struct {
	ahead int64
	mu    struct {
		sync.Mutex
		written int64
		held    bool
		changed chan struct{} // closed at a change
	}
}

func newGate(written, ahead int64) *gate {
	g := &gate{ahead: ahead}
	g.mu.written, g.mu.changed = written, make(chan struct{})
	return g
}

// pass waits until a chunk may be fed.
func (g *gate) pass(ctx context.Context, chunk int64) error {
	for {
		g.mu.Lock()
		open := !g.mu.held && chunk < g.mu.written+g.ahead
		changed := g.mu.changed
		g.mu.Unlock()
		if open {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (g *gate) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.mu.changed)
	g.mu.changed = make(chan struct{})
}

func (g *gate) wrote(n int64)  { g.set(func() { g.mu.written = n }) }
func (g *gate) hold(held bool) { g.set(func() { g.mu.held = held }) }

// planNumber is the inverse of planSubject.
func planNumber(subject string) (int64, bool) {
	s, ok := strings.CutPrefix(subject, "p.")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n < MaxChunks
}

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }

// sizeText writes a number of bytes as --result-bytes takes it.
func sizeText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%u.size == 0 && n < math.MaxInt64/2 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
