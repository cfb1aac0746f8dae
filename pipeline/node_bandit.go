package pipeline

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/pipeline/learn"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

var banditKind = nodeKind{
	key:  "bandit",
	used: func(n *Node) bool { return n.Bandit != nil },
	children: func(n *Node) []child {
		return children("bandit.arms", n.Bandit.Arms, func(a *BanditArm) (string, *Node) { return a.Name, &a.Node })
	},
	copy: func(n *Node) {
		b := *n.Bandit
		b.Arms, b.Context = slices.Clone(b.Arms), slices.Clone(b.Context)
		if b.Epsilon != nil {
			e := *b.Epsilon
			b.Epsilon = &e
		}
		n.Bandit = &b
	},
	check: checkBandit,
	schema: object("Each row goes to one arm; feedback teaches which arm is the best.", []string{"policy", "reward", "arms"}, map[string]any{
		"policy": map[string]any{"enum": route.Policies(), "description": "How the arm is chosen; linucb and lin_thompson look at the context."},
		"reward": map[string]any{"type": "string", "minLength": 1, "description": "CEL over feedback.<field>: what a decision was worth; null is no reward."},
		"context": map[string]any{
			"type": "array", "minItems": 1, "maxItems": route.MaxContext, "uniqueItems": true, "items": map[string]any{"type": "string", "minLength": 1},
			"description": "Columns of numbers by which linucb and lin_thompson choose.",
		},
		"minimum_share": fraction("The share of rows that each arm gets, whatever the policy says: 0.05 is 5 %.", 0),
		"epsilon":       fraction("Of epsilon_greedy: the share of rows that try any arm.", 0.1),
		"explore":       positive("Of ucb1, linucb and lin_thompson: how much not knowing counts."),
		"prior_success": positive("Of thompson: rewards of 1 that each arm begins with."),
		"prior_failure": positive("Of thompson: rewards of 0 that each arm begins with."),
		"prior_mean":    map[string]any{"type": "number", "default": 0, "description": "Of thompson_gaussian: what an arm is thought to be worth before its first reward."},
		"prior_sd":      positive("Of thompson_gaussian: how far from that it may be."),
		"noise":         positive("Of thompson_gaussian: how far rewards lie from the mean of their arm."),
		"ridge":         positive("Of linucb and lin_thompson: how strongly coefficients are held near 0."),
		"draws":         whole("Monte-Carlo draws by which thompson, thompson_gaussian and lin_thompson say how probable their choice was.", route.MaxDraws),
		"remember":      whole("Rewarded decisions whose reward may still be replaced.", route.MaxRemember),
		"decisions":     whole("The last decisions, which may still get their first reward.", learn.MaxDecisions),
		"arms":          childrenOf("The arms. Rewards are counted for their names.", 2, nil, map[string]any{}),
	}),
}

func fraction(describe string, usual float64) map[string]any {
	return map[string]any{"type": "number", "minimum": 0, "maximum": 1, "default": usual, "description": describe}
}

func positive(describe string) map[string]any {
	return map[string]any{"type": "number", "exclusiveMinimum": 0, "description": describe}
}

func whole(describe string, most int) map[string]any {
	return map[string]any{"type": "integer", "minimum": 1, "maximum": most, "description": describe}
}

