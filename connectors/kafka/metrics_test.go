package kafka

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type fakeMember struct {
	topic, group string
	parts        []partitionGauges
}

func (f *fakeMember) labels() (string, string)           { return f.topic, f.group }
func (f *fakeMember) gauges(time.Time) []partitionGauges { return f.parts }

// use calls every hook once.
func use(m *Metrics) (forget func()) {
	m.produced(time.Millisecond)
	m.unacknowledged()
	m.fetched(time.Millisecond)
	m.rebalanced("t", "g")
	m.transaction("t", "g", txnCommitted)
	m.transaction("t", "g", txnAborted)
	m.transaction("t", "g", txnFenced)
	m.retried("t", "g")
	m.buried("t", "g")
	return m.watch(&fakeMember{"t", "g", []partitionGauges{{partition: 3, behind: 17, age: 2 * time.Second, stuck: true}, {partition: 4}}})
}

// gathered writes the figures as "name{label values} value", histograms by their count.
func gathered(t *testing.T, r prometheus.Gatherer) []string {
	t.Helper()
	fs, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range fs {
		for _, m := range f.Metric {
			var l []string
			for _, p := range m.Label {
				l = append(l, p.GetValue())
			}
			v := m.Counter.GetValue() + m.Gauge.GetValue() + float64(m.Histogram.GetSampleCount())
			out = append(out, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(l, " "), v))
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	use(NewMetrics(nil))()

	r := prometheus.NewPedanticRegistry()
	forget := use(NewMetrics(r))
	want := []string{
		"leat_kafka_dead_letters_total{g t} 1",
		"leat_kafka_fetch_seconds{} 1",
		"leat_kafka_lag_records{g 3 t} 17",
		"leat_kafka_lag_records{g 4 t} 0",
		"leat_kafka_lag_seconds{g 3 t} 2",
		"leat_kafka_lag_seconds{g 4 t} 0",
		"leat_kafka_produce_retries_total{} 1",
		"leat_kafka_produce_seconds{} 1",
		"leat_kafka_rebalances_total{g t} 1",
		"leat_kafka_requests_total{expired} 0",
		"leat_kafka_requests_total{late} 0",
		"leat_kafka_requests_total{lost} 0",
		"leat_kafka_requests_total{overloaded} 0",
		"leat_kafka_requests_total{refused} 0",
		"leat_kafka_requests_total{unanswerable} 0",
		"leat_kafka_retries_total{g t} 1",
		"leat_kafka_stuck_partitions{g t} 1",
		"leat_kafka_transactions_total{g aborted t} 1",
		"leat_kafka_transactions_total{g committed t} 1",
		"leat_kafka_transactions_total{g fenced t} 1",
	}
	if got := gathered(t, r); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// What has not happened yet is 0 from the first look on.
	fresh := prometheus.NewPedanticRegistry()
	defer NewMetrics(fresh).watch(&fakeMember{topic: "t", group: "g"})()
	for _, want := range []string{"leat_kafka_dead_letters_total{g t} 0", "leat_kafka_rebalances_total{g t} 0", "leat_kafka_retries_total{g t} 0", "leat_kafka_transactions_total{g aborted t} 0"} {
		if got := gathered(t, fresh); !slices.Contains(got, want) {
			t.Errorf("no %s among %v", want, got)
		}
	}
	forget()
	for _, l := range gathered(t, r) {
		if strings.Contains(l, "lag") || strings.Contains(l, "stuck") {
			t.Errorf("%s: its member is gone", l)
		}
	}
}
