package route

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

// A snapshot, all numbers little-endian:
//
//	8   "LEATFOLD"
//	2   version, 1
//	8   digest of the arms, the context and how much is remembered
//	8,4 position, index
//	5*8 counts of outcomes
//	for each arm: 8 count, 16 sum; of a linear plan of d dimensions, d*16 xr and d*(d+1)/2*16 xx
//	4   remembered decisions, each 16 id, 8 value, 8 fingerprint; in the order of their first rewards
//	8   XXH64 of all before
//
// A fold has one snapshot, and a snapshot that is taken is the one of the fold that it makes.
const (
	snapshotMagic   = "LEATFOLD"
	snapshotVersion = 1
	entrySize       = 32
)

// MarshalBinary writes a snapshot; it never fails. Its size is at most 2.3 MB for 64 arms of 64 dimensions, and 32 bytes for
// each remembered decision.
func (f *Fold) MarshalBinary() ([]byte, error) {
	le := binary.LittleEndian
	b := make([]byte, 0, f.fixedSize()+entrySize*len(f.memory.slots))
	b = append(b, snapshotMagic...)
	b = le.AppendUint16(b, snapshotVersion)
	b = le.AppendUint64(b, f.plan.folds)
	b = le.AppendUint64(b, f.position)
	b = le.AppendUint32(b, f.index)
	for _, n := range f.counts {
		b = le.AppendUint64(b, n)
	}
	sum := func(s sum128) { b = le.AppendUint64(le.AppendUint64(b, s.lo), uint64(s.hi)) }
	for i := range f.arms {
		s := &f.arms[i]
		b = le.AppendUint64(b, s.n)
		sum(s.sum)
		for _, v := range s.xr {
			sum(v)
		}
		for _, v := range s.xx {
			sum(v)
		}
	}
	b = le.AppendUint32(b, uint32(len(f.memory.slots)))
	for _, part := range f.memory.inOrder() {
		for _, r := range part {
			b = append(b, r.id[:]...)
			b = le.AppendUint64(b, uint64(r.value))
			b = le.AppendUint64(b, r.made)
		}
	}
	return le.AppendUint64(b, xxhash.Sum64(b)), nil
}

// fixedSize is the size of a snapshot that remembers no decision.
func (f *Fold) fixedSize() int {
	d := f.plan.dim
	return 8 + 2 + 8 + 12 + 8*len(f.counts) + len(f.arms)*(8+16+16*d+8*d*(d+1)) + 4 + 8
}

// UnmarshalBinary replaces the fold by the one that a snapshot of the same plan holds; plans may differ in what a fold does
// not depend on: epsilon, explore, ridge, priors, draws, the minimum share. The error is Invalid: the bytes are no
// snapshot, are damaged, of a newer version or of another plan; the fold is as it was, and can be had from the
// stream's rewards. data is only read.
func (f *Fold) UnmarshalBinary(data []byte) error {
	g := NewFold(f.plan)
	fixed := g.fixedSize()
	switch {
	case len(data) < 18 || string(data[:8]) != snapshotMagic:
		return badSnapshot("these %d bytes are no snapshot", len(data))
	case binary.LittleEndian.Uint16(data[8:]) != snapshotVersion:
		return badSnapshot("version %d is not %d: fold the rewards again", binary.LittleEndian.Uint16(data[8:]), snapshotVersion)
	case binary.LittleEndian.Uint64(data[10:]) != g.plan.folds:
		return badSnapshot("it is of other arms, context columns or another number of remembered decisions: fold the rewards again")
	case len(data) < fixed || (len(data)-fixed)%entrySize != 0 || (len(data)-fixed)/entrySize > g.plan.bandit.Remember:
		return badSnapshot("%d bytes cannot be: %d and %d for each of at most %d decisions", len(data), fixed, entrySize, g.plan.bandit.Remember)
	}
	body := data[:len(data)-8]
	if binary.LittleEndian.Uint64(data[len(body):]) != xxhash.Sum64(body) {
		return badSnapshot("its checksum does not match")
	}
	r := reader(body[18:])
	if err := g.read(&r, (len(data)-fixed)/entrySize); err != nil {
		return err
	}
	*f = *g
	return nil
}

// read takes what follows the head; the length was checked.
func (f *Fold) read(r *reader, entries int) error {
	f.position, f.index = r.uint64(), r.uint32()
	for i := range f.counts {
		f.counts[i] = r.uint64()
	}
	if f.counts[Repeated] != 0 || f.position == 0 && f.index != 0 {
		return badSnapshot("position or counts cannot be")
	}
	for i := range f.arms {
		if !f.arms[i].read(r, f.plan) {
			return badSnapshot("the sums of arm %s cannot be", f.plan.bandit.Arms[i])
		}
	}
	if int(r.uint32()) != entries {
		return badSnapshot("the number of remembered decisions is not that of its bytes")
	}
	for i := range entries {
		e := remembered{id: r.id(), value: int64(r.uint64()), made: r.uint64()}
		if f.memory.find(e.id) != nil || e.value < -MaxValue*unit || e.value > MaxValue*unit {
			return badSnapshot("the remembered decision %d cannot be", i)
		}
		f.memory.put(e)
	}
	return nil
}

// read takes an arm's sums, and tells whether rewards within their bounds could add up to them; what would make a
// decision lose its footing (a mean beyond the values, a count that no float holds) is refused.
func (s *armSums) read(r *reader, p *Plan) bool {
	s.n, s.sum = r.uint64(), r.sum()
	ok := s.n <= maxRewards && s.sum.within(s.n, 20+unitBits)
	if p.bandit.Policy == Thompson {
		ok = ok && s.sum.hi >= 0 && s.sum.within(s.n, unitBits)
	}
	for i := range s.xr {
		s.xr[i] = r.sum()
		ok = ok && s.xr[i].within(s.n, 2*(20+unitBits))
	}
	for i := range s.xx {
		s.xx[i] = r.sum()
		ok = ok && s.xx[i].within(s.n, 2*(20+unitBits))
	}
	return ok
}

// reader takes numbers off the front of bytes that are known to be there.
type reader []byte

func (r *reader) uint32() uint32 {
	v := binary.LittleEndian.Uint32(*r)
	*r = (*r)[4:]
	return v
}

func (r *reader) uint64() uint64 {
	v := binary.LittleEndian.Uint64(*r)
	*r = (*r)[8:]
	return v
}

func (r *reader) sum() sum128 {
	lo := r.uint64()
	return sum128{hi: int64(r.uint64()), lo: lo}
}

func (r *reader) id() (id [16]byte) {
	copy(id[:], *r)
	*r = (*r)[len(id):]
	return id
}

func badSnapshot(format string, args ...any) error {
	return schemas.FieldErrorf(schemas.Invalid, "route.Fold.UnmarshalBinary", "snapshot", format, args...)
}
