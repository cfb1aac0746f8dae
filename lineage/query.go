package lineage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/oklog/ulid/v2"
)

// Get returns all records of a request, of every pipeline, node and job, in stream order, at most limit of them. Duplicates
// come too, flagged; every record of a reused id is flagged. The records are the caller's. It reads the logs from the
// time that the id was made, if it is a ULID, else, or if that finds nothing, from their beginning.
func (r *StreamReader) Get(ctx context.Context, requestID string, limit int) ([]*Record, error) {
	rs, _, err := r.find(ctx, requestID, limit)
	return rs, err
}

// find is Get; it also returns since when the logs were read.
func (r *StreamReader) find(ctx context.Context, requestID string, limit int) ([]*Record, time.Time, error) {
	if requestID == "" {
		return nil, time.Time{}, schemas.FieldErrorf(schemas.Invalid, "lineage.Get", "request_id", "it is empty")
	}
	q := Query{RequestID: requestID, All: true}
	if id, err := ulid.ParseStrict(requestID); err == nil {
		q.Since = ulid.Time(id.Time()).Add(-clockSkew)
	}
	rs, err := r.get(ctx, q, limit)
	if err == nil && len(rs) == 0 && !q.Since.IsZero() {
		q.Since = time.Time{}
		rs, err = r.get(ctx, q, limit)
	}
	return rs, q.Since, err
}

// clockSkew is how far the clocks of a caller who makes ULIDs and of the stream may differ before Get reads twice.
const clockSkew = 5 * time.Minute

func (r *StreamReader) get(ctx context.Context, q Query, limit int) ([]*Record, error) {
	var rs []*Record
	type name struct {
		log string
		key [32]byte
	}
	reused := map[name]bool{}
	keyOf := func(rec *Record) name {
		return name{rec.Position.Stream, RequestKey(rec.Principal, rec.Pipeline, rec.RequestID)}
	}
	// What comes before Since cannot be of this request: nothing to fold back to.
	err := r.scan(ctx, q, true, noFoldBack, events{record: func(rec *Record) (bool, error) {
		rs = append(rs, rec.Clone())
		if rec.IDReused {
			reused[keyOf(rec)] = true
		}
		return len(rs) < limit, nil
	}})
	for _, rec := range rs {
		rec.IDReused = reused[keyOf(rec)]
	}
	return rs, err
}

// Totals counts records.
type Totals struct {
	Records    int64 `json:"records"` // canonical
	OK         int64 `json:"ok"`
	Errors     int64 `json:"errors"`
	Late       int64 `json:"late,omitempty"` // what came when the request had been answered without it
	Superseded int64 `json:"superseded"`     // other later records of an id that was there
	IDReused   int64 `json:"id_reused"`      // canonical, of a request id that came with another input before
}

// Count counts what a query selects, without reading inputs and outputs.
func (r *StreamReader) Count(ctx context.Context, q Query) (Totals, error) {
	var t Totals
	if err := q.Check(); err != nil {
		return t, err
	}
	q.All, q.Follow = true, false
	err := r.scan(ctx, q, false, 0, events{record: func(rec *Record) (bool, error) {
		switch {
		case rec.Status == StatusLate:
			t.Late++
			return true, nil
		case rec.Superseded:
			t.Superseded++
			return true, nil
		}
		t.Records++
		if rec.Status == StatusOK {
			t.OK++
		} else {
			t.Errors++
		}
		if rec.IDReused {
			t.IDReused++
		}
		return true, nil
	}})
	return t, err
}

// Bounds returns the first and the last sequence that the stream of requests and topics holds; last < first: it is
// empty.
func (r *StreamReader) Bounds(ctx context.Context) (first, last uint64, err error) {
	st, err := r.logs.Online.Stats(ctx)
	return max(st.First, 1), st.Last, err
}

// LogStatus says how full a log is and what of it may be pruned.
type LogStatus struct {
	Log      string   `json:"log"`
	First    uint64   `json:"first"`
	Last     uint64   `json:"last"`
	Messages uint64   `json:"messages"`
	Bytes    uint64   `json:"bytes"`
	MaxBytes uint64   `json:"max_bytes"`
	Fill     float64  `json:"fill"` // 0 to 1
	Exported *Receipt `json:"exported,omitempty"`
}

// Status describes the three logs.
func (k *Keeper) Status(ctx context.Context) ([]LogStatus, error) {
	var out []LogStatus
	for _, name := range [...]string{LogOnline, LogJobs, LogRejected} {
		st, err := k.reader.logs.log(name).Stats(ctx)
		if err != nil {
			return nil, err
		}
		s := LogStatus{Log: name, First: st.First, Last: st.Last, Messages: st.Messages, Bytes: st.Bytes, MaxBytes: st.MaxBytes}
		if st.MaxBytes > 0 {
			s.Fill = float64(st.Bytes) / float64(st.MaxBytes)
		}
		if name != LogRejected {
			r, _, err := k.receipt(ctx, name)
			if err != nil {
				return nil, err
			}
			if r.Through > 0 {
				s.Exported = &r
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Refusals calls fn for the refusals that are kept since a time, oldest first, until it returns false; suppressed is the
// number by kind of those that were only counted, in a call of its own with a nil Refusal.
func (r *StreamReader) Refusals(ctx context.Context, since time.Time, fn func(f *Refusal, suppressed map[string]int64) bool) error {
	from := uint64(0)
	if !since.IsZero() {
		var err error
		if from, err = r.logs.Rejected.SequenceAt(ctx, since); err != nil {
			return err
		}
	}
	var failed error
	err := r.logs.Rejected.Read(ctx, from, nil, false, func(e *schemas.Entry) bool {
		lines := bufio.NewScanner(bytes.NewReader(e.Payload))
		lines.Buffer(nil, MaxMessage)
		for lines.Scan() {
			var l struct {
				Refusal
				Suppressed map[string]int64 `json:"suppressed"`
			}
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				failed = schemas.Errorf(schemas.Internal, "lineage.Refusals", "message %s/0/%d cannot be read: %w", LogRejected, e.Sequence, err)
				return false
			}
			f := &l.Refusal
			if l.Suppressed != nil {
				f = nil
			}
			if !fn(f, l.Suppressed) {
				return false
			}
		}
		failed = lines.Err()
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}
