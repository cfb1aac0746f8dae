package kafka

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// clockSkew is by how much the clocks of brokers and members may differ before a request that has just come is taken for
// one that has waited too long.
const clockSkew = 5 * time.Second

// Serve joins the group that answers a pipeline; its members share the partitions of the topic of requests, which is
// made if it is missing. It returns when the member has its share: whoever asks from then on finds somebody. A group
// that never was begins with what is asked from now on.
//
// Requests are consumed at most once: they are committed within 10 ms of being received, whatever becomes of them, and
// only a member that is killed within that time leaves some to be received again. A caller whose request is lost to a
// crash waits until its deadline. A request whose
// deadline has passed is answered Expired and not delivered. Requests wait in a queue of at most Config.Queue; what comes
// beyond it is answered Overloaded at once.
func (c *Client) Serve(ctx context.Context, pipeline, group string) (connectors.Source, error) {
	const op = "kafka.Serve"
	if err := schemas.CheckName("pipeline", pipeline); err != nil {
		return nil, err
	}
	if err := schemas.CheckName("group", group); err != nil {
		return nil, err
	}
	if err := c.ensureScore(ctx, pipeline); err != nil {
		return nil, err
	}
	if err := c.ensureReplies(ctx); err != nil {
		return nil, err
	}
	s := &scoreSource{
		c: c, pipeline: pipeline, group: c.name(scoreGroup(pipeline, group)), topic: c.name(topicScore + pipeline),
		ch: make(chan *connectors.Delivery, c.cfg.Queue), refusals: make(chan []connectors.Response, refusalsWaiting),
		drained: make(chan struct{}), replies: c.name(topicReplies),
	}
	s.ctx, s.stop = context.WithCancel(c.closing)
	s.member = s.newMember()
	if err := s.join(ctx, op); err != nil {
		s.Close(ctx) // its error would hide this
		return nil, err
	}
	return s, nil
}

// scoreSource is a member of a pipeline's group, and the queue of the requests that it has received.
type scoreSource struct {
	c                      *Client
	pipeline, group, topic string // group and topic as the cluster knows them
	replies                string // the topic of answers there
	ch                     chan *connectors.Delivery
	refusals               chan []connectors.Response
	member                 *scoreMember
	ctx                    context.Context // ends with the membership
	stop                   context.CancelFunc
	drained                chan struct{} // closed when nothing more comes
	drain, close           sync.Once
}

// Receive waits for the first request and takes what is queued with it.
func (s *scoreSource) Receive(ctx context.Context, max int) ([]*connectors.Delivery, error) {
	var d *connectors.Delivery
	select {
	case d = <-s.ch:
	default:
		select {
		case d = <-s.ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.drained:
			select {
			case d = <-s.ch:
			default:
				return nil, schemas.ErrDrained
			}
		}
	}
	runtime.Gosched() // lets the fetch hand over the rest of what it brought
	ds := append(make([]*connectors.Delivery, 0, min(max, 1+len(s.ch))), d)
	for len(ds) < max {
		select {
		case d := <-s.ch:
			ds = append(ds, d)
		default:
			return ds, nil
		}
	}
	return ds, nil
}

// take delivers records, or refuses them.
func (s *scoreSource) take(rs []fetched) {
	if len(rs) == 0 {
		return
	}
	now := time.Now()
	var refused []connectors.Response
	slab := make([]connectors.Delivery, len(rs))
	for i := range rs {
		d := &slab[i]
		s.deliver(d, &rs[i])
		err := overdue(d, rs[i].time, now)
		if err == nil {
			select {
			case s.ch <- d:
				continue
			default:
				s.c.requests.count(eventOverloaded, 1)
				err = schemas.Errorf(schemas.Overloaded, "kafka.Serve", "pipeline %s: %d requests wait already, try again", s.pipeline, s.c.cfg.Queue)
			}
		} else {
			s.c.requests.count(eventExpired, 1)
		}
		if d.ReplyTo != "" {
			h, body := schemas.ErrorAnswer(err, d.Header.Get(schemas.HeaderRequestID))
			refused = append(refused, connectors.Response{To: d.ReplyTo, Header: h, Payload: body})
		}
	}
	if len(refused) == 0 {
		return
	}
	select {
	case s.refusals <- refused:
	default: // brokers do not take them; their callers find out by their deadlines
		s.c.requests.count(eventLost, len(refused))
	}
}

// refusalsWaiting bounds the batches of refusals that wait to be written, each of one fetch.
const refusalsWaiting = 64

