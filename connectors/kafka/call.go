package kafka

import (
	"context"
	"io"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/createtopics"
)

// anyBroker routes a call to whichever broker of the bootstrap list answers.
const anyBroker = -1

// call is one request on its way through the library's connections. The library would route by metadata of its own,
// which it refreshes on a timer alone: here the caller says which broker. An exchange writes the request and reads the
// answer, by the version that the connection agreed on.
type call struct {
	key      protocol.ApiKey
	broker   int32
	version  int16
	exchange func(rw io.ReadWriter, version int16) (protocol.Message, error)
}

func (c *call) ApiKey() protocol.ApiKey { return c.key }

// Broker implements protocol.BrokerMessage.
func (c *call) Broker(protocol.Cluster) (protocol.Broker, error) {
	return protocol.Broker{ID: c.broker}, nil
}

// Required implements protocol.RawExchanger.
func (c *call) Required(versions map[protocol.ApiKey]int16) bool {
	c.version = versions[c.key]
	return true
}

// RawExchange implements protocol.RawExchanger.
func (c *call) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	m, err := c.exchange(rw, c.version)
	if err != nil {
		return nil, err
	}
	return answer{m}, nil
}

// answer hides the type of an answer from the library, which acts on some.
type answer struct{ protocol.Message }

var (
	_ protocol.BrokerMessage = (*call)(nil)
	_ protocol.RawExchanger  = (*call)(nil)
)

// trip makes one call, bounded by ctx and the timeout, and by the life of the client.
func (c *Client) trip(ctx context.Context, timeout time.Duration, q *call) (protocol.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(c.closing, cancel)
	defer stop()
	r, err := c.transport.RoundTrip(ctx, c.addr, q)
	if err != nil {
		return nil, err
	}
	return r.(answer).Message, nil
}

// ask sends one of the library's requests to a broker and returns its answer.
func (c *Client) ask(ctx context.Context, broker int32, req protocol.Message) (protocol.Message, error) {
	return c.trip(ctx, c.cfg.CallTimeout, &call{key: req.ApiKey(), broker: broker, exchange: func(rw io.ReadWriter, version int16) (protocol.Message, error) {
		if p, ok := req.(protocol.PreparedMessage); ok {
			p.Prepare(version)
		}
		return protocol.RoundTrip(rw, version, 1, c.cfg.ClientID, req)
	}})
}

// rediscover makes the library look for the cluster's brokers now and not when its timer fires: an answer about created
// topics is what makes it do so. Nothing is sent for it but that look.
func (c *Client) rediscover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	_, err := c.transport.RoundTrip(ctx, c.addr, wake{})
	return err
}

// rediscoverSoon is rediscover beside the work, once at a time: the library may ask a broker that is frozen.
func (c *Client) rediscoverSoon() {
	if !c.discovering.CompareAndSwap(false, true) {
		return
	}
	c.spawn(func() {
		defer c.discovering.Store(false)
		if err := c.rediscover(c.closing); err != nil {
			c.log.Debug("looking for brokers", "error", err)
		}
	})
}

// wake is answered without a word on the wire.
type wake struct{}

func (wake) ApiKey() protocol.ApiKey { return protocol.CreateTopics }

// Required implements protocol.RawExchanger.
func (wake) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange implements protocol.RawExchanger.
func (wake) RawExchange(io.ReadWriter) (protocol.Message, error) {
	return &createtopics.Response{}, nil
}
