package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// Keys of the store. A job's revision lies under a key of its own: it may be large, and never changes.
const (
	jobPrefix      = "job."
	leasePrefix    = "lease."
	revisionPrefix = "revision."
)

// store keeps jobs in the KV.
type store struct{ kv schemas.KV }

func (s store) get(ctx context.Context, id string) (*Job, uint64, error) {
	b, rev, err := s.kv.Get(ctx, jobPrefix+id)
	if err != nil {
		if schemas.KindOf(err) == schemas.NotFound {
			err = schemas.FieldErrorf(schemas.NotFound, "bulk.get", "id", "no job %.40q", id)
		}
		return nil, 0, err
	}
	j, err := parseJob(b)
	return j, rev, err
}

func parseJob(b []byte) (*Job, error) {
	j := &Job{}
	if err := json.Unmarshal(b, j); err != nil {
		return nil, schemas.Errorf(schemas.Internal, "bulk.parseJob", "a stored job cannot be read: %w", err)
	}
	return j, nil
}

func (s store) create(ctx context.Context, j *Job, rev *pipeline.Revision) error {
	b, err := json.Marshal(rev)
	if err != nil {
		return schemas.Errorf(schemas.Internal, "bulk.create", "%w", err)
	}
	if _, err := s.kv.Create(ctx, revisionPrefix+j.ID, b); err != nil {
		return err
	}
	if b, err = json.Marshal(j); err != nil {
		return schemas.Errorf(schemas.Internal, "bulk.create", "%w", err)
	}
	_, err = s.kv.Create(ctx, jobPrefix+j.ID, b)
	return err
}

func (s store) revision(ctx context.Context, id string) (*pipeline.Revision, error) {
	b, _, err := s.kv.Get(ctx, revisionPrefix+id)
	if err != nil {
		return nil, err
	}
	r := &pipeline.Revision{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, schemas.Errorf(schemas.Internal, "bulk.revision", "the stored revision of job %s cannot be read: %w", id, err)
	}
	return r, nil
}

// errUnchanged as fn's error in update means: leave the job as it is.
var errUnchanged = errors.New("unchanged")

// update changes a job by compare-and-set: fn is called again, on the newer job, when somebody else was first.
func (s store) update(ctx context.Context, id string, fn func(*Job) error) (*Job, error) {
	for {
		j, rev, err := s.get(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := fn(j); err != nil {
			if errors.Is(err, errUnchanged) {
				err = nil
			}
			return j, err
		}
		b, err := json.Marshal(j)
		if err != nil {
			return nil, schemas.Errorf(schemas.Internal, "bulk.update", "%w", err)
		}
		if _, err = s.kv.Update(ctx, jobPrefix+id, b, rev); err == nil {
			return j, nil
		}
		if !errors.Is(err, schemas.ErrConflict) {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// list returns the ids of all jobs, oldest first: ids begin with the time.
func (s store) list(ctx context.Context) ([]string, error) {
	keys, err := s.kv.Keys(ctx, jobPrefix)
	if err != nil {
		return nil, err
	}
	for i := range keys {
		keys[i] = strings.TrimPrefix(keys[i], jobPrefix)
	}
	return keys, nil
}
