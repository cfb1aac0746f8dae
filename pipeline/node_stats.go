package pipeline

import (
	"context"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// RouteStats is what came by the nodes of a pipeline in one process. Jobs are not counted.
type RouteStats struct {
	Pipeline string      `json:"pipeline"`
	Revision string      `json:"revision"` // that serves
	Process  string      `json:"process"`
	Since    time.Time   `json:"since"`  // the process serves the pipeline
	Window   float64     `json:"window"` // seconds that the recent figures are of, 60 at most
	Nodes    []NodeStats `json:"nodes"`  // of the route, then of the shadows that are loaded; parents first

	Shadows map[string]ShadowState `json:"shadows,omitempty"` // by name
}

// NodeStats is one node, over all revisions that have it.
type NodeStats struct {
	Node   string      `json:"node"` // node path
	Total  NodeFigures `json:"total"`
	Recent NodeFigures `json:"recent"`
}

// NodeFigures are of all time, or of the window.
type NodeFigures struct {
	Rows          uint64  `json:"rows"`   // that came to the node
	Errors        uint64  `json:"errors"` // rows without an answer from it
	RowsPerSecond float64 `json:"rows_per_second"`
	Share         float64 `json:"share"` // of the rows of the node above; of a shadow: of the route; 1 at the root
	P50           float64 `json:"p50"`   // seconds for a batch at the node and below it, 0 without one; by buckets that double
	P99           float64 `json:"p99"`
	Seconds       float64 `json:"seconds"` // of all batches together, at the node and below it
	// Of a cascade: how long the stages would have taken for the rows that stopped before them, at what a row took there.
	SecondsSaved float64    `json:"seconds_saved,omitempty"`
	Arms         []ArmStats `json:"arms,omitempty"` // in the order of the spec
}

// ArmStats is one child of a node that chooses; of a cascade, the stage whose answer stands.
type ArmStats struct {
	Arm   string  `json:"arm"`
	Rows  uint64  `json:"rows"`
	Share float64 `json:"share"` // of the rows for which the node has chosen
}

type statsRequest struct {
	Name string `path:"name"`
}

// Operations is what can be asked of the process that serves pipelines.
func (h *Host) Operations() []api.Operation {
	return []api.Operation{
		api.Op("pipelines.stats", "GET", "/v1/pipelines/{name}/stats", api.Read, "Rows, shares, rates, errors and latency of each node of a pipeline, in the process that answers.",
			func(_ context.Context, r *statsRequest) (*RouteStats, error) { return h.RouteStats(r.Name) }),
		api.Op("pipelines.bandits", "GET", "/v1/pipelines/{name}/bandits", api.Read, "What the bandits of a pipeline have learnt, and how far behind the lineage they are, in the process that answers.",
			func(ctx context.Context, r *statsRequest) (*BanditStatus, error) { return h.BanditStatus(ctx, r.Name) }),
	}
}

// RouteStats of a pipeline. NotFound: this process does not serve it.
func (h *Host) RouteStats(name string) (*RouteStats, error) {
	h.mu.Lock()
	p := h.mu.procs[name]
	h.mu.Unlock()
	if p == nil {
		return nil, schemas.Errorf(schemas.NotFound, "pipeline.RouteStats", "no pipeline %q in process %s", name, h.Process)
	}
	c := p.active.Load()
	if c == nil {
		return nil, schemas.Errorf(schemas.Unavailable, "pipeline.RouteStats", "process %s has not loaded pipeline %s yet", h.Process, name)
	}
	s := p.nodes.stats(sinceStart())
	s.save(&c.rev.Spec.Route)
	s.Pipeline, s.Revision, s.Process = name, c.rev.Revision, h.Process
	s.Shadows = p.state().Shadows
	return s, nil
}

// stats reads the counters.
func (b *nodeBook) stats(now time.Duration) *RouteStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	sample, span := b.window(now)
	since := processStart.Add(b.began)
	s := &RouteStats{Since: since.UTC().Truncate(time.Millisecond), Window: span.Seconds()}
	total := func(c *counter) uint64 { return c.Load() }
	recent := func(c *counter) uint64 {
		if sample < 0 {
			return 0
		}
		return c.Load() - c.was[sample]
	}
	at := map[string]int{}
	for _, path := range b.mu.paths {
		n := b.mu.nodes[path]
		x := NodeStats{Node: path, Total: n.figures(now-b.began, total), Recent: n.figures(span, recent)}
		x.Total.Share, x.Recent.Share = 1, 1
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			above := &s.Nodes[at[path[:i]]] // of a shadow: the root, which is first
			x.Total.Share, x.Recent.Share = share(x.Total.Rows, above.Total.Rows), share(x.Recent.Rows, above.Recent.Rows)
		}
		at[path] = len(s.Nodes)
		s.Nodes = append(s.Nodes, x)
	}
	return s
}