// refuse writes refusals until nothing more comes.
func (s *scoreSource) refuse() {
	for {
		select {
		case rs := <-s.refusals:
			s.answer(rs)
		case <-s.drained:
			select {
			case rs := <-s.refusals:
				s.answer(rs)
			default:
				return
			}
		}
	}
}

func (s *scoreSource) answer(rs []connectors.Response) {
	ctx, cancel := context.WithTimeout(s.c.closing, s.c.cfg.CallTimeout)
	defer cancel()
	if err := s.c.Respond(ctx, rs); err != nil {
		s.c.requests.count(eventLost, len(rs))
		s.c.log.Warn("cannot refuse requests", "pipeline", s.pipeline, "requests", len(rs), "error", err)
	}
}

// deliver makes the delivery of a request.
func (s *scoreSource) deliver(d *connectors.Delivery, r *fetched) {
	d.Topic, d.Attempt, d.Settler, d.Payload = s.pipeline, 1, noSettler{}, r.value
	d.Header, d.ID = header(r.headers)
	if d.Key = string(r.key); d.Key == "" {
		d.Key = d.Header.Get(schemas.HeaderKey)
	}
	if d.Header == nil {
		return
	}
	delete(d.Header, schemas.HeaderPrincipal) // never believed from outside
	d.ReplyTo = s.replyTo(d.Header)
	delete(d.Header, schemas.HeaderReplyTo)
	delete(d.Header, schemas.HeaderReplyPartition)
	delete(d.Header, headerCorrelation)
}

// replyTo is where the caller wants the answer, "" if nowhere. A caller may name leat.replies and what is below it: we
// write with rights that it may not have.
func (s *scoreSource) replyTo(h schemas.Header) string {
	r := replyTo{topic: h.Get(schemas.HeaderReplyTo), correlation: h.Get(headerCorrelation)}
	if r.topic == "" {
		return ""
	}
	rest, ok := strings.CutPrefix(r.topic, s.replies)
	n, err := int64(0), error(nil)
	if p := h.Get(schemas.HeaderReplyPartition); p != "" {
		n, err = strconv.ParseInt(p, 10, 32)
	}
	if !ok || rest != "" && rest[0] != '.' || !legalName(r.topic) || err != nil || n < 0 {
		s.c.requests.count(eventUnanswerable, 1)
		s.c.log.Debug("a request wants its answer where none is written", "pipeline", s.pipeline, "topic", r.topic)
		return ""
	}
	r.partition = int32(n)
	return s.c.requests.formatReply(&r)
}

// overdue is Expired for a request whose caller waits no more. What Leat-Timeout says counts from when the brokers took
// the request, as far as clocks can tell.
func overdue(d *connectors.Delivery, stored, now time.Time) *schemas.Error {
	if d.Header.Get(schemas.HeaderDeadline) == "" && d.Header.Get(schemas.HeaderTimeout) == "" {
		return nil
	}
	at, ok, err := schemas.Deadline(d.Header, now)
	if err != nil || !ok {
		return nil // the receiver says what is wrong with it
	}
	if t, err := time.ParseDuration(d.Header.Get(schemas.HeaderTimeout)); err == nil {
		if end := stored.Add(t + clockSkew); end.Before(at) {
			at = end
		}
	}
	if at.After(now) {
		return nil
	}
	return schemas.Errorf(schemas.Expired, "kafka.Serve", "the deadline had passed when the request was received")
}

// Drain leaves the group; what was received is still delivered.
func (s *scoreSource) Drain() {
	s.drain.Do(func() {
		s.c.requests.forget(s)
		s.stop()
	})
}

// Close leaves the group and answers what is still queued as Unavailable: its callers may ask again, and reach
// another member.
func (s *scoreSource) Close(ctx context.Context) error {
	s.Drain()
	var err error
	select {
	case <-s.drained:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.close.Do(func() {
		var rs []connectors.Response
		for {
			select {
			case d := <-s.ch:
				e := schemas.Errorf(schemas.Unavailable, "kafka.Serve", "pipeline %s is shutting down here, try again", s.pipeline)
				h, body := schemas.ErrorAnswer(e, d.Header.Get(schemas.HeaderRequestID))
				if s.c.requests.count(eventRefused, 1); d.ReplyTo != "" {
					rs = append(rs, connectors.Response{To: d.ReplyTo, Header: h, Payload: body})
				}
				continue
			default:
			}
			break
		}
		if len(rs) > 0 {
			s.answer(rs)
		}
	})
	return err
}
