package kafka

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	meta "github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// TestInspect: what Leat makes is as it wants it, and what others made is told where it is not.
func TestInspect(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.EnsureTopic(ctx, "orders", 3))
	must(t, c.ensureReplies(ctx))
	must(t, c.ensureScore(ctx, "p"))
	must(t, c.ensureDead(ctx, "test"))
	_, err := c.OpenLog(ctx, schemas.LogConfig{Name: "L", Prefix: own + "lineage", MaxBytes: 1 << 30})
	must(t, err)
	names, err := c.OwnTopics(ctx)
	must(t, err)
	if want := []string{"leat.dead", "leat.lineage", "leat.replies", "leat.score.p"}; !slices.Equal(names, want) {
		t.Fatalf("%v, want %v", names, want)
	}
	for _, n := range append(names, "orders") {
		s, err := c.Inspect(ctx, n)
		must(t, err)
		if len(s.Fails) != 0 || len(s.Differs) != 0 {
			t.Errorf("%s: %q, %q", s, s.Fails, s.Differs)
		}
	}
	replicas := min(3, broker.Count())
	s, err := c.Inspect(ctx, "orders")
	must(t, err)
	want := "orders: 3 partitions, " + plural(replicas, "replica") + ", " + strconv.Itoa(b2i(replicas == 3)+1) + " in sync needed, kept 7d, messages up to 1048588 bytes"
	if s.String() != want {
		t.Errorf("%q, want %q", s, want)
	}
	for name, k := range map[string]struct {
		spec   TopicSpec
		fails  []string
		differ []string
		line   string
	}{
		"small": {TopicSpec{Retention: 90 * time.Minute, Settings: map[string]string{"max.message.bytes": "1000", "message.timestamp.type": "CreateTime"}}, nil,
			[]string{"max.message.bytes 1000, less than kafka.max_batch_bytes"}, "kept 90m, messages up to 1000 bytes, times as producers write them"},
		"sized":             {TopicSpec{Retention: time.Hour, Settings: map[string]string{"retention.bytes": "5000"}}, nil, nil, "kept 1h and 5000 bytes at most"},
		"logs":              {TopicSpec{Retention: -1, Settings: map[string]string{"retention.bytes": "5000"}}, nil, nil, "kept up to 5000 bytes"},
		"compacted":         {TopicSpec{Settings: map[string]string{"cleanup.policy": "compact"}}, nil, []string{"cleanup.policy compact"}, "compact, "},
		"unclean":           {TopicSpec{Settings: map[string]string{"unclean.leader.election.enable": "true"}}, nil, []string{"unclean.leader.election.enable"}, ""},
		"short":             {TopicSpec{Partitions: 1, Settings: map[string]string{"min.insync.replicas": strconv.Itoa(broker.Count() + 1)}}, []string{"1 partition with fewer replicas in sync"}, nil, ""},
		"leat.lineage-jobs": {TopicSpec{Partitions: 2, Retention: time.Hour, Settings: map[string]string{"max.message.bytes": "1000"}}, []string{"max.message.bytes 1000, and the lineage needs", "2 partitions, and a log has one", "retention.ms 3600000"}, nil, "kept 1h"},
	} {
		_, err := c.createOnce(ctx, c.name(name), k.spec)
		must(t, err)
		var s *TopicState
		until(t, ctx, "the topic", func() error { s, err = c.Inspect(ctx, name); return err })
		if name == "short" && broker.Count() > 1 {
			s.Differs = nil // that of the replicas, too
		}
		for what, pair := range map[string][2][]string{"fails": {s.Fails, k.fails}, "differs": {s.Differs, k.differ}} {
			got, want := pair[0], pair[1]
			if len(got) != len(want) {
				t.Errorf("%s: %s %q, want %q", name, what, got, want)
				continue
			}
			for i := range want {
				if !strings.Contains(got[i], want[i]) {
					t.Errorf("%s: %s %q, want %q", name, what, got, want)
				}
			}
		}
		if !strings.Contains(s.String(), k.line) {
			t.Errorf("%q does not say %q", s, k.line)
		}
	}
	_, err = c.Inspect(ctx, "none")
	wantKind(t, err, schemas.NotFound, "none")
}

// TestState judges clusters that are not well, and replicas.
func TestState(t *testing.T) {
	c := &Client{cfg: Default()}
	part := func(leader int32, replicas, isr int) meta.ResponsePartition {
		return meta.ResponsePartition{LeaderID: leader, ReplicaNodes: make([]int32, replicas), IsrNodes: make([]int32, isr)}
	}
	cluster := func(ps ...meta.ResponsePartition) *meta.Response {
		return &meta.Response{Brokers: make([]meta.ResponseBroker, 3), Topics: []meta.ResponseTopic{{Partitions: ps}}}
	}
	set := func(insync string) map[string]string {
		return map[string]string{"cleanup.policy": "delete", "max.message.bytes": "1048588", "min.insync.replicas": insync, "retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime"}
	}
	for _, k := range []struct {
		name    string
		cluster *meta.Response
		insync  string
		fails   string
		differs string
	}{
		{"well", cluster(part(1, 3, 3), part(2, 3, 3)), "2", "", ""},
		{"leaderless", cluster(part(-1, 3, 0), part(2, 3, 3)), "2", "1 partition without a leader", ""},
		{"few", cluster(part(1, 3, 1), part(2, 3, 1)), "2", "2 partitions with fewer replicas in sync than min.insync.replicas: nothing can be written there", ""},
		{"behind", cluster(part(1, 3, 2)), "2", "", "1 partition with replicas that are behind"},
		{"one replica", cluster(part(1, 1, 1), part(1, 3, 3)), "1", "", "1 replica where kafka.replication wants 3"},
		{"weak", cluster(part(1, 3, 3)), "1", "", "min.insync.replicas 1 where kafka.min_insync wants 2: what is acknowledged may be on 1 broker alone"},
		{"all needed", cluster(part(1, 3, 3)), "3", "", "min.insync.replicas is that of the replicas: no write is acknowledged while one broker is away"},
	} {
		s, err := c.state("t", k.cluster, set(k.insync))
		must(t, err)
		if f, d := strings.Join(s.Fails, "; "), strings.Join(s.Differs, "; "); f != k.fails || d != k.differs {
			t.Errorf("%s: fails %q, differs %q", k.name, f, d)
		}
	}
}
