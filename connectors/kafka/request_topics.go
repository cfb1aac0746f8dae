package kafka

import (
	"context"
	"time"

	"github.com/leatstream/leat/schemas"
)

const (
	// requestRetention is how long requests stay in their topic: nobody reads one again, and what matters of it is in the
	// lineage.
	requestRetention = time.Hour
	// replyRetention is the same of answers.
	replyRetention = 10 * time.Minute
)

// ensureScore makes the topic of a pipeline's requests if there is none. One that is there is taken as it is.
func (c *Client) ensureScore(ctx context.Context, pipeline string) error {
	return c.makeMissing(ctx, "kafka.Serve", topicScore+pipeline, TopicSpec{Retention: requestRetention})
}

// ensureReplies makes the topic of answers if there is none.
func (c *Client) ensureReplies(ctx context.Context) error {
	return c.makeMissing(ctx, "kafka.Request", topicReplies, TopicSpec{Partitions: repliesPartitions, Retention: replyRetention,
		Settings: map[string]string{"segment.bytes": "67108864"}})
}

func (c *Client) makeMissing(ctx context.Context, op, name string, spec TopicSpec) error {
	if _, err := c.meta.fresh(ctx, op, c.name(name)); schemas.KindOf(err) != schemas.NotFound {
		return err
	}
	return c.ensure(ctx, op, name, spec)
}
