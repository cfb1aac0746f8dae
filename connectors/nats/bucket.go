package nats

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Buckets of features are plain KV buckets by the names that users give them. Those of Leat itself begin with LEAT_.
const (
	streamBucket  = "KV_"
	subjectBucket = "$KV."
)

// bucketOfStream returns the name of a user's bucket by its stream.
func bucketOfStream(stream string) (string, bool) {
	name, ok := strings.CutPrefix(stream, streamBucket)
	return name, ok && schemas.CheckBucket(name) == nil
}

// CreateBucket implements connectors.Buckets.
func (c *Client) CreateBucket(ctx context.Context, name string) error {
	if err := schemas.CheckBucket(name); err != nil {
		return err
	}
	_, err := c.openBucket(ctx, name, 0)
	return err
}

// Bucket implements connectors.Buckets.
func (c *Client) Bucket(ctx context.Context, name string) (schemas.KV, error) {
	const op = "nats.Bucket"
	if err := schemas.CheckBucket(name); err != nil {
		return nil, err
	}
	call, cancel := c.call(ctx)
	defer cancel()
	kv, err := c.js.KeyValue(call, name)
	if err != nil {
		return nil, noBucket(op, name, err)
	}
	return &kvBucket{c: c, name: name, kv: kv}, nil
}

func noBucket(op, name string, err error) error {
	if err = classify(op, "bucket "+name, err); schemas.KindOf(err) == schemas.NotFound {
		return schemas.Errorf(schemas.NotFound, op, "no bucket %s: make it with leat features create %s", name, name)
	}
	return err
}

// Value implements connectors.Buckets.
func (c *Client) Value(ctx context.Context, bucket, key string) (*schemas.Change, error) {
	const op = "nats.Value"
	if err := schemas.CheckBucket(bucket); err != nil {
		return nil, err
	}
	call, cancel := c.call(ctx)
	defer cancel()
	kv, err := c.js.KeyValue(call, bucket)
	if err != nil {
		return nil, noBucket(op, bucket, err)
	}
	e, err := kv.Get(call, keyName(key))
	if err = classify(op, "bucket "+bucket, err); err != nil && schemas.KindOf(err) == schemas.NotFound {
		return nil, schemas.Errorf(schemas.NotFound, op, "no key %.80q in bucket %s", key, bucket)
	}
	if err != nil {
		return nil, err
	}
	return &schemas.Change{Key: key, Value: e.Value(), Version: e.Revision(), Time: e.Created()}, nil
}