// save works out what cascades saved.
func (s *RouteStats) save(route *Node) {
	nodes := s.byPath()
	route.Walk(RootPath, RootPath, func(path, _ string, n *Node) {
		cascade := nodes[path]
		if n.Cascade == nil || cascade == nil {
			return
		}
		for _, x := range n.Cascade {
			if stage := nodes[path+"/"+x.Name]; stage != nil {
				cascade.Total.SecondsSaved += saved(&cascade.Total, &stage.Total)
				cascade.Recent.SecondsSaved += saved(&cascade.Recent, &stage.Recent)
			}
		}
	})
}

// saved is what a stage would have taken for the rows that did not come to it.
func saved(cascade, stage *NodeFigures) float64 {
	if stage.Rows == 0 || stage.Rows >= cascade.Rows {
		return 0
	}
	return stage.Seconds / float64(stage.Rows) * float64(cascade.Rows-stage.Rows)
}

// window returns the sample that the recent figures begin with, -1 if nothing is recent, and what time they span. A sample
// is taken by the first batch that comes sampleEvery after the last one: so from the end of that time on there was nothing
// before it.
func (b *nodeBook) window(now time.Duration) (sample int, span time.Duration) {
	from := max(now-recently, b.began)
	sample = -1
	before := time.Duration(0)
	for i, at := range b.mu.at {
		switch {
		case at == 0:
		case at < from:
			before = max(before, at)
		case sample < 0 || at < b.mu.at[sample]:
			sample = i
		}
	}
	if sample >= 0 && before > 0 {
		from = max(from, min(b.mu.at[sample], before+sampleEvery))
	}
	return sample, now - from
}

func share(part, of uint64) float64 {
	if of == 0 {
		return 0
	}
	return float64(part) / float64(of)
}

// figures reads the counters by value.
func (n *nodeCount) figures(span time.Duration, value func(*counter) uint64) NodeFigures {
	f := NodeFigures{Rows: value(&n.rows), Errors: value(&n.errors), Seconds: time.Duration(value(&n.busy)).Seconds()}
	if span > 0 {
		f.RowsPerSecond = float64(f.Rows) / span.Seconds()
	}
	var took [nodeBuckets + 1]uint64
	for i := range took {
		took[i] = value(&n.took[i])
	}
	f.P50, f.P99 = quantile(&took, 0.5), quantile(&took, 0.99)
	chosen := uint64(0)
	for _, name := range n.order {
		rows := value(n.arms[name])
		f.Arms = append(f.Arms, ArmStats{Arm: name, Rows: rows})
		chosen += rows
	}
	for i := range f.Arms {
		f.Arms[i].Share = share(f.Arms[i].Rows, chosen)
	}
	return f
}

// quantile estimates one as Prometheus does: by a straight line within a bucket; above the last bound it is that bound.
func quantile(took *[nodeBuckets + 1]uint64, q float64) float64 {
	total := uint64(0)
	for _, n := range took {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank, below := q*float64(total), 0.0
	for i, n := range took[:nodeBuckets] {
		if below+float64(n) >= rank && n > 0 {
			low := 0.0
			if i > 0 {
				low = latency[i-1]
			}
			return low + (latency[i]-low)*(rank-below)/float64(n)
		}
		below += float64(n)
	}
	return latency[nodeBuckets-1]
}
