package bulk

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/schemas"
)

// counting is a job's counters as the attempt knows them.
type counting struct {
	mu sync.Mutex
	Counters
	sinkAt  map[int32]uint64
	reached reached
}

// progress is what is stored with a job now and then.
type progress struct {
	Counters
	sinkAt  map[int32]uint64 // the sink's place that belongs to the counters
	reached reached          // same, of the source
}

func (c *counting) snapshot() progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	return progress{c.Counters, maps.Clone(c.sinkAt), maps.Clone(c.reached)}
}

// next returns the counters as they are when one more chunk is done.
func (c *counting) next(e *Ends, sp span) Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, at := c.Counters, maps.Clone(c.reached)
	at.pass(sp)
	at.progress(&now, e)
	now.Written++
	return now
}

// wrote takes what the counters are after another chunk, and the sink's place.
func (c *counting) wrote(now Counters, sp span, sinkAt map[int32]uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now.Chunks = c.Chunks // the feeder's
	c.Counters, c.sinkAt = now, sinkAt
	c.reached.pass(sp)
}

// recall notes where the chunks that are written already have brought the job.
func (c *counting) recall(plans map[int64]span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reached = reached{}
	for n := range c.Written {
		if sp, ok := plans[n]; ok {
			c.reached.pass(sp)
		}
	}
}

func (c *counting) setChunks(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Chunks = n
}

// maxPending bounds the payloads that wait for an earlier chunk; what is beyond is read again from the log.
const maxPending = 64 << 20

// collector follows the result log and writes the sink in the order of the chunks.
type collector struct {
	*coordinator
	packer  *packer
	rows    *rows
	next    int64             // chunk to be written
	pending map[int64]*result // results behind it; nil: in the log
	bytes   int
}

func (c *coordinator) collect(ctx context.Context) error {
	k := &collector{coordinator: c, next: c.count.Written, pending: map[int64]*result{}}
	var err error
	if k.packer, err = newPacker(c.sig.Outputs); err != nil {
		return err
	}
	k.rows = newRows(c.sig.Outputs)
	entries := make(chan *result, 16) // a little, so that reading and writing overlap
	g, gctx := errgroup.WithContext(ctx)
	read, stop := context.WithCancel(gctx)
	g.Go(func() error {
		err := k.follow(read, entries)
		if read.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		defer stop()
		return k.take(gctx, entries)
	})
	return g.Wait()
}

// follow hands over every first part of a result that is there or comes.
func (k *collector) follow(ctx context.Context, entries chan<- *result) error {
	var bad error
	err := k.log.Read(ctx, 0, nil, true, func(e *schemas.Entry) bool {
		if _, ok := planNumber(e.Subject); ok {
			return true
		}
		var r *result
		if r, bad = parseResult(e.Payload); bad != nil {
			return false
		}
		if r.Part > 0 {
			return true
		}
		select {
		case entries <- r:
			return true
		case <-ctx.Done():
			return false
		}
	})
	if bad != nil {
		return bad
	}
	if err == nil && ctx.Err() == nil {
		err = schemas.Errorf(schemas.Unavailable, "bulk.collect", "the result log ended")
	}
	return err
}

