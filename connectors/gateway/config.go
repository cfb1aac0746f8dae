package gateway

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Config says where and how the gateway serves.
type Config struct {
	// Listen is HOST:PORT. Port 0 picks a free one. A host beyond loopback needs TLSCert, TLSKey and TokenFile.
	Listen string `yaml:"listen" json:"listen"`

	TLSCert string `yaml:"tls_cert,omitempty" json:"tls_cert,omitempty"` // PEM file
	TLSKey  string `yaml:"tls_key,omitempty" json:"tls_key,omitempty"`   // PEM file
	// TokenFile holds bearer tokens, one a line: TOKEN SCOPE PRINCIPAL. See ParseTokens. Without it everybody who
	// reaches the port may do everything.
	TokenFile string `yaml:"token_file,omitempty" json:"token_file,omitempty"`

	// Hosts are further names that a Host header may have while no tokens are asked for; loopback's own are allowed.
	Hosts []string `yaml:"hosts,omitempty" json:"hosts,omitempty"`
	// Origins are browser origins ("https://console.example.org") that may write across origins.
	Origins []string `yaml:"origins,omitempty" json:"origins,omitempty"`

	MaxBody       int64 `yaml:"max_body,omitempty" json:"max_body,omitempty"`             // bytes of a request, also once decompressed
	MaxUpload     int64 `yaml:"max_upload,omitempty" json:"max_upload,omitempty"`         // bytes of an operation's raw body, such as a model
	MaxHeader     int   `yaml:"max_header,omitempty" json:"max_header,omitempty"`         // bytes of all headers
	MaxConcurrent int   `yaml:"max_concurrent,omitempty" json:"max_concurrent,omitempty"` // requests at a time; more are Overloaded

	Timeout       time.Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`               // of a request that brings no deadline
	MaxTimeout    time.Duration `yaml:"max_timeout,omitempty" json:"max_timeout,omitempty"`       // a caller's deadline is cut to it
	HeaderTimeout time.Duration `yaml:"header_timeout,omitempty" json:"header_timeout,omitempty"` // for a request's headers to arrive
	BodyTimeout   time.Duration `yaml:"body_timeout,omitempty" json:"body_timeout,omitempty"`     // for headers and body; for an upload, between two reads
	IdleTimeout   time.Duration `yaml:"idle_timeout,omitempty" json:"idle_timeout,omitempty"`     // of a kept connection
	DrainTimeout  time.Duration `yaml:"drain_timeout,omitempty" json:"drain_timeout,omitempty"`   // for requests in flight when Serve ends
}

// Default is loopback, 8080, 8 MiB.
func Default() Config {
	return Config{
		Listen:  "127.0.0.1:8080",
		MaxBody: 8 << 20, MaxUpload: 4 << 30, MaxHeader: 64 << 10, MaxConcurrent: 1024,
		Timeout: 30 * time.Second, MaxTimeout: 10 * time.Minute,
		HeaderTimeout: 10 * time.Second, BodyTimeout: time.Minute, IdleTimeout: 2 * time.Minute, DrainTimeout: 30 * time.Second,
	}
}

// Validate reports every fault with its field.
func (c Config) Validate() error {
	const op = "gateway.Config"
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, schemas.FieldErrorf(schemas.Invalid, op, "http."+field, format, args...))
	}
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		fault("listen", "%q: want HOST:PORT, such as 127.0.0.1:8080", c.Listen)
	case (c.TLSCert == "") != (c.TLSKey == ""):
		fault("tls_cert", "a certificate and its key belong together: give --tls-cert and --tls-key")
	case !loopback(host) && (c.TLSCert == "" || c.TokenFile == ""):
		fault("listen", "%s can be reached from other machines: give --tls-cert FILE, --tls-key FILE and --token-file FILE, or listen on 127.0.0.1", c.Listen)
	}
	for field, n := range map[string]int64{"max_body": c.MaxBody, "max_upload": c.MaxUpload, "max_header": int64(c.MaxHeader), "max_concurrent": int64(c.MaxConcurrent),
		"timeout": int64(c.Timeout), "max_timeout": int64(c.MaxTimeout), "header_timeout": int64(c.HeaderTimeout), "body_timeout": int64(c.BodyTimeout),
		"idle_timeout": int64(c.IdleTimeout), "drain_timeout": int64(c.DrainTimeout)} {
		if n <= 0 {
			fault(field, "want more than 0")
		}
	}
	if c.MaxBody > 1<<30 {
		fault("max_body", "%d: a body is held in memory, want at most 1 GiB", c.MaxBody)
	}
	return errors.Join(errs...)
}

// loopback reports whether a host can be reached from this machine alone. A name other than localhost is not looked
// up: what it means can change.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
