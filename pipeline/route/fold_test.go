package route

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/schemas"
)

func snapshot(t testing.TB, f *Fold) []byte {
	t.Helper()
	b, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sums are a fold's numbers without its counts of outcomes and its position, which depend on what came and not only on
// what counts.
func sums(t testing.TB, f *Fold) []byte {
	t.Helper()
	g := NewFold(f.plan)
	g.arms = f.arms
	return snapshot(t, g)
}

// TestFoldReplaces: rewards in any order, with corrections in between, leave what the last of each decision leave alone.
func TestFoldReplaces(t *testing.T) {
	for _, policy := range policies {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 1))
			p := mustPlan(t, banditOf(policy, 3, 4))
			rs := rewardsOf(p, rng, 500)
			f := NewFold(p)
			applyAll(t, f, rs)
			if f.Count(Replaced) == 0 || f.Count(Refused)+f.Count(Unknown) != 0 {
				t.Fatalf("%s: the rewards of this test are not what they should be: %v", policy, f.counts)
			}
			last := make(map[[32]byte]Reward)
			for _, r := range rs {
				last[r.DecisionID] = r
			}
			var only []Reward
			for _, r := range last {
				only = append(only, r)
			}
			slices.SortFunc(only, func(a, b Reward) int { return bytes.Compare(a.DecisionID[:], b.DecisionID[:]) })
			rng.Shuffle(len(only), func(i, j int) { only[i], only[j] = only[j], only[i] })
			for i := range only {
				only[i].Position, only[i].Index = uint64(i+1), 0
			}
			g := NewFold(p)
			applyAll(t, g, only)
			if !bytes.Equal(sums(t, f), sums(t, g)) {
				t.Fatalf("%s, seed %d: %d rewards leave other sums than the last %d in another order", policy, seed, len(rs), len(only))
			}
			a, b := f.State(), g.State()
			for i := range uint64(50) {
				x := contextOf(p, i)
				if x, y := mustDecide(t, p, mix(i), x, a), mustDecide(t, p, mix(i), x, b); x != y {
					t.Fatalf("%s, seed %d: %v and %v", policy, seed, x, y)
				}
			}
		}
	}
}

// TestFoldResumes: from the snapshot of any prefix, by a stream that is read from somewhere before, to the same bytes.
func TestFoldResumes(t *testing.T) {
	for _, policy := range policies {
		rng := rand.New(rand.NewPCG(8, uint64(policy)))
		b := banditOf(policy, 3, 4)
		b.Remember = 37 // so that decisions are forgotten
		p := mustPlan(t, b)
		rs := rewardsOf(p, rng, 300)
		rs[50].Arm, rs[60].Value, rs[70].Arm = "gone", math.NaN(), "gone"
		apply := func(f *Fold, rs []Reward) {
			for _, r := range rs {
				_, _ = f.Apply(r) // one is refused
			}
		}
		whole := NewFold(p)
		apply(whole, rs)
		for _, o := range []Outcome{Counted, Replaced, Unknown, Refused} {
			if whole.Count(o) == 0 {
				t.Fatalf("%s: no reward is %v: %v", policy, o, whole.counts)
			}
		}
		want := snapshot(t, whole)
		for cut := 0; cut <= len(rs); cut++ {
			f := NewFold(p)
			apply(f, rs[:cut])
			g := NewFold(p)
			if err := g.UnmarshalBinary(snapshot(t, f)); err != nil {
				t.Fatalf("%s, cut at %d: %v", policy, cut, err)
			}
			apply(g, rs[max(0, cut-rng.IntN(100)):])
			if !bytes.Equal(snapshot(t, g), want) {
				t.Fatalf("%s: cut at %d, the rest leads elsewhere", policy, cut)
			}
		}
	}
}

