package lineagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

func roundTrip(t *testing.T, b *bench) {
	s, r := b.open(t)
	in, out := random(everything(), 50, 1), random(floats("p", 3), 50, 2)
	var recs lineage.Records
	c := contextOf("fraud", "")
	for i := range 50 {
		row := rowOf(fmt.Sprint("q", i), in, i, i+1)
		row.From = schemas.Position{Stream: "LEAT_T_x", Partition: 2, Sequence: uint64(i + 1)}
		add(t, &recs, c, row, in, i, i+1, out)
	}
	pos := appendAll(t, s, &recs)
	if pos.Stream != lineage.LogOnline || pos.Sequence != 1 {
		t.Fatalf("position %v", pos)
	}
	rs := scan(t, r, lineage.Query{})
	if len(rs) != 50 {
		t.Fatalf("%d records", len(rs))
	}
	for i, rec := range rs {
		switch {
		case !same(rec.Input, rec.InputRow, in, i) || !same(rec.Output, rec.OutputRow, out, i):
			t.Fatalf("record %d: other data", i)
		case rec.RequestID != fmt.Sprint("q", i) || rec.From.Sequence != uint64(i+1) || rec.Model != "fraud" || rec.Version != 2 || rec.Superseded || rec.IDReused:
			t.Fatalf("record %d: %+v", i, rec)
		case rec.RecordID != lineage.RecordID(lineage.RequestKey("alice", "fraud", rec.RequestID), lineage.InputDigest(in, i, i+1), 0, "route", ""):
			t.Fatalf("record %d: another id", i)
		case rec.Position != pos || rec.Index != i || time.Since(rec.Appended) > time.Minute || rec.InSchema != in.Schema().ID():
			t.Fatalf("record %d: at %v %d, %v", i, rec.Position, rec.Index, rec.Appended)
		}
	}
	if pos, err := s.Append(t.Context(), new(lineage.Records)); err != nil || !pos.IsZero() {
		t.Fatalf("no records: %v %v", pos, err)
	}
}

