package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// booked is a revision that is no more than its nodes: path, then its arms.
func booked(nodes ...[]string) *compiled {
	c := &compiled{rev: &Revision{}, route: &graph{}}
	for i, n := range nodes {
		c.route.nodes = append(c.route.nodes, &nodeFacts{index: i, path: n[0], arms: n[1:]})
	}
	return c
}

func TestBucketOf(t *testing.T) {
	for _, d := range []time.Duration{0, 1, firstBucket, firstBucket + 1, 2 * firstBucket, 2*firstBucket + 1, time.Second, 6553600 * time.Microsecond, time.Hour} {
		want := slices.IndexFunc(latency, func(le float64) bool { return d.Seconds() <= le })
		if want < 0 {
			want = nodeBuckets
		}
		if got := bucketOf(d); got != want {
			t.Errorf("%v is in bucket %d, want %d", d, got, want)
		}
	}
	if len(latency) != nodeBuckets || latency[0] != firstBucket.Seconds() {
		t.Error("the buckets of a node are not those of the other latencies")
	}
}

// A revision keeps the counters of nodes and arms that it shares with the one before; those of the others are forgotten, and
// an old request that still counts them is not seen.
func TestBookFollowsRevisions(t *testing.T) {
	b, reg := newNodeBook(), prometheus.NewRegistry()
	m := NewMetrics(reg)
	m.nodes.show("p", b)
	old := booked([]string{"route", "a", "b"}, []string{"route/a"}, []string{"route/b"})
	b.follow(old)
	for _, n := range old.route.nodes {
		n.count.batch(4, 1, time.Millisecond)
	}
	old.route.nodes[0].count.arms[0].Add(3)
	old.route.nodes[0].count.arms[1].Add(1)
	b.follow(booked([]string{"route", "a", "c"}, []string{"route/a"}, []string{"route/c"}))
	old.route.nodes[2].count.batch(1, 0, time.Second)
	want := map[string]float64{
		"leat_node_rows_total node=route": 4, "leat_node_rows_total node=route/a": 4, "leat_node_rows_total node=route/c": 0,
		"leat_node_errors_total node=route": 1, "leat_node_errors_total node=route/a": 1, "leat_node_errors_total node=route/c": 0,
		"leat_node_seconds node=route": 1, "leat_node_seconds node=route/a": 1, "leat_node_seconds node=route/c": 0,
		"leat_node_arm_rows_total arm=a node=route": 3, "leat_node_arm_rows_total arm=c node=route": 0,
	}
	if got := gathered(t, reg); !maps.Equal(got, want) {
		t.Errorf("shown: %v\nwant %v", got, want)
	}
	// A shadow that is loaded counts too, until its revision is over; one of another revision does not.
	shaded := booked([]string{"route"})
	shaded.rev.Spec.Shadows = []Shadow{{Name: "s"}}
	b.follow(shaded)
	shadow := booked([]string{"shadows/s", "x"}, []string{"shadows/s/x"})
	b.join(shadow, "shadows/s")
	if got := gathered(t, reg); len(got) != 3 || shadow.route.nodes[0].count != nil {
		t.Errorf("a shadow of another revision is shown: %v", got)
	}
	shadow.rev = shaded.rev
	b.join(shadow, "shadows/s")
	shadow.route.nodes[0].count.batch(3, 0, time.Second)
	next := booked([]string{"route"})
	next.rev.Spec.Shadows = shaded.rev.Spec.Shadows
	b.follow(next)
	if got := gathered(t, reg); got["leat_node_rows_total node=shadows/s"] != 3 || got["leat_node_rows_total node=shadows/s/x"] != 0 || len(got) != 10 {
		t.Errorf("shown with a shadow: %v", got)
	}
	b.follow(booked([]string{"route"}))
	if got := gathered(t, reg); len(got) != 3 {
		t.Errorf("the shadow is still shown: %v", got)
	}
	b.follow(booked([]string{"route", "a", "c"}, []string{"route/a"}, []string{"route/c"}))
	m.nodes.hide("p", newNodeBook())
	if got := gathered(t, reg); len(got) != len(want) {
		t.Errorf("the end of another took the book away: %v", got)
	}
	m.nodes.hide("p", b)
	if got := gathered(t, reg); len(got) != 0 {
		t.Errorf("shown of a pipeline that is gone: %v", got)
	}
}

// gathered is what is shown of nodes: the value of a counter, the count of a histogram.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		if !strings.HasPrefix(f.GetName(), "leat_node_") {
			continue
		}
		for _, s := range f.Metric {
			key := f.GetName()
			for _, l := range s.Label {
				if l.GetName() != "pipeline" {
					key += " " + l.GetName() + "=" + l.GetValue()
				}
			}
			if got[key] = s.GetCounter().GetValue(); s.GetHistogram() != nil {
				got[key] = float64(s.GetHistogram().GetSampleCount())
			}
		}
	}
	return got
}

