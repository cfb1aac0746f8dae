package nats

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

func startServer(t testing.TB, dir string, port int) *Server {
	t.Helper()
	c := DefaultServer()
	c.Dir, c.Port, c.Sync, c.StoreLimit = dir, port, false, 64<<30
	s, err := NewServer(c, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready in %v at %s", time.Since(start), s.URL())
	t.Cleanup(s.Close)
	return s
}

func dial(t testing.TB, s *Server) *Client {
	t.Helper()
	c := Default()
	c.Server = s
	cl, err := Dial(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestSmoke(t *testing.T) {
	s := startServer(t, t.TempDir(), 0)
	c := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	if _, err := c.Request(ctx, &schemas.Message{Topic: "none"}); schemas.KindOf(err) != schemas.NotFound {
		t.Fatalf("no responders: %v", err)
	}
	src, err := c.Serve(ctx, "echo", "primary")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			ds, err := src.Receive(ctx, 64)
			if err != nil {
				return
			}
			var rs []connectors.Response
			for _, d := range ds {
				rs = append(rs, connectors.Response{To: d.ReplyTo, Header: schemas.Header{"X": {d.Header.Get("Leat-Principal")}}, Payload: d.Payload})
			}
			c.Respond(ctx, rs)
		}
	}()
	r, err := c.Request(ctx, &schemas.Message{Topic: "echo", Payload: []byte("hi"), Header: schemas.Header{"Leat-Principal": {"me"}}})
	if err != nil || string(r.Payload) != "hi" || r.Header.Get("X") != "me" {
		t.Fatal(r, err)
	}
	app, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	m, err := app.RequestMsg(&nats.Msg{Subject: "leat.score.echo", Data: []byte("x"), Header: nats.Header{"Leat-Principal": {"forged"}}}, time.Second)
	if err != nil || string(m.Data) != "x" || m.Header.Get("X") != "" {
		t.Fatal(m, err)
	}
	if _, err := app.Request("leat.score.nope", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatal(err)
	}
	if err := c.Register(ctx, Service{Name: "echo", Version: "1.0.0"}); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"PING", "INFO", "STATS.leat-echo"} {
		m, err := app.Request("$SRV."+v, nil, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(string(m.Data))
	}
	if err := src.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Receive(ctx, 1); !errors.Is(err, schemas.ErrDrained) {
		t.Fatal(err)
	}
	kv, err := c.KV(ctx, "LEAT_X")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, "a@b c", []byte("v")); err != nil {
		t.Fatal(err)
	}
	ks, err := kv.Keys(ctx, "a@")
	t.Log(ks, err)
	b, err := c.Blobs(ctx, "LEAT_B")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(ctx, "m", strings.NewReader(strings.Repeat("x", 3<<20))); err != nil {
		t.Fatal(err)
	}
	rd, err := b.Get(ctx, "m")
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(rd)
	t.Log(len(all), err)
	l, err := c.OpenLog(ctx, schemas.LogConfig{Name: "LEAT_LINEAGE", Prefix: "leat.lineage", MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := l.Append(ctx, "p", "", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	if err := l.Read(ctx, 3, nil, false, func(e *schemas.Entry) bool { n++; return true }); err != nil || n != 8 {
		t.Fatal(n, err)
	}
	at, err := l.SequenceAt(ctx, time.Now().Add(-time.Hour))
	t.Log(at, err)
	at, err = l.SequenceAt(ctx, time.Now().Add(time.Hour))
	t.Log(at, err)
	if err := c.EnsureTopic(ctx, "a.b", 0); err != nil {
		t.Fatal(err)
	}
	pos, err := c.Publish(ctx, []schemas.Message{{Topic: "a.b", Key: "k", Payload: []byte("1")}, {Topic: "a.b", Key: "k", Payload: []byte("2")}})
	t.Log(pos, err)
	ti, err := c.ListTopics(ctx)
	t.Log(ti, err)
}
