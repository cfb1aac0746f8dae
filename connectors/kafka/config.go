package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Config describes a cluster and the bounds of what is done with it. Acknowledgements are always those of all in-sync
// replicas: there is no option for less.
type Config struct {
	Bootstrap []string `yaml:"bootstrap"` // host:port of some brokers; empty: no Kafka
	ClientID  string   `yaml:"client_id"` // shown by brokers in logs and quotas
	Prefix    string   `yaml:"prefix"`    // put before every topic, group and transactional id
	TLS       TLS      `yaml:"tls"`
	SASL      SASL     `yaml:"sasl"`

	// Of topics that are made. What exists is never changed.
	Partitions  int           `yaml:"partitions"`
	Replication int           `yaml:"replication"` // 0: three, or as many as there are brokers
	MinInSync   int           `yaml:"min_insync"`  // 0: two of three replicas, else one
	Retention   time.Duration `yaml:"retention"`   // 0: as the cluster is set; negative: for ever

	// Of consumer groups. Brokers refuse sessions under 6 s unless told otherwise.
	Session   time.Duration `yaml:"session"`   // a member that is silent for so long loses its partitions
	Heartbeat time.Duration `yaml:"heartbeat"` // also how soon a new member gets its share
	InFlight  int           `yaml:"in_flight"` // records of one partition delivered and not settled
	Watchdog  time.Duration `yaml:"watchdog"`  // a record that is not settled for so long is reported

	// Requests that may wait for Receive, for each pipeline; more are answered Overloaded.
	Queue int `yaml:"queue"`

	MaxBatchBytes int           `yaml:"max_batch_bytes"` // records that travel together; a larger one travels alone
	FetchBytes    int           `yaml:"fetch_bytes"`     // asked for at once, for each partition
	CallTimeout   time.Duration `yaml:"call_timeout"`    // one try of a call to a broker
	ConnectWait   time.Duration `yaml:"connect_wait"`    // how long Dial tries

	Metrics *Metrics `yaml:"-"` // nil: none

	dialer func(ctx context.Context, network, address string) (net.Conn, error) // of tests, that break connections
}

// TLS says how connections are encrypted. The broker's certificate is always checked.
type TLS struct {
	Enabled    bool   `yaml:"enabled"`     // implied by each of the others
	CAFile     string `yaml:"ca_file"`     // PEM; empty: the system's authorities
	CertFile   string `yaml:"cert_file"`   // PEM, of a client certificate
	KeyFile    string `yaml:"key_file"`    // PEM
	ServerName string `yaml:"server_name"` // if the certificate names another host than the address
}

func (t *TLS) enabled() bool {
	return t.Enabled || t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != ""
}

// SASL says who the client is.
type SASL struct {
	Mechanism    string `yaml:"mechanism"` // plain, scram-sha-256 or scram-sha-512; empty: none
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"` // holds the password; a line's end is ignored
	Password     string `yaml:"-"`             // instead of the file
}

// String hides the secret.
func (s SASL) String() string { return fmt.Sprintf("%s credentials of %q", s.Mechanism, s.Username) }

// GoString hides the secret.
func (s SASL) GoString() string { return s.String() }

// The mechanisms of SASL.
const (
	saslPlain    = "plain"
	saslScram256 = "scram-sha-256"
	saslScram512 = "scram-sha-512"
)

// Default returns the bounds; it names no broker.
func Default() Config {
	return Config{
		ClientID: "leat", Partitions: connectors.DefaultPartitions,
		// 6 s is the least that brokers allow as they come. A new member waits for the others' next heartbeat.
		Session: 6 * time.Second, Heartbeat: 300 * time.Millisecond,
		InFlight: 8192, Watchdog: time.Minute,
		// 4096 waiting requests are some 100 ms of work of a small model: more only grows the wait of everybody.
		Queue: 4096,
		// Brokers take batches of 1,048,588 bytes as they come.
		MaxBatchBytes: 900 << 10, FetchBytes: 8 << 20,
		CallTimeout: 5 * time.Second, ConnectWait: 10 * time.Second,
	}
}

