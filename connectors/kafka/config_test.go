package kafka

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

// TestConfig: every fault is reported at once, with its field.
func TestConfig(t *testing.T) {
	good := Default()
	good.Bootstrap = []string{"a:9092", "[::1]:9092"}
	must(t, good.Validate())
	for field, set := range map[string]func(c *Config){
		"kafka.bootstrap":          func(c *Config) { c.Bootstrap = nil },
		"kafka.bootstrap[1]":       func(c *Config) { c.Bootstrap = []string{"a:1", "kafka://b:2"} },
		"kafka.bootstrap[0]":       func(c *Config) { c.Bootstrap = []string{"a:99999"} },
		"kafka.prefix":             func(c *Config) { c.Prefix = "a b" },
		"kafka.tls.key_file":       func(c *Config) { c.TLS.CertFile = "x" },
		"kafka.sasl.mechanism":     func(c *Config) { c.SASL = SASL{Mechanism: "gssapi", Username: "u", Password: "p"} },
		"kafka.sasl.username":      func(c *Config) { c.SASL = SASL{Mechanism: "scram-sha-256", Password: "p"} },
		"kafka.sasl.password_file": func(c *Config) { c.SASL = SASL{Mechanism: "scram-sha-256", Username: "u"} },
		"kafka.partitions":         func(c *Config) { c.Partitions = 0 },
		"kafka.replication":        func(c *Config) { c.Replication = -1 },
		"kafka.min_insync":         func(c *Config) { c.Replication, c.MinInSync = 2, 3 },
		"kafka.max_batch_bytes":    func(c *Config) { c.MaxBatchBytes = 1 },
		"kafka.fetch_bytes":        func(c *Config) { c.FetchBytes = 1 << 40 },
		"kafka.in_flight":          func(c *Config) { c.InFlight = 0 },
		"kafka.session":            func(c *Config) { c.Session = 0 },
		"kafka.heartbeat":          func(c *Config) { c.Heartbeat = time.Hour },
		"kafka.watchdog":           func(c *Config) { c.Watchdog = -1 },
		"kafka.call_timeout":       func(c *Config) { c.CallTimeout = 0 },
		"kafka.connect_wait":       func(c *Config) { c.ConnectWait = 0 },
	} {
		c := good
		set(&c)
		if _, err := Dial(t.Context(), c, nil); !blames(err, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	c := good
	c.Bootstrap, c.Partitions, c.SASL = []string{"x"}, 1000, SASL{Username: "u"}
	err := c.Validate()
	for _, f := range []string{"kafka.bootstrap[0]", "kafka.partitions", "kafka.sasl.mechanism"} {
		if !blames(err, f) {
			t.Errorf("%v does not name %s", err, f)
		}
	}
	// A password in the clear goes no farther than this machine.
	c = good
	c.SASL = SASL{Mechanism: "plain", Username: "u", Password: "p"}
	if !blames(c.Validate(), "kafka.sasl.mechanism") {
		t.Error("plain without TLS to another machine is taken")
	}
	c.Bootstrap = []string{"127.0.0.1:9092", "localhost:9092"}
	must(t, c.Validate())
	c.Bootstrap, c.TLS.Enabled = good.Bootstrap, true
	must(t, c.Validate())
	if s := fmt.Sprintf("%v %+v %#v", c.SASL, c, c); strings.Contains(s, `"p"`) || strings.Contains(s, "Password:p") {
		t.Errorf("%s tells the password", s)
	}
}

// blames reports whether err, or one that it joins, is Invalid at the field.
func blames(err error, field string) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			if blames(e, field) {
				return true
			}
		}
		return false
	}
	var e *schemas.Error
	return errors.As(err, &e) && e.Kind == schemas.Invalid && e.Field == field
}
