package kafka

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

// Client is everything that Leat does over Kafka. It is safe for concurrent use, and goes on by itself when brokers
// come back.
type Client struct {
	cfg       Config
	log       *slog.Logger
	addr      net.Addr
	transport *kafka.Transport
	// kafka makes the calls that the library routes by coordinator or controller: groups, transactions, administration.
	// What is routed by a topic's leader goes through ask: the library knows of no topics here.
	kafka *kafka.Client

	closing context.Context // ends when Close is called
	stop    context.CancelFunc
	wg      sync.WaitGroup // goroutines of this client

	meta     metadata
	producer producer
	requests requests
	robin    atomic.Uint32 // partition of keyless messages
	limits   sync.Map      // topic -> limit

	discovering atomic.Bool  // the library looks for brokers
	telling     atomic.Int32 // brokers tell of transactions: 1, do not: -1, not known: 0

	mu struct {
		sync.Mutex
		conns map[*conn]struct{}
	}
}

// Dial connects. It returns when a broker answers: Unavailable in one line if none does within ConnectWait, Denied if
// one answers and refuses. A nil logger discards.
func Dial(ctx context.Context, c Config, log *slog.Logger) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	security, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	mechanism, err := c.mechanism()
	if err != nil {
		return nil, err
	}
	cl := &Client{cfg: c, log: log.With("part", "kafka"), addr: kafka.TCP(c.Bootstrap...)}
	cl.closing, cl.stop = context.WithCancel(context.WithoutCancel(ctx))
	cl.mu.conns = map[*conn]struct{}{}
	cl.meta.init(cl)
	cl.producer.init(cl)
	cl.requests.init(cl)
	cl.robin.Store(rand.Uint32())
	cl.transport = &kafka.Transport{
		Dial: cl.dial, DialTimeout: c.CallTimeout, IdleTimeout: 5 * time.Minute, ClientID: c.ClientID,
		TLS: security, SASL: mechanism, Context: cl.closing,
		// Only the list of brokers, and that rarely: rediscover asks when it matters. The same time bounds each look.
		MetadataTTL: min(c.CallTimeout, 2*lookTimeout), MetadataTopics: []string{},
	}
	cl.kafka = &kafka.Client{Addr: cl.addr, Timeout: c.CallTimeout, Transport: cl.transport}
	if err := cl.connect(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

// connect waits for the first answer of any broker.
func (c *Client) connect(ctx context.Context) error {
	const op = "kafka.Dial"
	where := "brokers " + strings.Join(c.cfg.Bootstrap, ", ")
	wait, cancel := context.WithTimeout(ctx, c.cfg.ConnectWait)
	defer cancel()
	var last error
	for {
		_, err := c.meta.look(wait, nil)
		if err == nil {
			return nil
		}
		if last == nil || !outOfTime(err) { // what a try met says more than that the last one was cut short
			last = err
		}
		if k := kindOf(err); k == schemas.Denied || k == schemas.Invalid {
			return schemas.Errorf(k, op, "%s: %w", where, plainly(err))
		}
		if sleep(wait, retryPause) != nil {
			if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return schemas.Errorf(schemas.Unavailable, op, "cannot reach %s: %w", where, c.cfg.hint(plainly(last)))
		}
	}
}

// dial opens a connection that ends with the client.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := c.cfg.dialer
	if dialer == nil {
		dialer = (&net.Dialer{Timeout: c.cfg.CallTimeout}).DialContext
	}
	nc, err := dialer(ctx, network, address)
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: nc, c: c, checked: c.cfg.TLS.enabled()} // what is no Kafka breaks off a TLS handshake by itself
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.Err() != nil {
		nc.Close()
		return nil, net.ErrClosed
	}
	c.mu.conns[k] = struct{}{}
	return k, nil
}

// Close ends everything that is under way and closes the connections. Idempotent.
func (c *Client) Close() {
	c.requests.close() // others take the requests over
	c.mu.Lock()
	c.stop() // under the lock: spawn starts nothing after it
	c.mu.Unlock()
	c.transport.CloseIdleConnections()
	c.mu.Lock()
	for k := range c.mu.conns {
		k.Conn.Close() // whoever reads from it finds out and forgets it
	}
	c.mu.Unlock()
	c.requests.close() // those that were opened meanwhile
	c.wg.Wait()
}

// spawn runs f on a goroutine that Close waits for; false, and nothing, once the client is closed.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.Err() != nil {
		return false
	}
	c.wg.Go(f)
	return true
}

// name is what a topic, group or transactional id is called in the cluster.
func (c *Client) name(s string) string { return c.cfg.Prefix + s }

// userName is the inverse of name; ok is false for what is not ours.
func (c *Client) userName(s string) (name string, ok bool) { return strings.CutPrefix(s, c.cfg.Prefix) }

// retryPause is the time between two tries of what a broker refused or did not answer.
const retryPause = 20 * time.Millisecond

// sleep waits d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
