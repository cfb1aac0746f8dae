package route

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// randomBandit returns any policy with any parameters.
func randomBandit(rng *rand.Rand) Bandit {
	b := banditOf(policies[rng.IntN(len(policies))], 2+rng.IntN(5), 1+rng.IntN(8))
	between := func(from, to float64) float64 { return from * math.Pow(to/from, rng.Float64()) }
	b.Remember = 1 + rng.IntN(200)
	b.MinimumShare = rng.IntN(TenThousand/len(b.Arms) + 1)
	if rng.IntN(2) == 0 {
		b.MinimumShare = 0
	}
	if b.Epsilon > 0 {
		b.Epsilon = rng.IntN(TenThousand + 1)
	}
	for _, v := range []*float64{&b.Explore, &b.Ridge, &b.Noise, &b.PriorSD} {
		if *v > 0 {
			*v = between(1e-3, 1e3)
		}
	}
	if b.PriorSuccess > 0 {
		b.PriorSuccess, b.PriorFailure = between(1, 100), between(1, 100)
	}
	if b.Draws > 0 {
		b.Draws = 1 + rng.IntN(300)
	}
	return b
}

// made is what the lineage holds of a decision.
type made struct {
	seed     uint64
	context  []float64
	position uint64
	index    uint32
	decision Decision
}

// traffic folds random rewards, decides in between with whatever state is shared at that time, and keeps snapshots here and
// there: decisions, rewards and snapshots.
func traffic(t testing.TB, p *Plan, rng *rand.Rand, decisions int) (out []made, rs []Reward, snapshots [][]byte) {
	rs = rewardsOf(p, rng, 200)
	f := NewFold(p)
	s := f.State()
	snapshots = append(snapshots, snapshot(t, f))
	for i := range decisions {
		if next := i * len(rs) / decisions; next > 0 && next != (i-1)*len(rs)/decisions {
			applyAll(t, f, rs[next-1:next])
			if rng.IntN(5) == 0 {
				s = f.State()
			}
			if rng.IntN(20) == 0 {
				snapshots = append(snapshots, snapshot(t, f))
			}
		}
		m := made{seed: Seed([32]byte(idOf(rng.Uint64())), i, "bandit"), context: contextOf(p, rng.Uint64N(1<<40))}
		m.position, m.index = s.Position()
		m.decision = mustDecide(t, p, m.seed, m.context, s)
		out = append(out, m)
	}
	return out, rs, snapshots
}

// derive finds decisions again by their records, in order: for each the last snapshot at or before its state's position,
// the rewards from there on, and the seed. It returns how many snapshots were read.
func derive(t testing.TB, p *Plan, decisions []made, rs []Reward, snapshots [][]byte) (read int) {
	load := func() *Fold {
		f := NewFold(p)
		if err := f.UnmarshalBinary(snapshots[0]); err != nil {
			t.Fatal(err)
		}
		snapshots = snapshots[1:]
		read++
		return f
	}
	before := func(f *Fold, m made) bool {
		at, index := f.Position()
		return at < m.position || at == m.position && index <= m.index
	}
	f := load()
	var next *Fold
	if len(snapshots) > 0 {
		next = load()
	}
	rest := rs // from the first on: what the snapshot has is Repeated
	s := f.State()
	for i, m := range decisions {
		for next != nil && before(next, m) {
			f, next, rest = next, nil, rs
			s = f.State()
			if len(snapshots) > 0 {
				next = load()
			}
		}
		for len(rest) > 0 && (rest[0].Position < m.position || rest[0].Position == m.position && rest[0].Index <= m.index) {
			if applyAll(t, f, rest[:1]); len(rest) == 1 || rest[1].Position > m.position || rest[1].Position == m.position && rest[1].Index > m.index {
				s = f.State()
			}
			rest = rest[1:]
		}
		got, err := Decide(p, m.seed, m.context, s)
		if err != nil || got != m.decision {
			t.Fatalf("%s, decision %d: %+v, %v; recorded is %+v", p.bandit.Policy, i, got, err, m.decision)
		}
	}
	return read
}

