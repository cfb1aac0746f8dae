package pipeline

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// work is what waits for one commit: the effects of some items of one door that were scored in one run. It exists from
// scoring to settlement; then its memory is used again.
type work struct {
	door      *door
	async     bool  // answers before the append; the loss window is what this process has not appended yet
	partition int32 // with transactions: that of its events in the source, and the term that they came under
	term      uint64
	rows      int
	bytes     int
	replies   []connectors.Response
	ids       []string // request id of each reply, for callers to be told if the append fails
	outputs   []schemas.Message
	sources   []*connectors.Delivery // what each output was made from
	accept    []*connectors.Delivery
	reject    []rejection
	held      []held
	buf       []byte         // what the answers are encoded in
	about     schemas.Answer // scratch of answer
	values    []string       // where header values lie that differ by answer; handed out with the answers
}

type rejection struct {
	d     *connectors.Delivery
	cause error
}

// held is what an item holds until its work is done.
type held struct {
	rev      *compiled
	received time.Time
	after    afterwards
}

var works = sync.Pool{New: func() any { return new(work) }}

func newWork(dr *door) *work {
	w := works.Get().(*work)
	w.door = dr
	return w
}

// maxWorkBuffer bounds what a pooled work keeps of its encoded answers.
const maxWorkBuffer = 1 << 20

// free gives the memory back. Respond keeps no payload; what was published is never written to again.
func (w *work) free() {
	if len(w.outputs) > 0 {
		w.buf = nil
	}
	clear(w.replies)
	clear(w.ids)
	clear(w.outputs)
	clear(w.sources)
	clear(w.accept)
	clear(w.reject)
	clear(w.held)
	if cap(w.buf) > maxWorkBuffer {
		w.buf = nil
	}
	*w = work{replies: w.replies[:0], ids: w.ids[:0], outputs: w.outputs[:0], sources: w.sources[:0], accept: w.accept[:0],
		reject: w.reject[:0], held: w.held[:0], buf: w.buf[:0]}
	works.Put(w)
}

// myTurn reports whether nothing of an earlier group of this door waits for its commit.
func (dr *door) myTurn(group uint64) bool {
	if group == 0 {
		return true
	}
	dr.order.Lock()
	defer dr.order.Unlock()
	return dr.order.turn >= group
}

// scored takes the items of one run that came by this door: it builds their answers and records and gives them to the
// committer. r is lent for the call. On a durable door the calls go in the order of the groups.
func (dr *door) scored(r *run, items []item) {
	if g := items[0].group; g > 0 {
		dr.waitForTurn(g)
		last := &items[len(items)-1]
		defer dr.endTurn(last.group, last.last)
		if !dr.reached(r, items) {
			return
		}
	}
	if dr.Transactor == nil {
		dr.finish(r, items, newWork(dr))
		return
	}
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(a.d.From.Partition, b.d.From.Partition) })
	for i := 0; i < len(items); {
		w := newWork(dr)
		w.partition, w.term = items[i].d.From.Partition, items[i].d.Term
		j := i + 1
		for j < len(items) && items[j].d.From.Partition == w.partition && items[j].d.Term == w.term {
			j++
		}
		dr.finish(r, items[i:j], w)
		i = j
	}
}

// finish fills a work with what follows from scored items and has it committed.
func (dr *door) finish(r *run, items []item, w *work) {
	w.async = items[0].rev.rev.Spec.Lineage == Async
	now := r.start.Add(r.took)
	var e *schemas.Error
	if r.err != nil {
		e = dr.p.host.public(r.err, dr.p.name)
	}
	failed := 0
	values := len(items)
	if dr.OutputTo != "" { // what is published is kept: it cannot lie in memory that is used again
		values *= 2
		w.buf = make([]byte, 0, len(items)*int(dr.answerBytes.Load()))
	}
	w.values = make([]string, 0, values)
	for i := range items {
		it := &items[i]
		w.hold(it)
		if it.err == nil { // not refused at the door
			it.err = e
		}
		if it.err == nil {
			it.rev.told(r, it, &w.about)
			if err := w.answer(it, it.rev.madeBy(r, it), r.out, it.from, it.to); err != nil {
				it.err = dr.p.host.public(err, dr.p.name)
			}
		}
		if it.err != nil {
			w.fail(it, it.err)
			dr.p.failed(1, it.err)
			failed++
		}
	}
	if dr.OutputTo != "" {
		dr.answerBytes.Store(int64(1 + len(w.buf)/len(items)))
	}
	dr.observe(r, items, failed)
	dr.offer(r, items)
	dr.commit.add(r, items, w, now) // from here on w is the committer's
}

func (dr *door) waitForTurn(g uint64) {
	dr.order.Lock()
	for dr.order.turn < g {
		dr.order.Wait()
	}
	dr.order.Unlock()
}

