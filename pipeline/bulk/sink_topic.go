package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// topicSink publishes one message a row, in the order of the source, with the source's key. Ids follow from the job and
// the row's place alone. A coordinator that takes over reads what the topic holds behind the place that the job stored
// last, and publishes what is missing there.
type topicSink struct {
	s      *Service
	job    *Job
	topic  string
	stored map[int32]uint64 // place of each partition that at returns while there is not empty
	ends   map[int32]uint64
	there  map[string]bool // rows that lie behind the stored place already and were not passed yet
	answer schemas.Answer
	buf    []byte
}

// rejectedTopic takes the bad rows of a job that writes a topic.
const rejectedTopic = ".rejected"

func (s *Service) openTopicSink(ctx context.Context, j *Job, topic string) (sink, error) {
	if err := s.deps.Topics.EnsureTopic(ctx, topic, 0); err != nil {
		return nil, err
	}
	t := &topicSink{s: s, job: j, topic: topic, stored: j.SinkAt, ends: maps.Clone(j.SinkAt), there: map[string]bool{}}
	spans, err := s.deps.Replayer.Spans(ctx, topic, connectors.Start{})
	if err != nil {
		return nil, err
	}
	if t.ends == nil { // the first attempt: what was there before is not of this job
		t.ends = map[int32]uint64{}
		for _, sp := range spans {
			t.ends[sp.Partition] = sp.Last
		}
		_, err := s.store.update(ctx, j.ID, func(j *Job) error {
			j.SinkAt = t.ends
			return nil
		})
		return t, err
	}
	for _, sp := range spans {
		sp.First = max(sp.First, t.ends[sp.Partition]+1)
		if err := t.recall(ctx, sp); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// recall notes the job's messages in a span.
func (t *topicSink) recall(ctx context.Context, sp connectors.Span) error {
	if sp.Last < sp.First {
		return nil
	}
	src, err := t.s.deps.Replayer.Open(ctx, sp)
	if err != nil {
		return err
	}
	defer src.Close(context.WithoutCancel(ctx))
	for {
		ds, err := src.Receive(ctx, 1024)
		if errors.Is(err, schemas.ErrDrained) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, d := range ds {
			if d.Header.Get(schemas.HeaderJob) == t.job.ID {
				t.there[d.Header.Get(headerRow)] = true
				t.ends[d.From.Partition] = d.From.Sequence
			}
		}
	}
}

// headerRow names a row of the job, as Leat-Job names the job: partition/unit.sub of the source.
const headerRow = "Leat-Row"

func rowName(sp span, at ref) string {
	return strconv.Itoa(int(sp.Partition)) + "/" + at.String()
}

func (t *topicSink) write(ctx context.Context, _ int64, sp span, r *rows) error {
	msgs := make([]schemas.Message, 0, len(r.at))
	for i, at := range r.at {
		name := rowName(sp, at)
		if t.there[name] {
			delete(t.there, name)
			continue
		}
		h := schemas.Header{}
		t.buf = t.buf[:0]
		b, err := t.s.deps.Encoder.EncodeRows(t.buf, h, r.in, i, i+1, &t.answer)
		if err != nil {
			return err
		}
		t.buf = b
		m := t.message(t.topic, name, sp, at, h, append([]byte(nil), b...))
		if len(r.origins) > 0 {
			o := &r.origins[i]
			m.Key = o.key
			if o.request != "" {
				m.Header[schemas.HeaderRequestID] = []string{o.request}
			}
			if o.event != 0 {
				m.Header[schemas.HeaderEventTime] = []string{schemas.FormatTime(unixNano(o.event))}
			}
		}
		msgs = append(msgs, m)
	}
	if err := t.publish(ctx, msgs); err != nil {
		return err
	}
	return t.reject(ctx, sp, r.bad)
}

func (t *topicSink) message(topic, name string, sp span, at ref, h schemas.Header, payload []byte) schemas.Message {
	from := schemas.Position{Stream: sp.Stream, Partition: sp.Partition, Sequence: at.Unit}
	if t.job.Ends.Ranges == nil {
		from.Sequence++ // rows of files count from 0, positions from 1
	}
	h[schemas.HeaderJob] = []string{t.job.ID}
	h[schemas.HeaderRevision] = []string{t.job.Revision}
	h[schemas.HeaderSource] = []string{from.String()}
	h[headerRow] = []string{name}
	return schemas.Message{Topic: topic, ID: t.job.ID + "/" + name, Header: h, Payload: payload}
}

func (t *topicSink) publish(ctx context.Context, msgs []schemas.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	at, err := t.s.deps.Publisher.Publish(ctx, msgs)
	if err != nil {
		return err
	}
	for _, p := range at {
		if p.Sequence > t.ends[p.Partition] {
			t.ends[p.Partition] = p.Sequence
		}
	}
	return nil
}

// reject publishes bad rows, as JSON, to the topic beside the sink's.
func (t *topicSink) reject(ctx context.Context, sp span, bads []bad) error {
	if len(bads) == 0 {
		return nil
	}
	topic := t.topic + rejectedTopic
	if err := t.s.deps.Topics.EnsureTopic(ctx, topic, 0); err != nil {
		return err
	}
	msgs := make([]schemas.Message, len(bads))
	for i := range bads {
		b := &bads[i]
		payload, err := json.Marshal(rejectedRow{sp.Partition, b.at.Unit, b.at.Sub, b.skipped, b.kind, b.reason})
		if err != nil {
			return schemas.Errorf(schemas.Internal, "bulk.reject", "%w", err)
		}
		msgs[i] = t.message(topic, rowName(sp, b.at), sp, b.at, schemas.Header{schemas.HeaderContentType: {"application/json"}}, payload)
	}
	_, err := t.s.deps.Publisher.Publish(ctx, msgs)
	return err
}

// rejectedRow is a message of the rejected topic.
type rejectedRow struct {
	Partition int32  `json:"partition"`
	Row       uint64 `json:"row"`
	Part      int32  `json:"part"`
	Skipped   bool   `json:"skipped"`
	Kind      string `json:"kind"`
	Reason    string `json:"reason"`
}

// at moves on when everything that was found behind the stored place is passed: until then the rows that are still to
// be passed must be found again after the next crash.
func (t *topicSink) at() map[int32]uint64 {
	if len(t.there) == 0 {
		t.stored = maps.Clone(t.ends)
	}
	return t.stored
}

func (t *topicSink) counters() Counters           { return t.job.Counters }
func (t *topicSink) commit(context.Context) error { return nil }
func (t *topicSink) abort()                       {}
