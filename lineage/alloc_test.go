//go:build !race

// The race detector makes sync.Pool forget at random, so allocations are counted without it.

package lineage

import (
	"fmt"
	"testing"
)

// TestNoAllocations: Records that are used again, digests and the door's check cost no garbage.
func TestNoAllocations(t *testing.T) {
	in, out := benchRows()
	ctx := testContext()
	masked := testContext()
	var err error
	if masked.Policy, err = NewPolicy([]string{"x1"}, []string{"x2"}, in.Schema()); err != nil {
		t.Fatal(err)
	}
	rows := make([]*Row, 64)
	for i := range rows {
		rows[i] = testRow(fmt.Sprint("request-", i), 0)
	}
	var recs Records
	online := func() {
		recs.Reset()
		for i := range rows {
			if err := recs.Add(ctx, rows[i], in, i, out, i); err != nil {
				t.Fatal(err)
			}
			if err := recs.Add(masked, rows[i], in, i, nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		encodeBench(t, &recs)
	}
	bulk := func() { // of two messages
		recs.Reset()
		for i := range 3 {
			if err := recs.AddRange(ctx, rows[i], in, 0, 4096, out, 0); err != nil {
				t.Fatal(err)
			}
		}
		encodeBench(t, &recs)
	}
	doorCheck := func() {
		InputDigest(in, 0, 4096)
		if err := Fits(in, 0, 4096, out.Schema()); err != nil {
			t.Fatal(err)
		}
	}
	for name, fn := range map[string]func(){"online": online, "bulk": bulk, "door": doorCheck} {
		fn()
		if n := testing.AllocsPerRun(20, fn); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
