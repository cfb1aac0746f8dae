package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// user connects as anybody on this machine can: without credentials.
func user(t testing.TB, s *Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// inhabited is a server with something of everything internal, and the door open.
func inhabited(t testing.TB) (*Server, *Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	s := startServer(t, t.TempDir(), 0)
	c := dial(t, s)
	if err := c.OpenDoor(ctx); err != nil {
		t.Fatal(err)
	}
	for name, prefix := range map[string]string{"LEAT_LINEAGE": "leat.lineage", "LEAT_LINEAGE_JOBS": "leat.lineage-jobs", "LEAT_J_1": "leat.job.1"} {
		l, err := c.OpenLog(ctx, schemas.LogConfig{Name: name, Prefix: prefix, MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(ctx, "p", "", []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	kv, err := c.KV(ctx, "LEAT_CONTROL")
	if err == nil {
		_, err = kv.Put(ctx, "pipeline", []byte("secret"))
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Blobs(ctx, "LEAT_MODELS")
	if err == nil {
		err = b.Put(ctx, "model", strings.NewReader("secret"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureTopic(ctx, "flights", 4); err != nil {
		t.Fatal(err)
	}
	return s, c, ctx
}

// total counts the messages of all streams of LEAT.
func total(t testing.TB, ctx context.Context, c *Client) map[string]uint64 {
	t.Helper()
	n := map[string]uint64{}
	l := c.js.ListStreams(ctx)
	for i := range l.Info() {
		n[i.Config.Name] = i.State.Msgs
	}
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
	return n
}

func TestUserReachesNothingInternal(t *testing.T) {
	s, c, ctx := inhabited(t)
	nc := user(t, s)
	src, err := c.Subscribe(ctx, "flights", "primary")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close(ctx)
	before := total(t, ctx, c)

	var all []string
	for name := range before {
		all = append(all, name)
	}
	ask := func(subject, body string) {
		t.Helper()
		m, err := nc.Request(subject, []byte(body), 40*time.Millisecond)
		if err != nil {
			return // no responders, a permissions violation, or silence
		}
		var r struct {
			Error *jetstream.APIError `json:"error"`
		}
		if json.Unmarshal(m.Data, &r) != nil || r.Error == nil {
			t.Errorf("%s %s was answered: %v %s", subject, body, m.Header, m.Data)
		}
		if strings.Contains(string(m.Data), "secret") {
			t.Errorf("%s gave a secret away", subject)
		}
	}
	for _, stream := range all {
		if strings.HasPrefix(stream, streamTopic) {
			continue
		}
		ask("$JS.API.STREAM.INFO."+stream, "")
		ask("$JS.API.DIRECT.GET."+stream, `{"seq":1}`)
		ask("$JS.API.CONSUMER.CREATE."+stream+".app-x", `{"stream_name":"`+stream+`","config":{"name":"app-x"}}`)
		ask("$JS.API.CONSUMER.MSG.NEXT."+stream+".app-x", `{"batch":1}`)
	}
	for _, stream := range append(all, "LEAT_T_flights") {
		ask("$JS.API.STREAM.PURGE."+stream, "")
		ask("$JS.API.STREAM.DELETE."+stream, "")
		ask("$JS.API.STREAM.UPDATE."+stream, `{"name":"`+stream+`","subjects":["x"]}`)
		ask("$JS.API.STREAM.MSG.GET."+stream, `{"seq":1}`)
		ask("$JS.API.STREAM.MSG.DELETE."+stream, `{"seq":1}`)
		ask("$JS.API.STREAM.SNAPSHOT."+stream, `{"deliver_subject":"_INBOX.x"}`)
		ask("$JS.API.CONSUMER.LIST."+stream, "")
	}
	for _, x := range []string{"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ"} {
		ask(x, "")
	}
	ask("$JS.API.STREAM.CREATE.MINE", `{"name":"MINE","subjects":["mine"]}`)
	// A group of a pipeline cannot be seen, taken from, settled or removed.
	g := consumerName("primary", 0)
	ask("$JS.API.CONSUMER.INFO.LEAT_T_flights."+g, "")
	ask("$JS.API.CONSUMER.MSG.NEXT.LEAT_T_flights."+g, `{"batch":1,"no_wait":true}`)
	ask("$JS.API.CONSUMER.DELETE.LEAT_T_flights."+g, "")
	ask("$JS.API.CONSUMER.RESET.LEAT_T_flights."+g, `{"seq":100}`)
	ask("$JS.API.CONSUMER.CREATE.LEAT_T_flights."+g, `{"stream_name":"LEAT_T_flights","config":{"durable_name":"`+g+`"}}`)
	ask("$JS.ACK.LEAT_T_flights."+g+".1.1.1.1.1", "+ACK")
	// Nor can a pull request be made to bring a message to where it would be an acknowledgement.
	if js, err := jetstream.New(nc); err != nil {
		t.Fatal(err)
	} else if _, err := js.CreateConsumer(ctx, "LEAT_T_flights", jetstream.ConsumerConfig{Name: "app-probe"}); err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.LEAT_T_flights.app-probe", "$JS.ACK.LEAT_T_flights."+g+".1.1.1.1.0", []byte(`{"batch":10,"expires":60000000000}`)); err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.LEAT_T_flights.app-probe", "leat.lineage.p", []byte(`{"batch":10,"expires":60000000000}`)); err != nil {
		t.Fatal(err)
	}
	// A consumer that pushes would write wherever it is told to.
	ask("$JS.API.CONSUMER.CREATE.LEAT_T_flights.app-x", `{"stream_name":"LEAT_T_flights","config":{"name":"app-x","deliver_subject":"leat.lineage.p"}}`)
	ask("$JS.API.CONSUMER.CREATE.LEAT_T_flights.app-x", `{"stream_name":"LEAT_LINEAGE","config":{"name":"app-x"}}`)

	// Publishing to internal subjects, directly or by a header that the server acts on, stores nothing.
	for _, x := range []string{"leat.lineage.p", "leat.job.1.0", "leat.dead.flights", "leat.queue.q", "leat.fan.p", "$KV.LEAT_CONTROL.pipeline", "$O.LEAT_MODELS.M.x"} {
		nc.Publish(x, []byte("forged"))
		ask(x, "forged")
	}
	trace := nats.NewMsg("leat.topic.flights")
	trace.Header.Set("Nats-Trace-Dest", "leat.lineage.p")
	if _, err := nc.RequestMsg(trace, 40*time.Millisecond); err == nil {
		t.Error("a message that asks to be traced into LEAT was stored")
	}
	trace = nats.NewMsg("leat.topic.flights")
	trace.Header.Set("Nats-Rollup", "all")
	trace.Header.Set("Leat-Principal", "root")
	trace.Header.Set("X-Mine", "1")
	if _, err := nc.RequestMsg(trace, time.Second); err != nil {
		t.Fatal(err)
	}
	ds, err := src.Receive(ctx, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(ds) != 1 || ds[0].Header.Get("Leat-Principal") != "" || ds[0].Header.Get("Nats-Rollup") != "" || ds[0].Header.Get("X-Mine") != "1" {
		t.Errorf("stored headers %v", ds[0].Header)
	}
	if err := ds[0].Settler.Accept(ctx, ds); err != nil {
		t.Fatal(err)
	}

	// Listening: nothing of what happens inside is heard, and nobody can stand in for a pipeline.
	heard := make(chan *nats.Msg, 100)
	for _, x := range []string{">", "leat.>", "leat.score.fraud", "leat.fan.>", "$SRV.>", "$JS.EVENT.ADVISORY.>", "$JS.>", "$KV.>", "$SYS.>", "_R_.>"} {
		if _, err := nc.ChanSubscribe(x, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Request(ctx, &schemas.Message{Topic: "fraud"}); schemas.KindOf(err) != schemas.NotFound {
		t.Errorf("a user answers in a pipeline's name: %v", err)
	}
	if _, err := user(t, s).Request("leat.score.fraud", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a user hears another's request: %v", err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(heard) > 0 {
		t.Errorf("heard %v", (<-heard).Subject)
	}

	after := total(t, ctx, c)
	before["LEAT_T_flights"]++ // the one publish that is allowed
	delete(before, "KV_"+bucketGroups)
	for name, n := range before {
		if after[name] != n {
			t.Errorf("stream %s had %d messages, now %d", name, n, after[name])
		}
	}
	if _, ok := after["MINE"]; ok {
		t.Error("a user made a stream")
	}
}

func TestDoorStoresAndReadsTopics(t *testing.T) {
	s, c, ctx := inhabited(t)
	nc := user(t, s)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	// Order per key, and the same partition as our own publisher chooses.
	const n = 300
	for i := range n {
		m := nats.NewMsg("leat.topic.flights")
		m.Header.Set(schemas.HeaderKey, fmt.Sprintf("k%d", i%5))
		m.Header.Set(jetstream.MsgIDHeader, fmt.Sprint(i))
		m.Data = fmt.Append(nil, i)
		if _, err := js.PublishMsgAsync(m); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		t.Fatal("publishes were not acknowledged")
	}
	pos, err := c.Publish(ctx, []schemas.Message{{Topic: "flights", Key: "k0", Payload: []byte("ours")}})
	if err != nil {
		t.Fatal(err)
	}
	ack, err := js.Publish(ctx, fmt.Sprintf("leat.topic.flights.%d", pos[0].Partition), []byte("exact"))
	if err != nil || ack.Sequence != pos[0].Sequence+1 {
		t.Fatalf("%+v, %v", ack, err)
	}
	for subject, want := range map[string]string{"leat.topic.none": "no topic", "leat.topic.flights.9": "partitions", "leat.topic.flights.01": "partition"} {
		if _, err := js.Publish(ctx, subject, nil, jetstream.WithRetryAttempts(0)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", subject, err, want)
		}
	}
	if _, err := js.Publish(ctx, "leat.topic.flights", make([]byte, 1<<20-100)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("oversize: %v", err)
	}
	// A durable consumer of the user's own, as the library makes it.
	cons, err := js.CreateOrUpdateConsumer(ctx, "LEAT_T_flights", jetstream.ConsumerConfig{Durable: "app-mine", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]int{}
	got := 0
	for got < n+2 {
		b, err := cons.Fetch(100, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range b.Messages() {
			k := m.Headers().Get(schemas.HeaderKey)
			var i int
			if _, err := fmt.Sscan(string(m.Data()), &i); err == nil {
				if p, ok := last[k]; ok && i != p+5 {
					t.Fatalf("key %s: %d after %d", k, i, p)
				}
				last[k] = i
			}
			if err := m.DoubleAck(ctx); err != nil {
				t.Fatal(err)
			}
			got++
		}
		if err := b.Error(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := cons.Info(ctx)
	if err != nil || info.NumPending != 0 || info.NumAckPending != 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	st, err := js.Stream(ctx, "LEAT_T_flights")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := st.GetMsg(ctx, 1); err != nil || string(m.Data) != "0" {
		t.Fatal(m, err)
	}
}

func TestAuthentication(t *testing.T) {
	c := DefaultServer()
	c.Dir, c.Port, c.Sync, c.Token, c.StoreLimit = t.TempDir(), 0, false, "let-me-in", 1<<30
	s, err := NewServer(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, o := range map[string][]nats.Option{
		"nothing":        nil,
		"wrong token":    {nats.Token("no")},
		"wrong password": {nats.UserInfo(s.creds.Leat.User, "no")},
		"name only":      {nats.UserInfo(s.creds.Front.User, "")},
	} {
		if nc, err := nats.Connect(s.URL(), o...); err == nil {
			nc.Close()
			t.Errorf("%s: let in", name)
		}
	}
	nc, err := nats.Connect(s.URL(), nats.Token("let-me-in"))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	dial(t, s)

	for field, bad := range map[string]func(c *ServerConfig){
		"nats.host": func(c *ServerConfig) { c.Host, c.Token = "0.0.0.0", "x" },
		"data":      func(c *ServerConfig) { c.Dir = "" },
		"nats.port": func(c *ServerConfig) { c.Port = 70000 },
	} {
		c := DefaultServer()
		c.Dir = t.TempDir()
		bad(&c)
		var e *schemas.Error
		if _, err := NewServer(c, nil); !errors.As(err, &e) || e.Field != field || e.Kind != schemas.Invalid {
			t.Errorf("%s: %v", field, err)
		}
	}
}
