package connectortest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Run tests the subject: each claim, and that nothing unclaimed pretends to work.
func Run(t *testing.T, s Subject) {
	t.Run("documented", func(t *testing.T) { documented(t, s.Claims) })
	t.Run("unclaimed", func(t *testing.T) { unclaimed(t, s) })
	if s.Claims.Request {
		t.Run("request", func(t *testing.T) { requests(t, s) })
	}
	if s.Claims.Topics {
		t.Run("topics", func(t *testing.T) { topics(t, s) })
	}
	if s.Claims.Order {
		t.Run("order", func(t *testing.T) { order(t, s) })
	}
	if s.Claims.Replay {
		t.Run("replay", func(t *testing.T) { replay(t, s) })
	}
	if s.Claims.Queues {
		t.Run("queues", func(t *testing.T) { queues(t, s) })
	}
	if s.Claims.Files {
		t.Run("files", func(t *testing.T) { files(t, s) })
	}
	if s.Claims.Transact {
		t.Run("transact", func(t *testing.T) { transact(t, s) })
	}
	if s.Claims.Restarts {
		t.Run("restart under load", func(t *testing.T) { restartUnderLoad(t, s) })
	}
}

// limit bounds every test: a contract that hangs fails here.
const limit = time.Minute

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, k schemas.Kind) {
	t.Helper()
	if err == nil || schemas.KindOf(err) != k {
		t.Fatalf("error %v of kind %v, want %v", err, schemas.KindOf(err), k)
	}
}

// eventually tries until ok, every few milliseconds: only for what a transport offers nothing to wait on.
func eventually(t testing.TB, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("gave up waiting for %s: %v", what, ctx.Err())
		}
	}
}

// says checks that an error's text has all parts.
func says(t testing.TB, err error, parts ...any) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(err.Error(), fmt.Sprint(p)) {
			t.Errorf("%q does not say %q", err, fmt.Sprint(p))
		}
	}
}

func unclaimed(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, schemas.ErrUnsupported) {
			t.Errorf("%s is not claimed and returned %v, want ErrUnsupported", what, err)
		}
	}
	if c := s.Claims; !c.Request && tr.Requester != nil {
		_, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "p"})
		want("Request", err)
	}
	if c := s.Claims; !c.Topics {
		if tr.Topics != nil {
			want("EnsureTopic", tr.Topics.EnsureTopic(ctx, "t", 0))
		}
		if tr.Publisher != nil {
			_, err := tr.Publisher.Publish(ctx, []schemas.Message{{Topic: "t"}})
			want("Publish", err)
		}
	}
	if c := s.Claims; !c.Replay && tr.Replayer != nil {
		_, err := tr.Replayer.Spans(ctx, "t", connectors.Start{})
		want("Spans", err)
	}
	if c := s.Claims; !c.Transact && tr.Transactor != nil {
		_, err := tr.Transactor.Transact(ctx, nil, []*connectors.Delivery{{}})
		want("Transact", err)
	}
	if c := s.Claims; !c.Queues && tr.Queues != nil {
		want("EnsureQueue", tr.Queues.EnsureQueue(ctx, "q", 1<<20))
		_, err := tr.Queues.QueuePublisher().Publish(ctx, []schemas.Message{{Topic: "q"}})
		want("QueuePublisher", err)
		_, err = tr.Queues.SubscribeQueue(ctx, "q")
		want("SubscribeQueue", err)
		want("DropQueue", tr.Queues.DropQueue(ctx, "q"))
	}
	if c := s.Claims; !c.Files && tr.Files != nil {
		_, err := tr.Files.Open(ctx, "rows.csv", FileOptions{})
		want("Open of a file", err)
		_, err = tr.Files.Create("rows.csv", textColumn.Arrow(), FileWriterOptions{})
		want("Create of a file", err)
	}
}

// collect receives until n deliveries were handed to fn, which settles them.
func collect(t testing.TB, ctx context.Context, src connectors.Source, n int, fn func(d *connectors.Delivery)) {
	t.Helper()
	for got := 0; got < n; {
		ds, err := src.Receive(ctx, 32)
		if err != nil {
			t.Fatalf("after %d of %d: %v", got, n, err)
		}
		if len(ds) == 0 || len(ds) > 32 {
			t.Fatalf("Receive(32) returned %d deliveries", len(ds))
		}
		for _, d := range ds {
			fn(d)
		}
		got += len(ds)
	}
}

func accept(t testing.TB, ctx context.Context) func(d *connectors.Delivery) {
	return func(d *connectors.Delivery) {
		t.Helper()
		must(t, d.Settler.Accept(ctx, []*connectors.Delivery{d}))
	}
}

func messages(topic string, keys, n int) []schemas.Message {
	out := make([]schemas.Message, n)
	for i := range out {
		out[i] = schemas.Message{
			Topic: topic, Key: fmt.Sprintf("key-%d", i%keys), ID: fmt.Sprintf("%s-%d", topic, i),
			Header: schemas.Header{"X-Number": {fmt.Sprint(i)}}, Payload: fmt.Appendf(nil, "%d", i),
		}
	}
	return out
}

// answering serves a pipeline with fn until the test ends.
func answering(t testing.TB, ctx context.Context, tr Transport, pipeline string, fn func(d *connectors.Delivery) connectors.Response) connectors.Source {
	t.Helper()
	src, err := tr.Serve(ctx, pipeline, "primary")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			ds, err := src.Receive(ctx, 64)
			if err != nil {
				return
			}
			rs := make([]connectors.Response, 0, len(ds))
			for _, d := range ds {
				if r := fn(d); r.To != "" {
					rs = append(rs, r)
				}
			}
			if err := tr.Responder.Respond(ctx, rs); err != nil {
				if ctx.Err() == nil { // else the test has its answer and is over
					t.Error(err)
				}
				return
			}
		}
	})
	t.Cleanup(func() { src.Close(context.WithoutCancel(ctx)); wg.Wait() })
	return src
}
