package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/schemas"
)

func sealedOf(recs ...record) []sealed { return seal(recs) }

func encode(recs []sealed, who producerID, txn bool) []byte {
	return appendBatch(nil, len(recs), func(i int) *sealed { return &recs[i] }, who, txn)
}

func sample(n int) []record {
	base := time.UnixMilli(1_700_000_000_000)
	out := make([]record, n)
	for i := range out {
		out[i] = record{key: fmt.Appendf(nil, "k%d", i), value: bytes.Repeat([]byte{byte(i)}, i%300), time: base.Add(time.Duration(i*7-n) * time.Millisecond),
			headers: []kafka.Header{{Key: "A", Value: []byte{byte(i)}}, {Key: "B", Value: nil}, {Key: "A", Value: []byte("x")}}}
	}
	out[n/2].key, out[n/2].value, out[n/2].headers = nil, nil, nil
	return out
}

// TestBatch: what is encoded here is what the library decodes, and what is decoded here is what the library encodes.
func TestBatch(t *testing.T) {
	recs := sample(333)
	b := encode(sealedOf(recs...), producerID{id: 77, epoch: 3, seq: 12}, true)
	if len(b) != batchOverhead+len(b[batchOverhead:]) {
		t.Fatal(len(b))
	}
	var rs protocol.RecordSet
	if _, err := rs.ReadFrom(bytes.NewBuffer(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))); err != nil {
		t.Fatal(err)
	}
	rb := rs.Records.(*protocol.RecordStream).Records[0].(*protocol.RecordBatch)
	if rb.ProducerID != 77 || rb.ProducerEpoch != 3 || rb.BaseSequence != 12 || !rb.Attributes.Transactional() {
		t.Fatalf("%+v", rb)
	}
	for i := range recs {
		r, err := rs.Records.ReadRecord()
		must(t, err)
		key, _ := protocol.ReadAll(r.Key)
		value, _ := protocol.ReadAll(r.Value)
		if r.Offset != int64(i) || !r.Time.Equal(recs[i].time) || !bytes.Equal(key, recs[i].key) || !bytes.Equal(value, recs[i].value) || len(r.Headers) != len(recs[i].headers) {
			t.Fatalf("record %d: %+v %s %s", i, r, key, value)
		}
	}
	check := func(t *testing.T, b []byte, from int64) {
		t.Helper()
		s, rest, ok, err := nextBatch(b)
		if err != nil || !ok || len(rest) != 0 {
			t.Fatalf("%v %v %d", err, ok, len(rest))
		}
		got, err := s.records(nil, from, map[string]string{})
		must(t, err)
		if s.last != int64(len(recs))-1 || len(got) != len(recs)-int(from) {
			t.Fatalf("%d records up to %d", len(got), s.last)
		}
		for i, r := range got {
			w := recs[i+int(from)]
			if r.offset != int64(i)+from || !r.time.Equal(w.time) || !bytes.Equal(r.key, w.key) || !bytes.Equal(r.value, w.value) || (r.key == nil) != (w.key == nil) || (r.value == nil) != (w.value == nil) ||
				!slices.EqualFunc(r.headers, w.headers, func(a, b kafka.Header) bool {
					return a.Key == b.Key && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil)
				}) {
				t.Fatalf("record %d: %+v, want %+v", i, r, w)
			}
		}
	}
	check(t, b, 0)
	check(t, b, 100)
	for _, c := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		t.Run(c.String(), func(t *testing.T) {
			var in []protocol.Record
			for _, r := range recs {
				in = append(in, protocol.Record{Time: r.time, Key: protocol.NewBytes(r.key), Value: protocol.NewBytes(r.value), Headers: r.headers})
			}
			set := protocol.RecordSet{Version: 2, Attributes: protocol.Attributes(c), Records: protocol.NewRecordReader(in...)}
			var out bytes.Buffer
			_, err := set.WriteTo(&out)
			must(t, err)
			check(t, out.Bytes()[4:], 0)
		})
	}
}

// TestOldMessages: what brokers before Kafka 0.11 stored is read.
func TestOldMessages(t *testing.T) {
	for _, c := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4} {
		var in []protocol.Record
		for i := range 20 {
			in = append(in, protocol.Record{Offset: int64(i), Time: time.UnixMilli(int64(1000 + i)), Key: protocol.NewBytes([]byte{1}), Value: protocol.NewBytes([]byte{byte(i)})})
		}
		set := protocol.RecordSet{Version: 1, Attributes: protocol.Attributes(c), Records: protocol.NewRecordReader(in...)}
		var out bytes.Buffer
		_, err := set.WriteTo(&out)
		must(t, err)
		f := &fetcher{pos: 5}
		got, err := f.read(&fetchAnswer{records: out.Bytes()[4:]})
		must(t, err)
		if len(got) != 15 || got[0].offset != 5 || got[14].value[0] != 19 || f.pos != 20 || !got[0].time.Equal(time.UnixMilli(1005)) {
			t.Fatalf("%s: %d records, position %d, %+v", c, len(got), f.pos, got)
		}
	}
}