// endTurn lets the next group go, or waits for the rest of this one if its last item has not come.
func (dr *door) endTurn(group uint64, last bool) {
	dr.order.Lock()
	if dr.order.turn = group; last {
		dr.order.turn++
	}
	dr.order.Broadcast()
	dr.order.Unlock()
}

// reached makes sure that events are not lost to a scorer that cannot be reached now: they are scored until it can, while
// later ones wait, which keeps order. false: the door closed before; the events, and all after them, stay unsettled and
// unrecorded, and go to whoever gets them next.
func (dr *door) reached(r *run, items []item) bool {
	for r.err != nil && passing(r.err) && !dr.commit.broken.Load() {
		dr.p.host.Log.Error("scorer not reached: trying again", "pipeline", dr.p.name, slog.Any("error", r.err))
		if !dr.wait(dr.commit.ctx, retryPause) {
			dr.commit.broken.Store(true)
			break
		}
		r.err = items[0].rev.call(dr.commit.ctx, r)
	}
	if !dr.commit.broken.Load() {
		return true
	}
	w := newWork(dr)
	for i := range items {
		w.hold(&items[i])
	}
	w.done()
	return false
}

// hold keeps what an item holds until the work is done.
func (w *work) hold(it *item) {
	w.rows += it.admitted
	w.bytes += it.size
	w.held = append(w.held, held{it.rev, it.received, it.after})
}

func (dr *door) observe(r *run, items []item, failed int) {
	s := dr.p.series(items[0].rev)
	rows, bad := 0, 0
	for i := range items {
		n := items[i].to - items[i].from
		if items[i].err == nil {
			rows += n
		} else {
			bad += n
		}
		s.queue.Observe(r.start.Sub(items[i].received).Seconds())
	}
	s.score.Observe(r.took.Seconds())
	s.requests.Add(float64(len(items) - failed))
	s.rows.Add(float64(rows))
	if c := items[0].rev.count; c != nil && rows+bad > 0 {
		c.book.sample(sinceStart())
		c.batch(rows+bad, bad, r.took)
	}
	dr.p.stats.requests.Add(uint64(len(items) - failed))
}

// answer encodes the output rows of one item: as a reply, as a message of the output topic, or both.
func (w *work) answer(it *item, by *answered, out *schemas.Batch, from, to int) error {
	dr := w.door
	replies := it.d.ReplyTo != "" && dr.Responder != nil
	switch {
	case replies && !it.deadline.IsZero() && time.Now().After(it.deadline):
		w.reply(it, schemas.Errorf(schemas.Expired, "pipeline.answer", "scored after the deadline"))
	case replies || dr.OutputTo != "":
		h := make(schemas.Header, 4)
		at := len(w.buf)
		w.about.RequestID, w.about.Model, w.about.Version, w.about.Errs = it.id, by.name, by.version, it.bad
		b, err := it.enc.EncodeRows(w.buf, h, out, from, to, &w.about)
		if err != nil {
			return err
		}
		w.buf = b
		w.values = append(w.values, it.id)
		h[schemas.HeaderRequestID] = w.values[len(w.values)-1 : len(w.values) : len(w.values)]
		h[schemas.HeaderModel] = by.label
		w.tellHow(h)
		payload := w.buf[at:len(w.buf):len(w.buf)]
		if replies {
			w.replies = append(w.replies, connectors.Response{To: it.d.ReplyTo, Header: h, Payload: payload})
			w.ids = append(w.ids, it.id)
		}
		if dr.OutputTo != "" {
			w.outputs = append(w.outputs, w.output(it, by, h, payload))
			w.sources = append(w.sources, it.d)
		}
	}
	switch {
	case len(it.bad) > 0:
		w.reject = append(w.reject, rejection{it.d, badRows(it.bad)})
	case dr.Durable:
		w.accept = append(w.accept, it.d)
	}
	return nil
}

// tellHow writes what is told of how an answer was made, where there is something.
func (w *work) tellHow(h schemas.Header) {
	if a := w.about.Answered; a != "" {
		h.Set(schemas.HeaderAnswered, a)
	}
	if f := w.about.Fallback; f != "" {
		h.Set(schemas.HeaderFallback, f)
	}
}

// badRows is the cause under which an event with bad rows goes to the dead letters; its good rows were scored.
func badRows(bad []schemas.RowError) error {
	e := bad[0].Err
	return schemas.FieldErrorf(e.Kind, "pipeline.admit", e.Field, "%d rows of this event were not scored, the first: %w", len(bad), e)
}

