package route

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func BenchmarkDecide(b *testing.B) {
	for _, policy := range policies {
		for _, columns := range []int{5, 20, 63} {
			if !policy.linear() && columns > 5 {
				continue
			}
			p := mustPlan(b, banditOf(policy, 3, columns))
			s, x := stateOf(b, p, 1000), contextOf(p, 1)
			name := policy.String()
			if policy.linear() {
				name = fmt.Sprintf("%s/columns=%d", name, columns)
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for i := uint64(0); b.Loop(); i++ {
					if _, err := Decide(p, mix(i), x, s); err != nil {
						b.Fatal(err)
					}
				}
				if p.bandit.Policy == LinThompson {
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(p.bandit.Draws), "ns/draw")
				}
			})
		}
	}
}

func BenchmarkFold(b *testing.B) {
	for _, policy := range []Policy{UCB1, Thompson, ThompsonGaussian, LinUCB} {
		for _, columns := range []int{5, 63} {
			if !policy.linear() && columns > 5 {
				continue
			}
			p := mustPlan(b, banditOf(policy, 3, columns))
			rs := rewardsOf(p, rand.New(rand.NewPCG(1, 1)), 10_000)
			f := NewFold(p)
			b.Run(fmt.Sprintf("apply/%s/columns=%d", policy, len(p.bandit.Context)), func(b *testing.B) {
				b.ReportAllocs()
				for i := uint64(0); b.Loop(); i++ {
					r := rs[i%uint64(len(rs))]
					r.Position = i + 1 + f.position
					if _, err := f.Apply(r); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(fmt.Sprintf("state/%s/columns=%d", policy, len(p.bandit.Context)), func(b *testing.B) {
				for b.Loop() {
					clear(f.models)
					f.State()
				}
			})
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, arms := range []int{2, 3, 10} {
		weights := slices.Repeat([]int{TenThousand / 10}, arms)
		weights[0] = TenThousand - (arms-1)*weights[0]
		s := mustSplit(b, "s", names(arms), weights)
		for _, length := range []int{8, 36} {
			b.Run(fmt.Sprintf("arms=%d/key=%d", arms, length), func(b *testing.B) {
				b.ReportAllocs()
				key := make([]byte, length)
				sink := 0
				for i := 0; b.Loop(); i++ {
					binary.LittleEndian.PutUint64(key, uint64(i))
					sink += s.Arm(key)
				}
				_ = sink
			})
		}
	}
	b.Run("sampled", func(b *testing.B) {
		b.ReportAllocs()
		key := make([]byte, 16)
		for i := 0; b.Loop(); i++ {
			binary.LittleEndian.PutUint64(key, uint64(i))
			Sampled("forest", key, 250_000)
		}
	})
}
