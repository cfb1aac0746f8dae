package control

import (
	"context"
	"maps"
	"slices"
	"strings"

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
	w := watcher{c: c, fn: fn, active: map[string]*pipeline.Revision{}, held: map[string]*pipeline.Revision{}}
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

// watcher follows the keys. Everything runs on the goroutine of one KV watch. The values come in the order in which they
// were written, but one that was replaced before it was read never comes. A change writes control.change, its pipelines'
// keys, and control.change again: so what the keys say is held until the next word of control.change, and is told with it.
type watcher struct {
	c      *Control
	fn     func(Update) error
	err    error
	begun  bool
	epoch  uint64
	active map[string]*pipeline.Revision
	held   map[string]*pipeline.Revision // read and not told yet; nil: deleted
}

func (w *watcher) see(key string, value []byte, deleted bool) error {
	switch {
	case key == "":
		return w.begin()
	case deleted:
		return nil
	case key == changeKey:
		return w.change(value)
	}
	if err := w.hold(key, value); err != nil {
		w.c.out.Error("control: a key that cannot be read", "key", key, "error", err)
	}
	return nil
}

// begin runs when all keys were seen once.
func (w *watcher) begin() error {
	if w.begun {
		return nil
	}
	if err := w.tell(); err != nil {
		return err
	}
	w.begun = true
	u := Update{Epoch: w.epoch, All: true}
	for _, name := range slices.Sorted(maps.Keys(w.active)) {
		u.Active = append(u.Active, *w.active[name])
	}
	return w.fn(u)
}

// change takes a new value of the change key: a decided change is told from the key itself, before its keys are written.
func (w *watcher) change(value []byte) error {
	ch, err := decodeChange(value)
	if err != nil {
		w.c.out.Error("control: a key that cannot be read", "key", changeKey, "error", err)
		return nil
	}
	w.epoch = ch.Epoch
	for _, wr := range ch.Writes {
		if err := w.hold(wr.Key, wr.Value); err != nil {
			return err
		}
	}
	return w.tell()
}

// hold keeps what a key says, if it is that of a pipeline.
func (w *watcher) hold(key string, value []byte) error {
	name, ok := strings.CutPrefix(key, pipelinePrefix)
	if !ok || name == "" {
		return nil
	}
	s := state{aliases: map[string]*aliases{}, pipelines: map[string]*pipeline.Revision{}}
	if err := s.set(key, value); err != nil {
		return err
	}
	w.held[name] = s.pipelines[name]
	return nil
}

// tell passes on what is held and differs from what is known.
func (w *watcher) tell() error {
	u := Update{Epoch: w.epoch}
	for _, name := range slices.Sorted(maps.Keys(w.held)) {
		rev, old := w.held[name], w.active[name]
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
	clear(w.held)
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
