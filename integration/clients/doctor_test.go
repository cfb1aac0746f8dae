package clients

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	segmentio "github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/integration/kafka/broker"
)

// found is a line of leat doctor.
type found struct{ Check, Status, Found, Advice string }

// doctor runs leat doctor on a cluster.
func doctor(t *testing.T, ctx context.Context, binary string, flags ...string) (all []found, code int) {
	t.Helper()
	cmd := exec.CommandContext(ctx, binary, append([]string{"doctor", "--only", "kafka", "--json"}, flags...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return all, cmd.ProcessState.ExitCode()
}

// has checks that there is a line of a status that says all words, in what it found or advises.
func has(t *testing.T, all []found, status string, words ...string) {
	t.Helper()
	for _, f := range all {
		if f.Status == status && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f.Found+" -> "+f.Advice, w) }) {
			return
		}
	}
	t.Errorf("no line %s %q in %q", status, words, all)
}

func file(t *testing.T, name, content string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDoctor: leat doctor says what a cluster speaks and how the topics are set that a server uses, and leaves nothing there.
func TestDoctor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	b := broker.Start(t, 1)
	config := file(t, "leat.yaml", "transport: kafka\nlineage: {transport: kafka}\nkafka: {bootstrap: [\""+b.Bootstrap()+"\"]}\n")
	binary := build(t, ctx, "./cmd/leat", "leat")
	s := start(t, ctx, "--config", config)
	s.push(t, ctx, root+"/examples/flights/flight-delay")
	s.apply(t, ctx, "flight-late", lateSpec)
	raw := &segmentio.Client{Addr: segmentio.TCP(b.Bootstrap())}
	r, err := raw.CreateTopics(ctx, &segmentio.CreateTopicsRequest{Topics: []segmentio.TopicConfig{{Topic: "small", NumPartitions: 1, ReplicationFactor: 1,
		ConfigEntries: []segmentio.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: "2000"}, {ConfigName: "cleanup.policy", ConfigValue: "compact"}}}}})
	if err == nil {
		err = r.Errors["small"]
	}
	if err != nil {
		t.Fatal(err)
	}
	all, code := doctor(t, ctx, binary, "--config", config, "--server", s.HTTP, "--topic", "small,kafka:Not_There")
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
	has(t, all, "ok", "broker 1 at "+b.Addr(1), "Kafka 4.4 (metadata.version ", "all 25 calls that Leat makes are spoken")
	has(t, all, "ok", b.Addr(1), "900 KiB stored by all in-sync replicas, read by a group and in a transaction, all deleted")
	has(t, all, "ok", "topic flights: 8 partitions, 1 replica, 1 in sync needed, kept 7d, messages up to 1048588 bytes")
	has(t, all, "ok", "topic scores: 8 partitions")
	has(t, all, "ok", "topic leat.lineage: 1 partition, ", "kept for ever")
	has(t, all, "ok", "topic leat.score.flight-delay: ", "kept 1h")
	has(t, all, "warn", "topic small: 1 partition", "max.message.bytes 2000, less than kafka.max_batch_bytes", "cleanup.policy compact")
	has(t, all, "warn", "topic Not_There (--topic) is not there", "8 partitions")
	// Without the server's file, plain names are those that are on the cluster.
	all, _ = doctor(t, ctx, binary, "--kafka", b.Bootstrap(), "--server", s.HTTP)
	has(t, all, "ok", "topic flights: 8 partitions")
	if left := leftovers(t, ctx, b); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// A server's broker that is gone is one line, and so is what never was a broker.
	all, code = doctor(t, ctx, binary, "--kafka", "127.0.0.1:1")
	if code != 1 || len(all) != 1 {
		t.Errorf("%d: %q", code, all)
	}
	has(t, all, "fail", "127.0.0.1:1", "connection refused", "firewall")
}

// leftovers are topics and groups of the doctor's.
func leftovers(t *testing.T, ctx context.Context, b *broker.Cluster) []string {
	t.Helper()
	c := kafka.Default()
	c.Bootstrap = b.Addrs()
	client, err := kafka.Dial(ctx, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	names, err := client.OwnTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	raw := &segmentio.Client{Addr: segmentio.TCP(b.Bootstrap())}
	groups, err := raw.ListGroups(ctx, &segmentio.ListGroupsRequest{})
	if err == nil {
		err = groups.Error
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.Groups {
		names = append(names, g.GroupID)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.Contains(n, "doctor") })
}
