package nats

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// Bounds of operations over NATS: more at once wait in the subscription, which is bounded by the library.
const (
	apiAtOnce  = 16
	apiTimeout = 30 * time.Second
)

// ServeAPI answers leat.api.<name> until the client is closed: read operations to users, all to our own processes.
// Operations that take a raw body or answer with a stream are left out: they are HTTP's.
func (c *Client) ServeAPI(ctx context.Context, ops []api.Operation) error {
	const op = "nats.ServeAPI"
	open, all := map[string]*api.Operation{}, map[string]*api.Operation{}
	for i := range ops {
		o := &ops[i]
		if t := o.BodyType(); t != "" && t != "application/json" || o.Handle == nil {
			continue
		}
		all[o.Name] = o
		if o.Scope == api.Read {
			open[o.Name] = o
		}
	}
	slots := make(chan struct{}, apiAtOnce)
	serve := func(table map[string]*api.Operation) nats.MsgHandler {
		return func(m *nats.Msg) {
			if m.Reply == "" {
				return
			}
			select {
			case slots <- struct{}{}:
			case <-c.closing.Done():
				return
			}
			c.wg.Add(1)
			go func() {
				defer func() { <-slots; c.wg.Done() }()
				c.operate(table, m)
			}()
		}
	}
	table := open
	if c.oneAccount() {
		table = all // the operator of that account decides who may publish there
	}
	if err := c.listen(ctx, op, subjectAPI+">", c.front, serve(table)); err != nil || c.oneAccount() {
		return err
	}
	sub, err := c.core.Subscribe(subjectAPI+">", serve(all))
	if err == nil {
		c.mu.Lock()
		c.mu.subs = append(c.mu.subs, sub)
		c.mu.Unlock()
		call, cancel := c.call(ctx)
		defer cancel()
		err = c.core.FlushWithContext(call)
	}
	return classify(op, subjectAPI+">", err)
}

func (c *Client) operate(table map[string]*api.Operation, m *nats.Msg) {
	name := strings.TrimPrefix(m.Subject, subjectAPI)
	answer := &nats.Msg{}
	v, err := c.runOperation(table, name, m)
	if err == nil {
		answer.Header = nats.Header{schemas.HeaderContentType: {"application/json"}}
		answer.Data, err = json.Marshal(v)
	}
	if n, limit := len(answer.Data)+headerSize(answer.Header), c.MaxPayload(); err == nil && n > limit {
		err = schemas.Errorf(schemas.Invalid, "nats.ServeAPI", "the answer has %d bytes, NATS takes at most %d: ask for a smaller page, or use HTTP", n, limit)
	}
	if err != nil {
		e := *schemas.AsError("nats.ServeAPI", err)
		if e.Kind == schemas.Internal && e.ID == "" {
			e.ID = randomHex(6)
			c.log.Error("operation failed", "operation", name, "id", e.ID, "error", err)
		}
		var h schemas.Header
		h, answer.Data = schemas.ErrorAnswer(&e, "")
		answer.Header = nats.Header(serviceError(h, e.Kind.String()))
	}
	if err := m.RespondMsg(answer); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		c.log.Warn("cannot answer", "operation", name, "error", err)
	}
}

func (c *Client) runOperation(table map[string]*api.Operation, name string, m *nats.Msg) (any, error) {
	o := table[name]
	if o == nil {
		return nil, schemas.Errorf(schemas.NotFound, "nats.ServeAPI", "no operation %q is served here", name)
	}
	now := time.Now()
	end := now.Add(apiTimeout)
	if d, ok, err := schemas.Deadline(schemas.Header(m.Header), now); err != nil {
		return nil, err
	} else if ok && d.Before(end) {
		end = d
	}
	ctx, cancel := context.WithDeadline(c.closing, end)
	defer cancel()
	req, err := o.DecodeObject(m.Data)
	if err != nil {
		return nil, err
	}
	v, err := o.Handle(api.WithCaller(ctx, api.Caller{Via: "nats"}), req)
	if err != nil {
		return nil, err
	}
	if _, stream := v.(api.Stream); stream {
		if cl, ok := v.(io.Closer); ok {
			cl.Close() // not read: nothing to lose
		}
		return nil, schemas.Errorf(schemas.Invalid, "nats.ServeAPI", "operation %s answers with a stream: use HTTP", name)
	}
	return v, nil
}
