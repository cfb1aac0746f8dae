package route

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// sampleLane keeps a sample's hash apart from those of arms, whose names hold no NUL.
var sampleLane = xxhash.Sum64String("\x00sample")

// keyHash is XXH64 of a key under the seed XXH64(salt): two salts give independent hashes of the same keys, and no salt can
// be mistaken for the beginning of a key.
func keyHash(salt uint64, key []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(salt)
	d.Write(key)
	return d.Sum64()
}

// stringHash is keyHash without a copy of the key.
func stringHash(salt uint64, key string) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(salt)
	d.WriteString(key)
	return d.Sum64()
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014, in Stafford's variant 13): a bijection of 64 bits in
// which each input bit moves each output bit with a chance of a half. It derives one hash a lane from one hash a key.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Million is a rate of everything, see [Sampled].
const Million = 1_000_000

// Sampled tells whether a key belongs to a sample of rate parts per million: sticky by salt and key, as [Split.Arm] is,
// and independent of the arm that a split of the same salt gives. A higher rate only adds keys. A rate of 0 or less is
// never, one of [Million] or more is always. Safe for concurrent use; key is only read.
func Sampled(salt string, key []byte, rate int) bool {
	return sampled(keyHash(xxhash.Sum64String(salt), key), rate)
}

// SampledString is [Sampled] of the key's bytes.
func SampledString(salt, key string, rate int) bool {
	return sampled(stringHash(xxhash.Sum64String(salt), key), rate)
}

func sampled(hash uint64, rate int) bool {
	at, _ := bits.Mul64(mix(hash^sampleLane), Million) // below Million
	return int(at) < rate
}

// Seed returns the seed of a decision by its identity: the request's key (SEMANTICS 1), the row in the request and the
// path of the node. It is XXH64 of key, row as eight bytes little-endian, and path. The seed is recorded with the
// decision, and a derivation takes the recorded one; two rows or two nodes of a request draw independently.
func Seed(requestKey [32]byte, row int, nodePath string) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(0)
	var head [40]byte
	copy(head[:], requestKey[:])
	binary.LittleEndian.PutUint64(head[32:], uint64(row))
	d.Write(head[:])
	d.WriteString(nodePath)
	return d.Sum64()
}
