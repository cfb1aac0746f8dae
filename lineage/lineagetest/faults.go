package lineagetest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/leatstream/leat/schemas"
)

// forgetful is a log whose first appends are stored but never acknowledged to the caller.
type forgetful struct {
	schemas.Log
	left  atomic.Int64
	calls atomic.Int64
}

var errNoAnswer = errors.New("no answer")

func (f *forgetful) Append(ctx context.Context, subject, id string, payload []byte) (uint64, error) {
	f.calls.Add(1)
	seq, err := f.Log.Append(ctx, subject, id, payload)
	if err == nil && f.left.Add(-1) >= 0 {
		return 0, schemas.Errorf(schemas.Unavailable, "lineagetest", "%w", errNoAnswer)
	}
	return seq, err
}
