package pipeline

import (
	"slices"
	"sync/atomic"
)

// How scored runs are handed on to the doors that their rows came by, each topic in its order.

// pass hands on what was scored, in order, and frees it.
func (b *batcher) pass(rs []*run) {
	if !inTurn(rs) {
		b.passLater(slices.Clone(rs))
		return
	}
	for _, r := range rs {
		for i := 0; i < len(r.items); {
			j := r.segment(i)
			r.items[i].door.scored(r, r.items[i:j])
			i = j
		}
		b.free(r)
	}
}

// passLater is pass for runs with rows of a topic that wait for their turn. Waiting must not hold a slot that an earlier
// group of the same topic needs, nor hold up other doors: so each door goes on by itself. These goroutines are bounded by
// the doors' admission, and end with their doors.
func (b *batcher) passLater(rs []*run) {
	var left atomic.Int32
	ds := doorsOf(rs, nil)
	left.Store(int32(len(ds)))
	for _, dr := range ds {
		go func() {
			for _, r := range rs {
				for i := 0; i < len(r.items); {
					j := r.segment(i)
					if r.items[i].door == dr {
						dr.scored(r, r.items[i:j])
					}
					i = j
				}
			}
			if left.Add(-1) == 0 {
				for _, r := range rs {
					b.free(r)
				}
			}
		}()
	}
}

// segment returns the end of the neighbouring items of one door that begin at i.
func (r *run) segment(i int) int {
	j := i + 1
	for j < len(r.items) && r.items[j].door == r.items[i].door {
		j++
	}
	return j
}

// doorsOf appends the doors by which items came.
func doorsOf(rs []*run, ds []*door) []*door {
	for _, r := range rs {
		for i := 0; i < len(r.items); i = r.segment(i) {
			if dr := r.items[i].door; !slices.Contains(ds, dr) {
				ds = append(ds, dr)
			}
		}
	}
	return ds
}

// inTurn reports whether everything may be handed on now: no topic waits for an earlier group, nor for a scorer that
// cannot be reached.
func inTurn(rs []*run) bool {
	var some [4]*door
	seen := some[:0]
	for _, r := range rs {
		for i := 0; i < len(r.items); i = r.segment(i) {
			it := &r.items[i]
			if it.group == 0 {
				continue
			}
			if r.err != nil && passing(r.err) {
				return false
			}
			if slices.Contains(seen, it.door) {
				continue
			}
			if seen = append(seen, it.door); !it.door.myTurn(it.group) {
				return false
			}
		}
	}
	return true
}
