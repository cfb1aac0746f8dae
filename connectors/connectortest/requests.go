package connectortest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// echo answers with what was asked: the payload, and Leat-Parent in the answer's Leat-Revision. Both are headers that
// every transport carries in its direction; a door may keep others back.
func echo(d *connectors.Delivery) connectors.Response {
	return connectors.Response{To: d.ReplyTo, Header: schemas.Header{schemas.HeaderRevision: {d.Header.Get(schemas.HeaderParent)}}, Payload: d.Payload}
}

func requests(t *testing.T, s Subject) {
	t.Run("nobody serves", func(t *testing.T) {
		tr, _, _ := s.Open(t)
		begin := time.Now()
		_, err := tr.Requester.Request(within(t), &schemas.Message{Topic: "nobody"})
		wantKind(t, err, schemas.NotFound)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("NotFound took %v, want it at once", d)
		}
	})
	t.Run("headers, topic and payload travel both ways", func(t *testing.T) { bothWays(t, s) })
	t.Run("error answers", func(t *testing.T) { errorAnswers(t, s) })
	t.Run("deadline and cancel", func(t *testing.T) { deadlines(t, s) })
	t.Run("each caller gets its own answer", func(t *testing.T) { ownAnswers(t, s) })
	t.Run("members share", func(t *testing.T) { membersShare(t, s) })
	t.Run("overloaded at once", func(t *testing.T) { overloaded(t, s) })
	t.Run("oversize", func(t *testing.T) {
		ctx := within(t)
		tr, _, _ := s.Open(t)
		answering(t, ctx, tr, "echo", echo)
		_, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "echo", Payload: make([]byte, s.Max)})
		wantKind(t, err, schemas.Invalid)
		says(t, err, s.Max, "at most")
		_, err = tr.Requester.Request(ctx, &schemas.Message{Topic: "echo", Payload: []byte("small")})
		must(t, err)
	})
	t.Run("drain", func(t *testing.T) { drainRequests(t, s) })
	t.Run("cancelled receive", func(t *testing.T) {
		ctx, cancel := context.WithCancel(within(t))
		tr, _, _ := s.Open(t)
		src, err := tr.Serve(ctx, "p", "primary")
		must(t, err)
		cancel()
		if _, err := src.Receive(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Fatalf("Receive: %v, want the context's error", err)
		}
		must(t, src.Close(context.WithoutCancel(ctx)))
		must(t, src.Close(context.WithoutCancel(ctx)))
	})
}

func bothWays(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	asked := schemas.Header{schemas.HeaderParent: {"42"}, schemas.HeaderKey: {"k"}, schemas.HeaderTrace: {"00-1-2-01"}}
	answered := schemas.Header{schemas.HeaderContentType: {"text/plain"}, schemas.HeaderRevision: {"r"}, schemas.HeaderArm: {"a"}}
	answering(t, ctx, tr, "echo", func(d *connectors.Delivery) connectors.Response {
		if d.Topic != "echo" || d.Key != "k" || !d.From.IsZero() || d.Attempt != 1 {
			t.Errorf("delivery has topic %q, key %q, position %v, attempt %d", d.Topic, d.Key, d.From, d.Attempt)
		}
		carries(t, d.Header, asked)
		if err := d.Settler.Accept(ctx, []*connectors.Delivery{d}); err != nil {
			t.Error(err)
		}
		if err := d.Settler.Retry(ctx, d, 0); !errors.Is(err, schemas.ErrUnsupported) {
			t.Errorf("Retry of a request: %v, want ErrUnsupported", err)
		}
		return connectors.Response{To: d.ReplyTo, Header: answered.Clone(), Payload: append([]byte("got "), d.Payload...)}
	})
	m := &schemas.Message{Topic: "echo", Payload: []byte("body"), Header: asked.Clone()}
	r, err := tr.Requester.Request(ctx, m)
	must(t, err)
	carries(t, r.Header, answered)
	if string(r.Payload) != "got body" || r.Topic != "echo" {
		t.Errorf("answer %q on topic %q", r.Payload, r.Topic)
	}
	if string(m.Payload) != "body" || len(m.Header) != len(asked) {
		t.Errorf("the caller's message was changed: %s with %v", m.Payload, m.Header)
	}
	carries(t, m.Header, asked)
}

