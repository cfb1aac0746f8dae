package pipeline

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// Fan carries what primaries have admitted to groups of other processes: topic leat.fan.<pipeline>. What is lost on it is
// in the lineage.
type Fan interface {
	// Fan sends messages to every group that is subscribed now; one of each group gets each message. It waits for no
	// group, and returns an error for what the transport does not take. The messages' topic is not looked at.
	Fan(ctx context.Context, pipeline string, msgs []schemas.Message) error
	// SubscribeFan joins a group. The source drops what is not received in time.
	SubscribeFan(ctx context.Context, pipeline, group string) (connectors.Source, error)
}

// Headers of a message of the fan, beside those of every message. The payload is the rows of one request, in its columns.
const (
	headerVia      = "Leat-Via"      // how the request came
	headerReceived = "Leat-Received" // when
	headerRows     = "Leat-Rows"     // with bad rows left out: the rows in the request, with commas between
)

// Bounds of what waits to be sent.
const (
	maxFanRows  = 8192
	maxFanBytes = 32 << 20
)

// fanOut sends rows to shadows that other processes run. The primary copies rows into it, or drops them; one goroutine
// encodes and sends them.
type fanOut struct {
	p    *processor
	kick chan struct{} // capacity 1
	work sync.WaitGroup

	mu struct {
		sync.Mutex
		waiting []*fanned
		rows    int
		bytes   int
		running bool
		closed  bool
	}
}

// fanned are requests of one revision that wait to be sent.
type fanned struct {
	in       *schemas.Batch
	revision string
	requests []fannedRequest
}

type fannedRequest struct {
	header   schemas.Header
	from, to int
	shadows  []*shadow // that sample rows of it
}

