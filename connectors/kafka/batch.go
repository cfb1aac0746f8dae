package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
)

// The record batch, version 2: kafka.apache.org/documentation/#recordbatch. Offsets of its fields:
const (
	atLength      = 8 // of what follows
	atEpoch       = 12
	atMagic       = 16
	atCRC         = 17 // of what follows it
	atAttributes  = 21
	atLastDelta   = 23
	atFirstTime   = 27
	atMaxTime     = 35
	atProducer    = 43
	atProdEpoch   = 51
	atSequence    = 53
	atCount       = 57
	batchOverhead = 61
)

// Bits of a batch's attributes.
const (
	attrCompression   = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// leastRecord is what a record takes in a batch.
const leastRecord = 7

// recordsIn is about how many records are in an answer's batches, as their heads have it, and never more than could be
// in as many bytes.
func recordsIn(b []byte) int {
	n := 0
	for len(b) >= batchOverhead && b[atMagic] == 2 {
		end := atEpoch + int(binary.BigEndian.Uint32(b[atLength:]))
		if end < batchOverhead || end > len(b) {
			break
		}
		n += min(int(binary.BigEndian.Uint32(b[atCount:])), (end-batchOverhead)/leastRecord)
		b = b[end:]
	}
	return n
}

// producerID is who writes a batch, and the number of its first record in that writer's partition.
type producerID struct {
	id    int64
	epoch int16
	seq   int32
}

// after is the sequence n records later; it wraps as Kafka's does.
func (p producerID) after(n int) producerID {
	p.seq = int32((int64(p.seq) + int64(n)) & math.MaxInt32)
	return p
}

// sealed is a record without its place in a batch: everything after the offset, as the batch has it.
type sealed struct {
	body []byte
	time int64 // Unix milliseconds
}

// sealedSize is the length of what appendSealed appends.
func sealedSize(key, value []byte, hs []kafka.Header) int {
	n := bytesSize(key) + bytesSize(value) + varintSize(int64(len(hs)))
	for i := range hs {
		n += varintSize(int64(len(hs[i].Key))) + len(hs[i].Key) + bytesSize(hs[i].Value)
	}
	return n
}

func appendSealed(dst, key, value []byte, hs []kafka.Header) []byte {
	dst = appendBytes(dst, key)
	dst = appendBytes(dst, value)
	dst = binary.AppendVarint(dst, int64(len(hs)))
	for i := range hs {
		dst = binary.AppendVarint(dst, int64(len(hs[i].Key)))
		dst = append(dst, hs[i].Key...)
		dst = appendBytes(dst, hs[i].Value)
	}
	return dst
}

// appendBytes writes nil as null.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 1) // the varint of -1
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

func bytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

func varintSize(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

// recordRoom is the most that a record takes in a batch beside its sealed body.
const recordRoom = 5 + 1 + 10 + 5

// batchSize is the size of a batch of one record, as brokers compare it with max.message.bytes.
func batchSize(body int) int {
	n := 1 + 1 + 1 + body
	return batchOverhead + varintSize(int64(n)) + n
}

// appendBatch writes records as one batch. at(i) is the i-th of n records, n > 0.
func appendBatch(dst []byte, n int, at func(i int) *sealed, who producerID, transactional bool) []byte {
	start := len(dst)
	var head [batchOverhead]byte
	dst = append(dst, head[:]...)
	first := at(0).time
	last := first
	for i := range n {
		r := at(i)
		last = max(last, r.time)
		delta := r.time - first
		dst = binary.AppendVarint(dst, int64(1+varintSize(delta)+varintSize(int64(i))+len(r.body)))
		dst = append(dst, 0)
		dst = binary.AppendVarint(dst, delta)
		dst = binary.AppendVarint(dst, int64(i))
		dst = append(dst, r.body...)
	}
	h := dst[start:]
	be := binary.BigEndian
	be.PutUint32(h[atLength:], uint32(len(h)-atEpoch))
	be.PutUint32(h[atEpoch:], math.MaxUint32) // -1: the broker's to fill in
	h[atMagic] = 2
	if transactional {
		be.PutUint16(h[atAttributes:], attrTransactional)
	}
	be.PutUint32(h[atLastDelta:], uint32(n-1))
	be.PutUint64(h[atFirstTime:], uint64(first))
	be.PutUint64(h[atMaxTime:], uint64(last))
	be.PutUint64(h[atProducer:], uint64(who.id))
	be.PutUint16(h[atProdEpoch:], uint16(who.epoch))
	be.PutUint32(h[atSequence:], uint32(who.seq))
	be.PutUint32(h[atCount:], uint32(n))
	be.PutUint32(h[atCRC:], crc32.Checksum(h[atAttributes:], castagnoli))
	return dst
}

// fetched is a stored record. Its slices share the memory of the answer that it came in and are never written to.
type fetched struct {
	offset  int64
	key     []byte // nil: null
	value   []byte // nil: null, a tombstone
	headers []kafka.Header
	time    time.Time
}

// stored is a batch as a broker keeps it.
type stored struct {
	base, last    int64 // offsets; records between may be gone
	firstTime     int64
	maxTime       int64
	producer      int64
	count         int
	transactional bool
	control       bool
	appendTime    bool // all records have maxTime
	codec         compress.Compression
	data          []byte // the records, compressed if codec is set
	old           []byte // a message set from before version 2, whole
}

var errCut = errors.New("batch is cut short")

// nextBatch takes the first batch off b. ok is false when b holds no whole one: brokers cut the last.
func nextBatch(b []byte) (s stored, rest []byte, ok bool, err error) {
	if len(b) < atMagic+1 {
		return s, nil, false, nil
	}
	be := binary.BigEndian
	size := int(int32(be.Uint32(b[atLength:]))) + atEpoch
	if size < atMagic+1 {
		return s, nil, false, fmt.Errorf("batch of %d bytes", size)
	}
	if size > len(b) {
		return s, nil, false, nil
	}
	h, rest := b[:size], b[size:]
	s.base = int64(be.Uint64(h))
	if magic := h[atMagic]; magic < 2 {
		s.old, s.last = h, s.base // readOld says the rest
		return s, rest, true, nil
	} else if magic > 2 {
		return s, nil, false, fmt.Errorf("batch at offset %d has version %d: this client knows up to 2", s.base, magic)
	}
	if size < batchOverhead {
		return s, nil, false, fmt.Errorf("batch at offset %d has %d bytes", s.base, size)
	}
	if want, got := be.Uint32(h[atCRC:]), crc32.Checksum(h[atAttributes:], castagnoli); want != got {
		return s, nil, false, fmt.Errorf("batch at offset %d: checksum %08x, want %08x: %w", s.base, got, want, kafka.InvalidMessage)
	}
	attr := be.Uint16(h[atAttributes:])
	s.codec = compress.Compression(attr & attrCompression)
	s.appendTime = attr&attrLogAppendTime != 0
	s.transactional = attr&attrTransactional != 0
	s.control = attr&attrControl != 0
	s.last = s.base + int64(int32(be.Uint32(h[atLastDelta:])))
	s.firstTime = int64(be.Uint64(h[atFirstTime:]))
	s.maxTime = int64(be.Uint64(h[atMaxTime:]))
	s.producer = int64(be.Uint64(h[atProducer:]))
	s.count = int(int32(be.Uint32(h[atCount:])))
	s.data = h[batchOverhead:]
	if s.count < 0 || s.last < s.base {
		return s, nil, false, fmt.Errorf("batch at offset %d: %d records up to offset %d", s.base, s.count, s.last)
	}
	return s, rest, true, nil
}

// maxInflated bounds what one compressed batch may become: brokers do not bound it.
const maxInflated = 1 << 30

// records appends the batch's records from an offset on. names holds header names that were seen, to make each once.
func (s *stored) records(dst []fetched, from int64, names map[string]string) ([]fetched, error) {
	b := s.data
	if s.codec != compress.None {
		var err error
		if b, err = inflate(s.codec, b); err != nil {
			return dst, fmt.Errorf("batch at offset %d: %w", s.base, err)
		}
	}
	r := reader{b: b, names: names}
	for range s.count {
		size := r.varint()
		if size < 0 || size > int64(len(r.b)) {
			return dst, fmt.Errorf("batch at offset %d: %w", s.base, errCut)
		}
		end := len(r.b) - int(size)
		r.take(1) // attributes of a record: none are defined
		ms := s.firstTime + r.varint()
		if s.appendTime {
			ms = s.maxTime
		}
		f := fetched{offset: s.base + r.varint(), time: time.UnixMilli(ms)}
		if r.bad || len(r.b) < end {
			return dst, fmt.Errorf("batch at offset %d: %w", s.base, errCut)
		}
		if f.offset < from {
			r.b = r.b[len(r.b)-end:]
			continue
		}
		f.key = r.bytes()
		f.value = r.bytes()
		f.headers = r.headers()
		if r.bad || len(r.b) != end {
			return dst, fmt.Errorf("record at offset %d: %w", f.offset, errCut)
		}
		dst = append(dst, f)
	}
	return dst, nil
}

// abortMarker reports whether a control batch ends its producer's transaction by dropping it.
func (s *stored) abortMarker() bool {
	rs, err := s.records(nil, s.base, nil)
	// Key: int16 version, int16 type; 0 is abort, 1 commit.
	return err == nil && len(rs) > 0 && len(rs[0].key) >= 4 && binary.BigEndian.Uint16(rs[0].key[2:]) == 0
}

func inflate(c compress.Compression, b []byte) ([]byte, error) {
	codec := c.Codec()
	if codec == nil {
		return nil, fmt.Errorf("compression %d is not known", c)
	}
	if c == compress.Snappy {
		if err := checkSnappy(b); err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
	}
	z := codec.NewReader(bytes.NewReader(b))
	defer z.Close()
	var out bytes.Buffer
	out.Grow(4 * len(b))
	n, err := out.ReadFrom(io.LimitReader(z, maxInflated+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	if n > maxInflated {
		return nil, fmt.Errorf("%s: more than %d bytes", c, maxInflated)
	}
	return out.Bytes(), nil
}

var xerialMagic = []byte("\x82SNAPPY\x00")

// checkSnappy checks what Snappy data says of sizes, in one block or in xerial's frames of many: the codec allocates up to
// 4 GiB by each before it reads on.
func checkSnappy(b []byte) error {
	left := uint64(maxInflated)
	block := func(b []byte) error {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > left || n > 64*uint64(len(b)) { // no three bytes become more than 64
			return fmt.Errorf("%d bytes that claim to be %d compressed", len(b), n)
		}
		left -= n
		return nil
	}
	const head = 16 // magic and two versions
	if len(b) < head || !bytes.HasPrefix(b, xerialMagic) {
		if len(b) == 0 {
			return nil
		}
		return block(b)
	}
	for b = b[head:]; len(b) > 0; {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return errCut
		}
		n := 4 + int(binary.BigEndian.Uint32(b))
		if err := block(b[4:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// checkOld decompresses a message of a set for its size alone: the reader of sets does not bound it.
func checkOld(b []byte) error {
	r := reader{b: b[atMagic:]}
	magic, attr := r.take(1), r.take(1)
	if r.bad {
		return errCut
	}
	codec := compress.Compression(attr[0] & attrCompression)
	if codec == compress.None {
		return nil
	}
	if magic[0] == 1 {
		r.take(8) // time
	}
	r.sized() // key
	value := r.sized()
	if r.bad || len(r.b) > 0 {
		return errCut
	}
	_, err := inflate(codec, value)
	return err
}

// readOld reads a message set as brokers before Kafka 0.11 wrote them, and returns the offset after it.
func (s *stored) readOld(dst []fetched, from int64) ([]fetched, int64, error) {
	if err := checkOld(s.old); err != nil {
		return dst, 0, fmt.Errorf("message set at offset %d: %w", s.base, err)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(s.old)), uint32(len(s.old)))
	var rs protocol.RecordSet
	if _, err := rs.ReadFrom(bytes.NewBuffer(append(b, s.old...))); err != nil {
		return dst, 0, fmt.Errorf("message set at offset %d: %w", s.base, err)
	}
	next := s.base + 1
	for rs.Records != nil {
		r, err := rs.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return dst, 0, fmt.Errorf("message set at offset %d: %w", s.base, err)
		}
		f := fetched{offset: r.Offset, time: r.Time}
		if f.key, err = protocol.ReadAll(r.Key); err == nil {
			f.value, err = protocol.ReadAll(r.Value)
		}
		if err != nil {
			return dst, 0, fmt.Errorf("message at offset %d: %w", r.Offset, err)
		}
		next = max(next, f.offset+1)
		if f.offset >= from {
			dst = append(dst, f)
		}
	}
	return dst, next, nil
}

// reader takes values off a record; bad says that one was not there.
type reader struct {
	b     []byte
	names map[string]string
	bad   bool
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n int64) []byte {
	if n < 0 || n > int64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// bytes is nil for null.
func (r *reader) bytes() []byte {
	n := r.varint()
	if n == -1 || r.bad {
		return nil
	}
	return r.take(n)
}

// sized is bytes as message sets have them, nil for null.
func (r *reader) sized() []byte {
	n := r.take(4)
	if r.bad || binary.BigEndian.Uint32(n) == math.MaxUint32 {
		return nil
	}
	return r.take(int64(binary.BigEndian.Uint32(n)))
}

func (r *reader) headers() []kafka.Header {
	n := r.varint()
	if n == 0 || r.bad {
		return nil
	}
	if n < 0 || n > int64(len(r.b)) { // each takes two bytes and more
		r.bad = true
		return nil
	}
	hs := make([]kafka.Header, n)
	for i := range hs {
		hs[i].Key = r.name(r.bytes())
		hs[i].Value = r.bytes()
	}
	return hs
}

// maxNames bounds the header names that a fetcher remembers: records of a kind have the same few.
const maxNames = 256

func (r *reader) name(b []byte) string {
	if s, ok := r.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(r.names) < maxNames && r.names != nil {
		r.names[s] = s
	}
	return s
}