// ListBuckets implements connectors.Buckets.
func (c *Client) ListBuckets(ctx context.Context) ([]connectors.BucketInfo, error) {
	call, cancel := c.call(ctx)
	defer cancel()
	l := c.js.ListStreams(call)
	var out []connectors.BucketInfo
	for i := range l.Info() {
		if name, ok := bucketOfStream(i.Config.Name); ok {
			b := connectors.BucketInfo{Name: name, Values: i.State.Msgs, Bytes: i.State.Bytes}
			if i.State.Msgs > 0 {
				b.Last = i.State.LastTime
			}
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b connectors.BucketInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, classify("nats.ListBuckets", "buckets", l.Err())
}

// DeleteBucket implements connectors.Buckets.
func (c *Client) DeleteBucket(ctx context.Context, name string) error {
	if err := schemas.CheckBucket(name); err != nil {
		return err
	}
	call, cancel := c.call(ctx)
	defer cancel()
	if err := c.js.DeleteKeyValue(call, name); err != nil {
		return noBucket("nats.DeleteBucket", name, err)
	}
	return nil
}

// How a bucket is followed.
const (
	bucketCheck   = 2 * time.Second // between two looks whether all there is has come
	bucketStalled = 3               // looks at which something was missing, and nothing came, after which the watch is given up
)

// FollowBucket calls each for every key of a bucket as it is now, and for each change from then on; and all when what was
// there at the start has been told, and every two seconds at which nothing is missing: values of revisions before first are
// not there any more. Both run on the caller's goroutine. FollowBucket returns when ctx ends or something may have been
// missed, and then the caller follows anew: Unavailable when a server that was away is back, or the bucket was made again;
// NotFound if there is none.
func (c *Client) FollowBucket(ctx context.Context, name string, each func(*schemas.Change), all func(first uint64)) error {
	const op = "nats.FollowBucket"
	if err := schemas.CheckBucket(name); err != nil {
		return err
	}
	info, err := c.streamInfo(ctx, op, streamBucket+name)
	if err != nil {
		return noBucket(op, name, err)
	}
	call, cancel := c.call(ctx)
	kv, err := c.js.KeyValue(call, name)
	cancel()
	if err != nil {
		return noBucket(op, name, err)
	}
	f := &following{c: c, name: name, made: info.Created, seen: 0, start: info.State.LastSeq, each: each, all: all}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return classify(op, "bucket "+name, err)
	}
	defer endWatch(w)
	return f.run(ctx, w.Updates())
}

// following is one reading of a bucket.
type following struct {
	c           *Client
	name        string
	made        time.Time
	start, seen uint64 // last sequence before the watch; newest that has come
	told        bool   // what was there at the start
	stalled     int
	goal, first uint64 // newest and oldest sequence there was at the last look
	before      uint64 // seen at the last look
	each        func(*schemas.Change)
	all         func(first uint64)
}

func (f *following) run(ctx context.Context, updates <-chan jetstream.KeyValueEntry) error {
	const op = "nats.FollowBucket"
	tick := time.NewTicker(bucketCheck)
	defer tick.Stop()
	again, forget := f.c.onReconnect()
	defer forget()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.c.closing.Done():
			return schemas.Errorf(schemas.Unavailable, op, "bucket %s: the client was closed", f.name)
		case <-again: // what was on the way is lost, and the library notices late
			return schemas.Errorf(schemas.Unavailable, op, "bucket %s: the connection was lost meanwhile", f.name)
		case e, ok := <-updates:
			switch {
			case !ok && ctx.Err() != nil:
				return ctx.Err()
			case !ok:
				return schemas.Errorf(schemas.Unavailable, op, "bucket %s: the watch ended", f.name)
			case e != nil:
				f.seen = max(f.seen, e.Revision())
				x := schemas.Change{Key: keyOfName(e.Key()), Value: e.Value(), Version: e.Revision(), Time: e.Created(), Deleted: e.Operation() != jetstream.KeyValuePut}
				f.each(&x)
				continue
			}
			f.told, f.seen = true, max(f.seen, f.start) // what of it did not come is deleted
			if err := f.look(ctx); err != nil {
				return err
			}
		case <-tick.C:
			if !f.told {
				continue
			}
			if err := f.look(ctx); err != nil {
				return err
			}
		}
	}
}

// look compares what has come with what the bucket has. It returns why the watch cannot go on.
func (f *following) look(ctx context.Context) error {
	const op = "nats.FollowBucket"
	info, err := f.c.streamInfo(ctx, op, streamBucket+f.name)
	switch {
	case err != nil && schemas.KindOf(err) == schemas.NotFound:
		return noBucket(op, f.name, err)
	case err != nil:
		return nil // the server is away: all is not called, and the watch goes on when it is back
	case !info.Created.Equal(f.made):
		return schemas.Errorf(schemas.Unavailable, op, "bucket %s was made again", f.name)
	case f.seen >= info.State.LastSeq || info.State.Msgs == 0:
		f.stalled = 0
		f.all(info.State.FirstSeq)
	case f.seen >= f.goal && f.seen > f.before: // changes come all the time: all that was there at the last look has come
		f.stalled = 0
		f.all(f.first)
	case f.seen == f.before:
		if f.stalled++; f.stalled == bucketStalled {
			return schemas.Errorf(schemas.Unavailable, op, "bucket %s: the watch brings nothing more", f.name)
		}
	default:
		f.stalled = 0
	}
	f.before, f.goal, f.first = f.seen, info.State.LastSeq, info.State.FirstSeq
	return nil
}

var _ connectors.Buckets = (*Client)(nil)
