package kafka

import (
	"context"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// topicFeedback and the pipeline: its feedback. The group of those who take it has the same name.
const topicFeedback = "leat.feedback."

// ServeFeedback joins the group that takes a pipeline's feedback from its topic, leat.feedback.<pipeline>, which is made if it
// is missing, with the partitions and the retention that are usual. A group that never was begins with all that is stored. Else
// it is as Subscribe.
func (c *Client) ServeFeedback(ctx context.Context, pipeline string) (connectors.Source, error) {
	if err := schemas.CheckName("pipeline", pipeline); err != nil {
		return nil, err
	}
	if err := c.makeMissing(ctx, "kafka.ServeFeedback", topicFeedback+pipeline, TopicSpec{}); err != nil {
		return nil, err
	}
	g, err := c.join(ctx, topicFeedback+pipeline, topicFeedback+pipeline)
	if err != nil {
		return nil, err
	}
	return g, nil
}
