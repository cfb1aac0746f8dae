package kafka

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// replica is what a follower knows of a topic.
type replica struct {
	mu      sync.Mutex
	values  map[string]string
	version map[string]uint64
	whole   int // times that all was called
	changed chan struct{}
}

// followed follows a topic until the test ends, or the topic does.
func followed(t *testing.T, c *Client, topic string) (*replica, <-chan error) {
	t.Helper()
	m := &replica{values: map[string]string{}, version: map[string]uint64{}, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	wake := func() {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
	go func() {
		done <- c.FollowTopic(ctx, topic, func(x *schemas.Change) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if x.Version <= m.version[x.Key] || time.Since(x.Time) > time.Minute {
				t.Errorf("%+v after version %d", x, m.version[x.Key])
			}
			m.values[x.Key], m.version[x.Key] = string(x.Value), x.Version
			if x.Deleted {
				delete(m.values, x.Key)
			}
			wake()
		}, func(first uint64) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.whole++; first != 0 {
				t.Error(first)
			}
			wake()
		})
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		for range done {
		}
	})
	return m, done
}

// until waits for it to be as wanted.
func (m *replica) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(testLimit)
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
			t.Fatalf("%s: never; %v, whole %d times", what, m.values, m.whole)
		}
	}
}

// set stores the value of a key; "" is a tombstone.
func set(t *testing.T, c *Client, topic string, partitions int, keysAndValues ...string) {
	t.Helper()
	var recs []record
	for i := 0; i < len(keysAndValues); i += 2 {
		r := record{topic: c.name(topic), partition: int32(keysAndValues[i][0]) % int32(partitions), key: []byte(keysAndValues[i])}
		if v := keysAndValues[i+1]; v != "" {
			r.value = []byte(v)
		}
		recs = append(recs, r)
	}
	_, err := c.produce(within(t), recs)
	must(t, err)
}

func compactTopic(t *testing.T, c *Client, name string, partitions int) {
	t.Helper()
	must(t, c.ensure(within(t), "test", name, TopicSpec{Partitions: partitions, Settings: map[string]string{"cleanup.policy": "compact"}}))
}

// TestFollowTopic: the newest value of each key comes before it is said to be all, then each change; a null deletes.
func TestFollowTopic(t *testing.T) {
	ctx := within(t)
	c := open(t)
	wantKind(t, c.FollowTopic(ctx, "none", nil, nil), schemas.NotFound)
	must(t, c.EnsureTopic(ctx, "events", 1))
	err := c.FollowTopic(ctx, "events", nil, nil)
	if wantKind(t, err, schemas.Invalid); !strings.Contains(err.Error(), "topic events has cleanup.policy=delete, so its oldest values go away: set cleanup.policy=compact") {
		t.Error(err)
	}
	compactTopic(t, c, "empty", 2)
	e, _ := followed(t, c, "empty")
	e.until(t, "an empty topic is all there is", func() bool { return e.whole > 0 })

	compactTopic(t, c, "aircraft", 3)
	want := map[string]string{}
	var all []string
	for i := range 500 {
		k, v := fmt.Sprint(string(rune('a'+i%7)), i%50), fmt.Sprintf(`{"n":%d}`, i)
		if i%11 == 0 {
			v = ""
			delete(want, k)
		} else {
			want[k] = v
		}
		all = append(all, k, v)
	}
	set(t, c, "aircraft", 3, all...)
	m, done := followed(t, c, "aircraft")
	m.until(t, "all that was there", func() bool { return m.whole > 0 })
	m.mu.Lock()
	if !maps.Equal(m.values, want) {
		t.Errorf("%d values, want %d", len(m.values), len(want))
	}
	m.mu.Unlock()
	set(t, c, "aircraft", 3, "a0", "new", "b1", "")
	m.until(t, "changes", func() bool { _, there := m.values["b1"]; return m.values["a0"] == "new" && !there })
	m.mu.Lock()
	whole := m.whole
	m.mu.Unlock()
	m.until(t, "that it is all, again", func() bool { return m.whole > whole })
	must(t, c.DeleteTopic(ctx, "aircraft"))
	if err := <-done; schemas.KindOf(err) != schemas.NotFound && schemas.KindOf(err) != schemas.Unavailable {
		t.Fatal(err)
	}
}

// TestFollowTopicCutOff: a broker that goes away and comes back is followed on.
func TestFollowTopicCutOff(t *testing.T) {
	b := broker.Start(t, 1, broker.Heap("320m"))
	c := dialConfig(t, testConfig(b))
	compactTopic(t, c, "aircraft", 2)
	set(t, c, "aircraft", 2, "a", "1", "b", "1")
	m, _ := followed(t, c, "aircraft")
	m.until(t, "all that was there", func() bool { return m.whole > 0 && len(m.values) == 2 })
	b.Kill(t, 1)
	b.Up(t, 1)
	set(t, c, "aircraft", 2, "a", "2", "b", "")
	m.until(t, "what was set after the restart", func() bool { return m.values["a"] == "2" && len(m.values) == 1 })
	m.mu.Lock()
	whole := m.whole
	m.mu.Unlock()
	m.until(t, "that it is all, again", func() bool { return m.whole > whole })
}
