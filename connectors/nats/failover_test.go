package nats

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// TestOwnerDies: a member that vanishes without a word loses its partitions after LeaseTTL; the other gets what was in
// work there, in order, marked as a repeat, and settling by the dead one has no effect.
func TestOwnerDies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := startServer(t, t.TempDir(), 0)
	conf := testConfig()
	conf.Server = s
	one, two := dialConfig(t, conf), dialConfig(t, conf)
	if err := one.EnsureTopic(ctx, "t", 4); err != nil {
		t.Fatal(err)
	}
	var ms []schemas.Message
	for i := range 200 {
		ms = append(ms, schemas.Message{Topic: "t", Key: fmt.Sprint("k", i%9), Payload: []byte(strconv.Itoa(i))})
	}
	if _, err := one.Publish(ctx, ms); err != nil {
		t.Fatal(err)
	}
	dying, err := one.Subscribe(ctx, "t", "g")
	if err != nil {
		t.Fatal(err)
	}
	settled := map[string]bool{}
	last := map[string]int{}
	note := func(ds []*connectors.Delivery) {
		t.Helper()
		for _, d := range ds {
			n, _ := strconv.Atoi(string(d.Payload))
			if settled[string(d.Payload)] {
				continue // an acknowledgement may die with its sender
			}
			if p, ok := last[d.Key]; ok && n != p+9 {
				t.Fatalf("key %s: %d after %d", d.Key, n, p)
			}
			last[d.Key] = n
			settled[string(d.Payload)] = true
		}
		if err := ds[0].Settler.Accept(ctx, ds); err != nil {
			t.Fatal(err)
		}
	}
	for len(settled) < 50 {
		ds, err := dying.Receive(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		note(ds)
	}
	inWork, err := dying.Receive(ctx, 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.data.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, nc := range []interface{ Close() }{one.core, one.data, one.front} { // dies without a word
		nc.Close()
	}
	begin := time.Now()
	next, err := two.Subscribe(ctx, "t", "g")
	if err != nil {
		t.Fatal(err)
	}
	repeats := 0
	for len(settled) < len(ms) {
		ds, err := next.Receive(ctx, 10)
		if err != nil {
			t.Fatalf("%v with %d of %d", err, len(settled), len(ms))
		}
		for _, d := range ds {
			if d.Attempt > 1 {
				repeats++
			}
		}
		note(ds)
	}
	t.Logf("taken over within %v, %d repeats", time.Since(begin), repeats)
	if repeats < len(inWork) {
		t.Errorf("%d repeats for %d messages in work", repeats, len(inWork))
	}
	if err := inWork[0].Settler.Accept(ctx, inWork); err != nil {
		t.Errorf("settling too late: %v", err)
	}
	if err := next.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
