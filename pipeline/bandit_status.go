package pipeline

import (
	"context"
	"time"

	"github.com/leatstream/leat/pipeline/learn"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// BanditStatus is what the bandits of a pipeline know in one process, and how far that is behind the lineage.
type BanditStatus struct {
	Pipeline string       `json:"pipeline"`
	Process  string       `json:"process"`
	Read     uint64       `json:"read"`            // position of the last message in the lineage that they know
	Last     uint64       `json:"last"`            // position of the pipeline's last message, looked up now
	Behind   float64      `json:"behind_seconds"`  // for how long they have not known all of it; 0: they do
	Error    string       `json:"error,omitempty"` // why the lineage cannot be read; they go on with what they know
	Bandits  []BanditNode `json:"bandits"`         // in the order of the route
}

// BanditNode is one bandit.
type BanditNode struct {
	Node     string       `json:"node"`
	Policy   string       `json:"policy"`
	State    uint64       `json:"state"` // position of the last feedback that decisions go by
	Rewards  uint64       `json:"rewards"`
	Arms     []BanditRate `json:"arms"`     // in the order of the spec
	Feedback FeedbackFate `json:"feedback"` // since the log's beginning
}

// BanditRate is one arm.
type BanditRate struct {
	Arm     string   `json:"arm"`
	Rewards uint64   `json:"rewards"`         // decisions for it that have a reward
	Mean    float64  `json:"mean"`            // of these rewards
	Share   *float64 `json:"share,omitempty"` // its chance at the next decision; absent where that depends on the row
}

// FeedbackFate counts what became of feedback.
type FeedbackFate struct {
	Counted  uint64 `json:"counted"`  // first rewards of a decision
	Replaced uint64 `json:"replaced"` // took the place of the reward before
	Waiting  uint64 `json:"waiting"`  // came, and the decision is not in the lineage yet
	Lost     uint64 `json:"lost"`     // waited until too many others waited
	Refused  uint64 `json:"refused"`  // the policy does not take such a reward
	Unknown  uint64 `json:"unknown"`  // of an arm that the bandit has not any more
	Silent   uint64 `json:"silent"`   // says no reward, or names an entity
}

func fateOf(c learn.Counts) FeedbackFate {
	return FeedbackFate{Counted: c.Counted, Replaced: c.Replaced, Waiting: c.Early, Lost: c.Lost, Refused: c.Refused, Unknown: c.Unknown, Silent: c.Silent}
}

// BanditStatus of a pipeline. NotFound: this process does not serve it, or its route has no bandit.
func (h *Host) BanditStatus(ctx context.Context, name string) (*BanditStatus, error) {
	const op = "pipeline.BanditStatus"
	h.mu.Lock()
	p := h.mu.procs[name]
	h.mu.Unlock()
	if p == nil {
		return nil, schemas.Errorf(schemas.NotFound, op, "no pipeline %q in process %s", name, h.Process)
	}
	c := p.active.Load()
	if c == nil {
		return nil, schemas.Errorf(schemas.Unavailable, op, "process %s has not loaded pipeline %s yet", h.Process, name)
	}
	if c.route == nil || len(c.route.bandits) == 0 {
		return nil, schemas.Errorf(schemas.NotFound, op, "pipeline %s has no bandit", name)
	}
	s := &BanditStatus{Pipeline: name, Process: h.Process}
	f := &p.bandits
	if h.Learning != nil {
		f.look(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Read, s.Last, s.Behind = f.mu.read, f.mu.last, f.behind(time.Now()).Seconds()
	if f.mu.failing != nil {
		s.Error = f.mu.failing.Error()
	}
	for _, b := range c.route.bandits {
		n, err := b.status()
		if err != nil {
			return nil, err
		}
		if x := f.mu.bandits[b.path]; x != nil {
			n.Feedback = fateOf(x.learner.Counts())
		}
		s.Bandits = append(s.Bandits, n)
	}
	return s, nil
}

func (b *bandit) status() (BanditNode, error) {
	state := b.state.Load()
	n := BanditNode{Node: b.path, Policy: b.spec.Policy}
	n.State, _ = state.Position()
	var shares []float64
	if len(b.spec.Context) == 0 {
		var err error
		if shares, err = route.Propensities(nil, b.plan, 0, nil, state); err != nil {
			return n, err
		}
	}
	for i, arm := range b.plan.Bandit().Arms {
		r := BanditRate{Arm: arm}
		r.Rewards, r.Mean = state.Arm(i)
		if shares != nil {
			r.Share = &shares[i]
		}
		n.Rewards += r.Rewards
		n.Arms = append(n.Arms, r)
	}
	return n, nil
}
