package bulk

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// record appends the lineage records of all rows and waits for the acknowledgement. A row whose record does not fit a
// message becomes a bad row.
//
// The request of a record is the chunk: "<job>.<chunk>", with the row counted from the chunk's first row. Rows of stored
// messages are recorded message by message, so that a gap changes no identity: "<job>.<chunk>.<sequence - first>", with
// the row in the message.
func (w *worker) record(ctx context.Context, h *chunkHead, received time.Time) error {
	w.records.Reset()
	base := lineage.Row{Attempt: 1, Status: lineage.StatusOK, Propensity: 1, Received: received}
	r := w.rows
	for from := 0; from < len(r.at); {
		to := len(r.at)
		if w.rows.stored {
			to = from + 1
			for to < len(r.at) && r.at[to].Unit == r.at[from].Unit {
				to++
			}
			base.EventTime = time.Time{}
			if o := &r.origins[from]; o.event != 0 {
				base.EventTime = unixNano(o.event)
			}
		}
		w.identify(&base, h, r.at[from])
		base.InputDigest = lineage.InputDigest(r.in, from, to)
		w.addRange(&base, h, from, to)
		from = to
	}
	w.addBad(&base, h)
	_, err := w.s.deps.Lineage.Append(ctx, &w.records)
	return err
}

// identify names the request that a row is of, and where it comes from.
func (w *worker) identify(row *lineage.Row, h *chunkHead, at ref) {
	row.RequestID = w.job.ID + "." + strconv.FormatInt(h.chunk, 10)
	row.From = schemas.Position{Stream: h.Stream, Partition: h.Partition, Sequence: at.Unit}
	if w.rows.stored {
		row.RequestID += "." + formatUint(at.Unit-h.First.Unit)
		return
	}
	row.From.Sequence = h.First.Unit + 1 // of the chunk's first row; rows of files count from 0, positions from 1
}

// number is the row of a request.
func number(h *chunkHead, at ref) int32 {
	if h.layout&withOrigins != 0 {
		return at.Sub
	}
	return int32(at.Unit - h.First.Unit)
}

// addRange adds rows [from, to) of the chunk with as few calls as there are runs of neighbours that were scored together.
func (w *worker) addRange(base *lineage.Row, h *chunkHead, from, to int) {
	at := w.rows.at
	for t := 0; from < to; {
		row := *base
		row.Row = number(h, at[from])
		if w.beside {
			row.ParentID = w.rows.origins[from].key
		}
		if p := w.pieceOf(from); p != nil && p.trail != nil {
			row.Score, row.Scored = p.took, p.at
			w.addTrail(&row, p, from)
			from++
			continue
		}
		if e := w.failed[from]; e != nil {
			row.BatchSize, row.Scored = 1, time.Now()
			row.Status, row.ErrorKind, row.ErrorID, row.Error = lineage.StatusError, e.Kind.String(), e.ID, newBad(ref{}, e).reason
			w.add(&row, from, from+1, nil)
			from++
			continue
		}
		for w.timings[t].to <= from {
			t++
		}
		piece := &w.timings[t]
		n := from + 1
		for n < to && n < piece.to && w.failed[n] == nil && number(h, at[n]) == number(h, at[n-1])+1 {
			n++
		}
		row.BatchSize, row.BatchRow, row.Score, row.Scored = int32(piece.to-piece.from), int32(from-piece.from), piece.took, piece.at
		w.add(&row, from, n, w.outputs)
		from = n
	}
}

// pieceOf returns when a row was scored, nil if it never was.
func (w *worker) pieceOf(row int) *timing {
	i, _ := slices.BinarySearchFunc(w.timings, row, func(t timing, row int) int { return t.to - row - 1 })
	if i == len(w.timings) || w.timings[i].from > row {
		return nil
	}
	return &w.timings[i]
}

// addTrail adds a row with the nodes of the route that it came by; one that cannot be recorded fails.
func (w *worker) addTrail(row *lineage.Row, p *timing, i int) {
	err := p.trail.Record(&w.records, row, i-p.from, w.rows.in, i, w.outputs, w.outAt[i])
	if err == nil {
		return
	}
	e := schemas.AsError("bulk.record", err)
	if w.failed[i] == nil {
		w.failed[i] = e
	}
	w.addWithout(row, e.Kind.String(), newBad(ref{}, e).reason)
}

