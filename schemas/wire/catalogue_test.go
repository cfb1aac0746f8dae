package wire

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsKV is as much of schemas.KV as a catalogue needs, over a real bucket.
type natsKV struct {
	schemas.KV
	kv jetstream.KeyValue
}

func (k natsKV) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	e, err := k.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, schemas.Errorf(schemas.NotFound, "test", "no key %s", key)
	}
	if err != nil {
		return nil, 0, err
	}
	return e.Value(), e.Revision(), nil
}

func (k natsKV) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	rev, err := k.kv.Create(ctx, key, value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, schemas.Errorf(schemas.Invalid, "test", "%w", schemas.ErrConflict)
	}
	return rev, err
}

func bucket(t *testing.T) jetstream.KeyValue {
	t.Helper()
	s, err := server.NewServer(&server.Options{JetStream: true, StoreDir: t.TempDir(), DontListen: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "schemas"})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestCatalogue(t *testing.T) {
	ctx := t.Context()
	kv := bucket(t)
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"a", "b"}}, schemas.Field{Name: "q\"ü", Type: schemas.String, Nullable: true})
	one, two := NewCatalogue(natsKV{kv: kv}), NewCatalogue(natsKV{kv: kv})
	if _, err := two.Lookup(ctx, s.ID()); schemas.KindOf(err) != schemas.NotFound {
		t.Errorf("before it is put: %v, want NotFound", err)
	}
	for _, c := range []*Catalogue{one, one, two} { // again, and from another process
		if err := c.Put(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	three := NewCatalogue(natsKV{kv: kv})
	for _, c := range []*Catalogue{one, two, three} {
		got, err := c.Lookup(ctx, s.ID())
		if err != nil || got.ID() != s.ID() || got.String() != s.String() || got.Field(0).Features != nil {
			t.Errorf("looked up %v, %v", got, err)
		}
		if again, _ := c.Lookup(ctx, s.ID()); again != got {
			t.Error("the second lookup was not answered from memory")
		}
	}
	other := schemas.MustSchema(schemas.Field{Name: "y", Type: schemas.Int8})
	for _, stored := range []string{string(s.Canonical()), `{`, `[]`} {
		if _, err := kv.Put(ctx, other.ID().String(), []byte(stored)); err != nil {
			t.Fatal(err)
		}
		c := NewCatalogue(natsKV{kv: kv})
		if err := c.Put(ctx, other); schemas.KindOf(err) != schemas.Internal {
			t.Errorf("put over %s: %v, want an error", stored, err)
		}
		if _, err := c.Lookup(ctx, other.ID()); schemas.KindOf(err) != schemas.Internal {
			t.Errorf("looked up %s: %v, want an error", stored, err)
		}
	}
}
