package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/deletegroups"
	"github.com/segmentio/kafka-go/protocol/deletetopics"
	meta "github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/leatstream/leat/schemas"
)

// TopicSpec is what a topic is wanted to be. A zero field is not stated: made as the configuration or the cluster says,
// and not compared with what exists.
type TopicSpec struct {
	Partitions  int
	Replication int
	MinInSync   int
	Retention   time.Duration // negative: for ever
	Settings    map[string]string
}

// EnsureTopic implements connectors.Topics. With 0 partitions a topic that exists is taken as it is.
func (c *Client) EnsureTopic(ctx context.Context, name string, partitions int) error {
	const op = "kafka.EnsureTopic"
	if err := checkTopicName(op, name); err != nil {
		return err
	}
	if partitions < 0 || partitions > MaxPartitions {
		return schemas.FieldErrorf(schemas.Invalid, op, "partitions", "%d: want 1 to %d", partitions, MaxPartitions)
	}
	if partitions == 0 {
		return c.ensure(ctx, op, name, TopicSpec{})
	}
	return c.ensure(ctx, op, name, TopicSpec{
		Partitions: partitions, Replication: c.cfg.Replication, MinInSync: c.cfg.MinInSync, Retention: c.cfg.Retention,
	})
}

// ensure makes a topic, as the user names it, or compares what is there with the spec: the differences are one Invalid
// error. It returns when every broker knows the topic and every partition has a leader that answers.
func (c *Client) ensure(ctx context.Context, op, name string, want TopicSpec) error {
	topic := c.name(name)
	if !legalName(topic) {
		return schemas.Errorf(schemas.Invalid, op, "topic name %.80q with its prefix is longer than Kafka's 249 bytes", topic)
	}
	_, err := c.meta.fresh(ctx, op, topic)
	if err == nil {
		return c.compare(ctx, op, topic, want)
	}
	if schemas.KindOf(err) != schemas.NotFound {
		return err
	}
	if err := schemas.CheckTopic(name); err != nil {
		return err // names of others are taken as they are; what is made here is named as everywhere
	}
	made, err := c.create(ctx, op, topic, want)
	if err != nil {
		return err
	}
	if err := c.settle(ctx, op, topic); err != nil {
		return err
	}
	if !made {
		return c.compare(ctx, op, topic, want)
	}
	return nil
}

// create reports whether this call made the topic, and not somebody else just before.
func (c *Client) create(ctx context.Context, op, topic string, want TopicSpec) (made bool, _ error) {
	what := "topic " + c.user(topic)
	for tries := 0; ; tries++ {
		made, err := c.createOnce(ctx, topic, want)
		if err == nil {
			return made, nil
		}
		if err := c.again(ctx, op, what, tries, err); err != nil {
			return false, err
		}
	}
}

func (c *Client) createOnce(ctx context.Context, topic string, want TopicSpec) (made bool, _ error) {
	cluster, err := c.meta.look(ctx, nil)
	if err != nil {
		return false, err
	}
	t := createtopics.RequestTopic{
		Name: topic, NumPartitions: int32(first(want.Partitions, c.cfg.Partitions)),
		ReplicationFactor: int16(first(want.Replication, c.cfg.Replication, min(3, len(cluster.Brokers)))),
	}
	settings := map[string]string{
		// A message's time is when it was stored: what a producer's clock says is not to be relied on.
		"message.timestamp.type": "LogAppendTime",
		"min.insync.replicas":    strconv.Itoa(first(want.MinInSync, c.cfg.MinInSync, b2i(t.ReplicationFactor >= 3)+1)),
	}
	if r := first(want.Retention, c.cfg.Retention); r != 0 {
		settings["retention.ms"] = retentionMs(r)
	}
	maps.Copy(settings, want.Settings)
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		t.Configs = append(t.Configs, createtopics.RequestConfig{Name: k, Value: settings[k]})
	}
	r, err := c.ask(ctx, cluster.ControllerID, &createtopics.Request{Topics: []createtopics.RequestTopic{t}, TimeoutMs: int32(c.cfg.CallTimeout.Milliseconds() * 9 / 10)})
	if err != nil {
		return false, err
	}
	ts := r.(*createtopics.Response).Topics
	if len(ts) != 1 {
		return false, kafka.Unknown
	}
	err = codeError(ts[0].ErrorCode)
	if errors.Is(err, kafka.TopicAlreadyExists) {
		return false, nil
	}
	if m := ts[0].ErrorMessage; err != nil && m != "" {
		err = said{strings.TrimSuffix(m, "."), err}
	}
	return true, err
}

// settle waits until a topic that was just made can be used: brokers learn of it one after another, and its leaders
// refuse for some milliseconds.
func (c *Client) settle(ctx context.Context, op, topic string) error {
	known := func(r *meta.Response) error {
		for i := range r.Topics {
			if err := codeError(r.Topics[i].ErrorCode); err != nil {
				return err
			}
			for _, p := range r.Topics[i].Partitions {
				if p.LeaderID < 0 {
					return kafka.LeaderNotAvailable
				}
			}
		}
		return nil
	}
	if err := c.everywhere(ctx, op, topic, known); err != nil {
		return err
	}
	c.meta.forget(topic)
	_, err := c.listOffsets(ctx, op, topic, fromEnd)
	return err
}

