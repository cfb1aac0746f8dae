package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// TestSecured: a server whose Kafka wants TLS and SASL, and gives it the rights that docs/kafka.md lists on names of its
// prefix and no others, scores a topic exactly once, records on Kafka, and answers who asks over Kafka; leat doctor finds
// nothing wrong with the rights, and says so where there are none.
func TestSecured(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b := broker.Start(t, 1, broker.Secure())
	const prefix = "prod."
	b.AddUser(t, "server", "server-secret")
	b.AddUser(t, "nobody", "nobody-secret")
	b.Allow(t, "User:server", prefix, broker.Rights)
	b.Allow(t, "User:"+broker.User, prefix, broker.Rights)
	password := file(t, "password", "server-secret\n")
	config := func(user string) string {
		return file(t, "leat.yaml", fmt.Sprintf(`transport: kafka
lineage: {transport: kafka}
kafka:
  bootstrap: [%q]
  prefix: %s
  tls: {ca_file: %q}
  sasl: {mechanism: scram-sha-512, username: %s, password_file: %q}
`, b.SASLTLSAddr(1), prefix, b.CAFile(), user, password))
	}
	s := start(t, ctx, "--config", config("server"))
	s.push(t, ctx, root+"/examples/flights/flight-delay")
	s.apply(t, ctx, "flight-late", lateSpec)
	s.publish(t, ctx, "flights", row(t), row(t), []byte(`{"no":"flight"}`))
	m := s.until(t, ctx, func(m map[string]metric) bool {
		return m["leat_rows_total"].sum("flight-late") == 2 && m["leat_kafka_dead_letters_total"].sum() == 1 && m["leat_transactions_total"].sum("committed") > 0
	})
	if n := m["leat_kafka_transactions_total"].sum("aborted"); n != 0 {
		t.Errorf("%v transactions were aborted", n)
	}
	scores := s.messages(t, ctx, "scores", 2)
	for _, line := range scores {
		if !strings.Contains(line, `"label":1`) {
			t.Errorf("a score is %s", line)
		}
	}
	// Somebody else asks, by another mechanism.
	c := kafka.Default()
	c.Bootstrap, c.Prefix, c.TLS.CAFile = []string{b.SASLTLSAddr(1)}, prefix, b.CAFile()
	c.SASL = kafka.SASL{Mechanism: "plain", Username: broker.User, Password: broker.Password}
	client, err := kafka.Dial(ctx, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	h := schemas.Header{}
	h.Set(schemas.HeaderRequestID, "asked-in-secret")
	r, err := client.Request(ctx, &schemas.Message{Topic: "flight-delay", Header: h, Payload: []byte(read(t, flight))})
	if err != nil {
		t.Fatal(err)
	}
	if kind := r.Header.Get(schemas.HeaderErrorKind); kind != "" || !strings.Contains(string(r.Payload), `"label":1`) {
		t.Errorf("%s %s", kind, r.Payload)
	}
	if via := s.recorded(t, ctx, "asked-in-secret"); via != "kafka" {
		t.Errorf("recorded as of %q", via)
	}
	binary := build(t, ctx, "./cmd/leat", "leat")
	all, code := doctor(t, ctx, binary, "--config", config("server"), "--server", s.HTTP)
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
	has(t, all, "ok", b.SASLTLSAddr(1), "read by a group and in a transaction, all deleted")
	has(t, all, "ok", "topic scores: 8 partitions")
	for _, f := range all {
		if f.Status != "ok" {
			t.Errorf("%+v", f)
		}
	}
	all, code = doctor(t, ctx, binary, "--config", config("nobody"))
	if code != 1 {
		t.Errorf("exit status %d", code)
	}
	has(t, all, "fail", "uthentication failed", "kafka.sasl.password_file") // the other's password
	password = file(t, "password", "nobody-secret\n")
	all, code = doctor(t, ctx, binary, "--config", config("nobody"))
	if code != 1 {
		t.Errorf("exit status %d", code)
	}
	has(t, all, "fail", "a topic cannot be made", "no right", "grant the rights that docs/kafka.md lists, to names that begin with prod.")
}

// messages reads so many messages of a topic, as lines of JSON.
func (s *server) messages(t *testing.T, ctx context.Context, topic string, n int) (lines []string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.HTTP+"/v1/topics/"+topic+"/messages", nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		lines = nil
		for d := json.NewDecoder(r.Body); d.More(); {
			var line json.RawMessage
			if err := d.Decode(&line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(line))
		}
		r.Body.Close()
		if len(lines) >= n {
			return lines
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("gave up: %q", lines)
		}
	}
}
