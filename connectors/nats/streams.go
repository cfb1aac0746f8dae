package nats

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// bounded keeps a default size below a sixteenth of the store: on a small disk several streams must fit.
func (c *Client) bounded(n int64) int64 {
	if c.cfg.Server != nil {
		return max(min(n, c.cfg.Server.StoreLimit()/16), 1<<20)
	}
	return n
}

// reserve refuses a stream that would let all streams together outgrow the store: a full disk stops everything, so
// that each stream's MaxBytes must be below what is there. An external server keeps its own account limits.
func (c *Client) reserve(ctx context.Context, what string, size int64) error {
	if c.cfg.Server == nil {
		return nil
	}
	limit, sum := c.cfg.Server.StoreLimit(), int64(0)
	l := c.js.ListStreams(ctx)
	for i := range l.Info() {
		if i.Config.Storage == jetstream.FileStorage && i.Config.MaxBytes > 0 {
			sum += i.Config.MaxBytes
		}
	}
	if err := l.Err(); err != nil {
		return classify("nats.reserve", "list streams", err)
	}
	if sum+size > limit {
		return schemas.Errorf(schemas.Unavailable, "nats.reserve",
			"%s wants %d MiB, but streams have reserved %d of %d MiB: %w; free disk space, raise nats.store_limit or make a stream smaller",
			what, size>>20, sum>>20, limit>>20, schemas.ErrFull)
	}
	return nil
}

// ensureStream makes the stream, or returns the one there is after same has looked at it.
func (c *Client) ensureStream(ctx context.Context, op string, want jetstream.StreamConfig, same func(have *jetstream.StreamConfig) error) (*jetstream.StreamInfo, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	s, err := c.js.Stream(ctx, want.Name)
	if apiCode(err) == codeStreamNotFound {
		if err := c.reserve(ctx, "stream "+want.Name, want.MaxBytes); err != nil {
			return nil, err
		}
		s, err = c.js.CreateStream(ctx, want)
		if apiCode(err) == codeStreamNameInUse { // another process was faster
			s, err = c.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return nil, classify(op, "stream "+want.Name, err)
	}
	info := s.CachedInfo()
	if same != nil {
		if err := same(&info.Config); err != nil {
			return nil, err
		}
	}
	return info, nil
}

func differs(op, stream, what string, have, want any) error {
	return schemas.FieldErrorf(schemas.Invalid, op, what, "stream %s has %v, wanted %v: it is never changed in silence", stream, have, want)
}

// base is what all our streams have in common.
func (c *Client) base(name string, subjects ...string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Subjects: subjects, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
		Discard: jetstream.DiscardNew, Replicas: c.cfg.Replicas, AllowDirect: true, MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxConsumers: -1,
	}
}

func sameSubjects(op string, have *jetstream.StreamConfig, want []string) error {
	if !slices.Equal(slices.Sorted(slices.Values(have.Subjects)), slices.Sorted(slices.Values(want))) {
		return differs(op, have.Name, "subjects", have.Subjects, want)
	}
	return nil
}
