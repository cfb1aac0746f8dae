package connectors

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// Transport is what the operations on topics need: nats.Client has all of it, and Kafka's will.
type Transport interface {
	Topics
	Publisher
	Replayer
	// DeleteTopic deletes a topic with all its messages. NotFound if there is none.
	DeleteTopic(ctx context.Context, name string) error
}

// TopicUses says who reads or writes a topic, for people: "pipeline fraud". A topic in use is not deleted.
type TopicUses func(ctx context.Context, topic string) ([]string, error)

// TopicLine is one message as the operations write and take it, a line of NDJSON each.
type TopicLine struct {
	Topic     string          `json:"topic,omitempty"`
	Partition int32           `json:"partition"`
	Sequence  uint64          `json:"sequence,omitempty"`
	Time      time.Time       `json:"time,omitzero"` // stored
	Key       string          `json:"key,omitempty"`
	ID        string          `json:"id,omitempty"` // folds repeats on publish; with it the event's request id, if no header gives one
	Headers   schemas.Header  `json:"headers,omitempty"`
	Value     json.RawMessage `json:"value,omitempty"`   // a JSON payload as it is
	Payload   []byte          `json:"payload,omitempty"` // any other payload, base64
}

type (
	topicsRequest struct{}
	// TopicsReply lists topics.
	TopicsReply struct {
		Topics []TopicInfo `json:"topics"`
	}
	topicRequest struct {
		Name string `path:"name"`
	}
	topicCreate struct {
		Name       string `json:"name"`
		Partitions int    `json:"partitions"`
	}
	publishRequest struct {
		Name string    `path:"name"`
		Body io.Reader `body:"application/x-ndjson"`
	}
	// PublishReply says how many messages are stored.
	PublishReply struct {
		Published int `json:"published"`
	}
	readRequest struct {
		Name   string    `path:"name"`
		From   uint64    `query:"from" doc:"first sequence wanted, in every partition"`
		Since  time.Time `query:"since" doc:"first stored time wanted"`
		Limit  int       `query:"limit" doc:"messages at most; 0: all"`
		Follow bool      `query:"follow" doc:"go on with new messages"`
	}
)

// Operations is the table of what can be asked about topics.
func Operations(t Transport, uses TopicUses) []api.Operation {
	return []api.Operation{
		api.Op("topics.list", http.MethodGet, "/v1/topics", api.Read, "List topics with their groups and lag",
			func(ctx context.Context, _ *topicsRequest) (*TopicsReply, error) {
				ts, err := t.ListTopics(ctx)
				if ts == nil {
					ts = []TopicInfo{}
				}
				return &TopicsReply{ts}, err
			}),
		api.Op("topics.show", http.MethodGet, "/v1/topics/{name}", api.Read, "Describe one topic",
			func(ctx context.Context, r *topicRequest) (*TopicInfo, error) {
				i, err := t.Topic(ctx, r.Name)
				return &i, err
			}),
		api.Op("topics.create", http.MethodPost, "/v1/topics", api.Admin, "Make a topic, or check that it is as wanted",
			func(ctx context.Context, r *topicCreate) (*TopicInfo, error) {
				if err := t.EnsureTopic(ctx, r.Name, r.Partitions); err != nil {
					return nil, err
				}
				i, err := t.Topic(ctx, r.Name)
				return &i, err
			}),
		api.Op("topics.delete", http.MethodDelete, "/v1/topics/{name}", api.Admin, "Delete a topic, with all its messages, that no pipeline and no job uses",
			func(ctx context.Context, r *topicRequest) (*TopicInfo, error) {
				return deleteTopic(ctx, t, uses, r.Name)
			}),
		api.Op("topics.publish", http.MethodPost, "/v1/topics/{name}/messages", api.Score, "Store messages, one JSON object a line with key, headers and value; answers when all are acknowledged",
			func(ctx context.Context, r *publishRequest) (*PublishReply, error) { return publishLines(ctx, t, r) }),
		api.Op("topics.read", http.MethodGet, "/v1/topics/{name}/messages", api.Read, "Read stored messages as NDJSON, partition by partition, then new ones if asked to follow",
			func(ctx context.Context, r *readRequest) (*TopicReading, error) {
				if _, err := t.Topic(ctx, r.Name); err != nil {
					return nil, err
				}
				return &TopicReading{ctx: ctx, t: t, r: *r}, nil
			}),
	}
}

