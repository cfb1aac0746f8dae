package nats

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/leatstream/leat/schemas"
)

// Service describes an endpoint to the tools of NATS: `nats micro ls` and every client that asks $SRV.PING, INFO or
// STATS sees it. The hot path does not pass through here.
type Service struct {
	Name        string // of the pipeline; tools see leat-<name>
	Version     string // semantic version, "1.0.0"
	Description string
	Group       string            // queue group
	Metadata    map[string]string // strings for tools: model, revision
	Stats       func() ServiceStats
}

// ServiceStats are a service's counters since its start.
type ServiceStats struct {
	Requests, Errors uint64
	Processing       time.Duration // sum
	LastError        string
}

type service struct {
	Service
	id      string
	started time.Time
}

// Register shows the service to tools until it is unregistered, replacing an earlier one of that name.
func (c *Client) Register(ctx context.Context, s Service) error {
	if err := schemas.CheckName("service", s.Name); err != nil {
		return err
	}
	c.mu.Lock()
	first := len(c.mu.services) == 0
	old := c.mu.services[s.Name]
	n := &service{Service: s, id: c.id + shortHash(s.Name), started: time.Now().UTC()}
	if old != nil {
		n.started = old.started
	}
	c.mu.services[s.Name] = n
	c.mu.Unlock()
	if !first || old != nil {
		return nil
	}
	return c.listen(ctx, "nats.Register", "$SRV.>", c.front, c.discover)
}

// Unregister takes it away again.
func (c *Client) Unregister(name string) {
	c.mu.Lock()
	delete(c.mu.services, name)
	c.mu.Unlock()
}

// listen subscribes for the client's life, once for each subject.
func (c *Client) listen(ctx context.Context, op, subject string, nc *nats.Conn, fn nats.MsgHandler) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.mu.subs {
		if s.Subject == subject {
			return nil
		}
	}
	sub, err := nc.Subscribe(subject, fn)
	if err == nil {
		c.mu.subs = append(c.mu.subs, sub)
		call, cancel := c.call(ctx)
		defer cancel()
		err = nc.FlushWithContext(call)
	}
	return classify(op, subject, err)
}

// discover answers $SRV.<verb>[.<name>[.<id>]] in micro's own types.
func (c *Client) discover(m *nats.Msg) {
	parts := strings.Split(m.Subject, ".")
	if m.Reply == "" || len(parts) < 2 || len(parts) > 4 {
		return
	}
	c.mu.Lock()
	var found []*service
	for _, s := range c.mu.services {
		if (len(parts) < 3 || parts[2] == "leat-"+s.Name) && (len(parts) < 4 || parts[3] == s.id) {
			found = append(found, s)
		}
	}
	c.mu.Unlock()
	for _, s := range found {
		v := s.answer(parts[1])
		if v == nil {
			return
		}
		b, err := json.Marshal(v)
		if err == nil {
			err = m.Respond(b)
		}
		if err != nil {
			c.log.Warn("discovery", "subject", m.Subject, "error", err)
		}
	}
}

func (s *service) answer(verb string) any {
	meta := s.Metadata
	if meta == nil {
		meta = map[string]string{}
	}
	id := micro.ServiceIdentity{Name: "leat-" + s.Name, ID: s.id, Version: s.Version, Metadata: meta}
	subject := subjectScore + s.Name
	switch verb {
	case "PING":
		return micro.Ping{ServiceIdentity: id, Type: micro.PingResponseType}
	case "INFO":
		return micro.Info{
			ServiceIdentity: id, Type: micro.InfoResponseType, Description: s.Description,
			Endpoints: []micro.EndpointInfo{{Name: "score", Subject: subject, QueueGroup: s.Group, Metadata: meta}},
		}
	case "STATS":
		e := &micro.EndpointStats{Name: "score", Subject: subject, QueueGroup: s.Group}
		if s.Stats != nil {
			st := s.Stats()
			e.NumRequests, e.NumErrors, e.LastError, e.ProcessingTime = int(st.Requests), int(st.Errors), st.LastError, st.Processing
			if st.Requests > 0 {
				e.AverageProcessingTime = st.Processing / time.Duration(st.Requests)
			}
		}
		return micro.Stats{ServiceIdentity: id, Type: micro.StatsResponseType, Started: s.started, Endpoints: []*micro.EndpointStats{e}}
	}
	return nil
}
