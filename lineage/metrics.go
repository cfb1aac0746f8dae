package lineage

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the lineage. Labels: log is one of the three streams; kind is an error kind.
type Metrics struct {
	bytes, messages, rows, retries *prometheus.CounterVec
	seconds                        *prometheus.HistogramVec
	fill                           *prometheus.GaugeVec
	refusals, suppressed           *prometheus.CounterVec
}

// NewMetrics registers the metrics; with a nil registerer they are kept and shown to nobody.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "leat_lineage_" + name, Help: help}, labels)
	}
	m := &Metrics{
		bytes:    counter("bytes_total", "Bytes appended to the lineage.", "log"),
		messages: counter("messages_total", "Messages appended to the lineage.", "log"),
		rows:     counter("rows_total", "Rows appended to the lineage.", "log"),
		retries:  counter("append_retries_total", "Appends repeated because their outcome was unknown.", "log"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "leat_lineage_append_seconds", Help: "Time from an append to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18),
		}, []string{"log"}),
		fill: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "leat_lineage_fill_ratio", Help: "Bytes stored by the most that the stream may hold.",
		}, []string{"log"}),
		refusals:   counter("refusals_total", "Requests refused before admission.", "kind"),
		suppressed: counter("refusals_suppressed_total", "Refusals that were counted and not kept.", "kind"),
	}
	if reg != nil {
		reg.MustRegister(m.bytes, m.messages, m.rows, m.retries, m.seconds, m.fill, m.refusals, m.suppressed)
	}
	return m
}

// logMetrics are the metrics of one stream with their labels resolved.
type logMetrics struct {
	bytes, messages, rows, retries prometheus.Counter
	seconds                        prometheus.Observer
	fill                           prometheus.Gauge
}

func (m *Metrics) of(log string) logMetrics {
	return logMetrics{
		bytes: m.bytes.WithLabelValues(log), messages: m.messages.WithLabelValues(log), rows: m.rows.WithLabelValues(log),
		retries: m.retries.WithLabelValues(log), seconds: m.seconds.WithLabelValues(log), fill: m.fill.WithLabelValues(log),
	}
}
