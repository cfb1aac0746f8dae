package onnx

import (
	"slices"
	"sync"
)

// Bounds of a scorer's pool. Natural batching meets a few dozen batch sizes again and again; making a set anew costs
// a microsecond or two a column, which matters below 64 rows and not above. The budget keeps wide models from
// holding much memory between runs.
const (
	maxIdle      = 64
	maxIdleBytes = 16 << 20
)

// pool keeps bound sets that no run uses, the most recently used last.
type pool struct {
	mu    sync.Mutex
	idle  []*bound
	bytes int
}

// take returns an idle set of so many rows, or nil.
func (p *pool) take(rows int) *bound {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		b := p.idle[i]
		if b.rows != rows {
			continue
		}
		p.idle = slices.Delete(p.idle, i, i+1)
		p.bytes -= b.bytes
		return b
	}
	return nil
}

// put keeps a set and drops those that were not used for longest, past the bounds. The set itself is always kept.
func (p *pool) put(b *bound) {
	p.mu.Lock()
	p.idle = append(p.idle, b)
	p.bytes += b.bytes
	var old []*bound
	n := 0
	for len(p.idle)-n > maxIdle || (p.bytes > maxIdleBytes && len(p.idle)-n > 1) {
		p.bytes -= p.idle[n].bytes
		old = append(old, p.idle[n])
		n++
	}
	if n > 0 {
		p.idle = slices.Delete(p.idle, 0, n)
	}
	p.mu.Unlock()
	for _, b := range old {
		b.destroy()
	}
}

// drain destroys all idle sets.
func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.idle {
		b.destroy()
	}
	p.idle, p.bytes = nil, 0
}