func cut(t *testing.T, b *bench) {
	s, r := b.open(t)
	in, out := random(floats("x", 13), 20000, 1), random(floats("p", 3), 20000, 2)
	var recs lineage.Records
	add(t, &recs, contextOf("fraud", "job1"), rowOf("job1/0", in, 0, 20000), in, 0, 20000, out)
	pos := appendAll(t, s, &recs)
	if pos.Stream != lineage.LogJobs || pos.Sequence < 2 {
		t.Fatalf("position %v", pos)
	}
	err := b.logs.Jobs.Read(t.Context(), 0, nil, false, func(e *schemas.Entry) bool {
		if len(e.Payload) > lineage.MaxMessage {
			t.Errorf("message %d of %d bytes", e.Sequence, len(e.Payload))
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = r.Scan(t.Context(), lineage.Query{Run: "job1"}, func(rec *lineage.Record) (bool, error) {
		if rec.Row.Row != int32(n) || rec.BatchRow != int32(n) || !same(rec.Input, rec.InputRow, in, n) || !same(rec.Output, rec.OutputRow, out, n) {
			return false, fmt.Errorf("record %d is row %d", n, rec.Row.Row)
		}
		n++
		return true, nil
	})
	if err != nil || n != 20000 {
		t.Fatalf("%d records, %v", n, err)
	}
	text := schemas.MustSchema(schemas.Field{Name: "text", Type: schemas.String})
	big := schemas.NewBatch(text)
	big.Column(0).AppendString(strings.Repeat("x", lineage.MaxMessage))
	big.Column(0).EndRow()
	big.Advance(1)
	recs.Reset()
	err = recs.Add(contextOf("fraud", ""), rowOf("big", big, 0, 1), big, 0, nil, 0)
	if e := schemas.AsError("", err); e == nil || e.Kind != schemas.Invalid || !strings.Contains(e.Error(), fmt.Sprint(lineage.MaxMessage)) {
		t.Fatalf("a row beyond the limit: %v", err)
	}
}

// requests appends n requests of one row as one message.
func requests(t testing.TB, s *lineage.Stream, c *lineage.Context, in *schemas.Batch, from, to int, status string) schemas.Position {
	t.Helper()
	var recs lineage.Records
	for i := from; i < to; i++ {
		row := rowOf(fmt.Sprint("q", i), in, i, i+1)
		if row.Status = status; status == lineage.StatusError {
			row.ErrorKind, row.Error = schemas.Internal.String(), "internal error"
		}
		add(t, &recs, c, row, in, i, i+1, nil)
	}
	return appendAll(t, s, &recs)
}

func filters(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 2), 40, 1)
	requests(t, s, contextOf("fraud", ""), in, 0, 10, lineage.StatusOK)
	requests(t, s, contextOf("fraud", ""), in, 10, 13, lineage.StatusError)
	shadow := contextOf("fraud", "")
	shadow.Role, shadow.Node, shadow.Model, shadow.Version = lineage.RoleShadow, "shadows/forest", "forest", 7
	requests(t, s, shadow, in, 0, 5, lineage.StatusOK)
	middle := requests(t, s, contextOf("other", ""), in, 20, 22, lineage.StatusOK)
	requests(t, s, contextOf("fraud", "job1"), in, 0, 6, lineage.StatusOK)
	requests(t, s, contextOf("fraud", "job2"), in, 0, 7, lineage.StatusOK)
	var at time.Time
	for _, rec := range scan(t, r, lineage.Query{Pipeline: "other"}) {
		at = rec.Appended
	}
	for _, c := range []struct {
		q    lineage.Query
		want int
	}{
		{lineage.Query{}, 33}, {lineage.Query{Pipeline: "fraud"}, 31}, {lineage.Query{Pipeline: "none"}, 0},
		{lineage.Query{Status: lineage.StatusError}, 3}, {lineage.Query{Status: lineage.StatusOK, Run: lineage.RunNone}, 17},
		{lineage.Query{Model: "fraud"}, 26}, {lineage.Query{Model: "fraud@2"}, 26}, {lineage.Query{Model: "fraud@3"}, 0}, {lineage.Query{Model: "forest@7"}, 5},
		{lineage.Query{Role: lineage.RoleShadow}, 5}, {lineage.Query{Run: "job1"}, 6}, {lineage.Query{Run: lineage.RunNone}, 20},
		{lineage.Query{RequestID: "q3"}, 4}, {lineage.Query{RequestID: "q3", Pipeline: "other"}, 0},
		{lineage.Query{Run: lineage.RunNone, From: middle.Sequence}, 2}, {lineage.Query{Run: lineage.RunNone, Until: at}, 18},
		{lineage.Query{Run: lineage.RunNone, Since: at}, 2}, {lineage.Query{Since: at.Add(time.Hour)}, 0}, {lineage.Query{Since: at, Until: at.Add(1)}, 2},
	} {
		if n := len(scan(t, r, c.q)); n != c.want {
			t.Errorf("%+v: %d records, want %d", c.q, n, c.want)
		}
		if tot, err := r.Count(t.Context(), c.q); err != nil || tot.Records != int64(c.want) || tot.OK+tot.Errors != tot.Records {
			t.Errorf("%+v: count %+v, %v", c.q, tot, err)
		}
	}
	for _, q := range []lineage.Query{
		{Pipeline: "No"}, {Model: "a@champion"}, {Status: "good"}, {Role: "boss"}, {Since: at, Until: at}, {From: 3},
	} {
		if err := r.Scan(t.Context(), q, nil); schemas.KindOf(err) != schemas.Invalid || schemas.AsError("", err).Field == "" {
			t.Errorf("%+v: %v", q, err)
		}
	}
	got, err := r.Get(t.Context(), "q3", 100)
	if err != nil || len(got) != 4 || got[0].Position.Stream != lineage.LogOnline || got[3].Run != "job2" {
		t.Fatalf("Get: %d records, %v", len(got), err)
	}
	stop := errors.New("stop")
	if err := r.Scan(t.Context(), lineage.Query{}, func(*lineage.Record) (bool, error) { return true, stop }); !errors.Is(err, stop) {
		t.Fatalf("fn's error: %v", err)
	}
	late(t, s, r, in)
}

// late: what comes back when its request was answered without it is superseded by the record that said so, and found by its
// status.
func late(t *testing.T, s *lineage.Stream, r *lineage.StreamReader, in *schemas.Batch) {
	t.Helper()
	c := contextOf("late", "")
	c.Role, c.Node = lineage.RoleMember, "route/slow"
	for i, status := range []string{lineage.StatusError, lineage.StatusLate, lineage.StatusLate} {
		requests(t, s, c, in, min(i, 1), 2, status) // the second of them alone once more
	}
	for q, want := range map[lineage.Query]string{
		{}: "error error", {All: true}: "error error late late", {Status: lineage.StatusLate}: "late late", {Status: lineage.StatusError}: "error error",
		{Status: lineage.StatusOK}: "",
	} {
		q.Pipeline = "late"
		var got []string
		for _, rec := range scan(t, r, q) {
			got = append(got, rec.Status)
			if rec.Superseded != (rec.Status == lineage.StatusLate) || rec.Output != nil {
				t.Errorf("%+v: %+v", q, rec.Row)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v selects %v, want %s", q, got, want)
		}
	}
	n, err := r.Count(t.Context(), lineage.Query{Pipeline: "late"})
	if err != nil || n != (lineage.Totals{Records: 2, Errors: 2, Late: 2}) {
		t.Errorf("%+v, %v", n, err)
	}
}

func fold(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 2), 20, 1)
	c := contextOf("fraud", "")
	first := requests(t, s, c, in, 0, 10, lineage.StatusOK)
	// A retry by another process after a promotion: another digest and revision, the same records.
	c2 := contextOf("fraud", "")
	c2.Digest, c2.Revision = "d2", "r2"
	again := requests(t, s, c2, in, 5, 15, lineage.StatusError)
	rs := scan(t, r, lineage.Query{})
	if len(rs) != 15 {
		t.Fatalf("%d records", len(rs))
	}
	for i, rec := range rs {
		if want := first; i < 10 && (rec.Position != want || rec.Digest != "d1") || rec.Superseded {
			t.Fatalf("record %d is of %v", i, rec.Position)
		}
	}
	all := scan(t, r, lineage.Query{All: true})
	flagged := 0
	for _, rec := range all {
		if rec.Superseded {
			flagged++
			if rec.Position != again {
				t.Fatalf("superseded: %v", rec.Position)
			}
		}
	}
	if len(all) != 20 || flagged != 5 {
		t.Fatalf("%d records, %d superseded", len(all), flagged)
	}
	// The canonical record of q5 is ok: the later error does not show, whatever the filter and wherever the scan starts.
	for q, want := range map[*lineage.Query]int{{Status: lineage.StatusError}: 5, {Run: lineage.RunNone, From: again.Sequence}: 5} {
		if n := len(scan(t, r, *q)); n != want {
			t.Errorf("%+v: %d records, want %d", *q, n, want)
		}
	}
	tot, err := r.Count(t.Context(), lineage.Query{})
	if err != nil || tot != (lineage.Totals{Records: 15, OK: 10, Errors: 5, Superseded: 5}) {
		t.Fatalf("%+v %v", tot, err)
	}
}

