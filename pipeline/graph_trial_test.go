package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// asking is a request of the test, and what shall come of it.
type asking struct {
	item  item
	rows  []record
	fates []fate
}

// trial is a random route as it runs, with requests to it.
type trial struct {
	*testing.T
	seed  uint64
	spec  Spec
	c     *compiled
	door  *door
	asked []*asking

	sigs   map[string]schemas.Signature
	states map[string]*route.State
}

func newTrial(t *testing.T, seed uint64) *trial {
	g := &grower{Rand: rand.New(rand.NewPCG(seed, 9))}
	x := &trial{T: t, seed: seed, spec: Spec{APIVersion: APIVersion, Kind: Kind, Name: "p", Columns: map[string]string{}}}
	for _, name := range requestColumns {
		x.spec.Columns[name] = typeOf(name).String()
	}
	for len(g.models) < 2 || x.spec.Route.Model != "" || x.spec.Route.Transform != nil || x.spec.Route.Lookup != nil {
		g.models, g.sigs, g.tables, g.left = map[string]scorers.Scorer{}, map[string]schemas.Signature{}, map[string]map[string]record{}, 3+g.IntN(16)
		x.spec.Route = g.node(RootPath, 2+g.IntN(3), requestColumns, g.some(allColumns, 4))
	}
	if err := x.spec.Validate(); err != nil {
		x.wrong("%v", err)
	}
	check := &checker{}
	gr := buildGraph(check, &x.spec, g.sigs)
	if gr == nil {
		x.wrong("%v", check.faults.Err("test"))
	}
	x.sigs, x.states = g.sigs, g.learn(gr)
	h := &Host{Deps: Deps{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	p := &processor{host: h, name: "p"}
	x.c = &compiled{rev: &Revision{Revision: "r", Spec: x.spec}, route: gr, by: answeredBy("p", 0, "r"), held: []*model{{}}}
	x.c.contexts.known = map[contextKey]*lineage.Context{}
	for _, n := range gr.nodes {
		if s, ok := g.models[n.path]; ok {
			n.model = &ResolvedModel{Node: n.path, Name: n.path, Version: 1, Digest: "d"}
			n.loaded, n.by = &model{batcher: newBatcher(s, "d", newLanes(2), nil, nil)}, answeredBy(n.path, 1, "r")
		}
	}
	tables, err := lookup.New(lookup.Default(), g, nil, h.Log)
	if err != nil {
		x.wrong("%v", err)
	}
	for _, n := range gr.lookups {
		if n.table, err = tables.Open(t.Context(), n.source, n.columns); err != nil {
			x.wrong("%s: %v", n.path, err)
		}
		t.Cleanup(n.table.Close)
	}
	x.c.batcher = newGraphBatcher(gr, "r", newLanes(2), nil, NewMetrics(prometheus.NewRegistry()))
	newNodeBook().follow(x.c)
	x.door = &door{p: p, commit: &committer{p: p, ctx: t.Context()}}
	x.door.Via, x.door.Trusted = "test", true
	for i := range 1 + g.IntN(8) {
		x.asked = append(x.asked, x.request(g, fmt.Sprintf("q%d", i)))
	}
	return x
}

// request makes a request of 1 to 20 rows with what shall come of them.
func (x *trial) request(g *grower, id string) *asking {
	h := schemas.Header{"X-User": {fmt.Sprint("u", g.IntN(9))}}
	if g.chance(40) {
		arms := []string{"a0", "a1", "zz", "route=a1", "route/s0=a0, a1", "route/a0=a1,a0"}
		h[schemas.HeaderArm] = []string{pick(g, arms)}
	}
	h.Set(schemas.HeaderPrincipal, "somebody")
	a := &asking{item: item{door: x.door, rev: x.c, d: &connectors.Delivery{Message: schemas.Message{Header: h}}, id: id}}
	o := &oracle{pipeline: "p", models: g.models, tables: g.tables, header: h, id: id, states: x.states}
	for i := range 1 + g.IntN(20) {
		o.row = i
		row := record{}
		for _, f := range x.c.route.in.Fields() {
			if f.Nullable && g.chance(8) {
				row[f.Name] = nil
				continue
			}
			switch f.Type {
			case schemas.Float64:
				row[f.Name] = float64(g.IntN(80))/8 - 3
			case schemas.Float32:
				row[f.Name] = float32(g.IntN(40)) / 8
			case schemas.Int64:
				row[f.Name] = int64(g.IntN(12))
			case schemas.String:
				row[f.Name] = pick(g, []string{"s1", "s2", "", "none", "long enough to be no short one"})
			case schemas.Bool:
				row[f.Name] = g.chance(50)
			}
		}
		a.rows = append(a.rows, row)
		a.fates = append(a.fates, o.eval(&x.spec.Route, RootPath, lineage.RolePrimary, row))
	}
	return a
}

func (x *trial) wrong(format string, args ...any) {
	x.Helper()
	spec, _ := json.MarshalIndent(x.spec, "", " ")
	x.Fatalf("seed %d: %s\n%s", x.seed, fmt.Sprintf(format, args...), spec)
}

// ran runs requests as one batch.
func (x *trial) ran(asked []*asking) *run {
	r := x.c.newRun()
	for _, a := range asked {
		it := a.item
		it.from = r.in.Rows()
		for _, row := range a.rows {
			vs := make([]any, x.c.route.in.Len())
			for c := range vs {
				vs[c] = row[x.c.route.in.Field(c).Name]
			}
			appendValues(r.in, vs)
		}
		it.to = r.in.Rows()
		r.add(it)
	}
	r.trace.patient = true // who answers first is not for the oracle to say
	if err := x.c.call(context.Background(), r); err != nil {
		x.wrong("%v", err)
	}
	r.trace.sort()
	return r
}

// score runs requests as one batch and checks what comes of it: the answers, and, if told is set, what is recorded.
func (x *trial) score(asked []*asking, told bool) {
	r := x.ran(asked)
	l := &line{c: x.door.commit}
	l.mu.open = &unit{}
	records := 0
	for i, a := range asked {
		it := &r.items[i]
		x.answers(a, r, it)
		if !told {
			continue
		}
		records += x.records(a, r, it)
		it.envelope(&l.mu.row, r, r.start)
		if err := l.visited(r, it, &work{door: x.door}); err != nil {
			x.wrong("%v", err)
		}
	}
	if n := l.mu.open.recs.Len(); n != records {
		x.wrong("%d records, want %d", n, records)
	}
	x.c.batcher.free(r)
}

// answers compares what came of a request with what shall come of it.
func (x *trial) answers(a *asking, r *run, it *item) {
	bad := slices.IndexFunc(a.fates, func(f fate) bool { return f.failed })
	if (bad >= 0) != (it.err != nil) || bad >= 0 && it.err.Kind != a.fates[bad].kind {
		x.wrong("request %s: %v, want the error of row %d", a.item.id, it.err, bad)
	}
	if bad >= 0 && len(a.rows) > 1 && !strings.HasPrefix(it.err.Field, rowName(bad)) {
		x.wrong("request %s: the error is of %q, want row %d", a.item.id, it.err.Field, bad)
	}
	by := a.fates[0].by
	for i, f := range a.fates {
		if f.by != by {
			by = ""
		}
		if !f.failed && !equal(rowAt(r.out, it.from+i), f.out) {
			x.wrong("request %s row %d %v: %v, want %v", a.item.id, i, a.rows[i], rowAt(r.out, it.from+i), f.out)
		}
	}
	if by == "" {
		by = "p"
	}
	if it.err == nil && x.c.madeBy(r, it).name != by {
		x.wrong("request %s: made by %s, want %s", a.item.id, x.c.madeBy(r, it).name, by)
	}
}

// records compares what is recorded of a request with what shall be, and returns how many records these are.
func (x *trial) records(a *asking, r *run, it *item) (n int) {
	bad := slices.IndexFunc(a.fates, func(f fate) bool { return f.failed })
	for i, f := range a.fates {
		n += len(f.stays)
		got, want := x.told(r, it, it.from+i), x.wanted(f, bad >= 0, a.fates[max(bad, 0)].kind)
		if !slices.Equal(got, want) {
			x.wrong("request %s row %d %v\nrecorded:\n%s\nwant:\n%s", a.item.id, i, a.rows[i], strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	return n
}

// told is what is recorded of a row.
func (x *trial) told(r *run, it *item, row int) (lines []string) {
	w := &visitor{rev: x.c, trace: &r.trace}
	vs := r.trace.visitsOf(row)
	for k := range vs {
		v := &vs[k]
		ctx := w.context(x.c.route.nodes[v.node], v, r.trace.by[row])
		s := fmt.Sprintf("%s %s %q %v", ctx.Node, ctx.Role, ctx.Arm, v.propensity)
		out, err := (*schemas.Batch)(nil), it.err
		if v.node != 0 {
			out, err = w.rev.route.cameOf(w.trace, vs, k, it.err)
		}
		switch {
		case err != nil:
			s += " " + err.Kind.String()
		case out != nil:
			s += " " + written(rowAt(out, int(v.kept)))
		}
		if v.at < 0 || v.at >= v.batch {
			s += " not in its batch"
		}
		lines = append(lines, s)
	}
	return lines
}

// counts compares what was counted at the nodes with what shall be, after every request was scored so many times.
func (x *trial) counts(times uint64) {
	type figures struct{ rows, errors uint64 }
	want, arms := map[string]figures{}, map[string]uint64{}
	for _, a := range x.asked {
		for _, f := range a.fates {
			for _, s := range x.stays(f, f.failed, f.kind) {
				n := want[s.node]
				if n.rows += times; s.failed {
					n.errors += times
				}
				want[s.node] = n
				if s.arm != "" {
					arms[s.node+"="+s.arm] += times
				}
			}
		}
	}
	for _, n := range x.c.route.nodes {
		if got := (figures{n.count.rows.Load(), n.count.errors.Load()}); got != want[n.path] {
			x.wrong("%s: counted %+v, want %+v", n.path, got, want[n.path])
		}
		for i, name := range n.arms {
			if got := n.count.arms[i].Load(); got != arms[n.path+"="+name] {
				x.wrong("%s=%s: counted %d rows, want %d", n.path, name, got, arms[n.path+"="+name])
			}
		}
	}
}

// wanted is what shall be recorded of a row.
func (x *trial) wanted(f fate, failed bool, kind schemas.Kind) (lines []string) {
	for _, s := range x.stays(f, failed, kind) {
		line := fmt.Sprintf("%s %s %q %v", s.node, s.role, s.arm, s.propensity)
		if s.failed {
			line += " " + s.kind.String()
		} else if s.out != nil {
			line += " " + written(s.out)
		}
		lines = append(lines, line)
	}
	return lines
}

// stays are those of a row as they are told: what has no answer of its own has that of the node above.
func (x *trial) stays(f fate, failed bool, kind schemas.Kind) (all []stay) {
	known := map[string]*stay{}
	for i, s := range f.stays {
		s := *s
		if above := known[s.node[:max(strings.LastIndexByte(s.node, '/'), 0)]]; i == 0 {
			s.failed, s.kind = failed, kind
		} else if !s.failed && s.out == nil {
			s.failed, s.kind = above.failed, above.kind
		}
		known[s.node] = &s
		all = append(all, s)
	}
	return all
}

func rowAt(b *schemas.Batch, i int) record {
	r := record{}
	for c, v := range rowOf(b, i) {
		r[b.Schema().Field(c).Name] = v
	}
	return r
}

// equal reports whether two rows are the same to the bit.
func equal(a, b record) bool {
	return maps.Equal(bitsOf(a), bitsOf(b))
}

func bitsOf(r record) record {
	out := record{}
	for k, v := range r {
		switch f := v.(type) {
		case float64:
			v = math.Float64bits(f)
		case float32:
			v = math.Float32bits(f)
		}
		out[k] = v
	}
	return out
}

func written(r record) string { return fmt.Sprint(bitsOf(r)) } // maps are printed in the order of keys

// TestGraphOracle: random routes of random batches answer, fail and are recorded as the oracle says, whether requests are scored
// together or one at a time.
func TestGraphOracle(t *testing.T) {
	n := uint64(5000)
	if testing.Short() || underRace {
		n = 300
	}
	var next atomic.Uint64
	for w := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			for seed := next.Add(1); seed <= n; seed = next.Add(1) {
				x := newTrial(t, seed)
				x.score(x.asked, true)
				for i := range x.asked {
					x.score(x.asked[i:i+1], false)
				}
				x.counts(2)
			}
		})
	}
}

// TestGraphConcurrent: goroutines that share a graph do not disturb each other.
func TestGraphConcurrent(t *testing.T) {
	n := uint64(100)
	if testing.Short() {
		n = 20
	}
	for seed := range n {
		x := newTrial(t, seed+1<<32)
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 3 {
					x.score(x.asked[(w+i)%len(x.asked):], true)
				}
			})
		}
		wg.Wait()
	}
}

