package route

// remembered is the reward that counts for a decision.
type remembered struct {
	id    [16]byte // of the decision
	value int64    // in 2^-24
	made  uint64   // fingerprint of its arm and context
}

// memory holds the decisions that were first rewarded last, at most limit of them: a ring.
type memory struct {
	limit  int
	slots  []remembered
	oldest int // slot that goes next, once the ring is full
	byID   map[[16]byte]int32
}

func (m *memory) init(limit int) { *m = memory{limit: limit, byID: make(map[[16]byte]int32)} }

// find returns the decision's entry, to be changed in place but for its id, or nil.
func (m *memory) find(id [16]byte) *remembered {
	if i, ok := m.byID[id]; ok {
		return &m.slots[i]
	}
	return nil
}

// put adds a decision that is not here; the oldest makes room.
func (m *memory) put(r remembered) {
	at := m.oldest
	if len(m.slots) < m.limit {
		at = len(m.slots)
		m.slots = append(m.slots, r)
	} else {
		delete(m.byID, m.slots[at].id)
		m.slots[at] = r
		m.oldest = (at + 1) % m.limit
	}
	m.byID[r.id] = int32(at)
}

// inOrder returns all entries, the oldest first, in two parts.
func (m *memory) inOrder() [2][]remembered {
	return [2][]remembered{m.slots[m.oldest:], m.slots[:m.oldest]}
}