func checkBandit(n *Node, at string, c *checker) {
	b := n.Bandit
	at = document.Join(at, "bandit")
	policy := true // it is known what the parameters mean
	switch _, err := route.ParsePolicy(b.Policy); {
	case b.Policy == "":
		c.fault(document.Join(at, "policy"), "missing%s", document.Meant("", route.Policies()))
		policy = false
	case err != nil:
		c.fault(document.Join(at, "policy"), "unknown policy %.80q%s", b.Policy, document.Meant(b.Policy, route.Policies()))
		policy = false
	case b.Epsilon != nil && b.Policy != route.EpsilonGreedy.String():
		c.fault(document.Join(at, "epsilon"), "is no parameter of %s: leave it out", b.Policy)
		policy = false
	}
	if strings.TrimSpace(b.Reward) == "" {
		c.fault(document.Join(at, "reward"), "missing; say what a decision was worth, such as feedback.reward")
	} else if _, err := b.reward(); err != nil {
		c.fault(document.Join(at, "reward"), "%v", schemas.AsError("", err).Err)
	}
	for _, s := range []struct {
		key string
		v   float64
	}{{"minimum_share", b.MinimumShare}, {"epsilon", zeroed(b.Epsilon)}} {
		if parts := math.Round(s.v * fullWeight); !(s.v >= 0 && s.v <= 1) || math.Abs(s.v*fullWeight-parts) > 1e-6 {
			c.fault(document.Join(at, s.key), "%v: want a share from 0 to 1 with at most four digits after the point, such as 0.05", s.v)
			policy = false
		}
	}
	if b.Decisions < 0 || b.Decisions > learn.MaxDecisions {
		c.fault(document.Join(at, "decisions"), "%d: want 1 to %d", b.Decisions, learn.MaxDecisions)
	}
	if len(b.Arms) < 2 {
		c.fault(document.Join(at, "arms"), "%s: a bandit has at least two", few(len(b.Arms), "arm"))
	} else if len(b.Arms) <= route.MaxArms && policy {
		b.checkPlan(at, c)
	}
}

// checkPlan looks at the parameters. What is wrong with the names of arms is told with the children.
func (b *Bandit) checkPlan(at string, c *checker) {
	names := make([]string, len(b.Arms))
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	_, err := b.planOf(names)
	switch e := schemas.AsError("", err); {
	case err == nil:
	case e.Field == "minimum_share":
		c.fault(document.Join(at, e.Field), "%v for each of %d arms is more than all rows", b.MinimumShare, len(b.Arms))
	default:
		c.fault(document.Join(at, e.Field), "%v", e.Err)
	}
}

func zeroed(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// reward compiles what a decision was worth.
func (b *Bandit) reward() (*expr.Program, error) { return learn.CompileReward(b.Reward) }

// plan is what the bandit decides by.
func (b *Bandit) plan() (*route.Plan, error) {
	var names []string
	for _, a := range b.Arms {
		names = append(names, a.Name)
	}
	return b.planOf(names)
}

func (b *Bandit) planOf(arms []string) (*route.Plan, error) {
	policy, err := route.ParsePolicy(b.Policy)
	if err != nil {
		return nil, err
	}
	p := route.DefaultBandit(policy)
	p.Arms, p.Context = arms, b.Context
	p.MinimumShare = int(math.Round(b.MinimumShare * fullWeight))
	if b.Epsilon != nil {
		p.Epsilon = int(math.Round(*b.Epsilon * fullWeight))
	}
	for _, f := range []struct {
		to   *float64
		from float64
	}{
		{&p.Explore, b.Explore}, {&p.PriorSuccess, b.PriorSuccess}, {&p.PriorFailure, b.PriorFailure}, {&p.PriorMean, b.PriorMean},
		{&p.PriorSD, b.PriorSD}, {&p.Noise, b.Noise}, {&p.Ridge, b.Ridge},
	} {
		if f.from != 0 {
			*f.to = f.from
		}
	}
	if b.Draws != 0 {
		p.Draws = b.Draws
	}
	if b.Remember != 0 {
		p.Remember = b.Remember
	}
	return route.NewPlan(p)
}

// fill writes the defaults of the policy out, so that a spec means the same in a version with others.
func (b *Bandit) fill() {
	p, err := b.plan()
	if err != nil {
		return // it is told by Validate
	}
	r := p.Bandit()
	if r.Policy == route.EpsilonGreedy {
		e := float64(r.Epsilon) / fullWeight
		b.Epsilon = &e
	}
	b.Explore, b.PriorSuccess, b.PriorFailure = r.Explore, r.PriorSuccess, r.PriorFailure
	b.PriorMean, b.PriorSD, b.Noise, b.Ridge = r.PriorMean, r.PriorSD, r.Noise, r.Ridge
	b.Draws, b.Remember = r.Draws, r.Remember
	if b.Decisions == 0 {
		b.Decisions = learn.DefaultDecisions
	}
}
