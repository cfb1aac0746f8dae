package bulk

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/internal/fault"
	"github.com/leatstream/leat/pipeline/internal/priority"
	"github.com/leatstream/leat/schemas"
)

// work takes chunks of a job as long as it runs.
func (s *Service) work(ctx context.Context, j *Job) {
	log := s.log.With("job", j.ID)
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		begun := time.Now()
		err := s.workOnce(ctx, j, log)
		if ctx.Err() != nil {
			return
		}
		log.Warn("worker stopped; it goes on by itself", "error", err)
		if time.Since(begun) > time.Minute {
			wait = 200 * time.Millisecond
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// workOnce takes chunks until ctx ends or something that is needed is away. A process of another environment takes none.
func (s *Service) workOnce(ctx context.Context, j *Job, log *slog.Logger) error {
	rev, err := s.store.revision(ctx, j.ID)
	if err != nil {
		return err
	}
	pinned, err := s.pin(ctx, j, rev)
	if err != nil {
		return err
	}
	defer pinned.Close()
	if env := pinned.Environment(); env != j.Environment && !j.MixedEnvironments {
		log.Warn("chunks are left to workers of the job's environment", "job_environment", environment(j.Environment), "environment", environment(env))
		<-ctx.Done()
		return ctx.Err()
	}
	results, err := s.deps.Logs.OpenLog(ctx, j.logConfig())
	if err != nil {
		return err
	}
	src, err := s.deps.Queues.SubscribeQueue(ctx, j.queueName())
	if err != nil {
		return err
	}
	// Closing hands back what is not settled: another worker need not wait for it.
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := src.Close(cctx); err != nil {
			log.Warn("chunks come back late", "error", err)
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	chunks := make(chan *connectors.Delivery) // unbuffered: what no worker has begun stays with the source
	g.Go(func() error {
		defer close(chunks)
		for {
			ds, err := src.Receive(gctx, 1)
			if err != nil {
				return err
			}
			for _, d := range ds {
				select {
				case chunks <- d:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
		}
	})
	for range s.config.Parallel {
		w, err := s.newWorker(j, pinned, results, log)
		if err != nil {
			return err
		}
		g.Go(func() error {
			for d := range chunks {
				if err := w.behind(gctx, d); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// behindOnline is how much less than a request's thread a job's worker weighs with the system's scheduler.
const behindOnline = 10

// behind does a chunk: while there is online traffic on a thread that steps back, which costs a tenth of a job's speed,
// else here.
func (w *worker) behind(ctx context.Context, d *connectors.Delivery) error {
	if !w.pinned.Online() {
		return w.do(ctx, d)
	}
	done := make(chan error, 1)
	go func() { // a goroutine of its own, since its thread must end with it: priority given away does not come back
		if err := priority.StepBack(behindOnline); err != nil {
			w.log.Warn("jobs run at the priority of requests", "error", err)
		}
		done <- w.do(ctx, d)
	}()
	return <-done
}

// worker scores chunks, one at a time, and reuses its memory.
type worker struct {
	s       *Service
	job     *Job
	pinned  Pinned
	results schemas.Log
	log     *slog.Logger
	context *lineage.Context
	beside  bool // a shadow: its records point at those of the route

	in, out *packer
	rows    *rows // of the chunk
	scored  *rows // the outputs, for the result
	piece   *schemas.Batch
	answer  *schemas.Batch
	outputs *schemas.Batch   // of the rows that were scored, in order
	outAt   []int            // row of outputs of each row of the chunk
	failed  []*schemas.Error // why a row has no answer; nil: it has
	timings []timing         // of pieces
	records lineage.Records
	body    []byte
}

// timing is when a piece of rows [from, to) of the chunk was scored.
type timing struct {
	from, to int
	took     time.Duration
	at       time.Time
	trail    *pipeline.Trail // nil: the route is one model
}

func (s *Service) newWorker(j *Job, p Pinned, results schemas.Log, log *slog.Logger) (*worker, error) {
	sig := p.Revision().Signature
	w := &worker{
		s: s, job: j, pinned: p, results: results, log: log, context: p.Context(via, "", j.ID), beside: j.shadow() != "",
		rows: newRows(sig.Inputs), scored: newRows(sig.Outputs),
		piece: schemas.NewBatch(sig.Inputs), answer: schemas.NewBatch(sig.Outputs), outputs: schemas.NewBatch(sig.Outputs),
	}
	var err error
	if w.in, err = newPacker(sig.Inputs); err != nil {
		return nil, err
	}
	w.out, err = newPacker(sig.Outputs)
	return w, err
}

// do scores one chunk and settles its delivery. An error means that the worker cannot go on now; the chunk comes again.
func (w *worker) do(ctx context.Context, d *connectors.Delivery) error {
	err := w.chunk(ctx, d)
	switch {
	case err == nil:
		return d.Settler.Accept(ctx, []*connectors.Delivery{d})
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errResultsFull):
		if rerr := d.Settler.Retry(ctx, d, 0); rerr != nil {
			w.log.Warn("a chunk comes back late", "error", rerr)
		}
		if perr := w.s.pauseFull(ctx, w.job.ID); perr != nil {
			return perr
		}
		<-ctx.Done() // the pause ends this worker
		return ctx.Err()
	}
	w.s.m.chunks.WithLabelValues("returned").Inc()
	kind := schemas.KindOf(err)
	if kind != schemas.Unavailable && kind != schemas.Overloaded && kind != schemas.Expired {
		// It would fail in the same way again: the job stands still and says why, instead of going round for ever.
		if ferr := w.s.fail(ctx, w.job.ID, err); ferr != nil {
			return ferr
		}
	}
	w.log.Warn("chunk handed back", "error", err)
	return d.Settler.Retry(ctx, d, time.Second)
}

// chunk makes a chunk's result durable: scored, recorded, inserted, in that order.
func (w *worker) chunk(ctx context.Context, d *connectors.Delivery) error {
	h, err := parseChunkHead(d.Header)
	if err != nil {
		return err
	}
	if _, err := w.results.Last(ctx, resultSubject(h.chunk, 0)); err == nil {
		w.s.m.chunks.WithLabelValues("found").Inc()
		return nil // fed again, or delivered again after it was inserted
	}
	received := time.Now()
	if err := w.in.unpack(w.rows, d.Payload, h.layout); err != nil {
		return err
	}
	if err := w.score(ctx, &h); err != nil {
		return err
	}
	if fault.InsertFirst {
		if err := w.insert(ctx, &h); err != nil {
			return err
		}
		fault.Widen()
	}
	if err := w.record(ctx, &h, received); err != nil {
		return err
	}
	if err := w.insert(ctx, &h); err != nil {
		return err
	}
	w.s.m.chunks.WithLabelValues("scored").Inc()
	w.s.m.rows.WithLabelValues("scored").Add(float64(len(w.scored.at)))
	w.s.m.rows.WithLabelValues("rejected").Add(float64(len(w.scored.bad)))
	return nil
}

// score fills outputs, and failed for the rows that have none, in pieces of a fixed size from the first row on.
func (w *worker) score(ctx context.Context, h *chunkHead) error {
	w.outputs.Reset()
	for _, t := range w.timings {
		if t.trail != nil {
			t.trail.Free()
		}
	}
	clear(w.timings)
	w.timings = w.timings[:0]
	n := w.rows.in.Rows()
	w.failed = append(w.failed[:0], make([]*schemas.Error, n)...)
	w.outAt = append(w.outAt[:0], make([]int, n)...)
	bad := 0
	for from := 0; from < n; from += w.job.PieceRows {
		to := min(from+w.job.PieceRows, n)
		failed, err := w.run(ctx, h, from, to)
		bad += failed
		if err == nil {
			continue
		}
		if rowless(ctx, err) {
			return err
		}
		for i := from; i < to; i++ { // which row is it?
			failed, rerr := w.run(ctx, h, i, i+1)
			bad += failed
			if rerr == nil {
				continue
			}
			if rowless(ctx, rerr) {
				return rerr
			}
			w.failed[i] = schemas.AsError("bulk.score", rerr)
			bad++
		}
	}
	if bad == n && n >= allFailed && schemas.KindOf(w.failed[0]) == schemas.Internal {
		return schemas.Errorf(schemas.Internal, "bulk.score", "all %d rows of a chunk failed: %w", n, w.failed[0])
	}
	return nil
}

// allFailed is how many rows must fail, all of a chunk with an internal error, until the model is blamed and not the rows.
const allFailed = 16

// rowless reports whether an error is not of the rows: then the chunk comes again later.
func rowless(ctx context.Context, err error) bool {
	k := schemas.KindOf(err)
	return ctx.Err() != nil || k == schemas.Unavailable || k == schemas.Overloaded || k == schemas.Expired || k == schemas.Denied || k == schemas.NotFound
}

// run scores rows [from, to) of the chunk. failed of them have no answer.
func (w *worker) run(ctx context.Context, h *chunkHead, from, to int) (failed int, _ error) {
	in, out := w.rows.in, w.outputs
	if from > 0 || to < in.Rows() {
		w.piece.Reset()
		w.piece.AppendRange(in, from, to)
		in = w.piece
	}
	w.answer.Reset()
	start := time.Now()
	trail, err := w.pinned.ScoreBulk(ctx, in, w.answer, via, "", w.job.ID, func(row int) string { return w.name(h, from+row) })
	if err != nil {
		return 0, err
	}
	end := time.Now()
	for i := from; i < to && trail != nil; i++ {
		if e := trail.Failed(i - from); e != nil && rowless(ctx, e) {
			trail.Free()
			return 0, e
		}
	}
	if w.answer.Rows() != to-from {
		return 0, schemas.Errorf(schemas.Internal, "bulk.score", "%d rows in, %d out", to-from, w.answer.Rows())
	}
	for i := from; i < to; i++ {
		w.outAt[i] = out.Rows() + i - from
	}
	out.AppendRange(w.answer, 0, to-from)
	w.timings = append(w.timings, timing{from, to, end.Sub(start), end, trail})
	for i := from; i < to && trail != nil; i++ {
		if w.failed[i] = trail.Failed(i - from); w.failed[i] != nil {
			failed++
		}
	}
	return failed, nil
}

// name is how a row of the chunk is called where the route asks for it.
func (w *worker) name(h *chunkHead, i int) string {
	var row lineage.Row
	w.identify(&row, h, w.rows.at[i])
	return row.RequestID + "/" + strconv.Itoa(int(number(h, w.rows.at[i])))
}
