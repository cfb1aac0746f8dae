package nats

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/leatstream/leat/schemas"
)

// ServerConfig describes the embedded server.
type ServerConfig struct {
	Dir  string `yaml:"-"`    // where streams, KV and credentials live; made if absent
	Host string `yaml:"host"` // address to listen on
	Port int    `yaml:"port"` // 0: a free one
	// Sync makes the store sync each append before it is acknowledged. Without it an acknowledged message survives the
	// death of the process, but not a loss of power within the last two minutes.
	Sync       bool  `yaml:"sync"`
	MaxPayload int   `yaml:"max_payload"` // bytes of one message, headers included
	StoreLimit int64 `yaml:"store_limit"` // bytes that all streams together may reserve; 0: 80 % of what the disk has for us
	// Token is what clients of APP must show. Empty is allowed on loopback only.
	Token string      `yaml:"-"`
	TLS   *tls.Config `yaml:"-"` // required off loopback
}

// DefaultServer returns a server on loopback, port 4222, that syncs before it acknowledges.
func DefaultServer() ServerConfig {
	return ServerConfig{Host: "127.0.0.1", Port: 4222, Sync: true, MaxPayload: 1 << 20}
}

// Validate reports the first fault with its field.
func (c *ServerConfig) Validate() error {
	const op = "nats.ServerConfig.Validate"
	fail := func(field, format string, args ...any) error {
		return schemas.FieldErrorf(schemas.Invalid, op, field, format, args...)
	}
	switch {
	case c.Dir == "":
		return fail("data", "needed: the folder that holds streams and models")
	case c.Port < 0 || c.Port > 65535:
		return fail("nats.port", "%d is not a port; 0 picks a free one", c.Port)
	case c.MaxPayload < 64<<10 || c.MaxPayload > 64<<20:
		return fail("nats.max_payload", "%d bytes: want 64 KiB to 64 MiB", c.MaxPayload)
	case c.StoreLimit < 0:
		return fail("nats.store_limit", "negative")
	}
	if !loopback(c.Host) && (c.Token == "" || c.TLS == nil) {
		return fail("nats.host", "%s is not loopback: give a token file and a TLS certificate, or listen on 127.0.0.1", c.Host)
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Config describes a client: connections to the embedded server or to an external one, and the bounds of what it makes.
type Config struct {
	Server *Server `yaml:"-"` // embedded; connections are in-process

	// An external server, if Server is nil. FrontURL and its credentials are the account that users connect to; empty
	// means the same account as URL (then the operator sees to what users may do).
	URL         string      `yaml:"url"`
	Credentials Credentials `yaml:"-"`
	FrontURL    string      `yaml:"front_url"`
	Front       Credentials `yaml:"-"`
	TLS         *tls.Config `yaml:"-"`

	Name string `yaml:"name"` // shown by server tools

	Replicas    int           `yaml:"replicas"`     // of streams and KV, on a cluster
	TopicBytes  int64         `yaml:"topic_bytes"`  // MaxBytes of a new topic; a full topic refuses
	DeadBytes   int64         `yaml:"dead_bytes"`   // MaxBytes of the dead-letter stream
	KVBytes     int64         `yaml:"kv_bytes"`     // MaxBytes of each KV bucket
	BlobBytes   int64         `yaml:"blob_bytes"`   // MaxBytes of each object store
	Queue       int           `yaml:"queue"`        // requests that may wait for Receive, for each pipeline; more are answered Overloaded
	Window      int           `yaml:"window"`       // publishes in flight for each call of Publish
	InFlight    int           `yaml:"in_flight"`    // messages of one partition delivered and not settled
	PullBytes   int           `yaml:"pull_bytes"`   // bytes asked for at once, for each partition
	LeaseTTL    time.Duration `yaml:"lease_ttl"`    // a member that is silent for so long loses its partitions
	CallTimeout time.Duration `yaml:"call_timeout"` // one try of a call to the server
	ConnectWait time.Duration `yaml:"connect_wait"` // how long Dial tries
}

// Default returns the client's bounds.
func Default() Config {
	return Config{
		Name: "leat", Replicas: 1,
		TopicBytes: 1 << 30, DeadBytes: 256 << 20, KVBytes: 256 << 20, BlobBytes: 8 << 30,
		// 4096 waiting requests are some 100 ms of work of a small model: more only grows the wait of everybody.
		Queue: 4096,
		// Field notes: 256 to 1000; far more starves consumers.
		Window:   512,
		InFlight: 8192, PullBytes: 4 << 20,
		LeaseTTL: 6 * time.Second, CallTimeout: 5 * time.Second, ConnectWait: 10 * time.Second,
	}
}

// Validate reports the first fault with its field.
func (c *Config) Validate() error {
	const op = "nats.Config.Validate"
	if c.Server == nil && c.URL == "" {
		return schemas.FieldErrorf(schemas.Invalid, op, "nats.url", "neither an embedded server nor the URL of an external one")
	}
	for _, f := range []struct {
		name string
		v    int64
	}{
		{"replicas", int64(c.Replicas)}, {"topic_bytes", c.TopicBytes}, {"dead_bytes", c.DeadBytes}, {"kv_bytes", c.KVBytes},
		{"blob_bytes", c.BlobBytes}, {"queue", int64(c.Queue)}, {"window", int64(c.Window)}, {"in_flight", int64(c.InFlight)},
		{"pull_bytes", int64(c.PullBytes)}, {"lease_ttl", int64(c.LeaseTTL)}, {"call_timeout", int64(c.CallTimeout)},
		{"connect_wait", int64(c.ConnectWait)},
	} {
		if f.v <= 0 {
			return schemas.FieldErrorf(schemas.Invalid, op, "nats."+f.name, "must be positive")
		}
	}
	return nil
}

// Credentials open an account. Zero means none.
type Credentials struct {
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Token    string `json:"token,omitempty"`
	File     string `json:"file,omitempty"` // a NATS .creds file
}

// String hides the secret.
func (c Credentials) String() string { return fmt.Sprintf("credentials of %q", c.User) }