// recorded returns what the lineage would hold of a request, with the rows numbered through the run.
func (x *trial) recorded(r *run, it *item) (recs []*lineage.Record) {
	w := &visitor{rev: x.c, trace: &r.trace}
	for i := it.from; i < it.to; i++ {
		vs := r.trace.visitsOf(i)
		for k := range vs {
			v := &vs[k]
			rec := &lineage.Record{Context: *w.context(x.c.route.nodes[v.node], v, r.trace.by[i])}
			rec.RequestID, rec.Row.Row, rec.Status = it.id, int32(i), lineage.StatusOK
			rec.Propensity, rec.Seed, rec.State, rec.BatchSize = v.propensity, v.seed, v.state, v.batch
			err := it.err
			if v.node == 0 {
				rec.Input, rec.InputRow, rec.Output, rec.OutputRow = r.in, i, r.out, i
			} else {
				if rec.Output, err = w.rev.route.cameOf(w.trace, vs, k, it.err); rec.Output != nil {
					rec.OutputRow = int(v.kept)
				}
				if v.seenIn >= 0 {
					rec.Input, rec.InputRow = r.trace.seen[v.seenIn].rows, int(v.seen)
				}
			}
			if err != nil {
				rec.Status, rec.Output = lineage.StatusError, nil
			}
			recs = append(recs, rec)
		}
	}
	return recs
}

