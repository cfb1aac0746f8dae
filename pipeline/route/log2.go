package route

import "math/bits"

// logBits is how many bits after the point expo keeps: 64 * 2^44 * 10,000 is the largest product that Split forms of
// it, and fits into 64 bits.
const logBits = 44

// logEntry describes one 256th of the octave [1, 2), from its lower edge c.
type logEntry struct {
	recip uint64 // floor((2^127-1) / (c * 2^63)): 1/c in 2^-64, a hair below
	log   uint64 // log2(c) in 2^-63
}

var logTable = makeLogTable()

func makeLogTable() (t [256]logEntry) {
	for i := range t {
		c := uint64(256+i) << 55
		t[i].recip, _ = bits.Div64(1<<63-1, ^uint64(0), c)
		t[i].log = log2Slow(c)
	}
	return t
}

// log2Slow returns log2(m / 2^63) in 2^-63 for m >= 2^63, bit by bit: a square that passes 2 has a logarithm past a half.
// Knuth, The Art of Computer Programming 1, section 1.2.2; off by less than 2^-56.
func log2Slow(m uint64) (log uint64) {
	for bit := uint64(1) << 62; bit != 0; bit >>= 1 {
		hi, lo := bits.Mul64(m, m)
		if hi >= 1<<63 {
			m, log = hi, log|bit
		} else {
			m = hi<<1 | lo>>63
		}
	}
	return log
}

// expo returns -log2(u / 2^64) in 2^-44, which is an exponentially distributed value (of mean 1/ln 2) for a uniform u; u
// of 0 counts as 1. Integers alone: the table gives the logarithm of the edge below, and log2(1+t), t < 1/256, is three
// terms of its series. Off by less than 2^-33.
func expo(u uint64) uint64 {
	if u == 0 {
		u = 1
	}
	zeros := bits.LeadingZeros64(u)
	m := u << zeros
	e := &logTable[m>>55&0xff]
	t, _ := bits.Mul64(m<<9, e.recip) // t in 2^-72: the 55 bits below the edge, over the edge
	t2, _ := bits.Mul64(t, t)         // its square in 2^-80
	t3, _ := bits.Mul64(t2, t)        // its cube in 2^-88
	ln := t - t2>>9 + t3/3>>16
	log, _ := bits.Mul64(ln, 0xb8aa3b295c17f0bc) // 1/ln 2 in 2^-63; log in 2^-71
	log = min(e.log+log>>8, 1<<63)               // just below the octave's end the series may pass it
	return uint64(zeros+1)<<logBits - log>>(63-logBits)
}
