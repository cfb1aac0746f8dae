package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// mirror is what a follower knows of a bucket.
type mirror struct {
	mu      sync.Mutex
	values  map[string]string
	whole   int // times that all was called
	first   uint64
	changed chan struct{}
}

func follow(t *testing.T, c *Client, bucket string) (*mirror, <-chan error) {
	t.Helper()
	m := &mirror{values: map[string]string{}, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	wake := func() {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
	go func() {
		var err error
		for ctx.Err() == nil && (err == nil || schemas.KindOf(err) != schemas.NotFound) { // as a table does
			if err != nil {
				_ = sleep(ctx, 50*time.Millisecond)
			}
			err = c.FollowBucket(ctx, bucket, func(x *schemas.Change) {
				m.mu.Lock()
				defer m.mu.Unlock()
				if m.values[x.Key] = fmt.Sprintf("%d %s", x.Version, x.Value); x.Deleted {
					delete(m.values, x.Key)
				}
				if x.Version == 0 || time.Since(x.Time) > time.Minute {
					t.Error(x)
				}
				wake()
			}, func(first uint64) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.whole, m.first = m.whole+1, first
				wake()
			})
		}
		done <- err
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		for range done {
		}
	})
	return m, done
}

// until waits for the mirror to be as wanted.
func (m *mirror) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		m.mu.Lock()
		good := ok()
		m.mu.Unlock()
		if good {
			return
		}
		select {
		case <-m.changed:
		case <-end:
			m.mu.Lock()
			defer m.mu.Unlock()
			t.Fatalf("%s: never; %v, whole %d times, first %d", what, m.values, m.whole, m.first)
		}
	}
}