// carries checks that h has all of want; a transport may add headers of its own.
func carries(t testing.TB, h, want schemas.Header) {
	t.Helper()
	for name := range want {
		if h.Get(name) != want.Get(name) {
			t.Errorf("header %s is %q, want %q, in %v", name, h.Get(name), want.Get(name), h)
		}
	}
}

// errorAnswers: what a runner says of a fault reaches the caller with kind, field, text and id, as a message.
func errorAnswers(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	answering(t, ctx, tr, "bad", func(d *connectors.Delivery) connectors.Response {
		e := schemas.FieldErrorf(schemas.ParseKind(string(d.Payload)), "test", "rows[0].x", "it is wrong")
		if e.Kind == schemas.Internal {
			e.ID = "log-17"
		}
		h, body := schemas.ErrorAnswer(e, d.Header.Get(schemas.HeaderRequestID))
		return connectors.Response{To: d.ReplyTo, Header: h, Payload: body}
	})
	for _, k := range []schemas.Kind{schemas.Invalid, schemas.Denied, schemas.Overloaded, schemas.Unavailable, schemas.Internal} {
		r, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "bad", Payload: []byte(k.String()), Header: schemas.Header{schemas.HeaderRequestID: {"r1"}}})
		must(t, err)
		id, text := "r1", "rows[0].x: it is wrong"
		if k == schemas.Internal {
			id, text = "log-17", "internal error log-17"
		}
		e := schemas.AnswerError(r)
		if e == nil || e.Kind != k || e.Field != "rows[0].x" || e.Err.Error() != text || e.ID != id || r.Header.Get(schemas.HeaderRequestID) != "r1" {
			t.Errorf("%v: answer %s with %v", k, r.Payload, r.Header)
		}
	}
}

// deadlines: a caller waits no longer than it said, and an answer that comes later is nobody else's.
func deadlines(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	held := make(chan *connectors.Delivery, 16)
	answering(t, ctx, tr, "slow", func(d *connectors.Delivery) connectors.Response {
		if string(d.Payload) != "hold" {
			return echo(d)
		}
		held <- d
		return connectors.Response{}
	})
	hold := &schemas.Message{Topic: "slow", Payload: []byte("hold")}
	var late []connectors.Response
	for wait := 50 * time.Millisecond; len(late) == 0; wait *= 2 { // a request that takes longer on its way is not handed over
		short, cancel := context.WithTimeout(ctx, wait)
		_, err := tr.Requester.Request(short, hold)
		cancel()
		wantKind(t, err, schemas.Expired)
		must(t, ctx.Err())
		select {
		case d := <-held:
			late = append(late, echo(d))
		default:
		}
	}

	gone, leave := context.WithCancel(ctx)
	defer leave()
	left := make(chan error, 1)
	go func() {
		_, err := tr.Requester.Request(gone, hold)
		left <- err
	}()
	select {
	case d := <-held:
		late = append(late, echo(d))
	case <-ctx.Done():
		t.Fatal("the request was not handed over")
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left got %v, want its context's error", err)
	}
	if _, err := tr.Requester.Request(gone, hold); err == nil {
		t.Error("a request with a cancelled context was answered")
	}
	must(t, tr.Responder.Respond(ctx, late)) // to callers that are gone: no error
	r, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "slow", Payload: []byte("mine")})
	must(t, err)
	if string(r.Payload) != "mine" {
		t.Errorf("asked mine, got %s", r.Payload)
	}
}