// everywhere waits until what each broker says about a topic satisfies ok. A broker that does not answer is passed over.
func (c *Client) everywhere(ctx context.Context, op, topic string, ok func(*meta.Response) error) error {
	what := "topic " + c.user(topic)
	for tries := 0; ; tries++ {
		r, err := c.meta.look(ctx, nil)
		if err == nil {
			for _, b := range r.Brokers {
				a, berr := c.meta.lookAt(ctx, b.NodeID, []string{topic})
				if berr != nil {
					if !passing(berr) {
						err = berr
					}
					continue
				}
				if err = ok(a); err != nil {
					break
				}
			}
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil || c.closing.Err() != nil:
			return c.late(ctx, op, what, err)
		case !passing(err):
			return classify(op, what, err)
		}
		if sleep(ctx, min(time.Millisecond<<min(tries, 6), retryPause)) != nil {
			return c.late(ctx, op, what, err)
		}
	}
}

// compare is Invalid with every difference between what is there and what was stated.
func (c *Client) compare(ctx context.Context, op, topic string, want TopicSpec) error {
	r, err := c.meta.look(ctx, []string{topic})
	if err == nil && len(r.Topics) == 1 {
		err = codeError(r.Topics[0].ErrorCode)
	}
	if err != nil {
		return classify(op, "topic "+c.user(topic), err)
	}
	var diffs []string
	differ := func(what, have, want string) {
		if have != want {
			diffs = append(diffs, fmt.Sprintf("%s %s there and %s wanted", what, have, want))
		}
	}
	ps := r.Topics[0].Partitions
	if want.Partitions > 0 {
		differ("partitions", strconv.Itoa(len(ps)), strconv.Itoa(want.Partitions))
	}
	if want.Replication > 0 && len(ps) > 0 {
		differ("replication", strconv.Itoa(len(ps[0].ReplicaNodes)), strconv.Itoa(want.Replication))
	}
	stated := maps.Clone(want.Settings)
	if stated == nil {
		stated = map[string]string{}
	}
	if want.MinInSync > 0 {
		stated["min.insync.replicas"] = strconv.Itoa(want.MinInSync)
	}
	if want.Retention != 0 {
		stated["retention.ms"] = retentionMs(want.Retention)
	}
	if len(stated) > 0 {
		names := slices.Sorted(maps.Keys(stated))
		have, err := c.topicConfig(ctx, op, topic, names...)
		if err != nil {
			return err
		}
		for _, n := range names {
			differ(n, have[n], stated[n])
		}
	}
	if len(diffs) > 0 {
		return schemas.Errorf(schemas.Invalid, op, "topic %s is not as stated: %s", c.user(topic), strings.Join(diffs, ", "))
	}
	return nil
}

// DeleteTopic implements connectors.Transport. It returns when no broker knows the topic any more.
func (c *Client) DeleteTopic(ctx context.Context, name string) error {
	const op = "kafka.DeleteTopic"
	if err := checkTopicName(op, name); err != nil {
		return err
	}
	topic := c.name(name)
	what := "topic " + name
	for tries := 0; ; tries++ {
		err := c.deleteOnce(ctx, topic)
		if errors.Is(err, kafka.UnknownTopicOrPartition) && tries == 0 {
			return noTopic(op, name)
		}
		if err == nil || errors.Is(err, kafka.UnknownTopicOrPartition) { // an earlier try did it
			break
		}
		if err := c.again(ctx, op, what, tries, err); err != nil {
			return err
		}
	}
	err := c.everywhere(ctx, op, topic, func(r *meta.Response) error {
		for i := range r.Topics {
			if !errors.Is(codeError(r.Topics[i].ErrorCode), kafka.UnknownTopicOrPartition) {
				return kafka.StaleControllerEpoch // not yet: try again
			}
		}
		return nil
	})
	c.meta.forget(topic)
	c.limits.Delete(topic)
	return err
}

func (c *Client) deleteOnce(ctx context.Context, topic string) error {
	cluster, err := c.meta.look(ctx, nil)
	if err != nil {
		return err
	}
	r, err := c.ask(ctx, cluster.ControllerID, &deletetopics.Request{TopicNames: []string{topic}, TimeoutMs: int32(c.cfg.CallTimeout.Milliseconds() * 9 / 10)})
	if err != nil {
		return err
	}
	ts := r.(*deletetopics.Response).Responses
	if len(ts) != 1 {
		return kafka.Unknown
	}
	return codeError(ts[0].ErrorCode)
}

// DeleteGroup removes a group with its offsets. It returns when the group is gone, waiting for members that are about to
// leave; it is no error if there is none.
func (c *Client) DeleteGroup(ctx context.Context, name string) error {
	const op = "kafka.DeleteGroup"
	coord := c.coordinator(kafka.CoordinatorKeyTypeConsumer, c.name(name))
	for tries := 0; ; tries++ {
		_, err := coord.ask(ctx, &deletegroups.Request{GroupIDs: []string{c.name(name)}}, func(m protocol.Message) int16 {
			for _, r := range m.(*deletegroups.Response).Responses {
				if r.ErrorCode != 0 {
					return r.ErrorCode
				}
			}
			return 0
		})
		if err == nil || errors.Is(err, kafka.GroupIdNotFound) {
			return nil
		}
		if errors.Is(err, kafka.NonEmptyGroup) {
			err = kafka.GroupLoadInProgress // worth another try
		}
		if err := c.again(ctx, op, "group "+name, tries, err); err != nil {
			return err
		}
	}
}

// retentionMs is a retention as a topic's setting has it.
func retentionMs(d time.Duration) string {
	if d < 0 {
		return "-1"
	}
	return strconv.FormatInt(d.Milliseconds(), 10)
}

// first returns the first value that is not zero.
func first[T comparable](vs ...T) (v T) {
	for _, v = range vs {
		var zero T
		if v != zero {
			return v
		}
	}
	return v
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
