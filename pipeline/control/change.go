package control

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// change is the value of control.change: a change that is decided and not finished (Pending), or the number of the last.
type change struct {
	Epoch   uint64    `json:"epoch"`
	Pending bool      `json:"pending"`
	Time    time.Time `json:"time"`
	Cause   string    `json:"cause"`
	Writes  []write   `json:"writes,omitempty"`
	Drops   []drop    `json:"drops,omitempty"`
	History []Entry   `json:"history,omitempty"`
}

// write is one key of a change.
type write struct {
	Key   string          `json:"key"`
	Last  uint64          `json:"last"` // KV revision that it replaces; 0: the key has never been
	Value json.RawMessage `json:"value"`
}

// drop is a version of a model to be deleted.
type drop struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
}

// compressFrom is the size of a change from which it is compressed: revisions of many pipelines on one model repeat its
// signature, and a key takes 1 MiB.
const compressFrom = 64 << 10

// maxChange bounds what a compressed change may grow to.
const maxChange = 256 << 20

func encodeChange(ch *change) ([]byte, error) {
	b, err := json.Marshal(ch)
	if err != nil || len(b) < compressFrom {
		return b, err
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err = w.Write(b)
	return z.Bytes(), errors.Join(err, w.Close())
}

func decodeChange(b []byte) (*change, error) {
	const op = "control.decodeChange"
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, schemas.Errorf(schemas.Internal, op, "key %s: %w", changeKey, err)
		}
		if b, err = io.ReadAll(io.LimitReader(r, maxChange)); err != nil {
			return nil, schemas.Errorf(schemas.Internal, op, "key %s: %w", changeKey, err)
		}
	}
	var ch change
	if err := json.Unmarshal(b, &ch); err != nil {
		return nil, schemas.Errorf(schemas.Internal, op, "key %s: %w", changeKey, err)
	}
	return &ch, nil
}

// readChange returns the change key and its KV revision; an empty change and 0 before the first one.
func (c *Control) readChange(ctx context.Context) (*change, uint64, error) {
	b, rev, err := c.kv.Get(ctx, changeKey)
	if err != nil {
		if schemas.KindOf(err) == schemas.NotFound {
			return &change{}, 0, nil
		}
		return nil, 0, err
	}
	ch, err := decodeChange(b)
	return ch, rev, err
}

// draft is a change that is being worked out on a state. Its methods change the state, so that later parts of the same
// change see earlier ones.
type draft struct {
	*state
	cause   string
	time    time.Time
	touched map[string]bool // keys
	drops   []drop
	history []Entry
	changes []Change
}

func (d *draft) setPipeline(name string, rev *pipeline.Revision) {
	d.touched[pipelinePrefix+name] = true
	if rev == nil {
		delete(d.pipelines, name)
		return
	}
	d.pipelines[name] = rev
}

func (d *draft) setAliases(model string, a *aliases) {
	d.touched[aliasPrefix+model] = true
	if a == nil {
		delete(d.aliases, model)
		return
	}
	d.aliases[model] = a
}

// note adds an entry to the history.
func (d *draft) note(e Entry) {
	e.Epoch, e.Time, e.Cause = d.epoch+1, d.time, d.cause
	d.history = append(d.history, e)
}

// writes turns the touched keys into what the change key holds.
func (d *draft) writes() ([]write, error) {
	var ws []write
	for _, key := range slices.Sorted(maps.Keys(d.touched)) {
		var v any
		if name := key[len(aliasPrefix):]; key[:len(aliasPrefix)] == aliasPrefix {
			v = d.aliases[name]
		} else {
			v = d.pipelines[key[len(pipelinePrefix):]]
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, schemas.Errorf(schemas.Internal, "control.change", "%w", err)
		}
		ws = append(ws, write{Key: key, Last: d.revs[key], Value: b})
	}
	return ws, nil
}

// maxRaces is how often a change is worked out again because another one was decided first.
const maxRaces = 32

