package confluent

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/leatstream/leat/schemas"
)

const (
	defaultTimeout = 5 * time.Second
	// pause is how long after a failure the registry is not asked again.
	pause = time.Second
	// unknownFor is how long an id that the registry does not have is not asked for again: it may get it yet.
	unknownFor = 5 * time.Second
	// maxSchemas and maxSource bound what is remembered: the oldest is forgotten, and asked for again if it comes.
	maxSchemas = 1000
	maxSource  = 64 << 20
	// maxUnknown bounds the unknown ids that are remembered. Records can name any.
	maxUnknown = 1000
)

// Registry finds the codecs of records. It is safe for concurrent use and holds no connection between requests.
type Registry struct {
	client  *sr.Client
	url     string
	timeout time.Duration
	answers schemas.Encoder
	known   atomic.Pointer[map[uint32]*schema] // read without a lock, replaced under mu

	mu struct {
		sync.Mutex
		order   []*schema // of known, oldest first
		source  int       // their bytes
		calls   map[uint32]*call
		unknown map[uint32]time.Time // until when
		failed  time.Time            // when the registry last could not be asked
		why     *schemas.Error
	}
}

// call is a request that others wait for.
type call struct {
	done   chan struct{}
	schema *schema // nil if it failed
	err    *schemas.Error
	gone   bool // the caller gave up: somebody else asks
}

// New makes a registry; it does no I/O. answers writes what is answered to records: they have no form for it.
func New(c Config, answers schemas.Encoder) (*Registry, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	// Schemas are asked for once each: a connection kept open would outlive its use.
	return newRegistry(c, answers, &http.Transport{TLSClientConfig: c.TLS.Clone(), DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10})
}

func newRegistry(c Config, answers schemas.Encoder, t http.RoundTripper) (*Registry, error) {
	r := &Registry{url: c.URL, timeout: c.Timeout, answers: answers}
	if r.timeout == 0 {
		r.timeout = defaultTimeout
	}
	opts := []sr.ClientOpt{sr.HTTPClient(&http.Client{Transport: bounded{t}}), sr.UserAgent("leat"), sr.URLs(c.URL)}
	if c.Username != "" {
		opts = append(opts, sr.BasicAuth(c.Username, c.Password))
	}
	var err error
	if r.client, err = sr.NewClient(opts...); err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "schema_registry", "%w", err)
	}
	r.known.Store(&map[uint32]*schema{})
	r.mu.calls = map[uint32]*call{}
	r.mu.unknown = map[uint32]time.Time{}
	return r, nil
}

// Configured reports whether there is a registry to ask.
func (r *Registry) Configured() bool { return r.url != "" }

// Avro returns the codec of an Avro record.
func (r *Registry) Avro(ctx context.Context, payload []byte) (schemas.RowCodec, error) {
	return r.codec(ctx, payload, typeAvro)
}

// Protobuf returns the codec of a Protobuf record.
func (r *Registry) Protobuf(ctx context.Context, payload []byte) (schemas.RowCodec, error) {
	return r.codec(ctx, payload, typeProtobuf)
}

func (r *Registry) codec(ctx context.Context, payload []byte, want string) (schemas.RowCodec, error) {
	id, err := head(payload)
	if err != nil {
		return nil, err
	}
	s, ok := (*r.known.Load())[id]
	if !ok {
		if s, err = r.find(ctx, id); err != nil {
			return nil, err
		}
	}
	switch {
	case s.err != nil:
		return nil, copied(s.err)
	case s.typ != want:
		return nil, schemas.Errorf(schemas.Invalid, op, "schema %d is of type %.20s, the record is read as %s", id, s.typ, want)
	}
	return s.codec, nil
}

// find returns what the registry has under an id. One caller asks, the others wait for it, each as long as its context.
func (r *Registry) find(ctx context.Context, id uint32) (*schema, error) {
	for {
		c, mine, err := r.join(id)
		if err != nil {
			return nil, err
		}
		if mine {
			return r.ask(ctx, id, c)
		}
		select {
		case <-c.done:
			switch {
			case c.gone:
			case c.err != nil:
				return nil, copied(c.err)
			default:
				return c.schema, nil
			}
		case <-ctx.Done():
			return nil, schemas.AsError(op, ctx.Err())
		}
	}
}

// join returns the call for an id, and whether the caller has to make it.
func (r *Registry) join(id uint32) (c *call, mine bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := (*r.known.Load())[id]; ok {
		c = &call{done: make(chan struct{}), schema: s}
		close(c.done)
		return c, false, nil
	}
	if c, ok := r.mu.calls[id]; ok {
		return c, false, nil
	}
	now := time.Now()
	if now.Before(r.mu.unknown[id]) {
		return nil, false, unknown(id)
	}
	if e := r.mu.why; e != nil && now.Sub(r.mu.failed) < pause {
		return nil, false, copied(e)
	}
	c = &call{done: make(chan struct{})}
	r.mu.calls[id] = c
	return c, true, nil
}

func unknown(id uint32) error {
	return schemas.Errorf(schemas.Invalid, op, "schema %d is not in the schema registry", id)
}

// copied is an error that the caller may add to.
func copied(e *schemas.Error) error {
	c := *e
	return &c
}

// ask fetches a schema and tells all who wait.
func (r *Registry) ask(ctx context.Context, id uint32, c *call) (*schema, error) {
	s, err := r.fetch(ctx, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.calls, id)
	switch kind := schemas.KindOf(err); {
	case err == nil:
		c.schema = s
		r.remember(s)
	case ctx.Err() != nil:
		c.gone = true
		err = schemas.AsError(op, ctx.Err())
	case kind == schemas.Invalid:
		if len(r.mu.unknown) >= maxUnknown {
			clear(r.mu.unknown)
		}
		r.mu.unknown[id] = time.Now().Add(unknownFor)
	default:
		r.mu.failed, r.mu.why = time.Now(), schemas.AsError(op, err) // for every id: it is the registry that failed
	}
	c.err = schemas.AsError(op, err)
	close(c.done)
	if err != nil {
		return nil, copied(c.err)
	}
	return s, nil
}

// remember adds a schema. The caller holds mu.
func (r *Registry) remember(s *schema) {
	next := make(map[uint32]*schema, len(r.mu.order)+1)
	r.mu.order = append(r.mu.order, s)
	r.mu.source += s.size
	for len(r.mu.order) > maxSchemas || r.mu.source > maxSource && len(r.mu.order) > 1 {
		r.mu.source -= r.mu.order[0].size
		r.mu.order = r.mu.order[1:]
	}
	for _, k := range r.mu.order {
		next[k.id] = k
	}
	r.known.Store(&next)
}
