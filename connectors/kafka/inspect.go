package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	meta "github.com/segmentio/kafka-go/protocol/metadata"
)

// TopicState is how a topic is set and how it does, beside what is wanted of it.
type TopicState struct {
	Name        string // as the user names it
	Partitions  int
	Replication int // of the partition with the fewest
	MinInSync   int
	Cleanup     string        // cleanup.policy
	Retention   time.Duration // negative: for ever
	Keeps       int64         // bytes of each partition, above which the oldest go; negative: no bound
	MaxMessage  int           // bytes
	Producers   bool          // a message's time is the producer's word (message.timestamp.type CreateTime)
	// Fails says what does not work as it is, Differs what holds less than it could, each in a few words.
	Fails, Differs []string
}

// String is the topic in one line.
func (s *TopicState) String() string {
	kept := "kept for ever"
	switch {
	case s.Retention >= 0 && s.Keeps >= 0:
		kept = fmt.Sprintf("kept %s and %d bytes at most", days(s.Retention), s.Keeps)
	case s.Retention >= 0:
		kept = "kept " + days(s.Retention)
	case s.Keeps >= 0:
		kept = fmt.Sprintf("kept up to %d bytes", s.Keeps)
	}
	if s.Cleanup != "delete" {
		kept = s.Cleanup + ", " + kept
	}
	line := fmt.Sprintf("%s: %s, %s, %d in sync needed, %s, messages up to %d bytes",
		s.Name, plural(s.Partitions, "partition"), plural(s.Replication, "replica"), s.MinInSync, kept, s.MaxMessage)
	if s.Producers {
		line += ", times as producers write them"
	}
	return line
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// days writes a time without zeroes at its end: 7d, 12h, 10m.
func days(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d%(24*time.Hour) == 0:
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	}
	return d.String()
}

// OwnTopics lists the topics that Leat keeps for itself under the prefix: requests, answers, lineage, dead letters.
func (c *Client) OwnTopics(ctx context.Context) ([]string, error) {
	r, err := c.lookAll(ctx, "kafka.OwnTopics", nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range r.Topics {
		if name, ok := c.userName(r.Topics[i].Name); ok && r.Topics[i].ErrorCode == 0 && strings.HasPrefix(name, own) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Inspect says how a topic is set and what of it differs from what this client would have made: the sizes of messages, the
// replicas, what is kept. It changes nothing. NotFound: there is no such topic.
func (c *Client) Inspect(ctx context.Context, name string) (*TopicState, error) {
	const op = "kafka.Inspect"
	if err := checkTopicName(op, name); err != nil {
		return nil, err
	}
	topic := c.name(name)
	if _, err := c.meta.fresh(ctx, op, topic); err != nil {
		return nil, err
	}
	cluster, err := c.lookAll(ctx, op, []string{topic})
	if err != nil {
		return nil, err
	}
	if len(cluster.Topics) != 1 || cluster.Topics[0].ErrorCode != 0 {
		return nil, noTopic(op, name)
	}
	set, err := c.topicConfig(ctx, op, topic, "cleanup.policy", "max.message.bytes", "min.insync.replicas", "message.timestamp.type",
		"retention.bytes", "retention.ms", "unclean.leader.election.enable")
	if err != nil {
		return nil, err
	}
	return c.state(name, cluster, set)
}

// state judges.
func (c *Client) state(name string, cluster *meta.Response, set map[string]string) (*TopicState, error) {
	number := func(key string) int64 {
		n, err := strconv.ParseInt(set[key], 10, 64)
		if err != nil {
			return -1 // "" where the broker has no such setting
		}
		return n
	}
	ps := cluster.Topics[0].Partitions
	s := &TopicState{Name: name, Partitions: len(ps), Cleanup: set["cleanup.policy"], MinInSync: int(max(number("min.insync.replicas"), 1)), MaxMessage: int(number("max.message.bytes")), Retention: -1, Keeps: number("retention.bytes")}
	if ms := number("retention.ms"); ms >= 0 {
		s.Retention = time.Duration(min(ms, int64(1<<63-1)/int64(time.Millisecond))) * time.Millisecond
	}
	leaderless, few, behind := 0, 0, 0
	for _, p := range ps {
		if s.Replication == 0 || len(p.ReplicaNodes) < s.Replication {
			s.Replication = len(p.ReplicaNodes)
		}
		switch {
		case p.LeaderID < 0:
			leaderless++
		case len(p.IsrNodes) < s.MinInSync:
			few++
		case len(p.IsrNodes) < len(p.ReplicaNodes):
			behind++
		}
	}
	fail := func(format string, args ...any) { s.Fails = append(s.Fails, fmt.Sprintf(format, args...)) }
	differ := func(format string, args ...any) { s.Differs = append(s.Differs, fmt.Sprintf(format, args...)) }
	if leaderless > 0 {
		fail("%s without a leader", plural(leaderless, "partition"))
	}
	if few > 0 {
		fail("%s with fewer replicas in sync than min.insync.replicas: nothing can be written there", plural(few, "partition"))
	}
	if behind > 0 {
		differ("%s with replicas that are behind", plural(behind, "partition"))
	}
	if want := first(c.cfg.Replication, min(3, len(cluster.Brokers))); s.Replication < want {
		differ("%s where kafka.replication wants %d", plural(s.Replication, "replica"), want)
	}
	if s.Replication > 1 {
		switch want := first(c.cfg.MinInSync, b2i(s.Replication >= 3)+1); {
		case s.MinInSync < want:
			differ("min.insync.replicas %d where kafka.min_insync wants %d: what is acknowledged may be on %s alone", s.MinInSync, want, plural(s.MinInSync, "broker"))
		case s.MinInSync >= s.Replication:
			differ("min.insync.replicas is that of the replicas: no write is acknowledged while one broker is away")
		}
	}
	if set["unclean.leader.election.enable"] == "true" {
		differ("unclean.leader.election.enable: a broker that is behind may lead, and what was acknowledged is lost")
	}
	s.Producers = set["message.timestamp.type"] != "LogAppendTime"
	c.stateOfUse(s, fail, differ)
	return s, nil
}

// stateOfUse judges by what the topic is for.
func (c *Client) stateOfUse(s *TopicState, fail, differ func(string, ...any)) {
	isLog := strings.HasPrefix(s.Name, own+"lineage")
	switch {
	case isLog && s.MaxMessage < logMessage:
		fail("max.message.bytes %d, and the lineage needs %d", s.MaxMessage, logMessage)
	case s.Name == deadTopic && s.MaxMessage < logMessage:
		differ("max.message.bytes %d: dead letters lose their bodies above that", s.MaxMessage)
	case s.MaxMessage < c.cfg.MaxBatchBytes && !isLog:
		differ("max.message.bytes %d, less than kafka.max_batch_bytes %d: batches are cut, larger records refused", s.MaxMessage, c.cfg.MaxBatchBytes)
	}
	if isLog && s.Partitions != 1 {
		fail("%d partitions, and a log has one", s.Partitions)
	}
	switch {
	case isLog && (s.Cleanup != "delete" || s.Retention >= 0 || s.Keeps >= 0):
		fail("brokers delete its records (cleanup.policy %s, retention.ms %s, retention.bytes %d), and the lineage must be kept: delete, -1, -1",
			s.Cleanup, retentionMs(s.Retention), s.Keeps)
	case strings.Contains(s.Cleanup, "compact") && !strings.HasPrefix(s.Name, own):
		differ("cleanup.policy %s: only the last record of a key is sure to be scored or replayed", s.Cleanup)
	}
}
