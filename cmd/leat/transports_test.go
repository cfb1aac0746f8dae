package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/memory"
	"github.com/leatstream/leat/schemas"
)

// lasting is a broker in memory, whose topics nobody deletes.
type lasting struct{ *memory.Broker }

func (lasting) DeleteTopic(context.Context, string) error { return schemas.ErrUnsupported }

// TestTransports: a reference reaches its transport under its plain name, and comes back as it was written.
func TestTransports(t *testing.T) {
	ctx := t.Context()
	brokers := map[string]connectors.Transport{}
	for _, name := range []string{schemas.TransportNATS, schemas.TransportKafka} {
		b, err := memory.New(memory.Default())
		if err != nil {
			t.Fatal(err)
		}
		brokers[name] = lasting{b}
	}
	tr := &transports{usual: schemas.TransportNATS, by: brokers}
	for _, ref := range []string{"a", "kafka:a", "nats:b"} {
		if err := tr.EnsureTopic(ctx, ref, 2); err != nil {
			t.Fatal(err)
		}
	}
	at, err := tr.Publish(ctx, []schemas.Message{{Topic: "a", Payload: []byte("1")}, {Topic: "nats:b", Payload: []byte("2")}, {Topic: "kafka:a", Payload: []byte("3")}})
	if err != nil || len(at) != 3 {
		t.Fatalf("%v, %v", at, err)
	}
	for ref, want := range map[string]string{"a": "1", "b": "2", "nats:a": "1", "kafka:a": "3"} {
		spans, err := tr.Spans(ctx, ref, connectors.Start{})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, sp := range spans {
			if sp.Topic != ref {
				t.Errorf("a span of %s is called %s", ref, sp.Topic)
			}
			src, err := tr.Open(ctx, sp)
			if err != nil {
				t.Fatal(err)
			}
			for {
				ds, err := src.Receive(ctx, 10)
				if errors.Is(err, schemas.ErrDrained) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got += string(ds[0].Payload)
			}
		}
		if got != want {
			t.Errorf("%s holds %q, want %q", ref, got, want)
		}
	}
	all, err := tr.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	if got := strings.Join(names, " "); got != "a b kafka:a" {
		t.Errorf("listed %q", got)
	}
	if !tr.same("a", "nats:a") || tr.same("a", "kafka:a") || tr.same("Bad Name", "Bad Name") {
		t.Error("same() is wrong")
	}
	if i, err := tr.Topic(ctx, "nats:a"); err != nil || i.Name != "nats:a" || i.Messages != 1 {
		t.Errorf("%+v, %v", i, err)
	}
	// What has no transactions has no ledgers, and nothing to drop.
	if _, err := tr.OpenLedger(ctx, "a", "job"); !errors.Is(err, schemas.ErrUnsupported) {
		t.Errorf("a ledger in memory: %v", err)
	}
	if err := tr.DropLedger(ctx, "a", "job"); err != nil {
		t.Error(err)
	}
	delete(brokers, schemas.TransportKafka)
	if _, err := tr.OpenLedger(ctx, "kafka:a", "job"); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("a ledger of a cluster that is not there: %v", err)
	}
	for _, ref := range []string{"kafka:a", "rabbit:a", "A b"} {
		if _, err := tr.Topic(ctx, ref); schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
