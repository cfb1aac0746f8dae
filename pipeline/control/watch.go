package control

import (
	"context"
	"maps"
	"slices"

	"github.com/leatstream/leat/pipeline"
)

// Update is what one change made active, or what is active when a watch begins.
type Update struct {
	Epoch   uint64              // number of the change
	All     bool                // the first update: Active is every pipeline there is
	Active  []pipeline.Revision // new or changed, sorted by name; the caller keeps and does not change them
	Deleted []string            // names of pipelines that are no more
}

// Watch calls fn with all active revisions and then with each change, as a whole, as soon as it is decided, until ctx
// ends or fn returns an error, which Watch returns. fn runs on one goroutine and may block: changes wait, and those that
// it was too slow for may come together. When the store is lost for good, Watch returns what happened; a watch that is
// begun again starts from All.
func (c *Control) Watch(ctx context.Context, fn func(Update) error) error {
	pass, stop := context.WithCancel(ctx)
	defer stop()
	w := watcher{c: c, fn: fn, active: map[string]*pipeline.Revision{}, pending: map[string]bool{}}
	err := c.kv.Watch(pass, prefix, func(key string, value []byte, revision uint64, deleted bool) {
		if w.err != nil {
			return
		}
		if w.err = w.see(key, value, deleted); w.err != nil {
			stop()
		}
	})
	if w.err != nil {
		return w.err
	}
	return err
}

// watcher follows the keys. Everything runs on the goroutine of one KV watch.
type watcher struct {
	c       *Control
	fn      func(Update) error
	err     error
	begun   bool
	epoch   uint64
	active  map[string]*pipeline.Revision
	pending map[string]bool // keys of the change that is decided: told already, so what the keys still hold is old
	first   *change         // a change that was pending when the watch began
}

func (w *watcher) see(key string, value []byte, deleted bool) error {
	switch {
	case key == "":
		return w.begin()
	case key == changeKey:
		return w.change(value, deleted)
	case w.pending[key] || deleted:
		return nil
	}
	s := state{aliases: map[string]*aliases{}, pipelines: map[string]*pipeline.Revision{}}
	if err := s.set(key, value); err != nil {
		w.c.out.Error("control: a key that cannot be read", "key", key, "error", err)
		return nil
	}
	if len(key) <= len(pipelinePrefix) || key[:len(pipelinePrefix)] != pipelinePrefix {
		return nil
	}
	name := key[len(pipelinePrefix):]
	return w.tell(map[string]*pipeline.Revision{name: s.pipelines[name]})
}

// begin runs when all keys were seen once.
func (w *watcher) begin() error {
	if w.begun {
		return nil
	}
	w.begun = true
	if w.first != nil {
		if err := w.lay(w.first); err != nil {
			return err
		}
		w.first = nil
	}
	u := Update{Epoch: w.epoch, All: true}
	for _, name := range slices.Sorted(maps.Keys(w.active)) {
		u.Active = append(u.Active, *w.active[name])
	}
	return w.fn(u)
}

// change takes a new value of the change key: a decided change is told whole, from the key itself.
func (w *watcher) change(value []byte, deleted bool) error {
	if deleted {
		return nil
	}
	ch, err := decodeChange(value)
	if err != nil {
		w.c.out.Error("control: a key that cannot be read", "key", changeKey, "error", err)
		return nil
	}
	if w.first != nil { // finished before the watch had begun, and its keys were passed over
		if err := w.lay(w.first); err != nil {
			return err
		}
		w.first = nil
	}
	w.epoch = ch.Epoch
	clear(w.pending)
	if !ch.Pending {
		return nil
	}
	for _, wr := range ch.Writes {
		w.pending[wr.Key] = true
	}
	if !w.begun {
		w.first = ch
		return nil
	}
	changed, err := w.read(ch)
	if err != nil {
		return err
	}
	return w.tell(changed)
}

// read returns the pipelines of a change; nil for those that it deletes.
func (w *watcher) read(ch *change) (map[string]*pipeline.Revision, error) {
	s := state{aliases: map[string]*aliases{}, pipelines: map[string]*pipeline.Revision{}}
	changed := map[string]*pipeline.Revision{}
	for _, wr := range ch.Writes {
		if err := s.set(wr.Key, wr.Value); err != nil {
			return nil, err
		}
		if len(wr.Key) > len(pipelinePrefix) && wr.Key[:len(pipelinePrefix)] == pipelinePrefix {
			name := wr.Key[len(pipelinePrefix):]
			changed[name] = s.pipelines[name]
		}
	}
	return changed, nil
}

// lay puts a change over what is active without telling.
func (w *watcher) lay(ch *change) error {
	changed, err := w.read(ch)
	for name, rev := range changed {
		if rev == nil {
			delete(w.active, name)
		} else {
			w.active[name] = rev
		}
	}
	return err
}

// tell passes on what differs from what is known.
func (w *watcher) tell(changed map[string]*pipeline.Revision) error {
	u := Update{Epoch: w.epoch}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		rev, old := changed[name], w.active[name]
		switch {
		case rev == nil && old == nil, rev != nil && old != nil && rev.Revision == old.Revision:
		case rev == nil:
			delete(w.active, name)
			u.Deleted = append(u.Deleted, name)
		default:
			w.active[name] = rev
			u.Active = append(u.Active, *rev)
		}
	}
	if !w.begun || len(u.Active)+len(u.Deleted) == 0 {
		return nil
	}
	return w.fn(u)
}

// Follow is Watch one pipeline at a time, as pipeline.Host takes it: fn gets each active revision, then once an empty
// name, then what changes; nil for a pipeline that was deleted.
func (c *Control) Follow(ctx context.Context, fn func(name string, rev *pipeline.Revision)) error {
	return c.Watch(ctx, func(u Update) error {
		for i := range u.Active {
			fn(u.Active[i].Spec.Name, &u.Active[i])
		}
		for _, name := range u.Deleted {
			fn(name, nil)
		}
		if u.All {
			fn("", nil)
		}
		return nil
	})
}
