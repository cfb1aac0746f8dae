package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// Derived is a decision that was recorded, and the same one derived again.
type Derived struct {
	Row        int32   `json:"row"`
	Node       string  `json:"node"`               // node path
	Recorded   string  `json:"recorded,omitempty"` // the arm; "" if there is no such record
	Derived    string  `json:"derived,omitempty"`  // "" if the derivation did not come by the node
	Propensity float64 `json:"propensity"`         // recorded; 0: forced by the caller
	Equal      bool    `json:"equal"`
}

// Derive makes the decisions of one request again, row by row, from its records under a revision: splits by the recorded
// seed, bandits by the recorded seed and the state that they had then, conditions by the recorded input and by what models and
// lookups are recorded to have answered; no model is run. states returns the state of a bandit, by its node path, at a position of the log. sigs are the
// signatures of the revision's models by node path. The decisions come in the order of rows and of the route.
//
// Invalid: a record keeps back what the route decides by (mask, drop), or is not of this revision. A forced choice cannot
// be derived; it is equal to itself.
func Derive(rev *Revision, sigs map[string]schemas.Signature, records []*lineage.Record, states States) ([]Derived, error) {
	const op = "pipeline.Derive"
	c := &checker{}
	g := buildGraph(c, &rev.Spec, sigs)
	if g == nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "the route of revision %.12s: %w", rev.Revision, c.faults.Err(op))
	}
	byRow := map[int32]map[string]*lineage.Record{}
	var rows []int32
	for _, r := range records {
		if r.Status == lineage.StatusLate { // it decided nothing
			continue
		}
		if r.Revision != rev.Revision {
			return nil, schemas.Errorf(schemas.Invalid, op, "a record is of revision %.12s, not %.12s", r.Revision, rev.Revision)
		}
		if !inRoute(r.Node) {
			continue // of a shadow, which has no part in the answer
		}
		if byRow[r.Row.Row] == nil {
			byRow[r.Row.Row] = map[string]*lineage.Record{}
			rows = append(rows, r.Row.Row)
		}
		if byRow[r.Row.Row][r.Node] == nil { // the first is the canonical one
			byRow[r.Row.Row][r.Node] = r
		}
	}
	slices.Sort(rows)
	var all []Derived
	for _, row := range rows {
		ds, err := g.derive(row, byRow[row], states)
		if err != nil {
			return nil, err
		}
		all = append(all, ds...)
	}
	return all, nil
}

// derive is Derive for one row.
func (g *graph) derive(row int32, recs map[string]*lineage.Record, states States) ([]Derived, error) {
	const op = "pipeline.Derive"
	root := recs[RootPath]
	if root == nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "row %d has no record of the route itself", row)
	}
	if root.Input == nil || root.Input.Schema().ID() != g.in.ID() {
		return nil, schemas.Errorf(schemas.Invalid, op, "the record of row %d does not hold the whole input: columns are masked or dropped", row)
	}
	in, out := schemas.NewBatch(g.in), schemas.NewBatch(g.out)
	in.AppendRange(root.Input, root.InputRow, root.InputRow+1)
	t := &trace{by: []int32{-1}, failed: []*schemas.Error{nil}}
	f := &flow{trace: t, ctx: context.Background(), g: g, past: &past{g: g, recs: recs, states: states}, host: func(err error) *schemas.Error { return schemas.AsError(op, err) }}
	g.run(f, in, []int32{0}, out)
	if f.past.err != nil {
		return nil, f.past.err
	}
	var ds []Derived
	came := map[string]bool{}
	for _, v := range t.visitsOf(0) {
		n := g.nodes[v.node]
		came[n.path] = true
		d := Derived{Row: row, Node: n.path}
		if v.arm >= 0 {
			d.Derived = n.arms[v.arm]
		}
		if r := recs[n.path]; r != nil {
			d.Recorded, d.Propensity, d.Equal = r.Arm, r.Propensity, r.Arm == d.Derived && r.Propensity == v.propensity
		}
		if v.arm >= 0 || !d.Equal {
			ds = append(ds, d)
		}
	}
	for path, r := range recs { // recorded, and not come by
		if !came[path] {
			ds = append(ds, Derived{Row: row, Node: path, Recorded: r.Arm, Propensity: r.Propensity})
		}
	}
	slices.SortStableFunc(ds, func(a, b Derived) int { return strings.Compare(a.Node, b.Node) })
	return ds, nil
}