func TestFoldOutcomes(t *testing.T) {
	b := banditOf(LinUCB, 2, 1)
	b.Remember = 2
	p := mustPlan(t, b)
	f := NewFold(p)
	reward := func(position uint64, decision uint64, change func(r *Reward)) Reward {
		r := Reward{Position: position, DecisionID: idOf(decision), Arm: "arm-0", Context: []float64{0.5}, Value: 1}
		if change != nil {
			change(&r)
		}
		return r
	}
	steps := []struct {
		reward Reward
		want   Outcome
		field  string
		mean   float64 // of arm-0 afterwards
	}{
		{reward(0, 3, nil), Refused, "position", 0},
		{reward(5, 3, nil), Counted, "", 1},
		{reward(5, 3, func(r *Reward) { r.Value = 9 }), Repeated, "", 1},
		{reward(4, 4, nil), Repeated, "", 1},
		{reward(5, 3, func(r *Reward) { r.Value, r.Index = 3, 1 }), Replaced, "", 3},
		{reward(6, 4, func(r *Reward) { r.Value = 0 }), Counted, "", 1.5},
		{reward(7, 4, func(r *Reward) { r.Arm = "arm-1" }), Refused, "decision", 1.5},
		{reward(8, 4, func(r *Reward) { r.Context = []float64{0.25} }), Refused, "decision", 1.5},
		{reward(10, 6, func(r *Reward) { r.Value = math.Inf(1) }), Refused, "value", 1.5},
		{reward(11, 6, func(r *Reward) { r.Value = -MaxValue - 1 }), Refused, "value", 1.5},
		{reward(12, 6, func(r *Reward) { r.Context = nil }), Refused, "context", 1.5},
		{reward(13, 6, func(r *Reward) { r.Context = []float64{math.NaN()} }), Refused, "c0", 1.5},
		{reward(14, 6, func(r *Reward) { r.Arm = "arm-9" }), Unknown, "", 1.5},
		{reward(15, 2, func(r *Reward) { r.Value = 6 }), Counted, "", 3},  // the third: 3, the first, is forgotten
		{reward(16, 4, func(r *Reward) { r.Value = 3 }), Replaced, "", 4}, // which does not make 4 a later one
		{reward(17, 3, func(r *Reward) { r.Value = 4 }), Counted, "", 4},  // counts once more; 4 is forgotten
		{reward(18, 2, func(r *Reward) { r.Value = 2 }), Replaced, "", 3},
		{reward(19, 4, func(r *Reward) { r.Value = 3 }), Counted, "", 3},
	}
	for i, s := range steps {
		got, err := f.Apply(s.reward)
		var e *schemas.Error
		if got != s.want || (err != nil) != (s.want == Refused) || err != nil && (!errors.As(err, &e) || e.Kind != schemas.Invalid || e.Field != s.field) {
			t.Errorf("step %d: %v, %v; want %v of field %q", i, got, err, s.want, s.field)
		}
		if _, mean := f.State().Arm(0); mean != s.mean {
			t.Errorf("step %d: mean %v, want %v", i, mean, s.mean)
		}
	}
	if at, index := f.Position(); at != 19 || index != 0 {
		t.Errorf("position %d, %d", at, index)
	}
	beta := NewFold(mustPlan(t, banditOf(Thompson, 2, 0)))
	for i, v := range []float64{-0.01, 1.01} {
		if o, err := beta.Apply(Reward{Position: uint64(i + 1), Arm: "arm-0", Value: v}); o != Refused || !strings.Contains(err.Error(), "between 0 and 1") {
			t.Errorf("a reward of %v for thompson: %v, %v", v, o, err)
		}
	}
}

// TestStateStays: what a state says does not change while the fold goes on.
func TestStateStays(t *testing.T) {
	for _, policy := range policies {
		p := mustPlan(t, banditOf(policy, 3, 4))
		rs := rewardsOf(p, rand.New(rand.NewPCG(4, 4)), 200)
		f := NewFold(p)
		applyAll(t, f, rs[:100])
		s := f.State()
		decide := func() (out []Decision) {
			for i := range uint64(100) {
				out = append(out, mustDecide(t, p, mix(i), contextOf(p, i), s))
			}
			return out
		}
		before := decide()
		applyAll(t, f, rs[100:])
		f.State()
		if !slices.Equal(before, decide()) {
			t.Errorf("%s: a state's decisions changed while its fold went on", policy)
		}
		if at, _ := s.Position(); at != rs[99].Position {
			t.Errorf("%s: state at %d, want %d", policy, at, rs[99].Position)
		}
	}
}

