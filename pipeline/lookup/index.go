package lookup

import (
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// index finds rows by key: open addressing over a power of two of slots, of which at least a quarter are empty. One
// goroutine changes it. A reader that meets it while it changes sees each key as it was before or after.
type index struct {
	now  atomic.Pointer[slots]
	keys int // that are there
	used int // slots with a row, of keys that are gone too
}

type slots struct {
	mask uint64
	rows []atomic.Pointer[Row]
}

const leastSlots = 16

func newSlots(n int) *slots { return &slots{mask: uint64(n - 1), rows: make([]atomic.Pointer[Row], n)} }

// find returns the row of a key, nil if it is not there. It does not allocate.
func (x *index) find(key []byte) *Row {
	s, h := x.now.Load(), xxhash.Sum64(key)
	for i := h & s.mask; ; i = (i + 1) & s.mask {
		r := s.rows[i].Load()
		if r == nil {
			return nil
		}
		if r.hash == h && r.key() == string(key) {
			if r.version == 0 {
				return nil
			}
			return r
		}
	}
}

// slot returns where the row of a key is, or would be.
func (s *slots) slot(h uint64, key string) *atomic.Pointer[Row] {
	for i := h & s.mask; ; i = (i + 1) & s.mask {
		if r := s.rows[i].Load(); r == nil || r.hash == h && r.key() == key {
			return &s.rows[i]
		}
	}
}

// set puts a row in the place of the one of its key.
func (x *index) set(r *Row) {
	s := x.now.Load()
	at := s.slot(r.hash, r.key())
	old := at.Load()
	if old == nil {
		if 4*(x.used+1) > 3*len(s.rows) {
			s = x.rehash()
			at = s.slot(r.hash, r.key())
		}
		x.used++
	}
	if there(old) {
		x.keys--
	}
	if there(r) {
		x.keys++
	}
	at.Store(r)
}

func there(r *Row) bool { return r != nil && r.version > 0 }

// rehash makes an index without the keys that are gone, half of whose slots or more are empty.
func (x *index) rehash() *slots {
	n := leastSlots
	for n < 2*(x.keys+1) {
		n *= 2
	}
	old, s := x.now.Load(), newSlots(n)
	x.used = 0
	for i := range old.rows {
		if r := old.rows[i].Load(); there(r) {
			s.slot(r.hash, r.key()).Store(r)
			x.used++
		}
	}
	x.now.Store(s)
	return s
}

// each calls fn for each row that is there.
func (x *index) each(fn func(r *Row)) {
	s := x.now.Load()
	for i := range s.rows {
		if r := s.rows[i].Load(); there(r) {
			fn(r)
		}
	}
}
