package pipeline

import (
	"strconv"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// work is what waits for one commit: the effects of some items of one door that were scored in one run. It exists from
// scoring to settlement.
type work struct {
	door    *door
	async   bool // answers before the append; the loss window is what this process has not appended yet
	rows    int
	bytes   int
	replies []connectors.Response
	outputs []schemas.Message
	accept  []*connectors.Delivery
	reject  []rejection
	failed  []failed // callers to be told if the append fails; same order as replies
	buf     []byte   // what the answers are encoded in
	revs    []*compiled
	total   []time.Time // receipt of each item, for the histogram
}

type rejection struct {
	d     *connectors.Delivery
	cause error
}

// failed is what is needed to turn an answer into an error.
type failed struct{ to, id string }

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
func (dr *door) scored(r *run, items []item, err error) {
	if g := items[0].group; g > 0 {
		dr.order.Lock()
		for dr.order.turn < g {
			dr.order.Wait()
		}
		dr.order.Unlock()
	}
	w := &work{door: dr, async: items[0].rev.rev.Spec.Lineage == Async}
	now := r.start.Add(r.took)
	errs := make([]*schemas.Error, 0, 1)
	if err != nil {
		errs = append(errs, dr.p.host.public(err, dr.p.name)) // err is of one item: the batcher runs the items of a failed run alone
	}
	for i := range items {
		it := &items[i]
		w.rows += it.to - it.from
		w.bytes += it.size
		w.revs = append(w.revs, it.rev)
		w.total = append(w.total, it.received)
		if len(errs) > 0 {
			w.fail(it, errs[0])
		} else if eerr := w.answer(r, it); eerr != nil {
			w.fail(it, dr.p.host.public(eerr, dr.p.name))
		}
	}
	w.buf = nil // the payloads that were cut from it keep its arrays
	dr.observe(r, items, errs)
	dr.commit.add(r, items, errs, w, now)
	if l := &items[len(items)-1]; l.group > 0 {
		dr.order.Lock()
		if l.last {
			dr.order.turn = l.group + 1
		} else {
			dr.order.turn = l.group
		}
		dr.order.Broadcast()
		dr.order.Unlock()
	}
}

func (dr *door) observe(r *run, items []item, errs []*schemas.Error) {
	s := dr.p.series(items[0].rev)
	rows := 0
	for i := range items {
		rows += items[i].to - items[i].from
		s.queue.Observe(r.start.Sub(items[i].received).Seconds())
	}
	s.score.Observe(r.took.Seconds())
	if len(errs) > 0 {
		dr.p.failed(len(items), errs[0])
		return
	}
	s.requests.Add(float64(len(items)))
	s.rows.Add(float64(rows))
	dr.p.stats.requests.Add(uint64(len(items)))
}

// answer encodes the output rows of one item: as a reply, as a message of the output topic, or both.
func (w *work) answer(r *run, it *item) error {
	dr := w.door
	v := &it.rev.root.model.version
	replies := it.d.ReplyTo != "" && dr.Responder != nil
	if replies && !it.deadline.IsZero() && time.Now().After(it.deadline) {
		w.reply(it, schemas.Errorf(schemas.Expired, "pipeline.answer", "scored after the deadline"))
		replies = false
	}
	if replies || dr.Output != nil {
		h := make(schemas.Header, 4)
		at := len(w.buf)
		a := schemas.Answer{RequestID: it.id, Model: v.Name, Version: strconv.Itoa(v.Version), Errs: it.bad}
		b, err := it.enc.EncodeRows(w.buf, h, r.out, it.from, it.to, &a)
		if err != nil {
			return err
		}
		w.buf = b
		h[schemas.HeaderRequestID] = []string{it.id}
		h[schemas.HeaderModel] = it.rev.label
		if replies {
			w.replies = append(w.replies, connectors.Response{To: it.d.ReplyTo, Header: h, Payload: w.buf[at:len(w.buf):len(w.buf)]})
			w.failed = append(w.failed, failed{it.d.ReplyTo, it.id})
		}
		if dr.Output != nil {
			w.outputs = append(w.outputs, dr.output(it, h, w.buf[at:len(w.buf):len(w.buf)]))
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

// badRows is the cause under which an event with bad rows goes to the dead letters; its good rows were scored.
func badRows(bad []schemas.RowError) error {
	e := bad[0].Err
	return schemas.FieldErrorf(e.Kind, "pipeline.admit", e.Field, "%d rows of this event were not scored, the first: %w", len(bad), e)
}

// output is the message of the output topic. Its id follows from the input alone, so that the transport and readers
// fold repeats.
func (dr *door) output(it *item, h schemas.Header, payload []byte) schemas.Message {
	h[schemas.HeaderSource] = []string{it.d.From.String()}
	h[schemas.HeaderRevision] = []string{it.rev.rev.Revision}
	if t := it.d.Header[schemas.HeaderEventTime]; t != nil {
		h[schemas.HeaderEventTime] = t
	}
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
	w.failed = append(w.failed, failed{it.d.ReplyTo, it.id})
}

// row is the envelope of an item's first row.
func (it *item) row(r *run, scored time.Time, e *schemas.Error) lineage.Row {
	h := it.d.Header
	row := lineage.Row{
		RequestID: it.id, Attempt: int32(max(it.d.Attempt, 1)), From: it.d.From, InputDigest: it.digest,
		Status: lineage.StatusOK, Propensity: 1, BatchSize: int32(r.in.Rows()), BatchRow: int32(it.from),
		Queue: r.start.Sub(it.received), Score: r.took, Received: it.received, Scored: scored,
	}
	if len(h) > 0 {
		row.TraceID = traceID(h)
		row.ParentID = h.Get(schemas.HeaderParent)
		if s := h.Get(schemas.HeaderEventTime); s != "" {
			row.EventTime, _ = time.Parse(time.RFC3339Nano, s) // an event time that cannot be read is none
		}
	}
	if e != nil {
		row.Status, row.ErrorKind, row.ErrorID, row.Error = lineage.StatusError, e.Kind.String(), e.ID, e.Error()
	}
	return row
}

// done gives back what a work held.
func (w *work) done() {
	dr := w.door
	dr.rows.Add(-int64(w.rows))
	dr.bytes.Add(-int64(w.bytes))
	select {
	case dr.room <- struct{}{}:
	default:
	}
	for _, rev := range w.revs {
		rev.release()
	}
	for _, t := range w.total {
		took := time.Since(t)
		dr.p.total.Observe(took.Seconds())
		dr.p.stats.processing.Add(uint64(took))
	}
}
