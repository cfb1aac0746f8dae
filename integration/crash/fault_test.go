package crash

import (
	"testing"

	"github.com/leatstream/leat/integration/child"
)

// TestFaults plants each fault and requires that its rule is broken: a test that cannot fail proves nothing. The rounds
// are few, so a fault has several series of kills to show itself.
func TestFaults(t *testing.T) {
	faulty, err := child.Build(t.Context(), root, t.TempDir(), "leatfault")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name, rule string
		rate       float64
	}{
		{"reply-first", ruleReplyRecorded, jobRate},
		{"accept-first", ruleDelivered, jobRate},
		{"insert-first", ruleJobRecorded, jobRate},
		{"done-first", ruleJobRows, jobBurst},
	} {
		t.Run(f.name, func(t *testing.T) {
			for series := range uint64(4) {
				seed := *seed + series
				tr := newTrial(t, t.Context(), faulty, seed, "LEAT_FAULT="+f.name)
				tr.run(4, seed, f.rate)
				if n := tr.v.counts[f.rule]; n > 0 {
					t.Logf("caught in series %d, %d times:\n%s", series, n, tr.v)
					return
				}
			}
			t.Errorf("seed %d: the fault stayed unseen: %q was never broken", *seed, f.rule)
		})
	}
}
