package pipeline

import (
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/schemas"
)

// What comes by each node of a pipeline is counted here, for Prometheus (metrics.go) and for people (node_stats.go). Nodes
// count nothing themselves: flow.enter notes each batch that comes to a node, flow.run its time, visits say what became of its
// rows, and all are added up once a batch, when it has come through. So every kind of node is counted, and a job or a derivation is not.

// counter is a number that grows, and what it was.
type counter struct {
	atomic.Uint64
	was [nodeSamples]uint64 // at the times of the book's samples; guarded by its mutex
}

// nodeSamples is how many samples a book keeps, sampleEvery what lies between two of them at least, and recently what they
// span.
const (
	nodeSamples = 13
	sampleEvery = 5 * time.Second
	recently    = (nodeSamples - 1) * sampleEvery
)

// nodeBuckets bound the time of a batch at a node: firstBucket, twice that, and so on, as the buckets of the other latencies;
// what is above the last has a bucket too.
const (
	nodeBuckets = 18
	firstBucket = 50 * time.Microsecond
)

// nodeCount is one node, over all revisions that have a node of its path.
type nodeCount struct {
	rows, errors counter
	busy         counter // nanoseconds
	took         [nodeBuckets + 1]counter
	order        []string // names of the arms in the spec; as arms, guarded by the book's mutex
	arms         map[string]*counter
}

func (n *nodeCount) each(fn func(*counter)) {
	for _, c := range []*counter{&n.rows, &n.errors, &n.busy} {
		fn(c)
	}
	for i := range n.took {
		fn(&n.took[i])
	}
	for _, c := range n.arms {
		fn(c)
	}
}

// counted is a node of one revision: its counters, without a search.
type counted struct {
	*nodeCount
	book *nodeBook
	arms []*counter // by arm of the revision's node
}

// batch counts rows that went through a node together. errors of them had no answer from it.
func (c *counted) batch(rows, errors int, took time.Duration) {
	c.rows.Add(uint64(rows))
	if errors > 0 {
		c.errors.Add(uint64(errors))
	}
	if took >= 0 {
		c.busy.Add(uint64(took))
		c.took[bucketOf(took)].Add(1)
	}
}

// bucketOf returns the first bucket whose bound is not below d.
func bucketOf(d time.Duration) int {
	if d <= firstBucket {
		return 0
	}
	return min(bits.Len64(uint64((d-1)/firstBucket)), nodeBuckets)
}

// nodeBook holds the counters of a pipeline's nodes in this process. Counting takes no lock; a sample is taken by who counts
// when it is time.
type nodeBook struct {
	began time.Duration // by sinceStart
	last  atomic.Int64  // when the youngest sample was taken

	mu struct {
		sync.Mutex
		rev   *Revision // that serves
		paths []string  // of its route, then of its shadows that were loaded; parents first
		nodes map[string]*nodeCount
		at    [nodeSamples]time.Duration // ring; 0: none yet
		next  int
	}
}

// processStart is what sinceStart counts from.
var processStart = time.Now()

// sinceStart is the time by a clock that is cheaper to read than time.Now.
func sinceStart() time.Duration { return time.Since(processStart) }

func newNodeBook() *nodeBook {
	b := &nodeBook{began: sinceStart()}
	b.last.Store(int64(b.began - sampleEvery)) // the first batch takes the first sample
	b.mu.nodes = map[string]*nodeCount{}
	return b
}

// follow makes a revision count here; the counters of nodes and arms that it has not are forgotten. It is called before the
// revision serves.
func (b *nodeBook) follow(c *compiled) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, paths := b.mu.nodes, b.mu.paths
	b.mu.rev, b.mu.nodes, b.mu.paths = c.rev, map[string]*nodeCount{}, nil
	b.enter(before, c)
	for _, path := range paths { // shadows that stay are seen while they are loaded anew
		for i := range c.rev.Spec.Shadows {
			if ofShadow(path, c.rev.Spec.Shadows[i].Path()) {
				b.mu.nodes[path], b.mu.paths = before[path], append(b.mu.paths, path)
			}
		}
	}
}

