package kafka

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/connectortest"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// claims of this transport.
var claims = connectortest.Claims{Name: "kafka", Request: true, Topics: true, Order: true, Retry: true, Replay: true, Transact: true, Restarts: true}

func transport(t testing.TB, c *Client) connectortest.Transport {
	return connectortest.Transport{
		Requester: c, Responder: c, Serve: c.Serve, Publisher: c, Topics: c, Replayer: c, Transactor: c,
		Revoke: func(topic, group string) { revoke(t, c, group) },
		Dead: func(ctx context.Context, topic string) ([]connectors.Delivery, error) {
			return deadLetters(ctx, c, topic)
		},
	}
}

func TestConnector(t *testing.T) {
	connectortest.Run(t, connectortest.Subject{
		Claims: claims, Queue: 100, Max: 1_048_588, // what brokers take as they come
		Open: func(t testing.TB) (connectortest.Transport, func() connectortest.Transport, func()) {
			b := broker.Shared(t)
			if strings.Contains(t.Name(), "restart") {
				b = broker.Start(t, broker.Count()) // the others' brokers are left in peace
			}
			c := testConfig(b)
			c.Queue = 100
			open := func() connectortest.Transport { return transport(t, dialConfig(t, c)) }
			next := 0
			return open(), open, func() { // each broker in turn
				i := next%b.N() + 1
				next++
				b.Kill(t, i)
				b.Up(t, i)
			}
		},
	})
}

// deadLetters reads what was put aside of a topic.
func deadLetters(ctx context.Context, c *Client, topic string) ([]connectors.Delivery, error) {
	spans, err := c.Spans(ctx, deadTopic, connectors.Start{})
	if schemas.KindOf(err) == schemas.NotFound && err != nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []connectors.Delivery
	for _, s := range spans {
		src, err := c.Open(ctx, s)
		if err != nil {
			return nil, err
		}
		for {
			ds, err := src.Receive(ctx, 100)
			if errors.Is(err, schemas.ErrDrained) {
				break
			}
			if err != nil {
				return nil, err
			}
			for _, d := range ds {
				if d.Header.Get(headerDeadTopic) == topic {
					d.Header.Set(schemas.HeaderKey, d.Key)
					out = append(out, *d)
				}
			}
		}
		if err := src.Close(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// revoke takes all members out of a group, as an administrator can. They find out by their next heartbeat.
func revoke(t testing.TB, c *Client, group string) {
	for _, m := range members(t, c, group) {
		if err := c.leaveGroup(t.Context(), c.name(group), m); err != nil {
			t.Error(err)
		}
	}
}

func members(t testing.TB, c *Client, group string) []string {
	t.Helper()
	r, err := c.kafka.DescribeGroups(t.Context(), &kafka.DescribeGroupsRequest{GroupIDs: []string{c.name(group)}})
	if err != nil {
		t.Error(err)
		return nil
	}
	var out []string
	for _, g := range r.Groups {
		for _, m := range g.Members {
			out = append(out, m.MemberID)
		}
	}
	return out
}
