package kafka

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/schemas"
)

func wantKind(t testing.TB, err error, k schemas.Kind, words ...string) {
	t.Helper()
	if err == nil || schemas.KindOf(err) != k {
		t.Fatalf("error %v of kind %v, want %v", err, schemas.KindOf(err), k)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("%q is more than one line", err)
	}
}

func texts(topic string, n int) []schemas.Message {
	out := make([]schemas.Message, n)
	for i := range out {
		out[i] = schemas.Message{Topic: topic, Key: fmt.Sprintf("key-%d", i%7), Payload: fmt.Appendf(nil, "%d", i)}
	}
	return out
}

// TestEnsure: a topic is made as stated, or the difference is said.
func TestEnsure(t *testing.T) {
	ctx := within(t)
	c := open(t)
	spec := TopicSpec{Partitions: 2, Replication: 1, MinInSync: 1, Retention: time.Hour, Settings: map[string]string{"cleanup.policy": "compact"}}
	must(t, c.ensure(ctx, "test", "a.b", spec))
	must(t, c.ensure(ctx, "test", "a.b", spec))
	must(t, c.ensure(ctx, "test", "a.b", TopicSpec{}))
	must(t, c.EnsureTopic(ctx, "a.b", 0))
	must(t, c.EnsureTopic(ctx, "a.b", 2))
	wantKind(t, c.EnsureTopic(ctx, "a.b", 3), schemas.Invalid, "topic a.b", "partitions 2 there and 3 wanted")
	other := TopicSpec{Partitions: 4, Replication: 2, MinInSync: 2, Retention: -1, Settings: map[string]string{"cleanup.policy": "delete"}}
	wantKind(t, c.ensure(ctx, "test", "a.b", other), schemas.Invalid, "partitions 2 there and 4 wanted", "replication 1 there and 2 wanted",
		"min.insync.replicas 1 there and 2 wanted", "retention.ms 3600000 there and -1 wanted", "cleanup.policy compact there and delete wanted")

	wantKind(t, c.EnsureTopic(ctx, "a b", 1), schemas.Invalid, "a b")
	wantKind(t, c.EnsureTopic(ctx, "..", 1), schemas.Invalid)
	wantKind(t, c.EnsureTopic(ctx, strings.Repeat("a", 249), 1), schemas.Invalid)
	wantKind(t, c.EnsureTopic(ctx, "a", 300), schemas.Invalid, "1 to 256")
	wantKind(t, c.ensure(ctx, "test", "ten", TopicSpec{Replication: 10}), schemas.Invalid, "topic ten")
	wantKind(t, c.ensure(ctx, "test", "odd", TopicSpec{Settings: map[string]string{"no.such": "1"}}), schemas.Invalid, "no.such")
	// A name that others gave is taken if it exists; none is made.
	wantKind(t, c.EnsureTopic(ctx, "Foreign_Topic", 0), schemas.Invalid, "Foreign_Topic")
	_, err := c.createOnce(ctx, c.name("Foreign_Topic"), TopicSpec{Partitions: 1})
	must(t, err)
	must(t, c.settle(ctx, "test", c.name("Foreign_Topic")))
	must(t, c.EnsureTopic(ctx, "Foreign_Topic", 0))
	if _, err := c.Publish(ctx, texts("Foreign_Topic", 3)); err != nil {
		t.Fatal(err)
	}
}

