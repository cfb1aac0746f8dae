package pipeline

import "runtime"

// Cores is how many runs of one model go on at once.
func Cores() int { return runtime.GOMAXPROCS(0) }

// Queued returns the rows that wait for a slot of a loaded model, "name@version".
func (h *Host) Queued(ref string) int {
	h.models.mu.Lock()
	defer h.models.mu.Unlock()
	n := 0
	for _, md := range h.models.mu.loaded {
		if b := md.batcher; b != nil && answeredBy(md.version.Name, md.version.Version, "").label[0] == ref {
			b.mu.Lock()
			for _, r := range b.mu.queue {
				n += r.in.Rows()
			}
			b.mu.Unlock()
		}
	}
	return n
}

// BanditSnapshots returns what the bandits of a pipeline know here, by node path: a snapshot each.
func (h *Host) BanditSnapshots(name string) map[string][]byte {
	h.mu.Lock()
	f := &h.mu.procs[name].bandits
	h.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string][]byte{}
	for path, b := range f.mu.bandits {
		all[path], _ = b.learner.Snapshot()
	}
	return all
}