func ownAnswers(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	answering(t, ctx, tr, "echo", echo)
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := range 50 {
				want := fmt.Sprintf("%d/%d", w, i)
				r, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "echo", Payload: []byte(want), Header: schemas.Header{schemas.HeaderParent: {want}}})
				if err != nil || string(r.Payload) != want || r.Header.Get(schemas.HeaderRevision) != want {
					t.Errorf("asked %s, got %v, %v", want, r, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func membersShare(t *testing.T, s Subject) {
	ctx := within(t)
	tr, again, _ := s.Open(t)
	var seen [2]atomic.Int64
	answering(t, ctx, tr, "echo", func(d *connectors.Delivery) connectors.Response { seen[0].Add(1); return echo(d) })
	second := tr
	if again != nil {
		second = again()
	}
	answering(t, ctx, second, "echo", func(d *connectors.Delivery) connectors.Response { seen[1].Add(1); return echo(d) })
	const n = 200
	for i := range n {
		r, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "echo", Payload: fmt.Append(nil, i)})
		must(t, err)
		if string(r.Payload) != fmt.Sprint(i) {
			t.Fatalf("asked %d, got %s", i, r.Payload)
		}
	}
	if a, b := seen[0].Load(), seen[1].Load(); a+b != n || a == 0 || b == 0 {
		t.Fatalf("members saw %d and %d of %d requests", a, b, n)
	}
}

// overloaded: nobody receives, so the queue fills; what comes beyond it is refused long before its deadline.
func overloaded(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(within(t))
	tr, _, _ := s.Open(t)
	src, err := tr.Serve(ctx, "busy", "primary")
	must(t, err)
	const extra = 20
	refused := make(chan time.Duration, s.Queue+extra)
	var wg sync.WaitGroup
	begin := time.Now()
	for range s.Queue + extra {
		wg.Go(func() {
			r, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "busy"})
			switch {
			case err == nil && r.Header.Get(schemas.HeaderErrorKind) == "overloaded":
				refused <- time.Since(begin)
			case err == nil:
				t.Errorf("answered by nobody: %v", r)
			}
		})
	}
	for range extra {
		select {
		case d := <-refused:
			if d > 5*time.Second {
				t.Errorf("refused after %v, want it at once", d)
			}
		case <-ctx.Done():
			t.Fatal("not all requests beyond the bound were refused")
		}
	}
	cancel()
	wg.Wait()
	must(t, src.Close(context.WithoutCancel(ctx)))
	if len(refused) > 0 {
		t.Errorf("%d requests within the bound were refused", len(refused))
	}
}

// drainRequests: what was taken before Drain is received and answered, what comes after finds nobody.
func drainRequests(t *testing.T, s Subject) {
	ctx := within(t)
	tr, _, _ := s.Open(t)
	src, err := tr.Serve(ctx, "p", "primary")
	must(t, err)
	const n = 10
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := tr.Requester.Request(ctx, &schemas.Message{Topic: "p", Payload: []byte("x")}); err != nil {
				t.Error(err)
			}
		})
	}
	answer := func(ds []*connectors.Delivery) {
		rs := make([]connectors.Response, len(ds))
		for i, d := range ds {
			rs[i] = echo(d)
		}
		must(t, tr.Responder.Respond(ctx, rs))
	}
	got := 0
	for got < n { // all asked before the drain
		ds, err := src.Receive(ctx, 1)
		must(t, err)
		got += len(ds)
		answer(ds)
	}
	src.Drain()
	src.Drain()
	for {
		ds, err := src.Receive(ctx, 4)
		if errors.Is(err, schemas.ErrDrained) {
			break
		}
		must(t, err)
		answer(ds)
	}
	wg.Wait()
	_, err = tr.Requester.Request(ctx, &schemas.Message{Topic: "p"})
	wantKind(t, err, schemas.NotFound)
	must(t, src.Close(ctx))
}