// TestNewTopicAtOnce: what was just made can be written and read by others at once, again and again.
func TestNewTopicAtOnce(t *testing.T) {
	ctx := within(t)
	c := open(t)
	other := dialConfig(t, c.cfg)
	for i := range 10 {
		name := fmt.Sprintf("t%d", i)
		must(t, c.EnsureTopic(ctx, name, 5))
		if _, err := other.Publish(ctx, texts(name, 20)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTopicInfo(t *testing.T) {
	ctx := within(t)
	c := open(t)
	before := time.Now().Add(-time.Millisecond)
	must(t, c.EnsureTopic(ctx, "b", 3))
	must(t, c.EnsureTopic(ctx, "a", 0))
	must(t, c.ensure(ctx, "test", own+"lineage", TopicSpec{Partitions: 1}))
	i, err := c.Topic(ctx, "b")
	must(t, err)
	if i.Partitions != 3 || i.Messages != 0 || !i.First.IsZero() || !i.Last.IsZero() || len(i.Groups) != 0 {
		t.Fatalf("%+v", i)
	}
	_, err = c.Publish(ctx, texts("b", 100))
	must(t, err)
	last := time.Now().Add(time.Millisecond)
	commit := &kafka.OffsetCommitRequest{GroupID: c.name("g"), GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{}}
	ends, err := c.endOffsets(ctx, "test", "b")
	must(t, err)
	commit.Topics[c.name("b")] = []kafka.OffsetCommit{{Partition: 1, Offset: ends[1] - 1}}
	until(t, ctx, "the group's coordinator", func() error {
		r, err := c.kafka.OffsetCommit(ctx, commit)
		if err == nil {
			err = r.Topics[c.name("b")][0].Error
		}
		return err
	})
	i, err = c.Topic(ctx, "b")
	must(t, err)
	lag := uint64(100 - (ends[1] - 1))
	if i.Messages != 100 || i.First.Before(before) || i.Last.After(last) || i.Last.Before(i.First) || i.Bytes < 100 ||
		len(i.Groups) != 1 || i.Groups[0].Name != "g" || i.Groups[0].Lag != lag {
		t.Fatalf("%+v", i)
	}
	l, err := c.ListTopics(ctx)
	must(t, err)
	if len(l) != 2 || l[0].Name != "a" || l[0].Partitions != c.cfg.Partitions || l[1].Name != "b" || l[1].Messages != 100 || len(l[1].Groups) != 1 {
		t.Fatalf("%+v", l)
	}
	_, err = c.Topic(ctx, "none")
	wantKind(t, err, schemas.NotFound, "none")
	_, err = c.Publish(ctx, texts("none", 1))
	wantKind(t, err, schemas.NotFound, "none")
	if strings.Contains(err.Error(), c.cfg.Prefix) {
		t.Errorf("%q shows the prefix", err)
	}
}

// TestDelete: a deleted topic is gone for everybody, and one of its name begins anew.
func TestDelete(t *testing.T) {
	ctx := within(t)
	c := open(t)
	other := dialConfig(t, c.cfg)
	wantKind(t, c.DeleteTopic(ctx, "t"), schemas.NotFound)
	for range 3 {
		must(t, c.EnsureTopic(ctx, "t", 1))
		pos, err := other.Publish(ctx, texts("t", 10))
		must(t, err)
		if pos[0].Sequence != 1 || pos[9].Sequence != 10 {
			t.Fatalf("%v", pos)
		}
		must(t, c.DeleteTopic(ctx, "t"))
		_, err = c.Topic(ctx, "t")
		wantKind(t, err, schemas.NotFound)
		_, err = other.Publish(ctx, texts("t", 1)) // it has yet to hear of it
		wantKind(t, err, schemas.NotFound)
	}
}

// TestDeleteGroup: a group's place is gone with it, and one that still has a member is waited for.
func TestDeleteGroup(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.EnsureTopic(ctx, "t", 1))
	_, err := c.Publish(ctx, texts("t", 10))
	must(t, err)
	src, err := c.Subscribe(ctx, "t", "g")
	must(t, err)
	ds, err := src.Receive(ctx, 4)
	must(t, err)
	must(t, ds[0].Settler.Accept(ctx, ds))
	done := make(chan error, 1)
	go func() { done <- c.DeleteGroup(ctx, "g") }()
	must(t, src.Close(ctx))
	must(t, <-done)
	must(t, c.DeleteGroup(ctx, "g"))
	must(t, c.DeleteGroup(ctx, "none"))
	i, err := c.Topic(ctx, "t")
	must(t, err)
	if len(i.Groups) != 0 {
		t.Fatalf("%+v", i)
	}
}

// TestTooLarge: a batch that the topic does not take is sent in parts; a record that it does not take is refused alone.
func TestTooLarge(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.ensure(ctx, "test", "small", TopicSpec{Partitions: 1, Settings: map[string]string{"max.message.bytes": "2000"}}))
	var msgs []schemas.Message
	for range 50 {
		msgs = append(msgs, schemas.Message{Topic: "small", Key: "k", Payload: make([]byte, 300)})
	}
	pos, err := c.Publish(ctx, msgs)
	must(t, err)
	for i, p := range pos {
		if p.Sequence != uint64(i)+1 {
			t.Fatalf("message %d at %v", i, p)
		}
	}
	msgs[20].Payload = make([]byte, 3000)
	_, err = c.Publish(ctx, msgs)
	wantKind(t, err, schemas.Invalid, "message of 307", "topic small takes at most 2000")
	i, err := c.Topic(ctx, "small")
	must(t, err)
	if i.Messages != 99 {
		t.Fatalf("%d messages, want 50 and 49", i.Messages)
	}
	must(t, c.EnsureTopic(ctx, "usual", 1))
	big := []schemas.Message{{Topic: "usual", Payload: make([]byte, 1_048_588-batchOverhead-20)}}
	_, err = c.Publish(ctx, big)
	must(t, err)
	big[0].Payload = make([]byte, 10<<20)
	_, err = c.Publish(ctx, big)
	wantKind(t, err, schemas.Invalid, "message of 1048", "topic usual takes at most 1048588")
	// A topic that takes more takes it here too.
	must(t, c.ensure(ctx, "test", "large", TopicSpec{Partitions: 1, Settings: map[string]string{"max.message.bytes": "12000000"}}))
	big[0].Topic = "large"
	_, err = c.Publish(ctx, big)
	must(t, err)
	if r := drain(t, ctx, c.newFetcher("large", 0, fromFirst), 1); len(r[0].value) != 10<<20 {
		t.Fatalf("%d bytes came back", len(r[0].value))
	}
}

// TestRefusedRecord: a compacted topic takes no record without a key; the others of the call are stored.
func TestRefusedRecord(t *testing.T) {
	ctx := within(t)
	c := open(t)
	must(t, c.ensure(ctx, "test", "t", TopicSpec{Partitions: 1, Settings: map[string]string{"cleanup.policy": "compact"}}))
	msgs := texts("t", 10)
	msgs[3].Key = ""
	_, err := c.Publish(ctx, msgs)
	wantKind(t, err, schemas.Invalid, "topic t")
	i, err := c.Topic(ctx, "t")
	must(t, err)
	if i.Messages != 9 {
		t.Fatalf("%d messages, want 9", i.Messages)
	}
}

// until polls, for what a broker does in its own time.
func until(t testing.TB, ctx context.Context, what string, ok func() error) {
	t.Helper()
	for {
		err := ok()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("gave up waiting for %s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
