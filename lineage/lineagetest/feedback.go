package lineagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// say appends feedback and expects that all of it is kept.
func say(t testing.TB, s *lineage.Stream, fs ...lineage.Feedback) {
	t.Helper()
	for i := range fs {
		if fs[i].Pipeline == "" {
			fs[i].Pipeline = "fraud"
		}
		fs[i].Received = received
	}
	if errs := s.AppendFeedback(t.Context(), fs); errs != nil {
		t.Fatal(errs)
	}
}

// told shows events in a word each: a record by its request, feedback by its request and label.
func told(ev lineage.Event) string {
	if f := ev.Feedback; f != nil {
		w := fmt.Sprintf("%s=%v", f.RequestID+f.Entity, f.Label)
		if f.Superseded {
			w += "(again)"
		}
		return w
	}
	return ev.Record.RequestID
}

func eventsOf(t testing.TB, r *lineage.StreamReader, q lineage.Query) string {
	t.Helper()
	var got []string
	err := r.Events(t.Context(), q, func(ev lineage.Event) (bool, error) {
		got = append(got, told(ev))
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

// feedback: it lies among the records in one order, is folded by id, found by every filter that speaks of it, and followed.
func feedback(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 2), 30, 1)
	say(t, s, lineage.Feedback{RequestID: "q1", Label: 0.5}) // before its decision
	requests(t, s, contextOf("fraud", ""), in, 0, 3, lineage.StatusOK)
	say(t, s, lineage.Feedback{RequestID: "q0", Label: true, ID: "a"}, lineage.Feedback{Entity: "e", Label: "late", EventTime: received})
	requests(t, s, contextOf("other", ""), in, 0, 1, lineage.StatusOK)
	say(t, s, lineage.Feedback{Pipeline: "other", RequestID: "q0", Label: 7.0})
	say(t, s, lineage.Feedback{RequestID: "q0", Label: false, ID: "a"}) // an id that was there: the first stays
	say(t, s, lineage.Feedback{RequestID: "q0", Label: false, ID: "a", Principal: "bob"})
	requests(t, s, contextOf("fraud", ""), in, 3, 4, lineage.StatusOK)
	requests(t, s, contextOf("fraud", "job"), in, 9, 10, lineage.StatusOK)
	for _, c := range []struct {
		q    lineage.Query
		want string
	}{
		{lineage.Query{Pipeline: "fraud"}, "q1=0.5 q0 q1 q2 q0=true e=late q0=false q3 q9"},
		{lineage.Query{Pipeline: "fraud", Run: lineage.RunNone, All: true}, "q1=0.5 q0 q1 q2 q0=true e=late q0=false(again) q0=false q3"},
		{lineage.Query{Pipeline: "fraud", Run: "job"}, "q1=0.5 q0=true e=late q0=false q9"},
		{lineage.Query{Pipeline: "other"}, "q0 q0=7"},
		{lineage.Query{RequestID: "q0", Bare: true}, "q0 q0=true q0 q0=7 q0=false"},
		{lineage.Query{Pipeline: "fraud", Run: lineage.RunNone, From: 5}, "q0=false q3"},
		{lineage.Query{Pipeline: "fraud", Status: lineage.StatusError}, "q1=0.5 q0=true e=late q0=false"},
		{lineage.Query{Since: time.Now().Add(time.Hour)}, ""},
	} {
		if got := eventsOf(t, r, c.q); got != c.want {
			t.Errorf("%+v:\n%s\nwant %s", c.q, got, c.want)
		}
	}
	n := 0
	err := r.Feedback(t.Context(), lineage.Query{Pipeline: "fraud"}, func(f *lineage.Feedback) (bool, error) {
		n++
		if f.Position.Stream != lineage.LogOnline || f.Position.Sequence == 0 || f.Appended.IsZero() || f.Index != map[bool]int{true: 1}[f.Entity == "e"] {
			t.Errorf("%+v has no place", f)
		}
		return n < 3, nil
	})
	if err != nil || n != 3 {
		t.Fatalf("feedback alone: %d, %v", n, err)
	}
	if err := r.Events(t.Context(), lineage.Query{Run: "job", From: 3}, nil); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("a sequence of the other log: %v", err)
	}
	followFeedback(t, s, r)
}