// past is what is recorded of a row, by node path.
type past struct {
	g      *graph
	recs   map[string]*lineage.Record
	states States
	err    error // why a state is not to be had
}

// States returns what the bandit at a node path knew once the log had been read to a position; 0: nothing. The plan is the one that
// decided.
type States func(node string, spec *Bandit, plan *route.Plan, position uint64) (*route.State, error)

// state returns the state that a bandit is recorded to have decided by, and puts the recorded seed into the visit; nil if
// there is none.
func (p *past) state(b *bandit, v *visit) *route.State {
	r := p.recs[b.path]
	if r == nil {
		v.arm = 0 // nobody came here, which the caller sees by the record that is missing
		return nil
	}
	v.seed, v.state = r.Seed, r.State
	if r.State == 0 {
		return route.NewFold(b.plan).State()
	}
	if p.states == nil {
		p.err = schemas.Errorf(schemas.Unavailable, "pipeline.Derive", "node %s: what the bandit knew is in the lineage, which cannot be read here", b.path)
		return nil
	}
	s, err := p.states(b.path, b.spec, b.plan, r.State)
	if err != nil {
		p.err = err
	}
	return s
}

// answer appends the recorded answer of a model or a lookup: its own, or that of the nearest node above that has one.
func (p *past) answer(f *flow, n *nodeFacts, ids []int32, first int, out *schemas.Batch) {
	if len(ids) == 0 { // the row has failed at a step before
		return
	}
	if r := p.recs[n.path]; r != nil && r.Status == lineage.StatusOK {
		for path := n.path; ; path = path[:strings.LastIndexByte(path, '/')] {
			if r := p.recs[path]; r != nil && r.Output != nil {
				if appendNamed(out, r.Output, r.OutputRow) {
					return
				}
				break
			}
			if path == RootPath {
				break
			}
		}
	}
	f.visits[first].err = f.fail(ids[0], schemas.Errorf(schemas.Invalid, "pipeline.Derive", "node %s has no recorded answer", n.path))
	blank(out)
}

// skipped says why a node was not waited for, or not asked; nil if it was.
func (p *past) skipped(n *nodeFacts) *schemas.Error {
	r := p.recs[n.path]
	if r == nil || r.Status != lineage.StatusError || r.BatchSize > 0 {
		return nil
	}
	return &schemas.Error{Op: "pipeline.Derive", Kind: schemas.ParseKind(r.ErrorKind), Err: errors.New(r.Error)}
}

// appendNamed appends a row by the names of its columns; false, with nothing appended, if one is not there.
func appendNamed(dst, src *schemas.Batch, row int) bool {
	from := make([]int, dst.Schema().Len())
	for i := range from {
		f := dst.Schema().Field(i)
		from[i] = src.Schema().Index(f.Name)
		if from[i] < 0 || !sameType(f, src.Schema().Field(from[i])) {
			return false
		}
	}
	for i, j := range from {
		dst.Column(i).AppendColumn(src.Column(j), row, row+1)
	}
	dst.Advance(1)
	return true
}

// again chooses by the recorded seed. What was forced is forced again.
func (s *splitter) again(p *past, v *visit) {
	r := p.recs[s.path]
	if r == nil {
		v.arm = 0 // nobody came here, which the caller sees by the record that is missing
		return
	}
	v.seed, v.propensity = r.Seed, r.Propensity
	if r.Propensity == 0 {
		v.arm = int32(max(slices.Index(s.arms, r.Arm), 0))
		return
	}
	v.arm = int32(s.split.ArmOf(r.Seed))
}