func idReused(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 2), 4, 1)
	var recs lineage.Records
	c := contextOf("fraud", "")
	add(t, &recs, c, rowOf("same", in, 0, 1), in, 0, 1, nil)
	add(t, &recs, c, rowOf("same", in, 1, 2), in, 1, 2, nil)
	add(t, &recs, c, rowOf("alone", in, 2, 3), in, 2, 3, nil)
	bob := contextOf("fraud", "")
	bob.Principal = "bob"
	add(t, &recs, bob, rowOf("same", in, 3, 4), in, 3, 4, nil) // another principal: another request
	appendAll(t, s, &recs)
	flags := ""
	for _, rec := range scan(t, r, lineage.Query{}) {
		flags += fmt.Sprint(rec.IDReused, " ")
	}
	if flags != "false true false false " {
		t.Fatalf("scan: %s", flags)
	}
	got, err := r.Get(t.Context(), "same", 10)
	if err != nil || len(got) != 3 || !got[0].IDReused || !got[1].IDReused || got[2].IDReused {
		t.Fatalf("Get: %d %v", len(got), err)
	}
}

func full(t *testing.T, b *bench) {
	b.config.MaxBytes = 4 * lineage.MaxMessage
	s, r := b.open(t)
	in := random(floats("x", 100), 1500, 1)
	var stored int
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		var recs lineage.Records
		add(t, &recs, contextOf("fraud", ""), rowOf(fmt.Sprint("q", i), in, 0, 1500), in, 0, 1500, nil)
		if _, err = s.Append(t.Context(), &recs); err == nil {
			stored += 1500
		}
	}
	if schemas.KindOf(err) != schemas.Unavailable || !errors.Is(err, schemas.ErrFull) {
		t.Fatalf("a full stream: %v", err)
	}
	if !s.Full(false) || s.Full(true) {
		t.Fatal("Full does not say so")
	}
	if n := len(scan(t, r, lineage.Query{})); n != stored || n == 0 {
		t.Fatalf("%d records, %d were acknowledged", n, stored)
	}
	requests(t, s, contextOf("fraud", "job1"), random(floats("x", 2), 3, 1), 0, 3, lineage.StatusOK) // jobs have their own
	k := lineage.NewKeeper(r, b.stores.KV)
	ex, err := r.Export(t.Context(), lineage.Query{}, lineage.FormatNDJSON, new(bytes.Buffer))
	if err == nil {
		err = k.Confirm(t.Context(), ex.Ranges)
	}
	if err == nil {
		_, err = k.Prune(t.Context(), time.Now().Add(time.Minute))
	}
	if err != nil {
		t.Fatal(err)
	}
	running(t, s)
	eventually(t, "the pruned stream is not full", func() bool { return !s.Full(false) })
	requests(t, s, contextOf("fraud", ""), random(floats("x", 2), 3, 1), 0, 3, lineage.StatusOK)
}