// TestStateShared: goroutines decide by one state while its fold goes on and makes others (with -race).
func TestStateShared(t *testing.T) {
	for _, policy := range policies {
		p := mustPlan(t, banditOf(policy, 3, 4))
		rs := rewardsOf(p, rand.New(rand.NewPCG(4, 5)), 60)
		f := NewFold(p)
		applyAll(t, f, rs[:30])
		s := f.State()
		var wg sync.WaitGroup
		var got [3][]Decision
		for g := range got {
			wg.Go(func() {
				for i := range uint64(100) {
					d, err := Decide(p, mix(i), contextOf(p, i), s)
					if err != nil {
						t.Error(err)
					}
					got[g] = append(got[g], d)
				}
			})
		}
		for _, r := range rs[30:50] {
			applyAll(t, f, []Reward{r})
			if r.Position%8 == 0 {
				f.State()
			}
		}
		wg.Wait()
		if !slices.Equal(got[0], got[1]) || !slices.Equal(got[0], got[2]) {
			t.Errorf("%s: goroutines decide differently by one state", policy)
		}
	}
}

// TestLinear compares theta and width with what solving A directly gives.
func TestLinear(t *testing.T) {
	for _, columns := range []int{1, 2, 7, 63} {
		p := mustPlan(t, banditOf(LinUCB, 2, columns))
		f := NewFold(p)
		applyAll(t, f, rewardsOf(p, rand.New(rand.NewPCG(2, 2)), 400))
		x := make([]float64, p.dim)
		for i := range x {
			x[i] = float64(i%5) - 1.5
		}
		for _, ridge := range []float64{0.01, 1, 30} {
			mean, width := direct(&f.arms[0], ridge, x)
			m, w := newLinear(&f.arms[0], ridge).at(x)
			if math.Abs(m-mean) > 1e-9*(1+math.Abs(mean)) || math.Abs(w-width) > 1e-9*(1+w) {
				t.Errorf("%d columns, ridge %v: mean %v, width %v; want %v, %v", columns, ridge, m, w, mean, width)
			}
		}
	}
}

// direct returns theta·x and sqrt(x'A⁻¹x) by solving A theta = b and A y = x.
func direct(s *armSums, ridge float64, x []float64) (mean, width float64) {
	a := make([][]float64, len(x))
	at := 0
	for i := range a {
		a[i] = make([]float64, len(x))
		for j := range i + 1 {
			a[i][j] = s.xx[at].float(2 * unitBits)
			a[j][i] = a[i][j]
			at++
		}
		a[i][i] += ridge
	}
	b := make([]float64, len(x))
	for i := range b {
		b[i] = s.xr[i].float(2 * unitBits)
	}
	theta, y := solve(a, b), solve(a, x)
	square := 0.0
	for i := range x {
		mean, square = mean+theta[i]*x[i], square+y[i]*x[i]
	}
	return mean, math.Sqrt(square)
}

// solve is Gauss's elimination with pivots.
func solve(a [][]float64, b []float64) []float64 {
	n := len(b)
	m := make([][]float64, n)
	for i := range m {
		m[i] = append(slices.Clone(a[i]), b[i])
	}
	for c := range n {
		p := c
		for r := c + 1; r < n; r++ {
			if math.Abs(m[r][c]) > math.Abs(m[p][c]) {
				p = r
			}
		}
		m[c], m[p] = m[p], m[c]
		for r := range n {
			if r != c {
				f := m[r][c] / m[c][c]
				for k := c; k <= n; k++ {
					m[r][k] -= f * m[c][k]
				}
			}
		}
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = m[i][n] / m[i][i]
	}
	return out
}

// TestLinearFloor: columns that are nearly the same, with large values, keep every number finite.
func TestLinearFloor(t *testing.T) {
	b := banditOf(LinThompson, 2, 3)
	b.Ridge = 1e-6
	p := mustPlan(t, b)
	f := NewFold(p)
	for i := range uint64(200) {
		v := MaxValue - float64(i)
		r := Reward{Position: i + 1, DecisionID: idOf(i), Arm: "arm-0", Context: []float64{v, v, -v}, Value: float64(i % 3)}
		applyAll(t, f, []Reward{r})
	}
	s := f.State()
	d := mustDecide(t, p, 1, []float64{MaxValue, MaxValue, -MaxValue}, s)
	if !(d.Propensity > 0 && d.Propensity <= 1) {
		t.Errorf("%+v", d)
	}
	for _, v := range slices.Concat(s.models[0].theta, s.models[0].lower, s.models[0].recip) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("%v in %+v", v, s.models[0])
		}
	}
}