// Validate reports every fault, each with its field. It reads no file.
func (c *Config) Validate() error {
	const op = "kafka.Config.Validate"
	var errs []error
	fail := func(field, format string, args ...any) {
		errs = append(errs, schemas.FieldErrorf(schemas.Invalid, op, "kafka."+field, format, args...))
	}
	if len(c.Bootstrap) == 0 {
		fail("bootstrap", "needed: host:port of one broker or more")
	}
	for i, a := range c.Bootstrap {
		if err := checkAddress(a); err != nil {
			fail("bootstrap["+strconv.Itoa(i)+"]", "%q: %w", a, err)
		}
	}
	if len(c.Prefix) > 60 || !legalName(c.Prefix) && c.Prefix != "" {
		fail("prefix", "%q: want at most 60 of letters, digits, '.', '_' and '-'", c.Prefix)
	}
	c.checkSecurity(fail)
	if c.Partitions < 1 || c.Partitions > MaxPartitions {
		fail("partitions", "%d: want 1 to %d", c.Partitions, MaxPartitions)
	}
	if c.Replication < 0 || c.Replication > 32 {
		fail("replication", "%d: want 1 to 32, or 0 for three or as many as there are brokers", c.Replication)
	}
	if c.MinInSync < 0 || c.MinInSync > c.Replication && c.Replication > 0 {
		fail("min_insync", "%d: want 1 to the replication, or 0 for two of three", c.MinInSync)
	}
	for _, f := range []struct {
		name       string
		v, min, to int
	}{
		{"max_batch_bytes", c.MaxBatchBytes, 16 << 10, 64 << 20}, {"fetch_bytes", c.FetchBytes, 64 << 10, 256 << 20},
		{"in_flight", c.InFlight, 1, 1 << 20}, {"queue", c.Queue, 1, 1 << 20},
	} {
		if f.v < f.min || f.v > f.to {
			fail(f.name, "%d: want %d to %d", f.v, f.min, f.to)
		}
	}
	for _, f := range []struct {
		name string
		v    time.Duration
	}{{"session", c.Session}, {"heartbeat", c.Heartbeat}, {"watchdog", c.Watchdog}, {"call_timeout", c.CallTimeout}, {"connect_wait", c.ConnectWait}} {
		if f.v < time.Millisecond {
			fail(f.name, "%v: want a time such as 5s", f.v)
		}
	}
	if c.Heartbeat >= c.Session {
		fail("heartbeat", "%v is not less than the session of %v: members would be dropped between two", c.Heartbeat, c.Session)
	}
	return errors.Join(errs...)
}

func (c *Config) checkSecurity(fail func(field, format string, args ...any)) {
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		fail("tls.key_file", "a client certificate needs both cert_file and key_file")
	}
	s := &c.SASL
	switch s.Mechanism {
	case "":
		if s.Username != "" || s.PasswordFile != "" || s.Password != "" {
			fail("sasl.mechanism", "needed beside a username or password: plain, scram-sha-256 or scram-sha-512")
		}
		return
	case saslPlain, saslScram256, saslScram512:
	default:
		fail("sasl.mechanism", "%q: want plain, scram-sha-256 or scram-sha-512", s.Mechanism)
	}
	if s.Username == "" {
		fail("sasl.username", "needed with a mechanism")
	}
	if s.PasswordFile == "" && s.Password == "" {
		fail("sasl.password_file", "needed with a mechanism: a file that holds the password")
	}
	if s.Mechanism == saslPlain && !c.TLS.enabled() {
		for _, a := range c.Bootstrap {
			if host, _, err := net.SplitHostPort(a); err == nil && !loopback(host) {
				fail("sasl.mechanism", "plain sends the password in the clear to %s: set tls, or take scram-sha-512", a)
				return
			}
		}
	}
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" {
		return errors.New("want host:port")
	}
	if strings.Contains(host, "/") {
		return errors.New("want host:port without a scheme")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

// tlsConfig reads the files; nil means plaintext.
func (c *Config) tlsConfig() (*tls.Config, error) {
	const op = "kafka.Dial"
	if !c.TLS.enabled() {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLS.ServerName}
	if c.TLS.CAFile != "" {
		pem, err := os.ReadFile(c.TLS.CAFile)
		if err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "kafka.tls.ca_file", "%w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "kafka.tls.ca_file", "%s holds no certificate in PEM form", c.TLS.CAFile)
		}
	}
	if c.TLS.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
		if err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "kafka.tls.cert_file", "%w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// mechanism reads the password; nil means none.
func (c *Config) mechanism() (sasl.Mechanism, error) {
	const op = "kafka.Dial"
	s := &c.SASL
	if s.Mechanism == "" {
		return nil, nil
	}
	password := s.Password
	if s.PasswordFile != "" {
		b, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "kafka.sasl.password_file", "%w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	var m sasl.Mechanism
	var err error
	switch s.Mechanism {
	case saslPlain:
		m = plain.Mechanism{Username: s.Username, Password: password}
	case saslScram256:
		m, err = scram.Mechanism(scram.SHA256, s.Username, password)
	case saslScram512:
		m, err = scram.Mechanism(scram.SHA512, s.Username, password)
	}
	if err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "kafka.sasl.password_file", "the password cannot be used: %w", err)
	}
	return m, nil
}

// legalName reports whether Kafka takes s as a topic's name.
func legalName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > 249 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}