func unknownOutcome(t *testing.T, b *bench) {
	_, r := b.open(t)
	in := random(floats("x", 2), 10, 1)
	f := &forgetful{Log: b.logs.Online}
	logs := b.logs
	logs.Online = f
	s := lineage.NewStream(logs, b.catalogue, b.config, nil, nil)
	f.left.Store(2)
	pos := requests(t, s, contextOf("fraud", ""), in, 0, 10, lineage.StatusOK)
	st, err := b.logs.Online.Stats(t.Context())
	if err != nil || f.calls.Load() != 3 || st.Messages != 1 || pos.Sequence != 1 {
		t.Fatalf("%d tries, %d messages, at %v, %v", f.calls.Load(), st.Messages, pos, err)
	}
	// The caller gives up: the record may exist, and appending the same Records again adds nothing.
	f.left.Store(1 << 30)
	var recs lineage.Records
	add(t, &recs, contextOf("fraud", ""), rowOf("late", in, 0, 10), in, 0, 10, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Append(ctx, &recs); schemas.KindOf(err) != schemas.Unavailable || errors.Is(err, schemas.ErrFull) {
		t.Fatalf("no answer: %v", err)
	}
	f.left.Store(0)
	if pos := appendAll(t, s, &recs); pos.Sequence != 2 {
		t.Fatalf("at %v", pos)
	}
	if n := len(scan(t, r, lineage.Query{All: true})); n != 20 {
		t.Fatalf("%d records", n)
	}
}

func withheld(t *testing.T, b *bench) {
	s, r := b.open(t)
	sch := schemas.MustSchema(schemas.Field{Name: "iban", Type: schemas.String}, schemas.Field{Name: "name", Type: schemas.String}, schemas.Field{Name: "x", Type: schemas.Float64})
	in := schemas.NewBatch(sch)
	in.Column(0).AppendString("DE-secret")
	in.Column(1).AppendString("Anna-secret")
	schemas.Append(in.Column(2), 1.5)
	for i := range 3 {
		in.Column(i).EndRow()
	}
	in.Advance(1)
	p, err := lineage.NewPolicy([]string{"iban"}, []string{"name"}, sch)
	if err != nil {
		t.Fatal(err)
	}
	c := contextOf("fraud", "")
	c.Policy = p
	for range 2 {
		requests(t, s, c, in, 0, 1, lineage.StatusOK)
	}
	all := scan(t, r, lineage.Query{All: true})
	if len(all) != 2 || all[0].Salt == all[1].Salt || same(all[0].Input, 0, all[1].Input, 0) || all[0].RecordID != all[1].RecordID {
		t.Fatal("two messages share a salt, or the salt changed the identity")
	}
	err = b.logs.Online.Read(t.Context(), 0, nil, false, func(e *schemas.Entry) bool {
		if bytes.Contains(e.Payload, []byte("secret")) {
			t.Error("a withheld value is in the stream")
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	rec := all[0]
	if rec.Input.Schema().Index("name") >= 0 || rec.Masked[0] != "iban" || rec.Dropped[0] != "name" || schemas.Values[float64](rec.Input.Column(rec.Input.Schema().Index("x")))[0] != 1.5 {
		t.Fatalf("stored as %s", rec.Input.Schema())
	}
}

func concurrentPipelines(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 3), 200, 1)
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			c := contextOf(fmt.Sprint("pipe", p), "")
			var recs lineage.Records
			for i := range 50 {
				recs.Reset()
				row := rowOf(fmt.Sprint("q", i), in, i, i+4)
				if err := recs.AddRange(c, row, in, i, i+4, nil, 0); err != nil {
					t.Error(err)
				}
				if _, err := s.Append(t.Context(), &recs); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for p := range 4 {
		rs := scan(t, r, lineage.Query{Pipeline: fmt.Sprint("pipe", p)})
		if len(rs) != 200 {
			t.Fatalf("pipeline %d: %d records", p, len(rs))
		}
		for i, rec := range rs {
			if rec.RequestID != fmt.Sprint("q", i/4) || rec.Row.Row != int32(i%4) {
				t.Fatalf("pipeline %d, record %d: %s row %d", p, i, rec.RequestID, rec.Row.Row)
			}
		}
	}
}

func follow(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 2), 30, 1)
	requests(t, s, contextOf("fraud", ""), in, 0, 3, lineage.StatusOK)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan string, 64)
	done := make(chan error, 1)
	go func() {
		done <- r.Scan(ctx, lineage.Query{Follow: true}, func(rec *lineage.Record) (bool, error) {
			got <- rec.Run + rec.RequestID
			return rec.RequestID != "q29", nil
		})
	}()
	want := func(names ...string) {
		t.Helper()
		seen := map[string]bool{}
		for range names {
			select {
			case n := <-got:
				seen[n] = true
			case <-time.After(20 * time.Second):
				t.Fatalf("only %v came", seen)
			}
		}
		for _, n := range names {
			if !seen[n] {
				t.Fatalf("%v came, %s did not", seen, n)
			}
		}
	}
	want("q0", "q1", "q2")
	requests(t, s, contextOf("fraud", ""), in, 3, 5, lineage.StatusOK)
	want("q3", "q4")
	requests(t, s, contextOf("fraud", "j"), in, 0, 1, lineage.StatusOK)
	want("jq0")
	requests(t, s, contextOf("fraud", ""), in, 29, 30, lineage.StatusOK)
	want("q29")
	if err := <-done; err != nil {
		t.Fatalf("a follower that was told to stop: %v", err)
	}
}
