package nats

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Client is everything that Leat does over NATS, on three connections: front (the account of users: requests, answers,
// operations), core (appends, KV, publishes) and data (what is read in bulk, queues and large appends), so that a replay at full speed
// holds up nobody's append. It is safe for concurrent use, and reconnects for ever.
type Client struct {
	cfg   Config
	log   *slog.Logger
	front *nats.Conn
	core  *nats.Conn
	data  *nats.Conn
	js    jetstream.JetStream // on core
	jsd   jetstream.JetStream // on data

	id      string
	closing context.Context // ends when Close is called
	stop    context.CancelFunc

	standing    atomic.Pointer[context.Context] // ends with the next disconnect
	endStanding atomic.Pointer[context.CancelFunc]

	coreAskers, dataAskers askers

	robin  atomic.Uint64 // partition of keyless messages
	topics sync.Map      // topic -> int partitions
	stores sync.Map      // topic -> uint64 reconnects of core at which its stream last stored what was published
	mu     struct {
		sync.Mutex
		scores   map[*scoreSource]struct{}
		services map[string]*service
		subs     []*nats.Subscription // of $SRV, API and the door
		waiters  map[chan struct{}]struct{}
		groups   map[*groupSource]struct{}
	}

	groupKV  jetstream.KeyValue // guarded by mu
	deadMu   sync.Mutex
	deadMade bool
	wg       sync.WaitGroup
}

var (
	_ connectors.Queues    = (*Client)(nil)
	_ connectors.Topics    = (*Client)(nil)
	_ connectors.Replayer  = (*Client)(nil)
	_ connectors.Requester = (*Client)(nil)
	_ connectors.Publisher = (*Client)(nil)
	_ connectors.Responder = (*Client)(nil)
	_ schemas.Logs         = (*Client)(nil)
)

// Dial connects. It returns when the server answers, Unavailable if it does not within ConnectWait. A nil logger
// discards.
func Dial(ctx context.Context, c Config, log *slog.Logger) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cl := &Client{cfg: c, log: log.With("part", "nats"), id: randomHex(8)}
	cl.closing, cl.stop = context.WithCancel(context.WithoutCancel(ctx))
	cl.newStanding()
	cl.mu.scores = map[*scoreSource]struct{}{}
	cl.mu.services = map[string]*service{}
	cl.mu.waiters = map[chan struct{}]struct{}{}
	cl.mu.groups = map[*groupSource]struct{}{}
	if err := cl.connect(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	cl.wg.Add(1)
	go cl.shedLoop()
	return cl, nil
}

// inProcess is the address of connections that never leave the process, and so need no TLS: the server's own address
// would ask for it.
const inProcess = "nats://in-process"

func (c *Client) connect(ctx context.Context) error {
	const op = "nats.Dial"
	leat, front := c.cfg.Credentials, c.cfg.Front
	url, frontURL := c.cfg.URL, c.cfg.FrontURL
	if c.cfg.Server != nil {
		leat, front = c.cfg.Server.Credentials()
		url, frontURL = inProcess, inProcess
	} else if frontURL == "" {
		frontURL, front = url, leat
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectWait)
	defer cancel()
	for _, n := range []struct {
		conn  **nats.Conn
		name  string
		url   string
		creds Credentials
	}{{&c.core, "core", url, leat}, {&c.data, "data", url, leat}, {&c.front, "front", frontURL, front}} {
		nc, err := c.dialOne(ctx, n.name, n.url, n.creds)
		if err != nil {
			return schemas.Errorf(schemas.Unavailable, op, "cannot reach the NATS server: %w", err)
		}
		*n.conn = nc
	}
	var err error
	if c.js, err = jetstream.New(c.core, jetstream.WithDefaultTimeout(c.cfg.CallTimeout)); err == nil {
		c.jsd, err = jetstream.New(c.data, jetstream.WithDefaultTimeout(c.cfg.CallTimeout))
	}
	if err != nil {
		return schemas.Errorf(schemas.Internal, op, "jetstream: %w", err)
	}
	return nil
}

func (c *Client) dialOne(ctx context.Context, name, url string, creds Credentials) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(c.cfg.Name + " " + name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(20*time.Millisecond, 50*time.Millisecond),
		nats.ReconnectBufSize(-1), // a publish while disconnected fails at once: the caller repeats with the same id
		nats.Timeout(c.cfg.CallTimeout),
		nats.PingInterval(10 * time.Second),
		nats.IgnoreAuthErrorAbort(),
		nats.SkipSubjectValidation(), // checked here, once, where names enter
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			if s != nil {
				c.log.Warn("nats", "conn", name, "subject", s.Subject, "error", err)
				return
			}
			c.log.Warn("nats", "conn", name, "error", err)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if c.closing.Err() == nil {
				c.log.Warn("disconnected", "conn", name, "error", err)
			}
			c.newStanding()
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			c.log.Info("reconnected", "conn", name)
			c.wake()
		}),
	}
	if c.cfg.Server != nil {
		opts = append(opts, nats.InProcessServer(c.cfg.Server.ns))
	} else if c.cfg.TLS != nil {
		opts = append(opts, nats.Secure(c.cfg.TLS))
	}
	switch {
	case creds.File != "":
		opts = append(opts, nats.UserCredentials(creds.File))
	case creds.Token != "":
		opts = append(opts, nats.Token(creds.Token))
	case creds.User != "":
		opts = append(opts, nats.UserInfo(creds.User, creds.Password))
	}
	for {
		nc, err := nats.Connect(url, opts...)
		if err == nil {
			return nc, nil
		}
		if errors.Is(err, nats.ErrAuthorization) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// onReconnect returns a channel that gets a token after each reconnect, and what forgets it.
func (c *Client) onReconnect() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	c.mu.Lock()
	c.mu.waiters[ch] = struct{}{}
	c.mu.Unlock()
	return ch, func() {
		c.mu.Lock()
		delete(c.mu.waiters, ch)
		c.mu.Unlock()
	}
}

func (c *Client) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ch := range c.mu.waiters {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Connected reports whether all connections stand: part of readiness.
func (c *Client) Connected() bool {
	return c.core.IsConnected() && c.data.IsConnected() && c.front.IsConnected()
}

// MaxPayload is the largest message the server takes, headers included.
func (c *Client) MaxPayload() int { return int(c.core.MaxPayload()) }

// Close ends every source, gives partitions up and closes the connections. Idempotent.
func (c *Client) Close() {
	c.mu.Lock()
	groups := slices.Collect(maps.Keys(c.mu.groups))
	c.mu.Unlock()
	for _, g := range groups {
		g.Close(c.closing) // says what it can; what it cannot, others find out
	}

	c.stop()
	c.mu.Lock()
	subs := c.mu.subs
	c.mu.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		s.Unsubscribe() // the connection closes right after: nothing is left to say about an error
	}
	for _, nc := range []*nats.Conn{c.front, c.core, c.data} {
		if nc != nil {
			nc.Close()
		}
	}
	c.wg.Wait()
}

// call bounds one call to the server: CallTimeout, and the life of the connections, since the answer to what was asked
// before a disconnect never comes. The call then fails with context.Canceled.
func (c *Client) call(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	stop := context.AfterFunc(*c.standing.Load(), cancel)
	return ctx, func() { stop(); cancel() }
}

// newStanding begins the time between two disconnects, and ends the one before.
func (c *Client) newStanding() {
	ctx, cancel := context.WithCancel(c.closing)
	c.standing.Store(&ctx)
	if old := c.endStanding.Swap(&cancel); old != nil {
		(*old)()
	}
}

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
