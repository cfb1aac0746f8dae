package learn

import (
	"crypto/sha256"
	"slices"

	"github.com/leatstream/leat/lineage"
)

// decision is one that may be rewarded.
type decision struct {
	id       [16]byte
	position uint64 // of its message
	arm      int32  // -1: the bandit has it not any more
	whole    bool   // its context is known
}

// table holds the last decisions of the log: a ring. It depends on these alone, so it can be made again by reading on from the
// oldest.
type table struct {
	limit, dim int
	slots      []decision
	contexts   []float64 // dim for each slot
	oldest     int       // slot that goes next, once the ring is full
	byID       map[[16]byte]int32
}

func (t *table) init(limit, dim int) {
	*t = table{limit: limit, dim: dim, byID: map[[16]byte]int32{}}
}

func (t *table) find(id [16]byte) *decision {
	if i, ok := t.byID[id]; ok {
		return &t.slots[i]
	}
	return nil
}

func (t *table) context(d *decision) []float64 {
	i := int(t.byID[d.id])
	return t.contexts[i*t.dim : (i+1)*t.dim]
}

// put adds a decision; context is copied, and zeros if it has none.
func (t *table) put(d decision, context []float64) {
	at := t.oldest
	if len(t.slots) < t.limit {
		at = len(t.slots)
		t.slots = append(t.slots, d)
		t.contexts = append(t.contexts, make([]float64, t.dim)...)
	} else {
		if old := t.slots[at].id; t.byID[old] == int32(at) { // else it was made again since
			delete(t.byID, old)
		}
		t.slots[at] = d
		t.oldest = (at + 1) % t.limit
	}
	clear(t.contexts[at*t.dim : (at+1)*t.dim])
	copy(t.contexts[at*t.dim:(at+1)*t.dim], context)
	t.byID[d.id] = int32(at)
}

// first returns the position of the oldest decision, 0 if there is none.
func (t *table) first() uint64 {
	switch {
	case len(t.slots) == 0:
		return 0
	case len(t.slots) < t.limit:
		return t.slots[0].position
	}
	return t.slots[t.oldest].position
}

// waiting is a reward whose decision is not in the log yet.
type waiting struct {
	id    [16]byte
	value float64
}

// early holds the rewards that came before their decisions, in the order in which they came.
type early struct {
	limit   int
	waiting []waiting
	is      map[[16]byte]struct{}
}

func (e *early) init(limit int) { *e = early{limit: limit, is: map[[16]byte]struct{}{}} }

func (e *early) take(id [16]byte) (float64, bool) {
	if _, ok := e.is[id]; !ok {
		return 0, false
	}
	i := slices.IndexFunc(e.waiting, func(w waiting) bool { return w.id == id })
	v := e.waiting[i].value
	e.waiting = slices.Delete(e.waiting, i, i+1)
	delete(e.is, id)
	return v, true
}

// put adds a reward, in place of one of the same decision; true if the oldest was lost to make room.
func (e *early) put(id [16]byte, value float64) (lost bool) {
	e.take(id)
	if lost = len(e.waiting) == e.limit; lost {
		e.take(e.waiting[0].id)
	}
	e.waiting = append(e.waiting, waiting{id, value})
	e.is[id] = struct{}{}
	return lost
}

// said knows the last feedbacks: a ring of what repeats agree in.
type said struct {
	limit  int
	keys   [][16]byte
	oldest int
	is     map[[16]byte]struct{}
}

func (s *said) init(limit int) { *s = said{limit: limit, is: map[[16]byte]struct{}{}} }

// first reports whether a feedback is no repeat, and notes it.
func (s *said) first(f *lineage.Feedback) bool {
	sum := sha256.Sum256([]byte(f.Principal + "\x00" + f.ID)) // neither has a NUL
	key := [16]byte(sum[:16])
	if _, ok := s.is[key]; ok {
		return false
	}
	s.put(key)
	return true
}

func (s *said) put(key [16]byte) {
	if len(s.keys) < s.limit {
		s.keys = append(s.keys, key)
	} else {
		delete(s.is, s.keys[s.oldest])
		s.keys[s.oldest] = key
		s.oldest = (s.oldest + 1) % s.limit
	}
	s.is[key] = struct{}{}
}

// inOrder returns all keys, the oldest first.
func (s *said) inOrder() [][16]byte {
	return append(slices.Clone(s.keys[s.oldest:]), s.keys[:s.oldest]...)
}
