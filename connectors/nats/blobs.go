package nats

import (
	"context"
	"errors"
	"io"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// Blobs opens an object store, making it if it is not there.
func (c *Client) Blobs(ctx context.Context, bucket string) (schemas.Blobs, error) {
	const op = "nats.Blobs"
	if err := checkToken(op, "bucket", bucket); err != nil {
		return nil, err
	}
	call, cancel := c.call(ctx)
	defer cancel()
	os, err := c.js.ObjectStore(call, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		max := c.bounded(c.cfg.BlobBytes)
		if err := c.reserve(call, "object store "+bucket, max); err != nil {
			return nil, err
		}
		os, err = c.js.CreateOrUpdateObjectStore(call, jetstream.ObjectStoreConfig{
			Bucket: bucket, MaxBytes: max, Replicas: c.cfg.Replicas, Storage: jetstream.FileStorage,
		})
	}
	if err != nil {
		return nil, classify(op, "object store "+bucket, err)
	}
	return &blobs{c: c, name: bucket, os: os}, nil
}

type blobs struct {
	c    *Client
	name string
	os   jetstream.ObjectStore
}

// Put streams r in; its context bounds the whole of it. A Put that fails half-way leaves nothing visible.
func (b *blobs) Put(ctx context.Context, name string, r io.Reader) error {
	_, err := b.os.Put(ctx, jetstream.ObjectMeta{Name: name}, r)
	return classify("nats.Blobs.Put", b.name+" "+name, err)
}

func (b *blobs) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	o, err := b.os.Get(ctx, name)
	if err != nil {
		return nil, classify("nats.Blobs.Get", b.name+" "+name, err)
	}
	return o, nil // reading checks the digest at its end
}

func (b *blobs) Has(ctx context.Context, name string) (bool, error) {
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	_, err := b.os.GetInfo(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, nil
	}
	return err == nil, classify("nats.Blobs.Has", b.name+" "+name, err)
}

func (b *blobs) Delete(ctx context.Context, name string) error {
	ctx, cancel := b.c.call(ctx)
	defer cancel()
	err := b.os.Delete(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil
	}
	return classify("nats.Blobs.Delete", b.name+" "+name, err)
}