// deleteTopic returns what was deleted.
func deleteTopic(ctx context.Context, t Transport, uses TopicUses, name string) (*TopicInfo, error) {
	i, err := t.Topic(ctx, name)
	if err != nil {
		return nil, err
	}
	by, err := uses(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(by) > 0 {
		return nil, schemas.Errorf(schemas.Invalid, "topics.delete", "topic %s is in use by %s: delete or change that first", name, strings.Join(by, ", "))
	}
	return &i, t.DeleteTopic(ctx, name)
}

// publishBatch is how many lines are acknowledged together at most.
const publishBatch = 512

// publishLines stores lines as they come: what was read while a batch is on its way goes into the next one, so that a
// slow writer's events are not held back and a fast one's share their way to the disk. A bad line ends it; what came
// before is stored.
func publishLines(ctx context.Context, t Transport, r *publishRequest) (*PublishReply, error) {
	const op = "topics.publish"
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	lines := make(chan schemas.Message, publishBatch) // one batch: what fits into the next publish
	reply := &PublishReply{}
	done := make(chan error, 1)
	go func() {
		err := publishAll(ctx, t, lines, &reply.Published)
		if err != nil {
			stop(err)
		}
		done <- err
	}()
	rerr := readLines(ctx, r, lines)
	close(lines)
	if err := <-done; err != nil {
		return nil, err
	}
	if rerr != nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "%w (%d events before it are stored)", rerr, reply.Published)
	}
	return reply, nil
}

// readLines turns the body into messages until its end, a bad line, or the end of ctx.
func readLines(ctx context.Context, r *publishRequest, to chan<- schemas.Message) error {
	in := bufio.NewReaderSize(r.Body, 256<<10)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if len(line) > 1 {
			m, perr := messageOf(r.Name, line)
			if perr != nil {
				return fmt.Errorf("line %d: %w", n, perr)
			}
			select {
			case to <- m:
			case <-ctx.Done():
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("body: %w", err)
		}
	}
}

// publishAll publishes what is at hand, again and again, until the channel is closed.
func publishAll(ctx context.Context, t Transport, from <-chan schemas.Message, published *int) error {
	msgs := make([]schemas.Message, 0, publishBatch)
	for m := range from {
		msgs = append(msgs[:0], m)
		for more := true; more && len(msgs) < publishBatch; {
			select {
			case m, ok := <-from:
				if more = ok; ok {
					msgs = append(msgs, m)
				}
			default:
				more = false
			}
		}
		if _, err := t.Publish(ctx, msgs); err != nil {
			return err
		}
		*published += len(msgs)
	}
	return nil
}

func messageOf(topic string, line []byte) (schemas.Message, error) {
	var l TopicLine
	if err := json.Unmarshal(line, &l); err != nil {
		return schemas.Message{}, err
	}
	m := schemas.Message{Topic: topic, Key: l.Key, ID: l.ID, Header: l.Headers, Payload: l.Payload}
	if m.Header == nil {
		m.Header = schemas.Header{}
	}
	if l.Value != nil {
		m.Payload = l.Value
	}
	if l.ID != "" && m.Header.Get(schemas.HeaderRequestID) == "" {
		m.Header.Set(schemas.HeaderRequestID, l.ID)
	}
	if m.Payload == nil {
		return m, errors.New("neither value nor payload")
	}
	return m, nil
}

// TopicReading is the answer of topics.read: an api.Stream.
type TopicReading struct {
	ctx context.Context
	t   Transport
	r   readRequest
}

// ContentType is NDJSON.
func (*TopicReading) ContentType() string { return "application/x-ndjson" }

// followEvery is how often a follower looks for new messages.
const followEvery = 100 * time.Millisecond

// WriteBody writes until the limit, the end, or, when following, until the caller goes.
func (s *TopicReading) WriteBody(w io.Writer) error {
	start := map[int32]uint64{}
	left := s.r.Limit
	first := Start{Sequence: s.r.From, Time: s.r.Since}
	out := bufio.NewWriterSize(w, 64<<10)
	for {
		spans, err := s.t.Spans(s.ctx, s.r.Name, first)
		if err != nil {
			return err
		}
		for _, sp := range spans {
			sp.First = max(sp.First, start[sp.Partition])
			if sp.Last < sp.First {
				continue
			}
			n, err := s.span(out, sp, left)
			if err != nil {
				return err
			}
			start[sp.Partition] = sp.Last + 1
			if s.r.Limit > 0 {
				if left -= n; left <= 0 {
					return out.Flush()
				}
			}
		}
		if err := out.Flush(); err != nil || !s.r.Follow {
			return err
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		timer := time.NewTimer(followEvery)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// span writes one span and returns how many messages it wrote.
func (s *TopicReading) span(w io.Writer, sp Span, left int) (int, error) {
	src, err := s.t.Open(s.ctx, sp)
	if err != nil {
		return 0, err
	}
	defer src.Close(s.ctx)
	enc := json.NewEncoder(w)
	n := 0
	for {
		ds, err := src.Receive(s.ctx, publishBatch)
		if errors.Is(err, schemas.ErrDrained) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		for _, d := range ds {
			l := TopicLine{Topic: s.r.Name, Partition: d.From.Partition, Sequence: d.From.Sequence, Time: d.Time, Key: d.Key, Headers: d.Header}
			if json.Valid(d.Payload) {
				l.Value = d.Payload
			} else {
				l.Payload = d.Payload
			}
			if err := enc.Encode(l); err != nil {
				return n, err
			}
			if n++; s.r.Limit > 0 && n >= left {
				return n, nil
			}
		}
	}
}
