package connectortest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// restartUnderLoad: the server goes down and comes back three times while two publishers and a consumer are at work,
// and while requests are asked. Every acknowledged message arrives, the first arrivals of each key in order; requests
// succeed again by themselves.
func restartUnderLoad(t *testing.T, s Subject) {
	tr, _, restart := s.Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit) // a server may take seconds to come up
	defer cancel()
	must(t, tr.Topics.EnsureTopic(ctx, "t", 4))
	if s.Claims.Request {
		answering(t, ctx, tr, "echo", echo)
	}
	src, err := tr.Topics.Subscribe(ctx, "t", "g")
	must(t, err)
	l := &load{room: make(chan struct{}, 5000), changed: make(chan struct{}, 1), stop: make(chan struct{}), seen: map[string]bool{}}
	var writers, reader sync.WaitGroup
	for w := range 2 {
		writers.Go(func() { l.publish(t, ctx, tr.Publisher, w) })
	}
	run, end := context.WithCancel(ctx)
	defer end()
	reader.Go(func() { l.receive(t, ctx, run, src) })
	for range 3 {
		p, g := l.published.Load(), l.got.Load()
		l.until(t, ctx, "load", func() bool { return l.published.Load() > p+200 && l.got.Load() > g+200 })
		restart()
	}
	p := l.published.Load()
	l.until(t, ctx, "load after the last restart", func() bool { return l.published.Load() > p+200 })
	close(l.stop)
	writers.Wait()
	l.until(t, ctx, "the rest", func() bool { return l.got.Load() >= l.published.Load() })
	end()
	reader.Wait()
	l.acked.Range(func(k, _ any) bool {
		if !l.seen[k.(string)] {
			t.Errorf("acknowledged message %s was lost", k)
		}
		return true
	})
	must(t, src.Close(ctx))
	if s.Claims.Request { // when its members are back a transport does not say
		eventually(t, ctx, "an answer", func() bool {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			r, err := tr.Requester.Request(short, &schemas.Message{Topic: "echo", Payload: []byte("x")})
			return err == nil && string(r.Payload) == "x"
		})
	}
}

// load is what the publishers and the consumer of a test have done so far.
type load struct {
	published, got atomic.Int64    // acknowledged; received for the first time
	acked          sync.Map        // key/payload of what was acknowledged
	seen           map[string]bool // the same of what was received; the consumer's until it has ended
	// room holds one entry for each message that was published and not received, so that publishers wait for the
	// consumer: the test is about order and loss, not about speed.
	room    chan struct{}
	changed chan struct{} // 1: the one that waits looks at everything that happened since
	stop    chan struct{}
}

func (l *load) change() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// until waits for a change that makes it so.
func (l *load) until(t testing.TB, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-l.changed:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || t.Failed() {
			t.Fatalf("gave up waiting for %s: published %d, received %d", what, l.published.Load(), l.got.Load())
		}
	}
}

// publish stores 20 messages at a time, with three keys of its own, until it is stopped.
func (l *load) publish(t testing.TB, ctx context.Context, to connectors.Publisher, w int) {
	defer l.change()
	for n := 0; ; n += 20 {
		ms := make([]schemas.Message, 20)
		for i := range ms {
			select {
			case l.room <- struct{}{}:
			case <-l.stop:
				return
			case <-ctx.Done():
				return
			}
			ms[i] = schemas.Message{Topic: "t", Key: fmt.Sprintf("w%d-k%d", w, (n+i)%3), ID: fmt.Sprintf("%d-%d", w, n+i), Payload: []byte(strconv.Itoa(n + i))}
		}
		if _, err := to.Publish(ctx, ms); err != nil {
			t.Errorf("publisher %d: %v", w, err)
			return
		}
		for _, m := range ms {
			l.acked.Store(m.Key+"/"+string(m.Payload), true)
		}
		l.published.Add(int64(len(ms)))
		l.change()
	}
}

// receive accepts everything until run, which is of ctx, ends; it checks the order of first arrivals.
func (l *load) receive(t testing.TB, ctx, run context.Context, from connectors.Source) {
	defer l.change()
	last := map[string]int{}
	for {
		ds, err := from.Receive(run, 50)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Receive: %v", err)
			}
			return
		}
		for _, d := range ds {
			id := d.Key + "/" + string(d.Payload)
			if l.seen[id] {
				continue
			}
			n, _ := strconv.Atoi(string(d.Payload))
			if p, ok := last[d.Key]; ok && n != p+3 {
				t.Errorf("key %s: %d came after %d", d.Key, n, p)
			}
			l.seen[id], last[d.Key] = true, n
			<-l.room
			l.got.Add(1)
		}
		if err := ds[0].Settler.Accept(ctx, ds); err != nil {
			t.Errorf("Accept: %v", err)
		}
		l.change()
	}
}