// take writes results until the last chunk is written.
func (k *collector) take(ctx context.Context, entries <-chan *result) error {
	total := int64(-1)
	for total < 0 || k.next < total {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case total = <-k.total:
		case r := <-entries:
			k.keep(r)
			if err := k.drain(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep notes a result until its turn comes.
func (k *collector) keep(r *result) {
	if r.Chunk < k.next {
		return // a topic sink has it
	}
	if r.Chunk > k.next && k.bytes > maxPending {
		k.pending[r.Chunk] = nil
		return
	}
	k.pending[r.Chunk] = r
	k.bytes += len(r.body)
}

// drain writes what is next, as far as it is there.
func (k *collector) drain(ctx context.Context) error {
	for {
		r, ok := k.pending[k.next]
		if !ok {
			return nil
		}
		delete(k.pending, k.next)
		if r != nil {
			k.bytes -= len(r.body)
		} else {
			var err error
			if r, err = k.fetch(ctx, k.next, 0); err != nil {
				return err
			}
		}
		if err := k.write(ctx, r); err != nil {
			return err
		}
		k.next++
		k.gate.wrote(k.next)
	}
}

func (k *collector) fetch(ctx context.Context, chunk int64, part int) (*result, error) {
	e, err := k.log.Last(ctx, resultSubject(chunk, part))
	if err != nil {
		return nil, err
	}
	return parseResult(e.Payload)
}

// write gives one chunk to the sink and counts it.
func (k *collector) write(ctx context.Context, r *result) error {
	scored, rejected, skipped := 0, 0, 0
	for part := 0; part < r.Parts; part++ {
		p := r
		if part > 0 {
			var err error
			if p, err = k.fetch(ctx, r.Chunk, part); err != nil {
				return err
			}
			if p.Parts != r.Parts || p.Chunk != r.Chunk {
				return schemas.Errorf(schemas.Internal, "bulk.collect", "chunk %d: part %d is of another result: was it scored in two environments?", r.Chunk, part)
			}
		}
		k.rows.reset()
		if len(p.body) > 0 {
			if err := k.packer.unpack(k.rows, p.body, p.Layout); err != nil {
				return err
			}
		}
		if err := k.sink.write(ctx, r.span, k.rows); err != nil {
			return err
		}
		scored += len(k.rows.at)
		for i := range k.rows.bad {
			if k.rows.bad[i].skipped {
				skipped++
			} else {
				rejected++
			}
		}
	}
	c := k.count.next(&k.job.Ends, r.span)
	c.Rows += int64(scored + rejected + skipped)
	c.Scored += int64(scored)
	c.Rejected += int64(rejected)
	c.Skipped += int64(skipped)
	if err := k.sink.end(ctx, c); err != nil {
		return err
	}
	k.count.wrote(c, r.span, k.sink.at())
	k.s.m.chunks.WithLabelValues("written").Inc()
	return nil
}

// rateWindow is how many steps of progress the rate is taken over.
const rateWindow = 5

// keep stores the counters again and again, and holds the feeder while the lineage of jobs is too full.
func (c *coordinator) keep(ctx context.Context) error {
	tick := time.NewTicker(c.s.config.Progress)
	defer tick.Stop()
	type point struct {
		at   time.Time
		rows int64
	}
	points := []point{{time.Now(), c.count.snapshot().Rows}}
	held := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := c.count.snapshot()
		points = append(points, point{time.Now(), now.Rows})
		if len(points) > rateWindow {
			points = points[1:]
		}
		first, last := points[0], points[len(points)-1]
		now.Rate = float64(last.rows-first.rows) / last.at.Sub(first.at).Seconds()
		if fill, err := c.s.deps.Fill(ctx); err == nil {
			if full := fill >= c.s.config.LineageFill; full != held {
				held = full
				c.gate.hold(held)
			}
		}
		if err := c.progress(ctx, now, held); err != nil && ctx.Err() == nil {
			if schemas.KindOf(err) != schemas.Unavailable {
				return err
			}
			c.s.log.Warn("progress was not stored", "job", c.job.ID, "error", err)
		}
	}
}

// progress stores counters, and whether the job waits for room in the lineage.
func (c *coordinator) progress(ctx context.Context, now progress, held bool) error {
	_, err := c.s.store.update(ctx, c.job.ID, func(j *Job) error {
		if err := c.owns(j); err != nil {
			return err
		}
		if j.Counters == now.Counters && held == j.Auto {
			return errUnchanged
		}
		j.take(now)
		switch {
		case held && j.Status == Running:
			j.Status, j.Auto = Paused, true
			j.Reason = "the lineage stream of jobs is too full; the job goes on by itself when it has room: leat lineage export, then prune"
			c.s.m.pauses.Inc()
		case !held && j.Auto:
			j.Status, j.Auto, j.Reason = Running, false, ""
		}
		return nil
	})
	return err
}

// take stores progress with a job.
func (j *Job) take(now progress) {
	j.Counters = now.Counters
	if now.sinkAt != nil {
		j.SinkAt = now.sinkAt
	}
	if j.Ends.Ranges != nil {
		j.Reached = now.reached
	}
}