// TestDerive: 100,000 decisions of random plans come out again from what the lineage holds of them, to the bit: by the
// snapshot before and the rewards since, and from all rewards without a snapshot.
func TestDerive(t *testing.T) {
	const plans, each = 100, 1000
	used, read := make(map[Policy]int), 0
	for seed := range uint64(plans) {
		rng := rand.New(rand.NewPCG(seed, 77))
		b := randomBandit(rng)
		p := mustPlan(t, b)
		used[b.Policy] += each
		decisions, rs, snapshots := traffic(t, p, rng, each)
		again := mustPlan(t, b) // of the specification, as another process would
		read += derive(t, again, decisions, rs, snapshots)
		derive(t, again, decisions, rs, snapshots[:1])
	}
	for _, p := range policies {
		if used[p] < 5*each {
			t.Errorf("%s had %d decisions only", p, used[p])
		}
	}
	if read < 5*plans {
		t.Errorf("%d snapshots were read, want 5 a plan", read)
	}
}

// childEnv makes a test binary print what TestDeriveElsewhere compares.
const childEnv = "LEAT_ROUTE_DERIVE_CHILD"

// TestDeriveElsewhere: another process decides the same.
func TestDeriveElsewhere(t *testing.T) {
	var b strings.Builder
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 78))
		decisions, _, snapshots := traffic(t, mustPlan(t, randomBandit(rng)), rng, 500)
		fmt.Fprintf(&b, "%016x", xxhash.Sum64(bytes.Join(snapshots, nil)))
		for _, m := range decisions {
			fmt.Fprintf(&b, " %d:%x", m.decision.Arm, m.decision.Propensity)
		}
	}
	sum := fmt.Sprintf("derived %016x", xxhash.Sum64String(b.String()))
	if os.Getenv(childEnv) != "" {
		fmt.Println(sum)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDeriveElsewhere$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), sum) {
		t.Errorf("this process has %s, another: %v\n%s", sum, err, out)
	}
}

// goldenRewards need no generator but mix.
func goldenRewards(p *Plan, n int) []Reward {
	var out []Reward
	for i := range uint64(n) {
		decision := mix(i+1) % (i + 1)
		out = append(out, Reward{
			Position: 10 + i/2, Index: uint32(i % 2), DecisionID: idOf(decision),
			Arm: p.bandit.Arms[mix(decision)%uint64(len(p.bandit.Arms))], Context: contextOf(p, decision), Value: float64(mix(i)%1001) / 1000,
		})
	}
	return out
}

// goldenLines are what testdata/bandit.txt pins: draws, snapshots and decisions, floats by their bits.
func goldenLines(t testing.TB) []string {
	var out []string
	var d draws
	d.seed(42, laneChoose)
	for i := range 8 {
		k := float64(1 + i*i)
		out = append(out, fmt.Sprintf("draws %d uniform=%x normal=%x gamma=%x beta=%x below=%d ln=%x",
			i, d.uniform(), d.normal(), d.gamma(k), d.beta(k, 2), d.below(1000), ln(k+0.25)))
	}
	for _, policy := range policies {
		for _, rewards := range []int{0, 7, 300} {
			b := banditOf(policy, 3, 4)
			b.MinimumShare, b.Remember = 100, 50
			if b.Draws > 0 {
				b.Draws = 500
			}
			p := mustPlan(t, b)
			f := NewFold(p)
			applyAll(t, f, goldenRewards(p, rewards))
			out = append(out, fmt.Sprintf("fold %s rewards=%d snapshot=%016x", policy, rewards, xxhash.Sum64(snapshot(t, f))))
			s := f.State()
			for i := range uint64(12) {
				d := mustDecide(t, p, mix(i), contextOf(p, 1000+i), s)
				out = append(out, fmt.Sprintf("decide %s rewards=%d seed=%016x context=%d arm=%d propensity=%x explored=%v",
					policy, rewards, mix(i), 1000+i, d.Arm, d.Propensity, d.Explored))
			}
		}
	}
	return out
}

// TestBanditGolden pins decisions for ever, and on every CPU: what differs here differs from recorded decisions.
func TestBanditGolden(t *testing.T) {
	const path = "testdata/bandit.txt"
	got := goldenLines(t)
	if *update {
		text := "# Golden vectors of draws, folds and decisions; floats are hexadecimal, so to the bit.\n" + strings.Join(got, "\n") + "\n"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var want []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if !strings.HasPrefix(sc.Text(), "#") {
			want = append(want, sc.Text())
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s has %s lines, want %d", path, strconv.Itoa(len(want)), len(got))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
		}
	}
}
