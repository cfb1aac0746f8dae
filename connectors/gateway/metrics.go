package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts requests by route pattern and class of status: labels that callers cannot multiply.
type Metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	flights  prometheus.Gauge
	bytes    prometheus.Counter
}

// NewMetrics registers the gateway's metrics; a nil Registerer means none.
func NewMetrics(r prometheus.Registerer) *Metrics {
	if r == nil {
		return nil
	}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "leat_http_requests_total", Help: "HTTP requests by route and class of status."}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "leat_http_request_seconds", Help: "Time from the headers to the last byte of the answer, by route.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"route"}),
		flights: prometheus.NewGauge(prometheus.GaugeOpts{Name: "leat_http_in_flight", Help: "HTTP requests being answered."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "leat_http_body_bytes_total", Help: "Bytes of bodies taken for scoring, before decompression."}),
	}
	r.MustRegister(m.requests, m.seconds, m.flights, m.bytes)
	return m
}

// routeMetrics are one route's, looked up once.
type routeMetrics struct {
	classes [6]prometheus.Counter
	seconds prometheus.Observer
}

var classNames = [6]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

func (m *Metrics) route(pattern string) *routeMetrics {
	if m == nil {
		return nil
	}
	r := &routeMetrics{seconds: m.seconds.WithLabelValues(pattern)}
	for i := 2; i < len(classNames); i++ {
		r.classes[i] = m.requests.WithLabelValues(pattern, classNames[i])
	}
	return r
}

func (r *routeMetrics) observe(status int, start time.Time) {
	if r == nil {
		return
	}
	if c := status / 100; c >= 2 && c < len(r.classes) {
		r.classes[c].Inc()
	}
	r.seconds.Observe(time.Since(start).Seconds())
}
