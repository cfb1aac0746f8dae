package nats

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Every group gets each message once, whichever of its members; what nobody takes is gone; users see none of it.
func TestFan(t *testing.T) {
	s := startServer(t, t.TempDir(), 0)
	a, b := dial(t, s), dial(t, s)
	var forest []connectors.Source
	for _, c := range []*Client{a, b} {
		src, err := c.SubscribeFan(t.Context(), "fraud", "shadow:forest")
		if err != nil {
			t.Fatal(err)
		}
		forest = append(forest, src)
	}
	other, err := b.SubscribeFan(t.Context(), "fraud", "shadow:other")
	if err != nil {
		t.Fatal(err)
	}
	user, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	overheard, err := user.SubscribeSync("leat.fan.>")
	if err == nil {
		err = user.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := user.Publish("leat.fan.fraud", []byte("forged")); err != nil {
		t.Fatal(err)
	}
	if err := user.Flush(); err != nil {
		t.Fatal(err)
	}
	const n = 100
	for i := range n {
		h := schemas.Header{"Leat-Request-Id": {fmt.Sprint(i)}}
		if err := a.Fan(t.Context(), "fraud", []schemas.Message{{Header: h, Payload: []byte{byte(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	got := make(chan []*connectors.Delivery)
	for _, src := range forest {
		go func() {
			for {
				ds, err := src.Receive(t.Context(), 16)
				if err != nil {
					return
				}
				got <- ds
			}
		}()
	}
	for total := 0; total < n; {
		select {
		case ds := <-got:
			for _, d := range ds {
				seen[d.Header.Get("Leat-Request-Id")]++
				if d.Topic != "fraud" || d.Attempt != 1 || len(d.Payload) != 1 {
					t.Errorf("%+v", d)
				}
			}
			total += len(ds)
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d came", total, n)
		}
	}
	for i := range n {
		if seen[fmt.Sprint(i)] != 1 {
			t.Errorf("message %d came %d times", i, seen[fmt.Sprint(i)])
		}
	}
	for total := 0; total < n; {
		ds, err := other.Receive(t.Context(), 7)
		if err != nil || len(ds) > 7 {
			t.Fatal(len(ds), err)
		}
		total += len(ds)
	}
	other.Drain()
	if _, err := other.Receive(t.Context(), 1); !errors.Is(err, schemas.ErrDrained) {
		t.Error(err)
	}
	for _, src := range forest {
		if err := src.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if m, err := overheard.NextMsg(10 * time.Millisecond); err == nil {
		t.Errorf("a user heard %q", m.Data)
	}
	big := []schemas.Message{{Payload: make([]byte, 2<<20)}}
	if err := a.Fan(t.Context(), "fraud", big); schemas.KindOf(err) != schemas.Invalid {
		t.Error(err)
	}
	if err := a.Fan(t.Context(), "fraud.*", nil); schemas.KindOf(err) != schemas.Invalid {
		t.Error(err)
	}
	if _, err := a.SubscribeFan(t.Context(), "fraud", "a b"); schemas.KindOf(err) != schemas.Invalid {
		t.Error(err)
	}
}
