package learn

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
	"github.com/leatstream/leat/pipeline/route"
)

// A snapshot, all numbers little-endian:
//
//	8     "LEATLRN2"
//	32    identity, in hex
//	8, 8  position; the first message that has to be read to fill the table
//	2*8   counts: lost, silent
//	4     feedbacks that wait, each 16 id, 16 name, 8 reward; in the order in which they came
//	4     feedbacks that are known, each 16 key; the oldest first
//	4     bytes of the fold's snapshot, and that
//	8     XXH64 of all before
//
// The decisions that may be rewarded are not in it: they are in the log, and would be most of it.
const snapshotMagic = "LEATLRN2"

// headSize is that of a snapshot before the feedbacks.
const headSize = 8 + 32 + 4*8

// Snapshot returns what a Learner of the same identity starts from. While the table is being read again
// it is that of the last Restore, which would be no progress; see Position and From.
func (l *Learner) Snapshot() ([]byte, error) {
	le := binary.LittleEndian
	from := l.table.first()
	if from == 0 {
		from = l.position + 1
	}
	b := append(make([]byte, 0, 1<<16), snapshotMagic...)
	b = append(b, l.config.Identity()...)
	for _, v := range []uint64{l.Position(), from, l.counts.Lost, l.counts.Silent} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, uint32(len(l.early.waiting)))
	for _, w := range l.early.waiting {
		b = append(append(b, w.id[:]...), w.name[:]...)
		b = le.AppendUint64(b, math.Float64bits(w.value))
	}
	keys := l.said.inOrder()
	b = le.AppendUint32(b, uint32(len(keys)))
	for _, k := range keys {
		b = append(b, k[:]...)
	}
	fold, err := l.fold.MarshalBinary()
	if err != nil {
		return nil, err
	}
	b = append(le.AppendUint32(b, uint32(len(fold))), fold...)
	return le.AppendUint64(b, xxhash.Sum64(b)), nil
}

// SnapshotPosition returns the position of a snapshot, 0 if it is none or not of this identity.
func SnapshotPosition(b []byte, identity string) uint64 {
	if len(b) < headSize+8 || string(b[:8]) != snapshotMagic || string(b[8:40]) != identity {
		return 0
	}
	return binary.LittleEndian.Uint64(b[40:])
}

// Restore replaces what a new Learner knows by a snapshot of the same identity. The log is to be read on from From. Invalid:
// the bytes are none, are damaged or of another identity; the Learner is as it was.
func (l *Learner) Restore(b []byte) error {
	position := SnapshotPosition(b, l.config.Identity())
	if position == 0 {
		return errSnapshot
	}
	le := binary.LittleEndian
	body := b[:len(b)-8]
	if le.Uint64(b[len(body):]) != xxhash.Sum64(body) {
		return errSnapshot
	}
	from := le.Uint64(b[48:])
	rest, ok := body[headSize:], from > 0 && from <= position+1
	take := func(n int) []byte {
		if ok = ok && n >= 0 && n <= len(rest); !ok {
			return make([]byte, 16)
		}
		out := rest[:n]
		rest = rest[n:]
		return out
	}
	var e early
	var s said
	e.init(l.early.limit)
	s.init(l.said.limit)
	for n := le.Uint32(take(4)); ok && n > 0 && len(e.waiting) < e.limit; n-- {
		a := aim{[16]byte(take(16)), [16]byte(take(16))}
		e.put(a, math.Float64frombits(le.Uint64(take(8))))
	}
	for n := le.Uint32(take(4)); ok && n > 0 && len(s.keys) < s.limit; n-- {
		s.put([16]byte(take(16)))
	}
	fold := take(int(le.Uint32(take(4))))
	f := route.NewFold(l.config.Plan)
	if !ok || len(rest) > 0 || f.UnmarshalBinary(fold) != nil {
		return errSnapshot
	}
	l.fold, l.early, l.said = f, e, s
	l.counts = Counts{Lost: le.Uint64(b[56:]), Silent: le.Uint64(b[64:])}
	l.position, l.learnt = from-1, position
	return nil
}
