package kafka

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go"
)

func upTo(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

func TestAssign(t *testing.T) {
	for _, tc := range []struct {
		what       string
		partitions int
		members    []joiner
		want       map[string][]int32
	}{
		{"nobody", 3, nil, map[string][]int32{}},
		{"no topic", 0, []joiner{{id: "a", groupClaims: groupClaims{1, []int32{0, 1}, nil}}}, map[string][]int32{}},
		{"the first member", 3, []joiner{{id: "a"}}, map[string][]int32{"a": {0, 1, 2}}},
		{"two at once", 3, []joiner{{id: "b"}, {id: "a"}}, map[string][]int32{"a": {0, 1}, "b": {2}}},
		{"a second one waits for what moves", 4, []joiner{{id: "b"}, {"a", groupClaims{1, []int32{0, 1, 2, 3}, nil}}}, map[string][]int32{"a": {0, 1}}},
		{"and gets it when it is free", 4, []joiner{{id: "b"}, {"a", groupClaims{2, []int32{0, 1}, nil}}}, map[string][]int32{"a": {0, 1}, "b": {2, 3}}},
		{"the odd one stays where it is", 3, []joiner{{id: "a", groupClaims: groupClaims{3, []int32{1}, nil}}, {"b", groupClaims{3, []int32{0, 2}, nil}}},
			map[string][]int32{"a": {1}, "b": {0, 2}}},
		{"one died", 5, []joiner{{"a", groupClaims{3, []int32{0, 3}, nil}}, {"c", groupClaims{3, []int32{4}, nil}}}, map[string][]int32{"a": {0, 1, 3}, "c": {2, 4}}},
		{"partitions were added", 4, []joiner{{"a", groupClaims{3, []int32{0}, nil}}, {"b", groupClaims{3, []int32{1}, nil}}}, map[string][]int32{"a": {0, 2}, "b": {1, 3}}},
		{"more members than partitions", 1, []joiner{{id: "a"}, {"b", groupClaims{3, []int32{0}, nil}}, {id: "c"}}, map[string][]int32{"b": {0}}},
		{"one was cut off and comes back", 2, []joiner{{"a", groupClaims{3, []int32{0, 1}, nil}}, {"b", groupClaims{4, []int32{0, 1}, nil}}}, map[string][]int32{"b": {0}}},
		{"one does not get on with its partition", 4, []joiner{{"a", groupClaims{5, []int32{0, 1}, []int32{0}}}, {"b", groupClaims{5, []int32{2, 3}, nil}}},
			map[string][]int32{"a": {1}, "b": {2}}},
		{"then", 4, []joiner{{"a", groupClaims{6, []int32{1}, []int32{0}}}, {"b", groupClaims{6, []int32{2}, nil}}}, map[string][]int32{"a": {1, 3}, "b": {0, 2}}},
		{"nobody else is there", 2, []joiner{{"a", groupClaims{5, []int32{0, 1}, []int32{0}}}}, map[string][]int32{"a": {0, 1}}},
		{"nobody gets on with it", 2, []joiner{{"a", groupClaims{5, []int32{0}, []int32{0}}}, {"b", groupClaims{5, []int32{1}, []int32{0}}}}, map[string][]int32{"a": {0}, "b": {1}}},
	} {
		if got := assign(tc.members, upTo(tc.partitions)); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.what, got, tc.want)
		}
	}
}

// TestAssignSettles: whoever comes and goes, no partition ever has two owners, what a member keeps it kept, and two
// generations after the last change everything is given out, evenly.
func TestAssignSettles(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		partitions := upTo(1 + r.IntN(12))
		var members []joiner
		generation, born := int32(0), 0
		for step := range 40 {
			if step < 30 {
				switch n := r.IntN(6); {
				case n == 0 || len(members) == 0:
					members = append(members, joiner{id: fmt.Sprint("m", born)})
					born++
				case n == 1 && len(members) > 1:
					members = slices.Delete(members, 0, 1)
				case n == 2 && len(partitions) < 20:
					partitions = upTo(len(partitions) + 1)
				case n == 3:
					m := &members[r.IntN(len(members))]
					m.Avoid = []int32{int32(r.IntN(len(partitions)))}
				case n == 4 && r.IntN(3) == 0: // was cut off: the others go on, it remembers
					m := members[0]
					rest := members[1:]
					generation++
					play(t, rest, partitions, generation)
					members = append(rest, m)
				}
			} else {
				for i := range members {
					members[i].Avoid = nil
				}
			}
			generation++
			play(t, members, partitions, generation)
		}
		given, least, most := 0, len(partitions), 0
		for _, m := range members {
			given += len(m.Owned)
			least, most = min(least, len(m.Owned)), max(most, len(m.Owned))
		}
		if given != len(partitions) || most-least > 1 {
			t.Fatalf("seed %d: %d partitions, %v", seed, len(partitions), members)
		}
	}
}

// play lets the members form a generation.
func play(t *testing.T, members []joiner, partitions []int32, generation int32) {
	t.Helper()
	got := assign(members, partitions)
	owner := map[int32]string{}
	before := owners(members, partitions)
	for i := range members {
		m := &members[i]
		for _, p := range got[m.id] {
			if o, ok := owner[p]; ok {
				t.Fatalf("partition %d is given to %s and %s", p, o, m.id)
			}
			if o, ok := before[p]; ok && o != i {
				t.Fatalf("partition %d of %s is given to %s at once", p, members[o].id, m.id)
			}
			owner[p] = m.id
		}
		m.Owned, m.Generation = got[m.id], generation
	}
}

func TestBalancer(t *testing.T) {
	led := -1
	b := &balancer{claim: func() groupClaims { return groupClaims{7, []int32{1}, []int32{0}} }, lead: func(n int) { led = n }}
	data, err := b.UserData()
	if err != nil {
		t.Fatal(err)
	}
	if got := parseClaims(data); !reflect.DeepEqual(got, b.claim()) {
		t.Errorf("%s is read as %v", data, got)
	}
	if got := parseClaims([]byte("\x00\x01range")); !reflect.DeepEqual(got, groupClaims{}) {
		t.Errorf("noise groupClaims %v", got)
	}
	got := b.AssignGroups([]kafka.GroupMember{
		{ID: "a", Topics: []string{"t"}, UserData: data}, {ID: "b", Topics: []string{"t"}}, {ID: "c", Topics: []string{"u"}, UserData: data}, {ID: "d", Topics: []string{"none"}},
	}, []kafka.Partition{{Topic: "t", ID: 0}, {Topic: "t", ID: 1}, {Topic: "u", ID: 0}})
	want := kafka.GroupMemberAssignments{"a": {"t": {1}}, "b": {"t": {0}}, "c": {"u": {0}}, "d": {}}
	if !reflect.DeepEqual(got, want) || led != 3 {
		t.Errorf("%v (%d), want %v", got, led, want)
	}
}