// TestEverythingIsDerivedAgain: 100,000 decisions of random routes over random requests come out again, to the bit, from what
// is recorded of them.
func TestEverythingIsDerivedAgain(t *testing.T) {
	want := int64(100_000)
	if testing.Short() || underRace {
		want = 20_000
	}
	var next atomic.Uint64
	var decisions atomic.Int64
	var kinds [3]atomic.Int64
	for w := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			for decisions.Load() < want {
				x := newTrial(t, 1_000_000+next.Add(1))
				for round := range 8 { // the same rows of other requests
					for _, a := range x.asked {
						a.item.id = fmt.Sprint(a.item.id[:2], "-", round)
					}
					r := x.ran(x.asked)
					var recs []*lineage.Record
					for i := range r.items {
						if it := &r.items[i]; it.err == nil { // what a failed request answered is not recorded
							recs = append(recs, x.recorded(r, it)...)
						}
					}
					decisions.Add(int64(x.derives(x.c.rev, recs, &kinds)))
					x.c.batcher.free(r)
				}
			}
		})
	}
	t.Cleanup(func() {
		for i, k := range []string{"split", "switch", "bandit"} {
			if n := kinds[i].Load(); n < want/50 {
				t.Errorf("%d decisions of a %s", n, k)
			}
		}
		t.Logf("%d decisions: %d of splits, %d of switches, %d of bandits", decisions.Load(), kinds[0].Load(), kinds[1].Load(), kinds[2].Load())
	})
}

// derives fails unless all decisions come out again, and returns how many there are.
func (x *trial) derives(rev *Revision, recs []*lineage.Record, kinds *[3]atomic.Int64) int {
	ds, err := Derive(rev, x.sigs, recs, func(node string, _ *Bandit, _ *route.Plan, position uint64) (*route.State, error) {
		s := x.states[node]
		if at, _ := s.Position(); at != position {
			x.wrong("%s: state at %d, want %d", node, position, at)
		}
		return s, nil
	})
	if err != nil {
		x.wrong("%v", err)
	}
	of := map[string]int{}
	x.spec.Route.Walk(RootPath, RootPath, func(path, _ string, n *Node) {
		for i, is := range []bool{n.Split != nil, n.Switch != nil, n.Bandit != nil} {
			if is {
				of[path] = i + 1
			}
		}
	})
	for _, d := range ds {
		if !d.Equal {
			x.wrong("%+v", d)
		}
		if k := of[d.Node]; k > 0 {
			kinds[k-1].Add(1)
		}
	}
	return len(ds)
}