// TestFollowBucket: what is there comes first, then that it is all, then what users set over the APP port.
func TestFollowBucket(t *testing.T) {
	s, c, ctx := inhabited(t)
	if err := c.FollowBucket(ctx, "nothing", nil, nil); schemas.KindOf(err) != schemas.NotFound || !strings.Contains(err.Error(), "leat features create nothing") {
		t.Fatal(err)
	}
	if err := c.FollowBucket(ctx, "LEAT_CONTROL", nil, nil); schemas.KindOf(err) != schemas.Invalid {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.CreateBucket(ctx, "aircraft"); err != nil {
			t.Fatal(err)
		}
	}
	kv, err := c.Bucket(ctx, "aircraft")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"N1", "N2", "a@b c", "gone"} {
		if _, err := kv.Put(ctx, k, []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := kv.Delete(ctx, "gone", 0); err != nil {
		t.Fatal(err)
	}
	m, done := follow(t, c, "aircraft")
	m.until(t, "all that was there", func() bool { return m.whole > 0 })
	m.mu.Lock()
	if len(m.values) != 3 || m.values["a@b c"] != "3 v" {
		t.Error(m.values)
	}
	m.mu.Unlock()

	nc := user(t, s)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := js.KeyValue(ctx, "aircraft")
	if err != nil {
		t.Fatal(err)
	}
	rev, err := mine.PutString(ctx, "N1", `{"seats":180}`)
	if err != nil || rev != 6 {
		t.Fatal(rev, err)
	}
	m.until(t, "a user's put", func() bool { return m.values["N1"] == `6 {"seats":180}` })
	if e, err := mine.Get(ctx, "N1"); err != nil || string(e.Value()) != `{"seats":180}` {
		t.Fatal(e, err)
	}
	if _, err := mine.Create(ctx, "N1", nil); !errors.Is(err, jetstream.ErrKeyExists) {
		t.Fatal(err)
	}
	if _, err := mine.Update(ctx, "N1", []byte("2"), 1); apiCode(err) != codeWrongLastSequence {
		t.Fatal(err)
	}
	if err := mine.Delete(ctx, "N2"); err != nil {
		t.Fatal(err)
	}
	if err := mine.Purge(ctx, "N1"); err != nil {
		t.Fatal(err)
	}
	m.until(t, "a user's deletions", func() bool { return len(m.values) == 1 })
	m.until(t, "the first version that is left", func() bool { return m.first == 3 })
	// The old client's.
	old, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	okv, err := old.KeyValue("aircraft")
	if err == nil {
		_, err = okv.Put("N3", []byte("old"))
	}
	if err != nil {
		t.Fatal(err)
	}
	m.until(t, "the old client's put", func() bool { return strings.HasSuffix(m.values["N3"], "old") })
	l, err := c.ListBuckets(ctx)
	if err != nil || len(l) != 1 || l[0].Name != "aircraft" || l[0].Values == 0 {
		t.Fatal(l, err)
	}
	if err := c.DeleteBucket(ctx, "aircraft"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
	if err := c.DeleteBucket(ctx, "aircraft"); schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
}

// TestUserBucketsOnly: a user puts into buckets of features, and into nothing else.
func TestUserBucketsOnly(t *testing.T) {
	s, c, ctx := inhabited(t)
	if err := c.CreateBucket(ctx, "aircraft"); err != nil {
		t.Fatal(err)
	}
	kv, err := c.Bucket(ctx, "aircraft")
	if err == nil {
		_, err = kv.Put(ctx, "a", []byte("1"))
	}
	if err == nil {
		_, err = kv.Put(ctx, "b", []byte("1"))
	}
	if err != nil {
		t.Fatal(err)
	}
	before := total(t, ctx, c)
	nc := user(t, s)
	for _, subject := range []string{"$KV.LEAT_CONTROL.pipeline", "$KV.LEAT_X.a", "$KV.aircraft", "$KV.nothing.a", "$KV.air craft.a"} {
		m, err := nc.Request(subject, []byte("forged"), time.Second)
		if err == nil && !strings.Contains(string(m.Data), `"error"`) {
			t.Errorf("%s: %s", subject, m.Data)
		}
	}
	for _, subject := range []string{"$JS.API.STREAM.INFO.KV_LEAT_CONTROL", "$JS.API.DIRECT.GET.KV_LEAT_CONTROL.$KV.LEAT_CONTROL.pipeline", "$JS.API.STREAM.PURGE.KV_aircraft", "$JS.API.STREAM.DELETE.KV_aircraft", "$JS.API.CONSUMER.CREATE.KV_aircraft.app-x"} {
		if m, err := nc.Request(subject, []byte(`{"stream_name":"KV_aircraft","config":{"name":"app-x"}}`), 200*time.Millisecond); err == nil && (!strings.Contains(string(m.Data), `"error"`) || strings.Contains(string(m.Data), "secret")) {
			t.Errorf("%s: %s", subject, m.Data)
		}
	}
	// A roll-up of all would purge the bucket.
	if _, err := nc.RequestMsg(&nats.Msg{Subject: "$KV.aircraft.a", Data: []byte("2"), Header: nats.Header{"Nats-Rollup": {"all"}, "Nats-Trace-Dest": {"$KV.LEAT_CONTROL.x"}}}, time.Second); err != nil {
		t.Fatal(err)
	}
	after := total(t, ctx, c)
	if !slices.Equal([]uint64{after["KV_LEAT_CONTROL"], after["KV_aircraft"]}, []uint64{before["KV_LEAT_CONTROL"], 2}) {
		t.Errorf("before %v, after %v", before, after)
	}
}

// TestFollowCutOff: a server that goes away and comes back is followed on; what was missed comes.
func TestFollowCutOff(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, 0)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL(), "nats://"), ":")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	cfg := Default()
	leat, front := s.Credentials()
	cfg.URL, cfg.Credentials, cfg.FrontURL, cfg.Front, cfg.CallTimeout = s.URL(), leat, s.URL(), front, time.Second
	c, err := Dial(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.CreateBucket(ctx, "aircraft"); err != nil {
		t.Fatal(err)
	}
	kv, err := c.Bucket(ctx, "aircraft")
	if err == nil {
		_, err = kv.Put(ctx, "a", []byte("1"))
	}
	if err != nil {
		t.Fatal(err)
	}
	m, _ := follow(t, c, "aircraft")
	m.until(t, "all that was there", func() bool { return m.whole > 0 })
	s.Close()
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	s2 := startServer(t, dir, n)
	c2 := dial(t, s2)
	kv2, err := c2.Bucket(ctx, "aircraft")
	if err == nil {
		_, err = kv2.Put(ctx, "a", []byte("2"))
	}
	if err != nil {
		t.Fatal(err)
	}
	m.until(t, "what was set after the restart", func() bool { return strings.HasSuffix(m.values["a"], " 2") })
	m.mu.Lock()
	whole := m.whole
	m.mu.Unlock()
	m.until(t, "all of it again", func() bool { return m.whole > whole })
}
