package connectors

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// Buckets are key-value buckets of features, which users fill and lookups of routes read.
type Buckets interface {
	// CreateBucket makes a bucket. One that exists is fine.
	CreateBucket(ctx context.Context, name string) error
	// Bucket opens a bucket that is there: NotFound.
	Bucket(ctx context.Context, name string) (schemas.KV, error)
	// Value returns the newest value of a key: NotFound.
	Value(ctx context.Context, bucket, key string) (*schemas.Change, error)
	// FollowBucket calls each for every key of the bucket as it is now, then all, and goes on with each change until ctx ends.
	FollowBucket(ctx context.Context, name string, each func(*schemas.Change), all func(first uint64)) error
	// ListBuckets lists them by name.
	ListBuckets(ctx context.Context) ([]BucketInfo, error)
	// DeleteBucket deletes a bucket with all its values: NotFound.
	DeleteBucket(ctx context.Context, name string) error
}

// BucketInfo describes a bucket.
type BucketInfo struct {
	Name   string    `json:"name"`
	Values uint64    `json:"values"` // with the marks of keys that were deleted
	Bytes  uint64    `json:"bytes"`
	Last   time.Time `json:"last,omitzero"` // change
}

// BucketUses says who looks up in a bucket, for people: "pipeline fraud". A bucket in use is not deleted.
type BucketUses func(ctx context.Context, bucket string) ([]string, error)

// FeatureLine is the value of one key as the operations write and take it, a line of NDJSON each.
type FeatureLine struct {
	Key     string          `json:"key"`
	Version uint64          `json:"version,omitempty"`
	Time    time.Time       `json:"time,omitzero"` // stored
	Value   json.RawMessage `json:"value,omitempty"`
	Payload []byte          `json:"payload,omitempty"` // a value that is no JSON, such as an Arrow stream; base64
	Deleted bool            `json:"deleted,omitempty"` // of a line that is put: the key goes
}

type (
	bucketsRequest struct{}
	// BucketsReply lists buckets.
	BucketsReply struct {
		Buckets []BucketInfo `json:"buckets"`
	}
	bucketCreate struct {
		Name string `json:"name"`
	}
	bucketRequest struct {
		Bucket string `path:"bucket"`
	}
	featuresRead struct {
		Bucket string `path:"bucket"`
		Key    string `query:"key" doc:"only this key; not found, if there is none"`
	}
	featuresPut struct {
		Bucket string    `path:"bucket"`
		Body   io.Reader `body:"application/x-ndjson"`
	}
	// FeaturesReply says how many lines are stored.
	FeaturesReply struct {
		Stored int `json:"stored"`
	}
)

// FeatureOperations is the table of what can be asked about buckets of features.
func FeatureOperations(b Buckets, uses BucketUses) []api.Operation {
	return []api.Operation{
		api.Op("features.list", http.MethodGet, "/v1/features", api.Read, "List the buckets of features",
			func(ctx context.Context, _ *bucketsRequest) (*BucketsReply, error) {
				l, err := b.ListBuckets(ctx)
				if l == nil {
					l = []BucketInfo{}
				}
				return &BucketsReply{l}, err
			}),
		api.Op("features.create", http.MethodPost, "/v1/features", api.Admin, "Make a bucket of features; one that exists is fine",
			func(ctx context.Context, r *bucketCreate) (*BucketInfo, error) {
				if err := b.CreateBucket(ctx, r.Name); err != nil {
					return nil, err
				}
				return bucketInfo(ctx, b, r.Name)
			}),
		api.Op("features.delete", http.MethodDelete, "/v1/features/{bucket}", api.Admin, "Delete a bucket, with all its values, in which no pipeline looks up",
			func(ctx context.Context, r *bucketRequest) (*BucketInfo, error) {
				i, err := bucketInfo(ctx, b, r.Bucket)
				if err != nil {
					return nil, err
				}
				by, err := uses(ctx, r.Bucket)
				if err == nil && len(by) > 0 {
					err = schemas.Errorf(schemas.Invalid, "features.delete", "bucket %s is in use by %s: delete or change that first", r.Bucket, strings.Join(by, ", "))
				}
				if err != nil {
					return nil, err
				}
				return i, b.DeleteBucket(ctx, r.Bucket)
			}),
		api.Op("features.put", http.MethodPost, "/v1/features/{bucket}/values", api.Score, "Store values, one JSON object a line with key and value; answers when all are acknowledged",
			func(ctx context.Context, r *featuresPut) (*FeaturesReply, error) { return putLines(ctx, b, r) }),
		api.Op("features.read", http.MethodGet, "/v1/features/{bucket}/values", api.Read, "Read the newest value of a key, or of all keys, as NDJSON",
			func(ctx context.Context, r *featuresRead) (*FeatureReading, error) {
				x := &FeatureReading{ctx: ctx, b: b, bucket: r.Bucket}
				var err error
				if r.Key != "" {
					x.one, err = b.Value(ctx, r.Bucket, r.Key)
				} else {
					_, err = b.Bucket(ctx, r.Bucket)
				}
				return x, err
			}),
	}
}