// add adds neighbours; rows that cannot be recorded fail.
func (w *worker) add(first *lineage.Row, from, to int, out *schemas.Batch) {
	if w.records.AddRange(w.context, first, w.rows.in, from, to, out, w.outAt[from]) == nil {
		return
	}
	for i := from; i < to; i++ {
		row := *first
		row.Row += int32(i - from)
		row.BatchRow += int32(i - from)
		err := w.records.Add(w.context, &row, w.rows.in, i, out, w.outAt[i])
		if err == nil {
			continue
		}
		e := schemas.AsError("bulk.record", err)
		if w.failed[i] == nil {
			w.failed[i] = e
		}
		w.addWithout(&row, e.Kind.String(), newBad(ref{}, e).reason)
	}
}

// addWithout records a row that has no input to show.
func (w *worker) addWithout(row *lineage.Row, kind, reason string) {
	row.Status, row.ErrorKind, row.Error = lineage.StatusError, kind, reason
	if err := w.records.Add(w.context, row, nil, -1, nil, -1); err != nil {
		w.log.Error("a bad row is not in the lineage", "request", row.RequestID, "row", row.Row, "error", err)
	}
}

// addBad records the rows that could not be decoded. Those that were skipped were never asked for.
func (w *worker) addBad(base *lineage.Row, h *chunkHead) {
	r := w.rows
	for i := range r.bad {
		b := &r.bad[i]
		if b.skipped {
			continue
		}
		row := *base
		w.identify(&row, h, b.at)
		row.Row, row.Scored, row.EventTime = number(h, b.at), time.Now(), time.Time{}
		// A request has one digest: that of its good rows. base has that of a file's chunk.
		if r.stored || len(r.at) == 0 {
			from, _ := r.before(ref{Unit: b.at.Unit})
			to, _ := r.before(ref{Unit: b.at.Unit + 1})
			row.InputDigest = lineage.InputDigest(r.in, from, to)
		}
		w.addWithout(&row, b.kind, b.reason)
	}
}

// insert makes the chunk's result durable, once for ever.
func (w *worker) insert(ctx context.Context, h *chunkHead) error {
	w.gather()
	parts := w.parts()
	for i := len(parts) - 1; i >= 0; i-- { // the first part last: it says that all are there
		p := parts[i]
		r := result{Chunk: h.chunk, Part: i, Parts: len(parts), span: h.span}
		if p.to > p.from || p.badTo > p.badFrom {
			w.body, r.Layout = w.out.pack(w.body[:0], w.scored, p.from, p.to, w.scored.bad[p.badFrom:p.badTo])
			r.body = w.body
		}
		payload := r.append(nil)
		_, existed, err := w.results.Insert(ctx, resultSubject(h.chunk, i), payload)
		if err != nil {
			return full(err)
		}
		if existed {
			w.compare(ctx, h.chunk, i, payload)
		}
	}
	return nil
}

// compare reports a chunk that came out differently than the result that was there first, which counts.
func (w *worker) compare(ctx context.Context, chunk int64, part int, payload []byte) {
	e, err := w.results.Last(ctx, resultSubject(chunk, part))
	if err == nil && !bytes.Equal(e.Payload, payload) {
		w.s.m.mismatched.Inc()
		w.log.Warn("a chunk that was scored twice came out differently; the first result counts", "chunk", chunk, "part", part)
	}
}

// gather collects what the result says: the answers of good rows, and all bad ones.
func (w *worker) gather() {
	s, r := w.scored, w.rows
	s.reset()
	s.stored = r.stored
	s.bad = append(s.bad, r.bad...)
	for from := 0; from < len(r.at); {
		if e := w.failed[from]; e != nil {
			s.bad = append(s.bad, newBad(r.at[from], e))
			from++
			continue
		}
		to := from + 1
		for to < len(r.at) && w.failed[to] == nil && w.outAt[to] == w.outAt[to-1]+1 {
			to++
		}
		s.in.AppendRange(w.outputs, w.outAt[from], w.outAt[from]+to-from)
		s.at = append(s.at, r.at[from:to]...)
		if len(r.origins) > 0 {
			s.origins = append(s.origins, r.origins[from:to]...)
		}
		from = to
	}
	slices.SortStableFunc(s.bad, func(a, b bad) int { return compareRef(a.at, b.at) })
}

// part is what one message of a result holds.
type part struct{ from, to, badFrom, badTo int }

// maxPartBad bounds the bad rows of a part.
const maxPartBad = 1024

// parts cuts a result so that each part fits a message: usually there is one.
func (w *worker) parts() []part {
	var ps []part
	n, nbad := len(w.scored.at), len(w.scored.bad)
	for from, bad := 0, 0; len(ps) == 0 || from < n || bad < nbad; {
		p := part{from, from + max(w.scored.fit(from, n, maxResultBytes), min(1, n-from)), bad, min(bad+maxPartBad, nbad)}
		ps = append(ps, p)
		from, bad = p.to, p.badTo
	}
	return ps
}
