package confluent

import (
	"crypto/tls"
	"net/url"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Config says how the registry is reached. The zero Config is none.
type Config struct {
	URL      string        // of its REST API: what stands before /schemas/ids
	Username string        // basic authentication; "" for none
	Password string        //
	TLS      *tls.Config   // of https; nil: the system's roots
	Timeout  time.Duration // of one schema with its references; 0: 5 s
}

// Validate reports what is wrong; fields are named as in the configuration of the server.
func (c Config) Validate() error {
	bad := func(field, format string, args ...any) error {
		return schemas.FieldErrorf(schemas.Invalid, op, "schema_registry."+field, format, args...)
	}
	if c.URL == "" {
		if c.Username != "" {
			return bad("url", "missing")
		}
		return nil
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return bad("url", "want an address as http://host:8081")
	case u.User != nil:
		return bad("url", "credentials belong into username and password_file")
	case u.RawQuery != "" || u.Fragment != "":
		return bad("url", "want an address without a query")
	case c.Timeout < 0:
		return bad("timeout", "%v is negative", c.Timeout)
	}
	return nil
}
