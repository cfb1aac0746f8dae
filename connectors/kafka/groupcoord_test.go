package kafka

import (
	"errors"
	"reflect"
	"testing"

	"github.com/segmentio/kafka-go"
)

// offsetFetchAnswer is an answer as brokers write it, after its correlation id.
func offsetFetchAnswer(topic string, at map[int32]place, code, groupCode int16) []byte {
	w := &requestWriter{}
	w.tags()
	w.int32(0)
	w.uvarint(2)
	w.compact(topic)
	w.uvarint(uint64(len(at)) + 1)
	for _, p := range sortedKeys(at) {
		w.int32(p)
		w.int64(at[p].offset)
		w.int32(-1)
		w.compact(at[p].note())
		w.int16(code)
		w.tags()
	}
	w.tags()
	w.int16(groupCode)
	w.tags()
	return w.b
}

func TestOffsetFetch(t *testing.T) {
	want := groupPlaces{0: {offset: 17, high: 20}, 3: {offset: -1}, 4: {offset: 1 << 40, high: 1 << 41, exact: true}}
	got, err := parseOffsetFetch(offsetFetchAnswer("t", want, 0, 0))
	if err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseOffsetFetch(offsetFetchAnswer("t", want, int16(kafka.UnstableOffsetCommit), 0)); !errors.Is(err, kafka.UnstableOffsetCommit) {
		t.Errorf("a partition's error: %v", err)
	}
	if _, err := parseOffsetFetch(offsetFetchAnswer("t", nil, 0, int16(kafka.NotCoordinatorForGroup))); !errors.Is(err, kafka.NotCoordinatorForGroup) {
		t.Errorf("the group's error: %v", err)
	}
	for note, want := range map[string]place{
		"": {offset: 5}, "leat:7": {offset: 5, high: 7}, "leat-tx:9": {offset: 5, high: 9, exact: true}, "leat:": {offset: 5}, "leat:x": {offset: 5}, "leat-ledger:leat:7": {offset: 5, text: "leat:7"}, "somebody's": {offset: 5},
	} {
		if got := parsePlace(5, note); got != want {
			t.Errorf("note %q: %+v", note, got)
		}
	}
}

// FuzzOffsetFetch: whatever a broker answers is read or refused.
func FuzzOffsetFetch(f *testing.F) {
	whole := offsetFetchAnswer("topic", map[int32]place{0: {offset: 3, high: 4}, 1: {offset: -1}}, 0, 0)
	for _, b := range [][]byte{whole, whole[:len(whole)-1], whole[:9], offsetFetchAnswer("t", nil, 0, 16), {}, {0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		at, err := parseOffsetFetch(b)
		if err == nil && len(*at) > len(b) {
			t.Errorf("%d places in %d bytes", len(*at), len(b))
		}
	})
}

// FuzzParseClaims: whatever another member says, it claims something or nothing, and the shares come out whole.
func FuzzParseClaims(f *testing.F) {
	for _, s := range []string{"", "{}", `{"generation":3,"owned":[0,1,1,-1,99],"avoid":[0]}`, `{"owned":null}`, "\x00\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		js := []joiner{{"a", parseClaims(b)}, {"b", groupClaims{Generation: 1, Owned: []int32{1}}}}
		got := map[int32]bool{}
		for _, ps := range assign(js, upTo(4)) {
			for _, p := range ps {
				if got[p] || p < 0 || p > 3 {
					t.Fatalf("partition %d is given twice, or does not exist", p)
				}
				got[p] = true
			}
		}
	})
}
