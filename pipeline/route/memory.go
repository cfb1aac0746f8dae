package route

import (
	"bytes"
	"cmp"
	"slices"
)

// memoryKey orders decisions: by their position, and among the rows of one message by id.
type memoryKey struct {
	decided uint64
	id      [16]byte
}

func (a memoryKey) compare(b memoryKey) int {
	if c := cmp.Compare(a.decided, b.decided); c != 0 {
		return c
	}
	return bytes.Compare(a.id[:], b.id[:])
}

// remembered is the reward that counts for a decision, in 2^-24.
type remembered struct {
	memoryKey
	value int64
	made  uint64 // fingerprint
}

// memory holds the rewards of the latest decisions, at most limit of them. Which those are depends on the decisions that
// came, not on their order, as long as none is forgotten.
type memory struct {
	limit int
	slots []remembered     // a place stays a decision's until it is forgotten
	heap  []int32          // slots, the earliest decision first
	byID  map[[16]byte]int // slot of an id
	edge  memoryKey        // the last decision that was forgotten
	any   bool             // whether one was
}

func (m *memory) init(limit int) { *m = memory{limit: limit, byID: make(map[[16]byte]int)} }

// find returns the decision's entry, to be changed in place but for its key, or nil.
func (m *memory) find(id [16]byte) *remembered {
	if i, ok := m.byID[id]; ok {
		return &m.slots[i]
	}
	return nil
}

// forgotten tells whether k may have been here and is no more.
func (m *memory) forgotten(k memoryKey) bool { return m.any && k.compare(m.edge) <= 0 }

// put adds a decision that is neither here nor forgotten, and forgets the earliest of all if there are too many.
func (m *memory) put(r remembered) {
	if len(m.heap) == m.limit {
		first := int(m.heap[0])
		if r.compare(m.slots[first].memoryKey) < 0 {
			m.edge, m.any = r.memoryKey, true
			return
		}
		m.edge, m.any = m.slots[first].memoryKey, true
		delete(m.byID, m.edge.id)
		m.slots[first] = r
		m.byID[r.id] = first
		m.down(0)
		return
	}
	m.byID[r.id] = len(m.slots)
	m.heap = append(m.heap, int32(len(m.slots)))
	m.slots = append(m.slots, r)
	m.up(len(m.heap) - 1)
}

func (m *memory) less(i, j int) bool {
	return m.slots[m.heap[i]].compare(m.slots[m.heap[j]].memoryKey) < 0
}

func (m *memory) up(i int) {
	for i > 0 && m.less(i, (i-1)/2) {
		m.heap[i], m.heap[(i-1)/2] = m.heap[(i-1)/2], m.heap[i]
		i = (i - 1) / 2
	}
}

func (m *memory) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(m.heap) {
			return
		}
		if c+1 < len(m.heap) && m.less(c+1, c) {
			c++
		}
		if !m.less(c, i) {
			return
		}
		m.heap[i], m.heap[c] = m.heap[c], m.heap[i]
		i = c
	}
}

// sorted returns all entries, the earliest decision first.
func (m *memory) sorted() []remembered {
	out := slices.Clone(m.slots)
	slices.SortFunc(out, func(a, b remembered) int { return a.compare(b.memoryKey) })
	return out
}