// join makes a shadow of a revision count here, as follow does its route. It is called before the shadow runs.
func (b *nodeBook) join(c *compiled, path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.rev != c.rev {
		return // it is over
	}
	before := maps.Clone(b.mu.nodes)
	maps.DeleteFunc(b.mu.nodes, func(p string, _ *nodeCount) bool { return ofShadow(p, path) })
	b.mu.paths = slices.DeleteFunc(b.mu.paths, func(p string) bool { return ofShadow(p, path) })
	b.enter(before, c)
}

// ofShadow reports whether a node is the shadow's root or below it.
func ofShadow(node, path string) bool {
	return node == path || strings.HasPrefix(node, path+"/")
}

// enter gives the nodes of c counters: those that they had before, or new ones.
func (b *nodeBook) enter(before map[string]*nodeCount, c *compiled) {
	if c.route == nil {
		c.count = b.node(before, RootPath, nil)
		return
	}
	for _, n := range c.route.nodes {
		n.count = b.node(before, n.path, n.arms)
	}
}

func (b *nodeBook) node(before map[string]*nodeCount, path string, arms []string) *counted {
	n := before[path]
	if n == nil {
		n = &nodeCount{}
	}
	c := &counted{nodeCount: n, book: b}
	known := n.arms
	n.arms, n.order = map[string]*counter{}, arms
	for _, name := range arms {
		a := known[name]
		if a == nil {
			a = &counter{}
		}
		n.arms[name] = a
		c.arms = append(c.arms, a)
	}
	b.mu.nodes[path] = n
	b.mu.paths = append(b.mu.paths, path)
	return c
}

// sample keeps what the counters are now, if the last sample is old enough. It is called before a batch is counted.
func (b *nodeBook) sample(now time.Duration) {
	if now-time.Duration(b.last.Load()) < sampleEvery {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now-time.Duration(b.last.Load()) < sampleEvery {
		return
	}
	b.last.Store(int64(now))
	i := b.mu.next
	b.mu.at[i], b.mu.next = now, (i+1)%nodeSamples
	for _, n := range b.mu.nodes {
		n.each(func(c *counter) { c.was[i] = c.Load() })
	}
}

// count adds what a batch did at every node that it came by. failed: it has no answer as a whole.
func (g *graph) count(t *trace, failed bool) {
	root := g.nodes[0].count
	if root == nil || len(t.passes) == 0 {
		return
	}
	root.book.sample(sinceStart())
	var by [maxChildren]uint32
	for i := range t.passes {
		p := &t.passes[i]
		if p.rows == 0 { // all have failed before
			continue
		}
		c := g.nodes[p.node].count
		c.batch(int(p.rows), 0, p.took)
		if len(c.arms) == 0 {
			continue
		}
		for k := p.first; k < p.first+p.rows && int(k) < len(t.visits); k++ {
			if arm := t.visits[k].arm; arm >= 0 {
				by[arm]++
			}
		}
		for arm, n := range by[:len(c.arms)] {
			if n > 0 {
				c.arms[arm].Add(uint64(n))
				by[arm] = 0
			}
		}
	}
	switch {
	case failed:
		root.errors.Add(uint64(t.passes[0].rows))
	case slices.ContainsFunc(t.failed, func(e *schemas.Error) bool { return e != nil }) || slices.ContainsFunc(t.visits, func(v visit) bool { return v.err != nil }):
		g.countErrors(t)
	}
}

// countErrors counts the rows that had no answer from a node, as their records say.
func (g *graph) countErrors(t *trace) {
	for row := range t.failed {
		vs := t.visitsOf(row)
		for k := range vs {
			_, err := g.cameOf(t, vs, k, nil)
			if vs[k].node == 0 {
				err = t.failed[row]
			}
			if err != nil {
				g.nodes[vs[k].node].count.errors.Add(1)
			}
		}
	}
}

// pass is one batch's stay at a node, and at what is below it.
type pass struct {
	node, rows, first int32         // first of the node's visits
	took              time.Duration // negative: not measured
}

// run has a node work on a batch, and notes the time.
func (f *flow) run(n graphNode, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	at, start := len(f.passes), sinceStart()
	n.run(f, in, ids, out)
	f.left(at, start)
}

// left notes the time of a node that was the next to enter when there were so many passes.
func (f *flow) left(passes int, start time.Duration) {
	f.passes[passes].took = sinceStart() - start
}
