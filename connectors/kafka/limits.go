package kafka

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"

	"github.com/leatstream/leat/schemas"
)

// limitAge is how long a topic's max.message.bytes is believed.
const limitAge = time.Minute

type limit struct {
	bytes int
	at    time.Time
}

// maxMessage is the largest batch that a topic (its name in the cluster) takes, in bytes.
func (c *Client) maxMessage(ctx context.Context, topic string) (int, error) {
	if l, ok := c.limits.Load(topic); ok && time.Since(l.(limit).at) < limitAge {
		return l.(limit).bytes, nil
	}
	m, err := c.topicConfig(ctx, "kafka.limits", topic, "max.message.bytes")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(m["max.message.bytes"])
	if err != nil {
		return 0, schemas.Errorf(schemas.Internal, "kafka.limits", "topic %s: max.message.bytes is %q", c.user(topic), m["max.message.bytes"])
	}
	c.limits.Store(topic, limit{n, time.Now()})
	return n, nil
}

// resourceTopic is the kind of a topic among what has settings.
const resourceTopic = 2

// topicConfig returns settings of a topic (its name in the cluster); none named means all.
func (c *Client) topicConfig(ctx context.Context, op, topic string, names ...string) (map[string]string, error) {
	what := "the settings of topic " + c.user(topic)
	req := &describeconfigs.Request{Resources: []describeconfigs.RequestResource{{ResourceType: resourceTopic, ResourceName: topic, ConfigNames: names}}}
	for tries := 0; ; tries++ {
		r, err := c.ask(ctx, anyBroker, req)
		if err == nil {
			a := r.(*describeconfigs.Response)
			if len(a.Resources) != 1 {
				return nil, schemas.Errorf(schemas.Internal, op, "%s: %d answers", what, len(a.Resources))
			}
			if err = codeError(a.Resources[0].ErrorCode); err == nil {
				out := map[string]string{}
				for _, e := range a.Resources[0].ConfigEntries {
					out[e.ConfigName] = e.ConfigValue
				}
				return out, nil
			}
		}
		if errors.Is(err, kafka.UnknownTopicOrPartition) {
			return nil, noTopic(op, c.user(topic))
		}
		if err := c.again(ctx, op, what, tries, err); err != nil {
			return nil, err
		}
	}
}
