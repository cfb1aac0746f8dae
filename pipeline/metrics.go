package pipeline

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of the scoring path. Labels are bounded: pipelines and model versions come from the control
// plane, roles and kinds from fixed sets, nodes and arms from the specs that serve.
type Metrics struct {
	requests  *prometheus.CounterVec
	rows      *prometheus.CounterVec
	errors    *prometheus.CounterVec
	total     *prometheus.HistogramVec
	queue     *prometheus.HistogramVec
	score     *prometheus.HistogramVec
	append    *prometheus.HistogramVec
	commit    *prometheus.HistogramVec
	transact  *prometheus.HistogramVec
	batchRows prometheus.Histogram
	inflight  prometheus.Gauge
	loaded    *prometheus.GaugeVec
	loadFails *prometheus.CounterVec
	lookups   *prometheus.CounterVec // by outcome

	transactions *prometheus.CounterVec // by outcome
	behind       *prometheus.GaugeVec
	learning     *prometheus.GaugeVec
	late         *prometheus.CounterVec // by outcome
	nodes        *nodeMetrics
	shadowRows   *prometheus.CounterVec // same
}

// latency buckets from 50 us to 13 s.
var latency = prometheus.ExponentialBuckets(50e-6, 2, 18)

// NewMetrics registers the figures; a nil registerer gives metrics that nobody reads.
func NewMetrics(r prometheus.Registerer) *Metrics {
	hist := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: latency}, labels)
	}
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		requests:  count("leat_requests_total", "Requests and events answered, by pipeline, model version and role.", "pipeline", "model", "role"),
		rows:      count("leat_rows_total", "Rows scored, by pipeline, model version and role.", "pipeline", "model", "role"),
		errors:    count("leat_errors_total", "Requests and events that ended in an error, by pipeline and kind.", "pipeline", "kind"),
		total:     hist("leat_total_seconds", "From receipt to answer written.", "pipeline"),
		queue:     hist("leat_queue_seconds", "From receipt to the start of the run.", "pipeline"),
		score:     hist("leat_score_seconds", "One run of the model.", "pipeline"),
		append:    hist("leat_append_seconds", "One acknowledged append to the lineage.", "pipeline"),
		commit:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "leat_commit_rows", Help: "Rows in one append or transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 14)}, []string{"pipeline"}),
		transact:  hist("leat_transaction_seconds", "One committed transaction of a topic, repeats included.", "pipeline"),
		batchRows: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "leat_batch_rows", Help: "Rows in one run of a model.", Buckets: prometheus.ExponentialBuckets(1, 2, 14)}),
		inflight:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "leat_runs_in_flight", Help: "Runs of models now."}),
		loaded:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "leat_pipeline_ready", Help: "1 if the pipeline's active revision is loaded here."}, []string{"pipeline"}),
		loadFails: count("leat_load_failures_total", "Revisions that could not be loaded; the one before goes on serving.", "pipeline"),
		lookups:   count("leat_lookups_total", "Keys looked up by a node: hit, missing (or null), stale.", "pipeline", "node", "outcome"),

		transactions: count("leat_transactions_total", "Transactions of a topic by outcome: committed, failed (and tried again), revoked, given_up.", "pipeline", "outcome"),
		behind:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "leat_bandit_behind_seconds", Help: "For how long the pipeline's bandits have not known all feedback in the lineage; 0: they know it."}, []string{"pipeline"}),
		learning:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "leat_bandit_learning", Help: "1 if the pipeline's bandits read the lineage; 0: they cannot, and go on with what they know."}, []string{"pipeline"}),
		nodes:        newNodeMetrics(),
		late:         count("leat_late_members_total", "Members of ensembles that came back when the request had been answered without them, by outcome: recorded, lost.", "pipeline", "outcome"),
		shadowRows:   count("leat_shadow_rows_total", "Rows of shadows by outcome: scored, sampled_out, shed (dropped: no idle core for them, or not loaded), failed.", "pipeline", "shadow", "outcome"),
	}
	if r != nil {
		r.MustRegister(m.late, m.requests, m.rows, m.errors, m.total, m.queue, m.score, m.append, m.commit, m.transact, m.transactions, m.shadowRows, m.batchRows, m.inflight, m.loaded, m.loadFails, m.lookups, m.behind, m.learning, m.nodes)
	}
	return m
}

// forget drops the figures of a pipeline that was deleted.
func (m *Metrics) forget(pipeline string) {
	of := prometheus.Labels{"pipeline": pipeline}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.requests, m.rows, m.errors, m.total, m.queue, m.score, m.append, m.commit, m.transact, m.transactions, m.shadowRows, m.loaded, m.loadFails, m.late, m.lookups, m.behind, m.learning} {
		v.DeletePartialMatch(of)
	}
}

// nodeMetrics shows the books of all pipelines that are served here.
type nodeMetrics struct {
	rows, errors, seconds, arms *prometheus.Desc

	mu struct {
		sync.Mutex
		books map[string]*nodeBook // by pipeline
	}
}

func newNodeMetrics() *nodeMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"pipeline", "node"}, labels...), nil)
	}
	m := &nodeMetrics{
		rows:    desc("leat_node_rows_total", "Rows that came to a node of a route."),
		errors:  desc("leat_node_errors_total", "Rows that had no answer from a node of a route."),
		seconds: desc("leat_node_seconds", "One batch at a node of a route, and at those below it."),
		arms:    desc("leat_node_arm_rows_total", "Rows by the child that was chosen for them, in a cascade: whose answer stands.", "arm"),
	}
	m.mu.books = map[string]*nodeBook{}
	return m
}

// show begins to show a book.
func (m *nodeMetrics) show(pipeline string, b *nodeBook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.books[pipeline] = b
}

// hide ends it, unless another has taken its place.
func (m *nodeMetrics) hide(pipeline string, b *nodeBook) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.books[pipeline] == b {
		delete(m.mu.books, pipeline)
	}
}

// Describe is that of prometheus.Collector.
func (m *nodeMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.rows, m.errors, m.seconds, m.arms} {
		ch <- d
	}
}

// Collect is that of prometheus.Collector.
func (m *nodeMetrics) Collect(ch chan<- prometheus.Metric) {
	var all []prometheus.Metric
	m.mu.Lock()
	for name, b := range m.mu.books {
		all = b.collect(all, m, name)
	}
	m.mu.Unlock()
	for _, x := range all { // without a lock: who reads them may be slow
		ch <- x
	}
}

func (b *nodeBook) collect(all []prometheus.Metric, m *nodeMetrics, pipeline string) []prometheus.Metric {
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, n := range b.mu.nodes {
		count := func(d *prometheus.Desc, c *counter, labels ...string) {
			all = append(all, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(c.Load()), append([]string{pipeline, path}, labels...)...))
		}
		count(m.rows, &n.rows)
		count(m.errors, &n.errors)
		for arm, c := range n.arms {
			count(m.arms, c, arm)
		}
		busy := time.Duration(n.busy.Load())
		below, total := make(map[float64]uint64, nodeBuckets), uint64(0)
		for i := range n.took {
			total += n.took[i].Load()
			if i < nodeBuckets {
				below[latency[i]] = total
			}
		}
		all = append(all, prometheus.MustNewConstHistogram(m.seconds, total, busy.Seconds(), below, pipeline, path))
	}
	return all
}
