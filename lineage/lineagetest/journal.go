package lineagetest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/lineage"
)

// journal: one pipeline's records and feedback in one order, message by message, repeats too, from anywhere, and followed.
func journal(t *testing.T, b *bench) {
	s, r := b.open(t)
	j := lineage.NewJournal(r)
	if seq, at, err := j.Last(t.Context(), "fraud"); seq != 0 || !at.IsZero() || err != nil {
		t.Fatal("an empty log has a last message:", seq, at, err)
	}
	in := random(floats("x", 2), 30, 1)
	say(t, s, lineage.Feedback{RequestID: "q1", Label: 0.5}) // 1
	requests(t, s, contextOf("fraud", ""), in, 0, 2, lineage.StatusOK)
	requests(t, s, contextOf("other", ""), in, 0, 1, lineage.StatusOK) // 3
	say(t, s, lineage.Feedback{RequestID: "q0", Label: true, ID: "a"}, lineage.Feedback{RequestID: "q1", Label: false, ID: "b"})
	requests(t, s, contextOf("fraud", "job"), in, 9, 10, lineage.StatusOK)
	requests(t, s, contextOf("fraud", ""), in, 0, 1, lineage.StatusOK) // 5
	const all = "q1=0.5 |1 q0 q1 |2 q0=true q1=false |4 q0 |5"
	for _, c := range []struct {
		from uint64
		data bool
		want string
	}{{0, true, all}, {1, false, all}, {2, false, all[len("q1=0.5 |1 "):]}, {3, true, "q0=true q1=false |4 q0 |5"}, {6, false, ""}} {
		var got []string
		err := j.Read(t.Context(), "fraud", c.from, false, c.data, func(e lineage.Entry) bool {
			if e.Appended.IsZero() || e.Record != nil && (e.Record.Input != nil) != c.data {
				t.Errorf("%+v", e)
			}
			if e.Record == nil && e.Feedback == nil {
				got = append(got, fmt.Sprint("|", e.Sequence))
			} else {
				got = append(got, told(e.Event))
			}
			return true
		})
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("from %d: %v\n%s\nwant %s", c.from, err, strings.Join(got, " "), c.want)
		}
	}
	last, at, err := j.Last(t.Context(), "fraud")
	if err != nil || last != 5 || at.IsZero() {
		t.Fatal("the last message:", last, at, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	err = j.Read(ctx, "fraud", 5, true, false, func(e lineage.Entry) bool {
		if n++; n == 2 {
			say(t, s, lineage.Feedback{RequestID: "q2", Label: 2.0})
		}
		return e.Feedback == nil
	})
	if err != nil || n != 3 {
		t.Fatalf("followed %d: %v", n, err)
	}
}