// mutate works a change out with plan, decides it and finishes it. plan may run several times, on a fresh draft each
// time. With dry it stops before deciding. The error after a decision says so: the change stands, and is finished later.
func (c *Control) mutate(ctx context.Context, cause string, dry bool, plan func(d *draft) error) (Result, error) {
	const op = "control.change"
	for range maxRaces {
		ch, rev, err := c.readChange(ctx)
		if err != nil {
			return Result{}, err
		}
		if ch.Pending {
			if err := c.finish(ctx, ch, rev); err != nil {
				return Result{}, fmt.Errorf("an earlier change (%s) is not finished yet: %w", ch.Cause, err)
			}
			continue
		}
		s, err := c.load(ctx)
		if err != nil {
			return Result{}, err
		}
		// A key that was replaced during the pass may be absent from it: what is worked out on that would be wrong.
		if _, now, err := c.readChange(ctx); err != nil {
			return Result{}, err
		} else if now != rev {
			continue
		}
		s.epoch = ch.Epoch
		d := &draft{state: s, cause: cause, time: c.now(), touched: map[string]bool{}}
		if err := plan(d); err != nil {
			return Result{}, err
		}
		res := Result{Epoch: s.epoch, DryRun: dry, Changes: d.changes}
		if len(d.touched)+len(d.drops) == 0 || dry {
			return res, nil
		}
		next := &change{Epoch: s.epoch + 1, Pending: true, Time: d.time, Cause: cause, Drops: d.drops, History: d.history}
		if next.Writes, err = d.writes(); err != nil {
			return Result{}, err
		}
		rev, err = c.decide(ctx, next, rev)
		if errors.Is(err, schemas.ErrConflict) {
			continue
		}
		if err != nil {
			return Result{}, err
		}
		res.Epoch = next.Epoch
		if err := c.finish(ctx, next, rev); err != nil {
			return res, schemas.Errorf(schemas.KindOf(err), op, "change %d (%s) is decided and will be finished, but not all of it is written yet: %w", next.Epoch, cause, err)
		}
		return res, nil
	}
	return Result{}, schemas.Errorf(schemas.Unavailable, op, "%s: %d other changes came first; try again", cause, maxRaces)
}

// decide writes the change key. If the answer is lost, it looks whether its own change stands.
func (c *Control) decide(ctx context.Context, next *change, last uint64) (uint64, error) {
	b, err := encodeChange(next)
	if err != nil {
		return 0, schemas.Errorf(schemas.Internal, "control.change", "%w", err)
	}
	var rev uint64
	if last == 0 {
		rev, err = c.kv.Create(ctx, changeKey, b)
	} else {
		rev, err = c.kv.Update(ctx, changeKey, b, last)
	}
	if err != nil && schemas.KindOf(err) != schemas.Invalid {
		if now, at, gerr := c.kv.Get(ctx, changeKey); gerr == nil && bytes.Equal(now, b) {
			return at, nil
		}
	}
	return rev, err
}

// Finish completes a change that was decided by a process which did not complete it. Nothing pending is no error.
func (c *Control) Finish(ctx context.Context) error {
	ch, rev, err := c.readChange(ctx)
	if err != nil || !ch.Pending {
		return err
	}
	return c.finish(ctx, ch, rev)
}

// finish writes the keys, drops the versions, appends the history and sets the change key to idle. Any number of
// processes may do it at once, and any of them may stop anywhere.
func (c *Control) finish(ctx context.Context, ch *change, rev uint64) error {
	for _, w := range ch.Writes {
		over, err := c.write(ctx, ch, w)
		if err != nil || over {
			return err
		}
	}
	for _, d := range ch.Drops {
		if err := c.reg.Delete(ctx, d.Name, d.Version); err != nil && schemas.KindOf(err) != schemas.NotFound {
			return err
		}
	}
	for i := range ch.History {
		if err := c.append(ctx, &ch.History[i]); err != nil {
			return err
		}
	}
	b, err := encodeChange(&change{Epoch: ch.Epoch, Time: ch.Time, Cause: ch.Cause})
	if err != nil {
		return schemas.Errorf(schemas.Internal, "control.change", "%w", err)
	}
	if _, err = c.kv.Update(ctx, changeKey, b, rev); errors.Is(err, schemas.ErrConflict) {
		return nil // somebody else finished it
	}
	return err
}

// write puts one key where the change says. over means that the change was finished by others meanwhile.
func (c *Control) write(ctx context.Context, ch *change, w write) (over bool, err error) {
	if w.Last == 0 {
		_, err = c.kv.Create(ctx, w.Key, w.Value)
	} else {
		_, err = c.kv.Update(ctx, w.Key, w.Value, w.Last)
	}
	if !errors.Is(err, schemas.ErrConflict) {
		return false, err
	}
	now, _, err := c.kv.Get(ctx, w.Key)
	if err != nil {
		return false, err
	}
	if bytes.Equal(now, w.Value) {
		return false, nil
	}
	at, _, err := c.readChange(ctx)
	if err != nil {
		return false, err
	}
	if at.Epoch != ch.Epoch || !at.Pending {
		return true, nil
	}
	return false, schemas.Errorf(schemas.Internal, "control.change", "key %s was changed past control; change %d cannot be finished", w.Key, ch.Epoch)
}