// put copies the rows of an item, or drops them.
func (f *fanOut) put(it *item, from caller, in *schemas.Batch, to []*shadow) {
	n := it.to - it.from
	drop := func() {
		for _, s := range to {
			s.queue.count(shed, n)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.closed || f.mu.rows+n > maxFanRows || f.mu.bytes > maxFanBytes {
		drop()
		return
	}
	var b *fanned
	if k := len(f.mu.waiting); k > 0 && f.mu.waiting[k-1].revision == it.rev.rev.Revision && f.mu.waiting[k-1].in.Rows() < maxShadowRows {
		b = f.mu.waiting[k-1]
	} else {
		b = &fanned{in: schemas.NewBatch(in.Schema()), revision: it.rev.rev.Revision}
		f.mu.waiting = append(f.mu.waiting, b)
	}
	at, before := b.in.Rows(), b.in.Bytes()
	b.in.AppendRange(in, it.from, it.to)
	f.mu.rows += n
	f.mu.bytes += b.in.Bytes() - before
	headers := false
	for _, s := range to {
		headers = headers || s.headers
	}
	b.requests = append(b.requests, fannedRequest{header: it.fanHeader(from, headers), from: at, to: at + n, shadows: to})
	if !f.mu.running {
		f.mu.running = true
		f.work.Go(f.run)
	}
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// fanHeader says of an item what the records of a shadow need.
func (it *item) fanHeader(from caller, callers bool) schemas.Header {
	h := schemas.Header{}
	for k, v := range it.d.Header {
		if callers || k == schemas.HeaderTrace || k == schemas.HeaderEventTime {
			h[k] = v
		}
	}
	h.Set(schemas.HeaderRequestID, it.id)
	h.Set(schemas.HeaderRevision, it.rev.rev.Revision)
	h.Set(schemas.HeaderRole, "primary")
	h.Set(schemas.HeaderAttempt, strconv.Itoa(max(it.d.Attempt, 1)))
	h.Set(headerVia, from.via)
	h.Set(headerReceived, schemas.FormatTime(it.received))
	if delete(h, schemas.HeaderPrincipal); from.principal != "" {
		h.Set(schemas.HeaderPrincipal, from.principal)
	}
	if delete(h, schemas.HeaderSource); !it.d.From.IsZero() {
		h.Set(schemas.HeaderSource, it.d.From.String())
	}
	if it.rows != nil {
		var b []byte
		for i, r := range it.rows {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(r), 10)
		}
		h.Set(headerRows, string(b))
	}
	return h
}

// run sends until the pipeline stops.
func (f *fanOut) run() {
	ctx := f.p.stopped
	for {
		select {
		case <-f.kick:
		case <-ctx.Done():
			return
		}
		for b := f.take(); b != nil; b = f.take() {
			f.send(ctx, b)
		}
	}
}

func (f *fanOut) take() *fanned {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mu.waiting) == 0 {
		return nil
	}
	b := f.mu.waiting[0]
	f.mu.waiting[0] = nil
	f.mu.waiting = f.mu.waiting[1:]
	f.mu.rows -= b.in.Rows()
	f.mu.bytes -= b.in.Bytes()
	return b
}

// send sends what waited, request by request: one that the transport does not take costs no other.
func (f *fanOut) send(ctx context.Context, b *fanned) {
	format := wire.FormatOf(b.in.Schema())
	id := b.in.Schema().ID().String()
	for _, r := range b.requests {
		var payload []byte
		err := safely("fan", func() error {
			payload = format.AppendBatch(nil, b.in, r.from, r.to)
			return nil
		})
		if err == nil {
			r.header.Set(schemas.HeaderContentType, wire.ContentTypeBatch)
			r.header.Set(schemas.HeaderSchema, id)
			err = f.p.host.Fan.Fan(ctx, f.p.name, []schemas.Message{{Header: r.header, Payload: payload}})
		}
		if err == nil {
			continue
		}
		r.drop()
		if ctx.Err() == nil {
			f.p.host.Log.Warn("rows not sent to shadows of other processes", "pipeline", f.p.name, "rows", r.to-r.from, slog.Any("error", err))
		}
	}
}

func (f *fanOut) close() {
	f.mu.Lock()
	f.mu.closed = true
	f.mu.Unlock()
	f.work.Wait()
	for b := f.take(); b != nil; b = f.take() { // what waits is dropped
		for _, r := range b.requests {
			r.drop()
		}
	}
}

// drop counts the rows of a request that is not sent.
func (r *fannedRequest) drop() {
	for _, s := range r.shadows {
		s.queue.count(shed, r.to-r.from)
	}
}

// fanIn takes for one shadow what primaries of other processes have sent.
type fanIn struct {
	p      *processor
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// followFan subscribes to what the shadows of a revision run here, and leaves what they do not.
func (p *processor) followFan(c *compiled) {
	wanted := map[string]bool{}
	if p.host.Groups.shared() && p.host.Fan != nil {
		for _, s := range c.shadows {
			if !s.remote {
				wanted[s.spec.Name] = true
			}
		}
	}
	for name, f := range p.fans {
		if !wanted[name] {
			f.cancel()
			<-f.done
			delete(p.fans, name)
		}
	}
	for name := range wanted {
		if p.fans[name] == nil {
			f := &fanIn{p: p, name: name, done: make(chan struct{})}
			var ctx context.Context
			ctx, f.cancel = context.WithCancel(p.stopped)
			if p.fans == nil {
				p.fans = map[string]*fanIn{}
			}
			p.fans[name] = f
			go f.run(ctx)
		}
	}
}

func (p *processor) closeFans() {
	for _, f := range p.fans {
		f.cancel()
		<-f.done
	}
	p.fans = nil
}

// run receives until ctx ends, and subscribes again where a source ends by itself.
func (f *fanIn) run(ctx context.Context) {
	defer close(f.done)
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		src, err := f.p.host.Fan.SubscribeFan(ctx, f.p.name, GroupShadow+f.name)
		if err == nil {
			err = f.receive(ctx, src)
			_ = src.Close(context.WithoutCancel(ctx)) // what it still holds is in the lineage
		}
		if ctx.Err() == nil {
			f.p.host.Log.Error("fan of a shadow closed: opening it again", "pipeline", f.p.name, "shadow", f.name, slog.Any("error", err))
		}
		retry.Reset(retryPause)
	}
}

func (f *fanIn) receive(ctx context.Context, src connectors.Source) error {
	q := f.p.shadowQueue(f.name)
	for {
		ds, err := src.Receive(ctx, receiveMax)
		if err != nil {
			return err
		}
		for _, d := range ds {
			if err := safely("fan", func() error { return f.take(ctx, d) }); err != nil && ctx.Err() == nil {
				q.count(shed, 1)
				f.p.host.Log.Warn("a request of another process is not scored by a shadow", "pipeline", f.p.name, "shadow", f.name,
					"request", d.Header.Get(schemas.HeaderRequestID), slog.Any("error", err))
			}
		}
		if ctx.Err() == nil {
			if err := ds[0].Settler.Accept(ctx, ds); err != nil {
				return err
			}
		}
	}
}

// take decodes a message and offers its rows to the shadow of the revision that they were admitted under.
func (f *fanIn) take(ctx context.Context, d *connectors.Delivery) error {
	const op = "pipeline.fan"
	c := f.p.awaited(ctx, d.Header.Get(schemas.HeaderRevision), f.name)
	if c == nil {
		return schemas.Errorf(schemas.Unavailable, op, "revision %.12s is not the active one here", d.Header.Get(schemas.HeaderRevision))
	}
	defer c.release()
	in := schemas.NewBatch(c.sig.Inputs)
	if id := d.Header.Get(schemas.HeaderSchema); id != in.Schema().ID().String() {
		return schemas.Errorf(schemas.Invalid, op, "rows of schema %.32s, and requests have %s", id, in.Schema().ID())
	}
	n, err := wire.AppendRows(in, d.Payload)
	if err != nil {
		return err
	}
	it := item{rev: c, id: d.Header.Get(schemas.HeaderRequestID), to: n, received: time.Now(), digest: lineage.InputDigest(in, 0, n)}
	if t, err := time.Parse(time.RFC3339Nano, d.Header.Get(headerReceived)); err == nil {
		it.received = t
	}
	one := connectors.Delivery{Message: schemas.Message{Header: d.Header}}
	if one.From, err = schemas.ParsePosition(d.Header.Get(schemas.HeaderSource)); err != nil {
		return err
	}
	one.Attempt, _ = strconv.Atoi(d.Header.Get(schemas.HeaderAttempt)) // a hint
	it.d = &one
	if rows := d.Header.Get(headerRows); rows != "" {
		for text := range strings.SplitSeq(rows, ",") {
			r, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return schemas.FieldErrorf(schemas.Invalid, op, headerRows, "%.40q is no row", text)
			}
			it.rows = append(it.rows, int32(r))
		}
		if len(it.rows) != n {
			return schemas.FieldErrorf(schemas.Invalid, op, headerRows, "%d rows are named, and %d are there", len(it.rows), n)
		}
	}
	from := caller{via: d.Header.Get(headerVia), principal: d.Header.Get(schemas.HeaderPrincipal)}
	for _, s := range c.shadows {
		if s.spec.Name == f.name {
			s.take(&it, from, in)
		}
	}
	return nil
}

