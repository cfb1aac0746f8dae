package control

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// maxExplained bounds the records of a request that are explained.
const maxExplained = 10_000

// Explanation is how the rows of a request found their way, by the record and derived again.
type Explanation struct {
	Pipeline  string             `json:"pipeline"`
	Revision  string             `json:"revision"`
	Equal     bool               `json:"equal"` // all decisions are
	Decisions []pipeline.Derived `json:"decisions"`
}

// Explain derives the decisions of a request again, from its records and the specification of the revision that answered
// it: see pipeline.Derive. One Explanation for each pipeline and revision that has records under the id. NotFound: there is
// no record, or the revision is not known any more: the history keeps what fits.
func (c *Control) Explain(ctx context.Context, requestID string) ([]Explanation, error) {
	const op = "lineage.explain"
	if c.c.Records == nil {
		return nil, schemas.Errorf(schemas.Unavailable, op, "this server has no lineage")
	}
	records, err := c.c.Records(ctx, requestID, maxExplained)
	if err != nil {
		return nil, err
	}
	type key struct{ pipeline, revision string }
	var keys []key
	by := map[key][]*lineage.Record{}
	for _, r := range records {
		k := key{r.Pipeline, r.Revision}
		if by[k] == nil {
			keys = append(keys, k)
		}
		by[k] = append(by[k], r)
	}
	if len(keys) == 0 {
		return nil, schemas.Errorf(schemas.NotFound, op, "no record of request %.80q", requestID)
	}
	out := make([]Explanation, len(keys))
	for i, k := range keys {
		rev, err := c.revisionOf(ctx, k.pipeline, k.revision)
		if err != nil {
			return nil, err
		}
		sigs := map[string]schemas.Signature{}
		for _, m := range rev.Models {
			v, err := c.reg.Version(ctx, m.Name, m.Version)
			if err != nil {
				return nil, err
			}
			sigs[m.Node] = v.Probed.Signature
		}
		x := Explanation{Pipeline: k.pipeline, Revision: k.revision, Equal: true, Decisions: []pipeline.Derived{}}
		if rev.Spec.Route.Model == "" {
			if x.Decisions, err = pipeline.Derive(rev, sigs, by[k], c.states(ctx, k.pipeline)); err != nil {
				return nil, err
			}
		}
		x.Equal = !slices.ContainsFunc(x.Decisions, func(d pipeline.Derived) bool { return !d.Equal })
		out[i] = x
	}
	return out, nil
}

// states makes what bandits knew, each state once.
func (c *Control) states(ctx context.Context, name string) pipeline.States {
	type key struct {
		node     string
		position uint64
	}
	made := map[key]*route.State{}
	return func(node string, spec *pipeline.Bandit, plan *route.Plan, position uint64) (*route.State, error) {
		k := key{node, position}
		if s := made[k]; s != nil {
			return s, nil
		}
		if c.c.Learning == nil {
			return nil, schemas.Errorf(schemas.Unavailable, "lineage.explain", "this server has no lineage")
		}
		s, err := c.c.Learning().StateAt(ctx, name, node, spec, plan, position)
		if err == nil {
			made[k] = s
		}
		return s, err
	}
}

// revisionOf returns a revision that is active, or was.
func (c *Control) revisionOf(ctx context.Context, name, revision string) (*pipeline.Revision, error) {
	const op = "lineage.explain"
	s, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	if rev := s.pipelines[name]; rev != nil && rev.Revision == revision {
		return rev, nil
	}
	var found *pipeline.Revision
	var bad error
	err = c.log.Read(ctx, 0, []string{(&Entry{Pipeline: name}).subject()}, false, func(le *schemas.Entry) bool {
		var e Entry
		if err := json.Unmarshal(le.Payload, &e); err != nil {
			bad = schemas.Errorf(schemas.Internal, op, "entry %d: %w", le.Sequence, err)
			return false
		}
		if e.To == revision && e.Spec != nil {
			found = &pipeline.Revision{Revision: revision, Spec: *e.Spec, Models: e.Models}
		}
		return found == nil
	})
	switch {
	case err != nil:
		return nil, err
	case bad != nil:
		return nil, bad
	case found == nil:
		return nil, schemas.Errorf(schemas.NotFound, op, "revision %.12s of pipeline %s is not in the history any more", revision, name)
	}
	return found, nil
}
