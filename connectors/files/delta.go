package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// zstandard adds up what the blocks of Zstandard frames can become: of a frame that says its size the library allocates
// as much, others it decompresses however much that is, and it may keep a window of each. The n bytes at a place of r
// should be raw ones compressed. The format is RFC 8878's.
func zstandard(r io.ReaderAt, at, n, raw int64) error {
	const magic, skippable, maxHead, maxBlock = 0xfd2fb528, 0x184d2a50, 18, 128 << 10
	var buf [maxHead]byte
	damaged := func() error { return fmt.Errorf("%d bytes of Zstandard that are not %d compressed", n, raw) }
	most := int64(0)
	for end := at + n; at < end; {
		b := buf[:min(maxHead, end-at)]
		if _, err := r.ReadAt(b, at); err != nil && err != io.EOF {
			return err
		}
		if len(b) >= 8 && binary.LittleEndian.Uint32(b)&^15 == skippable {
			at += 8 + int64(binary.LittleEndian.Uint32(b[4:]))
			continue
		}
		if len(b) < 6 || binary.LittleEndian.Uint32(b) != magic {
			return damaged()
		}
		sum := 4 * int64(b[4]>>2&1) // of the content, behind the last block
		size, head := frameSize(b)
		if head > len(b) || size > uint64(raw) && size != unknownSize || window(b) > maxAlloc {
			return damaged()
		}
		at += int64(head)
		out := int64(0)
		for last := false; !last; {
			if at > end-3 {
				return damaged()
			}
			b = buf[:3]
			if _, err := r.ReadAt(b, at); err != nil && err != io.EOF {
				return err
			}
			at += 3
			last = b[0]&1 != 0
			k := int64(b[0])>>3 | int64(b[1])<<5 | int64(b[2])<<13
			switch b[0] >> 1 & 3 {
			case 0: // as it is
				out, at = out+k, at+k
			case 1: // one byte, repeated
				out, at = out+k, at+1
			default:
				out, at = out+maxBlock, at+k
			}
		}
		at += sum
		if size != unknownSize {
			out = min(out, int64(size))
		}
		if most += out; at > end || most > maxAlloc+maxBlock {
			return damaged()
		}
	}
	if most < raw {
		return damaged()
	}
	return nil
}

const unknownSize = 1<<64 - 1

// frameSize returns the content's size that the head of a Zstandard frame states, and the length of the head, which may
// be more than there is of b.
func frameSize(b []byte) (size uint64, head int) {
	single := b[4] >> 5 & 1
	head = 6 - int(single) + [...]int{0, 1, 2, 4}[b[4]&3]
	width := [...]int{int(single), 2, 4, 8}[b[4]>>6]
	if width == 0 || head+width > len(b) {
		return unknownSize, head + width
	}
	for i := range width {
		size |= uint64(b[head+i]) << (8 * i)
	}
	if width == 2 {
		size += 256
	}
	return size, head + width
}

// window returns how far back the blocks of a Zstandard frame may point: as far as it goes if its head does not say.
func window(b []byte) int64 {
	if b[4]>>5&1 != 0 {
		return 0
	}
	base := int64(1) << (10 + b[5]>>3)
	return base + base/8*int64(b[5]&7)
}

var errLevels = errors.New("a page shorter than its levels")

// passLevels passes over repetition or definition levels of a data page of version 1.
func passLevels(b []byte, encoding int32, most int16, values int32) ([]byte, error) {
	var n uint64
	switch {
	case most == 0:
		return b, nil
	case encoding == levelsPacked:
		n = (uint64(values)*uint64(bits.Len16(uint16(most))) + 7) / 8
	case encoding != levelsRLE || len(b) < 4:
		return nil, errLevels
	default:
		n = 4 + uint64(binary.LittleEndian.Uint32(b))
	}
	if n > uint64(len(b)) {
		return nil, errLevels
	}
	return b[n:], nil
}

// maxDeltaBlock bounds the values in a block of a delta encoding; writers have 128.
const maxDeltaBlock = 1 << 16

// checkDelta checks the counts that values in a delta encoding begin with, of a page that has so many values with nulls.
// The encodings are those of Encodings.md of Apache Parquet.
func checkDelta(b []byte, encoding int32, values int64) error {
	if values > maxAlloc/8 {
		return fmt.Errorf("a page of %d values", values)
	}
	h, err := deltaHead(b, values)
	if err != nil || encoding != deltaStrings {
		return err
	}
	// Behind the lengths of prefixes lie those of suffixes.
	if b, err = h.pass(); err == nil {
		_, err = deltaHead(b, values)
	}
	return err
}

// deltas is numbers in the encoding DELTA_BINARY_PACKED, after their head.
type deltas struct {
	b     []byte
	per   int64 // values in a miniblock
	minis int   // miniblocks in a block
	left  int64 // values, without the first, which is in the head
}

var errDelta = errors.New("deltas that have no end")

func deltaHead(b []byte, values int64) (d deltas, err error) {
	var v [4]uint64 // values in a block, miniblocks in it, values, the first of them
	for i := range v {
		var n int
		if v[i], n = binary.Uvarint(b); n <= 0 {
			return d, errDelta
		}
		b = b[n:]
	}
	if v[0] > maxDeltaBlock || v[1] == 0 || v[1] > v[0] || v[0]%(8*v[1]) != 0 || v[2] > uint64(values) {
		return d, fmt.Errorf("%d deltas in blocks of %d and %d for %d values", v[2], v[0], v[1], values)
	}
	return deltas{b: b, per: int64(v[0] / v[1]), minis: int(v[1]), left: int64(v[2]) - 1}, nil
}

// pass passes over the blocks. The last one ends with the miniblock that has the last value.
func (d *deltas) pass() ([]byte, error) {
	for d.left > 0 {
		_, n := binary.Uvarint(d.b) // the least delta
		if n <= 0 || len(d.b)-n < d.minis {
			return nil, errDelta
		}
		widths := d.b[n : n+d.minis]
		d.b = d.b[n+d.minis:]
		for _, w := range widths {
			if d.left <= 0 {
				break
			}
			size := int64(w) * d.per / 8
			if w > 64 || size > int64(len(d.b)) {
				return nil, errDelta
			}
			d.b = d.b[size:]
			d.left -= d.per
		}
	}
	return d.b, nil
}
