package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors/connectortest"
	"github.com/leatstream/leat/connectors/memory"
	"github.com/leatstream/leat/schemas"
)

// Claims of the HTTP door: requests are all that goes through it.
var claims = connectortest.Claims{Name: "gateway", Request: true}

// TestConnector asks over HTTP, in front of a broker in memory behind which the suite's runners serve.
func TestConnector(t *testing.T) {
	const queue, limit = 100, 1 << 20
	connectortest.Run(t, connectortest.Subject{
		Claims: claims, Queue: queue, Max: 2 * limit,
		Open: func(t testing.TB) (connectortest.Transport, func() connectortest.Transport, func()) {
			c := memory.Default()
			c.Queue = queue
			b, err := memory.New(c)
			if err != nil {
				t.Fatal(err)
			}
			url, _, _ := start(t, func(c *Config, d *Deps) { c.MaxBody, d.Requester = limit, b })
			again := func() connectortest.Transport {
				// As many connections are kept as a test has callers, so that none of them pays for a new one.
				tr := &http.Transport{MaxIdleConnsPerHost: 2 * queue}
				t.Cleanup(tr.CloseIdleConnections)
				return connectortest.Transport{Requester: &caller{url, &http.Client{Transport: tr}}, Responder: b, Serve: b.Serve}
			}
			return again(), again, nil
		},
	})
}

// TestCallerLeaves: when a caller hangs up, whoever was asked for it learns so, long before the deadline.
func TestCallerLeaves(t *testing.T) {
	asked, left := make(chan struct{}), make(chan error, 1)
	url, _, _ := start(t, func(_ *Config, d *Deps) {
		d.Requester = requester(func(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
			close(asked)
			<-ctx.Done()
			left <- ctx.Err()
			return nil, ctx.Err()
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		<-asked
		cancel()
	}()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	if _, err := (&caller{url, &http.Client{Transport: tr}}).Request(ctx, &schemas.Message{Topic: "p", Payload: []byte("{}")}); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the request ended with %v, want that its caller left", err)
	}
}

// caller asks the gateway as any HTTP client would, and reads its statuses and errors back.
type caller struct {
	url    string
	client *http.Client
}

// grace is how much longer than its deadline a caller waits for the gateway to say that it passed.
const grace = 5 * time.Second

// Request implements connectors.Requester. The deadline goes to the gateway, which has to keep it; a caller that leaves
// hangs up. Over HTTP an error of the transport and one that the runner answered look the same: those kinds that mean
// that nobody was asked, or nobody in time, are returned as errors, the others as the answers that they were.
func (c *caller) Request(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
	const op = "caller.Request"
	if err := ctx.Err(); err != nil {
		return nil, schemas.AsError(op, err)
	}
	call, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	h := http.Header(m.Header.Clone())
	if d, ok := ctx.Deadline(); ok {
		h[schemas.HeaderDeadline] = []string{schemas.FormatTime(d)}
		defer time.AfterFunc(time.Until(d)+grace, cancel).Stop()
	}
	defer context.AfterFunc(ctx, func() {
		if ctx.Err() == context.Canceled {
			cancel()
		}
	})()
	r, err := http.NewRequestWithContext(call, http.MethodPost, c.url+"/v1/pipelines/"+m.Topic+"/score", bytes.NewReader(m.Payload))
	if err != nil {
		return nil, err
	}
	r.Header = h
	a, err := c.client.Do(r)
	if err != nil {
		return nil, schemas.AsError(op, err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		return nil, schemas.AsError(op, err)
	}
	if a.StatusCode == http.StatusOK {
		return &schemas.Message{Topic: m.Topic, Key: m.Key, Header: schemas.Header(a.Header), Payload: body}, nil
	}
	var e errorBody
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, schemas.Errorf(schemas.Internal, op, "status %d with %.100q: %w", a.StatusCode, body, err)
	}
	kind := schemas.ParseKind(e.Kind)
	if want := kind.HTTPStatus(); a.StatusCode != want && a.StatusCode != http.StatusRequestEntityTooLarge || a.Header.Get(schemas.HeaderErrorKind) != e.Kind || e.ID == "" {
		return nil, schemas.Errorf(schemas.Internal, op, "status %d and header %q for %+v", a.StatusCode, a.Header.Get(schemas.HeaderErrorKind), e)
	}
	switch a.StatusCode {
	case http.StatusNotFound, http.StatusGatewayTimeout, http.StatusRequestEntityTooLarge:
		return nil, schemas.FieldErrorf(kind, op, e.Field, "%s", e.Error)
	}
	payload, err := json.Marshal(schemas.ErrorBody{Kind: e.Kind, ID: e.ID, Message: e.Error, Field: e.Field})
	return &schemas.Message{Topic: m.Topic, Key: m.Key, Header: schemas.Header(a.Header), Payload: payload}, err
}
