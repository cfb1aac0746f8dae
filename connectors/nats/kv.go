package nats

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// KV opens a bucket, making it if it is not there.
func (c *Client) KV(ctx context.Context, bucket string) (schemas.KV, error) {
	kv, err := c.openBucket(ctx, bucket, 0)
	if err != nil {
		return nil, err
	}
	return &kvBucket{c: c, name: bucket, kv: kv}, nil
}

func (c *Client) openBucket(ctx context.Context, bucket string, ttl time.Duration) (jetstream.KeyValue, error) {
	const op = "nats.KV"
	if err := checkToken(op, "bucket", bucket); err != nil {
		return nil, err
	}
	ctx, cancel := c.call(ctx)
	defer cancel()
	kv, err := c.js.KeyValue(ctx, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		max := c.bounded(c.cfg.KVBytes)
		if err := c.reserve(ctx, "bucket "+bucket, max); err != nil {
			return nil, err
		}
		kv, err = c.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucket, History: 1, TTL: ttl, MaxBytes: max, Replicas: c.cfg.Replicas, Storage: jetstream.FileStorage,
		})
	}
	if err != nil {
		return nil, classify(op, "bucket "+bucket, err)
	}
	return kv, nil
}

type kvBucket struct {
	c    *Client
	name string
	kv   jetstream.KeyValue
}

func (b *kvBucket) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	e, err := b.kv.Get(ctx, keyName(key))
	if err != nil {
		return nil, 0, classify("nats.KV.Get", b.name+" "+key, err)
	}
	return e.Value(), e.Revision(), nil
}

func (b *kvBucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	const op = "nats.KV.Put"
	if err := b.fits(op, key, value); err != nil {
		return 0, err
	}
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	rev, err := b.kv.Put(ctx, keyName(key), value)
	return rev, classify(op, b.name+" "+key, err)
}

func (b *kvBucket) fits(op, key string, value []byte) error {
	if n, limit := len(value)+256, b.c.MaxPayload(); n > limit {
		return schemas.FieldErrorf(schemas.Invalid, op, key, "value of %d bytes: at most %d", len(value), limit-256)
	}
	return nil
}

func (b *kvBucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	const op = "nats.KV.Create"
	if err := b.fits(op, key, value); err != nil {
		return 0, err
	}
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	rev, err := b.kv.Create(ctx, keyName(key), value)
	return rev, b.conflict(op, key, err)
}

func (b *kvBucket) Update(ctx context.Context, key string, value []byte, last uint64) (uint64, error) {
	const op = "nats.KV.Update"
	if err := b.fits(op, key, value); err != nil {
		return 0, err
	}
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	rev, err := b.kv.Update(ctx, keyName(key), value, last)
	return rev, b.conflict(op, key, err)
}

func (b *kvBucket) conflict(op, key string, err error) error {
	if errors.Is(err, jetstream.ErrKeyExists) || apiCode(err) == codeWrongLastSequence {
		return schemas.Errorf(schemas.Invalid, op, "%s %s: %w", b.name, key, schemas.ErrConflict)
	}
	return classify(op, b.name+" "+key, err)
}

func (b *kvBucket) Delete(ctx context.Context, key string, last uint64) error {
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	var opts []jetstream.KVDeleteOpt
	if last != 0 {
		opts = append(opts, jetstream.LastRevision(last))
	}
	return b.conflict("nats.KV.Delete", key, b.kv.Delete(ctx, keyName(key), opts...))
}

func (b *kvBucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	l, err := b.kv.ListKeys(ctx)
	if err != nil {
		return nil, classify("nats.KV.Keys", b.name, err)
	}
	var keys []string
	for k := range l.Keys() {
		if k = keyOfName(k); strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, classify("nats.KV.Keys", b.name, err)
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// Watch goes through the whole bucket and compares prefixes here: a prefix of a key is not a token of its subject, and
// buckets of the control plane are small.
func (b *kvBucket) Watch(ctx context.Context, prefix string, fn func(key string, value []byte, revision uint64, deleted bool)) error {
	w, err := b.kv.WatchAll(ctx)
	if err != nil {
		return classify("nats.KV.Watch", b.name, err)
	}
	defer endWatch(w)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.c.closing.Done():
			return schemas.Errorf(schemas.Unavailable, "nats.KV.Watch", "%s: the client was closed", b.name)
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				if err := ctx.Err(); err != nil {
					return err
				}
				return schemas.Errorf(schemas.Unavailable, "nats.KV.Watch", "%s: the watch ended", b.name)
			case e == nil:
				fn("", nil, 0, false)
			default:
				if k := keyOfName(e.Key()); strings.HasPrefix(k, prefix) {
					fn(k, e.Value(), e.Revision(), e.Operation() != jetstream.KeyValuePut)
				}
			}
		}
	}
}

// endWatch stops a watcher, and takes what its handler may be waiting to hand over: nobody else would, and the handler stays.
func endWatch(w jetstream.KeyWatcher) {
	_ = w.Stop() // of a connection that is closed: nothing is left to stop
	for range w.Updates() {
	}
}