// The recent figures are those of the last minute, whether rows come all the time, came long ago, or have just begun to.
func TestRecentFigures(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		name      string
		rows      func(at time.Duration) int // that come in that second after the start
		now       time.Duration
		rate      float64
		least     float64 // of the window, in seconds
		most      float64
		tolerance float64
	}{
		{"all the time", func(time.Duration) int { return 10 }, 600 * second, 10, 55, 60, 0.2},
		{"only begun", func(time.Duration) int { return 10 }, 7 * second, 10, 6, 8, 1.5},
		{"long ago", func(at time.Duration) int { return 10 * b2i(at < 100*second) }, 600 * second, 0, 60, 60, 0},
		{"for the last ten seconds", func(at time.Duration) int { return 60 * b2i(at >= 590*second) }, 600 * second, 10, 60, 60, 0.1},
		{"once, now", func(at time.Duration) int { return 60 * b2i(at == 599*second) }, 600 * second, 1, 60, 60, 0.1},
		{"once in seven seconds", func(at time.Duration) int { return 7 * b2i(at%(7*second) == 0) }, 600 * second, 1, 53, 60, 0.15},
		{"until half a minute ago", func(at time.Duration) int { return 10 * b2i(at < 570*second) }, 600 * second, 5, 55, 60, 0.5},
		{"never", func(time.Duration) int { return 0 }, 600 * second, 0, 60, 60, 0},
	} {
		b := newNodeBook()
		x := booked([]string{"route", "a"}, []string{"route/a"})
		b.follow(x)
		for at := time.Duration(0); at < c.now; at += second {
			if n := c.rows(at); n > 0 {
				b.sample(b.began + at)
				x.route.nodes[0].count.batch(n, 0, time.Millisecond)
				x.route.nodes[0].count.arms[0].Add(uint64(n))
				x.route.nodes[1].count.batch(n, 0, time.Microsecond)
			}
		}
		s := b.stats(b.began + c.now)
		root := s.Nodes[0]
		if r := root.Recent.RowsPerSecond; r < c.rate-c.tolerance || r > c.rate+c.tolerance {
			t.Errorf("%s: %v rows a second, want %v", c.name, r, c.rate)
		}
		if s.Window < c.least || s.Window > c.most {
			t.Errorf("%s: a window of %v s, want %v to %v", c.name, s.Window, c.least, c.most)
		}
		if c.rate > 0 && (s.Nodes[1].Recent.Share != 1 || root.Recent.Arms[0].Share != 1 || root.Recent.P50 <= 0.0008 || root.Recent.P50 > 0.0016) {
			t.Errorf("%s: %+v", c.name, s.Nodes)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Counting, sampling, reading and a new revision get along.
func TestBookConcurrent(t *testing.T) {
	b, reg := newNodeBook(), prometheus.NewRegistry()
	NewMetrics(reg).nodes.show("p", b)
	x := booked([]string{"route", "a"}, []string{"route/a"})
	b.follow(x)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				b.sample(b.began + time.Duration(i)*sampleEvery/4)
				x.route.nodes[0].count.batch(2, 1, time.Duration(i))
				x.route.nodes[0].count.arms[0].Add(2)
				switch {
				case w == 0 && i%50 == 0:
					b.stats(b.began + time.Duration(i)*sampleEvery/4)
				case w == 1 && i%50 == 0:
					if _, err := reg.Gather(); err != nil {
						t.Error(err)
					}
				case w == 2 && i%50 == 0:
					b.follow(booked([]string{"route", "a"}, []string{fmt.Sprint("route/", i)}))
				}
			}
		})
	}
	wg.Wait()
	if s := b.stats(b.began + time.Hour); s.Nodes[0].Total.Rows != 16000 || s.Nodes[0].Total.Errors != 8000 || s.Nodes[0].Total.Arms[0].Rows != 16000 {
		t.Errorf("%+v", s.Nodes[0])
	}
}

// A drawing has what comes by, node by node.
func TestDrawLive(t *testing.T) {
	rev := revisionOf(t, drawnSpec)
	stats := &RouteStats{Nodes: []NodeStats{
		{Node: "route", Recent: NodeFigures{Rows: 600, RowsPerSecond: 10, Share: 1, P50: 0.0004, P99: 0.0123, Errors: 3}},
		{Node: "route/old", Recent: NodeFigures{Rows: 597, RowsPerSecond: 9.95, Share: 0.995}},
		{Node: "route/old/other", Recent: NodeFigures{Rows: 500, RowsPerSecond: 8.3, Share: 0.8375, Arms: []ArmStats{{"first", 400, 0.8}, {"last", 100, 0.2}}}},
		{Node: "route/old/other/first", Recent: NodeFigures{Rows: 500, RowsPerSecond: 8.3, Share: 1}},
		{Node: "route/old/other/last", Recent: NodeFigures{Rows: 100, RowsPerSecond: 1.7, Share: 0.2}},
	}}
	tree := Draw(rev, stats)
	for _, want := range [][]string{
		{"rows/s", "share", "p50", "p99", "errors"},
		{"route", "split", "10", "400µs", "12.3ms", "3"},
		{"old", "9.9", "99.5 %", "-", "0"},
		{"first", "100.0 %, answers 80.0 %"},
		{"last", "20.0 %, answers 20.0 %"},
	} {
		if !slices.ContainsFunc(strings.Split(tree, "\n"), func(line string) bool {
			return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(line, w) })
		}) {
			t.Errorf("no line with %q in\n%s", want, tree)
		}
	}
	if d := DrawDot(rev, stats); !strings.Contains(d, `99.5 %\nnow 99.5 %, 9.9 rows/s`) {
		t.Errorf("%s", d)
	}
	if d := DrawMermaid(rev, stats); !strings.Contains(d, `99.5 %<br/>now 99.5 %, 9.9 rows/s`) {
		t.Errorf("%s", d)
	}
	one := Draw(revisionOf(t, minimal), &RouteStats{Nodes: []NodeStats{{Node: "route", Total: NodeFigures{Rows: 9, RowsPerSecond: 0.25}}}})
	if !strings.Contains(one, "0.25") || strings.Count(one, "\n") != 2 {
		t.Errorf("%s", one)
	}
}
