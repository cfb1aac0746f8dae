package floors

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Topics is JetStream alone from stream to stream: pulled, published without waiting for each, acknowledged when the
// copy is. One row a message, which is what continuous scoring does without the scoring.
type Topics struct {
	nc, out *nats.Conn
	js, pub jetstream.JetStream
	n       int
	window  int
	round   int
}

const (
	topicsIn  = "FLOOR_IN"
	topicsOut = "FLOOR_OUT"
	// pullBytes bounds what the server may have under way to us: beyond 64 MiB a connection collapses.
	pullBytes = 4 << 20
	// topicsWindow is how many publishes wait for their acknowledgement at once: 256 to 1000 is where JetStream is best.
	topicsWindow = 1000
)

// NewTopics makes the source stream and fills it with n messages, taking the payloads in turn.
func NewTopics(ctx context.Context, s *Server, payloads [][]byte, keys []string, n int) (_ *Topics, err error) {
	t := &Topics{n: n, window: topicsWindow}
	if t.nc, err = s.Connect(false); err != nil {
		return nil, err
	}
	if t.out, err = s.Connect(false); err != nil {
		t.nc.Close()
		return nil, err
	}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if t.js, err = jetstream.New(t.nc); err != nil {
		return nil, fmt.Errorf("floors: topics: %w", err)
	}
	t.pub, err = jetstream.New(t.out, jetstream.WithPublishAsyncMaxPending(t.window))
	if err != nil {
		return nil, fmt.Errorf("floors: topics: %w", err)
	}
	for _, name := range []string{topicsIn, topicsOut} {
		_, err = t.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name + ".*"},
			Storage: jetstream.FileStorage, MaxBytes: 4 << 30})
		if err != nil {
			return nil, fmt.Errorf("floors: topics: %w", err)
		}
	}
	err = Fill(ctx, t.pub, n, func(i int) *nats.Msg {
		return &nats.Msg{Subject: topicsIn + "." + strconv.Itoa(i%8), Header: nats.Header{"Leat-Key": {keys[i%len(keys)]}},
			Data: payloads[i%len(payloads)]}
	})
	return t, err
}

// Fill publishes n messages without waiting for each and returns when all are acknowledged.
func Fill(ctx context.Context, js jetstream.JetStream, n int, message func(i int) *nats.Msg) error {
	var w window
	for i := range n {
		f, err := js.PublishMsgAsync(message(i), jetstream.WithStallWait(10*time.Second))
		if err != nil {
			return fmt.Errorf("floors: fill: %w", err)
		}
		w.futures = append(w.futures, f)
		if len(w.futures) == 2*topicsWindow {
			if err := w.settle(ctx, topicsWindow); err != nil {
				return err
			}
		}
	}
	return w.settle(ctx, len(w.futures))
}

// window holds the publishes that are not yet known to be acknowledged, oldest first.
type window struct{ futures []jetstream.PubAckFuture }

// settle waits for the first n.
func (w *window) settle(ctx context.Context, n int) error {
	for _, f := range w.futures[:n] {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return fmt.Errorf("floors: publish: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.futures = append(w.futures[:0], w.futures[n:]...)
	return nil
}

// Run copies for that long, or to the end of the source, and returns messages a second. Each run reads from the
// beginning with a consumer of its own.
func (t *Topics) Run(ctx context.Context, d time.Duration) (float64, error) {
	t.round++
	c, err := t.js.CreateConsumer(ctx, topicsIn, jetstream.ConsumerConfig{Durable: "floor-" + strconv.Itoa(t.round),
		AckPolicy: jetstream.AckAllPolicy, MaxAckPending: -1, DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return 0, fmt.Errorf("floors: topics: %w", err)
	}
	defer func() { _ = t.js.DeleteConsumer(ctx, topicsIn, "floor-"+strconv.Itoa(t.round)) }()
	m, err := c.Messages(jetstream.PullMaxBytes(pullBytes))
	if err != nil {
		return 0, fmt.Errorf("floors: topics: %w", err)
	}
	defer m.Stop()
	start := time.Now()
	n, err := t.copy(ctx, m, start.Add(d))
	if err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// copy moves messages until end or the last of the source and returns how many are acknowledged on both sides.
func (t *Topics) copy(ctx context.Context, m jetstream.MessagesContext, end time.Time) (int, error) {
	var w window
	var taken []jetstream.Msg
	half := t.window / 2
	settle := func(k int) error {
		if k == 0 {
			return nil
		}
		if err := w.settle(ctx, k); err != nil {
			return err
		}
		if err := taken[k-1].Ack(); err != nil { // for all before it too
			return fmt.Errorf("floors: ack: %w", err)
		}
		taken = append(taken[:0], taken[k:]...)
		return nil
	}
	for n := range t.n {
		if n%64 == 0 && time.Now().After(end) {
			return n, settle(len(taken))
		}
		msg, err := m.Next(jetstream.NextContext(ctx))
		if err != nil {
			return n, errors.Join(fmt.Errorf("floors: next after %d: %w", n, err))
		}
		out := &nats.Msg{Subject: topicsOut + msg.Subject()[len(topicsIn):], Header: msg.Headers(), Data: msg.Data()}
		f, err := t.pub.PublishMsgAsync(out, jetstream.WithStallWait(10*time.Second))
		if err != nil {
			return n, fmt.Errorf("floors: publish: %w", err)
		}
		w.futures = append(w.futures, f)
		taken = append(taken, msg)
		if len(taken) == t.window {
			if err := settle(half); err != nil {
				return n, err
			}
		}
	}
	return t.n, settle(len(taken))
}

// Empty deletes the copies, so that the disk does not fill over the rounds.
func (t *Topics) Empty(ctx context.Context) error {
	s, err := t.js.Stream(ctx, topicsOut)
	if err == nil {
		err = s.Purge(ctx)
	}
	return err
}

// Close closes the connections; the streams go with the server's folder.
func (t *Topics) Close() {
	t.nc.Close()
	t.out.Close()
}
