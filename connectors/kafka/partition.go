package kafka

import "encoding/binary"

// MaxPartitions bounds the topics that are made here.
const MaxPartitions = 256

// partitionOf is where a key's messages go: as Java's clients put them, so that topics written by both keep the order
// of a key.
func partitionOf(key string, partitions int) int32 {
	return int32((murmur2(key) & 0x7fffffff) % uint32(partitions))
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2: MurmurHash2 by Austin Appleby with Kafka's seed.
func murmur2(s string) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	b := []byte(s)
	h := seed ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b)
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
