package kafka

import (
	"bytes"
	"context"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// replyTo is where the answer to a request goes: a place, and what its caller tells answers apart by. As
// Delivery.ReplyTo it is written mark/partition/topic/correlation; the mark says that a source of this client wrote
// it.
type replyTo struct {
	topic       string // in the cluster
	partition   int32
	correlation string // "" for none
}

func (q *requests) formatReply(r *replyTo) string {
	b := make([]byte, 0, len(q.mark)+len(r.topic)+len(r.correlation)+8)
	b = append(b, q.mark...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(r.partition), 10)
	b = append(b, '/')
	b = append(b, r.topic...)
	b = append(b, '/')
	b = append(b, r.correlation...)
	return string(b)
}

func (q *requests) parseReply(s string) (r replyTo, ok bool) {
	mark, s, _ := strings.Cut(s, "/")
	partition, s, _ := strings.Cut(s, "/")
	topic, correlation, ok := strings.Cut(s, "/")
	n, err := strconv.ParseInt(partition, 10, 32)
	if !ok || err != nil || mark != q.mark {
		return r, false
	}
	return replyTo{topic: topic, partition: int32(n), correlation: correlation}, true
}

// Respond writes all answers together and returns when all in-sync replicas have those in leat.replies. An answer that
// is too large for its topic becomes an Invalid one that says so. One whose caller named a place that does not exist
// is counted and dropped.
func (c *Client) Respond(ctx context.Context, rs []connectors.Response) error {
	const op = "kafka.Respond"
	own := c.name(topicReplies)
	recs := make([]record, 0, len(rs))
	var others []record
	for i := range rs {
		to, ok := c.requests.parseReply(rs[i].To)
		if !ok {
			return schemas.Errorf(schemas.Internal, op, "answer to %q, which no source of this client gave", rs[i].To)
		}
		if r := answerRecord(&to, rs[i].Header, rs[i].Payload); to.topic != own {
			r.value = bytes.Clone(r.value) // the caller's again when this returns
			others = append(others, r)
		} else {
			recs = append(recs, r)
		}
	}
	if len(others) > 0 {
		c.requests.aside(others)
	}
	return c.requests.write(ctx, recs)
}

// respondAside bounds the writes of answers to topics of callers' own. They are nothing that other callers wait for:
// such a topic may be missing, or its broker away.
const respondAside = 64

// aside writes answers beside the others, or drops them if too many are under way.
func (q *requests) aside(recs []record) {
	drop := func() { q.count(eventLost, len(recs)) }
	select {
	case q.asides <- struct{}{}:
	default:
		drop()
		return
	}
	ok := q.c.spawn(func() {
		defer func() { <-q.asides }()
		ctx, cancel := context.WithTimeout(q.c.closing, q.c.cfg.CallTimeout)
		defer cancel()
		if err := q.write(ctx, recs); err != nil {
			q.c.log.Warn("answers lost", "answers", len(recs), "error", err)
			drop()
		}
	})
	if !ok {
		<-q.asides
		drop()
	}
}

// write produces answers, without those that have nowhere to go.
func (q *requests) write(ctx context.Context, recs []record) error {
	const op = "kafka.Respond"
	fit := recs[:0]
	for i := range recs {
		r := &recs[i]
		err := q.reachable(ctx, op, r)
		if err == nil {
			err = q.shorten(ctx, op, r)
		}
		switch k := schemas.KindOf(err); {
		case err == nil:
			fit = append(fit, *r)
		case k == schemas.NotFound || k == schemas.Invalid:
			q.count(eventUnanswerable, 1)
			q.c.log.Debug("an answer has nowhere to go", "error", err)
		default:
			return err
		}
	}
	_, err := q.c.produce(ctx, fit)
	return classify(op, "answers", err)
}

// reachable checks that the place of an answer exists.
func (q *requests) reachable(ctx context.Context, op string, r *record) error {
	t, err := q.c.meta.topic(ctx, op, r.topic)
	if err == nil && (r.partition < 0 || int(r.partition) >= len(t.leaders)) {
		return noPartition(op, r.topic, r.partition, len(t.leaders))
	}
	return err
}

// shorten puts an error in the place of an answer that is too large.
func (q *requests) shorten(ctx context.Context, op string, r *record) error {
	err := q.c.checkSize(ctx, op, r)
	if err == nil || schemas.KindOf(err) != schemas.Invalid {
		return err
	}
	h, _ := header(r.headers)
	e := schemas.Errorf(schemas.Invalid, op, "the answer is too large, ask for fewer rows: %w", err)
	short, body := schemas.ErrorAnswer(e, h.Get(schemas.HeaderRequestID))
	*r = answerRecord(&replyTo{topic: r.topic, partition: r.partition, correlation: h.Get(headerCorrelation)}, short, body)
	return nil
}

func answerRecord(to *replyTo, h schemas.Header, payload []byte) record {
	r := record{topic: to.topic, partition: to.partition, value: payload}
	if payload == nil {
		r.value = []byte{} // an empty answer, not a deletion
	}
	n := 1
	for _, vs := range h {
		n += len(vs)
	}
	r.headers = make([]kafka.Header, 0, n)
	for k, vs := range h {
		if k == headerCorrelation {
			continue
		}
		for _, v := range vs {
			r.headers = append(r.headers, kafka.Header{Key: k, Value: []byte(v)})
		}
	}
	if to.correlation != "" {
		r.headers = append(r.headers, kafka.Header{Key: headerCorrelation, Value: []byte(to.correlation)})
	}
	return r
}
