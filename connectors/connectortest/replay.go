package connectortest

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

func replay(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	must(t, tr.Topics.EnsureTopic(ctx, "t", 3))
	if got := read(t, ctx, tr, connectors.Start{}); len(got) != 0 {
		t.Fatalf("an empty topic replayed %d messages", len(got))
	}
	const n = 3000
	pos, err := tr.Publisher.Publish(ctx, messages("t", 11, n))
	must(t, err)
	middle := time.Now()
	for !time.Now().After(middle.Add(5 * time.Millisecond)) { // let the stored time move on
	}
	middle = middle.Add(2 * time.Millisecond)

	spans, err := tr.Replayer.Spans(ctx, "t", connectors.Start{})
	must(t, err)
	late := messages("t", 11, n+500)[n:]
	latePos, err := tr.Publisher.Publish(ctx, late)
	must(t, err)
	if got := readSpans(t, ctx, tr, spans); len(got) != n {
		t.Fatalf("ends were fixed at %d messages, replayed %d", n, len(got))
	} else {
		for i, p := range pos {
			if got[p] != i {
				t.Fatalf("message %d at %v is %d in the replay", i, p, got[p])
			}
		}
	}
	if got := read(t, ctx, tr, connectors.Start{}); len(got) != n+500 {
		t.Fatalf("all: %d messages, want %d", len(got), n+500)
	}
	from := latePos[100].Sequence
	want := 0
	for _, p := range append(pos, latePos...) {
		want += b2i(p.Sequence >= from)
	}
	if got := read(t, ctx, tr, connectors.Start{Sequence: from}); len(got) != want {
		t.Fatalf("from sequence %d: %d messages, want %d", from, len(got), want)
	}
	if got := read(t, ctx, tr, connectors.Start{Time: middle}); len(got) != 500 {
		t.Fatalf("from %v: %d messages, want 500", middle, len(got))
	}
	if got := read(t, ctx, tr, connectors.Start{Time: time.Now().Add(time.Hour)}); len(got) != 0 {
		t.Fatalf("from the future: %d messages", len(got))
	}
	_, err = tr.Replayer.Spans(ctx, "none", connectors.Start{})
	wantKind(t, err, schemas.NotFound)
	_, err = tr.Replayer.Open(ctx, connectors.Span{Topic: "t", Partition: 99, First: 1, Last: 1})
	wantKind(t, err, schemas.Invalid)
}

func read(t testing.TB, ctx context.Context, tr Transport, start connectors.Start) map[schemas.Position]int {
	t.Helper()
	spans, err := tr.Replayer.Spans(ctx, "t", start)
	must(t, err)
	return readSpans(t, ctx, tr, spans)
}

// readSpans reads all spans and checks that each comes in order, once.
func readSpans(t testing.TB, ctx context.Context, tr Transport, spans []connectors.Span) map[schemas.Position]int {
	t.Helper()
	got := map[schemas.Position]int{}
	for _, sp := range spans {
		src, err := tr.Replayer.Open(ctx, sp)
		must(t, err)
		last := uint64(0)
		for {
			ds, err := src.Receive(ctx, 100)
			if errors.Is(err, schemas.ErrDrained) {
				break
			}
			must(t, err)
			for _, d := range ds {
				if d.From.Sequence <= last || d.From.Sequence < sp.First || d.From.Sequence > sp.Last || d.From.Partition != sp.Partition {
					t.Fatalf("span %+v: %v after %d", sp, d.From, last)
				}
				last = d.From.Sequence
				n, err := strconv.Atoi(string(d.Payload))
				must(t, err)
				got[d.From] = n
			}
			must(t, ds[0].Settler.Accept(ctx, ds)) // allowed, and without effect
		}
		must(t, src.Close(ctx))
		must(t, src.Close(ctx))
	}
	return got
}
