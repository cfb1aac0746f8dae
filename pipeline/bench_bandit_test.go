package pipeline

import (
	"testing"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// choosing is a bandit over three arms with rewards, and a batch of rows that come to it.
func choosing(t testing.TB, policy string, rows int) (f *flow, b *bandit, in *schemas.Batch, ids []int32) {
	t.Helper()
	spec := &Bandit{Policy: policy, Reward: "feedback.reward"}
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32}, schemas.Field{Name: "y", Type: schemas.Float32})
	b = &bandit{path: RootPath, base: 7, spec: spec}
	if policy == "linucb" || policy == "lin_thompson" {
		spec.Context, b.cols = []string{"x", "y"}, []int{0, 1}
	}
	for _, name := range []string{"a", "b", "c"} {
		spec.Arms = append(spec.Arms, BanditArm{Name: name})
	}
	var err error
	if b.plan, err = spec.plan(); err != nil {
		t.Fatal(err)
	}
	fold := route.NewFold(b.plan)
	for i := range 60 {
		r := route.Reward{Position: uint64(i + 1), DecisionID: [32]byte{byte(i)}, Arm: spec.Arms[i%3].Name, Value: float64(i%7) / 7}
		for range spec.Context {
			r.Context = append(r.Context, float64(i%5))
		}
		if _, err := fold.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	b.state.Store(fold.State())
	in = schemas.NewBatch(s)
	it := &item{id: "01M83DXPA7QC54TRSK7JKF9VDP", d: &connectors.Delivery{}}
	tr := &trace{}
	for i := range rows {
		for c := range 2 {
			schemas.Append(in.Column(c), float32(i%11))
			in.Column(c).EndRow()
		}
		in.Advance(1)
		ids = append(ids, int32(i))
		tr.by, tr.failed = append(tr.by, -1), append(tr.failed, nil)
	}
	tr.visits = make([]visit, rows)
	return &flow{trace: tr, owner: func(int) *item { return it }, host: func(err error) *schemas.Error { return schemas.AsError("test", err) }}, b, in, ids
}

// TestChoosingAllocatesNothing: for no policy; the state is read once a batch, without a lock.
func TestChoosingAllocatesNothing(t *testing.T) {
	for _, policy := range route.Policies() {
		f, b, in, ids := choosing(t, policy, 8)
		if n := testing.AllocsPerRun(100, func() { b.choose(f, in, ids, 0) }); n > 0 && !underRace {
			t.Errorf("%s: %v allocations", policy, n)
		}
		for i, v := range f.visits {
			if v.err != nil || v.arm < 0 || !(v.propensity > 0) || v.state != 60 || v.seed == 0 {
				t.Errorf("%s row %d: %+v", policy, i, v)
			}
		}
	}
}

// BenchmarkBandit is what it costs to choose for a row, by policy.
func BenchmarkBandit(b *testing.B) {
	for _, policy := range route.Policies() {
		b.Run(policy, func(b *testing.B) {
			const rows = 64
			f, x, in, ids := choosing(b, policy, rows)
			b.ReportAllocs()
			for b.Loop() {
				x.choose(f, in, ids, 0)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}
