package kafka

import (
	"fmt"
	"sync"
	"testing"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// TestSecureWork does all that a server does, as each kind of user and over each kind of connection, with the rights that
// docs/kafka.md lists and no others: requests and answers, a group, a transaction, a ledger, a log, topics and their end.
func TestSecureWork(t *testing.T) {
	b := broker.Start(t, 1, broker.Secure())
	b.AddUser(t, "bob", "bob-secret")
	sasl := func(mechanism, user, password string) SASL {
		return SASL{Mechanism: mechanism, Username: user, Password: password}
	}
	tlsOn := TLS{CAFile: b.CAFile()}
	withCert := tlsOn
	withCert.CertFile, withCert.KeyFile = b.ClientFiles()
	for _, k := range []struct {
		name, principal, address string
		tls                      TLS
		sasl                     SASL
	}{
		{"plain over TLS", "User:" + broker.User, b.SASLTLSAddr(1), tlsOn, sasl("plain", broker.User, broker.Password)},
		{"scram-sha-256", "User:bob", b.SASLAddr(1), TLS{}, sasl("scram-sha-256", "bob", "bob-secret")},
		{"scram-sha-256 over TLS", "User:bob", b.SASLTLSAddr(1), tlsOn, sasl("scram-sha-256", "bob", "bob-secret")},
		{"scram-sha-512 over TLS", "User:bob", b.SASLTLSAddr(1), tlsOn, sasl("scram-sha-512", "bob", "bob-secret")},
		{"client certificate", "User:CN=carol", b.TLSAddr(1), withCert, SASL{}},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := testConfig(b)
			b.Allow(t, k.principal, c.Prefix, broker.Rights)
			c.Bootstrap, c.TLS, c.SASL = []string{k.address}, k.tls, k.sasl
			ask, serve := dialConfig(t, c), dialConfig(t, c)
			t.Run("requests", func(t *testing.T) { secureRequests(t, ask, serve) })
			t.Run("topics", func(t *testing.T) { secureTopics(t, serve) })
			t.Run("lineage", func(t *testing.T) { secureLog(t, serve) })
			bs, err := serve.Brokers(within(t))
			must(t, err)
			if len(bs) != 1 || bs[0].Err != nil || bs[0].Calls != len(calls) || bs[0].Address != k.address {
				t.Errorf("%+v", bs)
			}
		})
	}
}

func secureRequests(t *testing.T, ask, serve *Client) {
	ctx := within(t)
	var src connectors.Source
	until(t, ctx, "the rights", func() (err error) { src, err = serve.Serve(ctx, "p", "primary"); return err }) // each broker learns of them in its time
	var wg sync.WaitGroup
	defer wg.Wait()
	defer src.Close(ctx)
	wg.Go(func() {
		for {
			ds, err := src.Receive(ctx, 64)
			if err != nil {
				return
			}
			for _, d := range ds {
				if err := serve.Respond(ctx, []connectors.Response{{To: d.ReplyTo, Payload: append([]byte("re: "), d.Payload...)}}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range 20 {
		m, err := ask.Request(ctx, &schemas.Message{Topic: "p", Payload: fmt.Appendf(nil, "%d", i)})
		must(t, err)
		if want := fmt.Sprintf("re: %d", i); string(m.Payload) != want {
			t.Fatalf("%q, want %q", m.Payload, want)
		}
	}
}

func secureTopics(t *testing.T, c *Client) {
	ctx := within(t)
	must(t, c.EnsureTopic(ctx, "in", 2))
	must(t, c.EnsureTopic(ctx, "out", 2))
	_, err := c.Publish(ctx, texts("in", 50))
	must(t, err)
	src, err := c.Subscribe(ctx, "in", "g")
	must(t, err)
	for n := 0; n < 50; {
		ds, err := src.Receive(ctx, 50)
		must(t, err)
		of := map[int32][]*connectors.Delivery{} // a transaction is of one partition
		for _, d := range ds {
			of[d.From.Partition] = append(of[d.From.Partition], d)
		}
		for _, part := range of {
			var out []schemas.Message
			for _, d := range part {
				out = append(out, schemas.Message{Topic: "out", Key: d.Key, Payload: d.Payload})
			}
			_, err := c.Transact(ctx, out, part)
			must(t, err)
		}
		n += len(ds)
	}
	must(t, src.Close(ctx))
	until(t, ctx, "the lag", func() error { // a transaction's end is answered before its offset is seen
		i, err := c.Topic(ctx, "in")
		if err == nil && (len(i.Groups) != 1 || i.Groups[0].Lag > 4) { // markers count
			err = fmt.Errorf("%+v", i)
		}
		return err
	})
	l, err := c.OpenLedger(ctx, "out", "w")
	must(t, err)
	must(t, l.Write(ctx, texts("out", 3), 3, "three"))
	if n, text := l.Progress(); n != 3 || text != "three" {
		t.Errorf("progress %d %s", n, text)
	}
	must(t, c.DropLedger(ctx, "out", "w"))
	must(t, c.DeleteGroup(ctx, "g"))
	s, err := c.Inspect(ctx, "out")
	must(t, err)
	if len(s.Fails)+len(s.Differs) != 0 {
		t.Errorf("%s: %q %q", s, s.Fails, s.Differs)
	}
	must(t, c.DeleteTopic(ctx, "in"))
	must(t, c.DeleteTopic(ctx, "out"))
}

func secureLog(t *testing.T, c *Client) {
	ctx := within(t)
	l, err := c.OpenLog(ctx, schemas.LogConfig{Name: "L", Prefix: own + "lineage", MaxBytes: 1 << 30})
	must(t, err)
	s, err := c.Inspect(ctx, own+"lineage")
	must(t, err)
	if len(s.Fails)+len(s.Differs) != 0 {
		t.Errorf("%s: %q %q", s, s.Fails, s.Differs)
	}
	seq, err := l.Append(ctx, own+"lineage.p", "", []byte("one"))
	must(t, err)
	_, err = l.Append(ctx, own+"lineage.q", "", []byte("two"))
	must(t, err)
	e, err := l.Last(ctx, own+"lineage.q")
	must(t, err)
	if string(e.Payload) != "two" {
		t.Errorf("%s", e.Payload)
	}
	must(t, l.Purge(ctx, seq+1))
	st, err := l.Stats(ctx)
	must(t, err)
	if st.Messages != 1 {
		t.Errorf("%+v", st)
	}
	// One that drops its oldest gets another size.
	for _, size := range []int64{1 << 20, 1 << 21} {
		_, err = c.OpenLog(ctx, schemas.LogConfig{Name: "R", Prefix: own + "rejected", MaxBytes: size, DiscardOld: true})
		must(t, err)
	}
}
