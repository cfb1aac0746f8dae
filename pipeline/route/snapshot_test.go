package route

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

func TestUnmarshalErrors(t *testing.T) {
	p := mustPlan(t, banditOf(UCB1, 3, 0))
	f := NewFold(p)
	applyAll(t, f, rewardsOf(p, rand.New(rand.NewPCG(1, 1)), 20))
	good := snapshot(t, f)
	other := mustPlan(t, banditOf(UCB1, 4, 0))
	small := banditOf(UCB1, 3, 0)
	small.Remember = 5
	tuned := banditOf(EpsilonGreedy, 3, 0)
	tests := []struct {
		name string
		plan *Plan
		data []byte
		says string
	}{
		{"empty", p, nil, "these 0 bytes are no snapshot"},
		{"magic", p, append([]byte("x"), good[1:]...), "no snapshot"},
		{"version", p, slices.Replace(slices.Clone(good), 8, 9, 2), "version 2 is not 1"},
		{"other arms", other, good, "other arms"},
		{"remembers less", mustPlan(t, small), good, "other arms, context columns or another number"},
		{"cut", p, good[:len(good)-1], "cannot be"},
		{"short", p, good[:30], "cannot be"},
		{"damaged", p, slices.Replace(slices.Clone(good), 20, 21, good[20]^1), "checksum"},
		{"another policy on the same sums", mustPlan(t, tuned), good, ""},
	}
	for _, tt := range tests {
		g := NewFold(tt.plan)
		err := g.UnmarshalBinary(tt.data)
		if tt.says == "" {
			if err != nil || !bytes.Equal(snapshot(t, g), good) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		var e *schemas.Error
		if !errors.As(err, &e) || e.Kind != schemas.Invalid || e.Field != "snapshot" || !strings.Contains(e.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
		if !reflect.DeepEqual(g, NewFold(tt.plan)) {
			t.Errorf("%s: the fold changed", tt.name)
		}
	}
}

// TestUnmarshalHostile: a snapshot whose checksum is right and whose numbers no rewards could have made.
func TestUnmarshalHostile(t *testing.T) {
	tests := []struct {
		name   string
		policy Policy
		change func(f *Fold)
		says   string
	}{
		{"as it is", Thompson, func(f *Fold) {}, ""},
		{"as it is, linear", LinUCB, func(f *Fold) {}, ""},
		{"more successes than rewards", Thompson, func(f *Fold) { f.arms[0].sum.add(int64(f.arms[0].n) * unit) }, "sums of arm arm-0"},
		{"fewer than none", Thompson, func(f *Fold) { f.arms[1].sum = sum128{-1, math.MaxUint64} }, "sums of arm arm-1"},
		{"sum beyond the values", UCB1, func(f *Fold) { f.arms[0].sum.hi = 1 }, "sums of arm arm-0"},
		{"least sum", UCB1, func(f *Fold) { f.arms[0].sum = sum128{hi: math.MinInt64} }, "sums of arm arm-0"},
		{"rewards beyond counting", UCB1, func(f *Fold) { f.arms[0].n = maxRewards + 1 }, "sums of arm arm-0"},
		{"products beyond the values", LinUCB, func(f *Fold) { f.arms[0].xr[1].hi = 1 << 40 }, "sums of arm arm-0"},
		{"squares beyond the values", LinUCB, func(f *Fold) { f.arms[2].xx[3].hi = -1 << 40 }, "sums of arm arm-2"},
		{"repeats", UCB1, func(f *Fold) { f.counts[Repeated] = 1 }, "position or counts"},
		{"index without position", UCB1, func(f *Fold) { f.position = 0; f.index = 3 }, "position or counts"},
		{"a decision twice", UCB1, func(f *Fold) { f.memory.slots[1] = f.memory.slots[0] }, "decision"},
		{"value beyond the values", UCB1, func(f *Fold) { f.memory.slots[0].value = MaxValue*unit + 1 }, "decision"},
	}
	for _, tt := range tests {
		p := mustPlan(t, banditOf(tt.policy, 3, 2))
		f := NewFold(p)
		applyAll(t, f, rewardsOf(p, rand.New(rand.NewPCG(1, 1)), 60))
		tt.change(f)
		err := NewFold(p).UnmarshalBinary(snapshot(t, f))
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
}

// FuzzSnapshot: whatever the bytes are, the checksum set right, they are refused and nothing changes, or they are the
// snapshot of the fold that they make, and that decides.
func FuzzSnapshot(f *testing.F) {
	var plans []*Plan
	for i, policy := range []Policy{UCB1, Thompson, LinUCB, LinThompson} {
		b := banditOf(policy, 2+i%2, 2)
		b.Remember = 8
		if b.Draws > 0 {
			b.Draws = 10
		}
		p := mustPlan(f, b)
		plans = append(plans, p)
		fold := NewFold(p)
		for j, r := range rewardsOf(p, rand.New(rand.NewPCG(1, 1)), 40) {
			if j%13 == 0 {
				s := snapshot(f, fold)
				f.Add(uint8(i), s[:len(s)-8])
			}
			applyAll(f, fold, []Reward{r})
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		p := plans[int(which)%len(plans)]
		data := slices.Clone(body)
		for i, h := 0, xxhash.Sum64(body); i < 8; i++ {
			data = append(data, byte(h>>(8*i)))
		}
		fold := NewFold(p)
		if fold.UnmarshalBinary(data) != nil {
			if !reflect.DeepEqual(fold, NewFold(p)) {
				t.Fatal("a refused snapshot changed the fold")
			}
			return
		}
		if !bytes.Equal(snapshot(t, fold), data) {
			t.Fatal("a snapshot that was taken is not written so again")
		}
		mustDecide(t, p, 1, contextOf(p, 1), fold.State())
		if fold.position < math.MaxUint64 {
			r := Reward{Position: fold.position + 1, DecisionID: idOf(3), Arm: "arm-0", Context: contextOf(p, 3), Value: 1}
			if o, err := fold.Apply(r); o == Repeated {
				t.Fatal(o, err)
			}
		}
	})
}
