package lineage

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// Filter is the part of a Query that operations take by name.
type Filter struct {
	Pipeline string    `query:"pipeline" doc:"only records of this pipeline"`
	Model    string    `query:"model" doc:"NAME or NAME@VERSION"`
	Status   string    `query:"status" doc:"ok, error or late"`
	Role     string    `query:"role" doc:"primary, shadow, member, stage, arm or combiner"`
	Run      string    `query:"run" doc:"id of a job; - for records that no job made"`
	Since    time.Time `query:"since" doc:"recorded at or after this time"`
	Until    time.Time `query:"until" doc:"recorded before this time"`
	All      bool      `query:"all" doc:"superseded duplicates too"`
}

func (f *Filter) query() Query {
	return Query{Pipeline: f.Pipeline, Model: f.Model, Status: f.Status, Role: f.Role, Run: f.Run, Since: f.Since, Until: f.Until, All: f.All}
}

// ListRequest asks for a page of records.
type ListRequest struct {
	Filter
	RequestID string `query:"request_id" doc:"only records of this request"`
	With      string `query:"with" doc:"feedback: what was said of each record, too"`
	Limit     int    `query:"limit" doc:"records a page, 1 to 1000; 100 by default"`
	Cursor    string `query:"cursor" doc:"next of the page before"`
}

// ListReply is a page of records in stream order.
type ListReply struct {
	Records []View `json:"records"`
	Next    string `json:"next,omitempty"` // cursor of the next page; absent on the last
}

// GetRequest asks for all records of a request.
type GetRequest struct {
	RequestID string `path:"request_id" doc:"as the answer's Leat-Request-Id said"`
	Limit     int    `query:"limit" doc:"most records; 1000 by default, at most 10000"`
}

// GetReply is all records of a request, duplicates included and flagged, and all that was said of it.
type GetReply struct {
	Records  []View         `json:"records"`
	Feedback []FeedbackView `json:"feedback,omitempty"`
}

// CountRequest asks how many records a filter selects.
type CountRequest struct{ Filter }

// ExportRequest asks for a file.
type ExportRequest struct {
	Filter
	Format string `query:"format" doc:"parquet (default) or ndjson"`
	With   string `query:"with" doc:"feedback: what was said of each record, too"`
	ID     string `query:"id" doc:"name of the export, made up by the caller, for lineage.confirm"`
}

// TailRequest asks to follow what is recorded.
type TailRequest struct {
	Filter
}

// ConfirmRequest says that an export is safe under its name.
type ConfirmRequest struct {
	ID string `json:"id"`
}

// ConfirmReply says what of the logs is exported by it.
type ConfirmReply struct {
	Ranges Ranges `json:"ranges"`
}

// PruneRequest asks to delete old records.
type PruneRequest struct {
	Before time.Time `json:"before"`
}

// PruneReply says what was deleted.
type PruneReply struct {
	Logs []Pruned `json:"logs"`
}

// StatusRequest has no fields.
type StatusRequest struct{}

// StatusReply describes the logs.
type StatusReply struct {
	Logs []LogStatus `json:"logs"`
}

// Body is a reply that writes itself.
type Body struct {
	contentType string
	write       func(w io.Writer) error
}

var _ api.Stream = (*Body)(nil)

// ContentType implements api.Stream.
func (b *Body) ContentType() string { return b.contentType }

// WriteBody implements api.Stream.
func (b *Body) WriteBody(w io.Writer) error { return b.write(w) }

const (
	defaultPage, maxPage = 100, 1000
	defaultGet, maxGet   = 1000, 10000
	// pageFoldBack bounds the messages that a page reads before its start to know duplicates: a page shall be quick.
	// Exports and counts look back by Config.FoldBack instead.
	pageFoldBack = 1000
	// maxScans bounds the queries, and maxTails the followers, that run at the same time: each may hold
	// Config.FoldRecords ids.
	maxScans, maxTails = 8, 32
)

// operations serves the table.
type operations struct {
	reader *StreamReader
	keeper *Keeper
	scans  chan struct{}
	tails  chan struct{}
}

