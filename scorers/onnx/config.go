package onnx

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers/onnx/ortlib"
)

// Config is what an operator may set.
type Config struct {
	Library  ortlib.Search `yaml:"-"`                  // where the shared library may lie; cmd fills it from flag and environment
	Parallel int           `yaml:"parallel,omitempty"` // runs in flight at most, when New is given no slots; 0: one a core
}

// Default returns the configuration of an empty file.
func Default() Config { return Config{} }

// Validate reports what is wrong.
func (c Config) Validate() error {
	if c.Parallel < 0 || c.Parallel > 1024 {
		return schemas.FieldErrorf(schemas.Invalid, "onnx.Config", "parallel", "%d: want 0 (one a core) to 1024", c.Parallel)
	}
	return nil
}

// Metrics counts runs of all models; nil counts nothing. It has no labels: a model's own figures are its pipeline's.
type Metrics struct {
	inFlight prometheus.Gauge
	seconds  prometheus.Histogram
	rows     prometheus.Histogram
}

// NewMetrics registers the metrics; nil means none, and gives nil. It panics if they are registered already.
func NewMetrics(r prometheus.Registerer) *Metrics {
	if r == nil {
		return nil
	}
	m := &Metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "leat_onnx_runs_in_flight", Help: "Runs of ONNX Runtime in flight."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "leat_onnx_run_seconds", Help: "Time of one run of ONNX Runtime.",
			Buckets: prometheus.ExponentialBuckets(5e-6, 3, 14)}),
		rows: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "leat_onnx_run_rows", Help: "Rows of one run of ONNX Runtime, padding not counted.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
	}
	r.MustRegister(m.inFlight, m.seconds, m.rows)
	return m
}
