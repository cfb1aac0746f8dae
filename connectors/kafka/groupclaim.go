package kafka

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"
)

// A group's members agree on who owns which partition in the way of Kafka's cooperative protocol (KIP-429), on top of
// the classic one that the library speaks: each says when it joins what it owns; the leader leaves that in place as far
// as the shares stay even; and a partition that is to move is nobody's for one generation, in which its owner settles
// what it has in work, commits, and joins again without it. So a rebalance stops nothing but the partitions that move.

// groupProtocol names what the members of a group must all speak. Consumers of other makers speak something else: they
// cannot share a group with Leat, and the broker says so to whoever comes second.
const groupProtocol = "leat-sticky-1"

// groupClaims are what a member says when it joins.
type groupClaims struct {
	Generation int32   `json:"generation"`      // the last one that it was part of, 0: none
	Owned      []int32 `json:"owned,omitempty"` // handed out by it then, and not given up since
	Avoid      []int32 `json:"avoid,omitempty"` // it does not get on with these: another member should have them
}

func (c *groupClaims) encode() ([]byte, error) { return json.Marshal(c) }

// parseClaims reads what encode wrote; anything else claims nothing.
func parseClaims(b []byte) groupClaims {
	var c groupClaims
	if json.Unmarshal(b, &c) != nil {
		return groupClaims{}
	}
	return c
}

// joiner is a member that joins the next generation.
type joiner struct {
	id string
	groupClaims
}

// owners says who holds each partition now: where several claim it, the one whose generation is the latest, since the
// others were cut off when it was given away.
func owners(js []joiner, partitions []int32) map[int32]int {
	out := make(map[int32]int, len(partitions))
	there := make(map[int32]bool, len(partitions))
	for _, p := range partitions {
		there[p] = true
	}
	for i := range js {
		for _, p := range js[i].Owned {
			if o, ok := out[p]; there[p] && (!ok || js[o].Generation < js[i].Generation) {
				out[p] = i
			}
		}
	}
	return out
}

// assign shares the partitions out: evenly, and with as few moves as that takes. It is a pure function of its
// arguments. A partition that moves is given to nobody yet. One that its owner avoids moves to a member that does not,
// even if the shares must be evened out by another one.
func assign(js []joiner, partitions []int32) map[string][]int32 {
	out := make(map[string][]int32, len(js))
	if len(js) == 0 {
		return out
	}
	js = slices.SortedFunc(slices.Values(js), func(a, b joiner) int { return strings.Compare(a.id, b.id) })
	partitions = slices.Sorted(slices.Values(partitions))
	owner := owners(js, partitions)
	target := make(map[int32]int, len(partitions))
	load := make([]int, len(js))
	give := func(p int32, i int) { target[p] = i; load[i]++ }

	// What everybody avoids is nobody's fault.
	hated := map[int32]int{}
	for i := range js {
		for _, p := range js[i].Avoid {
			hated[p]++
		}
	}
	avoids := func(i int, p int32) bool { return hated[p] < len(js) && slices.Contains(js[i].Avoid, p) }

	own := make([]int, len(js))
	for _, i := range owner {
		own[i]++
	}
	for _, p := range partitions { // first those that have the least choice
		if hated[p] == 0 || hated[p] == len(js) {
			continue
		}
		if o, ok := owner[p]; ok && !avoids(o, p) {
			continue
		}
		best := -1
		for i := range js {
			if !avoids(i, p) && (best < 0 || own[i]+load[i] < own[best]+load[best]) {
				best = i
			}
		}
		give(p, best)
		if o, ok := owner[p]; ok {
			own[o]--
		}
	}

	quota := quotas(js, len(partitions), own, load)
	for _, p := range partitions { // then what can stay
		if _, ok := target[p]; ok {
			continue
		}
		if o, ok := owner[p]; ok && load[o] < quota[o] {
			give(p, o)
		}
	}
	for _, p := range partitions { // and the rest where there is room
		if _, ok := target[p]; ok {
			continue
		}
		best := -1
		for i := range js {
			better := best < 0 || load[i]-quota[i] < load[best]-quota[best]
			if !avoids(i, p) && better || best < 0 {
				best = i
			}
		}
		give(p, best)
	}
	for _, p := range partitions {
		if o, ok := owner[p]; !ok || o == target[p] {
			id := js[target[p]].id
			out[id] = append(out[id], p)
		}
	}
	return out
}

// quotas are even shares; those who have more get the one that is left over.
func quotas(js []joiner, partitions int, own, load []int) []int {
	quota := make([]int, len(js))
	order := make([]int, len(js))
	for i := range js {
		quota[i], order[i] = partitions/len(js), i
	}
	slices.SortStableFunc(order, func(a, b int) int { return own[b] + load[b] - own[a] - load[a] })
	for _, i := range order[:partitions%len(js)] {
		quota[i]++
	}
	return quota
}

// balancer is the library's view of all this, for one member on one topic.
type balancer struct {
	claim func() groupClaims
	lead  func(partitions int) // this member assigned so many
}

// ProtocolName implements kafka.GroupBalancer.
func (b *balancer) ProtocolName() string { return groupProtocol }

// UserData implements kafka.GroupBalancer.
func (b *balancer) UserData() ([]byte, error) {
	c := b.claim()
	return c.encode()
}

// AssignGroups implements kafka.GroupBalancer. Members of a group may be on different topics.
func (b *balancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	byTopic, of := map[string][]joiner{}, map[string][]int32{}
	out := kafka.GroupMemberAssignments{}
	for _, m := range members {
		out[m.ID] = map[string][]int{}
		c := parseClaims(m.UserData)
		for _, t := range m.Topics {
			byTopic[t] = append(byTopic[t], joiner{id: m.ID, groupClaims: c})
		}
	}
	for _, p := range partitions {
		of[p.Topic] = append(of[p.Topic], int32(p.ID))
	}
	for _, t := range slices.Sorted(maps.Keys(byTopic)) {
		for id, ps := range assign(byTopic[t], of[t]) {
			for _, p := range ps {
				out[id][t] = append(out[id][t], int(p))
			}
		}
	}
	b.lead(len(partitions))
	return out
}