// output is the message of the output topic. Its id follows from the input alone, so that the transport and readers
// fold repeats.
func (w *work) output(it *item, by *answered, h schemas.Header, payload []byte) schemas.Message {
	w.values = append(w.values, it.d.From.String())
	h[schemas.HeaderSource] = w.values[len(w.values)-1 : len(w.values) : len(w.values)]
	h[schemas.HeaderRevision] = by.revision
	if t := it.d.Header[schemas.HeaderEventTime]; t != nil {
		h[schemas.HeaderEventTime] = t
	}
	dr := w.door
	id := lineage.RecordID(lineage.RequestKey(dr.principal(it.d), dr.p.name, it.id), it.digest, 0, RootPath, "")
	return schemas.Message{Topic: dr.OutputTo, Key: it.d.Key, ID: hexID(id), Header: h, Payload: payload}
}

// fail answers an item with an error, or sends a stored message to the dead letters.
func (w *work) fail(it *item, e *schemas.Error) {
	if w.door.Durable {
		w.reject = append(w.reject, rejection{it.d, e})
		return
	}
	w.reply(it, e)
}

func (w *work) reply(it *item, e *schemas.Error) {
	if it.d.ReplyTo == "" || w.door.Responder == nil {
		return
	}
	h, body := schemas.ErrorAnswer(e, it.id)
	w.replies = append(w.replies, connectors.Response{To: it.d.ReplyTo, Header: h, Payload: body})
	w.ids = append(w.ids, it.id)
}

// tell turns all replies into an error.
func (w *work) tell(e *schemas.Error) {
	for i := range w.replies {
		w.replies[i].Header, w.replies[i].Payload = schemas.ErrorAnswer(e, w.ids[i])
	}
}

// withdraw replaces the answer of an item whose output cannot be recorded by an error: nothing is seen unrecorded.
func (w *work) withdraw(it *item, e *schemas.Error) {
	for i := range w.replies {
		if w.ids[i] == it.id && w.replies[i].To == it.d.ReplyTo {
			w.replies[i].Header, w.replies[i].Payload = schemas.ErrorAnswer(e, it.id)
		}
	}
	if w.door.Durable {
		w.bury(it.d, e)
	}
}

// bury sends an event to the dead letters instead of its output.
func (w *work) bury(d *connectors.Delivery, cause error) {
	if i := slices.Index(w.sources, d); i >= 0 {
		w.sources, w.outputs = slices.Delete(w.sources, i, i+1), slices.Delete(w.outputs, i, i+1)
	}
	w.accept = slices.DeleteFunc(w.accept, func(o *connectors.Delivery) bool { return o == d })
	w.reject = slices.DeleteFunc(w.reject, func(r rejection) bool { return r.d == d })
	w.reject = append(w.reject, rejection{d, cause})
}

// row is the envelope of an item's first row.
func (it *item) envelope(row *lineage.Row, r *run, scored time.Time) {
	it.stamp(row)
	row.BatchSize, row.BatchRow = int32(r.in.Rows()), int32(it.from)
	row.Queue, row.Score, row.Scored = r.start.Sub(it.received), r.took, scored
}

// stamp fills what is known of an item's rows before they are scored.
func (it *item) stamp(row *lineage.Row) {
	*row = lineage.Row{
		RequestID: it.id, Attempt: int32(max(it.d.Attempt, 1)), From: it.d.From, InputDigest: it.digest,
		Status: lineage.StatusOK, Propensity: 1, Received: it.received,
	}
	if h := it.d.Header; len(h) > 0 {
		row.TraceID = traceID(h)
		row.ParentID = h.Get(schemas.HeaderParent)
		if s := h.Get(schemas.HeaderEventTime); s != "" {
			row.EventTime, _ = time.Parse(time.RFC3339Nano, s) // an event time that cannot be read is none
		}
	}
}

// errored writes an error into an envelope.
func errored(row *lineage.Row, e *schemas.Error) {
	row.Status, row.ErrorKind, row.ErrorID, row.Error = lineage.StatusError, e.Kind.String(), e.ID, e.Error()
}

// traceID takes the trace id out of a W3C traceparent header, 00-<32 hex digits>-<16>-<2>; "" if there is none.
func traceID(h schemas.Header) string {
	if p := h.Get(schemas.HeaderTrace); len(p) == 55 && p[2] == '-' && p[35] == '-' && p[52] == '-' {
		return p[3:35]
	}
	return ""
}

// done gives back what a work held.
func (w *work) done() {
	dr := w.door
	for i := range w.held {
		took := time.Since(w.held[i].received)
		dr.p.total.Observe(took.Seconds())
		dr.p.stats.processing.Add(uint64(took))
		if w.held[i].after != nil {
			close(w.held[i].after)
		}
		w.held[i].rev.release()
	}
	rows, bytes := w.rows, w.bytes
	w.free()
	dr.gone(rows, bytes)
}
