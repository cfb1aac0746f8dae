package bulk

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what jobs do. Labels are bounded: statuses only.
type Metrics struct {
	jobs       *prometheus.GaugeVec
	rows       *prometheus.CounterVec
	chunks     *prometheus.CounterVec
	mismatched prometheus.Counter
	pauses     prometheus.Counter
}

// NewMetrics registers the metrics; nil registers nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		jobs: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "leat_jobs", Help: "Jobs by status, as this process sees them.",
		}, []string{"status"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leat_job_rows_total", Help: "Rows of jobs that this process worked on: scored or rejected.",
		}, []string{"outcome"}),
		chunks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "leat_job_chunks_total", Help: "Chunks that this process fed, scored, found done, handed back or wrote.",
		}, []string{"step"}),
		mismatched: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leat_job_chunks_mismatched_total", Help: "Chunks that came out with other bytes than the result that was there first.",
		}),
		pauses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "leat_job_pauses_total", Help: "Jobs that this process paused because a stream was full.",
		}),
	}
	for _, s := range Statuses {
		m.jobs.WithLabelValues(string(s))
	}
	if r != nil {
		r.MustRegister(m.jobs, m.rows, m.chunks, m.mismatched, m.pauses)
	}
	return m
}
