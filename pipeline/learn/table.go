package learn

import (
	"crypto/sha256"
	"slices"

	"github.com/leatstream/leat/lineage"
)

// decision is one that may be rewarded.
type decision struct {
	aim
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
	byName     map[[16]byte]int32 // the one that was recorded last
}

func (t *table) init(limit, dim int) {
	*t = table{limit: limit, dim: dim, byID: map[[16]byte]int32{}, byName: map[[16]byte]int32{}}
}

// find returns the decision that is meant, nil if it is not there.
func (t *table) find(a aim) *decision {
	i, ok := t.byID[a.id]
	if !ok {
		i, ok = t.byName[a.name]
	}
	if !ok {
		return nil
	}
	return &t.slots[i]
}

func (t *table) context(d *decision) []float64 {
	i := int(t.byID[d.id])
	return t.contexts[i*t.dim : (i+1)*t.dim]
}

// put adds a decision and returns it in its place; context is copied.
func (t *table) put(d decision, context []float64) *decision {
	at := t.oldest
	if len(t.slots) < t.limit {
		at = len(t.slots)
		t.slots = append(t.slots, d)
		t.contexts = append(t.contexts, make([]float64, t.dim)...)
	} else {
		old := &t.slots[at]
		if t.byID[old.id] == int32(at) { // else it was made again since
			delete(t.byID, old.id)
		}
		if t.byName[old.name] == int32(at) {
			delete(t.byName, old.name)
		}
		t.slots[at] = d
		t.oldest = (at + 1) % t.limit
	}
	copy(t.contexts[at*t.dim:(at+1)*t.dim], context)
	t.byID[d.id], t.byName[d.name] = int32(at), int32(at)
	return &t.slots[at]
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
	aim
	value float64
}

// early holds the rewards that came before their decisions, in the order in which they came.
type early struct {
	limit   int
	waiting []waiting
	names   map[[16]byte]int // how many wait, by name
}

func (e *early) init(limit int) { *e = early{limit: limit, names: map[[16]byte]int{}} }

// take takes out what waits for a decision: all that names it, of which counts what its own principal said, else what was said last.
func (e *early) take(a aim) (value float64, ok bool) {
	if e.names[a.name] == 0 {
		return 0, false
	}
	own := false
	e.waiting = slices.DeleteFunc(e.waiting, func(w waiting) bool {
		if w.name != a.name {
			return false
		}
		if own = own || w.id == a.id; w.id == a.id || !own {
			value = w.value
		}
		return true
	})
	delete(e.names, a.name)
	return value, true
}

// put adds a reward, in place of one that the same principal said of the same decision; true if the oldest was lost to make room.
func (e *early) put(a aim, value float64) (lost bool) {
	if e.names[a.name] > 0 {
		if i := slices.IndexFunc(e.waiting, func(w waiting) bool { return w.id == a.id }); i >= 0 {
			e.remove(i)
		}
	}
	if lost = len(e.waiting) == e.limit; lost {
		e.remove(0)
	}
	e.waiting = append(e.waiting, waiting{a, value})
	e.names[a.name]++
	return lost
}

func (e *early) remove(i int) {
	name := e.waiting[i].name
	if e.names[name]--; e.names[name] == 0 {
		delete(e.names, name)
	}
	e.waiting = slices.Delete(e.waiting, i, i+1)
}

// said knows the last feedbacks: a ring of what repeats agree in.
type said struct {
	limit  int
	keys   [][16]byte
	oldest int
	is     map[[16]byte]struct{}
}

func (s *said) init(limit int) { *s = said{limit: limit, is: map[[16]byte]struct{}{}} }

// saidBy is what repeats of a feedback agree in.
func saidBy(f *lineage.Feedback) [16]byte {
	sum := sha256.Sum256([]byte(f.Principal + "\x00" + f.ID)) // neither has a NUL
	return [16]byte(sum[:16])
}

// first reports whether a feedback is no repeat, and notes it.
func (s *said) first(key [16]byte) bool {
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
