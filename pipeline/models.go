package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// models keeps one loaded scorer and its batcher for each model digest, shared by all revisions that use it, and closes
// it when the last one lets go.
type models struct {
	store   scorers.Store
	loaders map[string]scorers.Loader // by runtime
	lanes   *lanes
	poison  *Poison
	m       *Metrics
	tables  *lookup.Tables // nil: lookups are not possible here

	described sync.Map // schemas.SchemaID -> *schemas.Schema of signatures; bounded by the models that are ever loaded

	mu struct {
		sync.Mutex
		loaded map[string]*model // by digest
	}
}

// model is a loaded model version.
type model struct {
	version scorers.Version
	*batcher
	refs  int           // guarded by models.mu
	ready chan struct{} // closed when loading has ended
	err   error         // why it failed; read after ready
}

func newModels(store scorers.Store, loaders []scorers.Loader, cores int, p *Poison, m *Metrics) *models {
	if cores == 0 {
		cores = runtime.GOMAXPROCS(0)
	}
	ms := &models{store: store, loaders: map[string]scorers.Loader{}, lanes: newLanes(cores), poison: p, m: m}
	for _, l := range loaders {
		ms.loaders[l.Runtime()] = l
	}
	ms.mu.loaded = map[string]*model{}
	return ms
}

// acquire loads a version, or joins whoever loads it or has it. Every success is paired with release.
func (ms *models) acquire(ctx context.Context, name string, version int) (*model, error) {
	v, err := ms.store.Version(ctx, name, version)
	if err != nil {
		return nil, err
	}
	for {
		md, joined, err := ms.join(ctx, v)
		switch {
		case err == nil:
			return md, nil
		case joined && ctx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
			continue // whoever was loading it was told to stop; nobody told us
		}
		return nil, fmt.Errorf("load %s@%d: %w", name, version, err)
	}
}

// join is acquire once; joined says that somebody else loads the model or has it.
func (ms *models) join(ctx context.Context, v scorers.Version) (md *model, joined bool, err error) {
	ms.mu.Lock()
	md, ok := ms.mu.loaded[v.Digest]
	if !ok {
		md = &model{version: v, ready: make(chan struct{})}
		ms.mu.loaded[v.Digest] = md
	}
	md.refs++
	ms.mu.Unlock()
	if !ok {
		md.batcher, md.err = ms.load(ctx, v)
		if md.err != nil {
			ms.forget(md) // who comes now tries for himself
		}
		close(md.ready)
	}
	select {
	case <-md.ready:
		err = md.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		ms.release(md)
		return nil, ok, err
	}
	return md, ok, nil
}

func (ms *models) forget(md *model) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.mu.loaded[md.version.Digest] == md {
		delete(ms.mu.loaded, md.version.Digest)
	}
}

func (ms *models) load(ctx context.Context, v scorers.Version) (*batcher, error) {
	l, ok := ms.loaders[v.Manifest.Runtime]
	if !ok {
		return nil, schemas.Errorf(schemas.Unavailable, "pipeline.load", "no runtime %q in this process", v.Manifest.Runtime)
	}
	p, err := ms.store.Open(ctx, v)
	if err != nil {
		return nil, err
	}
	s, err := l.Load(ctx, p, v.Probed)
	if err != nil {
		return nil, err
	}
	for _, x := range []*schemas.Schema{s.Signature().Inputs, s.Signature().Outputs} {
		ms.described.Store(x.ID(), x)
	}
	return newBatcher(s, v.Digest, ms.lanes, ms.poison, ms.m), nil
}

// release lets go of a model; the last one closes it, which waits for its runs in flight.
func (ms *models) release(md *model) {
	ms.mu.Lock()
	md.refs--
	last := md.refs == 0
	if last && ms.mu.loaded[md.version.Digest] == md {
		delete(ms.mu.loaded, md.version.Digest)
	}
	ms.mu.Unlock()
	if !last {
		return
	}
	<-md.ready // a loader that was not waited for holds a reference itself
	if md.batcher != nil {
		_ = md.scorer.Close() // nobody is left to tell, and nothing is left to do
	}
}
