package lineage

import (
	"context"
	"time"

	"github.com/leatstream/leat/schemas"
)

// FeedbackListRequest asks for a page of feedback.
type FeedbackListRequest struct {
	Pipeline  string    `query:"pipeline" doc:"only feedback on this pipeline"`
	RequestID string    `query:"request_id" doc:"only feedback that names this request"`
	Entity    string    `query:"entity" doc:"only feedback that names this entity"`
	Since     time.Time `query:"since" doc:"recorded at or after this time"`
	Until     time.Time `query:"until" doc:"recorded before this time"`
	All       bool      `query:"all" doc:"repeats of an id too"`
	Unknown   bool      `query:"unknown" doc:"only feedback whose decision is not known"`
	Limit     int       `query:"limit" doc:"feedback a page, 1 to 10000; 100 by default"`
	Cursor    string    `query:"cursor" doc:"next of the page before"`
}

// FeedbackListReply is a page of feedback in stream order.
type FeedbackListReply struct {
	Feedback []FeedbackView `json:"feedback"`
	Next     string         `json:"next,omitempty"` // cursor of the next page; absent on the last. With unknown, a page may be short
}

// maxFeedbackPage is larger than a page of records: to find the decisions of a page the records are read through.
const maxFeedbackPage = 10_000

func (o *operations) listFeedback(ctx context.Context, r *FeedbackListRequest) (*FeedbackListReply, error) {
	limit, err := limitOf(r.Limit, defaultPage, maxFeedbackPage)
	if err != nil {
		return nil, err
	}
	q := Query{Pipeline: r.Pipeline, RequestID: r.RequestID, Since: r.Since, Until: r.Until, All: r.All, Run: RunNone}
	if err := q.Check(); err != nil {
		return nil, err
	}
	after, err := parseCursor(r.Cursor)
	if err != nil || after.log == LogJobs {
		return nil, schemas.FieldErrorf(schemas.Invalid, "feedback.list", "cursor", "%q: want what the page before gave as next", clip(r.Cursor))
	}
	leave, err := enter(o.scans)
	if err != nil {
		return nil, err
	}
	defer leave()
	q.From = after.sequence
	reply := &FeedbackListReply{Feedback: []FeedbackView{}}
	var page []*Feedback
	err = o.reader.scan(ctx, q, false, pageFoldBack, events{feedback: func(f *Feedback) (bool, error) {
		if f.Position.Sequence == after.sequence && f.Index <= after.index || r.Entity != "" && f.Entity != r.Entity {
			return true, nil
		}
		if len(page) == limit {
			last := page[limit-1]
			reply.Next = last.Position.String() + "/" + itoa(last.Index)
			return false, nil
		}
		page = append(page, f)
		return true, nil
	}})
	if err != nil {
		return nil, err
	}
	known, err := o.reader.Known(ctx, page)
	if err != nil {
		return nil, err
	}
	for i, f := range page {
		if known[i] != nil && r.Unknown {
			continue
		}
		v := f.View()
		v.Decision, v.Unknown = known[i], known[i] == nil
		reply.Feedback = append(reply.Feedback, v)
	}
	return reply, nil
}

// request answers lineage.get: the records of a request, each with what was said of it, and all that was said. Feedback on a
// request that has no record is an answer too.
func (r *StreamReader) request(ctx context.Context, id string, limit int) (*GetReply, error) {
	rs, since, err := r.find(ctx, id, limit)
	if err != nil {
		return nil, err
	}
	reply := &GetReply{Records: []View{}}
	if len(rs) == 0 {
		err := r.Feedback(ctx, Query{RequestID: id, All: true}, func(f *Feedback) (bool, error) {
			v := f.View()
			v.Unknown = true
			reply.Feedback = append(reply.Feedback, v)
			return len(reply.Feedback) < limit, nil
		})
		if err == nil && len(reply.Feedback) == 0 {
			err = schemas.Errorf(schemas.NotFound, "lineage.get", "no record of request %q", clip(id))
		}
		return reply, err
	}
	j, err := r.joinThese(ctx, rs, since)
	if err != nil {
		return nil, err
	}
	shown := map[*Feedback]bool{}
	for _, rec := range rs {
		rec.Feedback = j.of(rec)
		reply.Records = append(reply.Records, rec.View())
		for _, f := range rec.Feedback {
			if shown[f] {
				continue
			}
			shown[f] = true
			v, d := f.View(), rec.decision()
			v.Decision = &d
			reply.Feedback = append(reply.Feedback, v)
		}
	}
	for _, f := range j.all() { // of a row or a node that has no record
		if !shown[f] && f.RequestID == id {
			v := f.View()
			v.Unknown = true
			reply.Feedback = append(reply.Feedback, v)
		}
	}
	return reply, nil
}