func bucketInfo(ctx context.Context, b Buckets, name string) (*BucketInfo, error) {
	if _, err := b.Bucket(ctx, name); err != nil {
		return nil, err
	}
	l, err := b.ListBuckets(ctx)
	for i := range l {
		if l[i].Name == name {
			return &l[i], nil
		}
	}
	return &BucketInfo{Name: name}, err
}

// putsAtOnce is how many values of one request are on their way at once; those of one key keep their order.
const putsAtOnce = 32

// putLines stores lines as they come. A bad line ends it; what came before is stored.
func putLines(ctx context.Context, b Buckets, r *featuresPut) (*FeaturesReply, error) {
	const op = "features.put"
	kv, err := b.Bucket(ctx, r.Bucket)
	if err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	var lanes [putsAtOnce]chan FeatureLine
	for i := range lanes {
		lanes[i] = make(chan FeatureLine, 4) // enough to keep the next at hand
		g.Go(func() error {
			for l := range lanes[i] {
				if err := put(gctx, kv, &l); err != nil {
					return err
				}
			}
			return nil
		})
	}
	seed := maphash.MakeSeed()
	n, in := 0, bufio.NewReaderSize(r.Body, 256<<10)
	for number := 1; err == nil; number++ {
		var text []byte
		if text, err = in.ReadBytes('\n'); len(text) > 1 {
			l, lerr := featureOf(text)
			if lerr != nil {
				if err = schemas.Errorf(schemas.Invalid, op, "line %d: %w", number, lerr); n > 0 {
					err = schemas.Errorf(schemas.Invalid, op, "line %d: %w (those before it are stored)", number, lerr)
				}
				break
			}
			select {
			case lanes[maphash.String(seed, l.Key)%putsAtOnce] <- l:
				n++
			case <-gctx.Done():
				err = gctx.Err()
			}
		}
	}
	for _, l := range lanes {
		close(l)
	}
	if werr := g.Wait(); werr != nil {
		return nil, werr
	}
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return &FeaturesReply{n}, nil
}

func featureOf(text []byte) (FeatureLine, error) {
	var l FeatureLine
	if err := json.Unmarshal(text, &l); err != nil {
		return l, err
	}
	value := strings.TrimLeft(string(l.Value), " \t\r\n")
	switch {
	case l.Key == "":
		return l, errors.New("no key")
	case l.Deleted:
	case l.Payload == nil && value == "":
		return l, errors.New("neither value, payload nor deleted")
	case l.Payload == nil && value[0] != '{':
		return l, errors.New("value: want an object such as {\"column\": 1}")
	}
	return l, nil
}

func put(ctx context.Context, kv schemas.KV, l *FeatureLine) error {
	if l.Deleted {
		return kv.Delete(ctx, l.Key, 0)
	}
	value := l.Payload
	if l.Value != nil {
		value = l.Value
	}
	_, err := kv.Put(ctx, l.Key, value)
	return err
}

// FeatureReading is the answer of features.read: an api.Stream.
type FeatureReading struct {
	ctx    context.Context
	b      Buckets
	bucket string
	one    *schemas.Change // nil: all
}

// ContentType is NDJSON.
func (*FeatureReading) ContentType() string { return "application/x-ndjson" }

// WriteBody writes the values that were there when it began.
func (r *FeatureReading) WriteBody(w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	write := func(c *schemas.Change) error {
		l := FeatureLine{Key: c.Key, Version: c.Version, Time: c.Time, Payload: c.Value}
		if json.Valid(c.Value) {
			l.Value, l.Payload = c.Value, nil
		}
		return enc.Encode(l)
	}
	if r.one != nil {
		return errors.Join(write(r.one), out.Flush())
	}
	ctx, enough := context.WithCancel(r.ctx)
	defer enough()
	var failed error
	whole := false
	err := r.b.FollowBucket(ctx, r.bucket, func(c *schemas.Change) {
		if !c.Deleted && !whole && failed == nil {
			if failed = write(c); failed != nil {
				enough()
			}
		}
	}, func(uint64) {
		whole = true
		enough()
	})
	if whole || failed != nil {
		err = failed
	}
	return errors.Join(err, out.Flush())
}
