package nats

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// metaPartitions is where a topic's stream keeps the number of its partitions.
const metaPartitions = "leat-partitions"

// MaxPartitions bounds a topic: each group has a consumer and an inbox for each.
const MaxPartitions = 256

// EnsureTopic implements connectors.Topics.
func (c *Client) EnsureTopic(ctx context.Context, name string, partitions int) error {
	const op = "nats.EnsureTopic"
	if err := schemas.CheckTopic(name); err != nil {
		return err
	}
	if partitions < 0 || partitions > MaxPartitions {
		return schemas.FieldErrorf(schemas.Invalid, op, "partitions", "%d: want 1 to %d", partitions, MaxPartitions)
	}
	n := partitions
	if n == 0 {
		n = connectors.DefaultPartitions
	}
	// Exact subjects: leat.topic.a.> would also take the messages of topic a.b.
	subjects := make([]string, n)
	for p := range subjects {
		subjects[p] = partitionSubject(name, p)
	}
	want := c.base(topicStream(name), subjects...)
	want.MaxBytes = c.bounded(c.cfg.TopicBytes)
	want.Metadata = map[string]string{metaPartitions: strconv.Itoa(n)}
	info, err := c.ensureStream(ctx, op, want, nil)
	if err != nil {
		return err
	}
	have, err := partitionsOf(&info.Config)
	if err != nil {
		return err
	}
	if partitions != 0 && have != partitions {
		return differs(op, want.Name, "partitions", have, partitions)
	}
	c.topics.Store(name, have)
	return nil
}

// DeleteTopic implements connectors.Transport. A topic that is made anew under the name counts its positions from 1
// again.
func (c *Client) DeleteTopic(ctx context.Context, name string) error {
	if err := schemas.CheckTopic(name); err != nil {
		return err
	}
	call, cancel := c.call(ctx)
	defer cancel()
	c.topics.Delete(name)
	if err := c.js.DeleteStream(call, topicStream(name)); err != nil {
		return noTopic(name, classify("nats.DeleteTopic", "topic "+name, err))
	}
	return nil
}

func partitionsOf(cfg *jetstream.StreamConfig) (int, error) {
	n, err := strconv.Atoi(cfg.Metadata[metaPartitions])
	if err != nil || n < 1 || n > MaxPartitions {
		return 0, schemas.Errorf(schemas.Invalid, "nats.Topic", "stream %s is not a topic of ours: metadata %s is %q", cfg.Name, metaPartitions, cfg.Metadata[metaPartitions])
	}
	return n, nil
}

// partitions returns P of a topic, from memory after the first time: it never changes while the topic lives.
func (c *Client) partitions(ctx context.Context, topic string) (int, error) {
	if n, ok := c.topics.Load(topic); ok {
		return n.(int), nil
	}
	if err := schemas.CheckTopic(topic); err != nil {
		return 0, err
	}
	info, err := c.streamInfo(ctx, "nats.Topic", topicStream(topic))
	if err != nil {
		return 0, noTopic(topic, err)
	}
	n, err := partitionsOf(&info.Config)
	if err == nil {
		c.topics.Store(topic, n)
	}
	return n, err
}

func noTopic(topic string, err error) error {
	if schemas.KindOf(err) == schemas.NotFound {
		return schemas.Errorf(schemas.NotFound, "nats.Topic", "no topic %s", topic)
	}
	return err
}

// Topic implements connectors.Topics.
func (c *Client) Topic(ctx context.Context, name string) (connectors.TopicInfo, error) {
	if err := schemas.CheckTopic(name); err != nil {
		return connectors.TopicInfo{}, err
	}
	info, err := c.streamInfo(ctx, "nats.Topic", topicStream(name))
	if err != nil {
		return connectors.TopicInfo{}, noTopic(name, err)
	}
	return c.topicInfo(ctx, info)
}

// ListTopics implements connectors.Topics.
func (c *Client) ListTopics(ctx context.Context) ([]connectors.TopicInfo, error) {
	const op = "nats.ListTopics"
	call, cancel := c.call(ctx)
	defer cancel()
	l := c.js.ListStreams(call)
	var infos []*jetstream.StreamInfo
	for i := range l.Info() {
		if _, ok := topicOfStream(i.Config.Name); ok {
			infos = append(infos, i)
		}
	}
	if err := l.Err(); err != nil {
		return nil, classify(op, "streams", err)
	}
	out := make([]connectors.TopicInfo, 0, len(infos))
	for _, i := range infos {
		t, err := c.topicInfo(ctx, i)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b connectors.TopicInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (c *Client) topicInfo(ctx context.Context, i *jetstream.StreamInfo) (connectors.TopicInfo, error) {
	name, _ := topicOfStream(i.Config.Name)
	p, err := partitionsOf(&i.Config)
	if err != nil {
		return connectors.TopicInfo{}, err
	}
	t := connectors.TopicInfo{Name: name, Partitions: p, Messages: i.State.Msgs, Bytes: i.State.Bytes}
	if i.State.Msgs > 0 {
		t.First, t.Last = i.State.FirstTime, i.State.LastTime
	}
	call, cancel := c.call(ctx)
	defer cancel()
	s, err := c.js.Stream(call, i.Config.Name)
	if err != nil {
		return t, noTopic(name, classify("nats.Topic", name, err))
	}
	l := s.ListConsumers(call)
	groups := map[string]*connectors.Group{}
	for ci := range l.Info() {
		g, _, ok := groupOfConsumer(ci.Name)
		if !ok {
			continue
		}
		if groups[g] == nil {
			groups[g] = &connectors.Group{Name: g}
		}
		groups[g].Lag += ci.NumPending
		groups[g].Pending += uint64(max(ci.NumAckPending, 0))
	}
	if err := l.Err(); err != nil {
		return t, classify("nats.Topic", name, err)
	}
	for _, g := range groups {
		t.Groups = append(t.Groups, *g)
	}
	slices.SortFunc(t.Groups, func(a, b connectors.Group) int { return strings.Compare(a.Name, b.Name) })
	return t, nil
}

// consumerName is the durable consumer of a group's partition.
func consumerName(group string, p int) string { return "g-" + group + "-" + strconv.Itoa(p) }

func groupOfConsumer(name string) (group string, p int, ok bool) {
	rest, ok := strings.CutPrefix(name, "g-")
	i := strings.LastIndexByte(rest, '-')
	if !ok || i <= 0 {
		return "", 0, false
	}
	p, err := strconv.Atoi(rest[i+1:])
	return rest[:i], p, err == nil
}