// Operations returns what an operator can ask of the lineage.
func Operations(r *StreamReader, k *Keeper) []api.Operation {
	o := &operations{reader: r, keeper: k, scans: make(chan struct{}, maxScans), tails: make(chan struct{}, maxTails)}
	return []api.Operation{
		api.Op("lineage.list", "GET", "/v1/lineage", api.Read, "List records in stream order, a page at a time.", o.list),
		api.Op("feedback.list", "GET", "/v1/feedback", api.Read, "List feedback in stream order, a page at a time, with the decisions that it is about.", o.listFeedback),
		api.Op("lineage.count", "GET", "/v1/lineage/count", api.Read, "Count records.", o.count),
		api.Op("lineage.export", "GET", "/v1/lineage/export", api.Read, "Export records as Parquet or NDJSON; if filtered by nothing but time, feedback too, in rows of its own.", o.export),
		api.Op("lineage.tail", "GET", "/v1/lineage/tail", api.Read, "Follow records as they are made, as NDJSON.", o.tail),
		api.Op("lineage.status", "GET", "/v1/lineage/status", api.Read, "Say how full the lineage is and what of it is exported.", o.status),
		api.Op("lineage.confirm", "POST", "/v1/lineage/confirm", api.Admin, "Say that an export is safe, so that it may be pruned.", o.confirm),
		api.Op("lineage.prune", "POST", "/v1/lineage/prune", api.Admin, "Delete records older than a time that were exported.", o.prune),
		api.Op("lineage.get", "GET", "/v1/lineage/{request_id}", api.Read, "Show all records of a request.", o.get),
	}
}

// enter takes a slot.
func enter(slots chan struct{}) (leave func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
		return nil, schemas.Errorf(schemas.Overloaded, "lineage", "%d lineage queries of this kind run already: try again shortly", cap(slots))
	}
}

func limitOf(n, usual, most int) (int, error) {
	switch {
	case n == 0:
		return usual, nil
	case n < 0 || n > most:
		return 0, schemas.FieldErrorf(schemas.Invalid, "lineage", "limit", "%d: want 1 to %d", n, most)
	}
	return n, nil
}

func (o *operations) list(ctx context.Context, r *ListRequest) (*ListReply, error) {
	limit, err := limitOf(r.Limit, defaultPage, maxPage)
	if err != nil {
		return nil, err
	}
	q := r.query()
	q.RequestID = r.RequestID
	if err := with(r.With, &q); err != nil {
		return nil, err
	}
	after, err := parseCursor(r.Cursor)
	if err != nil {
		return nil, err
	}
	leave, err := enter(o.scans)
	if err != nil {
		return nil, err
	}
	defer leave()
	reply := &ListReply{Records: []View{}}
	var page []*Record // with Join: their feedback is looked for when all are known
	for _, name := range [...]string{LogOnline, LogJobs} {
		if name == LogOnline && (q.Run != "" && q.Run != RunNone || after.log == LogJobs) || name == LogJobs && q.Run == RunNone {
			continue
		}
		one := q
		if name == after.log {
			one.From = after.sequence
		}
		s := o.reader.newScan(name, one, true, pageFoldBack, events{record: func(rec *Record) (bool, error) {
			if name == after.log && rec.Position.Sequence == after.sequence && rec.Index <= after.index {
				return true, nil
			}
			if len(reply.Records) == limit {
				last := &reply.Records[limit-1]
				reply.Next = last.Position + "/" + itoa(last.Index)
				return false, nil
			}
			reply.Records = append(reply.Records, rec.View())
			if q.Join {
				page = append(page, rec.Clone())
			}
			return true, nil
		}})
		if err := s.run(ctx); err != nil {
			return nil, err
		}
		if reply.Next != "" {
			break
		}
	}
	if len(page) > 0 {
		j, err := o.reader.joinThese(ctx, page, time.Time{})
		if err != nil {
			return nil, err
		}
		for i, rec := range page {
			reply.Records[i].Feedback = OutcomeOf(j.of(rec))
		}
	}
	return reply, nil
}

// with reads the parameter of this name into the query, and checks the whole.
func with(what string, q *Query) error {
	if what != "" && what != "feedback" {
		return schemas.FieldErrorf(schemas.Invalid, "lineage", "with", "%q: want feedback, or nothing", clip(what))
	}
	q.Join = what != ""
	return q.Check()
}

// cursor is the place of the last record of a page: stream/partition/sequence/index.
type cursor struct {
	log      string
	sequence uint64
	index    int
}