// followFeedback follows records and feedback as they come, from a place on.
func followFeedback(t *testing.T, s *lineage.Stream, r *lineage.StreamReader) {
	_, last, err := r.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, done := make(chan string, 16), make(chan error, 1)
	go func() {
		done <- r.Events(t.Context(), lineage.Query{Pipeline: "fraud", Run: lineage.RunNone, From: last + 1, Follow: true}, func(ev lineage.Event) (bool, error) {
			got <- told(ev)
			return told(ev) != "end=true", nil
		})
	}()
	next := func(want string) {
		t.Helper()
		select {
		case g := <-got:
			if g != want {
				t.Fatalf("%s came, want %s", g, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s did not come", want)
		}
	}
	say(t, s, lineage.Feedback{RequestID: "q3", Label: "x"})
	next("q3=x")
	requests(t, s, contextOf("fraud", ""), random(floats("x", 2), 30, 1), 20, 21, lineage.StatusOK)
	next("q20")
	say(t, s, lineage.Feedback{RequestID: "q3", Label: "x"}) // again: followed readers fold too
	say(t, s, lineage.Feedback{RequestID: "end", Label: true})
	next("end=true")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// feedbackPassedOver: who reads records meets no feedback, and none of it breaks him.
func feedbackPassedOver(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 2), 30, 1)
	k, w := lineage.NewKeeper(r, b.stores.KV), lineage.NewWriteAhead(r, b.stores.KV)
	say(t, s, lineage.Feedback{RequestID: "q0", Label: true})
	var recs lineage.Records
	row := rowOf("q0", in, 0, 1)
	row.From = schemas.Position{Stream: "in", Sequence: 1}
	add(t, &recs, contextOf("fraud", ""), row, in, 0, 1, in)
	appendAll(t, s, &recs)
	say(t, s, lineage.Feedback{RequestID: "q0", Reward: new(float64)})

	if rs := scan(t, r, lineage.Query{}); len(rs) != 1 || rs[0].RequestID != "q0" {
		t.Errorf("scan: %d records", len(rs))
	}
	if got, err := r.Get(t.Context(), "q0", 10); err != nil || len(got) != 1 {
		t.Errorf("get: %d, %v", len(got), err)
	}
	if n, err := r.Count(t.Context(), lineage.Query{}); err != nil || n.Records != 1 {
		t.Errorf("count: %+v, %v", n, err)
	}
	found := 0
	if err := w.Recover(t.Context(), "fraud", 0, func(*lineage.Record) bool { found++; return true }); err != nil || found != 1 {
		t.Errorf("recovery: %d, %v", found, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stop := errors.New("stop")
	if err := r.Scan(ctx, lineage.Query{Follow: true}, func(*lineage.Record) (bool, error) { return true, stop }); !errors.Is(err, stop) {
		t.Errorf("tail: %v", err)
	}
	for _, format := range []string{lineage.FormatParquet, lineage.FormatNDJSON} {
		ex, err := r.Export(t.Context(), lineage.Query{}, format, new(bytes.Buffer))
		if err != nil || ex.Records != 1 {
			t.Errorf("%s: %+v, %v", format, ex, err)
		}
		if err := k.Confirm(t.Context(), ex.Ranges); err != nil {
			t.Error(err)
		}
	}
	// A checkpoint that feedback has passed holds nothing back; one before the record does.
	if err := w.SaveCheckpoint(t.Context(), "fraud", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Prune(t.Context(), time.Now().Add(time.Minute)); schemas.KindOf(err) != schemas.Unavailable {
		t.Errorf("a record that recovery needs: %v", err)
	}
	if err := w.SaveCheckpoint(t.Context(), "fraud", 2); err != nil {
		t.Fatal(err)
	}
	ps, err := k.Prune(t.Context(), time.Now().Add(time.Minute))
	if err != nil || ps[0].Messages != 3 {
		t.Errorf("%+v, %v", ps, err)
	}
}

// feedbackFull: a full log refuses feedback, of each pipeline alike, and an append whose outcome is unknown is kept once.
func feedbackFull(t *testing.T, b *bench) {
	b.config.MaxBytes = 4 * lineage.MaxMessage
	s, r := b.open(t)
	f := &forgetful{Log: b.logs.Online}
	logs := b.logs
	logs.Online = f
	unsure := lineage.NewStream(logs, b.catalogue, b.config, nil, nil)
	f.left.Store(2)
	say(t, unsure, lineage.Feedback{RequestID: "first", Label: 1.0})
	if st, err := b.logs.Online.Stats(t.Context()); err != nil || st.Messages != 1 || f.calls.Load() != 3 {
		t.Fatalf("%d messages after %d tries, %v", st.Messages, f.calls.Load(), err)
	}
	comment := strings.Repeat("x", 8000)
	kept := 1
	var last []error
	for i := 0; i < 100 && last == nil; i++ {
		fs := make([]lineage.Feedback, 200) // two messages: what one of them holds may be kept without the other
		for j := range fs {
			fs[j] = lineage.Feedback{Pipeline: "fraud", RequestID: fmt.Sprint(i, "/", j), Comment: comment}
		}
		fs[7].Pipeline = "" // one that is none leaves the others alone
		errs := s.AppendFeedback(t.Context(), fs)
		for j, err := range errs {
			switch {
			case err == nil:
				kept++
			case j == 7 && schemas.KindOf(err) == schemas.Invalid:
			case schemas.KindOf(err) == schemas.Unavailable && errors.Is(err, schemas.ErrFull):
				last = errs
			default:
				t.Fatal(err)
			}
		}
	}
	if last == nil || !s.Full(false) {
		t.Fatal("it never was full")
	}
	n := 0
	if err := r.Feedback(t.Context(), lineage.Query{}, func(*lineage.Feedback) (bool, error) { n++; return true, nil }); err != nil || n != kept {
		t.Fatalf("%d are there, %d were kept: %v", n, kept, err)
	}
}
