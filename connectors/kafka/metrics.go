package kafka

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of Kafka as a data plane. Labels are bounded: topics and groups come from pipelines and jobs,
// partitions from topics. A nil *Metrics takes every call and counts nothing. It is safe for concurrent use.
type Metrics struct {
	rebalances   *prometheus.CounterVec // topic, group
	transactions *prometheus.CounterVec // topic, group, outcome
	retries      *prometheus.CounterVec // topic, group
	dead         *prometheus.CounterVec // topic, group
	requests     *prometheus.CounterVec // event
	again        prometheus.Counter     // produce requests
	produce      prometheus.Histogram
	fetch        prometheus.Histogram
	groups       *groupCollector
}

// How a transaction ends.
const (
	txnCommitted = "committed"
	txnAborted   = "aborted"
	txnFenced    = "fenced" // somebody else owns the partition
)

// NewMetrics registers the figures; a nil Registerer means none.
func NewMetrics(r prometheus.Registerer) *Metrics {
	if r == nil {
		return nil
	}
	count := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(100e-6, 2, 18)})
	}
	m := &Metrics{
		rebalances:   count("leat_kafka_rebalances_total", "Generations of the group that this process took part in.", "topic", "group"),
		transactions: count("leat_kafka_transactions_total", "Transactions by outcome: committed, aborted, or fenced because another process owns the partition.", "topic", "group", "outcome"),
		retries:      count("leat_kafka_retries_total", "Records that were asked for again.", "topic", "group"),
		dead:         count("leat_kafka_dead_letters_total", "Records that were put aside with their cause.", "topic", "group"),
		requests:     count("leat_kafka_requests_total", "What became of requests over Kafka that no answer tells: late answers, and requests that were expired on receipt, overloaded, refused at a close, unanswerable, or whose refusal was lost.", "event"),
		again:        prometheus.NewCounter(prometheus.CounterOpts{Name: "leat_kafka_produce_retries_total", Help: "Batches that were not acknowledged by a try and wait for the next one."}),
		produce:      seconds("leat_kafka_produce_seconds", "From a produce request to its acknowledgement by all in-sync replicas, tries included."),
		fetch:        seconds("leat_kafka_fetch_seconds", "One fetch while records were waiting."),
		groups:       newGroupCollector(),
	}
	for e := range requestEvents {
		m.requests.WithLabelValues(e.String())
	}
	r.MustRegister(m.rebalances, m.transactions, m.retries, m.dead, m.requests, m.again, m.produce, m.fetch, m.groups)
	return m
}

// produced notes one produce request, its tries included.
func (m *Metrics) produced(took time.Duration) {
	if m != nil {
		m.produce.Observe(took.Seconds())
	}
}

// unacknowledged notes a batch that a try did not store, as far as is known.
func (m *Metrics) unacknowledged() {
	if m != nil {
		m.again.Inc()
	}
}

// fetched notes one fetch that brought records. It is for fetches of a partition that had more (lag above zero) when
// they began: the others wait for somebody to write.
func (m *Metrics) fetched(took time.Duration) {
	if m != nil {
		m.fetch.Observe(took.Seconds())
	}
}

func (m *Metrics) rebalanced(topic, group string) {
	if m != nil {
		m.rebalances.WithLabelValues(topic, group).Inc()
	}
}

func (m *Metrics) transaction(topic, group, outcome string) {
	if m != nil {
		m.transactions.WithLabelValues(topic, group, outcome).Inc()
	}
}

func (m *Metrics) retried(topic, group string) {
	if m != nil {
		m.retries.WithLabelValues(topic, group).Inc()
	}
}

func (m *Metrics) buried(topic, group string) {
	if m != nil {
		m.dead.WithLabelValues(topic, group).Inc()
	}
}

// requested notes n requests or answers that came to an end that no answer tells.
func (m *Metrics) requested(event string, n int) {
	if m != nil {
		m.requests.WithLabelValues(event).Add(float64(n))
	}
}

// watch makes the gauges show the partitions of a group's member until the returned function is called. The counters of
// the group are there from now on: a rate over one that appears with its first event never sees that event.
func (m *Metrics) watch(g gauged) (forget func()) {
	if m == nil {
		return func() {}
	}
	topic, group := g.labels()
	for _, v := range []*prometheus.CounterVec{m.rebalances, m.retries, m.dead} {
		v.WithLabelValues(topic, group)
	}
	for _, outcome := range []string{txnCommitted, txnAborted, txnFenced} {
		m.transactions.WithLabelValues(topic, group, outcome)
	}
	return m.groups.add(g)
}

// gauged is a member of a group as the gauges see it.
type gauged interface {
	labels() (topic, group string)
	gauges(now time.Time) []partitionGauges
}

// partitionGauges are one owned partition's figures at one moment.
type partitionGauges struct {
	partition int32
	behind    int64         // records stored and not settled
	age       time.Duration // of the oldest record that is here and not settled; 0: none
	stuck     bool
}

// groupCollector asks the members when somebody looks, so that nothing is counted on the way of a record and a partition
// that moved away leaves no figure behind.
type groupCollector struct {
	behind, age, stuck *prometheus.Desc
	mu                 struct {
		sync.Mutex
		members map[gauged]struct{}
	}
}

func newGroupCollector() *groupCollector {
	c := &groupCollector{
		behind: prometheus.NewDesc("leat_kafka_lag_records", "Records of an owned partition that are stored and not settled.", []string{"topic", "group", "partition"}, nil),
		age:    prometheus.NewDesc("leat_kafka_lag_seconds", "Age of the oldest record of an owned partition that was fetched and is not settled.", []string{"topic", "group", "partition"}, nil),
		stuck:  prometheus.NewDesc("leat_kafka_stuck_partitions", "Owned partitions whose oldest delivery has waited for its settlement for longer than kafka.watchdog.", []string{"topic", "group"}, nil),
	}
	c.mu.members = map[gauged]struct{}{}
	return c
}

func (c *groupCollector) add(g gauged) (forget func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.members[g] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.mu.members, g)
	}
}

// Describe implements prometheus.Collector.
func (c *groupCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.behind
	ch <- c.age
	ch <- c.stuck
}

// Collect implements prometheus.Collector. Two members of one group in this process own different partitions; while one
// moves between them its figures are those of the member asked last.
func (c *groupCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	members := make([]gauged, 0, len(c.mu.members))
	for g := range c.mu.members {
		members = append(members, g)
	}
	c.mu.Unlock()
	type group struct{ topic, name string }
	type place struct {
		group
		partition int32
	}
	parts, stuck := map[place]partitionGauges{}, map[group]int{}
	now := time.Now()
	for _, m := range members {
		topic, name := m.labels()
		g := group{topic, name}
		stuck[g] += 0
		for _, p := range m.gauges(now) {
			parts[place{g, p.partition}] = p
			if p.stuck {
				stuck[g]++
			}
		}
	}
	for at, p := range parts {
		n := strconv.Itoa(int(at.partition))
		ch <- prometheus.MustNewConstMetric(c.behind, prometheus.GaugeValue, float64(p.behind), at.topic, at.name, n)
		ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, p.age.Seconds(), at.topic, at.name, n)
	}
	for g, n := range stuck {
		ch <- prometheus.MustNewConstMetric(c.stuck, prometheus.GaugeValue, float64(n), g.topic, g.name)
	}
}
