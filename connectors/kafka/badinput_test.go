package kafka

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// dialing bounds what Dial may take to say no.
const dialing = time.Second

// refused dials and returns the error, which must come in time.
func refused(t *testing.T, c Config) error {
	t.Helper()
	c.ConnectWait = dialing
	start := time.Now()
	cl, err := Dial(within(t), c, testLog(t))
	if err == nil {
		cl.Close()
		t.Fatal("connected")
	}
	if d := time.Since(start); d > dialing+2*time.Second {
		t.Errorf("the answer took %v", d)
	}
	t.Logf("%v: %v", schemas.KindOf(err), err)
	return err
}

// closedPort returns an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// TestUnreachable: what is wrong with the way to the brokers is one line.
func TestUnreachable(t *testing.T) {
	ctx := within(t)
	c := testConfig(broker.Shared(t))
	good := c.Bootstrap[0]
	c.Bootstrap = []string{closedPort(t)}
	wantKind(t, refused(t, c), schemas.Unavailable, "cannot reach brokers "+c.Bootstrap[0], "refused")
	c.Bootstrap = []string{"no-such-host.invalid:9092"}
	wantKind(t, refused(t, c), schemas.Unavailable, "no-such-host.invalid")
	// One of several is enough.
	c.Bootstrap = []string{closedPort(t), "no-such-host.invalid:9092", good}
	dialConfig(t, c).Close()

	words := map[string]string{"silent": "is it a Kafka broker", "hangs up": "kafka.tls or kafka.sasl", "nonsense": "no Kafka broker"}
	// Something else than Kafka, which never answers, or hangs up, or talks nonsense.
	for name, serve := range map[string]func(net.Conn){
		"silent":   func(nc net.Conn) {},
		"hangs up": func(nc net.Conn) { nc.Close() },
		"nonsense": func(nc net.Conn) { nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\nwhat is this?\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			var open []net.Conn
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					open = append(open, nc)
					serve(nc)
				}
			}()
			c.Bootstrap = []string{l.Addr().String()}
			c.CallTimeout = dialing / 2
			wantKind(t, refused(t, c), schemas.Unavailable, "cannot reach brokers "+l.Addr().String(), words[name])
			must(t, l.Close())
			<-done
			for _, nc := range open {
				nc.Close()
			}
		})
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Dial(cancelled, testConfig(broker.Shared(t)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestSecurity is done to a broker with TLS, SASL and an authorizer.
func TestSecurity(t *testing.T) {
	b := broker.Start(t, 1, broker.Secure())
	admin := dialConfig(t, testConfig(b))
	base := testConfig(b)
	base.Prefix = admin.cfg.Prefix
	for _, m := range []kafka.ScramMechanism{kafka.ScramMechanismSha256, kafka.ScramMechanismSha512} {
		r, err := admin.kafka.AlterUserScramCredentials(within(t), &kafka.AlterUserScramCredentialsRequest{Upsertions: []kafka.UserScramCredentialsUpsertion{{
			Name: "bob", Mechanism: m, Iterations: 4096, Salt: []byte("salt"), SaltedPassword: salted(t, m, "bob-secret"),
		}}})
		must(t, err)
		must(t, r.Results[0].Error)
	}
	must(t, admin.EnsureTopic(within(t), "t", 1))
	if _, err := admin.Publish(within(t), texts("t", 5)); err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) string {
		t.Helper()
		p := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(p, []byte(content), 0o600))
		return p
	}
	password := SASL{Mechanism: "plain", Username: broker.User, PasswordFile: file("password", broker.Password+"\n")}

	t.Run("good", func(t *testing.T) {
		for name, set := range map[string]func(c *Config){
			"plain over TLS": func(c *Config) { c.Bootstrap, c.TLS.CAFile, c.SASL = []string{b.SASLTLSAddr(1)}, b.CAFile(), password },
			"scram-sha-256": func(c *Config) {
				c.Bootstrap, c.SASL = []string{b.SASLAddr(1)}, SASL{Mechanism: "scram-sha-256", Username: "bob", Password: "bob-secret"}
			},
			"scram-sha-512 over TLS": func(c *Config) {
				c.Bootstrap, c.TLS.CAFile, c.SASL = []string{b.SASLTLSAddr(1)}, b.CAFile(), SASL{Mechanism: "scram-sha-512", Username: "bob", Password: "bob-secret"}
			},
			"client certificate": func(c *Config) {
				c.Bootstrap, c.TLS.CAFile = []string{b.TLSAddr(1)}, b.CAFile()
				c.TLS.CertFile, c.TLS.KeyFile = b.ClientFiles()
			},
			"other server name": func(c *Config) {
				c.Bootstrap, c.TLS, c.SASL = []string{b.SASLTLSAddr(1)}, TLS{CAFile: b.CAFile(), ServerName: "localhost"}, password
			},
		} {
			t.Run(name, func(t *testing.T) {
				c := base
				set(&c)
				cl := dialConfig(t, c)
				// Who may do nothing is told so, call by call.
				_, err := cl.Publish(within(t), texts("t", 1))
				wantKind(t, err, schemas.Denied, "topic t")
			})
		}
	})
	t.Run("bad", func(t *testing.T) {
		for name, k := range map[string]struct {
			set   func(c *Config)
			kind  schemas.Kind
			words string
		}{
			"wrong password": {func(c *Config) {
				c.Bootstrap, c.SASL = []string{b.SASLAddr(1)}, SASL{Mechanism: "plain", Username: broker.User, Password: "wrong"}
			}, schemas.Denied, "uthentication"},
			"wrong scram password": {func(c *Config) {
				c.Bootstrap, c.SASL = []string{b.SASLAddr(1)}, SASL{Mechanism: "scram-sha-512", Username: "bob", Password: "wrong"}
			}, schemas.Denied, "uthentication"},
			"unknown user": {func(c *Config) {
				c.Bootstrap, c.SASL = []string{b.SASLAddr(1)}, SASL{Mechanism: "scram-sha-256", Username: "eve", Password: "x"}
			}, schemas.Denied, "uthentication"},
			"no credentials":         {func(c *Config) { c.Bootstrap = []string{b.SASLAddr(1)} }, schemas.Unavailable, "kafka.sasl"},
			"credentials to no SASL": {func(c *Config) { c.SASL = password }, schemas.Denied, "unset kafka.sasl"},
			"plaintext to TLS":       {func(c *Config) { c.Bootstrap = []string{b.TLSAddr(1)} }, schemas.Denied, "kafka.tls"},
			"TLS to plaintext":       {func(c *Config) { c.TLS.CAFile = b.CAFile() }, schemas.Unavailable, "kafka.tls"},
			"unknown authority":      {func(c *Config) { c.Bootstrap, c.TLS.Enabled, c.SASL = []string{b.SASLTLSAddr(1)}, true, password }, schemas.Denied, "kafka.tls.ca_file"},
			"wrong server name": {func(c *Config) {
				c.Bootstrap, c.TLS, c.SASL = []string{b.SASLTLSAddr(1)}, TLS{CAFile: b.CAFile(), ServerName: "kafka.example"}, password
			}, schemas.Denied, "kafka.tls.server_name"},
			"no client certificate": {func(c *Config) { c.Bootstrap, c.TLS.CAFile = []string{b.TLSAddr(1)}, b.CAFile() }, schemas.Denied, "kafka.tls.cert_file"},
			"no password file":      {func(c *Config) { c.SASL = password; c.SASL.PasswordFile = "/no/such/file" }, schemas.Invalid, "kafka.sasl.password_file"},
			"no authority file":     {func(c *Config) { c.TLS.CAFile = "/no/such/file" }, schemas.Invalid, "kafka.tls.ca_file"},
			"empty authority file":  {func(c *Config) { c.TLS.CAFile = file("ca", "nothing") }, schemas.Invalid, "kafka.tls.ca_file"},
			"no key file":           {func(c *Config) { c.TLS.CertFile, _ = b.ClientFiles(); c.TLS.KeyFile = "/no/such/file" }, schemas.Invalid, "kafka.tls.cert_file"},
		} {
			t.Run(name, func(t *testing.T) {
				c := base
				k.set(&c)
				err := refused(t, c)
				wantKind(t, err, k.kind, k.words)
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("%q tells a secret", err)
				}
			})
		}
	})
	t.Run("rights", func(t *testing.T) {
		c := base
		c.Bootstrap, c.SASL = []string{b.SASLAddr(1)}, SASL{Mechanism: "scram-sha-256", Username: "bob", Password: "bob-secret"}
		cl := dialConfig(t, c)
		ctx := within(t)
		_, err := cl.Topic(ctx, "t")
		wantKind(t, err, schemas.Denied, "topic t")
		wantKind(t, cl.EnsureTopic(ctx, "mine", 1), schemas.Denied, "topic mine")
		allow := func(op kafka.ACLOperationType) {
			t.Helper()
			r, err := admin.kafka.CreateACLs(ctx, &kafka.CreateACLsRequest{ACLs: []kafka.ACLEntry{{
				ResourceType: kafka.ResourceTypeTopic, ResourceName: c.Prefix, ResourcePatternType: kafka.PatternTypePrefixed,
				Principal: "User:bob", Host: "*", Operation: op, PermissionType: kafka.ACLPermissionTypeAllow,
			}}})
			must(t, err)
			must(t, errors.Join(r.Errors...))
		}
		allow(kafka.ACLOperationTypeDescribe)
		until(t, ctx, "the right to describe", func() error { _, err := cl.Topic(ctx, "t"); return err })
		_, err = cl.Publish(ctx, texts("t", 1))
		wantKind(t, err, schemas.Denied, "no right to write")
		spans, err := cl.Spans(ctx, "t", connectors.Start{})
		must(t, err)
		src, err := cl.Open(ctx, spans[0])
		must(t, err)
		_, err = src.Receive(ctx, 1)
		wantKind(t, err, schemas.Denied, "topic t")
		must(t, src.Close(ctx))
		allow(kafka.ACLOperationTypeWrite)
		until(t, ctx, "the right to write", func() error { _, err := cl.Publish(ctx, texts("t", 1)); return err })
		// Without the right to see settings, the broker's own limit stands.
		_, err = cl.Publish(ctx, []schemas.Message{{Topic: "t", Payload: make([]byte, 2<<20)}})
		wantKind(t, err, schemas.Invalid, "topic t takes less")
		allow(kafka.ACLOperationTypeRead)
		until(t, ctx, "the right to read", func() error {
			src, err := cl.Open(ctx, spans[0])
			must(t, err)
			defer src.Close(ctx)
			_, err = src.Receive(ctx, 1)
			return err
		})
		allow(kafka.ACLOperationTypeCreate)
		until(t, ctx, "the right to create", func() error { return cl.EnsureTopic(ctx, "mine", 1) })
		wantKind(t, cl.DeleteTopic(ctx, "mine"), schemas.Denied, "topic mine")
	})
}

func salted(t *testing.T, m kafka.ScramMechanism, password string) []byte {
	t.Helper()
	h := sha256.New
	if m == kafka.ScramMechanismSha512 {
		h = sha512.New
	}
	b, err := pbkdf2.Key(h, password, []byte("salt"), 4096, h().Size())
	must(t, err)
	return b
}
