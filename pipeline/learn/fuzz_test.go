package learn

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/schemas"
)

// FuzzRestore: any bytes are refused as Invalid, or are the snapshot of the learner that they make.
func FuzzRestore(f *testing.F) {
	c := Config{Node: "route", Plan: plan(f, route.EpsilonGreedy), Reward: "feedback.reward", Decisions: 5}
	for rows := range 4 {
		l := learner(f, c)
		for i, m := range randomLog(rand.New(rand.NewPCG(1, uint64(rows))), 10*rows) {
			l.read(uint64(i+1), m)
		}
		b, err := l.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l := learner(t, c)
		if err := l.Restore(b); err != nil {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Fatal(err)
			}
			return
		}
		if again, err := l.Snapshot(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%d bytes come back as %d: %v", len(b), len(again), err)
		}
	})
}
