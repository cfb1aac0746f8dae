package kafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/describegroups"

	"github.com/leatstream/leat/schemas"
)

// primary is the group that answers requests.
const primary = "primary"

const (
	// presenceEvery is how often the members of a group are looked at while callers wait for it.
	presenceEvery = time.Second
	// presenceAge is how long members count as there after they were seen: then a request waits for a look. While
	// callers wait, looks come often enough that none does.
	presenceAge = 2 * presenceEvery
)

// scoreGroup is the consumer group, below the prefix, of those that answer a pipeline.
func scoreGroup(pipeline, group string) string { return topicScore + pipeline + "." + group }

// presence knows whether anybody answers a pipeline. Kafka takes messages whether or not somebody reads them: what
// tells is the group of the readers.
type presence struct {
	c        *Client
	pipeline string
	coord    *coordinator
	mu       struct {
		sync.Mutex
		seen    time.Time // when members were last seen; zero: not, or not any more
		looking *presenceLook
	}
}

type presenceLook struct {
	done   chan struct{}
	served bool
	err    error
}

func (p *presence) init(c *Client, pipeline string) {
	p.c, p.pipeline = c, pipeline
	p.coord = c.coordinator(kafka.CoordinatorKeyTypeConsumer, c.name(scoreGroup(pipeline, primary)))
}

// served returns nil if somebody answers the pipeline, NotFound if nobody does. It asks only if that was not seen
// lately.
func (p *presence) served(ctx context.Context) error {
	const op = "kafka.Request"
	for {
		p.mu.Lock()
		seen := p.mu.seen
		p.mu.Unlock()
		if time.Since(seen) < presenceAge {
			return nil
		}
		served, err := p.look(ctx)
		switch {
		case served:
			return nil
		case err == nil:
			return schemas.Errorf(schemas.NotFound, op, "nobody serves pipeline %s", p.pipeline)
		case ctx.Err() != nil || p.c.closing.Err() != nil:
			return p.c.late(ctx, op, "pipeline "+p.pipeline, err)
		case !passing(err):
			return classify(op, "pipeline "+p.pipeline, err)
		case !seen.IsZero():
			return nil // the group's coordinator is away; its members may well be there
		}
		if serr := sleep(ctx, retryPause); serr != nil {
			return p.c.late(ctx, op, "pipeline "+p.pipeline, err)
		}
	}
}

// look asks once, together with others who ask at the same time.
func (p *presence) look(ctx context.Context) (served bool, err error) {
	p.mu.Lock()
	l := p.mu.looking
	if l == nil {
		l = &presenceLook{done: make(chan struct{})}
		if !p.c.spawn(func() { p.run(l) }) {
			p.mu.Unlock()
			return false, errClosed("kafka.Request")
		}
		p.mu.looking = l
	}
	p.mu.Unlock()
	select {
	case <-l.done:
		return l.served, l.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (p *presence) run(l *presenceLook) {
	begun := time.Now()
	l.served, l.err = p.ask(p.c.closing)
	p.mu.Lock()
	p.mu.looking = nil
	switch {
	case l.err != nil:
	case l.served:
		p.mu.seen = begun
	case p.mu.seen.Before(begun): // else somebody joined meanwhile, in this process
		p.mu.seen = time.Time{}
	default:
		l.served = true
	}
	p.mu.Unlock()
	close(l.done)
}

func (p *presence) ask(ctx context.Context) (served bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.c.cfg.CallTimeout)
	defer cancel()
	if _, err := p.c.partitions(ctx, "kafka.Request", topicScore+p.pipeline); err != nil {
		if schemas.KindOf(err) == schemas.NotFound {
			return false, nil
		}
		return false, err
	}
	r, err := p.coord.ask(ctx, &describegroups.Request{Groups: []string{p.coord.key}}, func(m protocol.Message) int16 {
		if gs := m.(*describegroups.Response).Groups; len(gs) == 1 {
			return gs[0].ErrorCode
		}
		return int16(kafka.Unknown)
	})
	switch {
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		return true, nil // we may not know, and try
	case err != nil:
		return false, err
	}
	return len(r.(*describegroups.Response).Groups[0].Members) > 0, nil
}

// here says that a member in this process has joined, or has left: then others may be there or not.
func (p *presence) here(joined bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.seen = time.Time{}
	if joined {
		p.mu.seen = time.Now()
	}
}

// watch looks at the group for as long as callers wait for it, and ends the wait of those whose request nobody will
// take.
func (o *outbox) watch() {
	t := time.NewTicker(presenceEvery)
	defer t.Stop()
	for {
		select {
		case <-o.q.c.closing.Done():
			return
		case <-t.C:
		}
		sent, any := o.waiters()
		if !any {
			return
		}
		if served, err := o.presence.look(o.q.c.closing); err == nil && !served && len(sent) > 0 {
			o.abandon(sent)
		}
	}
}

// waiters returns those whose request the brokers have, and whether there are any at all. If not, nobody watches from
// now on.
func (o *outbox) waiters() (sent []*waiter, any bool) {
	o.mu.Lock() // whoever comes after this finds out whether somebody watches
	defer o.mu.Unlock()
	o.q.mu.Lock()
	defer o.q.mu.Unlock()
	for _, w := range o.q.mu.waiting {
		if w.box == o {
			if any = true; w.sent.Load() > 0 {
				sent = append(sent, w)
			}
		}
	}
	o.mu.watching = any
	return sent, any
}

// abandon ends the wait of callers whose requests were not taken by the time the group had no members left. Those that
// were taken may still be answered.
func (o *outbox) abandon(ws []*waiter) {
	c := o.q.c
	t, err := c.meta.topic(c.closing, "kafka.Request", o.topic)
	if err != nil {
		return // the next look will tell
	}
	all := make([]int32, len(t.leaders))
	for i := range all {
		all[i] = int32(i)
	}
	taken, err := o.presence.coord.places(c.closing, o.topic, all)
	if err != nil {
		c.log.Debug("offsets of a group", "group", o.presence.coord.key, "error", err)
		return
	}
	for _, w := range ws {
		if w.sent.Load() > taken[w.rec.partition].offset {
			o.q.fail(w, schemas.Errorf(schemas.NotFound, "kafka.Request", "nobody serves pipeline %s any more", o.pipeline))
		}
	}
}
