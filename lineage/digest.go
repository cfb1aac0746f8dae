package lineage

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/leatstream/leat/schemas"
)

// InputDigest is the digest of the rows [from, to) of b, which are all the rows of one request: the part of a record's
// identity that says what was asked. It depends on the rows alone, not on what lies around them in the batch. It
// allocates nothing. Safe for concurrent use, as long as nobody appends to b.
//
// It is the SHA-256 of: the schema id (16 bytes); the number of rows (u32); then, column by column, one byte 0 if no row
// is null, else one byte 1 and a bitmap of the rows (bit set = present, least significant bit first, ceil(rows/8)
// bytes); then the elements of the present rows in row-major order: fixed-size elements as they lie in the column
// (little-endian, a bool as one byte), strings and binaries each as length (u32) and bytes. All integers are
// little-endian. Two floats are equal if their bits are.
func InputDigest(b *schemas.Batch, from, to int) [32]byte {
	if from < 0 || to > b.Rows() || from > to {
		panic("lineage: InputDigest out of range")
	}
	buf := scratch.Get().(*[]byte)
	id := b.Schema().ID()
	s := append((*buf)[:0], id[:]...)
	s = binary.LittleEndian.AppendUint32(s, uint32(to-from))
	for i := range b.Schema().Len() {
		s = appendCanonical(s, b.Column(i), from, to)
	}
	sum := sha256.Sum256(s)
	if cap(s) <= maxScratch {
		*buf = s
	}
	scratch.Put(buf)
	return sum
}

// maxScratch bounds what a pooled buffer keeps: one huge request shall not pin its size for ever.
const maxScratch = 4 << 20

var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

func appendCanonical(s []byte, c *schemas.Column, from, to int) []byte {
	nulls := false
	if c.Nulls() > 0 {
		for i := from; i < to && !nulls; i++ {
			nulls = c.IsNull(i)
		}
	}
	if !nulls {
		return appendValues(append(s, 0), c, from, to)
	}
	s = append(s, 1)
	at := len(s)
	for range (to - from + 7) / 8 {
		s = append(s, 0)
	}
	for i := from; i < to; i++ {
		if !c.IsNull(i) {
			s[at+(i-from)/8] |= 1 << ((i - from) & 7)
			s = appendValues(s, c, i, i+1)
		}
	}
	return s
}

// appendValues writes the elements of rows that are not null.
func appendValues(s []byte, c *schemas.Column, from, to int) []byte {
	w := c.Width()
	if size := c.Field().Type.Size(); size > 0 {
		return append(s, c.Data()[from*w*size:to*w*size]...)
	}
	for e := from * w; e < to*w; e++ {
		t := c.Text(e)
		s = binary.LittleEndian.AppendUint32(s, uint32(len(t)))
		s = append(s, t...)
	}
	return s
}