// TestSnappyClaims: what Snappy data says of its sizes asks for no memory.
func TestSnappyClaims(t *testing.T) {
	const frames = "\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
	old := func(value string) []byte { // a message of version 1 as it lies in a set
		b := append(make([]byte, 4), 1, byte(compress.Snappy))
		b = append(b, make([]byte, 8)...)
		b = append(b, "\xff\xff\xff\xff"...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
		binary.BigEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
		return append(binary.BigEndian.AppendUint32(make([]byte, 8), uint32(len(b))), b...)
	}
	for name, data := range map[string]string{
		"a block of 4 GB":       "\xff\xff\xff\xff\x0fx",
		"a frame of 4 GB":       frames + "\xff\x00\x00\x00x",
		"a block in a frame":    frames + "\x00\x00\x00\x06\xff\xff\xff\xff\x0fx",
		"a frame without block": frames + "\x00\x00\x00\x00",
		"a frame cut short":     frames + "\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s := stored{count: 3, last: 1 << 40, codec: compress.Snappy, data: []byte(data)}
			_, err := s.records(nil, 0, nil)
			_, oldErr := (&fetcher{}).read(&fetchAnswer{records: old(data)})
			runtime.ReadMemStats(&after)
			if err == nil || oldErr == nil {
				t.Errorf("taken: %v, %v", err, oldErr)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

func TestVarintSize(t *testing.T) {
	for _, v := range []int64{0, -1, 1, 63, 64, -64, -65, 1 << 20, -1 << 40, 1<<63 - 1, -1 << 63} {
		if got, want := varintSize(v), len(binary.AppendVarint(nil, v)); got != want {
			t.Errorf("%d takes %d bytes, said %d", v, want, got)
		}
	}
}

// TestDamaged: a batch with any one byte changed is refused, or says what can be said of its own bytes.
func TestDamaged(t *testing.T) {
	good := encode(sealedOf(sample(5)...), producerID{}, false)
	for i := atCRC; i < len(good); i++ {
		b := slices.Clone(good)
		b[i] ^= 0x10
		if _, _, _, err := nextBatch(b); err == nil {
			t.Fatalf("byte %d may be anything", i)
		}
	}
	for i := range good {
		if _, _, ok, _ := nextBatch(good[:i]); ok {
			t.Fatalf("%d of %d bytes are taken for a batch", i, len(good))
		}
	}
}

// FuzzFetchAnswer: no answer of a broker does more than fail, and the position never goes back.
func FuzzFetchAnswer(f *testing.F) {
	batch := encode(sealedOf(sample(3)...), producerID{id: 5}, true)
	for _, v := range []int16{4, 7, 11} {
		w := requestWriter{}
		w.int32(0)
		if v >= 7 {
			w.int16(0)
			w.int32(0)
		}
		w.int32(1)
		w.string("t")
		w.int32(1)
		w.int32(0)
		w.int16(0)
		w.int64(3)
		w.int64(3)
		if v >= 5 {
			w.int64(0)
		}
		w.int32(1)
		w.int64(5)
		w.int64(0)
		if v >= 11 {
			w.int32(-1)
		}
		w.int32(int32(len(batch)))
		w.b = append(w.b, batch...)
		as, err := parseFetch(w.b, v)
		if err != nil || len(*as) != 1 || len((*as)[0].aborted) != 1 || len((*as)[0].records) != len(batch) {
			f.Fatalf("%v: %+v", err, as)
		}
		f.Add(w.b, v, int64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, version int16, from int64) {
		as, err := parseFetch(b, version)
		if err != nil {
			return
		}
		for i := range *as {
			f := &fetcher{pos: max(from, 0), names: map[string]string{}}
			start := f.pos
			if _, err := f.read(&(*as)[i]); err == nil && f.pos < start {
				t.Fatalf("from %d back to %d", start, f.pos)
			}
		}
	})
}

// FuzzRecords: the records of a batch whose checksum is right may still be nonsense.
func FuzzRecords(f *testing.F) {
	b := encode(sealedOf(sample(3)...), producerID{}, false)
	f.Add(b[batchOverhead:], 3, byte(0))
	for _, c := range []compress.Compression{compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		var out bytes.Buffer
		w := c.Codec().NewWriter(&out)
		if _, err := w.Write(b[batchOverhead:]); err != nil {
			f.Fatal(err)
		}
		w.Close()
		f.Add(out.Bytes(), 3, byte(c))
	}
	f.Add([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\xff\x00\x00\x00x"), 3, byte(compress.Snappy)) // a block of 4 GB
	f.Add([]byte("\xff\xff\xff\xff\x0fx"), 3, byte(compress.Snappy))                                           // 4 GB out of a byte
	f.Fuzz(func(t *testing.T, data []byte, count int, codec byte) {
		s := stored{count: max(count, 0), last: 1 << 40, codec: compress.Compression(codec & 7), data: data}
		rs, err := s.records(nil, 0, map[string]string{})
		if err == nil && len(rs) > s.count {
			t.Fatalf("%d records of %d", len(rs), s.count)
		}
	})
}

// FuzzProduceAnswer: no answer of a broker does more than fail.
func FuzzProduceAnswer(f *testing.F) {
	parts := []producePart{{topic: "a", partition: 1}, {topic: "b", partition: 0}}
	w := requestWriter{}
	w.int32(2)
	for _, p := range parts {
		w.string(p.topic)
		w.int32(1)
		w.int32(p.partition)
		w.int16(0)
		w.int64(42)
		w.int64(-1)
		w.int64(0)
		w.int32(0)
		w.int16(-1)
	}
	w.int32(0)
	a, err := parseProduce(w.b, 8, parts)
	if err != nil || (*a)[0].offset != 42 || (*a)[1].err != nil {
		f.Fatalf("%v: %+v", err, a)
	}
	f.Add(w.b, int16(8))
	f.Fuzz(func(t *testing.T, b []byte, version int16) {
		if a, err := parseProduce(b, version, parts); err == nil && len(*a) != len(parts) {
			t.Fatal(len(*a))
		}
	})
}

// FuzzLogDirs: no answer of a broker does more than fail.
func FuzzLogDirs(f *testing.F) {
	w := requestWriter{}
	w.int32(0)
	w.int32(1)
	w.int16(0)
	w.string("/data")
	w.int32(1)
	w.string("t")
	w.int32(1)
	w.int32(0)
	w.int64(99)
	w.int64(0)
	w.int8(0)
	a, err := parseLogDirs(w.b)
	if err != nil || len(*a) != 1 || (*a)[0].bytes != 99 {
		f.Fatalf("%v: %+v", err, a)
	}
	f.Add(w.b)
	f.Fuzz(func(t *testing.T, b []byte) { parseLogDirs(b) })
}

func TestReadAnswer(t *testing.T) {
	for _, b := range [][]byte{{}, {0, 0}, {0, 0, 0, 9, 0, 0, 0, 1, 'x'}, {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1}, {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1}} {
		if _, err := readAnswer(io.MultiReader(bytes.NewReader(b))); err == nil {
			t.Errorf("%v is an answer", b)
		}
	}
}

// TestHeadersShareRoom: the headers of the messages of one call lie together, and each has its own.
func TestHeadersShareRoom(t *testing.T) {
	var ms []schemas.Message
	for i := range 50 {
		m := schemas.Message{ID: fmt.Sprint("id", i), Header: schemas.Header{"B": {fmt.Sprint("b", i)}, schemas.HeaderKey: {"not here"}}}
		for j := range i % 7 {
			m.Header["A"] = append(m.Header["A"], fmt.Sprint("a", i, j))
		}
		ms = append(ms, m)
	}
	var room headerRoom
	room.reserve(2, &ms[0]) // less than they take
	all := make([][]kafka.Header, len(ms))
	for i := range ms {
		all[i] = room.of(&ms[i])
	}
	for i, hs := range all {
		h, id := header(hs)
		want := schemas.Header{"B": ms[i].Header["B"]}
		if a := ms[i].Header["A"]; a != nil {
			want["A"] = a
		}
		if id != ms[i].ID || !reflect.DeepEqual(h, want) {
			t.Errorf("message %d: %v %q, want %v", i, h, id, want)
		}
		if cap(hs) != len(hs) {
			t.Errorf("message %d: its headers can grow into those of the next", i)
		}
	}
	if hs := room.of(&schemas.Message{}); hs != nil {
		t.Errorf("%v of none", hs)
	}
}

// TestRecordsIn: it is the number of records where the bytes are whole, and never more than they could hold.
func TestRecordsIn(t *testing.T) {
	batch := func(n int) []byte {
		body := sealedOf(record{value: []byte("v")})[0]
		return appendBatch(nil, n, func(int) *sealed { return &body }, producerID{}, false)
	}
	both := append(batch(3), batch(200)...)
	for cut, want := range map[int]int{0: 203, 1: 3, len(batch(200)): 3, len(both): 0} {
		if got := recordsIn(both[:len(both)-cut]); got != want {
			t.Errorf("%d of %d bytes: %d records, want %d", len(both)-cut, len(both), got, want)
		}
	}
	lying := batch(5)
	binary.BigEndian.PutUint32(lying[atCount:], math.MaxUint32)
	if got := recordsIn(lying); got > len(lying)/leastRecord {
		t.Errorf("%d records in %d bytes", got, len(lying))
	}
	binary.BigEndian.PutUint32(lying[atLength:], math.MaxUint32)
	if got := recordsIn(lying); got != 0 {
		t.Errorf("%d records in a batch without an end", got)
	}
}
