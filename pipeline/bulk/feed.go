package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/schemas"
)

// feeder cuts the source into chunks and puts those without a result into the queue.
//
// How a source is cut must be the same in every attempt. A file does not change, so the same cutting gives the same
// chunks. A stored source may lose messages to retention between two attempts: there each chunk's span is inserted once
// into the job's log before the chunk is fed, and later attempts, or a coordinator that believes it still holds the
// lease, follow what was inserted first.
type feeder struct {
	*coordinator
	src    source
	stored bool // the source is a topic or the lineage
	staged *rows
	spare  *schemas.Batch
	packer *packer
	buf    []byte

	chunk      int64 // next number
	pos        ref   // everything before it belongs to earlier chunks
	positioned bool  // src stands behind what is staged
	eof        bool
	started    time.Time // of the throttle
	paced      float64   // rows fed since
}

func (c *coordinator) feed(ctx context.Context, src source) error {
	f := &feeder{coordinator: c, src: src, stored: c.job.Ends.Ranges != nil, started: time.Now()}
	var err error
	if f.packer, err = newPacker(c.sig.Inputs); err != nil {
		return err
	}
	f.staged, f.spare = newRows(c.sig.Inputs), schemas.NewBatch(c.sig.Inputs)
	f.staged.stored = f.stored
	for _, r := range c.job.Ends.ranges() {
		if err := f.feedRange(ctx, r); err != nil {
			return err
		}
	}
	c.count.setChunks(f.chunk)
	c.total <- f.chunk
	return nil
}

// feedRange goes through one partition.
func (f *feeder) feedRange(ctx context.Context, r Range) error {
	f.staged.reset()
	f.pos, f.positioned, f.eof = ref{Unit: r.First}, false, false
	end := ref{Unit: r.Last + 1}
	for f.pos.before(end) {
		sp, known := f.plans[f.chunk]
		if known && sp.Partition != r.Partition {
			return schemas.Errorf(schemas.Internal, "bulk.feed", "chunk %d is planned in partition %d, not %d", f.chunk, sp.Partition, r.Partition)
		}
		if known && f.done[f.chunk] {
			f.pass(sp)
			continue
		}
		if err := f.stage(ctx, r, sp, known); err != nil {
			return err
		}
		if !known {
			if f.eof && len(f.staged.at)+len(f.staged.bad) == 0 {
				return nil
			}
			sp = f.cut(r, end)
			sp.Newest = f.staged.newest(sp.End)
			var err error
			if sp, err = f.pin(ctx, sp); err != nil {
				return err
			}
			if f.stored && f.short(sp) {
				continue // somebody else's plan reaches further than what is staged
			}
		}
		if err := f.send(ctx, sp); err != nil {
			return err
		}
		f.pass(sp)
	}
	return nil
}

// short reports whether a plan covers rows that are not staged yet.
func (f *feeder) short(sp span) bool {
	return !f.eof && f.lastStaged().before(sp.End)
}

// lastStaged returns the first place behind everything staged.
func (f *feeder) lastStaged() ref {
	last := f.pos
	if n := len(f.staged.at); n > 0 {
		last = f.src.after(f.staged.at[n-1])
	}
	if n := len(f.staged.bad); n > 0 {
		if b := f.src.after(f.staged.bad[n-1].at); last.before(b) {
			last = b
		}
	}
	return last
}

// pass goes behind a chunk.
func (f *feeder) pass(sp span) {
	f.chunk++
	if f.positioned && f.lastStaged().before(sp.End) {
		f.positioned = f.eof // what lies between is not staged: go there when more is needed
	}
	n, nbad := f.staged.before(sp.End)
	f.spare = f.staged.drop(n, nbad, f.spare)
	f.pos = sp.End
}

// stage reads until a chunk is there: the planned one, or one of full size.
func (f *feeder) stage(ctx context.Context, r Range, sp span, known bool) error {
	if !f.positioned {
		if err := f.src.seek(ctx, r, f.pos); err != nil {
			return err
		}
		f.staged.reset()
		f.positioned, f.eof = true, false
	}
	for !f.eof {
		if known && !f.lastStaged().before(sp.End) || !known && len(f.staged.at)+len(f.staged.bad) >= f.job.ChunkRows {
			return nil
		}
		err := f.src.fill(ctx, f.staged)
		if errors.Is(err, io.EOF) {
			f.eof = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// maxBad bounds the bad rows of a chunk: each takes up to maxReason bytes and the width of an empty row.
const maxBad = 2048

// cut chooses the next chunk from what is staged: at most ChunkRows rows that fit a message.
func (f *feeder) cut(r Range, end ref) span {
	sp := span{Stream: f.src.stream(), Partition: r.Partition, First: f.pos, End: end}
	n, nbad := 0, 0
	for n+nbad < f.job.ChunkRows && nbad < maxBad {
		at, isBad, ok := f.peek(n, nbad)
		if !ok {
			break
		}
		if isBad {
			nbad++
		} else {
			n++
		}
		sp.End = f.src.after(at)
	}
	if fits := f.staged.fit(0, n, maxChunkBytes-nbad*(maxReason+64)); fits < n {
		if fits == 0 && !(nbad > 0 && f.staged.bad[0].at.before(f.staged.at[0])) {
			f.refuse()
			return f.cut(r, end)
		}
		sp.End = f.staged.at[fits]
		return sp
	}
	if f.eof && n == len(f.staged.at) && nbad == len(f.staged.bad) && f.stored {
		sp.End = end // the rest of the range, gaps included
	}
	return sp
}

// peek returns the next staged place after n rows and nbad bad ones.
func (f *feeder) peek(n, nbad int) (at ref, isBad, ok bool) {
	s := f.staged
	switch {
	case n < len(s.at) && nbad < len(s.bad):
		if s.bad[nbad].at.before(s.at[n]) {
			return s.bad[nbad].at, true, true
		}
		return s.at[n], false, true
	case n < len(s.at):
		return s.at[n], false, true
	case nbad < len(s.bad):
		return s.bad[nbad].at, true, true
	}
	return ref{}, false, false
}

// refuse makes the first staged row a bad one: it does not fit a message.
func (f *feeder) refuse() {
	s := f.staged
	b := newBad(s.at[0], schemas.Errorf(schemas.Invalid, "bulk.cut", "the row is larger than a message may be: at most %d bytes", maxChunkBytes))
	if len(s.origins) > 0 {
		b.when = s.origins[0].when
	}
	f.spare = s.drop(1, 0, f.spare)
	i, _ := slices.BinarySearchFunc(s.bad, b.at, func(x bad, at ref) int { return compareRef(x.at, at) })
	s.bad = slices.Insert(s.bad, i, b)
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
func (f *feeder) send(ctx context.Context, sp span) error {
	if f.chunk >= MaxChunks {
		return schemas.FieldErrorf(schemas.Invalid, "bulk.feed", "chunk_rows", "the source has more than %d chunks of %d rows: start the job with larger ones", MaxChunks, f.job.ChunkRows)
	}
	n, nbad := f.staged.before(sp.End)
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
	f.buf, h.layout = f.packer.pack(f.buf[:0], f.staged, 0, n, f.staged.bad[:nbad])
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