func parseCursor(s string) (c cursor, err error) {
	if s == "" {
		return c, nil
	}
	i := strings.LastIndexByte(s, '/')
	if i > 0 {
		p, perr := schemas.ParsePosition(s[:i])
		n, nerr := strconv.Atoi(s[i+1:])
		if perr == nil && nerr == nil && n >= 0 && p.Sequence > 0 && (p.Stream == LogOnline || p.Stream == LogJobs) {
			return cursor{p.Stream, p.Sequence, n}, nil
		}
	}
	return c, schemas.FieldErrorf(schemas.Invalid, "lineage.list", "cursor", "%q: want what the page before gave as next", clip(s))
}

func (o *operations) get(ctx context.Context, r *GetRequest) (*GetReply, error) {
	limit, err := limitOf(r.Limit, defaultGet, maxGet)
	if err != nil {
		return nil, err
	}
	leave, err := enter(o.scans)
	if err != nil {
		return nil, err
	}
	defer leave()
	return o.reader.request(ctx, r.RequestID, limit)
}

func (o *operations) count(ctx context.Context, r *CountRequest) (*Totals, error) {
	leave, err := enter(o.scans)
	if err != nil {
		return nil, err
	}
	defer leave()
	t, err := o.reader.Count(ctx, r.query())
	return &t, err
}

func (o *operations) export(ctx context.Context, r *ExportRequest) (*Body, error) {
	q := r.query()
	if err := with(r.With, &q); err != nil {
		return nil, err
	}
	if r.ID != "" {
		if len(r.ID) > 64 || strings.Trim(r.ID, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return nil, schemas.FieldErrorf(schemas.Invalid, "lineage.export", "id", "%q: want 1 to 64 letters, digits, '-' and '_'", clip(r.ID))
		}
	}
	body := &Body{contentType: "application/vnd.apache.parquet"}
	switch r.Format {
	case "":
		r.Format = FormatParquet
	case FormatParquet:
	case FormatNDJSON:
		body.contentType = "application/x-ndjson"
	default:
		return nil, schemas.FieldErrorf(schemas.Invalid, "lineage.export", "format", "%q: want parquet or ndjson", clip(r.Format))
	}
	body.write = func(w io.Writer) error {
		leave, err := enter(o.scans)
		if err != nil {
			return err
		}
		defer leave()
		ex, err := o.reader.Export(ctx, q, r.Format, w)
		if err != nil || r.ID == "" || ex.Ranges == nil {
			return err
		}
		return o.keeper.Pending(ctx, r.ID, ex.Ranges)
	}
	return body, nil
}

func (o *operations) tail(ctx context.Context, r *TailRequest) (*Body, error) {
	q := r.query()
	if err := q.Check(); err != nil {
		return nil, err
	}
	q.Follow = true
	if q.Since.IsZero() {
		q.Since = time.Now()
	}
	return &Body{contentType: "application/x-ndjson", write: func(w io.Writer) error {
		leave, err := enter(o.tails)
		if err != nil {
			return err
		}
		defer leave()
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		err = o.reader.scan(ctx, q, true, pageFoldBack, events{record: func(rec *Record) (bool, error) {
			if err := enc.Encode(rec.View()); err != nil {
				return false, err
			}
			return true, flush(w)
		}})
		if ctx.Err() != nil {
			return nil // the caller has seen enough
		}
		return err
	}}, nil
}

// flush sends what w buffers on its way, if it buffers.
func flush(w io.Writer) error {
	switch f := w.(type) {
	case interface{ FlushError() error }:
		return f.FlushError()
	case interface{ Flush() error }:
		return f.Flush()
	case interface{ Flush() }:
		f.Flush()
	}
	return nil
}

func (o *operations) status(ctx context.Context, _ *StatusRequest) (*StatusReply, error) {
	logs, err := o.keeper.Status(ctx)
	return &StatusReply{Logs: logs}, err
}

func (o *operations) confirm(ctx context.Context, r *ConfirmRequest) (*ConfirmReply, error) {
	rs, err := o.keeper.ConfirmID(ctx, r.ID)
	return &ConfirmReply{Ranges: rs}, err
}

func (o *operations) prune(ctx context.Context, r *PruneRequest) (*PruneReply, error) {
	if r.Before.IsZero() {
		return nil, schemas.FieldErrorf(schemas.Invalid, "lineage.prune", "before", "want a time as in RFC 3339")
	}
	ps, err := o.keeper.Prune(ctx, r.Before)
	return &PruneReply{Logs: ps}, err
}
