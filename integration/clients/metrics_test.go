package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/kafka/broker"
)

// A server that has done of each: requests, events of a topic exactly once, a dead letter, a refusal.
const lateSpec = `apiVersion: leat/v1
kind: Pipeline
name: flight-late
input: {topic: flights}
output: {topic: scores}
delivery: exactly_once
route: {model: flight-delay@champion}
`

const splitSpec = `apiVersion: leat/v1
kind: Pipeline
name: flight-test
route:
  split:
    arms:
      - {name: a, weight: 50, model: flight-delay@champion}
      - {name: b, weight: 50, model: flight-delay@1}
feedback: {}
shadows: [{name: s, model: flight-delay@1}]
`

const banditSpec = `apiVersion: leat/v1
kind: Pipeline
name: flight-bandit
route:
  bandit:
    policy: ucb1
    reward: feedback.reward
    arms: [{name: a, model: flight-delay@champion}, {name: b, model: flight-delay@1}]
`

const lookupSpec = `apiVersion: leat/v1
kind: Pipeline
name: flight-known
route:
  sequence:
    - name: aircraft
      lookup: {bucket: aircraft, key: tailnum, columns: [{name: plane_age, type: float32}, {name: seats, type: float32}]}
    - {name: score, model: flight-delay@champion}
`

// rare are metrics that show up only with their first event, which does not come here.
var rare = regexp.MustCompile("^leat_(load_failures_total|lineage_refusals_suppressed_total|job_rows_total|job_chunks_total)$")

// TestMetrics: docs/operations.md lists every metric of ours that a server on Kafka shows, with its type and labels, and no
// other; and rules and dashboard, which are held against that page (deploy/check), ask for no other.
func TestMetrics(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s := start(t, ctx, "--kafka", broker.Start(t, 1).Bootstrap(), "--transport", "kafka", "--lineage", "kafka")
	s.push(t, ctx, root+"/examples/flights/flight-delay")
	s.apply(t, ctx, "flight-late", lateSpec)
	s.apply(t, ctx, "flight-test", splitSpec)
	s.apply(t, ctx, "flight-bandit", banditSpec)
	made, err := http.Post(s.HTTP+"/v1/features", "application/json", strings.NewReader(`{"name":"aircraft"}`))
	if err != nil || made.StatusCode != http.StatusOK {
		t.Fatal(made, err)
	}
	made.Body.Close()
	s.apply(t, ctx, "flight-known", lookupSpec)
	s.publish(t, ctx, "flights", row(t), []byte(`{"no":"flight"}`))
	s.topic(t, ctx, "leat.feedback.flight-test") // made by the server, which reads it
	s.publish(t, ctx, "leat.feedback.flight-test", []byte(`{"request_id":"some","label":true}`), []byte(`{"no":"feedback"}`))
	for _, body := range []string{read(t, flight), `{"rows":[{"carrier":"UA"}]}`, "no JSON"} {
		r, err := http.Post(s.HTTP+"/v1/pipelines/flight-delay/score", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	all := s.until(t, ctx, func(m map[string]metric) bool {
		return m["leat_kafka_transactions_total"].sum("committed") > 0 && m["leat_kafka_dead_letters_total"].sum() > 0 && m["leat_transaction_seconds"].sum() > 0 &&
			m["leat_transactions_total"].sum() > 0 && m["leat_feedback_total"].sum("flight-test", "kept") > 0 && m["leat_feedback_total"].sum("refused") > 0
	})
	listed := map[string]metric{}
	name := regexp.MustCompile("`(leat_[a-z_]+)`")
	for line := range strings.Lines(strings.Split(strings.Split(read(t, root+"/docs/operations.md"), "## Metrics")[1], "\n## ")[0]) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			continue
		}
		m := metric{kind: strings.TrimSpace(cells[2]), labels: map[string]bool{}}
		for l := range strings.SplitSeq(cells[3], ",") {
			if l = strings.TrimSpace(l); l != "" {
				m.labels[l] = true
			}
		}
		for _, n := range name.FindAllStringSubmatch(cells[1], -1) {
			listed[n[1]] = m
		}
	}
	for n, m := range all {
		if have, ok := listed[n]; !ok {
			t.Errorf("docs/operations.md does not list %s", n)
		} else if have.kind != m.kind || !maps.Equal(have.labels, m.labels) {
			t.Errorf("%s is a %s of %v, and docs/operations.md says a %s of %v", n, m.kind, m.labels, have.kind, have.labels)
		}
	}
	for n := range listed {
		if _, ok := all[n]; !ok && !rare.MatchString(n) {
			t.Errorf("docs/operations.md lists %s, which the server does not show", n)
		}
	}
	for _, file := range []string{"prometheus/leat.rules.yaml", "prometheus/leat.rules.test.yaml", "grafana/leat.json"} {
		asked := regexp.MustCompile("leat_[a-z_]+").FindAllString(read(t, root+"/deploy/"+file), -1)
		if len(asked) < 20 {
			t.Errorf("deploy/%s asks only for %v", file, asked)
		}
		for _, n := range asked {
			base := regexp.MustCompile("_(bucket|sum|count)$").ReplaceAllString(n, "")
			if all[n].kind == "" && all[base].kind != "histogram" && !rare.MatchString(n) {
				t.Errorf("deploy/%s asks for %s, which the server does not show", file, n)
			}
		}
	}
}

