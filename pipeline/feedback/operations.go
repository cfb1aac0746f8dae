package feedback

import (
	"context"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// PutRequest is one feedback, or a list of them.
type PutRequest struct {
	lineage.FeedbackInput // what its form is; All has what came
	All                   []lineage.Feedback
}

var _ api.Many = (*PutRequest)(nil)

// Many implements api.Many.
func (*PutRequest) Many() {}

// UnmarshalJSON reads one object, or a list of them.
func (r *PutRequest) UnmarshalJSON(b []byte) (err error) {
	r.All, err = lineage.ParseFeedback(b, "")
	return err
}

// Operations returns what callers can say.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Op("feedback.put", "POST", "/v1/feedback", api.Score, "Record feedback on decisions: one, or a list of up to 10,000, all of it or nothing if one of it is wrong.", s.put),
	}
}

func (s *Service) put(ctx context.Context, r *PutRequest) (*Reply, error) {
	const op = "feedback.put"
	if len(r.All) == 0 {
		return nil, schemas.Errorf(schemas.Invalid, op, "nothing is said: want a JSON object such as {\"pipeline\":\"...\",\"request_id\":\"...\",\"label\":true}, or a list of them")
	}
	by := api.CallerOf(ctx)
	known := map[string]bool{}
	for i := range r.All {
		f := &r.All[i]
		f.Principal, f.Via, f.Received = by.Principal, by.Via, time.Now()
		if !known[f.Pipeline] {
			if err := s.exists(ctx, f.Pipeline); err != nil {
				s.Metrics.count("", refused, len(r.All))
				return nil, err
			}
			known[f.Pipeline] = true
		}
	}
	n, first := 0, error(nil)
	for _, err := range s.keep(ctx, r.All) {
		if err != nil {
			n, first = n+1, err
		}
	}
	if first != nil {
		e := schemas.AsError(op, first)
		return nil, schemas.FieldErrorf(e.Kind, op, e.Field, "%d of %d were not kept, sending all again is safe: %w", n, len(r.All), e)
	}
	return replyTo(r.All), nil
}