// awaitRevision is how long what comes under another revision waits for it to be active and loaded: control reaches
// processes one after the other.
const awaitRevision = 2 * time.Second

// awaited returns the active revision if it is the one, with the shadow loaded, or the one before it. The caller releases
// it; nil: it did not come in time. It does not wait twice for a revision that did not.
func (p *processor) awaited(ctx context.Context, revision, shadow string) *compiled {
	var limit *time.Timer
	over := false
	for {
		p.mu.Lock()
		changed := p.mu.settled
		var got *compiled
		for _, c := range []*compiled{p.active.Load(), p.mu.before} {
			if c != nil && c.rev.Revision == revision && c.acquire() {
				got = c
				break
			}
		}
		given := over || p.mu.missed == revision
		p.mu.Unlock()
		if got != nil && (given || got.isLoaded(shadow)) {
			return got
		}
		if given {
			return nil
		}
		if got != nil {
			got.release()
		}
		if limit == nil {
			limit = time.NewTimer(awaitRevision)
			defer limit.Stop()
		}
		select {
		case <-changed:
		case <-limit.C:
			over = true // whatever others note in the meantime
			p.mu.Lock()
			p.mu.missed = revision
			p.mu.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}

// wakeAwaiting wakes who waits for a revision, or a shadow of it.
func (p *processor) wakeAwaiting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.settled != nil {
		close(p.mu.settled)
	}
	p.mu.settled = make(chan struct{})
	p.mu.missed = ""
}

func (c *compiled) isLoaded(shadow string) bool {
	for _, s := range c.shadows {
		if s.spec.Name == shadow {
			return s.loaded.Load() != nil
		}
	}
	return false
}

// samples reports whether a shadow samples a row of an item.
func (s *shadow) samples(it *item, in *schemas.Batch) bool {
	if s.key < 0 {
		return route.SampledString(s.salt, it.id, s.rate)
	}
	var text [64]byte
	for i := it.from; i < it.to; i++ {
		if s.sampled(text[:0], it, in, i) {
			return true
		}
	}
	return false
}