// topic waits until a topic is there.
func (s *server) topic(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.Get(s.HTTP + "/v1/topics/" + name)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode == http.StatusOK {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("there never was a topic %s", name)
		}
	}
}

// metric is one of a server's own: its type, its labels (le of histograms aside), and its series.
type metric struct {
	kind   string
	labels map[string]bool
	series map[string]float64 // labels as they are written -> value, or count of a histogram
}

// sum adds the series whose labels hold all values.
func (m metric) sum(values ...string) (s float64) {
	for labels, v := range m.series {
		if !slices.ContainsFunc(values, func(w string) bool { return !strings.Contains(labels, strconv.Quote(w)) }) {
			s += v
		}
	}
	return s
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (leat_[a-z_]+) ([a-z]+)$`)
	seriesLine = regexp.MustCompile(`^(leat_[a-z_]+)(?:\{(.*)\})? ([-+0-9.eEInfNa]+)$`)
	labelName  = regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
)

// metrics reads what the server shows now.
func (s *server) metrics(t *testing.T, ctx context.Context) map[string]metric {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.HTTP+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", r.Status, err)
	}
	out := map[string]metric{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if m := typeLine.FindStringSubmatch(line); m != nil {
			out[m[1]] = metric{m[2], map[string]bool{}, map[string]float64{}}
		}
		m := seriesLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := m[1]
		of, ok := out[name]
		if !ok {
			base := regexp.MustCompile("_(bucket|sum|count)$").ReplaceAllString(name, "")
			if of, ok = out[base]; !ok {
				t.Fatalf("%s has no type", name)
			}
			if !strings.HasSuffix(name, "_count") {
				continue
			}
		}
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			of.labels[l[1]] = true
		}
		if of.series[m[2]], err = strconv.ParseFloat(m[3], 64); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) == 0 {
		t.Fatal("no metric is shown")
	}
	return out
}

// until returns the metrics once they are as they should be.
func (s *server) until(t *testing.T, ctx context.Context, ok func(map[string]metric) bool) map[string]metric {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		m := s.metrics(t, ctx)
		if ok(m) {
			return m
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("gave up: %v", m)
		}
	}
}

// publish stores events in a topic.
func (s *server) publish(t *testing.T, ctx context.Context, topic string, values ...[]byte) {
	t.Helper()
	var body bytes.Buffer
	for _, v := range values {
		body.WriteString(`{"key":"k","value":`)
		body.Write(v)
		body.WriteString("}\n")
	}
	s.call(t, ctx, http.MethodPost, "/v1/topics/"+topic+"/messages", "application/x-ndjson", &body, nil)
}

// row is the example's row as one line of JSON.
func row(t *testing.T) []byte {
	t.Helper()
	var f struct{ Rows []json.RawMessage }
	var one bytes.Buffer
	err := json.Unmarshal([]byte(read(t, flight)), &f)
	if err == nil {
		err = json.Compact(&one, f.Rows[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	return one.Bytes()
}
