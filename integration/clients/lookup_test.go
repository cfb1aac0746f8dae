package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/integration/kafka/broker"
)

const knownSpec = `apiVersion: leat/v1
kind: Pipeline
name: flight-known
route:
  sequence:
    - name: aircraft
      lookup: {bucket: aircraft, key: tailnum, columns: [{name: plane_age, type: float32}]}
    - name: fleet
      lookup: {topic: "kafka:fleet", key: carrier, columns: [{name: seats, type: float32}]}
    - {name: score, model: flight-delay@champion}
`

// TestLookup: a plain KV put of nats-py and a record of a compacted Kafka topic are what the next requests see.
func TestLookup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // the first time, pip fetches a package
	defer cancel()
	python := environment(t, ctx, "requirements.txt")
	b := broker.Start(t, 1)
	topic := &kafka.Client{Addr: kafka.TCP(b.Addrs()...)}
	made, err := topic.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: "fleet", NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: "compact"}},
	}}})
	if err != nil || made.Errors["fleet"] != nil {
		t.Fatal(made, err)
	}
	s := start(t, ctx, "--kafka", b.Bootstrap())
	s.push(t, ctx, root+"/examples/flights/flight-delay")
	s.call(t, ctx, http.MethodPost, "/v1/features", "application/json", strings.NewReader(`{"name":"aircraft"}`), nil)
	s.apply(t, ctx, "flight-known", knownSpec)

	var body struct {
		Rows []map[string]any `json:"rows"`
	}
	if err := json.Unmarshal([]byte(read(t, flight)), &body); err != nil {
		t.Fatal(err)
	}
	flight := body.Rows[0]
	ask := func(pipeline string, more map[string]any) float64 {
		t.Helper()
		row := map[string]any{}
		for k, v := range flight {
			row[k] = v
		}
		for k, v := range more {
			if row[k] = v; v == nil {
				delete(row, k)
			}
		}
		in, err := json.Marshal(map[string]any{"rows": []any{row}})
		if err != nil {
			t.Fatal(err)
		}
		var out struct {
			Rows []struct{ Probabilities []float64 }
		}
		s.call(t, ctx, http.MethodPost, "/v1/pipelines/"+pipeline+"/score", "application/json", bytes.NewReader(in), &out)
		return out.Rows[0].Probabilities[1]
	}
	known := func() float64 {
		return ask("flight-known", map[string]any{"plane_age": nil, "seats": nil, "tailnum": "N1"})
	}
	until := func(what string, want float64) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for known() != want {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("never: %s", what)
			}
		}
	}
	nothing := ask("flight-delay", nil)
	aged := ask("flight-delay", map[string]any{"plane_age": 30})
	both := ask("flight-delay", map[string]any{"plane_age": 30, "seats": 400})
	if nothing == aged || aged == both {
		t.Fatal("what is known makes no difference")
	}
	if p := known(); p != nothing {
		t.Fatalf("of keys that are not there: %v, want %v", p, nothing)
	}
	if out, err := run(ctx, python, examples+"/python/put_feature.py", s.NATS, "aircraft", "N1", `{"plane_age": 30}`); err != nil || out != "revision 1\n" {
		t.Fatal(out, err)
	}
	until("what nats-py has put is seen", aged)
	w := &kafka.Writer{Addr: topic.Addr, Topic: "fleet", Balancer: &kafka.Hash{}, BatchSize: 1}
	defer w.Close()
	write := func(value []byte) {
		t.Helper()
		if err := w.WriteMessages(ctx, kafka.Message{Key: []byte(flight["carrier"].(string)), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte(`{"seats": 400}`))
	until("what was written to Kafka is seen", both)
	write(nil)
	until("a tombstone is seen", aged)
}
